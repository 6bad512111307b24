//! What is not as it was written: found by its seal, said once, counted, and not used.
//!
//! A damaged row keeps its broken seal whatever is done to it, so that `hookward store verify` finds it as well.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, PoisonError},
};

use rusqlite::{Connection, ErrorCode, OptionalExtension, ffi};

use super::{
    super::StoreError,
    desk::Desk,
    rows::{self, Placed, Sql},
    seal::{DELIVERIES, Table},
};
use crate::event::{EventId, Name, State};

/// Rows that are told apart in the count. On a disk that loses more than these the number says enough.
const FOUND_MAX: usize = 10_000;

/// The damaged rows found since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Damage(Mutex<BTreeSet<(&'static str, String)>>);

impl Damage {
    /// Notes a row that is not used, and says so the first time. `row` tells it from the others of its table, and
    /// may be as wrong as the rest of it.
    pub(super) fn found(&self, table: &'static str, row: impl fmt::Display) {
        let row = row.to_string();
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() < FOUND_MAX && found.insert((table, row.clone())) {
            tracing::error!(table, row, "a stored row is damaged and is not used; run `hookward store verify -c FILE`");
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }
}

/// What an index says is not what its table says. The writer answers it by building the indexes anew.
pub(super) fn index_differs() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT_INDEX), None)
}

/// Whether an error says that.
pub(super) fn is_index_differing(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_CORRUPT_INDEX)
}

/// Builds the indexes anew out of their tables. Seals are in the tables, so nothing is believed that was not checked.
/// Returns whether rows had to go: a row that its index did not find may have been written a second time, and only
/// one of the two can stay.
pub(super) fn reindex(connection: &Connection) -> rusqlite::Result<bool> {
    match connection.execute_batch("REINDEX") {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {}
        done => return done.map(|()| false),
    }
    // With this pragma a row may be removed whose entry in an index is not there.
    connection.execute_batch("BEGIN IMMEDIATE; PRAGMA writable_schema = ON")?;
    let done = remove_twins(connection).and_then(|()| connection.execute_batch("REINDEX; COMMIT"));
    if done.is_err() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    connection.execute_batch("PRAGMA writable_schema = OFF")?;
    done.map(|()| true)
}

/// What is accepted is the older one, what is replaced with each writing the newer one.
fn remove_twins(connection: &Connection) -> rusqlite::Result<()> {
    for (table, key, stays) in [
        ("events", "id", "min"),
        ("deliveries", "event, upstream", "min"),
        ("keys", "key, body", "min"),
        ("answers", "event", "max"),
        ("items", "upstream, key", "max"),
        ("pauses", "upstream", "max"),
        ("operations", "id", "max"),
    ] {
        connection.execute_batch(&format!(
            "DELETE FROM {table} NOT INDEXED
             WHERE rowid NOT IN (SELECT {stays}(rowid) FROM {table} NOT INDEXED GROUP BY {key})"
        ))?;
    }
    Ok(())
}

/// An error for whoever asked for this very event.
pub(super) fn of_event(id: EventId) -> StoreError {
    StoreError::Damaged(format!("event {id}"))
}

pub(super) static BURY: Sql =
    Sql::new(|| DELIVERIES.update(&[("state", "'dead'"), ("reason", "?2"), ("fence", "fence + 1")], "id = ?1"));

impl Desk<'_> {
    pub(super) fn note_damage(&self, table: &Table, row: impl fmt::Display) {
        self.books.shared.damage.found(table.name, row);
    }

    /// To be asked before a row that an index led to is called damaged. SQLite takes what an index holds from there, so
    /// that a damaged index makes a sound row look broken: read by its number alone it is whole, and then the index is
    /// what differs.
    pub(super) fn confirm(&self, table: &Table, number: i64) -> rusqlite::Result<()> {
        let sql = format!("SELECT {} FROM {} NOT INDEXED WHERE {} = ?1", table.listed(), table.name, table.columns[0]);
        let is_whole = self.connection.prepare(&sql)?.query_row([number], |row| table.is_whole(row, 0)).optional()?;
        if is_whole == Some(true) { Err(index_differs()) } else { Ok(()) }
    }

    /// Makes a dead letter of a delivery whose event cannot be used, so that the others go on.
    pub(super) fn bury(&mut self, placed: &Placed, what: &str) -> rusqlite::Result<()> {
        tracing::error!(
            event = %placed.event, upstream = &*placed.upstream, what,
            "a stored event is damaged; its delivery is a dead letter now; run `hookward store verify -c FILE`"
        );
        self.connection.prepare_cached(&BURY)?.execute((placed.id, format!("damaged: {what}")))?;
        self.books.moved(&placed.upstream, Some(placed.state), Some(State::Dead), placed.bytes);
        self.left_queue(placed)
    }

    /// Makes a dead letter of a delivery that is itself damaged. Of what it says nothing is believed: a turn that it
    /// may have had is given away by looking at the others.
    pub(super) fn bury_damaged(&mut self, id: i64, upstream: &Name) -> rusqlite::Result<()> {
        self.bury_alone(id, upstream)?;
        self.mend_turns(upstream)
    }

    pub(super) fn bury_alone(&mut self, id: i64, upstream: &str) -> rusqlite::Result<()> {
        self.confirm(&DELIVERIES, id)?;
        let event = self
            .connection
            .prepare_cached("SELECT event FROM deliveries WHERE id = ?1")?
            .query_row([id], |row| rows::event_id(row, 0))
            .map_or_else(|_| "unreadable".to_owned(), |id| id.to_string());
        tracing::error!(
            event,
            upstream,
            delivery = id,
            "a delivery is damaged; it is a dead letter now; run `hookward store verify -c FILE`"
        );
        self.note_damage(&DELIVERIES, id);
        self.connection.prepare_cached(&BURY)?.execute((id, "damaged: the delivery"))?;
        self.books.miscounted = true;
        Ok(())
    }
}
