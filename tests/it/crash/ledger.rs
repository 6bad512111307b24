//! An upstream that writes down what it gets, and fails at once if it gets something again without a reason.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::task::TaskTracker;

use crate::world::within;

/// What is known of one event.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) body: Bytes,
    /// How often it came.
    pub(super) forwards: usize,
    /// It was answered with 200, or would have been had the gateway lived to hear it.
    taken: bool,
}

pub(super) struct Ledger {
    pub(super) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    entries: Mutex<HashMap<String, Entry>>,
    complaints: Mutex<Vec<String>>,
    /// Every so many requests one is answered 503; zero for none.
    fails_every: usize,
    requests: AtomicUsize,
    /// Answers wait while this is set.
    withheld: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Ledger {
    pub(super) async fn start(fails_every: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let url = format!("http://{}/in", listener.local_addr().expect("an address"));
        let shared = Arc::new(Shared {
            entries: Mutex::default(),
            complaints: Mutex::default(),
            fails_every,
            requests: AtomicUsize::new(0),
            withheld: watch::Sender::new(false),
            waiting: watch::Sender::new(0),
        });
        let served = shared.clone();
        tokio::spawn(async move {
            let connections = TaskTracker::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = served.clone();
                let service = hyper::service::service_fn(move |request| answer(shared.clone(), request));
                let io = TokioIo::new(stream);
                // An error is a connection whose gateway was killed.
                connections.spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
            }
        });
        Self { url, shared }
    }

    /// From now on what comes is taken, and the answer is kept back.
    pub(super) fn withhold_answers(&self) {
        self.shared.withheld.send_replace(true);
    }
    /// Waits until at least one answer is kept back.
    pub(super) async fn withheld_some(&self) {
        let mut waiting = self.shared.waiting.subscribe();
        within("an attempt", waiting.wait_for(|waiting| *waiting > 0)).await.expect("it is there");
    }
    pub(super) fn answer_again(&self) {
        self.shared.withheld.send_replace(false);
        self.shared.waiting.send_replace(0);
    }

    /// Everything that came, by event id. Panics if something came that should not have.
    pub(super) fn entries(&self) -> HashMap<String, Entry> {
        let complaints = self.shared.complaints.lock().expect("no panic");
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
        self.shared.entries.lock().expect("no panic").clone()
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    // A body cut by a kill reached nobody.
    let body = body.collect().await?.to_bytes();
    let status = shared.enter(&head.headers, &body);
    if *shared.withheld.borrow() {
        shared.waiting.send_modify(|waiting| *waiting += 1);
        let mut withheld = shared.withheld.subscribe();
        let _ = withheld.wait_for(|withheld| !withheld).await;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(b"taken")));
    *response.status_mut() = status;
    Ok(response)
}

impl Shared {
    fn enter(&self, headers: &http::HeaderMap, body: &Bytes) -> http::StatusCode {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (id, attempt) = (header("hookward-event-id").to_owned(), header("hookward-attempt"));
        let uncertain = header("hookward-uncertain") == "true";
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut entries = self.entries.lock().expect("no panic");
        let entry = entries.entry(id.clone()).or_insert(Entry { body: body.clone(), forwards: 0, taken: false });
        entry.forwards += 1;
        let complaint = if entry.body != *body {
            Some("came with another body")
        } else if entry.taken && !uncertain {
            Some("was taken, and came again as if nobody had")
        } else if entry.forwards > 1 && attempt == "1" && !uncertain {
            Some("came again as a first attempt")
        } else {
            None
        };
        if let Some(complaint) = complaint {
            let mut complaints = self.complaints.lock().expect("no panic");
            complaints.push(format!("event {id} {complaint} (attempt {attempt}, {} forwards)", entry.forwards));
        }
        // What it has taken it takes again, as an idempotent upstream does.
        let fails = self.fails_every > 0 && request.is_multiple_of(self.fails_every) && !entry.taken;
        entry.taken |= !fails;
        if fails { http::StatusCode::SERVICE_UNAVAILABLE } else { http::StatusCode::OK }
    }
}
