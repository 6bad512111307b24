//! The right to one attempt at an upstream.
//!
//! Lanes, `respond` and `proxy` take slots from the same place, so that together they keep to the upstream's
//! concurrency, to its rate and to its breaker. A slot reports how its attempt ended by itself; one that is dropped
//! half-way (a panic) counts as a failure, so that a half-open breaker never waits for a probe that is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{
    attempt::{Target, Tried, Try, attempt},
    guarded::{Guarded, Seen},
    throttle::Throttle,
};
use crate::{
    event::EventId,
    policy::breaker::{Admission, Gate},
    store::Pause,
};

/// What all attempts at one upstream share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) permits: Arc<Semaphore>,
    pub(super) throttle: Throttle,
    /// Notified whenever a slot ends, or a pause: there is room, and the breaker may have changed.
    pub(super) freed: Notify,
    pub(super) stop: CancellationToken,
    /// What has to end before a retired lane has finished: its loop, its slots, and what is being settled.
    pub(super) rest: TaskTracker,
    /// An operator paused it.
    paused: Mutex<Option<Pause>>,
    breaker: Mutex<Guarded>,
}

impl Shared {
    pub(super) fn new(target: Target, paused: Option<Pause>, stop: CancellationToken) -> Arc<Self> {
        let (upstream, now) = (target.upstream.clone(), target.clock.monotonic());
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(upstream.concurrency)),
            throttle: Throttle::new(upstream.rate, now),
            freed: Notify::new(),
            stop,
            rest: TaskTracker::new(),
            paused: Mutex::new(paused),
            breaker: Mutex::new(Guarded::new(upstream, target.metrics.clone(), now)),
            target,
        })
    }

    /// Shows it in the metrics, where it takes the place of another of its name.
    pub(super) fn tell(&self) {
        let name = &self.target.upstream.name;
        self.target.metrics.upstream_paused(name, self.is_paused());
        self.target.metrics.breaker(name, self.breaker().circuit().state().number());
    }

    pub(super) fn gate(&self) -> Gate {
        self.breaker().circuit().gate(self.target.clock.monotonic())
    }

    pub(super) fn seen(&self) -> Seen {
        self.breaker().seen(self.target.clock.monotonic())
    }

    pub(super) fn probe_candidates(&self) -> usize {
        self.breaker().circuit().probe_candidates()
    }

    pub(super) fn is_suspect(&self, event: &EventId) -> bool {
        self.breaker().circuit().is_suspect(event)
    }

    /// Since when and by whom it is paused.
    pub(super) fn paused(&self) -> Option<Pause> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Pauses it, or lets it go on. The store knows already.
    pub(super) fn set_paused(&self, pause: Option<Pause>) {
        let upstream = &self.target.upstream.name;
        self.target.metrics.upstream_paused(upstream, pause.is_some());
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = pause;
        self.freed.notify_one();
    }

    /// A slot at once, or none: no room, over the rate, paused, or the breaker says no.
    pub(super) fn try_slot(self: &Arc<Self>, event: EventId) -> Option<Slot> {
        let mut slot = Slot::new(self, event, self.permits.clone().try_acquire_owned().ok()?);
        slot.token = self.throttle.try_take(self.target.clock.monotonic());
        if slot.token { slot.admitted() } else { None }
    }

    /// A slot as soon as there is room, within the rate. `None` if it is paused or the breaker says no.
    pub(super) async fn slot(self: &Arc<Self>, event: EventId) -> Option<Slot> {
        if self.is_paused() || matches!(self.gate(), Gate::Wait(_) | Gate::Probing) {
            return None;
        }
        let mut slot = Slot::new(self, event, self.permits.clone().acquire_owned().await.ok()?);
        self.throttle.take(&self.target.clock).await;
        slot.token = true;
        slot.admitted()
    }

    fn breaker(&self) -> MutexGuard<'_, Guarded> {
        // Its methods leave it whole at every step, so a panic elsewhere does not spoil it.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to one attempt at an upstream, within its concurrency, its rate and its breaker.
///
/// What it has taken goes back when it is dropped, wherever that happens on the way, and the lane hears of it.
#[derive(Debug)]
pub struct Slot {
    shared: Arc<Shared>,
    event: EventId,
    permit: Option<OwnedSemaphorePermit>,
    /// It took one from the rate.
    token: bool,
    admission: Option<Admission>,
    begun: bool,
    _rest: TaskTrackerToken,
}

impl Slot {
    fn new(shared: &Arc<Shared>, event: EventId, permit: OwnedSemaphorePermit) -> Self {
        let rest = shared.rest.token();
        let shared = shared.clone();
        Self { shared, event, permit: Some(permit), token: false, admission: None, begun: false, _rest: rest }
    }

    /// With the consent of the breaker, if it gives it.
    fn admitted(mut self) -> Option<Self> {
        if self.shared.stop.is_cancelled() || self.shared.is_paused() {
            return None;
        }
        let now = self.shared.target.clock.monotonic();
        self.admission = Some(self.shared.breaker().admit(now)?);
        Some(self)
    }

    /// Makes the attempt and tells the breaker how it went. The slot keeps its room until it is dropped. To be called
    /// once, and never to be cancelled half-way.
    pub async fn attempt(&mut self, request: &Try<'_>) -> Tried {
        self.begun = true;
        let tried = attempt(&self.shared.target, request).await;
        let failure = if tried.verdict.is_healthy() { None } else { tried.verdict.error() };
        self.finish(failure);
        tried
    }

    /// Whether the upstream may have seen anything.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    fn finish(&mut self, failure: Option<String>) {
        let Some(admission) = self.admission.take() else { return };
        let now = self.shared.target.clock.monotonic();
        self.shared.breaker().finish(now, &admission, &self.event, failure);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.begun {
            self.finish(Some("internal error".to_owned()));
        } else {
            if let Some(admission) = self.admission.take() {
                let now = self.shared.target.clock.monotonic();
                self.shared.breaker().cancel(now, &admission);
            }
            if self.token {
                self.shared.throttle.put_back();
            }
        }
        self.permit = None;
        self.shared.freed.notify_one();
    }
}
