//! Holding a claim against the body and the secrets.
//!
//! One MAC is computed per live secret, whatever came before it, and compared with every candidate in constant
//! time; which of them matched decides nothing but what is written down at the end. So a wrong key, a wrong body
//! and a match at any position cost the same.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::{
    Claim, Keyring, Proof, Refusal,
    scheme::{Kind, Scheme, Signed},
};
use crate::time::Wall;

/// The first match: positions of the secret in the ring, and of the candidate in the claim.
struct Match {
    secret: usize,
    candidate: usize,
}

impl Scheme {
    /// Holds a claim against the body and every secret that is live now.
    pub fn verify(&self, claim: &Claim, keyring: &Keyring, body: &[u8], now: Wall) -> Result<Proof, Refusal> {
        let proof = Proof {
            signed: None,
            timestamp: claim.timestamp(),
            nonce: claim.nonce.clone(),
            headers: claim.headers.clone(),
            covers_body: true,
            scheme: Arc::from(self.name()),
            secret_id: Arc::from("none"),
            place: Arc::from("none"),
        };
        let found = match &self.0 {
            Kind::Nothing => return Ok(proof),
            Kind::Signed(signed) => find_signature(signed, claim, keyring, body, now)?,
            Kind::Credential { .. } => find_credential(claim, keyring, now)?,
        };
        let (signed, covers_body) = match self.as_signed() {
            Some(signed) => (Some(digest(signed, claim, body)), signed.content.has_body()),
            None => (None, true),
        };
        Ok(Proof {
            signed,
            covers_body,
            secret_id: keyring.keys()[found.secret].id.clone(),
            place: claim.candidates[found.candidate].place.clone(),
            ..proof
        })
    }

    /// For each secret of the ring in its order, whether it is live and which candidates it explains.
    pub(super) fn trials(&self, claim: &Claim, keyring: &Keyring, body: &[u8], now: Wall) -> Vec<(bool, Vec<bool>)> {
        let trial = |index: usize| {
            let expected = match &self.0 {
                Kind::Signed(signed) => {
                    keyring.mac(index, signed.algorithm, signed.content.segments(claim, body)).to_vec()
                }
                Kind::Credential { .. } => keyring.plain_digest(index).to_vec(),
                Kind::Nothing => Vec::new(),
            };
            let matches = |candidate: &[u8]| match &self.0 {
                Kind::Credential { .. } => Sha256::digest(candidate)[..].ct_eq(&expected).into(),
                _ => candidate.ct_eq(&expected).into(),
            };
            claim.candidates.iter().map(|candidate| matches(&candidate.bytes)).collect()
        };
        keyring.keys().iter().enumerate().map(|(i, key)| (key.is_live(now), trial(i))).collect()
    }
}

fn find_signature(signed: &Signed, claim: &Claim, keyring: &Keyring, body: &[u8], now: Wall) -> Result<Match, Refusal> {
    let mut search = Search::default();
    for secret in keyring.live(now) {
        let mac = keyring.mac(secret, signed.algorithm, signed.content.segments(claim, body));
        for (candidate, offered) in claim.candidates.iter().enumerate() {
            search.note(offered.bytes.ct_eq(&mac), secret, candidate);
        }
    }
    search.outcome(Refusal::SignatureMismatch)
}

/// Digests are compared, so that not even the length of a secret shows in the time it takes.
fn find_credential(claim: &Claim, keyring: &Keyring, now: Wall) -> Result<Match, Refusal> {
    let mut search = Search::default();
    let offered: Vec<_> = claim.candidates.iter().map(|candidate| Sha256::digest(&candidate.bytes)).collect();
    for secret in keyring.live(now) {
        for (candidate, digest) in offered.iter().enumerate() {
            search.note(digest[..].ct_eq(keyring.plain_digest(secret)), secret, candidate);
        }
    }
    search.outcome(Refusal::CredentialMismatch)
}

/// Remembers the first match without a branch on whether there was one.
struct Search {
    tried: bool,
    found: Choice,
    secret: u64,
    candidate: u64,
}

impl Default for Search {
    fn default() -> Self {
        Self { tried: false, found: Choice::from(0), secret: 0, candidate: 0 }
    }
}

impl Search {
    fn note(&mut self, matches: Choice, secret: usize, candidate: usize) {
        let first = matches & !self.found;
        self.secret.conditional_assign(&(secret as u64), first);
        self.candidate.conditional_assign(&(candidate as u64), first);
        self.found |= matches;
        self.tried = true;
    }
    #[expect(clippy::cast_possible_truncation, reason = "both were positions in memory")]
    fn outcome(self, mismatch: Refusal) -> Result<Match, Refusal> {
        match (self.tried, bool::from(self.found)) {
            (false, _) => Err(Refusal::NoLiveSecret),
            (true, false) => Err(mismatch),
            (true, true) => Ok(Match { secret: self.secret as usize, candidate: self.candidate as usize }),
        }
    }
}

/// SHA-256 of the signed content: the same whatever secret or header matched.
fn digest(signed: &Signed, claim: &Claim, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    signed.content.segments(claim, body).for_each(|segment| hash.update(segment));
    hash.finalize().into()
}
