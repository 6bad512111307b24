//! Rows to values and back.
//!
//! A row is read whole, with its seal behind it, and is `None` if the seal is broken: a value of such a row goes
//! nowhere but into a message.

use std::{sync::LazyLock, time::Duration};

use rusqlite::{Row, types::Type};

use super::{
    super::{Operation, OperationState, judge::NEVER},
    seal::{ATTEMPTS, DELIVERIES, EVENTS, OPERATIONS, Table},
};
use crate::{
    event::{Attempt, Client, EventHead, EventId, Headers, Name, State},
    time::Wall,
};

/// A statement that is put together once.
pub(super) type Sql = LazyLock<String>;

impl Table {
    /// `name.column, …, name.seal`, as [`Table::is_whole`] wants them.
    pub(super) fn listed(&self) -> String {
        let columns: Vec<String> =
            self.columns.iter().chain(&["seal"]).map(|column| format!("{}.{column}", self.name)).collect();
        columns.join(", ")
    }

    /// `INSERT …` of all columns in order, and their seal. `or` is what becomes of a row that stands in the way.
    pub(super) fn insert(&self, or: &str) -> String {
        let places: Vec<String> = (1..=self.columns.len()).map(|place| format!("?{place}")).collect();
        let places = places.join(", ");
        format!("INSERT OR {or} INTO {} VALUES ({places}, seal({places}))", self.name)
    }

    /// The row as a value; `None` if its seal is broken.
    pub(super) fn read<T>(
        &self,
        row: &Row<'_>,
        first: usize,
        read: impl FnOnce(&Row<'_>, usize) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        if !self.is_whole(row, first)? {
            return Ok(None);
        }
        match read(row, first) {
            // What a seal fits was written by a program that knows more, or less, than this one.
            Err(error) if error.sqlite_error_code().is_none() => Ok(None),
            other => other.map(Some),
        }
    }
}

/// A row of `events`.
pub(super) struct EventRow {
    pub(super) seq: i64,
    pub(super) head: EventHead,
    pub(super) body_bytes: u64,
    pub(super) body_seal: Option<i64>,
    pub(super) body_key: Option<String>,
    pub(super) keep_body: bool,
    pub(super) unrouted: bool,
    pub(super) copies: u64,
    pub(super) finished_at: Option<i64>,
}

/// An event out of [`EVENTS`].
pub(super) fn event(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<EventRow>> {
    EVENTS.read(row, first, |row, at| {
        let headers = row.get_ref(at + 10)?.as_blob()?;
        Ok(EventRow {
            seq: row.get(at)?,
            head: EventHead {
                id: event_id(row, at + 1)?,
                source: row.get(at + 2)?,
                provider: row.get(at + 3)?,
                received_at: Wall::from_unix_ns(row.get(at + 4)?),
                method: row.get(at + 5)?,
                query: row.get(at + 6)?,
                client: Client { address: row.get(at + 7)?, proto: row.get(at + 8)?, host: row.get(at + 9)? },
                headers: decode_headers(headers).ok_or_else(|| unreadable(at + 10, Type::Blob, "headers"))?,
                event_type: row.get(at + 11)?,
                attempt_id: row.get(at + 12)?,
                verified: row.get(at + 13)?,
                traceparent: row.get(at + 14)?,
                duplicate_of: optional_id(row, at + 15)?,
                conflict_of: optional_id(row, at + 16)?,
            },
            body_bytes: row.get(at + 17)?,
            body_seal: row.get(at + 18)?,
            body_key: row.get(at + 19)?,
            keep_body: row.get(at + 20)?,
            unrouted: row.get(at + 21)?,
            copies: row.get(at + 22)?,
            finished_at: row.get(at + 23)?,
        })
    })
}

/// A row of `deliveries`.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) id: i64,
    pub(super) event: EventId,
    pub(super) upstream: Name,
    pub(super) source: Name,
    pub(super) state: State,
    pub(super) reason: Option<String>,
    pub(super) attempts: u32,
    pub(super) tries: u32,
    pub(super) due_at: i64,
    pub(super) armed_at: i64,
    pub(super) fence: i64,
    pub(super) cause: String,
    pub(super) redelivery: bool,
    pub(super) uncertain: bool,
    pub(super) order_key: Option<Name>,
    pub(super) bytes: i64,
}

impl Placed {
    /// Whether it stands in the queue of its upstream.
    pub(super) fn is_queued(&self) -> bool {
        matches!(self.state, State::Due | State::Leased)
    }
    /// Whether it waits there for an earlier one of its order key.
    pub(super) fn waits(&self) -> bool {
        self.state == State::Due && self.due_at == NEVER
    }
}

/// A delivery out of [`DELIVERIES`].
pub(super) fn placed(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Placed>> {
    DELIVERIES.read(row, first, |row, at| {
        Ok(Placed {
            id: row.get(at)?,
            event: event_id(row, at + 1)?,
            upstream: row.get(at + 2)?,
            source: row.get(at + 3)?,
            state: state(row, at + 4)?,
            reason: row.get(at + 5)?,
            attempts: row.get(at + 6)?,
            tries: row.get(at + 7)?,
            due_at: row.get(at + 8)?,
            armed_at: row.get(at + 9)?,
            fence: row.get(at + 10)?,
            cause: row.get(at + 11)?,
            redelivery: row.get(at + 12)?,
            uncertain: row.get(at + 13)?,
            order_key: row.get(at + 14)?,
            bytes: row.get(at + 15)?,
        })
    })
}

/// An attempt out of [`ATTEMPTS`].
pub(super) fn attempt(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Attempt>> {
    ATTEMPTS.read(row, first, |row, at| {
        Ok(Attempt {
            number: row.get(at + 1)?,
            began_at: Wall::from_unix_ns(row.get(at + 2)?),
            took: Duration::from_nanos(row.get(at + 3)?),
            status: row.get(at + 4)?,
            error: row.get(at + 5)?,
            cause: row.get(at + 6)?,
        })
    })
}

/// An operation out of [`OPERATIONS`].
pub(super) fn operation(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Operation>> {
    OPERATIONS.read(row, first, |row, at| {
        let state = row.get_ref(at + 2)?.as_str()?;
        Ok(Operation {
            id: event_id(row, at)?,
            spec: row.get(at + 1)?,
            state: OperationState::from_name(state).ok_or_else(|| unreadable(at + 2, Type::Text, "state"))?,
            reason: row.get(at + 3)?,
            cursor: optional_id(row, at + 4)?,
            total: row.get(at + 5)?,
            done: row.get(at + 6)?,
            skipped: row.get(at + 7)?,
            created_at: Wall::from_unix_ns(row.get(at + 8)?),
            changed_at: Wall::from_unix_ns(row.get(at + 9)?),
        })
    })
}

pub(super) fn event_id(row: &Row<'_>, index: usize) -> rusqlite::Result<EventId> {
    row.get(index).map(EventId::from_bytes)
}

fn optional_id(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<EventId>> {
    Ok(row.get::<_, Option<[u8; 16]>>(index)?.map(EventId::from_bytes))
}

pub(super) fn state(row: &Row<'_>, index: usize) -> rusqlite::Result<State> {
    let name = row.get_ref(index)?.as_str()?;
    State::from_name(name).ok_or_else(|| unreadable(index, Type::Text, "state"))
}

fn unreadable(index: usize, kind: Type, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, kind, format!("stored {what} cannot be read").into())
}

/// Names and values, each behind its length in four bytes, little endian.
pub(super) fn encode_headers(headers: &Headers) -> Vec<u8> {
    let mut out = Vec::with_capacity(headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum());
    for (name, value) in headers {
        for part in [name.as_bytes(), value.as_slice()] {
            let length = u32::try_from(part.len()).expect("a header is far below 4 GiB");
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(part);
        }
    }
    out
}

fn decode_headers(mut bytes: &[u8]) -> Option<Headers> {
    let mut headers = Headers::new();
    while !bytes.is_empty() {
        let name = take_part(&mut bytes)?;
        let value = take_part(&mut bytes)?;
        headers.push((String::from_utf8(name.to_vec()).ok()?, value.to_vec()));
    }
    Some(headers)
}

fn take_part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (part, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    *bytes = rest;
    Some(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_read_back(headers in proptest::collection::vec((".{0,9}", any::<Vec<u8>>()), 0..9)) {
            prop_assert_eq!(decode_headers(&encode_headers(&headers)), Some(headers));
        }
        #[test]
        fn no_stored_bytes_panic(bytes in any::<Vec<u8>>()) {
            let _ = decode_headers(&bytes);
        }
    }
}
