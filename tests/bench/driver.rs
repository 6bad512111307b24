//! Sends signed webhooks over keep-alive connections and notes how long each answer took.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use sha2::Sha256;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// What one connection keeps at most: more than it can make in ten minutes on one machine, and bounded.
const SAMPLES_MAX: usize = 2_000_000;
/// A connection that fails so often in a row gives up.
const FAILURES_MAX: u32 = 50;
/// An answer that takes longer counts as none.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to send, and how.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) connections: u16,
    /// Sent, and not counted.
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    pub(crate) pace: Pace,
    pub(crate) signer: Signer,
}

#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// The next request follows the answer.
    AsFastAsAnswered,
    /// In all. A request that had to wait for its connection counts from when it should have been sent.
    PerSecond(u32),
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Of each accepted webhook, sorted.
    latencies: Vec<Duration>,
    measured: Duration,
    /// Accepted, those of the warm-up included: what the process that is measured worked for.
    pub(crate) accepted_in_all: u64,
    /// Any other answer, and none.
    pub(crate) not_accepted: u64,
    /// The last of those.
    pub(crate) last_trouble: String,
}

impl Outcome {
    pub(crate) fn accepted(&self) -> usize {
        self.latencies.len()
    }
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    pub(crate) fn accepted_per_second(&self) -> f64 {
        self.accepted() as f64 / self.measured.as_secs_f64()
    }
    /// The smallest latency that so many percent do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        self.latencies.get(rank.saturating_sub(1)).copied()
    }
}

impl Load {
    pub(crate) async fn run(&self, target: SocketAddr, path: &str) -> Outcome {
        let begin = Instant::now();
        let mut connections = JoinSet::new();
        for number in 0..self.connections {
            let connection = Connection { load: self.clone(), number, target, path: path.to_owned(), begin };
            connections.spawn(connection.drive());
        }
        let mut all = Outcome { measured: self.measured, ..Outcome::default() };
        while let Some(one) = connections.join_next().await {
            let one = one.expect("a connection does not panic");
            all.latencies.extend(one.latencies);
            all.accepted_in_all += one.accepted_in_all;
            all.not_accepted += one.not_accepted;
            if one.not_accepted > 0 {
                all.last_trouble = one.last_trouble;
            }
        }
        all.latencies.sort_unstable();
        all
    }
}

struct Connection {
    load: Load,
    number: u16,
    target: SocketAddr,
    path: String,
    begin: Instant,
}

impl Connection {
    async fn drive(self) -> Outcome {
        let counted_from = self.begin + self.load.warm_up;
        let end = counted_from + self.load.measured;
        let (mut outcome, mut open, mut failures) = (Outcome::default(), None, 0);
        for count in 0..SAMPLES_MAX as u64 {
            let due = self.due(count);
            let began = if due > Instant::now() {
                sleep_until(due).await;
                // The timer is a millisecond coarse: what it is late is not the gateway's doing.
                Instant::now()
            } else if matches!(self.load.pace, Pace::PerSecond(_)) {
                due
            } else {
                Instant::now()
            };
            if began >= end {
                break;
            }
            let answer = self.post(&mut open, count).await;
            let took = began.elapsed();
            match answer {
                Ok(StatusCode::OK) => {
                    failures = 0;
                    outcome.accepted_in_all += 1;
                    // What began in time counts even if it ended late: a row that hangs must show it.
                    if began >= counted_from {
                        outcome.latencies.push(took);
                    }
                }
                other => {
                    failures += 1;
                    outcome.not_accepted += 1;
                    outcome.last_trouble = other.map_or_else(|error| format!("{error:#}"), |status| status.to_string());
                    if failures >= FAILURES_MAX {
                        break;
                    }
                }
            }
        }
        outcome
    }

    /// When this connection's request number `count` should be sent; the connections take turns.
    fn due(&self, count: u64) -> Instant {
        match self.load.pace {
            Pace::AsFastAsAnswered => self.begin,
            Pace::PerSecond(rate) => {
                let turn = count * u64::from(self.load.connections) + u64::from(self.number);
                self.begin + Duration::from_nanos(turn * 1_000_000_000 / u64::from(rate))
            }
        }
    }

    async fn post(&self, open: &mut Option<SendRequest<Full<Bytes>>>, count: u64) -> Result<StatusCode> {
        let mut sender = match open.take() {
            Some(sender) => sender,
            None => connect(self.target).await?,
        };
        sender.ready().await.context("failed to keep the connection")?;
        let (body, timestamp, signature) = self.load.signer.sign(self.number, count);
        let request = Request::post(&self.path)
            .header("host", self.target.to_string())
            .header("content-type", "application/json")
            .header("x-ps-timestamp", timestamp)
            .header("x-ps-signature", signature)
            .body(Full::new(body))
            .expect("the parts are valid");
        let exchange = async {
            let response = sender.send_request(request).await.context("failed to get an answer")?;
            let status = response.status();
            response.into_body().collect().await.context("failed to read the answer")?;
            Ok::<_, anyhow::Error>(status)
        };
        let status = timeout(PATIENCE, exchange).await.context("no answer in time")??;
        *open = Some(sender);
        Ok(status)
    }
}

async fn connect(target: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(target).await.with_context(|| format!("failed to connect to {target}"))?;
    stream.set_nodelay(true).context("failed to set TCP_NODELAY")?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.context("failed to begin HTTP")?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Whether something accepts connections there.
pub(crate) async fn listens(target: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect(target).await?;
    ensure!(stream.peer_addr()? == target, "something else answered");
    Ok(())
}

/// Makes bodies, each unlike any other, and signs them: `sha256=` hex of HMAC-SHA256 over `{timestamp}.{body}`.
#[derive(Clone)]
pub(crate) struct Signer {
    keyed: Hmac<Sha256>,
    padding: Arc<str>,
}

impl Signer {
    pub(crate) fn new(secret: &str, body_bytes: usize) -> Self {
        let keyed = Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
        let frame = Self::body(0, 0, "").len();
        Self { keyed, padding: "x".repeat(body_bytes.saturating_sub(frame)).into() }
    }

    fn sign(&self, connection: u16, count: u64) -> (Bytes, String, String) {
        let body = Self::body(connection, count, &self.padding);
        #[expect(clippy::disallowed_methods, reason = "a provider has a clock of its own")]
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let timestamp = since.expect("it is after 1970").as_secs().to_string();
        let mut mac = self.keyed.clone();
        mac.update(timestamp.as_bytes());
        mac.update(b".");
        mac.update(body.as_bytes());
        let mut signature = "sha256=".to_owned();
        for byte in mac.finalize().into_bytes() {
            let _ = write!(signature, "{byte:02x}");
        }
        (body.into(), timestamp, signature)
    }

    fn body(connection: u16, count: u64, padding: &str) -> String {
        format!(
            r#"{{"event_type":"order.updated","company_id":{connection:05},"reference_id":{count:012},"payload":{{"note":"{padding}"}}}}"#
        )
    }
}
