//! The write-ahead log: what may happen to it, and how long it becomes.

use super::{super::*, LEASE, big, options};
use crate::store::conformance::{delivered, flush, settled};

fn small(directory: &Path) -> Options {
    Options { disk_bytes_max: 8 << 20, ..options(directory) }
}

/// How many events a copy of the files has. With `flip_at` a bit of the log is flipped, at that part of its length.
async fn events_in_copy(directory: &Path, with_log: bool, flip_at: Option<f64>) -> u64 {
    let copy = tempfile::tempdir().unwrap();
    let database = SqliteStore::database_path(copy.path());
    std::fs::copy(SqliteStore::database_path(directory), &database).unwrap();
    if with_log {
        let mut log = std::fs::read(directory.join("hookward.db-wal")).unwrap();
        if let Some(part) = flip_at {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let at = (log.len() as f64 * part) as usize;
            log[at] ^= 1;
        }
        std::fs::write(copy.path().join("hookward.db-wal"), log).unwrap();
    }
    let store = SqliteStore::open(&small(copy.path())).unwrap();
    let events = store.stats().await.unwrap().events;
    store.close().await;
    events
}

/// No time passes, so that the clock that is saved to begin the log anew is the one that was saved before: as on a slow
/// disk, where it is saved with nearly every commit.
#[tokio::test(start_paused = true)]
async fn what_was_moved_out_of_the_log_is_not_put_back_by_a_crash_and_a_flip() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&small(directory.path())).unwrap();
    let mut moved = 0;
    for n in 0..30 {
        store.append(big(n, 64 << 10)).await.unwrap();
        // The log is tended after the answer.
        flush(&*store).await;
        let events = u64::from(n + 1);
        if n > 0 && events_in_copy(directory.path(), false, None).await == events {
            moved += 1;
            for part in [0.1, 0.3, 0.5, 0.7, 0.9] {
                let found = events_in_copy(directory.path(), true, Some(part)).await;
                assert_eq!(found, events, "after event {n}, with a flip at {part} of the log");
            }
        }
    }
    assert!(moved > 1, "the log was never moved");
}

#[tokio::test]
async fn whoever_reads_for_long_does_not_let_the_log_grow_without_end() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&Options { disk_bytes_max: 64 << 20, ..options(directory.path()) }).unwrap();
    store.append(big(0, 10)).await.unwrap();
    let endless = store.read(&store.lists, |reading| {
        let sql = "WITH RECURSIVE endless(n) AS (SELECT count(*) FROM events UNION ALL SELECT n + 1 FROM endless)
                   SELECT max(n) FROM endless";
        Ok(reading.connection.query_row(sql, [], |row| row.get::<_, i64>(0))?)
    });
    let write = async {
        for n in 1.. {
            store.append(big(n, 256 << 10)).await?;
        }
        Ok::<_, StoreError>(())
    };
    tokio::select! {
        read = endless => {
            let said = read.unwrap_err().to_string();
            assert!(said.contains("ask for less"), "{said}");
        }
        written = write => panic!("the store is full before the read was ended: {written:?}"),
    }
}

/// What another process reads at leisure: a backup, a verification.
fn foreign_reader(directory: &Path) -> Connection {
    let reader = Connection::open(SqliteStore::database_path(directory)).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    reader
}

#[tokio::test]
async fn all_files_keep_to_their_bound_while_another_process_reads() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&small(directory.path())).unwrap();
    store.append(big(0, 10)).await.unwrap();
    let readers = [foreign_reader(directory.path()), foreign_reader(directory.path())];
    let (mut refused, mut stored) = (None, 1);
    for n in 1..400 {
        match store.append(big(n, 64 << 10)).await {
            Ok(_) => stored += 1,
            Err(error) => {
                refused = Some(error.to_string());
                break;
            }
        }
        // Nothing but history is left, so that the database file itself never becomes large.
        for leased in store.lease("a", 9, LEASE).await.unwrap() {
            store.settle(leased.lease, settled(1, delivered())).await.unwrap();
        }
        let bytes = store.stats().await.unwrap().bytes;
        assert!(bytes <= 10 << 20, "{bytes} bytes after event {n}");
    }
    let refused = refused.expect("the log grew beyond what was configured");
    assert!(refused.contains("reads the store"), "{refused}");
    assert!(store.health().is_err());
    assert_eq!(store.stats().await.unwrap().events, stored, "no history was removed, because that makes no room");
    drop(readers);
    // Whatever commits next finds the log movable.
    flush(&*store).await;
    store.sweep(Duration::from_hours(1)).await.unwrap();
    flush(&*store).await;
    assert!(matches!(store.append(big(1000, 64 << 10)).await, Ok(Appended::New { .. })));
    assert_eq!(store.health(), Ok(()));
}

#[tokio::test]
async fn nobody_is_interrupted_for_a_log_that_another_process_holds() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&Options { disk_bytes_max: 64 << 20, ..options(directory.path()) }).unwrap();
    store.append(big(0, 10)).await.unwrap();
    let _reader = foreign_reader(directory.path());
    for n in 1..40 {
        store.append(big(n, 256 << 10)).await.unwrap();
    }
    let (began, begins) = tokio::sync::oneshot::channel();
    let read = store.read(&store.people, move |reading| {
        let sql = "WITH RECURSIVE some(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM some WHERE n < 1000000)
                   SELECT max(n) FROM some";
        began.send(()).unwrap();
        Ok(reading.connection.query_row(sql, [], |row| row.get::<_, i64>(0))?)
    });
    let write = async {
        begins.await.unwrap();
        for n in 0..8 {
            store.append(big(100 + n, 10)).await.unwrap();
        }
    };
    assert_eq!(tokio::join!(read, write).0, Ok(1_000_000));
}
