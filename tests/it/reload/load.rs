//! Reloads while clients send without a pause, each on one connection that must never end.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::{Notify, RwLock},
    task::JoinSet,
};

use super::{Reloading, SECRET, lines, source, with_secret};
use crate::{
    counts::reduced,
    world::{NOW_S, Upstream, read_reply, sign, within},
};

const CLIENTS: usize = 6;

/// Clients that send until they are told to stop.
struct Load {
    /// The secret that counts for whoever signs now. Held while a request is under way.
    secret: Arc<RwLock<String>>,
    sent: Arc<AtomicUsize>,
    told: Arc<Notify>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<usize>,
}

impl Load {
    fn begin(to: SocketAddr, path: &'static str, secret: &str) -> Self {
        let mut load = Self {
            secret: Arc::new(RwLock::new(secret.to_owned())),
            sent: Arc::default(),
            told: Arc::default(),
            stop: Arc::default(),
            clients: JoinSet::new(),
        };
        for client in 0..CLIENTS {
            let (secret, sent, told, stop) =
                (load.secret.clone(), load.sent.clone(), load.told.clone(), load.stop.clone());
            load.clients.spawn(async move {
                let mut stream = TcpStream::connect(to).await.expect("it listens");
                let mut count = 0;
                while !stop.load(SeqCst) {
                    let secret = secret.read().await;
                    let body = format!("{{\"id\":\"{client}-{count}\"}}");
                    let mut head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n", body.len());
                    for (name, value) in sign("partssource", &secret, body.as_bytes(), NOW_S) {
                        let _ = write!(head, "{name}: {value}\r\n");
                    }
                    stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.expect("the connection is open");
                    let reply = within("an answer", read_reply(&mut stream)).await;
                    assert_eq!(reply.status, 200, "{client}-{count}: {}", reply.text());
                    assert!(!reply.headers.contains_key("connection"), "the connection is kept: {}", reply.head);
                    drop(secret);
                    count += 1;
                    sent.fetch_add(1, SeqCst);
                    told.notify_waiters();
                }
                count
            });
        }
        load
    }

    /// Waits until every client, on average, got through so many more.
    async fn more(&mut self, rounds: usize) {
        let wanted = self.sent.load(SeqCst) + rounds * CLIENTS;
        within("requests to be answered", async {
            loop {
                let told = self.told.notified();
                if self.sent.load(SeqCst) >= wanted {
                    return;
                }
                tokio::select! {
                    () = told => {}
                    Some(ended) = self.clients.join_next() => {
                        ended.expect("a client got what it should");
                    }
                }
            }
        })
        .await;
    }

    /// How many were sent, all of them answered with 200.
    async fn end(mut self) -> usize {
        self.stop.store(true, SeqCst);
        let mut sum = 0;
        while let Some(sent) = self.clients.join_next().await {
            sum += sent.expect("a client got what it should");
        }
        sum
    }
}

fn bodies(upstreams: &[&Upstream]) -> BTreeMap<Vec<u8>, usize> {
    let mut bodies = BTreeMap::new();
    for received in upstreams.iter().flat_map(|upstream| upstream.received()) {
        *bodies.entry(received.body.to_vec()).or_default() += 1;
    }
    bodies
}

fn rotated(first: usize) -> String {
    let secret = |n: usize| format!("{{ value = \"{SECRET}-{n}\", id = \"s{n}\" }}");
    source("a", &format!("upstream = \"up\"\nsecrets = [{}, {}]", secret(first), secret(first + 1)))
}

#[tokio::test]
async fn secrets_rotate_under_load_between_broken_files_and_no_request_fails() {
    let rounds = reduced("reloads under load", 12, 400) as usize;
    let gateway = Reloading::start(&rotated(0)).await;
    let mut load = Load::begin(gateway.world.gateway.public, "/hooks/a", &format!("{SECRET}-0"));
    for round in 1..=rounds {
        load.more(2).await;
        gateway.write(if round % 4 == 1 { "[sources" } else { "[sources.a]\nprovider = \"partssource\"\n" });
        assert_eq!(gateway.ask("{}").await.0, 422);
        load.more(2).await;
        // Whoever signs, signs with the newer one from now on; nobody does with the older one once this is taken.
        *load.secret.write().await = format!("{SECRET}-{round}");
        gateway.write(&rotated(round));
        let answer = gateway.reload().await;
        let (old, new) = (round - 1, round + 1);
        assert_eq!(
            lines(&answer).iter().filter(|line| line.contains(&format!("secrets[s{old}] removed"))).count(),
            1,
            "{answer:#}"
        );
        assert!(lines(&answer).iter().any(|line| line.contains(&format!("secrets[s{new}] added"))));
    }
    load.more(2).await;
    let sent = load.end().await;
    gateway.world.settled().await;
    let bodies = bodies(&[&gateway.world.upstream]);
    assert_eq!(bodies.len(), sent, "nothing is lost");
    assert!(bodies.values().all(|times| *times == 1), "nothing is delivered twice");
    assert_eq!(gateway.world.metric("hookward_reloads_total{outcome=\"applied\"}").await, rounds as u64);
    assert_eq!(gateway.world.metric("hookward_reloads_total{outcome=\"invalid\"}").await, rounds as u64);
    let old = gateway.world.send("partssource", &format!("{SECRET}-0"), "/hooks/a", b"{\"id\":\"old\"}", 0).await;
    assert_eq!(old.status, 401, "a secret that was removed does not count");
}

#[tokio::test]
async fn upstreams_come_go_and_change_under_load_and_each_gets_its_own_once() {
    let rounds = reduced("changes of upstreams under load", 4, 60) as usize;
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let with = |to: &str, more: &str| with_secret("a", &format!("upstreams = [{to}]")) + more;
    let at = |name: &str, upstream: &Upstream, keys: &str| {
        format!("[upstreams.{name}]\nurl = \"{}\"\n{keys}\n", upstream.url())
    };
    let gateway = Reloading::start(&with("\"moving\"", &at("moving", &one, ""))).await;
    let mut load = Load::begin(gateway.world.gateway.public, "/hooks/a", &format!("{SECRET}-a"));
    for _ in 0..rounds {
        for rest in [
            with("\"moving\"", &at("moving", &two, "")),
            with("\"moving\", \"up\"", &at("moving", &two, "concurrency = 2")),
            with("\"moving\", \"side\"", &(at("moving", &one, "concurrency = 2") + &at("side", &two, ""))),
            with("\"moving\"", &at("moving", &one, "")),
        ] {
            load.more(2).await;
            gateway.write(&rest);
            let (status, answer) = gateway.ask("{\"force\":true}").await;
            assert_eq!((status, answer["outcome"].as_str()), (200, Some("applied")), "{answer:#}");
        }
    }
    load.more(2).await;
    // What `side` has not taken before it went was parked, and is delivered once it is back.
    gateway.write(&with("\"moving\", \"side\"", &(at("moving", &one, "") + &at("side", &two, ""))));
    gateway.reload().await;
    load.more(1).await;
    let sent = load.end().await;
    gateway.world.settled().await;
    for name in ["moving", "side", "up"] {
        let row = gateway.upstream_row(name).await;
        assert_eq!((&row["parked"], &row["dead"], &row["due"]), (&0.into(), &0.into(), &0.into()), "{row:#}");
    }
    let delivered =
        |row: serde_json::Value| usize::try_from(row["delivered"].as_u64().expect("a number")).expect("few");
    let (moving, side, up) = (
        delivered(gateway.upstream_row("moving").await),
        delivered(gateway.upstream_row("side").await),
        delivered(gateway.upstream_row("up").await),
    );
    assert_eq!(moving, sent, "nothing is lost");
    assert!(side > 0 && up > 0);
    assert_eq!(one.received().len() + two.received().len(), moving + side, "nothing is delivered twice");
    assert_eq!(gateway.world.upstream.received().len(), up);
    assert_eq!(bodies(&[&one, &two]).len(), sent);
}

#[tokio::test]
async fn the_upstream_that_answers_is_replaced_under_load_and_every_answer_is_one() {
    let rounds = reduced("replaced upstreams under load", 6, 100) as usize;
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let upstream = |name: &str, upstream: &Upstream| format!("[upstreams.{name}]\nurl = \"{}\"\n", upstream.url());
    let sources = |to: &str| {
        with_secret("a", &format!("mode = \"proxy\"\nupstream = \"{to}\""))
            + &with_secret("b", &format!("mode = \"respond\"\nupstream = \"{to}\""))
    };
    let gateway = Reloading::start(&(sources("one") + &upstream("one", &one))).await;
    let to = gateway.world.gateway.public;
    let mut proxied = Load::begin(to, "/hooks/a", &format!("{SECRET}-a"));
    let mut responded = Load::begin(to, "/hooks/b", &format!("{SECRET}-b"));
    for _ in 0..rounds {
        for rest in [sources("two") + &upstream("two", &two), sources("one") + &upstream("one", &one)] {
            proxied.more(2).await;
            responded.more(2).await;
            gateway.write(&rest);
            let (status, answer) = gateway.ask("{\"force\":true}").await;
            assert_eq!((status, answer["outcome"].as_str()), (200, Some("applied")), "{answer:#}");
        }
    }
    let sent = proxied.end().await + responded.end().await;
    gateway.write(&(sources("one") + &upstream("one", &one) + &upstream("two", &two)));
    gateway.reload().await;
    gateway.world.settled().await;
    for name in ["one", "two"] {
        let row = gateway.upstream_row(name).await;
        assert_eq!((&row["parked"], &row["dead"], &row["due"]), (&0.into(), &0.into(), &0.into()), "{row:#}");
    }
    assert_eq!(one.received().len() + two.received().len(), sent, "each was made once, whoever it was made at");
}
