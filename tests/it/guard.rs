//! The guard and the store together: copies, restarts, a full store, clients that leave, limits, drain.

mod copies;
mod drain;
mod limits;
mod trouble;

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
