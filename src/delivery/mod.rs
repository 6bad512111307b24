//! Delivery: lease, attempt, settle. One lane per upstream, so that one that hangs holds up no other.
//!
//! * `attempt`: one HTTP try and what follows from it.
//! * `slot`: the right to one try, within the upstream's concurrency, rate and breaker.
//! * `throttle`: attempts per second.
//! * `guarded`: the breaker, and what people see of it.
//! * `lane`: the loop that leases what is due.
//! * `lanes`: all lanes, and changing them while they run.
//! * `items`: items of a body that the upstream already has.

mod attempt;
mod guarded;
pub mod items;
mod lane;
mod lanes;
mod slot;
mod throttle;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

pub use attempt::{Standing, Target, Tried, Try, Verdict, attempt, outcome};
pub use items::Marks;
pub use lanes::{LaneSet, Lanes, Prepared, Retired};
pub use slot::Slot;

use crate::{
    config::Source,
    event::{Answer, Item, Name},
    http::client::{Answered, ClientError},
    policy::breaker::State,
    store::{EventStore, Pause, StoreError},
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
