//! A token bucket.

use std::time::Duration;

use tokio::time::Instant;

/// Its size and refill.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rate {
    /// Refill.
    pub per_second: f64,
    /// Size.
    pub burst: u32,
}

/// The wait for a token that never comes.
const NEVER: Duration = Duration::from_hours(24 * 36_500);

/// Full at first; one token is taken at a time.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: f64::from(rate.burst), filled_at: now }
    }

    /// Takes a token, or says in how long there will be one (a century if never).
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.fill(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(self.missing(1.0))
    }

    /// How many tokens are there.
    pub fn whole(&mut self, now: Instant) -> u32 {
        self.fill(now);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the burst")]
        let whole = self.tokens as u32;
        whole
    }

    /// In how long that many tokens are there, or as many as the bucket holds (a century if never).
    pub fn until(&mut self, count: u32, now: Instant) -> Duration {
        self.fill(now);
        let wanted = f64::from(count.min(self.rate.burst.max(1)));
        if self.tokens >= wanted { Duration::ZERO } else { self.missing(wanted) }
    }

    /// Gives a token back that was not used.
    pub fn put_back(&mut self) {
        self.tokens = (self.tokens + 1.0).min(f64::from(self.rate.burst));
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + since * self.rate.per_second).min(f64::from(self.rate.burst));
        self.filled_at = self.filled_at.max(now);
    }

    fn missing(&self, wanted: f64) -> Duration {
        let missing_s = (wanted - self.tokens) / self.rate.per_second;
        Duration::try_from_secs_f64(missing_s).map_or(NEVER, |d| d.clamp(Duration::from_millis(1), NEVER))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn a_burst_passes_and_then_the_refill_decides() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 2.0, burst: 3 }, now);
        assert_eq!([bucket.take(now), bucket.take(now), bucket.take(now)], [Ok(()); 3]);
        assert_eq!(bucket.take(now), Err(Duration::from_millis(500)));
        let later = now + Duration::from_millis(500);
        assert_eq!(bucket.take(later), Ok(()));
        assert!(bucket.take(later).is_err());
        assert!(bucket.take(now).is_err(), "a clock that steps back gives nothing away");
    }

    #[tokio::test]
    async fn a_bucket_that_never_refills_says_so_in_a_finite_time() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 0.0, burst: 0 }, now);
        assert!(bucket.take(now).is_err_and(|wait| wait > Duration::from_hours(24 * 365)));
    }

    #[tokio::test]
    async fn what_is_given_back_is_there_again_and_never_more_than_it_holds() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 2.0, burst: 3 }, now);
        bucket.put_back();
        assert_eq!(bucket.whole(now), 3);
        let _ = bucket.take(now);
        assert_eq!((bucket.whole(now), bucket.until(3, now)), (2, Duration::from_millis(500)));
        assert_eq!(bucket.until(9, now), Duration::from_millis(500), "it never holds nine");
        bucket.put_back();
        assert_eq!((bucket.whole(now), bucket.until(3, now)), (3, Duration::ZERO));
    }

    proptest! {
        #[test]
        fn never_more_passes_than_the_burst_and_the_refill_and_waiting_as_told_helps(
            per_second in 0.1f64..1000.0, burst in 1u32..100,
            gaps_ms in proptest::collection::vec(0u64..2000, 1..200),
        ) {
            let began = Instant::now();
            let mut bucket = Bucket::new(Rate { per_second, burst }, began);
            let (mut now, mut passed) = (began, 0u32);
            for gap_ms in gaps_ms {
                now += Duration::from_millis(gap_ms);
                match bucket.take(now) {
                    Ok(()) => passed += 1,
                    // A nanosecond more, for what rounding may have taken.
                    Err(wait) => prop_assert_eq!(bucket.clone().take(now + wait + Duration::from_micros(1)), Ok(())),
                }
                let allowed = f64::from(burst) + (now - began).as_secs_f64() * per_second;
                prop_assert!(f64::from(passed) <= allowed + 1e-6);
            }
        }
    }
}
