//! The way in: the life of a webhook as a tower stack.
//!
//! Each step takes what the step before has proven and returns what it has proven itself, or a rejection. The
//! types are made in one place each, so a step in the wrong place does not compile. Steps return an [`Ack`] or
//! a [`Rejection`]; `respond` alone turns them into statuses, and from there outwards nothing errors. The
//! deadline is a value that `select` fixes and that `read`, `once` and `accept` wait until.
//!
//! Before `verify` only the server's own limits apply, so a forger takes nothing that belongs to a source.
//! From `once` on the work is a flight: no client, copy or deadline can cancel it.

mod accept;
mod admit;
mod budget;
mod challenge;
mod claim;
mod crowd;
mod destination;
mod failures;
mod full;
mod health;
mod observe;
mod once;
mod outcome;
mod paths;
mod pending;
mod rate;
mod read;
mod remote_keys;
mod respond;
mod restored;
mod routes;
mod select;
mod step;
mod streaks;
mod verify;
mod waive;

use std::{convert::Infallible, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Request;
use http_body_util::{Full, combinators::UnsyncBoxBody};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceBuilder};

use crate::{
    config::{Config, Source},
    delivery::{LaneSet, Lanes},
    event::{EventId, Name},
    http::per_client::PerClient,
    replay::Flights,
    store::EventStore,
    telemetry::{Health, Metrics},
    time::{Clock, Wall},
    verify::Key,
};

use budget::Allowance;
use crowd::Crowd;
use paths::KnownPaths;
use routes::Route;
use streaks::Streaks;

pub use budget::Budget;
pub use failures::{Failed, Failures};
pub use outcome::{Ack, Rejection};
pub use pending::{Pending, PendingSecret, is_configured};
pub use routes::Snapshot;

/// Requests not verified yet that every client address may have in flight, if that is not most of all there may be.
const UNPROVEN_PER_CLIENT_MIN: usize = 16;

/// What did not verify and was let through has this part of places and bytes, whatever its upstream does with it.
const WAIVED_PART: usize = 8;

/// A body on the wire.
pub type WireBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
/// An answer to a provider.
pub type Response = http::Response<Full<Bytes>>;

type Guard = Flights<Key, [u8; 32], EventId, Result<Ack, Rejection>>;

/// Everything the steps share and a reload keeps. The snapshot is what a reload swaps; `observe` loads it once
/// per request.
#[derive(Debug)]
pub struct Gate {
    snapshot: ArcSwap<Snapshot>,
    guard: Arc<Guard>,
    flights: TaskTracker,
    store: Arc<dyn EventStore>,
    /// Paths that sources had.
    paths: KnownPaths,
    budget: Budget,
    in_flight: Arc<Semaphore>,
    in_flight_max: usize,
    /// Shares of a client address in what is not verified yet: places, and bytes.
    unproven_requests: Arc<PerClient>,
    unproven_bytes: Arc<PerClient>,
    /// All who are not verified yet.
    crowd: Arc<Crowd>,
    /// For what is let through although it did not verify: places, and bytes.
    waived_requests: Arc<Semaphore>,
    waived_bytes: Arc<Allowance>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    clock: Clock,
    full_said: full::Said,
    pending: Arc<Pending>,
    failures: Arc<Failures>,
    streaks: Streaks,
    /// When the store was restored from a backup, if it was.
    restored_at: Option<Wall>,
    /// Cancelled when the drain's time is up: what still waits is refused.
    cut: CancellationToken,
}

/// How a source is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceStatus {
    /// Its name.
    pub name: Name,
    /// Answers to its webhooks that were no 2xx, one after another, as the provider counts them.
    pub refusals_in_a_row: u32,
    /// At how many of those the provider disables the subscription, if that is known.
    pub disables_after: Option<u32>,
    /// Until when what does not verify is let through.
    pub unenforced_until: Option<Wall>,
}

impl Gate {
    /// Fetches the keys of every source that wants it, until it is told to end: one future for each whose keys nobody
    /// fetches yet.
    pub fn keep_remote_keys(
        self: &Arc<Self>,
        ending: &CancellationToken,
    ) -> Vec<impl Future<Output = ()> + Send + use<>> {
        let snapshot = self.snapshot.load();
        let routes = snapshot.with_remote_keys().filter(|route| route.remote.begin());
        let keep = |route: &Arc<Route>| {
            remote_keys::keep(self.clone(), route.source.name.clone(), route.remote.clone(), ending.clone())
        };
        routes.map(keep).collect()
    }

    /// Takes another configuration. Requests in flight finish with the one that they began with; rates, places in flight
    /// and fetched keys go over to the sources of the same name. What is read at the start only stays as it is.
    ///
    /// Writes a small file beside the store, so it is not for a worker of the runtime.
    pub fn reload(&self, config: &Config, lanes: Arc<LaneSet>) {
        let removed = self.paths.update(config, self.clock.wall());
        say_of_sources(config, &self.metrics, self.clock.wall());
        let before = self.snapshot.load_full();
        let snapshot = Snapshot::new(config, lanes, removed, Some(&before), self.clock.monotonic());
        self.snapshot.store(Arc::new(snapshot));
        let snapshot = self.snapshot.load();
        for old in before.with_remote_keys() {
            match snapshot.of_source(&old.source.name).filter(|new| Arc::ptr_eq(&new.remote, &old.remote)) {
                Some(new) => new.take_fetched(),
                None => old.remote.end(),
            }
        }
    }

    /// A gate for this configuration.
    pub fn new(
        config: &Config,
        store: Arc<dyn EventStore>,
        lanes: &Lanes,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Arc<Self> {
        let limits = &config.server.limits;
        let restored_at = store.restored_at();
        restored::warn_of_untimed(config, restored_at, clock.wall());
        let paths = KnownPaths::open(&config.store);
        let removed = paths.update(config, clock.wall());
        say_of_sources(config, &metrics, clock.wall());
        let unproven_max = limits.in_flight_max.div_ceil(2);
        let per_client = (limits.in_flight_max / 10).max(UNPROVEN_PER_CLIENT_MIN).min(unproven_max.div_ceil(2));
        let capacity = std::num::NonZeroUsize::new(config.replay.capacity).unwrap_or(std::num::NonZeroUsize::MIN);
        Arc::new(Self {
            snapshot: ArcSwap::from_pointee(Snapshot::new(config, lanes.current(), removed, None, clock.monotonic())),
            paths,
            guard: Flights::new(capacity, || Err(Rejection::Panicked)),
            flights: TaskTracker::new(),
            store,
            budget: Budget::new(limits.body_memory_max),
            in_flight: Arc::new(Semaphore::new(limits.in_flight_max)),
            in_flight_max: limits.in_flight_max,
            unproven_requests: PerClient::new(per_client as u64),
            unproven_bytes: PerClient::new(limits.body_memory_max / 10),
            crowd: Crowd::new(unproven_max),
            waived_requests: Arc::new(Semaphore::new(limits.in_flight_max.div_ceil(WAIVED_PART))),
            waived_bytes: Allowance::new(limits.body_memory_max / WAIVED_PART as u64),
            health,
            metrics,
            clock,
            full_said: full::Said::default(),
            pending: Arc::new(Pending::new(&config.store)),
            failures: Arc::default(),
            streaks: Streaks::default(),
            restored_at,
            cut: CancellationToken::new(),
        })
    }

    /// The drain's time is up: every request that still waits gets 503 now. Flights go on.
    pub fn refuse_waiting(&self) {
        self.cut.cancel();
    }

    /// Drops the keys of these events from the guard's memory, after the store has forgotten them.
    pub fn forget(&self, ids: &[EventId]) {
        self.guard.forget(ids);
    }

    /// Keys that the guard holds.
    pub fn guard_keys(&self) -> usize {
        self.guard.held()
    }

    /// Secrets that wait for an operator.
    pub fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    /// Refusals of the sources that want them explained.
    pub fn failures(&self) -> &Arc<Failures> {
        &self.failures
    }

    /// Requests in flight, and bytes of bodies they hold.
    pub fn load(&self) -> (usize, u64) {
        (self.in_flight_max - self.in_flight.available_permits(), self.budget.taken())
    }

    /// How every configured source is doing, by name.
    pub fn sources(&self) -> Vec<SourceStatus> {
        let (snapshot, now) = (self.snapshot.load(), self.clock.wall());
        let status = |source: &Source| SourceStatus {
            name: source.name.clone(),
            refusals_in_a_row: self.streaks.of(&source.name),
            disables_after: source.provider.sender.disables_after,
            unenforced_until: source.lenient.map(|lenient| lenient.until).filter(|until| now < *until),
        };
        let mut all: Vec<_> = snapshot.sources().map(status).collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Waits until every flight has landed. New ones can still begin: close the listeners first.
    pub async fn drain(&self) {
        self.flights.close();
        self.flights.wait().await;
    }
}

/// What an operator is told of the sources of a configuration that is taken.
fn say_of_sources(config: &Config, metrics: &Metrics, now: Wall) {
    waive::warn(config, now);
    for source in config.sources.values() {
        if let Some(count) = source.provider.sender.disables_after {
            metrics.disables_after(&source.name, count);
        }
    }
}

/// The stack, outermost first.
pub fn stack(
    gate: &Arc<Gate>,
) -> impl Service<Request<WireBody>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static {
    ServiceBuilder::new()
        .layer(observe::observe(gate)) //       the line and the metric, whatever ends the request
        .layer(health::health(gate)) //         health probes end here, outside admission
        .layer(respond::respond(gate)) //       Ack | Rejection -> response; below it nothing knows a status
        .layer(step::step(gate, select::select)) //   Inbound  -> Selected   404 405
        .layer(step::step(gate, admit::admit)) //     Selected -> Admitted   400 401 403 503
        .layer(challenge::unsigned(gate)) //          a handshake that the provider does not sign is answered here
        .layer(step::step(gate, claim::claim)) //     Admitted -> Claimed    401, before a byte of the body
        .layer(read::read(gate)) //                   Claimed  -> Received   408 413 503
        .layer(step::step(gate, verify::verify)) //   Received -> Verified   401
        .layer(step::step(gate, rate::rate)) //       Verified -> Verified   429 503
        .layer(challenge::verified(gate)) //          a verified handshake is answered here
        .layer(once::once(gate)) //                   one flight per key; copies wait
        .service(accept::accept(gate)) //             durable append, or the upstream
}
