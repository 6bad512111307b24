//! What is kept of bodies, and how.

use std::path::Path;

use super::{delivery, send, source};
use crate::world::{Act, World, request};

const QUEUE: &str = "provider = \"partssource\"\nupstream = \"up\"";
const BODY: &[u8] = b"{\"a body\":\"that nobody should find on the disk\"}";

/// Whether these bytes stand in any file of the store.
fn is_on_disk(data: &Path, bytes: &[u8]) -> bool {
    let files = std::fs::read_dir(data.join("store")).expect("it is there").map(|entry| entry.expect("listed").path());
    let contents: Vec<_> = files.map(|path| std::fs::read(path).expect("it can be read")).collect();
    assert!(contents.iter().any(|content| content.len() > 4096), "a store has been written");
    contents.iter().any(|content| content.windows(bytes.len()).any(|part| part == bytes))
}

async fn body_of(world: &World, id: &str) -> (u16, Vec<u8>) {
    let reply = request(world.gateway.admin, "GET", &format!("/api/v1/events/{id}/body"), &[], b"").await;
    (reply.status, reply.body)
}

#[tokio::test]
async fn with_a_key_bodies_are_on_the_disk_encrypted_only_and_arrive_as_they_were_after_a_rotation_too() {
    let with_keys = |keys: &str| {
        let keys = format!("[store]\nencryption = [{keys}]\n");
        move |text: String| text.replacen("[store]\n", &keys, 1)
    };
    let old = "{ value = \"ZXhhbXBsZS1vZi1hLXN0b3JlLWtleS1jaGFuZ2UtbWU=\", id = \"old\" }";
    let new = "{ value = \"b3RoZXItb2YtYS1zdG9yZS1rZXktb2YtMzItYnl0ZXM=\", id = \"new\" }";
    let world = World::start_edited(&source(QUEUE), with_keys(old)).await;
    world.upstream.script([Act::Hang(500)]);
    let (_, id) = send(&world, BODY).await.ack();
    world.upstream.wait_for(1).await;
    assert!(!is_on_disk(world.data.path(), b"nobody should find"));
    assert_eq!(body_of(&world, &id).await, (200, BODY.to_vec()));
    world.upstream.let_go();
    assert!(world.gateway.drain().await, "drained whole");

    let text = crate::world::configuration(&source(QUEUE), "", &world.upstream.url(), world.data.path());
    let text = with_keys(&format!("{new}, {old}"))(text);
    let world = World::start_as(&text, crate::world::NOW_S + 60, world.upstream, world.data).await;
    let received = world.upstream.wait_for(2).await;
    assert_eq!(received[1].body[..], *BODY);
    world.settled().await;
    assert!(!is_on_disk(world.data.path(), b"nobody should find"));
}

#[tokio::test]
async fn with_store_body_false_a_body_is_gone_once_it_is_delivered_and_not_before() {
    let world = World::start(&source(&format!("{QUEUE}\nstore_body = false"))).await;
    world.upstream.script([Act::Hang(200)]);
    let (_, id) = send(&world, BODY).await.ack();
    world.upstream.wait_for(1).await;
    assert_eq!(body_of(&world, &id).await.1, BODY);
    assert!(is_on_disk(world.data.path(), b"nobody should find"), "without a key as it came");
    world.upstream.let_go();
    world.settled().await;
    assert_eq!(delivery(&world, &id, "up").await["state"], "delivered");
    assert_ne!(body_of(&world, &id).await.1, BODY);
    assert_eq!(send(&world, BODY).await.ack(), ("duplicate".to_owned(), id), "its keys are kept");
}
