//! What the writer does inside a transaction, job by job. Refusals come before a job's first write.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    super::{
        Appended, Known, Lease, Leased, Outcome, Settled, StoreError, Swept,
        elapsed::{after, between},
        judge::{
            Birth, HISTORY_MAX, ITEM_LIFE, Resend, SWEEP_SLICE, Verdict, birth, cause, judge, rearms, reason, resend,
        },
    },
    open::{DiskLimits, PAGE_BYTES},
    rows::{self, HEAD},
    writer::Stop,
};
use crate::{
    event::{Answer, Begin, Body, Event, EventHead, EventId, Name, NewEvent, OnConflict, State},
    verify::Keys,
};

/// What an event takes besides its body and headers: its row, deliveries, keys and indexes.
const OVERHEAD_BYTES: u64 = 4096;
/// History is removed for a new event this many events at a time, and this often.
const ROOM_SLICE: usize = 64;
const ROOM_SLICES: usize = 4;

/// What the writer knows between jobs.
#[derive(Debug)]
pub(super) struct Books {
    limits: DiskLimits,
    next_delivery: i64,
    /// The upstreams of the configuration, once somebody reconciled.
    configured: Option<BTreeSet<Name>>,
    /// Whom to wake after the commit.
    wake: BTreeSet<Name>,
    /// Bytes until the soft limit, if they were looked up in this transaction.
    room_bytes: Option<u64>,
    full: bool,
    changes_before: u64,
}

impl Books {
    pub(super) fn new(connection: &Connection, limits: DiskLimits, next_delivery: i64) -> Self {
        Self {
            limits,
            next_delivery,
            configured: None,
            wake: BTreeSet::new(),
            room_bytes: None,
            full: false,
            changes_before: connection.total_changes(),
        }
    }

    pub(super) fn wrote(&self, connection: &Connection) -> bool {
        connection.total_changes() != self.changes_before
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Ends a transaction's entries. Returns whom to wake.
    pub(super) fn committed(&mut self, connection: &Connection) -> BTreeSet<Name> {
        self.changes_before = connection.total_changes();
        self.room_bytes = None;
        mem::take(&mut self.wake)
    }

    pub(super) fn rolled_back(&mut self, connection: &Connection) {
        drop(self.committed(connection));
    }

    fn is_configured(&self, upstream: &str) -> bool {
        self.configured.as_ref().is_none_or(|all| all.contains(upstream))
    }
}

/// One job's view of the open transaction.
pub(super) struct Desk<'a> {
    pub(super) connection: &'a Connection,
    pub(super) now_ms: i64,
    pub(super) books: &'a mut Books,
}

/// A delivery as far as decisions need it.
struct Placed {
    id: i64,
    upstream: Name,
    state: State,
}

impl Desk<'_> {
    pub(super) fn append(&mut self, event: NewEvent) -> Result<Appended, Stop> {
        let verdict = judge(&event.keys, |key| self.known(&key.0))?;
        match verdict {
            Verdict::New => self.store_new(event, None),
            Verdict::Conflict { first } => self.store_conflict(event, first),
            Verdict::Copy { first, exact } => {
                let deliveries = self.deliveries_of(first)?;
                let states: Vec<_> = deliveries
                    .iter()
                    .map(|placed| (placed.state, self.books.is_configured(&placed.upstream)))
                    .collect();
                let rearmed = match resend(exact, &states, event.on_resend) {
                    Resend::StoreAgain => return self.store_new(event, Some(first)),
                    Resend::Rearm => self.rearm(first, &deliveries)?,
                    Resend::Count => 0,
                };
                self.note_copy(first, &event.keys)?;
                Ok(Appended::Known { first, rearmed, answer: self.answer(first)? })
            }
        }
    }

    pub(super) fn lookup(&mut self, keys: &Keys) -> Result<Known, Stop> {
        Ok(match judge(keys, |key| self.known(&key.0))? {
            Verdict::New => Known::No,
            Verdict::Conflict { first } => Known::Conflict { first },
            Verdict::Copy { first, .. } => {
                self.note_copy(first, keys)?;
                Known::Copy { first, answer: self.answer(first)? }
            }
        })
    }

    pub(super) fn record(&mut self, id: EventId, keys: &Keys, answer: Option<&(Answer, Duration)>) -> Result<(), Stop> {
        self.make_room(answer.map_or(0, |(answer, _)| answer.body.len()))?;
        self.remember(id, keys)?;
        if let Some((answer, kept)) = answer {
            self.keep_answer(id, answer, *kept)?;
        }
        Ok(())
    }

    pub(super) fn count_copy(&mut self, first: EventId) -> Result<(), Stop> {
        self.connection
            .prepare_cached("UPDATE events SET copies = copies + 1 WHERE id = ?1")?
            .execute([first.as_bytes()])?;
        Ok(())
    }

    pub(super) fn lease(&mut self, upstream: &str, max: usize, length: Duration) -> Result<Vec<Leased>, Stop> {
        let sql = lease_sql();
        let mut due = self.connection.prepare_cached(&sql)?;
        let mut rows = due.query(params![upstream, self.now_ms, i64::try_from(max).unwrap_or(i64::MAX)])?;
        let (mut leased, mut unreadable) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            let at = rows::HEAD_END;
            let delivery: i64 = row.get(at)?;
            match self.leased(row) {
                Ok(one) => leased.push(one),
                // A row that cannot be read must not stop what is behind it.
                Err(error) if error.sqlite_error_code().is_none() => unreadable.push((delivery, error.to_string())),
                Err(error) => return Err(error.into()),
            }
        }
        drop(rows);
        let until = after(self.now_ms, length);
        for one in &leased {
            self.connection
                .prepare_cached(
                    "UPDATE deliveries SET state = 'leased', due_at = ?2, fence = ?3, cause = ?4 WHERE id = ?1",
                )?
                .execute(params![one.lease.delivery, until, one.lease.fence, one.cause])?;
        }
        for (delivery, why) in unreadable {
            tracing::error!(delivery, error = %why, "a stored event cannot be read; its delivery is a dead letter now");
            self.connection.execute(
                "UPDATE deliveries SET state = 'dead', reason = ?2 WHERE id = ?1",
                params![delivery, format!("unreadable: {why}")],
            )?;
        }
        Ok(leased)
    }

    fn leased(&self, row: &rusqlite::Row<'_>) -> rusqlite::Result<Leased> {
        let at = rows::HEAD_END;
        let head = rows::head(row)?;
        let body = bytes::Bytes::copy_from_slice(row.get_ref(at + 7)?.as_blob()?);
        let attempts: u32 = row.get(at + 4)?;
        let state = rows::state(row, at + 2)?;
        Ok(Leased {
            lease: Lease { delivery: row.get(at)?, fence: row.get::<_, i64>(at + 3)? + 1 },
            event: Event { head, body: Body::free(body), copies: row.get(rows::COPIES)? },
            upstream: row.get(at + 1)?,
            attempt: attempts + 1,
            cause: if state == State::Leased { cause::LEASE_LAPSED.to_owned() } else { row.get(at + 6)? },
            age: between(row.get(at + 5)?, self.now_ms),
        })
    }

    pub(super) fn settle(&mut self, lease: Lease, settled: &Settled) -> Result<(), Stop> {
        let (event, upstream, attempts, cause) = self.current(lease)?;
        let number = attempts.saturating_add(1);
        let attempt = &settled.attempt;
        let took_ns = i64::try_from(attempt.took.as_nanos()).unwrap_or(i64::MAX);
        self.connection.prepare_cached("INSERT INTO attempts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(
            params![lease.delivery, number, attempt.began_at.unix_ns(), took_ns, attempt.status, attempt.error, cause],
        )?;
        if number > HISTORY_MAX {
            self.connection
                .prepare_cached("DELETE FROM attempts WHERE delivery = ?1 AND number <= ?2")?
                .execute((lease.delivery, number - HISTORY_MAX))?;
        }
        let (state, due_at, reason) = match &settled.outcome {
            Outcome::Delivered { .. } => (State::Delivered, self.now_ms, None),
            Outcome::Retry { after: delay } => (State::Due, after(self.now_ms, *delay), why(settled)),
            Outcome::Dead { reason } => (State::Dead, self.now_ms, Some(reason.clone())),
        };
        self.connection
            .prepare_cached(
                "UPDATE deliveries SET state = ?2, due_at = ?3, reason = ?4, attempts = ?5, cause = ?6 WHERE id = ?1",
            )?
            .execute(params![lease.delivery, state.name(), due_at, reason, number, cause::RETRY])?;
        if let Outcome::Delivered { items } = &settled.outcome {
            self.connection
                .prepare_cached(
                    "UPDATE events SET finished_at = ?2 WHERE id = ?1
                     AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event = ?1 AND state <> 'delivered')",
                )?
                .execute((event.as_bytes(), self.now_ms))?;
            for item in items {
                self.connection
                    .prepare_cached("INSERT OR REPLACE INTO items VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![upstream, item.key.0, item.content, after(self.now_ms, ITEM_LIFE)])?;
            }
        }
        if let Some((answer, kept)) = &settled.answer {
            self.keep_answer(event, answer, *kept)?;
        }
        self.books.wake.insert(upstream);
        Ok(())
    }

    pub(super) fn give_back(&mut self, lease: Lease, delay: Duration) -> Result<(), Stop> {
        let (_, upstream, ..) = self.current(lease)?;
        self.connection
            .prepare_cached("UPDATE deliveries SET state = 'due', due_at = ?2 WHERE id = ?1")?
            .execute((lease.delivery, after(self.now_ms, delay)))?;
        self.books.wake.insert(upstream);
        Ok(())
    }

    pub(super) fn release(&mut self, id: EventId) -> Result<u32, Stop> {
        let mut released = 0;
        for placed in self.deliveries_of(id)?.into_iter().filter(|placed| placed.state == State::Held) {
            self.arm(&placed, cause::RELEASED)?;
            released += 1;
        }
        if released == 0 { Err(StoreError::NotFound.into()) } else { Ok(released) }
    }

    pub(super) fn redeliver(&mut self, id: EventId, upstream: Option<&str>) -> Result<u32, Stop> {
        self.seq_of(id)?;
        let mut deliveries = self.deliveries_of(id)?;
        if let Some(upstream) = upstream {
            deliveries.retain(|placed| &*placed.upstream == upstream);
        }
        let anew = upstream.filter(|upstream| deliveries.is_empty() && self.books.is_configured(upstream));
        deliveries.retain(|placed| {
            !matches!(placed.state, State::Leased | State::Held) && self.books.is_configured(&placed.upstream)
        });
        if let Some(upstream) = anew {
            let (name, id_of_new) = (Name::from(upstream), self.insert_delivery(id, upstream, Birth::Due)?);
            deliveries.push(Placed { id: id_of_new, upstream: name, state: State::Due });
        }
        if deliveries.is_empty() {
            return Err(StoreError::NotFound.into());
        }
        for placed in &deliveries {
            self.arm(placed, cause::REDELIVERY)?;
        }
        self.unfinish(id)?;
        Ok(u32::try_from(deliveries.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn forget(&mut self, id: EventId) -> Result<u64, Stop> {
        let live: u64 = self
            .connection
            .prepare_cached("SELECT count(*) FROM keys WHERE event = ?1 AND expires_at > ?2")?
            .query_row((id.as_bytes(), self.now_ms), |row| row.get(0))?;
        if live == 0 {
            self.seq_of(id)?;
        }
        self.forget_keys(id)?;
        Ok(live)
    }

    pub(super) fn purge(&mut self, id: EventId) -> Result<(), Stop> {
        let seq = self.seq_of(id)?;
        if self.deliveries_of(id)?.iter().any(|placed| placed.state == State::Leased) {
            return Err(StoreError::NotFound.into());
        }
        self.forget_keys(id)?;
        self.remove_event(seq, id)?;
        Ok(())
    }

    pub(super) fn reconcile(&mut self, upstreams: BTreeSet<Name>) -> Result<BTreeMap<Name, u64>, Stop> {
        self.books.configured = Some(upstreams);
        let all: Vec<Name> = self
            .connection
            .prepare_cached("SELECT DISTINCT upstream FROM counts WHERE n > 0")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for upstream in all {
            if !self.books.is_configured(&upstream) {
                self.connection
                    .prepare_cached(
                        "UPDATE deliveries SET cause = CASE state WHEN 'leased' THEN ?3 ELSE cause END,
                         state = 'parked', reason = ?2, fence = fence + 1
                         WHERE upstream = ?1 AND state IN ('due', 'leased')",
                    )?
                    .execute(params![upstream, reason::UPSTREAM_REMOVED, cause::LEASE_LAPSED])?;
                continue;
            }
            let armed = self
                .connection
                .prepare_cached(
                    "UPDATE deliveries SET state = 'due', reason = NULL, due_at = ?2, armed_at = ?2
                     WHERE upstream = ?1 AND state = 'parked' AND state IN ('held', 'parked', 'dead')",
                )?
                .execute(params![upstream, self.now_ms])?;
            if armed > 0 {
                self.books.wake.insert(upstream);
            }
        }
        let parked = self
            .connection
            .prepare_cached("SELECT upstream, n FROM counts WHERE state = 'parked' AND n > 0")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        Ok(parked)
    }

    pub(super) fn sweep(&mut self, retention: Duration) -> Result<Swept, Stop> {
        let slice = i64::try_from(SWEEP_SLICE).unwrap_or(i64::MAX);
        let mut removed = [0; 3];
        for (count, sql) in removed.iter_mut().zip([
            "DELETE FROM keys WHERE seq IN (SELECT seq FROM keys WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
            "DELETE FROM answers WHERE rowid IN
             (SELECT rowid FROM answers WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
            "DELETE FROM items WHERE rowid IN
             (SELECT rowid FROM items WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        ]) {
            *count = self.connection.prepare_cached(sql)?.execute((self.now_ms, slice))?;
        }
        let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let events = self.remove_history(self.now_ms.saturating_sub(retention_ms), SWEEP_SLICE)?;
        // What is free for good goes back to the file system, a megabyte at a time.
        let (pages, free) = self.pages()?;
        if free > 64 && free > pages / 4 {
            let mut vacuum = self.connection.prepare_cached("PRAGMA incremental_vacuum(64)")?;
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
        }
        if self.books.full {
            self.books.full = self.room()? == 0;
        }
        Ok(Swept {
            keys: (removed[0] + removed[1]) as u64,
            events: events as u64,
            more: events == SWEEP_SLICE || removed.contains(&SWEEP_SLICE),
        })
    }

    // ---- Parts of an append.

    fn store_conflict(&mut self, mut event: NewEvent, first: EventId) -> Result<Appended, Stop> {
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

    fn store_new(&mut self, mut event: NewEvent, duplicate_of: Option<EventId>) -> Result<Appended, Stop> {
        event.head.duplicate_of = duplicate_of;
        let lease = self.store(&event, None)?;
        if let Some(first) = duplicate_of {
            self.count_copy(first)?;
        }
        Ok(Appended::New { id: event.head.id, lease, duplicate_of })
    }

    /// Writes a new event with its keys and deliveries. Returns the lease of a delivery born leased.
    fn store(&mut self, event: &NewEvent, conflict: Option<OnConflict>) -> Result<Option<Lease>, Stop> {
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

    fn insert_event(&mut self, head: &EventHead, headers: &[u8], body: &Body, finished: bool) -> Result<(), Stop> {
        self.connection
            .prepare_cached(
                "INSERT INTO events (id, source, provider, received_ns, method, query, client_address, client_proto,
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
        self.connection.prepare_cached("INSERT INTO bodies VALUES (?1, ?2)")?.execute(params![seq, &body[..]])?;
        Ok(())
    }

    fn insert_delivery(&mut self, event: EventId, upstream: &str, born: Birth) -> Result<i64, Stop> {
        let id = self.books.next_delivery;
        self.books.next_delivery += 1;
        let due_at = match born {
            Birth::Leased(length) => after(self.now_ms, length),
            Birth::Due | Birth::Held(_) | Birth::Parked => self.now_ms,
        };
        self.connection
            .prepare_cached(
                "INSERT INTO deliveries (id, event, upstream, state, reason, due_at, armed_at, cause)
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

    fn rearm(&mut self, first: EventId, deliveries: &[Placed]) -> Result<u32, Stop> {
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
    fn known(&self, key: &[u8; 32]) -> rusqlite::Result<Vec<(EventId, [u8; 32])>> {
        self.connection
            .prepare_cached("SELECT event, body FROM keys WHERE key = ?1 AND expires_at > ?2 ORDER BY event")?
            .query_map((key, self.now_ms), |row| Ok((rows::event_id(row, 0)?, row.get(1)?)))?
            .collect()
    }

    fn note_copy(&mut self, first: EventId, keys: &Keys) -> Result<(), Stop> {
        self.count_copy(first)?;
        self.remember(first, keys)
    }

    /// Records keys. A known one lives on for the longer of both lives; an expired one is taken over.
    fn remember(&mut self, event: EventId, keys: &Keys) -> Result<(), Stop> {
        for lived in keys.all() {
            self.connection
                .prepare_cached(
                    "INSERT INTO keys (key, body, event, expires_at) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (key, body) DO UPDATE SET
                     event = CASE WHEN expires_at <= ?5 THEN excluded.event ELSE event END,
                     expires_at = max(expires_at, excluded.expires_at)",
                )?
                .execute(params![
                    lived.key.0,
                    keys.body,
                    event.as_bytes(),
                    after(self.now_ms, lived.lives),
                    self.now_ms
                ])?;
        }
        Ok(())
    }

    fn forget_keys(&mut self, event: EventId) -> Result<(), Stop> {
        self.connection.prepare_cached("DELETE FROM keys WHERE event = ?1")?.execute([event.as_bytes()])?;
        self.connection.prepare_cached("DELETE FROM answers WHERE event = ?1")?.execute([event.as_bytes()])?;
        Ok(())
    }

    fn answer(&self, event: EventId) -> Result<Option<Answer>, Stop> {
        let answer = self
            .connection
            .prepare_cached("SELECT status, content_type, body FROM answers WHERE event = ?1 AND expires_at > ?2")?
            .query_row((event.as_bytes(), self.now_ms), |row| rows::answer(row, 0))
            .optional()?;
        Ok(answer)
    }

    fn keep_answer(&mut self, event: EventId, answer: &Answer, kept: Duration) -> Result<(), Stop> {
        self.connection.prepare_cached("INSERT OR REPLACE INTO answers VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(
            params![event.as_bytes(), answer.status, answer.content_type, &answer.body[..], after(self.now_ms, kept)],
        )?;
        Ok(())
    }

    // ---- Deliveries and events.

    fn seq_of(&self, id: EventId) -> Result<i64, Stop> {
        self.connection
            .prepare_cached("SELECT seq FROM events WHERE id = ?1")?
            .query_row([id.as_bytes()], |row| row.get(0))
            .optional()?
            .ok_or(Stop::Refused(StoreError::NotFound))
    }

    fn deliveries_of(&self, event: EventId) -> rusqlite::Result<Vec<Placed>> {
        self.connection
            .prepare_cached("SELECT id, upstream, state FROM deliveries WHERE event = ?1 ORDER BY id")?
            .query_map([event.as_bytes()], |row| {
                Ok(Placed { id: row.get(0)?, upstream: row.get(1)?, state: rows::state(row, 2)? })
            })?
            .collect()
    }

    /// The event, upstream, attempts and cause of a lease that is still its holder's.
    fn current(&self, lease: Lease) -> Result<(EventId, Name, u32, String), Stop> {
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
    fn arm(&mut self, placed: &Placed, cause: &str) -> Result<(), Stop> {
        let configured = self.books.is_configured(&placed.upstream);
        let (state, reason) =
            if configured { (State::Due, None) } else { (State::Parked, Some(reason::UPSTREAM_REMOVED)) };
        self.connection
            .prepare_cached(
                "UPDATE deliveries SET state = ?2, reason = ?3, due_at = ?4, armed_at = ?4, cause = ?5 WHERE id = ?1",
            )?
            .execute(params![placed.id, state.name(), reason, self.now_ms, cause])?;
        if configured {
            self.books.wake.insert(Name::clone(&placed.upstream));
        }
        Ok(())
    }

    fn unfinish(&mut self, event: EventId) -> Result<(), Stop> {
        self.connection
            .prepare_cached("UPDATE events SET finished_at = NULL WHERE id = ?1 AND finished_at IS NOT NULL")?
            .execute([event.as_bytes()])?;
        Ok(())
    }

    /// Removes the oldest events that were finished at or before `until_ms`. Their keys live on.
    fn remove_history(&mut self, until_ms: i64, max: usize) -> Result<usize, Stop> {
        let finished: Vec<(i64, EventId)> = self
            .connection
            .prepare_cached(
                "SELECT seq, id FROM events WHERE finished_at IS NOT NULL AND finished_at <= ?1
                 ORDER BY finished_at LIMIT ?2",
            )?
            .query_map((until_ms, i64::try_from(max).unwrap_or(i64::MAX)), |row| {
                Ok((row.get(0)?, rows::event_id(row, 1)?))
            })?
            .collect::<Result<_, _>>()?;
        for (seq, id) in &finished {
            self.remove_event(*seq, *id)?;
        }
        Ok(finished.len())
    }

    fn remove_event(&mut self, seq: i64, id: EventId) -> Result<(), Stop> {
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
    fn make_room(&mut self, bytes: usize) -> Result<(), Stop> {
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

    fn room(&self) -> rusqlite::Result<u64> {
        let (pages, free) = self.pages()?;
        Ok(self.books.limits.soft_bytes.saturating_sub((pages - free) * PAGE_BYTES))
    }

    /// Pages of the database file, and how many of them are free.
    fn pages(&self) -> rusqlite::Result<(u64, u64)> {
        let pages = self.connection.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0))?;
        let free = self.connection.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
        Ok((pages, free))
    }
}

/// What is due to an upstream, lapsed leases included, the longest due first.
pub(super) fn lease_sql() -> String {
    format!(
        "SELECT {HEAD}, d.id, d.upstream, d.state, d.fence, d.attempts, d.armed_at, d.cause, b.body
         FROM deliveries AS d JOIN events AS e ON e.id = d.event JOIN bodies AS b ON b.seq = e.seq
         WHERE d.upstream = ?1 AND d.state IN ('due', 'leased') AND d.due_at <= ?2
         ORDER BY d.due_at, d.id LIMIT ?3"
    )
}

/// Why an attempt is followed by another, for people.
fn why(settled: &Settled) -> Option<String> {
    let attempt = &settled.attempt;
    attempt.error.clone().or_else(|| attempt.status.map(|status| format!("status {status}")))
}
