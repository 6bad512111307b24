//! Leasing: sources take turns, and within a source the longest due comes first.
//!
//! The sources of an upstream are found by leaping from one name to the next in the index, so that neither those that
//! wait for their time or turn nor a long queue of one source are looked at. Names out of an index are bytes: if they
//! are damaged they are not even text.

use std::{collections::VecDeque, time::Duration};

use rusqlite::{OptionalExtension, params};

use super::{
    super::{
        LEASE_BYTES_MAX, Lease, Leased,
        elapsed::{after, between},
        judge::cause,
    },
    damage::index_differs,
    desk::Desk,
    job::Stop,
    rows::{self, EventRow, Placed, Sql},
    seal::{self, DELIVERIES},
};
use crate::event::{Body, Event, Name, State};

pub(super) const NEXT_SOURCE: &str = "SELECT CAST(min(source) AS BLOB) FROM deliveries
     WHERE upstream = ?1 AND source > CAST(?2 AS TEXT) AND state IN ('due', 'leased')";
pub(super) static CANDIDATES: Sql = Sql::new(|| {
    format!(
        "SELECT {} FROM deliveries
         WHERE upstream = ?1 AND source = CAST(?2 AS TEXT) AND state IN ('due', 'leased') AND due_at <= ?3
         ORDER BY due_at, id LIMIT ?4",
        DELIVERIES.listed()
    )
});
static LEASE: Sql = Sql::new(|| {
    let changes = [("state", "'leased'"), ("due_at", "?2"), ("fence", "?3"), ("cause", "?4"), ("uncertain", "?5")];
    DELIVERIES.update(&changes, "id = ?1")
});
pub(super) const BODY: &str = "SELECT body FROM bodies WHERE seq = ?1";

/// A leased delivery with its body as stored.
pub(super) struct Taken {
    pub(super) leased: Leased,
    /// The key that opens the body, if it is encrypted.
    pub(super) body_key: Option<String>,
}

/// What may be taken of one source, the longest due first.
type Queue = VecDeque<Candidate>;

enum Candidate {
    Sound(Box<Placed>),
    Damaged(i64),
}

/// What came of a pick.
enum Pick {
    Taken,
    /// The source has nothing more.
    Empty,
    /// The next body would be too much.
    Enough,
}

/// One call of `lease`.
struct Call<'a> {
    upstream: &'a Name,
    max: usize,
    until: i64,
    bytes: usize,
    taken: Vec<Taken>,
}

impl Desk<'_> {
    pub(super) fn lease(&mut self, upstream: &str, max: usize, length: Duration) -> Result<Vec<Taken>, Stop> {
        let upstream = Name::from(upstream);
        let until = after(self.now_ms, length);
        let mut call = Call { upstream: &upstream, max, until, bytes: 0, taken: Vec::new() };
        let mut queues = self.first_round(&mut call)?;
        while call.taken.len() < max && !queues.is_empty() {
            let mut left = Vec::with_capacity(queues.len());
            for mut queue in queues {
                match if call.taken.len() < max { self.pick(&mut call, &mut queue)? } else { Pick::Enough } {
                    Pick::Taken => left.push(queue),
                    Pick::Empty => {}
                    Pick::Enough => return Ok(call.taken),
                }
            }
            queues = left;
        }
        Ok(call.taken)
    }

    /// One pick from each source, in order of name, beginning behind the one that was served last. Returns what is
    /// left of them; nothing if no more may be taken.
    fn first_round(&mut self, call: &mut Call<'_>) -> Result<Vec<Queue>, Stop> {
        let served = self.books.served.get(call.upstream).cloned();
        let mut queues = Vec::new();
        let last = served.as_ref().map(|name| name.as_bytes());
        let (mut at, mut wrapped) = (last.unwrap_or_default().to_vec(), last.is_none());
        while call.taken.len() < call.max {
            let next = self.next_source(call.upstream, &at)?.filter(|next| {
                // Round once: up to and with the one that was served last.
                !wrapped || last.is_none_or(|last| **next <= *last)
            });
            let Some(source) = next else {
                if wrapped {
                    return Ok(queues);
                }
                (at, wrapped) = (Vec::new(), true);
                continue;
            };
            at.clone_from(&source);
            let mut queue = self.candidates(call.upstream, &source, call.max - call.taken.len())?;
            match self.pick(call, &mut queue)? {
                Pick::Taken => queues.push(queue),
                Pick::Empty => {}
                Pick::Enough => return Ok(Vec::new()),
            }
        }
        Ok(Vec::new())
    }

    fn next_source(&self, upstream: &str, after: &[u8]) -> rusqlite::Result<Option<Vec<u8>>> {
        let next: Option<Vec<u8>> =
            self.connection.prepare_cached(NEXT_SOURCE)?.query_row((upstream, after), |row| row.get(0))?;
        // In an index that is out of order the way around the sources may have no end.
        if next.as_ref().is_some_and(|next| next.as_slice() <= after) { Err(index_differs()) } else { Ok(next) }
    }

    fn candidates(&self, upstream: &str, source: &[u8], max: usize) -> rusqlite::Result<Queue> {
        let mut statement = self.connection.prepare_cached(&CANDIDATES)?;
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let mut found = statement.query(params![upstream, source, self.now_ms, max])?;
        let mut candidates = VecDeque::new();
        while let Some(row) = found.next()? {
            candidates.push_back(match rows::placed(row, 0)? {
                None => Candidate::Damaged(row.get(0)?),
                Some(placed)
                    if *placed.upstream == *upstream
                        && placed.source.as_bytes() == source
                        && placed.is_queued()
                        && placed.due_at <= self.now_ms =>
                {
                    Candidate::Sound(Box::new(placed))
                }
                Some(_) => return Err(index_differs()),
            });
        }
        Ok(candidates)
    }

    fn pick(&mut self, call: &mut Call<'_>, queue: &mut Queue) -> Result<Pick, Stop> {
        while let Some(candidate) = queue.pop_front() {
            let placed = match candidate {
                Candidate::Sound(placed) => placed,
                Candidate::Damaged(id) => {
                    self.bury_damaged(id, call.upstream)?;
                    continue;
                }
            };
            let Some(event) = self.event(placed.event)? else {
                self.bury(&placed, "the event")?;
                continue;
            };
            let body_bytes = usize::try_from(event.body_bytes).unwrap_or(usize::MAX);
            if !call.taken.is_empty() && call.bytes.saturating_add(body_bytes) > LEASE_BYTES_MAX {
                return Ok(Pick::Enough);
            }
            let Some(body) = self.stored_body(&event)? else {
                self.bury(&placed, "the body")?;
                continue;
            };
            call.bytes = call.bytes.saturating_add(body_bytes);
            self.books.served.insert(Name::clone(call.upstream), Name::clone(&placed.source));
            let taken = self.take(*placed, event, body, call.until)?;
            call.taken.push(taken);
            return Ok(Pick::Taken);
        }
        Ok(Pick::Empty)
    }

    /// The body as stored, if it is there and as it was written.
    fn stored_body(&self, event: &EventRow) -> rusqlite::Result<Option<bytes::Bytes>> {
        let Some(body_seal) = event.body_seal else { return Ok(None) };
        let body = self
            .connection
            .prepare_cached(BODY)?
            .query_row([event.seq], |row| {
                let stored = row.get_ref(0)?.as_blob()?;
                Ok((seal::of_body(stored) == body_seal).then(|| bytes::Bytes::copy_from_slice(stored)))
            })
            .optional()?
            .flatten();
        if body.is_none() {
            self.books.shared.damage.found("bodies", event.head.id);
        }
        Ok(body)
    }

    fn take(&mut self, placed: Placed, event: EventRow, body: bytes::Bytes, until: i64) -> Result<Taken, Stop> {
        let lapsed = placed.state == State::Leased;
        let lease = Lease { delivery: placed.id, fence: placed.fence + 1 };
        let (cause, uncertain) =
            if lapsed { (cause::LEASE_LAPSED.to_owned(), true) } else { (placed.cause, placed.uncertain) };
        self.connection.prepare_cached(&LEASE)?.execute(params![placed.id, until, lease.fence, cause, uncertain])?;
        self.books.moved(&placed.upstream, Some(placed.state), Some(State::Leased), placed.bytes);
        let leased = Leased {
            lease,
            event: Event { head: event.head, body: Body::free(body), copies: event.copies },
            upstream: placed.upstream,
            attempt: placed.attempts + 1,
            tries: placed.tries,
            redelivery: placed.redelivery,
            uncertain,
            ordered: placed.order_key.is_some(),
            cause,
            age: between(placed.armed_at, self.now_ms),
        };
        Ok(Taken { leased, body_key: event.body_key })
    }
}
