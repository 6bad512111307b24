//! Attempts per second at one upstream (`rate`), shared by its lane and by `respond` and `proxy`.
//!
//! Who waits for a token in person (`proxy`) comes before the backlog: the lane leaves a token for each of them. They
//! wait one after another, so that one that leaves early has taken nothing.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    policy::{Bucket, Rate},
    time::Clock,
};

#[derive(Debug)]
pub(super) struct Throttle {
    /// None: as many as there is room for.
    bucket: Option<Mutex<Bucket>>,
    /// Whose turn it is to wait for the next token; the lock is handed on in the order of arrival.
    turn: tokio::sync::Mutex<()>,
    /// How many wait in person.
    waiting: AtomicU32,
}

impl Throttle {
    pub(super) fn new(rate: Option<Rate>, now: Instant) -> Self {
        let bucket = rate.map(|rate| Mutex::new(Bucket::new(rate, now)));
        Self { bucket, turn: tokio::sync::Mutex::default(), waiting: AtomicU32::new(0) }
    }

    /// How many attempts of the backlog may begin now, or in how long to look again.
    pub(super) fn room(&self, now: Instant) -> Result<usize, Duration> {
        let Some(mut bucket) = self.bucket() else { return Ok(usize::MAX) };
        let waiting = self.waiting.load(Ordering::Relaxed);
        match bucket.whole(now).saturating_sub(waiting) {
            0 => Err(bucket.until(waiting.saturating_add(1), now)),
            room => Ok(room as usize),
        }
    }

    /// Takes a token, if there is one that nobody waits for.
    pub(super) fn try_take(&self, now: Instant) -> bool {
        let Some(mut bucket) = self.bucket() else { return true };
        bucket.whole(now) > self.waiting.load(Ordering::Relaxed) && bucket.take(now).is_ok()
    }

    /// Takes a token as soon as it is this caller's turn and there is one. Cancel safe.
    pub(super) async fn take(&self, clock: &Clock) {
        if self.bucket.is_none() {
            return;
        }
        let _waiting = Waiting::new(&self.waiting);
        let _turn = self.turn.lock().await;
        loop {
            let taken = self.bucket().map_or(Ok(()), |mut bucket| bucket.take(clock.monotonic()));
            let Err(wait) = taken else { return };
            tokio::time::sleep(wait).await;
        }
    }

    /// Gives a token back that was taken for an attempt which was not made.
    pub(super) fn put_back(&self) {
        if let Some(mut bucket) = self.bucket() {
            bucket.put_back();
        }
    }

    fn bucket(&self) -> Option<MutexGuard<'_, Bucket>> {
        // The bucket's methods leave it whole at every step.
        self.bucket.as_ref().map(|bucket| bucket.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One that waits in person, for as long as this lives.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicU32) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    const SECOND: Duration = Duration::from_secs(1);

    fn throttle() -> (Throttle, Clock) {
        let rate = Rate { per_second: 1.0, burst: 2 };
        (Throttle::new(Some(rate), Instant::now()), Clock::starting_at(Wall::from_unix_s(0)))
    }

    #[tokio::test(start_paused = true)]
    async fn the_backlog_leaves_a_token_for_each_that_waits_in_person() {
        let (throttle, clock) = throttle();
        assert_eq!(throttle.room(clock.monotonic()), Ok(2));
        throttle.take(&clock).await;
        throttle.take(&clock).await;
        let (first, second) = (throttle.take(&clock), throttle.take(&clock));
        tokio::pin!(first, second);
        assert!(futures_util::poll!(&mut first).is_pending() && futures_util::poll!(&mut second).is_pending());
        // Three tokens are wanted, and the bucket never holds more than two.
        assert_eq!(throttle.room(clock.monotonic()), Err(2 * SECOND));
        tokio::time::advance(SECOND).await;
        assert!(!throttle.try_take(clock.monotonic()), "it is the first one's");
        first.await;
        second.await;
        assert_eq!(throttle.room(clock.monotonic()), Err(SECOND));
        tokio::time::advance(SECOND).await;
        assert_eq!(throttle.room(clock.monotonic()), Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_leaves_takes_nothing_and_holds_up_nobody() {
        let (throttle, clock) = throttle();
        throttle.take(&clock).await;
        throttle.take(&clock).await;
        assert!(tokio::time::timeout(SECOND / 2, throttle.take(&clock)).await.is_err());
        assert_eq!(throttle.room(clock.monotonic()), Err(SECOND / 2));
        tokio::time::advance(SECOND / 2).await;
        assert!(throttle.try_take(clock.monotonic()));
        throttle.put_back();
        assert!(throttle.try_take(clock.monotonic()), "what was given back is there for the next");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_is_counted() {
        let throttle = Throttle::new(None, Instant::now());
        throttle.take(&Clock::starting_at(Wall::from_unix_s(0))).await;
        assert_eq!(throttle.room(Instant::now()), Ok(usize::MAX));
        assert!((0..1000).all(|_| throttle.try_take(Instant::now())));
    }
}
