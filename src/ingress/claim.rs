//! Headers, parsed strictly: what is missing, malformed or stale is refused before the body is read: 401.

use http::request::Parts;

use super::{Gate, Rejection, admit::Admitted, restored, select::Cx};
use crate::{
    preset::OnStale,
    verify::{Claim, Freshness, Seen},
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
    // A token of the path is a secret, and only ASCII makes one.
    let token = token.as_ref().and_then(|token| std::str::from_utf8(token.expose()).ok());
    let claim = source.scheme.claim(Seen { headers: &head.headers, token })?;
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
