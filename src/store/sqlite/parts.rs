//! What several jobs are made of: storing an event, keys, deliveries, room.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::{
    super::{
        Appended, Lease, StoreError,
        elapsed::after,
        judge::{Birth, birth, cause, rearms, reason},
    },
    open::PAGE_BYTES,
    ops::Desk,
    rows,
    writer::Stop,
};
use crate::{
    event::{Answer, Begin, Body, EventHead, EventId, Name, NewEvent, OnConflict, State},
    verify::Keys,
};

/// What an event takes besides its body and headers: its row, deliveries, keys and indexes.
const OVERHEAD_BYTES: u64 = 4096;
/// History is removed for a new event this many events at a time, and this often.
const ROOM_SLICE: usize = 64;
const ROOM_SLICES: usize = 4;

/// A delivery as far as decisions need it.
pub(super) struct Placed {
    pub(super) id: i64,
    pub(super) upstream: Name,
    pub(super) state: State,
}

pub(super) const OLDEST_HISTORY: &str = "SELECT seq, id FROM events
     WHERE finished_at IS NOT NULL AND finished_at <= ?1 ORDER BY finished_at LIMIT ?2";

impl Desk<'_> {
    // ---- Parts of an append.
    //
    // A statement that fires a trigger and may fail half-way copies each page that it changes before, to be able to
    // undo itself alone. Here a failure always undoes the whole group: `OR ROLLBACK` says so and spares the copies.

    pub(super) fn store_conflict(&mut self, mut event: NewEvent, first: EventId) -> Result<Appended, Stop> {
        let on_conflict = event.on_conflict;
        if on_conflict == OnConflict::Drop {
            self.count_copy(first)?;
            return Ok(Appended::Conflict { id: None, first });
        }
        event.head.conflict_of = Some(first);
        let id = event.head.id;
        self.store(&event, Some(on_conflict))?;
        Ok(Appended::Conflict { id: Some(id), first })
    }

    pub(super) fn store_new(&mut self, mut event: NewEvent, duplicate_of: Option<EventId>) -> Result<Appended, Stop> {
        event.head.duplicate_of = duplicate_of;
        let lease = self.store(&event, None)?;
        if let Some(first) = duplicate_of {
            self.count_copy(first)?;
        }
        Ok(Appended::New { id: event.head.id, lease, duplicate_of })
    }

    /// Writes a new event with its keys and deliveries. Returns the lease of a delivery born leased.
    pub(super) fn store(&mut self, event: &NewEvent, conflict: Option<OnConflict>) -> Result<Option<Lease>, Stop> {
        let NewEvent { head, body, keys, upstreams, begin, .. } = event;
        let headers = rows::encode_headers(&head.headers);
        self.make_room(body.len() + headers.len())?;
        self.insert_event(head, &headers, body, upstreams.is_empty())?;
        self.remember(head.id, keys)?;
        let mut lease = None;
        for (index, upstream) in upstreams.iter().enumerate() {
            if upstreams[..index].contains(upstream) {
                continue;
            }
            let born = birth(*begin, conflict, index == 0, self.books.is_configured(upstream));
            let delivery = self.insert_delivery(head.id, upstream, born)?;
            if let (Begin::FirstLeased(_), Birth::Leased(_)) = (begin, born) {
                lease = Some(Lease { delivery, fence: 0 });
            }
            if born == Birth::Due {
                self.books.wake.insert(Name::clone(upstream));
            }
        }
        Ok(lease)
    }

    pub(super) fn insert_event(
        &mut self,
        head: &EventHead,
        headers: &[u8],
        body: &Body,
        finished: bool,
    ) -> Result<(), Stop> {
        self.connection
            .prepare_cached(
                "INSERT OR ROLLBACK INTO events (id, source, provider, received_ns, method, query, client_address, client_proto,
                 client_host, headers, event_type, attempt_id, verified, traceparent, duplicate_of, conflict_of,
                 body_bytes, finished_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
            )?
            .execute(params![
                head.id.as_bytes(),
                head.source,
                head.provider,
                head.received_at.unix_ns(),
                head.method,
                head.query,
                head.client.address,
                head.client.proto,
                head.client.host,
                headers,
                head.event_type,
                head.attempt_id,
                head.verified,
                head.traceparent,
                head.duplicate_of.as_ref().map(EventId::as_bytes),
                head.conflict_of.as_ref().map(EventId::as_bytes),
                i64::try_from(body.len()).unwrap_or(i64::MAX),
                finished.then_some(self.now_ms),
            ])?;
        let seq = self.connection.last_insert_rowid();
        self.connection
            .prepare_cached("INSERT OR ROLLBACK INTO bodies VALUES (?1, ?2)")?
            .execute(params![seq, &body[..]])?;
        Ok(())
    }

    pub(super) fn insert_delivery(&mut self, event: EventId, upstream: &str, born: Birth) -> Result<i64, Stop> {
        let id = self.books.next_delivery;
        self.books.next_delivery += 1;
        let due_at = born.due_at(self.now_ms);
        self.connection
            .prepare_cached(
                "INSERT OR ROLLBACK INTO deliveries (id, event, upstream, state, reason, due_at, armed_at, cause)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                id,
                event.as_bytes(),
                upstream,
                born.state().name(),
                born.reason(),
                due_at,
                self.now_ms,
                cause::FIRST
            ])?;
        Ok(id)
    }

    pub(super) fn rearm(&mut self, first: EventId, deliveries: &[Placed]) -> Result<u32, Stop> {
        let mut rearmed = 0;
        for placed in deliveries {
            if rearms(placed.state, self.books.is_configured(&placed.upstream)) {
                self.arm(placed, cause::RE_SEND)?;
                rearmed += 1;
            }
        }
        self.unfinish(first)?;
        Ok(rearmed)
    }

    // ---- Keys and answers.

    /// The unexpired rows of a key, oldest event first.
    pub(super) fn known(&self, key: &[u8; 32]) -> rusqlite::Result<Vec<(EventId, [u8; 32])>> {
        self.connection
            .prepare_cached("SELECT event, body FROM keys WHERE key = ?1 AND expires_at > ?2 ORDER BY event")?
            .query_map((key, self.now_ms), |row| Ok((rows::event_id(row, 0)?, row.get(1)?)))?
            .collect()
    }

    pub(super) fn note_copy(&mut self, first: EventId, keys: &Keys) -> Result<(), Stop> {
        self.count_copy(first)?;
        self.remember(first, keys)
    }

    /// Records keys. A known one lives on for the longer of both lives; an expired one is taken over.
    pub(super) fn remember(&mut self, event: EventId, keys: &Keys) -> Result<(), Stop> {
        for lived in keys.all() {
            let until = after(self.now_ms, lived.lives);
            let inserted = self
                .connection
                .prepare_cached(
                    "INSERT OR ROLLBACK INTO keys (key, body, event, expires_at) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO NOTHING",
                )?
                .execute(params![lived.key.0, keys.body, event.as_bytes(), until])?;
            if inserted == 0 {
                self.connection
                    .prepare_cached(
                        "UPDATE OR ROLLBACK keys SET event = CASE WHEN expires_at <= ?5 THEN ?3 ELSE event END,
                         expires_at = max(expires_at, ?4) WHERE key = ?1 AND body = ?2",
                    )?
                    .execute(params![lived.key.0, keys.body, event.as_bytes(), until, self.now_ms])?;
            }
        }
        Ok(())
    }

    pub(super) fn forget_keys(&mut self, event: EventId) -> Result<(), Stop> {
        self.connection.prepare_cached("DELETE FROM keys WHERE event = ?1")?.execute([event.as_bytes()])?;
        self.connection.prepare_cached("DELETE FROM answers WHERE event = ?1")?.execute([event.as_bytes()])?;
        Ok(())
    }

    pub(super) fn answer(&self, event: EventId) -> Result<Option<Answer>, Stop> {
        let answer = self
            .connection
            .prepare_cached("SELECT status, content_type, body FROM answers WHERE event = ?1 AND expires_at > ?2")?
            .query_row((event.as_bytes(), self.now_ms), |row| rows::answer(row, 0))
            .optional()?;
        Ok(answer)
    }

    pub(super) fn keep_answer(&mut self, event: EventId, answer: &Answer, kept: Duration) -> Result<(), Stop> {
        self.connection.prepare_cached("INSERT OR REPLACE INTO answers VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(
            params![event.as_bytes(), answer.status, answer.content_type, &answer.body[..], after(self.now_ms, kept)],
        )?;
        Ok(())
    }

    // ---- Deliveries and events.

    pub(super) fn seq_of(&self, id: EventId) -> Result<i64, Stop> {
        self.connection
            .prepare_cached("SELECT seq FROM events WHERE id = ?1")?
            .query_row([id.as_bytes()], |row| row.get(0))
            .optional()?
            .ok_or(Stop::Refused(StoreError::NotFound))
    }

    pub(super) fn deliveries_of(&self, event: EventId) -> rusqlite::Result<Vec<Placed>> {
        self.connection
            .prepare_cached("SELECT id, upstream, state FROM deliveries WHERE event = ?1 ORDER BY id")?
            .query_map([event.as_bytes()], |row| {
                Ok(Placed { id: row.get(0)?, upstream: row.get(1)?, state: rows::state(row, 2)? })
            })?
            .collect()
    }

    /// The event, upstream, attempts and cause of a lease that is still its holder's.
    pub(super) fn current(&self, lease: Lease) -> Result<(EventId, Name, u32, String), Stop> {
        self.connection
            .prepare_cached(
                "SELECT event, upstream, attempts, cause FROM deliveries
                 WHERE id = ?1 AND fence = ?2 AND state = 'leased'",
            )?
            .query_row((lease.delivery, lease.fence), |row| {
                Ok((rows::event_id(row, 0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()?
            .ok_or(Stop::Refused(StoreError::LeaseLost))
    }

    /// Makes a delivery due now, with its age counted anew; parked if its upstream is gone.
    pub(super) fn arm(&mut self, placed: &Placed, cause: &str) -> Result<(), Stop> {
        let configured = self.books.is_configured(&placed.upstream);
        let (state, reason) =
            if configured { (State::Due, None) } else { (State::Parked, Some(reason::UPSTREAM_REMOVED)) };
        self.connection
            .prepare_cached(
                "UPDATE OR ROLLBACK deliveries SET state = ?2, reason = ?3, due_at = ?4, armed_at = ?4, cause = ?5 WHERE id = ?1",
            )?
            .execute(params![placed.id, state.name(), reason, self.now_ms, cause])?;
        if configured {
            self.books.wake.insert(Name::clone(&placed.upstream));
        }
        Ok(())
    }

    pub(super) fn unfinish(&mut self, event: EventId) -> Result<(), Stop> {
        self.connection
            .prepare_cached("UPDATE events SET finished_at = NULL WHERE id = ?1 AND finished_at IS NOT NULL")?
            .execute([event.as_bytes()])?;
        Ok(())
    }

    /// Removes the oldest events that were finished at or before `until_ms`. Their keys live on.
    pub(super) fn remove_history(&mut self, until_ms: i64, max: usize) -> Result<usize, Stop> {
        let finished: Vec<(i64, EventId)> = self
            .connection
            .prepare_cached(OLDEST_HISTORY)?
            .query_map((until_ms, i64::try_from(max).unwrap_or(i64::MAX)), |row| {
                Ok((row.get(0)?, rows::event_id(row, 1)?))
            })?
            .collect::<Result<_, _>>()?;
        for (seq, id) in &finished {
            self.remove_event(*seq, *id)?;
        }
        Ok(finished.len())
    }

    pub(super) fn remove_event(&mut self, seq: i64, id: EventId) -> Result<(), Stop> {
        self.connection
            .prepare_cached("DELETE FROM attempts WHERE delivery IN (SELECT id FROM deliveries WHERE event = ?1)")?
            .execute([id.as_bytes()])?;
        self.connection.prepare_cached("DELETE FROM deliveries WHERE event = ?1")?.execute([id.as_bytes()])?;
        self.connection.prepare_cached("DELETE FROM bodies WHERE seq = ?1")?.execute([seq])?;
        self.connection.prepare_cached("DELETE FROM events WHERE seq = ?1")?.execute([seq])?;
        Ok(())
    }

    // ---- Room.

    /// Takes room for something new of this size; history goes first.
    pub(super) fn make_room(&mut self, bytes: usize) -> Result<(), Stop> {
        if !self.books.spare.renew(self.now_ms) {
            return Err(StoreError::Full("no space is left on its disk".to_owned()).into());
        }
        let needed = bytes as u64 + OVERHEAD_BYTES;
        let mut room = match self.books.room_bytes {
            Some(room) if room >= needed => room,
            _ => self.room()?,
        };
        for _ in 0..ROOM_SLICES {
            if room >= needed || self.remove_history(i64::MAX, ROOM_SLICE)? == 0 {
                break;
            }
            room = self.room()?;
        }
        self.books.full = room < needed;
        self.books.room_bytes = Some(room.saturating_sub(needed));
        if self.books.full {
            return Err(StoreError::Full("`store.disk_bytes_max` is reached".to_owned()).into());
        }
        Ok(())
    }

    pub(super) fn room(&self) -> rusqlite::Result<u64> {
        let (pages, free) = self.pages()?;
        Ok(self.books.limits.soft_bytes.saturating_sub((pages - free) * PAGE_BYTES))
    }

    /// Pages of the database file, and how many of them are free.
    pub(super) fn pages(&self) -> rusqlite::Result<(u64, u64)> {
        let pages = self.connection.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0))?;
        let free = self.connection.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
        Ok((pages, free))
    }
}
