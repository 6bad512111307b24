//! Replay: the same signed bytes count once, whatever stands around them and whatever happened in between.

use std::time::Duration;

use tempfile::TempDir;

use super::requests::*;
use crate::world::{Act, NOW_S, Reply, Upstream, World, configuration, request};

const BODY: &[u8] = b"{\"order\":\"PO-1\"}";

fn genuine() -> Lines {
    parts_source(SECRET, &NOW_S.to_string(), BODY)
}

fn copy(name: &str, source: &str, headers: Lines, body: &[u8]) -> Case {
    Case { status: 200, ..refused(name, source, headers, body, "duplicate") }
}

/// All replies are about one event, and the upstream got it once.
async fn one_forward(world: &World, replies: &[Reply]) {
    let (_, id) = replies[0].ack();
    for reply in replies {
        assert_eq!(reply.ack().1, id);
    }
    world.settled().await;
    assert_eq!(world.upstream.received().len(), 1);
}

#[tokio::test]
async fn an_exact_copy_is_a_duplicate() {
    let world = World::start(&source("ps", "partssource", "")).await;
    let cases = [
        accepted("first", "ps", genuine(), BODY),
        copy("second", "ps", genuine(), BODY),
        copy("third", "ps", genuine(), BODY),
    ];
    let replies = hold(&world, &cases).await;
    one_forward(&world, &replies).await;
}

#[tokio::test]
async fn an_unsigned_delivery_id_is_part_of_no_key() {
    let world = World::start(&[source("ps", "partssource", ""), source("hub", "github", "")].concat()).await;
    let with = |mut lines: Lines, id: &str, header: &'static str| {
        lines.push((header, id.into()));
        lines
    };
    let ps = |id| with(with(genuine(), id, "x-ps-delivery-id"), id, "x-ps-delivery-attempt");
    let hub = |id| with(github(BODY), id, "x-github-delivery");
    let replies = hold(
        &world,
        &[
            accepted("first", "ps", ps("1"), BODY),
            copy("another id", "ps", ps("2"), BODY),
            copy("no id", "ps", genuine(), BODY),
        ],
    )
    .await;
    one_forward(&world, &replies).await;
    let shown = world.admin("GET", &format!("/api/v1/events/{}", replies[0].ack().1)).await;
    assert_eq!(shown["event"]["attempt_id"], "1", "kept for logs and search");
    hold(&world, &[accepted("github", "hub", hub("a"), BODY), copy("another id", "hub", hub("b"), BODY)]).await;
    // And one id does not make two bodies one event.
    let other = |body: &[u8]| with(github(body), "a", "x-github-delivery");
    hold(&world, &[accepted("one id, another body", "hub", other(b"[]"), b"[]")]).await;
}

#[tokio::test]
async fn without_one_of_two_rotation_signatures_it_is_the_same_webhook() {
    let (old, new) = ("the-older-secret-of-two", "the-newer-secret-of-two");
    // Without an event key the digest of the signed content alone tells.
    let list = format!("event_key = \"none\"\nsecrets = [{{ value = \"{new}\" }}, {{ value = \"{old}\" }}]");
    let world = World::start(&source("ps", "partssource", &list)).await;
    let now = NOW_S.to_string();
    let sign = |secret: &str| format!("sha256={}", hex_mac(secret, &[now.as_bytes(), b".", BODY])).into_bytes();
    let lines = |main: Option<&str>, previous: Option<&str>| -> Lines {
        let mut lines: Lines = vec![("x-ps-timestamp", now.clone().into())];
        lines.extend(main.map(|secret| ("x-ps-signature", sign(secret))));
        lines.extend(previous.map(|secret| ("x-ps-signature-previous", sign(secret))));
        lines
    };
    let replies = hold(
        &world,
        &[
            accepted("both", "ps", lines(Some(new), Some(old)), BODY),
            copy("without the previous", "ps", lines(Some(new), None), BODY),
            copy("the previous in its place", "ps", lines(Some(old), None), BODY),
            copy("changed places", "ps", lines(Some(old), Some(new)), BODY),
            copy("the previous alone", "ps", lines(None, Some(old)), BODY),
        ],
    )
    .await;
    one_forward(&world, &replies).await;
}

#[tokio::test]
async fn one_of_two_signatures_of_a_list_removed_is_the_same_webhook() {
    let list = format!("secrets = [{{ value = \"{SECRET}\" }}, {{ value = \"the-older-secret-of-two\" }}]");
    let list = format!("event_key = \"none\"\n{list}");
    let world = World::start(&source("stripe", "stripe", &list)).await;
    let now = NOW_S.to_string();
    let a = stripe_mac(&now, BODY);
    let b = hex_mac("the-older-secret-of-two", &[now.as_bytes(), b".", BODY]);
    let replies = hold(
        &world,
        &[
            accepted("both", "stripe", stripe_with(&format!("t={now},v1={a},v1={b}")), BODY),
            copy("the first", "stripe", stripe_with(&format!("t={now},v1={a}")), BODY),
            copy("the second", "stripe", stripe_with(&format!("t={now},v1={b}")), BODY),
            copy("the other order, and a v0", "stripe", stripe_with(&format!("v0=0,v1={b},v1={a},t={now}")), BODY),
        ],
    )
    .await;
    one_forward(&world, &replies).await;
}

#[tokio::test]
async fn a_replay_after_a_restart_is_a_duplicate() {
    for mode in ["queue", "respond", "proxy"] {
        let config = source("ps", "partssource", &format!("mode = \"{mode}\"\nevent_key = \"none\""));
        let world = World::start(&config).await;
        world.upstream.script([Act::Answer(200, "taken")]);
        let first = world.post_lines(&genuine()).await;
        assert_eq!(first.status, 200);
        world.settled().await;
        let world = world.restart(&config).await;
        let again = hold(&world, &[copy(mode, "ps", genuine(), BODY)]).await;
        if mode == "queue" {
            assert_eq!(first.ack().1, again[0].ack().1);
        } else {
            assert_eq!(again[0].text(), "taken", "{mode}: the upstream's answer is kept with the key");
        }
        world.settled().await;
        assert_eq!(world.upstream.received().len(), 1, "{mode}");
    }
}

#[tokio::test]
async fn a_replay_after_eviction_is_a_duplicate() {
    let config = source("ps", "partssource", "event_key = \"none\"") + "[replay]\ncapacity = 1\n";
    let world = World::start(&config).await;
    let now = NOW_S.to_string();
    let bodies: Vec<_> = (0..5).map(|i| format!("{{\"n\":{i}}}").into_bytes()).collect();
    let lines = |body: &[u8]| parts_source(SECRET, &now, body);
    let firsts: Vec<_> = bodies.iter().map(|body| accepted("first", "ps", lines(body), body)).collect();
    let copies: Vec<_> = bodies.iter().map(|body| copy("copy", "ps", lines(body), body)).collect();
    let firsts = hold(&world, &firsts).await;
    let copies = hold(&world, &copies).await;
    for (first, copy) in firsts.iter().zip(&copies) {
        assert_eq!(first.ack().1, copy.ack().1);
    }
    world.settled().await;
    assert_eq!(world.upstream.received().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_are_forwarded_once() {
    for mode in ["queue", "respond", "proxy"] {
        let world = World::start(&source("ps", "partssource", &format!("mode = \"{mode}\""))).await;
        // The first attempt is under way while the others come.
        world.upstream.script([Act::Hang(200)]);
        let sending = (0..50).map(|i| {
            let mut lines = genuine();
            lines.push(("x-ps-delivery-id", format!("d-{i}").into()));
            let world = &world;
            async move { world.post_lines(&lines).await }
        });
        let sending = futures_util::future::join_all(sending);
        let letting_go = async {
            world.upstream.wait_for(1).await;
            world.upstream.let_go();
        };
        let (replies, ()) = tokio::join!(sending, letting_go);
        let counted = codes(&world).await;
        let first = if mode == "queue" { "accepted" } else { "answered" };
        assert_eq!((counted.get(first), counted.get("duplicate")), (Some(&1), Some(&49)), "{mode}: {counted:?}");
        for reply in &replies {
            assert_eq!(reply.status, 200, "{mode}: {}", reply.text());
        }
        if mode == "queue" {
            let ids: std::collections::BTreeSet<_> = replies.iter().map(|reply| reply.ack().1).collect();
            assert_eq!(ids.len(), 1);
        } else {
            assert!(replies.iter().all(|reply| reply.body == replies[0].body), "{mode}");
        }
        world.settled().await;
        assert_eq!(world.upstream.received().len(), 1, "{mode}");
    }
}

#[tokio::test]
async fn a_refused_first_attempt_leaves_the_way_to_its_retry() {
    let world = World::start(&source("ps", "partssource", "body_bytes_max = \"32B\"")).await;
    let now = NOW_S.to_string();
    let long = [b'x'; 33];
    let cases = [
        refused("forged", "ps", parts_source("another-secret-than-it-is", &now, BODY), BODY, "signature_mismatch"),
        refused("stale", "ps", parts_source(SECRET, "1600000000", BODY), BODY, "stale"),
        refused("with another body", "ps", genuine(), b"{}", "signature_mismatch"),
        Case { status: 413, ..refused("too long", "ps", parts_source(SECRET, &now, &long), &long, "too_large") },
    ];
    hold_refused(&world, &cases).await;
    hold(&world, &[accepted("the retry", "ps", genuine(), BODY)]).await;
}

#[tokio::test]
async fn a_first_attempt_that_the_upstream_refused_is_tried_again() {
    let world = World::start(&source("ps", "partssource", "mode = \"proxy\"")).await;
    world.upstream.script([Act::Answer(500, "no"), Act::Answer(404, "no"), Act::Answer(200, "yes")]);
    let with = |status, code| Case { status, ..refused("try", "ps", genuine(), BODY, code) };
    let cases = [
        with(500, "upstream_answered"),
        // PartsSource drops an event on 404: it must not see one.
        with(502, "upstream_failed"),
        with(200, "answered"),
        with(200, "duplicate"),
    ];
    let replies = hold(&world, &cases).await;
    assert_eq!((replies[2].text().as_str(), replies[3].text().as_str()), ("yes", "yes"));
    assert_eq!(world.upstream.received().len(), 3);
}

/// A store with room for two large bodies and no more.
#[tokio::test]
async fn a_first_attempt_that_found_the_store_full_is_taken_later() {
    let config = source("ps", "partssource", "");
    let bounded = |bytes: &str, upstream: &Upstream, data: &TempDir| {
        let retry = "retry = { first = \"10ms\", max = \"100ms\" }\nbreaker = { pause = \"100ms\" }";
        let text = configuration(&config, retry, &upstream.url(), data.path());
        text.replacen("[store]\n", &format!("[store]\ndisk_bytes_max = \"{bytes}\"\n"), 1)
    };
    let (upstream, data) = (Upstream::start().await, TempDir::new().expect("a directory"));
    // What is delivered makes room: it is history. What is not delivered stays.
    upstream.script(std::iter::repeat_n(Act::Answer(500, ""), 1000));
    let text = bounded("4MiB", &upstream, &data);
    let world = World::start_as(&text, NOW_S, upstream, data).await;
    let mut taken = 0;
    let refused_body = loop {
        let body = vec![b'a' + u8::try_from(taken).expect("few"); 1_000_000];
        let reply = world.send("partssource", SECRET, "/hooks/ps", &body, 0).await;
        match reply.status {
            200 => taken += 1,
            status => {
                assert_eq!((status, codes(&world).await["store_full"]), (503, 1));
                assert!(reply.headers.contains_key("retry-after"));
                break body;
            }
        }
        assert!(taken < 10, "4 MiB cannot hold this");
    };
    assert!(taken > 0);
    let listed = world.admin("GET", "/api/v1/events").await;
    assert_eq!(listed["events"].as_array().map(Vec::len), Some(taken), "of the refused one there is no trace");
    let World { gateway, upstream, data, .. } = world;
    assert!(gateway.drain().await);
    upstream.forget_script();
    let refused_ones = upstream.received().len();
    let text = bounded("1GiB", &upstream, &data);
    let world = World::start_as(&text, NOW_S, upstream, data).await;
    assert_eq!(world.send("partssource", SECRET, "/hooks/ps", &refused_body, 0).await.ack().0, "accepted");
    world.settled().await;
    assert_eq!(world.upstream.received().len() - refused_ones, taken + 1);
}

#[tokio::test]
async fn one_id_with_another_body_is_held_seen_and_released() {
    let world = World::start(&source("stripe", "stripe", "")).await;
    let (first, second) = (b"{\"id\":\"evt_1\",\"n\":1}", b"{\"id\":\"evt_1\",\"n\":2}");
    let replies = hold(
        &world,
        &[
            accepted("first", "stripe", stripe(first), first),
            Case { status: 200, ..refused("another body", "stripe", stripe(second), second, "conflict") },
            copy("a copy of the conflict", "stripe", stripe(second), second),
            copy("a copy of the first", "stripe", stripe(first), first),
        ],
    )
    .await;
    let ids: Vec<_> = replies.iter().map(|reply| reply.ack().1).collect();
    assert_eq!(replies[1].ack().0, "accepted", "it is stored, and the provider need not know");
    assert!(ids[0] != ids[1] && ids[2] == ids[1] && ids[3] == ids[0], "{ids:?}");
    world.settled().await;
    assert_eq!(world.upstream.received().len(), 1, "held back");

    let held = world.admin("GET", "/api/v1/events?state=held").await;
    let row = &held["events"][0];
    assert_eq!((row["id"].as_str(), row["conflict_of"].as_str()), (Some(&*ids[1]), Some(&*ids[0])), "{held}");
    assert_eq!(sample(&world, "hookward_deliveries{upstream=\"up\",state=\"held\"}").await, 1);

    let done = world.admin("POST", &format!("/api/v1/events/{}/release", ids[1])).await;
    assert_eq!(done["count"], 1);
    let received = world.upstream.wait_for(2).await;
    assert_eq!(received[1].body[..], second[..]);
    assert_eq!(received[1].header("hookward-conflict-of"), Some(&*ids[0]));
    world.settled().await;
    let again = request(
        world.gateway.admin,
        "POST",
        &format!("/api/v1/events/{}/release", ids[1]),
        &[("content-type", "application/json")],
        b"",
    )
    .await;
    assert_ne!(again.status, 200, "there is nothing left to release");
}

#[tokio::test]
async fn one_nonce_with_another_body_is_held() {
    let world = World::start(&source("mw", "mobility-work", "")).await;
    let now = NOW_S.to_string();
    let later = (NOW_S + 1).to_string();
    hold(
        &world,
        &[
            accepted("first", "mw", mobility_work(&now, "n1", b"1"), b"1"),
            Case { status: 200, ..refused("another body", "mw", mobility_work(&now, "n1", b"2"), b"2", "conflict") },
            copy("signed again", "mw", mobility_work(&later, "n1", b"1"), b"1"),
            accepted("another nonce, another body", "mw", mobility_work(&now, "n2", b"3"), b"3"),
        ],
    )
    .await;
    world.settled().await;
    assert_eq!(world.upstream.received().len(), 2);
}

#[tokio::test]
async fn one_id_at_two_sources_is_two_events() {
    let other = "the-secret-of-the-second-source";
    let world = World::start(
        &[source("live", "stripe", ""), source("test", "stripe", &format!("secrets = [{{ value = \"{other}\" }}]"))]
            .concat(),
    )
    .await;
    let body = b"{\"id\":\"evt_1\"}";
    let now = NOW_S.to_string();
    let mac = hex_mac(other, &[now.as_bytes(), b".", body]);
    let replies = hold(
        &world,
        &[
            accepted("live", "live", stripe(body), body),
            accepted("test", "test", stripe_with(&format!("t={now},v1={mac}")), body),
        ],
    )
    .await;
    assert_ne!(replies[0].ack().1, replies[1].ack().1);
    world.settled().await;
    let received = world.upstream.received();
    let mut sources: Vec<_> = received.iter().filter_map(|one| one.header("hookward-source")).collect();
    sources.sort_unstable();
    assert_eq!(sources, ["live", "test"]);
}

/// As long as an exact copy passes the check of its time, its key is known: the two lives are one.
#[tokio::test]
async fn a_webhook_from_the_future_is_known_until_it_is_stale() {
    let config = source("ps", "partssource", "tolerance = { past = \"1h\", future = \"1h\" }\nevent_key = \"none\"");
    let (upstream, data) = (Upstream::start().await, TempDir::new().expect("a directory"));
    let text = configuration(&config, "", &upstream.url(), data.path());
    let world = World::start_as(&text, NOW_S, upstream, data).await;
    let ahead = (NOW_S + 3500).to_string();
    let lines = || parts_source(SECRET, &ahead, BODY);
    let first = hold(&world, &[accepted("ahead", "ps", lines(), BODY)]).await;
    world.settled().await;
    let World { gateway, upstream, data, .. } = world;
    assert!(gateway.drain().await);
    // The wall clock of the next start is at the very end of the time's tolerance.
    let at_the_end = Duration::from_secs(3500 + 3500).as_secs().cast_signed();
    let world = World::start_as(&text, NOW_S + at_the_end, upstream, data).await;
    let again = hold(&world, &[copy("at the end", "ps", lines(), BODY)]).await;
    assert_eq!(first[0].ack().1, again[0].ack().1);
    assert_eq!(world.upstream.received().len(), 1);
}

impl World {
    async fn post_lines(&self, lines: &Lines) -> Reply {
        send_lines(self, "/hooks/ps", lines, BODY).await
    }
}
