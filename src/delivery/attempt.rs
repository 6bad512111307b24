//! One HTTP try of an event to an upstream, and what follows from it.

use std::{sync::Arc, time::Duration};

use http::{Method, Uri, uri::PathAndQuery};

use super::items::Marks;
use crate::{
    config::Upstream,
    document::format_duration,
    event::{Attempt, Body, EventHead},
    http::{
        client::{Answered, Client, Sent, Trouble},
        headers::{Facts, outgoing},
    },
    policy::Next,
    store::Outcome,
    telemetry::Metrics,
    time::Clock,
};

/// Where attempts go, and with what.
#[derive(Clone, Debug)]
pub struct Target {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// Its client.
    pub client: Client,
    /// The clocks.
    pub clock: Clock,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// One attempt to be made. The event need not be in any store.
#[derive(Clone, Copy, Debug)]
pub struct Try<'a> {
    /// The event.
    pub head: &'a EventHead,
    /// Its body.
    pub body: &'a Body,
    /// The number of this attempt, from 1.
    pub number: u32,
    /// Why it is made: see [`crate::store::Leased::cause`].
    pub cause: &'a str,
    /// Where the delivery stands when the attempt begins; `None` if nobody tries again (`proxy`).
    pub standing: Option<Standing>,
    /// An operator has it delivered again.
    pub redelivery: bool,
    /// An earlier attempt may have reached the upstream, its outcome is unknown.
    pub uncertain: bool,
    /// Whether the query of the webhook goes along.
    pub forward_query: bool,
    /// What the upstream knows of the body's items.
    pub marks: &'a Marks,
}

/// Where a delivery stands, counted from when it was armed: what decides whether it is tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Attempts made before this one.
    pub tries: u32,
    /// How old it is.
    pub age: Duration,
    /// After how many attempts it is given up so that others of its order key go on (`on_block`).
    pub dead_letter_after: Option<u32>,
}

impl Standing {
    /// The same, this much later.
    #[must_use]
    pub fn later(self, by: Duration) -> Self {
        Self { age: self.age.saturating_add(by), ..self }
    }
}

/// An attempt made.
#[derive(Clone, PartialEq, Debug)]
pub struct Tried {
    /// For the history.
    pub attempt: Attempt,
    /// How it ended.
    pub verdict: Verdict,
    /// What follows from it by the upstream's policy; `None` if nobody tries again.
    pub outcome: Option<Outcome>,
}

/// How an attempt ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// 2xx: the upstream took it.
    Delivered(Answered),
    /// A status of `dead_letter_on`: it does not want this event, ever.
    Refused(Answered),
    /// Any other status.
    Failed(Answered),
    /// No byte of the request can have reached the upstream.
    NotSent(Trouble),
    /// It may have taken the event, or not.
    Unknown(Trouble),
}

impl Verdict {
    fn of(sent: Sent, upstream: &Upstream) -> Self {
        match sent {
            Sent::Answered(answer) if answer.status.is_success() => Self::Delivered(answer),
            Sent::Answered(answer) if upstream.dead_letter_on.contains(&answer.status.as_u16()) => {
                Self::Refused(answer)
            }
            Sent::Answered(answer) => Self::Failed(answer),
            Sent::NotSent(trouble) => Self::NotSent(trouble),
            Sent::Unknown(trouble) => Self::Unknown(trouble),
        }
    }

    /// The upstream's answer, if it gave one.
    pub fn answer(&self) -> Option<&Answered> {
        match self {
            Self::Delivered(answer) | Self::Refused(answer) | Self::Failed(answer) => Some(answer),
            Self::NotSent(_) | Self::Unknown(_) => None,
        }
    }

    /// Whether the upstream did its work, whatever it thought of the event: what its breaker counts.
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Delivered(_) | Self::Refused(_))
    }

    /// What went wrong, in words: `status 503`, `connection refused`.
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Delivered(_) => None,
            Self::Refused(answer) | Self::Failed(answer) => Some(format!("status {}", answer.status.as_u16())),
            Self::NotSent(trouble) | Self::Unknown(trouble) => Some(trouble.text.clone()),
        }
    }

    /// The label of the metric.
    fn result(&self) -> &'static str {
        match self {
            Self::Delivered(_) => "delivered",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "status",
            Self::NotSent(_) => "unreachable",
            Self::Unknown(trouble) if trouble.timed_out => "timeout",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Makes one attempt, counts it and logs it.
pub async fn attempt(target: &Target, request: &Try<'_>) -> Tried {
    let (upstream, clock) = (&*target.upstream, &target.clock);
    let (began_at, began) = (clock.wall(), clock.monotonic());
    let facts = Facts {
        attempt: request.number,
        now: began_at,
        span: rand::random(),
        redelivery: request.redelivery,
        uncertain: request.uncertain,
        duplicate_items: &request.marks.duplicate,
        changed_items: &request.marks.changed,
    };
    let headers = outgoing(request.head, request.body, upstream, &facts);
    let method = Method::from_bytes(request.head.method.as_bytes()).unwrap_or(Method::POST);
    let query = request.head.query.as_deref().filter(|_| request.forward_query);
    let url = with_query(&upstream.url, query);
    let sent = target.client.send(method, url, headers, request.body.bytes().clone(), upstream.timeout).await;
    let verdict = Verdict::of(sent, upstream);
    let took = began.elapsed();
    target.metrics.attempt(&upstream.name, verdict.result(), took);
    let outcome = request
        .standing
        .map(|standing| outcome(&verdict, upstream, &standing.later(took), rand::random(), &request.marks.items));
    let status = verdict.answer().map(|answer| answer.status.as_u16());
    let attempt =
        Attempt { number: request.number, began_at, took, status, error: verdict.error(), cause: request.cause.into() };
    log(request.head, upstream, &attempt, outcome.as_ref());
    Tried { attempt, verdict, outcome }
}

/// What follows from an attempt, by the upstream's policy. `standing` is from before it, with the age of now; `items`
/// are recorded if it was delivered.
pub fn outcome(
    verdict: &Verdict,
    upstream: &Upstream,
    standing: &Standing,
    jitter: f64,
    items: &[crate::event::Item],
) -> Outcome {
    let retry_after = match verdict {
        Verdict::Delivered(_) => return Outcome::Delivered { items: items.to_vec() },
        Verdict::Refused(answer) => return Outcome::Dead { reason: format!("status {}", answer.status.as_u16()) },
        Verdict::Failed(answer) => answer.retry_after,
        Verdict::NotSent(_) | Verdict::Unknown(_) => None,
    };
    retry_or_give_up(upstream, standing, retry_after, jitter, &verdict.error().unwrap_or_default())
}

/// Another attempt later, or none if the delivery would be too old by then, or has blocked its order key for too long.
pub(super) fn retry_or_give_up(
    upstream: &Upstream,
    standing: &Standing,
    retry_after: Option<Duration>,
    jitter: f64,
    error: &str,
) -> Outcome {
    let failed = standing.tries.saturating_add(1);
    if standing.dead_letter_after.is_some_and(|most| failed >= most) {
        return Outcome::Dead { reason: format!("blocked its key: {error}") };
    }
    match upstream.retry.next(failed, standing.age, retry_after, jitter) {
        Next::After(after) => Outcome::Retry { after },
        Next::GiveUp => {
            let limit = format_duration(upstream.retry.give_up_after);
            Outcome::Dead { reason: format!("given up after {limit}: {error}") }
        }
    }
}

/// The upstream's URL, with the webhook's query behind its own.
fn with_query(url: &Uri, query: Option<&str>) -> Uri {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return url.clone() };
    let joined = match url.query() {
        Some(own) => format!("{}?{own}&{query}", url.path()),
        None => format!("{}?{query}", url.path()),
    };
    let mut parts = url.clone().into_parts();
    let Ok(joined) = PathAndQuery::try_from(joined) else { return url.clone() };
    parts.path_and_query = Some(joined);
    Uri::from_parts(parts).unwrap_or_else(|_| url.clone())
}

/// The one log line of an attempt.
fn log(head: &EventHead, upstream: &Upstream, attempt: &Attempt, outcome: Option<&Outcome>) {
    let (event, upstream, number, cause) = (head.id, &*upstream.name, attempt.number, &*attempt.cause);
    let (status, error) = (attempt.status, attempt.error.as_deref());
    let took_ms = u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX);
    match outcome {
        _ if error.is_none() => {
            tracing::info!(%event, upstream, attempt = number, cause, status, took_ms, "delivered");
        }
        Some(Outcome::Retry { after }) => {
            let next_in = format_duration(Duration::from_millis(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
            tracing::warn!(%event, upstream, attempt = number, cause, status, took_ms, error, next_in, "attempt failed");
        }
        Some(Outcome::Dead { reason }) => {
            tracing::warn!(%event, upstream, attempt = number, cause, status, took_ms, error, reason, "dead letter");
        }
        Some(Outcome::Delivered { .. }) | None => {
            tracing::warn!(%event, upstream, attempt = number, cause, status, took_ms, error, "attempt failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_query_stands_behind_the_upstreams_own() {
        let join = |url: &str, query| with_query(&url.parse().expect("a url"), query).to_string();
        assert_eq!(join("http://h:1/a", None), "http://h:1/a");
        assert_eq!(join("http://h:1/a", Some("")), "http://h:1/a");
        assert_eq!(join("http://h:1/a", Some("b=1&c")), "http://h:1/a?b=1&c");
        assert_eq!(join("http://h:1/a?z=0", Some("b=1")), "http://h:1/a?z=0&b=1");
        assert_eq!(join("http://h:1", Some("b=1")), "http://h:1/?b=1");
        assert_eq!(join("http://h:1/a", Some("b =1")), "http://h:1/a");
    }
}
