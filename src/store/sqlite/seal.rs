//! Seals: a checksum over all columns of a row, in the row.
//!
//! A seal is the exclusive or of one hash per column, seeded with the column's place. An update takes out the hash of
//! each old value and puts in that of the new one, so it need not read the rest of the row, and it never repairs by
//! accident what was damaged before it: a broken seal stays broken.
//!
//! In SQL: `seal(a, b, …)` of all columns in the order of the table, and `reseal(seal, place, old, new, …)`.

use rusqlite::{
    Connection, Row,
    functions::{Context, FunctionFlags},
    types::ValueRef,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A table with its sealed columns in order; the seal itself is the column after them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [&'static str],
}

pub(super) const EVENTS: Table = Table {
    name: "events",
    columns: &[
        "seq",
        "id",
        "source",
        "provider",
        "received_ns",
        "method",
        "query",
        "client_address",
        "client_proto",
        "client_host",
        "headers",
        "event_type",
        "attempt_id",
        "verified",
        "traceparent",
        "duplicate_of",
        "conflict_of",
        "body_bytes",
        "body_seal",
        "body_key",
        "keep_body",
        "unrouted",
        "copies",
        "finished_at",
    ],
};
pub(super) const DELIVERIES: Table = Table {
    name: "deliveries",
    columns: &[
        "id",
        "event",
        "upstream",
        "source",
        "state",
        "reason",
        "attempts",
        "tries",
        "due_at",
        "armed_at",
        "fence",
        "cause",
        "redelivery",
        "uncertain",
        "order_key",
        "bytes",
    ],
};
pub(super) const ATTEMPTS: Table =
    Table { name: "attempts", columns: &["delivery", "number", "began_ns", "took_ns", "status", "error", "cause"] };
pub(super) const KEYS: Table = Table { name: "keys", columns: &["seq", "key", "body", "event", "expires_at"] };
pub(super) const ANSWERS: Table =
    Table { name: "answers", columns: &["event", "status", "content_type", "body", "body_key", "expires_at"] };
pub(super) const ITEMS: Table = Table { name: "items", columns: &["upstream", "key", "content", "expires_at"] };
pub(super) const CLOCK: Table = Table { name: "clock", columns: &["one", "elapsed_ms", "wall_ms", "restored_ns"] };
pub(super) const PAUSES: Table = Table { name: "pauses", columns: &["upstream", "since_ns", "by_whom"] };
pub(super) const OPERATIONS: Table = Table {
    name: "operations",
    columns: &["id", "spec", "state", "reason", "cursor", "total", "done", "skipped", "created_ns", "changed_ns"],
};
pub(super) const TOTALS: Table = Table { name: "totals", columns: &["what", "n"] };
pub(super) const COUNTS: Table = Table { name: "counts", columns: &["upstream", "state", "n", "bytes"] };

/// Every table with a seal. `bodies` has none: its seal is `events.body_seal`.
pub(super) const TABLES: [Table; 11] =
    [EVENTS, DELIVERIES, ATTEMPTS, KEYS, ANSWERS, ITEMS, CLOCK, PAUSES, OPERATIONS, TOTALS, COUNTS];

impl Table {
    /// The place of a column. Panics if there is none: names are literals, and a test runs every statement.
    pub(super) fn place(&self, column: &str) -> usize {
        self.columns.iter().position(|name| *name == column).expect("a column of the table")
    }

    /// `UPDATE OR ROLLBACK table SET column = value, …, seal = reseal(…) WHERE …`. Values and `condition` are SQL;
    /// in values, columns are the old ones.
    pub(super) fn update(&self, changes: &[(&str, &str)], condition: &str) -> String {
        let sets: Vec<String> = changes.iter().map(|(column, value)| format!("{column} = {value}")).collect();
        let seals: Vec<String> =
            changes.iter().map(|(column, value)| format!("{}, {column}, {value}", self.place(column))).collect();
        format!(
            "UPDATE OR ROLLBACK {} SET {}, seal = reseal(seal, {}) WHERE {condition}",
            self.name,
            sets.join(", "),
            seals.join(", ")
        )
    }

    /// Whether the seal of a row fits: its columns in order from `first` on, the seal behind them.
    pub(super) fn is_whole(&self, row: &Row<'_>, first: usize) -> rusqlite::Result<bool> {
        let mut seal = 0;
        for place in 0..self.columns.len() {
            seal ^= part(place, row.get_ref(first + place)?);
        }
        Ok(row.get_ref(first + self.columns.len())? == ValueRef::Integer(seal.cast_signed()))
    }
}

/// The seal of a body's stored bytes, as it stands in `events.body_seal`.
pub(super) fn of_body(stored: &[u8]) -> i64 {
    xxh3_64_with_seed(stored, 0x626f_6479).cast_signed()
}

/// Gives a connection the functions `seal` and `reseal`.
pub(super) fn install(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("seal", -1, flags, |context| {
        Ok((0..context.len()).fold(0, |seal, place| seal ^ part(place, context.get_raw(place))).cast_signed())
    })?;
    connection.create_scalar_function("reseal", -1, flags, |context| {
        let mut seal = context.get::<i64>(0)?.cast_unsigned();
        for change in (1..context.len()).step_by(3) {
            let place = usize::try_from(context.get::<i64>(change)?).unwrap_or(usize::MAX);
            seal ^= part(place, raw(context, change + 1)) ^ part(place, raw(context, change + 2));
        }
        Ok(seal.cast_signed())
    })
}

fn raw<'a>(context: &'a Context<'_>, index: usize) -> ValueRef<'a> {
    context.get_raw(index)
}

/// The hash of one value at one place. Kinds are kept apart, so that NULL is not an empty text.
fn part(place: usize, value: ValueRef<'_>) -> u64 {
    let seed = |kind: u64| (place as u64) << 3 | kind;
    match value {
        ValueRef::Null => xxh3_64_with_seed(&[], seed(0)),
        ValueRef::Integer(number) => xxh3_64_with_seed(&number.to_le_bytes(), seed(1)),
        ValueRef::Real(number) => xxh3_64_with_seed(&number.to_le_bytes(), seed(2)),
        ValueRef::Text(text) => xxh3_64_with_seed(text, seed(3)),
        ValueRef::Blob(bytes) => xxh3_64_with_seed(bytes, seed(4)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        install(&connection).unwrap();
        connection.execute_batch(include_str!("schema.sql")).unwrap();
        let insert = "INSERT INTO pauses VALUES (?1, ?2, ?3, seal(?1, ?2, ?3))";
        connection.execute(insert, ("orders", 1, "anna")).unwrap();
        connection
    }

    fn is_whole(connection: &Connection) -> bool {
        let row = "SELECT upstream, since_ns, by_whom, seal FROM pauses";
        connection.query_row(row, [], |row| PAUSES.is_whole(row, 0)).unwrap()
    }

    #[test]
    fn a_seal_after_an_update_is_the_seal_of_the_new_row() {
        let connection = pauses();
        assert!(is_whole(&connection));
        let update = PAUSES.update(&[("since_ns", "since_ns + ?1"), ("by_whom", "?2")], "upstream = ?3");
        assert_eq!(connection.execute(&update, (41, "bert", "orders")), Ok(1));
        assert!(is_whole(&connection));
        let same = "SELECT seal = seal(upstream, since_ns, by_whom) AND since_ns = 42 AND by_whom = 'bert' FROM pauses";
        assert_eq!(connection.query_row(same, [], |row| row.get(0)), Ok(true));
    }

    #[test]
    fn what_was_damaged_stays_damaged_whatever_is_updated() {
        for damage in ["since_ns = since_ns + 1", "by_whom = 'ann'", "upstream = 'order'", "seal = seal + 1"] {
            let connection = pauses();
            connection.execute(&format!("UPDATE pauses SET {damage}"), []).unwrap();
            assert!(!is_whole(&connection), "{damage}");
            for column in ["since_ns", "by_whom"] {
                connection.execute(&PAUSES.update(&[(column, "7")], "TRUE"), []).unwrap();
                assert!(!is_whole(&connection), "{damage}, then {column} was updated");
            }
        }
    }

    #[test]
    fn a_value_has_its_place_and_its_kind() {
        let values = [
            ValueRef::Null,
            ValueRef::Integer(0),
            ValueRef::Real(0.0),
            ValueRef::Text(b""),
            ValueRef::Blob(b""),
            ValueRef::Text(&[0; 8]),
            ValueRef::Blob(&[0; 8]),
        ];
        let mut parts: Vec<u64> = (0..3).flat_map(|place| values.map(|value| part(place, value))).collect();
        parts.sort_unstable();
        parts.dedup();
        assert_eq!(parts.len(), 3 * values.len());
    }

    #[test]
    fn the_tables_are_those_of_the_schema() {
        let connection = pauses();
        for table in TABLES {
            let columns = connection.prepare(&format!("SELECT * FROM {}", table.name)).unwrap();
            let names: Vec<String> = columns.column_names().map(str::to_owned).collect();
            let (seal, sealed) = names.split_last().unwrap();
            assert_eq!(seal, "seal");
            assert_eq!(sealed, table.columns, "{}", table.name);
        }
    }
}
