//! The commands as a user meets them: what they print, and how they exit.
//!
//! `tests/cmd/NAME.cmd` holds command lines, `tests/cmd/NAME.snap` what they print on any machine and at any time.
//! `INSTA_UPDATE=always cargo test` writes the snapshots anew. What needs a gateway is below.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use base64ct::{Base64, Encoding as _};
use hookward::{
    preset::{self, Provider},
    time::Clock,
    verify::{
        KeyFormat, KeyKind, encode_hex,
        public::{self, PrivateKey, PublicFormat},
    },
};
use tempfile::TempDir;

use crate::running::{Gateway, Running, echo, hookward, run, stdout};

/// Stands in every secret here, as it is, in base64 and in hexadecimal, and must never be shown.
const CANARIES: [&str; 3] = ["canary", "Y2FuYXJ5", "63616e617279"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("what is printed is text")
}

#[track_caller]
fn assert_no_secret(text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "a secret is shown in:\n{text}");
    }
}

/// Standard output of a command that exits with this code; neither it nor standard error shows a secret.
#[track_caller]
fn printed(output: &Output, code: i32) -> String {
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert_no_secret(&out);
    assert_no_secret(&errors);
    assert_eq!(output.status.code(), Some(code), "{out}{errors}");
    out
}

#[track_caller]
fn error(output: &Output, code: i32) -> String {
    printed(output, code);
    text(&output.stderr)
}

// ---- transcripts ---------------------------------------------------------------------------------------------------

fn transcripts() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cmd");
    let files = std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it can be listed").path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "cmd"));
    let name = |path: &PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let mut all: Vec<_> = files.map(|path| (name(&path), std::fs::read_to_string(&path).expect("text"))).collect();
    all.sort();
    all
}

/// The words of a command line; a word in single quotes may have spaces.
fn words(line: &str) -> Vec<String> {
    let quoted = line.split('\'').enumerate();
    let words = quoted.flat_map(|(i, part)| match i % 2 {
        0 => part.split_whitespace().map(ToOwned::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

#[test]
fn commands_print_what_is_recorded() {
    for (name, lines) in transcripts() {
        let mut transcript = String::new();
        for line in lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let words = words(line);
            assert_eq!(words[0], "hookward", "{name}: {line}");
            let output = run(hookward().args(&words[1..]).current_dir(env!("CARGO_MANIFEST_DIR")));
            let code = output.status.code().expect("it exits");
            let (out, errors) = (text(&output.stdout), text(&output.stderr));
            assert_no_secret(&out);
            assert_no_secret(&errors);
            let _ = write!(transcript, "$ {line}\n{out}");
            for line in errors.lines() {
                let _ = writeln!(transcript, "{}", format!("! {line}").trim_end());
            }
            let _ = writeln!(transcript, "= exit {code}\n");
        }
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../cmd");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, transcript));
    }
}

/// The commands that a help text lists.
fn listed(arguments: &[&str]) -> Vec<String> {
    let help = stdout(&run(hookward().args(arguments).arg("--help")));
    let section = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(ToOwned::to_owned).collect()
}

#[test]
fn the_help_of_every_command_is_recorded_and_has_an_example() {
    let recorded: BTreeSet<String> =
        transcripts().iter().flat_map(|(_, lines)| lines.lines().map(ToOwned::to_owned).collect::<Vec<_>>()).collect();
    let commands = listed(&[]);
    assert!(commands.len() >= 10);
    for command in commands {
        let below = listed(&[&command]).into_iter().map(|name| vec![command.clone(), name]);
        for path in std::iter::once(vec![command.clone()]).chain(below) {
            let line = format!("hookward {} --help", path.join(" "));
            assert!(recorded.contains(&line), "`{line}` is not in tests/cmd");
            let help = stdout(&run(hookward().args(&path).arg("--help")));
            assert!(help.contains("Example"), "`{line}` shows no example");
            assert!(help.contains(&format!("\n  hookward {}", path.join(" "))), "`{line}` shows another example");
        }
    }
}

// ---- a gateway -----------------------------------------------------------------------------------------------------

/// A gateway with a source for every provider that ships, and files with their secrets.
struct Setup {
    gateway: Gateway,
    directory: TempDir,
    files: Files,
}

/// What commands need to know of it, on any thread.
struct Files {
    directory: PathBuf,
    public: SocketAddr,
}

impl Deref for Setup {
    type Target = Files;
    fn deref(&self) -> &Files {
        &self.files
    }
}

/// A secret as the provider would show it; of another number, another one.
fn secret(provider: &Provider, number: usize) -> String {
    let text = format!("canary-{number}-of-{}-0123456789", provider.name);
    match provider.key_format {
        KeyFormat::Hex => encode_hex(text.as_bytes()),
        KeyFormat::Base64 | KeyFormat::Whsec => Base64::encode_string(text.as_bytes()),
        _ if &*provider.name == "gains" => format!("Bearer {text}"),
        _ if place(provider).as_deref() == Some("basic") => format!("user:{text}"),
        _ => text,
    }
}

/// Where a provider that signs nothing shows its secret.
fn place(provider: &Provider) -> Option<String> {
    provider.scheme.credential_place().map(ToString::to_string)
}

/// One private key of each kind: making one of RSA takes long.
fn private_keys() -> BTreeMap<String, PrivateKey> {
    let kinds = [public::KeyKind::Ed25519, public::KeyKind::P256, public::KeyKind::Rsa];
    kinds.into_iter().map(|kind| (kind.to_string(), PrivateKey::generate(kind, &mut rand::rng()))).collect()
}

fn public_kind(provider: &Provider) -> Option<String> {
    match provider.scheme.key_kind() {
        Some(KeyKind::Public(kind)) => Some(kind.to_string()),
        _ => None,
    }
}

/// One provider of each kind of proof.
fn few() -> Vec<Arc<Provider>> {
    let names = [
        "gains",
        "github",
        "mobility-work",
        "partssource",
        "price2b",
        "shopify",
        "slack",
        "sourcehub",
        "standard-webhooks",
        "stripe",
    ];
    names.into_iter().map(|name| preset::find(name).expect("it ships")).collect()
}

/// Where paths begin for all providers.
const PUBLIC_URL: &str = "https://hooks.example.com";

fn params(provider: &Provider) -> impl Iterator<Item = (&String, String)> {
    provider.params.keys().map(|key| (key, format!("{key}-of-{}", provider.name)))
}

impl Setup {
    /// Sources send to the upstream `up`; there is another, `other`.
    fn start(up: &str, other: &str) -> Self {
        Self::of(&few(), up, other)
    }

    /// A source for each: its secret in a file of its name, or a public key, with the private one in `KIND.pem`.
    fn of(providers: &[Arc<Provider>], up: &str, other: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
        let mut configuration = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\npublic_url = \"{PUBLIC_URL}\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\
             [upstreams.up]\nurl = \"http://{up}/in\"\n[upstreams.other]\nurl = \"http://{other}/in\"\n"
        );
        let needs_pairs = providers.iter().any(|provider| public_kind(provider).is_some());
        let pairs = if needs_pairs { private_keys() } else { BTreeMap::new() };
        for (kind, key) in &pairs {
            write(&format!("{kind}.pem"), &key.to_pem());
        }
        for provider in providers {
            let name = &provider.name;
            let shown = match public_kind(provider) {
                Some(kind) => {
                    let format = provider.key_format.name();
                    let format = PublicFormat::ALL.into_iter().find(|(name, _)| *name == format).expect("a format").1;
                    pairs[&kind].public().text(format).expect("a key of the right kind")
                }
                None => secret(provider, 1),
            };
            write(name, &(shown + "\n"));
            let token = if place(provider).as_deref() == Some("token") { "/{token}" } else { "" };
            let _ = write!(
                configuration,
                "[sources.{name}]\nprovider = \"{name}\"\npath = \"/hooks/{name}{token}\"\n\
                 secrets = [{{ file = \"{name}\" }}]\nallow_shared_secret = {}\nupstream = \"up\"\n",
                public_kind(provider).is_some()
            );
            if !provider.params.is_empty() {
                let params = params(provider).map(|(key, value)| format!("{key} = \"{value}\"")).collect::<Vec<_>>();
                let _ = writeln!(configuration, "params = {{ {} }}", params.join(", "));
            }
        }
        let gateway = Gateway::start(directory.path(), &configuration);
        let files = Files { directory: directory.path().to_owned(), public: gateway.public };
        Self { gateway, directory, files }
    }

    /// Sends one body as a provider; exit code 0, so it was taken.
    fn send(&self, provider: &str, body: &str) -> String {
        let body = self.write("body-to-send", body.as_bytes());
        let url = self.url(&preset::find(provider).expect("it ships"));
        printed(&self.run("send", provider, &["--url", &url, "--body", &body]), 0)
    }

    /// The ids of the events in this state, newest first.
    fn ids(&self, state: &str) -> Vec<String> {
        let page = self.gateway.json(&["events", "list", "--state", state]);
        let events = page["events"].as_array().expect("a list");
        events.iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// The log shows no secret either, and nothing in it needs a person.
    fn end(self) {
        let (code, log) = self.gateway.end();
        assert_eq!(code, Some(0), "{log}");
        assert_no_secret(&log);
        assert!(!log.contains("ERROR"), "{log}");
    }
}

impl Files {
    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        std::fs::write(self.path(name), content).expect("written");
        self.path(name)
    }

    fn url(&self, provider: &Provider) -> String {
        let token = if place(provider).as_deref() == Some("token") { "/{token}" } else { "" };
        format!("http://{}/hooks/{}{token}", self.public, provider.name)
    }

    /// `hookward COMMAND --provider NAME --secret-file ITS-FILE …`, with a private key where it signs with one.
    fn run(&self, command: &str, provider: &str, more: &[&str]) -> Output {
        let provider = preset::find(provider).expect("it ships");
        let mut whole = hookward();
        whole.args([command, "--provider", &provider.name]).args(more);
        whole.args(params(&provider).map(|(key, value)| format!("--param={key}={value}")));
        match public_kind(&provider) {
            Some(kind) if command != "verify" => whole.args(["--private-key", &self.path(&format!("{kind}.pem"))]),
            _ => whole.args(["--secret-file", &self.path(&provider.name)]),
        };
        if command != "verify" && provider.scheme.needs_url() {
            whole.args(["--public-url", PUBLIC_URL]);
        }
        run(&mut whole)
    }
}

/// Does something for each of them, several at a time.
fn for_each(providers: &[Arc<Provider>], what: impl Fn(&Provider) + Sync) {
    std::thread::scope(|scope| {
        for some in providers.chunks(providers.len().div_ceil(4)) {
            let what = &what;
            scope.spawn(move || some.iter().for_each(|provider| what(provider)));
        }
    });
}

#[test]
fn what_sign_prints_is_a_command_that_the_gateway_takes_for_every_provider() {
    let (_upstream, address) = echo(&["--quiet"]);
    let all = preset::all();
    let setup = Setup::of(&all, &address.to_string(), "127.0.0.1:1");
    let files = &*setup;
    for_each(&all, |provider| {
        let url = files.url(provider);
        let command = printed(&files.run("sign", &provider.name, &["--url", &url]), 0);
        let script = format!("{} --silent --show-error --write-out ' %{{http_code}}'", command.trim_end());
        let answer = printed(&run(Command::new("sh").args(["-euc", &script])), 0);
        let said = provider.sender.ack_body.as_deref().unwrap_or("{\"status\":\"accepted\"");
        assert!(answer.starts_with(said) && answer.ends_with(" 200"), "{script}\n{answer}");
        // The same by the other command, where more than headers is signed or added: a duplicate is taken, too.
        let description = provider.scheme.description();
        if !provider.scheme.is_signed() || description.headers.is_empty() || provider.scheme.needs_url() {
            let sent = printed(&files.run("send", &provider.name, &["--url", &url]), 0);
            assert!(sent.contains(": 1 x 200\n"), "{}: {sent}", provider.name);
        }
    });
    setup.end();
}

/// What `sign --json` prints, as it would be captured.
struct Captured {
    head: String,
    token: Option<String>,
    body: String,
    url: String,
}

impl Captured {
    fn of(json: &str, provider: &Provider, secret: &str) -> Self {
        let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let text = |key: &str| json[key].as_str().expect("text");
        let mut captured = Self {
            head: format!("{} /hooks/{} HTTP/1.1\r\n", text("method"), provider.name),
            token: None,
            body: text("body").to_owned(),
            url: text("public_url").to_owned(),
        };
        let mut header = |name: &str, value: &str| {
            let _ = write!(captured.head, "{name}: {value}\r\n");
        };
        for (name, value) in json["headers"].as_object().expect("an object") {
            header(name, value.as_str().expect("text"));
        }
        let place = place(provider);
        assert_eq!(json["credential"]["place"].as_str(), place.as_deref());
        match place.as_deref().and_then(|place| place.split_once(':')) {
            Some(("header", name)) => header(name, secret),
            Some(("json", _)) => captured.body = captured.body.replace("{secret}", secret),
            Some(other) => panic!("{other:?} is not tried here"),
            None if place.as_deref() == Some("token") => captured.token = Some(secret.to_owned()),
            None if place.is_some() => {
                header("authorization", &format!("Basic {}", Base64::encode_string(secret.as_bytes())));
            }
            None => {}
        }
        captured
    }

    fn verify(&self, setup: &Files, provider: &Provider) -> Output {
        let name = |what: &str| format!("{}.{what}", provider.name);
        let headers = setup.write(&name("headers"), self.head.as_bytes());
        let body = setup.write(&name("body"), self.body.as_bytes());
        let mut more = vec!["--headers", &headers, "--body", &body, "--now", "1700000002", "--url", &self.url];
        let token = self.token.as_ref().map(|token| setup.write(&name("token"), token.as_bytes()));
        if let Some(token) = &token {
            more.extend(["--token", token]);
        }
        setup.run("verify", &provider.name, &more)
    }
}

#[test]
fn what_sign_prints_as_json_verifies_and_one_byte_less_does_not() {
    let all = preset::all();
    let setup = Setup::of(&all, "127.0.0.1:1", "127.0.0.1:1");
    let files = &*setup;
    for_each(&all, |provider| {
        let json = printed(&files.run("sign", &provider.name, &["--timestamp", "1700000000", "--json"]), 0);
        let origin = format!("file {}", files.path(&provider.name));
        let mut captured = Captured::of(&json, provider, &secret(provider, 1));
        let shown = printed(&captured.verify(files, provider), 0);
        assert!(shown.contains(&format!("{origin} with no. 1")), "{shown}");
        assert!(shown.contains(": matches\nverdict     authentic"), "{shown}");

        if !provider.scheme.is_signed() {
            captured = Captured::of(&json, provider, &secret(provider, 2));
        } else if provider.scheme.covers_body() {
            captured.body.pop();
        } else {
            return;
        }
        let shown = printed(&captured.verify(files, provider), 1);
        assert!(shown.contains("verdict     refused: "), "{shown}");
    });
    setup.end();
}

#[test]
fn a_source_of_a_configuration_says_all_that_sign_send_and_verify_need() {
    let (_upstream, address) = echo(&["--quiet"]);
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).expect("written");
        directory.path().join(name).display().to_string()
    };
    file("acme", "canary-of-acme-0123456789");
    let gateway = Gateway::start(
        directory.path(),
        &format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [providers.acme]\nmethods = [\"PUT\"]\nparams = {{ tenant = \"its number\" }}\n\
             [providers.acme.signature]\nheaders = [\"x-acme\"]\ncontent = \"{{param:tenant}}|{{url}}\\n{{body}}\"\n\
             [sources.in]\nprovider = \"acme\"\npath = \"/in\"\npublic_url = \"https://hooks.example.com/acme\"\n\
             params = {{ tenant = \"4711\" }}\nsecrets = [{{ file = \"acme\" }}]\nupstream = \"http://{address}/\"\n"
        ),
    );
    let url = format!("http://{}/in?a=b", gateway.public);
    let configuration = directory.path().join("hookward.toml").display().to_string();
    let source = ["-c", &configuration, "--source", "in"];
    let ask = |command: &str, more: &[&str]| run(hookward().arg(command).args(source).args(more));
    assert!(printed(&ask("send", &["--url", &url]), 0).contains(": 1 x 200\n"));
    let json = printed(&ask("sign", &["--url", &url, "--json"]), 0);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["method"], &json["public_url"]), (&"PUT".into(), &"https://hooks.example.com/acme?a=b".into()));
    let signature = json["headers"]["x-acme"].as_str().expect("a signature");
    let body = file("captured.body", json["body"].as_str().expect("a body"));
    let verify = |path: &str| {
        let headers = file("captured.headers", &format!("PUT {path} HTTP/1.1\nx-acme: {signature}\n"));
        ask("verify", &["--headers", &headers, "--body", &body])
    };
    assert!(printed(&verify("/in?a=b"), 0).contains("verdict     authentic"));
    assert!(printed(&verify("/in?a=c"), 1).contains("refused: signature_mismatch"));

    let unknown = run(hookward().args(["sign", "-c", &configuration, "--source", "out"]));
    assert!(error(&unknown, 1).contains("has no source `out`; it has: in"));
    let wrong = file("wrong.toml", "[sources.in]\n");
    let wrong = run(hookward().args(["send", "-c", &wrong, "--source", "in", "-u", &url]));
    assert!(error(&wrong, 78).contains("is not usable"));
    let (code, log) = gateway.end();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_new_key_is_written_once_and_its_public_half_verifies() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let sign = |more: &[&str]| run(hookward().args(["sign", "-p", "discord", "--json"]).args(more));
    let made = sign(&["--new-key", &path("new.pem")]);
    let (json, said) = (printed(&made, 0), text(&made.stderr));
    let public = said.lines().last().expect("the key").to_owned();
    assert!(public.len() == 64 && said.contains("Put this into the source's secrets"), "{said}");
    let private = std::fs::read(path("new.pem")).expect("it is there");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(path("new.pem")).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let headers = json["headers"].as_object().expect("an object").iter();
    let headers: Vec<_> = headers.map(|(name, value)| format!("{name}: {}\n", value.as_str().expect("text"))).collect();
    std::fs::write(path("headers"), headers.concat()).expect("written");
    std::fs::write(path("body"), json["body"].as_str().expect("text")).expect("written");
    std::fs::write(path("public"), &public).expect("written");
    let more = ["--headers", &path("headers"), "--body", &path("body")];
    let verify = |key: &str| run(hookward().args(["verify", "-p", "discord", "--public-key", &path(key)]).args(more));
    assert!(printed(&verify("public"), 0).contains("verdict     authentic"));
    assert_eq!(verify("new.pem").status.code(), Some(1));

    // It is never written over, and it signs again.
    assert!(error(&sign(&["--new-key", &path("new.pem")]), 1).contains("failed to write a new private key"));
    assert_eq!(std::fs::read(path("new.pem")).expect("it is there"), private);
    printed(&sign(&["--private-key", &path("new.pem")]), 0);
}

#[test]
fn the_schema_is_printed_as_it_ships() {
    let schema = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/preset/SCHEMA.md")).expect("text");
    assert_eq!(stdout(&run(hookward().args(["providers", "--schema"]))), schema);
}

#[test]
fn send_counts_what_was_answered_and_fails_if_anything_was_refused() {
    let (upstream, address) = echo(&["--json"]);
    let setup = Setup::start(&address.to_string(), "127.0.0.1:1");
    let body = setup.write("numbered", b"{\"id\":\"evt_<n>\"}");
    let url = setup.url(&preset::find("price2b").expect("it ships"));
    let send = |more: &[&str]| setup.run("send", "price2b", &[&["--url", &url, "--body", &body][..], more].concat());

    let json = printed(&send(&["--count", "5", "--numbered", "--rate", "1000", "--json"]), 0);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["sent"], &json["results"]), (&5.into(), &serde_json::json!({ "200": 5 })));
    // One body for all is one event. (A copy signed in another second is a re-send: it is not forwarded either.)
    let shown = printed(&send(&["--count", "3"]), 0);
    assert!(shown.starts_with("3 sent in ") && shown.contains(": 3 x 200\n"), "{shown}");

    let status = setup.gateway.settled();
    let up = status["upstreams"].as_array().expect("a list").iter().find(|upstream| upstream["name"] == "up");
    assert_eq!(up.expect("it is configured")["delivered"], 6, "{status:#}");
    // A copy is counted a moment after it was answered.
    setup.gateway.json_once(&["events", "list", "--limit", "1"], |page| page["events"][0]["copies"] == 2);

    let wrong = setup.write("wrong", b"canary-of-nothing-at-all");
    let refused = hookward()
        .args(["send", "-p", "price2b", "--secret-file", &wrong, "-u", &url, "-b", &body])
        .output()
        .expect("it runs");
    let shown = printed(&refused, 1);
    assert!(shown.contains(": 1 x 401\n") && shown.contains("could not be authenticated"), "{shown}");
    let nowhere = ["--url", "http://127.0.0.1:1/", "--body", &body];
    assert!(printed(&setup.run("send", "price2b", &nowhere), 1).contains("1 x connection refused"));

    let (_, received, totals) = upstream.end("INT");
    assert!(totals.ends_with("6 requests, 6 events, 0 of them again"), "{totals}");
    let lines: Vec<serde_json::Value> =
        received.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect();
    let bodies: BTreeSet<_> = lines.iter().map(|line| line["preview"].as_str().expect("text")).collect();
    assert_eq!(bodies.len(), 6, "{bodies:?}");
    assert_eq!(lines[0]["headers"]["hookward-source"], "price2b");
    setup.end();
}

#[test]
fn a_dead_letter_is_found_shown_and_sent_elsewhere() {
    let (broken, broken_address) = echo(&["--quiet", "--status", "410"]);
    let (fine, fine_address) = echo(&["--quiet"]);
    let setup = Setup::start(&broken_address.to_string(), &fine_address.to_string());
    let body = "{\"id\":\"evt_1\",\r\n \"text\":\"\u{e9}\"}";
    setup.send("partssource", body);
    setup.send("github", "{\"id\":2}");
    setup.gateway.settled();

    let ids = setup.ids("dead");
    assert_eq!(ids.len(), 2);
    let id = &ids[1];
    let ask = |arguments: &[&str]| setup.gateway.ask(arguments);
    let list = printed(&ask(&["events", "list", "--state", "dead", "--source", "partssource"]), 0);
    assert!(list.contains(id.as_str()) && list.contains("up dead (status 410)") && !list.contains(&ids[0]), "{list}");
    let shown = printed(&ask(&["events", "show", id]), 0);
    assert!(shown.contains("up  dead: status 410") && shown.contains("  410"), "{shown}");
    assert_eq!(printed(&ask(&["events", "show", id, "--body"]), 0), body);
    let status = printed(&ask(&["status"]), 0);
    assert!(status.contains("2 dead: `hookward events list --state dead` shows them"), "{status}");

    let done = printed(&ask(&["events", "redeliver", id, "--to", "other"]), 0);
    assert_eq!(done, "1 delivery due again\n");
    setup.gateway.settled();
    let shown = printed(&ask(&["events", "show", id]), 0);
    assert!(shown.contains("other  delivered"), "{shown}");

    // By a filter: a program has to say --yes, and without it nothing happens.
    let filter = ["events", "redeliver", "--state", "dead", "--upstream", "up"];
    let asked = error(&ask(&filter), 1);
    assert!(asked.contains("2 matching events") && asked.contains("say --yes"), "{asked}");
    let done = printed(&ask(&[&filter[..], &["--yes"]].concat()), 0);
    assert!(done.contains("100 %: 2 changed, 0 skipped, of 2\n"), "{done}");
    setup.gateway.settled();
    let (_, _, totals) = broken.end("INT");
    assert!(totals.ends_with("4 requests, 2 events, 2 of them again"), "{totals}");
    let (_, _, totals) = fine.end("INT");
    assert!(totals.ends_with("1 requests, 1 events, 0 of them again"), "{totals}");

    let unknown = ask(&["events", "show", "01960000-0000-7000-8000-000000000001"]);
    assert!(error(&unknown, 1).starts_with("hookward: "));
    assert!(error(&ask(&["events", "list", "--state", "ded"]), 1).contains("dead"));
    assert_eq!(printed(&ask(&["events", "purge", id, "--yes"]), 0), format!("{id}: purged\n"));
    assert_eq!(setup.ids("dead").len(), 1);
    setup.end();
}

#[test]
fn what_is_held_is_released_and_what_is_forgotten_comes_again() {
    let (upstream, address) = echo(&["--quiet"]);
    let setup = Setup::start(&address.to_string(), "127.0.0.1:1");
    let provider = preset::find("price2b").expect("it ships");
    let ask = |arguments: &[&str]| setup.gateway.ask(arguments);

    let long_ago = (Clock::system().wall().unix_s() - 200_000).to_string();
    let command =
        printed(&setup.run("sign", "price2b", &["--url", &setup.url(&provider), "--timestamp", &long_ago]), 0);
    let answer = printed(&run(Command::new("sh").args(["-euc", &format!("{} --silent", command.trim_end())])), 0);
    assert!(answer.contains("accepted"), "{answer}");
    let held = setup.ids("held");
    assert_eq!(held.len(), 1);
    let list = printed(&ask(&["events", "list", "--state", "held"]), 0);
    assert!(list.contains("up held (stale)"), "{list}");
    assert!(printed(&ask(&["status"]), 0).contains("1 held: "));
    let released = printed(&ask(&["events", "release", &held[0]]), 0);
    assert_eq!(released, format!("{}: 1 delivery released\n", held[0]));
    setup.gateway.settled();
    assert_eq!(setup.ids("delivered"), held);

    assert!(setup.send("github", "{\"n\":1}").contains("\"accepted\""));
    assert!(setup.send("github", "{\"n\":1}").contains("\"duplicate\""));
    setup.gateway.settled();
    let id = setup.ids("delivered")[0].clone();
    let forgotten = printed(&ask(&["events", "forget", &id]), 0);
    assert!(forgotten.starts_with(&format!("{id}: ")) && forgotten.contains(" freed"), "{forgotten}");
    assert!(setup.send("github", "{\"n\":1}").contains("\"accepted\""));
    setup.gateway.settled();
    let (_, _, totals) = upstream.end("INT");
    assert!(totals.ends_with("3 requests, 3 events, 0 of them again"), "{totals}");
    setup.end();
}

#[test]
fn a_gateway_that_cannot_start_says_why_and_exits_1() {
    let setup = Setup::start("127.0.0.1:1", "127.0.0.1:1");
    // On the ports of the other, and on its store.
    let text = std::fs::read_to_string(setup.path("hookward.toml")).expect("text");
    // It waits for as long as its own drain may take.
    let hasty = text.replacen("[server]", "[server]\ndrain_timeout = \"0s\"", 1);
    let file = setup.write("second.toml", hasty.as_bytes());
    let second = error(&run(hookward().args(["serve", "-c", &file])), 1);
    assert!(second.contains("waits up to 10s for the other hookward (process "), "{second}");
    assert!(second.contains("failed to open the store"), "{second}");
    let busy = text.replacen("127.0.0.1:0", &setup.gateway.public.to_string(), 1);
    let file = setup.write("second.toml", busy.as_bytes());
    let second = error(&run(hookward().args(["serve", "-c", &file])), 1);
    assert!(second.contains("failed to listen on") && second.contains("server.listen"), "{second}");
    setup.end();
}

#[test]
fn a_second_signal_ends_what_is_still_draining() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("hookward.toml");
    let text = "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"10m\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                [sources.github]\nprovider = \"github\"\nsecrets = [{ value = \"canary-canary-canary\" }]\n\
                upstream = \"http://127.0.0.1:1/\"\n";
    std::fs::write(&file, text).expect("written");
    let gateway = Running::start(hookward().arg("serve").arg("-c").arg(&file));
    gateway.line_with("listening listener=admin");
    gateway.signal("TERM");
    gateway.line_with("draining");
    let (code, out, log) = gateway.end("TERM");
    assert_eq!((code, out.as_str()), (Some(1), ""), "{log}");
    assert_no_secret(&log);
}

#[test]
fn the_log_begins_with_what_a_start_takes_and_what_its_store_survives() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                [store]\ndurability = \"os\"\n[sources.github]\nprovider = \"github\"\n\
                secrets = [{ value = \"canary-canary-canary\" }]\nupstream = \"http://127.0.0.1:1/\"\n";
    let gateway = Gateway::start(directory.path(), text);
    let file = directory.path().join("hookward.toml");
    let checked = stdout(&run(hookward().args(["check", "-c"]).arg(file)));
    let sum = checked.lines().find_map(|line| line.trim().strip_prefix("sum ")).expect("a sum");
    let sum = sum.split_whitespace().next().expect("it is said first");
    let (_, log) = gateway.end();
    let line = |what: &str| log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {log}"));
    assert!(line(": memory: ").contains(&format!("sum={sum} memory_max=1GiB")), "{sum}: {log}");
    assert!(line(": store: ").contains("os: survives a crash, not a power cut"), "{log}");
}

#[test]
fn what_verify_says_of_a_damaged_store_can_be_typed() {
    let (_upstream, address) = echo(&["--quiet"]);
    let setup = Setup::start("127.0.0.1:1", &address.to_string());
    setup.send("github", "{\"n\":\"to-be-damaged\"}");
    let configuration = setup.path("hookward.toml");
    let backup = setup.path("whole.db");
    printed(&run(hookward().args(["store", "backup", "-c", &configuration, "--to", &backup])), 0);
    let Setup { gateway, directory, .. } = setup;
    gateway.end();
    let store = directory.path().join("hookward-data/hookward.db");
    let mut bytes = std::fs::read(&store).expect("it is there");
    let at = bytes.windows(13).position(|window| window == b"to-be-damaged").expect("the body is stored as it came");
    bytes[at] ^= 1;
    std::fs::write(&store, &bytes).expect("written");
    std::fs::copy(&store, directory.path().join("damaged.db")).expect("copied");
    let verify = |arguments: &[&str]| run(hookward().args(["store", "verify"]).args(arguments).current_dir(&directory));

    // Of a store: by the words that it says, with a backup for BACKUP.
    let shown = printed(&verify(&["-c", "hookward.toml"]), 1);
    let command = "hookward store restore BACKUP -c hookward.toml --force";
    assert!(shown.contains(&format!("`{command}`")), "{shown}");
    let typed = command.replace("BACKUP", "whole.db");
    printed(&run(hookward().args(typed.split(' ').skip(1)).current_dir(&directory)), 0);
    assert!(printed(&verify(&["-c", "hookward.toml"]), 0).contains("is whole"));

    // Of a copy, which no gateway serves.
    let shown = printed(&verify(&["--path", "damaged.db"]), 1);
    let command = "hookward store restore BACKUP --path DIRECTORY --accept-damage";
    assert!(shown.contains(&format!("`{command}`")) && !shown.contains("purge"), "{shown}");
    let typed = command.replace("BACKUP", "damaged.db").replace("DIRECTORY", "elsewhere");
    let shown = printed(&run(hookward().args(typed.split(' ').skip(1)).current_dir(&directory)), 0);
    assert!(shown.contains("see `hookward store verify --path elsewhere`"), "{shown}");
    assert_eq!(verify(&["--path", "elsewhere"]).status.code(), Some(1));
}
