//! Events, deliveries and attempts, with the states they may be in.

use std::{any::Any, fmt, ops::Deref, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    time::Wall,
    verify::{Key, Keys},
};

/// A name from the configuration: of a source, a provider, an upstream.
pub type Name = Arc<str>;

/// The id of an accepted event: a UUIDv7.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EventId(uuid::Uuid);

impl EventId {
    /// A new id whose time part is `now`.
    pub fn new(now: Wall) -> Self {
        let ns = now.unix_ns().max(0).unsigned_abs();
        let at = uuid::Timestamp::from_unix(uuid::NoContext, ns / 1_000_000_000, (ns % 1_000_000_000) as u32);
        Self(uuid::Uuid::new_v7(at))
    }
    /// The 16 bytes, for storage.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
    /// From the 16 bytes of [`EventId::as_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for EventId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The exact bytes received, with the share of the byte budget that pays for them for as long as anybody holds
/// them.
#[derive(Clone)]
pub struct Body {
    bytes: Bytes,
    _paid: Option<Arc<dyn Any + Send + Sync>>,
}

impl Body {
    /// Bytes that nobody accounts for: read back from a store, or in a test.
    pub fn free(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), _paid: None }
    }
    /// Bytes with what pays for them.
    pub fn paid(bytes: Bytes, share: Arc<dyn Any + Send + Sync>) -> Self {
        Self { bytes, _paid: Some(share) }
    }
    /// The bytes, without a copy.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Deref for Body {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.bytes.len())
    }
}

/// Headers in the order they came, names in lower case. Credentials that Hookward consumed are not in it.
pub type Headers = Vec<(String, Vec<u8>)>;

/// Everything about an event but its body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventHead {
    /// Its id.
    pub id: EventId,
    /// The source that accepted it.
    pub source: Name,
    /// That source's provider.
    pub provider: Name,
    /// When the request arrived.
    pub received_at: Wall,
    /// The method of the request.
    pub method: String,
    /// The query of the request, less guard parameters.
    pub query: Option<String>,
    /// Client address, scheme and host as Hookward saw them: `x-forwarded-for`, `-proto`, `-host`.
    pub client: Client,
    /// The headers of the request.
    pub headers: Headers,
    /// What the provider calls this kind of event.
    pub event_type: Option<String>,
    /// The provider's id of the attempt: for logs and search, never part of a key.
    pub attempt_id: Option<String>,
    /// Scheme and secret id, such as `hmac-sha256/main`: the value of `hookward-verified`. Of one that did not verify and
    /// was let through: see [`EventHead::unverified`].
    pub verified: String,
    /// W3C trace context, kept or made on arrival.
    pub traceparent: String,
    /// The first event of which this one is a re-send (`on_resend = "deliver"`).
    pub duplicate_of: Option<EventId>,
    /// The event whose key this one shares although its body differs.
    pub conflict_of: Option<EventId>,
}

impl EventHead {
    /// Instead of scheme and secret id, for what was let through although it did not verify: `false/` and the code.
    pub fn unverified(code: &str) -> String {
        format!("{UNVERIFIED}{code}")
    }
    /// Why it did not verify; `None` if it did.
    pub fn unverified_reason(&self) -> Option<&str> {
        self.verified.strip_prefix(UNVERIFIED)
    }
}

/// No scheme has that name.
const UNVERIFIED: &str = "false/";

/// Who sent the request, as seen on the wire.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Client {
    /// The address, without port.
    pub address: String,
    /// `http` or `https`.
    pub proto: String,
    /// The `Host` of the request.
    pub host: String,
}

/// An event as stored.
#[derive(Clone, Debug)]
pub struct Event {
    /// All but the body.
    pub head: EventHead,
    /// The exact bytes received.
    pub body: Body,
    /// How many verified copies came after it.
    pub copies: u64,
}

/// A webhook on its way into the store. Only ingress makes one: out of a proof, or without any key.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// All but the body; `duplicate_of` and `conflict_of` are set by the store.
    pub head: EventHead,
    /// The exact bytes received.
    pub body: Body,
    /// Its keys.
    pub keys: Keys,
    /// One delivery each.
    pub upstreams: Vec<Name>,
    /// How its deliveries begin.
    pub begin: Begin,
    /// What to do if a key is known and the body is another.
    pub on_conflict: OnConflict,
    /// What to do if it is a re-send of a delivered event.
    pub on_resend: OnResend,
    /// Deliveries of one source with one order key reach an upstream one after another, in the order of acceptance.
    pub order_key: Option<OrderKey>,
    /// Whether the body is kept once every delivery is delivered (`store_body`).
    pub keep_body: bool,
}

/// What orders deliveries (`order_by`): at most [`OrderKey::BYTES_MAX`] bytes, without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OrderKey(Arc<str>);

impl OrderKey {
    /// The longest one; a longer value takes no part in any order, and is counted.
    pub const BYTES_MAX: usize = 256;
    /// A key, if the text may be one.
    pub fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= Self::BYTES_MAX && !text.chars().any(char::is_control);
        fits.then(|| Self(text.into()))
    }
    /// As the provider wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How the deliveries of a new event begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// Due at once.
    Due,
    /// The first is born leased to the caller for this long, the others are due.
    FirstLeased(Duration),
    /// All wait for an operator.
    Held(Hold),
}

/// Why a delivery is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// Authentic, but its time is out of tolerance (`on_stale = "hold"`).
    Stale,
    /// A known event or nonce key with another body (`on_conflict = "hold"`).
    Conflict,
}

/// What to do with a known event or nonce key and another body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnConflict {
    /// Store it, held.
    Hold,
    /// Store it and deliver it with `hookward-conflict-of`.
    Deliver,
    /// Count it on the first and drop it.
    Drop,
}

/// What to do with a re-send of a delivered event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnResend {
    /// Count it on the first and drop it.
    Drop,
    /// Store it as an event of its own and deliver it with `hookward-duplicate-of`.
    Deliver,
}

/// The state of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum State {
    /// Waiting for its time.
    Due,
    /// A worker has it.
    Leased,
    /// The upstream took it.
    Delivered,
    /// Waits for an operator: stale or a conflict.
    Held,
    /// Its upstream is not configured any more.
    Parked,
    /// Given up on: a dead letter.
    Dead,
}

impl State {
    /// All of them, in the order they are shown.
    pub const ALL: [Self; 6] = [Self::Due, Self::Leased, Self::Delivered, Self::Held, Self::Parked, Self::Dead];
    /// The stable name: in the store, the API and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Leased => "leased",
            Self::Delivered => "delivered",
            Self::Held => "held",
            Self::Parked => "parked",
            Self::Dead => "dead",
        }
    }
    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// One delivery as an operator sees it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where to.
    pub upstream: Name,
    /// Its state.
    pub state: State,
    /// Why it is in that state, where there is something to say: `stale`, `conflict`, `status 410`, …
    pub reason: Option<String>,
    /// How many attempts were made.
    pub attempts: u32,
    /// In how long it is due; `None` unless due, and while it waits for an earlier one of its order key.
    pub due_in: Option<Duration>,
    /// What orders it, if something does.
    pub order_key: Option<OrderKey>,
    /// What was tried, oldest first.
    pub history: Vec<Attempt>,
}

/// One HTTP try of a delivery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// When it began.
    pub began_at: Wall,
    /// How long it took.
    pub took: Duration,
    /// The upstream's status, if it answered.
    pub status: Option<u16>,
    /// What went wrong, if something did.
    pub error: Option<String>,
    /// Why this attempt was made, if it is not the first: `retry`, `redelivery`, `re-send`, `restart`, …
    pub cause: String,
}

/// The answer of an upstream that is kept for copies (`respond`, `proxy`): at most 64 KiB of body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The status for the provider: already mapped.
    pub status: u16,
    /// The content type, if the upstream gave one.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// An item of a body (`items`): its key, and the digest of its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item {
    /// Scope and item key.
    pub key: Key,
    /// Digest of the item's exact bytes.
    pub content: [u8; 32],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_is_a_uuid_of_version_7_that_sorts_by_time_and_reads_back() {
        let early = EventId::new(Wall::from_unix_s(1_700_000_000));
        let late = EventId::new(Wall::from_unix_s(1_700_000_001));
        assert!(early < late);
        assert_eq!(early.to_string().as_bytes()[14], b'7');
        assert_eq!(early.to_string().parse::<EventId>(), Ok(early));
    }
}
