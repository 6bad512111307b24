//! The accept loop: every connection of one listener, within the limits that all listeners share.

use std::{
    convert::Infallible,
    fmt,
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

/// What all listeners together allow.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Connections at a time; more are closed at once.
    pub connections_max: usize,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// A connection without a request.
    pub idle_timeout: Duration,
}

/// What one listener does before HTTP begins.
#[derive(Clone, Default)]
pub struct Entrance {
    /// With TLS: the configuration of the moment.
    pub tls: Option<TlsConfig>,
    /// Whether each connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Whether a plaintext connection may speak HTTP/2 from its first byte.
    pub h2c: bool,
}

/// Asked with each connection, so that certificates change while connections last.
pub type TlsConfig = Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>;

impl fmt::Debug for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls, proxy_protocol, h2c } = self;
        write!(f, "Entrance {{ tls: {}, proxy_protocol: {proxy_protocol}, h2c: {h2c} }}", tls.is_some())
    }
}

/// Connections that every client address may have at a time.
const CONNECTIONS_PER_CLIENT_MIN: u64 = 16;

/// The connections of all listeners, and what they share.
pub struct Connections {
    pub(super) limits: ConnectionLimits,
    open: AtomicUsize,
    per_client: Arc<PerClient>,
    told: Box<dyn Fn(Told) + Send + Sync>,
}

/// What is told of connections while they come and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// So many are open now.
    Open(usize),
    /// One was closed because of a limit.
    Refused,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("limits", &self.limits).field("open", &self.open).finish_non_exhaustive()
    }
}

impl Connections {
    /// None yet.
    pub fn new(limits: ConnectionLimits, told: impl Fn(Told) + Send + Sync + 'static) -> Arc<Self> {
        // A quarter for each client address, so that it takes several to shut others out.
        let per_client = PerClient::new((limits.connections_max as u64 / 4).max(CONNECTIONS_PER_CLIENT_MIN));
        Arc::new(Self { limits, open: AtomicUsize::new(0), per_client, told: Box::new(told) })
    }

    fn place(self: &Arc<Self>) -> Option<Place> {
        let took =
            self.open.fetch_update(Relaxed, Relaxed, |open| (open < self.limits.connections_max).then_some(open + 1));
        (self.told)(Told::Open(took.ok()? + 1));
        Some(Place { of: self.clone() })
    }
}

/// A place among the open connections, given back when dropped.
struct Place {
    of: Arc<Connections>,
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.of.told)(Told::Open(self.of.open.fetch_sub(1, Relaxed) - 1));
    }
}

/// Serves a listener until `drain` is cancelled, then closes it and ends each connection after its present
/// request.
pub async fn serve<S>(
    socket: Socket,
    entrance: Entrance,
    service: S,
    connections: Arc<Connections>,
    drain: CancellationToken,
    tracker: TaskTracker,
) where
    S: Service<(Arc<Connected>, Request<Incoming>), Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    loop {
        let accepted = tokio::select! {
            () = drain.cancelled() => return,
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
        let mut share = connections.per_client.share(peer);
        let place = if share.grow(1) { connections.place() } else { None };
        let Some(place) = place else {
            (connections.told)(Told::Refused);
            continue; // dropped: closed
        };
        let connected = Connected { address: peer, is_unix: peer.is_none(), tls: None };
        let limits = connections.limits.clone();
        let connection = connection::serve(stream, connected, entrance.clone(), service.clone(), limits, drain.clone());
        tracker.spawn(async move {
            connection.await;
            drop((place, share));
        });
    }
}
