//! What is refused for a reason that lasts says why: the answer tells nobody, and the code in the log says only that.

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

    /// Logs that a secret of a handshake was refused for this reason, unless that was said a moment ago.
    pub(super) fn not_kept(&self, source: &str, why: &str, now: Instant) {
        if self.is_news(&format!("secret {source}: {why}"), now) {
            tracing::warn!(source, why, "a secret was handed over and is answered 503: it was not kept");
        }
    }

    /// Logs that a source has no secret yet, unless that was said a moment ago.
    pub(super) fn awaits_secret(&self, source: &str, now: Instant) {
        if self.is_news(&format!("no secret {source}"), now) {
            tracing::warn!(
                source,
                "webhooks are answered 503: this source has no secret yet; register the endpoint at the provider, then \
                 add secrets = [{{ file = … }}] with the file that `hookward status` names"
            );
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
