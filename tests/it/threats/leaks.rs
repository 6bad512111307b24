//! Leaks: what is secret is in no log line, metric, admin answer or message, and no request writes the log.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use base64ct::{Base64, Encoding as _};
use hookward::time::Clock;
use tempfile::TempDir;

use super::requests::*;
use crate::world::{Act, Reply, Upstream, World, configuration, parse, raw, request};

const BODY: &str = "{\"canary\":\"canary-in-the-body\",\"id\":\"evt_1\"}";

/// The program itself, with a log at its most talkative.
struct Process {
    child: Child,
    public: SocketAddr,
    admin: SocketAddr,
    log: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    fn start(config: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hookward"))
            .args(["serve", "-c"])
            .arg(config)
            .env("HOOKWARD_LOG", "trace")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = child.stderr.take().expect("it is piped");
        let (to, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                // What is not UTF-8 would be a finding of its own.
                let _ = to.send(String::from_utf8(line).unwrap_or_else(|_| "\u{1b} not UTF-8".to_owned()));
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut process = Self { child, public: nowhere, admin: nowhere, log, seen: Vec::new() };
        process.public = process.listening("public");
        process.admin = process.listening("admin");
        process
    }
    /// The address of a listener, from the line that says so, in either format.
    fn listening(&mut self, listener: &str) -> SocketAddr {
        loop {
            let line = self.log.recv_timeout(Duration::from_secs(20)).expect("it says where it listens");
            let address = line.rsplit("address").next().unwrap_or_default();
            let address = address.trim_start_matches(['"', ':', '=']);
            let address = address.split(['"', ' ', ',', '}']).next().unwrap_or_default().parse();
            let found = line.contains("listening") && line.contains(listener);
            self.seen.push(line);
            if let (true, Ok(address)) = (found, address) {
                return address;
            }
        }
    }
    /// Asks it to end, and returns all that it ever logged.
    fn finish(mut self) -> Vec<String> {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(told.success());
        let mut seen = std::mem::take(&mut self.seen);
        loop {
            match self.log.recv_timeout(Duration::from_secs(20)) {
                Ok(line) => seen.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it does not end"),
            }
        }
        assert!(self.child.wait().expect("it ended").success());
        seen
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn post(to: SocketAddr, path: &str, lines: &Lines, body: &[u8]) -> Reply {
    let mut bytes = format!("POST {path} HTTP/1.1\r\nhost: {to}\r\ncontent-length: {}\r\n", body.len()).into_bytes();
    for (name, value) in lines {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend([b"\r\n", body].concat());
    raw(to, &bytes).await
}

fn write_config(directory: &Path, upstream: &str, upstream_keys: &str, more: &str) -> std::path::PathBuf {
    let text = configuration(more, upstream_keys, upstream, directory);
    let admin = "[admin]\ntokens = [{ value = \"canary-admin-token-0001\", role = \"operate\" }]\n";
    let path = directory.join("hookward.toml");
    std::fs::write(&path, text.replacen("[admin]\n", admin, 1)).expect("written");
    path
}

/// Everything that a configuration keeps secret, and how it is written there.
struct Canaries {
    upstream_keys: String,
    sources: String,
}

const PARTS_SOURCE: &str = "canary-secret-partssource";
const STRIPE: &str = "whsec_canary-secret-stripe";
const STANDARD: &str = "canary-secret-standard-webhooks";
const GAINS: &str = "Bearer canary-credential-gains";
const TOKEN: &str = "canary-token-of-sourcehub";
const BASIC: &str = "canary-user:canary-password";

fn canaries() -> Canaries {
    let whsec = |secret: &str| format!("whsec_{}", Base64::encode_string(secret.as_bytes()));
    let with = |secret: &str| format!("secrets = [{{ value = \"{secret}\" }}]");
    Canaries {
        upstream_keys: format!(
            "signing_secret = {{ value = \"{}\" }}\nheaders = {{ authorization = {{ value = \"Bearer canary-of-the-upstream\" }} }}\n\
             retry = {{ first = \"10ms\", max = \"10ms\" }}",
            whsec("canary-signing-secret-00")
        ),
        sources: [
            source("ps", "partssource", "secrets = [{ file = \"partssource\" }]\nforward_query = true"),
            source("stripe", "stripe", &with(STRIPE)),
            source("std", "standard-webhooks", &with(&whsec(STANDARD))),
            source("gains", "gains", &with(GAINS)),
            source("token", "sourcehub", &format!("path = \"/hooks/token/{{token}}\"\n{}", with(TOKEN))),
            source("basic", "sourcehub", &format!("guard = \"basic\"\n{}", with(BASIC))),
        ]
        .concat(),
    }
}

/// Requests of every kind, right and wrong, and the texts in them that nobody may see again.
fn traffic(now_s: i64) -> (Vec<(String, Lines)>, Vec<String>) {
    let now = now_s.to_string();
    let body = BODY.as_bytes();
    let mut hidden = Vec::new();
    let mut hide = |text: &str| {
        hidden.push(text.to_owned());
        text.to_owned()
    };
    let mut requests: Vec<(String, Lines)> = Vec::new();
    for secret in [PARTS_SOURCE, "canary-wrong-secret-0001"] {
        let mac = hide(&hex_mac(secret, &[now.as_bytes(), b".", body]));
        let lines: Lines =
            vec![("x-ps-timestamp", now.clone().into()), ("x-ps-signature", format!("sha256={mac}").into())];
        requests.push(("/hooks/ps?key=canary-in-the-query".to_owned(), lines.clone()));
        requests.push(("/hooks/ps".to_owned(), lines.clone()));
        requests.push(("/hooks/ps".to_owned(), [lines.clone(), lines].concat()));
        requests.push(("/hooks/ps".to_owned(), vec![("x-ps-signature", format!("sha1={mac}").into())]));
        let mac = hide(&hex_mac(if secret == PARTS_SOURCE { STRIPE } else { secret }, &[now.as_bytes(), b".", body]));
        requests.push(("/hooks/stripe".to_owned(), stripe_with(&format!("t={now},v1={mac}"))));
        let key = if secret == PARTS_SOURCE { STANDARD } else { secret };
        let mac =
            hide(&Base64::encode_string(&mac_of(key.as_bytes(), &[b"msg_1.", now.as_bytes(), b".", body].concat())));
        let lines: Lines = vec![
            ("webhook-id", b"msg_1".into()),
            ("webhook-timestamp", now.clone().into()),
            ("webhook-signature", format!("v1,{mac}").into()),
        ];
        requests.push(("/hooks/std".to_owned(), lines));
    }
    for value in [GAINS, "Bearer canary-offered-credential"] {
        requests.push(("/hooks/gains".to_owned(), vec![("authorization", value.into())]));
    }
    for token in [TOKEN, "canary-offered-token", "canary-offered%0atoken"] {
        requests.push((format!("/hooks/token/{token}"), vec![]));
    }
    requests.push(("/hooks/canary-unknown-path".to_owned(), vec![]));
    for pair in [BASIC, "canary-offered-user:canary-offered-password"] {
        let text = hide(&Base64::encode_string(pair.as_bytes()));
        requests.push(("/hooks/basic".to_owned(), vec![("authorization", format!("Basic {text}").into())]));
    }
    for (_, lines) in &mut requests {
        // What a provider sends along by mistake.
        lines.push(("cookie", b"session=canary-cookie".into()));
        lines.push(("x-api-key", b"canary-api-key".into()));
        lines.push(("x-github-encoded-secret", b"canary-encoded-secret".into()));
    }
    (requests, hidden)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_token_or_signature_is_seen_again() {
    let (directory, upstream) = (TempDir::new().expect("a directory"), Upstream::start().await);
    std::fs::write(directory.path().join("partssource"), format!("{PARTS_SOURCE}\n")).expect("written");
    let canaries = canaries();
    let log = format!("{}[log]\nformat = \"json\"\n", canaries.sources);
    let config = write_config(directory.path(), &upstream.url(), &canaries.upstream_keys, &log);
    upstream.script([Act::Cut, Act::Answer(500, "canary-of-the-upstreams-answer"), Act::Answer(400, "canary-too")]);
    let process = Process::start(&config);

    let (requests, hidden) = traffic(Clock::system().wall().unix_s());
    let mut accepted = 0;
    for (path, lines) in &requests {
        let reply = post(process.public, path, lines, BODY.as_bytes()).await;
        assert!(matches!(reply.status, 200 | 401 | 404), "{path}: {}", reply.text());
        assert!(!reply.text().contains("canary") && !reply.head.contains("canary"), "{path}: {}", reply.text());
        accepted += usize::from(reply.status == 200 && reply.ack().0 == "accepted");
    }
    assert_eq!(accepted, 6, "one for each source");

    let ask = async |path: &str, token: &str| {
        let authorization = format!("Bearer {token}");
        request(process.admin, "GET", path, &[("authorization", &authorization)], b"").await
    };
    let mut answers = vec![ask("/api/v1/events", "canary-wrong-admin-token").await.text()];
    until("everything to be delivered or given up on", || async {
        let status = ask("/api/v1/status", "canary-admin-token-0001").await.json();
        let lane = &status["upstreams"][0];
        (lane["due"].as_u64(), lane["leased"].as_u64()) == (Some(0), Some(0))
    })
    .await;
    for path in ["/metrics", "/api/v1/status", "/api/v1/events", "/readyz", "/nothing"] {
        answers.push(ask(path, "canary-admin-token-0001").await.text());
    }
    let events = ask("/api/v1/events", "canary-admin-token-0001").await.json();
    let mut details = Vec::new();
    for event in events["events"].as_array().expect("a list") {
        let path = format!("/api/v1/events/{}", event["id"].as_str().expect("an id"));
        details.push(ask(&path, "canary-admin-token-0001").await.text());
    }
    assert_eq!(details.len(), 6);
    let log = process.finish();
    assert!(log.iter().filter(|line| line.contains("\"code\":")).count() >= requests.len(), "it was logged at all");

    // In the detail of an event its body and query are shown, and nothing else of this.
    for detail in details {
        let shown = detail.replace("canary-in-the-body", "").replace("canary-in-the-query", "");
        answers.push(shown.replace(&BODY.replace('"', "\\\""), ""));
    }
    for text in answers.iter().chain(&log) {
        let text = text.replace("\\\"canary\\\"", ""); // the name of a field of the body
        assert!(!text.contains("canary"), "{text}");
        for secret in &hidden {
            assert!(!text.contains(&**secret), "{secret} in {text}");
        }
    }
    for one in upstream.received() {
        for (name, value) in &one.headers {
            let ours = name == "authorization" && value == "Bearer canary-of-the-upstream";
            let credential = [GAINS, TOKEN, BASIC, "canary-encoded-secret"]
                .iter()
                .any(|secret| value.as_bytes() == secret.as_bytes());
            assert!(ours || !credential, "{name} reached the upstream");
        }
    }
}

#[tokio::test]
async fn a_configuration_shows_no_secret_whatever_is_wrong_with_it() {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("partssource"), format!("{PARTS_SOURCE}\n")).expect("written");
    let canaries = canaries();
    let text = configuration(&canaries.sources, &canaries.upstream_keys, "http://127.0.0.1:9/in", directory.path());
    let config = parse(&text, directory.path());
    let debug = format!("{config:?} {config:#?}");
    assert!(!debug.contains("canary") && debug.contains("Keyring"), "{debug}");

    let path = write_config(directory.path(), "http://127.0.0.1:9/in", &canaries.upstream_keys, &canaries.sources);
    let right = std::fs::read_to_string(&path).expect("readable");
    let wrong = [
        right.clone(),
        right.replace("secrets =", "secret ="),
        right.replace("{ value =", "{ valu ="),
        right.replace("whsec_", "whsec_!"),
        right.replace("provider = \"stripe\"", "provider = \"stripey\""),
        right.replace("\" }]", " }]"),
        right.replace("token-0001\"", "token-0001"),
        right.replace("role = \"operate\"", "role = \"king\""),
        right.replace("value = \"Bearer", "value = 17 # \"Bearer"),
        right.replace("secrets = [{ value = \"canary-user:", "secrets = [{ value = \"canary-user-"),
    ];
    for (i, text) in wrong.iter().enumerate() {
        assert!(i == 0 || *text != right, "{i} changes nothing");
        std::fs::write(&path, text).expect("written");
        let output =
            Command::new(env!("CARGO_BIN_EXE_hookward")).args(["check", "-c"]).arg(&path).output().expect("it runs");
        assert_eq!(output.status.code(), Some(if i == 0 { 0 } else { 78 }), "{i}");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!said.contains("canary"), "{i}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_breaks_a_line_of_the_log() {
    for format in ["json", "text"] {
        let (directory, upstream) = (TempDir::new().expect("a directory"), Upstream::start().await);
        let more = format!(
            "{}{}[log]\nformat = \"{format}\"\n",
            source("hub", "github", "mode = \"proxy\""),
            source("token", "sourcehub", "path = \"/hooks/token/{token}\"")
        );
        let config = write_config(directory.path(), &upstream.url(), "", &more);
        upstream.script([Act::Full(500, vec![("content-type", "text/\u{9b}plain".into())], 5), Act::Cut]);
        let process = Process::start(&config);

        let nasty = "a\u{9b}31m\u{85}\u{202e}{\"level\":\"ERROR\",\"message\":\"forged\"}";
        let body = br#"{"event_type":"a\n{\"level\":\"ERROR\",\"message\":\"forged\"}\u001b[31m"}"#;
        let mut lines = github(body);
        for name in [
            "x-github-event",
            "x-github-delivery",
            "x-request-id",
            "traceparent",
            "user-agent",
            "content-type",
            "x-forwarded-for",
        ] {
            lines.push((name, nasty.as_bytes().into()));
            lines.push((name, b"a\tforged\t=1".into()));
        }
        for path in [
            "/hooks/hub",
            "/hooks/hub?a=%0aforged%1b[31m",
            "/hooks/hub%0aforged",
            "/hooks/token/%0d%0aforged",
            "/hooks/token/\u{9b}forged",
            "/hooks/\u{202e}forged",
            "/forged\u{85}",
        ] {
            for _ in 0..2 {
                let reply = post(process.public, path, &lines, body).await;
                assert!(reply.status < 600 && reply.status != 0, "{path}");
            }
        }
        // What is no HTTP at all never gets a line of its own making.
        for head in ["/hooks/hub\u{1b}[31mforged", "/hooks/hub\nforged: 1", "/\0forged"] {
            let request = format!("POST {head} HTTP/1.1\r\nhost: a\r\nx: \u{1b}forged\r\n\r\n");
            assert_eq!(raw(process.public, request.as_bytes()).await.status, 400, "{head:?}");
        }
        let log = process.finish();
        let webhooks = log.iter().filter(|line| line.contains("webhook") && line.contains("request_id")).count();
        assert!(webhooks >= 14, "{webhooks}: {log:#?}");
        for line in log.iter().filter(|line| !line.is_empty()) {
            let unsafe_one = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}');
            assert!(!line.contains(unsafe_one), "{line:?}");
            assert!(!line.contains("forged"), "nothing of a request is logged but what is known: {line}");
            if is_log_line(line) && format == "json" {
                let json: serde_json::Value = serde_json::from_str(line).expect(line);
                assert!(json["level"].is_string(), "{line}");
            }
        }
    }
}

/// Warnings about the configuration are for people and come before the first line of the log.
fn is_log_line(line: &str) -> bool {
    line.starts_with('{') || line.starts_with("20")
}

#[tokio::test]
async fn the_admin_api_shows_no_signature_and_no_credential() {
    let world = World::start(
        &[source("hub", "github", ""), source("gains", "gains", "secrets = [{ value = \"Bearer the-whole-value\" }]")]
            .concat(),
    )
    .await;
    let body = b"{}";
    let lines =
        [github(body), vec![("authorization", b"Bearer of-theirs".into()), ("x-note", b"seen".into())]].concat();
    let gains: Lines = vec![("authorization", b"Bearer the-whole-value".into())];
    let replies =
        hold(&world, &[accepted("signed", "hub", lines, body), accepted("credential", "gains", gains, body)]).await;
    let shown = world.admin("GET", &format!("/api/v1/events/{}", replies[0].ack().1)).await;
    let of = |name: &str| {
        let headers = shown["headers"].as_array().expect("headers");
        headers.iter().find(|header| header["name"] == name).map(|header| header["value"].clone())
    };
    assert_eq!(of("x-hub-signature-256"), Some("redacted".into()));
    assert_eq!(of("authorization"), Some("redacted".into()));
    assert_eq!(of("x-note"), Some("seen".into()));
    let shown = world.admin("GET", &format!("/api/v1/events/{}", replies[1].ack().1)).await;
    assert!(!shown.to_string().contains("the-whole-value"), "{shown}");
    assert!(
        !shown["headers"].as_array().expect("headers").iter().any(|header| header["name"] == "authorization"),
        "{shown}"
    );
    world.settled().await;
    let received = world.upstream.received();
    let gains = received.iter().find(|one| one.header("hookward-source") == Some("gains")).expect("delivered");
    assert!(!gains.headers.contains_key("authorization"), "a credential that was consumed is not passed on");
}

#[tokio::test]
async fn a_header_that_carries_a_secret_is_neither_stored_nor_forwarded() {
    let world = World::start(&source("hub", "github", "")).await;
    let mut lines = github(b"{}");
    for name in ["x-github-encoded-secret", "X-GitHub-Encoded-Secret", "x-webhook-secret"] {
        lines.push((name, b"canary-of-a-secret".into()));
    }
    let replies = hold(&world, &[accepted("with it", "hub", lines, b"{}")]).await;
    let received = world.upstream.wait_for(1).await.remove(0);
    assert!(received.headers.values().all(|value| value.as_bytes() != b"canary-of-a-secret"), "{received:?}");
    let shown = world.admin("GET", &format!("/api/v1/events/{}", replies[0].ack().1)).await;
    assert!(!shown.to_string().contains("secret"), "{shown}");
    world.settled().await;
    let World { gateway, data, .. } = world;
    assert!(gateway.drain().await);
    for entry in std::fs::read_dir(data.path().join("store")).expect("the store's directory") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("readable");
        let found = bytes.windows(18).any(|window| window == b"canary-of-a-secret");
        assert!(!found, "{}", path.display());
    }
}

/// 32 bytes.
const STORE_KEY: &[u8; 32] = b"canary-key-of-the-store-32-bytes";
const ONLY_IN_A_BODY: &[u8] = b"it-stands-in-a-body-alone";

fn files_hold(directory: &Path, text: &[u8]) -> Vec<String> {
    let holds = |path: &Path| std::fs::read(path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text));
    let paths = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    paths.filter(|path| holds(path)).map(|path| path.display().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_redacted_is_seen_by_nobody_and_no_body_lies_open() {
    let (directory, upstream) = (TempDir::new().expect("a directory"), Upstream::start().await);
    let key = Base64::encode_string(STORE_KEY);
    std::fs::write(directory.path().join("store.key"), &key).expect("written");
    let redacting = "redact = [\"/customer/mail\", \"header:x-customer\", \"header:x-github-event\"]";
    let config = write_config(directory.path(), &upstream.url(), "", &source("hub", "github", redacting));
    let text = std::fs::read_to_string(&config).expect("readable");
    let text = text
        .replacen("[store]\n", "[store]\nencryption = [{ file = \"store.key\", id = \"2026\" }]\n", 1)
        .replacen("tokens = [", "tokens = [{ value = \"canary-reader-token-0002\", role = \"read\" }, ", 1)
        + "[log]\nformat = \"json\"\n";
    std::fs::write(&config, text).expect("written");
    upstream.script([Act::Answer(400, "no"), Act::Answer(400, "no")]);
    let mut process = Process::start(&config);

    let alone = String::from_utf8_lossy(ONLY_IN_A_BODY);
    let json = format!("{{\"customer\":{{\"mail\":\"canary-mail\",\"id\":7}},\"n\":\"{alone}\"}}");
    for body in [json, format!("mail=canary-mail&n={alone}")] {
        let mut lines = github(body.as_bytes());
        lines.retain(|(name, _)| *name != "x-github-event");
        lines.extend([("x-customer", b"canary-customer".into()), ("x-github-event", b"canary-type".into())]);
        assert_eq!(post(process.public, "/hooks/hub", &lines, body.as_bytes()).await.status, 200);
    }
    let admin = process.admin;
    let ask = async |method: &str, path: &str, role: &str, body: &str| {
        let authorization =
            format!("Bearer canary-{}", if role == "read" { "reader-token-0002" } else { "admin-token-0001" });
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        request(admin, method, path, &headers, body.as_bytes()).await
    };
    until("both to be given up on", || async {
        ask("GET", "/api/v1/status", "operate", "").await.json()["upstreams"][0]["dead"] == 2
    })
    .await;

    let filter = r#"{"source":"hub","type":"canary-type","json_pointer":"/customer/mail","json_value":"canary-mail"}"#;
    let begin = format!(r#"{{"action":"release","filter":{filter}}}"#);
    assert_eq!(ask("POST", "/api/v1/operations", "read", &begin).await.status, 403);
    let begun = ask("POST", "/api/v1/operations", "operate", &begin).await.json();
    assert_eq!(begun["total"], 1, "{begun}");
    let mut seen = Vec::new();
    for role in ["read", "operate"] {
        let events = ask("GET", "/api/v1/events", role, "").await.json();
        for event in events["events"].as_array().expect("a list") {
            let path = format!("/api/v1/events/{}", event["id"].as_str().expect("an id"));
            seen.push(ask("GET", &path, role, "").await.text());
        }
        for path in ["/api/v1/events?state=dead", "/api/v1/status", "/metrics", "/readyz"] {
            seen.push(ask("GET", path, role, "").await.text());
        }
    }
    assert_eq!(seen.iter().filter(|text| text.contains("\"headers\"")).count(), 4);
    let guesses =
        ["type=canary-type", "type=canary-type&source=hub", "json_pointer=/customer/mail&json_value=canary-mail"];
    let looked_at =
        ["/api/v1/operations".to_owned(), format!("/api/v1/operations/{}", begun["id"].as_str().expect("an id"))];
    for path in looked_at.into_iter().chain(guesses.map(|guess| format!("/api/v1/events?{guess}"))) {
        seen.push(ask("GET", &path, "read", "").await.text());
    }
    for command in [&["verify", "--json"][..], &["verify"], &["backup", "--to", "backup.db"]] {
        let mut store = Command::new(env!("CARGO_BIN_EXE_hookward"));
        store.arg("store").args(command).args(["--path", "store"]).current_dir(directory.path());
        let output = store.output().expect("it runs");
        assert!(output.status.success(), "{command:?}");
        seen.push(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned());
    }
    assert_eq!(files_hold(&directory.path().join("store"), ONLY_IN_A_BODY), [] as [&str; 0], "while it runs");
    process.seen.extend(seen);
    let seen = process.finish();
    assert!(
        seen.iter().any(|line| line.contains("\"target\":\"audit\"") && line.contains("/customer/mail")),
        "audited"
    );
    for text in &seen {
        assert!(!text.contains("canary") && !text.contains(&key), "{text}");
    }
    for place in [directory.path().to_owned(), directory.path().join("store")] {
        assert_eq!(files_hold(&place, ONLY_IN_A_BODY), [] as [&str; 0]);
        assert_eq!(files_hold(&place, STORE_KEY), [] as [&str; 0]);
    }
}
