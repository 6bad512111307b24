//! What is not as it was written is not used, is said, and is in nobody's way.

use std::collections::BTreeMap;

use super::{
    super::{
        seal::{CLOCK, TABLES, Table},
        *,
    },
    LEASE,
};
use crate::{
    event::{Begin, Event, Hold, OrderKey, State},
    store::{
        OperationState, Outcome,
        conformance::{EPOCH_S, event, keys, settled},
    },
    time::Wall,
};

const UPSTREAMS: [&str; 2] = ["zebra", "heron"];

/// Small, as a spare file is written for each.
fn options(directory: &Path) -> Options {
    Options { disk_bytes_max: 16 << 20, ..super::options(directory) }
}

fn open(directory: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(&options(directory)).unwrap()
}

fn id(n: u32) -> EventId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    (bytes[6], bytes[8]) = (0x70, 0x80);
    EventId::from_bytes(bytes)
}

fn new(n: u32) -> NewEvent {
    let mut new = event(keys(n, n, n), &UPSTREAMS);
    new.head.id = id(n);
    new.body = Body::free(format!("{{\"n\":{n}}}").repeat(4000));
    new.order_key = OrderKey::new("one after another");
    new
}

/// A store with something in every table: of five events one is delivered to the first upstream, one held, one kept
/// waiting by the one before it.
async fn fill(directory: &Path) -> BTreeMap<EventId, Event> {
    let store = open(directory);
    for n in 0..5 {
        let begin = if n == 3 { Begin::Held(Hold::Stale) } else { Begin::Due };
        store.append(NewEvent { begin, ..new(n) }).await.unwrap();
    }
    let first = store.lease("zebra", 1, LEASE).await.unwrap().remove(0);
    let items = vec![Item { key: crate::verify::Key([5; 32]), content: [6; 32] }];
    let answer = Answer { status: 201, content_type: None, body: b"done"[..].into() };
    let answer = Some((answer, Duration::from_hours(1)));
    store.settle(first.lease, Settled { answer, ..settled(1, Outcome::Delivered { items }) }).await.unwrap();
    let now = Wall::from_unix_s(EPOCH_S);
    store.set_paused("zebra", Some(Pause { since: now, by: "anna".to_owned() })).await.unwrap();
    let operation = Operation {
        id: id(99),
        spec: "{}".to_owned(),
        state: OperationState::Stopped,
        reason: Some("asked to".to_owned()),
        cursor: Some(id(1)),
        total: 9,
        done: 1,
        skipped: 0,
        created_at: now,
        changed_at: now,
    };
    store.save_operation(operation).await.unwrap();
    let mut stored = BTreeMap::new();
    for n in 0..5 {
        stored.insert(id(n), store.show(id(n)).await.unwrap().event);
    }
    store.close().await;
    stored
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    std::fs::copy(SqliteStore::database_path(from), SqliteStore::database_path(to.path())).unwrap();
    to
}

fn assert_as_stored(found: &Event, stored: &BTreeMap<EventId, Event>, what: &str) {
    let original = &stored[&found.head.id];
    assert_eq!((&found.head, &found.body[..]), (&original.head, &original.body[..]), "{what}");
}

/// An index that does not fit is built anew when it is met. What was asked for is asked again, as lanes do.
async fn asked<T>(what: &str, ask: impl AsyncFn() -> Result<T, StoreError>) -> T {
    for _ in 0..2 {
        match ask().await {
            Err(StoreError::Unavailable(_)) => {}
            done => return done.unwrap_or_else(|error| panic!("{what}: {error}")),
        }
    }
    ask().await.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Does everything that can be done to a store, and holds what comes out of it to what went in.
async fn use_up(store: &SqliteStore, stored: &BTreeMap<EventId, Event>, what: &str) {
    for upstream in UPSTREAMS {
        for _ in 0..5 {
            for leased in asked(what, async || store.lease(upstream, 2, LEASE).await).await {
                assert_eq!(&*leased.upstream, upstream, "{what}");
                assert_as_stored(&leased.event, stored, what);
                let delivered = settled(1, Outcome::Delivered { items: Vec::new() });
                asked(what, async || store.settle(leased.lease, delivered.clone()).await).await;
            }
        }
    }
    for id in stored.keys() {
        match store.show(*id).await {
            Ok(shown) => assert_as_stored(&shown.event, stored, what),
            Err(StoreError::Damaged(_) | StoreError::NotFound) => {}
            Err(error) => panic!("{what}: {error}"),
        }
    }
    for listed in store.list(Filter::default(), Direction::OldestFirst, 100).await.unwrap().events {
        assert_eq!(listed.head, stored[&listed.head.id].head, "{what}");
    }
    for n in 0..5 {
        // What is not known any more is stored anew; what is known is known as itself.
        let copy = NewEvent { head: new(100 + n).head, ..new(n) };
        match asked(what, async || store.append(copy.clone()).await).await {
            Appended::New { .. } => {}
            Appended::Known { first, .. } => assert_eq!(first, id(n), "{what}"),
            Appended::Conflict { .. } => panic!("{what}: not a conflict"),
        }
    }
    let asked = vec![Item { key: crate::verify::Key([5; 32]), content: [0; 32] }];
    let known = store.acknowledged_items("zebra", asked).await.unwrap();
    assert!(matches!(known[0], None | Some([6, ..])), "{what}");
    for (upstream, pause) in store.paused().await.unwrap() {
        assert_eq!((&*upstream, &*pause.by), ("zebra", "anna"), "{what}");
    }
    for operation in store.operations().await.unwrap() {
        assert_eq!((operation.id, operation.total), (id(99), 9), "{what}");
    }
    tokio::time::advance(Duration::from_hours(24 * 60)).await;
    for _ in 0..3 {
        let _ = store.sweep(Duration::ZERO).await;
    }
    assert_eq!(store.health(), Ok(()), "{what}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_value_is_used_by_nobody_whichever_it_is() {
    let original = tempfile::tempdir().unwrap();
    let stored = fill(original.path()).await;
    for table in TABLES {
        for column in table.columns.iter().chain(&["seal"]) {
            let what = format!("{}.{column}", table.name);
            let directory = copy(original.path());
            damage(directory.path(), table, column);
            match SqliteStore::open(&options(directory.path())) {
                Err(OpenError::Damaged { .. }) if table.name == CLOCK.name => continue,
                Err(error) => panic!("{what}: {error}"),
                Ok(_) if table.name == CLOCK.name => panic!("{what}: opened"),
                Ok(store) => {
                    use_up(&store, &stored, &what).await;
                    // Nobody reads the first ones after the opening, nor looks the others up by what they say now.
                    let unseen = ["totals", "counts", "attempts"].contains(&table.name)
                        || ["deliveries.event", "answers.event", "items.upstream", "items.key"].contains(&&*what);
                    assert!(store.stats().await.unwrap().damaged > 0 || unseen, "{what}: not counted");
                    store.close().await;
                }
            }
            open(directory.path()).close().await;
        }
    }
}

/// Changes one value of the first row, and the indexes with it.
fn damage(directory: &Path, table: Table, column: &str) {
    let connection = Connection::open(SqliteStore::database_path(directory)).unwrap();
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false).unwrap();
    let changed = format!(
        "CASE typeof({column}) WHEN 'integer' THEN {column} + 1000 WHEN 'text' THEN {column} || 'x'
         WHEN 'blob' THEN CAST(x'ff' || substr({column}, 2) AS BLOB) END"
    );
    // A column of integers takes no text, one of texts no integer.
    let of_null = if ["body_seal", "finished_at", "status", "restored_ns"].contains(&column) { "1" } else { "'x'" };
    let of_null = if ["duplicate_of", "conflict_of"].contains(&column) { "x'00'" } else { of_null };
    let key = table.columns[0];
    let sql = format!(
        "UPDATE {0} SET {column} = CASE WHEN {column} IS NULL THEN {of_null} ELSE {changed} END
         WHERE {key} = (SELECT min({key}) FROM {0})",
        table.name
    );
    connection.execute_batch("PRAGMA ignore_check_constraints = ON").unwrap();
    assert!(connection.execute(&sql, []).unwrap() > 0, "{} {column}", table.name);
}

#[tokio::test(start_paused = true)]
async fn a_flip_in_a_row_or_in_an_index_is_survived() {
    let original = tempfile::tempdir().unwrap();
    let stored = fill(original.path()).await;
    let bytes = std::fs::read(SqliteStore::database_path(original.path())).unwrap();
    let keys = keys(2, 2, 2);
    let key = keys.all().next().unwrap().key.0;
    let event = id(2);
    let marks: [&[u8]; 8] =
        [b"zebra", b"shop", b"one after another", b"first", b"held", event.as_bytes(), &key, &keys.body];
    let mut flips = 0;
    for mark in marks {
        let places: Vec<usize> =
            bytes.windows(mark.len()).enumerate().filter(|(_, found)| *found == mark).map(|(at, _)| at).collect();
        // One bit makes another letter, the other no letter at all.
        for (place, bit) in places.into_iter().zip([0x01, 0x80].into_iter().cycle()) {
            let what = format!("{:?} at {place}", String::from_utf8_lossy(mark));
            let directory = copy(original.path());
            let mut flipped = bytes.clone();
            flipped[place + 2] ^= bit;
            std::fs::write(SqliteStore::database_path(directory.path()), flipped).unwrap();
            flips += 1;
            match SqliteStore::open(&options(directory.path())) {
                Err(OpenError::Damaged { .. }) => {}
                Err(error) => panic!("{what}: {error}"),
                Ok(store) => {
                    use_up(&store, &stored, &what).await;
                    store.close().await;
                }
            }
        }
    }
    assert!(flips > 60, "{flips}");
}

async fn garble(store: &SqliteStore, sql: &'static str) {
    assert!(store.write(move |desk| Ok(desk.connection.execute(sql, [])?)).await.unwrap() > 0, "{sql}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_event_is_a_dead_letter_and_stops_no_other() {
    for (sql, reason) in [
        ("UPDATE events SET headers = x'ff' WHERE seq = 1", "damaged: the event"),
        ("UPDATE events SET received_ns = received_ns + 1 WHERE seq = 1", "damaged: the event"),
        ("UPDATE bodies SET body = x'00' WHERE seq = 1", "damaged: the body"),
        ("DELETE FROM bodies WHERE seq = 1", "damaged: the body"),
        ("DELETE FROM events WHERE seq = 1", "damaged: the event"),
        ("UPDATE deliveries SET armed_at = armed_at - 1 WHERE id = 1", "damaged: the delivery"),
        ("UPDATE deliveries SET order_key = 'another' WHERE id = 1", "damaged: the delivery"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        for n in 0..2 {
            store.append(NewEvent { upstreams: vec!["a".into()], ..new(n) }).await.unwrap();
        }
        garble(&store, sql).await;
        let next = store.lease("a", 10, LEASE).await.unwrap();
        // The turn of the one behind it comes, as after any dead letter.
        let ids: Vec<EventId> =
            next.iter().chain(&store.lease("a", 10, LEASE).await.unwrap()).map(|one| one.event.head.id).collect();
        assert_eq!(ids, [id(1)], "{sql}");
        let found = store.write(|desk| {
            let row = "SELECT state, reason FROM deliveries WHERE id = 1";
            Ok(desk.connection.query_row(row, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?)
        });
        assert_eq!(found.await, Ok((State::Dead.name().to_owned(), reason.to_owned())), "{sql}");
        let is_missing = sql.starts_with("DELETE FROM events");
        assert_eq!(store.stats().await.unwrap().damaged, u64::from(!is_missing), "{sql}");
        assert!(matches!(store.show(id(0)).await, Err(StoreError::Damaged(_) | StoreError::NotFound)), "{sql}");
        let listed = store.list(Filter::default(), Direction::NewestFirst, 9).await.unwrap().events;
        let listed: Vec<EventId> = listed.into_iter().map(|listed| listed.head.id).collect();
        let body_only = reason == "damaged: the body";
        assert_eq!(listed, if body_only { vec![id(1), id(0)] } else { vec![id(1)] }, "{sql}");
        if !is_missing {
            store.purge(id(0)).await.unwrap();
            assert!(matches!(store.show(id(0)).await, Err(StoreError::NotFound)), "purging is the way to be rid of it");
        }
        assert_eq!(store.health(), Ok(()));
    }
}

/// Changes a store without what one index knows: as if that index had been damaged.
fn behind_the_back_of(index: &str, directory: &Path, sql: &str) {
    let connect = || {
        let connection = Connection::open(SqliteStore::database_path(directory)).unwrap();
        seal::install(&connection).unwrap();
        connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false).unwrap();
        connection.execute_batch("PRAGMA writable_schema = ON").unwrap();
        connection
    };
    let connection = connect();
    let hide = format!(
        "CREATE TABLE hidden AS SELECT * FROM sqlite_schema WHERE name = '{index}';
         DELETE FROM sqlite_schema WHERE name = '{index}'"
    );
    connection.execute_batch(&hide).unwrap();
    drop(connection);
    let connection = connect();
    connection.execute_batch(sql).unwrap();
    connection.execute_batch("INSERT INTO sqlite_schema SELECT * FROM hidden").unwrap();
    drop(connection);
    connect().execute_batch("DROP TABLE hidden").unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_index_that_leads_to_another_row_costs_no_delivery_and_has_an_end() {
    let damage = |column, value: &str| seal::DELIVERIES.update(&[("state", "'delivered'"), (column, value)], "id = 2");
    for (index, order_key, sql) in [
        // Its entry for the second, which waits, leads to one that is delivered and has no order key.
        ("deliveries_in_order", OrderKey::new("a"), damage("order_key", "NULL")),
        // That for the second, which is due, leads to one that was delivered at another time.
        ("deliveries_due", None, damage("due_at", "7")),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        for n in 0..3 {
            let order_key = order_key.clone();
            store.append(NewEvent { upstreams: vec!["a".into()], order_key, ..new(n) }).await.unwrap();
        }
        store.close().await;
        behind_the_back_of(index, directory.path(), &sql);
        let store = open(directory.path());
        let mut delivered = Vec::new();
        for _ in 0..4 {
            for leased in asked(index, async || store.lease("a", 1, LEASE).await).await {
                delivered.push(leased.event.head.id);
                let done = settled(1, Outcome::Delivered { items: Vec::new() });
                asked(index, async || store.settle(leased.lease, done.clone()).await).await;
            }
        }
        assert_eq!(delivered, [id(0), id(2)], "{index}");
        let dead = Filter { state: Some(State::Dead), ..Filter::default() };
        assert_eq!(store.list(dead, Direction::NewestFirst, 9).await.unwrap().events.len(), 0, "{index}");
        assert_eq!(store.health(), Ok(()), "{index}");
    }
}

#[tokio::test]
async fn a_damaged_key_calls_nothing_a_copy_and_gives_way() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.append(new(0)).await.unwrap();
    garble(&store, "UPDATE keys SET event = zeroblob(16)").await;
    let again = NewEvent { head: new(1).head, ..new(0) };
    assert!(matches!(store.append(again).await, Ok(Appended::New { .. })));
    let copy = NewEvent { head: new(2).head, ..new(0) };
    assert_eq!(store.append(copy).await, Ok(Appended::Known { first: id(1), rearmed: 0, answer: None }));
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.keys, stats.damaged), (2, 2));
}

#[tokio::test]
async fn damaged_history_is_kept_and_numbers_are_counted_anew() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..3 {
        store.append(NewEvent { upstreams: Vec::new(), ..new(n) }).await.unwrap();
    }
    garble(&store, "UPDATE events SET finished_at = finished_at - 1 WHERE seq = 1").await;
    garble(&store, "UPDATE totals SET n = 77").await;
    assert_eq!(store.sweep(Duration::ZERO).await.unwrap().events, 3, "looked at");
    let left = store.write(|desk| Ok(desk.connection.query_row("SELECT seq FROM events", [], |row| row.get(0))?));
    assert_eq!(left.await, Ok(1), "nobody knows whether it was delivered");
    store.close().await;
    let store = open(directory.path());
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.events, stats.unrouted, stats.keys), (1, 1, 6));
}
