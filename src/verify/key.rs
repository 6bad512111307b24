//! Keys: what identifies a signed content, a nonce, a logical event. Derived from a [`Proof`] only.

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use super::{Proof, Tolerance};

/// A scoped digest. Keys of different kinds, scopes and contents differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub [u8; 32]);

/// A key and how long it is kept, in elapsed time from now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lived {
    /// The key.
    pub key: Key,
    /// Its life from now.
    pub lives: Duration,
}

/// The keys of one verified webhook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keys {
    /// SHA-256 of the body: tells a copy from a conflict.
    pub body: [u8; 32],
    /// Digest of the signed content; `None` where nothing is signed.
    pub replay: Option<Lived>,
    /// The provider's nonce.
    pub nonce: Option<Lived>,
    /// The logical event; `None` where `event_key = "none"`.
    pub event: Option<Lived>,
    /// Whether a time is signed: then a known replay key means the very same bytes again.
    pub timed: bool,
    /// The event key could not be read from the body and fell back to its digest.
    pub fell_back: bool,
}

impl Keys {
    /// All keys there are, replay key first.
    pub fn all(&self) -> impl Iterator<Item = Lived> {
        [self.replay, self.nonce, self.event].into_iter().flatten()
    }
}

/// What makes up the event key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventKey {
    /// SHA-256 of the body.
    Body,
    /// None at all: every webhook with a new replay key is a new event.
    None,
    /// These signed parts, length-prefixed; the body's digest if one cannot be read unambiguously.
    Parts(Vec<KeyPart>),
}

/// One part of an event key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyPart {
    /// A JSON pointer into the signed body.
    Json(String),
    /// A header inside the signed content.
    Header(HeaderName),
}

/// How a source derives keys.
#[derive(Clone, Debug)]
pub struct KeyPlan {
    /// The source's scope: its name unless configured. For event and nonce keys.
    pub scope: Arc<str>,
    /// The scope of replay keys: shared by sources that share a secret.
    pub replay_scope: Arc<str>,
    /// The event key.
    pub event_key: EventKey,
    /// The tolerance, for the life of replay keys.
    pub tolerance: Tolerance,
    /// Life of a replay key where no time is signed.
    pub untimed_horizon: Duration,
    /// Life of an event key: already max(1.5 × retry span, `replay.event_horizon`).
    pub event_horizon: Duration,
}

impl KeyPlan {
    /// The keys of a verified body. `now` is the wall clock, which the signed time is compared with.
    pub fn keys(&self, proof: &Proof, body: &[u8], now: crate::time::Wall) -> Keys {
        let _ = (proof, body, now);
        unimplemented!("filled in by the verification work")
    }
}
