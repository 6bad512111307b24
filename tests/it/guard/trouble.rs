//! What goes wrong between the webhook and its answer: a restart, a full store, a client that leaves, a deadline.

use rusqlite::Connection;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{PATH, SECRET, StoreHeld, send, signed_request, source, stored};
use crate::world::{Act, World, within};

#[tokio::test]
async fn a_replay_after_a_restart_is_still_a_duplicate() {
    let sources = source("queue", "");
    let world = World::start(&sources).await;
    let (_, first) = send(&world, b"{}", 0).await.ack();
    world.settled().await;
    let world = world.restart(&sources).await;
    assert_eq!(send(&world, b"{}", 0).await.ack(), ("duplicate".to_owned(), first.clone()), "the same bytes");
    assert_eq!(send(&world, b"{}", 9).await.ack(), ("duplicate".to_owned(), first), "the same event, signed anew");
    world.settled().await;
    assert_eq!(world.upstream.received().len(), 1);
}

#[tokio::test]
async fn a_webhook_refused_by_a_full_store_leaves_nothing_and_is_accepted_when_there_is_room() {
    // With the upstream hanging nothing becomes history, which could make room.
    let sources = source("queue", "");
    let small = |text: String| text.replacen("[store]\n", "[store]\ndisk_bytes_max = \"2MiB\"\n", 1);
    let world = World::start_edited(&sources, small).await;
    world.upstream.script((0..16).map(|_| Act::Hang(200)));
    let body = |n: usize| vec![u8::try_from(n).expect("few"); 100_000];
    let mut accepted = 0;
    let refused = loop {
        let reply = send(&world, &body(accepted), 0).await;
        if reply.status != 200 {
            break reply;
        }
        accepted += 1;
        assert!(accepted < 16, "2 MiB do not hold so much");
    };
    assert!(accepted > 3, "some fit");
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(stored(&world).await, accepted, "no event of the refused one");
    assert_eq!(send(&world, &body(0), 0).await.ack().0, "duplicate", "what is known is still answered");

    (0..16).for_each(|_| world.upstream.let_go());
    world.settled().await;
    let (word, id) = send(&world, &body(accepted), 0).await.ack();
    assert_eq!(word, "accepted", "no key of the refused one");
    let received = world.upstream.wait_for(accepted + 1).await;
    assert_eq!(received[accepted].header("hookward-event-id"), Some(&*id));
    assert_eq!(received[accepted].body[..], body(accepted)[..]);
}

/// Points a table at a page that is not there, behind the back of the gateway: its next write finds the file damaged,
/// and the store takes nothing more.
pub(crate) fn break_store(world: &World) {
    let connection = Connection::open(world.data.path().join("store/hookward.db")).expect("the database is there");
    connection.busy_timeout(std::time::Duration::from_secs(5)).expect("a timeout");
    let broken = "PRAGMA writable_schema = ON; BEGIN IMMEDIATE;
        UPDATE sqlite_schema SET rootpage = 999999 WHERE name IN ('bodies', 'events'); COMMIT";
    connection.execute_batch(broken).expect("the schema can be written");
    let version: i64 = connection.pragma_query_value(None, "schema_version", |row| row.get(0)).expect("a version");
    connection.pragma_update(None, "schema_version", version + 1).expect("everybody reads it anew");
}

#[tokio::test]
async fn after_a_failed_write_even_a_duplicate_is_refused() {
    let world = World::start(&source("queue", "")).await;
    assert_eq!(send(&world, b"{}", 0).await.ack().0, "accepted");
    world.settled().await;
    assert_eq!(send(&world, b"{}", 0).await.ack().0, "duplicate");
    break_store(&world);
    assert_eq!(send(&world, b"{\"n\":2}", 0).await.status, 503);
    let broken = world.gateway.broken().await.to_string();
    assert!(broken.contains("takes no more writes"), "{broken}");
    // The guard remembers it, but nobody knows any more whether the disk does.
    let again = send(&world, b"{}", 0).await;
    assert_eq!((again.status, again.headers.contains_key("retry-after")), (503, true), "{}", again.text());
}

#[tokio::test]
async fn a_full_store_relays_nothing_that_it_could_not_record() {
    let relayed = "[sources.quotes]\nprovider = \"github\"\nsecrets = [{ value = \"another-secret-of-length\" }]\n\
                   upstream = \"up\"\nmode = \"proxy\"\nbody_bytes_max = \"1MiB\"\n";
    let sources = format!("{}{relayed}", source("queue", ""));
    let small = |text: String| text.replacen("[store]\n", "[store]\ndisk_bytes_max = \"2MiB\"\n", 1);
    let world = World::start_edited(&sources, small).await;
    let quote = async |body: &[u8]| world.send("github", "another-secret-of-length", "/hooks/quotes", body, 0).await;
    assert_eq!(quote(b"before").await.status, 200);
    let before = world.upstream.wait_for(1).await.len();

    world.upstream.script((0..16).map(|_| Act::Hang(200)));
    let mut filled = 0u8;
    while send(&world, &vec![filled; 100_000], 0).await.status == 200 {
        filled += 1;
        assert!(filled < 16, "2 MiB do not hold so much");
    }
    let hanging = world.upstream.wait_for(before + usize::from(filled)).await.len();
    assert_eq!(quote(b"while it is full").await.status, 503);
    assert_eq!(quote(b"before").await.status, 200, "what is known is still answered");
    assert_eq!(world.upstream.received().len(), hanging, "nothing was relayed");

    (0..16).for_each(|_| world.upstream.let_go());
    world.settled().await;
    assert_eq!(send(&world, b"{}", 0).await.status, 200, "there is room again");
    assert_eq!(quote(b"while it is full").await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_during_the_append_loses_nothing() {
    let world = World::start(&source("queue", "")).await;
    let held = StoreHeld::by(&world);
    let mut client = TcpStream::connect(world.gateway.public).await.expect("it listens");
    client.write_all(&signed_request(b"{}")).await.expect("sent");
    world.until_metric("hookward_verified_total", 1).await;
    drop(client);
    world.until_metric("hookward_webhooks_total{source=\"orders\",code=\"client_left\"}", 1).await;
    assert!(world.upstream.received().is_empty(), "it is not stored yet");
    drop(held);
    let received = world.upstream.wait_for(1).await;
    world.settled().await;
    let (word, id) = send(&world, b"{}", 0).await.ack();
    assert_eq!(word, "duplicate");
    assert_eq!(received[0].header("hookward-event-id"), Some(&*id));
    assert_eq!(world.upstream.received().len(), 1);
}

/// Has a client leave while its webhook hangs at the upstream, and lets go.
async fn leave_while_it_hangs(world: &World) {
    world.upstream.script([Act::Later(200, "{\"taken\":true}")]);
    let mut client = TcpStream::connect(world.gateway.public).await.expect("it listens");
    client.write_all(&signed_request(b"{}")).await.expect("sent");
    world.upstream.wait_for(1).await;
    drop(client);
    world.until_metric("hookward_webhooks_total{source=\"orders\",code=\"client_left\"}", 1).await;
    world.upstream.let_go();
}

#[tokio::test]
async fn an_upstream_call_once_begun_is_finished_although_the_client_left() {
    for mode in ["respond", "proxy"] {
        let world = World::start(&source(mode, "")).await;
        leave_while_it_hangs(&world).await;
        let retry = send(&world, b"{}", 0).await;
        assert_eq!((retry.status, retry.text().as_str()), (200, "{\"taken\":true}"), "{mode}: its answer was kept");
        world.settled().await;
        assert_eq!(world.upstream.received().len(), 1, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_at_any_moment_cost_no_event_and_make_none_twice() {
    let world = World::start(&source("queue", "")).await;
    let bodies: Vec<String> = (0..100).map(|n| format!("{{\"n\":{n}}}")).collect();
    for (n, body) in bodies.iter().enumerate() {
        let mut client = TcpStream::connect(world.gateway.public).await.expect("it listens");
        let request = signed_request(body.as_bytes());
        // Some leave before the end of the request.
        let sent = if n % 4 == 0 { request.len() - 1 } else { request.len() };
        client.write_all(&request[..sent]).await.expect("sent");
        for _ in 0..n % 7 {
            tokio::task::yield_now().await;
        }
        drop(client);
    }
    for body in &bodies {
        assert_eq!(send(&world, body.as_bytes(), 0).await.status, 200);
    }
    world.settled().await;
    let mut received: Vec<_> = world.upstream.received().iter().map(|one| one.body.to_vec()).collect();
    let mut expected: Vec<_> = bodies.iter().map(|body| body.as_bytes().to_vec()).collect();
    received.sort();
    expected.sort();
    assert_eq!(received, expected);
}

#[tokio::test]
async fn past_the_deadline_the_answer_is_503_and_the_retry_is_a_duplicate_of_what_became_durable() {
    let world = World::start(&source("queue", "deadline = \"2s\"")).await;
    let held = StoreHeld::by(&world);
    let began = tokio::time::Instant::now();
    let reply = send(&world, b"{}", 0).await;
    assert!(
        began.elapsed() < std::time::Duration::from_secs(2),
        "inside the deadline, not after {:?}",
        began.elapsed()
    );
    assert_eq!(reply.status, 503);
    assert!(reply.headers.contains_key("retry-after"));
    drop(held);
    let received = world.upstream.wait_for(1).await;
    world.settled().await;
    let (word, id) = send(&world, b"{}", 0).await.ack();
    assert_eq!(word, "duplicate");
    assert_eq!(received[0].header("hookward-event-id"), Some(&*id));
    assert_eq!(world.upstream.received().len(), 1);
}

#[tokio::test]
async fn an_event_whose_keys_are_forgotten_is_accepted_anew() {
    let world = World::start(&source("queue", "")).await;
    let (_, first) = send(&world, b"{}", 0).await.ack();
    world.settled().await;
    assert_eq!(send(&world, b"{}", 0).await.ack().0, "duplicate");
    let done = world.admin("POST", &format!("/api/v1/events/{first}/forget")).await;
    assert_eq!(done["count"], 2, "the replay key and the event key");
    let (word, second) = send(&world, b"{}", 0).await.ack();
    assert_eq!(word, "accepted");
    assert_ne!(second, first);
    assert_eq!(world.upstream.wait_for(2).await[1].header("hookward-event-id"), Some(&*second));
}

#[tokio::test]
async fn what_was_refused_keeps_nothing_genuine_out() {
    let world = World::start(&source("queue", "body_bytes_max = \"1KiB\"")).await;
    // Forged, stale, too large: none of them takes the place of the genuine one.
    assert_eq!(world.send("partssource", "another-secret-than-it-is", PATH, b"{}", 0).await.status, 401);
    assert_eq!(world.send("partssource", SECRET, PATH, b"{}", -301).await.status, 401);
    assert_eq!(send(&world, &[b'x'; 1025], 0).await.status, 413);
    assert_eq!(stored(&world).await, 0);
    assert_eq!(send(&world, b"{}", 0).await.ack().0, "accepted");
    within("the upstream", world.upstream.wait_for(1)).await;
}
