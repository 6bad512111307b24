//! Secrets: a bad one does not start, and a life is held against the clock of each request.

use super::requests::*;
use crate::world::{NOW_S, Upstream, World, configuration, sign};

fn secrets(list: &str) -> String {
    source("ps", "partssource", &format!("secrets = {list}"))
}

#[test]
fn an_empty_or_short_secret_does_not_start() {
    for (list, says) in [
        ("[{ value = \"\" }]", "secret is empty"),
        ("[{ value = \"fifteen-bytes-x\" }]", "secret is short: 15 bytes"),
        ("[{ value = \"\", allow_short = true }]", "secret is empty"),
        ("[]", "`secrets` is empty"),
    ] {
        let found = problems(&secrets(list));
        assert!(found.contains(says), "{list}: {found}");
    }
    let found = problems("[sources.ps]\nprovider = \"partssource\"\nupstream = \"up\"\n");
    assert!(found.contains("has no secret"), "{found}");
    let whsec = source("std", "standard-webhooks", "secrets = [{ value = \"whsec_\" }]");
    let found = problems(&whsec);
    assert!(found.contains("secret is empty"), "{found}");
}

#[tokio::test]
async fn one_newline_at_the_end_of_a_file_is_stripped_and_no_more() {
    for (text, secret) in [
        (format!("{SECRET}\n"), SECRET.to_owned()),
        (format!("{SECRET}\r\n"), SECRET.to_owned()),
        (format!("{SECRET}\n\n"), format!("{SECRET}\n")),
        (format!(" {SECRET} \n"), format!(" {SECRET} ")),
    ] {
        let data = tempfile::TempDir::new().expect("a directory");
        std::fs::write(data.path().join("secret"), &text).expect("written");
        let config = secrets("[{ file = \"secret\" }]");
        let world = World::start_with(&config, "", Upstream::start().await, data).await;
        assert_eq!(world.send("partssource", &secret, "/hooks/ps", b"{}", 0).await.status, 200, "{text:?}");
        let whole = world.send("partssource", &text, "/hooks/ps", b"[]", 0).await;
        assert_eq!(whole.status, 401, "{text:?} itself is not the secret");
    }
}

#[test]
fn a_byte_order_mark_in_a_secret_file_does_not_start() {
    let data = tempfile::TempDir::new().expect("a directory");
    std::fs::write(data.path().join("secret"), format!("\u{feff}{SECRET}\n")).expect("written");
    let text = configuration(&secrets("[{ file = \"secret\" }]"), "", "http://127.0.0.1:9/in", data.path());
    let loaded = hookward::config::from_text("test.toml", &text, data.path());
    assert!(loaded.config.is_none());
    let found = loaded.problems.render(false);
    assert!(found.contains("begins with a byte order mark"), "{found}");
    assert!(!found.contains(SECRET), "the secret is not shown: {found}");
}

#[test]
fn a_whsec_secret_that_does_not_decode_does_not_start() {
    for wrong in ["whsec_!!!!!!!!!!!!!!!!!!!!!!!!", "whsec_YWJjZGVmZ2hpamtsbW5vcA=", "whsec_YWJjZGVmZ2hpamtsbW5vcA-_"] {
        let found = problems(&source("std", "standard-webhooks", &format!("secrets = [{{ value = \"{wrong}\" }}]")));
        assert!(found.contains("the secret is not valid base64"), "{wrong}: {found}");
    }
}

/// The clock of the machine says otherwise: these secrets were all dead, or live, when the file was read.
#[tokio::test]
async fn the_life_of_a_secret_is_held_against_the_time_of_the_request() {
    let (first, second) = ("the-older-secret-of-two", "the-newer-secret-of-two");
    let config = |sources: &str| secrets(sources);
    // 2023-11-14T22:13:20Z is NOW_S.
    let turns_over = config(&format!(
        "[{{ value = \"{first}\", id = \"first\", expires_at = 2023-11-14T22:13:20Z }}, \
         {{ value = \"{second}\", id = \"second\", not_before = 2023-11-14T22:13:20Z }}]"
    ));
    // (the clock, seconds from NOW_S; status with the first; with the second)
    for (offset, with_first, with_second) in [(-3600, 200, 401), (-60, 200, 401), (0, 401, 200), (3600, 401, 200)] {
        let data = tempfile::TempDir::new().expect("a directory");
        let upstream = Upstream::start().await;
        let text = configuration(&turns_over, "", &upstream.url(), data.path());
        let world = World::start_as(&text, NOW_S + offset, upstream, data).await;
        for (secret, status, body) in [(first, with_first, b"1"), (second, with_second, b"2")] {
            let code = if status == 200 { "accepted" } else { "signature_mismatch" };
            let lines = sign("partssource", secret, body, NOW_S + offset);
            let headers = lines.iter().map(|(name, value)| (name_of(name), value.clone().into_bytes())).collect();
            hold(&world, &[Case { status, ..refused(secret, "ps", headers, body, code) }]).await;
        }
    }
    let alone = config(&format!("[{{ value = \"{first}\", not_before = 2023-11-14T23:13:20Z }}]"));
    let world = World::start(&alone).await;
    let headers = parts_source(first, &NOW_S.to_string(), b"{}");
    hold_refused(&world, &[refused("none is live", "ps", headers, b"{}", "no_live_secret")]).await;
}

fn name_of(name: &str) -> &'static str {
    ["x-ps-signature", "x-ps-timestamp"].into_iter().find(|known| *known == name).expect("a header of PartsSource")
}

#[tokio::test]
async fn one_secret_at_two_sources_is_an_error_unless_both_say_so() {
    let two = |key: &str| {
        let one = |name: &str| {
            format!(
                "[sources.{name}]\nprovider = \"partssource\"\nsecrets = [{{ value = \"{SECRET}\" }}]\nupstream = \"up\"\n{key}\n"
            )
        };
        one("live") + &one("test")
    };
    let found = problems(&two(""));
    assert!(found.contains("has this secret too"), "{found}");
    assert!(!found.contains(SECRET) || found.contains("inline"), "{found}");
    let only_one = two("").replacen("upstream = \"up\"\n", "upstream = \"up\"\nallow_shared_secret = true\n", 1);
    assert!(problems(&only_one).contains("has this secret too"));
    // Then what is signed for one is a replay at the other.
    let world = World::start(&two("allow_shared_secret = true")).await;
    let headers = || parts_source(SECRET, &NOW_S.to_string(), b"{}");
    let first = hold(&world, &[accepted("first", "live", headers(), b"{}")]).await;
    let copy = Case { status: 200, ..refused("at the other", "test", headers(), b"{}", "duplicate") };
    let second = hold(&world, &[copy]).await;
    assert_eq!(first[0].ack().1, second[0].ack().1);
    world.settled().await;
    assert_eq!(world.upstream.received().len(), 1);
}
