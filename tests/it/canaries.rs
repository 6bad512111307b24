//! Canaries: every place of a configuration that takes a secret has one that is found nowhere else. Then everything is
//! done to the real program that makes it talk, and whatever it says is searched: answers, log, metrics, admin API,
//! commands, panics. What it stores and forwards as well. And its memory, where they have to be, is never written down.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
};

use base64ct::{Base64, Encoding as _};
use hookward::{time::Clock, verify::encode_hex};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    running::{Running, hookward, hookward_under, run},
    world::{Reply, Upstream, request, sign, within},
};

/// What must never be seen again, by where it is written.
const FILE: &str = "canary-in-a-file-0001";
const VALUE: &str = "canary-as-a-value-0002";
const VARIABLE: &str = "canary-in-a-variable-0003";
const CREDENTIAL: &str = "canary-in-a-credential-0004";
const TOKEN: &str = "canary-in-the-path-0005";
const BASIC: &str = "canary-user:canary-password-0006";
const BEARER: &str = "Bearer canary-in-a-header-0007";
const HANDSHAKE: &str = "canary-of-a-handshake-0008";
const EXPIRED: &str = "canary-that-expired-0009";
const STORE_KEY: &str = "canary-of-the-store-0010-32bytes";
const SIGNING: &str = "canary-signs-to-upstream-0011";
const UPSTREAM: &str = "Bearer canary-to-upstream-0012";
const OPERATOR: &str = "canary-admin-operates-0013";
const READER: &str = "canary-admin-reads-0014";
const ALL: [&str; 14] = [
    FILE, VALUE, VARIABLE, CREDENTIAL, TOKEN, BASIC, BEARER, HANDSHAKE, EXPIRED, STORE_KEY, SIGNING, UPSTREAM,
    OPERATOR, READER,
];
const BODY: &[u8] = br#"{"id":"evt_1","type":"invoice.paid"}"#;

fn configuration(upstream: &str, format: &str) -> String {
    let base64 = |text: &str| Base64::encode_string(text.as_bytes());
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         tokens = [{{ value = \"{OPERATOR}\", role = \"operate\" }}, {{ value = \"{READER}\", role = \"read\" }}]\n\
         [log]\nformat = \"{format}\"\nlevel = \"trace\"\n\
         [store]\npath = \"data\"\nencryption = [{{ value = \"{}\" }}]\n\
         [upstreams.up]\nurl = \"{upstream}\"\nsigning_secret = {{ value = \"whsec_{}\" }}\n\
         headers = {{ authorization = {{ value = \"{UPSTREAM}\" }} }}\n\
         [sources.file]\nprovider = \"partssource\"\nupstream = \"up\"\nexplain = true\n\
         secrets = [{{ file = \"file.secret\" }}, {{ value = \"{EXPIRED}\", expires_at = 2023-01-01T00:00:00Z }}]\n\
         [sources.value]\nprovider = \"stripe\"\nupstream = \"up\"\nexplain = true\nmode = \"proxy\"\n\
         secrets = [{{ value = \"{VALUE}\" }}]\n\
         [sources.variable]\nprovider = \"slack\"\nupstream = \"up\"\nsecrets = [{{ env = \"CANARY\" }}]\n\
         [sources.credential]\nprovider = \"github\"\nupstream = \"up\"\nmode = \"respond\"\n\
         secrets = [{{ credential = \"hub\" }}]\n\
         [sources.token]\nprovider = \"sourcehub\"\nupstream = \"up\"\npath = \"/hooks/token/{{token}}\"\n\
         secrets = [{{ value = \"{TOKEN}\" }}]\n\
         [sources.basic]\nprovider = \"sourcehub\"\nupstream = \"up\"\nguard = \"basic\"\n\
         secrets = [{{ value = \"{BASIC}\" }}]\n\
         [sources.bearer]\nprovider = \"gains\"\nupstream = \"up\"\nsecrets = [{{ value = \"{BEARER}\" }}]\n\
         [sources.x]\nprovider = \"x\"\nupstream = \"up\"\nsecrets = [{{ value = \"{HANDSHAKE}\" }}]\n",
        base64(STORE_KEY),
        base64(SIGNING),
    )
}

/// The files that the configuration names, and itself.
fn write_site(home: &Path, upstream: &str, format: &str) {
    fs::create_dir_all(home.join("credentials")).expect("a directory");
    for (name, text) in
        [("file.secret", FILE), ("credentials/hub", CREDENTIAL), ("operator", OPERATOR), ("hookward.toml", "")]
    {
        fs::write(home.join(name), text).expect("written");
    }
    fs::write(home.join("hookward.toml"), configuration(upstream, format)).expect("written");
}

fn with_secrets(mut command: Command, home: &Path) -> Command {
    command.current_dir(home).env("CANARY", VARIABLE).env("CREDENTIALS_DIRECTORY", home.join("credentials"));
    command
}

/// The program, with its log at its most talkative.
struct Site {
    process: Running,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Site {
    fn start(command: Command, home: &Path) -> Self {
        let mut command = with_secrets(command, home);
        let process = Running::start(command.args(["serve", "-c", "hookward.toml"]));
        // In either format of the log.
        let of = |listener: &str| -> SocketAddr {
            let mut line = process.line_with("listening");
            while !line.contains(listener) {
                line = process.line_with("listening");
            }
            let address = line.rsplit_once("address").expect("it says where").1.trim_start_matches(['"', '=', ':']);
            let end = address.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(address.len());
            address[..end].parse().expect("an address")
        };
        let (public, admin) = (of("public"), of("admin"));
        Self { process, public, admin }
    }

    async fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> Reply {
        let authorization = format!("Bearer {token}");
        let lines = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        request(self.admin, method, path, &lines, body.as_bytes()).await
    }
}

/// Everything that was said, each with where.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn add(&mut self, place: impl Into<String>, said: impl Into<Vec<u8>>) {
        // Secrets are ASCII, and stay what they are.
        self.0.push((place.into(), String::from_utf8_lossy(&said.into()).into_owned()));
    }

    fn reply(&mut self, place: impl Into<String>, reply: &Reply) {
        self.add(place, [reply.head.as_bytes(), &reply.body].concat());
    }

    fn command(&mut self, command: &mut Command) {
        let output = run(command);
        self.add(format!("{command:?}").replace(VARIABLE, ""), [output.stdout, output.stderr].concat());
    }

    /// Every file below a directory.
    fn files(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                self.files(&path);
            } else {
                self.add(path.display().to_string(), fs::read(&path).expect("readable"));
            }
        }
    }

    /// Fails the test if a secret is in it, as it is, or in one of its usual forms.
    fn assert_silent_on(&self, secrets: &[&str]) {
        for secret in secrets {
            let bytes = secret.as_bytes();
            let bare = secret.strip_prefix("Bearer ").unwrap_or(secret);
            let list = format!("{bytes:?}");
            let forms = [
                bare.to_owned(),
                Base64::encode_string(bytes).trim_end_matches('=').to_owned(),
                encode_hex(bytes),
                // As `Debug` shows bytes.
                list.trim_matches(['[', ']']).to_owned(),
            ];
            for (place, text) in &self.0 {
                for form in &forms {
                    let around = text.find(form).map(|at| text.split_at(at).0.lines().next_back().unwrap_or_default());
                    assert!(around.is_none(), "{secret} is in {place}, behind {around:?}");
                }
            }
        }
    }
}

type Headers = Vec<(String, String)>;
/// Paths, each with the headers of what is sent there.
type Requests = Vec<(String, Headers)>;

/// Requests to each source: a proof by this secret, or none.
fn to_sources(of: impl Fn(&'static str) -> String, now_s: i64) -> Requests {
    let basic = format!("Basic {}", Base64::encode_string(of(BASIC).as_bytes()));
    let header = |value: String| vec![("authorization".to_owned(), value)];
    vec![
        ("/hooks/file".to_owned(), sign("partssource", &of(FILE), BODY, now_s)),
        ("/hooks/value".to_owned(), sign("stripe", &of(VALUE), BODY, now_s)),
        ("/hooks/variable".to_owned(), sign("slack", &of(VARIABLE), BODY, now_s)),
        ("/hooks/credential".to_owned(), sign("github", &of(CREDENTIAL), BODY, now_s)),
        (format!("/hooks/token/{}", of(TOKEN)), Vec::new()),
        ("/hooks/basic".to_owned(), header(basic)),
        ("/hooks/bearer".to_owned(), header(of(BEARER))),
        ("/hooks/x".to_owned(), sign("x", &of(HANDSHAKE), BODY, now_s)),
    ]
}

async fn talk(site: &Site, said: &mut Said) {
    let now_s = Clock::system().wall().unix_s();
    let genuine = to_sources(str::to_owned, now_s);
    let mut sent: Vec<(&str, u16, Requests)> = vec![
        ("genuine", 200, genuine.clone()),
        ("copied", 200, genuine.clone()),
        ("by another secret", 401, to_sources(|secret| format!("{}-not", secret.replace("canary", "wrong")), now_s)),
        // A secret that was right once: explain says so.
        ("by an old secret", 401, vec![("/hooks/file".to_owned(), sign("partssource", EXPIRED, BODY, now_s))]),
        ("stale", 401, vec![("/hooks/value".to_owned(), sign("stripe", VALUE, BODY, now_s - 9_000))]),
        // The secret itself where a signature should be: people do that.
        (
            "the secret as its signature",
            401,
            vec![
                ("/hooks/value".to_owned(), vec![("stripe-signature".to_owned(), format!("t={now_s},v1={VALUE}"))]),
                ("/hooks/file".to_owned(), vec![("x-ps-signature".to_owned(), format!("sha256={FILE}"))]),
            ],
        ),
        ("at no source", 404, vec![(format!("/hooks/{TOKEN}"), Vec::new())]),
    ];
    let none = genuine.iter().filter(|(path, _)| !path.contains("token")).map(|(path, _)| (path.clone(), Vec::new()));
    sent.push(("unsigned", 401, none.collect()));
    for (kind, status, requests) in sent {
        for (path, headers) in requests {
            let lines: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let reply = request(site.public, "POST", &path, &lines, BODY).await;
            assert_eq!(reply.status, status, "{kind} {path}: {}", reply.text());
            said.reply(format!("the answer to what was {kind}, to {path}"), &reply);
        }
    }
    let huge = vec![b'x'; 2 << 20];
    let (_, headers) = &genuine[0];
    let lines: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    said.reply("the answer to a huge body", &request(site.public, "POST", "/hooks/file", &lines, &huge).await);
    said.reply("the answer to PATCH", &request(site.public, "PATCH", "/hooks/file", &lines, BODY).await);
    said.reply("a handshake", &request(site.public, "GET", "/hooks/x?crc_token=abc", &[], b"").await);
    for bytes in [
        format!("GET {TOKEN}\r\n\r\n"),
        format!("POST /hooks/basic HTTP/1.1\r\nauthorization: Basic {BASIC}\r\n bad\r\n\r\n"),
        format!("\u{16}\u{3}\u{1}{VALUE}"),
        format!("POST /hooks/token/{TOKEN} HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{TOKEN}"),
    ] {
        let answer = exchange(site.public, bytes.as_bytes(), true).await;
        said.add("the answer to garbage", answer);
    }
}

/// All that comes back on a connection that the gateway closes.
async fn exchange(to: SocketAddr, bytes: &[u8], is_all: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    stream.write_all(bytes).await.expect("it is read");
    let mut answer = Vec::new();
    if is_all {
        stream.shutdown().await.expect("it is open");
    }
    // It may be reset: then that is the answer.
    let _ = within("an end", stream.read_to_end(&mut answer)).await;
    answer
}

async fn look(site: &Site, said: &mut Said) {
    let events = site.ask("GET", "/api/v1/events", READER, "").await.json();
    let ids: Vec<_> = events["events"].as_array().expect("a list").iter().map(|event| event["id"].clone()).collect();
    assert!(ids.len() >= 7, "{events:#}");
    let id = ids[0].as_str().expect("an id");
    let paths =
        ["/metrics", "/readyz", "/api/v1/status", "/api/v1/openapi.json", "/api/v1/events", "/api/v1/operations"];
    let more = ["file", "value"].map(|source| format!("/api/v1/sources/{source}/failures"));
    let of_events = ids.iter().filter_map(|id| id.as_str()).map(|id| format!("/api/v1/events/{id}"));
    let all: Vec<_> = paths.map(str::to_owned).into_iter().chain(more).chain(of_events).collect();
    for path in &all {
        for token in [OPERATOR, READER, "wrong-token-0000000000", &OPERATOR[..OPERATOR.len() - 1]] {
            let reply = site.ask("GET", path, token, "").await;
            assert!(matches!(reply.status, 200 | 401), "{path}: {}", reply.text());
            said.reply(path, &reply);
        }
    }
    for (path, body) in [
        (format!("/api/v1/events/{id}/redeliver"), String::new()),
        ("/api/v1/operations".to_owned(), r#"{"action":"redeliver","all":true,"dry_run":true}"#.to_owned()),
        ("/api/v1/operations".to_owned(), r#"{"action":"nothing"}"#.to_owned()),
        ("/api/v1/upstreams/up/pause".to_owned(), String::new()),
        ("/api/v1/upstreams/up/resume".to_owned(), String::new()),
    ] {
        for token in [OPERATOR, READER] {
            said.reply(&path, &site.ask("POST", &path, token, &body).await);
        }
    }
    said.reply("a token in the query", &request(site.admin, "GET", "/api/v1/status?limit=1", &[], b"").await);
}

fn run_commands(site: &Site, home: &Path, said: &mut Said) {
    let url = format!("http://{}", site.admin);
    let asked = [
        &["status"][..],
        &["status", "--json"],
        &["events", "list"],
        &["events", "list", "--json"],
        &["upstreams", "--help"],
        &["operations", "list"],
    ];
    for arguments in asked {
        let mut command = with_secrets(hookward(), home);
        command.env("HOOKWARD_ADMIN_URL", &url).env("HOOKWARD_ADMIN_TOKEN_FILE", home.join("operator")).args(arguments);
        said.command(&mut command);
    }
    let right = fs::read_to_string(home.join("hookward.toml")).expect("it was written");
    // Cut off before every tenth quotation mark, and with each line made wrong in turn.
    let quotes: Vec<_> = right.match_indices('"').map(|(at, _)| at).collect();
    let cut = quotes.iter().skip(12).step_by(10).map(|at| right[..*at].to_owned());
    let lines: Vec<&str> = right.lines().collect();
    let broken =
        (0..lines.len()).filter(|at| lines[*at].contains("canary") || lines[*at].contains("secret")).map(|at| {
            let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            lines[at] = lines[at].replace("value =", "valu =").replacen("= [{", "= [[", 1).replace("whsec_", "whsec_!");
            lines.join("\n")
        });
    for text in [right.clone()].into_iter().chain(cut).chain(broken) {
        fs::write(home.join("other.toml"), text).expect("written");
        said.command(with_secrets(hookward(), home).args(["check", "-c", "other.toml"]));
    }
    fs::remove_file(home.join("other.toml")).expect("it was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_canary_is_in_anything_that_the_program_says_stores_or_forwards() {
    for format in ["text", "json"] {
        let (home, upstream) = (TempDir::new().expect("a directory"), Upstream::start().await);
        write_site(home.path(), &upstream.url(), format);
        let site = Site::start(hookward(), home.path());
        let mut said = Said::default();
        talk(&site, &mut said).await;
        upstream.wait_for(8).await;
        look(&site, &mut said).await;
        if format == "text" {
            run_commands(&site, home.path(), &mut said);
        }
        let (code, out, log) = site.process.end("TERM");
        assert_eq!(code, Some(0), "{log}");
        // A log that says nothing has no secret in it either.
        assert!(log.contains("TRACE") && log.matches("signature_mismatch").count() > 2, "{log}");
        said.add("the log", log);
        said.add("standard output", out);
        said.command(with_secrets(hookward(), home.path()).args(["store", "verify", "data"]));
        said.files(&home.path().join("data"));
        said.assert_silent_on(&ALL);

        let mut forwarded = Said::default();
        for one in upstream.received() {
            forwarded.add("a request to the upstream", format!("{} {:?}", one.path, one.headers));
            assert_eq!(one.header("authorization"), Some(UPSTREAM));
        }
        let but_its_own: Vec<_> = ALL.into_iter().filter(|secret| *secret != UPSTREAM).collect();
        forwarded.assert_silent_on(&but_its_own);
    }
}

/// Without random numbers every genuine webhook ends in a panic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_canary_is_in_a_panic() {
    let (home, upstream) = (TempDir::new().expect("a directory"), Upstream::start().await);
    write_site(home.path(), &upstream.url(), "text");
    let site = Site::start(hookward(), home.path());
    let mut strace = Command::new("strace");
    let id = site.process.id().to_string();
    strace.args(["-f", "-p", &id, "-e", "trace=getrandom", "-e", "inject=getrandom:error=EIO", "-o", "/dev/null"]);
    let strace = Running::start(&mut strace);
    strace.line_with("attached");
    let mut said = Said::default();
    for (path, headers) in to_sources(str::to_owned, Clock::system().wall().unix_s()) {
        let lines: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut head =
            format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n", BODY.len());
        head.extend(lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
        said.add(path, exchange(site.public, &[head.as_bytes(), b"\r\n", BODY].concat(), false).await);
    }
    drop(strace);
    let (_, _, log) = site.process.end("TERM");
    assert!(log.matches("a step panicked").count() >= 8, "{log}");
    said.add("the log", log);
    said.assert_silent_on(&ALL);
}

/// A shell lifts the limit that it has been given, as far as it may.
const UNLIMITED: [&str; 2] = ["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_with_all_secrets_in_it_is_never_dumped() {
    let (home, upstream) = (TempDir::new().expect("a directory"), Upstream::start().await);
    write_site(home.path(), &upstream.url(), "text");
    for signal in ["ABRT", "QUIT", "ILL"] {
        // What a process does that forbids nothing: if that leaves no dump here, the test tells less.
        let mut control = Command::new("sh");
        control.args([UNLIMITED[0], "ulimit -c unlimited; kill -s \"$0\" $$", signal]).current_dir(home.path());
        let control = control.stdin(Stdio::null()).stderr(Stdio::null()).status().expect("a shell");
        let _ = writeln!(std::io::stdout(), "{signal}: a shell is dumped: {}", control.core_dumped());
        let before = entries(home.path());

        let site = Site::start(hookward_under("sh", &UNLIMITED), home.path());
        let limits = fs::read_to_string(format!("/proc/{}/limits", site.process.id())).expect("it runs");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("there is one");
        let values: Vec<&str> = core.split_ascii_whitespace().skip(4).take(2).collect();
        assert_eq!(values, ["1", "1"], "less than any dump, and not to be raised: {core}");
        let status = site.process.end_status(signal);
        assert!(status.signal().is_some() && !status.core_dumped(), "{status}");
        let after: Vec<_> = entries(home.path()).into_iter().filter(|name| name.starts_with("core")).collect();
        assert!(after.iter().all(|name| before.contains(name)), "{after:?}");
    }
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}
