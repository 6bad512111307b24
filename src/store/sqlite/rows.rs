//! Rows to values and back.

use rusqlite::{Row, types::Type};

use crate::{
    event::{Answer, Client, EventHead, EventId, Headers, State},
    time::Wall,
};

/// The columns that [`head`] reads, of `events AS e`.
pub(super) const HEAD: &str = "e.id, e.source, e.provider, e.received_ns, e.method, e.query, e.client_address, \
     e.client_proto, e.client_host, e.headers, e.event_type, e.attempt_id, e.verified, e.traceparent, \
     e.duplicate_of, e.conflict_of, e.body_bytes, e.copies, e.seq";
/// Places of what follows the head in [`HEAD`].
pub(super) const BODY_BYTES: usize = 16;
pub(super) const COPIES: usize = 17;
pub(super) const SEQ: usize = 18;
pub(super) const HEAD_END: usize = 19;

pub(super) fn head(row: &Row<'_>) -> rusqlite::Result<EventHead> {
    let headers = row.get_ref(9)?.as_blob()?;
    Ok(EventHead {
        id: event_id(row, 0)?,
        source: row.get(1)?,
        provider: row.get(2)?,
        received_at: Wall::from_unix_ns(row.get(3)?),
        method: row.get(4)?,
        query: row.get(5)?,
        client: Client { address: row.get(6)?, proto: row.get(7)?, host: row.get(8)? },
        headers: decode_headers(headers).ok_or_else(|| unreadable(9, Type::Blob, "headers"))?,
        event_type: row.get(10)?,
        attempt_id: row.get(11)?,
        verified: row.get(12)?,
        traceparent: row.get(13)?,
        duplicate_of: optional_id(row, 14)?,
        conflict_of: optional_id(row, 15)?,
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

/// Status, content type and body, from `index` on.
pub(super) fn answer(row: &Row<'_>, index: usize) -> rusqlite::Result<Answer> {
    Ok(Answer {
        status: row.get(index)?,
        content_type: row.get(index + 1)?,
        body: bytes::Bytes::copy_from_slice(row.get_ref(index + 2)?.as_blob()?),
    })
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
