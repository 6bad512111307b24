//! Verification, pure: a [`Scheme`] is data about where a provider puts its proof and what that proof covers.
//!
//! `Scheme::claim` reads what the headers assert, with a strict grammar and before a byte of the body is read.
//! `Claim::freshness` compares the signed time with the clock. `Scheme::verify` holds the claim against the
//! body and every live secret, in constant time, and yields the only [`Proof`] there is. [`Keys`] come from a
//! proof, so nothing unauthenticated can ever be a key.
//!
//! No provider is named here: providers are data, in `crate::preset`.

mod algorithm;
pub mod causes;
mod check;
mod claim;
mod content;
mod describe;
mod encoding;
mod explain;
pub(crate) mod hashing;
pub mod json;
mod jwt;
pub mod key;
pub mod keyring;
mod place;
pub mod public;
pub mod scheme;
mod sign;
mod signature;
mod spec;
mod template;
#[cfg(test)]
mod tests;
mod time;

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, Method};

use crate::time::Wall;

pub use algorithm::{Algorithm, KeyKind};
pub use claim::CANDIDATES_MAX;
pub use encoding::{Encoding, decode_hex, encode_hex};
pub use explain::{Explanation, Tried};
pub use key::{EventKey, Key, KeyPart, KeyPlan, Keys, Lived};
pub use keyring::{KeyError, KeyFormat, Keyring, SecretKey, mac_once};
pub use place::{Place, form_value};
pub use scheme::{
    BodyHash, CredentialPlace, Description, Grammar, JwtSpec, Scheme, SignaturePlace, SignedSpec, SpecError, TimeUnit,
    UrlPort, Whom,
};
pub use sign::{SignError, SignRequest, Signature, SigningKey};

/// What a request shows before its body. `Debug` shows the names of the headers only.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// The method.
    pub method: &'a Method,
    /// The URL as the provider knows it, with the query; where schemes sign it.
    pub url: Option<&'a str>,
    /// The query as received, without its `?`.
    pub query: Option<&'a str>,
    /// The headers as received.
    pub headers: &'a HeaderMap,
    /// The secret segment of the path, where the source's path has one.
    pub token: Option<&'a str>,
}

impl fmt::Debug for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.headers.keys()).finish()
    }
}

/// What the head asserts, unproven: strictly parsed, bounded, decoded.
#[derive(Clone, Debug)]
pub struct Claim {
    stamp: Option<Stamp>,
    id: Option<Vec<u8>>,
    nonce: Option<Vec<u8>>,
    /// Values of signed headers, that of the id or nonce included.
    headers: Vec<(HeaderName, Vec<u8>)>,
    /// For each piece of the signed content what the head says, where it does.
    values: Vec<Option<Vec<u8>>>,
    candidates: Vec<Candidate>,
    /// The forms of the URL that may have been signed.
    urls: Vec<String>,
    token: Option<jwt::Token>,
    /// The digest of the body that came along.
    body_hash: Option<[u8; 32]>,
}

/// A signed time: its text goes into the MAC, its value is compared with the clock.
#[derive(Clone, Debug)]
struct Stamp {
    text: Vec<u8>,
    /// When it was signed, as far as that is said.
    at_ns: i128,
    /// It counts from here, if that is said.
    from_ns: Option<i128>,
    /// And until here.
    until_ns: Option<i128>,
    /// The clock is rounded down to this unit before it is compared, so that the bounds are exact.
    unit_ns: i128,
    /// It has as many digits as every time from 2001 to 2286.
    is_usual: bool,
}

/// One signature, or one credential, that the request offers. `Debug` shows where, not what.
#[derive(Clone)]
struct Candidate {
    bytes: Vec<u8>,
    /// Where it was: for logs and `verify`.
    place: Arc<str>,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Candidate({}, {} bytes)", self.place, self.bytes.len())
    }
}

/// How far a timestamp may be from our clock; always two values.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tolerance {
    /// How old it may be.
    pub past: Duration,
    /// How far ahead it may be.
    pub future: Duration,
}

/// How a claim's time relates to the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freshness {
    /// The scheme signs no time.
    Untimed,
    /// Within the tolerance.
    Fresh,
    /// Older than the tolerance by this much.
    Past(Duration),
    /// Ahead of the clock by this much more than the tolerance.
    Future(Duration),
}

/// Why a request is not authentic. The code goes to log and metric, never to the client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// No signature, or no credential.
    SignatureMissing,
    /// A signature that cannot be one: wrong prefix, length, alphabet, or non-canonical.
    SignatureMalformed,
    /// A header that must stand once stands several times.
    HeaderRepeated,
    /// More signatures than are ever tried.
    TooManySignatures,
    /// The scheme signs a time and there is none.
    TimestampMissing,
    /// Not digits only, a leading zero, too long, or two of them.
    TimestampMalformed,
    /// The id or nonce that the scheme signs is missing.
    FieldMissing,
    /// The id or nonce has characters, or a length, that could be confused with the rest of the signed content.
    FieldMalformed,
    /// A header that must say which algorithm or version was used says another, or a token does.
    AlgorithmUnsupported,
    /// A token that is for another endpoint, or from another issuer.
    ClaimMismatch,
    /// The signature matches, and the digest of the body that it covers does not.
    BodyHashMismatch,
    /// No live secret explains any signature.
    SignatureMismatch,
    /// No secret is live now.
    NoLiveSecret,
    /// The token, header or basic-auth value is missing.
    CredentialMissing,
    /// It is there and wrong.
    CredentialMismatch,
}

impl Refusal {
    /// The stable code: metric label, log field, row in the docs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMalformed => "signature_malformed",
            Self::HeaderRepeated => "header_repeated",
            Self::TooManySignatures => "too_many_signatures",
            Self::TimestampMissing => "timestamp_missing",
            Self::TimestampMalformed => "timestamp_malformed",
            Self::FieldMissing => "field_missing",
            Self::FieldMalformed => "field_malformed",
            Self::AlgorithmUnsupported => "algorithm_unsupported",
            Self::ClaimMismatch => "claim_mismatch",
            Self::BodyHashMismatch => "body_hash_mismatch",
            Self::SignatureMismatch => "signature_mismatch",
            Self::NoLiveSecret => "no_live_secret",
            Self::CredentialMissing => "credential_missing",
            Self::CredentialMismatch => "credential_mismatch",
        }
    }
    /// Whether a well-formed proof was there and did not match: a genuine sender with another secret looks so.
    pub const fn is_mismatch(self) -> bool {
        matches!(self, Self::SignatureMismatch | Self::CredentialMismatch | Self::NoLiveSecret)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The evidence that a body is what its provider sent. Made by [`Scheme::verify`] only.
#[derive(Clone, Debug)]
pub struct Proof {
    signed: Option<[u8; 32]>,
    stamp: Option<Stamp>,
    nonce: Option<Vec<u8>>,
    /// Signed headers, that of the id or nonce included.
    headers: Vec<(HeaderName, Vec<u8>)>,
    token: Option<jwt::Token>,
    /// SHA-256 of the body.
    body: [u8; 32],
    scheme: Arc<str>,
    secret_id: Arc<str>,
    place: Arc<str>,
}

impl Proof {
    /// The signed time, as far as that is said.
    pub fn timestamp(&self) -> Option<Wall> {
        self.stamp.as_ref().map(Stamp::signed_at)
    }
    /// Whether a time out of tolerance may be held for an operator; see [`Claim::may_be_held`].
    pub fn may_be_held(&self) -> bool {
        self.stamp.as_ref().is_none_or(|stamp| stamp.is_usual)
    }
    /// How the signed time relates to the clock: known here where it stands in the body.
    pub fn freshness(&self, now: Wall, tolerance: Tolerance) -> Freshness {
        self.stamp.as_ref().map_or(Freshness::Untimed, |stamp| stamp.freshness(now, tolerance))
    }
    /// The name of the scheme, such as `hmac-sha256`, `credential` or `none`.
    pub fn scheme(&self) -> &Arc<str> {
        &self.scheme
    }
    /// The configured id of the secret that explained it.
    pub fn secret_id(&self) -> &Arc<str> {
        &self.secret_id
    }
    /// The header, or part of the path, that carried the proof.
    pub fn place(&self) -> &Arc<str> {
        &self.place
    }
    /// A proof of this body that nothing was held against, for tests of what comes after verification.
    #[cfg(test)]
    pub(crate) fn for_test(body: &[u8]) -> Self {
        use sha2::Digest as _;
        Self {
            signed: None,
            stamp: None,
            nonce: None,
            headers: Vec::new(),
            token: None,
            body: sha2::Sha256::digest(body).into(),
            scheme: Arc::from("none"),
            secret_id: Arc::from("none"),
            place: Arc::from("none"),
        }
    }
}
