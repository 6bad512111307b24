//! The accept loop: every connection of one listener, within the limits that all listeners share.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    future::pending,
    io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use ipnet::IpNet;
use tokio::{
    task::yield_now,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use super::{
    client_body::ClientBody,
    connected::Connected,
    connection,
    course::Bounds,
    ended::Ended,
    per_client::{PerClient, Taken},
    proxy_protocol::Announced,
    socket::Socket,
};
use crate::telemetry::health::Probe;

/// What all listeners together allow.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Connections at a time. A few more are let in to be asked for health, and closed.
    pub connections_max: usize,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// A connection without a request.
    pub idle_timeout: Duration,
    /// A connection in all; the next answer is its last.
    pub age_max: Duration,
    /// Requests on one connection; the last is answered as such.
    pub requests_max: u64,
    /// Who may have any number of connections, and send headers of the PROXY protocol.
    pub trusted_proxies: Vec<IpNet>,
    /// Where probes ask, beside `/livez` and `/readyz`.
    pub health_path: Option<String>,
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
pub type TlsConfig = Arc<dyn Fn() -> Offer + Send + Sync>;

/// What a connection of TLS is offered.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The handshake.
    pub config: Arc<rustls::ServerConfig>,
    /// Cancelled once clients have to show something else. Whoever was let in before has to connect anew.
    pub outdated: CancellationToken,
}

impl fmt::Debug for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls, proxy_protocol, h2c } = self;
        write!(f, "Entrance {{ tls: {}, proxy_protocol: {proxy_protocol}, h2c: {h2c} }}", tls.is_some())
    }
}

/// Connections that every client address may have at a time.
const CONNECTIONS_PER_CLIENT_MIN: u64 = 16;
/// Places beyond `connections_max`, so that a balancer does not take a gateway that is busy for one that is dead: each
/// for two seconds and one request, which is answered if it asks for health and gets 503 if not. When all of them are
/// taken, too, the newcomer displaces the oldest: a crowd that holds them shuts nobody out, and a probe, which asks at
/// once, has as long for it as so many others take to come.
const RESERVE: usize = 16;
const RESERVE_PER_CLIENT: u64 = 4;
const RESERVE_TIME: Duration = Duration::from_secs(2);
/// Between two tries to accept while something lasting is in the way.
const PAUSE: Duration = Duration::from_millis(50);

/// The connections of all listeners, and what they share.
pub struct Connections {
    limits: ArcSwap<ConnectionLimits>,
    open: AtomicUsize,
    /// Who has the places that are kept for health probes, oldest first. Cancelled: displaced.
    reserve: Mutex<VecDeque<CancellationToken>>,
    per_client: Arc<PerClient>,
    crowded_per_client: Arc<PerClient>,
    told: Box<dyn Fn(Told) + Send + Sync>,
}

/// What is told of connections while they come and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// So many are open now.
    Open(usize),
    /// One was refused because of a limit.
    Refused,
    /// One ended.
    Ended(Ended),
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("limits", &self.limits).field("open", &self.open).finish_non_exhaustive()
    }
}

impl Connections {
    /// None yet.
    pub fn new(limits: ConnectionLimits, told: impl Fn(Told) + Send + Sync + 'static) -> Arc<Self> {
        let per_client = PerClient::new(per_client_max(&limits));
        let crowded_per_client = PerClient::new(RESERVE_PER_CLIENT);
        let (limits, open, reserve) = (ArcSwap::from_pointee(limits), AtomicUsize::new(0), Mutex::default());
        Arc::new(Self { limits, open, reserve, per_client, crowded_per_client, told: Box::new(told) })
    }

    /// Other limits from now on. Connections that are open keep their own deadlines.
    pub fn change(&self, limits: ConnectionLimits) {
        self.per_client.set_max(per_client_max(&limits));
        self.limits.store(Arc::new(limits));
    }

    /// Lets a connection in, if there is a place for it.
    pub(super) fn admit(self: &Arc<Self>, peer: Option<IpAddr>, entrance: &Entrance) -> Result<Guest, Told> {
        let limits = self.limits.load_full();
        let is_proxy = peer.is_none_or(|peer| is_trusted(&limits, peer));
        if entrance.proxy_protocol && !is_proxy {
            return Err(Told::Ended(Ended::ProxyProtocol));
        }
        let place = self.place(limits.connections_max);
        let connected = Connected { address: peer, is_unix: peer.is_none(), tls: None };
        let mut guest = Guest { connected, outdated: CancellationToken::new(), limits, place, shares: Vec::new() };
        if !guest.take_share(peer.filter(|_| !is_proxy)) {
            return Err(Told::Refused);
        }
        // Only now: whoever has too many already displaces nobody.
        guest.place.displace();
        Ok(guest)
    }

    fn place(self: &Arc<Self>, max: usize) -> Place {
        let took = self.open.fetch_update(Relaxed, Relaxed, |open| (open < max).then_some(open + 1));
        if let Ok(before) = took {
            (self.told)(Told::Open(before + 1));
            return Place { of: self.clone(), reserved: None };
        }
        Place { of: self.clone(), reserved: Some((Instant::now() + RESERVE_TIME, CancellationToken::new())) }
    }

    fn reserve(&self) -> MutexGuard<'_, VecDeque<CancellationToken>> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_trusted(limits: &ConnectionLimits, address: IpAddr) -> bool {
    limits.trusted_proxies.iter().any(|network| network.contains(&address))
}

/// A quarter for each client address, so that it takes several to shut others out.
fn per_client_max(limits: &ConnectionLimits) -> u64 {
    (limits.connections_max as u64 / 4).max(CONNECTIONS_PER_CLIENT_MIN)
}

/// A connection that was let in.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) connected: Connected,
    /// Cancelled once it was let in on terms that are others by now.
    pub(super) outdated: CancellationToken,
    limits: Arc<ConnectionLimits>,
    place: Place,
    shares: Vec<Taken>,
}

impl Guest {
    /// Takes in what a proxy says of this connection. Returns whether it may stay.
    pub(super) fn announce(&mut self, announced: Announced) -> bool {
        let address = match announced {
            Announced::Proxy => return true,
            Announced::Client(address) => Some(address),
            Announced::Unix => None,
        };
        (self.connected.address, self.connected.is_unix) = (address, false);
        let stays = self.take_share(address.filter(|address| !is_trusted(&self.limits, *address)));
        if !stays {
            (self.place.of.told)(Told::Refused);
        }
        stays
    }

    fn take_share(&mut self, of: Option<IpAddr>) -> bool {
        let connections = &self.place.of;
        let shares = if self.is_crowded() { &connections.crowded_per_client } else { &connections.per_client };
        let mut share = shares.share(of);
        let fits = share.grow(1);
        self.shares.push(share);
        fits
    }

    /// Whether it has one of the places that are kept for health probes.
    fn is_crowded(&self) -> bool {
        self.place.reserved.is_some()
    }

    /// Resolves when such a place is no longer its own: it had it for long enough, or a newcomer has it now.
    pub(super) fn displaced(&self) -> impl Future<Output = ()> + Send + use<> {
        let reserved = self.place.reserved.clone();
        async move {
            let Some((until, displaced)) = reserved else { return pending().await };
            let _ = timeout_at(until, displaced.cancelled()).await;
            // The runtime may not have been told yet of a request that has come. It is, by then.
            yield_now().await;
        }
    }

    /// Why its next answer is the last, whatever was asked.
    pub(super) fn leaves(&self) -> Option<Ended> {
        let outdated = || self.outdated.is_cancelled().then_some(Ended::Terms);
        self.is_crowded().then_some(Ended::Crowded).or_else(outdated)
    }

    /// Whether a request for this path is served here, or why only probes are.
    pub(super) fn serves(&self, path: &str) -> Result<(), Ended> {
        let Some(why) = self.leaves() else { return Ok(()) };
        if Probe::at(path, self.limits.health_path.as_deref()).is_some() {
            return Ok(());
        }
        if why == Ended::Crowded {
            (self.place.of.told)(Told::Refused);
        }
        Err(why)
    }

    /// The bounds of its course.
    pub(super) fn bounds(&self) -> Bounds {
        let ConnectionLimits { header_timeout, idle_timeout, age_max, requests_max, .. } = *self.limits;
        Bounds { header_timeout, idle_timeout, age_max, requests_max }
    }
}

/// A place among the open connections, given back when dropped.
#[derive(Debug)]
struct Place {
    of: Arc<Connections>,
    /// One of those that are kept for health probes: until then, or until it is cancelled.
    reserved: Option<(Instant, CancellationToken)>,
}

impl Place {
    /// Takes a place among those that are kept for health probes, from the oldest there if need be.
    fn displace(&self) {
        let Some((_, displaced)) = &self.reserved else { return };
        let mut reserve = self.of.reserve();
        if reserve.len() >= RESERVE
            && let Some(oldest) = reserve.pop_front()
        {
            oldest.cancel();
        }
        reserve.push_back(displaced.clone());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((_, displaced)) = &self.reserved {
            displaced.cancel();
            self.of.reserve().retain(|other| !other.is_cancelled());
        } else {
            (self.of.told)(Told::Open(self.of.open.fetch_sub(1, Relaxed) - 1));
        }
    }
}

/// Serves a listener until `drain` is cancelled, then accepts what waits, closes it, and ends each connection after its
/// present request.
pub async fn serve<S>(
    socket: Socket,
    entrance: Entrance,
    service: S,
    connections: Arc<Connections>,
    drain: CancellationToken,
    tracker: TaskTracker,
) where
    S: Service<(Arc<Connected>, Request<ClientBody>), Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let mut is_failing = false;
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
            // The client left while it waited.
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) => continue,
            // Out of file descriptors, or of memory: the loop never ends for it. A short pause, so that a lasting
            // cause does not spin.
            Err(error) => {
                if !is_failing {
                    tracing::warn!(%error, "failed to accept a connection; it is tried again until it succeeds");
                }
                is_failing = true;
                tokio::select! {
                    () = drain.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => continue,
                }
            }
        };
        is_failing = false;
        let guest = match connections.admit(peer, &entrance) {
            Ok(guest) => guest,
            Err(why) => {
                (connections.told)(why);
                continue; // dropped: closed
            }
        };
        let is_crowded = guest.is_crowded();
        let serving =
            connection::serve(stream, guest, entrance.clone(), service.clone(), drain.clone(), tracker.clone());
        let connections = connections.clone();
        tracker.spawn(async move { (connections.told)(Told::Ended(serving.await)) });
        // Those that were displaced go before more are let in, so that they are not many.
        if is_crowded {
            yield_now().await;
        }
    }
}
