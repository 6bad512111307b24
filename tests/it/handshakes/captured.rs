//! Secrets that a provider hands over: kept for an operator, trusted by nobody else.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::{PATH, SIGNATURE, UNAUTHORIZED, ask, code, configuration, is_answered};
use crate::{
    running,
    world::{self, Reply, Upstream, World, request},
};

/// Asana: the secret comes in a header, and is sent back in it.
const ASANA: &str = "[[providers.own.handshakes]]\nsigned = false\nwhen = [{ header = \"x-hook-secret\" }]\n\
    token = { header = \"x-hook-secret\" }\ncapture = true\nheaders = { x-hook-secret = \"{token}\" }\nbody = \"\"\n";
/// Notion: the secret comes in an unsigned body.
const NOTION: &str = "[[providers.own.handshakes]]\nsigned = false\nwhen = [{ json = \"/verification_token\" }]\n\
    token = { json = \"/verification_token\" }\ncapture = true\nbody = \"\"\n";

fn without_secrets(handshake: &str) -> String {
    configuration(&format!("{handshake}{SIGNATURE}"), "#secrets")
}

fn signed_with(secret: &str, body: &str) -> String {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(body.as_bytes());
    hookward::verify::encode_hex(&mac.finalize().into_bytes())
}

fn fingerprint(secret: &str) -> String {
    use sha2::Digest as _;
    hookward::verify::encode_hex(&sha2::Sha256::digest(secret.as_bytes()))[..8].to_owned()
}

async fn register(world: &World, secret: &str) -> Reply {
    ask(world, "POST", "", &[("X-Hook-Secret", secret)], "").await
}

fn files(data: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(data.join("store/pending")) else { return Vec::new() };
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    let mut names: Vec<_> = names.filter(|name| !name.contains('.')).collect();
    names.sort();
    names
}

async fn pending(world: &World) -> Vec<serde_json::Value> {
    let status = world.admin("GET", "/api/v1/status").await;
    status["pending_secrets"].as_array().expect("a list").clone()
}

const GIVEN: &str = "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81";

#[tokio::test]
async fn asana_hands_over_a_secret_that_counts_once_an_operator_says_so() {
    let world = World::start(&without_secrets(ASANA)).await;
    let (body, signature) = (r#"{"events":[]}"#, signed_with(GIVEN, r#"{"events":[]}"#));
    // Nothing verifies yet, and nothing is lost by that: its provider tries again.
    for signature in [signature.as_str(), "00", &signed_with("", body)] {
        let reply = ask(&world, "POST", "", &[("x-sig", signature)], body).await;
        assert_eq!(reply.status, 503);
        assert!(reply.headers.contains_key("retry-after"));
    }
    assert_eq!(code(&world, "awaits_secret").await, 3);

    let reply = register(&world, GIVEN).await;
    assert_eq!(reply.headers["x-hook-secret"], GIVEN);
    is_answered(&world, &reply, 200, "").await;
    let name = format!("own-{}", fingerprint(GIVEN));
    let path = world.data.path().join("store/pending").join(&name);
    assert_eq!(fs::read_to_string(&path).expect("it is kept"), GIVEN);
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert_eq!(
        fs::metadata(path.parent().expect("a directory")).expect("it is there").permissions().mode() & 0o777,
        0o700
    );
    let listed = pending(&world).await;
    assert_eq!(listed.len(), 1);
    for (key, value) in [
        ("source", "own"),
        ("from", "127.0.0.1"),
        ("fingerprint", &fingerprint(GIVEN)),
        ("file", path.to_str().expect("text")),
    ] {
        assert_eq!(listed[0][key], value, "{listed:?}");
    }
    assert!(listed[0]["at"].as_str().is_some_and(|at| at.starts_with("2023-11-14T22:13:")), "{listed:?}");
    assert!(listed[0]["help"].as_str().is_some_and(|help| help.contains("[sources.own]") && help.contains("delete")));
    assert!(!world.admin("GET", "/api/v1/status").await.to_string().contains(GIVEN));

    // The same again is no new one, and it is still trusted by nobody.
    let before = fs::metadata(&path).expect("it is there").modified().expect("a time");
    is_answered(&world, &register(&world, GIVEN).await, 200, "").await;
    assert_eq!(files(world.data.path()), [name.as_str()]);
    assert_eq!(fs::metadata(&path).expect("it is there").modified().expect("a time"), before);
    assert_eq!(ask(&world, "POST", "", &[("x-sig", &signature)], body).await.status, 503);

    // It outlives a restart, and the operator names it.
    let source = format!("secrets = [{{ file = \"store/pending/{name}\" }}]");
    let world = world.restart(&without_secrets(ASANA)).await;
    assert_eq!(pending(&world).await, listed);
    let world = world.restart(&configuration(&format!("{ASANA}{SIGNATURE}"), &source)).await;
    assert_eq!(ask(&world, "POST", "", &[("x-sig", &signature)], body).await.ack().0, "accepted");
    assert!(pending(&world).await.is_empty(), "what is in use waits no more");
    // Handed over again it is known.
    assert_eq!(register(&world, GIVEN).await.headers["x-hook-secret"], GIVEN);
    assert!(pending(&world).await.is_empty());
}

#[tokio::test]
async fn a_stranger_fills_no_disk_and_gets_nothing_trusted() {
    let world = World::start(&configuration(&format!("{ASANA}{SIGNATURE}"), "")).await;
    for n in 0..4 {
        assert_eq!(register(&world, &format!("a-secret-of-a-stranger-{n}")).await.status, 200);
    }
    for n in 0..8 {
        let reply = register(&world, &format!("another-secret-of-a-stranger-{n}")).await;
        assert_eq!(reply.status, 503);
        assert!(!reply.headers.contains_key("x-hook-secret"), "nobody would think that it is known");
    }
    assert_eq!((files(world.data.path()).len(), pending(&world).await.len()), (4, 4));
    assert_eq!(code(&world, "secret_not_kept").await, 8);
    // One of the four is as good as ever.
    assert_eq!(register(&world, "a-secret-of-a-stranger-0").await.status, 200);
    for name in files(world.data.path()) {
        assert!(name.starts_with("own-"), "{name}");
    }
    let signature = signed_with("a-secret-of-a-stranger-0", "{}");
    let reply = ask(&world, "POST", "", &[("x-sig", &signature)], "{}").await;
    assert_eq!((reply.status, reply.text().as_str()), (401, UNAUTHORIZED));
    // Once the operator has looked, there is room again, and nothing is left of what was deleted.
    for name in files(world.data.path()) {
        fs::remove_file(world.data.path().join("store/pending").join(name)).expect("deleted");
    }
    assert!(pending(&world).await.is_empty());
    assert_eq!(register(&world, "the-secret-of-the-provider").await.status, 200);
    assert_eq!(fs::read_dir(world.data.path().join("store/pending")).expect("there").count(), 2);
}

#[tokio::test]
async fn notion_hands_over_a_secret_in_a_body_that_nothing_signs() {
    let world = World::start(&without_secrets(NOTION)).await;
    let body = r#"{"verification_token":"secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl"}"#;
    let reply = ask(&world, "POST", "", &[], body).await;
    is_answered(&world, &reply, 200, "").await;
    assert_eq!(pending(&world).await.len(), 1);
    for other in [r#"{"verification_token":"a b"}"#, "{}", ""] {
        assert_eq!(ask(&world, "POST", "", &[], other).await.status, 503);
    }
    assert_eq!(pending(&world).await.len(), 1);
}

#[tokio::test]
async fn with_a_store_in_memory_no_secret_is_kept() {
    let edit = |text: String| text.replace("[store]\n", "[store]\nengine = \"memory\"\naccept_loss = true\n");
    let world = World::start_edited(&without_secrets(ASANA), edit).await;
    let reply = register(&world, GIVEN).await;
    assert_eq!(reply.status, 503);
    assert!(!reply.headers.contains_key("x-hook-secret") && pending(&world).await.is_empty());
    assert!(files(world.data.path()).is_empty());
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_keeps_nothing() {
    let (upstream, data) = (Upstream::start().await, tempfile::TempDir::new().expect("a directory"));
    fs::create_dir_all(data.path().join("store")).expect("made");
    fs::write(data.path().join("store/pending"), "no directory").expect("written");
    let world = World::start_with(&without_secrets(ASANA), "", upstream, data).await;
    let reply = register(&world, GIVEN).await;
    assert_eq!((reply.status, reply.headers.contains_key("x-hook-secret")), (503, false));
    let status = world.admin("GET", "/api/v1/status").await;
    assert!(status["pending_secrets"].is_null(), "{status}");
}

#[test]
fn a_source_without_a_secret_is_warned_of_only_where_its_provider_hands_one_over() {
    let load = |sources: &str| {
        let text = world::configuration(sources, "", "http://127.0.0.1:9/in", Path::new("data"));
        hookward::config::from_text("test.toml", &text, Path::new("."))
    };
    let loaded = load(&without_secrets(ASANA));
    let shown = loaded.problems.render(false);
    assert!(loaded.config.is_some() && shown.contains("this source has no secret yet"), "{shown}");
    let loaded = load(&without_secrets(&ASANA.replace("capture = true\n", "")));
    assert!(loaded.config.is_none() && loaded.problems.render(false).contains("has no secret"));
}

#[tokio::test]
async fn the_operator_is_told_in_the_log_and_in_the_status_and_never_the_secret() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = world::configuration(&without_secrets(ASANA), "", "http://127.0.0.1:9/in", directory.path());
    let gateway = running::Gateway::start(directory.path(), &text);
    let public = gateway.public;
    let send = |name, value| async move { request(public, "POST", PATH, &[(name, value)], b"").await };
    for secret in [GIVEN, "a-second-one-of-16", "a-third-one-of-16", "a-fourth-one-of-16"] {
        assert_eq!(send("x-hook-secret", secret).await.status, 200);
    }
    assert_eq!(send("x-hook-secret", "a-fifth-one-of-16").await.status, 503);
    assert_eq!(send("x-sig", "00").await.status, 503);
    let status = gateway.ask(&["status"]);
    let status = running::stdout(&status);
    let name = format!("own-{}", fingerprint(GIVEN));
    assert!(status.contains(&name) && status.contains("else delete the file"), "{status}");
    let (_, log) = gateway.end();
    let line = |what: &str| log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}:\n{log}"));
    let kept = line("a secret was handed over and waits for you");
    assert!(kept.contains("WARN") && kept.contains(&name) && kept.contains("127.0.0.1"), "{kept}");
    assert!(line("it was not kept").contains("4 others wait already"));
    assert!(line("answered 503: this source has no secret yet").contains("WARN"));
    assert!(line("code=challenge").contains("handshake=0"));
    for secret in [GIVEN, "a-second-one", "a-fifth-one"] {
        assert!(!log.contains(secret) && !status.contains(secret), "{log}\n{status}");
    }
}
