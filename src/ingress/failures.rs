//! Refused webhooks of sources with `explain = true`, handed over to whoever finds out why.
//!
//! On the way of the request only a copy of the head is made, at most once a second for each source; what comes sooner,
//! or while the queue is full, is counted.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, Method, request::Parts};
use tokio::{sync::mpsc, time::Instant};

use super::{Rejection, observe::Exchange};
use crate::{
    config::Source,
    event::{Body, Name},
    secret::Secret,
    time::Wall,
    verify::Seen,
};

/// How often one of a source is handed over.
const EVERY: Duration = Duration::from_secs(1);
/// How many wait; their bodies are paid for by the budget.
const QUEUE: usize = 4;
/// The longest body that waits.
const BODY_BYTES_MAX: usize = 1 << 20;

/// One of them. `Debug` shows no values.
#[derive(Debug)]
pub struct Failed {
    /// The source that it came to.
    pub source: Arc<Source>,
    /// The code of the rejection.
    pub code: &'static str,
    /// When it came.
    pub at: Wall,
    /// As in the log.
    pub request_id: String,
    /// The address of the client.
    pub client: Option<IpAddr>,
    /// The body, if it was read and is not too large.
    pub body: Option<Body>,
    /// How long it is, if it was read: what is over 1 MiB is not kept.
    pub body_bytes: Option<usize>,
    head: Head,
}

struct Head {
    method: Method,
    url: Option<String>,
    query: Option<String>,
    headers: HeaderMap,
    token: Option<Secret>,
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.headers.keys()).finish()
    }
}

impl Failed {
    /// The head of the request.
    pub fn seen(&self) -> Seen<'_> {
        let head = &self.head;
        Seen {
            method: &head.method,
            url: head.url.as_deref(),
            query: head.query.as_deref(),
            headers: &head.headers,
            token: head.token.as_ref().and_then(|token| std::str::from_utf8(token.expose()).ok()),
        }
    }
}

/// What a step knows of a request that it refuses.
pub(super) struct Refused<'a> {
    pub(super) source: &'a Arc<Source>,
    pub(super) exchange: &'a Exchange,
    pub(super) head: &'a Parts,
    pub(super) token: Option<&'a Secret>,
    pub(super) url: Option<String>,
    pub(super) body: Option<&'a Body>,
}

/// The way from the request to whoever finds out why.
#[derive(Debug)]
pub struct Failures {
    sources: Mutex<BTreeMap<Name, Seldom>>,
    queue: mpsc::Sender<Failed>,
    taken: Mutex<Option<mpsc::Receiver<Failed>>>,
}

#[derive(Debug)]
struct Seldom {
    last: Instant,
    not_explained: u64,
}

impl Default for Failures {
    fn default() -> Self {
        let (queue, taken) = mpsc::channel(QUEUE);
        Self { sources: Mutex::default(), queue, taken: Mutex::new(Some(taken)) }
    }
}

impl Failures {
    /// What is handed over; it can be taken once.
    pub fn take(&self) -> Option<mpsc::Receiver<Failed>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Refusals of this source that were counted only.
    pub fn not_explained(&self, source: &str) -> u64 {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.get(source).map_or(0, |seldom| seldom.not_explained)
    }

    /// Hands a refusal over if its source wants it explained.
    pub(super) fn note(&self, why: &Rejection, refused: Refused<'_>, now: Instant) {
        let about = matches!(why, Rejection::Unauthentic(_) | Rejection::Stale | Rejection::StaleByOurClock);
        let Refused { source, exchange, head, token, url, body } = refused;
        if !about || !source.explain {
            return;
        }
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !sources.contains_key(&source.name);
        let seldom = sources.entry(source.name.clone()).or_insert(Seldom { last: now, not_explained: 0 });
        let is_due = is_new || now.saturating_duration_since(seldom.last) >= EVERY;
        let Some(place) = is_due.then(|| self.queue.try_reserve().ok()).flatten() else {
            seldom.not_explained += 1;
            return;
        };
        seldom.last = now;
        drop(sources);
        place.send(Failed {
            source: source.clone(),
            code: why.code(),
            at: exchange.came_at,
            request_id: exchange.request_id.clone(),
            client: exchange.peer,
            body: body.filter(|body| body.len() <= BODY_BYTES_MAX).cloned(),
            body_bytes: body.map(|body| body.len()),
            head: Head {
                method: head.method.clone(),
                url,
                query: head.uri.query().map(str::to_owned),
                headers: head.headers.clone(),
                token: token.cloned(),
            },
        });
    }
}
