//! The bounded table of keys.

use std::collections::{BTreeSet, HashMap};

use super::super::elapsed::after;
use crate::{
    config::model::OnFull,
    event::{EventId, Name},
    verify::{Key, Keys},
};

/// Keys with the body they came with. The same key may stand for several bodies: the first and its conflicts.
#[derive(Debug)]
pub(super) struct KeyTable {
    capacity: usize,
    on_full: OnFull,
    rows: HashMap<u64, Row>,
    by_key: HashMap<Key, Vec<u64>>,
    by_event: HashMap<EventId, Vec<u64>>,
    /// In the order they were recorded, for eviction.
    by_source: HashMap<Name, BTreeSet<u64>>,
    expiring: BTreeSet<(i64, u64)>,
    next: u64,
    evicted: u64,
}

#[derive(Debug)]
struct Row {
    key: Key,
    body: [u8; 32],
    event: EventId,
    source: Name,
    expires_ms: i64,
}

impl KeyTable {
    pub(super) fn new(capacity: usize, on_full: OnFull) -> Self {
        Self {
            capacity,
            on_full,
            rows: HashMap::new(),
            by_key: HashMap::new(),
            by_event: HashMap::new(),
            by_source: HashMap::new(),
            expiring: BTreeSet::new(),
            next: 0,
            evicted: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Live keys forgotten to make room.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The unexpired rows of a key, oldest event first.
    pub(super) fn known(&self, key: &Key, now_ms: i64) -> Vec<(EventId, [u8; 32])> {
        let rows = self.by_key.get(key).into_iter().flatten().filter_map(|number| self.rows.get(number));
        let mut known: Vec<_> = rows.filter(|row| row.expires_ms > now_ms).map(|row| (row.event, row.body)).collect();
        known.sort_unstable();
        known
    }

    /// The source whose share the keys of an event count in.
    pub(super) fn source_of(&self, event: EventId) -> Option<Name> {
        let number = self.by_event.get(&event)?.first()?;
        self.rows.get(number).map(|row| Name::clone(&row.source))
    }

    /// Whether [`KeyTable::remember`] can record all of these, after expired keys made room.
    pub(super) fn has_room(&mut self, keys: &Keys, now_ms: i64) -> bool {
        let missing = keys.all().filter(|lived| self.find(&lived.key, &keys.body).is_none()).count();
        if self.rows.len() + missing <= self.capacity {
            return true;
        }
        self.sweep(now_ms, usize::MAX);
        match self.on_full {
            OnFull::Refuse => self.rows.len() + missing <= self.capacity,
            OnFull::Evict => missing <= self.capacity,
        }
    }

    /// Records keys, as far as there is room. A known one lives on for the longer of both lives.
    pub(super) fn remember(&mut self, event: EventId, source: &Name, keys: &Keys, now_ms: i64) {
        let first_new = self.next;
        for lived in keys.all() {
            let expires_ms = after(now_ms, lived.lives);
            if let Some(number) = self.find(&lived.key, &keys.body)
                && let Some(known) = self.remove(number)
                && known.expires_ms > now_ms
            {
                // It keeps its age: an extended life is no protection from eviction.
                self.insert(number, Row { expires_ms: expires_ms.max(known.expires_ms), ..known });
                continue;
            }
            if self.rows.len() >= self.capacity && !self.evict(first_new) {
                return;
            }
            let row = Row { key: lived.key, body: keys.body, event, source: Name::clone(source), expires_ms };
            self.insert(self.next, row);
            self.next += 1;
        }
    }

    /// Forgets the keys of an event.
    pub(super) fn forget(&mut self, event: EventId) {
        for number in self.by_event.get(&event).cloned().unwrap_or_default() {
            self.remove(number);
        }
    }

    /// The keys that stand for an event and have not expired, with when they do, in order.
    pub(super) fn of_event(&self, event: EventId, now_ms: i64) -> Vec<(Key, i64)> {
        let rows = self.by_event.get(&event).into_iter().flatten().map(|number| &self.rows[number]);
        let live = rows.filter(|row| row.expires_ms > now_ms);
        let mut live: Vec<_> = live.map(|row| (row.key, row.expires_ms)).collect();
        live.sort_unstable_by_key(|(key, _)| key.0);
        live
    }

    /// The events that a key stands for, expired or not.
    pub(super) fn owners(&self, key: &Key) -> BTreeSet<EventId> {
        self.by_key.get(key).into_iter().flatten().map(|number| self.rows[number].event).collect()
    }

    /// Removes up to `max` expired keys.
    pub(super) fn sweep(&mut self, now_ms: i64, max: usize) -> usize {
        let mut removed = 0;
        while removed < max
            && let Some((_, number)) = self.expiring.first().copied().filter(|(expires_ms, _)| *expires_ms <= now_ms)
        {
            self.remove(number);
            removed += 1;
        }
        removed
    }

    /// Forgets the oldest key of the source with the most, but none numbered `keep_from` or later.
    fn evict(&mut self, keep_from: u64) -> bool {
        if self.on_full == OnFull::Refuse {
            return false;
        }
        let oldest = self
            .by_source
            .values()
            .filter_map(|numbers| Some((numbers.len(), *numbers.first()?)))
            .filter(|(_, oldest)| *oldest < keep_from)
            .max_by_key(|(count, _)| *count);
        let Some((_, number)) = oldest else { return false };
        self.remove(number);
        self.evicted += 1;
        true
    }

    fn find(&self, key: &Key, body: &[u8; 32]) -> Option<u64> {
        let numbers = self.by_key.get(key)?;
        numbers.iter().copied().find(|number| self.rows.get(number).is_some_and(|row| row.body == *body))
    }

    fn insert(&mut self, number: u64, row: Row) {
        self.by_key.entry(row.key).or_default().push(number);
        self.by_event.entry(row.event).or_default().push(number);
        self.by_source.entry(Name::clone(&row.source)).or_default().insert(number);
        self.expiring.insert((row.expires_ms, number));
        self.rows.insert(number, row);
    }

    fn remove(&mut self, number: u64) -> Option<Row> {
        let row = self.rows.remove(&number)?;
        drop_number(&mut self.by_key, &row.key, number);
        drop_number(&mut self.by_event, &row.event, number);
        if let Some(numbers) = self.by_source.get_mut(&row.source) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_source.remove(&row.source);
            }
        }
        self.expiring.remove(&(row.expires_ms, number));
        Some(row)
    }
}

fn drop_number<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Vec<u64>>, key: &K, number: u64) {
    if let Some(numbers) = map.get_mut(key) {
        numbers.retain(|other| *other != number);
        if numbers.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{time::Wall, verify::Lived};

    fn keys(n: u8, lives_s: u64) -> Keys {
        let replay = Some(Lived { key: Key([n; 32]), lives: Duration::from_secs(lives_s) });
        Keys { body: [n; 32], replay, nonce: None, event: None, timed: true, fell_back: false }
    }

    #[test]
    fn eviction_takes_the_oldest_of_the_source_with_the_most() {
        let mut table = KeyTable::new(4, OnFull::Evict);
        let id = EventId::new(Wall::from_unix_s(1));
        let (quiet, loud) = (Name::from("quiet"), Name::from("loud"));
        table.remember(id, &quiet, &keys(1, 60), 0);
        for n in 2..8 {
            assert!(table.has_room(&keys(n, 60), 0));
            table.remember(id, &loud, &keys(n, 60), 0);
        }
        let known: Vec<u8> = (1..8).filter(|n| !table.known(&Key([*n; 32]), 0).is_empty()).collect();
        assert_eq!(known, [1, 5, 6, 7]);
        assert_eq!((table.evicted(), table.len()), (3, 4));
    }

    #[test]
    fn a_full_table_refuses_until_keys_expire() {
        let mut table = KeyTable::new(1, OnFull::Refuse);
        let (id, source) = (EventId::new(Wall::from_unix_s(1)), Name::from("a"));
        table.remember(id, &source, &keys(1, 60), 0);
        assert!(!table.has_room(&keys(2, 60), 59_999));
        assert!(table.has_room(&keys(1, 60), 59_999), "a known key needs no room");
        assert!(table.has_room(&keys(2, 60), 60_000));
    }
}
