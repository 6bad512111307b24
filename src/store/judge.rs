//! What a store decides, without how it stores: the rules that every engine shares, as pure functions.

use std::time::Duration;

use crate::{
    event::{Begin, EventId, Hold, OnConflict, OnResend, State},
    verify::{Key, Keys},
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
}

/// How many attempts of a delivery are kept: the latest.
pub(super) const HISTORY_MAX: u32 = 50;
/// Rows that one sweep removes of each kind.
pub(super) const SWEEP_SLICE: usize = 500;
/// Rows of a page of events.
pub(super) const PAGE_MAX: usize = 1000;
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
    Held(&'static str),
    Parked,
}

impl Birth {
    pub(super) const fn state(self) -> State {
        match self {
            Self::Due => State::Due,
            Self::Leased(_) => State::Leased,
            Self::Held(_) => State::Held,
            Self::Parked => State::Parked,
        }
    }
    pub(super) const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Due | Self::Leased(_) => None,
            Self::Held(reason) => Some(reason),
            Self::Parked => Some(reason::UPSTREAM_REMOVED),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{time::Wall, verify::Lived};

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
