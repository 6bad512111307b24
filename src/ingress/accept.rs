//! Innermost: what it means to accept, in each mode. Runs in a flight: nothing here is cancelled.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, header, request::Parts};
use tokio::time::timeout_at;
use tower::Service;

use super::{
    Ack, Gate, Rejection,
    destination::{Destination, destination},
    once::{Boarded, Landing},
    verify::Verified,
};
use crate::{
    config::{Source, model::Mode},
    delivery::{Keep, Marks, Try, Verdict},
    event::{Answer, Begin, Client, Event, EventHead, EventId, Hold, NewEvent},
    http::headers,
    preset::Locator,
    store::{Appended, Known, Leased, StoreError},
    verify::{form_value, json, json::Scalar},
};

pub(super) fn accept(gate: &Arc<Gate>) -> Accept {
    Accept { gate: gate.clone() }
}

#[derive(Clone)]
pub(super) struct Accept {
    gate: Arc<Gate>,
}

impl Service<Boarded> for Accept {
    type Response = Landing;
    type Error = Rejection;
    type Future = BoxFuture<'static, Result<Landing, Rejection>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, boarded: Boarded) -> Self::Future {
        let gate = self.gate.clone();
        Box::pin(async move {
            match boarded.webhook.cx.route.source.mode {
                _ if boarded.webhook.stale => append(&gate, &boarded.webhook, Begin::Held(Hold::Stale)).await,
                Mode::Queue => append(&gate, &boarded.webhook, Begin::Due).await,
                Mode::Respond => respond(&gate, &boarded).await,
                Mode::Proxy => proxy(&gate, &boarded).await,
            }
        })
    }
}

/// Stored durably, and that is all.
async fn append(gate: &Gate, webhook: &Verified, begin: Begin) -> Result<Landing, Rejection> {
    let head = event_head(gate, webhook);
    let destination = destination(gate, webhook, &head);
    store(gate, new_event(webhook, head, destination, begin)).await
}

async fn store(gate: &Gate, event: NewEvent) -> Result<Landing, Rejection> {
    let is_unrouted = event.upstreams.is_empty();
    let landing = landing(appended(gate, event).await?);
    Ok(match landing.ack {
        Ack::Accepted(id) if is_unrouted => Landing { ack: Ack::Unrouted(id), ..landing },
        _ => landing,
    })
}

async fn appended(gate: &Gate, event: NewEvent) -> Result<Appended, StoreError> {
    let source = event.head.source.clone();
    let appended = gate.store.append(event).await;
    if let Err(StoreError::Full(why)) = &appended {
        gate.full_said.refused(&source, why, gate.clock.monotonic());
    }
    appended
}

/// Stored durably, then delivered at once by this flight: the upstream's 2xx if it comes in time.
async fn respond(gate: &Gate, boarded: &Boarded) -> Result<Landing, Rejection> {
    let webhook = &boarded.webhook;
    let source = &webhook.cx.route.source;
    let head = event_head(gate, webhook);
    let destination = destination(gate, webhook, &head);
    let ordered = destination.order_key.is_some();
    let Some(upstream) = destination.upstreams.first().cloned() else {
        return store(gate, new_event(webhook, head, destination, Begin::Due)).await;
    };
    // With the breaker open, every place taken, the rate used up or the upstream paused, the lane delivers it when it
    // can.
    let lanes = &webhook.cx.exchange.snapshot.lanes;
    let Some(slot) = lanes.try_slot(&upstream, head.id) else {
        return store(gate, new_event(webhook, head, destination, Begin::Due)).await;
    };
    let begin = Begin::FirstLeased(lanes.lease_length(&upstream));
    let leased_at = gate.clock.monotonic();
    let appended = appended(gate, new_event(webhook, head.clone(), destination, begin)).await?;
    let Appended::New { id, lease: Some(lease), duplicate_of } = appended else {
        return Ok(landing(appended));
    };
    boarded.flight.durable(id);
    let leased = Leased {
        lease,
        event: Event { head: EventHead { duplicate_of, ..head }, body: webhook.body.clone(), copies: 0 },
        upstream,
        attempt: 1,
        tries: 0,
        redelivery: false,
        uncertain: false,
        ordered,
        cause: "first".to_owned(),
        age: Duration::ZERO,
    };
    let ack = match lanes.deliver_now(leased, leased_at, slot, keep(source)).await {
        Some(answer) => Ack::Answered { id, answer, copy: false },
        None => Ack::Accepted(id),
    };
    Ok(Landing { ack, known: Some(id) })
}

/// The upstream's answer is the answer. Keys are looked up before, and recorded after a 2xx.
async fn proxy(gate: &Gate, boarded: &Boarded) -> Result<Landing, Rejection> {
    let webhook = &boarded.webhook;
    let source = &webhook.cx.route.source;
    // Without keys there is nothing to look up, and nothing to record afterwards.
    let is_proven = webhook.grounds.is_proven();
    let known = if is_proven { gate.store.lookup(webhook.keys).await? } else { Known::No };
    match known {
        // What cannot be recorded after the call would be forwarded again with every retry.
        Known::No => gate.store.health()?,
        Known::Copy { first, answer } => return Ok(copy(first, answer)),
        // The store alone knows what a conflict means for this source.
        Known::Conflict { .. } => return append(gate, webhook, Begin::Due).await,
    }
    let head = event_head(gate, webhook);
    let id = head.id;
    let upstream = &source.upstreams[0];
    let slot = timeout_at(webhook.cx.deadline, webhook.cx.exchange.snapshot.lanes.slot(upstream, id)).await;
    let Ok(Some(mut slot)) = slot else { return Err(Rejection::UpstreamUnreachable) };
    let request = Try {
        head: &head,
        body: &webhook.body,
        number: 1,
        cause: "first",
        standing: None,
        redelivery: false,
        uncertain: boarded.flight.is_uncertain(),
        forward_query: source.forward_query,
        marks: &Marks::default(),
    };
    let answered = match slot.attempt(&request).await.verdict {
        Verdict::Delivered(answered) => {
            let answer = keep(source).answer(&answered);
            let kept = Some((answer.clone(), source.answer_kept));
            let record = || gate.store.record(id, &source.name, webhook.keys, kept, source.proxy_keys_fsync);
            if is_proven && let Err(error) = record().await {
                // The upstream has it: a refusal now would make the provider send it again. Nobody remembers it,
                // so a copy that comes all the same is forwarded again.
                let source = &*source.name;
                tracing::error!(event = %id, source, %error, "failed to record the keys of a proxied webhook");
            }
            return Ok(Landing { ack: Ack::Answered { id, answer, copy: false }, known: Some(id) });
        }
        Verdict::Refused(answered) | Verdict::Failed(answered) => answered,
        Verdict::NotSent(_) => return Err(Rejection::UpstreamUnreachable),
        Verdict::Unknown(trouble) if trouble.timed_out => return Err(Rejection::UpstreamTimedOut),
        Verdict::Unknown(_) => return Err(Rejection::UpstreamCut),
    };
    // A definite failure: the provider sees it, unless it would drop the event for good, and its retry is tried
    // anew.
    let status = answered.status.as_u16();
    let hidden = answered.status.is_redirection() || source.provider.sender.drops.contains(&status);
    if hidden && !source.proxy_status_raw {
        return Err(Rejection::UpstreamFailed);
    }
    let content_type = answered.content_type;
    Err(Rejection::UpstreamAnswered(Arc::new(Answer { status, content_type, body: answered.body })))
}

fn keep(source: &Source) -> Keep {
    Keep { ack_status: source.provider.sender.ack_status, kept: source.answer_kept }
}

fn landing(appended: Appended) -> Landing {
    match appended {
        Appended::New { id, .. } => Landing { ack: Ack::Accepted(id), known: Some(id) },
        Appended::Known { first, answer, .. } => copy(first, answer),
        Appended::Conflict { id: Some(id), .. } => Landing { ack: Ack::Conflict(id), known: Some(id) },
        Appended::Conflict { id: None, first } => Landing { ack: Ack::Duplicate(first), known: None },
    }
}

fn copy(first: EventId, answer: Option<Answer>) -> Landing {
    let ack = match answer {
        Some(answer) => Ack::Answered { id: first, answer, copy: true },
        None => Ack::Duplicate(first),
    };
    Landing { ack, known: Some(first) }
}

fn new_event(webhook: &Verified, head: EventHead, destination: Destination, begin: Begin) -> NewEvent {
    let source = &webhook.cx.route.source;
    NewEvent {
        head,
        body: webhook.body.clone(),
        keys: webhook.keys,
        upstreams: destination.upstreams,
        begin,
        on_conflict: source.on_conflict,
        on_resend: source.on_resend,
        order_key: destination.order_key,
        keep_body: source.store_body,
    }
}

fn event_head(gate: &Gate, webhook: &Verified) -> EventHead {
    let Verified { cx, head, body, grounds, .. } = webhook;
    let source: &Source = &cx.route.source;
    let mut kept = headers::to_stored(&head.headers, |name| source.scheme.consumes(name));
    // A proxy in front may have written the original URL into a header, and with it the token, or the credential of the
    // query. One of a few bytes is in everything, and no secret.
    let token = source.path.token(head.uri.path());
    let in_query = head.uri.query().zip(source.scheme.consumed_query()).map(|(query, name)| consumed(query, name));
    for secret in token.into_iter().chain(in_query.into_iter().flatten()).filter(|secret| secret.len() >= 8) {
        kept.retain(|(_, value)| !value.windows(secret.len()).any(|part| part == secret.as_bytes()));
    }
    EventHead {
        id: EventId::new(gate.clock.wall()),
        source: source.name.clone(),
        provider: source.provider.name.clone(),
        received_at: cx.exchange.came_at,
        method: head.method.to_string(),
        query: head
            .uri
            .query()
            .filter(|_| source.forward_query)
            .map(|query| without(query, source.scheme.consumed_query())),
        client: client(cx.exchange.peer, &head.headers),
        headers: kept,
        event_type: source.provider.event_type.as_ref().and_then(|at| locate(at, head, body)),
        attempt_id: source.provider.attempt_id.as_ref().and_then(|at| locate(at, head, body)),
        verified: grounds.text(),
        traceparent: traceparent(&head.headers),
        duplicate_of: None,
        conflict_of: None,
    }
}

fn client(peer: Option<std::net::IpAddr>, headers: &HeaderMap) -> Client {
    Client {
        address: peer.map(|ip| ip.to_string()).unwrap_or_default(),
        proto: "http".to_owned(),
        host: headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned(),
    }
}

/// The query less the parameter that carried a credential.
fn without(query: &str, consumed: Option<&str>) -> String {
    let Some(consumed) = consumed else { return query.to_owned() };
    query.split('&').filter(|pair| !is_of(consumed, pair)).collect::<Vec<_>>().join("&")
}

/// The values of the parameter that carried a credential, as they were written.
fn consumed<'q>(query: &'q str, name: &str) -> impl Iterator<Item = &'q str> {
    query.split('&').filter(move |pair| is_of(name, pair)).filter_map(|pair| Some(pair.split_once('=')?.1))
}

/// Whether a pair of a query is of this parameter, however it is written.
fn is_of(name: &str, pair: &str) -> bool {
    form_urlencoded::parse(pair.as_bytes()).any(|(key, _)| key == name)
}

/// The longest event type or attempt id that is kept, in bytes.
const LABEL_BYTES_MAX: usize = 256;

/// A short printable value, for search and logs; nothing where it is neither.
fn locate(at: &Locator, head: &Parts, body: &[u8]) -> Option<String> {
    let text = match at {
        Locator::Header(name) => head.headers.get(name)?.to_str().ok()?.to_owned(),
        Locator::Form(key) => form_value(body, key)?,
        Locator::Json(pointer) => match json::scalar(body, pointer)? {
            Scalar::Text(text) => text,
            Scalar::Integer(digits) => digits,
            Scalar::Bool(flag) => flag.to_string(),
        },
    };
    let fits = !text.is_empty() && text.len() <= LABEL_BYTES_MAX && !text.chars().any(char::is_control);
    fits.then_some(text)
}

/// The trace context that the request brought, if it is one, else a new one.
fn traceparent(headers: &HeaderMap) -> String {
    const NAME: HeaderName = HeaderName::from_static("traceparent");
    let is_valid = |text: &str| {
        let parts: Vec<&str> = text.split('-').collect();
        let hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let set = |part: &str| part.bytes().any(|b| b != b'0');
        matches!(parts[..], ["00", trace, span, flags]
            if hex(trace, 32) && set(trace) && hex(span, 16) && set(span) && hex(flags, 2))
    };
    let brought = headers.get(NAME).and_then(|value| value.to_str().ok()).filter(|text| is_valid(text));
    brought.map_or_else(
        || format!("00-{:032x}-{:016x}-01", rand::random::<u128>() | 1, rand::random::<u64>() | 1),
        str::to_owned,
    )
}
