//! When the next order is due. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{config::certificate::Certificate, time::Wall};

/// The first pause after a failure; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_mins(2);
const PAUSE_MAX: Duration = Duration::from_hours(6);
/// What failures before the start can make a new process wait. Four orders an hour, if it never lasts longer.
pub(super) const PAUSE_AFTER_START_MAX: Duration = Duration::from_mins(15);
/// At least so long between two orders that succeed, however short the certificates are.
const SPACING_MIN: Duration = Duration::from_secs(5);

/// What is known of earlier orders.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct History {
    /// Since the last success.
    failures: u32,
    /// No order before this time, in milliseconds since 1970.
    not_before_ms: i64,
    /// When that was fixed.
    at_ms: i64,
}

impl History {
    /// No order before this.
    pub(super) fn not_before(&self) -> Wall {
        Wall::from_unix_ms(self.not_before_ms)
    }

    /// At most so long after the last order.
    pub(super) fn limit(&mut self, pause_max: Duration) {
        let until = Wall::from_unix_ms(self.at_ms).plus(pause_max);
        self.not_before_ms = self.not_before_ms.min(until.unix_ms());
    }

    /// An order failed. `luck` is random, from 0 to 1, so that many gateways do not come back together. Returns the
    /// pause.
    pub(super) fn failed(&mut self, now: Wall, luck: f64) -> Duration {
        let doubled = PAUSE_FIRST.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        let pause = doubled.mul_f64(1.0 + luck / 4.0);
        self.failures = self.failures.saturating_add(1);
        self.wait(now, now.plus(pause));
        pause
    }

    /// An order succeeded. The next is not due before half of what is left of its certificate: an authority whose
    /// certificates are old when they come is not asked again at once.
    pub(super) fn succeeded(&mut self, now: Wall, certificate: &Certificate) {
        self.failures = 0;
        let left = certificate.not_after.unix_ms().saturating_sub(now.unix_ms()).max(0);
        let half = Duration::from_millis(u64::try_from(left / 2).unwrap_or(0));
        self.wait(now, now.plus(half.max(SPACING_MIN)));
    }

    fn wait(&mut self, now: Wall, until: Wall) {
        (self.at_ms, self.not_before_ms) = (now.unix_ms(), until.unix_ms());
    }
}

/// After two thirds of the lifetime, and up to a thirtieth of it later: how much is the certificate's own, so that a
/// restart changes nothing and certificates that were issued together do not come back together.
pub(super) fn renew_at(certificate: &Certificate) -> Wall {
    let [luck, ..] = certificate.fingerprint();
    between(certificate.not_before, certificate.not_after, luck)
}

fn between(not_before: Wall, not_after: Wall, luck: u8) -> Wall {
    let (from, until) = (not_before.unix_ms(), not_after.unix_ms());
    let lifetime = until.saturating_sub(from).max(0);
    Wall::from_unix_ms(from.saturating_add(lifetime / 3 * 2 + lifetime / 30 * i64::from(luck) / 255))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_when_two_thirds_are_over_and_not_much_later() {
        let day = 86_400;
        let at = |luck| between(Wall::from_unix_s(0), Wall::from_unix_s(90 * day), luck).unix_s() / day;
        assert_eq!((at(0), at(255)), (60, 63));
        let short = between(Wall::from_unix_s(100), Wall::from_unix_s(130), 0);
        assert_eq!(short, Wall::from_unix_s(120));
    }

    #[test]
    fn failures_are_followed_by_growing_pauses() {
        for luck in [0.0, 1.0] {
            let (mut past, mut now, mut orders) = (History::default(), Wall::from_unix_s(0), Vec::new());
            while now.unix_s() < 48 * 3600 {
                orders.push(now.unix_s());
                past.failed(now, luck);
                now = past.not_before();
            }
            let in_an_hour = |from: i64| orders.iter().filter(|at| (from..from + 3600).contains(*at)).count();
            assert!(orders.iter().all(|at| in_an_hour(*at) <= 5), "{orders:?}");
            assert!(orders.windows(2).all(|pair| pair[1] - pair[0] <= 6 * 3600 * 5 / 4), "{orders:?}");
        }
    }

    #[test]
    fn a_restart_shortens_a_pause_and_does_not_end_it() {
        let (mut past, now) = (History::default(), Wall::from_unix_s(1_000_000));
        for _ in 0..9 {
            past.failed(now, 0.0);
        }
        past.limit(PAUSE_AFTER_START_MAX);
        assert_eq!(past.not_before(), now.plus(PAUSE_AFTER_START_MAX));
        let mut fresh = History::default();
        fresh.failed(now, 0.0);
        fresh.limit(PAUSE_AFTER_START_MAX);
        assert_eq!(fresh.not_before(), now.plus(PAUSE_FIRST));
    }
}
