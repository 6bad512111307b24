//! `hookward send`: signed requests as any provider, one or a steady stream.

use std::{
    collections::BTreeMap, fmt::Write as _, io::IsTerminal as _, path::PathBuf, process::ExitCode, sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use super::{
    CONFIGURATION, FAILED,
    echo::duration,
    who::{Key, Known, PrivateArgs, Who, header_line},
};
use crate::{
    document::format_duration,
    http::client::{Client, Sent},
    telemetry::log::escaped,
    time::{Clock, Wall},
    verify::{SignRequest, Signature},
};

/// Send signed requests of any provider to a URL.
///
/// Each request is signed at the moment it leaves. With one body for all, a gateway takes the first and answers the
/// others as duplicates; `--numbered` makes each an event of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hookward send -p partssource --secret-file secrets/partssource -b order.json \\
    -u http://127.0.0.1:8080/hooks/partssource
  echo '{\"id\":<n>}' | hookward send -p price2b --secret-file secrets/price2b -b - \\
    -u http://127.0.0.1:8080/hooks/price2b -n 1000 --rate 50 --numbered
  hookward send -p github --secret-env SECRET -H 'X-GitHub-Event: push' -u http://127.0.0.1:8080/hooks/github
  hookward send -c hookward.toml --source paypal --private-key paypal.pem -u http://127.0.0.1:8080/hooks/paypal

Without --body a sample of the provider is sent.

Exit code 0 if every request was answered with a 2xx, 1 if not.")]
pub(super) struct Args {
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    private: PrivateArgs,
    /// Where to; {token} in it becomes the secret, for providers whose proof is a part of the path.
    #[arg(short, long)]
    url: String,
    /// The URL as the provider knows it, where that is signed: whole, or only where paths begin [default: --url].
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// The body: a file, or - for standard input [default: a sample of the provider].
    #[arg(short, long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// One more header, such as 'X-GitHub-Event: push'; signed, where the provider signs it.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header_line)]
    headers: Vec<(HeaderName, String)>,
    /// How many requests.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1)]
    count: u64,
    /// Requests per second; without it, as fast as they are answered.
    #[arg(short, long, value_parser = rate)]
    rate: Option<f64>,
    /// Requests at a time.
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// Write 1, 2, 3, … in place of each `<n>` in the body, so that each is an event of its own.
    #[arg(long)]
    numbered: bool,
    /// How long to wait for an answer.
    #[arg(long, value_parser = duration, default_value = "30s")]
    timeout: Duration,
    /// PEM file with the authorities to trust instead of the system's, for an https URL.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print the summary as JSON instead of text.
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| *rate > 0.0 && *rate <= 100_000.0);
    rate.ok_or_else(|| "not a number above 0 and up to 100000".to_owned())
}

/// How each request is made.
struct Signer {
    known: Known,
    key: Key,
    public_url: String,
    headers: Vec<(HeaderName, String)>,
}

impl Signer {
    /// Signs one body, with an id and a nonce of its own.
    fn sign(&self, body: &[u8], at: Wall) -> anyhow::Result<Signature> {
        let id = format!("msg_{:032x}", rand::random::<u128>());
        let nonce = format!("{:032x}", rand::random::<u128>());
        self.known.sign(&SignRequest {
            key: self.key.signing(),
            method: &self.method(),
            url: Some(&self.public_url),
            body,
            at,
            id: &id,
            nonce: &nonce,
            headers: &self.headers,
        })
    }
    fn method(&self) -> Method {
        self.known.provider.webhook_methods().first().cloned().unwrap_or(Method::POST)
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Some(known) = args.who.load_sender()? else { return Ok(ExitCode::from(CONFIGURATION)) };
    let body = known.read_body(args.body.as_deref())?;
    let clock = Clock::system();
    let key = args.private.key(&known, &args.who.secret, clock.wall())?;
    let public_url = known.public_url(args.public_url.as_deref(), &args.url)?;
    let signer = Signer { known, key, public_url, headers: args.headers.clone() };
    let summary = send(&args, body, signer.method(), |body, now| signer.sign(body, now), &clock).await?;
    print!("{}", if args.json { summary.json() } else { summary.text() });
    Ok(if summary.all_taken() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Sends all requests and waits for their answers.
async fn send(
    args: &Args,
    body: Vec<u8>,
    method: Method,
    sign: impl Fn(&[u8], Wall) -> anyhow::Result<Signature>,
    clock: &Clock,
) -> anyhow::Result<Summary> {
    let url = |text: &str| {
        let url = text.parse::<Uri>().ok().filter(|url| url.host().is_some() && url.scheme().is_some());
        // As typed: what is wrong with it may be the secret in it.
        url.with_context(|| {
            format!("`{}` is not a URL: write it as http://127.0.0.1:8080/hooks/NAME", escaped(&args.url))
        })
    };
    let client = Client::new(&url(&args.url.replace("{token}", "token"))?, args.ca.as_deref(), clock.clone())?;
    let bar = bar(args);
    let room = Arc::new(Semaphore::new(usize::from(args.concurrency)));
    let mut pace = args.rate.map(|rate| tokio::time::interval(Duration::from_secs_f64(1.0 / rate)));
    let (mut running, mut summary, began) = (JoinSet::new(), Summary::default(), Instant::now());
    let body = Bytes::from(body);
    for number in 1..=args.count {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let permit = room.clone().acquire_owned().await.context("failed to wait for room")?;
        let body = if args.numbered { numbered(&body, number) } else { body.clone() };
        let signed = sign(&body, clock.wall())?;
        let token = signed.token.as_deref().unwrap_or("{token}");
        let url = url(&signed.url(&args.url.replace("{token}", token)))?;
        let mut headers = HeaderMap::new();
        for (name, value) in signed.headers {
            let value = HeaderValue::try_from(value).with_context(|| format!("failed to make the header {name}"))?;
            headers.append(name, value);
        }
        let (body, method) = (signed.body.map_or(body, Bytes::from), method.clone());
        let (client, timeout, bar) = (client.clone(), args.timeout, bar.clone());
        running.spawn(async move {
            let sent_at = Instant::now();
            let sent = client.send(method, url, headers, body, timeout).await;
            drop(permit);
            bar.inc(1);
            (sent, sent_at.elapsed())
        });
        while let Some(ended) = running.try_join_next() {
            summary.count(ended.context("failed to send")?);
        }
    }
    while let Some(ended) = running.join_next().await {
        summary.count(ended.context("failed to send")?);
    }
    bar.finish_and_clear();
    summary.took = began.elapsed();
    Ok(summary)
}

/// On a terminal only, and only if there is something to wait for.
fn bar(args: &Args) -> ProgressBar {
    if args.count < 2 || args.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}  {per_sec}  {eta} left");
    ProgressBar::new(args.count).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn numbered(body: &[u8], number: u64) -> Bytes {
    let (mut out, mut rest) = (Vec::with_capacity(body.len() + 16), body);
    while let Some(at) = rest.windows(3).position(|window| window == b"<n>") {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(number.to_string().as_bytes());
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest);
    out.into()
}

/// What became of the requests.
#[derive(Debug, Default)]
struct Summary {
    /// By status, or by what went wrong.
    results: BTreeMap<String, u64>,
    refused: u64,
    /// Of the requests that were answered.
    times: Vec<Duration>,
    /// The answer to the first, shown if it is the only one.
    answer: Option<String>,
    took: Duration,
}

impl Summary {
    fn count(&mut self, (sent, took): (Sent, Duration)) {
        let result = match sent {
            Sent::Answered(answer) => {
                self.times.push(took);
                self.refused += u64::from(!answer.status.is_success());
                self.answer.get_or_insert_with(|| String::from_utf8_lossy(&answer.body).escape_debug().to_string());
                answer.status.as_u16().to_string()
            }
            Sent::NotSent(trouble) | Sent::Unknown(trouble) => {
                self.refused += 1;
                trouble.text
            }
        };
        *self.results.entry(result).or_default() += 1;
    }

    fn all_taken(&self) -> bool {
        self.refused == 0
    }

    fn sent(&self) -> u64 {
        self.results.values().sum()
    }

    /// The time that this share of the answers took at most.
    fn quantile(&self, share: f64) -> Option<Duration> {
        let mut times = self.times.clone();
        times.sort_unstable();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = (times.len() as f64 * share).ceil() as usize;
        times.get(index.max(1) - 1).copied()
    }

    fn text(&self) -> String {
        let results: Vec<String> = self.results.iter().map(|(result, count)| format!("{count} x {result}")).collect();
        let mut out = format!("{} sent in {}: {}\n", self.sent(), human(self.took), results.join(", "));
        if self.sent() == 1 {
            let answer = self.answer.as_deref().filter(|answer| !answer.is_empty());
            return answer.map_or(out.clone(), |answer| format!("{out}{}\n", answer.replace("\\\"", "\"")));
        }
        if let (Some(half), Some(most)) = (self.quantile(0.5), self.quantile(0.99)) {
            let _ = writeln!(out, "half answered within {}, 99 % within {}", human(half), human(most));
        }
        out
    }

    fn json(&self) -> String {
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let summary = serde_json::json!({
            "sent": self.sent(),
            "results": self.results,
            "took_ms": ms(self.took),
            "p50_ms": self.quantile(0.5).map(ms),
            "p99_ms": self.quantile(0.99).map(ms),
        });
        format!("{summary}\n")
    }
}

fn human(time: Duration) -> String {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    if us < 10_000 {
        format!("{}.{}ms", us / 1000, us % 1000 / 100)
    } else {
        format_duration(Duration::from_millis(us / 1000))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::net::TcpListener;

    use super::*;
    use crate::cli::echo::{Options, serve};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(url: &str, more: &[&str]) -> Result<Args, clap::Error> {
        let fixed = ["send", "--provider", "acme", "--url", url, "--body", "-"];
        Line::try_parse_from(fixed.iter().chain(more)).map(|line| line.args)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the signature of `sign`")]
    fn signed(body: &[u8], now: Wall) -> anyhow::Result<Signature> {
        let proof = format!("{} at {}", body.len(), now.unix_s());
        let headers = vec![(HeaderName::from_static("x-signature"), proof)];
        let query = vec![("a".to_owned(), "b c".to_owned())];
        Ok(Signature { headers, query, token: Some("t0ken".to_owned()), body: None })
    }

    #[tokio::test]
    async fn requests_are_signed_numbered_and_summed_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let echo = serve(listener, Options { fail_first: 1, ..Options::default() }).expect("serves");
        let url = format!("http://{}/in/{{token}}", echo.address());
        let more = ["--secret", "s", "-n", "12", "--numbered", "--concurrency", "3"];
        let args = parse(&url, &more).expect("arguments");
        let clock = Clock::starting_at(Wall::from_unix_s(1_700_000_000));
        let summary = send(&args, b"{\"n\":<n>,\"m\":<n>}".to_vec(), Method::PUT, signed, &clock).await.expect("sent");

        let expected = BTreeMap::from([("200".to_owned(), 11), ("503".to_owned(), 1)]);
        assert_eq!(summary.results, expected);
        assert!(!summary.all_taken());
        assert!(summary.text().contains(": 11 x 200, 1 x 503\nhalf answered within "), "{}", summary.text());
        let received = echo.received();
        let mut bodies: Vec<_> = received.iter().map(|received| received.body.clone()).collect();
        bodies.sort();
        let mut all: Vec<_> = (1..=12).map(|n| Bytes::from(format!("{{\"n\":{n},\"m\":{n}}}"))).collect();
        all.sort();
        assert_eq!(bodies, all);
        for received in received {
            assert_eq!(received.line, "PUT /in/t0ken?a=b+c");
            let signature = received.header("x-signature").expect("a signature");
            assert!(signature.starts_with(&format!("{} at 1700000", received.body.len())));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_spaces_requests() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("an address");
        let args =
            parse(&format!("http://{closed}/"), &["--secret", "s", "-n", "5", "--rate", "0.5"]).expect("arguments");
        let summary = send(&args, vec![], Method::POST, signed, &Clock::system()).await.expect("sent");
        assert_eq!(summary.results, BTreeMap::from([("connection refused".to_owned(), 5)]));
        assert!(summary.took >= Duration::from_secs(8), "{:?}", summary.took);
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        assert!(parse("http://h/", &[]).is_err(), "no secret");
        for rate in ["0", "-1", "NaN", "inf", "fast"] {
            assert!(parse("http://h/", &["--secret", "s", &format!("--rate={rate}")]).is_err(), "{rate}");
        }
        assert!(parse("http://h/", &["--secret", "s", "-H", "no colon"]).is_err());
        let args = parse("http://h/", &["--secret", "canary"]).expect("arguments");
        assert!(!format!("{args:?}").contains("canary"));
    }
}
