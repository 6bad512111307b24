//! Headers, parsed strictly: what is missing, malformed or stale is refused before the body is read: 401.

use http::request::Parts;

use super::{Gate, Rejection, admit::Admitted, restored, select::Cx};
use crate::{
    preset::OnStale,
    secret::Secret,
    verify::{Claim, Freshness, Refusal, Seen},
};

/// A webhook with a well-formed claim.
pub(super) struct Claimed {
    pub(super) cx: Cx,
    pub(super) head: Parts,
    pub(super) claim: Claim,
    /// Out of tolerance, or from before the store was restored, and the source holds what is authentic but stale.
    pub(super) stale: bool,
}

pub(super) fn claim(gate: &Gate, admitted: Admitted) -> Result<Claimed, Rejection> {
    let Admitted { cx, head, token } = admitted;
    let source = &cx.route.source;
    if source.awaits_secret() {
        gate.full_said.awaits_secret(&source.name, gate.clock.monotonic());
        return Err(Rejection::AwaitsSecret);
    }
    let claim = source.scheme.claim(seen(&head, token.as_ref()))?;
    let stale = match claim.freshness(cx.exchange.came_at, source.tolerance) {
        Freshness::Fresh if restored::may_be_known(&claim, gate.restored_at) => match source.on_stale {
            OnStale::Hold => true,
            OnStale::Reject | OnStale::Retry => return Err(Rejection::SignedBeforeRestore),
        },
        Freshness::Untimed | Freshness::Fresh => false,
        Freshness::Past(_) | Freshness::Future(_)
            if !gate.health.check_clock(gate.clock.wall(), gate.clock.monotonic()) =>
        {
            return Err(Rejection::StaleByOurClock);
        }
        Freshness::Past(_) | Freshness::Future(_) if source.on_stale == OnStale::Hold => true,
        Freshness::Past(_) | Freshness::Future(_) => return Err(Rejection::Stale),
    };
    Ok(Claimed { cx, head, claim, stale })
}

/// How a webhook that shows no proof at all is refused; `None` if it shows one, right or wrong.
pub(super) fn nothing_shown(admitted: &Admitted) -> Option<Rejection> {
    let source = &admitted.cx.route.source;
    let refusal = source.scheme.claim(seen(&admitted.head, admitted.token.as_ref())).err()?;
    let nothing = matches!(refusal, Refusal::SignatureMissing | Refusal::CredentialMissing);
    nothing.then(|| if source.awaits_secret() { Rejection::AwaitsSecret } else { refusal.into() })
}

fn seen<'a>(head: &'a Parts, token: Option<&'a Secret>) -> Seen<'a> {
    // A token of the path is a secret, and only ASCII makes one.
    let token = token.and_then(|token| std::str::from_utf8(token.expose()).ok());
    Seen { headers: &head.headers, token }
}
