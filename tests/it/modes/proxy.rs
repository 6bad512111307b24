//! `proxy`: the upstream's answer is the answer, and only keys are stored.

use std::time::Duration;

use tokio::{net::TcpSocket, time::Instant};

use super::{PATH, SECRET, in_state, send, send_as, source};
use crate::world::{Act, NOW_S, Reply, World, request, sign};

const PROXY: &str = "provider = \"partssource\"\nupstream = \"up\"\nmode = \"proxy\"";

fn said(reply: &Reply) -> (u16, String) {
    (reply.status, reply.text())
}

#[tokio::test]
async fn a_success_is_relayed_and_a_copy_gets_the_stored_answer_even_after_a_restart() {
    let sources = source(PROXY);
    let mut world = World::start(&sources).await;
    world.upstream.script([Act::Json(201, "{\"made\":1}")]);
    let first = send(&world, b"{}").await;
    assert_eq!(said(&first), (201, "{\"made\":1}".to_owned()));
    assert_eq!(first.headers["content-type"], "application/json");
    assert_eq!(said(&send(&world, b"{}").await), said(&first), "the same bytes");
    assert_eq!(said(&send_as("partssource", &world, b"{}", 9).await), said(&first), "signed anew");
    world = world.restart(&sources).await;
    let after = send(&world, b"{}").await;
    assert_eq!(said(&after), said(&first), "after a restart");
    assert_eq!(after.headers["content-type"], "application/json");
    assert_eq!(world.upstream.received().len(), 1);
    let listed = world.admin("GET", "/api/v1/events").await;
    assert_eq!(listed["events"].as_array().map(Vec::len), Some(0), "no event is stored");
}

#[tokio::test]
async fn a_definite_failure_is_relayed_and_frees_the_keys() {
    let world = World::start(&source(PROXY)).await;
    world.upstream.script([Act::Json(500, "{\"why\":\"no\"}"), Act::Json(200, "{\"now\":\"yes\"}")]);
    assert_eq!(said(&send(&world, b"{}").await), (500, "{\"why\":\"no\"}".to_owned()));
    assert_eq!(said(&send(&world, b"{}").await), (200, "{\"now\":\"yes\"}".to_owned()));
    let received = world.upstream.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[1].header("hookward-uncertain"), None, "the first one failed for certain");
}

#[tokio::test]
async fn a_status_on_which_the_provider_drops_the_event_becomes_502() {
    let world = World::start(&source(PROXY)).await;
    // PartsSource drops on 400, 401, 403, 404, 410; a redirect is nothing that a provider should follow.
    for (n, status) in [400, 401, 403, 404, 410, 302].into_iter().enumerate() {
        world.upstream.script([Act::Answer(status, "from inside")]);
        let reply = send(&world, format!("{{\"n\":{n}}}").as_bytes()).await;
        assert_eq!(reply.status, 502, "instead of {status}");
        assert!(!reply.text().contains("from inside"));
    }
    world.upstream.script([Act::Answer(409, "retried by the provider")]);
    assert_eq!(send(&world, b"{}").await.status, 409);
}

#[tokio::test]
async fn with_raw_status_it_is_relayed_as_it_is() {
    let world = World::start(&source(&format!("{PROXY}\nproxy_status = \"raw\""))).await;
    world.upstream.script([Act::Answer(404, "no such order")]);
    assert_eq!(said(&send(&world, b"{}").await), (404, "no such order".to_owned()));
}

#[tokio::test]
async fn a_success_becomes_the_one_status_that_the_provider_takes_for_success() {
    let sources = source("provider = \"mobility-work\"\nupstream = \"up\"\nmode = \"proxy\"");
    let world = World::start(&sources).await;
    world.upstream.script([Act::Json(204, ""), Act::Json(201, "{}")]);
    assert_eq!(send_as("mobility-work", &world, b"{\"n\":1}", 0).await.status, 200);
    assert_eq!(send_as("mobility-work", &world, b"{\"n\":2}", 0).await.status, 200);
    assert_eq!(send_as("mobility-work", &world, b"{\"n\":2}", 0).await.status, 200, "and so for a copy");
    assert_eq!(world.upstream.received().len(), 2);
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_502_and_leaves_nothing() {
    // Bound and not listening: nobody else gets this port, and connecting to it is refused.
    let nobody = TcpSocket::new_v4().expect("a socket");
    nobody.bind(([127, 0, 0, 1], 0).into()).expect("loopback");
    let nowhere = format!("url = \"http://{}/\"", nobody.local_addr().expect("an address"));
    let sources = source(&PROXY.replace("\"up\"", "\"gone\""));
    let world = World::start(&format!("{sources}[upstreams.gone]\n{nowhere}\n")).await;
    assert_eq!(send(&world, b"{}").await.status, 502);
    assert_eq!(send(&world, b"{}").await.status, 502, "its keys are free: it is tried again");
    let attempts = "hookward_attempts_total{upstream=\"gone\",result=\"unreachable\"}";
    assert_eq!(world.metric(attempts).await, 2);
}

#[tokio::test]
async fn past_the_deadline_it_is_504_and_a_late_success_makes_the_retry_a_duplicate() {
    let world = World::start(&source(&format!("{PROXY}\ndeadline = \"2s\""))).await;
    world.upstream.script([Act::Later(200, "{\"late\":true}")]);
    let began = Instant::now();
    let reply = send(&world, b"{}").await;
    assert!(began.elapsed() < Duration::from_secs(2), "inside the deadline");
    assert_eq!(reply.status, 504);
    // A retry while the first is still in the air waits for it, and is told to come again.
    let retry = send(&world, b"{}").await;
    assert_eq!((retry.status, retry.headers.contains_key("retry-after")), (503, true));
    world.upstream.let_go();
    assert_eq!(said(&send(&world, b"{}").await), (200, "{\"late\":true}".to_owned()));
    assert_eq!(world.upstream.received().len(), 1, "never a second forward");
}

#[tokio::test]
async fn an_attempt_without_an_answer_is_504_and_its_retry_says_that_it_is_uncertain() {
    let world = World::with_upstream(&source(PROXY), "timeout = \"200ms\"").await;
    world.upstream.script([Act::Hang(200)]);
    assert_eq!(send(&world, b"{}").await.status, 504);
    assert_eq!(send(&world, b"{}").await.status, 200);
    let received = world.upstream.received();
    let uncertain: Vec<_> = received.iter().map(|one| one.header("hookward-uncertain")).collect();
    assert_eq!(uncertain, [None, Some("true")]);
}

#[tokio::test]
async fn a_cut_connection_is_502_and_its_retry_says_that_it_is_uncertain() {
    let world = World::start(&source(PROXY)).await;
    world.upstream.script([Act::Cut, Act::Cut]);
    assert_eq!(send(&world, b"{}").await.status, 502);
    assert_eq!(send(&world, b"{}").await.status, 502);
    assert_eq!(send_as("partssource", &world, b"{}", 9).await.status, 200, "signed anew, it is the same event");
    assert_eq!(send(&world, b"{\"n\":2}").await.status, 200);
    let received = world.upstream.received();
    let uncertain: Vec<_> = received.iter().map(|one| one.header("hookward-uncertain")).collect();
    assert_eq!(uncertain, [None, Some("true"), Some("true"), None]);
}

/// Copies sent while the first one hangs at the upstream; their answers in no order.
async fn copies(world: &World, count: u64) -> Vec<Reply> {
    let to = world.gateway.public;
    let sending: Vec<_> = (0..count)
        .map(|_| {
            tokio::spawn(async move {
                let headers = sign("partssource", SECRET, b"{}", NOW_S);
                let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                request(to, "POST", PATH, &headers, b"{}").await
            })
        })
        .collect();
    world.until_metric("hookward_verified_total", count).await;
    world.upstream.wait_for(1).await;
    world.upstream.let_go();
    let mut replies = Vec::new();
    for sending in sending {
        replies.push(sending.await.expect("no panic"));
    }
    replies.sort_by_key(|reply| reply.status);
    replies
}

#[tokio::test]
async fn a_copy_that_waits_behind_a_failing_first_takes_its_place() {
    let world = World::start(&source(PROXY)).await;
    world.upstream.script([Act::Later(500, ""), Act::Json(200, "{\"second\":true}")]);
    let statuses: Vec<_> = copies(&world, 4).await.iter().map(said).collect();
    let success = (200, "{\"second\":true}".to_owned());
    assert_eq!(statuses, [success.clone(), success.clone(), success, (500, String::new())]);
    assert_eq!(world.upstream.received().len(), 2);
}

#[tokio::test]
async fn each_of_the_waiting_leads_at_most_once() {
    let world = World::start(&source(PROXY)).await;
    world.upstream.script([Act::Later(500, ""), Act::Answer(500, ""), Act::Answer(500, "")]);
    assert!(copies(&world, 3).await.iter().all(|reply| reply.status == 500));
    assert_eq!(world.upstream.received().len(), 3);
}

#[tokio::test]
async fn another_body_under_a_known_event_key_is_held_not_relayed() {
    let world = World::start(&source("provider = \"price2b\"\nupstream = \"up\"\nmode = \"proxy\"")).await;
    assert_eq!(send_as("price2b", &world, b"{\"id\":\"evt_1\",\"n\":1}", 0).await.status, 200);
    let (word, id) = send_as("price2b", &world, b"{\"id\":\"evt_1\",\"n\":2}", 0).await.ack();
    assert_eq!(word, "accepted");
    assert_eq!(in_state(&world, "held").await, [id]);
    assert_eq!(world.upstream.received().len(), 1);
}
