//! All lanes, and changing them while they run.
//!
//! A request keeps to the lanes of its snapshot: a [`LaneSet`] never changes, and a reload makes another. A lane whose
//! upstream did not change is in both. One that is not in the new set is retired: it leases nothing more, finishes what
//! it has, and still serves the requests that came before. So a changed upstream may for a while get as many attempts
//! more at a time as its old lane is still making.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Keep, LaneStatus, Parts, Slot, SourceRule, StartError, Target,
    lane::{self, Common, Lane},
    slot,
};
use crate::{
    config::Upstream,
    event::{Answer, EventId, Name},
    http::client::Client,
    store::{Leased, Pause, StoreError},
};

/// The lanes of one configuration.
#[derive(Debug, Default)]
pub struct LaneSet {
    by_name: BTreeMap<Name, Arc<Lane>>,
}

impl LaneSet {
    /// The right to one attempt now, for `respond` and `proxy`. `None` if there is no room, it would be over the rate,
    /// the upstream is paused, the breaker says no, the lanes are draining, or there is no such upstream.
    pub fn try_slot(&self, upstream: &str, event: EventId) -> Option<Slot> {
        self.by_name.get(upstream)?.shared.try_slot(event)
    }

    /// As [`LaneSet::try_slot`], but waits for room and for the rate, before the backlog of the lane. Cancel safe.
    pub async fn slot(&self, upstream: &str, event: EventId) -> Option<Slot> {
        self.by_name.get(upstream)?.shared.slot(event).await
    }

    /// How long a delivery to this upstream is leased: one attempt and the time to settle it.
    pub fn lease_length(&self, upstream: &str) -> Duration {
        self.by_name.get(upstream).map_or(Duration::ZERO, |lane| lane.lease_length())
    }

    /// Delivers what the caller has leased itself, in a slot of the same set taken before (`respond`), and settles it
    /// like any other delivery. `leased_at` is from before the call that leased it. Returns the upstream's answer, as
    /// it is kept for copies, if it took the event. To be run in a task that nobody cancels.
    pub async fn deliver_now(&self, leased: Leased, leased_at: Instant, slot: Slot, keep: Keep) -> Option<Answer> {
        let lane = self.by_name.get(&leased.upstream)?.clone();
        let lapses_at = leased_at + lane.lease_length();
        lane.deliver(leased, lapses_at, slot, Some(keep)).await
    }
}

/// All lanes. They stop when this is dropped, or drained.
#[derive(Debug)]
pub struct Lanes {
    current: ArcSwap<LaneSet>,
    common: Arc<Common>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Held by whoever pauses an upstream, lets it go on, or changes the lanes, so that lanes and store agree.
    changing: Arc<Mutex<()>>,
}

/// Lanes that are ready to take over. Until they do, or this is dropped, nobody else changes the lanes.
#[derive(Debug)]
pub struct Prepared {
    set: Arc<LaneSet>,
    sources: BTreeMap<Name, SourceRule>,
    /// Those that are new in it, and do not run yet.
    new: Vec<Arc<Lane>>,
    _changing: OwnedMutexGuard<()>,
}

impl Prepared {
    /// The set that is going to be the current one.
    pub fn set(&self) -> &Arc<LaneSet> {
        &self.set
    }
}

/// Lanes that lease nothing more.
#[derive(Debug)]
#[must_use = "deliveries of upstreams that are gone are parked once their lanes have finished"]
pub struct Retired(Vec<Arc<Lane>>);

impl Retired {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits until they have finished what they had, or until every lease of theirs has lapsed.
    pub async fn finished(self) {
        let longest = self.0.iter().map(|lane| lane.lease_length()).max().unwrap_or_default();
        let all = async {
            for lane in &self.0 {
                lane.shared.rest.close();
                lane.shared.rest.wait().await;
            }
        };
        if tokio::time::timeout(longest, all).await.is_err() {
            tracing::warn!("deliveries to upstreams that were changed or removed did not end in time");
        }
    }
}

impl Lanes {
    /// Starts one lane per upstream. Those that were paused when the process ended still are.
    pub async fn start(upstreams: &BTreeMap<Name, Arc<Upstream>>, parts: Parts) -> Result<Self, StartError> {
        let Parts { store, metrics, clock, sources } = parts;
        let common = Common { store, metrics, clock, sources: ArcSwap::default() };
        let lanes = Self {
            current: ArcSwap::default(),
            common: Arc::new(common),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            changing: Arc::default(),
        };
        let prepared = lanes.prepare(upstreams, sources).await?;
        for lane in prepared.set.by_name.values() {
            if let Some(Pause { since, by }) = lane.shared.paused() {
                tracing::warn!(upstream = lane.name(), %since, by, "deliveries are paused");
            }
        }
        let none = lanes.change(prepared);
        debug_assert!(none.is_empty(), "there was no lane before");
        Ok(lanes)
    }

    /// The lanes of the configuration that is in force.
    pub fn current(&self) -> Arc<LaneSet> {
        self.current.load_full()
    }

    /// As [`LaneSet::try_slot`], of the lanes that are in force.
    pub fn try_slot(&self, upstream: &str, event: EventId) -> Option<Slot> {
        self.current().try_slot(upstream, event)
    }

    /// As [`LaneSet::slot`], of the lanes that are in force.
    pub async fn slot(&self, upstream: &str, event: EventId) -> Option<Slot> {
        self.current().slot(upstream, event).await
    }

    /// Makes the lanes of another configuration, without starting them. A lane whose upstream stays as it is stays
    /// itself, with its breaker and its attempts.
    pub async fn prepare(
        &self,
        upstreams: &BTreeMap<Name, Arc<Upstream>>,
        sources: BTreeMap<Name, SourceRule>,
    ) -> Result<Prepared, StartError> {
        let changing = self.changing.clone().lock_owned().await;
        let current = self.current();
        let (mut by_name, mut new, mut paused) = (BTreeMap::new(), Vec::new(), None);
        for (name, upstream) in upstreams {
            let failed = |error| StartError::Client { upstream: name.clone(), error };
            let files = digests_of(upstream);
            let old = current.by_name.get(name);
            let same = |lane: &&Arc<Lane>| *lane.shared.target.upstream == **upstream && lane.files == files;
            if let Some(lane) = old.filter(same) {
                by_name.insert(name.clone(), lane.clone());
                continue;
            }
            let (ca, own) = (upstream.ca.as_deref(), upstream.client_cert.as_ref());
            let client = Client::showing(&upstream.url, ca, own, self.common.clock.clone()).map_err(failed)?;
            let pause = if let Some(lane) = old {
                lane.shared.paused()
            } else {
                if paused.is_none() {
                    paused = Some(self.common.store.paused().await.map_err(StartError::Paused)?);
                }
                paused.as_mut().and_then(|paused| paused.remove(name))
            };
            let (clock, metrics) = (self.common.clock.clone(), self.common.metrics.clone());
            let target = Target { upstream: upstream.clone(), client, clock, metrics };
            let lane = Arc::new(Lane {
                shared: slot::Shared::new(target, pause, self.stop.child_token()),
                common: self.common.clone(),
                tasks: self.tasks.clone(),
                settling: Semaphore::new(lane::SETTLING_MAX),
                retired: self.stop.child_token(),
                files,
            });
            by_name.insert(name.clone(), lane.clone());
            new.push(lane);
        }
        Ok(Prepared { set: Arc::new(LaneSet { by_name }), sources, new, _changing: changing })
    }

    /// Puts prepared lanes in the place of those that are there. What is not among them is retired.
    pub fn change(&self, prepared: Prepared) -> Retired {
        let Prepared { set, sources, new, _changing } = prepared;
        self.common.sources.store(Arc::new(sources));
        let old = self.current.swap(set.clone());
        for lane in new {
            lane.shared.tell();
            self.tasks.spawn(lane.run());
        }
        let mut retired = Vec::new();
        for (name, lane) in &old.by_name {
            let now = set.by_name.get(name);
            if now.is_none_or(|now| !Arc::ptr_eq(now, lane)) {
                lane.retired.cancel();
                retired.push(lane.clone());
            }
            if now.is_none() {
                self.common.metrics.upstream_gone(name);
            }
        }
        Retired(retired)
    }

    /// Pauses an upstream, or lets it go on; both outlive a restart. Attempts that run are finished. False if there
    /// is no such upstream. What could not be stored changes nothing; what was begun is finished, even if the caller
    /// leaves.
    pub async fn set_paused(&self, upstream: &str, pause: Option<Pause>) -> Result<bool, StoreError> {
        let changing = self.changing.clone().lock_owned().await;
        let Some(lane) = self.current().by_name.get(upstream).cloned() else { return Ok(false) };
        let pausing = self.tasks.spawn(async move {
            let _one_at_a_time = changing;
            lane.set_paused(pause).await
        });
        pausing.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))?;
        Ok(true)
    }

    /// All lanes, by name.
    pub fn status(&self) -> Vec<LaneStatus> {
        let status = |(name, lane): (&Name, &Arc<Lane>)| {
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
        self.current().by_name.iter().map(status).collect()
    }

    /// Leases nothing more from now on. What is returned waits for the deliveries that run; who comes by himself still
    /// gets a slot.
    pub fn rest(&self, timeout: Duration) -> impl Future<Output = ()> {
        for lane in self.current().by_name.values() {
            lane.retired.cancel();
        }
        self.tasks.close();
        async move {
            let _ = tokio::time::timeout(timeout, self.tasks.wait()).await;
        }
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

/// Of the files that its client was made of, so that others under the same names are noticed. One that cannot be read is
/// none, and is for the client to report.
fn digests_of(upstream: &Upstream) -> Vec<Option<[u8; 32]>> {
    let own = upstream.client_cert.iter().flat_map(|own| [&own.cert, &own.key]);
    let digest = |file: &PathBuf| Some(Sha256::digest(std::fs::read(file).ok()?).into());
    upstream.ca.iter().chain(own).map(digest).collect()
}
