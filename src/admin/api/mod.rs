//! What the admin API says, as types: written by the handlers, read by the commands.

mod failures;
mod filter;
mod operations;
mod reload;
mod status;

use serde::{Deserialize, Serialize};

pub(super) use filter::present;

pub use failures::{CauseRow, FailureCount, FailureList, FailureRow};
pub use filter::EventFilter;
pub use operations::{OperationCount, OperationList, OperationRequest, OperationRow};
pub use reload::{ChangeRow, ConfigRow, ReloadAnswer, ReloadOutcome, ReloadRequest, ReloadRow};
pub use status::{
    Checks, Counts, HealthDetail, PauseRow, PausedUpstream, PendingSecretRow, ReasonRow, SourceRow, Status, StoreRow,
    UpstreamRow,
};

use super::redact::Hidden;
use crate::event::{Attempt, Delivery, EventHead, OrderKey};

/// `GET /api/v1/events`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EventPage {
    /// In the order asked for. There may be few of them, even none, although the list goes on.
    pub events: Vec<EventRow>,
    /// The `cursor` of the next page; null on the last.
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
    /// What the provider calls this kind of event; `redacted` where the source says so.
    pub event_type: Option<String>,
    /// The provider's id of the attempt; unsigned; `redacted` where the source says so.
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
    /// One for each upstream; none if no route wanted it. Without attempts in a page.
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
    /// In how long it is due; only if due, and not while it waits for its turn.
    pub due_in_ms: Option<u64>,
    /// What orders it among others, if something does; `redacted` where the source says so.
    pub order_key: Option<String>,
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
    /// Its keys that still live. Not shown to those who may only read where anything is redacted, because a key could
    /// be used to try out what is hidden.
    pub keys: Vec<KeyRow>,
    /// Whether the body was removed once it was delivered (`store_body = false`).
    pub body_removed: bool,
    /// The body, or the beginning of it.
    pub body: BodyPreview,
}

/// One live key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyRow {
    /// 64 hexadecimal digits: what the filter `key` takes.
    pub key: String,
    /// How long it still lives.
    pub lives_ms: u64,
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
    /// SHA-256 of the whole body, in hex; null where it could be used to try out what is hidden.
    pub sha256: Option<String>,
    /// `utf-8` or `base64`.
    pub encoding: String,
    /// The body in that encoding.
    pub content: String,
    /// Whether `content` is only the beginning.
    pub truncated: bool,
    /// Whether something in `content` is replaced by `redacted`, or all of it is withheld.
    pub redacted: bool,
    /// Why nothing of it is shown, if nothing is.
    pub withheld: Option<String>,
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

/// What stands in place of what is not shown.
pub(super) const REDACTED: &str = "redacted";

impl BodyPreview {
    /// How much of a body a preview shows.
    pub const BYTES_MAX: usize = 256 << 10;
}

impl EventRow {
    /// `hidden` is what the source says; without one, nobody knows whether what orders its deliveries may be shown.
    pub(super) fn new(
        head: &EventHead,
        body_bytes: u64,
        copies: u64,
        deliveries: &[Delivery],
        hidden: Option<&Hidden>,
    ) -> Self {
        let hide_order = hidden.is_none_or(|rule| rule.order_key);
        let label = |text: &Option<String>, hides: fn(&Hidden) -> bool| {
            text.clone().map(|text| if hidden.is_some_and(hides) { REDACTED.to_owned() } else { text })
        };
        Self {
            id: head.id.to_string(),
            received_at: head.received_at.rfc3339(),
            source: head.source.to_string(),
            provider: head.provider.to_string(),
            event_type: label(&head.event_type, |rule| rule.event_type),
            attempt_id: label(&head.attempt_id, |rule| rule.attempt_id),
            verified: head.verified.clone(),
            duplicate_of: head.duplicate_of.map(|id| id.to_string()),
            conflict_of: head.conflict_of.map(|id| id.to_string()),
            body_bytes,
            copies,
            deliveries: deliveries.iter().map(|delivery| DeliveryRow::new(delivery, hide_order)).collect(),
        }
    }
}

impl DeliveryRow {
    fn new(delivery: &Delivery, hide_order: bool) -> Self {
        let order_key = |key: &OrderKey| if hide_order { REDACTED.to_owned() } else { key.as_str().to_owned() };
        Self {
            upstream: delivery.upstream.to_string(),
            state: delivery.state.name().to_owned(),
            reason: delivery.reason.clone(),
            attempts: delivery.attempts,
            due_in_ms: delivery.due_in.map(to_ms),
            order_key: delivery.order_key.as_ref().map(order_key),
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

pub(super) fn to_ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
