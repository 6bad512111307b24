//! One connection, from its first byte to its end: the PROXY protocol, TLS, what is spoken, and the recipe for hyper,
//! with explicit limits on everything that it leaves open.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt};

use super::{
    client_body::ClientBody,
    connected::{Connected, Session},
    course::{Bounds, Course, SharedCourse},
    deadlined::Deadlined,
    ended::Ended,
    frames::PREFACE,
    listener::{Entrance, Guest},
    origin,
    proxy_protocol::{Announced, Header, parse},
    socket::Stream,
};
use crate::config::memory::{HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_STREAM_WINDOW_BYTES};

/// The head of a request, in bytes.
pub(super) const HEAD_BYTES_MAX: u32 = 16 << 10;
/// hyper's read and write buffer for a connection of HTTP/1.1, in bytes.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Requests at a time on a connection of HTTP/2.
pub(super) const STREAMS_MAX: u32 = 32;
/// What is kept of one answer for a client that does not read it, in bytes.
const SEND_BYTES_MAX: usize = 64 << 10;
/// Streams that the client took back and nobody looked at yet.
const TAKEN_BACK_MAX: usize = 20;
/// Streams that broke the rules.
const BROKEN_MAX: usize = 128;
/// A client that has sent nothing for so long is asked whether it is there, and has so long to say so.
const ASK_EVERY: Duration = Duration::from_secs(20);
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// A header of the PROXY protocol, and a TLS handshake, in all.
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);
const TLS_TIMEOUT: Duration = Duration::from_secs(5);
/// Once a drain began: how long a connection may still begin its last request. Closed at once, it would break one that
/// is on its way; the next process waits for as long.
const LAST_REQUEST: Duration = Duration::from_millis(500);
/// For the first byte of what may be HTTP/2 without TLS.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is spoken on a connection.
enum Spoken {
    Http1,
    Http2,
    /// Nothing: the handshake was all, as when an authority asks for the proof that a name is ours.
    Nothing,
}

/// Serves one connection to its end, and says why it ended.
pub(super) async fn serve<S>(
    stream: Stream,
    mut guest: Guest,
    entrance: Entrance,
    service: S,
    drain: CancellationToken,
    tracker: TaskTracker,
) -> Ended
where
    S: Service<(Arc<Connected>, Request<ClientBody>), Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let (bounds, displaced) = (guest.bounds(), guest.displaced());
    let begun = tokio::select! {
        biased;
        begun = begin(stream, &mut guest, &entrance, bounds) => begun,
        () = displaced => Err(Ended::Crowded),
    };
    let (wire, ahead, spoken) = match begun {
        Ok(begun) => begun,
        Err(why) => return why,
    };
    let is_http2 = match spoken {
        Spoken::Http1 => false,
        Spoken::Http2 => true,
        Spoken::Nothing => return Ended::Done,
    };
    let told = SharedCourse::new(Course::new(bounds, is_http2, Instant::now()));
    let io = TokioIo::new(Deadlined::new(wire, ahead, told.clone()));
    let peer = Arc::new(guest.connected.clone());
    let orders = Orders { drain, outdated: guest.outdated.clone(), displaced: guest.displaced() };
    let (course, guest) = (told.clone(), Arc::new(guest));
    let service = service_fn(move |request: Request<Incoming>| {
        let turn = Turn::begin(&course);
        let mut request = request.map(|body| ClientBody::new(body, course.clone()));
        if is_http2 {
            origin::from_http2(&mut request);
        }
        let (service, peer, guest) = (service.clone(), peer.clone(), guest.clone());
        async move {
            let answer = match guest.serves(request.uri().path()) {
                Ok(()) => {
                    let Ok(answer) = service.oneshot((peer, request)).await;
                    answer
                }
                Err(why) => refused(why),
            };
            Ok::<_, Infallible>(turn.end(answer, is_http2, guest.leaves()))
        }
    });
    if is_http2 {
        let connection = http2::Builder::new(Streams(tracker))
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BYTES_MAX)
            .max_pending_accept_reset_streams(TAKEN_BACK_MAX)
            .max_local_error_reset_streams(BROKEN_MAX)
            .keep_alive_interval(ASK_EVERY)
            .keep_alive_timeout(ASK_TIMEOUT)
            .serve_connection(io, service);
        drive(pin!(connection), http2::Connection::graceful_shutdown, &told, orders, Duration::ZERO).await
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .keep_alive(true)
            .half_close(false)
            .max_header_size(HEAD_BYTES_MAX as usize)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(io, service);
        drive(pin!(connection), http1::Connection::graceful_shutdown, &told, orders, LAST_REQUEST).await
    }
}

/// Everything before HTTP: whose connection it is, TLS, and what is spoken on it.
async fn begin(
    mut stream: Stream,
    guest: &mut Guest,
    entrance: &Entrance,
    bounds: Bounds,
) -> Result<(Wire, Vec<u8>, Spoken), Ended> {
    if entrance.proxy_protocol {
        let announced = timeout(PROXY_TIMEOUT, announced(&mut stream)).await;
        if !guest.announce(announced.unwrap_or(Err(Ended::ProxyProtocol))?) {
            return Err(Ended::Done);
        }
    }
    if let Some(config) = &entrance.tls {
        let offer = config();
        guest.outdated = offer.outdated;
        let handshake = TlsAcceptor::from(offer.config).accept(stream);
        let stream = timeout(TLS_TIMEOUT, handshake).await.map_err(|_| Ended::Tls)?.map_err(|error| {
            tracing::debug!(%error, peer = ?guest.connected.address, "no tls");
            Ended::Tls
        })?;
        let tls = stream.get_ref().1;
        guest.connected.tls = Some(session(tls));
        let spoken = match tls.alpn_protocol() {
            Some(b"h2") => Spoken::Http2,
            None | Some(b"http/1.1") => Spoken::Http1,
            Some(_) => Spoken::Nothing,
        };
        return Ok((Wire::Right(Box::new(stream)), Vec::new(), spoken));
    }
    let mut ahead = Vec::new();
    let spoken = if entrance.h2c { plaintext(&mut stream, &mut ahead, bounds).await? } else { Spoken::Http1 };
    Ok((Wire::Left(stream), ahead, spoken))
}

/// Reads a header of the PROXY protocol, and not a byte of what follows.
async fn announced(stream: &mut (impl AsyncRead + Unpin)) -> Result<Announced, Ended> {
    let mut head = Vec::new();
    loop {
        match parse(&head).map_err(|_| Ended::ProxyProtocol)? {
            Header::Whole(announced) => return Ok(announced),
            Header::Unfinished(more) => {
                let from = head.len();
                head.resize(from + more, 0);
                stream.read_exact(&mut head[from..]).await.map_err(|_| Ended::ProxyProtocol)?;
            }
        }
    }
}

/// Reads until it is clear whether a client begins as HTTP/2 does.
async fn plaintext(
    stream: &mut (impl AsyncRead + Unpin),
    ahead: &mut Vec<u8>,
    bounds: Bounds,
) -> Result<Spoken, Ended> {
    let until = Instant::now() + bounds.header_timeout;
    let first = Instant::now() + FIRST_BYTE_TIMEOUT.min(bounds.idle_timeout);
    let mut space = [0; PREFACE.len()];
    while ahead.len() < PREFACE.len() && PREFACE.starts_with(ahead) {
        let (at, late) = if ahead.is_empty() { (first, Ended::FirstByte) } else { (until, Ended::Head) };
        let came = timeout_at(at, stream.read(&mut space[ahead.len()..])).await.map_err(|_| late)?;
        let came = came.map_err(|_| Ended::Done)?;
        if came == 0 {
            return Err(Ended::Done);
        }
        ahead.extend_from_slice(&space[ahead.len()..][..came]);
    }
    Ok(if PREFACE.starts_with(ahead) { Spoken::Http2 } else { Spoken::Http1 })
}

/// What ends a connection from outside.
struct Orders<D> {
    drain: CancellationToken,
    /// The terms on which it was let in are no longer those of the listener.
    outdated: CancellationToken,
    /// Its place is no longer its own.
    displaced: D,
}

/// Polls a connection to its end, within the bounds of its course. Once a drain began, its answers say that they are the
/// last; after `grace` it is told to leave. (HTTP/2 has its own way to do that without breaking what is on its way.)
/// Once its terms are outdated it is told at once: no request that comes after that is served.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    leave: fn(Pin<&mut C>),
    told: &SharedCourse,
    orders: Orders<impl Future<Output = ()>>,
    grace: Duration,
) -> Ended
where
    C: Future<Output = hyper::Result<()>>,
{
    let Orders { drain, outdated, displaced } = orders;
    let (mut draining, mut outdating, mut displaced) =
        (pin!(drain.cancelled()), pin!(outdated.cancelled()), pin!(displaced));
    let mut timer = pin!(sleep_until(Instant::now()));
    // When it has to leave because of a drain.
    let mut drained_at = None;
    let mut is_outdated = false;
    let mut leaves = false;
    poll_fn(|cx| {
        loop {
            // First, so that an answer which is made now says that it is the last.
            if drained_at.is_none() && draining.as_mut().poll(cx).is_ready() {
                told.now(|course, now| {
                    course.leave(Ended::Drain, now);
                    drained_at = Some(now + grace);
                });
            }
            if !is_outdated && outdating.as_mut().poll(cx).is_ready() {
                is_outdated = true;
                told.now(|course, now| course.leave(Ended::Terms, now));
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(why(told, ended));
            }
            // Behind it, so that a request that has come is answered.
            if displaced.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ended::Crowded);
            }
            let (looked, leaving, begins, now) =
                told.now(|course, now| (course.look(now), course.leaving(), course.begins(), now));
            let mut at = match looked {
                Ok(at) => at,
                Err(why) => return Poll::Ready(why),
            };
            if let Some(why) = leaving.filter(|_| !leaves) {
                let drains = drained_at.filter(|_| why == Ended::Drain);
                if let Some(until) = drains.filter(|until| now < *until) {
                    at = at.min(until);
                // A head that has begun has its own bound, and is answered. (HTTP/2 finishes it anyway.)
                } else if !matches!(why, Ended::Drain | Ended::Terms) || grace.is_zero() || !begins {
                    leaves = true;
                    leave(connection.as_mut());
                    continue;
                }
            }
            timer.as_mut().reset(at);
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Why hyper is done with it.
fn why(told: &SharedCourse, ended: hyper::Result<()>) -> Ended {
    let (flooded, leaving) = told.now(|course, _| (course.is_flooded(), course.leaving()));
    let Err(error) = ended else { return leaving.unwrap_or(Ended::Done) };
    tracing::debug!(%error, "connection ended");
    let is_io = std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<io::Error>);
    let left = is_io || error.is_incomplete_message() || error.is_closed() || error.is_timeout();
    match leaving {
        _ if flooded => Ended::Flood,
        Some(why) => why,
        None if left => Ended::Done,
        None => Ended::Protocol,
    }
}

/// One request in service. Dropped before its end, it had none.
struct Turn(Option<SharedCourse>);

impl Turn {
    fn begin(told: &SharedCourse) -> Self {
        told.now(Course::asked);
        Self(Some(told.clone()))
    }

    /// The answer, as it goes out: on HTTP/1.1 the last one says that it is. `leaves`: why it is the last, if it is
    /// because of its connection.
    fn end(
        mut self,
        mut answer: Response<Full<Bytes>>,
        is_http2: bool,
        leaves: Option<Ended>,
    ) -> Response<Full<Bytes>> {
        let closes = answer.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
        let is_last = self.0.take().is_some_and(|told| {
            told.now(|course, now| {
                // What is left of a body ends its stream there, and the connection here.
                if let Some(why) = leaves.or((closes && !is_http2).then_some(Ended::Done)) {
                    course.leave(why, now);
                }
                course.answered(now)
            })
        });
        if is_http2 {
            answer.headers_mut().remove(header::CONNECTION);
        } else if is_last {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            told.now(Course::served);
        }
    }
}

/// What is answered on a connection that serves probes alone, if it asks for more than health.
fn refused(why: Ended) -> Response<Full<Bytes>> {
    let detail = match why {
        Ended::Terms => "connect anew and send it again",
        _ => "too many connections: send it again",
    };
    let body = format!(
        "{{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"{detail}\"}}"
    );
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// Where hyper puts the streams of HTTP/2: among the tasks that a drain waits for. What is refused by its head alone is
/// answered on the spot: a client that asks and asks would else hold heads, and bytes of bodies, of requests that nobody
/// has looked at yet.
#[derive(Clone, Debug)]
struct Streams(TaskTracker);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let mut stream = Box::pin(stream);
        if (&mut stream).now_or_never().is_none() {
            self.0.spawn(stream);
        }
    }
}

/// What the handshake showed of the client.
fn session(tls: &rustls::ServerConnection) -> Session {
    let chain = tls.peer_certificates();
    Session { client_chain: chain.map(|chain| chain.iter().map(|der| der.as_ref().into()).collect()) }
}

/// A connection's bytes, as HTTP sees them: plain, or out of TLS.
type Wire = Either<Stream, Box<TlsStream<Stream>>>;

#[cfg(test)]
mod tests;
