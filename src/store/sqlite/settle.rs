//! What becomes of a lease: an attempt with its outcome, or given back untried.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::{
    super::{
        Lease, Outcome, Settled, StoreError,
        elapsed::after,
        judge::{HISTORY_MAX, ITEM_LIFE, cause, is_uncertain},
    },
    KEY_MISSING,
    desk::{DELIVERY, Desk},
    job::Stop,
    rows::{self, Placed, Sql},
    seal::{ATTEMPTS, DELIVERIES, EVENTS, ITEMS},
};
use crate::event::{EventId, Item, State};

static INSERT_ATTEMPT: Sql = Sql::new(|| ATTEMPTS.insert("REPLACE"));
static SETTLE: Sql = Sql::new(|| {
    let changes = [
        ("state", "?2"),
        ("due_at", "?3"),
        ("reason", "?4"),
        ("attempts", "?5"),
        ("tries", "?6"),
        ("cause", "?7"),
        ("uncertain", "?8"),
    ];
    DELIVERIES.update(&changes, "id = ?1")
});
static GIVE_BACK: Sql = Sql::new(|| DELIVERIES.update(&[("state", "'due'"), ("due_at", "?2")], "id = ?1"));
static FINISH: Sql = Sql::new(|| {
    let nothing_open = "id = ?1 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event = ?1 AND state <> 'delivered')";
    EVENTS.update(&[("finished_at", "?2")], nothing_open) + " RETURNING keep_body"
});
static BODY_GOES: Sql = Sql::new(|| EVENTS.update(&[("body_seal", "NULL")], "seq = ?1"));
static INSERT_ITEM: Sql = Sql::new(|| ITEMS.insert("REPLACE"));

impl Desk<'_> {
    pub(super) fn settle(&mut self, lease: Lease, settled: &Settled) -> Result<(), Stop> {
        let placed = self.current(lease)?;
        let number = placed.attempts.saturating_add(1);
        let attempt = &settled.attempt;
        self.connection.prepare_cached(&INSERT_ATTEMPT)?.execute(params![
            placed.id,
            number,
            attempt.began_at.unix_ns(),
            i64::try_from(attempt.took.as_nanos()).unwrap_or(i64::MAX),
            attempt.status,
            attempt.error,
            placed.cause
        ])?;
        if number > HISTORY_MAX {
            self.connection
                .prepare_cached("DELETE FROM attempts WHERE delivery = ?1 AND number <= ?2")?
                .execute((placed.id, number - HISTORY_MAX))?;
        }
        let (state, due_at, reason) = match &settled.outcome {
            Outcome::Delivered { .. } => (State::Delivered, self.now_ms, None),
            Outcome::Retry { after: delay } => (State::Due, after(self.now_ms, *delay), why(settled)),
            Outcome::Dead { reason } => (State::Dead, self.now_ms, Some(reason.clone())),
        };
        self.connection.prepare_cached(&SETTLE)?.execute(params![
            placed.id,
            state.name(),
            due_at,
            reason,
            number,
            placed.tries.saturating_add(1),
            cause::RETRY,
            is_uncertain(placed.uncertain, settled)
        ])?;
        self.books.moved(&placed.upstream, Some(placed.state), Some(state), placed.bytes);
        if state != State::Due {
            self.left_queue(&placed)?;
        }
        if let Outcome::Delivered { items } = &settled.outcome {
            self.finish(placed.event)?;
            self.acknowledge(&placed.upstream, items)?;
        }
        if let Some((answer, kept)) = &settled.answer {
            self.keep_answer(placed.event, answer, *kept)?;
        }
        self.books.wake.insert(placed.upstream);
        Ok(())
    }

    pub(super) fn give_back(&mut self, lease: Lease, delay: Duration) -> Result<(), Stop> {
        let placed = self.current(lease)?;
        self.connection.prepare_cached(&GIVE_BACK)?.execute((placed.id, after(self.now_ms, delay)))?;
        self.books.moved(&placed.upstream, Some(placed.state), Some(State::Due), placed.bytes);
        self.books.wake.insert(placed.upstream);
        Ok(())
    }

    /// What becomes of a leased delivery whose body does not open: a dead letter if it is damaged, else it waits for
    /// its key. One whose lease lapsed meanwhile is left to whoever has it now.
    pub(super) fn put_off(&mut self, lease: Lease, damage: Option<&str>) -> Result<(), Stop> {
        let put_off = match damage {
            None => self.give_back(lease, KEY_MISSING),
            Some(what) => self.current(lease).and_then(|placed| {
                self.books.shared.damage.found("bodies", placed.event);
                Ok(self.bury(&placed, what)?)
            }),
        };
        match put_off {
            Err(Stop::Refused(_)) => Ok(()),
            other => other,
        }
    }

    /// The delivery of a lease that is still its holder's. A damaged one is dealt with when the lease has lapsed.
    fn current(&self, lease: Lease) -> Result<Placed, Stop> {
        let found = self
            .connection
            .prepare_cached(&DELIVERY)?
            .query_row([lease.delivery], |row| rows::placed(row, 0))
            .optional()?;
        match found {
            Some(Some(placed)) if placed.state == State::Leased && placed.fence == lease.fence => Ok(placed),
            Some(None) => {
                self.note_damage(&DELIVERIES, lease.delivery);
                Err(StoreError::Damaged(format!("delivery {}", lease.delivery)).into())
            }
            _ => Err(StoreError::LeaseLost.into()),
        }
    }

    /// The event is finished if this was its last delivery that was not delivered.
    fn finish(&mut self, id: EventId) -> Result<(), Stop> {
        let keep_body: Option<bool> = self
            .connection
            .prepare_cached(&FINISH)?
            .query_row((id.as_bytes(), self.now_ms), |row| row.get(0))
            .optional()?;
        // Only a sound row says that a body may go.
        if keep_body == Some(false)
            && let Some(event) = self.event(id)?
            && !event.keep_body
        {
            self.connection.prepare_cached("DELETE FROM bodies WHERE seq = ?1")?.execute([event.seq])?;
            self.connection.prepare_cached(&BODY_GOES)?.execute([event.seq])?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, upstream: &str, items: &[Item]) -> Result<(), Stop> {
        for item in items {
            self.connection.prepare_cached(&INSERT_ITEM)?.execute(params![
                upstream,
                item.key.0,
                item.content,
                after(self.now_ms, ITEM_LIFE)
            ])?;
        }
        Ok(())
    }
}

/// Why an attempt is followed by another, for people.
fn why(settled: &Settled) -> Option<String> {
    let attempt = &settled.attempt;
    attempt.error.clone().or_else(|| attempt.status.map(|status| format!("status {status}")))
}
