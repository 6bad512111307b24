//! What is read beside the writer, each in one snapshot: one event, numbers, what is due. Lists are in `list`.
//!
//! A reader cannot put anything right: what is damaged is left out and counted, or is an error if it was asked for.

use std::{collections::BTreeMap, path::Path, sync::PoisonError, time::Duration};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    super::{
        Operation, Pause, Shown, Stats, StoreError,
        elapsed::between,
        judge::NEVER,
        vault::{Kind, Vault},
    },
    damage::{Damage, of_event},
    desk::{DELIVERIES_OF_EVENT, EVENT},
    job::{Shared, Stop},
    lease::{BODY, NEXT_SOURCE},
    open::files_bytes,
    rows::{self, EventRow, Sql},
    seal::{self, ATTEMPTS, DELIVERIES, EVENTS, ITEMS, KEYS, OPERATIONS, PAUSES},
};
use crate::{
    event::{Attempt, Body, Delivery, Event, EventId, Item, Name, OrderKey, State},
    time::Wall,
    verify::Key,
};

pub(super) const FIRST_DUE: &str = "SELECT min(due_at) FROM deliveries WHERE upstream = ?1 AND source = CAST(?2 AS TEXT) AND state IN ('due', 'leased')";
pub(super) const OLDEST_DUE: &str = "SELECT min(armed_at) FROM deliveries WHERE upstream = ?1 AND state = 'due'";
static KNOWN_ITEM: Sql =
    Sql::new(|| format!("SELECT {} FROM items WHERE upstream = ?1 AND key = ?2 AND expires_at > ?3", ITEMS.listed()));
static HISTORY: Sql =
    Sql::new(|| format!("SELECT {} FROM attempts WHERE delivery = ?1 ORDER BY number", ATTEMPTS.listed()));
static LIVE_KEYS: Sql = Sql::new(|| format!("SELECT {} FROM keys WHERE event = ?1 AND expires_at > ?2", KEYS.listed()));

/// What a read has at hand.
pub(super) struct Reading<'a> {
    pub(super) connection: &'a Connection,
    pub(super) now_ms: i64,
    pub(super) vault: &'a Vault,
    pub(super) damage: &'a Damage,
}

impl Reading<'_> {
    /// The earliest of all sources; those that wait for their turn are due when that comes.
    pub(super) fn next_due(&self, upstream: &str) -> Result<Option<Duration>, Stop> {
        let mut sources = self.connection.prepare_cached(NEXT_SOURCE)?;
        let mut first_due = self.connection.prepare_cached(FIRST_DUE)?;
        let (mut at, mut first) = (Vec::new(), NEVER);
        while let Some(source) = sources.query_row((upstream, &at), |row| row.get::<_, Option<Vec<u8>>>(0))? {
            let due_at: Option<i64> = first_due.query_row((upstream, &source), |row| row.get(0))?;
            first = first.min(due_at.unwrap_or(NEVER));
            at = source;
        }
        Ok((first != NEVER).then(|| between(self.now_ms, first)))
    }

    pub(super) fn acknowledged_items(&self, upstream: &str, items: &[Item]) -> Result<Vec<Option<[u8; 32]>>, Stop> {
        let mut known = self.connection.prepare_cached(&KNOWN_ITEM)?;
        let mut contents = Vec::with_capacity(items.len());
        for item in items {
            let found = known
                .query_row(params![upstream, item.key.0, self.now_ms], |row| {
                    ITEMS.read(row, 0, |row, at| {
                        Ok((row.get::<_, Name>(at)?, row.get::<_, [u8; 32]>(at + 1)?, row.get(at + 2)?))
                    })
                })
                .optional()?;
            contents.push(match found {
                Some(Some((of, key, content))) if *of == *upstream && key == item.key.0 => Some(content),
                None => None,
                Some(_) => {
                    self.damage.found(ITEMS.name, format!("{upstream} {:02x?}", &item.key.0[..8]));
                    None
                }
            });
        }
        Ok(contents)
    }

    pub(super) fn show(&self, id: EventId) -> Result<Shown, Stop> {
        let snapshot = self.connection.unchecked_transaction()?;
        let found =
            snapshot.prepare_cached(&EVENT)?.query_row([id.as_bytes()], |row| rows::event(row, 0)).optional()?;
        let event = match found {
            None => return Err(StoreError::NotFound.into()),
            Some(Some(event)) if event.head.id == id => event,
            Some(_) => return Err(self.damaged(EVENTS.name, id)),
        };
        let body = self.body(&event)?;
        let Some(deliveries) = self.deliveries(id, true)? else { return Err(of_event(id).into()) };
        Ok(Shown {
            body_removed: event.body_seal.is_none(),
            event: Event { head: event.head, body: Body::free(body.unwrap_or_default()), copies: event.copies },
            keys: self.live_keys(id)?,
            deliveries,
        })
    }

    /// The body as received; `None` if it was removed.
    pub(super) fn body(&self, event: &EventRow) -> Result<Option<Vec<u8>>, Stop> {
        let Some(body_seal) = event.body_seal else { return Ok(None) };
        let id = event.head.id;
        let stored: Option<Vec<u8>> =
            self.connection.prepare_cached(BODY)?.query_row([event.seq], |row| row.get(0)).optional()?;
        let Some(stored) = stored.filter(|stored| seal::of_body(stored) == body_seal) else {
            return Err(self.damaged("bodies", id));
        };
        match &event.body_key {
            None => Ok(Some(stored)),
            Some(key) => match self.vault.open(Kind::Event, id, key, &stored) {
                Err(StoreError::Damaged(_)) => Err(self.damaged("bodies", id)),
                opened => Ok(Some(opened?)),
            },
        }
    }

    fn damaged(&self, table: &'static str, id: EventId) -> Stop {
        self.damage.found(table, id);
        of_event(id).into()
    }

    /// The deliveries of an event; `None` if one of them is damaged.
    pub(super) fn deliveries(&self, event: EventId, with_history: bool) -> Result<Option<Vec<Delivery>>, Stop> {
        let mut statement = self.connection.prepare_cached(&DELIVERIES_OF_EVENT)?;
        let mut found = statement.query([event.as_bytes()])?;
        let mut deliveries = Vec::new();
        while let Some(row) = found.next()? {
            let Some(placed) = rows::placed(row, 0)?.filter(|placed| placed.event == event) else {
                self.damage.found(DELIVERIES.name, row.get::<_, i64>(0)?);
                return Ok(None);
            };
            let is_due = placed.state == State::Due && !placed.waits();
            deliveries.push(Delivery {
                history: if with_history { self.history(placed.id)? } else { Vec::new() },
                upstream: placed.upstream,
                state: placed.state,
                reason: placed.reason,
                attempts: placed.attempts,
                due_in: is_due.then(|| between(self.now_ms, placed.due_at)),
                order_key: placed.order_key.and_then(|key| OrderKey::new(&key)),
            });
        }
        Ok(Some(deliveries))
    }

    fn history(&self, delivery: i64) -> Result<Vec<Attempt>, Stop> {
        let mut statement = self.connection.prepare_cached(&HISTORY)?;
        let mut found = statement.query([delivery])?;
        let mut history = Vec::new();
        while let Some(row) = found.next()? {
            match rows::attempt(row, 0)? {
                Some(attempt) => history.push(attempt),
                None => self.damage.found(ATTEMPTS.name, format!("{delivery} {:?}", row.get_ref(1)?)),
            }
        }
        Ok(history)
    }

    fn live_keys(&self, event: EventId) -> Result<Vec<(Key, Duration)>, Stop> {
        let mut statement = self.connection.prepare_cached(&LIVE_KEYS)?;
        let mut found = statement.query((event.as_bytes(), self.now_ms))?;
        let mut keys = BTreeMap::new();
        while let Some(row) = found.next()? {
            match KEYS.read(row, 0, |row, at| Ok((row.get(at + 1)?, row.get(at + 4)?)))? {
                Some((key, expires_at)) => drop(keys.insert(key, between(self.now_ms, expires_at))),
                None => self.damage.found(KEYS.name, row.get::<_, i64>(0)?),
            }
        }
        Ok(keys.into_iter().map(|(key, lives)| (Key(key), lives)).collect())
    }

    pub(super) fn operations(&self) -> Result<Vec<Operation>, Stop> {
        let sql = format!("SELECT {} FROM operations ORDER BY id DESC", OPERATIONS.listed());
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut found = statement.query([])?;
        let mut operations = Vec::new();
        while let Some(row) = found.next()? {
            match rows::operation(row, 0)? {
                Some(operation) => operations.push(operation),
                None => self.damage.found(OPERATIONS.name, format!("{:?}", row.get_ref(0)?)),
            }
        }
        Ok(operations)
    }

    pub(super) fn paused(&self) -> Result<BTreeMap<Name, Pause>, Stop> {
        let sql = format!("SELECT {} FROM pauses", PAUSES.listed());
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut found = statement.query([])?;
        let mut paused = BTreeMap::new();
        while let Some(row) = found.next()? {
            let pause = PAUSES.read(row, 0, |row, at| {
                let pause = Pause { since: Wall::from_unix_ns(row.get(at + 1)?), by: row.get(at + 2)? };
                Ok((row.get(at)?, pause))
            })?;
            match pause {
                Some((upstream, pause)) => drop(paused.insert(upstream, pause)),
                None => self.damage.found(PAUSES.name, format!("{:?}", row.get_ref(0)?)),
            }
        }
        Ok(paused)
    }

    pub(super) fn stats(&self, shared: &Shared, share_bytes_max: u64, directory: &Path) -> Result<Stats, Stop> {
        let tallies = shared.tallies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let number = |n: i64| u64::try_from(n).unwrap_or(0);
        let mut stats = Stats {
            bytes: files_bytes(directory),
            events: number(tallies.events),
            keys: number(tallies.keys),
            unrouted: number(tallies.unrouted),
            damaged: self.damage.count(),
            share_bytes_max,
            ..Stats::default()
        };
        for ((upstream, state), count) in tallies.counts.into_iter().filter(|(_, count)| count.n > 0) {
            if state == State::Due {
                let oldest: Option<i64> =
                    self.connection.prepare_cached(OLDEST_DUE)?.query_row([&upstream], |row| row.get(0))?;
                if let Some(oldest) = oldest {
                    stats.oldest_due.insert(Name::clone(&upstream), between(oldest, self.now_ms));
                }
            }
            if state != State::Delivered {
                *stats.open_bytes.entry(Name::clone(&upstream)).or_default() += number(count.bytes);
            }
            stats.deliveries.insert((upstream, state), number(count.n));
        }
        Ok(stats)
    }
}
