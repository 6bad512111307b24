//! One webhook through everything.

use crate::world::{NOW_S, World, sign};

const SECRET: &str = "a-secret-of-some-length";
const SOURCE: &str = "[sources.orders]\nprovider = \"partssource\"\nsecrets = [{ value = \"a-secret-of-some-length\", id = \"main\" }]\nupstream = \"up\"\n";

#[tokio::test]
async fn a_verified_webhook_is_stored_acknowledged_and_forwarded_byte_for_byte() {
    let world = World::start(SOURCE).await;
    let body = b"{\"a\": 1,\r\n\"b\":\"\xc3\xa9\\u00e9\x00\xff\"}";
    let reply = world.send("partssource", SECRET, "/hooks/orders", body, 0).await;
    let (word, id) = reply.ack();
    assert_eq!((reply.status, word.as_str()), (200, "accepted"));
    let received = world.upstream.wait_for(1).await;
    assert_eq!(received[0].body[..], body[..]);
    assert_eq!(received[0].path, "/in");
    assert_eq!(received[0].header("hookward-event-id"), Some(id.as_str()));
    assert_eq!(received[0].header("hookward-verified"), Some("hmac-sha256/main"));
    assert_eq!(received[0].header("idempotency-key"), Some(id.as_str()));
    world.settled().await;
    let shown = world.admin("GET", &format!("/api/v1/events/{id}")).await;
    assert_eq!(shown["event"]["deliveries"][0]["state"], "delivered");
}

#[tokio::test]
async fn a_forgery_leaves_no_trace() {
    let world = World::start(SOURCE).await;
    let headers = sign("partssource", "another-secret-than-it-is", b"{}", NOW_S);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(world.post("/hooks/orders", &headers, b"{}").await.status, 401);
    let listed = world.admin("GET", "/api/v1/events").await;
    assert_eq!(listed["events"].as_array().map(Vec::len), Some(0));
    assert!(world.upstream.received().is_empty());
}

#[tokio::test]
async fn a_trace_goes_on_if_it_is_one_and_begins_anew_if_not() {
    let world = World::start(SOURCE).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let valid = format!("00-{trace}-00f067aa0ba902b7-01");
    let zeros = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
    let upper = valid.to_uppercase();
    let no_hex = valid.replace("4bf9", "zzzz");
    for (n, (brought, goes_on)) in
        [(&valid, true), (&zeros, false), (&upper, false), (&no_hex, false)].iter().enumerate()
    {
        let body = format!("{{\"n\":{n}}}");
        let headers = sign("partssource", SECRET, body.as_bytes(), NOW_S);
        let mut headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.push(("traceparent", brought));
        world.post("/hooks/orders", &headers, body.as_bytes()).await.ack();
        let received = world.upstream.wait_for(n + 1).await;
        let sent = received[n].header("traceparent").expect("there is always one");
        let id = sent.split('-').nth(1).expect("a trace");
        let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && id != "0".repeat(32);
        assert_eq!((is_id, id == trace), (true, *goes_on), "{brought} became {sent}");
    }
}
