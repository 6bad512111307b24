//! Delivery: lease, attempt, settle. One lane per upstream, so that one that hangs holds up no other.
//!
//! * `attempt`: one HTTP try and what follows from it.
//! * `slot`: the right to one try, within the upstream's concurrency, rate and breaker.
//! * `throttle`: attempts per second.
//! * `guarded`: the breaker, and what people see of it.
//! * `lane`: the loop that leases what is due.
//! * `items`: items of a body that the upstream already has.

mod attempt;
mod guarded;
pub mod items;
mod lane;
mod slot;
mod throttle;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use attempt::{Standing, Target, Tried, Try, Verdict, attempt, outcome};
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
    /// After how many attempts a delivery with an order key is given up, so that others of its key go on.
    pub dead_letter_after: Option<u32>,
}

impl fmt::Debug for SourceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = self.items.is_some();
        f.debug_struct("SourceRule")
            .field("items", &items)
            .field("forward_query", &self.forward_query)
            .field("dead_letter_after", &self.dead_letter_after)
            .finish()
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
        let dead_letter_after = source.order_by.as_ref().and_then(|order| order.dead_letter_after);
        Self { items, forward_query: source.forward_query, dead_letter_after }
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
pub enum StartError {
    /// The client for an upstream cannot be made.
    #[error("failed to prepare upstream {upstream}")]
    Client {
        /// The upstream.
        upstream: Name,
        /// Why.
        #[source]
        error: ClientError,
    },
    /// The store does not say which upstreams are paused.
    #[error("failed to read which upstreams are paused")]
    Paused(#[source] StoreError),
}

/// One lane as an operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneStatus {
    /// The upstream.
    pub upstream: Name,
    /// Its breaker.
    pub breaker: State,
    /// For how long the breaker has been in this state.
    pub since: Duration,
    /// How often the breaker opened since the start; a probe that failed opens it again.
    pub opened_total: u64,
    /// What went wrong in the last attempt that failed: `status 503`, `connection refused`.
    pub last_failure: Option<String>,
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
    /// Starts one lane per upstream. Those that were paused when the process ended still are.
    pub async fn start(upstreams: &BTreeMap<Name, Arc<Upstream>>, parts: Parts) -> Result<Self, StartError> {
        let (tasks, stop, parts) = (TaskTracker::new(), CancellationToken::new(), Arc::new(parts));
        let mut paused = parts.store.paused().await.map_err(StartError::Paused)?;
        let mut lanes = BTreeMap::new();
        for (name, upstream) in upstreams {
            let (ca, own) = (upstream.ca.as_deref(), upstream.client_cert.as_ref());
            let client = Client::showing(&upstream.url, ca, own, parts.clock.clone())
                .map_err(|error| StartError::Client { upstream: name.clone(), error })?;
            let pause = paused.remove(name);
            if let Some(Pause { since, by }) = &pause {
                tracing::warn!(upstream = &**name, %since, by, "deliveries are paused");
            }
            let (clock, metrics) = (parts.clock.clone(), parts.metrics.clone());
            let target = Target { upstream: upstream.clone(), client, clock, metrics };
            let shared = slot::Shared::new(target, pause, stop.child_token());
            let settling = Semaphore::new(lane::SETTLING_MAX);
            let (parts, tasks, pausing) = (parts.clone(), tasks.clone(), Mutex::default());
            let lane = lane::Lane { shared, parts, tasks, settling, pausing };
            lanes.insert(name.clone(), Arc::new(lane));
        }
        for lane in lanes.values() {
            tasks.spawn(lane.clone().run());
        }
        Ok(Self { by_name: lanes, tasks, stop })
    }

    /// The right to one attempt now, for `respond` and `proxy`. `None` if there is no room, it would be over the rate,
    /// the upstream is paused, the breaker says no, the lanes are draining, or there is no such upstream.
    pub fn try_slot(&self, upstream: &str, event: EventId) -> Option<Slot> {
        self.by_name.get(upstream)?.shared.try_slot(event)
    }

    /// As [`Lanes::try_slot`], but waits for room and for the rate, before the backlog of the lane. Cancel safe.
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
    /// is no such upstream. What could not be stored changes nothing; what was begun is finished, even if the caller
    /// leaves.
    pub async fn set_paused(&self, upstream: &str, pause: Option<Pause>) -> Result<bool, StoreError> {
        let Some(lane) = self.by_name.get(upstream).cloned() else { return Ok(false) };
        let pausing = self.tasks.spawn(async move { lane.set_paused(pause).await });
        pausing.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))?;
        Ok(true)
    }

    /// All lanes, by name.
    pub fn status(&self) -> Vec<LaneStatus> {
        let status = |(name, lane): (&Name, &Arc<lane::Lane>)| {
            let shared = &lane.shared;
            let concurrency = shared.target.upstream.concurrency;
            let in_flight = concurrency.saturating_sub(shared.permits.available_permits());
            let seen = shared.seen();
            LaneStatus {
                upstream: name.clone(),
                breaker: seen.state,
                since: seen.since,
                opened_total: seen.opened_total,
                last_failure: seen.last_failure,
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
