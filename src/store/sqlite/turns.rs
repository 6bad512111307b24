//! Turns: deliveries of one upstream, source and order key go one after another.
//!
//! Of those that are due or leased exactly one is active. The others wait: due, at a time that never comes. Whoever
//! leaves hands the turn to the lowest number. So one look at an index tells whether somebody is there, and nobody
//! who waits is in the way of a lease.

use rusqlite::{OptionalExtension, params};

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
        loop {
            let found = self
                .connection
                .prepare_cached(&NEXT_IN_ORDER)?
                .query_row((upstream, source, order_key), |row| Ok((row.get::<_, i64>(0)?, rows::placed(row, 0)?)))
                .optional()?;
            return match found {
                None => Ok(()),
                Some((_, Some(next))) if next.order_key.as_deref() == Some(order_key) && next.waits() => {
                    self.connection.prepare_cached(&TAKES_ITS_TURN)?.execute((next.id, self.now_ms))?;
                    self.books.wake.insert(Name::clone(upstream));
                    Ok(())
                }
                Some((_, Some(_))) => Err(index_differs()),
                Some((damaged, None)) => {
                    self.bury_alone(damaged, upstream)?;
                    continue;
                }
            };
        }
    }

    /// Gives every turn that is nobody's to the next one: after somebody left of whom nothing is known.
    pub(super) fn mend_turns(&mut self, upstream: &str, source: &str) -> rusqlite::Result<()> {
        let nobodys: Vec<String> = self
            .connection
            .prepare(
                "SELECT order_key FROM deliveries
                 WHERE upstream = ?1 AND source = ?2 AND order_key IS NOT NULL AND state IN ('due', 'leased')
                 GROUP BY order_key HAVING min(due_at) = ?3",
            )?
            .query_map(params![upstream, source, NEVER], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let upstream = Name::from(upstream);
        nobodys.iter().try_for_each(|order_key| self.pass_turn(&upstream, source, order_key))
    }
}
