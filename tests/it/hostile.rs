//! Clients that do not play fair, on raw sockets or straight at the stack.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use hookward::{
    config::Config,
    delivery::{self, Lanes},
    http::connected::Connected,
    ingress::{self, Gate, WireBody},
    store::{self, memory::MemoryStore},
    telemetry::{ClockWatch, Health, Metrics},
    time::{Clock, Wall},
};
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tower::ServiceExt as _;

use crate::world::{NOW_S, World, configuration, parse, raw, read_reply, sign, within};

const SECRET: &str = "a-secret-of-some-length";
const SOURCE: &str = "[sources.orders]\nprovider = \"partssource\"\nsecrets = [{ value = \"a-secret-of-some-length\", id = \"main\" }]\nupstream = \"up\"\n";
const PATH: &str = "/hooks/orders";

/// A head for `PATH` with the headers of a genuine request for `body`, and these lines.
fn head(body: &[u8], lines: &str) -> String {
    let signed = sign("partssource", SECRET, body, NOW_S);
    let signed: Vec<_> = signed.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let signed = signed.concat();
    format!("POST {PATH} HTTP/1.1\r\nhost: a\r\n{signed}{lines}\r\n")
}

#[tokio::test]
async fn a_limit_below_the_smallest_buffer_is_a_limit_as_any_other() {
    let world = World::start(&format!("{SOURCE}body_bytes_max = \"100B\"\n")).await;
    assert_eq!(world.send("partssource", SECRET, PATH, &[b'x'; 100], 0).await.status, 200);
    assert_eq!(world.send("partssource", SECRET, PATH, &[b'x'; 101], 0).await.status, 413);
    let chunked = head(&[b'x'; 101], "transfer-encoding: chunked\r\n") + "65\r\n" + &"x".repeat(101) + "\r\n0\r\n\r\n";
    assert_eq!(raw(world.gateway.public, chunked.as_bytes()).await.status, 413);
}

#[tokio::test]
async fn broken_framing_is_malformed() {
    let world = World::start(SOURCE).await;
    for chunks in ["-2\r\n{}\r\n0\r\n\r\n", "2\n{}\r\n0\r\n\r\n", "fffffffffffffffff\r\n{}", "2\r\n{}0\r\n\r\n"] {
        let request = head(b"{}", "transfer-encoding: chunked\r\n") + chunks;
        assert_eq!(raw(world.gateway.public, request.as_bytes()).await.status, 400, "{chunks:?}");
    }
}

#[tokio::test]
async fn a_host_that_is_none_is_malformed() {
    let world = World::start(SOURCE).await;
    for host in ["", "a b", "me@a", "a/b", "a\u{e9}"] {
        assert_eq!(world.post(PATH, &[("host", host)], b"{}").await.status, 400, "{host}");
    }
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_gets_its_refusal() {
    let world = World::start(SOURCE).await;
    // More than the limit, so that it is refused, and less than what is read on in all.
    let body = vec![b'x'; (1 << 20) + (300 << 10)];
    let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    for (name, status, request) in [
        ("declared", 413, [head(b"", &format!("content-length: {}\r\n", body.len())).as_bytes(), &body].concat()),
        ("chunked", 413, [head(b"", "transfer-encoding: chunked\r\n").as_bytes(), &chunk].concat()),
        (
            "unsigned",
            401,
            [format!("POST {PATH} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").as_bytes(), &chunk]
                .concat(),
        ),
    ] {
        let mut client = TcpStream::connect(world.gateway.public).await.expect("it listens");
        within("the whole request to be taken", client.write_all(&request)).await.expect(name);
        client.shutdown().await.expect(name);
        let reply = within("an answer", read_reply(&mut client)).await;
        assert_eq!((reply.status, reply.headers["connection"].as_str()), (status, "close"), "{name}");
        let mut rest = Vec::new();
        within("the end", client.read_to_end(&mut rest)).await.expect("closed, not reset");
        assert!(rest.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_connection_is_kept_after_a_small_refusal() {
    let world = World::start(SOURCE).await;
    let mut client = TcpStream::connect(world.gateway.public).await.expect("it listens");
    let refused = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: 60000\r\n\r\n{}", "x".repeat(60_000));
    client.write_all(refused.as_bytes()).await.expect("sent");
    assert_eq!(within("a refusal", read_reply(&mut client)).await.status, 401);
    let genuine = head(b"{}", "content-length: 2\r\n") + "{}";
    client.write_all(genuine.as_bytes()).await.expect("sent");
    assert_eq!(within("an answer", read_reply(&mut client)).await.status, 200);
}

#[tokio::test]
async fn who_waits_for_a_continue_is_refused_without_one_and_what_follows_is_no_body() {
    let world = World::start(SOURCE).await;
    let probe = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    let expect = "expect: 100-continue\r\n";
    let refused = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\n{expect}content-length: {}\r\n\r\n{probe}", probe.len());
    let mut client = TcpStream::connect(world.gateway.public).await.expect("it listens");
    client.write_all(refused.as_bytes()).await.expect("sent");
    let reply = within("a refusal", read_reply(&mut client)).await;
    assert_eq!((reply.status, reply.headers["connection"].as_str()), (401, "close"));
    let mut rest = Vec::new();
    within("the end", client.read_to_end(&mut rest)).await.expect("closed");
    assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));

    let mut client = TcpStream::connect(world.gateway.public).await.expect("it listens");
    client.write_all(head(b"{}", &format!("{expect}content-length: 2\r\n")).as_bytes()).await.expect("sent");
    assert_eq!(within("leave to go on", read_reply(&mut client)).await.status, 100);
    client.write_all(b"{}").await.expect("sent");
    assert_eq!(within("an answer", read_reply(&mut client)).await.status, 200);
}

#[tokio::test]
async fn a_path_token_reaches_neither_the_store_nor_an_upstream_by_another_way() {
    let source = "[sources.hub]\nprovider = \"sourcehub\"\npath = \"/hooks/hub/{token}\"\nsecrets = [{ value = \"a-token-of-some-length\" }]\nupstream = \"up\"\n";
    let world = World::start(source).await;
    let path = "/hooks/hub/a-token-of-some-length";
    // As proxies write them.
    let headers = [
        ("x-original-uri", path),
        ("x-forwarded-uri", "https://hooks.example/hooks/hub/a-token-of-some-length?a=b"),
        ("x-other", "a-token"),
    ];
    let (_, id) = world.post(path, &headers, b"{}").await.ack();
    let received = world.upstream.wait_for(1).await;
    let seen = format!("{:?}", received[0].headers);
    assert!(!seen.contains("a-token-of-some-length") && received[0].header("x-other") == Some("a-token"), "{seen}");
    world.settled().await;
    let shown = world.admin("GET", &format!("/api/v1/events/{id}")).await.to_string();
    assert!(!shown.contains("a-token-of-some-length"), "{shown}");
    assert_eq!(world.post("/hooks/hub/a-token-of-another-length", &headers, b"{}").await.status, 401);
    for unknown in
        ["/hooks/hub/", "/hooks/hub", "/hooks/hub/a/a-token-of-some-length", "/hooks//a-token-of-some-length"]
    {
        assert_eq!(world.post(unknown, &headers, b"{}").await.status, 404, "{unknown}");
    }
}

// ---- straight at the stack: addresses that a test cannot connect from ------------------------------------------------

/// A gate with these limits, whose upstream is not there.
pub(crate) fn gate(limits: &str) -> Arc<Gate> {
    gate_of("", limits)
}

/// As [`gate`], with more keys for the source.
fn gate_of(keys: &str, limits: &str) -> Arc<Gate> {
    gate_and_lanes(&config(&format!("{SOURCE}{keys}\n"), limits)).0
}

fn config(sources: &str, limits: &str) -> Config {
    let text = configuration(sources, "", "http://127.0.0.1:9/in", std::path::Path::new("unused"));
    let text = text.replace(
        "[store]\n",
        &format!("[server.limits]\n{limits}\n[store]\nengine = \"memory\"\naccept_loss = true\n"),
    );
    parse(&text, std::path::Path::new("."))
}

fn gate_and_lanes(config: &Config) -> (Arc<Gate>, Lanes) {
    let clock = Clock::starting_at(Wall::from_unix_s(NOW_S));
    let store: Arc<dyn store::EventStore> = MemoryStore::new(&store::memory::Options {
        keys_max: 1000,
        on_full: config.replay.on_full,
        bytes_max: 1 << 30,
        disk_share_max: 1.0,
        clock: clock.clone(),
    });
    let metrics = Arc::new(Metrics::default());
    let watch = ClockWatch::new(None, clock.wall(), clock.monotonic());
    let health = Arc::new(Health::new(watch, || Ok(())));
    let parts = delivery::Parts {
        store: store.clone(),
        metrics: metrics.clone(),
        clock: clock.clone(),
        sources: BTreeMap::default(),
    };
    let lanes =
        Lanes::start(&config.upstreams, parts).now_or_never().expect("the store answers at once").expect("lanes");
    (Gate::new(config, store, &lanes, health, metrics, clock), lanes)
}

/// A request with a genuine head for the body `signed`.
pub(crate) fn request(from: &str, signed: &[u8], body: WireBody) -> Request<WireBody> {
    let mut request = Request::post(PATH).header("host", "a");
    for (name, value) in sign("partssource", SECRET, signed, NOW_S) {
        request = request.header(name, value);
    }
    let mut request = request.body(body).expect("a request");
    request
        .extensions_mut()
        .insert(Arc::new(Connected { address: Some(from.parse().expect("an address")), ..Connected::default() }));
    request
}

/// A body that begins with so many bytes and never ends.
pub(crate) fn endless(bytes: usize) -> WireBody {
    let first = stream::iter((bytes > 0).then(|| Ok(Frame::data(Bytes::from(vec![b'x'; bytes])))));
    StreamBody::new(first.chain(stream::pending())).boxed_unsync()
}

pub(crate) fn whole(body: &'static [u8]) -> WireBody {
    Full::new(Bytes::from_static(body)).map_err(|never| match never {}).boxed_unsync()
}

#[tokio::test]
async fn one_address_cannot_take_every_place_with_bodies_that_never_come() {
    let gate = gate("in_flight_max = 20");
    let mut refused = 0;
    let mut waiting = Vec::new();
    for _ in 0..40 {
        let mut forgery = Box::pin(ingress::stack(&gate).oneshot(request("203.0.113.9", b"", endless(0))));
        match (&mut forgery).now_or_never() {
            Some(answer) => {
                assert_eq!(answer.expect("infallible").status(), StatusCode::SERVICE_UNAVAILABLE);
                refused += 1;
            }
            None => waiting.push(forgery),
        }
    }
    assert_eq!((waiting.len(), refused), (5, 35), "half of what is there for all who have proven nothing");
    let genuine = ingress::stack(&gate).oneshot(request("198.51.100.1", b"{}", whole(b"{}"))).await;
    assert_eq!(genuine.expect("infallible").status(), StatusCode::OK);
    drop(waiting);
    let same_address = ingress::stack(&gate).oneshot(request("203.0.113.9", b"[]", whole(b"[]"))).await;
    assert_eq!(same_address.expect("infallible").status(), StatusCode::OK, "all was given back");
    assert_eq!(gate.load(), (0, 0));
}

#[tokio::test]
async fn one_address_cannot_take_the_memory_for_bodies_but_may_always_send_one() {
    let gate = gate("body_memory_max = \"8MiB\"");
    let upload = |from| Box::pin(ingress::stack(&gate).oneshot(request(from, b"", endless(900_000))));
    let mut first = upload("203.0.113.9");
    assert!((&mut first).now_or_never().is_none(), "more than its share, and the only one");
    let second = upload("203.0.113.9").now_or_never().expect("an answer at once").expect("infallible");
    assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
    let mut other = upload("198.51.100.1");
    assert!((&mut other).now_or_never().is_none());
    assert_eq!(gate.load().1, 2 << 20);
    drop((first, other));
    assert_eq!(gate.load(), (0, 0));
}

#[tokio::test]
async fn whose_address_nobody_knows_is_on_no_list() {
    let from = |connected: Connected| {
        let mut request = request("203.0.113.9", b"{}", whole(b"{}"));
        request.extensions_mut().insert(Arc::new(connected));
        request
    };
    let unknown = || Connected { address: None, is_unix: true, ..Connected::default() };
    let listed = gate_of("allow = [\"0.0.0.0/0\", \"::/0\"]", "");
    let refused = ingress::stack(&listed).oneshot(from(unknown())).await.expect("infallible");
    // This provider takes 403 for the end.
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let open = ingress::stack(&gate("")).oneshot(from(unknown())).await.expect("infallible");
    assert_eq!(open.status(), StatusCode::OK, "without a list everybody may");
    let known = Connected { address: Some("203.0.113.9".parse().expect("an address")), ..Connected::default() };
    let known = ingress::stack(&listed).oneshot(from(known)).await.expect("infallible");
    assert_eq!(known.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_gone_gets_404_after_two_days_without_a_restart_or_a_reload() {
    let other = SOURCE.replace("orders", "others");
    let (gate, lanes) = gate_and_lanes(&config(&format!("{SOURCE}{}", other.replace("length", "lengths")), ""));
    gate.reload(&config(&other, ""), lanes.current());
    let ask = async || {
        let answer = ingress::stack(&gate).oneshot(request("203.0.113.9", b"{}", whole(b"{}"))).await;
        answer.expect("infallible").status()
    };
    assert_eq!(ask().await, StatusCode::SERVICE_UNAVAILABLE);
    tokio::time::advance(Duration::from_hours(47)).await;
    assert_eq!(ask().await, StatusCode::SERVICE_UNAVAILABLE);
    tokio::time::advance(Duration::from_hours(1)).await;
    assert_eq!(ask().await, StatusCode::NOT_FOUND);
}
