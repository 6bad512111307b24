//! Drain: finish what began, take nothing new.

use std::sync::Arc;

use super::{SECRET, send, source};
use crate::world::{Act, NOW_S, Reply, World, request, sign, within};

async fn post(to: std::net::SocketAddr, body: &[u8]) -> Reply {
    let headers = sign("partssource", SECRET, body, NOW_S);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    request(to, "POST", super::PATH, &headers, body).await
}

#[tokio::test]
async fn a_drain_is_not_ready_at_once_and_finishes_what_is_in_flight() {
    let delayed = |text: String| text.replacen("drain_delay = \"0s\"", "drain_delay = \"2s\"", 1);
    let world = World::start_edited(&source("respond", ""), delayed).await;
    world.upstream.script([Act::Later(200, "{\"late\":true}"), Act::Json(200, "{\"soon\":true}")]);
    let to = world.gateway.public;
    let readyz = async || request(to, "GET", "/readyz", &[], b"").await.status;
    assert_eq!(readyz().await, 200);
    let hanging = tokio::spawn(async move { post(to, b"{\"n\":1}").await });
    world.upstream.wait_for(1).await;

    let World { gateway, upstream, data: _data, .. } = world;
    let drain = tokio::spawn(gateway.drain());
    within("readiness to end", async {
        while readyz().await == 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(request(to, "GET", "/livez", &[], b"").await.status, 200, "alive until the end");
    assert_eq!(post(to, b"{\"n\":2}").await.text(), "{\"soon\":true}", "still accepted before the listeners close");
    within("the listener to close", async {
        while tokio::net::TcpStream::connect(to).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!drain.is_finished(), "it waits for what is in flight");
    upstream.let_go();
    let reply = hanging.await.expect("no panic");
    assert_eq!((reply.status, reply.text().as_str()), (200, "{\"late\":true}"));
    assert!(within("the drain", drain).await.expect("no panic"), "everything was finished");
}

#[tokio::test]
async fn what_is_left_at_the_drain_timeout_gets_503_and_its_flight_still_lands() {
    let short = |text: String| text.replacen("drain_timeout = \"10s\"", "drain_timeout = \"200ms\"", 1);
    let sources = source("proxy", "");
    let world = World::start_edited(&sources, short).await;
    world.upstream.script([Act::Later(200, "{\"taken\":true}")]);
    let to = world.gateway.public;
    let hanging = tokio::spawn(async move { post(to, b"{}").await });
    world.upstream.wait_for(1).await;

    let World { gateway, upstream, data, .. } = world;
    let drain = tokio::spawn(gateway.drain());
    let reply = hanging.await.expect("no panic");
    assert_eq!(reply.status, 503);
    assert!(reply.headers.contains_key("retry-after"));
    upstream.let_go();
    assert!(within("the drain", drain).await.expect("no panic"), "the flight landed");

    let world = World::start_with(&sources, "", upstream, data).await;
    let retry = send(&world, b"{}", 0).await;
    assert_eq!((retry.status, retry.text().as_str()), (200, "{\"taken\":true}"), "its keys were recorded");
    assert_eq!(world.upstream.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_loses_nothing_that_was_acknowledged() {
    let sources = source("queue", "");
    let world = World::start(&sources).await;
    let to = world.gateway.public;
    let acknowledged: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let load: Vec<_> = (0..4)
        .map(|worker| {
            let acknowledged = acknowledged.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let body = format!("{{\"worker\":{worker},\"n\":{n}}}");
                    // Once the listener is closed there is nobody to ask.
                    let Ok(open) = tokio::net::TcpStream::connect(to).await else { return };
                    let headers = sign("partssource", SECRET, body.as_bytes(), NOW_S);
                    let Some(reply) = crate::crash::client::post(open, super::PATH, &headers, body.as_bytes()).await
                    else {
                        return;
                    };
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    acknowledged.lock().expect("no panic").push(body);
                }
            })
        })
        .collect();
    world.upstream.wait_for(20).await;
    let World { gateway, upstream, data, .. } = world;
    assert!(within("the drain", gateway.drain()).await, "drained whole");
    for worker in load {
        worker.await.expect("no panic");
    }
    let world = World::start_with(&sources, "", upstream, data).await;
    world.settled().await;
    let mut received: Vec<_> = world.upstream.received().iter().map(|one| one.body.to_vec()).collect();
    received.sort();
    let once = received.len();
    received.dedup();
    assert_eq!(received.len(), once, "nothing twice");
    for body in acknowledged.lock().expect("no panic").iter() {
        assert!(received.binary_search(&body.as_bytes().to_vec()).is_ok(), "{body} was acknowledged and is lost");
    }
}
