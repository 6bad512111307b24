//! Verification with its working shown, for people who ask why a request was refused.

use std::{sync::Arc, time::Duration};

use super::{Claim, Freshness, Keyring, Proof, Refusal, Scheme, Seen, Stamp, Tolerance, time::as_duration};
use crate::time::Wall;

/// What became of one request, step by step. Holds no secret and no expected signature.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The name of the scheme.
    pub scheme: &'static str,
    /// Why the headers are no claim, if they are none. Then nothing further was tried.
    pub claim: Result<Claim, Refusal>,
    /// Where the signatures or credentials were that were tried.
    pub places: Vec<Arc<str>>,
    /// The signed time.
    pub timestamp: Option<Wall>,
    /// How far it is from the clock, and whether it is behind it.
    pub skew: Option<(Duration, bool)>,
    /// How that relates to the tolerance.
    pub freshness: Freshness,
    /// Every secret with every signature.
    pub tried: Vec<Tried>,
    /// The beginning of what is signed.
    pub signed_content: Vec<u8>,
    /// How many bytes are signed in all.
    pub signed_bytes: usize,
    /// What verification says, whatever the time.
    pub proof: Result<Proof, Refusal>,
}

/// One secret held against one signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tried {
    /// The configured id of the secret.
    pub secret_id: Arc<str>,
    /// Whether the secret counts now.
    pub live: bool,
    /// Position of the signature in [`Explanation::places`].
    pub signature: usize,
    /// Whether the one explains the other.
    pub matches: bool,
}

impl Explanation {
    /// Whether the request is what its provider sent, and fresh.
    pub fn is_authentic(&self) -> bool {
        self.proof.is_ok() && matches!(self.freshness, Freshness::Fresh | Freshness::Untimed)
    }
}

impl Scheme {
    /// Does what `claim`, `freshness` and `verify` do, and shows the working. At most `preview_bytes` of the
    /// signed content are returned.
    pub fn explain(
        &self,
        seen: Seen<'_>,
        keyring: &Keyring,
        body: &[u8],
        now: Wall,
        tolerance: Option<Tolerance>,
        preview_bytes: usize,
    ) -> Explanation {
        let claimed = self.claim(seen);
        let claim = match claimed {
            Ok(claim) => claim,
            Err(refusal) => {
                return Explanation {
                    scheme: self.name(),
                    claim: Err(refusal),
                    places: Vec::new(),
                    timestamp: None,
                    skew: None,
                    freshness: Freshness::Untimed,
                    tried: Vec::new(),
                    signed_content: Vec::new(),
                    signed_bytes: 0,
                    proof: Err(refusal),
                };
            }
        };
        let (trials, places) = self.trials(&claim, keyring, body, now).unwrap_or_default();
        let tried = keyring.keys().iter().zip(trials).flat_map(|(key, (live, matches))| {
            let of_signature =
                move |(signature, matches)| Tried { secret_id: key.id.clone(), live, signature, matches };
            matches.into_iter().enumerate().map(of_signature)
        });
        let (mut signed_content, mut signed_bytes) = (Vec::new(), 0);
        let content = self.as_signed().and_then(|signed| signed.content(&claim, body).ok());
        for segment in content.iter().flat_map(|content| content.segments(0, b"")) {
            let room = preview_bytes - signed_content.len();
            signed_content.extend_from_slice(&segment[..segment.len().min(room)]);
            signed_bytes += segment.len();
        }
        // The time may stand in the body.
        let stamp = content.as_ref().and_then(|content| content.claim.stamp.clone()).or_else(|| claim.stamp.clone());
        Explanation {
            scheme: self.name(),
            places,
            timestamp: stamp.as_ref().map(Stamp::signed_at),
            skew: stamp.as_ref().map(|stamp| {
                let age_ns = stamp.rounded(now) - stamp.at_ns;
                (as_duration(age_ns.abs()), age_ns >= 0)
            }),
            // What a token says of its time counts without leeway, too.
            freshness: stamp.map_or(Freshness::Untimed, |stamp| stamp.freshness(now, tolerance.unwrap_or_default())),
            tried: tried.collect(),
            signed_content,
            signed_bytes,
            proof: self.verify(&claim, keyring, body, now),
            claim: Ok(claim),
        }
    }
}
