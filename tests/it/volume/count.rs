//! An upstream that counts how often each event came.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU32, Ordering},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{pause, senders};

pub(super) struct Counting {
    pub(super) url: String,
    counts: Arc<Counts>,
}

struct Counts {
    times: Vec<AtomicU8>,
    /// How many came at least once.
    came: AtomicU32,
}

impl Counting {
    pub(super) async fn start(events: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let url = format!("http://{}/in", listener.local_addr().expect("an address"));
        let times = (0..events).map(|_| AtomicU8::new(0)).collect();
        let counts = Arc::new(Counts { times, came: AtomicU32::new(0) });
        let shared = counts.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counts = shared.clone();
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let counts = counts.clone();
                    async move {
                        counts.note(&request.into_body().collect().await?.to_bytes());
                        Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from_static(b"taken"))))
                    }
                });
                let io = TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
            }
        });
        Self { url, counts }
    }

    pub(super) async fn until_all_came(&self) {
        while (self.counts.came.load(Ordering::Relaxed) as usize) < self.counts.times.len() {
            pause().await;
        }
    }

    pub(super) fn assert_once_each(&self) {
        let others = self.counts.times.iter().enumerate().map(|(event, times)| (event, times.load(Ordering::Relaxed)));
        let others: Vec<_> = others.filter(|(_, times)| *times != 1).take(10).collect();
        assert!(others.is_empty(), "events and how often they came: {others:?}");
    }
}

impl Counts {
    /// A body that is not what was sent fails the test: its event never comes.
    fn note(&self, body: &Bytes) {
        let number = senders::number(body).filter(|number| senders::body(*number) == *body);
        if let Some(times) = number.and_then(|number| self.times.get(number as usize))
            && times.fetch_add(1, Ordering::Relaxed) == 0
        {
            self.came.fetch_add(1, Ordering::Relaxed);
        }
    }
}
