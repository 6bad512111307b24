//! One notification per upstream.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::event::Name;

/// Wakes the lane of an upstream. A wake-up that nobody waits for is kept as a permit, so that none is lost between
/// a lane's look at the store and its wait. Entries are made for configured names only, so they are bounded.
#[derive(Debug, Default)]
pub(super) struct Wakers(Mutex<HashMap<Name, Arc<Notify>>>);

impl Wakers {
    pub(super) fn wake(&self, upstream: &str) {
        self.of(upstream).notify_one();
    }

    pub(super) fn woken(&self, upstream: &str) -> BoxFuture<'static, ()> {
        let notify = self.of(upstream);
        Box::pin(async move { notify.notified().await })
    }

    fn of(&self, upstream: &str) -> Arc<Notify> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = all.get(upstream) {
            return Arc::clone(notify);
        }
        let notify = Arc::new(Notify::new());
        all.insert(upstream.into(), Arc::clone(&notify));
        notify
    }
}
