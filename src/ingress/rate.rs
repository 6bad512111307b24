//! The source's own limits, for what is verified only: 429, 503.
//!
//! A copy of what is known costs its source nothing: `once` gives the token back. Else whoever has captured one webhook
//! could use up the rate with it, within its tolerance or, where no time is signed, for ever.

use std::sync::Arc;

use super::{Gate, Rejection, routes::Route, verify::Verified};

pub(super) fn rate(gate: &Gate, mut webhook: Verified) -> Result<Verified, Rejection> {
    // What is let through unverified has places and bytes of its own.
    if !webhook.grounds.is_proven() {
        return Ok(webhook);
    }
    let route = webhook.cx.route.clone();
    if let Some((_, in_flight)) = route.in_flight.clone() {
        let permit = in_flight.try_acquire_owned().map_err(|_| Rejection::TooManyInFlight)?;
        webhook.cx.permits.push(Arc::new(permit));
    }
    if let Some(bytes) = &route.bytes {
        webhook.body = bytes.charge(&webhook.body).ok_or(Rejection::BudgetSpent)?;
    }
    if let Some(bucket) = &route.rate {
        let mut bucket = bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        bucket.take(gate.clock.monotonic()).map_err(Rejection::RateExceeded)?;
    }
    Ok(webhook)
}

/// A token of the rate that a verified webhook took: given back, at most once, if it turns out to be a copy.
pub(super) struct Token(Option<Arc<Route>>);

impl Token {
    pub(super) fn of(webhook: &Verified) -> Self {
        Self(webhook.grounds.is_proven().then(|| webhook.cx.route.clone()))
    }
    pub(super) fn put_back(&mut self) {
        if let Some(bucket) = self.0.take().as_ref().and_then(|route| route.rate.as_ref()) {
            bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner).put_back();
        }
    }
}
