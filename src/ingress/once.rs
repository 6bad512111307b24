//! The guard as a layer: one flight for each set of keys. A request never carries an outcome, a flight does;
//! requests wait for it, each until its own deadline.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use tokio::time::timeout_at;
use tower::{Layer, Service, ServiceExt, layer::layer_fn};

use super::{Ack, Gate, Rejection, rate::Token, verify::Verified};
use crate::{
    config::model::Mode,
    event::EventId,
    replay::{Entry, Flight, Phase, Set},
    store::StoreError,
    verify::{Key, Keys},
};

type KeySet = Set<Key, [u8; 32]>;
type KeyFlight = Flight<Key, [u8; 32], EventId, Result<Ack, Rejection>>;

/// A verified webhook and the flight that it leads.
pub(super) struct Boarded {
    pub(super) webhook: Verified,
    pub(super) flight: Arc<KeyFlight>,
}

/// How a flight ended well.
pub(super) struct Landing {
    pub(super) ack: Ack,
    /// The event that the keys stand for from now on.
    pub(super) known: Option<EventId>,
}

pub(super) fn once<S>(gate: &Arc<Gate>) -> impl Layer<S, Service = Once<S>> + Clone + use<S> {
    let gate = gate.clone();
    layer_fn(move |inner| Once { gate: gate.clone(), inner })
}

#[derive(Clone)]
pub(super) struct Once<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<Verified> for Once<S>
where
    S: Service<Boarded, Response = Landing, Error = Rejection> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Ack;
    type Error = Rejection;
    type Future = BoxFuture<'static, Result<Ack, Rejection>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, webhook: Verified) -> Self::Future {
        let (gate, inner) = (self.gate.clone(), self.inner.clone());
        Box::pin(async move {
            let ack = once_for(&gate, webhook, inner).await?;
            // After a failed write nobody knows what the disk still has of what was acknowledged before, and the guard
            // remembers only that. What an upstream has just taken is taken all the same.
            match gate.store.health() {
                Err(broken @ StoreError::Poisoned(_)) if !matches!(ack, Ack::Answered { copy: false, .. }) => {
                    Err(broken.into())
                }
                _ => Ok(ack),
            }
        })
    }
}

async fn once_for<S>(gate: &Gate, webhook: Verified, inner: S) -> Result<Ack, Rejection>
where
    S: Service<Boarded, Response = Landing, Error = Rejection> + Clone + Send + 'static,
    S::Future: Send,
{
    let (keys, deadline, mode) = (webhook.keys, webhook.cx.deadline, webhook.cx.route.source.mode);
    let set = Arc::new(key_set(&keys, mode));
    // A waiting request keeps its own share of what is in flight.
    let _permits = webhook.cx.permits.clone();
    let mut token = Token::of(&webhook);
    let mut mine = Some((webhook, inner));
    loop {
        if gate.clock.monotonic() >= deadline {
            return Err(Rejection::Late); // nothing was begun on its behalf, so it may come again
        }
        let (mut watch, leads) = match gate.guard.enter(set.clone()) {
            Entry::Known(id) => {
                token.put_back();
                gate.store.count_copy(id);
                return Ok(Ack::Duplicate(id));
            }
            Entry::Wait(watch) => {
                token.put_back();
                (watch, false)
            }
            Entry::Lead(flight) => {
                // No await between `enter` and `spawn`: nobody can be left waiting for a flight never begun.
                let watch = flight.watch();
                let (webhook, inner) = mine.take().expect("whoever has led has returned");
                gate.flights.spawn(fly(webhook, inner, flight));
                (watch, true)
            }
        };
        let Ok(outcome) = timeout_at(deadline, watch.landed()).await else {
            return match watch.now() {
                Phase::Open if leads && mode == Mode::Proxy => Err(Rejection::UpstreamTimedOut),
                Phase::Open => Err(Rejection::Late),
                Phase::Durable(id) if leads => Ok(Ack::Accepted(id)),
                Phase::Durable(id) => Ok(Ack::Duplicate(id)),
                Phase::Landed(outcome) if leads => outcome,
                Phase::Landed(outcome) => outcome.map(Ack::of_copy),
            };
        };
        return match outcome {
            _ if leads => outcome.inspect(|ack| {
                if ack.is_copy() {
                    token.put_back();
                }
            }),
            Err(why) if why.is_personal() => continue, // one of the waiting takes its place
            Err(why) => Err(why),
            Ok(_) if !watch.is_copy(&set) => continue, // another body under the same key: the store judges
            Ok(ack) => {
                note_copy(gate, &ack, keys, watch.has_same_keys(&set));
                Ok(ack.of_copy())
            }
        };
    }
}

/// The flight itself: its own task, which no client, copy or deadline can interrupt.
async fn fly<S>(webhook: Verified, inner: S, flight: KeyFlight)
where
    S: Service<Boarded, Response = Landing, Error = Rejection>,
{
    let flight = Arc::new(flight);
    let outcome = inner.oneshot(Boarded { webhook, flight: flight.clone() }).await;
    // The service has let go of its share, or else it still works on our behalf and lands by dropping it.
    let Some(flight) = Arc::into_inner(flight) else { return };
    match outcome {
        Ok(Landing { ack, known }) => flight.land(Ok(ack), known),
        Err(why) if why.is_uncertain() => flight.land_uncertain(Err(why)),
        Err(why) => flight.land(Err(why), None),
    }
}

/// A copy that waited behind the first: counted, and its own keys recorded if they are others, so that an exact
/// replay of this copy is known too.
fn note_copy(gate: &Gate, ack: &Ack, keys: Keys, same_keys: bool) {
    let Some(first) = ack.event() else { return };
    if same_keys {
        gate.store.count_copy(first);
    } else {
        let store = gate.store.clone();
        gate.flights.spawn(async move {
            if let Err(error) = store.lookup(keys).await {
                tracing::warn!(event = %first, %error, "failed to record the keys of a copy");
            }
        });
    }
}

fn key_set(keys: &Keys, mode: Mode) -> KeySet {
    Set {
        keys: keys.all().map(|lived| lived.key).collect(),
        body: keys.body,
        // Only the store keeps an upstream's answer, so in the other modes it has to be asked.
        exact: keys.replay.filter(|_| keys.timed && mode == Mode::Queue).map(|lived| lived.key),
    }
}
