//! A gateway under libfaketime: its wall clock is what a file says, its monotonic clock is the real one.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use hookward::time::Clock;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::RETRY;
use crate::{
    running::{Gateway, hookward, pause},
    world::{Reply, request, sign, within},
};

const SECRET: &str = "a-secret-of-some-length";

/// Where the clock is set.
pub(super) struct Jump {
    /// As libfaketime reads it.
    pub(super) offset: &'static str,
    pub(super) seconds: i64,
    /// How readiness calls it.
    pub(super) word: &'static str,
}

/// A webhook as it goes over the wire, again and again.
pub(super) struct Webhook {
    path: &'static str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Webhook {
    /// Signed at the true time.
    pub(super) fn timed(body: &[u8]) -> Self {
        let headers = sign("partssource", &format!("{SECRET}-timed"), body, Clock::system().wall().unix_s());
        Self { path: "/hooks/timed", headers, body: body.to_vec() }
    }
    /// Of a provider that signs no time.
    pub(super) fn untimed(body: &[u8]) -> Self {
        let headers = sign("github", &format!("{SECRET}-untimed"), body, 0);
        Self { path: "/hooks/untimed", headers, body: body.to_vec() }
    }
}

pub(super) struct Trial {
    gateway: Gateway,
    upstream: Upstream,
    home: TempDir,
}

impl Trial {
    pub(super) async fn start() -> Self {
        let home = TempDir::new().expect("a directory");
        let upstream = Upstream::start().await;
        let source = |name: &str, provider: &str| {
            format!(
                "[sources.{name}]\nprovider = \"{provider}\"\nsecrets = [{{ value = \"{SECRET}-{name}\" }}]\n\
                 upstream = \"up\"\n"
            )
        };
        let configuration = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [store]\npath = \"data\"\n[replay]\ncapacity = 1\nuntimed_horizon = \"24h\"\nevent_horizon = \"24h\"\n\
             [upstreams.up]\nurl = \"{}\"\nbreaker = {{ failures = 10000 }}\n\
             retry = {{ first = \"{}ms\", factor = 1.0, max = \"{}ms\", for = \"1h\" }}\n{}{}",
            upstream.url,
            RETRY.as_millis(),
            RETRY.as_millis(),
            source("timed", "partssource"),
            source("untimed", "github"),
        );
        let offset = home.path().join("offset");
        fs::write(&offset, "+0").expect("written");
        let mut command = hookward();
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
        let gateway = Gateway::start_as(command, home.path(), &configuration);
        Self { gateway, upstream, home }
    }

    pub(super) fn jump(&self, jump: &Jump) {
        self.set(jump.offset);
    }
    pub(super) fn return_to_true_time(&self) {
        self.set("+0");
    }

    /// In one step, because the file is read all the time.
    fn set(&self, offset: &str) {
        let next = self.home.path().join("offset.next");
        fs::write(&next, offset).expect("written");
        fs::rename(next, self.home.path().join("offset")).expect("it takes its place");
    }

    async fn send(&self, webhook: &Webhook) -> Reply {
        let headers: Vec<_> = webhook.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        request(self.gateway.public, "POST", webhook.path, &headers, &webhook.body).await
    }

    /// Sends it as something new, and returns its id.
    pub(super) async fn accepted(&self, webhook: &Webhook) -> String {
        let (word, id) = self.send(webhook).await.ack();
        assert_eq!(word, "accepted");
        id
    }
    /// Sends it as something known, and returns the id of the first.
    pub(super) async fn duplicate(&self, webhook: &Webhook) -> String {
        let (word, id) = self.send(webhook).await.ack();
        assert_eq!(word, "duplicate");
        id
    }
    /// Sends it while nobody can tell whether it is stale.
    pub(super) async fn asked_to_come_again(&self, webhook: &Webhook) {
        let reply = self.send(webhook).await;
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(reply.headers.contains_key("retry-after"), "{}", reply.head);
    }

    pub(super) async fn until_readiness_names_the_clock(&self, jump: &Jump) {
        let detail = self.gateway.until_readiness(503).await;
        let reason = &detail["reasons"][0];
        assert_eq!(reason["code"], "clock", "{detail:#}");
        let text = reason["detail"].as_str().expect("text");
        assert!(text.contains("wall clock jumped") && text.contains(jump.word), "{text}");
    }
    pub(super) async fn until_ready(&self) {
        self.gateway.until_readiness(200).await;
    }

    async fn event(&self, id: &str) -> serde_json::Value {
        let path = format!("/api/v1/events/{id}");
        request(self.gateway.admin, "GET", &path, &[], b"").await.json()["event"].clone()
    }

    /// That the gateway was shown another time than there is: else nothing was tried.
    pub(super) async fn assert_received_in_faked_time(&self, id: &str, jump: &Jump) {
        let event = self.event(id).await;
        let received: jiff::Timestamp = event["received_at"].as_str().expect("a time").parse().expect("a time");
        let off = received.as_second() - Clock::system().wall().unix_s();
        assert!((off - jump.seconds).abs() < 60, "{off} s off, not {} s", jump.seconds);
    }

    pub(super) async fn state(&self, id: &str) -> String {
        let event = self.event(id).await;
        let state = event["deliveries"][0]["state"].as_str().expect("a state").to_owned();
        // One that is just being tried is as good.
        if state == "leased" { "due".to_owned() } else { state }
    }
    pub(super) async fn until_state(&self, id: &str, wanted: &str) {
        within("the delivery", async {
            while self.state(id).await != wanted {
                pause().await;
            }
        })
        .await;
    }

    pub(super) fn upstream_refuses(&self, body: &'static [u8]) {
        *self.upstream.refused.lock().expect("no panic") = Some(body);
    }
    pub(super) fn upstream_takes_all(&self) {
        *self.upstream.refused.lock().expect("no panic") = None;
    }

    /// How often a body came, once it came so often.
    pub(super) async fn attempts(&self, body: &[u8], at_least: usize) -> usize {
        within("attempts", async {
            loop {
                let count = self.upstream.count(body);
                if count >= at_least {
                    return count;
                }
                pause().await;
            }
        })
        .await
    }

    pub(super) fn end(self) {
        let (code, log) = self.gateway.end();
        assert_eq!(code, Some(0), "{log}");
    }
}

/// The library of the Debian package `faketime`, for programs with threads.
fn library() -> PathBuf {
    let found = glob::glob("/usr/lib/*/faketime/libfaketimeMT.so.1").expect("a pattern").flatten().next();
    found.expect("the package `faketime` is installed")
}

/// Takes everything but one body, which it answers with 503.
struct Upstream {
    url: String,
    received: Arc<Mutex<Vec<Bytes>>>,
    refused: Arc<Mutex<Option<&'static [u8]>>>,
}

impl Upstream {
    fn count(&self, body: &[u8]) -> usize {
        self.received.lock().expect("no panic").iter().filter(|one| one[..] == *body).count()
    }

    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let url = format!("http://{}/in", listener.local_addr().expect("an address"));
        let received: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let refused: Arc<Mutex<Option<&'static [u8]>>> = Arc::default();
        let shared = (received.clone(), refused.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (received, refused) = shared.clone();
                let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (received, refused) = (received.clone(), refused.clone());
                    async move {
                        let body = request.into_body().collect().await?.to_bytes();
                        let is_refused = *refused.lock().expect("no panic") == Some(&body[..]);
                        received.lock().expect("no panic").push(body);
                        let mut response = http::Response::new(Full::new(Bytes::new()));
                        *response.status_mut() =
                            if is_refused { http::StatusCode::SERVICE_UNAVAILABLE } else { http::StatusCode::OK };
                        Ok::<_, hyper::Error>(response)
                    }
                });
                let io = TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
            }
        });
        Self { url, received, refused }
    }
}
