//! The only clock reader.
//!
//! Three kinds of time, kept apart by type:
//! * [`Wall`]: what the calendar says, in nanoseconds since 1970. It may jump. It is compared with signed
//!   timestamps and shown to people, and nothing else.
//! * [`tokio::time::Instant`]: monotonic, for deadlines inside one process.
//! * Elapsed time of a store, which outlives a process: the store keeps it, callers pass durations.

use std::{fmt, time::Duration};

use tokio::time::Instant;

/// A point on the wall clock: nanoseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Wall(i64);

impl Wall {
    /// From whole seconds since the epoch; saturates in the year 2262.
    pub const fn from_unix_s(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }
    /// From milliseconds since the epoch; saturates in the year 2262.
    pub const fn from_unix_ms(milliseconds: i64) -> Self {
        Self(milliseconds.saturating_mul(1_000_000))
    }
    /// From nanoseconds since the epoch, as [`Wall::unix_ns`] gives them.
    pub const fn from_unix_ns(nanoseconds: i64) -> Self {
        Self(nanoseconds)
    }
    /// Nanoseconds since the epoch.
    pub const fn unix_ns(self) -> i64 {
        self.0
    }
    /// Whole milliseconds since the epoch, rounded down.
    pub const fn unix_ms(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
    /// Whole seconds since the epoch, rounded down.
    pub const fn unix_s(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }
    /// This point moved later; saturates.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }
    /// RFC 3339 in UTC with milliseconds: `2026-11-21T08:00:00.000Z`.
    pub fn rfc3339(self) -> String {
        let at = jiff::Timestamp::from_millisecond(self.unix_ms()).unwrap_or(jiff::Timestamp::MAX);
        format!("{at:.3}")
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// Reads both clocks. Cheap to clone. In tests the wall clock follows tokio's (pausable) one.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Virtual { epoch: Wall, began: Instant },
}

impl Clock {
    /// The clocks of the operating system.
    pub const fn system() -> Self {
        Self(Source::System)
    }
    /// A wall clock that shows `epoch` now and then advances exactly with `tokio::time`, paused or not.
    pub fn starting_at(epoch: Wall) -> Self {
        Self(Source::Virtual { epoch, began: Instant::now() })
    }
    /// What the calendar says.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    pub fn wall(&self) -> Wall {
        match &self.0 {
            Source::System => {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                Wall(since.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
            }
            Source::Virtual { epoch, began } => epoch.plus(began.elapsed()),
        }
    }
    /// Monotonic time, for deadlines.
    pub fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_time_is_written_as_rfc3339_in_utc() {
        assert_eq!(Wall::from_unix_ms(1_700_000_000_250).rfc3339(), "2023-11-14T22:13:20.250Z");
        assert_eq!(Wall::from_unix_s(-1).unix_ms(), -1000);
        assert_eq!(Wall::from_unix_s(i64::MAX).plus(Duration::from_secs(9)).unix_ns(), i64::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_virtual_clock_follows_tokio() {
        let clock = Clock::starting_at(Wall::from_unix_s(1_700_000_000));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.wall().unix_s(), 1_700_000_005);
    }
}
