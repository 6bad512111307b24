//! Plaintext listeners: HTTP/1.1 with explicit limits on everything that hyper leaves open.
//!
//! hyper's own header timer also runs while a kept-alive connection is idle, so it cannot tell a slow head from
//! a balancer that keeps its connection warm. `Deadlined` tells them apart: idle until the first byte, then a
//! head until the service is called, then no read deadline (the body has its own) until the answer is ready.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt};

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

/// How long a client may refuse to read an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// hyper's read and write buffer for a connection, in bytes.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Serves a listener until `drain` is cancelled, then closes it and ends each connection after its present
/// request. `count` is told the number of open connections whenever it changes, and `None` when one was refused.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    limits: ConnectionLimits,
    drain: CancellationToken,
    connections: TaskTracker,
    count: impl Fn(Option<usize>) + Clone + Send + Sync + 'static,
) where
    S: Service<(SocketAddr, Request<Incoming>), Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = tokio::select! {
            () = drain.cancelled() => return,
            accepted = listener.accept() => accepted,
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
        if open.load(Relaxed) >= limits.connections_max {
            count(None);
            continue; // dropped: closed
        }
        count(Some(open.fetch_add(1, Relaxed) + 1));
        let place = Place { open: open.clone(), count: count.clone() };
        let connection = connection(stream, peer, service.clone(), limits.clone(), drain.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
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

async fn connection<S>(
    stream: TcpStream,
    peer: SocketAddr,
    service: S,
    limits: ConnectionLimits,
    drain: CancellationToken,
) where
    S: Service<(SocketAddr, Request<Incoming>), Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let _ = stream.set_nodelay(true);
    let phase = Arc::new(AtomicU8::new(IDLE));
    let io = Deadlined::new(stream, phase.clone(), limits);
    let service = service_fn(move |request: Request<Incoming>| {
        phase.store(BUSY, Relaxed);
        let (service, phase) = (service.clone(), phase.clone());
        async move {
            let answer = service.oneshot((peer, request)).await;
            phase.store(IDLE, Relaxed);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .keep_alive(true)
        .half_close(false)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "connection ended");
    }
}

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

/// A stream with deadlines for what the peer does not do.
#[derive(Debug)]
struct Deadlined<S> {
    stream: S,
    phase: Arc<AtomicU8>,
    limits: ConnectionLimits,
    /// The phase that the read timer was set for, and the timer.
    reading: (u8, Pin<Box<Sleep>>),
    writing: Option<Pin<Box<Sleep>>>,
}

impl<S> Deadlined<S> {
    fn new(stream: S, phase: Arc<AtomicU8>, limits: ConnectionLimits) -> Self {
        // A new connection has as long for its first byte as a head has in all.
        let first = Instant::now() + limits.header_timeout.min(limits.idle_timeout);
        Self { stream, phase, limits, reading: (IDLE, Box::pin(sleep_until(first))), writing: None }
    }

    /// Sets the read timer anew if the phase changed since.
    fn follow_phase(&mut self) -> u8 {
        let phase = self.phase.load(Relaxed);
        if phase != self.reading.0 {
            let timeout = if phase == HEAD { self.limits.header_timeout } else { self.limits.idle_timeout };
            self.reading.0 = phase;
            self.reading.1.as_mut().reset(Instant::now() + timeout);
        }
        phase
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Deadlined<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if let Poll::Ready(done) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            if buf.filled().len() > before {
                let _ = self.phase.compare_exchange(IDLE, HEAD, Relaxed, Relaxed);
                self.follow_phase();
            }
            return Poll::Ready(done);
        }
        if self.follow_phase() == BUSY {
            return Poll::Pending;
        }
        ready!(self.reading.1.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client sent nothing in time")))
    }
}

impl<S: AsyncWrite + Unpin> Deadlined<S> {
    /// Fails a write that has been pending for too long.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.writing = None;
            return polled;
        }
        let timer = self.writing.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_TIMEOUT)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not read its answer in time")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Deadlined<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.bounded(cx, polled)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.bounded(cx, polled)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.bounded(cx, polled)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
