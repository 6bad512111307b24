//! The guard and the store together: copies, restarts, a full store, clients that leave, limits, drain.

mod copies;
mod drain;
mod limits;
pub(crate) mod trouble;

use std::{fmt::Write as _, time::Duration};

use rusqlite::Connection;

use crate::world::{NOW_S, Reply, World, sign};

const SECRET: &str = "a-secret-of-some-length";
const PATH: &str = "/hooks/orders";

/// A source of PartsSource in this mode, with more keys.
fn source(mode: &str, keys: &str) -> String {
    format!(
        "[sources.orders]\nprovider = \"partssource\"\nsecrets = [{{ value = \"{SECRET}\" }}]\nupstream = \"up\"\n\
         mode = \"{mode}\"\n{keys}\n"
    )
}

/// Signed as PartsSource signs, `offset_s` from now.
async fn send(world: &World, body: &[u8], offset_s: i64) -> Reply {
    world.send("partssource", SECRET, PATH, body, offset_s).await
}

/// The bytes of a whole request, as [`send`] sends it.
fn signed_request(body: &[u8]) -> Vec<u8> {
    let mut head = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in sign("partssource", SECRET, body, NOW_S) {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// Keeps the store from writing until it is dropped: whatever is appended meanwhile waits, for the five seconds that
/// the store waits for a lock, and fails after them.
struct StoreHeld {
    _transaction: Connection,
}

impl StoreHeld {
    fn by(world: &World) -> Self {
        let connection = Connection::open(world.data.path().join("store/hookward.db")).expect("the database is there");
        connection.busy_timeout(Duration::from_secs(5)).expect("a timeout");
        connection.execute_batch("BEGIN IMMEDIATE").expect("the lock is free in time");
        Self { _transaction: connection }
    }
}

/// How many events are stored.
async fn stored(world: &World) -> usize {
    world.admin("GET", "/api/v1/events?limit=500").await["events"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn equal_webhooks_of_a_provider_that_repeats_itself_are_events_each() {
    let source =
        "[sources.box]\nprovider = \"dropbox\"\nupstream = \"up\"\nsecrets = [{ value = \"15-characters!!\" }]\n";
    let world = World::start(source).await;
    let body = br#"{"list_folder":{"accounts":["dbid:AAH4f99T0taONIb"]}}"#;
    for _ in 0..2 {
        let reply = world.send("dropbox", "15-characters!!", "/hooks/box", body, 0).await;
        assert_eq!(reply.ack().0, "accepted");
    }
    assert_eq!(world.upstream.wait_for(2).await.len(), 2);
}

#[tokio::test]
async fn webhooks_without_a_body_are_told_apart_or_not_at_all() {
    let source = "[providers.own]\ncredential = \"query:key\"\nmethods = [\"GET\"]\n\
        [sources.own]\nprovider = \"own\"\nupstream = \"up\"\nforward_query = true\n\
        secrets = [{ value = \"a-secret-of-some-length\" }]\n";
    let world = World::start(source).await;
    for n in 0..2 {
        let path = format!("/hooks/own?key=a-secret-of-some-length&n={n}");
        // As proxies write it.
        let headers = [("x-original-uri", path.as_str()), ("x-other", "a-secret")];
        let reply = crate::world::request(world.gateway.public, "GET", &path, &headers, b"").await;
        assert_eq!(reply.ack().0, "accepted");
    }
    for received in world.upstream.wait_for(2).await {
        let seen = format!("{} {:?}", received.path, received.headers);
        assert!(!seen.contains("a-secret-of-some-length") && received.header("x-other") == Some("a-secret"), "{seen}");
    }
}
