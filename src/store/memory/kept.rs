//! What is kept beside events: answers for copies, and items that an upstream acknowledged.

use std::time::Duration;

use super::{
    super::{elapsed::after, judge::ITEM_LIFE},
    inner::Inner,
};
use crate::event::{Answer, EventId, Item, Name};

/// Items remembered; beyond that the longest known are forgotten.
const ITEMS_MAX: usize = 100_000;

impl Inner {
    pub(super) fn answer(&self, now_ms: i64, event: EventId) -> Option<Answer> {
        let (answer, expires_at) = self.answers.get(&event)?;
        (*expires_at > now_ms).then(|| answer.clone())
    }

    /// An answer is a convenience for copies: where there is no room, those that expire first give way.
    pub(super) fn keep_answer(&mut self, now_ms: i64, event: EventId, answer: Answer, kept: Duration) {
        self.drop_answer(event);
        let bytes = answer_bytes(&answer);
        while self.bytes + bytes > self.bytes_max {
            let Some((_, soonest)) = self.answers_expiring.first().copied() else { return };
            self.drop_answer(soonest);
        }
        let expires_at = after(now_ms, kept);
        self.bytes += bytes;
        self.answers_expiring.insert((expires_at, event));
        self.answers.insert(event, (answer, expires_at));
    }

    pub(super) fn drop_answer(&mut self, event: EventId) {
        if let Some((answer, expires_at)) = self.answers.remove(&event) {
            self.answers_expiring.remove(&(expires_at, event));
            self.bytes -= answer_bytes(&answer);
        }
    }

    pub(super) fn acknowledge(&mut self, now_ms: i64, upstream: &Name, item: Item) {
        let (place, expires_at) = ((Name::clone(upstream), item.key), after(now_ms, ITEM_LIFE));
        if let Some((_, before)) = self.items.insert(place.clone(), (item.content, expires_at)) {
            self.items_expiring.remove(&(before, place.0.clone(), place.1));
        }
        self.items_expiring.insert((expires_at, place.0, place.1));
        if self.items.len() > ITEMS_MAX
            && let Some((_, upstream, key)) = self.items_expiring.pop_first()
        {
            self.items.remove(&(upstream, key));
        }
    }

    /// Drops answers and items that have expired. Returns how many answers.
    pub(super) fn sweep_kept(&mut self, now_ms: i64) -> usize {
        let mut answers = 0;
        while let Some((_, id)) = self.answers_expiring.first().copied().filter(|(at, _)| *at <= now_ms) {
            self.drop_answer(id);
            answers += 1;
        }
        while let Some((_, upstream, key)) = self.items_expiring.first().filter(|(at, ..)| *at <= now_ms).cloned() {
            self.items_expiring.pop_first();
            self.items.remove(&(upstream, key));
        }
        answers
    }
}

fn answer_bytes(answer: &Answer) -> u64 {
    answer.body.len() as u64 + 128
}
