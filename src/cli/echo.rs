//! `hookward echo`: a small upstream that prints what it receives. `demo` and tests use the server in it.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::Write as _,
    net::SocketAddr,
    num::NonZeroUsize,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, StatusCode, request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use lru::LruCache;
use sha2::{Digest as _, Sha256};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{document::parse_duration, verify::encode_hex};

/// Largest body, in bytes. Hookward itself forwards no larger ones unless configured to.
const BODY_BYTES_MAX: usize = 64 << 20;
/// From the first byte of a body to its last.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Events remembered to recognise copies.
const EVENTS_MAX: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();
/// How much of a body is shown, in bytes.
const PREVIEW_BYTES: usize = 200;

/// Run a small upstream that prints what it receives.
///
/// Point an upstream of your configuration at it to see which headers and bytes arrive, and let it fail on purpose to
/// see retries, dead letters and the breaker at work.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hookward echo                           answers 200 on 127.0.0.1:9000
  hookward echo --fail-first 3            three retries, then delivered
  hookward echo --status 410              a dead letter at once
  hookward echo --delay 20s               slower than an upstream's timeout")]
pub(super) struct Args {
    /// Where to listen.
    #[arg(short, long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Answer with this status.
    #[arg(long, default_value = "200", value_parser = status)]
    status: StatusCode,
    /// Wait this long before each answer, such as 2s or 500ms.
    #[arg(long, value_parser = duration, default_value = "0s", hide_default_value = true)]
    delay: Duration,
    /// Answer the first N requests with 503.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    fail_first: u64,
    /// Print nothing but the totals at the end.
    #[arg(short, long)]
    quiet: bool,
    /// Print one JSON object a line instead of text.
    #[arg(long)]
    json: bool,
}

fn status(text: &str) -> Result<StatusCode, String> {
    let status = text.parse::<StatusCode>().ok().filter(|status| status.as_u16() >= 200);
    status.ok_or_else(|| "not a status from 200 to 999".to_owned())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "not a duration with its unit, such as 2s or 500ms".to_owned())
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("failed to listen on {}", args.listen))?;
    let options = Options {
        status: args.status,
        delay: args.delay,
        fail_first: args.fail_first,
        keep: 0,
        show: match (args.quiet, args.json) {
            (true, _) => None,
            (false, true) => Some(Received::json),
            (false, false) => Some(Received::text),
        },
    };
    let echo = serve(listener, options)?;
    // To stderr, so that with --json what is on stdout stays one object a line.
    eprintln!("echo upstream on http://{}, Ctrl-C ends it", echo.address());
    tokio::signal::ctrl_c().await.context("failed to wait for Ctrl-C")?;
    let totals = echo.totals();
    eprintln!("\n{} requests, {} events, {} of them again", totals.requests, totals.events, totals.again);
    Ok(ExitCode::SUCCESS)
}

/// How an echo upstream behaves.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Its answer.
    pub(super) status: StatusCode,
    /// Before each answer.
    pub(super) delay: Duration,
    /// That many requests get 503 first.
    pub(super) fail_first: u64,
    /// How many requests it keeps for [`Echo::received`]: the latest ones.
    pub(super) keep: usize,
    /// How a request is printed; `None` for not at all.
    pub(super) show: Option<fn(&Received) -> String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { status: StatusCode::OK, delay: Duration::ZERO, fail_first: 0, keep: 10_000, show: None }
    }
}

/// A request that an echo upstream received.
#[derive(Clone, Debug)]
pub(super) struct Received {
    /// Counted from 1.
    pub(super) number: u64,
    /// The method and the path with its query.
    pub(super) line: String,
    /// All headers.
    pub(super) headers: http::HeaderMap,
    /// The body.
    pub(super) body: Bytes,
    /// The status it was answered with.
    pub(super) status: StatusCode,
    /// How often this event (by its `idempotency-key`) came before.
    pub(super) copies_before: u64,
}

impl Received {
    /// A header as text, if it is there.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        Some(String::from_utf8_lossy(self.headers.get(name)?.as_bytes()).into_owned())
    }

    /// SHA-256 of the body in hexadecimal.
    pub(super) fn sha256(&self) -> String {
        encode_hex(&Sha256::digest(&self.body))
    }

    fn hookward_headers(&self) -> impl Iterator<Item = (&str, String)> {
        let ours = self.headers.iter().filter(|(name, _)| name.as_str().starts_with("hookward-"));
        ours.map(|(name, value)| (name.as_str(), escaped(value.as_bytes())))
    }

    fn text(&self) -> String {
        let again = if self.copies_before > 0 { "  AGAIN" } else { "" };
        let mut out = format!("#{} {} -> {}{again}\n", self.number, self.line, self.status.as_u16());
        for (name, value) in self.hookward_headers() {
            let _ = writeln!(out, "   {name}: {value}");
        }
        let _ = writeln!(out, "   {} bytes, sha256 {}", self.body.len(), self.sha256());
        if !self.body.is_empty() {
            let _ = writeln!(out, "   {}", self.preview());
        }
        out
    }

    fn json(&self) -> String {
        let headers: serde_json::Map<_, _> =
            self.hookward_headers().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let line = serde_json::json!({
            "number": self.number,
            "request": self.line,
            "status": self.status.as_u16(),
            "again": self.copies_before > 0,
            "headers": headers,
            "bytes": self.body.len(),
            "sha256": self.sha256(),
            "preview": self.preview(),
        });
        format!("{line}\n")
    }

    fn preview(&self) -> String {
        let shown = &self.body[..self.body.len().min(PREVIEW_BYTES)];
        let more = if shown.len() < self.body.len() { "…" } else { "" };
        format!("{}{more}", escaped(shown))
    }
}

/// Text that is safe on a terminal: everything but printable ASCII is escaped.
fn escaped(bytes: &[u8]) -> String {
    let escape = |byte: u8| match byte {
        b' '..=b'~' if byte != b'\\' => (byte as char).to_string(),
        _ => byte.escape_ascii().to_string(),
    };
    bytes.iter().copied().map(escape).collect()
}

/// What an echo upstream has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Totals {
    /// Requests.
    pub(super) requests: u64,
    /// Different events.
    pub(super) events: u64,
    /// Requests whose event had come before.
    pub(super) again: u64,
}

/// A running echo upstream. Dropping it closes its listener and its connections.
#[derive(Debug)]
pub(super) struct Echo {
    address: SocketAddr,
    seen: Arc<Seen>,
    stop: CancellationToken,
}

impl Echo {
    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
    /// The latest requests, oldest first: as many as its options keep.
    pub(super) fn received(&self) -> Vec<Received> {
        self.seen.ledger().kept.iter().cloned().collect()
    }
    /// What it has seen.
    pub(super) fn totals(&self) -> Totals {
        self.seen.ledger().totals
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Debug)]
struct Seen {
    options: Options,
    ledger: Mutex<Ledger>,
}

#[derive(Debug)]
struct Ledger {
    totals: Totals,
    /// How often each event came, by its idempotency key.
    events: LruCache<Vec<u8>, u64>,
    kept: VecDeque<Received>,
}

impl Seen {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts an echo upstream on this listener.
pub(super) fn serve(listener: TcpListener, options: Options) -> anyhow::Result<Echo> {
    let address = listener.local_addr().context("failed to read the address of the listener")?;
    let ledger = Ledger { totals: Totals::default(), events: LruCache::new(EVENTS_MAX), kept: VecDeque::new() };
    let seen = Arc::new(Seen { options, ledger: Mutex::new(ledger) });
    let stop = CancellationToken::new();
    tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, seen.clone(), stop.clone())));
    Ok(Echo { address, seen, stop })
}

async fn accept(listener: TcpListener, seen: Arc<Seen>, stop: CancellationToken) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: they come back.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let seen = seen.clone();
        let service = service_fn(move |request| answer(seen.clone(), request));
        let mut http = http1::Builder::new();
        let connection = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
    }
}

async fn answer(
    seen: Arc<Seen>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let (head, body) = request.into_parts();
    let body = timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let Ok(Ok(body)) = body else {
        return Ok(plain(StatusCode::BAD_REQUEST, "the body is too long, too slow or broken\n"));
    };
    let status = record(&seen, head, body.to_bytes());
    sleep(seen.options.delay).await;
    Ok(plain(status, ""))
}

/// Counts and shows a request. Returns the status to answer with.
fn record(seen: &Seen, head: request::Parts, body: Bytes) -> StatusCode {
    let mut ledger = seen.ledger();
    ledger.totals.requests += 1;
    let number = ledger.totals.requests;
    let status = if number <= seen.options.fail_first { StatusCode::SERVICE_UNAVAILABLE } else { seen.options.status };
    let copies_before = match head.headers.get("idempotency-key") {
        Some(key) => {
            let times = ledger.events.get_or_insert_mut(key.as_bytes().to_vec(), || 0);
            *times += 1;
            *times - 1
        }
        None => 0,
    };
    if copies_before == 0 {
        ledger.totals.events += 1;
    } else {
        ledger.totals.again += 1;
    }
    let line = format!("{} {}", head.method, escaped(head.uri.to_string().as_bytes()));
    let received = Received { number, line, headers: head.headers, body, status, copies_before };
    if let Some(show) = seen.options.show {
        // One write, under the lock: lines of two requests never mix. A closed pipe is no reason to stop answering.
        let _ = std::io::stdout().write_all(show(&received).as_bytes());
    }
    if seen.options.keep > 0 {
        ledger.kept.push_back(received);
        if ledger.kept.len() > seen.options.keep {
            ledger.kept.pop_front();
        }
    }
    status
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;
    use crate::{
        http::client::{Client, Sent},
        time::Clock,
    };

    async fn post(client: &Client, echo: &Echo, key: &'static str, body: &'static [u8]) -> u16 {
        let url = format!("http://{}/in?a=1", echo.address()).parse().expect("a url");
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", HeaderValue::from_static(key));
        headers.insert("hookward-source", HeaderValue::from_static("orders"));
        let body = Bytes::from_static(body);
        match client.send(Method::POST, url, headers, body, Duration::from_secs(30)).await {
            Sent::Answered(answer) => answer.status.as_u16(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn it_fails_first_counts_copies_and_keeps_what_it_received() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let status = StatusCode::ACCEPTED;
        let echo = serve(listener, Options { status, fail_first: 1, keep: 2, ..Options::default() }).expect("serves");
        let client = Client::new(&"http://h/".parse().expect("a url"), None, Clock::system()).expect("a client");
        assert_eq!(post(&client, &echo, "one", b"1").await, 503);
        assert_eq!(post(&client, &echo, "one", b"1").await, 202);
        assert_eq!(post(&client, &echo, "two", b"2").await, 202);
        assert_eq!(echo.totals(), Totals { requests: 3, events: 2, again: 1 });
        let received = echo.received();
        let seen: Vec<_> = received.iter().map(|received| (received.number, received.copies_before)).collect();
        assert_eq!(seen, [(2, 1), (3, 0)]);
        assert_eq!(received[1].header("idempotency-key").as_deref(), Some("two"));
    }

    #[test]
    fn a_request_is_shown_without_anything_that_could_move_the_cursor() {
        let mut headers = HeaderMap::new();
        headers.insert("hookward-event-id", HeaderValue::from_static("an-id"));
        headers.insert("authorization", HeaderValue::from_static("Bearer canary"));
        let mut body = b"{\"a\":\"\x1b[2J\n\xc3\xa9\\\"}".to_vec();
        body.resize(300, b'x');
        let line = "POST /in".to_owned();
        let received =
            Received { number: 7, line, headers, body: body.into(), status: StatusCode::OK, copies_before: 1 };
        let text = received.text();
        assert!(
            text.starts_with("#7 POST /in -> 200  AGAIN\n   hookward-event-id: an-id\n   300 bytes, sha256 "),
            "{text}"
        );
        assert!(text.contains(r#"{"a":"\x1b[2J\n\xc3\xa9\\"}xxx"#) && text.ends_with("x…\n"), "{text}");
        assert!(!text.contains("canary"));
        let json: serde_json::Value = serde_json::from_str(&received.json()).expect("json");
        assert_eq!(json["headers"]["hookward-event-id"], "an-id");
        assert_eq!((&json["again"], &json["bytes"]), (&true.into(), &300.into()));
    }
}
