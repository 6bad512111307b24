//! The admin listener: health, metrics, status, and the events API.
//!
//! Plain HTTP/1.1 on its own address, loopback unless tokens are configured. Every answer is JSON but the
//! metrics and a downloaded body; every error is a problem document that says what to do. What it shows is
//! bounded, redacted, and never rendered by a browser as anything but data.
//!
//! ```text
//! GET  /livez /readyz /healthz        also HEAD and OPTIONS; without a token
//! GET  /metrics                       OpenMetrics; role read
//! GET  /api/v1/openapi.json           all of this for programs
//! GET  /api/v1/status
//! GET  /api/v1/events                 a page of those that a filter fits
//! GET  /api/v1/events/{id}            head, headers, keys, deliveries, attempts, the beginning of the body
//! GET  /api/v1/events/{id}/body       the exact bytes
//! POST /api/v1/events/{id}/redeliver  {"upstream": "<name>"}, optional; role operate from here on
//! POST /api/v1/events/{id}/release, forget, purge
//! GET  /api/v1/operations             role read
//! POST /api/v1/operations             the same over all events that a filter fits
//! GET  /api/v1/operations/{id}        how far it got; role read
//! POST /api/v1/operations/{id}/stop, resume
//! POST /api/v1/upstreams/{name}/pause, resume
//! POST /api/v1/reload                 {"dry_run": true, "force": true}, optional: loads the configuration anew
//! GET  /api/v1/sources/{name}/failures  why webhooks were refused; role read
//! ```
//!
//! Whatever is posted is in the audit log, done or refused.

mod access;
mod answer;
pub mod api;
mod audit;
mod events;
mod failures;
mod filter;
pub mod openapi;
mod operations;
mod query;
mod redact;
mod reload;
mod route;
mod serve;
mod status;
mod upstreams;

use std::{any::Any, convert::Infallible, fmt, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::{Instant, timeout};
use tower::{Service, ServiceBuilder, service_fn};
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};

pub use failures::{FailureLog, NotExplained};
pub use operations::Operations;
pub use redact::Hidden;
pub use serve::serve;

use crate::{
    config::model::{AdminToken, Role},
    event::{EventId, Name},
    store::{EventStore, Pause, StoreError},
    telemetry::{
        Health, Metrics,
        health::{Probe, health_response},
    },
    time::Clock,
    verify::Key,
};
use access::Access;
use answer::{Answer, Problem};
use audit::Entry;
use route::{Change, Resource, Route};

/// The body of a change is a few dozen bytes of JSON.
const BODY_BYTES_MAX: usize = 64 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the gateway knows about a configured upstream and the store does not.
#[derive(Clone, Debug)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: Name,
    /// `closed`, `half-open` or `open`.
    pub breaker: &'static str,
    /// How long it has been in that state.
    pub breaker_for: Option<Duration>,
    /// How often it opened.
    pub breaker_opened_total: Option<u64>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Whether an operator paused it.
    pub paused: Option<Pause>,
}

/// What the configuration says about the store.
#[derive(Clone, Copy, Debug)]
pub struct StoreFacts {
    /// Its engine.
    pub engine: &'static str,
    /// When an append counts as durable, and what that survives.
    pub durability: &'static str,
    /// What it may take, in bytes.
    pub bytes_max: u64,
}

/// What the gateway knows about configured upstreams, asked anew for every answer.
pub type Upstreams = Box<dyn Fn() -> Vec<UpstreamStatus> + Send + Sync>;
/// Whether a source's scheme reads its proof from this header (in lower case): its value is not shown.
pub type IsSignature = Box<dyn Fn(&str, &str) -> bool + Send + Sync>;
/// What of a source's events nobody is shown; `None` if the source is not configured.
pub type HiddenOf = Box<dyn Fn(&str) -> Option<Hidden> + Send + Sync>;
/// The event keys of a source that the provider's own id may have led to; if none can be told, why.
pub type EventKeys = Box<dyn Fn(&str, &str) -> Result<Vec<Key>, String> + Send + Sync>;
/// Pauses an upstream, or lets it go on. False if there is no such upstream.
pub type SetPaused = Box<dyn Fn(String, Option<Pause>) -> BoxFuture<'static, Result<bool, StoreError>> + Send + Sync>;
/// The secrets that wait for an operator; `None` if they cannot be listed.
pub type PendingSecrets = Box<dyn Fn() -> BoxFuture<'static, Option<Vec<api::PendingSecretRow>>> + Send + Sync>;
/// `[admin] tokens`, asked for with every request: a reload may change them.
pub type Tokens = Box<dyn Fn() -> Vec<AdminToken> + Send + Sync>;
/// Loads the configuration anew.
pub type Reload =
    Box<dyn Fn(api::ReloadRequest) -> BoxFuture<'static, Result<api::ReloadAnswer, StoreError>> + Send + Sync>;
/// Which configuration is in force.
pub type ConfigState = Box<dyn Fn() -> api::ConfigRow + Send + Sync>;
/// What any of the configured sources redacts.
pub type HiddenAnywhere = Box<dyn Fn() -> Hidden + Send + Sync>;
/// How every configured source is doing, asked anew for every answer.
pub type Sources = Box<dyn Fn() -> Vec<api::SourceRow> + Send + Sync>;
/// Told after the store has forgotten the keys of these events, so that the guard forgets them too.
pub type Forgotten = Arc<dyn Fn(&[EventId]) + Send + Sync>;

/// What the gateway gives to make an [`Admin`] of.
pub struct Given {
    /// The address of the listener: without tokens, only loopback answers.
    pub listen: SocketAddr,
    /// `[admin] tokens`.
    pub tokens: Tokens,
    /// The store.
    pub store: Arc<dyn EventStore>,
    /// The health of the process.
    pub health: Arc<Health>,
    /// The metrics of the process.
    pub metrics: Arc<Metrics>,
    /// The clocks.
    pub clock: Clock,
    /// When the process started.
    pub started_at: Instant,
    /// The configured upstreams.
    pub upstreams: Upstreams,
    /// What the configuration says about the store.
    pub store_facts: StoreFacts,
    /// Which headers carry signatures, besides those whose name says so.
    pub is_signature: IsSignature,
    /// What is redacted.
    pub hidden: HiddenOf,
    /// What any of the configured sources redacts.
    pub hidden_anywhere: HiddenAnywhere,
    /// What the provider's own ids lead to.
    pub event_keys: EventKeys,
    /// Pauses upstreams.
    pub set_paused: SetPaused,
    /// Loads the configuration anew.
    pub reload: Reload,
    /// Which configuration is in force.
    pub config: ConfigState,
    /// Secrets that wait for an operator.
    pub pending_secrets: PendingSecrets,
    /// The configured sources.
    pub sources: Sources,
    /// Told of every event whose keys were freed.
    pub forgotten: Forgotten,
    /// Carries out what is done to many events.
    pub operations: Arc<Operations>,
    /// Why webhooks were refused.
    pub failures: Arc<FailureLog>,
}

/// Everything that requests to the admin listener share.
pub struct Admin {
    access: Access,
    store: Arc<dyn EventStore>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    clock: Clock,
    started_at: Instant,
    upstreams: Upstreams,
    store_facts: StoreFacts,
    is_signature: IsSignature,
    hidden: HiddenOf,
    hidden_anywhere: HiddenAnywhere,
    event_keys: EventKeys,
    set_paused: SetPaused,
    reload: Reload,
    config: ConfigState,
    pending_secrets: PendingSecrets,
    sources: Sources,
    forgotten: Forgotten,
    operations: Arc<Operations>,
    failures: Arc<FailureLog>,
    counts_kept: status::CountsKept,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Admin {
    /// Ready to answer.
    pub fn new(given: Given) -> Arc<Self> {
        Arc::new(Self {
            access: Access::new(given.listen, given.tokens),
            store: given.store,
            health: given.health,
            metrics: given.metrics,
            clock: given.clock,
            started_at: given.started_at,
            upstreams: given.upstreams,
            store_facts: given.store_facts,
            is_signature: given.is_signature,
            hidden: given.hidden,
            hidden_anywhere: given.hidden_anywhere,
            event_keys: given.event_keys,
            set_paused: given.set_paused,
            reload: given.reload,
            config: given.config,
            pending_secrets: given.pending_secrets,
            sources: given.sources,
            forgotten: given.forgotten,
            operations: given.operations,
            failures: given.failures,
            counts_kept: status::CountsKept::default(),
        })
    }
}

/// The stack, outermost first.
pub fn service<B>(
    admin: Arc<Admin>,
) -> impl Service<
    Request<B>,
    Response = Response<impl Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ 'static
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    ServiceBuilder::new()
        // Nothing shown here is a page; these stand outside the panic handler, so that its answer has them, too.
        .layer(always(header::CONTENT_SECURITY_POLICY, "default-src 'self'; base-uri 'none'; frame-ancestors 'none'"))
        .layer(always(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(always(header::REFERRER_POLICY, "no-referrer"))
        .layer(always(header::CACHE_CONTROL, "no-store"))
        .layer(CatchPanicLayer::custom(panicked))
        .service(service_fn(move |request| {
            let admin = admin.clone();
            async move { Ok(respond(&admin, request).await) }
        }))
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn always(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}

/// The panic hook has logged it; the message stays in the log.
fn panicked(_payload: Box<dyn Any + Send>) -> Answer {
    let help = "this is a bug in hookward; the log has a line of target `panic`";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "panic", "answering this request failed", help).into_answer()
}

async fn respond<B>(admin: &Admin, request: Request<B>) -> Answer
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send,
{
    let (head, body) = request.into_parts();
    try_respond(admin, &head, body).await.unwrap_or_else(Problem::into_answer)
}

async fn try_respond<B>(admin: &Admin, head: &Parts, body: B) -> Result<Answer, Problem>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send,
{
    let resource = match Route::find(&head.method, head.uri.path())? {
        Route::Probe(probe) => return Ok(answer_probe(admin, head, probe).await),
        Route::To(Resource::Change(change)) => {
            let mut entry = Entry { action: change.name(), ..Entry::default() };
            let done = try_change(admin, &mut entry, change, head, body).await;
            entry.write(done.as_ref().err());
            return done;
        }
        Route::To(resource) => resource,
    };
    let caller = admin.access.check(head, resource.role())?;
    let query = head.uri.query();
    if resource != Resource::Events {
        query::none(query)?;
    }
    match resource {
        Resource::Metrics => Ok(status::metrics(admin).await),
        Resource::Status => Ok(status::status(admin).await),
        Resource::OpenApi => Ok(openapi::openapi()),
        Resource::Events => events::list(admin, caller, query).await,
        Resource::Event(id) => events::show(admin, caller, id).await,
        Resource::Body(id) => events::body(admin, caller, id).await,
        Resource::Failures(source) => failures::list(admin, caller, &source),
        Resource::Operations => operations::list(admin, caller).await,
        Resource::Operation(id) => operations::show(admin, caller, id).await,
        Resource::Change(_) => unreachable!("it was taken above"),
    }
}

/// Changes something. What is to be told about it is noted as soon as it is known.
async fn try_change<B>(
    admin: &Admin,
    entry: &mut Entry,
    change: Change,
    head: &Parts,
    body: B,
) -> Result<Answer, Problem>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send,
{
    match &change {
        Change::Act(_, id) => entry.event = Some(*id),
        Change::Stop(id) | Change::Resume(id) => entry.operation = Some(*id),
        Change::Pause(_, name) => entry.upstream = Some(name.clone()),
        Change::Begin | Change::Reload => {}
    }
    let caller = admin.access.check(head, Role::Operate)?;
    entry.by = Some(caller);
    query::none(head.uri.query())?;
    let (headers, body) = (&head.headers, read(body).await?);
    match change {
        Change::Act(action, id) => events::act(admin, entry, action, id, headers, &body).await,
        Change::Begin => operations::begin(admin, entry, caller, headers, &body).await,
        Change::Reload => reload::reload(admin, entry, headers, &body).await,
        Change::Stop(id) => operations::stop(admin, caller, id, headers, &body).await,
        Change::Resume(id) => operations::resume(admin, id, headers, &body).await,
        Change::Pause(pausing, name) => upstreams::pause(admin, entry, caller, pausing, &name, headers, &body).await,
    }
}

/// A probe gets its answer whoever asks and whatever the Host; the detail only where no browser is tricked.
async fn answer_probe(admin: &Admin, head: &Parts, probe: Probe) -> Answer {
    if admin.access.check_browser(head).is_ok() {
        return status::probe(admin, &head.method, probe).await;
    }
    let answer = health_response(&head.method, probe, &admin.health, admin.clock.monotonic());
    answer.expect("the route took the method")
}

async fn read<B>(body: B) -> Result<Bytes, Problem>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send,
{
    let whole = timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await.map_err(|_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "body_slow", "the body took too long", "send it at once")
    })?;
    whole.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            let help = format!("a change takes at most {BODY_BYTES_MAX} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_large", "the body is too large", help)
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "body_malformed", "the body broke off", "send it whole")
        }
    })
}
