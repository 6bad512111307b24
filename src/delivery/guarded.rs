//! The breaker of one upstream with what people see of it: metrics, log lines, and when and why it changed.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    config::Upstream,
    event::EventId,
    policy::{
        Circuit,
        breaker::{Admission, State},
    },
    telemetry::Metrics,
};

/// A breaker that tells of its changes.
#[derive(Debug)]
pub(super) struct Guarded {
    circuit: Circuit<EventId>,
    upstream: Arc<Upstream>,
    metrics: Arc<Metrics>,
    changed_at: Instant,
    opened_total: u64,
    last_failure: Option<String>,
}

/// What people see of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub(super) state: State,
    pub(super) since: Duration,
    pub(super) opened_total: u64,
    pub(super) last_failure: Option<String>,
}

impl Guarded {
    pub(super) fn new(upstream: Arc<Upstream>, metrics: Arc<Metrics>, now: Instant) -> Self {
        let circuit = Circuit::new(upstream.breaker);
        Self { circuit, upstream, metrics, changed_at: now, opened_total: 0, last_failure: None }
    }

    pub(super) fn circuit(&self) -> &Circuit<EventId> {
        &self.circuit
    }

    pub(super) fn seen(&self, now: Instant) -> Seen {
        Seen {
            state: self.circuit.state(),
            since: now.saturating_duration_since(self.changed_at),
            opened_total: self.opened_total,
            last_failure: self.last_failure.clone(),
        }
    }

    pub(super) fn admit(&mut self, now: Instant) -> Option<Admission> {
        let before = self.circuit.state();
        let admission = self.circuit.admit(now);
        self.tell(before, now);
        admission
    }

    /// Ends an attempt; `failure` says what went wrong, if the upstream did not do its work.
    pub(super) fn finish(&mut self, now: Instant, admission: &Admission, event: &EventId, failure: Option<String>) {
        let before = self.circuit.state();
        self.circuit.finish(now, admission, event, failure.is_none());
        if failure.is_some() {
            self.last_failure = failure;
        }
        self.tell(before, now);
    }

    /// Takes an admission back of which no attempt was made.
    pub(super) fn cancel(&mut self, now: Instant, admission: &Admission) {
        let before = self.circuit.state();
        self.circuit.cancel(now, admission);
        let after = self.circuit.state();
        // It is open as it was before this probe: nothing failed, and nothing is to be told.
        if before != after {
            self.changed_at = now;
            self.metrics.breaker(&self.upstream.name, after.number());
        }
    }

    fn tell(&mut self, before: State, now: Instant) {
        let after = self.circuit.state();
        if before == after {
            return;
        }
        self.changed_at = now;
        let (name, pause) = (&self.upstream.name, self.upstream.breaker.pause);
        self.metrics.breaker(name, after.number());
        self.metrics.breaker_changed(name, after.name());
        let (upstream, last_failure) = (&**name, self.last_failure.as_deref());
        match after {
            State::Open => {
                self.opened_total += 1;
                tracing::warn!(upstream, ?pause, last_failure, "breaker opened");
            }
            State::HalfOpen => tracing::info!(upstream, "breaker half-open: probing"),
            State::Closed => tracing::info!(upstream, "breaker closed"),
        }
    }
}
