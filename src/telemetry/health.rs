//! Whether this process is alive and ready, and the answers to probes.
//!
//! Ready means: the public listener is up, the store would take a webhook, the clock is sane, nothing drains.
//! Budgets, rates and upstreams never count: a full gateway that says "not ready" moves its load to the next
//! one, and a dead upstream is no reason to refuse webhooks.
//!
//! A change shows once it has lasted [`SETTLE`], and so whatever shows holds for at least that long: a probe
//! never flaps. Two changes show at once: the first readiness after the start, and draining.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use tokio::time::Instant;

use super::clock_watch::ClockWatch;
use crate::time::Wall;

/// How long a change of readiness must last before it shows.
pub const SETTLE: Duration = Duration::from_secs(3);

/// Why a gateway is not ready.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The public listener is not up (yet).
    NotListening,
    /// The store would refuse a webhook; what it says.
    Store(String),
    /// The wall clock jumped; how far.
    Clock(String),
    /// The process is on its way out.
    Draining,
}

impl Reason {
    /// The stable name.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotListening => "listener",
            Self::Store(_) => "store",
            Self::Clock(_) => "clock",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotListening => f.write_str("the public listener is not up"),
            Self::Store(detail) | Self::Clock(detail) => f.write_str(detail),
            Self::Draining => f.write_str("draining: finishing what began, then stopping"),
        }
    }
}

/// What asks the store whether it would take a webhook now. A closure, because telemetry is below the store.
type StoreProbe = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The health of this process, shared by all that know a part of it. The gateway calls [`Health::tick`] once a
/// second.
pub struct Health {
    listening: AtomicBool,
    draining: AtomicBool,
    clock_sane: AtomicBool,
    store: StoreProbe,
    watched: Mutex<Watched>,
}

struct Watched {
    clock: ClockWatch,
    clock_problem: Option<String>,
    shown: Shown,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("listening", &self.listening)
            .field("draining", &self.draining)
            .field("clock_sane", &self.clock_sane)
            .finish_non_exhaustive()
    }
}

impl Health {
    /// Not listening yet, not draining, with a sane clock.
    pub fn new(clock: ClockWatch, store: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self {
            listening: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            clock_sane: AtomicBool::new(true),
            store: Box::new(store),
            watched: Mutex::new(Watched { clock, clock_problem: None, shown: Shown::default() }),
        }
    }
    /// The public listener came up, or closed.
    pub fn set_listening(&self, up: bool) {
        self.listening.store(up, Relaxed);
    }
    /// The drain began. There is no way back.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }
    /// Whether the drain began.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
    /// The smallest tolerance of any source changed (a reload); `None` where no source signs a time.
    pub fn set_smallest_tolerance(&self, smallest: Option<Duration>) {
        self.watched().clock.set_smallest_tolerance(smallest);
    }
    /// Whether the clock was sane at the last tick: one atomic load.
    pub fn clock_sane(&self) -> bool {
        self.clock_sane.load(Relaxed)
    }
    /// Looks at both clocks and says whether the wall clock can be trusted. For the moment before a webhook is
    /// refused as stale: a jump since the last tick is seen here.
    pub fn check_clock(&self, wall: Wall, now: Instant) -> bool {
        let mut watched = self.watched();
        let problem = watched.clock.tick(wall, now).err();
        let sane = problem.is_none();
        watched.clock_problem = problem;
        // Under the lock, so that the flag and the detail never contradict each other for long.
        self.clock_sane.store(sane, Relaxed);
        sane
    }
    /// To be called once a second: watches the clock, and lets changes of readiness settle.
    pub fn tick(&self, wall: Wall, now: Instant) {
        self.check_clock(wall, now);
        self.readiness(now);
    }
    /// Whether it is ready, and if not, why; settled.
    pub fn readiness(&self, now: Instant) -> (bool, Vec<Reason>) {
        let found = self.problems();
        let shown = self.watched().shown.observe(found, now).to_vec();
        (shown.is_empty(), shown)
    }
    /// What is wrong at this moment, not settled.
    pub fn problems(&self) -> Vec<Reason> {
        let mut found = Vec::new();
        if self.is_draining() {
            found.push(Reason::Draining);
        } else if !self.listening.load(Relaxed) {
            // A drain closes the listener: that is no problem of its own.
            found.push(Reason::NotListening);
        }
        if let Err(detail) = (self.store)() {
            found.push(Reason::Store(detail));
        }
        if let Some(detail) = &self.watched().clock_problem {
            found.push(Reason::Clock(detail.clone()));
        }
        found
    }
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What shows, as a value that takes `now`.
#[derive(Debug)]
struct Shown {
    /// Empty: ready.
    reasons: Vec<Reason>,
    /// Since when what is found differs in readiness from what shows.
    differs_since: Option<Instant>,
    was_ready: bool,
}

impl Default for Shown {
    fn default() -> Self {
        Self { reasons: vec![Reason::NotListening], differs_since: None, was_ready: false }
    }
}

impl Shown {
    fn observe(&mut self, found: Vec<Reason>, now: Instant) -> &[Reason] {
        let changes = found.is_empty() != self.reasons.is_empty();
        let at_once = found.contains(&Reason::Draining) || !self.was_ready;
        if !changes {
            self.differs_since = None;
            self.reasons = found;
        } else if at_once || now.duration_since(*self.differs_since.get_or_insert(now)) >= SETTLE {
            self.differs_since = None;
            self.was_ready |= found.is_empty();
            self.reasons = found;
        }
        &self.reasons
    }
}

/// What a probe asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// Does the process run? `/livez`.
    Live,
    /// Should it get webhooks? `/readyz`, `/healthz`.
    Ready,
}

impl Probe {
    /// What is asked for at this path of the public listener.
    pub fn at(path: &str, health_path: Option<&str>) -> Option<Self> {
        match path {
            "/livez" => Some(Self::Live),
            "/readyz" => Some(Self::Ready),
            path => (health_path == Some(path)).then_some(Self::Ready),
        }
    }
}

/// The methods that probes use.
pub const PROBE_METHODS: &str = "GET, HEAD, OPTIONS";

/// The answer to a probe on the public listener: a status and one word, no detail. `None` where the method is
/// not one of [`PROBE_METHODS`].
pub fn health_response(method: &Method, probe: Probe, health: &Health, now: Instant) -> Option<Response<Full<Bytes>>> {
    if ![Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        return None;
    }
    let good = match probe {
        Probe::Live => true,
        Probe::Ready => health.readiness(now).0,
    };
    let (status, text) = if good { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if method == Method::OPTIONS {
        headers.insert(header::ALLOW, HeaderValue::from_static(PROBE_METHODS));
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::advance;

    use super::*;

    fn at() -> Instant {
        Instant::now()
    }

    fn health(store: &Arc<AtomicBool>) -> Health {
        let store = store.clone();
        let watch = ClockWatch::new(Some(Duration::from_mins(5)), Wall::from_unix_s(0), at());
        Health::new(watch, move || if store.load(Relaxed) { Ok(()) } else { Err("store is full".to_owned()) })
    }

    async fn pass_ms(ms: u64) {
        advance(Duration::from_millis(ms)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_readiness_shows_at_once_and_a_change_only_after_it_lasted() {
        let store = Arc::new(AtomicBool::new(true));
        let health = health(&store);
        assert_eq!(health.readiness(at()), (false, vec![Reason::NotListening]));
        health.set_listening(true);
        assert!(health.readiness(at()).0, "the first readiness does not wait");

        store.store(false, Relaxed);
        assert!(health.readiness(at()).0);
        pass_ms(2_999).await;
        assert!(health.readiness(at()).0, "2.999 s are not enough");
        pass_ms(1).await;
        assert_eq!(health.readiness(at()), (false, vec![Reason::Store("store is full".into())]));

        store.store(true, Relaxed);
        assert!(!health.readiness(at()).0, "and back only after it lasted, too");
        pass_ms(3_000).await;
        assert!(health.readiness(at()).0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_blip_never_shows() {
        let store = Arc::new(AtomicBool::new(true));
        let health = health(&store);
        health.set_listening(true);
        assert!(health.readiness(at()).0);
        for _ in 0..4 {
            store.store(false, Relaxed);
            assert!(health.readiness(at()).0);
            pass_ms(2_000).await;
            assert!(health.readiness(at()).0);
            store.store(true, Relaxed);
            assert!(health.readiness(at()).0);
            pass_ms(500).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn draining_shows_at_once_and_hides_the_closed_listener() {
        let store = Arc::new(AtomicBool::new(true));
        let health = health(&store);
        health.set_listening(true);
        assert!(health.readiness(at()).0);
        health.drain();
        health.set_listening(false);
        assert_eq!(health.readiness(at()), (false, vec![Reason::Draining]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_jump_shows_to_the_stale_path_at_once_and_in_readiness_once_it_lasted() {
        let store = Arc::new(AtomicBool::new(true));
        let health = health(&store);
        health.set_listening(true);
        assert!(health.readiness(at()).0 && health.check_clock(Wall::from_unix_s(0), at()));
        assert!(!health.check_clock(Wall::from_unix_s(3_600), at()));
        assert!(!health.clock_sane());
        health.tick(Wall::from_unix_s(3_600), at());
        pass_ms(3_000).await;
        health.tick(Wall::from_unix_s(3_603), at());
        let (ready, reasons) = health.readiness(at());
        assert!(!ready);
        assert_eq!(reasons[0].code(), "clock");
    }

    #[tokio::test(start_paused = true)]
    async fn probes_get_a_status_for_their_methods_and_nothing_else_does() {
        let health = health(&Arc::new(AtomicBool::new(true)));
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            let live = health_response(&method, Probe::Live, &health, at()).expect("an answer");
            assert_eq!(live.status(), 200);
            let ready = health_response(&method, Probe::Ready, &health, at()).expect("an answer");
            assert_eq!(ready.status(), 503);
            assert_eq!(ready.headers().contains_key(header::ALLOW), method == Method::OPTIONS);
        }
        assert!(health_response(&Method::POST, Probe::Live, &health, at()).is_none());
    }
}
