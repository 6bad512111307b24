//! A whole gateway in this process, an upstream that does what a test says, and raw HTTP between them.
//!
//! Everything is real (sockets, SQLite, the stack); only the ports are free ones and the directory temporary. The
//! wall clock starts at [`NOW_S`], so that signatures can be made for a known time.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Write as _,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use hookward::{
    config::{self, Config},
    gateway::Gateway,
    preset,
    time::{Clock, Wall},
    verify::{SignRequest, SigningKey},
};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
};

/// Where the wall clock of every world starts, in Unix seconds.
pub(crate) const NOW_S: i64 = 1_700_000_000;
/// Longer than anything takes that works: what is not there by then never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway, its upstream and its data.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) upstream: Upstream,
    pub(crate) data: TempDir,
    /// What the gateway reads.
    pub(crate) clock: Clock,
}

impl World {
    /// A gateway with `sources` (the text of `[sources.*]`, and whatever else but the listeners and the store); an
    /// upstream named `up` is there, at which everything succeeds unless the test says otherwise.
    pub(crate) async fn start(sources: &str) -> Self {
        Self::start_with(sources, "", Upstream::start().await, TempDir::new().expect("a directory")).await
    }

    /// As [`World::start`], with keys for `[upstreams.up]`.
    pub(crate) async fn with_upstream(sources: &str, keys: &str) -> Self {
        Self::start_with(sources, keys, Upstream::start().await, TempDir::new().expect("a directory")).await
    }

    /// On data that is there already.
    pub(crate) async fn start_with(sources: &str, keys: &str, upstream: Upstream, data: TempDir) -> Self {
        let text = configuration(sources, keys, &upstream.url(), data.path());
        Self::start_as(&text, NOW_S, upstream, data).await
    }

    /// With a whole configuration, and a wall clock that starts at `epoch_s`.
    pub(crate) async fn start_as(text: &str, epoch_s: i64, upstream: Upstream, data: TempDir) -> Self {
        let config = parse(text, data.path());
        let clock = Clock::starting_at(Wall::from_unix_s(epoch_s));
        let gateway = Gateway::start(config, clock.clone()).await.expect("the gateway starts");
        Self { gateway, upstream, data, clock }
    }

    /// As [`World::start`], with the text of the whole configuration changed first.
    pub(crate) async fn start_edited(sources: &str, edit: impl FnOnce(String) -> String) -> Self {
        let (upstream, data) = (Upstream::start().await, TempDir::new().expect("a directory"));
        let text = edit(configuration(sources, "", &upstream.url(), data.path()));
        Self::start_as(&text, NOW_S, upstream, data).await
    }

    /// Drains the gateway and starts another on the same data, with the same upstream.
    pub(crate) async fn restart(self, sources: &str) -> Self {
        assert!(self.gateway.drain().await, "drained whole");
        Self::start_with(sources, "", self.upstream, self.data).await
    }

    /// Sends a request to the public listener on a connection of its own.
    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        request(self.gateway.public, "POST", path, headers, body).await
    }

    /// Signs `body` as the provider of that name, for the time `NOW_S + offset_s`, and sends it to the path.
    pub(crate) async fn send(&self, provider: &str, secret: &str, path: &str, body: &[u8], offset_s: i64) -> Reply {
        let headers = sign(provider, secret, body, NOW_S + offset_s);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.post(path, &headers, body).await
    }

    /// Asks the admin API; the answer must be JSON.
    pub(crate) async fn admin(&self, method: &str, path: &str) -> serde_json::Value {
        let reply = request(self.gateway.admin, method, path, &[("content-type", "application/json")], b"").await;
        assert_eq!(reply.status, 200, "{method} {path}: {}", reply.text());
        serde_json::from_slice(&reply.body).expect("JSON")
    }

    /// The sum of a metric over all its lines that begin like this.
    pub(crate) async fn metric(&self, begins: &str) -> u64 {
        let reply = request(self.gateway.admin, "GET", "/metrics", &[], b"").await;
        let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<u64>().ok());
        reply.text().lines().filter(|line| line.starts_with(begins)).filter_map(value).sum()
    }

    /// Waits until a counter got there. Webhooks are counted as verified right before they meet the guard.
    pub(crate) async fn until_metric(&self, begins: &str, at_least: u64) {
        within(begins, async {
            while self.metric(begins).await < at_least {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Waits until nothing is due or being made.
    pub(crate) async fn settled(&self) {
        within("everything to be delivered", async {
            while self.gateway.pending().await.expect("the store answers") > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// The text of a configuration with an upstream `up`.
pub(crate) fn configuration(sources: &str, upstream_keys: &str, upstream: &str, data: &Path) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\ndrain_timeout = \"10s\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [store]\npath = {:?}\n\
         [upstreams.up]\nurl = \"{upstream}\"\n{upstream_keys}\n{sources}\n",
        data.join("store").display().to_string()
    )
}

/// The model of a configuration; a test's configuration has no errors.
pub(crate) fn parse(text: &str, base: &Path) -> Config {
    let loaded = config::from_text("test.toml", text, base);
    match loaded.config {
        Some(config) => config,
        None => panic!("{}", loaded.problems.render(false)),
    }
}

/// The headers of a genuine request of a shipped provider. The id and the nonce depend on the body only.
pub(crate) fn sign(provider: &str, secret: &str, body: &[u8], at_s: i64) -> Vec<(String, String)> {
    let provider = preset::find(provider).expect("a preset");
    let key = provider.key_format.decode(secret.as_bytes()).expect("a key");
    let nonce = format!("{:016x}", body.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte)));
    let id = format!("msg_{nonce}");
    let at = Wall::from_unix_s(at_s);
    let request = SignRequest { id: &id, nonce: &nonce, ..SignRequest::new(SigningKey::Shared(&key), body, at) };
    let signature = provider.scheme.sign(&request).expect("signed");
    signature.headers.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

/// Fails the test if it does not happen in time.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("waited for {what} in vain"))
}

// ---- raw HTTP ------------------------------------------------------------------------------------------------------

/// An answer, byte for byte.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The status line and the headers as they came.
    pub(crate) head: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }
    /// `accepted` or `duplicate`, and the id.
    pub(crate) fn ack(&self) -> (String, String) {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text());
        let json = self.json();
        let of = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        (of("status"), of("id"))
    }
}

/// One request on a connection of its own, written as it stands: no library tidies it up.
pub(crate) async fn request(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        let _ = write!(head, "host: {to}\r\n");
    }
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let framed =
        |name: &str| name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding");
    if !headers.iter().any(|(name, _)| framed(name)) {
        let _ = write!(head, "content-length: {}\r\n", body.len());
    }
    let mut bytes = (head + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    raw(to, &bytes).await
}

/// These bytes on a connection of their own, and the first answer to them.
pub(crate) async fn raw(to: SocketAddr, bytes: &[u8]) -> Reply {
    let stream = within("a connection", TcpStream::connect(to)).await.expect("it listens");
    let (mut reading, mut writing) = stream.into_split();
    let bytes = bytes.to_vec();
    // An early answer may come while the body is still being sent.
    let sending = tokio::spawn(async move {
        let _ = writing.write_all(&bytes).await;
        writing
    });
    let reply = within("an answer", read_reply(&mut reading)).await;
    sending.abort();
    reply
}

/// Reads one answer with a `content-length`.
pub(crate) async fn read_reply(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Reply {
    let mut seen = Vec::new();
    let head_end = loop {
        if let Some(at) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let read = stream.read_buf(&mut seen).await.unwrap_or(0);
        assert!(read > 0, "closed before an answer, after {:?}", String::from_utf8_lossy(&seen));
    };
    let head = String::from_utf8_lossy(&seen[..head_end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status line");
    let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let headers: HashMap<_, _> = lines.filter_map(pair).collect();
    let length: usize = headers.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    let mut body = seen.split_off(head_end);
    while body.len() < length {
        let read = stream.read_buf(&mut body).await.unwrap_or(0);
        assert!(read > 0, "the answer was cut");
    }
    Reply { status, head, headers, body }
}

// ---- the upstream --------------------------------------------------------------------------------------------------

/// What the upstream does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Answers with this status and body.
    Answer(u16, &'static str),
    /// Answers with this status, these headers, and a body of so many bytes.
    Full(u16, Vec<(&'static str, String)>, usize),
    /// Waits until [`Upstream::let_go`], then answers with this status.
    Hang(u16),
    /// Answers with this status and JSON.
    Json(u16, &'static str),
    /// Waits until [`Upstream::let_go`], then answers with this status and JSON.
    Later(u16, &'static str),
    /// Reads the request and closes the connection without an answer.
    Cut,
}

/// A request that the upstream received.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// An upstream on a free port that follows a script, and answers 200 when the script is over.
#[derive(Clone)]
pub(crate) struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    script: Mutex<VecDeque<Act>>,
    received: Mutex<Vec<Received>>,
    arrived: Notify,
    gate: Semaphore,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            script: Mutex::default(),
            received: Mutex::default(),
            arrived: Notify::new(),
            gate: Semaphore::new(0),
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                let service = hyper::service::service_fn(move |request| answer(state.clone(), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, state }
    }
    pub(crate) fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }
    /// The next requests are treated like this, in this order.
    pub(crate) fn script(&self, acts: impl IntoIterator<Item = Act>) {
        self.state.script.lock().expect("not poisoned").extend(acts);
    }
    /// What is left of the script does not happen.
    pub(crate) fn forget_script(&self) {
        self.state.script.lock().expect("not poisoned").clear();
    }
    /// Lets one hanging request go.
    pub(crate) fn let_go(&self) {
        self.state.gate.add_permits(1);
    }
    /// What came so far, oldest first.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("not poisoned").clone()
    }
    /// Waits until this many requests came, and returns them.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Received> {
        within("the upstream to receive it", async {
            loop {
                let arrived = self.state.arrived.notified();
                let received = self.received();
                if received.len() >= count {
                    return received;
                }
                arrived.await;
            }
        })
        .await
    }
}

async fn answer(
    state: Arc<State>,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let act = state.script.lock().expect("not poisoned").pop_front().unwrap_or(Act::Answer(200, ""));
    let path = head.uri.to_string();
    state.received.lock().expect("not poisoned").push(Received { path, headers: head.headers, body });
    state.arrived.notify_waiters();
    if matches!(act, Act::Hang(_) | Act::Later(..)) {
        state.gate.acquire().await.expect("never closed").forget();
    }
    let json = || vec![("content-type", "application/json".to_owned())];
    let (status, headers, body) = match act {
        Act::Answer(status, text) => (status, Vec::new(), Bytes::from_static(text.as_bytes())),
        Act::Full(status, headers, bytes) => (status, headers, vec![b'x'; bytes].into()),
        Act::Hang(status) => (status, Vec::new(), Bytes::new()),
        Act::Json(status, text) | Act::Later(status, text) => (status, json(), Bytes::from_static(text.as_bytes())),
        Act::Cut => return Err(std::io::Error::other("cut")),
    };
    let mut response = http::Response::new(Full::new(body));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().expect("a header value"));
    }
    Ok(response)
}
