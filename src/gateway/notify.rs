//! What a service manager is told: systemd, or another that speaks its protocol. Without one (`NOTIFY_SOCKET` is not
//! set) none of it does anything.
//!
//! The watchdog is fed only while there is progress: this task runs on the runtime, and before each word it waits for
//! the writer of the store. A disk that hangs stops the feeding. A full one does not, as a restart would not mend it.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use super::Gateway;

/// How long the manager is asked to wait beyond its own limits, at a time.
const EXTENSION: Duration = Duration::from_secs(20);
/// How often it is asked: thrice before it would give up.
const EXTEND_EVERY: Duration = Duration::from_secs(5);

/// Everything listens, and the store is open.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("ready")]);
}

/// One line for whoever asks the manager what this process does.
pub(super) fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// It ends, and that was meant; it may take so long, whatever the manager's own limit is.
pub(super) fn stopping(text: &str, at_most: Duration) {
    tell(&[NotifyState::Stopping, NotifyState::Status(text), longer_by(at_most)]);
}

fn longer_by(time: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))
}

/// The configuration is loaded anew until what this returns is dropped, whether that succeeds or not.
pub fn reloading() -> Reloading {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("loads its configuration")]),
        Err(error) => tracing::warn!(%error, "failed to read the clock for the service manager"),
    }
    Reloading(())
}

/// See [`reloading`].
#[derive(Debug)]
#[must_use = "dropping it says that the reload is over"]
pub struct Reloading(());

impl Drop for Reloading {
    fn drop(&mut self) {
        ready();
    }
}

/// Does something that may take longer than the manager waits for a start, and says what.
pub(super) async fn while_starting<T>(what: &str, work: impl Future<Output = T>) -> T {
    status(what);
    let asking = async {
        let mut every = interval(EXTEND_EVERY);
        loop {
            every.tick().await;
            tell(&[longer_by(EXTENSION)]);
        }
    };
    tokio::select! {
        done = work => done,
        () = asking => unreachable!("it asks until it is dropped"),
    }
}

impl Gateway {
    /// Feeds the watchdog of the service manager, if there is one, for as long as it is polled: at half its time, and
    /// only while there is progress.
    pub fn watchdog(&self) -> impl Future<Output = ()> + Send + 'static {
        let store = self.parts.store.clone();
        async move {
            if let Some(limit) = sd_notify::watchdog_enabled() {
                feed(limit, || store.beat(), || tell(&[NotifyState::Watchdog])).await;
            }
        }
    }
}

/// `beat` resolves where there is progress.
async fn feed<B: Future<Output = ()>>(limit: Duration, beat: impl Fn() -> B, word: impl Fn()) {
    let mut every = interval((limit / 2).max(Duration::from_millis(1)));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        beat().await;
        word();
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "failed to tell the service manager");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::{Instant, sleep, sleep_until, timeout};

    use super::*;

    /// How often the watchdog is fed in a minute, if the store hangs from one second to another.
    async fn fed(limit_s: u64, hangs_s: std::ops::Range<u64>) -> Vec<u64> {
        let (begin, words) = (Instant::now(), Cell::new(Vec::new()));
        let beat = || async {
            if begin.elapsed() >= Duration::from_secs(hangs_s.start) {
                sleep_until(begin + Duration::from_secs(hangs_s.end)).await;
            }
        };
        let word = || {
            let mut said = words.take();
            said.push(begin.elapsed().as_secs());
            words.set(said);
        };
        let _ = timeout(Duration::from_secs(59), feed(Duration::from_secs(limit_s), beat, word)).await;
        words.take()
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_at_half_its_time_and_not_while_the_store_hangs() {
        assert_eq!(fed(30, 0..0).await, [0, 15, 30, 45]);
        assert_eq!(fed(30, 20..100).await, [0, 15]);
        assert_eq!(fed(30, 20..37).await, [0, 15, 37, 45]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_at_the_start_ends_as_it_does() {
        let work = async {
            sleep(Duration::from_secs(100)).await;
            7
        };
        assert_eq!(while_starting("works", work).await, 7);
    }
}
