//! Routes and order: to whom an event goes, and with which order key it is stored.

use hookward::event::OrderKey;

use super::{PATH, SOON, causes, delivery, in_state, recording::Recorded, send, send_as, source};
use crate::world::{Act, Reply, Upstream, World, request};

/// Two upstreams besides `up`.
async fn two_more() -> (Upstream, Upstream, String) {
    let (billing, de) = (Upstream::start().await, Upstream::start().await);
    let text = format!("[upstreams.billing]\nurl = \"{}\"\n[upstreams.de]\nurl = \"{}\"\n", billing.url(), de.url());
    (billing, de, text)
}

const ROUTES: &str = "routes = [{ type = \"invoice.*\", to = \"billing\" }, \
                      { json = { \"/data/country\" = \"DE\" }, to = [\"de\", \"billing\"] }]";

fn of_type(kind: &str, country: &str, n: u8) -> Vec<u8> {
    format!(r#"{{"event_type":"{kind}","data":{{"country":"{country}"}},"n":{n}}}"#).into_bytes()
}

fn bodies(upstream: &Upstream) -> Vec<Vec<u8>> {
    upstream.received().iter().map(|one| one.body.to_vec()).collect()
}

#[tokio::test]
async fn every_route_that_wants_an_event_gets_it_and_the_rest_goes_where_the_source_says() {
    let (billing, de, upstreams) = two_more().await;
    let world =
        World::start(&(source(&format!("provider = \"partssource\"\nupstream = \"up\"\n{ROUTES}")) + &upstreams)).await;
    let paid = of_type("invoice.paid", "FR", 1);
    let german = of_type("invoice.paid", "DE", 2);
    let order = of_type("order", "DE", 3);
    let other = of_type("order", "FR", 4);
    let no_json = b"no JSON".to_vec();
    for body in [&paid, &german, &order, &other, &no_json] {
        assert_eq!(send(&world, body).await.ack().0, "accepted");
        world.settled().await;
    }
    assert_eq!(bodies(&billing), [paid, german.clone(), order.clone()]);
    assert_eq!(bodies(&de), [german, order]);
    assert_eq!(bodies(&world.upstream), [other, no_json]);
}

#[tokio::test]
async fn an_event_that_nobody_wants_is_accepted_stored_counted_and_sent_by_an_operator() {
    let (billing, _de, upstreams) = two_more().await;
    let sources = source(&format!("provider = \"partssource\"\n{ROUTES}")) + &upstreams;
    let mut world = World::start(&sources).await;
    let body = of_type("order", "FR", 1);
    let (word, id) = send(&world, &body).await.ack();
    assert_eq!(word, "accepted", "the provider need not know");
    assert_eq!(world.metric("hookward_webhooks_total{source=\"orders\",code=\"unrouted\"}").await, 1);
    assert_eq!(world.metric("hookward_webhooks_total{source=\"orders\",code=\"accepted\"}").await, 0);
    assert_eq!(send(&world, &body).await.ack(), ("duplicate".to_owned(), id.clone()));
    let shown = world.admin("GET", &format!("/api/v1/events/{id}")).await;
    assert_eq!(shown["event"]["deliveries"].as_array().map(Vec::len), Some(0), "{shown}");
    world = world.restart(&sources).await;
    assert_eq!(send(&world, &body).await.ack(), ("duplicate".to_owned(), id.clone()), "after a restart");

    let path = format!("/api/v1/events/{id}/redeliver");
    let json = [("content-type", "application/json")];
    let reply = request(world.gateway.admin, "POST", &path, &json, b"{\"upstream\":\"billing\"}").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let received = billing.wait_for(1).await;
    assert_eq!((received[0].body.as_ref(), received[0].header("hookward-event-id")), (&body[..], Some(&*id)));
}

#[tokio::test]
async fn in_mode_respond_the_first_upstream_chosen_answers() {
    let (billing, de, upstreams) = two_more().await;
    let keys = format!("provider = \"partssource\"\nmode = \"respond\"\n{ROUTES}");
    let world = World::start(&(source(&keys) + &upstreams)).await;
    billing.script([Act::Json(200, "{\"by\":\"billing\"}")]);
    de.script([Act::Answer(200, ""), Act::Json(200, "{\"by\":\"de\"}")]);
    let said = |reply: Reply| (reply.status, reply.text());
    assert_eq!(said(send(&world, &of_type("invoice.paid", "DE", 1)).await), (200, "{\"by\":\"billing\"}".to_owned()));
    de.wait_for(1).await;
    assert_eq!(said(send(&world, &of_type("order", "DE", 2)).await), (200, "{\"by\":\"de\"}".to_owned()));
    billing.wait_for(2).await;

    let (word, id) = send(&world, &of_type("order", "FR", 3)).await.ack();
    assert_eq!(word, "accepted", "nobody answers for what nobody wants");
    assert_eq!(world.metric("hookward_webhooks_total{source=\"orders\",code=\"unrouted\"}").await, 1);
    assert_eq!(world.post(PATH, &[], b"").await.status, 401);
    world.settled().await;
    let shown = world.admin("GET", &format!("/api/v1/events/{id}")).await;
    assert_eq!(shown["event"]["deliveries"].as_array().map(Vec::len), Some(0), "{shown}");
}

#[tokio::test]
async fn what_is_held_waits_for_whom_its_routes_say() {
    let (billing, _de, upstreams) = two_more().await;
    let keys = "provider = \"price2b\"\nupstream = \"up\"\nroutes = [{ type = \"invoice.*\", to = \"billing\" }]";
    let world = World::start(&(source(keys) + &upstreams)).await;
    let body = b"{\"id\":\"evt_1\",\"type\":\"invoice.paid\"}";
    let (_, id) = send_as("price2b", &world, body, -28 * 3600).await.ack();
    assert_eq!(in_state(&world, "held").await, [&*id]);
    world.admin("POST", &format!("/api/v1/events/{id}/release")).await;
    assert_eq!(billing.wait_for(1).await[0].body[..], body[..]);
    world.settled().await;
    assert_eq!(causes(&delivery(&world, &id, "billing").await), ["released"]);
    assert!(world.upstream.received().is_empty());
}

#[tokio::test]
async fn an_event_is_stored_with_its_order_key_and_one_without_is_counted() {
    let missing = "hookward_order_key_missing_total{source=\"orders\"}";
    let keys = "provider = \"partssource\"\nupstream = \"up\"\norder_by = \"/order/id\"\nstore_body = false";
    let recorded = Recorded::start(&source(keys), None).await;
    for (n, (body, key)) in
        [(r#"{"order":{"id":"A 1"}}"#, Some("A 1")), (r#"{"order":{"id":17}}"#, Some("17")), ("{}", None), ("no", None)]
            .into_iter()
            .enumerate()
    {
        let (status, ..) = recorded.send("partssource", body.as_bytes(), 0, &[]).await;
        let appended = recorded.store.appended();
        assert_eq!((status, appended.len()), (200, 1));
        assert_eq!(appended[0].order_key.as_ref().map(OrderKey::as_str), key, "{body}");
        assert!(!appended[0].keep_body, "store_body = false");
        let without = u64::try_from(n).expect("few").saturating_sub(1);
        assert_eq!(recorded.metric(missing).unwrap_or(0), without, "{body}");
    }

    let keys = "provider = \"github\"\nupstream = \"up\"\norder_by = \"header:x-order\"";
    let recorded = Recorded::start(&source(keys), None).await;
    recorded.send("github", b"{}", 0, &[("x-order", "7")]).await;
    recorded.send("github", b"[]", 0, &[("x-order", "7"), ("x-order", "8")]).await;
    let keys: Vec<_> = recorded.store.appended().into_iter().map(|event| event.order_key).collect();
    assert_eq!(keys[0].as_ref().map(OrderKey::as_str), Some("7"));
    assert_eq!((&keys[1], recorded.metric(missing)), (&None, Some(1)), "two are none");

    let recorded = Recorded::start(&source("provider = \"github\"\nupstream = \"up\""), None).await;
    recorded.send("github", b"{}", 0, &[]).await;
    assert_eq!((recorded.store.appended()[0].order_key.as_ref(), recorded.metric(missing)), (None, None));
}

#[tokio::test]
async fn events_of_one_order_key_arrive_one_after_another_and_hold_up_no_other() {
    let keys = "provider = \"partssource\"\nupstream = \"up\"\norder_by = \"/order\"";
    let world = World::with_upstream(&source(keys), SOON).await;
    world.upstream.script([Act::Hang(500)]);
    let body = |order: &str, n: u8| format!(r#"{{"order":"{order}","n":{n}}}"#).into_bytes();
    let sent = [body("a", 1), body("a", 2), body("b", 3), b"{}".to_vec()];
    send(&world, &sent[0]).await.ack();
    world.upstream.wait_for(1).await;
    for body in &sent[1..] {
        assert_eq!(send(&world, body).await.ack().0, "accepted");
    }
    let mut others = world.upstream.wait_for(3).await[1..].iter().map(|one| one.body.to_vec()).collect::<Vec<_>>();
    others.sort();
    assert_eq!(others, [sent[2].clone(), sent[3].clone()], "the second one of a waits");
    world.upstream.let_go();
    world.settled().await;
    assert_eq!(bodies(&world.upstream)[3..], [sent[0].clone(), sent[1].clone()], "until the first one got through");
}

#[tokio::test]
async fn one_that_blocks_its_order_key_becomes_a_dead_letter_if_the_source_says_so() {
    let keys = "provider = \"partssource\"\nupstream = \"up\"\norder_by = \"/order\"\n\
                on_block = { dead_letter_after = 2 }";
    let world = World::with_upstream(&source(keys), SOON).await;
    world.upstream.script([Act::Hang(500), Act::Answer(500, "")]);
    let (_, first) = send(&world, br#"{"order":"a","n":1}"#).await.ack();
    world.upstream.wait_for(1).await;
    send(&world, br#"{"order":"a","n":2}"#).await.ack();
    world.upstream.let_go();
    let received = world.upstream.wait_for(3).await;
    assert_eq!(received[2].body[..], br#"{"order":"a","n":2}"#[..]);
    world.settled().await;
    assert_eq!(in_state(&world, "dead").await, [first]);
}
