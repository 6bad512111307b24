//! What is read: lists, counts, events, numbers.

use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
};

use super::{
    super::{
        Counted, Direction, Filter, Listed, Page, Shown, Stats, StoreError,
        elapsed::between,
        judge::{COUNT_MAX, PAGE_MAX, Scan, json_fits},
    },
    inner::Inner,
    placed::Stored,
};
use crate::event::{Delivery, EventId, Name, State};

impl Inner {
    pub(super) fn list(&self, now_ms: i64, filter: &Filter, direction: Direction, limit: usize) -> Page {
        let (limit, mut scan, mut looked_at) = (limit.clamp(1, PAGE_MAX), Scan::new(), None);
        let mut page = Page::default();
        let fits = self.fits(filter);
        let oldest_first = self.between(filter).filter(|stored| fits(stored));
        let in_order: Box<dyn Iterator<Item = &Stored>> = match direction {
            Direction::OldestFirst => Box::new(oldest_first),
            Direction::NewestFirst => Box::new(oldest_first.rev()),
        };
        for stored in in_order {
            if page.events.len() == limit || filter.json.is_some() && !scan.takes(stored.event.body.len() as u64) {
                page.next = looked_at;
                break;
            }
            looked_at = Some(stored.event.head.id);
            if has_json(stored, filter) {
                page.events.push(Listed {
                    head: stored.event.head.clone(),
                    body_bytes: stored.body_bytes as u64,
                    copies: stored.event.copies,
                    deliveries: self.deliveries_shown(now_ms, stored, false),
                });
            }
        }
        page
    }

    pub(super) fn count(&self, filter: &Filter) -> Counted {
        let (mut scan, mut counted, mut looked_at) = (Scan::new(), Counted::default(), None);
        let fits = self.fits(filter);
        for (index, stored) in self.between(filter).enumerate() {
            let is_candidate = fits(stored);
            let reads = is_candidate && filter.json.is_some();
            if index == COUNT_MAX || reads && !scan.takes(stored.event.body.len() as u64) {
                counted.next = looked_at;
                break;
            }
            looked_at = Some(stored.event.head.id);
            counted.events += u64::from(is_candidate && has_json(stored, filter));
        }
        counted
    }

    pub(super) fn show(&self, now_ms: i64, id: EventId) -> Result<Shown, StoreError> {
        let stored = self.events.get(&id).ok_or(StoreError::NotFound)?;
        let live = self.keys.of_event(id, now_ms).into_iter();
        Ok(Shown {
            event: stored.event.clone(),
            body_removed: stored.body_removed,
            keys: live.map(|(key, expires_at)| (key, between(now_ms, expires_at))).collect(),
            deliveries: self.deliveries_shown(now_ms, stored, true),
        })
    }

    pub(super) fn stats(&self, now_ms: i64) -> Stats {
        let mut stats = Stats {
            events: self.events.len() as u64,
            keys: self.keys.len() as u64,
            bytes: self.bytes,
            unrouted: self.events.values().filter(|stored| stored.unrouted).count() as u64,
            open_bytes: self.open_bytes.clone(),
            share_bytes_max: self.share_bytes_max,
            ..Stats::default()
        };
        for placed in self.deliveries.values() {
            *stats.deliveries.entry((Name::clone(&placed.upstream), placed.state)).or_default() += 1;
            if placed.state == State::Due {
                let oldest = stats.oldest_due.entry(Name::clone(&placed.upstream)).or_default();
                *oldest = (*oldest).max(between(placed.armed_at, now_ms));
            }
        }
        stats
    }

    /// The events whose ids a filter allows, oldest first.
    fn between(&self, filter: &Filter) -> impl DoubleEndedIterator<Item = &Stored> {
        let after = filter.after.map_or(Unbounded, Excluded);
        let before = filter.before.map_or(Unbounded, Excluded);
        let is_empty = matches!((filter.after, filter.before), (Some(after), Some(before)) if after >= before);
        let range = (!is_empty).then(|| self.events.range((after, before)));
        range.into_iter().flatten().map(|(_, stored)| stored)
    }

    /// Whether an event fits a filter in everything but ids of pages and JSON.
    fn fits(&self, filter: &Filter) -> impl Fn(&Stored) -> bool {
        let owners: Option<BTreeSet<EventId>> = filter.key.map(|key| self.keys.owners(&key));
        move |stored| {
            let head = &stored.event.head;
            let is = |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
            let delivery_fits = (filter.upstream.is_none() && filter.state.is_none())
                || stored.deliveries.iter().map(|number| &self.deliveries[number]).any(|placed| {
                    is(&filter.upstream, Some(&placed.upstream))
                        && filter.state.is_none_or(|state| state == placed.state)
                });
            is(&filter.source, Some(&head.source))
                && is(&filter.event_type, head.event_type.as_deref())
                && is(&filter.attempt_id, head.attempt_id.as_deref())
                && filter.since.is_none_or(|since| head.received_at >= since)
                && filter.until.is_none_or(|until| head.received_at < until)
                && filter.id.is_none_or(|id| id == head.id)
                && owners.as_ref().is_none_or(|owners| owners.contains(&head.id))
                && (stored.unrouted || !filter.unrouted)
                && delivery_fits
        }
    }

    fn deliveries_shown(&self, now_ms: i64, stored: &Stored, with_history: bool) -> Vec<Delivery> {
        let shown = |number: &i64| {
            let placed = &self.deliveries[number];
            let is_due = placed.state == State::Due && !placed.waits();
            Delivery {
                upstream: Name::clone(&placed.upstream),
                state: placed.state,
                reason: placed.reason.clone(),
                attempts: placed.attempts,
                due_in: is_due.then(|| between(now_ms, placed.due_at)),
                order_key: placed.order_key.clone(),
                history: if with_history { placed.history.iter().cloned().collect() } else { Vec::new() },
            }
        };
        stored.deliveries.iter().map(shown).collect()
    }
}

fn has_json(stored: &Stored, filter: &Filter) -> bool {
    filter.json.as_ref().is_none_or(|wanted| json_fits(&stored.event.body, wanted))
}
