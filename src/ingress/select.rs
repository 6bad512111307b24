//! Raw path to source, and the deadline: 404, 405; 503 where the source is gone since less than two days.

use std::sync::Arc;

use http::request::Parts;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    Gate, Rejection,
    crowd::Seat,
    observe::{Exchange, Inbound},
    routes::Route,
};
use crate::{http::per_client::Taken, secret::Secret};

/// What a request carries from here on. Whoever holds it holds its permits.
pub(super) struct Cx {
    pub(super) exchange: Arc<Exchange>,
    pub(super) route: Arc<Route>,
    /// By when the answer must be on its way.
    pub(super) deadline: Instant,
    /// Shares of `in_flight_max`, of the server and of the source.
    pub(super) permits: Vec<Arc<OwnedSemaphorePermit>>,
    /// What it has of everything unproven; `verify` gives it back if it verifies.
    pub(super) unproven: Option<Unproven>,
}

/// The shares in what is not verified yet: of its client address, and in all.
pub(super) struct Unproven {
    /// One request.
    pub(super) _place: Taken,
    /// Bytes of its body.
    pub(super) bytes: Taken,
    /// Its place among all of them, until it has arrived.
    pub(super) seat: Option<Seat>,
}

/// A webhook whose source is known.
pub(super) struct Selected {
    pub(super) cx: Cx,
    pub(super) head: Parts,
    /// The secret segment of the path.
    pub(super) token: Option<Secret>,
}

pub(super) fn select(_: &Gate, inbound: Inbound) -> Result<Selected, Rejection> {
    let Inbound { head, exchange } = inbound;
    let path = head.uri.path();
    let (route, token) = exchange.snapshot.find(path).ok_or_else(|| {
        let was_there = exchange.snapshot.was_removed(path, exchange.came_at);
        if was_there { Rejection::RemovedPath } else { Rejection::UnknownPath }
    })?;
    let token = token.map(Secret::new);
    let _ = exchange.source.set(route.source.clone());
    if !route.source.provider.methods().contains(&&head.method) {
        return Err(Rejection::WrongMethod);
    }
    let deadline = exchange.came + route.source.answer_within;
    Ok(Selected { cx: Cx { exchange, route, deadline, permits: Vec::new(), unproven: None }, head, token })
}
