//! `explain = true`: the admin API says why webhooks were refused, and nothing else changes.

use std::time::Duration;

use serde_json::Value;

use tokio::time::Instant;

use crate::world::{Reply, World, request, sign, within};

const CURRENT: &str = "current-canary-secret-0001";
const OLD: &str = "old-canary-secret-00000002";
const OTHERS: &str = "others-canary-secret-00003";
const BODY: &[u8] = br#"{"id":7,"pin":"pin-canary","company_id":4711,"event":"order.created"}"#;

fn sources() -> String {
    let source =
        |name: &str, keys: &str| format!("[sources.{name}]\nprovider = \"partssource\"\nupstream = \"up\"\n{keys}\n");
    let rotated = format!(
        "secrets = [{{ value = \"{CURRENT}\" }}, {{ value = \"{OLD}\", expires_at = 2023-01-01T00:00:00Z }}]\n\
         allow_shared_secret = true"
    );
    [
        source("shop", &format!("{rotated}\nexplain = true\nredact = [\"/pin\"]")),
        source("quiet", &rotated),
        source("other", &format!("secrets = [{{ value = \"{OTHERS}\" }}]\nexplain = true")),
    ]
    .concat()
}

async fn failures(world: &World, source: &str) -> Value {
    world.admin("GET", &format!("/api/v1/sources/{source}/failures")).await
}

/// The failures, once there are as many, kept and counted.
async fn until(world: &World, source: &str, all: u64) -> Value {
    within("failures", async {
        loop {
            let list = failures(world, source).await;
            let kept = list["failures"].as_array().expect("a list").len() as u64;
            if kept + list["not_explained"].as_u64().expect("a number") >= all {
                return list;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// An answer but for what differs from request to request.
fn plain(reply: &Reply) -> (u16, Vec<String>, Vec<u8>) {
    let changing = |line: &&str| !line.starts_with("x-request-id:") && !line.starts_with("date:");
    (reply.status, reply.head.lines().filter(changing).map(str::to_owned).collect(), reply.body.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_secret_shows_up_as_the_cause_and_the_answer_is_as_ever() {
    let world = World::start(&sources()).await;
    let explained = world.send("partssource", OLD, "/hooks/shop", BODY, 0).await;
    let quiet = world.send("partssource", OLD, "/hooks/quiet", BODY, 0).await;
    assert_eq!(explained.status, 401);
    assert_eq!(plain(&explained), plain(&quiet));

    let list = until(&world, "shop", 1).await;
    let failure = &list["failures"][0];
    assert_eq!(failure["code"], "signature_mismatch");
    assert_eq!(failure["request_id"], explained.headers["x-request-id"]);
    assert_eq!(failure["causes"][0]["code"], "secret_expired", "{list:#}");
    assert_eq!(failure["causes"][0]["proven"], true);
    assert_eq!(failure["body"]["bytes"], BODY.len());
    let content = failure["body"]["content"].as_str().expect("text");
    assert!(content.contains("\"pin\":\"redacted\"") && content.contains("4711"), "{content}");
    let signature = sign("partssource", OLD, BODY, 1_700_000_000);
    let shown = list.to_string();
    for (_, value) in signature.iter().filter(|(name, _)| name.contains("signature")) {
        let digits = value.trim_start_matches("sha256=");
        assert!(!shown.contains(&digits[..12]), "{shown}");
    }
    assert!(!shown.contains("canary"), "{shown}");

    let status = world.admin("GET", "/api/v1/status").await;
    assert_eq!(status["failures"][0]["source"], "shop", "{status:#}");
    assert_eq!(status["failures"][0]["last_cause"], "secret_expired");
    assert_eq!(status["failures"].as_array().map(Vec::len), Some(1), "a source that does not explain is not counted");
    // What is right goes through, and leaves nothing behind.
    assert_eq!(world.send("partssource", CURRENT, "/hooks/shop", BODY, 0).await.status, 200);
    assert_eq!(failures(&world, "shop").await["failures"].as_array().map(Vec::len), Some(1));
    assert!(world.gateway.drain().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_one_a_second_is_counted_and_not_computed() {
    let world = World::start(&sources()).await;
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(world.send("partssource", "wrong", "/hooks/shop", BODY, 0).await.status, 401);
    }
    let list = until(&world, "shop", 20).await;
    let kept = list["failures"].as_array().expect("a list").len() as u64;
    assert!(kept >= 1 && kept <= began.elapsed().as_secs() + 1, "{kept} in {:?}", began.elapsed());
    assert_eq!(list["not_explained"], 20 - kept);
    assert_eq!(list["failures"][0]["causes"], serde_json::json!([]), "nothing explains a forged one");
    // A path that nobody has is nobody's failure.
    assert_eq!(world.post("/hooks/nowhere", &[], BODY).await.status, 404);
    assert_eq!(failures(&world, "other").await["failures"], serde_json::json!([]));
    assert!(world.gateway.drain().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_learns_nothing_of_the_secrets_of_another() {
    let world = World::start(&sources()).await;
    assert_eq!(world.send("partssource", OTHERS, "/hooks/shop", BODY, 0).await.status, 401);
    let list = until(&world, "shop", 1).await;
    assert_eq!(list["failures"][0]["causes"], serde_json::json!([]), "{list:#}");
    assert!(!list.to_string().contains("other"), "{list:#}");
    assert!(world.gateway.drain().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_head_tells_is_explained_without_the_body() {
    let world = World::start(&sources()).await;
    let secret_in_a_header = [("x-note", OTHERS), ("authorization", "Basic dXNlcjpwYXNzd29yZC1jYW5hcnk=")];
    let mut headers: Vec<_> = sign("partssource", OTHERS, BODY, 1_700_000_000 - 7_200);
    headers.extend(secret_in_a_header.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(world.post("/hooks/other", &headers, BODY).await.status, 401);
    let list = until(&world, "other", 1).await;
    let failure = &list["failures"][0];
    assert_eq!((&failure["code"], &failure["causes"][0]["code"]), (&"stale".into(), &"time_zone".into()), "{list:#}");
    assert_eq!(failure["causes"][0]["proven"], false, "the body was not read");
    assert!(failure["body"]["withheld"].is_string());
    let shown = list.to_string();
    assert!(!shown.contains(OTHERS) && !shown.contains("dXNl"), "{shown}");
    assert!(shown.contains("Basic … 34 bytes"), "{shown}");
    assert!(world.gateway.drain().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_explained_says_what_to_do() {
    let world = World::start(&sources()).await;
    for (source, status, code) in [("quiet", 409, "explain_off"), ("nobody", 404, "source_unknown")] {
        let path = format!("/api/v1/sources/{source}/failures");
        let reply = request(world.gateway.admin, "GET", &path, &[], b"").await;
        assert_eq!((reply.status, &reply.json()["code"]), (status, &code.into()));
    }
    assert!(world.gateway.drain().await);
}

/// The digest of a whole body tells who knows all of it but a few digits what those are.
#[tokio::test]
async fn the_digest_of_a_body_of_which_something_is_redacted_is_for_operators() {
    let tokens = "[admin]\ntokens = [{ value = \"canary-reader-token-0001\", role = \"read\" }, \
        { value = \"canary-operator-token-0002\", role = \"operate\" }]\n";
    let world = World::start_edited(&sources(), |text| text.replace("[admin]\n", tokens)).await;
    let digest = async |source: &str, token: &str| {
        let authorization = format!("Bearer {token}");
        let path = format!("/api/v1/sources/{source}/failures");
        within("the refusal", async {
            loop {
                let headers = [("authorization", authorization.as_str())];
                let list = request(world.gateway.admin, "GET", &path, &headers, b"").await.json();
                if let Some(failure) = list["failures"].get(0) {
                    return failure["body"]["sha256"].is_string();
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    };
    let (reader, operator) = ("canary-reader-token-0001", "canary-operator-token-0002");
    for (source, reader_sees) in [("shop", false), ("other", true)] {
        let forged = world.send("partssource", "a-secret-of-nobody-here", &format!("/hooks/{source}"), BODY, 0).await;
        assert_eq!(forged.status, 401);
        let seen = (digest(source, reader).await, digest(source, operator).await);
        assert_eq!(seen, (reader_sees, true), "{source}");
    }
}
