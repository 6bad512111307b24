//! Composition: the only module that knows every part. Start, watch, drain.
//!
//! * `door`: what a reload changes of connections and certificates.
//! * `reload`: taking another configuration while it runs.
//! * `watch`: noticing that its files changed.
//! * `given`: what the admin listener gets to see and to do.

mod door;
mod drain;
mod given;
pub mod notify;
mod reload;
mod takeover;
mod watch;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use http_body_util::BodyExt;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    admin::{self, Admin, FailureLog, Operations},
    config::{
        self, Config,
        model::{Durability, Engine, ListenAt},
    },
    delivery::{self, Lanes, SourceRule},
    document::format_size,
    event::{EventId, Name, State},
    http::{
        client_body::ClientBody,
        connected::Connected,
        listener::{self, Connections, Entrance, TlsConfig, Told},
        passed::{Passed, PassedError},
        socket::Socket,
        tls::{Front, TlsError},
    },
    ingress::{self, Gate},
    store::{self, EventStore, StoreError},
    telemetry::{ClockWatch, Health, Metrics},
    time::Clock,
};

pub use reload::{Live, Origin, Reloadable, Swap};

/// How often expired keys and old history are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How often clock and store are watched.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// A gateway that runs. Dropping it does not end it: [`Gateway::drain`] does.
#[derive(Debug)]
pub struct Gateway {
    /// Where webhooks come in: the first address and port of `listening`.
    pub public: SocketAddr,
    /// Every public listener, in the order of the configuration: with the real port if it says 0.
    pub listening: Vec<ListenAt>,
    /// Where operators and probes come in.
    pub admin: SocketAddr,
    live: Arc<Live>,
    parts: Parts,
    /// A public socket is a service manager's, for the next process.
    is_handed_over: bool,
    /// Closes the public listener.
    closing: CancellationToken,
    /// Ends the admin listener and the watchers, last.
    ending: CancellationToken,
    connections: TaskTracker,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Clone, Debug)]
struct Parts {
    gate: Arc<Gate>,
    store: Arc<dyn EventStore>,
    lanes: Arc<Lanes>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    clock: Clock,
    operations: Arc<Operations>,
    failures: Arc<FailureLog>,
    /// TLS, if a listener speaks it.
    front: Option<Arc<Front>>,
}

/// Why a gateway does not start. A lower-case fragment that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error("failed to open the store")]
    Store(#[from] store::sqlite::OpenError),
    /// The store was opened and does not answer.
    #[error("failed to read the store")]
    Read(#[from] StoreError),
    /// An upstream.
    #[error(transparent)]
    Upstream(#[from] delivery::StartError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The sockets that were passed to this process.
    #[error("failed to take over the sockets of the service manager")]
    Passed(#[from] PassedError),
    /// A listener.
    #[error("failed to listen on {address}: {error}; stop what listens there, or change `{name}`")]
    Listen {
        /// `server.listen` or `admin.listen`.
        name: &'static str,
        /// Where.
        address: ListenAt,
        /// Why.
        error: std::io::Error,
    },
}

impl Gateway {
    /// Starts everything, with a configuration that stays as it is. Returns once both listeners are up.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        Self::start_from(config, None, clock, Passed::default()).await
    }

    /// As [`Gateway::start`], with a configuration that can be loaded anew from where it came, and the sockets that a
    /// service manager passed to this process.
    pub async fn start_from(
        config: Config,
        origin: Option<Origin>,
        clock: Clock,
        passed: Passed,
    ) -> Result<Self, StartError> {
        let (sockets, admin, store) = takeover::take_over(&config, &clock, passed).await?;
        report_parked(config.upstreams.keys().cloned(), &*store).await?;
        let metrics = Arc::new(Metrics::default());
        let front = front(&config, &clock, &metrics)?;
        let health = {
            let store = store.clone();
            let watch = ClockWatch::new(smallest_tolerance(&config), clock.wall(), clock.monotonic());
            Arc::new(Health::new(watch, move || store.health().map_err(|error| error.to_string())))
        };
        let delivering = delivery::Parts {
            store: store.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            sources: source_rules(&config),
        };
        let lanes = Arc::new(Lanes::start(&config.upstreams, delivering).await?);
        let gate = Gate::new(&config, store.clone(), &lanes, health.clone(), metrics.clone(), clock.clone());
        let operations = {
            let gate = gate.clone();
            Operations::new(store.clone(), clock.clone(), Arc::new(move |ids: &[EventId]| gate.forget(ids)))
        };
        let failures = {
            let counted = gate.failures().clone();
            let sources = config.sources.values().map(|source| &**source);
            FailureLog::new(sources, Box::new(move |source| counted.not_explained(source)))
        };
        let ending = CancellationToken::new();
        let parts = Parts { gate, store, lanes, health, metrics, clock, operations, failures, front };
        let listening: Vec<_> = sockets.iter().map(Socket::local).collect();
        let mut gateway = Self {
            public: listening.iter().find_map(ListenAt::tcp).unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
            listening,
            admin: admin.local_addr().unwrap_or(config.admin.listen),
            live: Live::new(config, origin, parts.clone(), ending.clone()),
            parts,
            is_handed_over: sockets.iter().any(Socket::is_passed),
            closing: CancellationToken::new(),
            ending,
            connections: TaskTracker::new(),
            tasks: Vec::new(),
        };
        gateway.say_what_it_is();
        gateway.listen(sockets, admin);
        gateway.watch();
        Ok(gateway)
    }

    /// Once, at the start: what an operator who reads only the log has to know of this process.
    fn say_what_it_is(&self) {
        let config = self.live.running();
        let (store, memory) = (&config.store, config::Memory::of(&config));
        let facts = store_facts(store);
        let sum = format!("{}MiB", memory.total().div_ceil(1 << 20));
        let parts = memory.line();
        tracing::info!(%sum, memory_max = format_size(memory.max), parts, "memory: the most that all bounds sum up to");
        tracing::info!(
            engine = facts.engine,
            durability = facts.durability,
            disk_bytes_max = format_size(facts.bytes_max),
            "store: what it survives"
        );
    }

    fn listen(&mut self, sockets: Vec<Socket>, admin: TcpListener) {
        let config = self.live.running();
        let stack = ingress::stack(&self.parts.gate).map_request(
            |(connected, request): (Arc<Connected>, Request<ClientBody>)| {
                let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                request.extensions_mut().insert(connected);
                request
            },
        );
        let metrics = self.parts.metrics.clone();
        let connections = Connections::new(door::limits(&config), move |told| match told {
            Told::Open(open) => metrics.connections(open),
            Told::Refused => metrics.connection_refused(),
            Told::Ended(why) => metrics.connection_ended(why.name()),
        });
        self.live.add(Arc::new(door::Door { connections: connections.clone(), front: self.parts.front.clone() }));
        for (socket, listener) in sockets.into_iter().zip(&config.server.listeners) {
            let front = self.parts.front.clone().filter(|_| listener.tls.is_some());
            let tls = front.map(|front| -> TlsConfig { Arc::new(move || front.offer()) });
            let entrance = Entrance { tls, proxy_protocol: listener.proxy_protocol, h2c: listener.h2c };
            let (stack, connections) = (stack.clone(), connections.clone());
            let (closing, tracker) = (self.closing.clone(), self.connections.clone());
            // Among its own connections, so that whoever waits for them waits for what it still accepts, too.
            let serving = listener::serve(socket, entrance, stack, connections, closing, tracker.clone());
            tracker.spawn(serving);
        }
        self.parts.health.set_listening(true);

        let given = self.live.given(self.admin);
        let ending = self.ending.clone().cancelled_owned();
        self.tasks.push(tokio::spawn(admin::serve(admin, Admin::new(given), ending)));
        for at in &self.listening {
            tracing::info!(listener = "public", address = %at, "listening");
        }
        tracing::info!(listener = "admin", address = %self.admin, "listening");
    }

    /// Tasks that look after clock, load, history and refusals.
    fn watch(&mut self) {
        if let Some(refused) = self.parts.gate.failures().take() {
            let (log, ending) = (self.parts.failures.clone(), self.ending.clone());
            self.tasks.push(tokio::spawn(async move {
                tokio::select! {
                    () = ending.cancelled() => {}
                    () = log.keep(refused) => {}
                }
            }));
        }
        let (parts, ending) = (self.parts.clone(), self.ending.clone());
        self.tasks.push(tokio::spawn(async move {
            let mut every = tokio::time::interval(WATCH_EVERY);
            while next_tick(&mut every, &ending).await {
                parts.health.tick(parts.clock.wall(), parts.clock.monotonic());
                let (requests, body_bytes) = parts.gate.load();
                parts.metrics.in_flight(requests, body_bytes);
                parts.metrics.guard_keys(parts.gate.guard_keys());
            }
        }));
        let front = self.parts.front.iter().flat_map(|front| front.tasks(&self.ending));
        self.tasks.extend(front.map(tokio::spawn));
        self.live.keep_remote_keys();
        self.tasks.push(tokio::spawn(watch::keep(self.live.clone(), self.ending.clone())));
        let retention = self.live.running().store.retention;
        let (store, ending) = (self.parts.store.clone(), self.ending.clone());
        self.tasks.push(tokio::spawn(async move {
            let mut every = tokio::time::interval(SWEEP_EVERY);
            while next_tick(&mut every, &ending).await {
                loop {
                    match store.sweep(retention).await {
                        Ok(swept) if swept.more && !ending.is_cancelled() => {}
                        Ok(_) => break,
                        Err(error) => {
                            tracing::warn!(%error, "failed to remove expired keys and old history");
                            break;
                        }
                    }
                }
            }
        }));
    }

    /// What takes another configuration.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Looks at the files of certificates now, as it is done every few seconds. What changed and is whole is served from
    /// the next connection on.
    pub async fn look_at_certificates(&self) {
        if let Some(front) = self.parts.front.clone() {
            let _ = tokio::task::spawn_blocking(move || front.look()).await;
        }
    }

    /// How many deliveries are due or being made.
    pub async fn pending(&self) -> Result<u64, StoreError> {
        let stats = self.parts.store.stats().await?;
        let open =
            |((_, state), count): (&(_, State), &u64)| matches!(state, State::Due | State::Leased).then_some(*count);
        Ok(stats.deliveries.iter().filter_map(open).sum())
    }

    /// Resolves when the store can take no more writes for good: the process has to end and start again, so that
    /// recovery reads the disk.
    pub async fn broken(&self) -> StoreError {
        let mut every = tokio::time::interval(WATCH_EVERY);
        loop {
            every.tick().await;
            if let Err(error @ StoreError::Poisoned(_)) = self.parts.store.health() {
                return error;
            }
        }
    }
}

fn store_facts(store: &config::model::Store) -> admin::StoreFacts {
    let (engine, durability) = match (store.engine, store.durability) {
        (Engine::Memory, _) => ("memory", "none: lost with the process"),
        (Engine::Sqlite, Durability::Fsync) => ("sqlite", "fsync: survives a power cut"),
        (Engine::Sqlite, Durability::Os) => ("sqlite", "os: survives a crash, not a power cut"),
    };
    admin::StoreFacts { engine, durability, bytes_max: store.disk_bytes_max }
}

/// What TLS of the listeners needs, if one speaks it.
fn front(config: &Config, clock: &Clock, metrics: &Arc<Metrics>) -> Result<Option<Arc<Front>>, TlsError> {
    let open = |tls| Front::open(tls, sources_judge(config), clock.clone(), metrics.clone()).map(Arc::new);
    config.server.tls().map(open).transpose()
}

/// Whether a source looks at certificates of clients, so that they have to be asked for.
fn sources_judge(config: &Config) -> bool {
    config.sources.values().any(|source| source.client_cert.is_some())
}

/// Parks deliveries to upstreams that are not among these, lets those to the others go on, and says so.
async fn report_parked(upstreams: impl Iterator<Item = Name>, store: &dyn EventStore) -> Result<(), StoreError> {
    let names: Vec<_> = upstreams.collect();
    for (upstream, count) in store.reconcile(&names).await? {
        tracing::warn!(
            upstream = &*upstream,
            count,
            "deliveries are parked: this upstream is not configured any more; configure it again, or redeliver them to another"
        );
    }
    Ok(())
}

/// What deliveries depend on, by source.
fn source_rules(config: &Config) -> BTreeMap<Name, SourceRule> {
    config.sources.iter().map(|(name, source)| (name.clone(), SourceRule::from(&**source))).collect()
}

/// The smallest tolerance of any source that signs a time: what a jump of the clock is measured against.
fn smallest_tolerance(config: &Config) -> Option<Duration> {
    let timed = config.sources.values().filter(|source| source.scheme.is_timed());
    timed.map(|source| source.tolerance.past.min(source.tolerance.future)).min()
}

async fn next_tick(every: &mut tokio::time::Interval, ending: &CancellationToken) -> bool {
    tokio::select! {
        () = ending.cancelled() => false,
        _ = every.tick() => true,
    }
}
