//! Composition: the only module that knows every part. Start, watch, drain.
//!
//! * `reload`: taking another configuration while it runs.
//! * `watch`: noticing that its files changed.
//! * `given`: what the admin listener gets to see and to do.

mod given;
mod reload;
mod watch;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
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
        connected::Connected,
        listener::{self, ConnectionLimits},
        socket::Socket,
    },
    ingress::{self, Gate},
    store::{self, EventStore, StoreError, memory::MemoryStore, sqlite::SqliteStore},
    telemetry::{ClockWatch, Health, Metrics},
    time::Clock,
};

pub use reload::{Live, Origin, Reloadable, Swap};

/// How often expired keys and old history are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How often clock and store are watched.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// What the end of the drain leaves for flights and deliveries that are being settled.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

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
        Self::start_from(config, None, clock).await
    }

    /// As [`Gateway::start`], with a configuration that can be loaded anew from where it came.
    pub async fn start_from(config: Config, origin: Option<Origin>, clock: Clock) -> Result<Self, StartError> {
        // Bound first: a second gateway on the same ports fails before it touches the store.
        let mut sockets = Vec::new();
        for listener in &config.server.listeners {
            sockets.push(open("server.listen", &listener.at).await?);
        }
        let admin = open("admin.listen", &ListenAt::Tcp(config.admin.listen)).await?;
        let Socket::Tcp(admin) = admin else { unreachable!("an address is bound as TCP") };
        let store = open_store(&config, &clock).await?;
        report_parked(config.upstreams.keys().cloned(), &*store).await?;
        let metrics = Arc::new(Metrics::default());
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
        let parts = Parts { gate, store, lanes, health, metrics, clock, operations, failures };
        let listening: Vec<_> = sockets.iter().map(Socket::local).collect();
        let mut gateway = Self {
            public: listening.iter().find_map(ListenAt::tcp).unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
            listening,
            admin: admin.local_addr().unwrap_or(config.admin.listen),
            live: Live::new(config, origin, parts.clone(), ending.clone()),
            parts,
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
        tracing::info!(%sum, memory_max = format_size(memory.max), "memory: the most that all bounds sum up to");
        tracing::info!(
            engine = facts.engine,
            durability = facts.durability,
            disk_bytes_max = format_size(facts.bytes_max),
            "store: what it survives"
        );
    }

    fn listen(&mut self, sockets: Vec<Socket>, admin: TcpListener) {
        let config = self.live.running();
        let limits = &config.server.limits;
        let connection_limits = ConnectionLimits {
            connections_max: limits.connections_max,
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
        };
        let stack = ingress::stack(&self.parts.gate).map_request(
            |(connected, request): (Arc<Connected>, Request<Incoming>)| {
                let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                request.extensions_mut().insert(connected);
                request
            },
        );
        let metrics = self.parts.metrics.clone();
        let count = move |open: Option<usize>| match open {
            Some(open) => metrics.connections(open),
            None => metrics.connection_refused(),
        };
        for socket in sockets {
            let (closing, connections) = (self.closing.clone(), self.connections.clone());
            let (stack, limits, count) = (stack.clone(), connection_limits.clone(), count.clone());
            self.tasks.push(tokio::spawn(listener::serve(socket, stack, limits, closing, connections, count)));
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
            }
        }));
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

    /// Finishes what began and takes nothing new: not ready at once, listeners closed after `drain_delay`, what is
    /// left at `drain_timeout` gets 503. Returns whether everything was finished.
    pub async fn drain(self) -> bool {
        let config = self.live.running();
        let server = &config.server;
        tracing::info!(delay = ?server.drain_delay, timeout = ?server.drain_timeout, "draining");
        self.parts.health.drain();
        tokio::time::sleep(server.drain_delay).await;
        self.closing.cancel();
        self.parts.health.set_listening(false);
        self.connections.close();
        let until = Instant::now() + server.drain_timeout;
        // The same end for all: an attempt that could still be finished is not cut, and made again after the next
        // start, because the requests were done early.
        let end = until + SETTLE_TIMEOUT;
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
        self.parts.store.close().await;
        // Its last sync may fail like any other.
        whole &= !matches!(self.parts.store.health(), Err(StoreError::Poisoned(_)));
        tracing::info!(whole, "stopped");
        whole
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

async fn open(name: &'static str, at: &ListenAt) -> Result<Socket, StartError> {
    Socket::open(at).await.map_err(|error| StartError::Listen { name, address: at.clone(), error })
}

async fn open_store(config: &Config, clock: &Clock) -> Result<Arc<dyn EventStore>, store::sqlite::OpenError> {
    Ok(match config.store.engine {
        Engine::Sqlite => {
            let options = store::sqlite::Options::of(&config.store, clock.clone());
            // Recovery reads the disk; it must not hold up a worker of the runtime.
            tokio::task::spawn_blocking(move || SqliteStore::open(&options)).await.expect("opening does not panic")?
        }
        Engine::Memory => {
            let (on_full, bytes_max) = (config.replay.on_full, config.store.disk_bytes_max);
            MemoryStore::new(&store::memory::Options {
                keys_max: config.replay.capacity,
                on_full,
                bytes_max,
                disk_share_max: config.store.disk_share_max,
                clock: clock.clone(),
            })
        }
    })
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
