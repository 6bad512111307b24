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

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use attempt::{Target, Tried, Try, Verdict, attempt, outcome};
pub use items::Marks;
pub use slot::Slot;

use crate::{
    config::{Source, Upstream},
    event::{EventId, Name},
    http::client::{Client, ClientError},
    policy::breaker::State,
    preset::Items,
    store::EventStore,
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
    /// Reads the items of a body: [`items::items`].
    pub extract: items::Extract,
}

/// What a delivery depends on besides its event.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceRule {
    /// Items that the provider re-sends apart.
    pub items: Option<Items>,
    /// Whether the query goes to the upstream.
    pub forward_query: bool,
}

impl From<&Source> for SourceRule {
    fn from(source: &Source) -> Self {
        Self { items: source.items.clone(), forward_query: source.forward_query }
    }
}

/// Why lanes do not start.
#[derive(Debug, thiserror::Error)]
#[error("failed to prepare upstream {upstream}: {error}")]
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
    /// Attempts being made or settled.
    pub in_flight: usize,
    /// How many there may be.
    pub concurrency: usize,
}

/// All lanes. They stop when this is dropped, or drained.
#[derive(Debug)]
pub struct Lanes {
    by_name: BTreeMap<Name, Arc<slot::Shared>>,
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
            lanes.insert(name.clone(), slot::Shared::new(target, stop.child_token()));
        }
        for shared in lanes.values() {
            let lane = lane::Lane { shared: shared.clone(), parts: parts.clone(), tasks: tasks.clone() };
            tasks.spawn(Arc::new(lane).run());
        }
        Ok(Self { by_name: lanes, tasks, stop })
    }

    /// The right to one attempt now, for `respond` and `proxy`. `None` if there is no room, the breaker says no,
    /// the lanes are draining, or there is no such upstream.
    pub fn try_slot(&self, upstream: &str, event: EventId) -> Option<Slot> {
        self.by_name.get(upstream)?.try_slot(event)
    }

    /// As [`Lanes::try_slot`], but waits for room, before the backlog of the lane. Cancel safe.
    pub async fn slot(&self, upstream: &str, event: EventId) -> Option<Slot> {
        self.by_name.get(upstream)?.slot(event).await
    }

    /// All lanes, by name.
    pub fn status(&self) -> Vec<LaneStatus> {
        let status = |(name, shared): (&Name, &Arc<slot::Shared>)| {
            let concurrency = shared.target.upstream.concurrency;
            let in_flight = concurrency.saturating_sub(shared.permits.available_permits());
            LaneStatus { upstream: name.clone(), breaker: shared.state(), in_flight, concurrency }
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
