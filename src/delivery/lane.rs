//! The lane of one upstream: leases what is due, as much as there is room for, tries it, settles it.
//!
//! While the breaker is open, the rate is used up or an operator paused it, nothing is leased, so that waiting burns no
//! attempt. The lane itself only leases; each
//! delivery is a task of its own, and a panic in one is its own failure. A store in trouble is asked again with
//! growing pauses, and the log says so once.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Keep, SourceRule,
    attempt::{Standing, Try, Verdict, retry_or_give_up},
    items::{self, Marks},
    slot::{Shared, Slot},
};
use crate::{
    event::{Answer, Attempt, EventId, Name},
    policy::breaker::Gate,
    store::{EventStore, Lease, Leased, Pause, Settled, StoreError},
    telemetry::Metrics,
    time::Clock,
};

/// What a lease has beyond the upstream's timeout, for looking items up and for settling.
const LEASE_MARGIN: Duration = Duration::from_secs(15);
/// Deliveries leased at a time: bounds the bodies that one call brings into memory.
const LEASE_MAX: usize = 64;
/// A lane without any news looks again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A due time that rounds down to nothing must not make the lane spin.
const WAIT_MIN: Duration = Duration::from_millis(5);
/// Pauses while the store is in trouble.
const TROUBLE_FIRST: Duration = Duration::from_millis(100);
const TROUBLE_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    pub(super) common: Arc<Common>,
    pub(super) tasks: TaskTracker,
    /// Places for outcomes that are being recorded.
    pub(super) settling: Semaphore,
    /// It leases nothing more: its upstream was changed or removed, or all lanes stop.
    pub(super) retired: CancellationToken,
    /// Digests of the files that its client was made of, as they were read.
    pub(super) files: Vec<Option<[u8; 32]>>,
}

/// What all lanes use.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) store: Arc<dyn EventStore>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    /// What a delivery depends on besides its event, by source. A reload swaps it.
    pub(super) sources: ArcSwap<BTreeMap<Name, SourceRule>>,
}

/// How many outcomes of one upstream may wait for the disk at a time. Each holds an answer of at most 64 KiB, and
/// that only in mode `respond`.
pub(super) const SETTLING_MAX: usize = 256;

impl Lane {
    /// Runs until it is stopped. A panic, which only the store could cause here, is logged and the lane goes on.
    pub(super) async fn run(self: Arc<Self>) {
        while AssertUnwindSafe(self.lease_until_stopped()).catch_unwind().await.is_err() {
            tracing::error!(upstream = self.name(), "delivery lane panicked, it goes on");
            tokio::time::sleep(TROUBLE_MAX).await;
        }
    }

    async fn lease_until_stopped(self: &Arc<Self>) {
        let mut trouble = None;
        let _rest = self.shared.rest.token();
        while !self.retired.is_cancelled() {
            // Taken before looking, so that what falls due while we look is not missed.
            let woken = self.common.store.woken(self.name());
            let pause = match self.lease().await {
                Ok(pause) => {
                    if trouble.take().is_some() {
                        tracing::info!(upstream = self.name(), "store answers again, deliveries go on");
                    }
                    pause
                }
                Err(error) => {
                    if trouble.is_none() {
                        tracing::error!(upstream = self.name(), %error, "deliveries wait for the store");
                    }
                    let pause = trouble.map_or(TROUBLE_FIRST, |last: Duration| (last * 2).min(TROUBLE_MAX));
                    trouble = Some(pause);
                    // A broken store may resolve `woken` at once, so only time counts here.
                    tokio::select! {
                        () = self.retired.cancelled() => return,
                        () = tokio::time::sleep(pause) => continue,
                    }
                }
            };
            tokio::select! {
                biased;
                () = self.retired.cancelled() => return,
                () = self.shared.freed.notified() => {}
                () = woken => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Leases and begins what may begin now. Returns after how long to look again, if nothing happens before.
    async fn lease(self: &Arc<Self>) -> Result<Duration, StoreError> {
        while !self.retired.is_cancelled() {
            if self.shared.is_paused() {
                return Ok(LOOK_AGAIN);
            }
            let room = self.shared.permits.available_permits().min(LEASE_MAX);
            let gate = self.shared.gate();
            let most = match gate {
                Gate::Wait(pause) => return Ok(pause),
                Gate::Probing => return Ok(LOOK_AGAIN),
                _ if room == 0 => return Ok(LOOK_AGAIN),
                Gate::Flow | Gate::Probe => match self.shared.throttle.room(self.shared.target.clock.monotonic()) {
                    Err(wait) => return Ok(wait.clamp(WAIT_MIN, LOOK_AGAIN)),
                    Ok(_) if gate == Gate::Probe => self.shared.probe_candidates(),
                    Ok(tokens) => room.min(tokens),
                },
            };
            let length = self.lease_length();
            // Counted from before the call, as the store does: it may be long before it answers.
            let lapses_at = Instant::now() + length;
            let mut leased = self.common.store.lease(self.name(), most, length).await?;
            let all = leased.len();
            if gate == Gate::Probe && all > 0 {
                let best = leased.iter().position(|leased| !self.shared.is_suspect(&leased.event.head.id));
                leased.swap(0, best.unwrap_or(0));
                for other in leased.drain(1..) {
                    self.give_back(&other, Duration::ZERO).await;
                }
            }
            for leased in leased {
                // The room or the breaker's consent may be gone since we looked: `respond` and `proxy` take slots too.
                match self.shared.try_slot(leased.event.head.id) {
                    Some(slot) => drop(self.tasks.spawn(self.clone().deliver(leased, lapses_at, slot, None))),
                    None => self.give_back(&leased, Duration::ZERO).await,
                }
            }
            if all < most {
                let due = self.common.store.next_due(self.name()).await?;
                return Ok(due.unwrap_or(LOOK_AGAIN).clamp(WAIT_MIN, LOOK_AGAIN));
            }
        }
        Ok(LOOK_AGAIN)
    }

    /// One attempt and its settlement. With `keep`, the answer of an upstream that took the event is kept and
    /// returned.
    pub(super) async fn deliver(
        self: Arc<Self>,
        leased: Leased,
        lapses_at: Instant,
        mut slot: Slot,
        keep: Option<Keep>,
    ) -> Option<Answer> {
        // Until it is settled: the slot goes back before.
        let _rest = self.shared.rest.token();
        let (began_at, began) = (self.shared.target.clock.wall(), Instant::now());
        // The store took so long to lease it that the lease could lapse under the attempt, and be given to another.
        if began + self.shared.target.upstream.timeout > lapses_at {
            tracing::warn!(event = %leased.event.head.id, upstream = self.name(), "leased too late to be tried");
            self.give_back(&leased, Duration::ZERO).await;
            return None;
        }
        let settled = match AssertUnwindSafe(self.attempt(&leased, &mut slot, keep)).catch_unwind().await {
            Ok(Ok(settled)) => settled,
            Ok(Err(error)) => {
                tracing::warn!(event = %leased.event.head.id, upstream = self.name(), %error, "failed to look items up");
                self.give_back(&leased, TROUBLE_FIRST).await;
                return None;
            }
            Err(_panic) => {
                tracing::error!(event = %leased.event.head.id, upstream = self.name(), "delivery attempt panicked");
                let (took, error) = (began.elapsed(), "internal error");
                let (upstream, standing) = (&self.shared.target.upstream, self.standing(&leased).later(took));
                let outcome = retry_or_give_up(upstream, &standing, None, rand::random(), error);
                let (number, cause) = (leased.attempt, leased.cause.clone());
                let attempt = Attempt { number, began_at, took, status: None, error: Some(error.to_owned()), cause };
                Settled { attempt, outcome, answer: None, uncertain: slot.has_begun() }
            }
        };
        let answer = settled.answer.as_ref().map(|(answer, _)| answer.clone());
        // The outcome waits for the disk without the slot, so that the upstream need not wait for it too. How many
        // may wait so is bounded; one more keeps its slot until it is recorded.
        let waiting = self.settling.try_acquire();
        let slot = waiting.is_err().then_some(slot);
        let (lease, event, number) = (leased.lease, leased.event.head.id, leased.attempt);
        drop(leased); // the body
        self.settle(lease, event, number, lapses_at, settled).await;
        drop((waiting, slot));
        answer
    }

    async fn attempt(&self, leased: &Leased, slot: &mut Slot, keep: Option<Keep>) -> Result<Settled, StoreError> {
        let leased_at = Instant::now();
        let (head, body) = (&leased.event.head, &leased.event.body);
        let sources = self.common.sources.load_full();
        let rule = sources.get(&head.source);
        let proven = head.unverified_reason().is_none();
        let marks = match rule.and_then(|rule| rule.items.as_ref()).filter(|_| proven) {
            Some(extract) => items::compare(&*self.common.store, self.name(), extract(body)).await?,
            None => Marks::default(),
        };
        let request = Try {
            head,
            body,
            number: leased.attempt,
            cause: &leased.cause,
            standing: Some(self.standing(leased).later(leased_at.elapsed())),
            redelivery: leased.redelivery,
            uncertain: leased.uncertain,
            // It was stored only if it was to be forwarded; the source may be gone since.
            forward_query: rule.is_none_or(|rule| rule.forward_query),
            marks: &marks,
        };
        let tried = slot.attempt(&request).await;
        let outcome = tried.outcome.expect("an attempt of a delivery with an age has an outcome");
        let answer = match (&tried.verdict, keep) {
            (Verdict::Delivered(answered), Some(keep)) => Some((keep.answer(answered), keep.kept)),
            _ => None,
        };
        Ok(Settled { attempt: tried.attempt, outcome, answer, uncertain: matches!(tried.verdict, Verdict::Unknown(_)) })
    }

    /// Where a delivery stood when it was leased.
    fn standing(&self, leased: &Leased) -> Standing {
        let sources = self.common.sources.load();
        let rule = sources.get(&leased.event.head.source);
        let dead_letter_after = rule.and_then(|rule| rule.dead_letter_after).filter(|_| leased.ordered);
        Standing { tries: leased.tries, age: leased.age, dead_letter_after }
    }

    /// Records the outcome. While the store is in trouble it is tried again for as long as the lease holds: an
    /// outcome that is not recorded means another attempt.
    async fn settle(&self, lease: Lease, event: EventId, attempt: u32, lapses_at: Instant, settled: Settled) {
        let mut pause = TROUBLE_FIRST;
        loop {
            let error = match self.common.store.settle(lease, settled.clone()).await {
                Ok(()) => return,
                Err(error) => error,
            };
            let may_pass = matches!(error, StoreError::Unavailable(_) | StoreError::Full(_));
            if !may_pass || Instant::now() + pause >= lapses_at {
                tracing::warn!(%event, upstream = self.name(), attempt, %error, "failed to record an outcome");
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(TROUBLE_MAX);
        }
    }

    /// Best effort: a lease that is not given back lapses.
    async fn give_back(&self, leased: &Leased, after: Duration) {
        if let Err(error) = self.common.store.give_back(leased.lease, after).await {
            tracing::debug!(event = %leased.event.head.id, upstream = self.name(), %error, "failed to give a lease back");
        }
    }

    /// Pauses it, or lets it go on, once the store knows. One at a time: see `Lanes::changing`.
    pub(super) async fn set_paused(&self, pause: Option<Pause>) -> Result<(), StoreError> {
        self.common.store.set_paused(self.name(), pause.clone()).await?;
        if let Some(Pause { by, .. }) = &pause {
            tracing::info!(upstream = self.name(), by, "deliveries are paused");
        } else {
            tracing::info!(upstream = self.name(), "deliveries go on");
        }
        self.shared.set_paused(pause);
        Ok(())
    }

    pub(super) fn lease_length(&self) -> Duration {
        self.shared.target.upstream.timeout + LEASE_MARGIN
    }

    pub(super) fn name(&self) -> &str {
        &self.shared.target.upstream.name
    }
}
