//! Registration handshakes of the provider. Nothing of them is stored but a secret that the provider hands over, and
//! that only for the operator to look at.
//!
//! What the provider signs comes to [`verified`], behind `verify`. What it does not sign comes to [`unsigned`], before
//! anything is proven: it is told by method and head, or by a small body that shows no proof whatever. What only looks
//! like a handshake goes on, and ends as any other request would.

use std::{
    future::{Ready, ready},
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{BoxFuture, Either};
use http::request::Parts;
use tower::{Layer, Service, ServiceExt, layer::layer_fn};

use super::{
    Ack, Gate, Rejection,
    admit::Admitted,
    claim,
    observe::Exchange,
    pending::{NotKept, is_configured},
    read,
    select::Cx,
    verify::Verified,
    waive::Waiver,
};
use crate::{
    config::Source,
    preset::{Asked, Handshake, Known, Met},
    secret::Secret,
    time::Wall,
};

/// A body that may be a handshake although nothing proves it.
const BODY_BYTES_MAX: usize = 8 << 10;

pub(super) fn unsigned<S>(gate: &Arc<Gate>) -> impl Layer<S, Service = Unsigned<S>> + Clone + use<S> {
    let gate = gate.clone();
    layer_fn(move |inner| Unsigned { gate: gate.clone(), inner })
}

#[derive(Clone)]
pub(super) struct Unsigned<S> {
    gate: Arc<Gate>,
    inner: S,
}

type Answering = Either<Ready<Result<Ack, Rejection>>, BoxFuture<'static, Result<Ack, Rejection>>>;

impl<S> Service<Admitted> for Unsigned<S>
where
    S: Service<Admitted, Response = Ack, Error = Rejection> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Ack;
    type Error = Rejection;
    type Future = Either<S::Future, Answering>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx)
    }
    fn call(&mut self, admitted: Admitted) -> Self::Future {
        let source = &admitted.cx.route.source;
        let provider = &source.provider;
        if provider.handshakes.iter().all(|handshake| handshake.signed) {
            return Either::Left(self.inner.call(admitted));
        }
        let (head, now) = (&admitted.head, admitted.cx.exchange.came_at);
        let in_head = |handshake: &Handshake| !handshake.signed && handshake.is_in_head();
        if let Some((index, met)) = find(source, head, &[], now, in_head) {
            return Either::Right(answer(&self.gate, admitted.cx, index, met));
        }
        let asked = asked(head, &[]);
        let may_be = |handshake: &Handshake| !handshake.signed && !handshake.is_in_head() && handshake.head_fits(asked);
        let says_so = provider.handshakes.iter().any(|handshake| may_be(handshake) && handshake.is_named_in_head());
        let may_be = provider.handshakes.iter().any(may_be);
        let refusal = if provider.webhook_methods().contains(&admitted.head.method) {
            // One that shows a proof is judged by it.
            may_be.then(|| claim::nothing_shown(&admitted, says_so)).flatten()
        } else if may_be {
            Some(Rejection::HandshakeRefused)
        } else {
            return Either::Right(Either::Left(ready(Err(Rejection::HandshakeRefused))));
        };
        match refusal {
            Some(refusal) if Waiver::of(&admitted.cx, &refusal).is_some() => {
                let (gate, inner) = (self.gate.clone(), self.inner.clone());
                Either::Right(Either::Right(Box::pin(read_and_go_on(gate, admitted, inner))))
            }
            Some(refusal) => {
                let gate = self.gate.clone();
                Either::Right(Either::Right(Box::pin(read_and_answer(gate, admitted, refusal))))
            }
            None => Either::Left(self.inner.call(admitted)),
        }
    }
}

/// Reads a small body. What is no handshake is refused as if nobody had looked.
async fn read_and_answer(gate: Arc<Gate>, admitted: Admitted, refusal: Rejection) -> Result<Ack, Rejection> {
    let Admitted { mut cx, head, .. } = admitted;
    let max = usize::try_from(cx.route.source.body_bytes_max).unwrap_or(usize::MAX).min(BODY_BYTES_MAX);
    let body = match read::collect(&gate, &mut cx, &head, max).await {
        Err(Rejection::TooLarge) => return Err(refusal),
        body => body?,
    };
    let source = &cx.route.source;
    match find(source, &head, &body, cx.exchange.came_at, |handshake| !handshake.signed) {
        Some((index, met)) => answer(&gate, cx, index, met).await,
        None => Err(refusal),
    }
}

/// As [`read_and_answer`], for a source that lets through what is no handshake and does not verify: the steps behind this
/// one see it as it came.
async fn read_and_go_on<S>(gate: Arc<Gate>, admitted: Admitted, inner: S) -> Result<Ack, Rejection>
where
    S: Service<Admitted, Response = Ack, Error = Rejection>,
{
    let Admitted { mut cx, head, token } = admitted;
    let max = usize::try_from(cx.route.source.body_bytes_max).unwrap_or(usize::MAX);
    let body = read::collect(&gate, &mut cx, &head, max).await?;
    let is_small = body.len() <= BODY_BYTES_MAX;
    let unsigned = |handshake: &Handshake| is_small && !handshake.signed;
    if let Some((index, met)) = find(&cx.route.source, &head, &body, cx.exchange.came_at, unsigned) {
        return answer(&gate, cx, index, met).await;
    }
    read::put_back(&cx, body);
    inner.oneshot(Admitted { cx, head, token }).await
}

pub(super) fn verified<S>(gate: &Arc<Gate>) -> impl Layer<S, Service = OfVerified<S>> + Clone + use<S> {
    let gate = gate.clone();
    layer_fn(move |inner| OfVerified { gate: gate.clone(), inner })
}

#[derive(Clone)]
pub(super) struct OfVerified<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<Verified> for OfVerified<S>
where
    S: Service<Verified, Response = Ack, Error = Rejection>,
{
    type Response = Ack;
    type Error = Rejection;
    type Future = Either<S::Future, Answering>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx)
    }
    fn call(&mut self, webhook: Verified) -> Self::Future {
        let (source, exchange) = (&webhook.cx.route.source, &webhook.cx.exchange);
        if !webhook.grounds.is_proven() {
            return Either::Left(self.inner.call(webhook));
        }
        // Those that need no proof as well: a provider may show one all the same.
        match find(source, &webhook.head, &webhook.body, exchange.came_at, |_| true) {
            Some((index, met)) => Either::Right(answer(&self.gate, webhook.cx, index, met)),
            None => Either::Left(self.inner.call(webhook)),
        }
    }
}

fn asked<'a>(head: &'a Parts, body: &'a [u8]) -> Asked<'a> {
    Asked { method: &head.method, headers: &head.headers, query: head.uri.query(), body }
}

/// The first of the provider's handshakes, of those wanted, that the request is.
fn find(
    source: &Source,
    head: &Parts,
    body: &[u8],
    now: Wall,
    wanted: impl Fn(&Handshake) -> bool,
) -> Option<(usize, Met)> {
    let handshakes = source.provider.handshakes.iter().enumerate();
    let mut handshakes = handshakes.filter(|(_, handshake)| wanted(handshake)).peekable();
    handshakes.peek()?;
    let needs_url = source.provider.handshakes.iter().any(Handshake::needs_url);
    let url = source.public_url.as_ref().filter(|_| needs_url).map(|url| url.of(head.uri.path(), None));
    let known = Known {
        params: &|name| source.params.get(name).map(String::as_str),
        url: url.as_deref(),
        key: source.keyring.keys().iter().find(|key| key.is_live(now)).map(|key| &key.key),
    };
    handshakes.find_map(|(index, handshake)| Some((index, handshake.meet(asked(head, body), known)?)))
}

fn answer(gate: &Arc<Gate>, cx: Cx, index: usize, met: Met) -> Answering {
    let Met { reply, captured } = met;
    let ack = Ack::Challenge(Arc::new(reply));
    let source = &cx.route.source;
    let Some(secret) = captured.filter(|secret| !is_configured(source, secret)) else {
        answered(gate, source, &cx.exchange, index);
        return Either::Left(ready(Ok(ack)));
    };
    let gate = gate.clone();
    Either::Right(Box::pin(async move {
        // All of it, permits too: it takes the disk, so it keeps its place among the requests in flight.
        let cx = cx;
        let source = &cx.route.source;
        keep(&gate, source, secret, cx.exchange.peer).await?;
        answered(&gate, source, &cx.exchange, index);
        Ok(ack)
    }))
}

fn answered(gate: &Gate, source: &Source, exchange: &Exchange, index: usize) {
    gate.metrics.handshake(&source.name, index);
    let _ = exchange.handshake.set(index);
}

/// Keeps a secret for the operator. Answered only if it was: the provider would take it as known otherwise.
async fn keep(gate: &Arc<Gate>, source: &Arc<Source>, secret: Secret, from: Option<IpAddr>) -> Result<(), Rejection> {
    let (pending, to, at) = (gate.pending.clone(), source.clone(), gate.clock.wall());
    let kept = tokio::task::spawn_blocking(move || pending.keep(&to, &secret, from, at)).await;
    let why = match kept.unwrap_or(Err(NotKept::Panicked)) {
        Ok(()) => return Ok(()),
        Err(why) => why,
    };
    gate.full_said.not_kept(&source.name, &why.to_string(), gate.clock.monotonic());
    Err(Rejection::SecretNotKept)
}
