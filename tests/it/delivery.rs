//! Delivery as an upstream and an operator notice it: real sockets, frozen time, a store in memory.

mod breaker;
mod fake_store;
mod isolation;
mod latency;
mod pausing;
mod rate;
mod retries;
mod scripted;
mod tls;

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64ct::{Base64, Encoding as _};
use fake_store::FakeStore;
use futures_util::FutureExt as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hookward::{
    config::Upstream,
    config::model::{Breaker, Retry},
    delivery::{Lanes, Marks, Parts, SourceRule, Tried, Try, Verdict},
    event::{Body, Client, EventHead, EventId, Item, State},
    policy::breaker::State as BreakerState,
    secret::Secret,
    store::{Outcome, Settled},
    telemetry::Metrics,
    time::{Clock, Wall},
    verify::Key,
};
use scripted::{Act, Request, Scripted};
use tokio::sync::{Semaphore, mpsc};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

/// Freezes tokio's clock: it moves only when a test advances it, while sockets work in real time. (Paused time by
/// itself jumps to the next timer whenever a task waits for a socket.) Lets go after half a minute of real time,
/// so that a test that waits in vain ends.
struct Frozen {
    _until_dropped: std::sync::mpsc::Sender<()>,
}

fn freeze() -> Frozen {
    let (sender, receiver) = std::sync::mpsc::channel();
    tokio::time::pause();
    tokio::task::spawn_blocking(move || receiver.recv_timeout(Duration::from_secs(30)));
    Frozen { _until_dropped: sender }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(1000 * HOUR, future).await.expect("to happen within half a minute")
}

/// Lets every task run that can, without time.
async fn settle_down() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Lets tasks run until something holds.
async fn until(holds: impl Fn() -> bool) {
    for _ in 0..1_000_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never held");
}

/// Moves time, once everything that can run has run. Timers fire at whole milliseconds, so a little is added.
async fn advance(by: Duration) {
    settle_down().await;
    tokio::time::advance(by + Duration::from_millis(2)).await;
}

struct World {
    _frozen: Frozen,
    store: Arc<FakeStore>,
    settled: mpsc::UnboundedReceiver<(EventId, Settled)>,
    lanes: Lanes,
    metrics: Arc<Metrics>,
}

impl World {
    fn new(upstream: Upstream) -> Self {
        Self::with(upstream, SourceRule::default())
    }

    fn with(upstream: Upstream, rule: SourceRule) -> Self {
        let (store, settled) = FakeStore::new();
        Self::start([upstream], rule, store, settled)
    }

    fn start(
        upstreams: impl IntoIterator<Item = Upstream>,
        rule: SourceRule,
        store: FakeStore,
        settled: mpsc::UnboundedReceiver<(EventId, Settled)>,
    ) -> Self {
        let frozen = freeze();
        let (store, metrics) = (Arc::new(store), Arc::new(Metrics::default()));
        let parts = Parts {
            store: store.clone(),
            metrics: metrics.clone(),
            clock: Clock::starting_at(Wall::from_unix_s(1_700_000_000)),
            sources: BTreeMap::from([("orders".into(), rule)]),
        };
        let upstreams = upstreams.into_iter().map(|upstream| (upstream.name.clone(), Arc::new(upstream))).collect();
        let lanes = Lanes::start(&upstreams, parts).now_or_never().expect("the store answers at once").expect("lanes");
        Self { _frozen: frozen, store, settled, lanes, metrics }
    }

    fn add(&self, number: u8, body: &[u8]) {
        self.store.add(head(number), body.to_vec(), "up");
    }

    async fn settled(&mut self) -> (EventId, Settled) {
        soon(self.settled.recv()).await.expect("an outcome")
    }

    async fn outcome(&mut self) -> Outcome {
        self.settled().await.1.outcome
    }

    /// Waits for a retry and moves time to it. Returns the delay.
    async fn pass_retry(&mut self) -> Duration {
        let (_, settled) = self.settled().await;
        let Outcome::Retry { after } = settled.outcome else { panic!("not a retry: {settled:?}") };
        advance(after).await;
        after
    }

    /// One attempt outside the store, as `proxy` makes it.
    async fn attempt(&self, number: u8) -> Tried {
        let (head, body, marks) = (head(number), Body::free(&b"{}"[..]), Marks::default());
        let request = Try {
            head: &head,
            body: &body,
            number: 1,
            cause: "first",
            standing: None,
            redelivery: false,
            uncertain: false,
            forward_query: false,
            marks: &marks,
        };
        let mut slot = self.lanes.try_slot("up", head.id).expect("a slot");
        soon(slot.attempt(&request)).await
    }

    fn breaker(&self) -> BreakerState {
        self.lanes.status()[0].breaker
    }
}

fn id(number: u8) -> EventId {
    EventId::from_bytes([number; 16])
}

fn head(number: u8) -> EventHead {
    EventHead {
        id: id(number),
        source: "orders".into(),
        provider: "acme".into(),
        received_at: Wall::from_unix_s(1_699_999_999),
        method: "POST".to_owned(),
        query: Some("a=1".to_owned()),
        client: Client { address: "203.0.113.9".into(), proto: "https".into(), host: "hooks.example".into() },
        headers: vec![("content-type".into(), b"application/json".to_vec())],
        event_type: None,
        attempt_id: None,
        verified: "hmac-sha256/main".to_owned(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        duplicate_of: None,
        conflict_of: None,
    }
}

fn upstream(address: std::net::SocketAddr) -> Upstream {
    Upstream {
        name: "up".into(),
        url: format!("http://{address}/in?own=1").parse().expect("a url"),
        timeout: 10 * SECOND,
        concurrency: 4,
        rate: None,
        retry: Retry { first: SECOND, factor: 2.0, max: 900 * SECOND, give_up_after: 72 * HOUR },
        breaker: Breaker { failures: 100, ratio: 0.5, within: 60 * SECOND, pause: 30 * SECOND },
        dead_letter_on: vec![400, 410],
        signing_secret: None,
        headers: vec![],
        ca: None,
        client_cert: None,
    }
}

#[tokio::test]
async fn an_upstream_receives_the_exact_bytes_and_the_promised_headers() {
    let mut up = Scripted::listing([]).await;
    let mut world = World::new(upstream(up.address));
    let body: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut head = head(1);
    head.method = "PUT".to_owned();
    for (name, value) in [("x-kept", "\u{e9}"), ("hookward-verified", "a lie"), ("x_signature", "folded")] {
        head.headers.push((name.to_owned(), value.as_bytes().to_vec()));
    }
    world.store.add(head, body.clone(), "up");

    let request = up.next().await;
    assert_eq!(request.line, "PUT /in?own=1 HTTP/1.1");
    assert!(request.body == body, "the body differs");
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "content-type",
        "x-kept",
        "hookward-event-id",
        "hookward-source",
        "hookward-provider",
        "hookward-attempt",
        "hookward-received-at",
        "hookward-verified",
        "idempotency-key",
        "traceparent",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "content-length",
        "host",
    ];
    assert_eq!(names, expected);
    assert_eq!(request.header("hookward-event-id"), Some(&*id(1).to_string()));
    assert_eq!(request.header("idempotency-key"), Some(&*id(1).to_string()));
    assert_eq!(request.header("hookward-attempt"), Some("1"));
    assert_eq!(request.header("hookward-verified"), Some("hmac-sha256/main"));
    assert_eq!(request.header("host"), Some(&*up.address.to_string()));
    assert_eq!(world.outcome().await, Outcome::Delivered { items: vec![] });
    assert!(world.metrics.expose().contains(r#"attempts_total{upstream="up",result="delivered"} 1"#));
}

#[tokio::test]
async fn a_query_is_forwarded_only_if_the_source_says_so() {
    let mut up = Scripted::listing([]).await;
    let rule = SourceRule { forward_query: true, ..SourceRule::default() };
    let world = World::with(upstream(up.address), rule);
    world.add(1, b"{}");
    assert_eq!(up.next().await.line, "POST /in?own=1&a=1 HTTP/1.1");
}

#[tokio::test]
async fn failures_are_retried_with_growing_pauses_until_the_upstream_takes_it() {
    let mut up = Scripted::listing([Act::Status(503), Act::Status(404), Act::Reset, Act::Hang]).await;
    let mut world = World::new(upstream(up.address));
    world.add(1, b"{}");
    let (mut spans, mut errors) = (Vec::new(), Vec::new());
    for (attempt, ceiling) in [("1", 1), ("2", 2), ("3", 4), ("4", 8)] {
        let request = up.next().await;
        assert_eq!(request.header("hookward-attempt"), Some(attempt));
        spans.push(request.header("traceparent").expect("a trace").to_owned());
        if attempt == "4" {
            advance(10 * SECOND).await;
        }
        let (_, settled) = world.settled().await;
        errors.push((settled.attempt.cause.clone(), settled.attempt.error.clone().expect("an error")));
        let Outcome::Retry { after } = settled.outcome else { panic!("not a retry: {settled:?}") };
        assert!(after >= ceiling * SECOND / 2 && after <= ceiling * SECOND, "{after:?} after attempt {attempt}");

        // Not a moment sooner.
        advance(after.saturating_sub(Duration::from_millis(10))).await;
        settle_down().await;
        assert!(up.requests.is_empty());
        tokio::time::advance(Duration::from_millis(20)).await;
    }
    assert_eq!(up.next().await.header("hookward-attempt"), Some("5"));
    assert_eq!(world.outcome().await, Outcome::Delivered { items: vec![] });
    let errors: Vec<_> = errors.iter().map(|(cause, error)| (cause.as_str(), error.as_str())).collect();
    let expected = [
        ("first", "status 503"),
        ("retry", "status 404"),
        ("retry", "connection reset"),
        ("retry", "timed out after 10s"),
    ];
    assert_eq!(errors, expected);
    assert!(spans.iter().all(|span| span.starts_with("00-0af7651916cd43dd8448eb211c80319c-")));
    spans.sort();
    spans.dedup();
    assert_eq!(spans.len(), 4, "every attempt is a span of its own");
}

#[tokio::test]
async fn retry_after_is_honoured_up_to_the_longest_delay() {
    let answer = |seconds| Act::Answer(429, format!("retry-after: {seconds}\r\n"), vec![]);
    let up = Scripted::listing([answer(120), answer(86_400)]).await;
    let mut world = World::new(upstream(up.address));
    world.add(1, b"{}");
    assert_eq!(world.pass_retry().await, 120 * SECOND);
    assert_eq!(world.pass_retry().await, 900 * SECOND);
    assert_eq!(world.outcome().await, Outcome::Delivered { items: vec![] });
}

#[tokio::test]
async fn a_status_of_dead_letter_on_ends_it_at_once() {
    let mut up = Scripted::listing([Act::Status(410)]).await;
    let mut world = World::new(upstream(up.address));
    world.add(1, b"{}");
    assert_eq!(world.outcome().await, Outcome::Dead { reason: "status 410".to_owned() });
    up.next().await;
    advance(HOUR).await;
    settle_down().await;
    assert!(up.requests.is_empty());
}

#[tokio::test]
async fn it_is_given_up_by_age() {
    let up = Scripted::start(|_| Act::Status(500)).await;
    let mut upstream = upstream(up.address);
    upstream.retry.give_up_after = 10 * SECOND;
    let mut world = World::new(upstream);
    world.add(1, b"{}");
    let mut age = Duration::ZERO;
    let reason = loop {
        let (_, settled) = world.settled().await;
        match settled.outcome {
            Outcome::Retry { after } => {
                age += after;
                assert!(age <= 10 * SECOND);
                advance(after).await;
            }
            Outcome::Dead { reason } => break reason,
            Outcome::Delivered { .. } => panic!("delivered"),
        }
    };
    assert_eq!(reason, "given up after 10s: status 500");
    assert!(age > 3 * SECOND, "too early: {age:?}");
}

#[tokio::test]
async fn no_more_attempts_run_at_a_time_than_configured() {
    let (gate, running, most) =
        (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (script_gate, script_running, script_most) = (gate.clone(), running.clone(), most.clone());
    let mut up = Scripted::start(move |_| {
        script_most.fetch_max(script_running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        Act::Wait(script_gate.clone())
    })
    .await;
    let mut world = World::new(upstream(up.address));
    (1..=12).for_each(|number| world.add(number, b"{}"));
    for _ in 0..4 {
        up.next().await;
    }
    settle_down().await;
    assert!(up.requests.is_empty());
    assert_eq!(world.lanes.status()[0].in_flight, 4);
    assert!(world.lanes.try_slot("up", id(99)).is_none(), "`respond` and `proxy` share the bound");
    for _ in 0..12 {
        running.fetch_sub(1, Ordering::Relaxed);
        gate.add_permits(1);
        world.settled().await;
    }
    assert_eq!((most.load(Ordering::Relaxed), world.store.count(State::Delivered)), (4, 12));
}

fn is_bad(request: &Request) -> Act {
    if request.body.starts_with(b"bad") { Act::Status(500) } else { Act::Status(200) }
}

fn touchy(address: std::net::SocketAddr) -> Upstream {
    let breaker = Breaker { failures: 3, ratio: 0.5, within: 60 * SECOND, pause: 30 * SECOND };
    Upstream { breaker, concurrency: 1, ..upstream(address) }
}

#[tokio::test]
async fn a_slot_is_waited_for_ahead_of_the_backlog() {
    let gate = Arc::new(Semaphore::new(0));
    let script = gate.clone();
    let mut up = Scripted::start(move |_| Act::Wait(script.clone())).await;
    let mut world = World::new(touchy(up.address));
    (1..=5).for_each(|number| world.add(number, b"{}"));
    up.next().await;
    let waiting = world.lanes.slot("up", id(99));
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    gate.add_permits(1);
    soon(world.settled.recv()).await.expect("an outcome");
    let slot = soon(waiting).await.expect("a slot");
    settle_down().await;
    assert!(up.requests.is_empty(), "the lane waits while the slot is held");
    drop(slot);
    up.next().await;
}

#[tokio::test]
async fn a_lost_lease_is_dropped_and_the_lane_goes_on() {
    let mut up = Scripted::listing([]).await;
    let mut world = World::new(touchy(up.address));
    world.store.faults().leases_lost = 1;
    world.add(1, b"{}");
    up.next().await;
    settle_down().await;
    world.add(2, b"{}");
    assert_eq!(world.settled().await.0, id(2));
}

#[tokio::test]
async fn a_lapsed_lease_is_tried_again_as_uncertain() {
    let mut up = Scripted::listing([]).await;
    let mut world = World::new(upstream(up.address));
    world.store.faults().leases_lost = 1;
    world.add(1, b"{}");
    assert_eq!(up.next().await.header("hookward-uncertain"), None);
    until(|| world.store.faults().leases_lost == 0).await;
    advance(60 * SECOND).await;
    assert_eq!(up.next().await.header("hookward-uncertain"), Some("true"));
    assert_eq!(world.outcome().await, Outcome::Delivered { items: vec![] });
}

#[tokio::test]
async fn a_lease_that_came_too_late_for_an_attempt_is_given_back() {
    let mut up = Scripted::listing([]).await;
    let mut world = World::new(upstream(up.address));
    let gate = Arc::new(Semaphore::new(0));
    world.store.faults().leases_wait = Some(gate.clone());
    world.add(1, b"{}");
    until(|| world.store.count(State::Leased) == 1).await;
    // More than the lease has beyond the upstream's timeout: an attempt could outlast it and be made twice.
    advance(16 * SECOND).await;
    gate.add_permits(1);
    settle_down().await;
    assert!(up.requests.is_empty());
    gate.add_permits(100);
    assert_eq!(up.next().await.header("hookward-uncertain"), None);
    assert_eq!(world.outcome().await, Outcome::Delivered { items: vec![] });
}

#[tokio::test]
async fn a_store_in_trouble_is_asked_again() {
    let mut up = Scripted::listing([]).await;
    let mut world = World::new(upstream(up.address));
    world.store.faults().leases_fail = 6;
    world.store.faults().settles_fail = 3;
    world.add(1, b"{}");
    for _ in 0..7 {
        advance(5 * SECOND).await;
    }
    up.next().await;
    for _ in 0..3 {
        advance(SECOND).await;
    }
    assert_eq!(world.outcome().await, Outcome::Delivered { items: vec![] });
    assert!(up.requests.is_empty(), "an outcome that could not be recorded at once is no reason to send again");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let mut elsewhere = Scripted::listing([]).await;
    let location = format!("location: http://{}/\r\n", elsewhere.address);
    let up = Scripted::listing([Act::Answer(307, location, vec![])]).await;
    let mut world = World::new(upstream(up.address));
    world.add(1, b"{}");
    let (_, settled) = world.settled().await;
    assert_eq!(settled.attempt.status, Some(307));
    assert!(matches!(settled.outcome, Outcome::Retry { .. }));
    assert!(elsewhere.requests.try_recv().is_err());
}

#[tokio::test]
async fn an_answer_is_read_to_64_kib_and_no_further() {
    let answer = |length| Act::Answer(200, "content-type: text/x\r\n".to_owned(), vec![b'x'; length]);
    let up = Scripted::listing([answer(65_536), answer(65_537), answer(3_000_000)]).await;
    let world = World::new(upstream(up.address));
    for (number, truncated) in [(1, false), (2, true), (3, true)] {
        let tried = world.attempt(number).await;
        let Verdict::Delivered(answer) = tried.verdict else { panic!("not delivered: {:?}", tried.verdict) };
        assert_eq!((answer.body.len(), answer.truncated), (65_536, truncated));
        assert_eq!(answer.content_type.as_deref(), Some("text/x"));
    }
}

#[tokio::test]
async fn what_happened_to_a_request_that_failed_is_told_apart() {
    let raw = Act::Raw(b"SMTP ready\r\n\r\n");
    let mut up = Scripted::listing([Act::Reset, Act::Raw(b""), raw, Act::Cut, Act::Hang]).await;
    let world = World::new(upstream(up.address));
    let error = |tried: Tried| match tried.verdict {
        Verdict::NotSent(trouble) => format!("not sent: {trouble}"),
        Verdict::Unknown(trouble) => format!("unknown: {trouble}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(error(world.attempt(1).await), "unknown: connection reset");
    assert_eq!(error(world.attempt(2).await), "unknown: connection closed before an answer");
    assert_eq!(error(world.attempt(3).await), "unknown: the answer is not HTTP");

    // The status is the upstream's word, even if the rest of the answer never comes.
    let cut = world.attempt(4).await;
    assert!(
        matches!(&cut.verdict, Verdict::Delivered(answer) if answer.truncated && &*answer.body == b"abc"),
        "{cut:?}"
    );

    let (hung, ()) = tokio::join!(world.attempt(5), async {
        for _ in 1..=5 {
            up.next().await;
        }
        advance(10 * SECOND).await;
    });
    assert_eq!(error(hung), "unknown: timed out after 10s");
}

#[tokio::test]
async fn a_refused_connection_was_certainly_not_sent() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("an address");
    let mut upstream = upstream(closed);
    upstream.url = format!("http://user:canary@{closed}/").parse().expect("a url");
    let tried = World::new(upstream).attempt(1).await;
    assert!(matches!(&tried.verdict, Verdict::NotSent(trouble) if trouble.text == "connection refused"), "{tried:?}");
    assert!(!format!("{tried:?}").contains("canary"));
}

#[tokio::test]
async fn an_upstream_with_a_signing_secret_can_verify_each_attempt() {
    let mut up = Scripted::listing([Act::Status(503)]).await;
    let mut upstream = upstream(up.address);
    upstream.signing_secret = Some(Secret::new(*b"a key of the upstream's own"));
    let mut world = World::new(upstream);
    world.add(1, b"\x00binary\xff");
    let mut timestamps = Vec::new();
    for attempt in 1..=2 {
        let request = up.next().await;
        let (sent_id, timestamp) = (request.header("webhook-id"), request.header("webhook-timestamp"));
        let (sent_id, timestamp) = (sent_id.expect("an id"), timestamp.expect("a timestamp"));
        assert_eq!(sent_id, id(1).to_string());
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"a key of the upstream's own").expect("a key");
        mac.update(format!("{sent_id}.{timestamp}.").as_bytes());
        mac.update(&request.body);
        let expected = format!("v1,{}", Base64::encode_string(&mac.finalize().into_bytes()));
        assert_eq!(request.header("webhook-signature"), Some(&*expected));
        timestamps.push(timestamp.parse::<i64>().expect("seconds"));
        if attempt == 1 {
            world.pass_retry().await;
        }
    }
    assert_eq!(timestamps[0], 1_700_000_000);
    assert!(timestamps[1] > timestamps[0] || world.store.count(State::Leased) == 1);
}

#[tokio::test]
async fn items_that_the_upstream_has_are_named() {
    // An item is a letter and a digit: its key and its content.
    fn extract(body: &[u8]) -> Vec<Option<Item>> {
        let item = |pair: &[u8]| Item { key: Key([pair[0]; 32]), content: [pair[1]; 32] };
        body.chunks(2).map(|pair| (pair[0] != b'?').then(|| item(pair))).collect()
    }
    let mut up = Scripted::listing([]).await;
    let rule = SourceRule { items: Some(Arc::new(extract)), ..SourceRule::default() };
    let mut world = World::with(upstream(up.address), rule);
    world.add(1, b"a1b1");
    let first = up.next().await;
    assert_eq!(first.header("hookward-duplicate-items"), None);
    world.settled().await;
    world.add(2, b"c1?0a1b2");
    let second = up.next().await;
    assert_eq!(second.header("hookward-duplicate-items"), Some("2"));
    assert_eq!(second.header("hookward-changed-items"), Some("3"));
    assert_eq!(second.body, b"c1?0a1b2");
}

#[tokio::test]
async fn a_panic_in_one_attempt_is_its_own_failure() {
    fn extract(body: &[u8]) -> Vec<Option<Item>> {
        assert_ne!(body, b"bad", "scripted");
        vec![]
    }
    let up = Scripted::listing([]).await;
    let rule = SourceRule { items: Some(Arc::new(extract)), ..SourceRule::default() };
    let mut world = World::with(touchy(up.address), rule);
    world.add(1, b"bad");
    let (_, settled) = world.settled().await;
    assert_eq!(settled.attempt.error.as_deref(), Some("internal error"));
    assert!(matches!(settled.outcome, Outcome::Retry { .. }));
    world.add(2, b"good");
    assert_eq!(world.settled().await.0, id(2));
    until(|| world.lanes.status()[0].in_flight == 0).await;
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_begins_nothing() {
    let gate = Arc::new(Semaphore::new(0));
    let script = gate.clone();
    let mut up = Scripted::start(move |_| Act::Wait(script.clone())).await;
    let world = World::new(touchy(up.address));
    world.add(1, b"{}");
    world.add(2, b"{}");
    up.next().await;
    let (drained, ()) = tokio::join!(world.lanes.drain(5 * SECOND), async {
        settle_down().await;
        gate.add_permits(1);
    });
    assert!(drained);
    assert_eq!((world.store.count(State::Delivered), world.store.count(State::Due)), (1, 1));
    assert!(world.lanes.try_slot("up", id(3)).is_none());
    assert!(up.requests.is_empty());
}

#[tokio::test]
async fn what_is_leased_while_a_drain_begins_is_given_back() {
    let up = Scripted::listing([]).await;
    let world = World::new(touchy(up.address));
    let gate = Arc::new(Semaphore::new(0));
    world.store.faults().leases_wait = Some(gate.clone());
    world.add(1, b"{}");
    until(|| world.store.count(State::Leased) == 1).await;
    let (drained, ()) = tokio::join!(world.lanes.drain(5 * SECOND), async {
        settle_down().await;
        gate.add_permits(100);
    });
    assert!(drained && up.requests.is_empty());
    assert_eq!(world.store.count(State::Due), 1);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever() {
    let mut up = Scripted::listing([Act::Hang]).await;
    let world = World::new(upstream(up.address));
    world.add(1, b"{}");
    up.next().await;
    let (drained, ()) = tokio::join!(world.lanes.drain(5 * SECOND), async {
        advance(5 * SECOND).await;
    });
    assert!(!drained);
}
