//! Headers, parsed strictly: what is missing, malformed or stale is refused before the body is read: 401.

use http::request::Parts;

use super::{Gate, Rejection, admit::Admitted, failures::Refused, restored, select::Cx, waive::Waiver};
use crate::{
    config::Source,
    event::Body,
    preset::OnStale,
    secret::Secret,
    time::Wall,
    verify::{Claim, Freshness, Refusal, Seen},
};

/// A webhook with a well-formed claim, or with leave to go on without one.
pub(super) struct Claimed {
    pub(super) cx: Cx,
    pub(super) head: Parts,
    pub(super) token: Option<Secret>,
    pub(super) claim: Result<Claim, Waiver>,
    /// Out of tolerance, or from before the store was restored, and the source holds what is authentic but stale.
    pub(super) stale: bool,
}

pub(super) fn claim(gate: &Gate, admitted: Admitted) -> Result<Claimed, Rejection> {
    let (claim, stale) = match try_claim(gate, &admitted) {
        Ok((claim, stale)) => (Ok(claim), stale),
        Err(why) => {
            note(gate, &why, &admitted.cx, &admitted.head, admitted.token.as_ref(), None);
            (Err(Waiver::of(&admitted.cx, &why).ok_or(why)?), false)
        }
    };
    let Admitted { cx, head, token } = admitted;
    Ok(Claimed { cx, head, token, claim, stale })
}

/// Lets the reason be found out, off the way of the request, if the source wants that.
pub(super) fn note(gate: &Gate, why: &Rejection, cx: &Cx, head: &Parts, token: Option<&Secret>, body: Option<&Body>) {
    let (source, exchange) = (&cx.route.source, &*cx.exchange);
    if source.explain {
        let url = signed_url(source, head);
        gate.failures.note(why, Refused { source, exchange, head, token, url, body }, gate.clock.monotonic());
    }
}

fn try_claim(gate: &Gate, admitted: &Admitted) -> Result<(Claim, bool), Rejection> {
    let Admitted { cx, head, token } = admitted;
    let source = &cx.route.source;
    if source.remote_keys.is_some() && cx.route.keys.load().keys().is_empty() {
        return Err(Rejection::KeysUnavailable);
    }
    if source.awaits_secret() {
        gate.full_said.awaits_secret(&source.name, gate.clock.monotonic());
        return Err(Rejection::AwaitsSecret);
    }
    let url = signed_url(source, head);
    let claim = source.scheme.claim(seen(head, token.as_ref(), url.as_deref()))?;
    let freshness = claim.freshness(cx.exchange.came_at, source.tolerance);
    let stale = judge(gate, source, freshness, claim.timestamp())?;
    if stale && !claim.may_be_held() {
        return Err(Rejection::Stale);
    }
    Ok((claim, stale))
}

/// Whether what was signed then is to be held, if it is authentic; or why it is refused.
pub(super) fn judge(
    gate: &Gate,
    source: &Source,
    freshness: Freshness,
    signed_at: Option<Wall>,
) -> Result<bool, Rejection> {
    match freshness {
        Freshness::Fresh if restored::may_be_known(signed_at, gate.restored_at) => match source.on_stale {
            OnStale::Hold => Ok(true),
            OnStale::Reject | OnStale::Retry => Err(Rejection::SignedBeforeRestore),
        },
        Freshness::Untimed | Freshness::Fresh => Ok(false),
        Freshness::Past(_) | Freshness::Future(_)
            if !gate.health.check_clock(gate.clock.wall(), gate.clock.monotonic()) =>
        {
            Err(Rejection::StaleByOurClock)
        }
        Freshness::Past(_) | Freshness::Future(_) if source.on_stale == OnStale::Hold => Ok(true),
        Freshness::Past(_) | Freshness::Future(_) => Err(Rejection::Stale),
    }
}

/// How a webhook whose head shows no proof at all is refused; `None` if it shows one, right or wrong. A proof in the body
/// may be there all the same, so that counts only if `says_so`: the head says that it is something else.
pub(super) fn nothing_shown(admitted: &Admitted, says_so: bool) -> Option<Rejection> {
    let source = &admitted.cx.route.source;
    let url = signed_url(source, &admitted.head);
    let claim = source.scheme.claim(seen(&admitted.head, admitted.token.as_ref(), url.as_deref()));
    let refusal = match claim {
        Ok(_) if says_so && source.scheme.is_proven_by_body() => Refusal::SignatureMissing,
        claim => claim.err()?,
    };
    let nothing = matches!(refusal, Refusal::SignatureMissing | Refusal::CredentialMissing);
    nothing.then(|| if source.awaits_secret() { Rejection::AwaitsSecret } else { refusal.into() })
}

/// The URL as the provider knows it, where its scheme signs that.
fn signed_url(source: &Source, head: &Parts) -> Option<String> {
    let url = source.public_url.as_ref().filter(|_| source.scheme.needs_url())?;
    Some(url.of(head.uri.path(), head.uri.query()))
}

fn seen<'a>(head: &'a Parts, token: Option<&'a Secret>, url: Option<&'a str>) -> Seen<'a> {
    // A token of the path is a secret, and only ASCII makes one.
    let token = token.and_then(|token| std::str::from_utf8(token.expose()).ok());
    Seen { method: &head.method, url, query: head.uri.query(), headers: &head.headers, token }
}
