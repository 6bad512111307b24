//! The listener: HTTP/1.1 with a bound on everything.

use std::{io, pin::pin, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Admin, service};

const CONNECTIONS_MAX: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// A peer that does not read its answers keeps a connection no longer than this.
const CONNECTION_AGE_MAX: Duration = Duration::from_mins(5);
/// What runs when a connection has to end may still finish.
const GRACE: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the admin listener until `shutdown` resolves; then finishes what runs, for a few seconds at most.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let (closing, _) = tokio::sync::watch::channel(());
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &free) => match accepted {
                Ok((stream, permit)) => {
                    let mut closed = closing.subscribe();
                    let admin = admin.clone();
                    connections.spawn(async move {
                        let _permit = permit;
                        let end = async {
                            tokio::select! {
                                _ = closed.changed() => {}
                                () = sleep(CONNECTION_AGE_MAX) => {}
                            }
                        };
                        serve_connection(stream, admin, end).await;
                    });
                }
                Err(error) => {
                    // Out of file descriptors, mostly: it passes, and the listener must outlive it.
                    tracing::warn!(%error, "failed to accept an admin connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    drop(closing);
    while connections.join_next().await.is_some() {}
}

async fn accept(listener: &TcpListener, free: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = free.clone().acquire_owned().await.expect("the semaphore is never closed");
    Ok((listener.accept().await?.0, permit))
}

async fn serve_connection(stream: TcpStream, admin: Arc<Admin>, end: impl Future<Output = ()>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(true)
        .half_close(false)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service(admin)));
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = end => {
            connection.as_mut().graceful_shutdown();
            match timeout(GRACE, connection).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an admin connection ended early");
    }
}
