//! The upstream of every row: takes each request whole, and answers it or never does.

use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Healthy,
    /// Accepts connections, reads requests, answers none.
    Hung,
}

impl Behaviour {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Hung => "hung",
        }
    }
}

/// Stops when dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    received: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Upstream {
    pub(crate) async fn start(behaviour: Behaviour) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("failed to listen as the upstream")?;
        let address = listener.local_addr().context("failed to learn the upstream's address")?;
        let received = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(accept(listener, behaviour, received.clone())).abort_handle();
        Ok(Self { address, received, task })
    }

    /// Requests read whole, so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, behaviour: Behaviour, received: Arc<AtomicU64>) {
    // The connections end with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, behaviour, received.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, behaviour: Behaviour, received: Arc<AtomicU64>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let received = received.clone();
        async move {
            if request.into_body().collect().await.is_ok() {
                received.fetch_add(1, Ordering::Relaxed);
            }
            if behaviour == Behaviour::Hung {
                pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"taken"))))
        }
    });
    // A peer that goes away ends the connection with an error; there is nobody to tell.
    let _ = stream.set_nodelay(true);
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}
