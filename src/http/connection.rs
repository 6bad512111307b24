//! One connection: the recipe for hyper, with explicit limits on everything that it leaves open.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use super::{
    connected::{Connected, Session},
    deadlined::{BUSY, Deadlined, IDLE, LAST},
    listener::{ConnectionLimits, Entrance},
    socket::Stream,
    tls::ACME_PROTOCOL,
};

/// The head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// hyper's read and write buffer for a connection, in bytes.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// A TLS handshake in all.
const TLS_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn serve<S>(
    stream: Stream,
    mut connected: Connected,
    entrance: Entrance,
    service: S,
    limits: ConnectionLimits,
    drain: CancellationToken,
) where
    S: Service<(Arc<Connected>, Request<Incoming>), Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let wire = match &entrance.tls {
        None => Wire::Plain(stream),
        Some(config) => {
            let handshake = TlsAcceptor::from(config()).accept(stream);
            let stream = match timeout(TLS_TIMEOUT, handshake).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, peer = ?connected.address, "no tls"),
                Err(_) => return tracing::debug!(peer = ?connected.address, "no tls in time"),
            };
            // That handshake was the whole of it: an authority looked at a name.
            if stream.get_ref().1.alpn_protocol() == Some(ACME_PROTOCOL) {
                return;
            }
            connected.tls = Some(session(stream.get_ref().1));
            Wire::Tls(Box::new(stream))
        }
    };
    let phase = Arc::new(AtomicU8::new(IDLE));
    let address = connected.address;
    let peer = Arc::new(connected);
    let io = Deadlined::new(wire, phase.clone(), limits);
    let service = service_fn(move |request: Request<Incoming>| {
        phase.store(BUSY, Relaxed);
        let (service, phase, peer) = (service.clone(), phase.clone(), peer.clone());
        async move {
            let Ok(answer) = service.oneshot((peer, request)).await;
            let closes = answer.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
            phase.store(if closes { LAST } else { IDLE }, Relaxed);
            Ok::<_, Infallible>(answer)
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
        tracing::debug!(%error, peer = ?address, "connection ended");
    }
}

/// What the handshake showed of the client.
fn session(tls: &rustls::ServerConnection) -> Session {
    let chain = tls.peer_certificates();
    Session { client_chain: chain.map(|chain| chain.iter().map(|der| der.as_ref().into()).collect()) }
}

/// A connection's bytes, as HTTP sees them.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(Stream),
    Tls(Box<TlsStream<Stream>>),
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
