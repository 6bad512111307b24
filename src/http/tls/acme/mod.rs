//! Certificates that are asked for and renewed (RFC 8555), each name proven by TLS-ALPN-01 (RFC 8737): the authority
//! connects to the listener itself, so that no other port has to be open.
//!
//! Whatever goes wrong, what was kept is served on. Nothing is asked for while the kept certificate is good for long
//! enough, and a failure is followed by growing pauses, which a restart does not forget: authorities count orders.

mod cache;
mod order;
mod plan;
mod transport;

use std::{sync::Arc, time::Duration};

use self::cache::Cache;
use super::Front;
use crate::{config::certificate::Certificate, config::model::Acme, document::format_duration};

/// One order, from its first request to the certificate.
const ORDER_TIMEOUT: Duration = Duration::from_mins(5);
/// The wall clock may be set, and machines sleep: it is looked at again at least so often.
const SLEEP_MAX: Duration = Duration::from_mins(10);

/// The certificate that was kept, if it is for these names.
pub(super) fn kept(acme: &Acme) -> Option<Certificate> {
    Cache::of(acme).certificate(&acme.domains)
}

/// Keeps the certificate in time. Never ends.
pub(super) async fn keep(front: Arc<Front>, acme: Acme) {
    let cache = Cache::of(&acme);
    let mut past = cache.history();
    // Those of an earlier process weigh less: whoever starts again may have put right what was wrong.
    past.limit(plan::PAUSE_AFTER_START_MAX);
    loop {
        let now = front.clock.wall();
        let due = front.asked().map_or(now, |kept| plan::renew_at(&kept));
        let at = due.max(past.not_before());
        if at > now {
            let wait = u64::try_from(at.unix_ms() - now.unix_ms()).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(wait).min(SLEEP_MAX)).await;
            continue;
        }
        tracing::info!(names = acme.domains.join(","), directory = %acme.directory, "asking for a certificate");
        let ordered = tokio::time::timeout(ORDER_TIMEOUT, order::order(&acme, &cache, &front.challenges, &front.clock));
        let ordered = ordered.await.unwrap_or_else(|_| Err("it took too long".to_owned()));
        front.challenges.clear();
        match ordered {
            Ok(certificate) => {
                past.succeeded(front.clock.wall(), &certificate);
                front.metrics.certificate_ordered("issued");
                tracing::info!(name = certificate.name(), until = %certificate.not_after, "certificate issued");
                front.take(certificate);
            }
            Err(why) => {
                let pause = past.failed(front.clock.wall(), rand::random());
                front.metrics.certificate_ordered("failed");
                let again_in = format_duration(Duration::from_secs(pause.as_secs()));
                if front.is_bare() {
                    tracing::error!(%why, %again_in, "failed to get a certificate: until there is one, no handshake succeeds");
                } else {
                    tracing::warn!(%why, %again_in, "failed to renew the certificate: the present one is served on");
                }
            }
        }
        cache.remember(&past);
    }
}
