//! How a webhook ends: an acknowledgement or a rejection. Each has one stable code: the metric label, the log
//! field, and the row in the README.

use std::{sync::Arc, time::Duration};

use crate::{
    event::{Answer, EventId},
    preset::Reply,
    store::StoreError,
    verify::Refusal,
};

/// Accepted, or accepted before.
#[derive(Clone, PartialEq, Debug)]
pub enum Ack {
    /// Stored durably.
    Accepted(EventId),
    /// Stored durably, and no route wants it: for the provider as good as any other.
    Unrouted(EventId),
    /// A copy of this event.
    Duplicate(EventId),
    /// A known event or nonce key with another body: stored as `id`.
    Conflict(EventId),
    /// The upstream's answer (`respond`, `proxy`), given for the first or for a copy of it.
    Answered {
        /// The event.
        id: EventId,
        /// What the upstream said, as the provider may see it.
        answer: Answer,
        /// Whether this webhook is a copy.
        copy: bool,
    },
    /// A registration handshake.
    Challenge(Arc<Reply>),
}

impl Ack {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Unrouted(_) => "unrouted",
            Self::Duplicate(_) | Self::Answered { copy: true, .. } => "duplicate",
            Self::Conflict(_) => "conflict",
            Self::Answered { copy: false, .. } => "answered",
            Self::Challenge(_) => "challenge",
        }
    }
    /// The event it is about.
    pub const fn event(&self) -> Option<EventId> {
        match self {
            Self::Accepted(id)
            | Self::Unrouted(id)
            | Self::Duplicate(id)
            | Self::Conflict(id)
            | Self::Answered { id, .. } => Some(*id),
            Self::Challenge(_) => None,
        }
    }
    /// Whether it was accepted before.
    pub const fn is_copy(&self) -> bool {
        matches!(self, Self::Duplicate(_) | Self::Answered { copy: true, .. })
    }
    /// What a copy of the same webhook is told.
    #[must_use]
    pub fn of_copy(self) -> Self {
        match self {
            Self::Accepted(id) | Self::Unrouted(id) | Self::Conflict(id) => Self::Duplicate(id),
            Self::Answered { id, answer, .. } => Self::Answered { id, answer, copy: true },
            other => other,
        }
    }
}

/// Everything that can be refused, once.
#[derive(Clone, PartialEq, Debug)]
pub enum Rejection {
    /// No source has this path.
    UnknownPath,
    /// A source had this path until not long ago: it may have been taken out by mistake, or be on its way elsewhere.
    RemovedPath,
    /// A source has it, for another method.
    WrongMethod,
    /// The request contradicts itself.
    Malformed,
    /// The client's address is in none of the source's networks.
    AddressNotAllowed,
    /// The client showed no certificate that the source wants.
    ClientCertificate,
    /// `in_flight_max` is reached.
    TooManyInFlight,
    /// Not authentic, with the precise reason.
    Unauthentic(Refusal),
    /// The claimed time is out of tolerance.
    Stale,
    /// As `Stale`, while our own clock cannot be trusted.
    StaleByOurClock,
    /// The method is one of a handshake of the provider, and this is none.
    HandshakeRefused,
    /// Authentic, and so short and plain that a handshake would sign it for anybody.
    SignedByHandshake,
    /// The source has no secret yet: the provider hands one over when the endpoint is registered.
    AwaitsSecret,
    /// The keys that the provider publishes could not be fetched yet.
    KeysUnavailable,
    /// The secret that the provider hands over could not be kept for the operator.
    SecretNotKept,
    /// Fresh, and signed before the store was restored from a backup, which does not know whether it was accepted.
    SignedBeforeRestore,
    /// Declared or counted, the body is over the limit.
    TooLarge,
    /// The body did not come in time, or too slowly.
    TooSlow,
    /// Not verified yet, and it got on worse than others who needed the room.
    CrowdedOut,
    /// The client ended the body early.
    Cut,
    /// No room for the body.
    BudgetSpent,
    /// Over the source's rate of verified webhooks; room again after this long.
    RateExceeded(Duration),
    /// The store is full.
    StoreFull,
    /// The store does not take it now.
    StoreUnavailable,
    /// The deadline ended before it was durable. It may still become so.
    Late,
    /// `proxy`: the upstream did not take it, and this is its answer.
    UpstreamAnswered(Arc<Answer>),
    /// `proxy`: the upstream answered with a status that the provider may not see.
    UpstreamFailed,
    /// `proxy`: nothing was sent: connection refused, breaker open.
    UpstreamUnreachable,
    /// `proxy`: the connection broke after sending began. Nobody knows whether the upstream took it.
    UpstreamCut,
    /// `proxy`: no answer inside the deadline or the upstream's timeout.
    UpstreamTimedOut,
    /// The gateway is shutting down.
    Draining,
    /// A bug.
    Panicked,
}

impl Rejection {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownPath => "unknown_path",
            Self::RemovedPath => "removed_path",
            Self::WrongMethod => "wrong_method",
            Self::Malformed => "malformed",
            Self::AddressNotAllowed => "address_not_allowed",
            Self::ClientCertificate => "client_certificate",
            Self::TooManyInFlight => "too_many_in_flight",
            Self::Unauthentic(refusal) => refusal.code(),
            Self::Stale => "stale",
            Self::StaleByOurClock => "stale_by_our_clock",
            Self::HandshakeRefused => "handshake_refused",
            Self::SignedByHandshake => "signed_by_handshake",
            Self::AwaitsSecret => "awaits_secret",
            Self::KeysUnavailable => "keys_unavailable",
            Self::SecretNotKept => "secret_not_kept",
            Self::SignedBeforeRestore => "signed_before_restore",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::CrowdedOut => "crowded_out",
            Self::Cut => "cut",
            Self::BudgetSpent => "budget_spent",
            Self::RateExceeded(_) => "rate_exceeded",
            Self::StoreFull => "store_full",
            Self::StoreUnavailable => "store_unavailable",
            Self::Late => "late",
            Self::UpstreamAnswered(_) => "upstream_answered",
            Self::UpstreamFailed => "upstream_failed",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamCut => "upstream_cut",
            Self::UpstreamTimedOut => "upstream_timed_out",
            Self::Draining => "draining",
            Self::Panicked => "panicked",
        }
    }
    /// Whether a waiting copy may do better by trying itself; it may not where the cause is shared.
    pub const fn is_personal(&self) -> bool {
        matches!(
            self,
            Self::UpstreamAnswered(_)
                | Self::UpstreamFailed
                | Self::UpstreamUnreachable
                | Self::UpstreamCut
                | Self::UpstreamTimedOut
                | Self::Panicked
        )
    }
    /// Whether it was refused for a reason of ours, whoever sent it: a genuine webhook would have been, too.
    pub const fn is_ours(&self) -> bool {
        match self {
            Self::TooManyInFlight
            | Self::StaleByOurClock
            | Self::SignedBeforeRestore
            | Self::AwaitsSecret
            | Self::SecretNotKept
            | Self::KeysUnavailable
            | Self::TooLarge
            | Self::CrowdedOut
            | Self::BudgetSpent
            | Self::RateExceeded(_)
            | Self::StoreFull
            | Self::StoreUnavailable
            | Self::Late
            | Self::UpstreamAnswered(_)
            | Self::UpstreamFailed
            | Self::UpstreamUnreachable
            | Self::UpstreamCut
            | Self::UpstreamTimedOut
            | Self::Draining
            | Self::Panicked => true,
            Self::UnknownPath
            | Self::RemovedPath
            | Self::WrongMethod
            | Self::Malformed
            | Self::AddressNotAllowed
            | Self::ClientCertificate
            | Self::Unauthentic(_)
            | Self::Stale
            | Self::HandshakeRefused
            | Self::SignedByHandshake
            | Self::TooSlow
            | Self::Cut => false,
        }
    }
    /// Whether the upstream may have taken it although we say that it failed.
    pub const fn is_uncertain(&self) -> bool {
        matches!(self, Self::UpstreamCut | Self::UpstreamTimedOut)
    }
}

impl From<StoreError> for Rejection {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_) => Self::StoreFull,
            _ => Self::StoreUnavailable,
        }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Unauthentic(refusal)
    }
}
