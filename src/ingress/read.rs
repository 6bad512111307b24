//! The body: the only step that waits for the client. Declared and counted length, deadline, floor rate, and a
//! share of the budget for each frame before it is kept: 408, 413, 503.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{header, request::Parts};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};
use tower::{Layer, Service, ServiceExt, layer::layer_fn};

use super::{Ack, Gate, Rejection, budget::Share, claim::Claimed, select::Cx};
use crate::{event::Body, verify::Claim};

/// A webhook that is here as a whole.
pub(super) struct Received {
    pub(super) cx: Cx,
    pub(super) head: Parts,
    pub(super) claim: Claim,
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
    let Claimed { cx, head, claim, stale } = claimed;
    let max = usize::try_from(cx.route.source.body_bytes_max).unwrap_or(usize::MAX);
    let declared = head.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > max as u64) {
        return Err(Rejection::TooLarge); // before a byte of it is read
    }
    let mut wire = cx.exchange.body.lock().ok().and_then(|mut slot| slot.take()).ok_or(Rejection::Cut)?;
    let until = cx.deadline.min(gate.clock.monotonic() + cx.snapshot.body_timeout);
    let mut floor = FloorRate::new(gate.clock.monotonic(), cx.snapshot.body_rate_min);
    let mut share = Share::default();
    // Frames are copied: a one-byte frame would pin the whole read buffer of the connection. A declared body
    // is paid for by its frames as they arrive, never in advance, so that declaring costs the client a send.
    let mut bytes = Vec::new();
    loop {
        let frame = match timeout_at(until.min(floor.check_at()), wire.frame()).await {
            Err(_) if gate.clock.monotonic() >= until || floor.is_too_slow(gate.clock.monotonic()) => {
                return Err(Rejection::TooSlow);
            }
            Err(_) => continue,
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(Rejection::Cut),
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers are discarded, never interpreted.
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > max {
            return Err(Rejection::TooLarge);
        }
        keep(gate, &mut bytes, &mut share, &data, max).await?;
        floor.count(gate.clock.monotonic(), data.len());
    }
    Ok(Received { cx, head, claim, stale, body: Body::paid(bytes.into(), Arc::new(share)) })
}

/// Pays for the capacity the buffer is about to have, then copies: what is charged is what is held.
async fn keep(gate: &Gate, bytes: &mut Vec<u8>, share: &mut Share, data: &Bytes, max: usize) -> Result<(), Rejection> {
    let needed = bytes.len() + data.len();
    if needed > bytes.capacity() {
        // Not `clamp`: a source's limit may be below the smallest buffer.
        let target = needed.next_power_of_two().max(1024).min(max.max(needed));
        gate.budget.grow(share, target - bytes.capacity()).await.ok_or(Rejection::BudgetSpent)?;
        bytes.reserve_exact(target - bytes.len());
    }
    bytes.extend_from_slice(data);
    Ok(())
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
