//! The format of the file: made new, brought up from an older one, compared with what it must be.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, functions::FunctionFlags};

use super::{
    super::elapsed::Stamp,
    seal::{ANSWERS, ATTEMPTS, CLOCK, DELIVERIES, EVENTS, ITEMS, KEYS, Table, of_body},
};

/// The version of the format that this program writes, in `user_version`.
pub(super) const FORMAT_VERSION: i64 = 2;
/// "Hkwd": tells our file from any other SQLite database.
pub(super) const APPLICATION_ID: i64 = 0x486b_7764;
pub(super) const SCHEMA: &str = include_str!("schema.sql");
const SCHEMA_OF_FORMAT_1: &str = include_str!("format1.sql");

/// Why a file that is ours is not opened.
#[derive(Debug)]
pub(super) enum Fault {
    Sqlite(rusqlite::Error),
    Damaged(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// The clock as it was saved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Saved {
    pub(super) stamp: Stamp,
    pub(super) restored_ns: Option<i64>,
}

/// Makes the tables of a new store, or brings those of an older one up, and reads the clock as it was saved last.
pub(super) fn prepare(connection: &mut Connection, now: Stamp) -> Result<Saved, Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i64 = transaction.pragma_query_value(None, "application_id", |row| row.get(0))?;
    match version {
        0 if application == 0 => {
            transaction.execute_batch(SCHEMA)?;
            transaction.execute(&CLOCK.insert("ROLLBACK"), (1, now.elapsed_ms, now.wall_ms, None::<i64>))?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        1 => {
            compare(&transaction, SCHEMA_OF_FORMAT_1)?;
            from_format_1(&transaction)?;
        }
        FORMAT_VERSION => {}
        other => return Err(Fault::Damaged(format!("there is no format {other}"))),
    }
    transaction.pragma_update(None, "user_version", FORMAT_VERSION)?;
    compare(&transaction, SCHEMA)?;
    let saved = read_clock(&transaction)?;
    transaction.commit()?;
    if version == 1 {
        tracing::info!("the store was brought from format 1 to format {FORMAT_VERSION}");
    }
    Ok(saved)
}

fn read_clock(connection: &Connection) -> Result<Saved, Fault> {
    let clock = connection
        .query_row(&format!("SELECT {} FROM clock", CLOCK.listed()), [], |row| {
            CLOCK.read(row, 0, |row, at| {
                let stamp = Stamp { elapsed_ms: row.get(at + 1)?, wall_ms: row.get(at + 2)? };
                Ok(Saved { stamp, restored_ns: row.get(at + 3)? })
            })
        })
        .optional()?;
    clock.flatten().ok_or_else(|| Fault::Damaged("its clock cannot be read".to_owned()))
}

type Part = (String, String, String, Option<String>);

/// Kind, name, table and statement of everything in a schema.
fn parts_of(connection: &Connection) -> rusqlite::Result<Vec<Part>> {
    connection
        .prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect()
}

fn parts(schema: &str) -> rusqlite::Result<Vec<Part>> {
    let empty = Connection::open_in_memory()?;
    empty.execute_batch(schema)?;
    parts_of(&empty)
}

/// A schema that was changed means other things by what it holds.
fn compare(connection: &Connection, schema: &str) -> Result<(), Fault> {
    let (found, wanted) = (parts_of(connection)?, parts(schema)?);
    let differs = found.iter().find(|part| !wanted.contains(part)).or(wanted.iter().find(|part| !found.contains(part)));
    match differs {
        None if found.len() == wanted.len() => Ok(()),
        None => Err(Fault::Damaged("its schema is not that of a store".to_owned())),
        Some((kind, name, ..)) => Err(Fault::Damaged(format!("the {kind} {name} is not that of a store"))),
    }
}

/// Writes every row anew, with its seal. Bodies stay where they are: they are most of it, and have not changed.
fn from_format_1(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.create_scalar_function(
        "seal_of_body",
        1,
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC,
        |context| Ok(of_body(context.get_raw(0).as_blob()?)),
    )?;
    let (old_tables, old_others): (Vec<_>, Vec<_>) =
        parts(SCHEMA_OF_FORMAT_1)?.into_iter().partition(|(kind, ..)| kind == "table");
    for (kind, name, _, sql) in &old_others {
        // An index without a statement belongs to its table.
        if sql.is_some() {
            transaction.execute_batch(&format!("DROP {kind} {name}"))?;
        }
    }
    let replaced = || old_tables.iter().map(|(_, name, ..)| name).filter(|name| *name != "bodies");
    for name in replaced() {
        transaction.execute_batch(&format!("ALTER TABLE {name} RENAME TO old_{name}"))?;
    }
    let (tables, others): (Vec<_>, Vec<_>) = parts(SCHEMA)?.into_iter().partition(|(kind, ..)| kind == "table");
    for (_, name, _, sql) in &tables {
        if let (Some(sql), true) = (sql, name != "bodies") {
            transaction.execute_batch(sql)?;
        }
    }
    copy(transaction, CLOCK, "1, elapsed_ms, wall_ms, NULL", "old_clock")?;
    copy(
        transaction,
        EVENTS,
        "e.seq, e.id, source, provider, received_ns, method, query, client_address, client_proto, client_host, headers,
         event_type, attempt_id, verified, traceparent, duplicate_of, conflict_of, body_bytes, seal_of_body(b.body),
         NULL, 1, NOT EXISTS (SELECT 1 FROM old_deliveries AS d WHERE d.event = e.id), copies, finished_at",
        "old_events AS e JOIN bodies AS b ON b.seq = e.seq",
    )?;
    copy(
        transaction,
        DELIVERIES,
        "d.id, d.event, d.upstream, e.source, d.state, d.reason, d.attempts, d.attempts, d.due_at, d.armed_at, d.fence,
         d.cause, 0, d.cause IN ('restart', 'lease lapsed') AND d.state <> 'delivered', NULL,
         e.body_bytes + length(e.headers) + 4096",
        "old_deliveries AS d JOIN old_events AS e ON e.id = d.event",
    )?;
    copy(transaction, ATTEMPTS, "delivery, number, began_ns, took_ns, status, error, cause", "old_attempts")?;
    copy(transaction, KEYS, "seq, key, body, event, expires_at", "old_keys")?;
    copy(transaction, ANSWERS, "event, status, content_type, body, NULL, expires_at", "old_answers")?;
    copy(transaction, ITEMS, "upstream, key, content, expires_at", "old_items")?;
    // Counts and totals are counted anew by whoever misses them.
    for name in replaced() {
        transaction.execute_batch(&format!("DROP TABLE old_{name}"))?;
    }
    for (_, _, _, sql) in &others {
        if let Some(sql) = sql {
            transaction.execute_batch(sql)?;
        }
    }
    transaction.remove_function("seal_of_body", 1)
}

fn copy(connection: &Connection, table: Table, values: &str, from: &str) -> rusqlite::Result<()> {
    let columns = table.columns.join(", ");
    let sql = format!(
        "INSERT INTO {} SELECT {columns}, seal({columns}) FROM
         (WITH old({columns}) AS (SELECT {values} FROM {from}) SELECT * FROM old)",
        table.name
    );
    connection.execute(&sql, []).map(drop)
}
