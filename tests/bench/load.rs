//! A load generator: `cargo bench --bench load -- --seconds 10`.
//!
//! It starts the gateway as a process of its own, sends signed webhooks over keep-alive connections and prints, as
//! Markdown, what was accepted, how fast, and with how much memory, beside a plain nginx proxy to the same upstream in
//! the same run. A second table shows what a hung upstream does to the time that a provider waits.
//!
//! Generator, upstream and whatever is measured share the machine, so the numbers compare ways with each other; they
//! are not the most that a machine can do. Each row gets a fresh process and an empty store. Latencies are exact
//! samples, not buckets.

mod driver;
mod process;
mod upstream;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;

use driver::{Load, Outcome, Pace, Signer};
use process::{Gateway, Nginx};
use upstream::{Behaviour, Upstream};

/// Measures the gateway beside a plain nginx proxy.
#[derive(Parser)]
struct Args {
    /// How long each row of the first table is measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Webhooks per second of the second table
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// The gateway
    #[arg(long, default_value = env!("CARGO_BIN_EXE_hookward"))]
    gateway: PathBuf,
    /// Cargo passes it to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

const WARM_UP: Duration = Duration::from_secs(1);
const BODY_BYTES: usize = 2048;
/// Of the source in `respond` mode, in place of the provider's thirty seconds.
const DEADLINE: Duration = Duration::from_secs(2);
const SECRET: &str = "a-secret-for-measurements-only-0123456789";

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mut failures = throughput(&args).await?;
    failures.extend(hung_upstream(&args).await?);
    for failure in &failures {
        eprintln!("failed: {failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The first table: as much as goes through.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
async fn throughput(args: &Args) -> Result<Vec<String>> {
    let load = Load {
        connections: args.connections,
        warm_up: WARM_UP,
        measured: Duration::from_secs(args.seconds),
        pace: Pace::AsFastAsAnswered,
        signer: Signer::new(SECRET, BODY_BYTES),
    };
    println!(
        "\n{} connections, bodies of {BODY_BYTES} bytes signed as PartsSource does, {} s after {} s of warm-up, {} cores \
         shared with the generator and the upstream. nginx passes on: it verifies nothing, knows no copies, keeps \
         nothing and waits for no disk. `proxy` verifies and writes keys without waiting; `queue` waits for the disk \
         before each answer and delivers besides. CPU each is all that the process used, per webhook accepted.\n",
        args.connections,
        args.seconds,
        WARM_UP.as_secs(),
        std::thread::available_parallelism().map_or(1, usize::from),
    );
    println!("| | accepted/s | to nginx | p50 | p99 | CPU each | peak memory | upstream/s | not accepted |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");

    let mut failures = Vec::new();
    let mut nginx_rate = None;
    for way in ["nginx", "proxy", "queue"] {
        let upstream = Upstream::start(Behaviour::Healthy).await?;
        let (outcome, used) = if way == "nginx" {
            let Some(nginx) = Nginx::start(upstream.address, args.connections).await? else {
                println!("| nginx, plain proxy | not installed | | | | | | | |");
                continue;
            };
            let outcome = load.run(nginx.address, "/").await;
            (outcome, nginx.used()?)
        } else {
            let gateway = gateway(args, way, upstream.address)?;
            let outcome = load.run(gateway.address, Gateway::PATH).await;
            (outcome, gateway.used()?)
        };
        let rate = outcome.accepted_per_second();
        if way == "nginx" {
            nginx_rate = Some(rate);
        }
        println!(
            "| {} | {rate:.0} | {} | {} | {} | {:.0} µs | {} MiB | {:.0} | {} |",
            if way == "nginx" { "nginx, plain proxy".to_owned() } else { format!("hookward, `{way}`") },
            nginx_rate.map_or_else(String::new, |nginx| format!("{:.2}", rate / nginx)),
            milliseconds(outcome.percentile(50)),
            milliseconds(outcome.percentile(99)),
            used.cpu.as_secs_f64() * 1e6 / outcome.accepted_in_all.max(1) as f64,
            used.memory_peak_kib / 1024,
            upstream.received() as f64 / (load.warm_up + load.measured).as_secs_f64(),
            outcome.not_accepted,
        );
        failures.extend(complaint(way, &outcome));
    }
    Ok(failures)
}

/// The second table: how long a provider waits, at a steady rate well below what goes through.
async fn hung_upstream(args: &Args) -> Result<Vec<String>> {
    let steady = Load {
        connections: args.connections,
        warm_up: WARM_UP,
        measured: Duration::from_secs(args.seconds),
        pace: Pace::PerSecond(args.rate),
        signer: Signer::new(SECRET, BODY_BYTES),
    };
    // Each answer may take as long as the deadline, so no rate can be kept.
    let waiting = Load {
        warm_up: Duration::ZERO,
        measured: steady.measured.max(DEADLINE * 2),
        pace: Pace::AsFastAsAnswered,
        ..steady.clone()
    };
    println!("\nTime to the answer in `queue` at {} webhooks a second; in `respond` one after the other.\n", args.rate);
    println!("| | upstream | deadline | p50 | p99 | longest | answers | not accepted |");
    println!("|---|---|--:|--:|--:|--:|--:|--:|");

    let mut failures = Vec::new();
    for (mode, behaviour) in [
        ("queue", Behaviour::Healthy),
        ("queue", Behaviour::Hung),
        ("respond", Behaviour::Healthy),
        ("respond", Behaviour::Hung),
    ] {
        let upstream = Upstream::start(behaviour).await?;
        let gateway = gateway(args, mode, upstream.address)?;
        let load = if mode == "queue" { &steady } else { &waiting };
        let outcome = load.run(gateway.address, Gateway::PATH).await;
        let longest = outcome.percentile(100);
        println!(
            "| `{mode}` | {} | {} s | {} | {} | {} | {} | {} |",
            behaviour.name(),
            DEADLINE.as_secs(),
            milliseconds(outcome.percentile(50)),
            milliseconds(outcome.percentile(99)),
            milliseconds(longest),
            outcome.accepted(),
            outcome.not_accepted,
        );
        let row = format!("{mode} with a {} upstream", behaviour.name());
        failures.extend(complaint(&row, &outcome));
        if longest.is_some_and(|longest| longest >= DEADLINE) {
            failures.push(format!("{row}: an answer came after the deadline"));
        }
    }
    Ok(failures)
}

fn gateway(args: &Args, mode: &str, upstream: std::net::SocketAddr) -> Result<Gateway> {
    let directory = tempfile::tempdir().context("failed to make a directory for the gateway")?;
    let config = format!(
        r#"
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[store]
path = "store"
[log]
format = "json"
[sources.bench]
provider = "partssource"
path = "{path}"
secrets = [{{ value = "{SECRET}" }}]
upstream = "sink"
mode = "{mode}"
deadline = "{deadline}s"
[upstreams.sink]
url = "http://{upstream}/"
timeout = "10s"
concurrency = {connections}
"#,
        path = Gateway::PATH,
        deadline = DEADLINE.as_secs(),
        connections = args.connections,
    );
    Gateway::start(&args.gateway, directory, &config).with_context(|| format!("failed to start the gateway in {mode}"))
}

/// A row in which something was refused, or nothing happened, measures something else than it says.
fn complaint(row: &str, outcome: &Outcome) -> Option<String> {
    match (outcome.not_accepted, outcome.accepted()) {
        (0, 1..) => None,
        (0, 0) => Some(format!("{row}: nothing was accepted")),
        (n, _) => Some(format!("{row}: {n} not accepted; the last: {}", outcome.last_trouble)),
    }
}

fn milliseconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "–".to_owned(), |time| format!("{:.2} ms", time.as_secs_f64() * 1000.0))
}
