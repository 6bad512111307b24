//! The accept loop: every connection of one listener, within the limits that all listeners share.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use super::{connected::Connected, connection, per_client::PerClient, socket::Socket};

/// What a listener allows.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Connections at a time; more are closed at once.
    pub connections_max: usize,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// A connection without a request.
    pub idle_timeout: Duration,
}

/// Connections that every client address may have at a time.
const CONNECTIONS_PER_CLIENT_MIN: u64 = 16;

/// Serves a listener until `drain` is cancelled, then accepts what waits, closes it, and ends each connection after its
/// present request. `count` is told the number of open connections whenever it changes, and `None` when one was refused.
pub async fn serve<S>(
    socket: Socket,
    service: S,
    limits: ConnectionLimits,
    drain: CancellationToken,
    connections: TaskTracker,
    count: impl Fn(Option<usize>) + Clone + Send + Sync + 'static,
) where
    S: Service<(Arc<Connected>, Request<Incoming>), Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let open = Arc::new(AtomicUsize::new(0));
    // A quarter for each client address, so that it takes several to shut others out.
    let per_client = PerClient::new((limits.connections_max as u64 / 4).max(CONNECTIONS_PER_CLIENT_MIN));
    loop {
        let accepted = tokio::select! {
            () = drain.cancelled() => match socket.accept_waiting() {
                Some(waiting) => Ok(waiting),
                None => return,
            },
            accepted = socket.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // Out of file descriptors, or the client left while it waited: the loop never ends for it. A short
            // pause, so that a lasting cause does not spin.
            Err(error) => {
                tracing::debug!(%error, "failed to accept a connection");
                tokio::select! {
                    () = drain.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(50)) => continue,
                }
            }
        };
        let mut share = per_client.share(peer);
        if open.load(Relaxed) >= limits.connections_max || !share.grow(1) {
            count(None);
            continue; // dropped: closed
        }
        count(Some(open.fetch_add(1, Relaxed) + 1));
        let place = Place { open: open.clone(), count: count.clone() };
        let connected = Connected { address: peer, is_unix: peer.is_none(), tls: None };
        let connection = connection::serve(stream, connected, service.clone(), limits.clone(), drain.clone());
        connections.spawn(async move {
            connection.await;
            drop((place, share));
        });
    }
}

/// A place among the open connections, given back when dropped.
struct Place<C: Fn(Option<usize>)> {
    open: Arc<AtomicUsize>,
    count: C,
}

impl<C: Fn(Option<usize>)> Drop for Place<C> {
    fn drop(&mut self) {
        (self.count)(Some(self.open.fetch_sub(1, Relaxed) - 1));
    }
}
