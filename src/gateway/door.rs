//! The front door while it runs: what a reload changes of connections and certificates.

use std::sync::Arc;

use super::{
    reload::{Reloadable, Swap},
    sources_judge,
};
use crate::{
    config::Config,
    http::{
        listener::{ConnectionLimits, Connections},
        tls::Front,
    },
};

/// The listeners, whose sockets stay.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) connections: Arc<Connections>,
    pub(super) front: Option<Arc<Front>>,
}

impl Reloadable for Door {
    fn prepare(&self, config: &Config) -> Result<Swap, String> {
        let (connections, limits) = (self.connections.clone(), limits(config));
        let serve = match self.front.as_ref().zip(config.server.tls()) {
            Some((front, tls)) => Some(front.prepare(tls, sources_judge(config)).map_err(|error| error.to_string())?),
            None => None,
        };
        Ok(Box::new(move || {
            connections.change(limits);
            if let Some(serve) = serve {
                serve();
            }
        }))
    }
}

/// What all listeners together allow.
pub(super) fn limits(config: &Config) -> ConnectionLimits {
    let limits = &config.server.limits;
    ConnectionLimits {
        connections_max: limits.connections_max,
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        age_max: limits.connection_age_max,
        requests_max: limits.connection_requests_max,
        trusted_proxies: config.server.trusted_proxies.clone(),
        health_path: config.server.health_path.clone(),
    }
}
