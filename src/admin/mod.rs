//! The admin listener: health, metrics, status, and the events API.
//!
//! Plain HTTP/1.1 on its own address, loopback unless tokens are configured. Every answer is JSON but the
//! metrics and a downloaded body; every error is a problem document that says what to do. What it shows is
//! bounded, redacted, and never rendered by a browser as anything but data.
//!
//! ```text
//! GET  /livez /readyz /healthz        also HEAD and OPTIONS; without a token
//! GET  /metrics                       OpenMetrics; role read
//! GET  /api/v1/status                 role read
//! GET  /api/v1/events?source=&upstream=&state=&type=&since=&until=&attempt_id=&limit=&cursor=
//! GET  /api/v1/events/{id}            head, headers, deliveries, attempts, the beginning of the body
//! GET  /api/v1/events/{id}/body       the exact bytes
//! POST /api/v1/events/{id}/redeliver  {"upstream": "<name>"}, optional; role operate
//! POST /api/v1/events/{id}/release    role operate
//! POST /api/v1/events/{id}/forget     role operate
//! POST /api/v1/events/{id}/purge      role operate
//! ```

mod access;
mod answer;
pub mod api;
mod events;
mod query;
mod route;
mod serve;
mod status;

use std::{any::Any, convert::Infallible, fmt, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::{Instant, timeout};
use tower::{Service, ServiceBuilder, service_fn};
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};

pub use serve::serve;

use crate::{
    config::model::AdminToken,
    event::{EventId, Name},
    store::EventStore,
    telemetry::{
        Health, Metrics,
        health::{Probe, health_response},
    },
    time::Clock,
};
use access::Access;
use answer::{Answer, Problem};
use route::{Resource, Route};

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
}

/// What the gateway knows about configured upstreams, asked anew for every answer.
pub type Upstreams = Box<dyn Fn() -> Vec<UpstreamStatus> + Send + Sync>;
/// Whether a source's scheme reads its proof from this header (in lower case): its value is not shown.
pub type IsSignature = Box<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// Told after the store has forgotten the keys of an event, so that the guard forgets them too.
pub type Forgotten = Box<dyn Fn(EventId) + Send + Sync>;

/// What the gateway gives to make an [`Admin`] of.
pub struct Given {
    /// The address of the listener: without tokens, only loopback answers.
    pub listen: SocketAddr,
    /// `[admin] tokens`.
    pub tokens: Vec<AdminToken>,
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
    /// Which headers carry signatures, besides those whose name says so.
    pub is_signature: IsSignature,
    /// Told of every event whose keys were freed.
    pub forgotten: Forgotten,
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
    is_signature: IsSignature,
    forgotten: Forgotten,
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
        let Given { listen, tokens, store, health, metrics, clock, started_at, upstreams, is_signature, forgotten } =
            given;
        Arc::new(Self {
            access: Access::new(listen, tokens),
            store,
            health,
            metrics,
            clock,
            started_at,
            upstreams,
            is_signature,
            forgotten,
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
        Route::To(resource) => resource,
    };
    let caller = admin.access.check(head, resource.role()).inspect_err(|problem| {
        if let Resource::Act(action, id) = resource {
            let (action, code) = (action.name(), problem.code());
            tracing::info!(target: "audit", action, event = %id, code, "somebody was not let in");
        }
    })?;
    let query = head.uri.query();
    if resource != Resource::Events {
        query::none(query)?;
    }
    match resource {
        Resource::Metrics => Ok(status::metrics(admin).await),
        Resource::Status => Ok(status::status(admin).await),
        Resource::Events => events::list(admin, query).await,
        Resource::Event(id) => events::show(admin, id).await,
        Resource::Body(id) => events::body(admin, id).await,
        Resource::Act(action, id) => {
            let body = read(body).await?;
            events::act(admin, caller, action, id, &head.headers, &body).await
        }
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
