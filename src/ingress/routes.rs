//! What a reload swaps: paths and the sources behind them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::{sync::Semaphore, time::Instant};

use super::{budget::Allowance, paths::Removed, remote_keys::Remote};
use crate::{
    config::{Config, Source},
    delivery::LaneSet,
    http::tls::Wanted,
    policy::rate::Bucket,
    time::Wall,
    verify::Keyring,
};

/// One configuration, as the steps see it. It never changes; a reload makes another, which takes over what is still the
/// same by name.
#[derive(Debug)]
pub struct Snapshot {
    exact: HashMap<String, Arc<Route>>,
    /// Those whose path has a `{token}` segment. No two match one path: the configuration says so.
    with_token: Vec<Arc<Route>>,
    /// Paths whose source is gone.
    removed: Vec<Removed>,
    /// The lanes of this configuration.
    pub(super) lanes: Arc<LaneSet>,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) unknown_path: u16,
    pub(super) health_path: Option<String>,
    pub(super) body_timeout: std::time::Duration,
    pub(super) body_rate_min: u64,
}

/// A source with its state at run time. State that is behind an [`Arc`] outlives a reload that does not change its bound.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) source: Arc<Source>,
    /// Verified webhooks per second.
    pub(super) rate: Option<Arc<Mutex<Bucket>>>,
    /// Verified requests and their flights: how many there may be, and the places.
    pub(super) in_flight: Option<(usize, Arc<Semaphore>)>,
    /// Bytes of their bodies.
    pub(super) bytes: Option<Arc<Allowance>>,
    /// The secrets that count now.
    pub(super) keys: ArcSwap<Keyring>,
    pub(super) remote: Arc<Remote>,
    /// What it asks of certificates of clients.
    pub(super) client_cert: Option<Wanted>,
}

/// What one of several sources may have of what is there for all.
#[derive(Clone, Copy)]
struct Shares {
    in_flight_max: Option<usize>,
    bytes_max: Option<u64>,
}

impl Shares {
    /// Half of it; one that has nobody beside it may have all.
    fn of(config: &Config) -> Self {
        let (limits, several) = (&config.server.limits, config.sources.len() > 1);
        Self {
            in_flight_max: several.then(|| limits.in_flight_max.div_ceil(2)),
            bytes_max: several.then_some(limits.body_memory_max / 2),
        }
    }
}

impl Route {
    fn new(source: &Arc<Source>, shares: Shares, before: Option<&Self>, now: Instant) -> Self {
        let rate = source.rate.map(|rate| {
            let known = before.filter(|before| before.source.rate == Some(rate)).and_then(|before| before.rate.clone());
            known.unwrap_or_else(|| Arc::new(Mutex::new(Bucket::new(rate, now))))
        });
        // What is in flight stays counted, unless there may be another number of them.
        let in_flight = source.in_flight_max.or(shares.in_flight_max).map(|max| {
            let known = before.and_then(|before| before.in_flight.clone()).filter(|(known, _)| *known == max);
            known.unwrap_or_else(|| (max, Arc::new(Semaphore::new(max))))
        });
        let bytes = shares.bytes_max.map(|max| {
            let known = before.and_then(|before| before.bytes.clone()).filter(|known| known.max() == max);
            known.unwrap_or_else(|| Allowance::new(max))
        });
        let is_same_set = |before: &&Self| {
            let (old, new) = (&before.source, source);
            old.remote_keys == new.remote_keys && old.provider.name == new.provider.name
        };
        let remote = before.filter(is_same_set).map(|before| before.remote.clone()).unwrap_or_default();
        let route = Self {
            source: source.clone(),
            rate,
            keys: ArcSwap::from_pointee(source.keyring.clone()),
            remote,
            client_cert: source.client_cert.as_ref().map(Wanted::new),
            in_flight,
            bytes,
        };
        route.take_fetched();
        route
    }
}

impl Snapshot {
    /// The routes of a configuration, with the state of those that were there before.
    pub(super) fn new(
        config: &Config,
        lanes: Arc<LaneSet>,
        removed: Vec<Removed>,
        before: Option<&Self>,
        now: Instant,
    ) -> Self {
        let mut exact = HashMap::new();
        let mut with_token = Vec::new();
        let shares = Shares::of(config);
        for (name, source) in &config.sources {
            let before = before.and_then(|before| before.of_source(name));
            let route = Arc::new(Route::new(source, shares, before.map(Arc::as_ref), now));
            match &source.path.around_token {
                None => {
                    exact.insert(source.path.text.clone(), route);
                }
                Some(_) => with_token.push(route),
            }
        }
        Self {
            exact,
            with_token,
            removed,
            lanes,
            trusted_proxies: config.server.trusted_proxies.clone(),
            unknown_path: config.server.unknown_path,
            health_path: config.server.health_path.clone(),
            body_timeout: config.server.limits.body_timeout,
            body_rate_min: config.server.limits.body_rate_min,
        }
    }

    fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.exact.values().chain(&self.with_token)
    }

    /// Every source.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        self.routes().map(|route| &*route.source)
    }

    /// Those whose keys are fetched.
    pub(super) fn with_remote_keys(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes().filter(|route| route.source.remote_keys.is_some())
    }

    /// The route of a source.
    pub(super) fn of_source(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes().find(|route| &*route.source.name == name)
    }

    /// Whether the path was that of a source until not long ago.
    pub(super) fn was_removed(&self, path: &str, now: Wall) -> bool {
        self.removed.iter().any(|removed| now < removed.until && removed.path.fits(path))
    }

    /// The route of a raw path, and its token. Bytes are compared as they came: nothing is decoded or folded.
    pub(super) fn find<'p>(&self, path: &'p str) -> Option<(Arc<Route>, Option<&'p str>)> {
        if let Some(route) = self.exact.get(path) {
            return Some((route.clone(), None));
        }
        let matched = |route: &Arc<Route>| Some((route.clone(), Some(route.source.path.token(path)?)));
        self.with_token.iter().find_map(matched)
    }
}
