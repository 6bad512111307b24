//! What the writer does inside a transaction, job by job. Refusals come before a job's first write.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use rusqlite::{Connection, params};

use super::{
    super::{
        Appended, Known, Lease, Leased, Outcome, Settled, StoreError, Swept,
        elapsed::{after, between},
        judge::{Birth, HISTORY_MAX, ITEM_LIFE, Resend, SWEEP_SLICE, Verdict, cause, judge, reason, resend},
    },
    open::DiskLimits,
    parts::Placed,
    rows::{self, HEAD},
    spare::Spare,
    writer::Stop,
};
use crate::{
    event::{Answer, Body, Event, EventId, Name, NewEvent, State},
    verify::Keys,
};

/// What the writer knows between jobs.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) limits: DiskLimits,
    pub(super) spare: Spare,
    pub(super) next_delivery: i64,
    /// The upstreams of the configuration, once somebody reconciled.
    pub(super) configured: Option<BTreeSet<Name>>,
    /// Whom to wake after the commit.
    pub(super) wake: BTreeSet<Name>,
    /// Bytes until the soft limit, if they were looked up in this transaction.
    pub(super) room_bytes: Option<u64>,
    pub(super) full: bool,
    /// The file has become shorter in the log, and is as long as before on the disk.
    pub(super) shrunk: bool,
    changes_before: u64,
}

impl Books {
    pub(super) fn new(connection: &Connection, limits: DiskLimits, spare: Spare, next_delivery: i64) -> Self {
        Self {
            limits,
            spare,
            next_delivery,
            configured: None,
            wake: BTreeSet::new(),
            room_bytes: None,
            full: false,
            shrunk: false,
            changes_before: connection.total_changes(),
        }
    }

    pub(super) fn wrote(&self, connection: &Connection) -> bool {
        connection.total_changes() != self.changes_before
    }

    pub(super) fn is_full(&self) -> bool {
        self.full || !self.spare.is_there()
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

    pub(super) fn is_configured(&self, upstream: &str) -> bool {
        self.configured.as_ref().is_none_or(|all| all.contains(upstream))
    }
}

/// One job's view of the open transaction.
pub(super) struct Desk<'a> {
    pub(super) connection: &'a Connection,
    pub(super) now_ms: i64,
    pub(super) books: &'a mut Books,
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
                    "UPDATE OR ROLLBACK deliveries SET state = 'leased', due_at = ?2, fence = ?3, cause = ?4 WHERE id = ?1",
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
            tries: attempts,
            redelivery: false,
            uncertain: false,
            cause: if state == State::Leased { cause::LEASE_LAPSED.to_owned() } else { row.get(at + 6)? },
            age: between(row.get(at + 5)?, self.now_ms),
        })
    }

    pub(super) fn settle(&mut self, lease: Lease, settled: &Settled) -> Result<(), Stop> {
        let (event, upstream, attempts, cause) = self.current(lease)?;
        let number = attempts.saturating_add(1);
        let attempt = &settled.attempt;
        let took_ns = i64::try_from(attempt.took.as_nanos()).unwrap_or(i64::MAX);
        self.connection
            .prepare_cached("INSERT OR ROLLBACK INTO attempts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![
                lease.delivery,
                number,
                attempt.began_at.unix_ns(),
                took_ns,
                attempt.status,
                attempt.error,
                cause
            ])?;
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
                "UPDATE OR ROLLBACK deliveries SET state = ?2, due_at = ?3, reason = ?4, attempts = ?5, cause = ?6 WHERE id = ?1",
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
            .prepare_cached("UPDATE OR ROLLBACK deliveries SET state = 'due', due_at = ?2 WHERE id = ?1")?
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
        // On a full disk history goes first, whatever its age.
        let is_disk_full = !self.books.spare.renew(self.now_ms);
        let until_ms = if is_disk_full { i64::MAX } else { self.now_ms.saturating_sub(retention_ms) };
        let events = self.remove_history(until_ms, SWEEP_SLICE)?;
        // What is free for good goes back to the file system, a megabyte at a time.
        let is_much = |(pages, free): (u64, u64)| free > 0 && (is_disk_full || free > 64 && free > pages / 4);
        let before = self.pages()?;
        let mut goes_on = false;
        if is_much(before) {
            let mut vacuum = self.connection.prepare_cached("PRAGMA incremental_vacuum(64)")?;
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
            let after = self.pages()?;
            let gave_back = after.1 < before.1;
            goes_on = gave_back && is_much(after);
            self.books.shrunk = gave_back && (is_disk_full || !goes_on);
        }
        if self.books.full {
            self.books.full = self.room()? == 0;
        }
        Ok(Swept {
            keys: (removed[0] + removed[1]) as u64,
            events: events as u64,
            more: goes_on || events == SWEEP_SLICE || removed.contains(&SWEEP_SLICE),
        })
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
