//! The body against the claim, in constant time, with every live secret: 401. What does not verify goes on only with a
//! [`Waiver`], and then without keys.

use std::sync::Arc;

use http::request::Parts;

use super::{Gate, Rejection, claim, read::Received, select::Cx, waive::Waiver};
use crate::{
    config::Source,
    event::{Body, EventHead},
    preset::TOKEN_BYTES_MAX,
    verify::{Claim, Keys, Proof},
};

/// A webhook that is what its provider sent, or that its source lets through although nobody knows.
pub(super) struct Verified {
    pub(super) cx: Cx,
    pub(super) head: Parts,
    pub(super) body: Body,
    pub(super) grounds: Grounds,
    /// Of a proof. What has none has no keys: nothing is looked up or kept.
    pub(super) keys: Keys,
    /// Authentic, but out of tolerance: to be held.
    pub(super) stale: bool,
}

/// Why a webhook may go on.
pub(super) enum Grounds {
    /// It verified.
    Proven(Box<Proof>),
    /// It did not, and its source does not insist (`enforce = false`).
    Waived(Waiver),
}

impl Grounds {
    pub(super) const fn is_proven(&self) -> bool {
        matches!(self, Self::Proven(_))
    }
    /// As it is kept with the event, and told to upstreams.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Proven(proof) => format!("{}/{}", proof.scheme(), proof.secret_id()),
            Self::Waived(waiver) => EventHead::unverified(waiver.code()),
        }
    }
}

pub(super) fn verify(gate: &Gate, received: Received) -> Result<Verified, Rejection> {
    let proven = match &received.claim {
        Ok(claim) => try_verify(gate, &received, claim),
        Err(waiver) => return let_through(gate, *waiver, received),
    };
    let (proof, stale) = match proven {
        Ok(proven) => proven,
        Err(why) => {
            let Received { cx, head, token, body, .. } = &received;
            claim::note(gate, &why, cx, head, token.as_ref(), Some(body));
            let waiver = Waiver::of(cx, &why).ok_or(why)?;
            return let_through(gate, waiver, received);
        }
    };
    let Received { mut cx, head, body, .. } = received;
    cx.unproven = None;
    let _ = cx.exchange.proven.set(());
    let source = &cx.route.source;
    gate.metrics.verified(&source.name, proof.secret_id());
    let keys = source.key_plan.keys(&proof, &body, cx.exchange.came_at);
    if keys.fell_back {
        gate.metrics.key_fell_back(&source.name);
    }
    Ok(Verified { cx, head, body, grounds: Grounds::Proven(Box::new(proof)), keys, stale })
}

/// It keeps the share of its client until it is done, and takes nothing that is there for what verifies: neither a place
/// of those that are not verified yet, for its upstream may take its time, nor what its source has.
fn let_through(gate: &Gate, waiver: Waiver, received: Received) -> Result<Verified, Rejection> {
    let Received { mut cx, head, body, .. } = received;
    let permit = gate.waived_requests.clone().try_acquire_owned().map_err(|_| Rejection::TooManyInFlight)?;
    let body = gate.waived_bytes.charge(&body).ok_or(Rejection::BudgetSpent)?;
    cx.permits.push(Arc::new(permit));
    if let Some(unproven) = &mut cx.unproven {
        unproven.seat = None;
    }
    gate.metrics.unenforced(&cx.route.source.name, waiver.code());
    let keys = Keys::none(&body);
    Ok(Verified { cx, head, body, grounds: Grounds::Waived(waiver), keys, stale: false })
}

fn try_verify(gate: &Gate, received: &Received, claim: &Claim) -> Result<(Proof, bool), Rejection> {
    let Received { cx, stale, body, .. } = received;
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
