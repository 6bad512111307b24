//! The commands as a user meets them: what they print, and how they exit.
//!
//! `tests/cmd/NAME.cmd` holds command lines, `tests/cmd/NAME.snap` what they print on any machine and at any time.
//! `INSTA_UPDATE=always cargo test` writes the snapshots anew. What needs a gateway is below.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use hookward::{
    preset::{self, Provider},
    time::Clock,
};
use tempfile::TempDir;

use crate::running::{Gateway, Running, echo, hookward, run, stdout};

/// Stands in every secret here, as it is and in base64, and must never be shown.
const CANARIES: [&str; 2] = ["canary", "Y2FuYXJ5"];

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
}

fn secret(provider: &str) -> String {
    match provider {
        "standard-webhooks" => "whsec_Y2FuYXJ5LWNhbmFyeS1jYW5hcnk=".to_owned(),
        "gains" => "Bearer canary-of-gains-0123456789".to_owned(),
        name => format!("canary-of-{name}-0123456789"),
    }
}

/// One provider of each kind of proof.
fn few() -> Vec<std::sync::Arc<Provider>> {
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

impl Setup {
    /// Sources send to the upstream `up`; there is another, `other`.
    fn start(up: &str, other: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut configuration = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [upstreams.up]\nurl = \"http://{up}/in\"\n[upstreams.other]\nurl = \"http://{other}/in\"\n"
        );
        for provider in few() {
            let name = &provider.name;
            std::fs::write(directory.path().join(&**name), secret(name) + "\n").expect("written");
            let token = if provider.scheme.credential_place().is_some_and(|place| place.to_string() == "token") {
                "/{token}"
            } else {
                ""
            };
            let _ = write!(
                configuration,
                "[sources.{name}]\nprovider = \"{name}\"\npath = \"/hooks/{name}{token}\"\n\
                 secrets = [{{ file = \"{name}\" }}]\nupstream = \"up\"\n"
            );
        }
        Self { gateway: Gateway::start(directory.path(), &configuration), directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        std::fs::write(self.path(name), content).expect("written");
        self.path(name)
    }

    fn url(&self, provider: &Provider) -> String {
        let token = if provider.scheme.credential_place().is_some_and(|place| place.to_string() == "token") {
            "/{token}"
        } else {
            ""
        };
        format!("http://{}/hooks/{}{token}", self.gateway.public, provider.name)
    }

    /// `hookward COMMAND --provider NAME --secret-file ITS-FILE …`
    fn run(&self, command: &str, provider: &str, more: &[&str]) -> Output {
        let secret = self.path(provider);
        run(hookward().args([command, "--provider", provider, "--secret-file", &secret]).args(more))
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

#[test]
fn what_sign_prints_is_a_command_that_the_gateway_takes_for_every_provider() {
    let (_upstream, address) = echo(&["--quiet"]);
    let setup = Setup::start(&address.to_string(), "127.0.0.1:1");
    for provider in few() {
        let command = printed(&setup.run("sign", &provider.name, &["--url", &setup.url(&provider)]), 0);
        let script = format!("{} --silent --show-error --write-out ' %{{http_code}}'", command.trim_end());
        let answer = printed(&run(Command::new("sh").args(["-euc", &script])), 0);
        assert!(answer.starts_with("{\"status\":\"accepted\"") && answer.ends_with(" 200"), "{script}\n{answer}");
    }
    setup.end();
}

#[test]
fn what_sign_prints_as_json_verifies_and_one_byte_less_does_not() {
    let (_upstream, address) = echo(&["--quiet"]);
    let setup = Setup::start(&address.to_string(), "127.0.0.1:1");
    for provider in few() {
        let name = &*provider.name;
        let json = printed(&setup.run("sign", name, &["--timestamp", "1700000000", "--json"]), 0);
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let mut headers = String::from("POST /hooks HTTP/1.1\r\n");
        for (name, value) in json["headers"].as_object().expect("an object") {
            let _ = write!(headers, "{name}: {}\r\n", value.as_str().expect("text"));
        }
        let body = json["body"].as_str().expect("text");
        let place = provider.scheme.credential_place().map(ToString::to_string);
        let credential = |secret: &str| match place.as_deref() {
            Some("token") => (headers.clone(), secret.to_owned()),
            Some("header:authorization") => (format!("{headers}authorization: {secret}\r\n"), String::new()),
            Some(other) => panic!("{other} is not tried here"),
            None => (headers.clone(), String::new()),
        };
        let verify = |secret: &str, body: &str| {
            let (headers, token) = credential(secret);
            let headers = setup.write("captured.headers", headers.as_bytes());
            let (body, token) = (setup.write("captured.body", body.as_bytes()), setup.write("token", token.as_bytes()));
            let mut more = vec!["--headers", &headers, "--body", &body, "--now", "1700000060"];
            if place.as_deref() == Some("token") {
                more.extend(["--token", &token]);
            }
            setup.run("verify", name, &more)
        };

        let shown = printed(&verify(&secret(name), body), 0);
        let origin = format!("file {}", setup.path(name));
        assert!(shown.contains(&format!("{origin} with no. 1")), "{shown}");
        assert!(shown.contains(": matches\nverdict     authentic"), "{shown}");

        // Signed bytes, or the credential of those that sign nothing.
        let shown = printed(&verify("another-secret-than-that", &body[..body.len() - 1]), 1);
        assert!(shown.contains(&format!("{origin} with no. 1")), "{shown}");
        assert!(shown.contains(": does not match\nverdict     refused"), "{shown}");
    }
    setup.end();
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
    let file = setup.write("second.toml", text.as_bytes());
    let second = error(&run(hookward().args(["serve", "-c", &file])), 1);
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
    let Setup { gateway, directory } = setup;
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
