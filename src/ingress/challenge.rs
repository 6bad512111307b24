//! Registration handshakes of the provider. Signed ones come here, after `verify`: only a request that the
//! provider signed is answered with a token out of it, and nothing of it is stored.

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use futures_util::future::Either;
use tower::{Layer, Service, layer::layer_fn};

use super::{Ack, Rejection, verify::Verified};

pub(super) fn challenge<S>() -> impl Layer<S, Service = Challenge<S>> + Clone + use<S> {
    layer_fn(|inner| Challenge { inner })
}

#[derive(Clone)]
pub(super) struct Challenge<S> {
    inner: S,
}

impl<S> Service<Verified> for Challenge<S>
where
    S: Service<Verified, Response = Ack, Error = Rejection>,
{
    type Response = Ack;
    type Error = Rejection;
    type Future = Either<S::Future, Ready<Result<Ack, Rejection>>>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx)
    }
    fn call(&mut self, webhook: Verified) -> Self::Future {
        let handshakes = &webhook.cx.route.source.provider.handshakes;
        match handshakes.iter().find_map(|handshake| handshake.answer(&webhook.body)) {
            Some(token) => Either::Right(ready(Ok(Ack::Challenge(token)))),
            None => Either::Left(self.inner.call(webhook)),
        }
    }
}
