//! The audit log: a line of target `audit` for whatever changes something, or tries to.

use super::{access::Caller, answer::Problem};
use crate::event::EventId;

/// What is known of a change so far. It is written once, whatever became of the change.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) action: &'static str,
    pub(super) event: Option<EventId>,
    pub(super) operation: Option<EventId>,
    pub(super) upstream: Option<String>,
    /// As JSON, without values that are redacted.
    pub(super) filter: Option<String>,
    pub(super) rate: Option<u32>,
    pub(super) dry_run: bool,
    pub(super) count: Option<u64>,
    /// What came of a reload.
    pub(super) outcome: Option<&'static str>,
    /// Nobody, if the caller was not let in.
    pub(super) by: Option<Caller>,
}

/// Longer than any name that is configured. Whoever is not let in writes no more than this into the log.
const NAME_BYTES_MAX: usize = 256;

fn beginning(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

impl Entry {
    pub(super) fn write(&self, refused: Option<&Problem>) {
        let what = match (refused, self.by) {
            (None, _) => "an operator did this",
            (Some(_), Some(_)) => "an operator could not do this",
            (Some(_), None) => "somebody was not let in",
        };
        tracing::info!(
            target: "audit",
            action = self.action,
            event = self.event.map(tracing::field::display),
            operation = self.operation.map(tracing::field::display),
            upstream = self.upstream.as_deref().map(beginning),
            filter = self.filter,
            rate = self.rate,
            dry_run = self.dry_run.then_some(true),
            count = self.count,
            outcome = self.outcome,
            by = self.by.map(tracing::field::display),
            code = refused.map(Problem::code),
            "{what}"
        );
    }
}
