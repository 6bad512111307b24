//! What the admin API says, as types: written by the handlers, read by `hookward events` and `hookward status`.

use serde::{Deserialize, Serialize};

use crate::{
    event::{Attempt, Delivery, EventHead},
    telemetry::health::Reason,
};

/// `GET /api/v1/events`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EventPage {
    /// Newest first.
    pub events: Vec<EventRow>,
    /// The `cursor` of the next page; absent on the last.
    pub next_cursor: Option<String>,
}

/// One event of a page.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EventRow {
    /// Its id.
    pub id: String,
    /// RFC 3339 in UTC.
    pub received_at: String,
    /// The source that accepted it.
    pub source: String,
    /// That source's provider.
    pub provider: String,
    /// What the provider calls this kind of event.
    pub event_type: Option<String>,
    /// The provider's id of the attempt; unsigned.
    pub attempt_id: Option<String>,
    /// Scheme and id of the secret that verified it.
    pub verified: String,
    /// The first event, if this is a re-send that was delivered.
    pub duplicate_of: Option<String>,
    /// The event whose key it shares although the body differs.
    pub conflict_of: Option<String>,
    /// Length of the body.
    pub body_bytes: u64,
    /// Copies that came after it.
    pub copies: u64,
    /// One for each upstream; without attempts in a page.
    pub deliveries: Vec<DeliveryRow>,
}

/// One delivery.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeliveryRow {
    /// Where to.
    pub upstream: String,
    /// `due`, `leased`, `delivered`, `held`, `parked` or `dead`.
    pub state: String,
    /// Why it is in that state.
    pub reason: Option<String>,
    /// How many attempts were made.
    pub attempts: u32,
    /// In how long it is due; only if due.
    pub due_in_ms: Option<u64>,
    /// What was tried, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<AttemptRow>,
}

/// One attempt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttemptRow {
    /// Counted from 1.
    pub number: u32,
    /// RFC 3339 in UTC.
    pub began_at: String,
    /// How long it took.
    pub took_ms: u64,
    /// The upstream's status, if it answered.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// Why it was made.
    pub cause: String,
}

/// `GET /api/v1/events/{id}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EventDetail {
    /// As in a page, with attempts.
    pub event: EventRow,
    /// The method of the request.
    pub method: String,
    /// The query of the request, less guard parameters.
    pub query: Option<String>,
    /// The address of the client.
    pub client: String,
    /// The `Host` of the request.
    pub host: String,
    /// `http` or `https`.
    pub proto: String,
    /// W3C trace context.
    pub traceparent: String,
    /// In the order they came; values of signatures and credentials are `redacted`.
    pub headers: Vec<HeaderRow>,
    /// The body, or the beginning of it.
    pub body: BodyPreview,
}

/// One header.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeaderRow {
    /// In lower case.
    pub name: String,
    /// As text; what is not UTF-8 is replaced.
    pub value: String,
}

/// A body, at most [`BodyPreview::BYTES_MAX`] of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BodyPreview {
    /// Length of the whole body.
    pub bytes: u64,
    /// SHA-256 of the whole body, in hex.
    pub sha256: String,
    /// `utf-8` or `base64`.
    pub encoding: String,
    /// The body in that encoding.
    pub content: String,
    /// Whether `content` is only the beginning.
    pub truncated: bool,
}

/// The answer to `redeliver`, `release`, `forget` and `purge`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Done {
    /// The event.
    pub id: String,
    /// `redeliver`, `release`, `forget` or `purge`.
    pub action: String,
    /// How many deliveries, keys or events it touched.
    pub count: u64,
}

/// `GET /api/v1/status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Of this program.
    pub version: String,
    /// Since the start.
    pub uptime_s: u64,
    /// What `/readyz` says.
    pub health: HealthDetail,
    /// Configured ones and those that only the store still knows.
    pub upstreams: Vec<UpstreamRow>,
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
    /// `closed`, `half-open` or `open`; absent if it is not configured.
    pub breaker: Option<String>,
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
}

/// Every error: a problem document of RFC 9457.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProblemDocument {
    /// Always `about:blank`: `code` tells problems apart.
    #[serde(rename = "type")]
    pub kind: String,
    /// The name of the status.
    pub title: String,
    /// The status.
    pub status: u16,
    /// What is wrong, stable.
    pub code: String,
    /// What is wrong, for people.
    pub detail: String,
    /// What to do.
    pub help: String,
}

impl BodyPreview {
    /// How much of a body a preview shows.
    pub const BYTES_MAX: usize = 256 << 10;
}

impl EventRow {
    pub(super) fn new(head: &EventHead, body_bytes: u64, copies: u64, deliveries: &[Delivery]) -> Self {
        Self {
            id: head.id.to_string(),
            received_at: head.received_at.rfc3339(),
            source: head.source.to_string(),
            provider: head.provider.to_string(),
            event_type: head.event_type.clone(),
            attempt_id: head.attempt_id.clone(),
            verified: head.verified.clone(),
            duplicate_of: head.duplicate_of.map(|id| id.to_string()),
            conflict_of: head.conflict_of.map(|id| id.to_string()),
            body_bytes,
            copies,
            deliveries: deliveries.iter().map(DeliveryRow::from).collect(),
        }
    }
}

impl From<&Delivery> for DeliveryRow {
    fn from(delivery: &Delivery) -> Self {
        Self {
            upstream: delivery.upstream.to_string(),
            state: delivery.state.name().to_owned(),
            reason: delivery.reason.clone(),
            attempts: delivery.attempts,
            due_in_ms: delivery.due_in.map(to_ms),
            history: delivery.history.iter().map(AttemptRow::from).collect(),
        }
    }
}

impl From<&Attempt> for AttemptRow {
    fn from(attempt: &Attempt) -> Self {
        Self {
            number: attempt.number,
            began_at: attempt.began_at.rfc3339(),
            took_ms: to_ms(attempt.took),
            status: attempt.status,
            error: attempt.error.clone(),
            cause: attempt.cause.clone(),
        }
    }
}

impl From<&Reason> for ReasonRow {
    fn from(reason: &Reason) -> Self {
        Self { code: reason.code().to_owned(), detail: reason.to_string() }
    }
}

pub(super) fn to_ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
