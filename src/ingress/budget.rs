//! The budget for bodies in flight, in bytes. A quarter is kept for small bodies, so that a few large uploads
//! cannot shut out ordinary webhooks. When there is no room, those who are not verified and hardly get on make some;
//! after that it is 503.
//!
//! What verified counts against its source as well: of the bytes and of the places in flight no source has more than
//! half, so that one that sends too much is told to come again later, and the others do not notice. With one source
//! there is nobody to protect. A source's own `in_flight_max` takes the place of the half.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::crowd::Seat;
use crate::event::Body;

/// Bodies up to this size may take from the reserved quarter. In bytes.
const SMALL_MAX: usize = 64 << 10;
/// How long a body waits for room before its webhook is refused.
const PATIENCE: Duration = Duration::from_millis(250);

/// The byte budget.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Semaphore>,
    small: Arc<Semaphore>,
    total: u64,
}

/// Paid-for bytes: given back when dropped.
#[derive(Debug, Default)]
pub(super) struct Share {
    shared: Option<OwnedSemaphorePermit>,
    small: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(total: u64) -> Self {
        let total = total.min(u64::from(u32::MAX));
        let small = usize::try_from(total / 4).unwrap_or(0);
        let shared = usize::try_from(total).unwrap_or(0) - small;
        Self { shared: Arc::new(Semaphore::new(shared)), small: Arc::new(Semaphore::new(small)), total }
    }

    /// Bytes now paid for.
    pub fn taken(&self) -> u64 {
        self.total - (self.shared.available_permits() + self.small.available_permits()) as u64
    }

    /// Adds room for `bytes` to a share, or says that there is none. `seat` is whose upload it is.
    pub(super) async fn grow(&self, share: &mut Share, bytes: usize, seat: Option<&Seat>, now: Instant) -> Option<()> {
        let wanted = u32::try_from(bytes).ok()?;
        let merge = |held: &mut Option<OwnedSemaphorePermit>, more| match held {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        };
        let mut shared = self.shared.clone().try_acquire_many_owned(wanted).ok();
        if shared.is_none() {
            let may_be_small = share.bytes + bytes <= SMALL_MAX;
            let reserved = may_be_small.then(|| self.small.clone().try_acquire_many_owned(wanted).ok()).flatten();
            if let Some(more) = reserved {
                merge(&mut share.small, more);
            } else {
                if let Some(seat) = seat {
                    seat.make_room(u64::from(wanted), now);
                }
                let more = timeout(PATIENCE, self.shared.clone().acquire_many_owned(wanted)).await;
                shared = Some(more.ok()?.ok()?);
            }
        }
        if let Some(more) = shared {
            merge(&mut share.shared, more);
            // What was kept for small bodies is of no use to a large one, so only this makes it worth ending.
            if let Some(seat) = seat {
                seat.upload().holds(bytes);
            }
        }
        share.bytes += bytes;
        Some(())
    }
}

/// What one source may have of the budget, and has.
#[derive(Debug)]
pub(super) struct Allowance {
    max: u64,
    taken: AtomicU64,
}

/// Bytes of a source's allowance: given back when dropped.
#[derive(Debug)]
struct Allowed {
    of: Arc<Allowance>,
    bytes: u64,
}

impl Allowance {
    pub(super) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { max, taken: AtomicU64::new(0) })
    }

    /// How many bytes there are for it.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// The body with its bytes counted here for as long as anybody holds it; `None` if the source has too many. A source
    /// that has nothing else may have any body: its size has a limit of its own.
    pub(super) fn charge(self: &Arc<Self>, body: &Body) -> Option<Body> {
        let bytes = body.len() as u64;
        let fits = |taken: u64| {
            let sum = taken.saturating_add(bytes);
            (taken == 0 || sum <= self.max).then_some(sum)
        };
        self.taken.fetch_update(Relaxed, Relaxed, fits).ok()?;
        let allowed = Allowed { of: self.clone(), bytes };
        Some(Body::paid(body.bytes().clone(), Arc::new((body.clone(), allowed))))
    }
}

impl Drop for Allowed {
    fn drop(&mut self) {
        self.of.taken.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn grow(budget: &Budget, share: &mut Share, bytes: usize) -> Option<()> {
        budget.grow(share, bytes, None, Instant::now()).await
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_leave_a_quarter_to_small_ones_and_everything_comes_back() {
        let budget = Budget::new(400_000);
        let mut large = Share::default();
        grow(&budget, &mut large, 300_000).await.expect("three quarters are free");
        let mut more = Share::default();
        assert!(grow(&budget, &mut more, 70_000).await.is_none(), "not small, and the rest is kept for small ones");
        let mut small = Share::default();
        grow(&budget, &mut small, 60_000).await.expect("small bodies have a quarter");
        assert!(grow(&budget, &mut small, 10_000).await.is_none(), "it is not small any more");
        assert_eq!(budget.taken(), 360_000);
        drop((large, small, more));
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn a_source_has_its_part_until_the_last_holder_lets_go() {
        let allowance = Allowance::new(10);
        let body = |bytes: usize| Body::free(vec![0; bytes]);
        let first = allowance.charge(&body(6)).expect("room");
        let copy = first.clone();
        assert!(allowance.charge(&body(5)).is_none() && allowance.charge(&body(4)).is_some());
        drop(first);
        assert!(allowance.charge(&body(5)).is_none(), "a copy is still there");
        drop(copy);
        let large = allowance.charge(&body(11)).expect("the only one");
        assert!(allowance.charge(&body(1)).is_none());
        drop(large);
        assert_eq!(allowance.taken.load(Relaxed), 0);
    }
}
