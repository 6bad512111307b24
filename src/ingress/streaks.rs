//! Answers in a row that were no 2xx, for each source: what providers count that disable a subscription.
//!
//! A provider counts the answers that it gets itself, and a forger's answers it never sees. So every answer to what
//! verified counts, and only such a 2xx ends the row. Of what was refused before it could verify, that counts which a
//! genuine webhook would have been told as well: no room, no keys, a body over the limit, a clock that cannot be
//! trusted. What is missing, wrong, stale or slow does not: anybody can send that. So a secret that the provider has
//! changed does not show here, but in `signature_mismatch`; and strangers can make the row longer with bodies that are
//! too large, but never shorter.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use http::StatusCode;

use super::{Gate, Rejection, observe::Exchange};
use crate::{event::Name, policy::streak::Streak};

/// One count for each source that was answered.
#[derive(Debug, Default)]
pub(super) struct Streaks(Mutex<HashMap<Name, Streak>>);

impl Streaks {
    /// The present count of a source.
    pub(super) fn of(&self, source: &str) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(source).copied().unwrap_or_default().refused()
    }

    /// Counts an answer, if it is one that the provider counts. `why` is why it was refused, if it was.
    pub(super) fn answered(&self, gate: &Gate, exchange: &Exchange, why: Option<&Rejection>, status: StatusCode) {
        let Some(source) = exchange.source.get() else { return };
        if exchange.proven.get().is_none() && !why.is_some_and(Rejection::is_ours) {
            return;
        }
        let disables_after = source.provider.sender.disables_after;
        let (in_a_row, is_news) = {
            let mut streaks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let streak = streaks.entry(source.name.clone()).or_default();
            let is_news = streak.answered(status.is_success(), disables_after);
            gate.metrics.refusals_in_a_row(&source.name, streak.refused());
            (streak.refused(), is_news)
        };
        if let Some(disables_after) = disables_after.filter(|_| is_news) {
            let source = &*source.name;
            tracing::warn!(
                source,
                in_a_row,
                disables_after,
                "webhooks are answered without success, one after another: the provider disables the subscription at that \
                 number"
            );
        }
    }
}
