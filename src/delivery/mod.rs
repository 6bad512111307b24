//! Delivery: lease, attempt, settle. One lane per upstream, so that one that hangs holds up no other.
//!
//! * `attempt`: one HTTP try and what follows from it.
//! * `slot`: the right to one try, within the upstream's concurrency and breaker.
//! * `lane`: the loop that leases what is due.
//! * `items`: items of a body that the upstream already has.

mod attempt;
pub mod items;
mod lane;
mod slot;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use attempt::{Target, Tried, Try, Verdict, attempt, outcome};
pub use items::Marks;
pub use slot::Slot;

use crate::{
    config::{Source, Upstream},
    event::{Answer, EventId, Item, Name},
    http::client::{Answered, Client, ClientError},
    policy::breaker::State,
    store::{EventStore, Leased, Pause, StoreError},
    telemetry::Metrics,
    time::Clock,
};

/// What all lanes use.
#[derive(Debug)]
pub struct Parts {
    /// The store.
    pub store: Arc<dyn EventStore>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The clocks.
    pub clock: Clock,
    /// What a delivery depends on besides its event, by source.
    pub sources: BTreeMap<Name, SourceRule>,
}

/// What a delivery depends on besides its event.
#[derive(Clone, Default)]
pub struct SourceRule {
    /// Reads the items that the provider re-sends apart, in the order of the body: `None` for one whose key cannot
    /// be read.
    pub items: Option<items::Extract>,
    /// Whether the query goes to the upstream.
    pub forward_query: bool,
}

impl fmt::Debug for SourceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = self.items.is_some();
        f.debug_struct("SourceRule").field("items", &items).field("forward_query", &self.forward_query).finish()
    }
}

impl From<&Source> for SourceRule {
    fn from(source: &Source) -> Self {
        let items = source.items.clone().map(|spec| {
            let plan = source.key_plan.clone();
            let item = |(key, content)| Item { key, content };
            Arc::new(move |body: &[u8]| {
                plan.items(body, &spec.each, &spec.key).into_iter().map(|found| found.map(item)).collect()
            }) as items::Extract
        });
        Self { items, forward_query: source.forward_query }
    }
}

/// How an upstream's answer is kept for copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// The one status that the provider takes for success, if any 2xx will not do.
    pub ack_status: Option<u16>,
    /// For how long.
    pub kept: Duration,
}

impl Keep {
    /// The answer as the provider may see it.
    pub fn answer(&self, answered: &Answered) -> Answer {
        Answer {
            status: self.ack_status.unwrap_or(answered.status.as_u16()),
            content_type: answered.content_type.clone(),
            body: answered.body.clone(),
        }
    }
}

/// Why lanes do not start.
#[derive(Debug, thiserror::Error)]
#[error("failed to prepare upstream {upstream}")]
pub struct StartError {
    /// The upstream.
    pub upstream: Name,
    /// Why.
    #[source]
    pub error: ClientError,
}

/// One lane as an operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneStatus {
    /// The upstream.
    pub upstream: Name,
    /// Its breaker.
    pub breaker: State,
    /// Attempts being made.
    pub in_flight: usize,
    /// How many there may be.
    pub concurrency: usize,
    /// Whether an operator paused it.
    pub paused: Option<Pause>,
}

/// All lanes. They stop when this is dropped, or drained.
#[derive(Debug)]
pub struct Lanes {
    by_name: BTreeMap<Name, Arc<lane::Lane>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Lanes {
    /// Starts one lane per upstream.
    pub fn start(upstreams: &BTreeMap<Name, Arc<Upstream>>, parts: Parts) -> Result<Self, StartError> {
        let (tasks, stop, parts) = (TaskTracker::new(), CancellationToken::new(), Arc::new(parts));
        let mut lanes = BTreeMap::new();
        for (name, upstream) in upstreams {
            let client = Client::new(&upstream.url, upstream.ca.as_deref(), parts.clock.clone())
                .map_err(|error| StartError { upstream: name.clone(), error })?;
            let (clock, metrics) = (parts.clock.clone(), parts.metrics.clone());
            let target = Target { upstream: upstream.clone(), client, clock, metrics };
            let shared = slot::Shared::new(target, stop.child_token());
            let settling = Semaphore::new(lane::SETTLING_MAX);
            let lane = lane::Lane { shared, parts: parts.clone(), tasks: tasks.clone(), settling };
            lanes.insert(name.clone(), Arc::new(lane));
        }
        for lane in lanes.values() {
            tasks.spawn(lane.clone().run());
        }
        Ok(Self { by_name: lanes, tasks, stop })
    }

    /// The right to one attempt now, for `respond` and `proxy`. `None` if there is no room, the breaker says no,
    /// the lanes are draining, or there is no such upstream.
    pub fn try_slot(&self, upstream: &str, event: EventId) -> Option<Slot> {
        self.by_name.get(upstream)?.shared.try_slot(event)
    }

    /// As [`Lanes::try_slot`], but waits for room, before the backlog of the lane. Cancel safe.
    pub async fn slot(&self, upstream: &str, event: EventId) -> Option<Slot> {
        self.by_name.get(upstream)?.shared.slot(event).await
    }

    /// How long a delivery to this upstream is leased: one attempt and the time to settle it.
    pub fn lease_length(&self, upstream: &str) -> Duration {
        self.by_name.get(upstream).map_or(Duration::ZERO, |lane| lane.lease_length())
    }

    /// Delivers what the caller has leased itself, in a slot taken before (`respond`), and settles it like any
    /// other delivery. `leased_at` is from before the call that leased it. Returns the upstream's answer, as it is kept for copies, if it took the event. To be run in
    /// a task that nobody cancels.
    pub async fn deliver_now(&self, leased: Leased, leased_at: Instant, slot: Slot, keep: Keep) -> Option<Answer> {
        let lane = self.by_name.get(&leased.upstream)?.clone();
        let lapses_at = leased_at + lane.lease_length();
        lane.deliver(leased, lapses_at, slot, Some(keep)).await
    }

    /// Pauses an upstream, or lets it go on; both outlive a restart. Attempts that run are finished. False if there
    /// is no such upstream.
    pub async fn set_paused(&self, upstream: &str, pause: Option<Pause>) -> Result<bool, StoreError> {
        let Some(lane) = self.by_name.get(upstream) else { return Ok(false) };
        lane.parts.store.set_paused(upstream, pause.clone()).await?;
        *lane.shared.paused.lock().unwrap_or_else(PoisonError::into_inner) = pause;
        lane.shared.freed.notify_one();
        Ok(true)
    }

    /// All lanes, by name.
    pub fn status(&self) -> Vec<LaneStatus> {
        let status = |(name, lane): (&Name, &Arc<lane::Lane>)| {
            let shared = &lane.shared;
            let concurrency = shared.target.upstream.concurrency;
            let in_flight = concurrency.saturating_sub(shared.permits.available_permits());
            LaneStatus {
                upstream: name.clone(),
                breaker: shared.state(),
                in_flight,
                concurrency,
                paused: shared.paused(),
            }
        };
        self.by_name.iter().map(status).collect()
    }

    /// Leases nothing more, and waits for what runs. False if something still ran after `timeout`; its lease
    /// lapses, and it is tried again after the next start.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(timeout, self.tasks.wait()).await.is_ok()
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
