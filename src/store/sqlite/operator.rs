//! What an operator does to events, and what a change of the configuration does to deliveries.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, params};

use super::{
    super::{
        StoreError,
        judge::{Birth, armed, cause, event_bytes, is_redelivery, reason},
    },
    append::NewDelivery,
    damage::index_differs,
    desk::{DELIVERY, Desk},
    job::Stop,
    rows::{self, EventRow, Placed, Sql},
    seal::{DELIVERIES, EVENTS},
};
use crate::event::{EventId, Name, State};

static ARM: Sql = Sql::new(|| {
    let changes = [
        ("state", "?2"),
        ("reason", "?3"),
        ("due_at", "?4"),
        ("armed_at", "?5"),
        ("tries", "0"),
        ("cause", "?6"),
        ("redelivery", "?7"),
    ];
    DELIVERIES.update(&changes, "id = ?1")
});
static ROUTED: Sql = Sql::new(|| EVENTS.update(&[("unrouted", "0")], "id = ?1"));
pub(super) static PARK: Sql = Sql::new(|| {
    let changes = [
        ("cause", "CASE state WHEN 'leased' THEN ?3 ELSE cause END"),
        ("uncertain", "CASE state WHEN 'leased' THEN 1 ELSE uncertain END"),
        ("state", "'parked'"),
        ("reason", "?2"),
        ("fence", "fence + 1"),
    ];
    DELIVERIES.update(&changes, "upstream = ?1 AND state IN ('due', 'leased')")
});
const IS_PARKED: &str = "upstream = ?1 AND state = 'parked' AND state IN ('held', 'parked', 'dead')";
pub(super) static UNPARK: Sql = Sql::new(|| {
    let changes = [("state", "'due'"), ("reason", "NULL"), ("due_at", "?2"), ("armed_at", "?2"), ("tries", "0")];
    DELIVERIES.update(&changes, &format!("{IS_PARKED} AND order_key IS NULL"))
});
static PARKED_IN_ORDER: Sql = Sql::new(|| format!("SELECT id FROM deliveries WHERE {IS_PARKED} ORDER BY id"));
static UNPARK_ONE: Sql = Sql::new(|| {
    let changes = [("state", "'due'"), ("reason", "?3"), ("due_at", "?4"), ("armed_at", "?2"), ("tries", "0")];
    DELIVERIES.update(&changes, "id = ?1")
});

impl Desk<'_> {
    pub(super) fn release(&mut self, id: EventId) -> Result<u32, Stop> {
        let held: Vec<Placed> =
            self.sound_deliveries_of(id)?.into_iter().filter(|placed| placed.state == State::Held).collect();
        if held.is_empty() {
            return Err(StoreError::NotFound.into());
        }
        for placed in &held {
            self.arm(placed, cause::RELEASED)?;
        }
        Ok(u32::try_from(held.len()).unwrap_or(u32::MAX))
    }

    /// With a state, only what is in it.
    pub(super) fn redeliver(&mut self, id: EventId, upstream: Option<&str>, state: Option<State>) -> Result<u32, Stop> {
        let event = self.sound_event(id)?;
        if event.body_seal.is_none() {
            return Err(StoreError::BodyRemoved.into());
        }
        let all = self.sound_deliveries_of(id)?;
        let meant = |placed: &&Placed| upstream.is_none_or(|upstream| *placed.upstream == *upstream);
        let fits = |placed: &&Placed| {
            !matches!(placed.state, State::Leased | State::Held)
                && state.is_none_or(|state| placed.state == state)
                && self.books.is_configured(&placed.upstream)
        };
        let armed: Vec<&Placed> = all.iter().filter(meant).filter(fits).collect();
        let is_known = state.is_some() || all.iter().any(|placed| meant(&placed));
        let mut count = armed.len();
        for placed in armed {
            self.arm(placed, cause::REDELIVERY)?;
        }
        if let Some(upstream) = upstream.filter(|upstream| !is_known && self.books.is_configured(upstream)) {
            self.deliver_anew(&event, &Name::from(upstream), &all)?;
            count += 1;
        }
        if count == 0 {
            return Err(StoreError::NotFound.into());
        }
        self.unfinish(id)?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// A delivery to an upstream that the event was not for, in the order of its others.
    fn deliver_anew(&mut self, event: &EventRow, upstream: &Name, others: &[Placed]) -> Result<(), Stop> {
        self.insert_delivery(&NewDelivery {
            event: event.head.id,
            upstream,
            source: &event.head.source,
            order_key: others.iter().find_map(|placed| placed.order_key.as_deref()),
            bytes: event_bytes(&event.head, usize::try_from(event.body_bytes).unwrap_or(usize::MAX)),
            birth: Birth::Due,
            cause: cause::REDELIVERY,
        })?;
        if event.unrouted {
            self.connection.prepare_cached(&ROUTED)?.execute([event.head.id.as_bytes()])?;
            self.books.added.unrouted -= 1;
        }
        Ok(())
    }

    /// Makes a delivery due, now or when its turn comes, with its age counted anew; parked if its upstream is gone.
    pub(super) fn arm(&mut self, placed: &Placed, cause: &str) -> Result<(), Stop> {
        let is_taken = match &placed.order_key {
            // Of those in the queue all but one wait for it.
            Some(_) if placed.is_queued() => placed.waits(),
            Some(key) => self.is_somebody_queued(&placed.upstream, &placed.source, key)?,
            None => false,
        };
        let birth = armed(self.books.is_configured(&placed.upstream), is_taken);
        self.connection.prepare_cached(&ARM)?.execute(params![
            placed.id,
            birth.state().name(),
            birth.reason(),
            birth.due_at(self.now_ms),
            self.now_ms,
            cause,
            is_redelivery(cause)
        ])?;
        self.books.moved(&placed.upstream, Some(placed.state), Some(birth.state()), placed.bytes);
        match birth {
            Birth::Due => drop(self.books.wake.insert(Name::clone(&placed.upstream))),
            Birth::Parked => self.left_queue(placed)?,
            Birth::Waits | Birth::Leased(_) | Birth::Held(_) => {}
        }
        Ok(())
    }

    /// A damaged event is purged like any other: it is the way to be rid of it.
    pub(super) fn purge(&mut self, id: EventId) -> Result<(), Stop> {
        let seq = self.seq_of(id)?;
        let leased: Option<i64> = self
            .connection
            .prepare_cached("SELECT 1 FROM deliveries WHERE event = ?1 AND state = 'leased'")?
            .query_row([id.as_bytes()], |row| row.get(0))
            .optional()?;
        if leased.is_some() {
            return Err(StoreError::NotFound.into());
        }
        self.forget_keys(id)?;
        self.remove_event(seq, id)?;
        Ok(())
    }

    pub(super) fn reconcile(&mut self, upstreams: BTreeSet<Name>) -> Result<BTreeMap<Name, u64>, Stop> {
        self.books.configured = Some(upstreams);
        let mut parked = BTreeMap::new();
        for upstream in self.books.upstreams() {
            if self.books.is_configured(&upstream) {
                self.unpark(&upstream)?;
            } else {
                self.park(&upstream)?;
            }
            let count = self.books.count(&upstream, State::Parked);
            if count.n > 0 {
                parked.insert(upstream, count.n.unsigned_abs());
            }
        }
        Ok(parked)
    }

    fn park(&mut self, upstream: &Name) -> Result<(), Stop> {
        self.connection.prepare_cached(&PARK)?.execute(params![
            upstream,
            reason::UPSTREAM_REMOVED,
            cause::LEASE_LAPSED
        ])?;
        for state in [State::Due, State::Leased] {
            let all = self.books.count(upstream, state);
            self.books.moved_many(upstream, Some(state), Some(State::Parked), all);
        }
        Ok(())
    }

    fn unpark(&mut self, upstream: &Name) -> Result<(), Stop> {
        let parked = self.books.count(upstream, State::Parked);
        let mut changed = self.connection.prepare_cached(&UNPARK)?.execute(params![upstream, self.now_ms])?;
        // Numbers only: there may be a million of them.
        let in_order: Vec<i64> = self
            .connection
            .prepare_cached(&PARKED_IN_ORDER)?
            .query_map([upstream], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in in_order {
            let placed = self.connection.prepare_cached(&DELIVERY)?.query_row([id], |row| rows::placed(row, 0))?;
            let is_taken = match placed {
                Some(Placed { order_key: Some(key), source, .. }) => {
                    self.is_somebody_queued(upstream, &source, &key)?
                }
                Some(_) => return Err(index_differs().into()),
                // The lease makes a dead letter of it.
                None => false,
            };
            let birth = armed(true, is_taken);
            changed += self.connection.prepare_cached(&UNPARK_ONE)?.execute(params![
                id,
                self.now_ms,
                birth.reason(),
                birth.due_at(self.now_ms)
            ])?;
        }
        self.books.moved_many(upstream, Some(State::Parked), Some(State::Due), parked);
        if changed > 0 {
            self.books.wake.insert(Name::clone(upstream));
        }
        // A delivery whose damage nobody has met yet may have had the turn of others.
        self.mend_turns(upstream)?;
        Ok(())
    }
}
