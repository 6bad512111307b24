//! Composition: the only module that knows every part. Start, watch, drain.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderName, Request};
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
    admin::{self, Admin, FailureLog, Operations, UpstreamStatus, api::PendingSecretRow},
    config::{
        self, Config,
        model::{Durability, Engine, ListenAt},
    },
    delivery::{self, LaneStatus, Lanes, SourceRule},
    document::format_size,
    event::{EventId, State},
    http::{
        connected::Connected,
        listener::{self, ConnectionLimits},
        socket::Socket,
    },
    ingress::{self, Gate, PendingSecret},
    secret::Secret,
    store::{self, EventStore, StoreError, memory::MemoryStore, sqlite::SqliteStore},
    telemetry::{ClockWatch, Health, Metrics},
    time::Clock,
};

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
    config: Config,
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
    /// Starts everything. Returns once both listeners are up.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        // Bound first: a second gateway on the same ports fails before it touches the store.
        let mut sockets = Vec::new();
        for listener in &config.server.listeners {
            sockets.push(open("server.listen", &listener.at).await?);
        }
        let admin = open("admin.listen", &ListenAt::Tcp(config.admin.listen)).await?;
        let Socket::Tcp(admin) = admin else { unreachable!("an address is bound as TCP") };
        let store = open_store(&config, &clock).await?;
        report_parked(&config, &*store).await?;
        let metrics = Arc::new(Metrics::default());
        let health = {
            let store = store.clone();
            let watch = ClockWatch::new(smallest_tolerance(&config), clock.wall(), clock.monotonic());
            Arc::new(Health::new(watch, move || store.health().map_err(|error| error.to_string())))
        };
        let rules = config.sources.iter().map(|(name, source)| (name.clone(), SourceRule::from(&**source)));
        let delivering = delivery::Parts {
            store: store.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            sources: rules.collect(),
        };
        let lanes = Arc::new(Lanes::start(&config.upstreams, delivering).await?);
        let gate = Gate::new(&config, store.clone(), lanes.clone(), health.clone(), metrics.clone(), clock.clone());
        let operations = {
            let gate = gate.clone();
            Operations::new(store.clone(), clock.clone(), Arc::new(move |ids: &[EventId]| gate.forget(ids)))
        };
        let failures = {
            let counted = gate.failures().clone();
            let sources = config.sources.values().map(|source| &**source);
            FailureLog::new(sources, Box::new(move |source| counted.not_explained(source)))
        };
        let parts = Parts { gate, store, lanes, health, metrics, clock, operations, failures };
        let listening: Vec<_> = sockets.iter().map(Socket::local).collect();
        let mut gateway = Self {
            public: listening.iter().find_map(ListenAt::tcp).unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
            listening,
            admin: admin.local_addr().unwrap_or(config.admin.listen),
            config,
            parts,
            closing: CancellationToken::new(),
            ending: CancellationToken::new(),
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
        let (store, memory) = (&self.config.store, config::Memory::of(&self.config));
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
        let limits = &self.config.server.limits;
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

        let given = self.given();
        let ending = self.ending.clone().cancelled_owned();
        self.tasks.push(tokio::spawn(admin::serve(admin, Admin::new(given), ending)));
        for at in &self.listening {
            tracing::info!(listener = "public", address = %at, "listening");
        }
        tracing::info!(listener = "admin", address = %self.admin, "listening");
    }

    /// What the admin listener gets to see and to do.
    fn given(&self) -> admin::Given {
        let parts = &self.parts;
        let (lanes, pausing, gate) = (parts.lanes.clone(), parts.lanes.clone(), parts.gate.clone());
        let sources = || self.config.sources.clone();
        let (signing, hiding, keying) = (sources(), sources(), sources());
        let (pending, handing_over) = (parts.gate.pending().clone(), Arc::new(sources()));
        admin::Given {
            listen: self.admin,
            tokens: self.config.admin.tokens.clone(),
            store: parts.store.clone(),
            health: parts.health.clone(),
            metrics: parts.metrics.clone(),
            clock: parts.clock.clone(),
            started_at: parts.clock.monotonic(),
            upstreams: Box::new(move || lanes.status().into_iter().map(upstream_status).collect()),
            store_facts: store_facts(&self.config.store),
            is_signature: Box::new(move |source, header| {
                let named =
                    |name: HeaderName| signing.get(source).is_some_and(|source| source.scheme.signs_with(&name));
                header.parse().is_ok_and(named)
            }),
            hidden_anywhere: admin::Hidden::all(hiding.values().map(|source| admin::Hidden::of(source))),
            hidden: Box::new(move |source| hiding.get(source).map(|source| admin::Hidden::of(source))),
            event_keys: Box::new(move |source, id| {
                let source = keying.get(source).ok_or_else(|| format!("source `{source}` is not configured"))?;
                source.key_plan.event_keys_of_id(id).ok_or_else(|| {
                    let name = &source.name;
                    format!("the event key of source `{name}` is not one id of the provider, so that none leads to it")
                })
            }),
            set_paused: Box::new(move |name, pause| {
                let lanes = pausing.clone();
                Box::pin(async move { lanes.set_paused(&name, pause).await })
            }),
            pending_secrets: Box::new(move || {
                let (pending, sources) = (pending.clone(), handing_over.clone());
                Box::pin(async move {
                    let known = sources.clone();
                    let in_use = move |name: &str, secret: &Secret| {
                        known.get(name).is_some_and(|source| ingress::is_configured(source, secret))
                    };
                    let is_secret = |name: &str| sources.get(name).is_none_or(|source| source.provider.captures());
                    let listed = tokio::task::spawn_blocking(move || pending.waiting(in_use)).await.ok()?;
                    let listed = listed.inspect_err(|error| tracing::warn!(%error, "failed to list pending secrets"));
                    Some(listed.ok()?.into_iter().map(|row| pending_row(row, is_secret)).collect())
                })
            }),
            forgotten: Arc::new(move |ids: &[EventId]| gate.forget(ids)),
            operations: parts.operations.clone(),
            failures: parts.failures.clone(),
        }
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
        self.tasks.extend(self.parts.gate.keep_remote_keys(&self.ending).into_iter().map(tokio::spawn));
        let (store, ending, retention) = (self.parts.store.clone(), self.ending.clone(), self.config.store.retention);
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
        let server = &self.config.server;
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

fn pending_row(pending: PendingSecret, is_secret: impl Fn(&str) -> bool) -> PendingSecretRow {
    let PendingSecret { source, at, from, fingerprint, file } = pending;
    let file = file.display().to_string();
    let help = if is_secret(&source) {
        format!(
            "if you registered this endpoint just now, add secrets = [{{ file = \"{file}\" }}] to [sources.{source}] and \
             start again, else delete the file"
        )
    } else {
        "this provider verifies with public keys: if you registered this endpoint just now, confirm that at the provider \
         with the token in the file, then delete the file"
            .to_owned()
    };
    PendingSecretRow { source, at, from, fingerprint, file, help }
}

fn upstream_status(lane: LaneStatus) -> UpstreamStatus {
    UpstreamStatus {
        name: lane.upstream,
        breaker: lane.breaker.name(),
        breaker_for: Some(lane.since),
        breaker_opened_total: Some(lane.opened_total),
        last_error: lane.last_failure,
        paused: lane.paused,
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

/// Parks deliveries to upstreams that are not configured any more, and says so.
async fn report_parked(config: &Config, store: &dyn EventStore) -> Result<(), StoreError> {
    let names: Vec<_> = config.upstreams.keys().cloned().collect();
    for (upstream, count) in store.reconcile(&names).await? {
        tracing::warn!(
            upstream = &*upstream,
            count,
            "deliveries are parked: this upstream is not configured any more; configure it again, or redeliver them to another"
        );
    }
    Ok(())
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
