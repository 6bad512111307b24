//! Limits: rate, address list, places in flight, size and speed of a body.

use std::{fmt::Write as _, time::Duration};

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{PATH, SECRET, send, signed_request, source, stored};
use crate::world::{Act, NOW_S, Reply, World, raw, read_reply, sign, within};

#[tokio::test]
async fn over_the_rate_is_429_and_only_what_verifies_counts() {
    let world = World::start(&source("queue", "rate = { per_second = 0.01, burst = 2 }")).await;
    for n in 0..10 {
        let forged = world.send("partssource", "another-secret-than-it-is", PATH, b"{}", n).await;
        assert_eq!(forged.status, 401);
    }
    assert_eq!(send(&world, b"{\"n\":1}", 0).await.ack().0, "accepted");
    assert_eq!(send(&world, b"{\"n\":2}", 0).await.ack().0, "accepted");
    let refused = send(&world, b"{\"n\":3}", 0).await;
    assert_eq!(refused.status, 429);
    let wait_s: u64 = refused.headers["retry-after"].parse().expect("seconds");
    assert!((90..=101).contains(&wait_s), "a token takes 100 s: {wait_s}");
    world.settled().await;
    assert_eq!((stored(&world).await, world.upstream.received().len()), (2, 2), "the refused one left nothing");
}

#[tokio::test]
async fn a_copy_takes_nothing_of_the_rate() {
    let world = World::start(&source("queue", "rate = { per_second = 0.01, burst = 2 }")).await;
    assert_eq!(send(&world, b"{\"n\":1}", 0).await.ack().0, "accepted");
    for _ in 0..3 {
        assert_eq!(send(&world, b"{\"n\":1}", 0).await.ack().0, "duplicate", "captured and sent again");
    }
    for offset_s in 1..4 {
        assert_eq!(send(&world, b"{\"n\":1}", offset_s).await.ack().0, "duplicate", "signed anew");
    }
    assert_eq!(send(&world, b"{\"n\":2}", 0).await.ack().0, "accepted");
    assert_eq!(send(&world, b"{\"n\":3}", 0).await.status, 429);
}

#[tokio::test]
async fn an_address_that_is_not_on_the_list_is_403_or_503_where_403_would_lose_the_event() {
    let of = |name: &str, provider: &str, allow: &str| {
        format!(
            "[sources.{name}]\nprovider = \"{provider}\"\nsecrets = [{{ value = \"{SECRET}\" }}]\nupstream = \"up\"\n\
             allow = [\"{allow}\"]\nallow_shared_secret = true\n"
        )
    };
    let sources = of("outside", "price2b", "203.0.113.0/24")
        + &of("drops", "partssource", "2001:db8::/32")
        + &of("inside", "price2b", "127.0.0.0/8");
    let world = World::start(&sources).await;
    let body = b"{\"id\":\"evt_1\"}";
    assert_eq!(world.send("price2b", SECRET, "/hooks/outside", body, 0).await.status, 403);
    assert_eq!(world.send("partssource", SECRET, "/hooks/drops", body, 0).await.status, 503);
    assert_eq!(stored(&world).await, 0);
    assert_eq!(world.send("price2b", SECRET, "/hooks/inside", body, 0).await.ack().0, "accepted");
}

#[tokio::test]
async fn a_source_at_in_flight_max_answers_503_and_a_flight_that_outlives_its_request_counts() {
    let world = World::start(&source("respond", "in_flight_max = 1\ndeadline = \"1s\"")).await;
    world.upstream.script([Act::Hang(200)]);
    // Answered at the deadline, while its flight goes on.
    assert_eq!(send(&world, b"{\"n\":1}", 0).await.ack().0, "accepted");
    let refused = send(&world, b"{\"n\":2}", 0).await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(stored(&world).await, 1, "the refused one left nothing");
    world.upstream.let_go();
    within("its place to be free", async {
        while send(&world, b"{\"n\":2}", 0).await.status == 503 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(world.upstream.received().len(), 2);
}

#[tokio::test]
async fn a_server_at_in_flight_max_answers_503_until_a_place_is_free() {
    let world = World::start(&(source("queue", "") + "\n[server.limits]\nin_flight_max = 1\n")).await;
    let request = signed_request(b"{\"n\":1}");
    let mut slow = TcpStream::connect(world.gateway.public).await.expect("it listens");
    slow.write_all(&request[..request.len() - 1]).await.expect("sent");
    world.until_metric("hookward_in_flight ", 1).await;
    let refused = send(&world, b"{\"n\":2}", 0).await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    let health = crate::world::request(world.gateway.public, "GET", "/healthz", &[], b"").await;
    assert_eq!(health.status, 200, "probes need no place");
    slow.write_all(&request[request.len() - 1..]).await.expect("sent");
    let reply = within("an answer", read_reply(&mut slow)).await;
    assert_eq!(reply.ack().0, "accepted");
    within("its place to be free", async {
        while send(&world, b"{\"n\":2}", 0).await.status == 503 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_declared_or_counted() {
    let world = World::start(&source("queue", "body_bytes_max = \"1KiB\"")).await;
    assert_eq!(send(&world, &[b'a'; 1024], 0).await.ack().0, "accepted", "the limit itself is allowed");
    let head = |framing: &str| {
        let mut head = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\n{framing}\r\n");
        for (name, value) in sign("partssource", SECRET, b"{}", NOW_S) {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        (head + "\r\n").into_bytes()
    };
    // Refused on its word: not one byte of the body is sent.
    assert_eq!(raw(world.gateway.public, &head("content-length: 1025")).await.status, 413);
    // Chunked, the bytes are counted, and nothing is cut to fit.
    let mut chunked = head("transfer-encoding: chunked");
    for _ in 0..3 {
        chunked.extend_from_slice(b"200\r\n");
        chunked.extend_from_slice(&[b'b'; 512]);
        chunked.extend_from_slice(b"\r\n");
    }
    assert_eq!(raw(world.gateway.public, &chunked).await.status, 413);
    assert_eq!(stored(&world).await, 1);
}

/// Sends all but the last byte of a request, and then what `rest` sends, until the answer comes.
async fn slowly(world: &World, mut rest: impl AsyncFnMut(&mut tokio::net::tcp::OwnedWriteHalf)) -> Reply {
    let request = signed_request(&[b'x'; 900]);
    let (mut reading, mut writing) = TcpStream::connect(world.gateway.public).await.expect("it listens").into_split();
    writing.write_all(&request[..request.len() - 800]).await.expect("sent");
    tokio::select! {
        reply = within("an answer", read_reply(&mut reading)) => reply,
        () = async { loop { rest(&mut writing).await } } => unreachable!("it loops"),
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_408_at_the_body_timeout() {
    let limits = "\n[server.limits]\nbody_timeout = \"300ms\"\n";
    let world = World::start(&(source("queue", "") + limits)).await;
    let began = tokio::time::Instant::now();
    let reply = slowly(&world, async |_| std::future::pending().await).await;
    assert_eq!(reply.status, 408);
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(stored(&world).await, 0);
}

#[tokio::test]
async fn a_body_that_trickles_is_408_long_before_the_body_timeout() {
    let world = World::start(&source("queue", "")).await;
    let began = tokio::time::Instant::now();
    let reply = slowly(&world, async |writing| {
        tokio::time::sleep(Duration::from_millis(100)).await; // the trickle
        let _ = writing.write_all(b"x").await;
    })
    .await;
    assert_eq!(reply.status, 408);
    let took = began.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(20)).contains(&took), "the floor is over 5 s: {took:?}");
}
