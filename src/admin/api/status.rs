//! What the gateway says about itself: status and health.

use serde::{Deserialize, Serialize};

use super::{ConfigRow, FailureCount};
use crate::{store::Pause, telemetry::health::Reason};

/// `GET /api/v1/status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Of this program.
    pub version: String,
    /// Since the start.
    pub uptime_s: u64,
    /// What `/readyz` says.
    pub health: HealthDetail,
    /// The store.
    pub store: StoreRow,
    /// Configured ones and those that only the store still knows.
    pub upstreams: Vec<UpstreamRow>,
    /// Secrets that providers handed over and that wait for an operator; null if they cannot be listed.
    pub pending_secrets: Option<Vec<PendingSecretRow>>,
    /// Every configured source.
    #[serde(default)]
    pub sources: Vec<SourceRow>,
    /// Sources whose refusals are explained, and that refused something.
    pub failures: Vec<FailureCount>,
}

/// How a source is doing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SourceRow {
    /// Its name.
    pub name: String,
    /// Answers to its webhooks that were no 2xx, one after another, as the provider counts them.
    pub refusals_in_a_row: u32,
    /// At how many of those the provider disables the subscription; null if that is not known.
    pub disables_after: Option<u32>,
    /// Until then what does not verify is let through (`enforce = false`); RFC 3339 in UTC. Null where it is refused.
    pub unenforced_until: Option<String>,
}

/// A secret that was handed over in a registration handshake. Anybody may have sent it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PendingSecretRow {
    /// The source that it was sent to.
    pub source: String,
    /// When it came; RFC 3339 in UTC. Null if that is not known any more.
    pub at: Option<String>,
    /// The address that it came from.
    pub from: Option<String>,
    /// The first eight digits of its SHA-256, in hex.
    pub fingerprint: String,
    /// The file that it lies in.
    pub file: String,
    /// What to do.
    pub help: String,
}

/// The store. Numbers are null while it does not answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoreRow {
    /// `sqlite` or `memory`.
    pub engine: String,
    /// `fsync`, `os` or `none`, and what that survives.
    pub durability: String,
    /// What it takes.
    pub bytes: Option<u64>,
    /// What it may take.
    pub bytes_max: u64,
    /// What undelivered events and dead letters of one upstream may take of that.
    pub share_bytes_max: Option<u64>,
    /// Events that no route wanted.
    pub unrouted: Option<u64>,
    /// Damaged rows found since it was opened.
    pub damaged: Option<u64>,
    /// When it was restored from a backup, if it was; RFC 3339 in UTC.
    pub restored_at: Option<String>,
}

/// `GET /readyz` and `/healthz`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HealthDetail {
    /// Whether it should get webhooks.
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<ReasonRow>,
    /// Each check at this very moment: `ok`, or what is wrong. A change shows in `ready` once it lasted 3 s.
    pub checks: Checks,
    /// Absent if the store does not answer in time.
    pub counts: Option<Counts>,
    /// The configuration in force. A file that could not be loaded since is no reason not to be ready.
    pub config: ConfigRow,
}

/// One reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReasonRow {
    /// `listener`, `store`, `clock` or `draining`.
    pub code: String,
    /// For people.
    pub detail: String,
}

/// The checks behind readiness.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Checks {
    /// Whether the public listener is up.
    pub listener: String,
    /// Whether the store would take a webhook.
    pub store: String,
    /// Whether the wall clock can be trusted.
    pub clock: String,
    /// Whether the process is on its way out.
    pub draining: String,
}

/// What the store holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Events stored.
    pub events: u64,
    /// Keys known.
    pub keys: u64,
    /// Size of the store.
    pub bytes: u64,
    /// Deliveries waiting for their time.
    pub due: u64,
    /// Deliveries that wait for an operator.
    pub held: u64,
    /// Deliveries whose upstream is not configured any more.
    pub parked: u64,
    /// Dead letters.
    pub dead: u64,
}

/// One upstream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UpstreamRow {
    /// Its name.
    pub name: String,
    /// Whether the configuration still has it.
    pub configured: bool,
    /// `closed`, `half-open` or `open`; null if it is not configured.
    pub breaker: Option<String>,
    /// How long the breaker has been in that state.
    pub breaker_for_ms: Option<u64>,
    /// How often the breaker opened since the start.
    pub breaker_opened_total: Option<u64>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Whether an operator paused it.
    pub paused: Option<PauseRow>,
    /// Waiting for their time.
    pub due: u64,
    /// Being tried.
    pub leased: u64,
    /// Delivered and kept.
    pub delivered: u64,
    /// Waiting for an operator.
    pub held: u64,
    /// Without a configured upstream.
    pub parked: u64,
    /// Dead letters.
    pub dead: u64,
    /// Age of the oldest due delivery.
    pub oldest_due_ms: Option<u64>,
    /// Bytes of its undelivered events and dead letters: what `store.share_bytes_max` bounds.
    pub open_bytes: u64,
}

/// A pause of deliveries to an upstream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PauseRow {
    /// RFC 3339 in UTC.
    pub since: String,
    /// Who paused it: `loopback`, or `token-1` for the first of `admin.tokens`.
    pub by: String,
}

/// The answer to `pause` and `resume` of an upstream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PausedUpstream {
    /// The upstream.
    pub name: String,
    /// The pause; null if it is not paused.
    pub paused: Option<PauseRow>,
}

impl From<&Reason> for ReasonRow {
    fn from(reason: &Reason) -> Self {
        Self { code: reason.code().to_owned(), detail: reason.to_string() }
    }
}

impl From<&Pause> for PauseRow {
    fn from(pause: &Pause) -> Self {
        Self { since: pause.since.rfc3339(), by: pause.by.clone() }
    }
}
