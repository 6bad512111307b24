//! The source's own limits, for what is verified only: 429, 503.

use std::sync::Arc;

use super::{Gate, Rejection, verify::Verified};

pub(super) fn rate(gate: &Gate, mut webhook: Verified) -> Result<Verified, Rejection> {
    let route = &webhook.cx.route;
    if let Some(bucket) = &route.rate {
        let mut bucket = bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        bucket.take(gate.clock.monotonic()).map_err(Rejection::RateExceeded)?;
    }
    if let Some(in_flight) = route.in_flight.clone() {
        let permit = in_flight.try_acquire_owned().map_err(|_| Rejection::TooManyInFlight)?;
        webhook.cx.permits.push(Arc::new(permit));
    }
    Ok(webhook)
}
