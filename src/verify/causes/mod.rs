//! Why a request was refused, probably.
//!
//! A hypothesis is the same request, with one thing about it, the scheme or the secrets changed as it is changed by
//! mistake. It is held against [`Scheme::verify`] itself, and only what verifies is a cause. What is missing or malformed
//! is a fact of the request: there the form is enough if the body is not known, or nothing can be computed. So a forged
//! signature has no cause. The work is bounded, and neither secrets nor expected signatures are in what comes out.

mod body;
mod head;
mod rewrite;
mod secret;
#[cfg(test)]
mod tests;
mod time;
mod url;
mod words;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName};

use super::{Algorithm, Encoding, KeyFormat, Keyring, Refusal, Scheme, SecretKey, Seen, TimeUnit, Tolerance};
use crate::time::Wall;

pub use rewrite::{Escapes, Layout, Rewriting};
pub use url::UrlChange;

/// MACs (or checks of a public-key signature) that are computed for one request.
const MACS_MAX: usize = 64;
/// Bytes of a body that is looked into, however it is written.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Live secrets that hypotheses are tried with.
const KEYS_MAX: usize = 4;

/// A request that was refused, and what it was held against.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The scheme of the source.
    pub scheme: &'a Scheme,
    /// The head of the request.
    pub seen: Seen<'a>,
    /// The secrets of the source, live or not.
    pub keyring: &'a Keyring,
    /// The body, if it was read.
    pub body: Option<&'a [u8]>,
    /// When the request came.
    pub now: Wall,
    /// In force; meaningless where no time is signed.
    pub tolerance: Tolerance,
    /// The secrets of other sources, each with a name that may be shown.
    pub others: &'a [(&'a str, &'a Keyring)],
}

/// A likely cause. Holds no secret and no expected signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cause {
    /// What it is.
    pub kind: CauseKind,
    /// Whether the request verifies once this is put right; else it is a fact of the request alone.
    pub proven: bool,
}

/// What can be the cause.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CauseKind {
    /// The same JSON was signed in another writing.
    BodyRewritten(Rewriting),
    /// A line end at the end of the body was lost, or added.
    BodyNewline {
        /// Whether the signed body has it.
        lost: bool,
    },
    /// The body is gzip, and what is in it was signed.
    BodyCompressed,
    /// `content-encoding` names a compression that the body does not have.
    BodyDecompressed,
    /// A secret of the source that does not count any more, or not yet.
    SecretNotLive {
        /// Its id.
        id: Arc<str>,
        /// Whether it has expired.
        expired: bool,
    },
    /// A secret of another source.
    SecretOfOther {
        /// The name that the other keyring was given.
        source: String,
    },
    /// The secret in another encoding.
    SecretEncoding {
        /// Its id.
        id: Arc<str>,
        /// How the sender reads it.
        format: KeyFormat,
    },
    /// The prefix `whsec_` of the secret.
    SecretPrefix {
        /// The id of the secret.
        id: Arc<str>,
        /// Whether the sender has it as a part of the key.
        wanted: bool,
    },
    /// White space at the edges of the secret.
    SecretSpace {
        /// The id of the secret.
        id: Arc<str>,
        /// Whether it is in the secret here; else in the sender's.
        here: bool,
    },
    /// The signed time is in another unit.
    TimestampUnit {
        /// That of the scheme.
        wanted: TimeUnit,
        /// That of the request.
        found: TimeUnit,
    },
    /// The clocks differ.
    ClockSkew {
        /// By so much.
        by: Duration,
        /// Whether the sender's is behind ours.
        behind: bool,
    },
    /// The time is off by as much as a time zone is.
    TimeZone {
        /// By so much.
        by: Duration,
        /// Whether the signed time is behind ours.
        behind: bool,
    },
    /// Signed long ago.
    Late {
        /// Before so long.
        by: Duration,
    },
    /// Another URL was signed.
    Url(UrlChange),
    /// The URL is signed, and it is not known here.
    UrlUnknown,
    /// A header stands under another name.
    HeaderRenamed {
        /// As the scheme has it.
        wanted: HeaderName,
        /// As the request has it.
        found: HeaderName,
    },
    /// A header is missing beside those that are there.
    HeaderLost {
        /// Its name.
        name: HeaderName,
    },
    /// A header with `_` in its name is missing: many proxies drop those.
    HeaderUnderscore {
        /// Its name.
        name: HeaderName,
    },
    /// Signed with another algorithm.
    OtherAlgorithm {
        /// That of the scheme.
        wanted: Algorithm,
        /// That of the request.
        found: Algorithm,
    },
    /// The signature is written in another encoding.
    SignatureEncoding {
        /// That of the scheme.
        wanted: Encoding,
        /// That of the request.
        found: Encoding,
    },
    /// The signature is hexadecimal in upper case.
    SignatureUpperCase,
    /// There is another text before the signature, or none.
    SignaturePrefix {
        /// What stands there.
        found: &'static str,
        /// What the scheme wants there.
        wanted: String,
    },
    /// The signature ends early.
    SignatureTruncated {
        /// Characters that it has.
        has: usize,
        /// Characters that it should have.
        needs: usize,
    },
}

impl Question<'_> {
    /// The likely causes, most certain first; none if nothing that is tried explains it, or if nothing is wrong.
    pub fn causes(&self) -> Vec<Cause> {
        let mut lab = Lab::new(self);
        let body = self.body.filter(|body| body.len() <= BODY_BYTES_MAX);
        let claim = match self.scheme.claim(self.seen) {
            Ok(claim) => claim,
            Err(refusal) => return lab.of_refusal(refusal, body),
        };
        let Some(body) = body else {
            // Whether it is authentic nobody can say; when it says it was signed, everybody can.
            return time::of(claim.stamp.as_ref(), self, false);
        };
        lab.spend(self.keyring.keys().len());
        match self.scheme.verify(&claim, self.keyring, body, self.now) {
            Ok(proof) => time::of(proof.stamp.as_ref(), self, true),
            Err(refusal) => lab.of_refusal(refusal, Some(body)),
        }
    }
}

/// Where hypotheses are tried, as long as there is something left to spend.
struct Lab<'q> {
    question: &'q Question<'q>,
    /// The secrets that count now, whenever they are tried.
    live: Vec<SecretKey>,
    ring: Keyring,
    macs_left: usize,
}

impl<'q> Lab<'q> {
    fn new(question: &'q Question<'q>) -> Self {
        let live = question.keyring.keys().iter().filter(|key| key.is_live(question.now)).take(KEYS_MAX);
        let live: Vec<_> = live.map(|key| timeless(key.clone())).collect();
        let ring = Keyring::new(live.clone(), question.scheme).unwrap_or_default();
        Self { question, live, ring, macs_left: MACS_MAX }
    }

    fn spend(&mut self, macs: usize) {
        self.macs_left = self.macs_left.saturating_sub(macs);
    }

    fn of_refusal(&mut self, refusal: Refusal, body: Option<&[u8]>) -> Vec<Cause> {
        if self.question.seen.url.is_none() && self.question.scheme.needs_url() {
            return vec![Cause { kind: CauseKind::UrlUnknown, proven: false }];
        }
        match refusal {
            Refusal::SignatureMissing
            | Refusal::TimestampMissing
            | Refusal::FieldMissing
            | Refusal::CredentialMissing
            | Refusal::AlgorithmUnsupported => self.missing(body).into_iter().collect(),
            Refusal::TimestampMalformed => self.other_unit(body).into_iter().collect(),
            Refusal::SignatureMalformed => self.malformed(body).into_iter().collect(),
            Refusal::BodyHashMismatch => {
                let lost = self.missing(body);
                lost.or_else(|| self.mismatch(body?)).into_iter().collect()
            }
            Refusal::SignatureMismatch
            | Refusal::CredentialMismatch
            | Refusal::NoLiveSecret
            | Refusal::ClaimMismatch => body.and_then(|body| self.mismatch(body)).into_iter().collect(),
            Refusal::HeaderRepeated | Refusal::TooManySignatures | Refusal::FieldMalformed => Vec::new(),
        }
    }

    /// What explains a proof that is well-formed and does not match: the likeliest first, the dearest last.
    fn mismatch(&mut self, body: &[u8]) -> Option<Cause> {
        let kind = self
            .not_live(body)
            .or_else(|| self.of_others(body))
            .or_else(|| self.other_url(body))
            .or_else(|| self.newline(body))
            .or_else(|| self.space(body))
            .or_else(|| self.compressed(body))
            .or_else(|| self.rewritten(body, rewrite::SINGLE))
            .or_else(|| self.other_encoding(body))
            .or_else(|| self.rewritten(body, rewrite::COMBINED));
        match kind {
            Some(kind) => Some(Cause { kind, proven: true }),
            None => self.decompressed(body).map(|kind| Cause { kind, proven: false }),
        }
    }

    /// The id of the secret under which a changed request verifies.
    fn verifies(&mut self, scheme: &Scheme, seen: Seen<'_>, ring: &Keyring, body: &[u8]) -> Option<Arc<str>> {
        if body.len() > BODY_BYTES_MAX {
            return None;
        }
        let claim = scheme.claim(seen).ok()?;
        let is_public = scheme.key_kind().is_some_and(|kind| kind != super::KeyKind::Shared);
        let each = claim.urls.len().max(1) * if is_public { claim.candidates.len().max(1) } else { 1 };
        let cost = ring.keys().len() * each;
        if cost > self.macs_left {
            return None;
        }
        self.spend(cost);
        let proof = scheme.verify(&claim, ring, body, self.question.now).ok()?;
        Some(proof.secret_id().clone())
    }

    /// Whether the request is authentic with this body.
    fn with_body(&mut self, body: &[u8]) -> bool {
        let (question, ring) = (self.question, self.ring.clone());
        self.verifies(question.scheme, question.seen, &ring, body).is_some()
    }

    /// Whether a changed head is one that verifies, `Some(true)`, or at least one that is well-formed, `Some(false)`. The
    /// form counts only where the body is not known.
    fn with_head(&mut self, scheme: &Scheme, headers: &HeaderMap, body: Option<&[u8]>) -> Option<bool> {
        let seen = Seen { headers, ..self.question.seen };
        let Some(body) = body else { return scheme.claim(seen).is_ok().then_some(false) };
        let ring = Keyring::new(self.live.clone(), scheme).ok()?;
        self.verifies(scheme, seen, &ring, body).map(|_| true)
    }
}

/// The key as one that always counts.
fn timeless(key: SecretKey) -> SecretKey {
    SecretKey { not_before: None, expires_at: None, ..key }
}
