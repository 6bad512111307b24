//! Carries operations out: one task each, oldest event first, in slices.
//!
//! A slice is one transaction with the progress that it makes, so that whatever ends the process, a resumed operation
//! goes on exactly behind the last event that was changed. While an operation runs its task alone saves it; stopping
//! means asking the task, and waiting for the slice that it has begun.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::plan::Plan;
use crate::{
    admin::Forgotten,
    event::EventId,
    store::{Act, Direction, EventStore, Operation, OperationState, StoreError},
    time::Clock,
};

/// Operations that run at a time.
pub(super) const RUNNING_MAX: usize = 4;
/// Events in one transaction.
const SLICE_MAX: usize = 500;
/// With a rate, a slice is what may pass in this time.
const SLICES_PER_SECOND: u32 = 4;
/// A store in trouble is asked again after pauses that double: for about a minute, then the operation has failed.
const TROUBLE_FIRST: Duration = Duration::from_millis(250);
const TROUBLE_TRIES: u32 = 9;

/// The operations of a process.
pub struct Operations {
    store: Arc<dyn EventStore>,
    clock: Clock,
    forgotten: Forgotten,
    running: Mutex<BTreeMap<EventId, Running>>,
    tasks: TaskTracker,
    ending: CancellationToken,
}

/// How to reach the task of an operation.
#[derive(Clone, Default)]
struct Running {
    stop: CancellationToken,
    /// Who asked for the end.
    reason: Arc<Mutex<Option<String>>>,
    ended: CancellationToken,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

/// Why nothing more of an operation is done now.
enum Halt {
    Stopped,
    Failed(String),
}

/// A place among those that run. Dropped when the task ends, however that happens.
pub(super) struct Place {
    operations: Arc<Operations>,
    id: EventId,
    running: Running,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.operations.running().remove(&self.id);
        self.running.ended.cancel();
    }
}

impl Operations {
    /// None runs yet. `forgotten` is told of the events whose keys may have been freed.
    pub fn new(store: Arc<dyn EventStore>, clock: Clock, forgotten: Forgotten) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            forgotten,
            running: Mutex::default(),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
        })
    }

    /// Ends all of them after the slices that have begun. They can be resumed after the next start.
    pub async fn drain(&self) {
        self.ending.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(super) fn is_running(&self, id: EventId) -> bool {
        self.running().contains_key(&id)
    }

    /// A place for an operation, unless it has one, too many have, or the process is about to end.
    pub(super) fn place(self: &Arc<Self>, id: EventId) -> Option<Place> {
        let mut all = self.running();
        if all.len() >= RUNNING_MAX || all.contains_key(&id) || self.ending.is_cancelled() {
            return None;
        }
        let running = Running { stop: self.ending.child_token(), ..Running::default() };
        all.insert(id, running.clone());
        Some(Place { operations: self.clone(), id, running })
    }

    /// Carries an operation out that was saved as running.
    pub(super) fn start(self: &Arc<Self>, place: Place, plan: Plan, operation: Operation) {
        let this = self.clone();
        self.tasks.spawn(async move {
            let stop = place.running.stop.clone();
            let (mut operation, halt) = this.run(&plan, operation, &stop).await;
            let Some(halt) = halt else { return log(&operation) };
            (operation.state, operation.reason) = match halt {
                Halt::Stopped => {
                    let reason = place.running.reason.lock().unwrap_or_else(PoisonError::into_inner).take();
                    (OperationState::Stopped, Some(reason.unwrap_or_else(|| "the process ended".to_owned())))
                }
                Halt::Failed(reason) => (OperationState::Failed, Some(reason)),
            };
            operation.changed_at = this.clock.wall();
            log(&operation);
            if let Err(error) = this.store.save_operation(operation).await {
                tracing::error!(%error, operation = %place.id, "failed to record how an operation ended");
            }
        });
    }

    /// Stops one after the slice that it has begun, and waits for that. False if it does not run.
    pub(super) async fn stop(&self, id: EventId, reason: String) -> bool {
        let Some(running) = self.running().get(&id).cloned() else { return false };
        *running.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        running.stop.cancel();
        running.ended.cancelled().await;
        true
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<EventId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until every event was looked at: then the operation is saved as finished, and nothing halted it.
    async fn run(&self, plan: &Plan, mut operation: Operation, stop: &CancellationToken) -> (Operation, Option<Halt>) {
        let Some(act) = plan.act() else {
            return (operation, Some(Halt::Failed("it was written by another version".to_owned())));
        };
        let mut pace = Pace { rate: plan.rate, next: Instant::now() };
        // Events that are done one by one, because something among them is damaged.
        let mut single = 0;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return (operation, Some(Halt::Stopped)),
                () = sleep_until(pace.next) => {}
            }
            let limit = if single > 0 { 1 } else { pace.slice() };
            let (slice, next) = match self.slice(plan, &operation, limit, stop).await {
                Ok(slice) => slice,
                Err(halt) => return (operation, Some(halt)),
            };
            let before = operation.clone();
            operation.cursor = next.or(slice.last().copied()).or(operation.cursor);
            operation.changed_at = self.clock.wall();
            if next.is_none() {
                operation.state = OperationState::Finished;
            }
            match self.change(&act, &slice, operation.clone(), stop).await {
                Ok(changed) => operation = changed,
                Err((_, StoreError::Damaged(_))) if slice.len() > 1 => {
                    (operation, single) = (before, slice.len());
                    continue;
                }
                Err((halt, _)) => return (before, Some(halt)),
            }
            single = single.saturating_sub(1);
            if matches!(act, Act::Forget | Act::Purge) {
                (self.forgotten)(&slice);
            }
            if operation.state == OperationState::Finished {
                return (operation, None);
            }
            pace.passed(slice.len());
        }
    }

    /// The next events, and where it goes on behind them, if it does.
    async fn slice(
        &self,
        plan: &Plan,
        operation: &Operation,
        limit: usize,
        stop: &CancellationToken,
    ) -> Result<(Vec<EventId>, Option<EventId>), Halt> {
        let filter = plan.rest(operation.cursor).map_err(|problem| Halt::Failed(problem.code().to_owned()))?;
        let list = || self.store.list(filter.clone(), Direction::OldestFirst, limit);
        let page = patiently(list, stop).await.map_err(|(halt, _)| halt)?;
        Ok((page.events.iter().map(|listed| listed.head.id).collect(), page.next))
    }

    /// Changes these events and saves the progress; of nothing there is only progress.
    async fn change(
        &self,
        act: &Act,
        slice: &[EventId],
        operation: Operation,
        stop: &CancellationToken,
    ) -> Result<Operation, (Halt, StoreError)> {
        if slice.is_empty() {
            patiently(|| self.store.save_operation(operation.clone()), stop).await?;
            return Ok(operation);
        }
        let done = patiently(|| self.store.act(act.clone(), slice.to_vec(), operation.clone()), stop).await;
        match (done, slice) {
            // What is damaged cannot be changed, and holds up nothing else.
            (Err((_, StoreError::Damaged(what))), [id]) => {
                tracing::warn!(event = %id, operation = %operation.id, %what, "an operation left out what is damaged");
                let operation = Operation { skipped: operation.skipped + 1, ..operation };
                patiently(|| self.store.save_operation(operation.clone()), stop).await?;
                Ok(operation)
            }
            (done, _) => done,
        }
    }
}

/// Asks a store that is in trouble again for a while.
async fn patiently<'s, T>(
    ask: impl Fn() -> BoxFuture<'s, Result<T, StoreError>>,
    stop: &CancellationToken,
) -> Result<T, (Halt, StoreError)> {
    let mut pause = TROUBLE_FIRST;
    for tried in 1.. {
        let error = match ask().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let may_pass = matches!(error, StoreError::Unavailable(_) | StoreError::Full(_));
        if !may_pass || tried == TROUBLE_TRIES {
            return Err((Halt::Failed(error.to_string()), error));
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err((Halt::Stopped, error)),
            () = sleep(pause) => {}
        }
        pause *= 2;
    }
    unreachable!("the last try returns")
}

fn log(operation: &Operation) {
    let (state, done, skipped) = (operation.state.name(), operation.done, operation.skipped);
    let reason = operation.reason.as_deref();
    tracing::info!(operation = %operation.id, state, done, skipped, reason, "an operation ended");
}

/// When the next slice may begin.
struct Pace {
    rate: Option<u32>,
    next: Instant,
}

impl Pace {
    fn slice(&self) -> usize {
        let fits = self.rate.map_or(SLICE_MAX, |rate| (rate / SLICES_PER_SECOND) as usize);
        fits.clamp(1, SLICE_MAX)
    }
    /// The time that was lost is not made up for: the rate is never exceeded.
    fn passed(&mut self, events: usize) {
        let Some(rate) = self.rate else { return };
        let took = Duration::from_secs(events as u64) / rate.max(1);
        self.next = self.next.max(Instant::now()) + took;
    }
}
