//! `hookward status`.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use super::{
    admin::{Connect, Gateway},
    print::{age, print, print_json, size, table},
};
use crate::{
    admin::api::{ConfigRow, ReloadRow, Status, UpstreamRow},
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
    out.push_str(&configuration(&status.health.config));
    match &status.health.counts {
        Some(counts) => {
            let (events, keys, bytes) = (counts.events, counts.keys, size(counts.bytes));
            let (store, max) = (&status.store, size(status.store.bytes_max));
            let durability = escaped(&store.durability);
            let _ = writeln!(out, "store: {bytes} of {max}, {events} events, {keys} keys; {durability}");
        }
        None => out.push_str("store: does not answer\n"),
    }
    if let Some(at) = &status.store.restored_at {
        let _ = writeln!(out, "store: restored from a backup at {}", escaped(at));
    }
    if let Some(damaged) = status.store.damaged.filter(|damaged| *damaged > 0) {
        let _ =
            writeln!(out, "store: damaged rows found since the start: {damaged}; run `hookward store verify -c FILE`");
    }
    for pending in status.pending_secrets.iter().flatten() {
        let (source, fingerprint) = (escaped(&pending.source), escaped(&pending.fingerprint));
        let at = pending.at.as_deref().map_or_else(|| "at an unknown time".into(), escaped);
        let from = pending.from.as_deref().map_or_else(|| "an unknown address".into(), escaped);
        let _ = writeln!(out, "\nsecret {fingerprint} for {source} came {at} from {from}: {}", escaped(&pending.help));
    }
    if status.pending_secrets.is_none() {
        out.push_str("\nsecrets that were handed over cannot be listed: the log says why\n");
    }
    for source in &status.sources {
        let (name, in_a_row) = (escaped(&source.name), source.refusals_in_a_row);
        if let Some(until) = &source.unenforced_until {
            let until = escaped(until);
            let _ = writeln!(out, "\n{name} lets through what does not verify until {until} (enforce = false)");
        }
        if let Some(max) = source.disables_after.filter(|max| in_a_row >= max.div_ceil(2)) {
            let _ = writeln!(
                out,
                "\n{name} was answered without success {in_a_row} times in a row: its provider disables the subscription \
                 after {max}; `hookward_webhooks_total` and the log say why"
            );
        }
    }
    for failures in &status.failures {
        let (source, kept, more) = (escaped(&failures.source), failures.kept, failures.not_explained);
        let last = failures.last_cause.as_deref().map_or_else(|| "nothing that is tried explains it".into(), escaped);
        let _ = writeln!(
            out,
            "\n{source} refused webhooks: {kept} kept with their likely causes, {more} counted only; the last: {last}; \
             GET /api/v1/sources/{source}/failures shows them"
        );
    }
    if status.upstreams.is_empty() {
        return out;
    }
    out.push('\n');
    let head = ["UPSTREAM", "STATE", "DUE", "OLDEST DUE", "IN FLIGHT", "HELD", "PARKED", "DEAD", "DELIVERED", "SHARE"];
    let rows = status.upstreams.iter().map(|upstream| row(upstream, status.store.share_bytes_max)).collect::<Vec<_>>();
    out.push_str(&table(&head, &rows));
    for upstream in &status.upstreams {
        let name = escaped(&upstream.name);
        if let Some(pause) = &upstream.paused {
            let (since, by) = (escaped(&pause.since), escaped(&pause.by));
            let _ = writeln!(out, "\n{name} is paused since {since} by {by}: `hookward upstreams resume {name}`");
        }
        if let Some(error) = upstream.last_error.as_ref().filter(|_| upstream.breaker.as_deref() != Some("closed")) {
            let _ = writeln!(out, "\n{name}: {}", escaped(error));
        }
    }
    for upstream in &status.upstreams {
        let name = escaped(&upstream.name);
        if let Some(percent) = share(upstream, status.store.share_bytes_max).filter(|percent| *percent >= NEARLY) {
            let _ = writeln!(
                out,
                "\n{name} has used up {percent} % of its share of the disk (store.disk_share_max): its sources get 503 for \
                 what does not fit; let it take what is due, redeliver what is dead, or purge"
            );
        }
    }
    if let Some(unrouted) = status.store.unrouted.filter(|unrouted| *unrouted > 0) {
        let _ = writeln!(
            out,
            "\n{unrouted} unrouted: `hookward events list --state unrouted` shows them; redeliver them `--to` an upstream"
        );
    }
    let stuck = |waits: fn(&UpstreamRow) -> u64| status.upstreams.iter().map(waits).sum::<u64>();
    for (count, state, what) in [
        (stuck(|row| row.held), "held", "`hookward events release ID`, or `--state held`, delivers them"),
        (stuck(|row| row.dead), "dead", "`hookward events redeliver ID`, or `--state dead`, tries again"),
        (stuck(|row| row.parked), "parked", "bring its upstream back, or redeliver it `--to` another"),
    ] {
        if count > 0 {
            let _ = writeln!(out, "\n{count} {state}: `hookward events list --state {state}` shows them; {what}");
        }
    }
    out
}

/// Says only what somebody has to do something about.
fn configuration(config: &ConfigRow) -> String {
    let mut out = String::new();
    if let Some(ReloadRow { at, outcome, why: Some(why) }) = &config.last_reload {
        let (at, outcome, why, loaded) = (escaped(at), outcome.name(), escaped(why), escaped(&config.loaded_at));
        let _ =
            writeln!(out, "configuration: what was loaded at {loaded} is in force; at {at} it was {outcome}: {why}");
    }
    if !config.restart.is_empty() {
        let keys = config.restart.iter().map(|key| escaped(key)).collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "configuration: needs a restart: {keys}");
    }
    out
}

/// Percent of what it may hold from which on it is said: the largest event may be refused already.
const NEARLY: u64 = 90;

/// How much of its share of the disk it holds, in percent.
fn share(upstream: &UpstreamRow, share_bytes_max: Option<u64>) -> Option<u64> {
    share_bytes_max.and_then(|max| upstream.open_bytes.saturating_mul(100).checked_div(max))
}

fn row(upstream: &UpstreamRow, share_bytes_max: Option<u64>) -> Vec<String> {
    let breaker = upstream.breaker.as_deref().unwrap_or("not configured");
    let share = share(upstream, share_bytes_max);
    vec![
        upstream.name.clone(),
        if upstream.paused.is_some() { "paused".to_owned() } else { breaker.to_owned() },
        upstream.due.to_string(),
        upstream.oldest_due_ms.map_or_else(|| "-".to_owned(), |ms| age(Duration::from_millis(ms))),
        upstream.leased.to_string(),
        upstream.held.to_string(),
        upstream.parked.to_string(),
        upstream.dead.to_string(),
        upstream.delivered.to_string(),
        share.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::{
        Checks, Counts, FailureCount, HealthDetail, PauseRow, PendingSecretRow, ReasonRow, ReloadOutcome, SourceRow,
        StoreRow,
    };

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
                config: ConfigRow {
                    loaded_at: "2026-11-21T08:00:00.000Z".into(),
                    last_reload: Some(ReloadRow {
                        at: "2026-11-21T09:00:00.000Z".into(),
                        outcome: ReloadOutcome::Invalid,
                        why: Some("the file has 2 errors".into()),
                    }),
                    restart: vec!["server.listen".into(), "store.path".into()],
                },
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
                breaker_for_ms: Some(7_000),
                breaker_opened_total: Some(2),
                last_error: Some("connection refused".into()),
                paused: Some(PauseRow { since: "2026-11-21T08:00:00.000Z".into(), by: "token-1".into() }),
                open_bytes: 996_148,
            }],
            pending_secrets: Some(vec![PendingSecretRow {
                source: "asana".into(),
                at: Some("2026-11-21T08:00:00.000Z".into()),
                from: Some("203.0.113.7".into()),
                fingerprint: "1a2b3c4d".into(),
                file: "data/pending/asana-1a2b3c4d".into(),
                help: "add it, or delete the file".into(),
            }]),
            sources: vec![
                SourceRow {
                    name: "netlify".into(),
                    refusals_in_a_row: 3,
                    disables_after: Some(6),
                    unenforced_until: None,
                },
                SourceRow {
                    name: "shop".into(),
                    refusals_in_a_row: 3,
                    disables_after: Some(8),
                    unenforced_until: Some("2026-12-01T00:00:00.000Z".into()),
                },
            ],
            failures: vec![FailureCount {
                source: "shop".into(),
                kept: 2,
                not_explained: 7,
                last_cause: Some("secret_expired".into()),
            }],
            store: StoreRow {
                engine: "sqlite".into(),
                durability: "os: survives a crash, not a power cut".into(),
                bytes: Some(1_258_291),
                bytes_max: 10 << 30,
                share_bytes_max: Some(1 << 20),
                unrouted: Some(3),
                damaged: Some(1),
                restored_at: Some("2026-11-20T08:00:00.000Z".into()),
            },
        };
        insta::assert_snapshot!(render(&status), @r"
        NOT READY, version 0.1.0, up 1h2m5s
          store: store is full:\u{1b}[2J disk
        configuration: what was loaded at 2026-11-21T08:00:00.000Z is in force; at 2026-11-21T09:00:00.000Z it was invalid: the file has 2 errors
        configuration: needs a restart: server.listen, store.path
        store: 1.1 MiB of 10.0 GiB, 7 events, 14 keys; os: survives a crash, not a power cut
        store: restored from a backup at 2026-11-20T08:00:00.000Z
        store: damaged rows found since the start: 1; run `hookward store verify -c FILE`

        secret 1a2b3c4d for asana came 2026-11-21T08:00:00.000Z from 203.0.113.7: add it, or delete the file

        netlify was answered without success 3 times in a row: its provider disables the subscription after 6; `hookward_webhooks_total` and the log say why

        shop lets through what does not verify until 2026-12-01T00:00:00.000Z (enforce = false)

        shop refused webhooks: 2 kept with their likely causes, 7 counted only; the last: secret_expired; GET /api/v1/sources/shop/failures shows them

        UPSTREAM  STATE   DUE  OLDEST DUE  IN FLIGHT  HELD  PARKED  DEAD  DELIVERED  SHARE
        orders    paused  3    1m35s       1          0     0       2     9          95 %

        orders is paused since 2026-11-21T08:00:00.000Z by token-1: `hookward upstreams resume orders`

        orders: connection refused

        orders has used up 95 % of its share of the disk (store.disk_share_max): its sources get 503 for what does not fit; let it take what is due, redeliver what is dead, or purge

        3 unrouted: `hookward events list --state unrouted` shows them; redeliver them `--to` an upstream

        2 dead: `hookward events list --state dead` shows them; `hookward events redeliver ID`, or `--state dead`, tries again
        ");
    }
}
