//! `hookward demo`: the whole gateway in one process, on temporary data, with a table of what happened.

use std::{
    fmt::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use tokio::net::TcpListener;

use super::{FAILED, echo};
use crate::{
    config,
    gateway::Gateway,
    http::client::{Client, Sent},
    preset::{self, OnStale, Provider},
    telemetry,
    time::{Clock, Wall},
    verify::{SignRequest, SigningKey},
};

/// See it work: a gateway, an upstream and signed webhooks in one process.
///
/// Sends valid, copied, replayed, forged, stale and oversized webhooks of the first five providers, and prints a
/// table of what happened. Uses temporary data and free ports. Exits 0 only if every row is as expected. Stays up
/// until Ctrl-C, so that the gateway can be looked at, unless --once is given.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  hookward demo --once")]
pub(super) struct Args {
    /// End after the table.
    #[arg(long)]
    once: bool,
}

const PROVIDERS: [&str; 5] = ["partssource", "sourcehub", "price2b", "mobility-work", "gains"];
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest body of the demo's sources, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    telemetry::log::init(config::model::LogFormat::Text, "error")?;
    let data = Scratch::new()?;
    let listener = TcpListener::bind("127.0.0.1:0").await.context("failed to bind the echo upstream")?;
    let upstream = listener.local_addr()?;
    let received = echo::serve(listener, echo::Options::default())?;
    let clock = Clock::system();
    let text = configuration(upstream.port(), &data);
    let loaded = config::from_text("demo.toml", &text, &data.0);
    let Some(config) = loaded.config else {
        anyhow::bail!("the demo's own configuration is wrong:\n{}", loaded.problems.render(false));
    };
    let gateway = Gateway::start(config, clock.clone()).await?;
    println!("gateway  http://{}  (admin http://{})\nupstream http://{upstream}\n", gateway.public, gateway.admin);

    let mut demo = Demo { gateway: &gateway, clock, rows: Vec::new() };
    for name in PROVIDERS {
        let provider = preset::find(name).with_context(|| format!("there is no preset {name}"))?;
        demo.traffic(&provider).await?;
    }
    demo.wait_until_delivered().await?;
    demo.compare_with(&received.received());
    let rows = demo.rows;
    print_table(&rows);
    let wrong = rows.iter().filter(|row| !row.is_right()).count();
    println!("\n{} rows, {} as expected, {wrong} not", rows.len(), rows.len() - wrong);

    if !args.once {
        println!(
            "\nThe gateway stays up. Look at it:\n  hookward status --admin-url http://{0}\n  hookward events list --admin-url http://{0}\nCtrl-C ends it.",
            gateway.admin
        );
        tokio::signal::ctrl_c().await.context("failed to wait for Ctrl-C")?;
    }
    gateway.drain().await;
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// One thing tried, what was expected of it, and what happened.
struct Row {
    provider: String,
    what: &'static str,
    expected: String,
    got: String,
    /// The body that the upstream must have received, and how often.
    forwarded: Option<(Bytes, usize)>,
}

impl Row {
    fn is_right(&self) -> bool {
        self.expected == self.got
    }
}

struct Demo<'g> {
    gateway: &'g Gateway,
    clock: Clock,
    rows: Vec<Row>,
}

/// An answer, as much as matters here.
struct Answer {
    status: u16,
    body: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = ["accepted", "duplicate"].into_iter().find(|word| self.body.contains(word));
        match word {
            Some(word) if self.status < 300 => write!(f, "{} {word}", self.status),
            _ => write!(f, "{}", self.status),
        }
    }
}

impl Demo<'_> {
    async fn traffic(&mut self, provider: &Provider) -> anyhow::Result<()> {
        let (now, real) = (self.clock.wall(), secret(&provider.name));
        let body = |what: &str| Bytes::from(format!("{{\"id\":\"evt_{what}\",\"note\":\"caf\u{e9} \\u00e9 {what}\"}}"));
        let (genuine, forged, stale) = (body("genuine"), body("forged"), body("stale"));

        let answer = self.send(provider, &genuine, now, &real, &[]).await?;
        self.push(provider, "valid", "200 accepted, forwarded byte for byte", &answer, Some((genuine.clone(), 1)));
        let answer = self.send(provider, &genuine, now, &real, &[]).await?;
        self.push(provider, "copy", "200 duplicate, not forwarded again", &answer, Some((genuine.clone(), 1)));
        let unsigned = [("x-ps-delivery-id", "another"), ("x-request-id", "another"), ("user-agent", "another")];
        let answer = self.send(provider, &genuine, now, &real, &unsigned).await?;
        let what = "replay, other unsigned headers";
        self.push(provider, what, "200 duplicate, not forwarded again", &answer, Some((genuine, 1)));
        let answer = self.send(provider, &forged, now, "another-secret-than-the-real-one", &[]).await?;
        self.push(provider, "forged", "401, not forwarded", &answer, Some((forged, 0)));
        match provider.tolerance {
            None => self.rows.push(Row {
                provider: provider.title.clone(),
                what: "stale",
                expected: "signs no time".to_owned(),
                got: if provider.scheme.is_timed() { "signs a time" } else { "signs no time" }.to_owned(),
                forwarded: None,
            }),
            Some(tolerance) => {
                let past = i64::try_from(tolerance.past.as_secs()).unwrap_or(i64::MAX);
                let then = Wall::from_unix_s(now.unix_s() - past - 60);
                let answer = self.send(provider, &stale, then, &real, &[]).await?;
                let expected = match provider.on_stale {
                    OnStale::Hold => "200 accepted, held",
                    OnStale::Reject => "401, not forwarded",
                    OnStale::Retry => "503, not forwarded",
                };
                self.push(provider, "stale", expected, &answer, Some((stale, 0)));
            }
        }
        let large = Bytes::from(vec![b'x'; BODY_BYTES_MAX + 1]);
        let answer = self.send(provider, &large, now, &real, &[]).await?;
        self.push(provider, "oversized (1 MiB + 1)", "413, not forwarded", &answer, Some((large, 0)));
        Ok(())
    }

    fn push(
        &mut self,
        provider: &Provider,
        what: &'static str,
        expected: &str,
        answer: &Answer,
        forwarded: Option<(Bytes, usize)>,
    ) {
        let (provider, expected) = (provider.title.clone(), expected.to_owned());
        self.rows.push(Row { provider, what, expected, got: answer.to_string(), forwarded });
    }

    /// Signs as the provider would and sends it.
    async fn send(
        &self,
        provider: &Provider,
        body: &Bytes,
        at: Wall,
        secret: &str,
        extra: &[(&'static str, &'static str)],
    ) -> anyhow::Result<Answer> {
        let key = provider.key_format.decode(secret.as_bytes())?;
        let nonce = "0123456789abcdef0123456789abcdef01234567";
        let request = SignRequest { id: "msg_demo", nonce, ..SignRequest::new(SigningKey::Shared(&key), body, at) };
        let signature = provider.scheme.sign(&request)?;
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in signature.headers {
            headers.insert(name, HeaderValue::from_str(&value)?);
        }
        for (name, value) in extra {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let token = signature.token.map(|token| format!("/{token}")).unwrap_or_default();
        let url: Uri = format!("http://{}/hooks/{}{token}", self.gateway.public, provider.name).parse()?;
        let client = Client::new(&url, None, self.clock.clone())?;
        match client.send(Method::POST, url, headers, body.clone(), PATIENCE).await {
            Sent::Answered(answer) => {
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                Ok(Answer { status: answer.status.as_u16(), body })
            }
            Sent::NotSent(trouble) | Sent::Unknown(trouble) => anyhow::bail!("the gateway did not answer: {trouble}"),
        }
    }

    /// Waits until nothing is due any more: what was not forwarded by then never will be.
    async fn wait_until_delivered(&self) -> anyhow::Result<()> {
        let deadline = self.clock.monotonic() + PATIENCE;
        while self.gateway.pending().await? > 0 {
            ensure!(self.clock.monotonic() < deadline, "events were not delivered within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Adds to each row what the upstream saw.
    fn compare_with(&mut self, received: &[echo::Received]) {
        for row in &mut self.rows {
            let Some((body, expected)) = &row.forwarded else { continue };
            let provider = preset::all().into_iter().find(|p| p.title == row.provider);
            let source = provider.map(|p| p.name.to_string()).unwrap_or_default();
            let is_it = |r: &&echo::Received| r.header("hookward-source").as_ref() == Some(&source) && r.body == *body;
            let seen = received.iter().filter(is_it).count();
            let outcome = match (seen, expected) {
                (1, 1) if row.what == "valid" => ", forwarded byte for byte",
                (1, 1) => ", not forwarded again",
                (0, 0) if row.expected.ends_with("held") => ", held",
                (0, 0) => ", not forwarded",
                (0, _) => ", LOST",
                _ => ", FORWARDED",
            };
            row.got.push_str(outcome);
        }
    }
}

fn print_table(rows: &[Row]) {
    let heading = ["provider", "what was sent", "what happened"];
    let width = |of: fn(&Row) -> &str, heading: &str| {
        rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0).max(heading.len())
    };
    let (a, b, c) = (width(|r| &r.provider, heading[0]), width(|r| r.what, heading[1]), width(|r| &r.got, heading[2]));
    println!("{:a$}  {:b$}  {:c$}  ", heading[0], heading[1], heading[2]);
    println!("{}", "-".repeat(a + b + c + 8));
    for row in rows {
        let verdict = if row.is_right() { "ok".to_owned() } else { format!("WRONG, expected: {}", row.expected) };
        println!("{:a$}  {:b$}  {:c$}  {verdict}", row.provider, row.what, row.got);
    }
}

/// The secret of a source of the demo: nothing outside this process ever uses it.
fn secret(source: &str) -> String {
    format!("demo-secret-of-{source}")
}

fn configuration(upstream_port: u16, data: &Scratch) -> String {
    let mut sources = String::new();
    for name in PROVIDERS {
        let token = if name == "sourcehub" { "/{token}" } else { "" };
        let secret = secret(name);
        let _ = write!(
            sources,
            "[sources.{name}]\nprovider = \"{name}\"\npath = \"/hooks/{name}{token}\"\nsecrets = [{{ value = \"{secret}\" }}]\nupstream = \"echo\"\nbody_bytes_max = \"1MiB\"\n\n"
        );
    }
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\ndrain_timeout = \"5s\"\n\n[admin]\nlisten = \"127.0.0.1:0\"\n\n[store]\npath = {:?}\n\n{sources}[upstreams.echo]\nurl = \"http://127.0.0.1:{upstream_port}/\"\n",
        data.0.join("data").display().to_string()
    )
}

/// A directory of this process, removed at the end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("hookward-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("failed to create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
