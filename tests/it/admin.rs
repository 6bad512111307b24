//! The admin listener and the commands that use it, over real sockets, with a store that holds canned events.

mod audit;
mod fake;
mod hidden;
mod operations;
mod reload;
mod schema;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    net::SocketAddr,
    process::{Command, Output},
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use hookward::{
    admin::{
        self, Admin, FailureLog, Forgotten, Given, Hidden, Operations, StoreFacts, UpstreamStatus,
        api::{ConfigRow, PendingSecretRow, ReloadOutcome, ReloadRow, SourceRow},
    },
    config::model::{AdminToken, Role},
    event::State,
    secret::Secret,
    store::{EventStore, JsonIs},
    telemetry::{ClockWatch, Health, Metrics},
    time::{Clock, Wall},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::Instant,
};

use fake::{CANARY, Fake, event_id};
use reload::reload_answer;

const READER: &str = "reader-canary-5d1f";
const OPERATOR: &str = "operator-canary-77aa";

struct Gateway {
    address: SocketAddr,
    store: Arc<Fake>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

/// What the gateway gives, around a store: sources redact nothing, and their ids lead to nothing.
fn given(listen: SocketAddr, tokens: &[(&str, Role)], store: Arc<dyn EventStore>) -> Given {
    let clock = Clock::starting_at(Wall::from_unix_s(1_763_712_000));
    let watch = ClockWatch::new(Some(Duration::from_mins(5)), clock.wall(), Instant::now());
    let (asked, paused) = (store.clone(), Arc::new(Mutex::new(BTreeMap::new())));
    let health = Arc::new(Health::new(watch, move || asked.health().map_err(|error| error.to_string())));
    health.set_listening(true);
    let tokens: Vec<_> =
        tokens.iter().map(|(token, role)| AdminToken { token: Secret::new(*token), role: *role }).collect();
    let forgotten: Forgotten = Arc::new(|_| {});
    let (pauses, pausing) = (paused.clone(), store.clone());
    Given {
        listen,
        tokens: Box::new(move || tokens.clone()),
        health,
        metrics: Arc::default(),
        started_at: Instant::now(),
        upstreams: Box::new(move || {
            let pauses = pauses.lock().expect("not poisoned");
            let status = |name: &str| UpstreamStatus {
                name: name.into(),
                breaker: "closed",
                breaker_for: Some(Duration::from_secs(7)),
                breaker_opened_total: Some(2),
                last_error: Some("connection refused".into()),
                paused: pauses.get(name).cloned(),
            };
            ["orders", "idle"].map(status).to_vec()
        }),
        store_facts: StoreFacts { engine: "sqlite", durability: "fsync: survives a power cut", bytes_max: 100_000 },
        is_signature: Box::new(|source, header| source == "partssource" && header == "x-odd"),
        hidden: Box::new(|_| Some(Hidden::default())),
        hidden_anywhere: Box::new(Hidden::default),
        event_keys: Box::new(|source, _| Err(format!("no id leads to the event key of source `{source}`"))),
        set_paused: Box::new(move |name, pause| {
            let (store, paused) = (pausing.clone(), paused.clone());
            Box::pin(async move {
                store.set_paused(&name, pause.clone()).await?;
                let mut paused = paused.lock().expect("not poisoned");
                match pause {
                    Some(pause) => drop(paused.insert(name, pause)),
                    None => drop(paused.remove(&name)),
                }
                Ok(true)
            })
        }),
        reload: Box::new(|request| Box::pin(async move { Ok(reload_answer(request)) })),
        config: Box::new(|| ConfigRow {
            loaded_at: "2026-11-21T08:00:00.000Z".into(),
            last_reload: Some(ReloadRow {
                at: "2026-11-21T09:00:00.000Z".into(),
                outcome: ReloadOutcome::Invalid,
                why: Some("the file has 2 errors".into()),
            }),
            restart: vec!["store.path".into()],
        }),
        pending_secrets: Box::new(|| {
            Box::pin(async {
                Some(vec![PendingSecretRow {
                    source: "asana".into(),
                    at: Some("2026-11-21T08:00:00.000Z".into()),
                    from: None,
                    fingerprint: "1a2b3c4d".into(),
                    file: "data/pending/asana-1a2b3c4d".into(),
                    help: "add it, or delete the file".into(),
                }])
            })
        }),
        sources: Box::new(|| {
            let (name, until) = ("partssource".into(), "2026-12-01T00:00:00.000Z".to_owned());
            vec![SourceRow { name, refusals_in_a_row: 3, disables_after: None, unenforced_until: Some(until) }]
        }),
        failures: FailureLog::new(std::iter::empty(), Box::new(|_| 0)),
        operations: Operations::new(store.clone(), clock.clone(), forgotten.clone()),
        forgotten,
        store,
        clock,
    }
}

impl Gateway {
    async fn start(tokens: &[(&str, Role)]) -> Self {
        Self::start_with(tokens, |_| {}).await
    }

    async fn start_with(tokens: &[(&str, Role)], change: impl FnOnce(&mut Given)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let store = Arc::new(Fake::default());
        let mut given = given(address, tokens, store.clone());
        change(&mut given);
        let (health, metrics) = (given.health.clone(), given.metrics.clone());
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(admin::serve(listener, Admin::new(given), async { _ = stopped.await }));
        Self { address, store, health, metrics, stop, served }
    }

    async fn open() -> Self {
        Self::start(&[]).await
    }

    async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("an answer");
        Answer::parse(&bytes)
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "host") {
            let _ = write!(request, "host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            let _ = write!(request, "{name}: {value}\r\n");
        }
        let answer = self.raw(&format!("{request}\r\n{body}")).await;
        schema::check(method, path, answer.status, answer.header("content-type"), &answer.body);
        answer
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &[("content-type", "application/json")], body).await
    }

    /// Runs `hookward ... --admin-url` against this gateway.
    async fn cli(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookward"));
        command.args(args).arg("--admin-url").arg(format!("http://{}", self.address));
        command.env_remove("HOOKWARD_ADMIN_TOKEN_FILE").stdin(std::process::Stdio::null());
        tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.expect("it ends")
    }
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = std::str::from_utf8(&bytes[..end]).expect("text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status").parse().expect("a number");
        let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { status, headers: lines.filter_map(pair).collect(), body: bytes[end + 4..].to_vec() }
    }
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
    /// The code of a problem document, which has all it must have.
    fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], self.status);
        assert_eq!(document["type"], "about:blank");
        for member in ["title", "detail", "help"] {
            assert!(document[member].as_str().is_some_and(|text| !text.is_empty()), "{member} of {document}");
        }
        (self.status, document["code"].as_str().expect("a code").to_owned())
    }
}

fn problem(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn ids(page: &Value) -> Vec<&str> {
    let events = page["events"].as_array().expect("events");
    events.iter().map(|event| event["id"].as_str().expect("an id")).collect()
}

#[tokio::test]
async fn a_token_is_needed_for_all_but_probes_and_its_role_decides() {
    let gateway = Gateway::start(&[(READER, Role::Read), (OPERATOR, Role::Operate)]).await;
    let reader = format!("Bearer {READER}");
    let operator = format!("Bearer {OPERATOR}");
    let (event, forget) = (format!("/api/v1/events/{}", event_id(1)), format!("/api/v1/events/{}/forget", event_id(1)));

    for path in ["/metrics", "/api/v1/status", "/api/v1/events", &event, &format!("{event}/body")] {
        let refused = gateway.get(path).await;
        assert_eq!(refused.problem(), problem(401, "token_missing"), "{path}");
        assert!(refused.header("www-authenticate").starts_with("Bearer"));
        assert_eq!(gateway.ask("GET", path, &[("authorization", &reader)], "").await.status, 200, "{path}");
    }
    let wrong = gateway.ask("GET", "/metrics", &[("authorization", "Bearer guess")], "").await;
    assert_eq!(wrong.problem(), problem(401, "token_unknown"));

    let refused = gateway.ask("POST", &forget, &[("authorization", &reader)], "").await;
    assert_eq!(refused.problem(), problem(403, "role_too_low"));
    assert_eq!(gateway.store.calls(), [] as [String; 0], "a reader changes nothing");
    assert_eq!(gateway.ask("POST", &forget, &[("authorization", &operator)], "").await.status, 200);

    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn dns_rebinding_and_other_origins_are_refused() {
    let gateway = Gateway::open().await;
    let rebound = gateway.ask("GET", "/api/v1/events", &[("host", "evil.example")], "").await;
    assert_eq!(rebound.problem(), problem(403, "host_not_allowed"));
    let hostless = gateway.raw("GET /api/v1/events HTTP/1.0\r\n\r\n").await;
    assert_eq!(hostless.problem(), problem(403, "host_not_allowed"));

    let two_names =
        gateway.raw("GET http://evil.example/metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert_eq!(two_names.await.problem(), problem(403, "host_not_allowed"));

    let forget = format!("/api/v1/events/{}/forget", event_id(1));
    for header in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
        assert_eq!(gateway.ask("POST", &forget, &[header], "").await.problem(), problem(403, "cross_origin"));
    }
    let form = [("content-type", "text/plain")];
    let refused = gateway.ask("POST", &forget, &form, "{}").await;
    assert_eq!(refused.problem(), problem(415, "content_type"), "a form can be sent without asking first");
    assert_eq!(gateway.store.calls(), [] as [String; 0]);

    let own = format!("http://{}", gateway.address);
    assert_eq!(gateway.ask("POST", &forget, &[("origin", &own)], "").await.status, 200);
}

#[tokio::test]
async fn probes_are_answered_however_they_ask() {
    let gateway = Gateway::open().await;
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(gateway.raw(&format!("OPTIONS {path} HTTP/1.0\r\n\r\n")).await.status, 200, "HAProxy asks so");
        assert_eq!(gateway.raw(&format!("GET {path} HTTP/1.0\r\n\r\n")).await.status, 200);
        let head = gateway.ask("HEAD", path, &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(gateway.ask("OPTIONS", path, &[], "").await.header("allow"), "GET, HEAD, OPTIONS");
        assert_eq!(gateway.ask("POST", path, &[], "").await.problem(), problem(405, "method_not_allowed"));
    }
    let stranger = gateway.ask("GET", "/readyz", &[("host", "evil.example")], "").await;
    assert_eq!((stranger.status, stranger.text()), (200, "ok\n"), "an answer, but no detail");
}

#[tokio::test]
async fn readiness_says_in_detail_what_is_wrong() {
    let gateway = Gateway::open().await;
    let ready = gateway.get("/readyz").await;
    insta::assert_snapshot!(ready.text(), @r#"
    {"ready":true,"reasons":[],"checks":{"listener":"ok","store":"ok","clock":"ok","draining":"ok"},"counts":{"events":4,"keys":8,"bytes":4096,"due":1,"held":1,"parked":0,"dead":1},"config":{"loaded_at":"2026-11-21T08:00:00.000Z","last_reload":{"at":"2026-11-21T09:00:00.000Z","outcome":"invalid","why":"the file has 2 errors"},"restart":["store.path"]}}
    "#);

    gateway.store.broken.store(true, Relaxed);
    gateway.health.drain();
    let draining = gateway.get("/readyz").await;
    assert_eq!(draining.status, 503);
    let json = draining.json();
    assert_eq!(json["reasons"][0]["code"], "draining");
    assert_eq!(json["checks"]["store"], "store is unavailable: the disk is away");
    assert_eq!(gateway.get("/livez").await.status, 200, "alive, though not ready");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_does_not_hang_a_probe() {
    let gateway = Gateway::open().await;
    gateway.store.hangs.store(true, Relaxed);
    let began = Instant::now();
    let answer = gateway.get("/readyz").await;
    assert_eq!((answer.status, &answer.json()["counts"]), (200, &Value::Null));
    assert!(began.elapsed() < Duration::from_secs(1), "a probe waits no longer");
}

#[tokio::test]
async fn pages_follow_one_another_without_gap_or_overlap() {
    let gateway = Gateway::open().await;
    let mut seen = Vec::new();
    let mut path = "/api/v1/events?limit=2".to_owned();
    loop {
        let page = gateway.get(&path).await.json();
        seen.extend(ids(&page).into_iter().map(ToOwned::to_owned));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/events?limit=2&cursor={cursor}");
    }
    let all: Vec<_> = [4, 3, 2, 1].map(|number| event_id(number).to_string()).to_vec();
    assert_eq!(seen, all, "four events are two full pages, and no third");
}

#[tokio::test]
async fn filters_reach_the_store_and_typing_errors_do_not() {
    let gateway = Gateway::open().await;
    let page = gateway.get("/api/v1/events?state=dead&source=partssource&type=order.created").await.json();
    assert_eq!(ids(&page), [event_id(2).to_string()]);
    let filter = gateway.store.last_filter();
    assert_eq!((filter.state, filter.event_type.as_deref()), (Some(State::Dead), Some("order.created")));

    let refused = gateway.get("/api/v1/events?stat=dead").await;
    assert_eq!(refused.problem(), problem(400, "parameter_unknown"));
    assert!(refused.text().contains("known are source, upstream, state"));
    let oldest = gateway.get("/api/v1/events?order=oldest&limit=2").await.json();
    assert_eq!(ids(&oldest), [1, 2].map(|number| event_id(number).to_string()));
    let rest = gateway
        .get(&format!("/api/v1/events?order=oldest&cursor={}", oldest["next_cursor"].as_str().expect("more")))
        .await;
    assert_eq!(ids(&rest.json()), [3, 4].map(|number| event_id(number).to_string()));
    let one = gateway.get(&format!("/api/v1/events?id={}", event_id(3))).await.json();
    assert_eq!(ids(&one), [event_id(3).to_string()]);
    assert_eq!(ids(&gateway.get("/api/v1/events?state=unrouted").await.json()), [] as [&str; 0]);
    assert!(gateway.store.last_filter().unrouted);
    gateway.get("/api/v1/events?json_pointer=/data/id&json_value=42").await;
    let json = JsonIs { pointer: "/data/id".into(), value: "42".into() };
    assert_eq!(gateway.store.last_filter().json, Some(json));
    assert_eq!(gateway.get("/api/v1/status?x=1").await.problem(), problem(400, "parameter_unknown"));
}

#[tokio::test]
async fn an_event_is_shown_with_headers_attempts_and_body() {
    let gateway = Gateway::open().await;
    let shown = gateway.get(&format!("/api/v1/events/{}", event_id(2))).await;
    let pretty = serde_json::to_string_pretty(&shown.json()).expect("JSON");
    insta::assert_snapshot!(pretty, @r#"
    {
      "body": {
        "bytes": 24,
        "content": "{\"id\": 7, \"x\": \"\\u001b\"}",
        "encoding": "utf-8",
        "redacted": false,
        "sha256": "7018fd3d0273b8982a79e6255c53f50012e1f807ee758517e22eee0e60944de4",
        "truncated": false,
        "withheld": null
      },
      "body_removed": false,
      "client": "203.0.113.7",
      "event": {
        "attempt_id": "attempt-9",
        "body_bytes": 24,
        "conflict_of": null,
        "copies": 1,
        "deliveries": [
          {
            "attempts": 1,
            "due_in_ms": null,
            "history": [
              {
                "began_at": "2025-11-21T08:00:10.000Z",
                "cause": "first",
                "error": "status 410",
                "number": 1,
                "status": 410,
                "took_ms": 12
              }
            ],
            "order_key": null,
            "reason": "status 410",
            "state": "dead",
            "upstream": "orders"
          }
        ],
        "duplicate_of": null,
        "event_type": "order.created",
        "id": "019aa500-0000-7000-8000-000000000002",
        "provider": "partssource",
        "received_at": "2025-11-21T08:00:02.000Z",
        "source": "partssource",
        "verified": "hmac-sha256/main"
      },
      "headers": [
        {
          "name": "content-type",
          "value": "application/json"
        },
        {
          "name": "x-ps-signature",
          "value": "redacted"
        },
        {
          "name": "authorization",
          "value": "redacted"
        },
        {
          "name": "x-odd",
          "value": "redacted"
        },
        {
          "name": "x-bytes",
          "value": "a�"
        }
      ],
      "host": "hooks.example.com",
      "keys": [
        {
          "key": "019aa500000070008000000000000002019aa500000070008000000000000002",
          "lives_ms": 3600000
        }
      ],
      "method": "POST",
      "proto": "https",
      "query": "test=1",
      "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    }
    "#);
}

#[tokio::test]
async fn a_body_is_downloaded_exactly_and_rendered_by_nobody() {
    let gateway = Gateway::open().await;
    let body = gateway.get(&format!("/api/v1/events/{}/body", event_id(3))).await;
    assert_eq!(body.body, fake::BINARY);
    assert_eq!(body.header("content-type"), "application/octet-stream");
    assert_eq!(body.header("x-content-type-options"), "nosniff");
    assert_eq!(body.header("content-disposition"), format!("attachment; filename=\"{}.bin\"", event_id(3)));
}

#[tokio::test]
async fn an_operator_changes_events_and_hears_what_cannot_be() {
    let gateway = Gateway::open().await;
    let path = |number, action: &str| format!("/api/v1/events/{}/{action}", event_id(number));
    let done = gateway.post(&path(2, "redeliver"), "{\"upstream\":\"orders\"}").await;
    assert_eq!(done.json()["count"], 1);
    for action in ["redeliver", "forget", "purge"] {
        assert_eq!(gateway.post(&path(2, action), "").await.status, 200, "{action}");
    }
    assert_eq!(gateway.post(&path(1, "release"), "{}").await.status, 200);
    let two = event_id(2);
    let calls = [
        format!("redeliver {two} orders"),
        format!("redeliver {two} -"),
        format!("forget {two}"),
        format!("purge {two}"),
        format!("release {}", event_id(1)),
    ];
    assert_eq!(gateway.store.calls(), calls);

    let unserved = gateway.post(&path(2, "redeliver"), "{\"upstream\":\"nowhere\"}").await;
    assert_eq!(unserved.problem(), problem(422, "upstream_unknown"));
    assert!(unserved.text().contains("configured are: orders, idle"));
    for wrong in ["{\"upstrem\":\"orders\"}", "[]", "{"] {
        assert_eq!(gateway.post(&path(2, "redeliver"), wrong).await.problem(), problem(400, "body_malformed"));
    }
    assert_eq!(gateway.post(&path(2, "release"), "").await.problem(), problem(409, "state_conflict"));
    assert_eq!(gateway.post(&path(99, "release"), "").await.problem(), problem(404, "event_unknown"));
    let large = " ".repeat(65 << 10);
    assert_eq!(gateway.post(&path(2, "release"), &large).await.problem(), problem(413, "body_large"));
    assert_eq!(gateway.store.calls().len(), calls.len() + 2, "only the two that found nothing to release got there");

    gateway.store.broken.store(true, Relaxed);
    assert_eq!(gateway.post(&path(2, "forget"), "").await.problem(), problem(503, "store_unavailable"));
}

#[tokio::test]
async fn what_operators_do_and_try_is_in_the_audit_log() {
    let (log, _until_the_end) = Log::of_this_thread();
    let gateway = Gateway::start(&[(READER, Role::Read), (OPERATOR, Role::Operate)]).await;
    let path = format!("/api/v1/events/{}/redeliver", event_id(2));
    for (token, body) in [(OPERATOR, "{\"upstream\":\"orders\"}"), (READER, ""), (OPERATOR, "[")] {
        let token = format!("Bearer {token}");
        gateway.ask("POST", &path, &[("authorization", &token), ("content-type", "application/json")], body).await;
    }
    let (lines, audit) = (log.lines(), log.audit());
    let told = |name: &str| audit.iter().map(|line| line[name].as_str().unwrap_or("-")).collect::<Vec<_>>().join(" ");
    assert_eq!(told("action"), "redeliver redeliver redeliver");
    assert_eq!(told("event"), [event_id(2).to_string().as_str(); 3].join(" "));
    assert_eq!(told("by"), "token-2 - token-2");
    assert_eq!(told("code"), "- role_too_low body_malformed");
    assert_eq!(told("upstream"), "orders - -");
    assert!(!lines.iter().any(|line| line.to_string().contains("canary")));
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The runtime of a test has one thread, so that this holds for the listener, too.
    fn of_this_thread() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let to = log.clone();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || to.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }
    fn audit(&self) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["target"] == "audit").collect()
    }
    fn lines(&self) -> Vec<Value> {
        let bytes = self.0.lock().expect("not poisoned").clone();
        let text = String::from_utf8(bytes).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_keeps_a_connection_by_being_slow() {
    let gateway = Gateway::open().await;
    let forget = format!("/api/v1/events/{}/forget", event_id(1));
    let half_a_body = format!("POST {forget} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{{");
    for (sent, answer) in [("", ""), ("GET /livez HT", ""), (half_a_body.as_str(), "HTTP/1.1 408")] {
        let began = Instant::now();
        let mut stream = TcpStream::connect(gateway.address).await.expect("a connection");
        stream.write_all(sent.as_bytes()).await.expect("sent");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("the end");
        assert!(String::from_utf8_lossy(&bytes).starts_with(answer), "{sent}");
        assert!((10..=25).contains(&began.elapsed().as_secs()), "{sent}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let gateway = Gateway::open().await;
    assert_eq!(gateway.get("/nothing").await.problem(), problem(404, "path_unknown"));
    assert_eq!(gateway.get("/api/v1/events/x").await.problem(), problem(404, "event_unknown"));
    assert_eq!(gateway.get(&format!("/api/v1/events/{}", event_id(99))).await.problem(), problem(404, "event_unknown"));
    let wrong = gateway.ask("DELETE", "/api/v1/events", &[], "").await;
    assert_eq!(wrong.problem(), problem(405, "method_not_allowed"));
    assert_eq!(wrong.header("allow"), "GET, HEAD");
}

#[tokio::test]
async fn every_answer_is_locked_down() {
    let gateway = Gateway::open().await;
    gateway.store.panics.store(true, Relaxed);
    for path in ["/api/v1/events", "/nothing", "/livez", "/metrics"] {
        let answer = gateway.get(path).await;
        assert!(answer.header("content-security-policy").starts_with("default-src 'self'"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
    }
    assert_eq!(gateway.get("/api/v1/events").await.problem(), problem(500, "panic"));
}

#[tokio::test]
async fn metrics_declare_everything_and_follow_the_store() {
    let gateway = Gateway::open().await;
    touch_all(&gateway.metrics);
    let answer = gateway.get("/metrics").await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let text = answer.text();
    let declared: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    insta::assert_snapshot!(declared.join("\n"), @"
    hookward_webhooks counter
    hookward_webhook_seconds histogram
    hookward_verified counter
    hookward_event_key_fallbacks counter
    hookward_attempts counter
    hookward_attempt_seconds histogram
    hookward_breaker gauge
    hookward_connections gauge
    hookward_connections_refused counter
    hookward_connections_ended counter
    hookward_in_flight gauge
    hookward_guard_keys gauge
    hookward_body_memory_bytes gauge
    hookward_deliveries gauge
    hookward_oldest_due_seconds gauge
    hookward_store_bytes gauge
    hookward_store_events gauge
    hookward_store_keys gauge
    hookward_ready gauge
    hookward_reloads counter
    hookward_config_loaded_at_seconds gauge
    hookward_build info
    ");
    for line in [
        "hookward_ready 1",
        "hookward_store_bytes 4096",
        "hookward_deliveries{upstream=\"orders\",state=\"dead\"} 1",
        "hookward_deliveries{upstream=\"idle\",state=\"held\"} 0",
        "hookward_oldest_due_seconds{upstream=\"orders\"} 90.0",
    ] {
        assert!(text.lines().any(|is| is == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));

    gateway.store.emptied.store(true, Relaxed);
    let text = gateway.get("/metrics").await;
    assert!(text.text().contains("hookward_deliveries{upstream=\"orders\",state=\"dead\"} 0"));
    assert!(!text.text().contains("hookward_oldest_due_seconds{"), "what is gone is not shown for ever");
}

/// What nothing was counted for is not exposed yet.
fn touch_all(metrics: &Metrics) {
    let name = "orders".into();
    let took = Duration::from_millis(7);
    metrics.webhook(&name, "accepted", took);
    metrics.verified(&name, &"main".into());
    metrics.key_fell_back(&name);
    metrics.attempt(&name, "delivered", took);
    metrics.breaker(&name, 2);
    metrics.connections(3);
    metrics.connection_refused();
    metrics.connection_ended("idle");
    metrics.in_flight(2, 4096);
}

#[tokio::test]
async fn no_secret_is_in_any_answer() {
    let gateway = Gateway::start(&[(READER, Role::Read), (OPERATOR, Role::Operate)]).await;
    let operator = format!("Bearer {OPERATOR}");
    let event = format!("/api/v1/events/{}", event_id(2));
    let mut answers = Vec::new();
    for path in ["/healthz", "/metrics", "/api/v1/status", "/api/v1/events", &event, "/nothing", "/api/v1/events?x=1"] {
        answers.push(gateway.ask("GET", path, &[("authorization", &operator)], "").await);
        answers.push(gateway.ask("GET", path, &[("authorization", &format!("{operator}x"))], "").await);
    }
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 6);
    for answer in answers {
        let all = format!("{:?} {}", answer.headers, answer.text());
        assert!(!all.contains("canary"), "{all}");
    }
    assert!(CANARY.contains("canary"));
}

#[tokio::test]
async fn a_silent_connection_does_not_stop_the_shutdown() {
    let gateway = Gateway::open().await;
    let _silent = TcpStream::connect(gateway.address).await.expect("a connection");
    assert_eq!(gateway.get("/livez").await.status, 200);
    gateway.stop.send(()).expect("it runs");
    tokio::time::timeout(Duration::from_secs(4), gateway.served)
        .await
        .expect("it ends in time")
        .expect("without panic");
}

#[tokio::test]
async fn the_commands_show_and_change_what_the_gateway_has() {
    let gateway = Gateway::open().await;
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();

    let status = gateway.cli(&["status"]).await;
    assert_eq!(status.status.code(), Some(0));
    assert!(text(&status).starts_with("ready, version") && text(&status).contains("orders"), "{}", text(&status));

    let list = gateway.cli(&["events", "list", "--state", "dead"]).await;
    assert!(text(&list).contains(&event_id(2).to_string()) && !text(&list).contains(&event_id(1).to_string()));
    let first = gateway.cli(&["events", "list", "--limit", "1"]).await;
    assert!(text(&first).ends_with(&format!("more: --cursor {}\n", event_id(4))), "{}", text(&first));

    let body = gateway.cli(&["events", "show", &event_id(3).to_string(), "--body"]).await;
    assert_eq!(body.stdout, fake::BINARY);

    let redeliver = ["events", "redeliver", "--state", "dead"];
    let unasked = gateway.cli(&redeliver).await;
    assert_eq!(unasked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unasked.stderr).contains("1 matching event to redeliver to their upstreams."));
    assert_eq!(gateway.store.calls(), [] as [String; 0], "nobody said yes");
    let redelivered = gateway.cli(&[&redeliver[..], &["--yes"]].concat()).await;
    let said = text(&redelivered);
    assert!(said.contains("state      finished\nprogress   100 %: 1 changed, 0 skipped, of 1\n"), "{said}");
    assert_eq!(gateway.store.calls(), [format!("redeliver {} - dead", event_id(2))]);

    gateway.store.many.store(true, Relaxed);
    let detached = gateway.cli(&[&redeliver[..], &["--yes", "--detach", "--json", "--rate", "1"]].concat()).await;
    let detached: Value = serde_json::from_slice(&detached.stdout).expect("JSON");
    assert_eq!((&detached["total"], &detached["rate"]), (&600.into(), &1.into()));
    let id = detached["id"].as_str().expect("an id");
    let stopped = text(&gateway.cli(&["operations", "stop", id]).await);
    assert!(stopped.contains("stopped: loopback stopped it") && stopped.contains("of 600"), "{stopped}");
    assert!(text(&gateway.cli(&["operations", "show", id]).await).contains(&format!("operations resume {id}")));
    assert!(text(&gateway.cli(&["operations", "list"]).await).contains("redeliver, 1 a second"));
    let wrong = gateway.cli(&["operations", "resume", &event_id(1).to_string()]).await;
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("there is no such operation"));
    gateway.store.many.store(false, Relaxed);

    let paused = text(&gateway.cli(&["upstreams", "pause", "orders"]).await);
    assert!(paused.starts_with("orders is paused since ") && paused.ends_with(" by loopback\n"), "{paused}");
    assert!(text(&gateway.cli(&["status"]).await).contains("`hookward upstreams resume orders`"));
    assert_eq!(text(&gateway.cli(&["upstreams", "resume", "orders"]).await), "orders is not paused\n");
    let unknown = gateway.cli(&["upstreams", "pause", "nowhere"]).await;
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("configured are: orders, idle"));

    let missing = gateway.cli(&["events", "purge", &event_id(99).to_string(), "--yes"]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no such event"));
}

#[tokio::test]
async fn the_commands_say_what_to_do_when_they_cannot() {
    let gateway = Gateway::start(&[(READER, Role::Read)]).await;
    let unauthorized = gateway.cli(&["status"]).await;
    assert_eq!(unauthorized.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unauthorized.stderr).contains("--token-file"));

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, format!("{READER}\n")).expect("written");
    let with_token = gateway.cli(&["status", "--json", "--token-file", file.to_str().expect("text")]).await;
    assert_eq!(with_token.status.code(), Some(0));
    assert_eq!(serde_json::from_slice::<Value>(&with_token.stdout).expect("JSON")["health"]["ready"], true);

    gateway.health.drain();
    let draining = gateway.cli(&["status", "--token-file", file.to_str().expect("text")]).await;
    assert_eq!(draining.status.code(), Some(1), "not ready");

    // A port that was just let go: nobody listens there.
    let nobody = Gateway { address: free_address().await, ..gateway };
    let unanswered = nobody.cli(&["status"]).await;
    let said = String::from_utf8_lossy(&unanswered.stderr).into_owned();
    assert_eq!(unanswered.status.code(), Some(1));
    assert!(said.contains("no gateway at 127.0.0.1") && said.contains("give --admin-url"), "{said}");
}

async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address")
}
