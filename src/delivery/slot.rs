//! The right to one attempt at an upstream.
//!
//! Lanes, `respond` and `proxy` take slots from the same place, so that together they keep to the upstream's
//! concurrency and to its breaker. A slot reports how its attempt ended by itself; one that is dropped half-way
//! (a panic) counts as a failure, so that a half-open breaker never waits for a probe that is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::attempt::{Target, Tried, Try, attempt};
use crate::{
    event::EventId,
    policy::{
        Circuit,
        breaker::{Admission, Gate, State},
    },
    store::Pause,
};

/// What all attempts at one upstream share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) permits: Arc<Semaphore>,
    /// Notified whenever a slot ends: there is room, and the breaker may have changed.
    pub(super) freed: Notify,
    pub(super) stop: CancellationToken,
    /// An operator paused it.
    pub(super) paused: Mutex<Option<Pause>>,
    circuit: Mutex<Circuit<EventId>>,
}

impl Shared {
    pub(super) fn new(target: Target, stop: CancellationToken) -> Arc<Self> {
        target.metrics.breaker(&target.upstream.name, State::Closed.number());
        let permits = Arc::new(Semaphore::new(target.upstream.concurrency));
        let circuit = Mutex::new(Circuit::new(target.upstream.breaker));
        Arc::new(Self { target, permits, freed: Notify::new(), stop, paused: Mutex::new(None), circuit })
    }

    pub(super) fn gate(&self) -> Gate {
        self.circuit().gate(self.target.clock.monotonic())
    }

    pub(super) fn state(&self) -> State {
        self.circuit().state()
    }

    pub(super) fn probe_candidates(&self) -> usize {
        self.circuit().probe_candidates()
    }

    pub(super) fn is_suspect(&self, event: &EventId) -> bool {
        self.circuit().is_suspect(event)
    }

    /// A slot at once, or none: no room, or the breaker says no.
    pub(super) fn try_slot(self: &Arc<Self>, event: EventId) -> Option<Slot> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        self.admit(event, permit)
    }

    /// A slot as soon as there is room. `None` if the breaker says no.
    pub(super) async fn slot(self: &Arc<Self>, event: EventId) -> Option<Slot> {
        if matches!(self.gate(), Gate::Wait(_) | Gate::Probing) {
            return None;
        }
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        self.admit(event, permit)
    }

    fn admit(self: &Arc<Self>, event: EventId, permit: OwnedSemaphorePermit) -> Option<Slot> {
        if self.stop.is_cancelled() || self.paused().is_some() {
            return None;
        }
        let now = self.target.clock.monotonic();
        let admission = self.change(|circuit| circuit.admit(now))?;
        Some(Slot { shared: self.clone(), event, admission: Some(admission), begun: false, permit: Some(permit) })
    }

    /// Changes the breaker, and tells the world if its state is another one afterwards.
    fn change<T>(&self, change: impl FnOnce(&mut Circuit<EventId>) -> T) -> T {
        let mut circuit = self.circuit();
        let before = circuit.state();
        let changed = change(&mut circuit);
        let after = circuit.state();
        if before != after {
            let (name, pause) = (&self.target.upstream.name, self.target.upstream.breaker.pause);
            self.target.metrics.breaker(name, after.number());
            match after {
                State::Open => tracing::warn!(upstream = &**name, ?pause, "breaker opened"),
                State::HalfOpen => tracing::info!(upstream = &**name, "breaker half-open: probing"),
                State::Closed => tracing::info!(upstream = &**name, "breaker closed"),
            }
        }
        changed
    }

    pub(super) fn paused(&self) -> Option<Pause> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit<EventId>> {
        // The circuit's methods leave it whole at every step, so a panic elsewhere does not spoil it.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to one attempt at an upstream, within its concurrency and its breaker.
#[derive(Debug)]
pub struct Slot {
    shared: Arc<Shared>,
    event: EventId,
    admission: Option<Admission>,
    begun: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// Makes the attempt and tells the breaker how it went. The slot keeps its room until it is dropped. To be called once, and never to be cancelled half-way.
    pub async fn attempt(&mut self, request: &Try<'_>) -> Tried {
        self.begun = true;
        let tried = attempt(&self.shared.target, request).await;
        self.finish(tried.verdict.is_healthy());
        tried
    }

    fn finish(&mut self, healthy: bool) {
        let Some(admission) = self.admission.take() else { return };
        let now = self.shared.target.clock.monotonic();
        self.shared.change(|circuit| circuit.finish(now, &admission, &self.event, healthy));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.begun {
            self.finish(false);
        } else if let Some(admission) = self.admission.take() {
            let now = self.shared.target.clock.monotonic();
            self.shared.change(|circuit| circuit.cancel(now, &admission));
        }
        self.permit = None;
        self.shared.freed.notify_one();
    }
}
