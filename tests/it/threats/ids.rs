//! Ids in JSON bodies: what could be read in two ways is not read, different events never become one, nothing panics.

use super::requests::*;
use crate::world::World;

/// A source whose event key is `/id`.
async fn world() -> World {
    World::start(&source("stripe", "stripe", "body_bytes_max = \"4MiB\"")).await
}

async fn fallbacks(world: &World) -> u64 {
    sample(world, "hookward_event_key_fallbacks_total{source=\"stripe\"}").await
}

/// Sends two different bodies with the same `id`, as it is written: both are accepted, and both fall back.
async fn falls_back(world: &World, id: &str) {
    let before = fallbacks(world).await;
    let bodies = [format!("{{{id},\"n\":1}}"), format!("{{{id},\"n\":2}}")];
    different_events(world, &bodies.each_ref().map(String::as_bytes)).await;
    assert_eq!(fallbacks(world).await - before, 2, "{id}");
}

async fn different_events(world: &World, bodies: &[&[u8]]) {
    let named = |body: &[u8]| String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
    let cases: Vec<_> = bodies.iter().map(|body| accepted(&named(body), "stripe", stripe(body), body)).collect();
    let replies = hold(world, &cases).await;
    let ids: std::collections::BTreeSet<_> = replies.iter().map(|reply| reply.ack().1).collect();
    assert_eq!(ids.len(), bodies.len());
}

async fn same_event(world: &World, first: &str, second: &str) {
    let conflict =
        Case { status: 200, ..refused(second, "stripe", stripe(second.as_bytes()), second.as_bytes(), "conflict") };
    hold(world, &[accepted(first, "stripe", stripe(first.as_bytes()), first.as_bytes()), conflict]).await;
}

#[tokio::test]
async fn a_key_that_stands_twice_is_no_id() {
    let world = world().await;
    for id in [r#""id":"a","id":"b""#, r#""id":"a","id":"a""#, r#""id":"a","\u0069d":"a""#] {
        falls_back(&world, id).await;
    }
    // Elsewhere it does no harm.
    same_event(&world, r#"{"id":"x","o":{"id":1,"id":2},"n":1}"#, r#"{"id":"x","n":2}"#).await;
}

#[tokio::test]
async fn a_number_has_one_writing() {
    let world = world().await;
    for id in ["1.0", "1e0", "1E0", "0.1e1", "10e-1", "-0.0", "1e400"] {
        falls_back(&world, &format!("\"id\":{id}")).await;
    }
    let before = fallbacks(&world).await;
    // As text, beyond what a double or 64 bits can tell apart.
    different_events(
        &world,
        &[
            br#"{"id":1}"#,
            br#"{"id":"1"}"#,
            br#"{"id":-1}"#,
            br#"{"id":true}"#,
            br#"{"id":9007199254740992}"#,
            br#"{"id":9007199254740993}"#,
            br#"{"id":1152921504606846976}"#,
            br#"{"id":1152921504606846977}"#,
            br#"{"id":18446744073709551616}"#,
            br#"{"id":18446744073709551617}"#,
            br#"{"id":123456789012345678901234567890123456789}"#,
        ],
    )
    .await;
    assert_eq!(fallbacks(&world).await, before);
    same_event(&world, r#"{"id":1152921504606846978,"n":1}"#, r#"{"n":2,"id": 1152921504606846978 }"#).await;
}

#[tokio::test]
async fn escapes_are_read_before_ids_are_compared() {
    let world = world().await;
    same_event(&world, r#"{"id":"evt_a","n":1}"#, r#"{"id":"\u0065vt_a","n":2}"#).await;
    same_event(&world, r#"{"id":"\ud83d\ude00","n":1}"#, "{\"id\":\"\u{1f600}\",\"n\":2}").await;
    same_event(&world, r#"{"id":"s/t","n":1}"#, r#"{"\u0069d":"s\/t","n":2}"#).await;
    // What looks alike is not the same: no normalisation, no folding, no trimming.
    different_events(
        &world,
        &[
            "{\"id\":\"\u{e9}\"}".as_bytes(),
            "{\"id\":\"e\u{301}\"}".as_bytes(),
            br#"{"id":"E"}"#,
            br#"{"id":"e"}"#,
            br#"{"id":" e"}"#,
        ],
    )
    .await;
}

#[tokio::test]
async fn a_lone_surrogate_is_no_id() {
    let world = world().await;
    for id in [
        r#""id":"\ud800""#,
        r#""id":"\udc00""#,
        r#""id":"\ud800\ud800""#,
        r#""id":"\udc00\ud800""#,
        r#""id":"a\ud83d""#,
    ] {
        falls_back(&world, id).await;
    }
}

#[tokio::test]
async fn what_is_not_plain_json_has_no_id() {
    let world = world().await;
    let bom = "\u{feff}".as_bytes();
    let bodies: Vec<Vec<u8>> = vec![
        [bom, br#"{"id":"a"}"#].concat(),
        [bom, br#"{"id":"a" }"#].concat(),
        br#"{"id":"a"} {"id":"b"}"#.to_vec(),
        br#"{"id":"a"}x"#.to_vec(),
        br#"{"id":"a",}"#.to_vec(),
        b"{'id':'a'}".to_vec(),
        br#"{"id":"a""#.to_vec(),
        br#"{"id":NaN}"#.to_vec(),
        br#"{"id":01}"#.to_vec(),
        b"{\"id\":\"a\nb\"}".to_vec(),
        b"{\"id\":\"\xff\"}".to_vec(),
        b"{\"id\":\"\xc0\x80\"}".to_vec(),
        b"\xff\xfe{\0\"\0i\0d\0".to_vec(),
        b"id=a".to_vec(),
        b"\0".to_vec(),
        b"".to_vec(),
    ];
    different_events(&world, &bodies.iter().map(Vec::as_slice).collect::<Vec<_>>()).await;
    assert_eq!(fallbacks(&world).await, bodies.len() as u64);
}

#[tokio::test]
async fn a_missing_oversized_or_composite_id_falls_back() {
    let world = world().await;
    falls_back(&world, r#""other":1"#).await;
    for value in [r#""""#, "null", "{}", "[]", r#"["a"]"#, r#"{"id":"a"}"#, &format!("\"{}\"", "x".repeat(1025))] {
        falls_back(&world, &format!("\"id\":{value}")).await;
    }
    falls_back(&world, &format!("\"id\":{}", "9".repeat(1025))).await;
    let long = "x".repeat(1024);
    same_event(&world, &format!("{{\"id\":\"{long}\",\"n\":1}}"), &format!("{{\"id\":\"{long}\",\"n\":2}}")).await;
}

#[tokio::test]
async fn no_depth_overflows_the_stack() {
    let world = world().await;
    let mut bodies = Vec::new();
    for (open, close) in [("[", "]"), ("{\"id\":", "}"), ("{\"x\":[", "]}")] {
        for depth in [100, 1_000, 100_000] {
            let (open, close) = (open.repeat(depth), close.repeat(depth));
            bodies.push(format!("{{\"x\":{open}1{close},\"id\":\"a\",\"depth\":{depth}}}").into_bytes());
            bodies.push(format!("{{\"id\":{open}1{close}}}").into_bytes());
        }
    }
    bodies.push(vec![b'['; 1_000_000]);
    bodies.push([b"{\"id\":".as_slice(), &vec![b'['; 1_000_000]].concat());
    bodies.push([b"{\"id\":\"b\",\"x\":".as_slice(), &vec![b'['; 1_000_000]].concat());
    bodies.push(b"{\"id\":".repeat(170_000));
    bodies.push([b"\"".as_slice(), &b"\\".repeat(1_000_001)].concat());
    // Whether an id beside the depth is read is not the point: each is stored, and the process lives.
    let mut kinds = std::collections::BTreeSet::new();
    for body in &bodies {
        let reply = send_lines(&world, "/hooks/stripe", &stripe(body), body).await;
        kinds.insert(reply.ack().0);
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["accepted"]);
    assert!(fallbacks(&world).await >= 5);
    world.settled().await;
    let listed = world.admin("GET", "/api/v1/events?limit=100").await;
    assert_eq!(listed["events"].as_array().map(Vec::len), Some(bodies.len()));
}
