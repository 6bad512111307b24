//! The body against the claim, in constant time, with every live secret: 401.

use http::request::Parts;

use super::{Gate, Rejection, claim, read::Received, select::Cx};
use crate::{
    config::Source,
    event::Body,
    preset::TOKEN_BYTES_MAX,
    verify::{Claim, Keys, Proof},
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
    let (proof, stale) = try_verify(gate, &received).inspect_err(|why| {
        let Received { cx, head, token, body, .. } = &received;
        claim::note(gate, why, cx, head, token.as_ref(), Some(body));
    })?;
    let Received { mut cx, head, body, .. } = received;
    cx.unproven = None;
    let source = &cx.route.source;
    gate.metrics.verified(&source.name, proof.secret_id());
    let keys = source.key_plan.keys(&proof, &body, cx.exchange.came_at);
    if keys.fell_back {
        gate.metrics.key_fell_back(&source.name);
    }
    Ok(Verified { cx, head, body, proof, keys, stale })
}

fn try_verify(gate: &Gate, received: &Received) -> Result<(Proof, bool), Rejection> {
    let Received { cx, claim, stale, body, .. } = received;
    let (source, stale) = (&cx.route.source, *stale);
    let now = cx.exchange.came_at;
    let proof = source.scheme.verify(claim, &cx.route.keys.load(), body, now).inspect_err(|refusal| {
        if refusal.is_mismatch() {
            cx.route.remote.mismatched.notify_one();
        }
    })?;
    if is_signed_for_strangers(source, claim, body) {
        return Err(Rejection::SignedByHandshake);
    }
    // A time in the body is known, and believed, only now.
    let stale = if source.scheme.is_timed_in_body() {
        let stale = claim::judge(gate, source, proof.freshness(now, source.tolerance), proof.timestamp())?;
        if stale && !proof.may_be_held() {
            return Err(Rejection::Stale);
        }
        stale
    } else {
        stale
    };
    Ok((proof, stale))
}

/// Whether a handshake of the provider would have signed this for anybody who asked.
fn is_signed_for_strangers(source: &Source, claim: &Claim, body: &[u8]) -> bool {
    source.provider.signs_for_strangers()
        && source
            .scheme
            .short_content(claim, body, TOKEN_BYTES_MAX)
            .is_some_and(|content| source.provider.refuses_content(&content))
}
