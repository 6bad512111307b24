//! Files of other versions, and of none.

use super::{
    super::{format::FORMAT_VERSION, seal::TABLES, *},
    LEASE, options,
};
use crate::{
    event::{Delivery, State},
    store::{conformance::EPOCH_S, conformance::keys},
    time::Wall,
};

const FORMAT_1: &str = include_str!("../../../../tests/store/format-1.sql");

fn id(n: u8) -> EventId {
    let mut bytes = [0; 16];
    (bytes[0], bytes[6], bytes[8], bytes[15]) = (1, 0x70, 0x80, n);
    EventId::from_bytes(bytes)
}

fn raw(directory: &Path) -> Connection {
    Connection::open(SqliteStore::database_path(directory)).unwrap()
}

fn schema(directory: &Path) -> Vec<(String, Option<String>)> {
    let connection = raw(directory);
    let mut statement = connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY type, name").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// When the store of format 1 was last open.
fn later(directory: &Path) -> Options {
    Options { clock: Clock::starting_at(Wall::from_unix_s(EPOCH_S + 3600)), ..options(directory) }
}

fn format_1() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    raw(directory.path()).execute_batch(FORMAT_1).unwrap();
    directory
}

#[tokio::test(start_paused = true)]
async fn a_store_of_format_1_is_brought_up_with_all_that_is_in_it() {
    let directory = format_1();
    let store = SqliteStore::open(&later(directory.path())).unwrap();
    let states = async |n| -> Vec<(String, State, Option<String>, u32)> {
        let tell = |d: Delivery| (d.upstream.to_string(), d.state, d.reason, d.attempts);
        store.show(id(n)).await.unwrap().deliveries.into_iter().map(tell).collect()
    };
    let one = |upstream: &str, state, reason: Option<&str>, attempts| {
        vec![(upstream.to_owned(), state, reason.map(str::to_owned), attempts)]
    };
    let delivered = |upstream| one(upstream, State::Delivered, None, 1);
    assert_eq!(states(1).await, [delivered("a"), delivered("b")].concat());
    assert_eq!(states(2).await, one("a", State::Due, Some("status 503"), 1));
    assert_eq!(states(3).await, one("c", State::Due, None, 0));
    assert_eq!(states(4).await, one("d", State::Dead, Some("status 410"), 1));
    assert_eq!(states(5).await, one("a", State::Held, Some("stale"), 0));
    assert_eq!(states(6).await, one("a", State::Held, Some("conflict"), 0));
    assert_eq!(states(7).await, one("a", State::Due, None, 0));
    assert_eq!(states(8).await, []);
    assert_eq!(states(9).await, one("gone", State::Parked, Some("upstream removed"), 0));
    assert_eq!(states(10).await, one("e", State::Due, None, 0), "it was leased");

    for n in 1..=10_u8 {
        let shown = store.show(id(n)).await.unwrap();
        let body = if n == 10 { vec![0, 255, 7] } else { format!("{{\"n\":{n}}}").into_bytes() };
        assert_eq!(shown.event.body[..], body[..]);
        assert_eq!(shown.event.head.received_at, Wall::from_unix_s(EPOCH_S + i64::from(n)));
        assert_eq!(shown.event.head.headers, [("x-a".to_owned(), vec![0xff, 0]), ("x-a".to_owned(), Vec::new())]);
        assert!(!shown.body_removed);
    }
    let first = store.show(id(1)).await.unwrap();
    assert_eq!((first.event.copies, first.deliveries[0].history.len(), first.keys.len()), (2, 1, 1));
    let dead = store.show(id(4)).await.unwrap().deliveries.remove(0);
    assert_eq!(dead.history[0].error.as_deref(), Some("connection refused"));
    let heads = [6, 7].map(async |n| store.show(id(n)).await.unwrap().event.head);
    let [conflict, again] = heads;
    assert_eq!((conflict.await.conflict_of, again.await.duplicate_of), (Some(id(4)), Some(id(1))));
    let last = store.show(id(8)).await.unwrap().event.head;
    assert_eq!(
        (last.query.as_deref(), last.attempt_id.as_deref(), last.event_type),
        (Some("a=1"), Some("try-8"), None)
    );

    let stats = store.stats().await.unwrap();
    assert_eq!((stats.events, stats.keys, stats.unrouted, stats.damaged), (10, 21, 1, 0));
    // Of each: seven bytes of body, headers of twenty-four, and the overhead.
    let open: Vec<_> = stats.open_bytes.iter().map(|(upstream, bytes)| (&**upstream, *bytes)).collect();
    assert_eq!(open[0], ("a", 4 * (7 + 24 + 4096)));
    let unrouted = Filter { unrouted: true, ..Filter::default() };
    let listed = store.list(unrouted, Direction::NewestFirst, 9).await.unwrap().events;
    assert_eq!(listed[0].head.id, id(8));

    for (upstream, n, attempt, tries, cause, uncertain) in [
        ("a", 7, 1, 0, "first", false),
        ("a", 2, 2, 1, "lease lapsed", true),
        ("c", 3, 1, 0, "restart", true),
        ("e", 10, 1, 0, "restart", true),
    ] {
        let leased = store.lease(upstream, 1, LEASE).await.unwrap().remove(0);
        assert_eq!((leased.event.head.id, leased.attempt, leased.tries), (id(n), attempt, tries));
        assert_eq!((&*leased.cause, leased.uncertain, leased.redelivery), (cause, uncertain, false));
    }
    let answered = store.lookup(keys(11, 11, 11)).await.unwrap();
    assert!(
        matches!(answered, Known::Copy { first, answer: Some(answer) } if first == id(11) && &answer.body[..] == b"ok")
    );
    let item = Item { key: crate::verify::Key([5; 32]), content: [0; 32] };
    assert_eq!(store.acknowledged_items("b", vec![item]).await.unwrap(), [Some([6; 32])]);
    store.close().await;

    let fresh = tempfile::tempdir().unwrap();
    SqliteStore::open(&options(fresh.path())).unwrap().close().await;
    assert_eq!(schema(directory.path()), schema(fresh.path()));
    let connection = raw(directory.path());
    assert_eq!(connection.pragma_query_value(None, "user_version", |row| row.get(0)), Ok(FORMAT_VERSION));
    let whole: String = connection.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    for table in TABLES {
        let mut rows = connection.prepare(&format!("SELECT {} FROM {}", table.listed(), table.name)).unwrap();
        let mut whole = rows.query_map([], |row| table.is_whole(row, 0)).unwrap();
        assert!(whole.all(Result::unwrap), "{}", table.name);
    }
    drop(connection);
    SqliteStore::open(&later(directory.path())).unwrap().close().await;
}

#[test]
fn a_migration_that_fails_leaves_the_old_store() {
    let directory = format_1();
    let before = schema(directory.path());
    // Found out last.
    raw(directory.path()).execute_batch("DELETE FROM clock").unwrap();
    let refused = SqliteStore::open(&later(directory.path())).unwrap_err().to_string();
    assert!(refused.contains("its clock cannot be read"), "{refused}");
    assert_eq!(schema(directory.path()), before);
}

#[tokio::test]
async fn a_schema_that_is_not_ours_is_not_opened() {
    for (change, said) in [
        ("DROP INDEX keys_expiring", "the index keys_expiring is not that of a store"),
        ("ALTER TABLE keys ADD COLUMN more TEXT", "the table keys is not that of a store"),
        ("CREATE TABLE more (a)", "the table more is not that of a store"),
        ("CREATE TRIGGER t AFTER INSERT ON keys BEGIN DELETE FROM keys; END", "the trigger t is not that of a store"),
        ("PRAGMA user_version = 1", "is not that of a store"),
        ("PRAGMA user_version = 0", "there is no format 0"),
        ("DELETE FROM clock", "its clock cannot be read"),
        ("UPDATE clock SET elapsed_ms = elapsed_ms + 1", "its clock cannot be read"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        SqliteStore::open(&options(directory.path())).unwrap().close().await;
        raw(directory.path()).execute_batch(change).unwrap();
        let refused = SqliteStore::open(&options(directory.path())).unwrap_err().to_string();
        assert!(refused.contains(said) && refused.contains("hookward store verify"), "{change}: {refused}");
    }
}
