mod beat;
mod damage;
mod formats;
mod log;
mod vault;

use futures_util::future::join_all;

use super::{
    super::conformance::{self, delivered, event, flush, keys, settled},
    *,
};
use crate::{
    event::{Begin, Body, State},
    time::Wall,
};

const LEASE: Duration = Duration::from_mins(1);

fn options(directory: &Path) -> Options {
    Options {
        directory: directory.to_owned(),
        // What is durable is the same; tests need not wait for the disk.
        durability: Durability::Os,
        disk_bytes_max: 1 << 30,
        disk_share_max: 1.0,
        encryption: Vec::new(),
        clock: Clock::starting_at(Wall::from_unix_s(conformance::EPOCH_S)),
    }
}

fn open(directory: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(&options(directory)).unwrap()
}

fn fault(code: std::ffi::c_int) -> Stop {
    Stop::Fault(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None))
}

fn big(n: u32, bytes: usize) -> NewEvent {
    NewEvent { body: Body::free(vec![7; bytes]), ..event(keys(n, n, n), &["a"]) }
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let next = std::cell::Cell::new(0);
    conformance::all(|| {
        next.set(next.get() + 1);
        open(&directory.path().join(next.get().to_string()))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn everything_is_there_after_a_restart_and_what_was_leased_is_due() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let new = event(keys(1, 1, 1), &["a"]);
    let head = new.head.clone();
    store.append(new).await.unwrap();
    let lost = store.lease("a", 1, LEASE).await.unwrap().remove(0);
    store.count_copy(head.id);
    store.close().await;

    let store = open(directory.path());
    let shown = store.show(head.id).await.unwrap();
    assert_eq!((shown.event.head, shown.event.copies), (head.clone(), 1));
    let again = store.lease("a", 1, LEASE).await.unwrap().remove(0);
    assert_eq!((again.attempt, &*again.cause), (1, "restart"));
    assert_eq!(store.settle(lost.lease, settled(1, delivered())).await, Err(StoreError::LeaseLost));
    let copy = store.append(event(keys(1, 1, 1), &["a"])).await.unwrap();
    assert_eq!(copy, Appended::Known { first: head.id, rearmed: 0, answer: None });
}

#[tokio::test(start_paused = true)]
async fn time_goes_on_while_closed_but_a_wall_clock_set_back_expires_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let only_replay = |n| crate::verify::Keys { event: None, ..keys(n, 0, n) };
    let opened_at = |wall_s| {
        let clock = Clock::starting_at(Wall::from_unix_s(wall_s));
        SqliteStore::open(&Options { clock, ..options(directory.path()) }).unwrap()
    };
    let store = opened_at(conformance::EPOCH_S);
    store.append(event(only_replay(1), &["a"])).await.unwrap();
    tokio::time::advance(Duration::from_mins(30)).await;
    flush(&*store).await;
    store.close().await;

    let store = opened_at(conformance::EPOCH_S - 86_400);
    tokio::time::advance(Duration::from_mins(29)).await;
    assert!(matches!(store.append(event(only_replay(1), &["a"])).await, Ok(Appended::Known { .. })));
    let fresh = event(only_replay(2), &["a"]);
    store.append(fresh).await.unwrap();
    store.close().await;

    let store = opened_at(conformance::EPOCH_S - 86_400 + 29 * 60 + 3601);
    assert!(matches!(store.append(event(only_replay(2), &["a"])).await, Ok(Appended::New { .. })));
}

#[tokio::test]
async fn appends_that_arrive_together_share_a_commit() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&Options { durability: Durability::Fsync, ..options(directory.path()) }).unwrap();
    let before = store.commits();
    let appender = async |lane: u32| {
        for n in 0..8 {
            store.append(big(lane * 100 + n, 2048)).await.unwrap();
        }
    };
    join_all((0..64).map(appender)).await;
    let commits = store.commits() - before;
    assert_eq!(store.stats().await.unwrap().events, 512);
    assert!(commits <= 64, "{commits} commits for 512 events");
}

#[tokio::test]
async fn what_needs_no_durability_waits_for_no_commit_and_is_committed_soon() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = EventId::new(Wall::from_unix_s(1));
    let before = store.commits();
    store.record(id, &"shop".into(), keys(1, 1, 1), None, false).await.unwrap();
    assert!(matches!(store.lookup(keys(1, 1, 1)).await, Ok(Known::Copy { .. })));
    assert_eq!(store.commits(), before, "answered out of the open transaction");
    // A second connection sees it once it is committed, which takes no further job.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while store.stats().await.unwrap().keys == 0 {
        assert!(tokio::time::Instant::now() < deadline, "never committed");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stream_without_a_pause_does_not_put_a_commit_off() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let before = store.commits();
    store.record(EventId::new(Wall::from_unix_s(1)), &"shop".into(), keys(1, 1, 1), None, false).await.unwrap();
    // More than one group takes, so that the writer never finds its queue empty; all of it takes half a second.
    let shared = &store.shared;
    let jobs = (0..2500).map(|_| {
        let shared = Arc::clone(shared);
        store.write_sized(0, false, move |_| {
            let until = tokio::time::Instant::now() + Duration::from_micros(200);
            while tokio::time::Instant::now() < until {
                std::hint::spin_loop();
            }
            Ok(shared.commits.load(Ordering::Relaxed))
        })
    });
    let commits_seen = join_all(jobs).await;
    assert!(commits_seen.into_iter().any(|seen| seen.unwrap() > before), "it was put off to the end");
}

#[tokio::test]
async fn on_a_full_disk_nothing_new_is_stored_and_what_was_accepted_is_delivered() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.append(big(1, 10)).await.unwrap();
    let spare = directory.path().join("hookward.spare");
    assert!(spare.exists());
    let write = store.write(|_| Err::<(), _>(fault(rusqlite::ffi::SQLITE_FULL)));
    assert!(matches!(write.await, Err(StoreError::Full(_))));
    assert!(!spare.exists(), "its space is there for what has to be written");
    // As long as the disk is full.
    std::fs::create_dir(&spare).unwrap();
    assert!(matches!(store.append(big(2, 10)).await, Err(StoreError::Full(_))));
    let leased = store.lease("a", 1, LEASE).await.unwrap().remove(0);
    store.settle(leased.lease, settled(1, delivered())).await.unwrap();
    assert!(matches!(store.health(), Err(StoreError::Full(_))), "a commit without an event proves no room");
    std::fs::remove_dir(&spare).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while store.health().is_err() {
        assert!(tokio::time::Instant::now() < deadline, "it never saw the room");
        // The sweep looks, so that readiness comes back without a webhook that fails first.
        store.sweep(Duration::from_hours(1)).await.unwrap();
    }
    assert!(matches!(store.append(big(2, 10)).await, Ok(Appended::New { .. })), "no key of it was left");
}

#[tokio::test]
async fn the_log_is_moved_into_the_database_file_when_it_is_long() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&Options { disk_bytes_max: 64 << 20, ..options(directory.path()) }).unwrap();
    for n in 0..40 {
        store.append(big(n, 512 << 10)).await.unwrap();
    }
    let log = std::fs::metadata(directory.path().join("hookward.db-wal")).unwrap().len();
    assert!(log < 8 << 20, "20 MiB were written, the log has {log} bytes");
}

#[tokio::test]
async fn a_full_store_refuses_and_accepts_again_when_history_can_go() {
    let directory = tempfile::tempdir().unwrap();
    let disk_bytes_max = 4 << 20;
    let store = SqliteStore::open(&Options { disk_bytes_max, ..options(directory.path()) }).unwrap();
    let mut stored = 0;
    let refused = loop {
        match store.append(big(stored, 64 << 10)).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.to_string(), "store is full: `store.disk_bytes_max` is reached");
    assert!(stored > 10 && matches!(store.health(), Err(StoreError::Full(_))));
    assert!(store.stats().await.unwrap().bytes <= disk_bytes_max + (64 << 10), "the shared memory is on top");
    // What was refused left no trace; what was accepted can still be worked on.
    assert!(matches!(store.append(big(stored, 64 << 10)).await, Err(StoreError::Full(_))));
    for leased in store.lease("a", 3, LEASE).await.unwrap() {
        store.settle(leased.lease, settled(1, delivered())).await.unwrap();
    }
    assert!(matches!(store.append(big(stored, 64 << 10)).await, Ok(Appended::New { .. })));
    assert_eq!(store.health(), Ok(()));
}

#[tokio::test]
async fn a_disk_without_space_fails_the_group_and_the_store_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.append(big(0, 10)).await.unwrap();
    let pages_max = async |pages: u64| {
        store.write(move |desk| Ok(desk.connection.pragma_update(None, "max_page_count", pages)?)).await.unwrap();
    };
    // SQLite raises this to the present size of the file.
    pages_max(1).await;
    let together = join_all([store.append(big(1, 1 << 20)), store.append(big(2, 1 << 20))]).await;
    assert!(together.iter().all(|one| matches!(one, Err(StoreError::Full(_)))), "{together:?}");
    assert!(matches!(store.health(), Err(StoreError::Full(_))));
    pages_max(100_000).await;
    assert!(matches!(store.append(big(1, 1 << 20)).await, Ok(Appended::New { .. })), "no key of it was left");
    assert_eq!(store.health(), Ok(()));
    assert_eq!(store.stats().await.unwrap().events, 2);
}

#[tokio::test]
async fn a_refusal_concerns_only_the_job_that_it_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let nobodys = Lease { delivery: 9, fence: 9 };
    let (appended, refused) = tokio::join!(store.append(big(1, 10)), store.settle(nobodys, settled(1, delivered())));
    assert!(appended.is_ok());
    assert_eq!(refused, Err(StoreError::LeaseLost));
    assert_eq!(store.stats().await.unwrap().events, 1);
}

#[tokio::test]
async fn a_broken_write_is_final() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let write = store.write(|_| Err::<(), _>(fault(rusqlite::ffi::SQLITE_IOERR_FSYNC)));
    assert!(matches!(write.await, Err(StoreError::Poisoned(_))));
    assert!(matches!(store.append(big(1, 10)).await, Err(StoreError::Poisoned(_))));
    assert!(matches!(store.health(), Err(StoreError::Poisoned(_))));
    store.close().await;
    assert_eq!(open(directory.path()).stats().await.unwrap().events, 0);
}

#[tokio::test]
async fn a_panic_of_the_writer_is_final_and_nobody_waits_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let write = store.write(|_| -> Result<(), Stop> { panic!("a panic on purpose") });
    assert!(write.await.is_err());
    let later = store.append(big(1, 10)).await;
    assert!(matches!(later, Err(StoreError::Poisoned(_) | StoreError::Unavailable(_))), "{later:?}");
}

#[tokio::test]
async fn an_append_that_nobody_waits_for_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut append = store.append(big(1, 10));
    // Handed over with the first poll; the writer may even be done by then.
    let _ = futures_util::poll!(&mut append);
    drop(append);
    assert!(matches!(store.append(big(1, 10)).await, Ok(Appended::Known { .. })));
}

#[tokio::test]
async fn the_counters_agree_with_the_tables() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..20 {
        let begin = if n % 3 == 0 { Begin::FirstLeased(LEASE) } else { Begin::Due };
        store.append(NewEvent { begin, ..event(keys(n, n, n), &["a", "b"]) }).await.unwrap();
    }
    for leased in store.lease("a", 5, LEASE).await.unwrap() {
        store.settle(leased.lease, settled(1, delivered())).await.unwrap();
    }
    store.reconcile(&["a".into()]).await.unwrap();
    let wrong = "SELECT (SELECT count(*) FROM events) - (SELECT n FROM totals WHERE what = 'events')
         + (SELECT count(*) FROM keys) - (SELECT n FROM totals WHERE what = 'keys')
         + (SELECT count(*) FROM counts WHERE n <> (SELECT count(*) FROM deliveries AS d
            WHERE d.upstream = counts.upstream AND d.state = counts.state))";
    let wrong: i64 =
        store.write(move |desk| Ok(desk.connection.query_row(wrong, [], |row| row.get(0))?)).await.unwrap();
    assert_eq!(wrong, 0);
}

#[tokio::test]
async fn what_is_written_right_before_the_end_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let (id, source) = (EventId::from_bytes([1; 16]), Name::from("shop"));
    // Durable at most 100 ms later, or as the store closes.
    store.record(id, &source, keys(1, 1, 1), None, false).await.unwrap();
    store.close().await;
    let report = tools::verify(directory.path(), &mut |_, _| {}).unwrap();
    assert!(report.is_whole(), "{:?}", report.damage);
    assert_eq!(open(directory.path()).stats().await.unwrap().keys, 2);
}

#[tokio::test]
async fn on_a_full_disk_history_goes_before_anything_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..3 {
        store.append(big(n, 10)).await.unwrap();
    }
    for leased in store.lease("a", 2, LEASE).await.unwrap() {
        store.settle(leased.lease, settled(1, delivered())).await.unwrap();
    }
    let written = store.write(|desk| {
        let history: i64 = desk.connection.query_row("SELECT count(finished_at) FROM events", [], |row| row.get(0))?;
        if history == 0 { Ok(()) } else { Err(fault(rusqlite::ffi::SQLITE_FULL)) }
    });
    let appended = store.append(big(3, 10));
    let (written, appended) = tokio::join!(written, appended);
    assert_eq!(written, Ok(()));
    assert!(matches!(appended, Ok(Appended::New { .. })), "{appended:?}");
    assert_eq!(store.health(), Ok(()));
    assert_eq!(store.stats().await.unwrap().events, 2, "what was not delivered, and the new one");
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |directory: &Path| SqliteStore::open(&options(directory)).unwrap_err().to_string();

    let store = open(directory.path());
    let in_use = refused(directory.path());
    assert!(in_use.contains(&format!("in use by another hookward (process {})", std::process::id())), "{in_use}");
    store.close().await;

    let path = SqliteStore::database_path(directory.path());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let newer = refused(directory.path());
    assert!(newer.contains("format version 99 and this hookward knows up to 2"), "{newer}");

    let other = tempfile::tempdir().unwrap();
    let path = SqliteStore::database_path(other.path());
    std::fs::write(&path, [b'x'; 4096]).unwrap();
    assert!(refused(other.path()).contains("is not a store of hookward"));
    std::fs::remove_file(&path).unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    assert!(refused(other.path()).contains("is not a store of hookward"));

    let file = other.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(refused(&file).contains("cannot be used as a directory"));
}

/// The queries that run all the time look nothing up by scanning.
#[tokio::test]
async fn hot_queries_use_their_index() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for (sql, index) in [
        (lease::NEXT_SOURCE, "deliveries_due"),
        (&lease::CANDIDATES, "deliveries_due"),
        (reads::FIRST_DUE, "deliveries_due"),
        (reads::OLDEST_DUE, "deliveries_oldest"),
        (&room::OLDEST_HISTORY, "events_finished"),
        (&restart::RESTART, "deliveries_due"),
        (&operator::PARK, "deliveries_due"),
        (&operator::UNPARK, "deliveries_stuck"),
        (turns::SOMEBODY, "deliveries_in_order"),
        (&turns::NEXT_IN_ORDER, "deliveries_in_order"),
        (turns::NOBODYS, "deliveries_in_order"),
    ] {
        let explain = format!("EXPLAIN QUERY PLAN {sql}");
        let plan = store
            .write(move |desk| {
                let mut statement = desk.connection.prepare(&explain)?;
                let wanted = statement.parameter_count();
                let values = vec![0; wanted];
                let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3))?;
                Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.join("\n"))
            })
            .await
            .unwrap();
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{sql}:\n{plan}");
    }
}

/// A page of a list costs what it shows, not what lies behind it.
#[tokio::test]
async fn lists_walk_along_an_index_and_sort_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let all = Filter::default;
    let text = || Some("a".to_owned());
    let id = EventId::from_bytes([1; 16]);
    for (filter, index) in [
        (all(), "sqlite_autoindex_events_1"),
        (Filter { before: Some(id), ..all() }, "sqlite_autoindex_events_1 (id<?)"),
        (Filter { after: Some(id), ..all() }, "sqlite_autoindex_events_1 (id>?)"),
        (Filter { source: text(), before: Some(id), ..all() }, "events_of_source (source=? AND id<?)"),
        (Filter { event_type: text(), ..all() }, "events_by_type (event_type=?"),
        (Filter { attempt_id: text(), ..all() }, "events_by_attempt_id (attempt_id=?"),
        (Filter { unrouted: true, ..all() }, "events_unrouted"),
        (Filter { state: Some(State::Dead), ..all() }, "deliveries_stuck (state=?"),
        (Filter { state: Some(State::Held), after: Some(id), ..all() }, "deliveries_stuck (state=? AND event>?)"),
        (Filter { state: Some(State::Due), upstream: text(), ..all() }, "sqlite_autoindex_deliveries_1"),
        (Filter { key: Some(crate::verify::Key([1; 32])), ..all() }, "sqlite_autoindex_keys_1 (key=?)"),
        (Filter { since: Some(Wall::from_unix_s(9)), ..all() }, "sqlite_autoindex_events_1 (id>?)"),
    ] {
        for direction in [Direction::NewestFirst, Direction::OldestFirst] {
            let (sql, values) = list::walk_sql(&filter, direction);
            let explained = store.write(move |desk| {
                let mut statement = desk.connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let rows = statement.query_map(rusqlite::params_from_iter(&values), |row| row.get::<_, String>(3))?;
                Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.join("\n"))
            });
            let plan = explained.await.unwrap();
            assert!(plan.contains(index) && !plan.contains("ORDER BY"), "{filter:?}:\n{plan}");
        }
    }
}

#[tokio::test]
async fn leasing_prepares_its_statement_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..5 {
        store.append(big(n, 10)).await.unwrap();
        store.lease("a", 1, LEASE).await.unwrap();
    }
    let prepared_again = store.write(|desk| {
        let statement = desk.connection.prepare_cached(&lease::CANDIDATES)?;
        Ok(statement.get_status(rusqlite::StatementStatus::RePrepare))
    });
    assert_eq!(prepared_again.await, Ok(0), "although each asks for another time");
}

#[tokio::test]
async fn nothing_of_a_failed_group_is_left_and_an_error_that_may_pass_is_not_final() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let write = store.write(move |desk| {
        desk.append(&Prepared::new(big(1, 10), &Vault::default()))?;
        Err::<(), _>(fault(rusqlite::ffi::SQLITE_NOMEM))
    });
    assert!(matches!(write.await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.append(big(1, 10)).await, Ok(Appended::New { .. })));
    assert_eq!(store.stats().await.unwrap().events, 1);
}

#[tokio::test]
async fn a_new_store_has_room_however_small_its_limit_is() {
    for disk_bytes_max in [2 << 20, 3 << 20, 64 << 20] {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { disk_bytes_max, ..options(directory.path()) };
        let store = SqliteStore::open(&options).unwrap();
        // Anything that ends a transaction says how it is.
        store.lookup(keys(1, 1, 1)).await.unwrap();
        assert_eq!(store.health(), Ok(()), "{disk_bytes_max}");
    }
}

/// What no crash of the process can show: its page cache outlives it. SQLite syncs the log at each commit with FULL,
/// and only at checkpoints with NORMAL.
#[tokio::test]
async fn each_commit_is_synced_unless_the_configuration_says_otherwise() {
    for (durability, synchronous) in [(Durability::Fsync, 2), (Durability::Os, 1)] {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&Options { durability, ..options(directory.path()) }).unwrap();
        let pragma = |name: &'static str| {
            store.write(move |desk| Ok(desk.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0))?))
        };
        assert_eq!(pragma("synchronous").await, Ok(synchronous), "{durability:?}");
        let mode = store.write(|desk| {
            Ok(desk.connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))?)
        });
        assert_eq!(mode.await.as_deref(), Ok("wal"), "FULL means this only in a write-ahead log");
    }
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn only_this_user_reads_a_store_whoever_made_its_directory() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let store = open(directory.path());
    store.append(event(keys(1, 1, 1), &["a"])).await.unwrap();
    for name in ["hookward.db", "hookward.db-wal", "hookward.db-shm"] {
        let mode = std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    store.close().await;
}

/// A list that takes long, and others that wait for it or were given up on, hold up nobody else.
#[test]
fn lists_hold_up_neither_deliveries_nor_metrics() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(2).enable_time().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (go_on, gone_on) = mpsc::channel::<()>();
    runtime.block_on(async {
        let store = open(directory.path());
        let long = store.read(&store.lists, move |_| Ok(gone_on.recv().is_ok()));
        let mut long = Box::pin(long);
        assert!(futures_util::poll!(&mut long).is_pending());
        for _ in 0..3 {
            let list = store.list(Filter::default(), super::super::Direction::NewestFirst, 1);
            let mut list = Box::pin(list);
            assert!(futures_util::poll!(&mut list).is_pending());
        }
        let others = async {
            store.next_due("a").await.unwrap();
            store.stats().await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(20), others).await.expect("nobody waits for a list");
        drop(go_on);
        long.await.unwrap();
        store.close().await;
    });
}
