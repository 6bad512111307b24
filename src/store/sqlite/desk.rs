//! One job's view of the open transaction, and what many jobs are made of. Refusals come before a job's first write.
//!
//! A statement that may fail half-way copies each page that it changes before, to be able to undo itself alone. Here
//! a failure always undoes the whole group: `OR ROLLBACK` says so and spares the copies.

use rusqlite::{Connection, OptionalExtension};

use super::{
    super::StoreError,
    books::Books,
    damage::{self, index_differs},
    job::Stop,
    rows::{self, EventRow, Placed, Sql},
    seal::{DELIVERIES, EVENTS},
};
use crate::event::EventId;

/// One job's view of the open transaction.
pub(super) struct Desk<'a> {
    pub(super) connection: &'a Connection,
    pub(super) now_ms: i64,
    pub(super) books: &'a mut Books,
}

/// The deliveries of an event, in the order of their numbers.
pub(super) struct Deliveries {
    pub(super) placed: Vec<Placed>,
    /// Whether there are others that cannot be used.
    pub(super) damaged: bool,
}

pub(super) static EVENT: Sql = Sql::new(|| format!("SELECT {} FROM events WHERE id = ?1", EVENTS.listed()));
pub(super) static DELIVERY: Sql = Sql::new(|| format!("SELECT {} FROM deliveries WHERE id = ?1", DELIVERIES.listed()));
pub(super) static DELIVERIES_OF_EVENT: Sql =
    Sql::new(|| format!("SELECT {} FROM deliveries WHERE event = ?1 ORDER BY id", DELIVERIES.listed()));
static UNFINISH: Sql = Sql::new(|| EVENTS.update(&[("finished_at", "NULL")], "id = ?1 AND finished_at IS NOT NULL"));

impl Desk<'_> {
    /// An event, if it is there and as it was written.
    pub(super) fn event(&self, id: EventId) -> rusqlite::Result<Option<EventRow>> {
        let found = self
            .connection
            .prepare_cached(&EVENT)?
            .query_row([id.as_bytes()], |row| Ok((row.get(0)?, rows::event(row, 0)?)))
            .optional()?;
        match found {
            Some((_, Some(event))) if event.head.id == id => Ok(Some(event)),
            Some((_, Some(_))) => Err(index_differs()),
            Some((seq, None)) => {
                self.confirm(&EVENTS, seq)?;
                self.note_damage(&EVENTS, id);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// An event that somebody asks for.
    pub(super) fn sound_event(&self, id: EventId) -> Result<EventRow, Stop> {
        if let Some(event) = self.event(id)? {
            return Ok(event);
        }
        self.seq_of(id)?;
        Err(damage::of_event(id).into())
    }

    pub(super) fn seq_of(&self, id: EventId) -> Result<i64, Stop> {
        self.connection
            .prepare_cached("SELECT seq FROM events WHERE id = ?1")?
            .query_row([id.as_bytes()], |row| row.get(0))
            .optional()?
            .ok_or(Stop::Refused(StoreError::NotFound))
    }

    pub(super) fn deliveries_of(&self, event: EventId) -> rusqlite::Result<Deliveries> {
        let mut statement = self.connection.prepare_cached(&DELIVERIES_OF_EVENT)?;
        let mut found = statement.query([event.as_bytes()])?;
        let mut deliveries = Deliveries { placed: Vec::new(), damaged: false };
        while let Some(row) = found.next()? {
            match rows::placed(row, 0)? {
                Some(placed) if placed.event == event => deliveries.placed.push(placed),
                Some(_) => return Err(index_differs()),
                None => {
                    deliveries.damaged = true;
                    self.confirm(&DELIVERIES, row.get(0)?)?;
                    self.note_damage(&DELIVERIES, row.get::<_, i64>(0)?);
                }
            }
        }
        Ok(deliveries)
    }

    /// The deliveries of an event that somebody asks for.
    pub(super) fn sound_deliveries_of(&self, event: EventId) -> Result<Vec<Placed>, Stop> {
        let deliveries = self.deliveries_of(event)?;
        if deliveries.damaged {
            return Err(damage::of_event(event).into());
        }
        Ok(deliveries.placed)
    }

    /// Not every delivery of the event is delivered any more.
    pub(super) fn unfinish(&mut self, event: EventId) -> Result<(), Stop> {
        self.connection.prepare_cached(&UNFINISH)?.execute([event.as_bytes()])?;
        Ok(())
    }
}
