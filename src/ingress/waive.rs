//! `enforce = false`: until a fixed time, what does not verify is let through, marked as such. It has no keys, answers no
//! handshake, and takes nothing from what verifies.

use super::{Rejection, select::Cx};
use crate::{config::Config, time::Wall};

/// Leave to go on without a proof. Made in [`Waiver::of`] only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Waiver {
    code: &'static str,
}

impl Waiver {
    /// For a webhook that would be refused for this reason now, if its source does not insist yet. What is refused for a
    /// reason of ours, for an address, or because of a handshake, is refused all the same.
    pub(super) fn of(cx: &Cx, why: &Rejection) -> Option<Self> {
        let is_waived = matches!(why, Rejection::Unauthentic(_) | Rejection::Stale);
        let lenient = cx.route.source.lenient.filter(|lenient| cx.exchange.came_at < lenient.until);
        lenient.filter(|_| is_waived).map(|_| Self { code: why.code() })
    }

    /// Why it did not verify: the code of the rejection that it would have been.
    pub(super) const fn code(self) -> &'static str {
        self.code
    }
}

/// Says which sources let through what does not verify.
pub(super) fn warn(config: &Config, now: Wall) {
    for source in config.sources.values() {
        if let Some(lenient) = source.lenient.filter(|lenient| now < lenient.until) {
            let (source, until) = (&*source.name, lenient.until.rfc3339());
            tracing::warn!(source, until, "what does not verify is let through until then (enforce = false)");
        }
    }
}
