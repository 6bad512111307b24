//! A scheme: where the proof stands, what it covers, how it is computed.

use super::{Claim, Freshness, Keyring, Proof, Refusal, Seen, Tolerance};
use crate::time::Wall;

/// A verification scheme, as data.
#[derive(Clone, Debug)]
pub struct Scheme {}

impl Scheme {
    /// Reads the claim from the headers, strictly. No secret is involved.
    pub fn claim(&self, seen: Seen<'_>) -> Result<Claim, Refusal> {
        let _ = seen;
        unimplemented!("filled in by the verification work")
    }
    /// Holds a claim against the body and every secret that is live now.
    pub fn verify(&self, claim: &Claim, keyring: &Keyring, body: &[u8], now: Wall) -> Result<Proof, Refusal> {
        let _ = (claim, keyring, body, now);
        unimplemented!("filled in by the verification work")
    }
    /// Whether the provider signs anything (a credential is not a signature).
    pub fn is_signed(&self) -> bool {
        unimplemented!("filled in by the verification work")
    }
    /// Whether a time is signed.
    pub fn is_timed(&self) -> bool {
        unimplemented!("filled in by the verification work")
    }
    /// Whether a header carried the credential that we consumed: it is not stored and not forwarded.
    pub fn consumes(&self, header: &http::HeaderName) -> bool {
        let _ = header;
        unimplemented!("filled in by the verification work")
    }
}

impl Claim {
    /// How the claimed time relates to the clock. Both bounds are inclusive, in the unit of the scheme.
    pub fn freshness(&self, now: Wall, tolerance: Tolerance) -> Freshness {
        let _ = (now, tolerance);
        unimplemented!("filled in by the verification work")
    }
}
