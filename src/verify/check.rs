//! Holding a claim against the body and the secrets.
//!
//! One MAC is computed per live secret, whatever came before it, and compared with every candidate in constant
//! time; which of them matched decides nothing but what is written down at the end. So a wrong key, a wrong body
//! and a match at any position cost the same. Public keys are no secrets: there it may show which of them matched.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::{
    Algorithm, Candidate, Claim, Keyring, Proof, Refusal,
    content::{Content, credential_in_body, digest_of_body},
    hashing::{self, Pass},
    public::PublicAlgorithm,
    scheme::{CredentialPlace, Kind, Scheme, Signed},
};
use crate::time::Wall;

/// The first match: positions of the secret in the ring, and of the candidate in the claim.
struct Match {
    secret: usize,
    candidate: usize,
}

/// For each secret of the ring in its order, whether it is live and which candidates it explains.
pub(super) type Trials = Vec<(bool, Vec<bool>)>;

impl Scheme {
    /// Holds a claim against the body and every secret that is live now.
    pub fn verify(&self, claim: &Claim, keyring: &Keyring, body: &[u8], now: Wall) -> Result<Proof, Refusal> {
        match &self.0 {
            Kind::Nothing => Ok(self.proof(claim, digest_of_body(body))),
            Kind::Signed(signed) => {
                let content = signed.content(claim, body)?;
                signed.verify(self, &content, keyring, body, now)
            }
            Kind::Credential { place, shown } => {
                let candidates = in_body(place, shown, body)?.map_or_else(|| claim.candidates.clone(), |one| vec![one]);
                let found = find_credential(&candidates, keyring, now)?;
                Ok(Proof {
                    secret_id: keyring.keys()[found.secret].id.clone(),
                    place: candidates[found.candidate].place.clone(),
                    ..self.proof(claim, digest_of_body(body))
                })
            }
        }
    }

    /// What is signed, if that is at most so many bytes; nothing where nothing is.
    pub fn short_content(&self, claim: &Claim, body: &[u8], most: usize) -> Option<Vec<u8>> {
        self.as_signed()?.content(claim, body).ok()?.short(most)
    }

    fn proof(&self, claim: &Claim, body: [u8; 32]) -> Proof {
        Proof {
            signed: None,
            stamp: claim.stamp.clone(),
            nonce: claim.nonce.clone(),
            headers: claim.headers.clone(),
            token: claim.token.clone(),
            body,
            scheme: Arc::from(self.name()),
            secret_id: Arc::from("none"),
            place: Arc::from("none"),
        }
    }

    /// What each secret explains, and where the candidates stand.
    pub(super) fn trials(
        &self,
        claim: &Claim,
        keyring: &Keyring,
        body: &[u8],
        now: Wall,
    ) -> Result<(Trials, Vec<Arc<str>>), Refusal> {
        let live = |matches: Vec<Vec<bool>>| keyring.keys().iter().map(|key| key.is_live(now)).zip(matches).collect();
        match &self.0 {
            Kind::Nothing => Ok((Vec::new(), Vec::new())),
            Kind::Signed(signed) => {
                let content = signed.content(claim, body)?;
                let algorithm = signed.algorithm(&content.claim);
                let explains = |secret: usize, candidate: &Candidate| {
                    (0..content.forms())
                        .any(|form| bool::from(keyring.explains(secret, algorithm, &content, form, candidate)))
                };
                let candidates = &content.claim.candidates;
                let of_secret = |secret| candidates.iter().map(|candidate| explains(secret, candidate)).collect();
                let matches = (0..keyring.keys().len()).map(of_secret).collect();
                Ok((live(matches), candidates.iter().map(|candidate| candidate.place.clone()).collect()))
            }
            Kind::Credential { place, shown } => {
                let candidates = in_body(place, shown, body)?.map_or_else(|| claim.candidates.clone(), |one| vec![one]);
                let matches = |secret: usize| {
                    let is = |candidate: &Candidate| {
                        Sha256::digest(&candidate.bytes)[..].ct_eq(keyring.plain_digest(secret)).into()
                    };
                    candidates.iter().map(is).collect()
                };
                let matches = (0..keyring.keys().len()).map(matches).collect();
                Ok((live(matches), candidates.iter().map(|candidate| candidate.place.clone()).collect()))
            }
        }
    }
}

impl Signed {
    /// The algorithm: the scheme's, or the allowed one that the token names.
    pub(super) fn algorithm(&self, claim: &Claim) -> Algorithm {
        match &claim.token {
            Some(token) => token.algorithm,
            None => self.algorithms.first().copied().unwrap_or(Algorithm::HmacSha256),
        }
    }

    fn verify(
        &self,
        scheme: &Scheme,
        content: &Content<'_>,
        keyring: &Keyring,
        body: &[u8],
        now: Wall,
    ) -> Result<Proof, Refusal> {
        let claim = &*content.claim;
        // A hash with the secret in front could be extended by bytes that are no text.
        if self.content.is_extendable() && self.algorithm(claim).is_plain_hash() && std::str::from_utf8(body).is_err() {
            return Err(Refusal::SignatureMismatch);
        }
        // Compared whatever comes of the signature, so that both refusals cost the same.
        let hash_matches = self.body_hash.as_ref().is_none_or(|hash| match &claim.body_hash {
            Some(claimed) => bool::from(claimed.ct_eq(&content.body_digest)),
            None => hash.optional || body.is_empty(),
        });
        let found = self.find(content, keyring, now)?;
        if !hash_matches {
            return Err(Refusal::BodyHashMismatch);
        }
        Ok(Proof {
            signed: Some(self.digest(scheme, content)),
            secret_id: keyring.keys()[found.secret].id.clone(),
            place: claim.candidates[found.candidate].place.clone(),
            ..scheme.proof(claim, content.body_digest)
        })
    }

    /// A further form of the URL is tried only if the ones before it explain nothing.
    fn find(&self, content: &Content<'_>, keyring: &Keyring, now: Wall) -> Result<Match, Refusal> {
        let algorithm = self.algorithm(&content.claim);
        let mut outcome = Err(Refusal::NoLiveSecret);
        for form in 0..content.forms() {
            outcome = match algorithm.public() {
                None => find_mac(algorithm, content, form, keyring, now),
                Some(public) => find_signature(public, content, form, keyring, now),
            };
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// SHA-256 of the signed content: the same whatever secret, header or form of the URL matched. Of a content that
    /// does not cover the body, of both: one token may come with many bodies.
    fn digest(&self, scheme: &Scheme, content: &Content<'_>) -> [u8; 32] {
        if self.content.is_body_alone() {
            return content.body_digest;
        }
        let body_digest = (!scheme.covers_body()).then_some(&content.body_digest[..]);
        hashing::over(Pass::Content, Sha256::new(), content.segments(0, b"").chain(body_digest)).into()
    }
}

fn in_body(place: &CredentialPlace, shown: &Arc<str>, body: &[u8]) -> Result<Option<Candidate>, Refusal> {
    place.is_in_body().then(|| credential_in_body(place, shown, body)).transpose()
}

fn find_mac(
    algorithm: Algorithm,
    content: &Content<'_>,
    form: usize,
    keyring: &Keyring,
    now: Wall,
) -> Result<Match, Refusal> {
    let mut search = Search::default();
    for secret in keyring.live(now) {
        let mac = keyring.mac(secret, algorithm, content, form);
        for (candidate, offered) in content.claim.candidates.iter().enumerate() {
            search.note(offered.bytes.ct_eq(&mac), secret, candidate);
        }
    }
    search.outcome(Refusal::SignatureMismatch)
}

fn find_signature(
    algorithm: PublicAlgorithm,
    content: &Content<'_>,
    form: usize,
    keyring: &Keyring,
    now: Wall,
) -> Result<Match, Refusal> {
    let live: Vec<usize> = keyring.live(now).collect();
    if live.is_empty() {
        return Err(Refusal::NoLiveSecret);
    }
    // One pass for all keys and candidates, but for Ed25519, whose signatures each go into the hash.
    let signed = super::public::Content::new(algorithm, content.segments(form, b""));
    for secret in live {
        for (candidate, offered) in content.claim.candidates.iter().enumerate() {
            if keyring.verifies(secret, &signed, &offered.bytes) {
                return Ok(Match { secret, candidate });
            }
        }
    }
    Err(Refusal::SignatureMismatch)
}

/// Digests are compared, so that not even the length of a secret shows in the time it takes.
fn find_credential(candidates: &[Candidate], keyring: &Keyring, now: Wall) -> Result<Match, Refusal> {
    let mut search = Search::default();
    let offered: Vec<_> = candidates.iter().map(|candidate| Sha256::digest(&candidate.bytes)).collect();
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
