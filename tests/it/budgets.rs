//! Bodies, places and shares: who has to wait when there is not enough for all.
//!
//! Straight at the stack where it takes several client addresses or paused time; else over sockets.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use hookward::ingress::{self, Gate, Response, WireBody};
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::{task::JoinHandle, time::sleep};
use tower::ServiceExt as _;

use crate::{
    hostile::{endless, gate, request, whole},
    world::{Act, Reply, World, within},
};

const SECRET: &str = "a-secret-of-some-length";
const PATH: &str = "/hooks/orders";

/// A request that goes on by itself.
fn begin(gate: &Arc<Gate>, from: &str, signed: &[u8], body: WireBody) -> JoinHandle<Response> {
    let answer = ingress::stack(gate).oneshot(request(from, signed, body));
    tokio::spawn(answer.map(|answer| answer.expect("infallible")))
}

/// A body of so many bytes in chunks of 100 000, one every half second.
fn steady(chunks: usize) -> WireBody {
    let chunks = stream::unfold(0, move |sent| async move {
        (sent < chunks).then_some(())?;
        sleep(Duration::from_millis(500)).await;
        Some((Ok(Frame::data(Bytes::from(vec![b'x'; 100_000]))), sent + 1))
    });
    StreamBody::new(chunks).boxed_unsync()
}

async fn send(gate: &Arc<Gate>, from: &str, body: &'static [u8]) -> StatusCode {
    begin(gate, from, body, whole(body)).await.expect("no panic").status()
}

static LARGE: [u8; 200_000] = [b'x'; 200_000];

#[tokio::test(start_paused = true)]
async fn with_no_room_left_a_stalled_upload_ends_for_a_webhook_that_arrives() {
    // Three quarters of it are three bodies of a mebibyte; 200 000 bytes are no small body.
    let gate = gate("body_memory_max = \"4MiB\"");
    let stalled: Vec<_> = ["203.0.113.1", "203.0.113.2"].map(|from| begin(&gate, from, b"", endless(900_000))).into();
    let busy = begin(&gate, "203.0.113.3", b"", steady(10));
    sleep(Duration::from_millis(4600)).await;
    assert_eq!(gate.load().1, 3 << 20, "all that is there for large bodies");
    assert_eq!(send(&gate, "198.51.100.1", &LARGE).await, StatusCode::OK);
    let ended: Vec<_> = stalled.iter().map(JoinHandle::is_finished).collect();
    assert_eq!(ended.iter().filter(|ended| **ended).count(), 1, "one is enough: {ended:?}");
    assert!(!busy.is_finished(), "who gets on is let be");
    for upload in stalled {
        assert_eq!(upload.await.expect("no panic").status(), StatusCode::REQUEST_TIMEOUT);
    }
    assert_eq!(busy.await.expect("no panic").status(), StatusCode::UNAUTHORIZED, "it came whole, and is a forgery");
    assert_eq!(gate.load(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn uploads_at_full_speed_are_not_ended_for_a_newcomer() {
    let gate = gate("body_memory_max = \"4MiB\"");
    let busy: Vec<_> = (1..=3).map(|n| begin(&gate, &format!("203.0.113.{n}"), b"", steady(10))).collect();
    sleep(Duration::from_millis(3600)).await;
    assert_eq!(gate.load().1, 3 << 20);
    assert_eq!(send(&gate, "198.51.100.1", &LARGE).await, StatusCode::SERVICE_UNAVAILABLE);
    for upload in busy {
        assert_eq!(upload.await.expect("no panic").status(), StatusCode::UNAUTHORIZED, "it came whole");
    }
}

#[tokio::test(start_paused = true)]
async fn forgeries_have_half_of_the_places_and_the_slowest_gives_up_its_own() {
    let gate = gate("in_flight_max = 8");
    let from = |n: usize| format!("203.0.113.{n}");
    let stalled: Vec<_> = (0..4).map(|n| begin(&gate, &from(n / 2), b"", endless(n * 10))).collect();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(gate.load().0, 4);
    assert_eq!(send(&gate, "198.51.100.1", b"{}").await, StatusCode::SERVICE_UNAVAILABLE, "all have just come");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(send(&gate, "198.51.100.1", b"{}").await, StatusCode::OK);
    tokio::task::yield_now().await;
    let ended: Vec<_> = stalled.iter().map(JoinHandle::is_finished).collect();
    assert_eq!(ended, [true, false, false, false], "the one that sent nothing");
    for upload in stalled {
        assert_eq!(upload.await.expect("no panic").status(), StatusCode::REQUEST_TIMEOUT);
    }
    assert_eq!(gate.load(), (0, 0));
}

#[tokio::test]
async fn a_body_takes_room_until_it_is_stored_and_not_until_it_is_delivered() {
    let gate = gate("");
    assert_eq!(send(&gate, "198.51.100.1", &LARGE).await, StatusCode::OK);
    assert_eq!(gate.load(), (0, 0), "its upstream does not even exist");
}

/// Two sources: what is sent to `slow` waits for its upstream, what is sent to `orders` is stored.
async fn two_sources(slow: &str, limits: &str) -> World {
    let source = |name: &str, keys: &str| {
        format!(
            "[sources.{name}]\nprovider = \"partssource\"\nsecrets = [{{ value = \"{SECRET}\" }}]\nupstream = \"up\"\n\
             allow_shared_secret = true\n{keys}\n"
        )
    };
    let keys = format!("mode = \"respond\"\n{slow}");
    let sources = source("slow", &keys) + &source("orders", "") + "[server.limits]\n" + limits;
    World::with_upstream(&sources, "timeout = \"60s\"").await
}

/// Begins requests to the slow source that are with its upstream when this returns.
async fn occupy(world: &World, bodies: &[Vec<u8>]) -> Vec<JoinHandle<Reply>> {
    world.upstream.script(bodies.iter().map(|_| Act::Hang(200)));
    let mut waiting = Vec::new();
    for (n, body) in bodies.iter().enumerate() {
        let headers = crate::world::sign("partssource", SECRET, body, crate::world::NOW_S);
        let (public, body) = (world.gateway.public, body.clone());
        waiting.push(tokio::spawn(async move {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            crate::world::request(public, "POST", "/hooks/slow", &headers, &body).await
        }));
        world.upstream.wait_for(n + 1).await;
    }
    waiting
}

async fn let_go(world: &World, waiting: Vec<JoinHandle<Reply>>) {
    for reply in waiting {
        world.upstream.let_go();
        assert_eq!(within("an answer", reply).await.expect("no panic").status, 200);
    }
}

#[tokio::test]
async fn a_verified_source_has_half_of_the_places_and_others_do_not_notice() {
    let world = two_sources("", "in_flight_max = 4").await;
    let waiting = occupy(&world, &[b"{\"n\":1}".to_vec(), b"{\"n\":2}".to_vec()]).await;
    let refused = world.send("partssource", SECRET, "/hooks/slow", b"{\"n\":3}", 0).await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(world.send("partssource", SECRET, PATH, b"{\"n\":4}", 0).await.ack().0, "accepted");
    world.upstream.wait_for(3).await;
    let_go(&world, waiting).await;
}

#[tokio::test]
async fn an_in_flight_max_of_its_own_takes_the_place_of_the_half() {
    let world = two_sources("in_flight_max = 3", "in_flight_max = 4").await;
    let waiting = occupy(&world, &[1, 2, 3].map(|n| format!("{{\"n\":{n}}}").into_bytes())).await;
    assert_eq!(world.send("partssource", SECRET, "/hooks/slow", b"{\"n\":4}", 0).await.status, 503);
    let_go(&world, waiting).await;
}

#[tokio::test]
async fn a_verified_source_has_half_of_the_bytes_and_others_do_not_notice() {
    let world = two_sources("", "body_memory_max = \"6MiB\"").await;
    let waiting = occupy(&world, &[1, 2, 3].map(|n| vec![b'0' + n; 1 << 20])).await;
    let refused = world.send("partssource", SECRET, "/hooks/slow", &vec![b'x'; 100_000], 0).await;
    assert_eq!(refused.status, 503);
    assert_eq!(world.metric("hookward_webhooks_total{source=\"slow\",code=\"budget_spent\"}").await, 1);
    assert_eq!(world.send("partssource", SECRET, PATH, &vec![b'y'; 1 << 20], 0).await.ack().0, "accepted");
    world.upstream.wait_for(4).await;
    let_go(&world, waiting).await;
}

#[tokio::test]
async fn replays_of_a_captured_webhook_do_not_use_up_the_rate_of_its_source() {
    for provider in ["partssource", "github"] {
        let source = format!(
            "[sources.orders]\nprovider = \"{provider}\"\nsecrets = [{{ value = \"{SECRET}\" }}]\nupstream = \"up\"\n\
             rate = {{ per_second = 0.001, burst = 2 }}\n"
        );
        let world = World::start(&source).await;
        let send = |body: &'static [u8]| world.send(provider, SECRET, PATH, body, 0);
        assert_eq!(send(b"{\"n\":1}").await.ack().0, "accepted");
        for _ in 0..10 {
            assert_eq!(send(b"{\"n\":1}").await.ack().0, "duplicate", "{provider}");
        }
        assert_eq!(send(b"{\"n\":2}").await.ack().0, "accepted", "{provider}");
        assert_eq!(send(b"{\"n\":3}").await.status, 429, "{provider}: what is new counts");
    }
}

#[tokio::test]
async fn refusals_are_counted_as_the_provider_counts_them() {
    let source = format!(
        "[sources.orders]\nprovider = \"price2b\"\nsecrets = [{{ value = \"{SECRET}\" }}]\nupstream = \"up\"\n\
         rate = {{ per_second = 0.001, burst = 1 }}\nbody_bytes_max = \"1KiB\"\n"
    );
    let world = World::start(&source).await;
    let in_a_row = async || {
        let status = world.admin("GET", "/api/v1/status").await;
        let row = &status["sources"][0];
        assert_eq!((&row["name"], &row["disables_after"]), (&"orders".into(), &10.into()));
        let gauge = world.metric("hookward_source_refusals_in_a_row{source=\"orders\"}").await;
        assert_eq!(row["refusals_in_a_row"], gauge);
        gauge
    };
    let send = |secret: &'static str, body: &'static [u8]| world.send("price2b", secret, PATH, body, 0);
    assert_eq!(world.metric("hookward_source_disables_after{source=\"orders\"}").await, 10);
    assert_eq!(in_a_row().await, 0);
    assert_eq!(send(SECRET, b"{\"id\":\"1\"}").await.status, 200);
    for n in 1..=3 {
        assert_eq!(send(SECRET, b"{\"id\":\"2\"}").await.status, 429);
        assert_eq!(in_a_row().await, n);
        // The provider never hears of it.
        assert_eq!(send("another-secret-than-it-is", b"{\"id\":\"3\"}").await.status, 401);
        assert_eq!(in_a_row().await, n);
    }
    assert_eq!(send(SECRET, &[b'x'; 2000]).await.status, 413);
    assert_eq!(in_a_row().await, 4, "a genuine one of that size is refused, too");
    assert_eq!(send(SECRET, b"{\"id\":\"1\"}").await.status, 429, "there is no token, even for a copy");
    assert_eq!(in_a_row().await, 5);
}
