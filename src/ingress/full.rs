//! A store that refuses for want of room says why: the answer tells nobody, and the code in the log says only that.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// As long as one reason goes on, it is said this often.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// When each reason was said. There is one for each upstream, for its share, and a few more.
#[derive(Debug, Default)]
pub(super) struct Said(Mutex<BTreeMap<String, Instant>>);

impl Said {
    /// Logs that a webhook was refused for this reason, unless that was said a moment ago.
    pub(super) fn refused(&self, source: &str, why: &str, now: Instant) {
        if self.is_news(why, now) {
            tracing::warn!(source, why, "webhooks are answered 503: nothing of them is stored");
        }
    }

    fn is_news(&self, why: &str, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match said.get(why) {
            Some(at) if now.saturating_duration_since(*at) < SAY_EVERY => false,
            _ => {
                said.insert(why.to_owned(), now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Clock;

    #[test]
    fn each_reason_is_said_once_a_minute() {
        let (said, now) = (Said::default(), Clock::system().monotonic());
        assert!(said.is_news("the share of a", now) && said.is_news("the share of b", now));
        assert!(!said.is_news("the share of a", now + SAY_EVERY / 2));
        assert!(said.is_news("the share of a", now + SAY_EVERY));
        assert!(!said.is_news("the share of a", now + SAY_EVERY * 3 / 2), "counted from the last time");
    }
}
