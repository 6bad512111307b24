//! Operations: one act over many events.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::filter::{EventFilter, object, present};

/// `POST /api/v1/operations`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationRequest {
    /// `redeliver`, `release`, `forget` or `purge`.
    pub action: String,
    /// To which events. One that names nothing needs `all`.
    #[serde(default, deserialize_with = "object")]
    pub filter: EventFilter,
    /// Redeliver to this upstream only, even if an event never went there.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Events per second, at most.
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Only count.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Every event is meant.
    #[serde(default, skip_serializing_if = "is_false")]
    pub all: bool,
}

/// A whole number, however it is written: to JSON Schema `20.0` is one.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let written = number.to_string();
    let whole = written.strip_suffix(".0").unwrap_or(&written).parse().ok();
    whole.map(Some).ok_or_else(|| D::Error::custom(format!("{number} is no whole number that fits")))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The answer to a `dry_run`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OperationCount {
    /// How many events the filter fits now.
    pub events: u64,
    /// Whether that is all of them: counting ends after a while.
    pub exact: bool,
}

/// `GET /api/v1/operations`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OperationList {
    /// Newest first.
    pub operations: Vec<OperationRow>,
}

/// `GET /api/v1/operations/{id}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OperationRow {
    /// Its id.
    pub id: String,
    /// `redeliver`, `release`, `forget` or `purge`.
    pub action: String,
    /// To which events, with times made absolute.
    pub filter: EventFilter,
    /// The one upstream it redelivers to.
    pub upstream: Option<String>,
    /// Events per second, at most.
    pub rate: Option<u32>,
    /// Who began it: `loopback`, or `token-1` for the first of `admin.tokens`.
    pub by: String,
    /// `running`, `stopped`, `finished` or `failed`.
    pub state: String,
    /// Why it is in that state, where there is something to say.
    pub reason: Option<String>,
    /// How many events fitted when it began.
    pub total: u64,
    /// Whether `total` is all of them: counting ends after a while.
    pub total_exact: bool,
    /// How many were changed.
    pub done: u64,
    /// How many were not, because nothing of them was in a state that fits.
    pub skipped: u64,
    /// Of `total`, from 0 to 100.
    pub percent: u8,
    /// The last event that was looked at.
    pub cursor: Option<String>,
    /// RFC 3339 in UTC.
    pub created_at: String,
    /// When it last got on.
    pub changed_at: String,
}
