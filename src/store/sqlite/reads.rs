//! What is read beside the writer, each in one snapshot: lists, one event, numbers.

use std::{fmt::Write as _, path::Path, time::Duration};

use rusqlite::{Connection, OptionalExtension, Row, params, types::Value};

use super::{
    super::{Filter, Listed, Page, Shown, Stats, StoreError, elapsed::between, judge::PAGE_MAX},
    open::files_bytes,
    rows::{self, HEAD},
    writer::Stop,
};
use crate::{
    event::{Attempt, Body, Delivery, Event, EventId, Item, Name, State},
    time::Wall,
};

pub(super) const NEXT_DUE: &str =
    "SELECT min(due_at) FROM deliveries WHERE upstream = ?1 AND state IN ('due', 'leased')";
pub(super) const OLDEST_DUE: &str = "SELECT min(armed_at) FROM deliveries WHERE upstream = ?1 AND state = 'due'";

pub(super) fn next_due(connection: &Connection, now_ms: i64, upstream: &str) -> Result<Option<Duration>, Stop> {
    let due_at: Option<i64> = connection.prepare_cached(NEXT_DUE)?.query_row([upstream], |row| row.get(0))?;
    Ok(due_at.map(|due_at| between(now_ms, due_at)))
}

pub(super) fn acknowledged_items(
    connection: &Connection,
    now_ms: i64,
    upstream: &str,
    items: &[Item],
) -> Result<Vec<Option<[u8; 32]>>, Stop> {
    let mut known =
        connection.prepare_cached("SELECT content FROM items WHERE upstream = ?1 AND key = ?2 AND expires_at > ?3")?;
    let mut contents = Vec::with_capacity(items.len());
    for item in items {
        contents.push(known.query_row(params![upstream, item.key.0, now_ms], |row| row.get(0)).optional()?);
    }
    Ok(contents)
}

pub(super) fn list(connection: &Connection, now_ms: i64, filter: &Filter, limit: usize) -> Result<Page, Stop> {
    let snapshot = connection.unchecked_transaction()?;
    let (sql, values) = list_sql(filter, limit);
    let mut statement = snapshot.prepare_cached(&sql)?;
    let mut events = statement.query(rusqlite::params_from_iter(values))?;
    let mut listed = Vec::new();
    while let Some(row) = events.next()? {
        let head = rows::head(row)?;
        let deliveries = deliveries(&snapshot, now_ms, head.id, false)?;
        listed.push(Listed {
            head,
            body_bytes: row.get(rows::BODY_BYTES)?,
            copies: row.get(rows::COPIES)?,
            deliveries,
        });
    }
    let next = listed.last().filter(|_| listed.len() >= limit).map(|last: &Listed| last.head.id);
    Ok(Page { events: listed, next })
}

fn list_sql(filter: &Filter, limit: usize) -> (String, Vec<Value>) {
    let mut sql = format!("SELECT {HEAD} FROM events AS e WHERE TRUE");
    let mut values = Vec::new();
    let mut place = |value: Value| {
        values.push(value);
        values.len()
    };
    for (column, wanted) in
        [("source", &filter.source), ("event_type", &filter.event_type), ("attempt_id", &filter.attempt_id)]
    {
        if let Some(wanted) = wanted {
            let _ = write!(sql, " AND e.{column} = ?{}", place(wanted.clone().into()));
        }
    }
    for (bound, wall) in [(">=", filter.since), ("<", filter.until)] {
        if let Some(wall) = wall {
            let _ = write!(sql, " AND e.received_ns {bound} ?{}", place(wall.unix_ns().into()));
        }
    }
    if let Some(before) = filter.before {
        let _ = write!(sql, " AND e.id < ?{}", place(before.as_bytes().to_vec().into()));
    }
    let mut of_delivery = String::new();
    if let Some(upstream) = &filter.upstream {
        let _ = write!(of_delivery, " AND d.upstream = ?{}", place(upstream.clone().into()));
    }
    if let Some(state) = filter.state {
        let _ = write!(of_delivery, " AND d.state = ?{}", place(state.name().to_owned().into()));
    }
    // The states that few deliveries are in have an index; from the others the events are looked at one by one.
    match filter.state {
        Some(State::Held | State::Parked | State::Dead) => {
            let _ = write!(
                sql,
                " AND e.id IN (SELECT d.event FROM deliveries AS d
                 WHERE d.state IN ('held', 'parked', 'dead'){of_delivery})"
            );
        }
        _ if !of_delivery.is_empty() => {
            let _ = write!(sql, " AND EXISTS (SELECT 1 FROM deliveries AS d WHERE d.event = e.id{of_delivery})");
        }
        _ => {}
    }
    let limit = i64::try_from(limit.min(PAGE_MAX)).unwrap_or(i64::MAX);
    let _ = write!(sql, " ORDER BY e.id DESC LIMIT ?{}", place(limit.into()));
    (sql, values)
}

pub(super) fn show(connection: &Connection, now_ms: i64, id: EventId) -> Result<Shown, Stop> {
    let snapshot = connection.unchecked_transaction()?;
    let event = snapshot
        .prepare_cached(&format!("SELECT {HEAD} FROM events AS e WHERE e.id = ?1"))?
        .query_row([id.as_bytes()], |row| Ok((rows::head(row)?, row.get(rows::COPIES)?, row.get(rows::SEQ)?)))
        .optional()?;
    let (head, copies, seq): (_, _, i64) = event.ok_or(StoreError::NotFound)?;
    let body: Vec<u8> =
        snapshot.prepare_cached("SELECT body FROM bodies WHERE seq = ?1")?.query_row([seq], |row| row.get(0))?;
    let deliveries = deliveries(&snapshot, now_ms, id, true)?;
    Ok(Shown {
        event: Event { head, body: Body::free(body), copies },
        body_removed: false,
        keys: Vec::new(),
        deliveries,
    })
}

fn deliveries(
    connection: &Connection,
    now_ms: i64,
    event: EventId,
    with_history: bool,
) -> rusqlite::Result<Vec<Delivery>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, upstream, state, reason, attempts, due_at FROM deliveries WHERE event = ?1 ORDER BY id",
    )?;
    let mut found = statement.query([event.as_bytes()])?;
    let mut deliveries = Vec::new();
    while let Some(row) = found.next()? {
        let state = rows::state(row, 2)?;
        let due_at: i64 = row.get(5)?;
        deliveries.push(Delivery {
            upstream: row.get(1)?,
            state,
            reason: row.get(3)?,
            attempts: row.get(4)?,
            due_in: (state == State::Due).then(|| between(now_ms, due_at)),
            order_key: None,
            history: if with_history { history(connection, row.get(0)?)? } else { Vec::new() },
        });
    }
    Ok(deliveries)
}

fn history(connection: &Connection, delivery: i64) -> rusqlite::Result<Vec<Attempt>> {
    connection
        .prepare_cached(
            "SELECT number, began_ns, took_ns, status, error, cause FROM attempts WHERE delivery = ?1 ORDER BY number",
        )?
        .query_map([delivery], |row: &Row<'_>| {
            Ok(Attempt {
                number: row.get(0)?,
                began_at: Wall::from_unix_ns(row.get(1)?),
                took: Duration::from_nanos(row.get(2)?),
                status: row.get(3)?,
                error: row.get(4)?,
                cause: row.get(5)?,
            })
        })?
        .collect()
}

pub(super) fn stats(connection: &Connection, now_ms: i64, directory: &Path) -> Result<Stats, Stop> {
    let snapshot = connection.unchecked_transaction()?;
    let mut stats = Stats { bytes: files_bytes(directory), ..Stats::default() };
    let mut counts = snapshot.prepare_cached("SELECT upstream, state, n FROM counts WHERE n > 0")?;
    let mut rows = counts.query([])?;
    while let Some(row) = rows.next()? {
        let upstream: Name = row.get(0)?;
        let state = rows::state(row, 1)?;
        if state == State::Due {
            let oldest: Option<i64> = snapshot.prepare_cached(OLDEST_DUE)?.query_row([&upstream], |row| row.get(0))?;
            if let Some(oldest) = oldest {
                stats.oldest_due.insert(Name::clone(&upstream), between(oldest, now_ms));
            }
        }
        stats.deliveries.insert((upstream, state), row.get(2)?);
    }
    let mut total = snapshot.prepare_cached("SELECT n FROM totals WHERE what = ?1")?;
    stats.events = total.query_row(["events"], |row| row.get(0))?;
    stats.keys = total.query_row(["keys"], |row| row.get(0))?;
    Ok(stats)
}
