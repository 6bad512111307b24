//! The three modes over time: what the provider gets, and what becomes of the event after it.

mod bodies;
mod proxy;
mod queue;
mod recording;
mod respond;
mod restored;
mod routing;

use crate::world::{Reply, World};

const SECRET: &str = "a-secret-of-some-length";
const PATH: &str = "/hooks/orders";
/// Retries soon enough for a test.
const SOON: &str = "retry = { first = \"20ms\", factor = 1.0, max = \"50ms\" }";

/// A source named `orders`, with more keys; `provider` and `upstream` among them.
fn source(keys: &str) -> String {
    format!("[sources.orders]\nsecrets = [{{ value = \"{SECRET}\" }}]\n{keys}\n")
}

/// Signed as this provider signs, `offset_s` from now.
async fn send_as(provider: &str, world: &World, body: &[u8], offset_s: i64) -> Reply {
    world.send(provider, SECRET, PATH, body, offset_s).await
}

/// Signed as PartsSource signs, now.
async fn send(world: &World, body: &[u8]) -> Reply {
    send_as("partssource", world, body, 0).await
}

/// The delivery of an event to an upstream, with its history.
async fn delivery(world: &World, id: &str, upstream: &str) -> serde_json::Value {
    let shown = world.admin("GET", &format!("/api/v1/events/{id}")).await;
    let deliveries = shown["event"]["deliveries"].as_array().expect("a list");
    deliveries.iter().find(|delivery| delivery["upstream"] == upstream).expect("a delivery").clone()
}

/// Why each attempt was made.
fn causes(delivery: &serde_json::Value) -> Vec<&str> {
    delivery["history"].as_array().into_iter().flatten().filter_map(|attempt| attempt["cause"].as_str()).collect()
}

/// The ids of the events in this state, newest first.
async fn in_state(world: &World, state: &str) -> Vec<String> {
    let listed = world.admin("GET", &format!("/api/v1/events?state={state}")).await;
    let id = |event: &serde_json::Value| event["id"].as_str().map(str::to_owned);
    listed["events"].as_array().expect("a list").iter().filter_map(id).collect()
}
