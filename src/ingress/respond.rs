//! The one place where statuses are chosen: from the situation, and from what the provider does on a status.
//! Below it nothing knows a status, above it nothing errors. A panic further in becomes one 500.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tokio::time::timeout;
use tower::{Layer, Service, ServiceExt, layer::layer_fn};

use super::{
    Ack, Gate, Rejection, Response, WireBody,
    observe::{Exchange, Inbound},
};
use crate::{
    config::Source,
    event::Answer,
    preset::{OnMismatch, OnStale, Reply},
};

pub(super) fn respond<S>(gate: &Arc<Gate>) -> impl Layer<S, Service = Respond<S>> + Clone + use<S> {
    let gate = gate.clone();
    layer_fn(move |inner| Respond { gate: gate.clone(), inner })
}

#[derive(Clone)]
pub(super) struct Respond<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<Inbound> for Respond<S>
where
    S: Service<Inbound, Response = Ack, Error = Rejection> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let (exchange, inner) = (inbound.exchange.clone(), self.inner.clone());
        let gate = self.gate.clone();
        let unknown_path = exchange.snapshot.unknown_path;
        Box::pin(async move {
            // `oneshot` inside the future: the steps run in `call`, where a panic would pass us by.
            let work = async move { inner.oneshot(inbound).await };
            let outcome = tokio::select! {
                outcome = AssertUnwindSafe(work).catch_unwind() => outcome.unwrap_or(Err(Rejection::Panicked)),
                () = gate.cut.cancelled() => Err(Rejection::Draining),
            };
            let source = exchange.source.get().map(Arc::as_ref);
            let (code, event, mut response) = match &outcome {
                Ok(ack) => (ack.code(), ack.event(), acknowledge(ack, source)),
                Err(why) => (why.code(), None, refuse(why, source, unknown_path)),
            };
            discard_rest(&exchange, &mut response);
            gate.streaks.answered(&gate, &exchange, outcome.as_ref().err(), response.status());
            let _ = exchange.ended.set((code, response.status().as_u16(), event));
            Ok(response)
        })
    }
}

fn acknowledge(ack: &Ack, source: Option<&Source>) -> Response {
    let (word, id) = match ack {
        Ack::Accepted(id) | Ack::Unrouted(id) | Ack::Conflict(id) => ("accepted", id),
        Ack::Duplicate(id) => ("duplicate", id),
        Ack::Answered { answer, .. } => return relay(answer),
        Ack::Challenge(reply) => return answer_handshake(reply),
    };
    let status = source.map_or(200, |source| source.ack_status);
    if let Some(body) = source.and_then(|source| source.provider.sender.ack_body.clone()) {
        return response(status, "text/plain; charset=utf-8", body.into());
    }
    response(status, "application/json", format!("{{\"status\":\"{word}\",\"id\":\"{id}\"}}").into())
}

fn answer_handshake(reply: &Reply) -> Response {
    let mut response = response(reply.status, "", reply.body.clone().into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, reply.content_type.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.extend(reply.headers.iter().cloned());
    response
}

fn relay(answer: &Answer) -> Response {
    let content_type = answer.content_type.as_deref().unwrap_or("application/octet-stream");
    response(answer.status, content_type, answer.body.clone())
}

fn refuse(why: &Rejection, source: Option<&Source>, unknown_path: u16) -> Response {
    if let Rejection::UpstreamAnswered(answer) = why {
        return relay(answer);
    }
    let status = status(why, source, unknown_path);
    // One body for every failure of authenticity, and nothing in it that differs between requests.
    let (title, detail) = match status {
        400 => ("Bad Request", "the request is malformed"),
        401 => ("Unauthorized", "the webhook could not be authenticated"),
        403 => ("Forbidden", "this address may not send here"),
        404 => ("Not Found", "no source has this path"),
        405 => ("Method Not Allowed", "this source takes other methods"),
        408 => ("Request Timeout", "the body did not arrive in time"),
        413 => ("Content Too Large", "the body is over the limit of this source"),
        429 => ("Too Many Requests", "over the rate of this source"),
        502 => ("Bad Gateway", "the upstream did not take it"),
        504 => ("Gateway Timeout", "the upstream did not answer in time"),
        503 => ("Service Unavailable", "not accepted now: send it again"),
        _ => ("Internal Server Error", "a bug: the log of the gateway has the panic"),
    };
    let body =
        format!("{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"detail\":\"{detail}\"}}");
    let mut response = response(status, "application/problem+json", body.into());
    let headers = response.headers_mut();
    if status == 405 {
        let methods = source.map(|source| source.provider.methods()).unwrap_or_default();
        let methods = methods.into_iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        headers.extend(HeaderValue::try_from(methods).ok().map(|methods| (header::ALLOW, methods)));
    }
    if let Some(seconds) = retry_after_s(why, status) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The status of a rejection, exhaustively.
fn status(why: &Rejection, source: Option<&Source>, unknown_path: u16) -> u16 {
    let status = match why {
        Rejection::UnknownPath => return unknown_path,
        Rejection::WrongMethod => return 405,
        // Like what has no signature: a stranger learns nothing of what would have been right.
        Rejection::HandshakeRefused | Rejection::SignedByHandshake | Rejection::ClientCertificate => return 401,
        Rejection::Unauthentic(refusal) => {
            let retry = refusal.is_mismatch() && source.is_some_and(|s| s.on_mismatch == OnMismatch::Retry);
            return if retry { 503 } else { 401 };
        }
        Rejection::Stale => {
            return if source.is_some_and(|s| s.on_stale == OnStale::Retry) { 503 } else { 401 };
        }
        Rejection::TooLarge => return 413,
        Rejection::Malformed => 400,
        Rejection::AddressNotAllowed => 403,
        Rejection::TooSlow | Rejection::CrowdedOut | Rejection::Cut => 408,
        Rejection::RateExceeded(_) => 429,
        Rejection::UpstreamFailed | Rejection::UpstreamUnreachable | Rejection::UpstreamCut => 502,
        Rejection::UpstreamTimedOut => 504,
        Rejection::UpstreamAnswered(answer) => return answer.status,
        Rejection::StaleByOurClock
        | Rejection::RemovedPath
        | Rejection::SignedBeforeRestore
        | Rejection::AwaitsSecret
        | Rejection::SecretNotKept
        | Rejection::KeysUnavailable
        | Rejection::TooManyInFlight
        | Rejection::BudgetSpent
        | Rejection::StoreFull
        | Rejection::StoreUnavailable
        | Rejection::Late
        | Rejection::Draining => 503,
        Rejection::Panicked => 500,
    };
    // What would make the provider drop the event, although a retry could succeed, becomes 503.
    let is_lost = status != 400 && source.is_some_and(|source| source.provider.sender.gives_up_after(status));
    if is_lost { 503 } else { status }
}

/// Seconds after which a retry makes sense, for statuses that invite one.
fn retry_after_s(why: &Rejection, status: u16) -> Option<u64> {
    matches!(status, 429 | 503).then(|| match why {
        Rejection::RateExceeded(wait) => wait.as_secs().saturating_add(1).min(3600),
        Rejection::StoreFull | Rejection::StaleByOurClock => 30,
        Rejection::StoreUnavailable
        | Rejection::Draining
        | Rejection::Late
        | Rejection::SignedBeforeRestore
        | Rejection::KeysUnavailable => 5,
        Rejection::Unauthentic(_)
        | Rejection::Stale
        | Rejection::AwaitsSecret
        | Rejection::SecretNotKept
        | Rejection::RemovedPath => 60,
        _ => 1,
    })
}

fn response(status: u16, content_type: &str, body: Bytes) -> Response {
    let mut response = http::Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

/// How much of an unread body is read and thrown away, so that the connection can be kept. In bytes.
const DISCARD_BYTES_MAX: u64 = 64 << 10;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(1);

/// Reads what is left of a small body beside the answer: hyper goes on reading as long as somebody holds the body.
/// With a large one, or one of unknown length, the connection ends after the answer, and the listener lingers so
/// that a proxy in front sees the answer and not a reset.
///
/// A client that waits for `100 Continue` may send the body after a refusal or may leave it out, so what it sends
/// next could be either: its connection ends, too, and reading on would even ask for the body.
pub(super) fn discard_rest(exchange: &Exchange, response: &mut Response) {
    let Some(mut body) = exchange.body.lock().ok().and_then(|mut slot| slot.take()) else {
        return;
    };
    if http_body::Body::is_end_stream(&body) {
        return;
    }
    let left = http_body::Body::size_hint(&body).upper();
    if exchange.waits_for_continue || left.is_none_or(|bytes| bytes > DISCARD_BYTES_MAX) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return;
    }
    // No longer than is left: it ends with the body, the time, or the client.
    tokio::spawn(timeout(DISCARD_TIME_MAX, async move { while next_data(&mut body).await.is_some() {} }));
}

async fn next_data(body: &mut WireBody) -> Option<Bytes> {
    body.frame().await?.ok().map(|frame| frame.into_data().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::{config, verify::Refusal};

    /// A source of the provider, with more keys.
    fn source(provider: &str, keys: &str) -> Arc<Source> {
        let secrets = "secrets = [{ value = \"a-secret-of-some-length\" }]";
        let secrets = if keys.contains("secrets") { "" } else { secrets };
        let text =
            format!("[sources.a]\nprovider = \"{provider}\"\n{secrets}\nupstream = \"http://127.0.0.1:9/\"\n{keys}\n");
        let loaded = config::from_text("a.toml", &text, Path::new("."));
        let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.problems.render(false)));
        config.sources.values().next().expect("one").clone()
    }

    #[test]
    fn a_status_that_the_provider_drops_on_becomes_503_and_says_when_to_come_back() {
        let (github, partssource) = (source("github", ""), source("partssource", ""));
        let answer = |why, source: &Source| refuse(&why, Some(source), 404);
        assert_eq!(answer(Rejection::AddressNotAllowed, &github).status(), 403);
        let refused = answer(Rejection::AddressNotAllowed, &partssource);
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key(header::RETRY_AFTER));
        // An unauthentic webhook is nobody's event: there is nothing to save.
        assert_eq!(answer(Refusal::SignatureMissing.into(), &partssource).status(), 401);
    }

    #[test]
    fn a_status_after_which_the_provider_does_not_try_again_becomes_503() {
        // Of Zendesk it is known what it retries, of GitHub that it never does.
        let (zendesk, github) = (source("zendesk", ""), source("github", ""));
        for lost in [Rejection::TooSlow, Rejection::UpstreamFailed, Rejection::UpstreamTimedOut, Rejection::Panicked] {
            assert_eq!(status(&lost, Some(&zendesk), 404), 503, "{lost:?}");
            assert_ne!(status(&lost, Some(&github), 404), 503, "{lost:?}");
        }
        assert_eq!(status(&Rejection::RateExceeded(Duration::ZERO), Some(&zendesk), 404), 429);
        assert_eq!(status(&Refusal::SignatureMissing.into(), Some(&zendesk), 404), 401);
    }

    #[test]
    fn a_provider_that_insists_on_a_body_gets_it() {
        let body = |provider: &str, keys: &str| {
            let id = crate::event::EventId::new(crate::time::Wall::from_unix_s(0));
            let source = source(provider, keys);
            let whole = |ack: Ack| acknowledge(&ack, Some(&source)).into_body().collect().now_or_never();
            let bodies = [Ack::Accepted(id), Ack::Duplicate(id), Ack::Conflict(id)].map(whole);
            bodies.map(|body| body.expect("ready").expect("whole").to_bytes())
        };
        let adyen = "secrets = [{ value = \"0123456789abcdef0123456789abcdef\" }]";
        for got in body("adyen-platform", adyen) {
            assert_eq!(got, "[accepted]");
        }
        for got in body("xero", "") {
            assert_eq!(got, "");
        }
        assert!(body("github", "").iter().all(|body| body.starts_with(b"{\"status\":")));
    }

    #[test]
    fn a_mismatch_and_a_stale_time_may_be_retried_but_never_a_missing_signature() {
        let source = source("partssource", "on_mismatch = \"retry\"\non_stale = \"retry\"");
        let of = |why: Rejection| status(&why, Some(&source), 404);
        assert_eq!(of(Refusal::SignatureMismatch.into()), 503);
        assert_eq!(of(Refusal::NoLiveSecret.into()), 503);
        assert_eq!(of(Rejection::Stale), 503);
        assert_eq!(of(Refusal::SignatureMissing.into()), 401);
        assert_eq!(of(Refusal::SignatureMalformed.into()), 401);
    }

    #[test]
    fn refusals_are_problem_documents_whose_status_agrees() {
        let rate = Rejection::RateExceeded(Duration::from_millis(1500));
        for why in [Rejection::UnknownPath, Rejection::WrongMethod, Rejection::TooLarge, rate, Rejection::Late] {
            let response = refuse(&why, None, 404);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            let body = response.body().clone();
            let bytes =
                futures_util::FutureExt::now_or_never(body.collect()).expect("ready").expect("whole").to_bytes();
            let json: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            assert_eq!(json["status"], response.status().as_u16());
        }
        let github = source("github", "");
        assert_eq!(refuse(&Rejection::WrongMethod, Some(&github), 404).headers()[header::ALLOW], "POST");
        let limited = refuse(&Rejection::RateExceeded(Duration::from_millis(1500)), None, 404);
        assert_eq!(limited.headers()[header::RETRY_AFTER], "2");
        assert_eq!(refuse(&Rejection::UnknownPath, None, 503).status(), 503);
    }
}
