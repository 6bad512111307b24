//! Keys, and the answers that are kept with them.
//!
//! A damaged key is not used: a good webhook could be called a copy of what it never was, and be lost. It gives way
//! when the same key comes again.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::{
    super::{StoreError, elapsed::after, vault::Kind},
    damage::index_differs,
    desk::Desk,
    job::Stop,
    rows::{self, Sql},
    seal::{ANSWERS, KEYS},
};
use crate::{
    event::{Answer, EventId},
    verify::{Key, Keys},
};

pub(super) static KNOWN: Sql =
    Sql::new(|| format!("SELECT {} FROM keys WHERE key = ?1 AND expires_at > ?2 ORDER BY event", KEYS.listed()));
static SAME: Sql = Sql::new(|| format!("SELECT {} FROM keys WHERE key = ?1 AND body = ?2", KEYS.listed()));
static INSERT: Sql = Sql::new(|| KEYS.insert("IGNORE"));
static LIVE_ON: Sql = Sql::new(|| KEYS.update(&[("event", "?2"), ("expires_at", "?3")], "seq = ?1"));
pub(super) static ANSWER: Sql =
    Sql::new(|| format!("SELECT {} FROM answers WHERE event = ?1 AND expires_at > ?2", ANSWERS.listed()));
static KEEP_ANSWER: Sql = Sql::new(|| ANSWERS.insert("REPLACE"));

/// A row of `keys`.
struct KeyRow {
    seq: i64,
    key: [u8; 32],
    body: [u8; 32],
    event: EventId,
    expires_at: i64,
}

fn key_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<KeyRow>> {
    KEYS.read(row, 0, |row, at| {
        Ok(KeyRow {
            seq: row.get(at)?,
            key: row.get(at + 1)?,
            body: row.get(at + 2)?,
            event: rows::event_id(row, at + 3)?,
            expires_at: row.get(at + 4)?,
        })
    })
}

impl Desk<'_> {
    /// The unexpired rows of a key, oldest event first.
    pub(super) fn known(&self, key: &Key) -> rusqlite::Result<Vec<(EventId, [u8; 32])>> {
        let mut statement = self.connection.prepare_cached(&KNOWN)?;
        let mut found = statement.query((key.0, self.now_ms))?;
        let mut known = Vec::new();
        while let Some(row) = found.next()? {
            match key_row(row)? {
                Some(row) if row.key == key.0 => known.push((row.event, row.body)),
                Some(_) => return Err(index_differs()),
                None => {
                    self.confirm(&KEYS, row.get(0)?)?;
                    self.note_damage(&KEYS, row.get::<_, i64>(0)?);
                }
            }
        }
        Ok(known)
    }

    /// Records keys. A known one lives on for the longer of both lives; an expired one is taken over.
    pub(super) fn remember(&mut self, event: EventId, keys: &Keys) -> Result<(), Stop> {
        for lived in keys.all() {
            let until = after(self.now_ms, lived.lives);
            if self.insert_key(event, &lived.key, &keys.body, until)? {
                continue;
            }
            match self.same_key(&lived.key, &keys.body)? {
                Some(old) => {
                    let owner = if old.expires_at <= self.now_ms { event } else { old.event };
                    let until = until.max(old.expires_at);
                    self.connection.prepare_cached(&LIVE_ON)?.execute((old.seq, owner.as_bytes(), until))?;
                }
                None => drop(self.insert_key(event, &lived.key, &keys.body, until)?),
            }
        }
        Ok(())
    }

    /// Returns whether it was not there.
    fn insert_key(&mut self, event: EventId, key: &Key, body: &[u8; 32], until: i64) -> rusqlite::Result<bool> {
        let row = params![self.books.next.key, key.0, body, event.as_bytes(), until];
        let inserted = self.connection.prepare_cached(&INSERT)?.execute(row)? == 1;
        if inserted {
            self.books.next.key += 1;
            self.books.added.keys += 1;
        }
        Ok(inserted)
    }

    /// The row of a key with this body; a damaged one is removed.
    fn same_key(&mut self, key: &Key, body: &[u8; 32]) -> Result<Option<KeyRow>, Stop> {
        let found = self
            .connection
            .prepare_cached(&SAME)?
            .query_row((key.0, body), |row| Ok((row.get::<_, i64>(0)?, key_row(row)?)))
            .optional()?;
        match found {
            None => Ok(None),
            Some((_, Some(row))) if row.key == key.0 && row.body == *body => Ok(Some(row)),
            Some((_, Some(_))) => Err(index_differs().into()),
            Some((seq, None)) => {
                self.confirm(&KEYS, seq)?;
                self.note_damage(&KEYS, seq);
                self.connection.execute("DELETE FROM keys WHERE seq = ?1", [seq])?;
                self.books.added.keys -= 1;
                Ok(None)
            }
        }
    }

    pub(super) fn forget(&mut self, id: EventId) -> Result<u64, Stop> {
        let live: u64 = self
            .connection
            .prepare_cached("SELECT count(*) FROM keys WHERE event = ?1 AND expires_at > ?2")?
            .query_row((id.as_bytes(), self.now_ms), |row| row.get(0))?;
        if live == 0 {
            self.seq_of(id)?;
        }
        self.forget_keys(id)?;
        Ok(live)
    }

    pub(super) fn forget_keys(&mut self, event: EventId) -> Result<(), Stop> {
        let forgotten =
            self.connection.prepare_cached("DELETE FROM keys WHERE event = ?1")?.execute([event.as_bytes()])?;
        self.forgot_keys(forgotten);
        self.connection.prepare_cached("DELETE FROM answers WHERE event = ?1")?.execute([event.as_bytes()])?;
        Ok(())
    }

    pub(super) fn forgot_keys(&mut self, keys: usize) {
        self.books.added.keys -= i64::try_from(keys).unwrap_or(i64::MAX);
    }

    /// The answer that is kept for copies of an event. One that cannot be read is none.
    pub(super) fn answer(&self, event: EventId) -> Result<Option<Answer>, Stop> {
        let found = self
            .connection
            .prepare_cached(&ANSWER)?
            .query_row((event.as_bytes(), self.now_ms), |row| {
                ANSWERS.read(row, 0, |row, at| {
                    let answer = Answer {
                        status: row.get(at + 1)?,
                        content_type: row.get(at + 2)?,
                        body: bytes::Bytes::copy_from_slice(row.get_ref(at + 3)?.as_blob()?),
                    };
                    Ok((rows::event_id(row, at)?, answer, row.get::<_, Option<String>>(at + 4)?))
                })
            })
            .optional()?;
        let (of, mut answer, key) = match found {
            None => return Ok(None),
            Some(None) => {
                self.note_damage(&ANSWERS, event);
                return Ok(None);
            }
            Some(Some(found)) => found,
        };
        if of != event {
            return Err(index_differs().into());
        }
        if let Some(key) = key {
            match self.books.vault.open(Kind::Answer, event, &key, &answer.body) {
                Ok(body) => answer.body = body.into(),
                Err(error) => {
                    if matches!(error, StoreError::Damaged(_)) {
                        self.note_damage(&ANSWERS, event);
                    }
                    return Ok(None);
                }
            }
        }
        Ok(Some(answer))
    }

    /// Answers are small, so they are encrypted here and not beforehand, where the event is not known.
    pub(super) fn keep_answer(&mut self, event: EventId, answer: &Answer, kept: Duration) -> Result<(), Stop> {
        let sealed = self.books.vault.seal(Kind::Answer, event, &answer.body);
        let (key, stored) =
            sealed.as_ref().map_or((None, &answer.body[..]), |(key, stored)| (Some(key), stored.as_slice()));
        self.connection.prepare_cached(&KEEP_ANSWER)?.execute(params![
            event.as_bytes(),
            answer.status,
            answer.content_type,
            stored,
            key,
            after(self.now_ms, kept)
        ])?;
        Ok(())
    }
}
