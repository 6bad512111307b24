//! The clock of a store: elapsed milliseconds, kept across restarts.
//!
//! While the store is open the clock follows monotonic time only, so that a jump of the wall clock expires nothing
//! early. Between two openings only the wall clock can tell how long the store was closed; if it went backwards,
//! no time has passed.

use std::time::Duration;

use tokio::time::Instant;

use crate::time::Clock;

/// Both readings at one moment: what time-dependent operations decide by, and what is saved for the next opening.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Stamp {
    /// Elapsed time of the store.
    pub elapsed_ms: i64,
    /// The wall clock, for the next opening only.
    pub wall_ms: i64,
}

/// Reads elapsed time.
#[derive(Clone, Debug)]
pub(super) struct Elapsed {
    clock: Clock,
    base_ms: i64,
    began: Instant,
}

impl Elapsed {
    /// Continues from what was saved last; a new store begins at zero.
    pub(super) fn resume(clock: Clock, saved: Option<Stamp>) -> Self {
        let base_ms = saved.map_or(0, |saved| {
            let closed_ms = clock.wall().unix_ms().saturating_sub(saved.wall_ms).max(0);
            saved.elapsed_ms.saturating_add(closed_ms)
        });
        let began = clock.monotonic();
        Self { clock, base_ms, began }
    }

    pub(super) fn now_ms(&self) -> i64 {
        let open = self.clock.monotonic().saturating_duration_since(self.began);
        self.base_ms.saturating_add(i64::try_from(open.as_millis()).unwrap_or(i64::MAX))
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp { elapsed_ms: self.now_ms(), wall_ms: self.clock.wall().unix_ms() }
    }
}

/// A moment that does not come; [`after`] never gives it.
pub(super) const NEVER: i64 = i64::MAX;

/// `now` and this long, in whole milliseconds, rounded up: nothing is ever early.
pub(super) fn after(now_ms: i64, duration: Duration) -> i64 {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    now_ms.saturating_add(i64::try_from(ms).unwrap_or(NEVER)).min(NEVER - 1)
}

/// From `earlier` to `later`; zero if it is the other way round.
pub(super) fn between(earlier_ms: i64, later_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(later_ms.saturating_sub(earlier_ms)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    fn clock(wall_s: i64) -> Clock {
        Clock::starting_at(Wall::from_unix_s(wall_s))
    }

    #[tokio::test(start_paused = true)]
    async fn it_counts_while_open_and_while_closed_and_never_goes_back() {
        let first = Elapsed::resume(clock(1000), None);
        assert_eq!(first.now_ms(), 0);
        tokio::time::advance(Duration::from_secs(10)).await;
        let saved = first.stamp();
        assert_eq!(saved, Stamp { elapsed_ms: 10_000, wall_ms: 1_010_000 });

        let an_hour_later = Elapsed::resume(clock(1010 + 3600), Some(saved));
        assert_eq!(an_hour_later.now_ms(), 3_610_000);
        let wall_went_back = Elapsed::resume(clock(5), Some(saved));
        assert_eq!(wall_went_back.now_ms(), 10_000);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(wall_went_back.now_ms(), 11_000);
    }

    #[test]
    fn a_moment_is_rounded_so_that_nothing_is_early() {
        assert_eq!(after(5, Duration::from_micros(1)), 6);
        assert_eq!(after(5, Duration::from_millis(3)), 8);
        assert_eq!(after(5, Duration::MAX), NEVER - 1);
        assert_eq!(between(9, 4), Duration::ZERO);
    }
}
