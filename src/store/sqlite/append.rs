//! Storing a webhook: check and insert in one transaction.

use std::{sync::Arc, time::Duration};

use rusqlite::params;

use super::{
    super::{
        Appended, Known, Lease,
        judge::{
            Birth, Resend, Verdict, birth, cause, check_share, check_unverified, event_bytes, is_redelivery, judge,
            rearms, resend, unverified_bytes_max,
        },
        vault::{Kind, Vault},
    },
    desk::Desk,
    job::Stop,
    rows::{self, Placed, Sql},
    seal::{self, DELIVERIES, EVENTS},
};
use crate::{
    event::{Answer, Begin, EventId, Name, NewEvent, OnConflict},
    verify::Keys,
};

/// A webhook with what can be made ready beside the writer.
pub(super) struct Prepared {
    event: NewEvent,
    headers: Vec<u8>,
    /// The body as it is stored, and the key that opens it, if it is encrypted.
    sealed: Option<(Arc<str>, Vec<u8>)>,
    body_seal: i64,
}

impl Prepared {
    pub(super) fn new(event: NewEvent, vault: &Vault) -> Self {
        let sealed = vault.seal(Kind::Event, event.head.id, &event.body);
        let stored = sealed.as_ref().map_or(&event.body[..], |(_, stored)| stored);
        Self { headers: rows::encode_headers(&event.head.headers), body_seal: seal::of_body(stored), event, sealed }
    }

    /// The body as it is stored.
    pub(super) fn stored(&self) -> &[u8] {
        self.sealed.as_ref().map_or(&self.event.body[..], |(_, stored)| stored)
    }

    /// What each of its deliveries counts as.
    fn bytes(&self) -> u64 {
        event_bytes(&self.event.head, self.event.body.len())
    }
}

/// What a new event is to an earlier one.
#[derive(Clone, Copy, Debug)]
enum Relation {
    None,
    DuplicateOf(EventId),
    ConflictOf(EventId, OnConflict),
}

impl Relation {
    const fn duplicate_of(self) -> Option<EventId> {
        if let Self::DuplicateOf(first) = self { Some(first) } else { None }
    }
    const fn conflict_of(self) -> Option<EventId> {
        if let Self::ConflictOf(first, _) = self { Some(first) } else { None }
    }
    const fn on_conflict(self) -> Option<OnConflict> {
        if let Self::ConflictOf(_, how) = self { Some(how) } else { None }
    }
}

/// A delivery to be made.
pub(super) struct NewDelivery<'a> {
    pub(super) event: EventId,
    pub(super) upstream: &'a Name,
    pub(super) source: &'a str,
    pub(super) order_key: Option<&'a str>,
    pub(super) bytes: u64,
    pub(super) birth: Birth,
    pub(super) cause: &'static str,
}

static INSERT_EVENT: Sql = Sql::new(|| EVENTS.insert("ROLLBACK"));
static INSERT_DELIVERY: Sql = Sql::new(|| DELIVERIES.insert("ROLLBACK"));
static COUNT_COPY: Sql = Sql::new(|| EVENTS.update(&[("copies", "copies + 1")], "id = ?1"));

impl Desk<'_> {
    pub(super) fn append(&mut self, new: &Prepared) -> Result<Appended, Stop> {
        let verdict = judge(&new.event.keys, |key| self.known(key))?;
        match verdict {
            Verdict::New => self.store_new(new, None),
            Verdict::Conflict { first } => self.store_conflict(new, first),
            Verdict::Copy { first, exact } => {
                let deliveries = self.deliveries_of(first)?.placed;
                let states: Vec<_> = deliveries
                    .iter()
                    .map(|placed| (placed.state, self.books.is_configured(&placed.upstream)))
                    .collect();
                let rearmed = match resend(exact, &states, new.event.on_resend) {
                    Resend::StoreAgain => return self.store_new(new, Some(first)),
                    Resend::Rearm => self.rearm(first, &deliveries)?,
                    Resend::Count => 0,
                };
                self.note_copy(first, &new.event.keys)?;
                Ok(Appended::Known { first, rearmed, answer: self.answer(first)? })
            }
        }
    }

    fn rearm(&mut self, first: EventId, deliveries: &[Placed]) -> Result<u32, Stop> {
        let mut rearmed = 0;
        for placed in deliveries {
            if rearms(placed.state, self.books.is_configured(&placed.upstream)) {
                self.arm(placed, cause::RE_SEND)?;
                rearmed += 1;
            }
        }
        self.unfinish(first)?;
        Ok(rearmed)
    }

    pub(super) fn lookup(&mut self, keys: &Keys) -> Result<Known, Stop> {
        Ok(match judge(keys, |key| self.known(key))? {
            Verdict::New => Known::No,
            Verdict::Conflict { first } => Known::Conflict { first },
            Verdict::Copy { first, .. } => {
                self.note_copy(first, keys)?;
                Known::Copy { first, answer: self.answer(first)? }
            }
        })
    }

    pub(super) fn record(&mut self, id: EventId, keys: &Keys, answer: Option<&(Answer, Duration)>) -> Result<(), Stop> {
        self.make_room(answer.map_or(0, |(answer, _)| answer.body.len()))?;
        self.remember(id, keys)?;
        if let Some((answer, kept)) = answer {
            self.keep_answer(id, answer, *kept)?;
        }
        Ok(())
    }

    fn note_copy(&mut self, first: EventId, keys: &Keys) -> Result<(), Stop> {
        self.count_copy(first)?;
        self.remember(first, keys)
    }

    pub(super) fn count_copy(&mut self, first: EventId) -> Result<(), Stop> {
        self.connection.prepare_cached(&COUNT_COPY)?.execute([first.as_bytes()])?;
        Ok(())
    }

    fn store_conflict(&mut self, new: &Prepared, first: EventId) -> Result<Appended, Stop> {
        let on_conflict = new.event.on_conflict;
        if on_conflict == OnConflict::Drop {
            self.count_copy(first)?;
            return Ok(Appended::Conflict { id: None, first });
        }
        self.store(new, Relation::ConflictOf(first, on_conflict))?;
        Ok(Appended::Conflict { id: Some(new.event.head.id), first })
    }

    fn store_new(&mut self, new: &Prepared, duplicate_of: Option<EventId>) -> Result<Appended, Stop> {
        let lease = self.store(new, duplicate_of.map_or(Relation::None, Relation::DuplicateOf))?;
        if let Some(first) = duplicate_of {
            self.count_copy(first)?;
        }
        Ok(Appended::New { id: new.event.head.id, lease, duplicate_of })
    }

    /// Writes a new event with its keys and deliveries. Returns the lease of a delivery born leased.
    fn store(&mut self, new: &Prepared, relation: Relation) -> Result<Option<Lease>, Stop> {
        let NewEvent { head, keys, upstreams, begin, order_key, .. } = &new.event;
        let bytes = new.bytes();
        // An upstream that takes nothing must not take the whole disk: others share it.
        for upstream in upstreams {
            let open_bytes = self.books.open_bytes(upstream);
            check_share(upstream, open_bytes, bytes, self.books.limits.share_bytes_max)?;
        }
        let max = unverified_bytes_max(self.books.limits.bytes_max);
        check_unverified(head, || self.books.all_open_bytes(), bytes * upstreams.len() as u64, max)?;
        self.make_room(new.stored().len() + new.headers.len())?;
        self.insert_event(new, relation)?;
        self.remember(head.id, keys)?;
        let mut lease = None;
        for (index, upstream) in upstreams.iter().enumerate() {
            if upstreams[..index].contains(upstream) {
                continue;
            }
            let born = birth(*begin, relation.on_conflict(), index == 0, self.books.is_configured(upstream));
            let (delivery, born) = self.insert_delivery(&NewDelivery {
                event: head.id,
                upstream,
                source: &head.source,
                order_key: order_key.as_ref().map(crate::event::OrderKey::as_str),
                bytes,
                birth: born,
                cause: cause::FIRST,
            })?;
            if let (Begin::FirstLeased(_), Birth::Leased(_)) = (begin, born) {
                lease = Some(Lease { delivery, fence: 0 });
            }
        }
        Ok(lease)
    }

    fn insert_event(&mut self, new: &Prepared, relation: Relation) -> Result<(), Stop> {
        let NewEvent { head, body, upstreams, keep_body, .. } = &new.event;
        let seq = self.books.next.event;
        self.books.next.event += 1;
        self.connection.prepare_cached(&INSERT_EVENT)?.execute(params![
            seq,
            head.id.as_bytes(),
            head.source,
            head.provider,
            head.received_at.unix_ns(),
            head.method,
            head.query,
            head.client.address,
            head.client.proto,
            head.client.host,
            new.headers,
            head.event_type,
            head.attempt_id,
            head.verified,
            head.traceparent,
            relation.duplicate_of().as_ref().map(EventId::as_bytes),
            relation.conflict_of().as_ref().map(EventId::as_bytes),
            i64::try_from(body.len()).unwrap_or(i64::MAX),
            new.body_seal,
            new.sealed.as_ref().map(|(key, _)| key),
            keep_body,
            upstreams.is_empty(),
            0,
            upstreams.is_empty().then_some(self.now_ms),
        ])?;
        self.connection
            .prepare_cached("INSERT OR ROLLBACK INTO bodies VALUES (?1, ?2)")?
            .execute((seq, new.stored()))?;
        self.books.added.events += 1;
        self.books.added.unrouted += i64::from(upstreams.is_empty());
        Ok(())
    }

    /// Returns its number, and how it was born: behind another one of its order key it waits.
    pub(super) fn insert_delivery(&mut self, new: &NewDelivery<'_>) -> Result<(i64, Birth), Stop> {
        let id = self.books.next.delivery;
        self.books.next.delivery += 1;
        let birth = match (new.birth, new.order_key) {
            (Birth::Due | Birth::Leased(_), Some(key)) => {
                new.birth.in_turn(self.is_somebody_queued(new.upstream, new.source, key)?)
            }
            (other, _) => other,
        };
        let bytes = i64::try_from(new.bytes).unwrap_or(i64::MAX);
        self.connection.prepare_cached(&INSERT_DELIVERY)?.execute(params![
            id,
            new.event.as_bytes(),
            new.upstream,
            new.source,
            birth.state().name(),
            birth.reason(),
            0,
            0,
            birth.due_at(self.now_ms),
            self.now_ms,
            0,
            new.cause,
            is_redelivery(new.cause),
            0,
            new.order_key,
            bytes,
        ])?;
        self.books.moved(new.upstream, None, Some(birth.state()), bytes);
        if birth == Birth::Due {
            self.books.wake.insert(Name::clone(new.upstream));
        }
        Ok((id, birth))
    }
}
