//! Each kind of damage is found, and named so that a person knows where it is; a restored copy delivers nothing by
//! itself. The stores are written row by row here, so that they do not depend on how the engine writes.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};
use tempfile::TempDir;

use super::*;
use crate::{
    store::sqlite::{format::SCHEMA, seal},
    time::{Clock, Wall},
};

const WAITING: i64 = i64::MAX;

/// A whole store: one event with each of these deliveries, and what belongs to them.
struct Sample {
    directory: TempDir,
}

impl Sample {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let sample = Self { directory };
        let store = sample.connection();
        store.pragma_update(None, "page_size", 16 * 1024).unwrap();
        store.execute_batch("BEGIN").unwrap();
        store.execute_batch(SCHEMA).unwrap();
        store.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        store.pragma_update(None, "user_version", FORMAT_VERSION).unwrap();
        store.execute("INSERT INTO clock VALUES (1, 9000, 1000, NULL, seal(1, 9000, 1000, NULL))", []).unwrap();
        let deliveries = [
            (1, "due", 5, 0, None),
            (2, "leased", 6, 1, Some("a")),
            (3, "due", WAITING, 0, Some("a")),
            (4, "delivered", 7, 2, None),
            (5, "dead", 7, 60, None),
            (6, "held", 7, 0, None),
        ];
        for (n, state, due_at, attempts, order_key) in deliveries {
            add_event(&store, n, 0, (state == "delivered").then_some(7));
            store
                .execute(
                    "INSERT INTO deliveries SELECT *, seal(id, event, upstream, source, state, reason, attempts, tries,
                     due_at, armed_at, fence, cause, redelivery, uncertain, order_key, bytes) FROM
                     (SELECT ?1 AS id, ?2 AS event, 'up' AS upstream, 'shop' AS source, ?3 AS state, NULL AS reason,
                      ?4 AS attempts, ?4 AS tries, ?5 AS due_at, 4 AS armed_at, 1 AS fence, 'first' AS cause,
                      0 AS redelivery, 0 AS uncertain, ?6 AS order_key, 4101 + ?7 AS bytes)",
                    params![n, id(n), state, attempts, due_at, order_key, body(n).len()],
                )
                .unwrap();
            for number in 1.max(attempts - 49)..=attempts {
                let sql = "INSERT INTO attempts VALUES (?1, ?2, 1, 2, 500, NULL, 'retry',
                    seal(?1, ?2, 1, 2, 500, NULL, 'retry'))";
                store.execute(sql, (n, number)).unwrap();
            }
            let sql = "INSERT INTO keys VALUES (?1, ?2, ?3, ?4, 99, seal(?1, ?2, ?3, ?4, 99))";
            store.execute(sql, params![n, [n; 32], [0u8; 32], id(n)]).unwrap();
        }
        add_event(&store, 7, 1, Some(7));
        store
            .execute_batch(
                "INSERT INTO counts SELECT upstream, state, n, bytes, seal(upstream, state, n, bytes) FROM
                   (SELECT upstream, state, count(*) AS n, sum(bytes) AS bytes FROM deliveries GROUP BY 1, 2);
                 INSERT INTO totals VALUES ('events', 7, seal('events', 7)), ('keys', 6, seal('keys', 6)),
                   ('unrouted', 1, seal('unrouted', 1));
                 INSERT INTO operations VALUES (x'01', 's', 'running', NULL, NULL, 1, 1, 0, 1, 1,
                   seal(x'01', 's', 'running', NULL, NULL, 1, 1, 0, 1, 1));
                 INSERT INTO pauses VALUES ('up', 1, 'me', seal('up', 1, 'me'));
                 INSERT INTO items VALUES ('up', x'02', x'03', 99, seal('up', x'02', x'03', 99));
                 COMMIT;",
            )
            .unwrap();
        sample
    }

    fn path(&self) -> PathBuf {
        database_path(self.directory.path())
    }

    fn connection(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        seal::install(&connection).unwrap();
        connection
    }

    fn copy(&self) -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::copy(self.path(), database_path(directory.path())).unwrap();
        Self { directory }
    }

    fn verify(&self) -> Report {
        verify(self.directory.path(), &mut |_, _| {}).unwrap()
    }
}

fn id(n: u8) -> [u8; 16] {
    let mut id = [0x77; 16];
    id[0] = n;
    id
}

/// Some of one page, some of several, one empty.
fn body(n: u8) -> Vec<u8> {
    (0..=n).cycle().take(usize::from(n - 1) * 9_000).collect()
}

fn add_event(store: &Connection, n: u8, unrouted: u8, finished_at: Option<i64>) {
    let body = body(n);
    store
        .execute(
            "INSERT INTO events SELECT *, seal(seq, id, source, provider, received_ns, method, query, client_address,
             client_proto, client_host, headers, event_type, attempt_id, verified, traceparent, duplicate_of,
             conflict_of, body_bytes, body_seal, body_key, keep_body, unrouted, copies, finished_at) FROM
             (SELECT ?1 AS seq, ?2 AS id, 'shop' AS source, 'acme' AS provider, 5 AS received_ns, 'POST' AS method,
              NULL AS query, 'a' AS client_address, 'http' AS client_proto, 'h' AS client_host, x'0000000000' AS headers,
              'order.paid' AS event_type, NULL AS attempt_id, 'hmac' AS verified, 't' AS traceparent,
              NULL AS duplicate_of, NULL AS conflict_of, ?3 AS body_bytes, ?4 AS body_seal, NULL AS body_key,
              1 AS keep_body, ?5 AS unrouted, 0 AS copies, ?6 AS finished_at)",
            params![n, id(n), body.len(), seal::of_body(&body), unrouted, finished_at],
        )
        .unwrap();
    store.execute("INSERT INTO bodies VALUES (?1, ?2)", (n, body)).unwrap();
}

#[test]
fn a_whole_store_is_whole_and_reading_it_leaves_no_trace() {
    let sample = Sample::new();
    let report = sample.verify();
    assert!(report.is_whole() && report.damage.is_empty(), "{report:#?}");
    let rows = |name| report.checked.iter().find(|checked| checked.table == name).unwrap().rows;
    assert_eq!([rows("events"), rows("bodies"), rows("deliveries"), rows("attempts")], [7, 7, 6, 53]);
    assert!(rows("pages") > 20);
    assert_eq!(std::fs::read_dir(sample.directory.path()).unwrap().count(), 1);
}

/// The column and the seal of a row: what an engine with a mistake would write.
fn resealed(table: seal::Table, column: &str, value: &str, condition: &str) -> String {
    table.update(&[(column, value)], condition).replace("OR ROLLBACK", "OR REPLACE")
}

#[test]
fn each_kind_of_damage_is_found_and_named() {
    use seal::{DELIVERIES, EVENTS, TABLES};
    // What changes, where it is to be found, and as what.
    let mut cases: Vec<(String, &str, &str)> = Vec::new();
    for table in TABLES {
        let column = *table.columns.last().unwrap();
        let other = format!(
            "CASE typeof({column}) WHEN 'text' THEN {column} || 'x' WHEN 'blob' THEN x'99'
            ELSE coalesce({column}, 0) + 1 END"
        );
        let sql = format!("UPDATE {} SET {column} = {other} WHERE rowid = 1", table.name);
        let sql = match table.name {
            "attempts" => "UPDATE attempts SET status = 200 WHERE delivery = 2".to_owned(),
            "totals" => "UPDATE totals SET seal = seal + 1 WHERE what = 'keys'".to_owned(),
            "counts" => "UPDATE counts SET seal = seal + 1 WHERE state = 'due'".to_owned(),
            "answers" => "INSERT INTO answers VALUES (x'01', 200, NULL, x'', NULL, 1, 1)".to_owned(),
            _ => sql,
        };
        cases.push((sql, table.name, "the row is not what was stored"));
    }
    let d = |column, value, condition| resealed(DELIVERIES, column, value, condition);
    let e = |column, value, condition| resealed(EVENTS, column, value, condition);
    cases.extend([
        ("UPDATE bodies SET body = zeroblob(length(body)) WHERE seq = 3".to_owned(), "bodies", "the body is not what"),
        ("UPDATE bodies SET seq = 70 WHERE seq = 7".to_owned(), "bodies", "it belongs to no event"),
        ("DELETE FROM bodies WHERE seq = 7".to_owned(), "events", "its body is missing"),
        (e("body_seal", "NULL", "seq = 4"), "events", "its body was removed although it was to be kept"),
        (e("body_bytes", "body_bytes + 1", "seq = 7"), "events", "its body has 54000 bytes and should have 54001"),
        (e("unrouted", "1", "seq = 1"), "events", "it has a delivery and is marked as unrouted"),
        (e("unrouted", "0", "seq = 7"), "events", "it has no delivery and is not marked as unrouted"),
        (e("finished_at", "3", "seq = 5"), "events", "it is finished although something is left to deliver"),
        (e("finished_at", "NULL", "seq = 4"), "events", "it is not finished although nothing is left"),
        (e("id", "x'01'", "seq = 7"), "events", "its id is not of 16 bytes"),
        ("DELETE FROM events WHERE seq = 1".to_owned(), "deliveries", "its event is missing"),
        (d("source", "'other'", "id = 1"), "deliveries", "it does not have the source and the size of its event"),
        (d("bytes", "bytes + 1", "id = 1"), "deliveries", "it does not have the source and the size of its event"),
        (d("state", "'lost'", "id = 1"), "deliveries", "its state is none: lost"),
        (d("order_key", "NULL", "id = 3"), "deliveries", "it waits for its turn and has no order key"),
        (d("state", "'dead'", "id = 2"), "deliveries", "of the order key a 0 have their turn"),
        (d("due_at", "5", "id = 3"), "deliveries", "of the order key a 2 have their turn"),
        (d("attempts", "61", "id = 5"), "deliveries", "it says 61 attempts, and has 50 up to number 60"),
        ("DELETE FROM attempts WHERE number = 60".to_owned(), "deliveries", "it says 60 attempts, and has 49 up to"),
        ("DELETE FROM deliveries WHERE id = 2".to_owned(), "attempts", "its delivery is missing"),
        ("DELETE FROM deliveries WHERE id = 1".to_owned(), "counts", "it says 2 deliveries with 26202 bytes, and there are 1"),
        ("DELETE FROM counts WHERE state = 'due'".to_owned(), "counts", "it says 0 deliveries with 0 bytes, and there are 2"),
        ("DELETE FROM keys WHERE seq = 1".to_owned(), "totals", "it says 6, and there are 5"),
        ("DELETE FROM totals WHERE what = 'unrouted'".to_owned(), "totals", "it says nothing, and there are 1"),
        ("DELETE FROM clock".to_owned(), "clock", "it has no row"),
        (resealed(seal::KEYS, "event", "x'01'", "seq = 1"), "keys", "it is not a key of an event"),
        (resealed(seal::OPERATIONS, "state", "'x'", "TRUE"), "operations", "its state is none: x"),
        ("DROP INDEX events_by_type".to_owned(), "pages", "the definition of events_by_type is not"),
        ("CREATE TABLE more (a)".to_owned(), "pages", "the definition of more is not"),
        (
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'WHERE unrouted', 'WHERE  unrouted')
             WHERE name = 'events_unrouted'"
                .to_owned(),
            "pages",
            "the definition of events_unrouted is not",
        ),
        // An index that lies: rows are there, and queries do not find them.
        (
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = (SELECT sum(rootpage) FROM sqlite_schema
             WHERE name IN ('events_of_source', 'keys_expiring')) - rootpage
             WHERE name IN ('events_of_source', 'keys_expiring')"
                .to_owned(),
            "pages",
            "missing from index events_of_source",
        ),
    ]);
    let whole = Sample::new();
    for (sql, table, what) in cases {
        let sample = whole.copy();
        sample.connection().execute_batch(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let report = sample.verify();
        let found = report.damage.iter().any(|damage| damage.table == table && damage.what.contains(what));
        assert!(found && !report.is_whole(), "{sql}:\n{report:#?}");
    }
}

#[test]
fn damage_names_its_event_and_its_upstream() {
    let sample = Sample::new();
    sample.connection().execute_batch("UPDATE attempts SET took_ns = 9 WHERE delivery = 2").unwrap();
    let report = sample.verify();
    let [damage] = &report.damage[..] else { panic!("{report:#?}") };
    assert_eq!((damage.table, &*damage.row), ("attempts", "2 1"));
    assert_eq!(damage.event, Some(crate::event::EventId::from_bytes(id(2))));
    assert_eq!(damage.upstream.as_deref(), Some("up"));
}

fn back_up(sample: &Sample, to: &Path) -> Result<BackedUp, ToolError> {
    let from = sample.directory.path().to_owned();
    BackUp { from, to: to.to_owned(), overwrite: false, verify: true, clock: Clock::system() }.run(&mut |_, _| {})
}

#[test]
fn a_backup_is_whole_or_not_there() {
    let (sample, away) = (Sample::new(), TempDir::new().unwrap());
    let to = away.path().join("back up?#1.db");
    std::fs::write(with_suffix(&to, ".partial"), "of a backup that was interrupted").unwrap();
    let done = back_up(&sample, &to).unwrap();
    assert_eq!((done.events, done.bytes), (7, std::fs::metadata(&to).unwrap().len()));
    assert!(verify(&to, &mut |_, _| {}).unwrap().is_whole());
    assert_eq!(std::fs::read_dir(away.path()).unwrap().count(), 1, "nothing else is left");
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&to).unwrap().permissions()) & 0o777, 0o600);

    let before = std::fs::read(&to).unwrap();
    assert!(matches!(back_up(&sample, &to), Err(ToolError::Occupied { .. })), "it is not replaced unasked");
    sample.connection().execute_batch("UPDATE keys SET expires_at = 5").unwrap();
    let damaged = back_up(&sample, &away.path().join("other.db"));
    let Err(ToolError::Damaged { report, .. }) = damaged else { panic!("{damaged:?}") };
    assert_eq!((report.damage[0].table, &report.path), ("keys", &sample.path()));
    let overwrite =
        BackUp { from: sample.path(), to: to.clone(), overwrite: true, verify: true, clock: Clock::system() };
    assert!(overwrite.run(&mut |_, _| {}).is_err());
    assert_eq!(std::fs::read(&to).unwrap(), before, "a backup that failed leaves the earlier one");
    assert_eq!(std::fs::read_dir(away.path()).unwrap().count(), 1);
    for own in ["", "-wal", "-shm"].map(|suffix| with_suffix(&sample.path(), suffix)) {
        let itself = BackUp { to: own, ..overwrite.clone() };
        assert!(matches!(itself.run(&mut |_, _| {}), Err(ToolError::Occupied { .. })), "{}", itself.to.display());
    }
    for own in ["hookward.lock", "hookward.spare"] {
        let itself = BackUp { to: sample.directory.path().join(own), ..overwrite.clone() };
        assert!(matches!(itself.run(&mut |_, _| {}), Err(ToolError::Occupied { .. })), "{own}");
    }
}

#[cfg(unix)]
#[test]
fn a_backup_follows_no_link() {
    let (sample, away) = (Sample::new(), TempDir::new().unwrap());
    let [to, elsewhere] = ["backup.db", "elsewhere"].map(|name| away.path().join(name));
    std::os::unix::fs::symlink(&elsewhere, &to).unwrap();
    assert!(matches!(back_up(&sample, &to), Err(ToolError::Occupied { .. })), "it is there, although it leads nowhere");
    std::fs::write(&elsewhere, "of somebody else").unwrap();
    std::os::unix::fs::symlink(&elsewhere, with_suffix(&to, ".partial")).unwrap();
    let from = sample.path();
    BackUp { from, to: to.clone(), overwrite: true, verify: true, clock: Clock::system() }.run(&mut |_, _| {}).unwrap();
    assert!(to.symlink_metadata().unwrap().is_file() && !with_suffix(&to, ".partial").exists());
    assert_eq!(std::fs::read(&elsewhere).unwrap(), b"of somebody else");
}

#[test]
fn a_backup_refuses_a_name_that_somebody_writes_to() {
    let (sample, away) = (Sample::new(), TempDir::new().unwrap());
    let to = away.path().join("backup.db");
    let other = Partial::of(&to).unwrap();
    assert!(matches!(back_up(&sample, &to), Err(ToolError::Occupied { .. })));
    drop(other);
    back_up(&sample, &to).unwrap();
}

fn restore(from: &Path, directory: &Path) -> Restore {
    let now = Wall::from_unix_s(1_700_000_000);
    Restore { from: from.to_owned(), directory: directory.to_owned(), replace: false, accept_damage: false, now }
}

#[test]
fn a_restored_store_delivers_nothing_by_itself() {
    let (sample, home) = (Sample::new(), TempDir::new().unwrap());
    let directory = home.path().join("data");
    let done = restore(&sample.path(), &directory).run(&mut |_, _| {}).unwrap();
    assert_eq!((done.events, done.held, done.damaged, done.aside), (7, 3, 0, None));
    let report = verify(&directory, &mut |_, _| {}).unwrap();
    assert!(report.is_whole(), "{report:#?}");
    let store = Connection::open(database_path(&directory)).unwrap();
    let states: Vec<String> = store
        .prepare("SELECT id || ' ' || state || ' ' || coalesce(reason, '-') || ' ' || uncertain FROM deliveries")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let held = |n| format!("{n} held restored from a backup 1");
    assert_eq!(states, [held(1), held(2), held(3), "4 delivered - 0".into(), "5 dead - 0".into(), "6 held - 0".into()]);
    let restored_ns: i64 = store.query_row("SELECT restored_ns FROM clock", [], |row| row.get(0)).unwrap();
    assert_eq!(restored_ns, 1_700_000_000_000_000_000);
    let operation: String = store.query_row("SELECT state FROM operations", [], |row| row.get(0)).unwrap();
    assert_eq!(operation, "stopped");
}

#[test]
fn a_store_that_is_there_is_moved_aside_with_its_log_and_only_if_asked() {
    let (sample, home) = (Sample::new(), Sample::new());
    let directory = home.directory.path();
    let mut restore = restore(&sample.path(), directory);
    assert!(matches!(restore.run(&mut |_, _| {}), Err(ToolError::Occupied { .. })));
    restore.replace = true;
    // A commit that is in the log only, as a process that was killed leaves it.
    let running = home.connection();
    running.pragma_update(None, "journal_mode", "WAL").unwrap();
    running.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    running.execute_batch("INSERT INTO items VALUES ('up', x'07', x'07', 9, seal('up', x'07', x'07', 9))").unwrap();
    let copy = TempDir::new().unwrap();
    for name in ["hookward.db", "hookward.db-wal"] {
        std::fs::copy(directory.join(name), copy.path().join(name)).unwrap();
    }
    restore.directory = copy.path().to_owned();
    let aside = restore.run(&mut |_, _| {}).unwrap().aside.unwrap();
    assert_eq!(aside, copy.path().join("hookward.db.replaced-2023-11-14T221320Z"));
    let report = verify(&aside, &mut |_, _| {}).unwrap();
    let items = report.checked.iter().find(|checked| checked.table == "items").unwrap().rows;
    assert!(report.is_whole() && items == 2, "{report:#?}");
    let report = verify(copy.path(), &mut |_, _| {}).unwrap();
    let items = report.checked.iter().find(|checked| checked.table == "items").unwrap().rows;
    assert!(report.is_whole() && items == 1, "{report:#?}");
    let again = restore.run(&mut |_, _| {}).unwrap().aside.unwrap();
    assert_ne!(again, aside);
}

#[test]
fn a_damaged_backup_is_restored_only_if_asked_and_a_damaged_clock_begins_anew() {
    let (sample, home) = (Sample::new(), TempDir::new().unwrap());
    sample
        .connection()
        .execute_batch("UPDATE clock SET elapsed_ms = 1; UPDATE bodies SET body = x'00' WHERE seq = 2")
        .unwrap();
    let mut restore = restore(&sample.path(), home.path());
    let Err(ToolError::Damaged { report, .. }) = restore.run(&mut |_, _| {}) else { panic!("it was accepted") };
    assert_eq!(report.damage.iter().map(|damage| damage.table).collect::<Vec<_>>(), ["clock", "bodies", "events"]);
    assert!(!database_path(home.path()).exists());
    restore.accept_damage = true;
    assert_eq!(restore.run(&mut |_, _| {}).unwrap().damaged, 3);
    let report = verify(home.path(), &mut |_, _| {}).unwrap();
    assert_eq!(report.damage.iter().map(|damage| damage.table).collect::<Vec<_>>(), ["bodies", "events"]);
}

#[test]
fn a_store_in_use_and_a_file_of_another_kind_are_refused() {
    let (sample, home) = (Sample::new(), TempDir::new().unwrap());
    let _lock = super::super::open::take_lock(home.path()).unwrap();
    let in_use = restore(&sample.path(), home.path()).run(&mut |_, _| {});
    assert!(matches!(in_use, Err(ToolError::Open(OpenError::InUse { .. }))), "{in_use:?}");
    let other = home.path().join("other.db");
    let verify_other = || verify(&other, &mut |_, _| {});
    assert!(matches!(verify_other(), Err(ToolError::Missing(_))));
    std::fs::write(&other, "not a database, and longer than the header of one, which has a hundred bytes. ".repeat(9))
        .unwrap();
    assert!(matches!(verify_other(), Err(ToolError::Foreign(_))));
    std::fs::remove_file(&other).unwrap();
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
    assert!(matches!(verify_other(), Err(ToolError::Foreign(_))));
    sample.connection().pragma_update(None, "user_version", 1).unwrap();
    let older = verify(&sample.path(), &mut |_, _| {});
    assert!(matches!(older, Err(ToolError::Format { found: 1, .. })), "{older:?}");
}

#[test]
fn the_end_of_a_log_is_unreadable_from_the_damaged_page_on_and_old_pages_behind_it_do_not_count() {
    let sample = Sample::new();
    let (store, log_path) = (sample.connection(), log_of(&sample.path()));
    store.pragma_update(None, "journal_mode", "WAL").unwrap();
    store.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    let commit = || store.execute_batch("UPDATE pauses SET since_ns = since_ns + 1").unwrap();
    (0..9).for_each(|_| commit());
    let unreadable = |bytes: &[u8]| {
        let copy = sample.directory.path().join("log");
        std::fs::write(&copy, bytes).unwrap();
        log::unreadable_frames(&copy).unwrap()
    };
    let bytes = std::fs::read(&log_path).unwrap();
    let frame = 24 + 16 * 1024;
    assert_eq!((bytes.len() - 32) / frame, 9);
    assert_eq!(unreadable(&bytes), 0);
    for (at, lost) in
        [(5, 10), (32 + 5 * frame, 4), (32 + 5 * frame + 9, 4), (32 + 8 * frame + 20, 1), (bytes.len() - 1, 1)]
    {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        assert_eq!(unreadable(&flipped), lost, "a flip at {at}");
    }
    assert_eq!(unreadable(&bytes[..bytes.len() - 7]), 0, "a page that is not whole is no page");
    // It begins anew, in the place of the old one.
    let moved: i64 = store.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(2)).unwrap();
    assert_eq!(moved, 9);
    commit();
    let bytes = std::fs::read(&log_path).unwrap();
    assert_eq!(((bytes.len() - 32) / frame, unreadable(&bytes)), (9, 0));
}
