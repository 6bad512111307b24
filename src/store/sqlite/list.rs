//! Lists and counts of events, by a filter, from one end.
//!
//! A call walks along an index in the order of ids and stops when it has enough, so that nothing is sorted and no page
//! costs what lies behind it. The states that few deliveries are in have an index of their own; of the others the
//! events are looked at one by one.

use std::fmt::Write as _;

use rusqlite::types::Value;

use super::{
    super::{
        Counted, Direction, Filter, Listed, Page, StoreError,
        judge::{COUNT_MAX, PAGE_MAX, Scan, json_fits},
    },
    reads::Reading,
    rows::{self, EventRow},
    seal::EVENTS,
    writer::Stop,
};
use crate::event::{EventId, State};

/// The time in an id is that of its making, a moment after the request came. So much may the clock have been set.
const CLOCK_STEP_MAX_MS: i64 = 3_600_000;

impl Reading<'_> {
    pub(super) fn list(&self, filter: &Filter, direction: Direction, limit: usize) -> Result<Page, Stop> {
        let (limit, mut events) = (limit.clamp(1, PAGE_MAX), Vec::new());
        let next = self.walk(filter, direction, |event| {
            if let Some(deliveries) = self.deliveries(event.head.id, false)? {
                let (body_bytes, copies) = (event.body_bytes, event.copies);
                events.push(Listed { head: event.head, body_bytes, copies, deliveries });
            }
            Ok(events.len() < limit)
        })?;
        Ok(Page { events, next })
    }

    pub(super) fn count(&self, filter: &Filter) -> Result<Counted, Stop> {
        let mut counted = 0;
        let next = self.walk(filter, Direction::OldestFirst, |_| {
            counted += 1;
            Ok(counted < COUNT_MAX)
        })?;
        Ok(Counted { events: counted as u64, next })
    }

    /// Hands over what the filter fits, until it is told that this is enough, or has read what one call may read.
    /// Returns the last event that it looked at, if there is more to look at.
    fn walk(
        &self,
        filter: &Filter,
        direction: Direction,
        mut visit: impl FnMut(EventRow) -> Result<bool, Stop>,
    ) -> Result<Option<EventId>, Stop> {
        let snapshot = self.connection.unchecked_transaction()?;
        let (sql, values) = walk_sql(filter, direction);
        let mut statement = snapshot.prepare_cached(&sql)?;
        let mut found = statement.query(rusqlite::params_from_iter(values))?;
        let (mut looked_at, mut scan, mut goes_on) = (None, Scan::new(), true);
        while let Some(row) = found.next()? {
            let Some(event) = rows::event(row, 0)? else {
                self.damage.found(EVENTS.name, rows::event_id(row, 1).map_or("?".to_owned(), |id| id.to_string()));
                continue;
            };
            let id = event.head.id;
            // An event with several deliveries in this state comes up once for each.
            if looked_at == Some(id) {
                continue;
            }
            let to_read = if event.body_seal.is_some() { event.body_bytes } else { 0 };
            if !goes_on || filter.json.is_some() && !scan.takes(to_read) {
                return Ok(looked_at);
            }
            looked_at = Some(id);
            if self.has_json(&event, filter)? {
                goes_on = visit(event)?;
            }
        }
        Ok(None)
    }

    fn has_json(&self, event: &EventRow, filter: &Filter) -> Result<bool, Stop> {
        let Some(wanted) = &filter.json else { return Ok(true) };
        match self.body(event) {
            Ok(body) => Ok(body.is_some_and(|body| json_fits(&body, wanted))),
            Err(Stop::Refused(StoreError::Damaged(_) | StoreError::KeyMissing(_))) => Ok(false),
            Err(other) => Err(other),
        }
    }
}

/// The conditions of a statement, and the values of its places.
#[derive(Default)]
struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    /// `condition` ends where its value belongs.
    fn and(&mut self, condition: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        let _ = write!(self.sql, " AND {condition} ?{}", self.values.len());
    }

    fn and_id(&mut self, condition: &str, id: EventId) {
        self.and(condition, id.as_bytes().to_vec());
    }

    fn and_delivery(&mut self, filter: &Filter) {
        if let Some(upstream) = &filter.upstream {
            self.and("d.upstream =", upstream.clone());
        }
        if let Some(state) = filter.state {
            self.and("d.state =", state.name().to_owned());
        }
    }
}

/// The statement of a walk, and the values of its places.
pub(super) fn walk_sql(filter: &Filter, direction: Direction) -> (String, Vec<Value>) {
    let mut all = Conditions::default();
    let is_stuck = matches!(filter.state, Some(State::Held | State::Parked | State::Dead));
    // What the walk goes along.
    let (from, id) = if is_stuck {
        ("deliveries AS d CROSS JOIN events ON events.id = d.event", "d.event")
    } else {
        ("events", "events.id")
    };
    if is_stuck {
        all.and_delivery(filter);
        // For the partial index. The planner takes the first of two that it thinks equal, and sorts after this one.
        all.sql.push_str(" AND d.state IN ('held', 'parked', 'dead')");
    } else if filter.upstream.is_some() || filter.state.is_some() {
        all.sql.push_str(" AND EXISTS (SELECT 1 FROM deliveries AS d WHERE d.event = events.id");
        all.and_delivery(filter);
        all.sql.push(')');
    }
    for (column, wanted) in
        [("source", &filter.source), ("event_type", &filter.event_type), ("attempt_id", &filter.attempt_id)]
    {
        if let Some(wanted) = wanted {
            all.and(&format!("events.{column} ="), wanted.clone());
        }
    }
    if let Some(since) = filter.since {
        all.and("events.received_ns >=", since.unix_ns());
        all.and_id(&format!("{id} >="), first_id(since.unix_ms().saturating_sub(CLOCK_STEP_MAX_MS)));
    }
    if let Some(until) = filter.until {
        all.and("events.received_ns <", until.unix_ns());
        all.and_id(&format!("{id} <"), first_id(until.unix_ms().saturating_add(CLOCK_STEP_MAX_MS)));
    }
    for (comparison, wanted) in [("=", filter.id), ("<", filter.before), (">", filter.after)] {
        if let Some(wanted) = wanted {
            all.and_id(&format!("{id} {comparison}"), wanted);
        }
    }
    if let Some(key) = filter.key {
        all.and("events.id IN (SELECT event FROM keys WHERE key =", key.0.to_vec());
        all.sql.push(')');
    }
    if filter.unrouted {
        all.sql.push_str(" AND events.unrouted = 1");
    }
    let order = match direction {
        Direction::NewestFirst => "DESC",
        Direction::OldestFirst => "ASC",
    };
    (format!("SELECT {} FROM {from} WHERE TRUE{} ORDER BY {id} {order}", EVENTS.listed(), all.sql), all.values)
}

/// The lowest id that may be made at a time.
fn first_id(unix_ms: i64) -> EventId {
    let mut id = [0; 16];
    // 48 bits of milliseconds come first.
    id[..6].copy_from_slice(&unix_ms.clamp(0, (1 << 48) - 1).to_be_bytes()[2..]);
    EventId::from_bytes(id)
}
