//! What a store decides, without how it stores: the rules that every engine shares, as pure functions.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};

pub(super) use super::elapsed::NEVER;
use super::{JsonIs, Operation, Outcome, Settled, StoreError, elapsed::after};
use crate::{
    event::{Begin, EventHead, EventId, Hold, Name, OnConflict, OnResend, State},
    verify::{self, Key, Keys},
};

/// Why an attempt is made, in [`super::Leased::cause`] and the history.
pub(super) mod cause {
    pub(crate) const FIRST: &str = "first";
    pub(crate) const RETRY: &str = "retry";
    pub(crate) const REDELIVERY: &str = "redelivery";
    pub(crate) const RE_SEND: &str = "re-send";
    pub(crate) const RELEASED: &str = "released";
    pub(crate) const RESTART: &str = "restart";
    pub(crate) const LEASE_LAPSED: &str = "lease lapsed";
}

/// Why a delivery is in its state.
pub(super) mod reason {
    pub(crate) const STALE: &str = "stale";
    pub(crate) const CONFLICT: &str = "conflict";
    pub(crate) const UPSTREAM_REMOVED: &str = "upstream removed";
    pub(crate) const WAITS: &str = "waits for its turn";
    /// Of an operation that ran when the store was closed.
    #[allow(dead_code, reason = "only what outlives its process needs it")]
    pub(crate) const PROCESS_ENDED: &str = "the process ended";
}

/// How many attempts of a delivery are kept: the latest.
pub(super) const HISTORY_MAX: u32 = 50;
/// Rows that one sweep removes of each kind.
pub(super) const SWEEP_SLICE: usize = 500;
/// Rows of a page of events.
pub(super) const PAGE_MAX: usize = 1000;
/// Bodies that one call looks into for a JSON filter, and their bytes as received. The first one is always read.
pub(super) const SCAN_BODIES_MAX: usize = 2000;
pub(super) const SCAN_BYTES_MAX: u64 = 16 << 20;
/// Events that one call of [`super::EventStore::count`] looks at.
pub(super) const COUNT_MAX: usize = 10_000;
/// Events that one act changes.
pub(super) const ACT_MAX: usize = 500;
/// Operations that are kept of those that do not run.
pub(super) const OPERATIONS_MAX: usize = 100;
/// What an event takes besides its body and headers: its row, deliveries, keys and indexes.
pub(super) const OVERHEAD_BYTES: u64 = 4096;
/// How long an acknowledged item is remembered after it was last acknowledged.
pub(super) const ITEM_LIFE: Duration = Duration::from_hours(30 * 24);

/// What the known keys say about a webhook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// No key is known.
    New,
    /// A key is known with the same body. `exact`: the very same signed bytes, time included.
    Copy { first: EventId, exact: bool },
    /// Keys are known, but none with this body.
    Conflict { first: EventId },
}

/// Judges the keys of a webhook. `known` returns the unexpired rows of a key: event and body digest, oldest first.
pub(super) fn judge<E>(
    keys: &Keys,
    mut known: impl FnMut(&Key) -> Result<Vec<(EventId, [u8; 32])>, E>,
) -> Result<Verdict, E> {
    let (mut copy_of, mut conflict_with, mut replayed) = (None, None, false);
    for lived in keys.all() {
        for (event, body) in known(&lived.key)? {
            if body == keys.body {
                copy_of.get_or_insert(event);
                replayed |= keys.replay.is_some_and(|replay| replay.key == lived.key);
            } else {
                conflict_with.get_or_insert(event);
            }
        }
    }
    Ok(match (copy_of, conflict_with) {
        (Some(first), _) => Verdict::Copy { first, exact: keys.timed && replayed },
        (None, Some(first)) => Verdict::Conflict { first },
        (None, None) => Verdict::New,
    })
}

/// What a copy does to the deliveries of the first event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resend {
    /// It is only counted.
    Count,
    /// Dead and parked deliveries whose upstream is configured become due.
    Rearm,
    /// It is stored and delivered as an event of its own.
    StoreAgain,
}

/// Whether a re-send wakes a delivery in this state.
pub(super) fn rearms(state: State, configured: bool) -> bool {
    match state {
        State::Dead | State::Parked => configured,
        State::Due | State::Leased | State::Delivered | State::Held => false,
    }
}

/// What a copy does, given the deliveries of the first event: their state, and whether their upstream is configured.
pub(super) fn resend(exact: bool, deliveries: &[(State, bool)], on_resend: OnResend) -> Resend {
    if exact {
        Resend::Count
    } else if deliveries.iter().any(|(state, configured)| rearms(*state, *configured)) {
        Resend::Rearm
    } else if on_resend == OnResend::Deliver
        && !deliveries.is_empty()
        && deliveries.iter().all(|(state, _)| *state == State::Delivered)
    {
        Resend::StoreAgain
    } else {
        Resend::Count
    }
}

/// How one delivery of a new event is born.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Birth {
    Due,
    Leased(Duration),
    /// Due, but not before the delivery ahead of it in its order key's queue has left.
    Waits,
    Held(&'static str),
    Parked,
}

impl Birth {
    pub(super) const fn state(self) -> State {
        match self {
            Self::Due | Self::Waits => State::Due,
            Self::Leased(_) => State::Leased,
            Self::Held(_) => State::Held,
            Self::Parked => State::Parked,
        }
    }
    pub(super) const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Due | Self::Leased(_) => None,
            Self::Waits => Some(reason::WAITS),
            Self::Held(reason) => Some(reason),
            Self::Parked => Some(reason::UPSTREAM_REMOVED),
        }
    }
    /// When it may be taken; of a leased one, when its lease lapses.
    pub(super) fn due_at(self, now_ms: i64) -> i64 {
        match self {
            Self::Leased(length) => after(now_ms, length),
            Self::Waits => NEVER,
            Self::Due | Self::Held(_) | Self::Parked => now_ms,
        }
    }
    /// The same behind somebody in the queue of its order key: then it waits, and is not leased.
    pub(super) const fn in_turn(self, is_taken: bool) -> Self {
        match self {
            Self::Due | Self::Leased(_) if is_taken => Self::Waits,
            other => other,
        }
    }
}

/// How a delivery stands that is armed again. `is_taken`: another one of its turn is active.
pub(super) const fn armed(configured: bool, is_taken: bool) -> Birth {
    if configured { Birth::Due.in_turn(is_taken) } else { Birth::Parked }
}

/// How a delivery is born. A stored conflict is never leased: its answer has no place for a lease.
pub(super) fn birth(begin: Begin, conflict: Option<OnConflict>, first: bool, configured: bool) -> Birth {
    match (begin, conflict) {
        (_, Some(OnConflict::Hold)) | (Begin::Held(Hold::Conflict), _) => Birth::Held(reason::CONFLICT),
        (Begin::Held(Hold::Stale), _) => Birth::Held(reason::STALE),
        _ if !configured => Birth::Parked,
        (Begin::FirstLeased(length), None) if first => Birth::Leased(length),
        _ => Birth::Due,
    }
}

/// Whether the upstream may have it, after an attempt that ended like this.
pub(super) const fn is_uncertain(before: bool, settled: &Settled) -> bool {
    !matches!(settled.outcome, Outcome::Delivered { .. }) && (before || settled.uncertain)
}

/// Whether what is armed for this cause counts as redelivered by an operator.
pub(super) fn is_redelivery(cause: &str) -> bool {
    cause == cause::REDELIVERY
}

/// Whose turn it is of the sources with something due: the first by name behind the one served last, else the first
/// of all.
pub(super) fn next_in_turn<'a, T>(sources: &'a BTreeMap<Name, T>, served_last: Option<&str>) -> Option<&'a Name> {
    let behind = served_last.and_then(|last| sources.range::<str, _>((Excluded(last), Unbounded)).next());
    behind.or_else(|| sources.first_key_value()).map(|(source, _)| source)
}

/// What an event takes, by which shares are measured. Each name and each value of a header is stored behind its length
/// in four bytes.
pub(super) fn event_bytes(head: &EventHead, body_bytes: usize) -> u64 {
    let headers: usize = head.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    (body_bytes + headers) as u64 + OVERHEAD_BYTES
}

/// What undelivered events and dead letters of one upstream may take.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a bound")]
pub(super) fn share_bytes_max(share: f64, all_bytes_max: u64) -> u64 {
    (share * all_bytes_max as f64) as u64
}

/// Refuses an event of `bytes` for an upstream that would go over its share with it.
pub(super) fn check_share(upstream: &str, open_bytes: u64, bytes: u64, max: u64) -> Result<(), StoreError> {
    if open_bytes.saturating_add(bytes) <= max {
        return Ok(());
    }
    Err(StoreError::Full(format!("upstream `{upstream}` has used up its share of the disk (`store.disk_share_max`)")))
}

/// What has to be free for what verifies: of all files, what is undelivered may take so much before nothing more is
/// stored that did not verify. It is a tenth, whoever sent what is there, so that no flood of forgeries fills a disk.
pub(super) const fn unverified_bytes_max(all_bytes_max: u64) -> u64 {
    all_bytes_max / 10
}

/// Refuses an event that did not verify if its deliveries, of so many `bytes` together, would take more than is left for
/// such. `open_bytes` are those of all upstreams.
pub(super) fn check_unverified(
    head: &EventHead,
    open_bytes: impl FnOnce() -> u64,
    bytes: u64,
    max: u64,
) -> Result<(), StoreError> {
    if head.unverified_reason().is_none() || open_bytes().saturating_add(bytes) <= max {
        return Ok(());
    }
    let why = "what is not delivered takes a tenth of the disk: nothing unverified is stored until that changes";
    Err(StoreError::Full(why.to_owned()))
}

/// What one call may still read for a JSON filter.
#[derive(Debug)]
pub(super) struct Scan {
    bodies: usize,
    bytes: u64,
}

impl Scan {
    pub(super) const fn new() -> Self {
        Self { bodies: 0, bytes: 0 }
    }
    /// Takes a body of this length into the bounds, or says that the call ends before it.
    pub(super) const fn takes(&mut self, body_bytes: u64) -> bool {
        let (bodies, bytes) = (self.bodies + 1, self.bytes.saturating_add(body_bytes));
        let fits = self.bodies == 0 || (bodies <= SCAN_BODIES_MAX && bytes <= SCAN_BYTES_MAX);
        if fits {
            (self.bodies, self.bytes) = (bodies, bytes);
        }
        fits
    }
}

/// Whether this scalar stands in the body.
pub(super) fn json_fits(body: &[u8], wanted: &JsonIs) -> bool {
    verify::json::scalar(body, &wanted.pointer).is_some_and(|found| found.to_string() == wanted.value)
}

/// Counts what an act did to one event. Any other error undoes the whole act.
pub(super) fn tally<T>(operation: &mut Operation, acted: Result<T, StoreError>) -> Result<(), StoreError> {
    match acted {
        Ok(_) => operation.done += 1,
        Err(StoreError::NotFound | StoreError::BodyRemoved) => operation.skipped += 1,
        Err(other) => return Err(other),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{time::Wall, verify::Lived};

    #[test]
    fn turns_go_round_by_name() {
        let sources: BTreeMap<Name, u8> = ["b", "d", "f"].map(|name| (Name::from(name), 0)).into();
        let next = |last: Option<&str>| next_in_turn(&sources, last).map(|name| &**name);
        assert_eq!([None, Some("a"), Some("b"), Some("c"), Some("f"), Some("g")].map(next), {
            ["b", "b", "d", "d", "b", "b"].map(Some)
        });
        assert_eq!(next_in_turn::<u8>(&BTreeMap::new(), Some("a")), None);
    }

    #[test]
    fn a_scan_reads_one_body_at_least_and_ends_at_its_bounds() {
        let mut scan = Scan::new();
        assert!(scan.takes(SCAN_BYTES_MAX + 1) && !scan.takes(0));
        let mut scan = Scan::new();
        assert!(scan.takes(1) && scan.takes(SCAN_BYTES_MAX - 1) && !scan.takes(1) && scan.takes(0));
        let mut scan = Scan::new();
        assert_eq!((0..3000).filter(|_| scan.takes(1)).count(), SCAN_BODIES_MAX);
    }

    #[test]
    fn a_share_is_used_up_to_its_last_byte() {
        let max = share_bytes_max(0.5, 1001);
        assert_eq!(max, 500);
        assert_eq!(check_share("a", 400, 100, max), Ok(()));
        let refused = check_share("a", 400, 101, max).unwrap_err().to_string();
        assert_eq!(refused, "store is full: upstream `a` has used up its share of the disk (`store.disk_share_max`)");
    }

    fn lived(n: u8) -> Lived {
        Lived { key: Key([n; 32]), lives: Duration::from_secs(1) }
    }

    #[test]
    fn a_key_with_this_body_outweighs_one_with_another() {
        let [conflict, first] = [1, 2].map(|s| EventId::new(Wall::from_unix_s(s)));
        let keys = Keys {
            body: [9; 32],
            replay: Some(lived(1)),
            nonce: None,
            event: Some(lived(2)),
            timed: true,
            fell_back: false,
        };
        let known = |key: &Key| -> Result<_, ()> {
            Ok(match key.0[0] {
                1 => vec![(conflict, [8; 32])],
                2 => vec![(conflict, [8; 32]), (first, [9; 32])],
                _ => vec![],
            })
        };
        assert_eq!(judge(&keys, known), Ok(Verdict::Copy { first, exact: false }));
        let other_body = Keys { body: [7; 32], ..keys };
        assert_eq!(judge(&other_body, known), Ok(Verdict::Conflict { first: conflict }));
    }

    #[test]
    fn a_resend_only_wakes_what_was_given_up_on() {
        use State::{Dead, Delivered, Due, Held, Parked};
        for (exact, deliveries, on_resend, expected) in [
            (true, vec![(Dead, true)], OnResend::Deliver, Resend::Count),
            (false, vec![(Dead, true), (Delivered, true)], OnResend::Drop, Resend::Rearm),
            (false, vec![(Parked, false)], OnResend::Deliver, Resend::Count),
            (false, vec![(Held, true)], OnResend::Deliver, Resend::Count),
            (false, vec![(Due, true), (Delivered, true)], OnResend::Deliver, Resend::Count),
            (false, vec![(Delivered, true)], OnResend::Deliver, Resend::StoreAgain),
            (false, vec![(Delivered, true)], OnResend::Drop, Resend::Count),
            (false, vec![], OnResend::Deliver, Resend::Count),
        ] {
            assert_eq!(resend(exact, &deliveries, on_resend), expected, "{deliveries:?}");
        }
    }
}
