//! An event and a delivery as this engine holds them.

use std::collections::VecDeque;

use super::super::judge::{NEVER, event_bytes};
use crate::event::{Attempt, Event, EventId, Name, OrderKey, State};

/// An event.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) event: Event,
    pub(super) deliveries: Vec<i64>,
    /// The length of the body as received.
    pub(super) body_bytes: usize,
    pub(super) body_removed: bool,
    pub(super) keep_body: bool,
    /// No route wanted it.
    pub(super) unrouted: bool,
    pub(super) finished_at: Option<i64>,
}

impl Stored {
    /// What it takes now.
    pub(super) fn bytes(&self) -> u64 {
        event_bytes(&self.event.head, self.event.body.len())
    }
}

/// A delivery.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) event: EventId,
    pub(super) upstream: Name,
    pub(super) source: Name,
    pub(super) order_key: Option<OrderKey>,
    pub(super) state: State,
    pub(super) reason: Option<String>,
    /// All that were ever made.
    pub(super) attempts: u32,
    /// Those made since it was armed.
    pub(super) tries: u32,
    /// Of a leased one: when its lease lapses. [`NEVER`] while it waits for its turn.
    pub(super) due_at: i64,
    pub(super) armed_at: i64,
    pub(super) fence: i64,
    pub(super) cause: &'static str,
    pub(super) redelivery: bool,
    pub(super) uncertain: bool,
    /// What its event takes: counted in the upstream's share until it is delivered.
    pub(super) bytes: u64,
    pub(super) history: VecDeque<Attempt>,
}

/// Deliveries that reach an upstream one after another.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Turn {
    upstream: Name,
    source: Name,
    order_key: OrderKey,
}

impl Turn {
    pub(super) fn new(upstream: &Name, source: &Name, order_key: Option<&OrderKey>) -> Option<Self> {
        let order_key = order_key?.clone();
        Some(Self { upstream: Name::clone(upstream), source: Name::clone(source), order_key })
    }
}

impl Placed {
    pub(super) fn turn(&self) -> Option<Turn> {
        Turn::new(&self.upstream, &self.source, self.order_key.as_ref())
    }

    pub(super) fn waits(&self) -> bool {
        self.state == State::Due && self.due_at == NEVER
    }

    /// Whoever had it did not settle it: the upstream may have it.
    pub(super) fn lapse(&mut self, cause: &'static str) {
        if self.state == State::Leased {
            (self.cause, self.uncertain) = (cause, true);
        }
    }
}
