//! When a failed delivery is tried again, and when it is given up: by age, never by the number of attempts.

use std::time::Duration;

use crate::time::Wall;

/// `retry = { first, factor, max, for }`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Retry {
    /// Delay before the second attempt.
    pub first: Duration,
    /// Growth from one delay to the next.
    pub factor: f64,
    /// Longest delay.
    pub max: Duration,
    /// Age at which it is given up.
    pub give_up_after: Duration,
}

/// What follows a failed attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Another attempt, after this long.
    After(Duration),
    /// None: it would fall beyond the age at which the delivery is given up.
    GiveUp,
}

impl Retry {
    /// The longest delay after the `failed`-th failed attempt, counted from 1.
    pub fn ceiling(&self, failed: u32) -> Duration {
        let exponent = i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.first.as_secs_f64() * self.factor.powi(exponent);
        // A power that overflows is infinite, and not less than the longest delay.
        Duration::try_from_secs_f64(seconds).map_or(self.max, |d| d.min(self.max))
    }

    /// The delay after the `failed`-th failed attempt: `jitter` in [0, 1) picks from the upper half of
    /// [0, ceiling], so that events that failed together do not come back together.
    pub fn delay(&self, failed: u32, jitter: f64) -> Duration {
        let half = self.ceiling(failed) / 2;
        half + half.mul_f64(jitter.clamp(0.0, 1.0))
    }

    /// What follows the `failed`-th failed attempt of a delivery that is `age` old. Both count from when it was armed,
    /// so that one which was redelivered starts its schedule over. An upstream's `Retry-After` makes the delay longer,
    /// up to `max`, and never shorter.
    pub fn next(&self, failed: u32, age: Duration, retry_after: Option<Duration>, jitter: f64) -> Next {
        let after = self.delay(failed, jitter).max(retry_after.unwrap_or_default().min(self.max));
        if age.saturating_add(after) > self.give_up_after { Next::GiveUp } else { Next::After(after) }
    }
}

/// The value of a `Retry-After` header: seconds, or a date that is compared with `now`.
pub fn parse_retry_after(value: &[u8], now: Wall) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::from_secs(u64::try_from(at.as_second() - now.unix_s()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RETRY: Retry = Retry {
        first: Duration::from_secs(1),
        factor: 2.0,
        max: Duration::from_mins(15),
        give_up_after: Duration::from_hours(72),
    };

    #[test]
    fn delays_double_up_to_the_longest() {
        let ceilings: Vec<u64> = (1..=12).map(|n| RETRY.ceiling(n).as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
        assert_eq!(RETRY.ceiling(u32::MAX), RETRY.max);
    }

    #[test]
    fn retry_after_makes_it_longer_but_not_longer_than_max_and_never_shorter() {
        let next =
            |failed, retry_after| RETRY.next(failed, Duration::ZERO, Some(Duration::from_secs(retry_after)), 0.0);
        assert_eq!(next(1, 120), Next::After(Duration::from_mins(2)));
        assert_eq!(next(1, 86_400), Next::After(RETRY.max));
        assert_eq!(next(7, 1), Next::After(Duration::from_secs(32)));
    }

    #[test]
    fn it_is_given_up_when_the_next_attempt_would_be_too_late() {
        let next = |age: Duration| RETRY.next(11, age, None, 0.0);
        let last = RETRY.give_up_after.saturating_sub(RETRY.max / 2);
        assert_eq!(next(last), Next::After(RETRY.max / 2));
        assert_eq!(next(last + Duration::from_nanos(1)), Next::GiveUp);
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now = Wall::from_unix_s(784_111_770);
        let parse = |text: &str| parse_retry_after(text.as_bytes(), now).map(|d| d.as_secs());
        assert_eq!(parse("120"), Some(120));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7));
        assert_eq!(parse("Sun, 06 Nov 1994 08:40:00 GMT"), Some(0));
        assert_eq!(parse("99999999999999999999999"), Some(u64::MAX));
        for wrong in ["", "-1", "1.5", "soon", "12 parsecs"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(parse_retry_after(b"\xff", now), None);
    }

    proptest! {
        #[test]
        fn a_delay_is_between_half_its_ceiling_and_the_ceiling(
            first_ms in 1u64..100_000, factor in 1.0f64..10.0, max_ms in 1u64..10_000_000,
            failed: u32, jitter in 0.0f64..1.0,
        ) {
            let (first, max) = (Duration::from_millis(first_ms), Duration::from_millis(max_ms));
            let retry = Retry { first, factor, max, give_up_after: Duration::MAX };
            let (delay, ceiling) = (retry.delay(failed, jitter), retry.ceiling(failed));
            prop_assert!(delay >= ceiling / 2 && delay <= ceiling && ceiling <= max);
        }

        #[test]
        fn no_attempt_is_made_beyond_the_age_of_giving_up(
            factor in 1.0f64..4.0, jitters in proptest::collection::vec(0.0f64..1.0, 1..40),
        ) {
            let retry = Retry { factor, ..RETRY };
            let mut age = Duration::ZERO;
            for (failed, jitter) in (1..).zip(jitters) {
                let Next::After(after) = retry.next(failed, age, None, jitter) else { break };
                prop_assert_eq!(after, retry.delay(failed, jitter));
                age += after;
                prop_assert!(age <= retry.give_up_after);
            }
        }
    }
}
