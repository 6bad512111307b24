//! A store with events in every state, made by the engine, and what can be seen of it: row by row, and through the
//! engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use hookward::{
    config::model::Durability,
    event::{Attempt, Begin, Body, Client, EventHead, EventId, Hold, Name, NewEvent, OnConflict, OnResend, OrderKey},
    store::{
        Direction, EventStore as _, Filter, Outcome, Settled, StoreError,
        sqlite::{OpenError, Options, SqliteStore},
    },
    time::{Clock, Wall},
    verify::{Key, Keys, Lived},
};
use rusqlite::{Connection, OpenFlags, types::Value};
use tempfile::TempDir;

use crate::world::NOW_S;

pub(super) const UPSTREAMS: [&str; 2] = ["audit", "orders"];
const LEASE: Duration = Duration::from_mins(1);

/// With room for a long log, so that nothing is moved from it into the database file.
pub(super) fn options(directory: &Path) -> Options {
    Options {
        directory: directory.to_owned(),
        durability: Durability::Os,
        disk_bytes_max: 64 << 20,
        disk_share_max: 0.9,
        encryption: Vec::new(),
        clock: Clock::starting_at(Wall::from_unix_s(NOW_S)),
    }
}

/// In memory where the machine has a place for that: a disk that is synced for thousands of stores is slow, and what a
/// power cut leaves is not asked here.
pub(super) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.expect("a directory")
}

pub(super) fn database(directory: &Path) -> PathBuf {
    SqliteStore::database_path(directory)
}

fn lived(kind: u8, n: u8) -> Lived {
    let mut key = [kind; 32];
    key[0] = n;
    Lived { key: Key(key), lives: Duration::from_hours(24) }
}

/// The `n`-th event: every seventh has a body of several pages, one has none.
pub(super) fn event(n: u8) -> NewEvent {
    let now = Wall::from_unix_s(NOW_S);
    let bytes = if n.is_multiple_of(7) { usize::from(n) * 700 } else { usize::from(n) * 11 };
    let mut digest = [0xbb; 32];
    digest[0] = n;
    NewEvent {
        head: EventHead {
            id: EventId::new(now),
            source: if n.is_multiple_of(2) { "shop" } else { "depot" }.into(),
            provider: "acme".into(),
            received_at: now,
            method: "POST".to_owned(),
            query: n.is_multiple_of(5).then(|| format!("n={n}")),
            client: Client { address: format!("192.0.2.{n}"), proto: "https".to_owned(), host: "hooks".to_owned() },
            headers: vec![("content-type".to_owned(), b"application/json".to_vec()), ("x-n".to_owned(), vec![n])],
            event_type: Some(format!("kind-{}", n % 3)),
            attempt_id: n.is_multiple_of(3).then(|| format!("try-{n}")),
            verified: "hmac-sha256/main".to_owned(),
            traceparent: "00-1-2-01".to_owned(),
            duplicate_of: None,
            conflict_of: None,
        },
        body: Body::free((0..bytes).map(|i| u8::try_from(i % 251).unwrap_or(0) ^ n).collect::<Vec<_>>()),
        keys: Keys {
            body: digest,
            replay: Some(lived(1, n)),
            nonce: None,
            event: Some(lived(2, n)),
            timed: true,
            fell_back: false,
        },
        upstreams: if n.is_multiple_of(4) { UPSTREAMS.map(Name::from).into() } else { vec![UPSTREAMS[1].into()] },
        begin: if n.is_multiple_of(11) { Begin::Held(Hold::Stale) } else { Begin::Due },
        on_conflict: OnConflict::Hold,
        on_resend: OnResend::Drop,
        order_key: if n.is_multiple_of(6) { OrderKey::new("customer-6") } else { None },
        keep_body: !n.is_multiple_of(9),
    }
}

/// Delivers some, gives up on some, has some tried again, leaves some leased.
pub(super) async fn fill(store: &SqliteStore, events: u8) {
    for n in 0..events {
        store.append(event(n)).await.expect("stored");
    }
    for upstream in UPSTREAMS {
        let mut n = 0;
        for leased in store.lease(upstream, 40, LEASE).await.expect("leased") {
            n += 1;
            let outcome = match n % 4 {
                0 => Outcome::Delivered { items: Vec::new() },
                1 => Outcome::Dead { reason: "status 410".to_owned() },
                2 => Outcome::Retry { after: Duration::ZERO },
                _ => continue,
            };
            store.settle(leased.lease, settled(outcome)).await.expect("settled");
        }
    }
}

pub(super) fn settled(outcome: Outcome) -> Settled {
    let attempt = Attempt {
        number: 1,
        began_at: Wall::from_unix_s(NOW_S),
        took: Duration::from_millis(3),
        status: Some(500),
        error: None,
        cause: String::new(),
    };
    Settled { attempt, outcome, answer: None, uncertain: false }
}

/// Every row of every table, or why they cannot be read.
pub(super) fn rows(database: &Path) -> rusqlite::Result<Vec<String>> {
    let log = database.with_extension("db-wal").exists();
    let connection = if log {
        Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?
    } else {
        let uri = format!("file:{}?immutable=1", database.display());
        Connection::open_with_flags(uri, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)?
    };
    connection.execute_batch("BEGIN")?;
    let tables: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut rows = Vec::new();
    for table in tables {
        let mut statement = connection.prepare(&format!("SELECT * FROM \"{table}\""))?;
        let columns = statement.column_count();
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let mut line = table.clone();
            for column in 0..columns {
                let _ = write!(line, " {:?}", row.get::<_, Value>(column)?);
            }
            rows.push(line);
        }
    }
    connection.execute_batch("COMMIT")?;
    rows.sort();
    Ok(rows)
}

/// What the engine makes of a store, by what it is asked. Times that depend on the moment are not in it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By event and upstream, everything that a worker gets.
    pub(super) leased: BTreeMap<(EventId, Name), (String, Bytes)>,
    /// By event: what does not change over its life, with its body.
    pub(super) shown: BTreeMap<EventId, (String, Bytes)>,
    /// The live keys of events.
    pub(super) keys: BTreeSet<(EventId, Key)>,
    /// As `shown`, of a list.
    pub(super) listed: BTreeMap<EventId, String>,
    /// What was said instead.
    pub(super) errors: Vec<String>,
    /// What the store counted as damaged.
    pub(super) damaged: u64,
}

/// Opens the store and asks it for everything.
pub(super) async fn see(directory: &Path, ids: &[EventId]) -> Result<Seen, OpenError> {
    // Little room, as all of it is written when a store is opened.
    let store = SqliteStore::open(&Options { disk_bytes_max: 8 << 20, ..options(directory) })?;
    let mut seen = Seen::default();
    let mut filter = Filter::default();
    loop {
        match store.list(filter.clone(), Direction::OldestFirst, 1000).await {
            Ok(page) => {
                for listed in page.events {
                    seen.listed.insert(listed.head.id, format!("{:?} {}", listed.head, listed.body_bytes));
                }
                let Some(next) = page.next else { break };
                filter.after = Some(next);
            }
            Err(error) => break seen.errors.push(error.to_string()),
        }
    }
    for id in ids {
        match store.show(*id).await {
            Ok(shown) => {
                seen.keys.extend(shown.keys.iter().map(|(key, _)| (*id, *key)));
                let what = format!("{:?} {}", shown.event.head, shown.body_removed);
                seen.shown.insert(*id, (what, shown.event.body.bytes().clone()));
            }
            Err(error) => seen.errors.push(error.to_string()),
        }
    }
    take_all(&store, &mut seen).await;
    match store.stats().await {
        Ok(stats) => seen.damaged = stats.damaged,
        Err(error) => seen.errors.push(error.to_string()),
    }
    store.close().await;
    Ok(seen)
}

/// Every lease that can be had, turns of order keys included: what is leased is delivered.
async fn take_all(store: &Arc<SqliteStore>, seen: &mut Seen) {
    for upstream in UPSTREAMS {
        loop {
            let batch = match store.lease(upstream, 16, LEASE).await {
                Ok(batch) if batch.is_empty() => break,
                Ok(batch) => batch,
                Err(error) => break seen.errors.push(error.to_string()),
            };
            for leased in batch {
                let what = format!(
                    "{:?} attempt {} tries {} {} {} {}",
                    leased.event.head, leased.attempt, leased.tries, leased.redelivery, leased.uncertain, leased.cause
                );
                let body = leased.event.body.bytes().clone();
                let again = seen.leased.insert((leased.event.head.id, leased.upstream), (what, body));
                assert!(again.is_none(), "leased twice");
                match store.settle(leased.lease, settled(Outcome::Delivered { items: Vec::new() })).await {
                    Ok(()) | Err(StoreError::LeaseLost) => {}
                    Err(error) => seen.errors.push(error.to_string()),
                }
            }
        }
    }
}
