//! The body: the only step that waits for the client. Declared and counted length, deadline, floor rate, and a
//! share of the budget for each frame before it is kept: 408, 413, 503. It ends with 408, too, if others need its room and
//! get on better.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{header, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, timeout_at};
use tower::{Layer, Service, ServiceExt, layer::layer_fn};

use super::{
    Ack, Gate, Rejection, WireBody, budget::Share, claim::Claimed, crowd::Seat, observe::Exchange, select::Cx,
    waive::Waiver,
};
use crate::{event::Body, secret::Secret, verify::Claim};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A webhook that is here as a whole.
pub(super) struct Received {
    pub(super) cx: Cx,
    pub(super) head: Parts,
    pub(super) token: Option<Secret>,
    pub(super) claim: Result<Claim, Waiver>,
    pub(super) stale: bool,
    pub(super) body: Body,
}

pub(super) fn read<S>(gate: &Arc<Gate>) -> impl Layer<S, Service = Read<S>> + Clone + use<S> {
    let gate = gate.clone();
    layer_fn(move |inner| Read { gate: gate.clone(), inner })
}

#[derive(Clone)]
pub(super) struct Read<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<Claimed> for Read<S>
where
    S: Service<Received, Response = Ack, Error = Rejection> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Ack;
    type Error = Rejection;
    type Future = BoxFuture<'static, Result<Ack, Rejection>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, claimed: Claimed) -> Self::Future {
        let (gate, inner) = (self.gate.clone(), self.inner.clone());
        Box::pin(async move { inner.oneshot(receive(&gate, claimed).await?).await })
    }
}

async fn receive(gate: &Gate, claimed: Claimed) -> Result<Received, Rejection> {
    let Claimed { mut cx, head, token, claim, stale } = claimed;
    let max = usize::try_from(cx.route.source.body_bytes_max).unwrap_or(usize::MAX);
    let body = collect(gate, &mut cx, &head, max).await?;
    Ok(Received { cx, head, token, claim, stale, body })
}

/// The whole body, of at most `max` bytes, unless somebody else needs the room more.
pub(super) async fn collect(gate: &Gate, cx: &mut Cx, head: &Parts, max: usize) -> Result<Body, Rejection> {
    let Some(upload) = seat(cx).map(|seat| seat.upload().clone()) else { return all_of(gate, cx, head, max).await };
    tokio::select! {
        biased;
        () = upload.ended() => Err(Rejection::CrowdedOut),
        body = all_of(gate, cx, head, max) => body,
    }
}

fn seat(cx: &Cx) -> Option<&Seat> {
    cx.unproven.as_ref()?.seat.as_ref()
}

/// Puts a body back as if it had not been read. Its bytes stay paid for until they are read again.
pub(super) fn put_back(cx: &Cx, body: Body) {
    let bytes = Full::new(Bytes::from_owner(Whole(body))).map_err(|never| match never {});
    if let Ok(mut slot) = cx.exchange.body.lock() {
        *slot = Some(bytes.boxed_unsync());
    }
}

struct Whole(Body);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

async fn all_of(gate: &Gate, cx: &mut Cx, head: &Parts, max: usize) -> Result<Body, Rejection> {
    let declared = head.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > max as u64) {
        return Err(Rejection::TooLarge); // before a byte of it is read
    }
    let wire = cx.exchange.body.lock().ok().and_then(|mut slot| slot.take()).ok_or(Rejection::Cut)?;
    // Dropped before its end, it goes back: `respond` knows what to do with the rest.
    let mut wire = Borrowed { exchange: &cx.exchange, body: Some(wire) };
    let until = cx.deadline.min(gate.clock.monotonic() + cx.exchange.snapshot.body_timeout);
    let mut floor = FloorRate::new(gate.clock.monotonic(), cx.exchange.snapshot.body_rate_min);
    let mut share = Share::default();
    // Frames are copied: a one-byte frame would pin the whole read buffer of the connection. A declared body
    // is paid for by its frames as they arrive, never in advance, so that declaring costs the client a send.
    let mut bytes = Vec::new();
    loop {
        let next = timeout_at(until.min(floor.check_at()), wire.frame()).await;
        // Also when something came: else a frame at each moment of the check would put it off for ever.
        let now = gate.clock.monotonic();
        if now >= until || floor.is_too_slow(now) {
            return Err(Rejection::TooSlow);
        }
        let frame = match next {
            Err(_) => continue,
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                wire.body = None; // nothing can follow
                return Err(if is_malformed(&*error) { Rejection::Malformed } else { Rejection::Cut });
            }
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers are discarded, never interpreted.
        let Ok(data) = frame.into_data() else { continue };
        if let Some(seat) = seat(cx) {
            seat.upload().received(data.len(), now);
        }
        if bytes.len() + data.len() > max {
            return Err(Rejection::TooLarge);
        }
        let kept = bytes.capacity();
        let target = capacity_for(bytes.len() + data.len(), kept, max);
        if target > kept {
            let more = target - kept;
            let may = cx.unproven.as_mut().is_none_or(|unproven| unproven.bytes.grow(more as u64));
            if !may || gate.budget.grow(&mut share, more, seat(cx), now).await.is_none() {
                return Err(Rejection::BudgetSpent);
            }
            bytes.reserve_exact(target - bytes.len());
        }
        bytes.extend_from_slice(&data);
        floor.count(gate.clock.monotonic(), data.len());
    }
    wire.body = None;
    drop(wire);
    Ok(Body::paid(bytes.into(), Arc::new(share)))
}

/// The body while it is read.
struct Borrowed<'e> {
    exchange: &'e Exchange,
    body: Option<WireBody>,
}

impl Borrowed<'_> {
    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        self.body.as_mut()?.frame().await
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let (Some(body), Ok(mut slot)) = (self.body.take(), self.exchange.body.lock()) {
            *slot = Some(body);
        }
    }
}

/// Whether the framing of the body is wrong, and not just cut off.
fn is_malformed(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return matches!(io.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
        }
        next = cause.source();
    }
    false
}

/// The capacity that the buffer has to have: what is charged for is what is held, not only what is used.
fn capacity_for(needed: usize, kept: usize, max: usize) -> usize {
    // Never beyond the limit of the source, which may be less than the smallest buffer.
    if needed <= kept { kept } else { needed.next_power_of_two().max(1024).min(max).max(needed) }
}

/// Bytes over the last five seconds against a floor. An average since the start would give a slow client
/// minutes of credit.
struct FloorRate {
    began: Instant,
    per_second: u64,
    /// Arrivals of the last five seconds.
    window: VecDeque<(Instant, usize)>,
}

const WINDOW: Duration = Duration::from_secs(5);

impl FloorRate {
    fn new(now: Instant, per_second: u64) -> Self {
        Self { began: now, per_second, window: VecDeque::new() }
    }
    fn count(&mut self, now: Instant, bytes: usize) {
        self.forget(now);
        // Arrivals within a tenth of a second count as one, so that tiny frames cannot grow the window.
        match self.window.back_mut() {
            Some((at, sum)) if now.duration_since(*at) < WINDOW / 50 => *sum += bytes,
            _ => self.window.push_back((now, bytes)),
        }
    }
    fn check_at(&self) -> Instant {
        let oldest = self.window.front().map_or(self.began, |(at, _)| *at);
        oldest + WINDOW + Duration::from_millis(1)
    }
    fn is_too_slow(&mut self, now: Instant) -> bool {
        self.forget(now);
        let seen: usize = self.window.iter().map(|(_, bytes)| bytes).sum();
        now.duration_since(self.began) > WINDOW && (seen as u64) < self.per_second * WINDOW.as_secs()
    }
    fn forget(&mut self, now: Instant) {
        while self.window.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.window.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_body_is_too_slow_by_its_last_five_seconds_not_by_its_average() {
        let began = Instant::now();
        let mut floor = FloorRate::new(began, 1024);
        floor.count(began, 1 << 20); // a burst earns no credit
        assert!(!floor.is_too_slow(began + s(5)), "the first five seconds are free");
        assert!(floor.is_too_slow(began + s(6)));
    }

    #[test]
    fn a_body_at_the_floor_goes_on_and_one_below_it_ends() {
        let began = Instant::now();
        let (mut steady, mut trickle) = (FloorRate::new(began, 1024), FloorRate::new(began, 1024));
        for second in 1..=60 {
            steady.count(began + s(second), 1024);
            trickle.count(began + s(second), 1);
            assert!(!steady.is_too_slow(began + s(second)), "after {second} s");
        }
        assert!(trickle.is_too_slow(began + s(60)));
        assert!(trickle.check_at() <= began + s(61));
    }

    #[test]
    fn tiny_frames_do_not_grow_the_window() {
        let began = Instant::now();
        let mut floor = FloorRate::new(began, 1024);
        for n in 0..100_000u32 {
            floor.count(began + Duration::from_micros(100) * n, 1);
        }
        assert!(floor.window.len() <= 60, "{}", floor.window.len());
    }

    #[test]
    fn a_buffer_grows_in_powers_of_two_up_to_a_limit_of_any_size() {
        assert_eq!(capacity_for(10, 0, 1 << 20), 1024);
        assert_eq!(capacity_for(1025, 1024, 1 << 20), 2048);
        assert_eq!(capacity_for(1500, 2048, 1 << 20), 2048);
        assert_eq!(capacity_for(600_000, 0, 1_000_000), 1_000_000);
        for max in [1, 99, 100, 1023] {
            assert_eq!(capacity_for(max.min(50), 0, max), max, "{max}");
        }
        assert_eq!(capacity_for(0, 0, 100), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_too_slow_however_it_is_timed() {
        let began = Instant::now();
        let mut floor = FloorRate::new(began, 1024);
        // Just when the five seconds are over, and before the check that is due a millisecond later.
        let at = began + WINDOW + Duration::from_micros(500);
        assert!(at < floor.check_at() && floor.is_too_slow(at));
        floor.count(at, 1);
        let at = at + WINDOW + Duration::from_micros(500);
        assert!(at < floor.check_at() && floor.is_too_slow(at));
    }
}
