//! `queue`: stored, acknowledged, delivered in the background, whatever the upstream does.

use std::time::Duration;

use tokio::time::Instant;

use super::{SOON, causes, delivery, in_state, send, send_as, source};
use crate::world::{Act, Upstream, World};

const QUEUE: &str = "provider = \"partssource\"\nupstream = \"up\"";
const PRICE2B: &str = "provider = \"price2b\"\nupstream = \"up\"";

#[tokio::test]
async fn a_re_send_of_a_dead_letter_re_arms_it_and_an_exact_replay_does_not() {
    let world = World::start(&source(QUEUE)).await;
    world.upstream.script([Act::Answer(410, "")]);
    let (_, id) = send(&world, b"{}").await.ack();
    world.settled().await;
    let shown = delivery(&world, &id, "up").await;
    assert_eq!((&shown["state"], &shown["reason"]), (&"dead".into(), &"status 410".into()));

    assert_eq!(send(&world, b"{}").await.ack(), ("duplicate".to_owned(), id.clone()));
    assert_eq!(in_state(&world, "dead").await, [&*id], "an exact replay changes nothing");

    assert_eq!(send_as("partssource", &world, b"{}", 60).await.ack(), ("duplicate".to_owned(), id.clone()));
    let received = world.upstream.wait_for(2).await;
    world.settled().await;
    assert_eq!(received[1].header("hookward-event-id"), Some(&*id));
    let shown = delivery(&world, &id, "up").await;
    assert_eq!((&shown["state"], causes(&shown)), (&"delivered".into(), vec!["first", "re-send"]));

    // Delivered by now: another re-send is a copy and no more.
    assert_eq!(send_as("partssource", &world, b"{}", 61).await.ack().0, "duplicate");
    world.settled().await;
    assert_eq!(world.upstream.received().len(), 2);
}

#[tokio::test]
async fn an_exact_replay_does_not_re_arm_a_dead_letter_after_a_restart_either() {
    let sources = source(QUEUE);
    let world = World::start(&sources).await;
    world.upstream.script([Act::Answer(410, "")]);
    let (_, id) = send(&world, b"{}").await.ack();
    world.settled().await;
    let world = world.restart(&sources).await;
    assert_eq!(send(&world, b"{}").await.ack(), ("duplicate".to_owned(), id.clone()));
    world.settled().await;
    assert_eq!(in_state(&world, "dead").await, [id]);
    assert_eq!(world.upstream.received().len(), 1);
}

/// Where no time is signed the very same bytes are what a provider's own redelivery sends.
#[tokio::test]
async fn the_same_bytes_re_arm_a_dead_letter_where_no_time_is_signed() {
    let world = World::start(&source("provider = \"github\"\nupstream = \"up\"")).await;
    world.upstream.script([Act::Answer(410, "")]);
    let (_, id) = send_as("github", &world, b"{}", 0).await.ack();
    world.settled().await;
    assert_eq!(in_state(&world, "dead").await, [&*id]);
    assert_eq!(send_as("github", &world, b"{}", 0).await.ack(), ("duplicate".to_owned(), id.clone()));
    assert_eq!(world.upstream.wait_for(2).await[1].header("hookward-event-id"), Some(&*id));
    world.settled().await;
    assert_eq!(in_state(&world, "delivered").await, [id]);
}

#[tokio::test]
async fn a_conflict_is_held_where_an_operator_sees_it_and_delivered_when_released() {
    let world = World::start(&source(PRICE2B)).await;
    let (_, first) = send_as("price2b", &world, b"{\"id\":\"evt_1\",\"n\":1}", 0).await.ack();
    world.settled().await;
    let (word, id) = send_as("price2b", &world, b"{\"id\":\"evt_1\",\"n\":2}", 0).await.ack();
    assert_eq!(word, "accepted", "stored whole before the 200");
    assert_ne!(id, first);
    world.settled().await;
    let held = world.admin("GET", "/api/v1/events?state=held").await;
    assert_eq!(held["events"].as_array().map(Vec::len), Some(1));
    let event = &held["events"][0];
    assert_eq!((&event["id"], &event["conflict_of"]), (&(&*id).into(), &(&*first).into()));
    assert_eq!(event["deliveries"][0]["reason"], "conflict");
    assert_eq!(world.upstream.received().len(), 1, "not forwarded");
    let again = send_as("price2b", &world, b"{\"id\":\"evt_1\",\"n\":2}", 0).await.ack();
    assert_eq!(again, ("duplicate".to_owned(), id.clone()), "a copy of the conflict is one of it");

    let done = world.admin("POST", &format!("/api/v1/events/{id}/release")).await;
    assert_eq!(done["count"], 1);
    let received = world.upstream.wait_for(2).await;
    assert_eq!(received[1].header("hookward-conflict-of"), Some(&*first));
    assert_eq!(received[1].body[..], b"{\"id\":\"evt_1\",\"n\":2}"[..]);
    world.settled().await;
    assert_eq!(causes(&delivery(&world, &id, "up").await), ["released"]);
}

#[tokio::test]
async fn a_conflict_can_be_delivered_at_once_or_dropped() {
    let body = |n: u8| format!("{{\"id\":\"evt_1\",\"n\":{n}}}").into_bytes();

    let world = World::start(&source(&format!("{PRICE2B}\non_conflict = \"deliver\""))).await;
    let (_, first) = send_as("price2b", &world, &body(1), 0).await.ack();
    world.upstream.wait_for(1).await;
    let (word, id) = send_as("price2b", &world, &body(2), 0).await.ack();
    assert_eq!(word, "accepted");
    let received = world.upstream.wait_for(2).await;
    assert_eq!(received[1].header("hookward-event-id"), Some(&*id));
    assert_eq!(received[1].header("hookward-conflict-of"), Some(&*first));

    let world = World::start(&source(&format!("{PRICE2B}\non_conflict = \"drop\""))).await;
    let (_, first) = send_as("price2b", &world, &body(1), 0).await.ack();
    assert_eq!(send_as("price2b", &world, &body(2), 0).await.ack(), ("duplicate".to_owned(), first));
    world.settled().await;
    assert_eq!(world.upstream.received().len(), 1);
    assert_eq!(world.admin("GET", "/api/v1/events").await["events"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_re_send_of_a_delivered_event_can_be_delivered_with_a_mark() {
    let world = World::start(&source(&format!("{QUEUE}\non_resend = \"deliver\""))).await;
    let (_, first) = send(&world, b"{}").await.ack();
    world.settled().await;
    assert_eq!(send(&world, b"{}").await.ack(), ("duplicate".to_owned(), first.clone()), "a replay never is");
    let (word, id) = send_as("partssource", &world, b"{}", 60).await.ack();
    assert_eq!(word, "accepted");
    assert_ne!(id, first);
    let received = world.upstream.wait_for(2).await;
    assert_eq!(received[1].header("hookward-duplicate-of"), Some(&*first));
    assert_eq!(received[1].header("hookward-event-id"), Some(&*id));
    world.settled().await;
    assert_eq!(world.upstream.received().len(), 2);
}

#[tokio::test]
async fn an_authentic_but_stale_event_is_held_and_can_be_released() {
    let world = World::start(&source(PRICE2B)).await;
    let body = b"{\"id\":\"evt_1\"}";
    let (word, id) = send_as("price2b", &world, body, -28 * 3600).await.ack();
    assert_eq!(word, "accepted");
    world.settled().await;
    let shown = delivery(&world, &id, "up").await;
    assert_eq!((&shown["state"], &shown["reason"]), (&"held".into(), &"stale".into()));
    assert_eq!(in_state(&world, "held").await, [&*id]);
    assert!(world.upstream.received().is_empty());
    world.admin("POST", &format!("/api/v1/events/{id}/release")).await;
    assert_eq!(world.upstream.wait_for(1).await[0].body[..], body[..]);
}

#[tokio::test]
async fn of_two_upstreams_the_one_that_fails_or_hangs_holds_up_nothing_of_the_other() {
    const EVENTS: usize = 40;
    let audit = Upstream::start().await;
    let sources = source("provider = \"partssource\"\nupstreams = [\"up\", \"audit\"]")
        + &format!("[upstreams.audit]\nurl = \"{}\"\n", audit.url());
    let world = World::with_upstream(&sources, SOON).await;
    // More than its concurrency hang, and one fails before.
    world.upstream.script([Act::Answer(500, "")]);
    world.upstream.script((0..EVENTS).map(|_| Act::Hang(200)));
    for n in 0..EVENTS {
        assert_eq!(send(&world, format!("{{\"n\":{n}}}").as_bytes()).await.ack().0, "accepted");
    }
    let bodies = |upstream: &Upstream| {
        let mut bodies: Vec<_> = upstream.received().iter().map(|one| one.body.to_vec()).collect();
        bodies.sort();
        bodies
    };
    audit.wait_for(EVENTS).await;
    assert!(world.upstream.received().len() < EVENTS, "the other one hangs");
    (0..EVENTS).for_each(|_| world.upstream.let_go());
    world.settled().await;
    let mut once = bodies(&world.upstream);
    assert_eq!(once.len(), EVENTS + 1, "one was tried twice");
    once.dedup();
    assert_eq!(once, bodies(&audit));
}

#[tokio::test]
async fn items_that_the_upstream_has_are_marked_when_a_part_is_sent_again() {
    let gains = "[sources.orders]\nprovider = \"gains\"\nupstream = \"up\"\n\
                 secrets = [{ value = \"Bearer a-token-of-some-length\" }]\n";
    let world = World::start(gains).await;
    let send = async |body: &str| {
        let headers = [("authorization", "Bearer a-token-of-some-length")];
        let reply = world.post("/hooks/orders", &headers, body.as_bytes()).await;
        assert_eq!(reply.ack().0, "accepted");
        world.settled().await;
    };
    send(r#"{"DataType":"Order","Data":[{"TrackingNumber":"T1","Qty":1},{"TrackingNumber":"T2","Qty":2}]}"#).await;
    send(r#"{"DataType":"Order","Data":[{"TrackingNumber":"T3","Qty":3},{"TrackingNumber":"T2","Qty":2}]}"#).await;
    send(r#"{"DataType":"Order","Data":[{"TrackingNumber":"T2","Qty":9},{"TrackingNumber":"T1","Qty":1}]}"#).await;
    send(r#"{"DataType":"Return","Data":[{"TrackingNumber":"T1","Qty":1}]}"#).await;
    let received = world.upstream.received();
    let marks: Vec<_> = received
        .iter()
        .map(|one| (one.header("hookward-duplicate-items"), one.header("hookward-changed-items")))
        .collect();
    assert_eq!(marks, [(None, None), (Some("1"), None), (Some("1"), Some("0")), (None, None)]);
    assert!(received.iter().all(|one| one.header("authorization").is_none()), "the credential is consumed");
}

#[tokio::test]
async fn items_that_an_upstream_refused_are_not_marked() {
    let gains = "[sources.orders]\nprovider = \"gains\"\nupstream = \"up\"\n\
                 secrets = [{ value = \"Bearer a-token-of-some-length\" }]\n";
    let world = World::start(gains).await;
    world.upstream.script([Act::Answer(422, "")]);
    for n in 1..=2 {
        let body = format!(r#"{{"DataType":"Order","n":{n},"Data":[{{"TrackingNumber":"T1","Qty":1}}]}}"#);
        let headers = [("authorization", "Bearer a-token-of-some-length")];
        world.post("/hooks/orders", &headers, body.as_bytes()).await;
        world.settled().await;
    }
    assert_eq!(world.upstream.received()[1].header("hookward-duplicate-items"), None);
}

#[tokio::test]
async fn with_the_upstream_hung_accepting_is_as_fast_as_with_it_healthy() {
    const REQUESTS: usize = 200;
    let hung = Upstream::start().await;
    hung.script((0..REQUESTS).map(|_| Act::Hang(200)));
    let of = |name: &str, upstream: &str| {
        format!(
            "[sources.{name}]\nprovider = \"partssource\"\nsecrets = [{{ value = \"secret-of-{name}-of-length\" }}]\n\
             upstream = \"{upstream}\"\n"
        )
    };
    let sources =
        of("healthy", "up") + &of("hanging", "hung") + &format!("[upstreams.hung]\nurl = \"{}\"\n", hung.url());
    let world = World::start(&sources).await;
    // Interleaved, so that whatever else this machine does strikes both alike.
    let (mut healthy, mut hanging) = (Vec::new(), Vec::new());
    for n in 0..REQUESTS {
        for (name, times) in [("healthy", &mut healthy), ("hanging", &mut hanging)] {
            let (secret, path) = (format!("secret-of-{name}-of-length"), format!("/hooks/{name}"));
            let began = Instant::now();
            let reply = world.send("partssource", &secret, &path, format!("{{\"n\":{n}}}").as_bytes(), 0).await;
            times.push(began.elapsed());
            assert_eq!(reply.ack().0, "accepted");
        }
    }
    assert!(hung.received().len() < REQUESTS, "it hangs");
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (healthy, hanging) = (median(&mut healthy), median(&mut hanging));
    assert!(hanging <= healthy * 3 + Duration::from_millis(20), "healthy {healthy:?}, hung {hanging:?}");
}
