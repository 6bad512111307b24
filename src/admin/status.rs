//! Health in detail, status and metrics.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderValue, Method, StatusCode, header};
use tokio::time::{Instant, timeout};

use super::{
    Admin,
    answer::{self, Answer},
    api::{Checks, Counts, HealthDetail, PauseRow, ReasonRow, Status, StoreRow, UpstreamRow, to_ms},
};
use crate::{
    event::State,
    store::Stats,
    telemetry::health::{PROBE_METHODS, Probe, Reason},
    time::Wall,
};

/// A probe must not wait for a store that hangs: it has a timeout of its own, often one second.
const COUNTS_TIMEOUT: Duration = Duration::from_millis(300);
/// Probes need no token, so that however many come, they ask the store this often at most.
const COUNTS_KEPT: Duration = Duration::from_secs(1);

/// What the store held, and when.
pub(super) type CountsKept = tokio::sync::Mutex<Option<(Instant, Counts)>>;

pub(super) async fn probe(admin: &Admin, method: &Method, probe: Probe) -> Answer {
    let mut answer = match probe {
        Probe::Live => answer::json(StatusCode::OK, &serde_json::json!({ "alive": true })),
        Probe::Ready => {
            let counts = timeout(COUNTS_TIMEOUT, kept_counts(admin)).await.ok().flatten();
            let detail = health(admin, counts);
            let status = if detail.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            answer::json(status, &detail)
        }
    };
    if method == Method::OPTIONS {
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(PROBE_METHODS));
    }
    answer
}

async fn kept_counts(admin: &Admin) -> Option<Counts> {
    let mut kept = admin.counts_kept.lock().await;
    let now = admin.clock.monotonic();
    if let Some((_, counts)) = kept.filter(|(at, _)| now.duration_since(*at) < COUNTS_KEPT) {
        return Some(counts);
    }
    let counts = count(&admin.store.stats().await.ok()?);
    *kept = Some((now, counts));
    Some(counts)
}

pub(super) async fn status(admin: &Admin) -> Answer {
    let now = admin.clock.monotonic();
    // A store that cannot count is no reason to say nothing: the checks tell what is wrong with it.
    let stats = admin.store.stats().await.ok();
    let status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: now.duration_since(admin.started_at).as_secs(),
        health: health(admin, stats.as_ref().map(count)),
        store: store(admin, stats.as_ref()),
        upstreams: upstreams(admin, &stats.unwrap_or_default()),
        pending_secrets: (admin.pending_secrets)().await,
        sources: (admin.sources)(),
        failures: admin.failures.counts(),
    };
    answer::json(StatusCode::OK, &status)
}

pub(super) async fn metrics(admin: &Admin) -> Answer {
    let stats = admin.store.stats().await;
    admin.metrics.ready(admin.health.readiness(admin.clock.monotonic()).0);
    let text = match stats {
        Ok(stats) => {
            admin.metrics.store(stats.bytes, stats.events, stats.keys);
            let configured = (admin.upstreams)();
            admin.metrics.expose_counted(|metrics| {
                // Configured upstreams show every state, so that an alert never lacks its series.
                for upstream in &configured {
                    for state in State::ALL {
                        metrics.deliveries(&upstream.name, state.name(), 0);
                    }
                }
                for ((upstream, state), count) in &stats.deliveries {
                    metrics.deliveries(upstream, state.name(), *count);
                }
                for (upstream, age) in &stats.oldest_due {
                    metrics.oldest_due(upstream, *age);
                }
            })
        }
        // A scrape that fails would hide everything else just when it is wanted: what the store last said stays.
        Err(_) => admin.metrics.expose(),
    };
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    answer::bytes(text, kind)
}

fn health(admin: &Admin, counts: Option<Counts>) -> HealthDetail {
    let (ready, reasons) = admin.health.readiness(admin.clock.monotonic());
    let problems = admin.health.problems();
    let check = |code: &str| {
        let problem = problems.iter().find(|problem| problem.code() == code);
        problem.map_or_else(|| "ok".to_owned(), Reason::to_string)
    };
    HealthDetail {
        ready,
        reasons: reasons.iter().map(ReasonRow::from).collect(),
        checks: Checks {
            listener: check("listener"),
            store: check("store"),
            clock: check("clock"),
            draining: check("draining"),
        },
        counts,
        config: (admin.config)(),
    }
}

fn count(stats: &Stats) -> Counts {
    let in_state =
        |wanted: State| stats.deliveries.iter().filter(|((_, state), _)| *state == wanted).map(|(_, n)| n).sum();
    Counts {
        events: stats.events,
        keys: stats.keys,
        bytes: stats.bytes,
        due: in_state(State::Due),
        held: in_state(State::Held),
        parked: in_state(State::Parked),
        dead: in_state(State::Dead),
    }
}

fn store(admin: &Admin, stats: Option<&Stats>) -> StoreRow {
    let facts = &admin.store_facts;
    StoreRow {
        engine: facts.engine.to_owned(),
        durability: facts.durability.to_owned(),
        bytes: stats.map(|stats| stats.bytes),
        bytes_max: facts.bytes_max,
        share_bytes_max: stats.map(|stats| stats.share_bytes_max),
        unrouted: stats.map(|stats| stats.unrouted),
        damaged: stats.map(|stats| stats.damaged),
        restored_at: admin.store.restored_at().map(Wall::rfc3339),
    }
}

fn upstreams(admin: &Admin, stats: &Stats) -> Vec<UpstreamRow> {
    let configured: BTreeMap<_, _> =
        (admin.upstreams)().into_iter().map(|upstream| (upstream.name.clone(), upstream)).collect();
    let mut names: Vec<_> = configured.keys().chain(stats.deliveries.keys().map(|(name, _)| name)).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| {
            let in_state = |state| stats.deliveries.get(&(name.clone(), state)).copied().unwrap_or(0);
            let lane = configured.get(name);
            UpstreamRow {
                name: name.to_string(),
                configured: lane.is_some(),
                breaker: lane.map(|lane| lane.breaker.to_owned()),
                breaker_for_ms: lane.and_then(|lane| lane.breaker_for).map(to_ms),
                breaker_opened_total: lane.and_then(|lane| lane.breaker_opened_total),
                last_error: lane.and_then(|lane| lane.last_error.clone()),
                paused: lane.and_then(|lane| lane.paused.as_ref()).map(PauseRow::from),
                due: in_state(State::Due),
                leased: in_state(State::Leased),
                delivered: in_state(State::Delivered),
                held: in_state(State::Held),
                parked: in_state(State::Parked),
                dead: in_state(State::Dead),
                oldest_due_ms: stats.oldest_due.get(name).copied().map(to_ms),
                open_bytes: stats.open_bytes.get(name).copied().unwrap_or(0),
            }
        })
        .collect()
}
