//! The end: finish what began, take nothing new.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Gateway, notify};
use crate::{config::model::Server, document::format_duration, store::StoreError};

/// What the end of the drain leaves for flights and deliveries that are being settled.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// What closing the admin listener and the store takes, with room to spare.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// How long a gateway of this configuration may take from the signal to its end.
pub(super) fn longest(server: &Server) -> Duration {
    server.drain_delay + server.drain_timeout + SETTLE_TIMEOUT + CLOSE_TIME
}

impl Gateway {
    /// Finishes what began and takes nothing new: not ready at once, listeners closed after `drain_delay`, what is
    /// left at `drain_timeout` gets 503. Listeners whose sockets stay open behind this process go on until attempts at
    /// upstreams are over, for half of `drain_timeout` at most. Returns whether everything was finished.
    pub async fn drain(self) -> bool {
        let config = self.live.running();
        let server = &config.server;
        tracing::info!(delay = ?server.drain_delay, timeout = ?server.drain_timeout, "draining");
        let delay = format_duration(server.drain_delay);
        let what = format!("draining: not ready any more, accepts webhooks for another {delay}");
        notify::stopping(&what, longest(server));
        self.parts.health.drain();
        tokio::time::sleep(server.drain_delay).await;
        let until = Instant::now() + server.drain_timeout;
        if self.is_handed_over {
            // Whoever connects from the closing of the listeners on waits for the next process, and that one for the
            // store. An upstream that takes its time must not make that long: its attempts end first, while webhooks
            // are still accepted, to be delivered by the next process.
            notify::status("draining: ends attempts, still accepts webhooks");
            let resting = self.parts.lanes.rest(server.drain_timeout / 2);
            tracing::info!("attempts end, webhooks are still accepted");
            resting.await;
        }
        self.closing.cancel();
        self.parts.health.set_listening(false);
        tracing::info!("listeners close");
        let rest = format_duration(server.drain_timeout + SETTLE_TIMEOUT);
        notify::status(&format!("draining: finishes what began, for {rest} at most"));
        // The same end for all: an attempt that could still be finished is not cut, and made again after the next
        // start, because the requests were done early.
        let end = until + SETTLE_TIMEOUT;
        self.connections.close();
        let mut whole = timeout_at(end, self.parts.operations.drain()).await.is_ok();
        if timeout_at(until, self.connections.wait()).await.is_err() {
            self.parts.gate.refuse_waiting();
            whole &= timeout_at(end, self.connections.wait()).await.is_ok();
        }
        whole &= timeout_at(end, self.parts.gate.drain()).await.is_ok();
        whole &= self.parts.lanes.drain(end.saturating_duration_since(Instant::now())).await;
        self.ending.cancel();
        self.live.ended().await;
        for task in self.tasks {
            let _ = task.await;
        }
        notify::status("closes the store");
        self.parts.store.close().await;
        // Its last sync may fail like any other.
        whole &= !matches!(self.parts.store.health(), Err(StoreError::Poisoned(_)));
        tracing::info!(whole, "stopped");
        whole
    }
}
