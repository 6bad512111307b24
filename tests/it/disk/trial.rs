//! A gateway, three upstreams that live or die together, and what was sent.

use std::{collections::HashSet, fmt::Write as _, fs, path::PathBuf, time::Duration};

use hookward::time::Clock;
use tempfile::TempDir;

use super::{
    BODY_BYTES,
    small::{SmallDisk, hookward_on},
};
use crate::{
    running::{Gateway, hookward, pause},
    world::{Act, Reply, Upstream, request, sign, within},
};

const SECRET: &str = "a-secret-of-some-length";
/// What one upstream may take of the store is bounded; three together may fill it.
const UPSTREAMS: [&str; 3] = ["one", "two", "three"];

pub(super) struct Trial {
    gateway: Gateway,
    upstream: Upstream,
    disk: Option<SmallDisk>,
    store: PathBuf,
    _home: TempDir,
    /// How many webhooks were made; their bodies and their sources follow from their numbers.
    made: u32,
    accepted: Vec<u32>,
    store_bytes_most: u64,
}

impl Trial {
    pub(super) async fn on_a_disk_of(size: &str) -> Self {
        Self::start(Some(size), "", None).await
    }

    pub(super) async fn with_store_keys(keys: &str) -> Self {
        Self::start(None, keys, None).await
    }

    /// With one of the upstreams not there at all.
    pub(super) async fn without(upstream: &'static str, keys: &str) -> Self {
        Self::start(None, keys, Some(upstream)).await
    }

    async fn start(disk_size: Option<&str>, store_keys: &str, dead: Option<&str>) -> Self {
        let home = TempDir::new().expect("a directory");
        let place = home.path().join("disk");
        let store = place.join("data");
        let upstream = Upstream::start().await;
        let mut configuration = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [store]\npath = \"{}\"\n{store_keys}\n",
            store.display()
        );
        for name in UPSTREAMS {
            // Nothing listens at port 1.
            let url = if dead == Some(name) { "http://127.0.0.1:1/".to_owned() } else { upstream.url() };
            let part = write!(
                configuration,
                "[sources.{name}]\nprovider = \"partssource\"\nsecrets = [{{ value = \"{SECRET}-{name}\" }}]\n\
                 upstream = \"{name}\"\n[upstreams.{name}]\nurl = \"{url}\"\nbreaker = {{ failures = 10000 }}\n\
                 retry = {{ first = \"2s\", factor = 1.0, max = \"2s\" }}\n"
            );
            part.expect("memory takes it");
        }
        let command = disk_size.map_or_else(hookward, |size| hookward_on(size, &place));
        let gateway = Gateway::start_as(command, home.path(), &configuration);
        let disk = disk_size.map(|_| SmallDisk::of(gateway.id(), &place));
        Self { gateway, upstream, disk, store, _home: home, made: 0, accepted: Vec::new(), store_bytes_most: 0 }
    }

    pub(super) fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("it is on a disk of its own")
    }

    /// From now on every attempt is answered 503.
    pub(super) fn upstream_fails(&self) {
        self.upstream.script((0..100_000).map(|_| Act::Answer(503, "")));
    }
    pub(super) fn upstream_works(&self) {
        self.upstream.forget_script();
    }

    pub(super) async fn deliver_history(&mut self, count: usize) {
        for _ in 0..count {
            let number = self.new_webhook();
            assert_eq!(self.send(number).await.ack().0, "accepted");
        }
        self.settled().await;
        assert_eq!(self.delivered(), count);
    }

    /// How many delivered events are kept.
    pub(super) fn delivered(&self) -> usize {
        let listed = self.gateway.json(&["events", "list", "--state", "delivered", "--limit", "500"]);
        listed["events"].as_array().expect("a list").len()
    }

    /// Goes on until a webhook is refused for good, because there is no history left that could make room for it.
    /// Each refusal has to say when to come again. Returns the number of what was refused.
    pub(super) async fn send_until_refused(&mut self) -> u32 {
        loop {
            let number = self.new_webhook();
            assert!(number < 1000, "so much does not fit");
            loop {
                // Before the webhook: whatever history there is by then could have made room.
                let history = self.delivered();
                if self.is_accepted(number).await {
                    break;
                }
                if history == 0 {
                    return number;
                }
                // On a disk that others filled history is removed, and given back to the disk, a little later.
                pause().await;
            }
        }
    }

    /// Sends again, as providers do, until it is taken.
    pub(super) async fn until_accepted(&mut self, refused: u32) {
        let accepted = async {
            while !self.is_accepted(refused).await {
                pause().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), accepted).await.expect("there is room by then");
    }

    /// Sends it. It is taken as something new, or refused and asked to come again.
    async fn is_accepted(&mut self, number: u32) -> bool {
        let reply = self.send(number).await;
        if reply.status == 200 {
            assert_eq!(reply.ack().0, "accepted", "nothing of a refused webhook is remembered");
            return true;
        }
        assert_eq!(reply.status, 503, "{}", reply.text());
        let seconds = reply.headers.get("retry-after").and_then(|text| text.parse::<u32>().ok());
        assert!(seconds.is_some_and(|seconds| (1..=60).contains(&seconds)), "{}", reply.head);
        false
    }

    /// Sends something new to the source of an upstream. Returns its number, and its id where it is accepted.
    pub(super) async fn send_to(&mut self, upstream: &str) -> (u32, Option<String>) {
        let number = loop {
            let number = self.new_webhook();
            if source_of(number) == upstream {
                break number;
            }
        };
        let reply = self.send(number).await;
        if reply.status == 503 {
            assert!(reply.headers.contains_key("retry-after"), "{}", reply.head);
            return (number, None);
        }
        let (word, id) = reply.ack();
        assert_eq!(word, "accepted");
        (number, Some(id))
    }

    /// An operator gives up on an event.
    pub(super) async fn purge(&self, id: &str) {
        let path = format!("/api/v1/events/{id}/purge");
        let reply = request(self.gateway.admin, "POST", &path, &[("content-type", "application/json")], b"").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// The upstreams that are there have got everything.
    pub(super) async fn arrives(&self, count: usize) {
        let received = self.upstream.wait_for(count).await;
        assert_eq!(received.len(), count);
    }

    /// Every body that was accepted came, and nothing is left to do.
    pub(super) async fn everything_accepted_arrives(&self) {
        let status = self.settled().await;
        let received: HashSet<_> = self.upstream.received().into_iter().map(|one| one.body.to_vec()).collect();
        for number in &self.accepted {
            assert!(received.contains(&body(*number)), "{number} was accepted and did not arrive");
        }
        for upstream in status["upstreams"].as_array().expect("a list") {
            for state in ["held", "parked", "dead"] {
                assert_eq!(upstream[state], 0, "{status:#}");
            }
        }
    }

    pub(super) async fn assert_readiness_names_the_disk(&self, what_to_do: &str) {
        let detail = self.gateway.until_readiness(503).await;
        let reason = &detail["reasons"][0];
        assert_eq!(reason["code"], "store", "{detail:#}");
        let text = reason["detail"].as_str().expect("text");
        let names_it = text.contains(&self.store.display().to_string()) && text.contains(what_to_do);
        assert!(names_it, "which disk, and what to do: {text}");
    }
    pub(super) async fn until_ready(&self) {
        self.gateway.until_readiness(200).await;
    }

    pub(super) fn store_bytes_most(&self) -> u64 {
        self.store_bytes_most
    }

    /// Returns the log.
    pub(super) fn end(self) -> String {
        let (code, log) = self.gateway.end();
        assert_eq!(code, Some(0), "{log}");
        log
    }

    /// Waits until nothing is due or being delivered, and returns the status.
    async fn settled(&self) -> serde_json::Value {
        within("everything to be delivered", async {
            loop {
                let status = request(self.gateway.admin, "GET", "/api/v1/status", &[], b"").await.json();
                let open = |upstream: &serde_json::Value| upstream["due"] != 0 || upstream["leased"] != 0;
                if !status["upstreams"].as_array().expect("a list").iter().any(open) {
                    return status;
                }
                pause().await;
            }
        })
        .await
    }

    fn new_webhook(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    async fn send(&mut self, number: u32) -> Reply {
        let (name, body) = (source_of(number), body(number));
        let headers = sign("partssource", &format!("{SECRET}-{name}"), &body, Clock::system().wall().unix_s());
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let reply = request(self.gateway.public, "POST", &format!("/hooks/{name}"), &headers, &body).await;
        if reply.status == 200 {
            self.accepted.push(number);
        }
        self.measure();
        reply
    }

    /// Notes how large the files of the store are.
    fn measure(&mut self) {
        let Ok(entries) = fs::read_dir(&self.store) else { return };
        let bytes = entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum();
        self.store_bytes_most = self.store_bytes_most.max(bytes);
    }
}

fn source_of(number: u32) -> &'static str {
    UPSTREAMS[number as usize % UPSTREAMS.len()]
}

fn body(number: u32) -> Vec<u8> {
    let mut body = number.to_be_bytes().repeat(BODY_BYTES / 4);
    // Of different lengths, so that they fill pages to different degrees.
    body.truncate(BODY_BYTES - number as usize % 7_000);
    body
}
