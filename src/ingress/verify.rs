//! The body against the claim, in constant time, with every live secret: 401.

use http::request::Parts;

use super::{Gate, Rejection, read::Received, select::Cx};
use crate::{
    event::Body,
    verify::{Keys, Proof},
};

/// A webhook that is what its provider sent.
pub(super) struct Verified {
    pub(super) cx: Cx,
    pub(super) head: Parts,
    pub(super) body: Body,
    pub(super) proof: Proof,
    pub(super) keys: Keys,
    /// Authentic, but out of tolerance: to be held.
    pub(super) stale: bool,
}

pub(super) fn verify(gate: &Gate, received: Received) -> Result<Verified, Rejection> {
    let Received { mut cx, head, claim, stale, body } = received;
    let source = &cx.route.source;
    let now = cx.exchange.came_at;
    let proof = source.scheme.verify(&claim, &source.keyring, &body, now)?;
    cx.unproven = None;
    gate.metrics.verified(&source.name, proof.secret_id());
    let keys = source.key_plan.keys(&proof, &body, now);
    if keys.fell_back {
        gate.metrics.key_fell_back(&source.name);
    }
    Ok(Verified { cx, head, body, proof, keys, stale })
}
