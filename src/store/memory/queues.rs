//! Who is next: what is due by upstream, source and time, and whose turn it is where an order key lines deliveries up.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    super::{
        LEASE_BYTES_MAX,
        judge::{NEVER, next_in_turn},
    },
    placed::{Placed, Turn},
};
use crate::event::{Name, State};

/// Deliveries that are due or leased. An owner tells it before and after each change of one.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// By the time at which they may be taken, without those that wait for their turn.
    due: HashMap<Name, BTreeMap<Name, BTreeSet<(i64, i64)>>>,
    turns: HashMap<Turn, Queue>,
    /// The source that an upstream was served from last.
    served: HashMap<Name, Name>,
}

/// The deliveries of one turn key. Whenever somebody is in it, exactly one is active.
#[derive(Debug, Default)]
struct Queue {
    active: Option<i64>,
    waiting: BTreeSet<i64>,
}

impl Queues {
    pub(super) fn enter(&mut self, number: i64, placed: &Placed) {
        if !matches!(placed.state, State::Due | State::Leased) {
            return;
        }
        if let Some(turn) = placed.turn() {
            let queue = self.turns.entry(turn).or_default();
            if placed.due_at == NEVER {
                queue.waiting.insert(number);
            } else {
                debug_assert!(queue.active.is_none(), "one active delivery of a turn key");
                queue.active = Some(number);
            }
        }
        if placed.due_at != NEVER {
            let sources = self.due.entry(Name::clone(&placed.upstream)).or_default();
            sources.entry(Name::clone(&placed.source)).or_default().insert((placed.due_at, number));
        }
    }

    pub(super) fn leave(&mut self, number: i64, placed: &Placed) {
        if let Some(turn) = placed.turn()
            && let Some(queue) = self.turns.get_mut(&turn)
        {
            queue.waiting.remove(&number);
            queue.active.take_if(|active| *active == number);
            if queue.active.is_none() && queue.waiting.is_empty() {
                self.turns.remove(&turn);
            }
        }
        if let Some(sources) = self.due.get_mut(&placed.upstream)
            && let Some(due) = sources.get_mut(&placed.source)
        {
            due.remove(&(placed.due_at, number));
            if due.is_empty() {
                sources.remove(&placed.source);
            }
            if sources.is_empty() {
                self.due.remove(&placed.upstream);
            }
        }
    }

    /// Whether anybody is in the queue of a turn key.
    pub(super) fn is_taken(&self, turn: &Turn) -> bool {
        self.turns.contains_key(turn)
    }

    /// Whether another than this one is active.
    pub(super) fn is_taken_by_another(&self, turn: &Turn, number: i64) -> bool {
        self.turns.get(turn).and_then(|queue| queue.active).is_some_and(|active| active != number)
    }

    /// Whose turn comes now: the first of those that wait, if none is active.
    pub(super) fn next(&self, turn: &Turn) -> Option<i64> {
        let queue = self.turns.get(turn).filter(|queue| queue.active.is_none())?;
        queue.waiting.first().copied()
    }

    /// When the first delivery of an upstream may be taken.
    pub(super) fn next_due(&self, upstream: &str) -> Option<i64> {
        let sources = self.due.get(upstream)?.values();
        sources.filter_map(BTreeSet::first).map(|(at, _)| *at).min()
    }

    /// Takes up to `max` that are due, source by source in turn, with bodies up to [`LEASE_BYTES_MAX`] in all.
    pub(super) fn pick(
        &mut self,
        now_ms: i64,
        upstream: &str,
        max: usize,
        body_bytes: impl Fn(i64) -> usize,
    ) -> Vec<i64> {
        let Some((upstream, due)) = self.due.get_key_value(upstream) else { return Vec::new() };
        let mut lines: BTreeMap<Name, Vec<i64>> = BTreeMap::new();
        for (source, due) in due {
            let first = due.iter().take_while(|(at, _)| *at <= now_ms).take(max).map(|(_, number)| *number);
            // The next one to be taken is the last of the line.
            let mut line: Vec<i64> = first.collect();
            line.reverse();
            if !line.is_empty() {
                lines.insert(Name::clone(source), line);
            }
        }
        let mut last = self.served.get(upstream).cloned();
        let (mut picked, mut bytes) = (Vec::new(), 0);
        while picked.len() < max
            && let Some(source) = next_in_turn(&lines, last.as_deref()).cloned()
            && let Some(line) = lines.get_mut(&source)
            && let Some(number) = line.last().copied()
        {
            bytes += body_bytes(number);
            if bytes > LEASE_BYTES_MAX && !picked.is_empty() {
                break;
            }
            line.pop();
            if line.is_empty() {
                lines.remove(&source);
            }
            picked.push(number);
            last = Some(source);
        }
        if let Some(last) = last {
            let upstream = Name::clone(upstream);
            self.served.insert(upstream, last);
        }
        picked
    }

    /// As after a restart: whose turn it was is not kept.
    #[cfg(test)]
    pub(super) fn forget_turns(&mut self) {
        self.served.clear();
    }
}
