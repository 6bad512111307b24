//! `enforce = false`: until a date, what does not verify passes, marked, and without any key.

use hookward::time::Wall;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    running::{Gateway, echo, stdout},
    world::{Act, NOW_S, Reply, Upstream, World, configuration},
};

const SECRET: &str = "a-secret-of-some-length";
const FORGED: &str = "another-secret-than-it-is";
const PATH: &str = "/hooks/orders";
/// Seconds from the start of the world until it is enforced: longer than any of these tests takes.
const LENIENT_S: i64 = 3600;

fn source(keys: &str) -> String {
    let until = Wall::from_unix_s(NOW_S + LENIENT_S).rfc3339();
    format!(
        "[sources.orders]\nprovider = \"partssource\"\nsecrets = [{{ value = \"{SECRET}\", id = \"main\" }}]\n\
         upstream = \"up\"\nenforce = false\nenforce_until = \"{until}\"\n{keys}\n"
    )
}

async fn forge(world: &World, body: &[u8]) -> Reply {
    world.send("partssource", FORGED, PATH, body, 0).await
}

/// How many webhooks were let through, for any reason or for this one.
async fn let_through(world: &World, code: &str) -> u64 {
    let code = if code.is_empty() { String::new() } else { format!(",code=\"{code}\"") };
    world.metric(&format!("hookward_unenforced_total{{source=\"orders\"{code}")).await
}

async fn keys(world: &World) -> Value {
    world.admin("GET", "/api/v1/status").await["health"]["counts"]["keys"].clone()
}

#[tokio::test]
async fn what_does_not_verify_is_stored_and_forwarded_marked_with_why() {
    let world = World::start(&source("")).await;
    let mut ids = Vec::new();
    ids.push(("signature_missing", world.post(PATH, &[], b"{}").await.ack()));
    ids.push(("signature_mismatch", forge(&world, b"{}").await.ack()));
    ids.push(("stale", world.send("partssource", SECRET, PATH, b"{}", -86_400).await.ack()));
    let malformed = [("x-ps-signature", "no"), ("x-ps-timestamp", "yes"), ("hookward-verified", "hmac-sha256/main")];
    ids.push(("", world.post(PATH, &malformed, b"{}").await.ack()));
    let received = world.upstream.wait_for(4).await;
    for (reason, (word, id)) in &ids {
        assert_eq!(word, "accepted", "the same body again, and no copy: {reason}");
        let got = received.iter().find(|got| got.header("hookward-event-id") == Some(id)).expect("it was forwarded");
        assert_eq!((got.header("hookward-verified"), &got.body[..]), (Some("false"), &b"{}"[..]));
        let why = got.header("hookward-unverified-reason").expect("a reason");
        assert!(reason.is_empty() || why == *reason, "{why}");
        let shown = world.admin("GET", &format!("/api/v1/events/{id}")).await;
        assert_eq!(shown["event"]["verified"], format!("false/{why}"));
        if !reason.is_empty() {
            assert_eq!(let_through(&world, reason).await, 1);
        }
    }
    assert_eq!((let_through(&world, "").await, keys(&world).await), (4, 0.into()));
    assert_eq!(world.metric("hookward_verified_total{").await, 0);
}

#[tokio::test]
async fn what_verifies_is_treated_as_always_whatever_was_forged_before_or_after() {
    let world = World::start(&source("")).await;
    let (_, forged) = forge(&world, b"{}").await.ack();
    let (word, genuine) = world.send("partssource", SECRET, PATH, b"{}", 0).await.ack();
    assert_eq!(word, "accepted", "what is forged hides nothing");
    let (word, again) = forge(&world, b"{}").await.ack();
    assert_eq!(word, "accepted");
    assert!(forged != genuine && again != genuine);
    assert_eq!(
        world.send("partssource", SECRET, PATH, b"{}", 0).await.ack(),
        ("duplicate".to_owned(), genuine.clone())
    );
    let received = world.upstream.wait_for(3).await;
    let verified = |id: &str| received.iter().find(|got| got.header("hookward-event-id") == Some(id)).cloned();
    let got = verified(&genuine).expect("forwarded");
    assert_eq!(got.header("hookward-verified"), Some("hmac-sha256/main"));
    assert_eq!(got.header("hookward-unverified-reason"), None);
    world.settled().await;
    let shown = world.admin("GET", &format!("/api/v1/events/{genuine}")).await;
    assert_eq!(shown["event"]["copies"], 1, "the genuine one");
}

#[tokio::test]
async fn from_the_date_on_it_is_refused() {
    let (upstream, data) = (Upstream::start().await, TempDir::new().expect("a directory"));
    let text = configuration(&source(""), "", &upstream.url(), data.path());
    let world = World::start_as(&text, NOW_S + LENIENT_S, upstream, data).await;
    assert_eq!(world.post(PATH, &[], b"{}").await.status, 401);
    assert_eq!(world.send("partssource", FORGED, PATH, b"{}", LENIENT_S).await.status, 401);
    assert_eq!(world.send("partssource", SECRET, PATH, b"{}", LENIENT_S).await.ack().0, "accepted");
    assert_eq!(let_through(&world, "").await, 0);
    assert!(world.admin("GET", "/api/v1/status").await["sources"][0]["unenforced_until"].is_null());
}

#[tokio::test]
async fn an_address_that_may_not_send_is_refused_all_the_same() {
    let world = World::start(&source("allow = [\"203.0.113.0/24\"]")).await;
    assert_eq!(world.post(PATH, &[], b"{}").await.status, 503, "403 would lose it");
    assert_eq!(let_through(&world, "").await, 0);
}

#[tokio::test]
async fn a_redelivery_says_again_that_it_did_not_verify_and_is_signed() {
    let secret = "signing_secret = { value = \"whsec_YS1zZWNyZXQtb2Ytc29tZS1sZW5ndGg=\" }";
    let world = World::with_upstream(&source(""), secret).await;
    let (_, id) = forge(&world, b"{}").await.ack();
    world.upstream.wait_for(1).await;
    world.settled().await;
    world.admin("POST", &format!("/api/v1/events/{id}/redeliver")).await;
    let received = world.upstream.wait_for(2).await;
    assert_eq!(received[1].header("hookward-redelivery"), Some("true"));
    for got in received {
        assert_eq!(got.header("hookward-verified"), Some("false"));
        assert_eq!(got.header("hookward-unverified-reason"), Some("signature_mismatch"));
        assert!(got.header("webhook-signature").is_some(), "it says who sent it on");
    }
}

#[tokio::test]
async fn respond_and_proxy_let_the_upstream_answer_and_remember_nothing() {
    for mode in ["respond", "proxy"] {
        let world = World::start(&source(&format!("mode = \"{mode}\""))).await;
        world.upstream.script([Act::Json(201, "{\"n\":1}"), Act::Json(201, "{\"n\":2}")]);
        for answer in ["{\"n\":1}", "{\"n\":2}"] {
            let reply = forge(&world, b"{}").await;
            assert_eq!((reply.status, reply.text().as_str()), (201, answer), "{mode}: not the answer of before");
        }
        let received = world.upstream.wait_for(2).await;
        assert!(received.iter().all(|got| got.header("hookward-verified") == Some("false")), "{mode}");
        assert_eq!(keys(&world).await, 0, "{mode}");
        let genuine = world.send("partssource", SECRET, PATH, b"{}", 0).await;
        assert_eq!((genuine.status, world.upstream.received().len()), (200, 3), "{mode}");
    }
}

#[tokio::test]
async fn a_handshake_is_answered_only_as_it_always_was() {
    let own = |handshake: &str| {
        let until = Wall::from_unix_s(NOW_S + LENIENT_S).rfc3339();
        format!(
            "[providers.own]\n[[providers.own.handshakes]]\n{handshake}\n[providers.own.signature]\n\
             headers = [\"x-sig\"]\ncontent = \"{{body}}\"\n[sources.own]\nprovider = \"own\"\nupstream = \"up\"\n\
             secrets = [{{ value = \"{SECRET}\" }}]\nenforce = false\nenforce_until = \"{until}\"\n"
        )
    };
    let challenge = br#"{"type":"challenge","challenge":"abcdefgh"}"#;
    let when = "when = [{ json = \"/type\", equals = \"challenge\" }]\ntoken = { json = \"/challenge\" }";

    // Signed: what shows no proof is no handshake, whatever it says.
    let world = World::start(&own(when)).await;
    assert_eq!(world.post("/hooks/own", &[], challenge).await.ack().0, "accepted");
    assert_eq!(world.metric("hookward_handshakes_total").await, 0);

    // Unsigned: answered, and what only lies where a handshake could be goes on, small or large.
    let world = World::start(&own(&format!("signed = false\n{when}"))).await;
    assert_eq!(world.post("/hooks/own", &[], challenge).await.text(), "abcdefgh");
    assert_eq!(world.metric("hookward_handshakes_total").await, 1);
    let large = vec![b'x'; 20_000];
    for body in [&b"{\"type\":\"event\"}"[..], &large] {
        assert_eq!(world.post("/hooks/own", &[], body).await.ack().0, "accepted");
    }
    let received = world.upstream.wait_for(2).await;
    let mut bodies: Vec<_> = received.iter().map(|got| got.body.len()).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, [16, 20_000], "byte for byte, and no handshake");
}

#[tokio::test]
async fn with_a_slow_upstream_it_takes_an_eighth_of_the_places_and_none_of_what_verifies() {
    let keys = "mode = \"respond\"\nrate = { per_second = 0.001, burst = 1 }";
    let sources = source(keys) + "[server.limits]\nin_flight_max = 8\n";
    let world = World::start(&sources).await;
    world.upstream.script([Act::Hang(200)]);
    let waiting = forge(&world, b"{\"n\":1}");
    let other = async {
        world.upstream.wait_for(1).await;
        let refused = forge(&world, b"{\"n\":2}").await;
        assert_eq!(refused.status, 503);
        assert!(refused.headers.contains_key("retry-after"));
        assert_eq!(
            world.send("partssource", SECRET, PATH, b"{\"n\":3}", 0).await.status,
            200,
            "the one token is there"
        );
        world.upstream.let_go();
    };
    let (first, ()) = tokio::join!(waiting, other);
    assert_eq!(first.status, 200);
}

#[tokio::test]
async fn with_a_slow_upstream_its_bodies_take_an_eighth_of_the_room_and_none_of_what_verifies() {
    let sources = source("mode = \"respond\"") + "[server.limits]\nbody_memory_max = \"8MiB\"\n";
    let world = World::start(&sources).await;
    world.upstream.script([Act::Hang(200)]);
    let body = |byte| vec![byte; 700_000];
    let (first, second, genuine) = (body(b'1'), body(b'2'), body(b'3'));
    let other = async {
        world.upstream.wait_for(1).await;
        let refused = forge(&world, &second).await;
        assert_eq!((refused.status, refused.headers.contains_key("retry-after")), (503, true));
        assert_eq!(world.send("partssource", SECRET, PATH, &genuine, 0).await.status, 200);
        world.upstream.let_go();
    };
    let (first, ()) = tokio::join!(forge(&world, &first), other);
    assert_eq!(first.status, 200);
    assert_eq!(forge(&world, &second).await.status, 200, "it was given back");
}

#[tokio::test]
async fn the_start_and_the_status_say_which_sources_do_not_enforce_and_until_when() {
    let directory = TempDir::new().expect("a directory");
    let (upstream, address) = echo(&[]);
    let until = hookward::time::Clock::system().wall().plus(std::time::Duration::from_hours(24)).rfc3339();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [store]\npath = \"data\"\n[sources.shop]\nprovider = \"github\"\nupstream = \"http://{address}/\"\n\
         secrets = [{{ value = \"{SECRET}\" }}]\nenforce = false\nenforce_until = \"{until}\"\n"
    );
    let gateway = Gateway::start(directory.path(), &text);
    let status = stdout(&gateway.ask(&["status"]));
    let line = status.lines().find(|line| line.contains("enforce = false")).expect("a warning");
    assert!(line.contains("shop") && line.contains(&until), "{line}");
    assert_eq!(gateway.json(&["status"])["sources"][0]["unenforced_until"], until);
    let (_, log) = gateway.end();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("shop") && line.contains(&until)), "{log}");
    drop(upstream);
}

#[tokio::test]
async fn what_is_let_through_holds_up_no_genuine_event_of_the_same_order_key() {
    let world = World::start(&source("order_by = \"/n\"")).await;
    world.upstream.script([Act::Answer(500, "no")]);
    forge(&world, b"{\"n\":1}").await.ack();
    world.upstream.wait_for(1).await;
    world.send("partssource", SECRET, PATH, b"{\"n\":1,\"x\":2}", 0).await.ack();
    // The forged one comes again half a second later at the earliest.
    let got = world.upstream.wait_for(2).await;
    assert_eq!(got[1].header("hookward-verified"), Some("hmac-sha256/main"));
}

#[tokio::test]
async fn items_of_what_is_let_through_are_not_known_to_the_upstream() {
    let world = World::start(&source("items = { each = \"/d\", key = [\"/k\"] }")).await;
    forge(&world, b"{\"d\":[{\"k\":1,\"v\":2}]}").await.ack();
    world.upstream.wait_for(1).await;
    world.settled().await;
    world.send("partssource", SECRET, PATH, b"{\"d\":[{\"k\":1,\"v\":2}],\"real\":1}", 0).await.ack();
    let got = world.upstream.wait_for(2).await;
    assert_eq!(got[1].header("hookward-duplicate-items"), None);
}
