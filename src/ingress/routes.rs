//! What a reload swaps: paths and the sources behind them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::{sync::Semaphore, time::Instant};

use super::{budget::Allowance, remote_keys::Remote};
use crate::{
    config::{Config, Source},
    policy::rate::Bucket,
    verify::Keyring,
};

/// One configuration, as the steps see it.
#[derive(Debug)]
pub struct Snapshot {
    exact: HashMap<String, Arc<Route>>,
    /// Those whose path has a `{token}` segment. No two match one path: the configuration says so.
    with_token: Vec<Arc<Route>>,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) unknown_path: u16,
    pub(super) health_path: Option<String>,
    pub(super) body_timeout: std::time::Duration,
    pub(super) body_rate_min: u64,
}

/// A source with its state at run time.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) source: Arc<Source>,
    /// Verified webhooks per second.
    pub(super) rate: Option<Mutex<Bucket>>,
    /// Verified requests and their flights.
    pub(super) in_flight: Option<Arc<Semaphore>>,
    /// Bytes of their bodies.
    pub(super) bytes: Option<Arc<Allowance>>,
    /// The secrets that count now.
    pub(super) keys: ArcSwap<Keyring>,
    pub(super) remote: Remote,
}

impl Snapshot {
    /// The routes of a configuration.
    pub fn new(config: &Config, now: Instant) -> Self {
        let mut exact = HashMap::new();
        let mut with_token = Vec::new();
        let limits = &config.server.limits;
        // One that has nobody beside it may have all.
        let shares = config.sources.len() > 1;
        for source in config.sources.values() {
            let route = Arc::new(Route {
                source: source.clone(),
                rate: source.rate.map(|rate| Mutex::new(Bucket::new(rate, now))),
                keys: ArcSwap::from_pointee(source.keyring.clone()),
                remote: Remote::default(),
                in_flight: source
                    .in_flight_max
                    .or_else(|| shares.then(|| limits.in_flight_max.div_ceil(2)))
                    .map(|max| Arc::new(Semaphore::new(max))),
                bytes: shares.then(|| Allowance::new(limits.body_memory_max / 2)),
            });
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
            trusted_proxies: config.server.trusted_proxies.clone(),
            unknown_path: config.server.unknown_path,
            health_path: config.server.health_path.clone(),
            body_timeout: config.server.limits.body_timeout,
            body_rate_min: config.server.limits.body_rate_min,
        }
    }

    /// Every source.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        self.exact.values().chain(&self.with_token).map(|route| &*route.source)
    }

    /// Those whose keys are fetched.
    pub(super) fn with_remote_keys(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.exact.values().chain(&self.with_token).filter(|route| route.source.remote_keys.is_some())
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
