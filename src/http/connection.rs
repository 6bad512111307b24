//! One connection: the recipe for hyper, with explicit limits on everything that it leaves open.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use super::{
    connected::Connected,
    deadlined::{BUSY, Deadlined, IDLE, LAST},
    listener::ConnectionLimits,
    socket::Stream,
};

/// The head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// hyper's read and write buffer for a connection, in bytes.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Once a drain began: how long a connection may still begin its last request. Closed at once, it would break one that
/// is on its way; the next process waits for as long.
const LAST_REQUEST: Duration = Duration::from_millis(500);

pub(super) async fn serve<S>(
    stream: Stream,
    connected: Connected,
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
    let phase = Arc::new(AtomicU8::new(IDLE));
    let address = connected.address;
    let peer = Arc::new(connected);
    let io = Deadlined::new(stream, phase.clone(), limits);
    let is_last = drain.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        phase.store(BUSY, Relaxed);
        let (service, phase, peer) = (service.clone(), phase.clone(), peer.clone());
        let is_last = is_last.clone();
        async move {
            let Ok(mut answer) = service.oneshot((peer, request)).await;
            if is_last.is_cancelled() {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
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
        () = last_request(&drain) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, peer = ?address, "connection ended");
    }
}

/// Resolves when no connection may begin a request any more.
async fn last_request(drain: &CancellationToken) {
    drain.cancelled().await;
    sleep(LAST_REQUEST).await;
}
