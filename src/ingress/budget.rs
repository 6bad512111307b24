//! The budget for bodies in flight, in bytes. A quarter is kept for small bodies, so that a few large uploads
//! cannot shut out ordinary webhooks.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

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

    /// Adds room for `bytes` to a share, or says that there is none.
    pub(super) async fn grow(&self, share: &mut Share, bytes: usize) -> Option<()> {
        let wanted = u32::try_from(bytes).ok()?;
        let merge = |held: &mut Option<OwnedSemaphorePermit>, more| match held {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        };
        if let Ok(more) = self.shared.clone().try_acquire_many_owned(wanted) {
            merge(&mut share.shared, more);
        } else {
            let may_be_small = share.bytes + bytes <= SMALL_MAX;
            let reserved = may_be_small.then(|| self.small.clone().try_acquire_many_owned(wanted).ok()).flatten();
            if let Some(more) = reserved {
                merge(&mut share.small, more);
            } else {
                let more = timeout(PATIENCE, self.shared.clone().acquire_many_owned(wanted)).await.ok()?.ok()?;
                merge(&mut share.shared, more);
            }
        }
        share.bytes += bytes;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn large_bodies_leave_a_quarter_to_small_ones_and_everything_comes_back() {
        let budget = Budget::new(400_000);
        let mut large = Share::default();
        budget.grow(&mut large, 300_000).await.expect("three quarters are free");
        let mut more = Share::default();
        assert!(budget.grow(&mut more, 70_000).await.is_none(), "not small, and the rest is kept for small ones");
        let mut small = Share::default();
        budget.grow(&mut small, 60_000).await.expect("small bodies have a quarter");
        assert!(budget.grow(&mut small, 10_000).await.is_none(), "it is not small any more");
        assert_eq!(budget.taken(), 360_000);
        drop((large, small, more));
        assert_eq!(budget.taken(), 0);
    }
}
