//! Health probes on the public listener: answered before anything is admitted, counted or logged.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use tower::{Layer, Service, layer::layer_fn};

use super::{Gate, Response, observe::Inbound, respond::discard_rest};
use crate::telemetry::health::{Probe, health_response};

pub(super) fn health<S>(gate: &Arc<Gate>) -> impl Layer<S, Service = HealthProbes<S>> + Clone + use<S> {
    let gate = gate.clone();
    layer_fn(move |inner| HealthProbes { gate: gate.clone(), inner })
}

#[derive(Clone)]
pub(super) struct HealthProbes<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<Inbound> for HealthProbes<S>
where
    S: Service<Inbound, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response, Infallible>>>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }
    fn call(&mut self, inbound: Inbound) -> Self::Future {
        match self.probe(&inbound) {
            Some(mut response) => {
                discard_rest(&inbound.exchange, &mut response);
                let _ = inbound.exchange.ended.set(("health", response.status().as_u16(), None));
                Either::Right(ready(Ok(response)))
            }
            None => Either::Left(self.inner.call(inbound)),
        }
    }
}

impl<S> HealthProbes<S> {
    fn probe(&self, inbound: &Inbound) -> Option<Response> {
        let Inbound { head, exchange } = inbound;
        let probe = Probe::at(head.uri.path(), exchange.snapshot.health_path.as_deref())?;
        health_response(&head.method, probe, &self.gate.health, self.gate.clock.monotonic())
    }
}
