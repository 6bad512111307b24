//! Notices when the wall clock jumps.
//!
//! The distance between the wall clock and the monotonic one is constant but for slewing. If it changes by more
//! than half the smallest tolerance of any source, genuine webhooks may look stale (or stale ones fresh), and
//! nobody here can tell whether the clock was right before the jump or is right after it: a correction by NTP
//! and a resumed virtual machine look like a broken clock. So the jump counts as a problem until the wall clock
//! comes back to where it was, or has stayed where it went for [`BELIEVED_AFTER`]: long enough for senders to
//! be told to try again and for a probe to move them elsewhere, short enough that a correction heals by itself.

use std::time::Duration;

use tokio::time::Instant;

use crate::{document::format_duration, time::Wall};

/// How long the wall clock must run steadily after a jump until it is believed.
pub const BELIEVED_AFTER: Duration = Duration::from_mins(1);

/// Timestamps are mostly whole seconds, and the two clocks are read one after the other: a smaller distance is no
/// jump, whatever the tolerance (that into the future may well be zero).
const JUMP_MIN: Duration = Duration::from_secs(1);

/// Slewing moves the wall clock by at most 500 ppm; twice that is followed without a word.
const SLEW_PER: i128 = 1000;

/// Compares the wall clock with the monotonic one. A value: time comes in by [`ClockWatch::tick`].
#[derive(Debug)]
pub struct ClockWatch {
    /// Half the smallest tolerance in nanoseconds, at least [`JUMP_MIN`]; `None`: no source signs a time, so no jump matters.
    limit_ns: Option<i128>,
    began: Instant,
    seen_at: Instant,
    /// Wall clock less monotonic clock, as believed.
    believed_ns: i128,
    /// Where a jump led, and since when the wall clock has stayed there.
    jumped: Option<(i128, Instant)>,
}

impl ClockWatch {
    /// Believes the clock as it is now.
    pub fn new(smallest_tolerance: Option<Duration>, wall: Wall, now: Instant) -> Self {
        let mut watch =
            Self { limit_ns: None, began: now, seen_at: now, believed_ns: wall.unix_ns().into(), jumped: None };
        watch.set_smallest_tolerance(smallest_tolerance);
        watch
    }
    /// The smallest tolerance of any source, past or future; `None` where no source signs a time.
    pub fn set_smallest_tolerance(&mut self, smallest: Option<Duration>) {
        self.limit_ns = smallest.map(|tolerance| to_ns((tolerance / 2).max(JUMP_MIN)));
    }
    /// Looks at both clocks. The error says how far the wall clock jumped.
    pub fn tick(&mut self, wall: Wall, now: Instant) -> Result<(), String> {
        let offset_ns = i128::from(wall.unix_ns()) - to_ns(now.duration_since(self.began));
        let slew_ns = to_ns(now.duration_since(self.seen_at)) / SLEW_PER;
        self.seen_at = now;

        let off_ns = offset_ns - self.believed_ns;
        let Some(limit_ns) = self.limit_ns.filter(|limit_ns| off_ns.abs() > *limit_ns) else {
            self.jumped = None;
            self.believed_ns += off_ns.clamp(-slew_ns, slew_ns);
            return Ok(());
        };
        match self.jumped {
            Some((there_ns, since)) if (offset_ns - there_ns).abs() <= limit_ns => {
                if now.duration_since(since) >= BELIEVED_AFTER {
                    self.believed_ns = offset_ns;
                    self.jumped = None;
                    return Ok(());
                }
            }
            _ => self.jumped = Some((offset_ns, now)),
        }
        let far = Duration::from_millis(u64::try_from(off_ns.unsigned_abs() / 1_000_000).unwrap_or(u64::MAX));
        let direction = if off_ns > 0 { "forward" } else { "back" };
        Err(format!(
            "the wall clock jumped {direction} by {}; stale webhooks get 503 until it is back or has run steadily for {}",
            format_duration(far),
            format_duration(BELIEVED_AFTER)
        ))
    }
}

fn to_ns(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH_S: i64 = 1_700_000_000;

    struct Trial {
        watch: ClockWatch,
        wall: Wall,
    }

    impl Trial {
        fn new(tolerance: Option<Duration>) -> Self {
            let wall = Wall::from_unix_s(EPOCH_S);
            Self { watch: ClockWatch::new(tolerance, wall, Instant::now()), wall }
        }
        /// Both clocks run on for this long.
        async fn run_s(&mut self, seconds: u64) {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            self.jump_ms(i64::try_from(seconds).expect("small") * 1000);
        }
        fn jump_ms(&mut self, by: i64) {
            self.wall = Wall::from_unix_ms(self.wall.unix_ms() + by);
        }
        fn sane(&mut self) -> bool {
            self.watch.tick(self.wall, Instant::now()).is_ok()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_the_tolerance_is_allowed_and_a_millisecond_more_is_a_jump() {
        for sign in [1, -1] {
            let mut trial = Trial::new(Some(Duration::from_mins(5)));
            trial.jump_ms(sign * 150_000);
            assert!(trial.sane());
            let mut trial = Trial::new(Some(Duration::from_mins(5)));
            trial.jump_ms(sign * 150_001);
            assert!(!trial.sane());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn below_a_second_nothing_is_a_jump_even_without_any_tolerance() {
        let mut trial = Trial::new(Some(Duration::ZERO));
        trial.jump_ms(900);
        assert!(trial.sane());
        trial.jump_ms(200);
        assert!(!trial.sane());
    }

    #[tokio::test(start_paused = true)]
    async fn small_steps_add_up() {
        let mut trial = Trial::new(Some(Duration::from_mins(5)));
        for _ in 0..2 {
            trial.jump_ms(70_000);
            trial.run_s(1).await;
            assert!(trial.sane());
        }
        trial.jump_ms(70_000);
        assert!(!trial.sane());
    }

    #[tokio::test(start_paused = true)]
    async fn the_way_back_clears_at_once() {
        let mut trial = Trial::new(Some(Duration::from_mins(5)));
        trial.jump_ms(-3_600_000);
        assert!(!trial.sane());
        trial.run_s(5).await;
        trial.jump_ms(3_600_000);
        assert!(trial.sane());
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_minute_is_believed_and_a_second_jump_starts_it_anew() {
        let mut trial = Trial::new(Some(Duration::from_mins(5)));
        trial.jump_ms(3_600_000);
        assert!(!trial.sane());
        trial.run_s(59).await;
        assert!(!trial.sane());
        trial.jump_ms(3_600_000);
        assert!(!trial.sane());
        trial.run_s(59).await;
        assert!(!trial.sane(), "the second jump started the minute anew");
        trial.run_s(1).await;
        assert!(trial.sane());
        trial.run_s(1).await;
        assert!(trial.sane(), "the new place is believed from then on");
        trial.jump_ms(-7_200_000);
        assert!(!trial.sane(), "and the old one is a jump");
    }

    #[tokio::test(start_paused = true)]
    async fn slewing_is_followed_for_ever() {
        let mut trial = Trial::new(Some(Duration::from_secs(2)));
        for _ in 0..20_000 {
            trial.run_s(10).await;
            trial.jump_ms(5);
            assert!(trial.sane());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_signed_times_no_jump_matters() {
        let mut trial = Trial::new(None);
        trial.jump_ms(86_400_000);
        assert!(trial.sane());
    }

    #[tokio::test(start_paused = true)]
    async fn the_problem_says_where_the_clock_went() {
        let mut trial = Trial::new(Some(Duration::from_mins(5)));
        trial.jump_ms(-3_600_000);
        let problem = trial.watch.tick(trial.wall, Instant::now()).expect_err("a jump");
        assert!(problem.contains("back by 1h"), "{problem}");
    }
}
