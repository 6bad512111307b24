//! What an opening does to what the last process left, and what it finds out for the writer.

use rusqlite::{Connection, TransactionBehavior};

use super::{
    super::{
        elapsed::Stamp,
        judge::{cause, reason},
    },
    books::{NextNumbers, Tallies, open_tallies, save_all},
    damage::{is_index_differing, reindex},
    format::Fault,
    rows::Sql,
    seal::{CLOCK, DELIVERIES, OPERATIONS},
};
use crate::time::Wall;

/// Numbers above this were never given: a row that bears one is damaged.
const NUMBER_MAX: i64 = 1 << 62;

/// What an opening finds.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) next: NextNumbers,
    pub(super) tallies: Tallies,
    pub(super) restored_at: Option<Wall>,
}

pub(super) static RESTART: Sql = Sql::new(|| {
    let changes = [("state", "'due'"), ("due_at", "?1"), ("cause", "?2"), ("uncertain", "1"), ("fence", "fence + 1")];
    DELIVERIES.update(&changes, "state = 'leased' AND state IN ('due', 'leased')")
});
static STOP: Sql = Sql::new(|| OPERATIONS.update(&[("state", "'stopped'"), ("reason", "?1")], "state = 'running'"));
static SAVE_CLOCK: Sql = Sql::new(|| CLOCK.update(&[("elapsed_ms", "?1"), ("wall_ms", "?2")], "one = 1"));

/// The workers of the last process are gone: what they had is due, and the upstream may have it.
pub(super) fn restart(connection: &mut Connection, now: Stamp, restored_ns: Option<i64>) -> Result<Found, Fault> {
    match try_restart(connection, now, restored_ns) {
        Err(Fault::Sqlite(error)) if is_index_differing(&error) => {
            tracing::error!(
                "an index of the store does not fit its table and is built anew; run `hookward store verify -c FILE`"
            );
            if reindex(connection)? {
                connection.execute_batch("DELETE FROM totals")?;
            }
            try_restart(connection, now, restored_ns)
        }
        other => other,
    }
}

fn try_restart(connection: &mut Connection, now: Stamp, restored_ns: Option<i64>) -> Result<Found, Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    save_clock(&transaction, now)?;
    let mut tallies = open_tallies(&transaction)?;
    transaction.execute(&RESTART, (now.elapsed_ms, cause::RESTART))?;
    tallies.leased_are_due();
    save_all(&transaction, &tallies)?;
    transaction.execute(&STOP, [reason::PROCESS_ENDED])?;
    let next = |sql: &str| -> Result<i64, Fault> {
        let last: i64 = transaction.query_row(sql, [], |row| row.get(0))?;
        if !(0..NUMBER_MAX).contains(&last) {
            return Err(Fault::Damaged(format!("a row bears the number {last}")));
        }
        Ok(last + 1)
    };
    let next = NextNumbers {
        delivery: next("SELECT coalesce(max(id), 0) FROM deliveries")?,
        event: next(
            "SELECT max(coalesce((SELECT max(seq) FROM events), 0), coalesce((SELECT max(seq) FROM bodies), 0))",
        )?,
        key: next("SELECT coalesce(max(seq), 0) FROM keys")?,
    };
    transaction.commit()?;
    Ok(Found { next, tallies, restored_at: restored_ns.map(Wall::from_unix_ns) })
}

pub(super) fn save_clock(connection: &Connection, now: Stamp) -> rusqlite::Result<()> {
    connection.prepare_cached(&SAVE_CLOCK)?.execute((now.elapsed_ms, now.wall_ms)).map(drop)
}
