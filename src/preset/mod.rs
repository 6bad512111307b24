//! Providers as data: one TOML file each, embedded in the binary. `[providers.NAME]` in a configuration has
//! the same schema.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::HeaderName;

use crate::{
    event::Name,
    verify::{EventKey, KeyFormat, Scheme, Tolerance},
};

/// What is known about one provider.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Lower-case with hyphens: `mobility-work`.
    pub name: Name,
    /// As the provider writes itself: `Mobility Work`.
    pub title: String,
    /// How it proves itself.
    pub scheme: Scheme,
    /// How its secrets are written.
    pub key_format: KeyFormat,
    /// How far its timestamp may be off; `None` where it signs no time.
    pub tolerance: Option<Tolerance>,
    /// What identifies an event across its retries.
    pub event_key: EventKey,
    /// Where it says what kind of event it is.
    pub event_type: Option<Locator>,
    /// Where it numbers or names the attempt. Unsigned: never part of a key.
    pub attempt_id: Option<Locator>,
    /// Handshakes answered without storing anything.
    pub handshakes: Vec<Handshake>,
    /// Items of a body that it re-sends apart.
    pub items: Option<Items>,
    /// How it behaves as a sender.
    pub sender: Sender,
    /// What a source does unless it says otherwise.
    pub on_stale: OnStale,
    /// What a source does unless it says otherwise.
    pub on_mismatch: OnMismatch,
    /// The largest body it sends, where that is more than the server's default.
    pub body_bytes_max: Option<u64>,
    /// How well its facts are known.
    pub evidence: Evidence,
    /// What nobody has confirmed, in sentences.
    pub unconfirmed: Vec<String>,
    /// Known answers.
    pub vectors: Vec<Vector>,
}

/// Where a value stands in a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Locator {
    /// A header.
    Header(HeaderName),
    /// A JSON pointer into the body; read after verification only.
    Json(String),
}

/// A registration handshake: a verified body that matches is answered from itself, and stored nowhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// JSON pointer whose string must equal `equals`.
    pub when: String,
    /// The string.
    pub equals: String,
    /// JSON pointer to the token that is sent back as `text/plain`. Only `[A-Za-z0-9_-]{1,256}` is echoed.
    pub echo: String,
}

/// `items = { each = "/Data", key = ["/DataType", "/TrackingNumber"] }`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Items {
    /// JSON pointer to the list.
    pub each: String,
    /// JSON pointers inside an item that make up its key.
    pub key: Vec<String>,
}

/// How a provider behaves as a sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sender {
    /// By when it wants an answer.
    pub deadline: Duration,
    /// From its first attempt to its last.
    pub retry_span: Option<Duration>,
    /// Statuses that it tries again; `None`: every status that is not 2xx.
    pub retries: Option<BTreeSet<u16>>,
    /// Statuses after which it drops the event for good, or disables the subscription.
    pub drops: BTreeSet<u16>,
    /// After how many failures in a row it disables the subscription.
    pub disables_after: Option<u32>,
    /// The one status it takes for success, where any 2xx will not do.
    pub ack_status: Option<u16>,
}

/// What happens to an authentic claim whose time is out of tolerance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnStale {
    /// 401.
    Reject,
    /// 503, so that the provider tries again.
    Retry,
    /// Verified, stored, answered 200, and held for an operator.
    Hold,
}

/// What happens to a well-formed signature that does not match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnMismatch {
    /// 401.
    Reject,
    /// 503, so that a genuine sender keeps trying while a secret is put right.
    Retry,
}

/// How well the facts are known, and where they are from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// `vendor-vector`, `official-sdk`, `vendor-doc` or `second-hand`.
    pub kind: EvidenceKind,
    /// The page, or the file of the SDK.
    pub place: String,
}

/// From best to least.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EvidenceKind {
    /// A signature published by the provider was recomputed.
    VendorVector,
    /// Read in the provider's own library.
    OfficialSdk,
    /// Read in the provider's documentation.
    VendorDoc,
    /// From others.
    SecondHand,
}

/// A known answer: this request, with this secret, at this time, is (or is not) authentic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vector {
    /// Its name.
    pub id: String,
    /// The secret, as a user would configure it.
    pub secret: String,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The time of the check, Unix seconds.
    pub now_s: i64,
    /// Whether it is authentic.
    pub valid: bool,
}

/// The preset of that name.
pub fn find(name: &str) -> Option<Arc<Provider>> {
    let _ = name;
    unimplemented!("filled in by the preset work")
}

/// All presets, by name.
pub fn all() -> Vec<Arc<Provider>> {
    unimplemented!("filled in by the preset work")
}
