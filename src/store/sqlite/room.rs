//! Room: what is removed, and what is refused when nothing more can be.

use std::{sync::atomic::Ordering, time::Duration};

use rusqlite::types::ValueRef;

use super::{
    super::{
        StoreError, Swept,
        judge::{OVERHEAD_BYTES, SWEEP_SLICE},
    },
    damage::index_differs,
    desk::{DELIVERIES_OF_EVENT, Desk},
    job::Stop,
    open::PAGE_BYTES,
    rows::{self, EventRow, Placed, Sql},
    seal::EVENTS,
};
use crate::event::EventId;

/// History is removed for a new event this many events at a time, and this often.
const ROOM_SLICE: usize = 64;
const ROOM_SLICES: usize = 4;

const LOG_HELD: &str = "another process (a backup, a verification) reads the store, so that its log cannot begin anew";

pub(super) static OLDEST_HISTORY: Sql = Sql::new(|| {
    format!(
        "SELECT {} FROM events WHERE finished_at IS NOT NULL AND finished_at <= ?1 ORDER BY finished_at LIMIT ?2",
        EVENTS.listed()
    )
});
static NO_HISTORY: Sql = Sql::new(|| EVENTS.update(&[("finished_at", "NULL")], "seq = ?1"));

impl Desk<'_> {
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
        self.forgot_keys(removed[0]);
        let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        // On a full disk history goes first, whatever its age.
        let is_disk_full = !self.books.spare.renew(self.now_ms);
        let until_ms = if is_disk_full { i64::MAX } else { self.now_ms.saturating_sub(retention_ms) };
        let events = self.remove_history(until_ms, SWEEP_SLICE)?;
        let (gave_back, goes_on) = self.give_pages_back(is_disk_full)?;
        self.books.shrunk |= gave_back && (is_disk_full || !goes_on);
        if self.books.full {
            self.books.full = self.room()? == 0 || !self.log_leaves_room(0)?;
        }
        Ok(Swept {
            keys: (removed[0] + removed[1]) as u64,
            events: events as u64,
            more: goes_on || events == SWEEP_SLICE || removed.contains(&SWEEP_SLICE),
        })
    }

    /// On a full disk: a part of the history goes, and the space of it back to the disk. Returns whether there may be
    /// more of either, and the bytes that the disk gets.
    pub(super) fn relieve(&mut self) -> rusqlite::Result<(bool, u64)> {
        let before = self.pages()?.0;
        let removed = self.remove_history(i64::MAX, ROOM_SLICE)?;
        let (gave_back, _) = self.give_pages_back(true)?;
        Ok((removed > 0 || gave_back, before.saturating_sub(self.pages()?.0) * PAGE_BYTES))
    }

    /// What is free for good goes back to the file system, a megabyte at a time: any of it from a full disk. Returns
    /// whether some did, and whether more is to follow.
    fn give_pages_back(&self, is_disk_full: bool) -> rusqlite::Result<(bool, bool)> {
        let is_much = |(pages, free): (u64, u64)| free > 0 && (is_disk_full || free > 64 && free > pages / 4);
        let before = self.pages()?;
        if !is_much(before) {
            return Ok((false, false));
        }
        let mut vacuum = self.connection.prepare_cached("PRAGMA incremental_vacuum(64)")?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
        let after = self.pages()?;
        let gave_back = after.1 < before.1;
        Ok((gave_back, gave_back && is_much(after)))
    }

    /// Removes the oldest events that were finished at or before `until_ms`. Their keys live on. Returns how many it
    /// looked at.
    fn remove_history(&mut self, until_ms: i64, max: usize) -> rusqlite::Result<usize> {
        let finished: Vec<(i64, Option<EventRow>)> = self
            .connection
            .prepare_cached(&OLDEST_HISTORY)?
            .query_map((until_ms, i64::try_from(max).unwrap_or(i64::MAX)), |row| {
                Ok((row.get(0)?, rows::event(row, 0)?))
            })?
            .collect::<Result<_, _>>()?;
        for (seq, event) in &finished {
            match event {
                Some(event) if event.finished_at.is_some_and(|at| at <= until_ms) => {
                    self.remove_event(*seq, event.head.id)?;
                }
                Some(_) => return Err(index_differs()),
                None => {
                    // It may never have been delivered. It is no history, and stays until somebody purges it.
                    self.note_damage(&EVENTS, seq);
                    self.connection.prepare_cached(&NO_HISTORY)?.execute([seq])?;
                }
            }
        }
        Ok(finished.len())
    }

    pub(super) fn remove_event(&mut self, seq: i64, id: EventId) -> rusqlite::Result<()> {
        let deliveries: Vec<Option<Placed>> = self
            .connection
            .prepare_cached(&DELIVERIES_OF_EVENT)?
            .query_map([id.as_bytes()], |row| rows::placed(row, 0))?
            .collect::<Result<_, _>>()?;
        self.connection
            .prepare_cached("DELETE FROM attempts WHERE delivery IN (SELECT id FROM deliveries WHERE event = ?1)")?
            .execute([id.as_bytes()])?;
        self.connection.prepare_cached("DELETE FROM deliveries WHERE event = ?1")?.execute([id.as_bytes()])?;
        self.connection.prepare_cached("DELETE FROM bodies WHERE seq = ?1")?.execute([seq])?;
        let unrouted = self
            .connection
            .prepare_cached("DELETE FROM events WHERE seq = ?1 RETURNING unrouted")?
            .query_row([seq], |row| Ok(row.get_ref(0)? == ValueRef::Integer(1)))?;
        self.books.added.events -= 1;
        self.books.added.unrouted -= i64::from(unrouted);
        for placed in deliveries.iter().flatten() {
            self.books.moved(&placed.upstream, Some(placed.state), None, placed.bytes);
            self.left_queue(placed)?;
        }
        if deliveries.iter().any(Option::is_none) {
            self.books.miscounted = true;
            self.books.upstreams().iter().try_for_each(|upstream| self.mend_turns(upstream))?;
        }
        Ok(())
    }

    /// Takes room for something new of this size; history goes first.
    pub(super) fn make_room(&mut self, bytes: usize) -> Result<(), Stop> {
        if !self.books.spare.renew(self.now_ms) {
            return Err(StoreError::Full("no space is left on its disk".to_owned()).into());
        }
        let needed = bytes as u64 + OVERHEAD_BYTES;
        // Without its history the log would only become longer.
        if !self.log_leaves_room(needed)? {
            if !self.books.full {
                tracing::warn!("{LOG_HELD}: nothing new is stored until it has ended, deliveries go on");
            }
            self.books.full = true;
            return Err(StoreError::Full(LOG_HELD.to_owned()).into());
        }
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

    /// Whether all files together keep to their bound although somebody keeps the log from beginning anew. A store
    /// that history has filled up to its bound goes over it by a quarter: a backup is no reason to refuse at once.
    fn log_leaves_room(&self, needed: u64) -> rusqlite::Result<bool> {
        let limits = self.books.limits;
        let log_bytes = self.books.shared.log_bytes.load(Ordering::Relaxed);
        if log_bytes + needed <= limits.bytes_max / 4 {
            return Ok(true);
        }
        let files_bytes = self.pages()?.0 * PAGE_BYTES + log_bytes + self.books.spare.bytes();
        Ok(files_bytes + needed <= limits.bytes_max)
    }

    /// Pages of the database file, and how many of them are free.
    fn pages(&self) -> rusqlite::Result<(u64, u64)> {
        let pages = self.connection.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0))?;
        let free = self.connection.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
        Ok((pages, free))
    }
}
