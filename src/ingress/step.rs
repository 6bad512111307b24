//! A proof as a layer: `In -> Out`, or a rejection without calling further in.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use tower::{Layer, Service};

use super::{Ack, Gate, Rejection};

/// Makes a layer of a function. It runs in `call`, so whatever calls the outermost step does so inside the
/// future that catches panics (`respond` does).
pub(super) fn step<In, Out>(gate: &Arc<Gate>, prove: fn(&Gate, In) -> Result<Out, Rejection>) -> StepLayer<In, Out> {
    StepLayer { gate: gate.clone(), prove }
}

pub(super) struct StepLayer<In, Out> {
    gate: Arc<Gate>,
    prove: fn(&Gate, In) -> Result<Out, Rejection>,
}

pub(super) struct Step<In, Out, S> {
    gate: Arc<Gate>,
    prove: fn(&Gate, In) -> Result<Out, Rejection>,
    inner: S,
}

impl<In, Out, S: Clone> Clone for Step<In, Out, S> {
    fn clone(&self) -> Self {
        Self { gate: self.gate.clone(), prove: self.prove, inner: self.inner.clone() }
    }
}

impl<In, Out, S> Layer<S> for StepLayer<In, Out> {
    type Service = Step<In, Out, S>;
    fn layer(&self, inner: S) -> Self::Service {
        Step { gate: self.gate.clone(), prove: self.prove, inner }
    }
}

impl<In, Out, S> Service<In> for Step<In, Out, S>
where
    S: Service<Out, Response = Ack, Error = Rejection>,
{
    type Response = Ack;
    type Error = Rejection;
    type Future = Either<S::Future, Ready<Result<Ack, Rejection>>>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx)
    }
    fn call(&mut self, value: In) -> Self::Future {
        match (self.prove)(&self.gate, value) {
            Ok(proven) => Either::Left(self.inner.call(proven)),
            Err(why) => Either::Right(ready(Err(why))),
        }
    }
}
