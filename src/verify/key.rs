//! Keys: what identifies a signed content, a nonce, a logical event. Derived from a [`Proof`] only.

use std::{sync::Arc, time::Duration};

use http::HeaderName;
use sha2::{Digest as _, Sha256};

use super::{
    Place, Proof, Tolerance,
    json::{self, Scalar},
    place::BodyReader,
};
use crate::time::Wall;

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
    /// The logical event; `None` where `event_key = "none"`, or is the digest of the body and its webhooks have none.
    pub event: Option<Lived>,
    /// Whether a time is signed: then a known replay key means the very same bytes again.
    pub timed: bool,
    /// The event key could not be read from the body and fell back to its digest.
    pub fell_back: bool,
}

impl Keys {
    /// No keys at all, of a body that nothing proves.
    pub fn none(body: &[u8]) -> Self {
        let body = Sha256::digest(body).into();
        Self { body, replay: None, nonce: None, event: None, timed: false, fell_back: false }
    }
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
    /// A field of a signed form.
    Form(String),
    /// A claim of a token.
    Claim(String),
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
    /// Whether its webhooks may have no body by their nature (GET). Then that of none is no key: all events would be one.
    pub bodiless: bool,
    /// The tolerance, for the life of replay keys.
    pub tolerance: Tolerance,
    /// Life of a replay key where no time is signed. Zero: there is none, for two events may be signed alike.
    pub untimed_horizon: Duration,
    /// Life of an event key: already max(1.5 × retry span, `replay.event_horizon`).
    pub event_horizon: Duration,
}

/// The longest life of a key: longer is a sender's broken clock, and would overflow a store's time.
const LIFE_MAX: Duration = Duration::from_hours(100 * 366 * 24);
/// Kept beyond the last moment at which a copy could be fresh, for clocks of several nodes and slow requests.
const LIFE_MARGIN: Duration = Duration::from_hours(1);

impl KeyPlan {
    /// The keys of a verified body. `now` is the wall clock, which the signed time is compared with.
    pub fn keys(&self, proof: &Proof, body: &[u8], now: Wall) -> Keys {
        let body_digest = proof.body;
        let life = self.replay_life(proof, now);
        let lived = |key| Lived { key, lives: life };
        let timed = proof.stamp.as_ref().is_some_and(|stamp| stamp.until_ns.is_some());
        let replay = proof.signed.filter(|_| timed || !self.untimed_horizon.is_zero());
        let replay = replay.map(|digest| lived(derive("replay", &self.replay_scope, [(b'd', &digest[..])])));
        let nonce = proof.nonce.as_ref().map(|nonce| lived(derive("nonce", &self.scope, [(b'v', nonce.as_slice())])));
        let (event, fell_back) = self.event_key(proof, body, &body_digest);
        let event = event.map(|key| Lived { key, lives: self.event_horizon.min(LIFE_MAX) });
        Keys { body: body_digest, replay, nonce, event, timed, fell_back }
    }

    /// Key and content digest of each item of the list at `each`, in order: `None` for an item whose key cannot
    /// be read. See [`json::items`] for where the pointers of `key` are looked up.
    pub fn items(&self, body: &[u8], each: &str, key: &[String]) -> Vec<Option<(Key, [u8; 32])>> {
        let item = |(scalars, raw): (Vec<Scalar>, &[u8])| {
            (derive("item", &self.scope, scalars.iter().map(Scalar::tagged)), Sha256::digest(raw).into())
        };
        json::items(body, each, key).into_iter().map(|found| found.map(item)).collect()
    }

    /// The event keys that a provider's own id may have led to: its type in the body is not known from its text. `None`
    /// where an event key is not made of one part, so that no id leads to it.
    pub fn event_keys_of_id(&self, id: &str) -> Option<Vec<Key>> {
        let EventKey::Parts(parts) = &self.event_key else { return None };
        let tags: &[u8] = match parts.as_slice() {
            [KeyPart::Json(_)] => b"sn",
            [KeyPart::Header(_)] => b"h",
            [KeyPart::Form(_)] => b"f",
            [KeyPart::Claim(_)] => b"c",
            _ => return None,
        };
        Some(tags.iter().map(|tag| derive("event", &self.scope, [(*tag, id.as_bytes())])).collect())
    }

    /// Until the signed time is stale for good plus a margin, and never shorter than two whole windows. A token may say
    /// from when it counts and not until when: that one is never stale.
    fn replay_life(&self, proof: &Proof, now: Wall) -> Duration {
        let ends = proof.stamp.as_ref().filter(|stamp| stamp.until_ns.is_some());
        let Some(at) = ends.map(super::Stamp::fresh_until) else {
            return self.untimed_horizon.min(LIFE_MAX);
        };
        let Tolerance { past, future } = self.tolerance;
        let ahead_ns = u64::try_from(at.unix_ns().saturating_sub(now.unix_ns()));
        let behind_ns = u64::try_from(now.unix_ns().saturating_sub(at.unix_ns()));
        let until_stale = past
            .saturating_add(LIFE_MARGIN)
            .saturating_add(Duration::from_nanos(ahead_ns.unwrap_or(0)))
            .saturating_sub(Duration::from_nanos(behind_ns.unwrap_or(0)));
        let at_least = past.saturating_add(future).saturating_mul(2).saturating_add(LIFE_MARGIN);
        until_stale.max(at_least).min(LIFE_MAX)
    }

    fn event_key(&self, proof: &Proof, body: &[u8], body_digest: &[u8; 32]) -> (Option<Key>, bool) {
        let is_key = !(self.bodiless && body.is_empty());
        let of_body = || is_key.then(|| derive("event", &self.scope, [(b'd', &body_digest[..])]));
        let parts = match &self.event_key {
            EventKey::None => return (None, false),
            EventKey::Body => return (of_body(), false),
            EventKey::Parts(parts) => parts,
        };
        let read: Option<Vec<(u8, Vec<u8>)>> = parts.iter().map(|part| part.read(proof, body)).collect();
        match read.filter(|parts| !parts.is_empty()) {
            Some(parts) => {
                let parts = parts.iter().map(|(tag, value)| (*tag, value.as_slice()));
                (Some(derive("event", &self.scope, parts)), false)
            }
            None => (of_body(), true),
        }
    }
}

impl KeyPart {
    /// The value with a letter for where it is from; `None` if it cannot be read unambiguously from what is signed.
    ///
    /// That the part is signed was checked when the event key was configured.
    fn read(&self, proof: &Proof, body: &[u8]) -> Option<(u8, Vec<u8>)> {
        match self {
            Self::Json(pointer) => {
                let scalar = json::scalar(body, pointer)?;
                let (tag, value) = scalar.tagged();
                Some((tag, value.to_vec()))
            }
            Self::Form(key) => {
                let value = BodyReader::new(body).value(&Place::Form(key.clone())).ok().flatten()?;
                (!value.is_empty()).then(|| (b'f', value.into_owned()))
            }
            Self::Claim(name) => {
                let value = proof.token.as_ref()?.claim(name)?;
                (!value.is_empty()).then(|| (b'c', value.into_bytes()))
            }
            Self::Header(wanted) => {
                let (_, value) = proof.headers.iter().find(|(name, _)| name == wanted)?;
                (!value.is_empty()).then(|| (b'h', value.clone()))
            }
        }
    }
}

/// Every field goes in behind its length, so that no two lists of fields give the same bytes.
fn derive<'a>(kind: &str, scope: &str, parts: impl IntoIterator<Item = (u8, &'a [u8])>) -> Key {
    let mut hash = Sha256::new();
    let mut field = |tag: u8, value: &[u8]| {
        hash.update([tag]);
        hash.update((value.len() as u64).to_be_bytes());
        hash.update(value);
    };
    field(b'k', b"hookward key 1");
    field(b'k', kind.as_bytes());
    field(b'k', scope.as_bytes());
    parts.into_iter().for_each(|(tag, value)| field(tag, value));
    Key(hash.finalize().into())
}
