//! `respond`: stored, delivered at once, answered with the upstream's 2xx if it comes in time.

use std::time::Duration;

use tokio::time::Instant;

use super::{SOON, causes, delivery, in_state, send, send_as, source};
use crate::world::{Act, Upstream, World};

const RESPOND: &str = "provider = \"partssource\"\nupstream = \"up\"\nmode = \"respond\"";

async fn the_only_event(world: &World) -> String {
    let listed = world.admin("GET", "/api/v1/events").await;
    assert_eq!(listed["events"].as_array().map(Vec::len), Some(1));
    listed["events"][0]["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn an_upstream_in_time_is_the_answer_and_every_copy_gets_the_same_one_even_after_a_restart() {
    let sources = source(RESPOND);
    let mut world = World::start(&sources).await;
    world.upstream.script([Act::Json(202, "{\"ticket\":7}")]);
    let first = send(&world, b"{}").await;
    let of = |reply: &crate::world::Reply| (reply.status, reply.text(), reply.headers["content-type"].clone());
    assert_eq!(of(&first), (202, "{\"ticket\":7}".to_owned(), "application/json".to_owned()));
    assert_eq!(of(&send(&world, b"{}").await), of(&first), "the same bytes");
    assert_eq!(of(&send_as("partssource", &world, b"{}", 9).await), of(&first), "signed anew");
    world = world.restart(&sources).await;
    assert_eq!(of(&send(&world, b"{}").await), of(&first), "after a restart");
    assert_eq!(world.upstream.received().len(), 1);
    let id = the_only_event(&world).await;
    assert_eq!(delivery(&world, &id, "up").await["state"], "delivered");
}

#[tokio::test]
async fn a_hung_upstream_is_answered_for_inside_the_deadline_and_the_delivery_goes_on() {
    let world = World::start(&source(&format!("{RESPOND}\ndeadline = \"2s\""))).await;
    world.upstream.script([Act::Later(200, "{\"late\":true}")]);
    let began = Instant::now();
    let (word, id) = send(&world, b"{}").await.ack();
    let took = began.elapsed();
    assert_eq!(word, "accepted");
    assert!(took < Duration::from_secs(2), "inside the deadline, not after {took:?}");
    assert_eq!(delivery(&world, &id, "up").await["state"], "leased", "it goes on");
    // A copy waits for the same flight, until its own deadline, and knows that the event is durable.
    assert_eq!(send(&world, b"{}").await.ack(), ("duplicate".to_owned(), id.clone()));

    world.upstream.let_go();
    world.settled().await;
    let shown = delivery(&world, &id, "up").await;
    assert_eq!((&shown["state"], causes(&shown)), (&"delivered".into(), vec!["first"]));
    assert_eq!(world.upstream.received().len(), 1, "no second attempt");
    assert_eq!(send(&world, b"{}").await.text(), "{\"late\":true}", "by now the answer is known");
}

#[tokio::test]
async fn a_failing_upstream_is_200_for_the_provider_and_the_lane_retries() {
    let world = World::with_upstream(&source(RESPOND), SOON).await;
    world.upstream.script([Act::Json(500, "{\"error\":true}")]);
    let (word, id) = send(&world, b"{}").await.ack();
    assert_eq!(word, "accepted", "stored: the provider need not know");
    let received = world.upstream.wait_for(2).await;
    world.settled().await;
    assert_eq!(received[1].header("hookward-attempt"), Some("2"));
    assert_eq!(received[1].header("hookward-event-id"), Some(&*id));
    let shown = delivery(&world, &id, "up").await;
    assert_eq!((&shown["state"], causes(&shown)), (&"delivered".into(), vec!["first", "retry"]));
}

#[tokio::test]
async fn the_second_upstream_gets_a_delivery_of_its_own() {
    let audit = Upstream::start().await;
    let sources = source("provider = \"partssource\"\nupstreams = [\"up\", \"audit\"]\nmode = \"respond\"")
        + &format!("[upstreams.audit]\nurl = \"{}\"\n", audit.url());
    let world = World::start(&sources).await;
    world.upstream.script([Act::Json(200, "{\"from\":\"up\"}")]);
    audit.script([Act::Hang(200)]);
    assert_eq!(send(&world, b"{}").await.text(), "{\"from\":\"up\"}", "the first answers, and waits for no other");
    assert_eq!(audit.wait_for(1).await[0].body[..], b"{}"[..]);
    audit.let_go();
    world.settled().await;
    let id = the_only_event(&world).await;
    for upstream in ["up", "audit"] {
        assert_eq!(causes(&delivery(&world, &id, upstream).await), ["first"]);
    }
    assert_eq!((world.upstream.received().len(), audit.received().len()), (1, 1));
}

#[tokio::test]
async fn behind_an_open_breaker_it_is_queued() {
    let breaker = "breaker = { failures = 1, pause = \"1h\" }";
    let world = World::with_upstream(&source(RESPOND), breaker).await;
    world.upstream.script([Act::Answer(500, "")]);
    assert_eq!(send(&world, b"{\"n\":1}").await.ack().0, "accepted");
    let (word, id) = send(&world, b"{\"n\":2}").await.ack();
    assert_eq!(word, "accepted");
    let shown = delivery(&world, &id, "up").await;
    assert_eq!((&shown["state"], &shown["attempts"]), (&"due".into(), &0.into()));
    assert_eq!(world.upstream.received().len(), 1);
    assert_eq!(in_state(&world, "due").await.len(), 2);
}

#[tokio::test]
async fn an_upstream_that_refuses_for_good_makes_a_dead_letter_and_a_re_send_gets_its_answer_later() {
    let world = World::start(&source(RESPOND)).await;
    world.upstream.script([Act::Answer(422, ""), Act::Json(200, "{\"fine\":true}")]);
    let (word, id) = send(&world, b"{}").await.ack();
    assert_eq!((word.as_str(), in_state(&world, "dead").await), ("accepted", vec![id.clone()]));
    assert_eq!(send_as("partssource", &world, b"{}", 9).await.ack(), ("duplicate".to_owned(), id.clone()));
    world.settled().await;
    assert_eq!(causes(&delivery(&world, &id, "up").await), ["first", "re-send"]);
}
