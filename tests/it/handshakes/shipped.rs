//! The handshakes of the providers that ship, each asked as its provider asks.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use hookward::{preset, verify::encode_hex};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::no_trace;
use crate::world::{NOW_S, Reply, World, request, sign};

/// What is asked of a provider's endpoint: method, what stands behind the path, headers, body.
type Question<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

/// The secret of a provider's first known answer, as a user would configure it.
fn secret(provider: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/presets/vectors/{provider}.json"));
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let vectors: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    vectors[0]["secrets"][0].as_str().expect("a secret").to_owned()
}

/// What an HMAC of the provider is keyed with.
fn key(provider: &str) -> Vec<u8> {
    let format = preset::find(provider).expect("it ships").key_format;
    format.decode(secret(provider).as_bytes()).expect("a key").expose().to_vec()
}

fn sha256_mac(provider: &str, text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key(provider)).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn sha1_mac(provider: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(&key(provider)).expect("any length");
    mac.update(text.as_bytes());
    encode_hex(&mac.finalize().into_bytes())
}

/// One gateway with a source for each of these, with the parameter that it declares.
async fn world(providers: &[(&str, Option<(&str, &str)>)]) -> World {
    let mut sources = String::new();
    for (name, param) in providers {
        let secret = secret(name);
        let _ = write!(
            sources,
            "[sources.{name}]\nprovider = \"{name}\"\nupstream = \"up\"\nallow_shared_secret = true\n\
             secrets = [{{ value = {secret:?}, allow_short = true }}]\n"
        );
        match *name {
            "azure-event-grid" => sources.push_str("path = \"/hooks/azure-event-grid/{token}\"\n"),
            "azure-event-grid-cloudevents" => sources.push_str("guard = \"header:x-key\"\n"),
            _ => {}
        }
        if let Some((name, value)) = param {
            let _ = writeln!(sources, "params = {{ {name} = \"{value}\" }}");
        }
    }
    let url = |text: String| text.replace("[server]\n", "[server]\npublic_url = \"https://hooks.example.com\"\n");
    World::start_edited(&sources, url).await
}

async fn ask(world: &World, provider: &str, question: Question<'_>) -> Reply {
    let (method, behind, headers, body) = question;
    request(world.gateway.public, method, &format!("/hooks/{provider}{behind}"), headers, body.as_bytes()).await
}

#[tokio::test]
async fn what_nobody_signs_is_answered_as_each_provider_wants_it() {
    let world = world(&[
        ("meta", Some(("verify_token", "of my choice"))),
        ("microsoft-graph", None),
        ("x", None),
        ("dropbox", None),
        ("okta", None),
        ("linkedin", None),
        ("monday", None),
        ("nylas", None),
        ("azure-event-grid", None),
        ("azure-event-grid-cloudevents", None),
        ("ebay", Some(("verification_token", "71745723-d031-455c-bfa5-f90d11b4f20a"))),
        ("braintree", Some(("public_key", "integration_public_key"))),
        ("trello", None),
        ("mandrill", None),
        ("adobe-io-events", None),
        ("woocommerce", None),
    ])
    .await;
    let x = Base64::encode_string(&sha256_mac("x", "NjM4ZjE5NzgtOWM3Ni00ZTc1"));
    let linkedin = encode_hex(&sha256_mac("linkedin", "890e4665-4dfe-4ab1-b689-ed553bceeed0"));
    let ebay = Sha256::digest(
        "a8628072-3d33-45ee-9004-bee86830a22d71745723-d031-455c-bfa5-f90d11b4f20ahttps://hooks.example.com/hooks/ebay",
    );
    let braintree = sha1_mac("braintree", "20f9f8ed05f77439fe955c977e4c8a53");
    let grid = r#"[{"id":"1","data":{"validationCode":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}}]"#;
    let token = format!("/{}", secret("azure-event-grid"));
    let text = "Validation: Testing client application reachability for subscription Request-Id: 522a8e7e-096a";
    let cases: Vec<(&str, Question<'_>, String)> = vec![
        (
            "meta",
            ("GET", "?hub.mode=subscribe&hub.verify_token=of+my+choice&hub.challenge=1158201444", &[], ""),
            "1158201444".into(),
        ),
        (
            "microsoft-graph",
            (
                "POST",
                "?validationToken=Validation%3a+Testing+client+application+reachability+for+subscription+Request-Id%3a+522a8e7e-096a",
                &[],
                "",
            ),
            text.into(),
        ),
        ("x", ("GET", "?crc_token=NjM4ZjE5NzgtOWM3Ni00ZTc1", &[], ""), format!(r#"{{"response_token":"sha256={x}"}}"#)),
        ("dropbox", ("GET", "?challenge=abc123", &[], ""), "abc123".into()),
        (
            "okta",
            ("GET", "", &[("x-okta-verification-challenge", "5wWEvjK8pX")], ""),
            r#"{"verification":"5wWEvjK8pX"}"#.into(),
        ),
        (
            "linkedin",
            ("GET", "?challengeCode=890e4665-4dfe-4ab1-b689-ed553bceeed0", &[], ""),
            format!(r#"{{"challengeCode":"890e4665-4dfe-4ab1-b689-ed553bceeed0","challengeResponse":"{linkedin}"}}"#),
        ),
        (
            "monday",
            ("POST", "", &[], r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV"}"#),
            r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV"}"#.into(),
        ),
        ("nylas", ("GET", "?challenge=bc609b38-c81f-47fb", &[], ""), "bc609b38-c81f-47fb".into()),
        (
            "azure-event-grid",
            ("POST", &token, &[("aeg-event-type", "SubscriptionValidation")], grid),
            r#"{"validationResponse":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}"#.into(),
        ),
        (
            "azure-event-grid-cloudevents",
            ("OPTIONS", "", &[("webhook-request-origin", "eventgrid.azure.net")], ""),
            String::new(),
        ),
        (
            "ebay",
            ("GET", "?challenge_code=a8628072-3d33-45ee-9004-bee86830a22d", &[], ""),
            format!(r#"{{"challengeResponse":"{}"}}"#, encode_hex(&ebay)),
        ),
        (
            "braintree",
            ("GET", "?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53", &[], ""),
            format!("integration_public_key|{braintree}"),
        ),
        ("trello", ("HEAD", "", &[], ""), String::new()),
        ("mandrill", ("HEAD", "", &[], ""), String::new()),
        ("adobe-io-events", ("GET", "?challenge=8ec8d794-e0ab-42df", &[], ""), "8ec8d794-e0ab-42df".into()),
        (
            "woocommerce",
            ("POST", "", &[("content-type", "application/x-www-form-urlencoded")], "webhook_id=17"),
            String::new(),
        ),
    ];
    // What stands in the path is a proof, and this one is wrong.
    let wrong = ("POST", "/not-the-token", &[("aeg-event-type", "SubscriptionValidation")][..], grid);
    assert_eq!(ask(&world, "azure-event-grid", wrong).await.status, 401);
    for (provider, question, expected) in cases {
        let reply = ask(&world, provider, question).await;
        assert_eq!((reply.status, reply.text()), (200, expected), "{provider}");
        assert_eq!(reply.headers["x-content-type-options"], "nosniff", "{provider}");
        let counted = format!("hookward_handshakes_total{{source=\"{provider}\",handshake=\"0\"}}");
        assert_eq!(world.metric(&counted).await, 1, "{provider}");
        if provider == "azure-event-grid-cloudevents" {
            assert_eq!(reply.headers["webhook-allowed-origin"], "eventgrid.azure.net");
        }
    }
    no_trace(&world).await;
}

#[tokio::test]
async fn what_is_signed_is_answered_once_it_verified() {
    let world = world(&[("slack", None), ("zoom", None), ("twitch", None)]).await;
    let zoom = r#"{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1,"event":"endpoint.url_validation"}"#;
    let mac = encode_hex(&sha256_mac("zoom", "qgg8vlvZRS6UYooatFL8Aw"));
    let answer = format!(r#"{{"plainToken":"qgg8vlvZRS6UYooatFL8Aw","encryptedToken":"{mac}"}}"#);
    let slack = r#"{"type":"url_verification","challenge":"3eZbrw1aBm2rZgRNFdxV"}"#;
    for (provider, body, expected) in [("zoom", zoom, answer.as_str()), ("slack", slack, "3eZbrw1aBm2rZgRNFdxV")] {
        let path = format!("/hooks/{provider}");
        assert_eq!(ask(&world, provider, ("POST", "", &[], body)).await.status, 401);
        let reply = world.send(provider, "another-secret-of-some-length", &path, body.as_bytes(), 0).await;
        assert_eq!(reply.status, 401, "{provider}");
        let reply = world.send(provider, &secret(provider), &path, body.as_bytes(), 0).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, expected), "{provider}");
    }
    let twitch = r#"{"challenge":"pogchamp-kappa-360noscope-vohiyo","subscription":{"id":"1"}}"#;
    let mut headers = sign("twitch", &secret("twitch"), twitch.as_bytes(), NOW_S);
    headers.push(("twitch-eventsub-message-type".to_owned(), "webhook_callback_verification".to_owned()));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(ask(&world, "twitch", ("POST", "", &headers, &twitch.replace("pog", "dog"))).await.status, 401);
    let reply = ask(&world, "twitch", ("POST", "", &headers, twitch)).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "pogchamp-kappa-360noscope-vohiyo"));
    no_trace(&world).await;
}

#[tokio::test]
async fn a_secret_that_is_handed_over_is_sent_back_and_kept() {
    let source = |name: &str| format!("[sources.{name}]\nprovider = \"{name}\"\nupstream = \"up\"\n");
    let world = World::start(&["asana", "notion", "gusto"].map(source).concat()).await;
    let reply =
        ask(&world, "asana", ("POST", "", &[("x-hook-secret", "b537207f20cbfa02357cf448134da559")], "{}")).await;
    assert_eq!((reply.status, reply.headers["x-hook-secret"].as_str()), (200, "b537207f20cbfa02357cf448134da559"));
    let notion = r#"{"verification_token":"secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl"}"#;
    assert_eq!(ask(&world, "notion", ("POST", "", &[], notion)).await.status, 200);
    let gusto = r#"{"verification_token":"jzeW6Xz5Yj8o0ZbL","webhook_subscription_uuid":"cc8aaf70-5c2d-4f1e-9a31-0f7f3a1d9a10"}"#;
    assert_eq!(ask(&world, "gusto", ("POST", "", &[], gusto)).await.status, 200);
    let status = world.admin("GET", "/api/v1/status").await;
    let sources = status["pending_secrets"].as_array().expect("a list").iter().map(|row| row["source"].as_str());
    assert_eq!(sources.collect::<Vec<_>>(), [Some("asana"), Some("gusto"), Some("notion")]);
    no_trace(&world).await;
}

#[tokio::test]
async fn the_token_of_amazon_sns_is_kept_for_the_operator_to_confirm_with() {
    let world = world(&[("amazon-sns", Some(("topic_arn", "arn:aws:sns:eu-central-1:123456789012:orders")))]).await;
    let token = "2336412f37fb687f5d51e6e2425c464de257eb".repeat(5);
    let body = |topic: &str| {
        format!(
            r#"{{"Type":"SubscriptionConfirmation","Token":"{token}","TopicArn":"arn:aws:sns:eu-central-1:123456789012:{topic}","Signature":"AAAA"}}"#
        )
    };
    let kind = [("x-amz-sns-message-type", "SubscriptionConfirmation")];
    let pending = async || world.admin("GET", "/api/v1/status").await["pending_secrets"].clone();
    for (headers, body) in [(&kind[..], body("others")), (&[], body("orders")), (&kind[..], "{}".to_owned())] {
        assert_eq!(ask(&world, "amazon-sns", ("POST", "", headers, &body)).await.status, 401, "{body}");
        assert_eq!(pending().await, serde_json::json!([]));
    }
    assert_eq!(ask(&world, "amazon-sns", ("POST", "", &kind, &body("orders"))).await.status, 200);
    let row = pending().await[0].clone();
    assert!(row["help"].as_str().is_some_and(|help| help.contains("confirm")), "{row}");
    assert_eq!(fs::read_to_string(row["file"].as_str().expect("a path")).expect("it is kept"), token);
    no_trace(&world).await;
    // It is no key, so that a source without one does not start.
    let text =
        "[sources.a]\nprovider = \"amazon-sns\"\nupstream = \"http://127.0.0.1:9/\"\nparams = { topic_arn = \"a\" }\n";
    let loaded = hookward::config::from_text("a.toml", text, Path::new("."));
    assert!(loaded.config.is_none() && loaded.problems.render(false).contains("has no secret"));
}

#[tokio::test]
async fn braintree_signs_no_notification_for_a_stranger() {
    let world = world(&[("braintree", Some(("public_key", "pk")))]).await;
    // A payload that is as plain as a challenge: nothing but the shape tells them apart.
    let payload = Base64::encode_string(b"<notification><kind>disbursement </kind></notification>").replace('=', "");
    assert!(payload.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{payload}");
    let reply = ask(&world, "braintree", ("GET", &format!("?bt_challenge={payload}"), &[], "")).await;
    let signature = reply.text();
    assert_eq!(signature, format!("pk|{}", sha1_mac("braintree", &payload)));
    let form = |payload: &str, signature: &str| {
        let fields = BTreeMap::from([("bt_payload", payload), ("bt_signature", signature)]);
        let encode =
            |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        fields.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect::<Vec<_>>().join("&")
    };
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let reply = ask(&world, "braintree", ("POST", "", &headers, &form(&payload, &signature))).await;
    assert_eq!(reply.status, 401);
    assert_eq!(world.metric("hookward_webhooks_total{source=\"braintree\",code=\"signed_by_handshake\"}").await, 1);
    no_trace(&world).await;
    // What Braintree sends has lines.
    let payload = format!("{payload}\n");
    let signature = format!("pk|{}", sha1_mac("braintree", &payload));
    let reply = ask(&world, "braintree", ("POST", "", &headers, &form(&payload, &signature))).await;
    assert_eq!(reply.ack().0, "accepted");
}

#[test]
fn a_url_that_is_digested_has_to_be_configured() {
    let text = "[sources.ebay]\nprovider = \"ebay\"\nupstream = \"http://127.0.0.1:9/\"\n\
        params = { verification_token = \"71745723\" }\nsecrets = [{ file = \"none\" }]\n";
    let shown = hookward::config::from_text("a.toml", text, std::path::Path::new(".")).problems.render(false);
    assert!(shown.contains("asks for a digest of the URL") && shown.contains("add public_url"), "{shown}");
}

/// Every provider that ships and has a handshake is asked here, or it is said why not.
#[test]
fn every_handshake_that_ships_is_tried() {
    let text = include_str!("shipped.rs");
    let untried = [
        "discord", // signed with a key that nobody here has
        "front",   // as Slack, with its token in a header
    ];
    for provider in preset::all().iter().filter(|provider| !provider.handshakes.is_empty()) {
        let name = &*provider.name;
        let is_tried = text.contains(&format!("\"{name}\"")) || name.starts_with("amazon-sns");
        assert!(is_tried || untried.contains(&name), "{name}");
    }
}
