//! Outermost: the request id, the metric and the log line, written whatever ends the request.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Request, header};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, layer::layer_fn};

use super::{Gate, Response, Snapshot, WireBody};
use crate::{
    config::Source,
    event::{EventId, Name},
    http::{connected::Connected, forwarded},
    telemetry::Metrics,
    time::Wall,
};

/// A request as it came, with what its steps share.
pub(super) struct Inbound {
    pub(super) head: http::request::Parts,
    pub(super) exchange: Arc<Exchange>,
}

/// What is known of one request while it lasts, for those who answer and log it.
pub(super) struct Exchange {
    /// The configuration of this request, from its first step to its last.
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) request_id: String,
    /// The client, whose shares the request takes: the peer, or for whom it speaks.
    pub(super) peer: Option<IpAddr>,
    pub(super) came: Instant,
    pub(super) came_at: Wall,
    /// Set by `select`.
    pub(super) source: OnceLock<Arc<Source>>,
    /// Set by `respond`: the code, the status, and the event it is about.
    pub(super) ended: OnceLock<(&'static str, u16, Option<EventId>)>,
    /// Set by `verify`, if it did.
    pub(super) proven: OnceLock<()>,
    /// Set by `challenge`: which handshake of the provider was answered.
    pub(super) handshake: OnceLock<usize>,
    /// `Expect: 100-continue`: the body comes only if somebody reads it, or does not come at all.
    pub(super) waits_for_continue: bool,
    /// The body, until `read` takes it. What is left when the answer is known is drained by `respond`.
    pub(super) body: Mutex<Option<WireBody>>,
}

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) fn observe<S>(gate: &Arc<Gate>) -> impl Layer<S, Service = Observe<S>> + Clone + use<S> {
    let gate = gate.clone();
    layer_fn(move |inner| Observe { gate: gate.clone(), inner })
}

#[derive(Clone)]
pub(super) struct Observe<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<Request<WireBody>> for Observe<S>
where
    S: Service<Inbound, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<WireBody>) -> Self::Future {
        let (head, body) = request.into_parts();
        let came_at = self.gate.clock.wall();
        // The listener puts it there; a request without it came from nowhere.
        let connected = head.extensions.get::<Arc<Connected>>().cloned().unwrap_or_default();
        let snapshot = self.gate.snapshot.load_full();
        let peer = forwarded::client(&connected, &head.headers, &snapshot.trusted_proxies);
        let exchange = Arc::new(Exchange {
            snapshot,
            request_id: EventId::new(came_at).to_string(),
            peer,
            came: self.gate.clock.monotonic(),
            came_at,
            source: OnceLock::new(),
            ended: OnceLock::new(),
            proven: OnceLock::new(),
            handshake: OnceLock::new(),
            waits_for_continue: head.headers.contains_key(header::EXPECT),
            body: Mutex::new(Some(body)),
        });
        let line = Line { exchange: exchange.clone(), metrics: self.gate.metrics.clone() };
        let inner = self.inner.clone();
        Box::pin(async move {
            let Ok(mut response) = inner.oneshot(Inbound { head, exchange: exchange.clone() }).await;
            if let Ok(id) = HeaderValue::from_str(&exchange.request_id) {
                response.headers_mut().insert(REQUEST_ID, id);
            }
            // What an upstream answered, or a provider sent to be echoed, is no page.
            response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            drop(line);
            Ok(response)
        })
    }
}

/// Writes the metric and the log line when dropped: after the answer, or when the client left before it.
struct Line {
    exchange: Arc<Exchange>,
    metrics: Arc<Metrics>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let exchange = &self.exchange;
        let (code, status, event) = exchange.ended.get().copied().unwrap_or(("client_left", 0, None));
        if code == "health" {
            return;
        }
        let took = exchange.came.elapsed();
        let source = exchange.source.get();
        let name: Name = source.map_or_else(|| "-".into(), |source| source.name.clone());
        self.metrics.webhook(&name, code, took);
        let event = event.map(|id| id.to_string());
        let handshake = exchange.handshake.get();
        let path = source.map(|source| source.path.text.as_str());
        let peer = exchange.peer.map(|ip| ip.to_string());
        #[expect(clippy::cast_precision_loss, reason = "a request lasts less than 2^53 microseconds")]
        let took_ms = took.as_micros() as f64 / 1000.0;
        tracing::info!(
            target: "hookward::webhook",
            request_id = exchange.request_id, source = &*name, code, status, event = event.as_deref(), handshake, path,
            peer = peer.as_deref(), took_ms, "webhook"
        );
    }
}
