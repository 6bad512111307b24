//! Turns: deliveries of one upstream, source and order key go one after another.
//!
//! Of those that are due or leased exactly one is active. The others wait: due, at a time that never comes. Whoever
//! leaves hands the turn to the lowest number. So one look at an index tells whether somebody is there, and nobody
//! who waits is in the way of a lease.

use rusqlite::OptionalExtension;

use super::{
    super::judge::NEVER,
    damage::index_differs,
    desk::Desk,
    rows::{self, Placed, Sql},
    seal::DELIVERIES,
};
use crate::event::Name;

pub(super) const SOMEBODY: &str = "SELECT 1 FROM deliveries
     WHERE upstream = ?1 AND source = ?2 AND order_key = ?3 AND state IN ('due', 'leased') LIMIT 1";
pub(super) static NEXT_IN_ORDER: Sql = Sql::new(|| {
    format!(
        "SELECT {} FROM deliveries
         WHERE upstream = ?1 AND source = ?2 AND order_key = ?3 AND state IN ('due', 'leased') ORDER BY id LIMIT 1",
        DELIVERIES.listed()
    )
});
pub(super) const NOBODYS: &str = "SELECT source, order_key FROM deliveries
     WHERE upstream = ?1 AND order_key IS NOT NULL AND state IN ('due', 'leased')
     GROUP BY source, order_key HAVING min(due_at) = ?2";
pub(super) static TAKES_ITS_TURN: Sql = Sql::new(|| {
    DELIVERIES.update(&[("due_at", "?2"), ("armed_at", "?2"), ("tries", "0"), ("reason", "NULL")], "id = ?1")
});

impl Desk<'_> {
    /// Whether anybody of this turn key is due or leased.
    pub(super) fn is_somebody_queued(&self, upstream: &str, source: &str, order_key: &str) -> rusqlite::Result<bool> {
        let found: Option<i64> = self
            .connection
            .prepare_cached(SOMEBODY)?
            .query_row((upstream, source, order_key), |row| row.get(0))
            .optional()?;
        Ok(found.is_some())
    }

    /// To be called after a delivery left the queue, with what it was before.
    pub(super) fn left_queue(&mut self, before: &Placed) -> rusqlite::Result<()> {
        match &before.order_key {
            Some(order_key) if before.is_queued() && !before.waits() => {
                self.pass_turn(&before.upstream, &before.source, order_key)
            }
            _ => Ok(()),
        }
    }

    /// The turn is nobody's: the one that waits with the lowest number has it.
    fn pass_turn(&mut self, upstream: &Name, source: &str, order_key: &str) -> rusqlite::Result<()> {
        let mut buried = None;
        loop {
            let found = self
                .connection
                .prepare_cached(&NEXT_IN_ORDER)?
                .query_row((upstream, source, order_key), |row| Ok((row.get::<_, i64>(0)?, rows::placed(row, 0)?)))
                .optional()?;
            let next = match found {
                None => return Ok(()),
                Some((_, Some(next))) => next,
                // A dead letter is in no queue: an index that has it there still does not fit.
                Some((damaged, None)) if buried == Some(damaged) => return Err(index_differs()),
                Some((damaged, None)) => {
                    self.bury_alone(damaged, upstream)?;
                    buried = Some(damaged);
                    continue;
                }
            };
            if next.order_key.as_deref() != Some(order_key) {
                return Err(index_differs());
            }
            if next.waits() {
                self.connection.prepare_cached(&TAKES_ITS_TURN)?.execute((next.id, self.now_ms))?;
                self.books.wake.insert(Name::clone(upstream));
            }
            return Ok(());
        }
    }

    /// Gives every turn that is nobody's to the next one: after somebody left of whom nothing is known.
    pub(super) fn mend_turns(&mut self, upstream: &Name) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(NOBODYS)?;
        let mut found = statement.query((upstream, NEVER))?;
        let mut nobodys: Vec<(Name, Name)> = Vec::new();
        while let Some(row) = found.next()? {
            // What cannot be read is damaged, and has no turn.
            nobodys.extend(row.get(0).and_then(|source| Ok((source, row.get(1)?))));
        }
        drop(found);
        drop(statement);
        nobodys.iter().try_for_each(|(source, order_key)| self.pass_turn(upstream, source, order_key))
    }
}
