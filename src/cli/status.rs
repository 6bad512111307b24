//! `hookward status`.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use super::{
    admin::{Connect, Gateway},
    print::{age, print, print_json, size, table},
};
use crate::{
    admin::api::{Status, UpstreamRow},
    document::format_duration,
    telemetry::log::escaped,
};

/// Show how a running gateway is doing.
///
/// Shows whether it is ready and why not, what waits for each upstream, and the store. Exits 0 if the gateway
/// is ready, else 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hookward status -c hookward.toml
  hookward status --admin-url http://127.0.0.1:9900 --json")]
pub(super) struct Args {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let status: Status = Gateway::new(&args.connect)?.get("/api/v1/status").await?;
    if args.json {
        print_json(&status)?;
    } else {
        print(&render(&status))?;
    }
    Ok(if status.health.ready { ExitCode::SUCCESS } else { ExitCode::from(super::FAILED) })
}

fn render(status: &Status) -> String {
    let mut out = String::new();
    let ready = if status.health.ready { "ready" } else { "NOT READY" };
    let up = format_duration(Duration::from_secs(status.uptime_s));
    let _ = writeln!(out, "{ready}, version {}, up {up}", escaped(&status.version));
    for reason in &status.health.reasons {
        let _ = writeln!(out, "  {}: {}", escaped(&reason.code), escaped(&reason.detail));
    }
    match &status.health.counts {
        Some(counts) => {
            let (events, keys, bytes) = (counts.events, counts.keys, size(counts.bytes));
            let _ = writeln!(out, "store: {bytes}, {events} events, {keys} keys");
        }
        None => out.push_str("store: does not answer\n"),
    }
    if status.upstreams.is_empty() {
        return out;
    }
    out.push('\n');
    let head = ["UPSTREAM", "BREAKER", "DUE", "OLDEST DUE", "IN FLIGHT", "HELD", "PARKED", "DEAD", "DELIVERED"];
    let rows = status.upstreams.iter().map(row).collect::<Vec<_>>();
    out.push_str(&table(&head, &rows));
    let stuck = |waits: fn(&UpstreamRow) -> u64| status.upstreams.iter().map(waits).sum::<u64>();
    for (count, state, what) in [
        (stuck(|row| row.held), "held", "`hookward events release ID` delivers it"),
        (stuck(|row| row.dead), "dead", "`hookward events redeliver ID` tries again"),
        (stuck(|row| row.parked), "parked", "bring its upstream back, or redeliver it `--to` another"),
    ] {
        if count > 0 {
            let _ = writeln!(out, "\n{count} {state}: `hookward events list --state {state}` shows them; {what}");
        }
    }
    out
}

fn row(upstream: &UpstreamRow) -> Vec<String> {
    vec![
        upstream.name.clone(),
        upstream.breaker.clone().unwrap_or_else(|| "not configured".to_owned()),
        upstream.due.to_string(),
        upstream.oldest_due_ms.map_or_else(|| "-".to_owned(), |ms| age(Duration::from_millis(ms))),
        upstream.leased.to_string(),
        upstream.held.to_string(),
        upstream.parked.to_string(),
        upstream.dead.to_string(),
        upstream.delivered.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::{Checks, Counts, HealthDetail, ReasonRow};

    #[test]
    fn a_status_says_what_waits_and_what_to_do() {
        let ok = || "ok".to_owned();
        let status = Status {
            version: "0.1.0".into(),
            uptime_s: 3_725,
            health: HealthDetail {
                ready: false,
                reasons: vec![ReasonRow { code: "store".into(), detail: "store is full:\u{1b}[2J disk".into() }],
                checks: Checks { listener: ok(), store: ok(), clock: ok(), draining: ok() },
                counts: Some(Counts { events: 7, keys: 14, bytes: 1_258_291, ..Counts::default() }),
            },
            upstreams: vec![UpstreamRow {
                name: "orders".into(),
                configured: true,
                breaker: Some("open".into()),
                due: 3,
                leased: 1,
                delivered: 9,
                held: 0,
                parked: 0,
                dead: 2,
                oldest_due_ms: Some(95_000),
            }],
        };
        insta::assert_snapshot!(render(&status), @r"
        NOT READY, version 0.1.0, up 1h2m5s
          store: store is full:\u{1b}[2J disk
        store: 1.1 MiB, 7 events, 14 keys

        UPSTREAM  BREAKER  DUE  OLDEST DUE  IN FLIGHT  HELD  PARKED  DEAD  DELIVERED
        orders    open     3    1m35s       1          0     0       2     9

        2 dead: `hookward events list --state dead` shows them; `hookward events redeliver ID` tries again
        ");
    }
}
