//! Whoever may ask for the MAC of a token must not get the signature of an event out of it.

use super::{SIGNATURE, ask, base64_mac, code, configuration, hex_mac, is_refused, kinds, no_trace, with_handshake};
use crate::world::{NOW_S, World};

/// A provider that signs its bodies in base64, as X does.
async fn x() -> World {
    let signature = "[providers.own.signature]\nheaders = [\"x-sig\"]\ncontent = \"{body}\"\nprefix = \"sha256=\"\n\
        encoding = \"base64\"\n";
    World::start(&configuration(&format!("[[providers.own.handshakes]]\n{}\n{signature}", kinds::X), "")).await
}

#[tokio::test]
async fn x_signs_no_event() {
    let world = x().await;
    // An event is no token.
    for event in ["{}", "%7B%22id%22%3A1%7D", "%5B%5D", "a%3Db", "a.b", "a%20b"] {
        is_refused(&world, &ask(&world, "GET", &format!("?crc_token={event}"), &[], "").await).await;
    }
    // A token is no event.
    for token in ["abc", "12345", "true", "null", "1700000000"] {
        let reply = ask(&world, "GET", &format!("?crc_token={token}"), &[], "").await;
        let signature = reply.json()["response_token"].as_str().expect("it is answered").to_owned();
        assert_eq!(signature, format!("sha256={}", base64_mac(token)), "genuine, so that only its shape is against it");
        is_refused(&world, &ask(&world, "POST", "", &[("x-sig", &signature)], token).await).await;
    }
    assert_eq!((code(&world, "signed_by_handshake").await, code(&world, "challenge").await), (5, 5));
    // What X sends is no token.
    let event = r#"{"for_user_id":"1"}"#;
    let signature = format!("sha256={}", base64_mac(event));
    assert_eq!(ask(&world, "POST", "", &[("x-sig", &signature)], event).await.ack().0, "accepted");
}

#[tokio::test]
async fn linkedin_signs_no_event() {
    let world = with_handshake(kinds::LINKEDIN).await;
    for event in ["%7B%7D", "890e4665-4dfe-4ab1-b689-ed553bceeed0%0A", "hmacsha256%3D%7B%7D"] {
        is_refused(&world, &ask(&world, "GET", &format!("?challengeCode={event}"), &[], "").await).await;
    }
    let token = "890e4665-4dfe-4ab1-b689-ed553bceeed0";
    let reply = ask(&world, "GET", &format!("?challengeCode={token}"), &[], "").await;
    let signature = reply.json()["challengeResponse"].as_str().expect("it is answered").to_owned();
    assert_eq!(signature, hex_mac(token));
    is_refused(&world, &ask(&world, "POST", "", &[("x-sig", &signature)], token).await).await;
    assert_eq!(code(&world, "signed_by_handshake").await, 1);
    // Another shape is nothing that it signs.
    let event = "890e4665";
    assert_eq!(ask(&world, "POST", "", &[("x-sig", &hex_mac(event))], event).await.ack().0, "accepted");
}

#[tokio::test]
async fn zoom_signs_nothing_for_strangers_and_no_event_for_anybody() {
    let signature = "[providers.own.signature]\nheaders = [\"x-zm-signature\"]\nprefix = \"v0=\"\n\
        content = \"v0:{timestamp}:{body}\"\ntimestamp = { header = \"x-zm-request-timestamp\", unit = \"s\" }\n\
        tolerance = { past = \"5m\", future = \"5m\" }\n";
    let world =
        World::start(&configuration(&format!("[[providers.own.handshakes]]\n{}\n{signature}", kinds::ZOOM), "")).await;
    let now = NOW_S.to_string();
    let send = |body: &str, signature: String| {
        let (world, now, body) = (&world, now.clone(), body.to_owned());
        async move {
            let headers = [("x-zm-request-timestamp", now.as_str()), ("x-zm-signature", signature.as_str())];
            ask(world, "POST", "", &headers, &body).await
        }
    };
    let question =
        |token: &str| format!(r#"{{"event":"endpoint.url_validation","payload":{{"plainToken":"{token}"}}}}"#);
    // A stranger has no signature for the question itself.
    let asked = question("abc");
    is_refused(&world, &send(&asked, "v0=00".to_owned()).await).await;
    is_refused(&world, &send(&asked, format!("v0={}", hex_mac("abc"))).await).await;
    // Even with one, the content of an event is no token: then the question is an event itself.
    let content = format!("v0:{now}:{{}}");
    let asked = question(&content);
    let reply = send(&asked, format!("v0={}", hex_mac(&format!("v0:{now}:{asked}")))).await;
    assert_eq!(reply.ack().0, "accepted");
    // What is answered fits no event.
    let asked = question("abc");
    let reply = send(&asked, format!("v0={}", hex_mac(&format!("v0:{now}:{asked}")))).await;
    let mac = reply.json()["encryptedToken"].as_str().expect("it is answered").to_owned();
    assert_eq!(send("abc", format!("v0={mac}")).await.status, 401);
}

#[tokio::test]
async fn braintree_signs_no_event() {
    let provider = format!(
        "[[providers.own.handshakes]]\nsigned = false\nmethod = \"GET\"\nwhen = []\ntoken = {{ query = \"bt_challenge\" }}\n\
         body = \"{{hmac-sha1-hex}}\"\n{SIGNATURE}"
    );
    let world = World::start(&configuration(&provider, "")).await;
    for event in ["bt_payload%3DPD94bWw%2B", "PD94bWw%3D", "%3C%3Fxml"] {
        is_refused(&world, &ask(&world, "GET", &format!("?bt_challenge={event}"), &[], "").await).await;
    }
    let token = "20f9f8ed05f77439fe955c977e4c8a53";
    let signature = ask(&world, "GET", &format!("?bt_challenge={token}"), &[], "").await.text();
    is_refused(&world, &ask(&world, "POST", "", &[("x-sig", &signature)], token).await).await;
    // Not even with the signature that is right: what has the shape of a challenge is never an event.
    is_refused(&world, &ask(&world, "POST", "", &[("x-sig", &hex_mac(token))], token).await).await;
    no_trace(&world).await;
}

/// Whoever asks for the MAC of a challenge has a signature that is right: that is no reason to be let through, nor is it
/// one where nothing is needed.
#[tokio::test]
async fn a_challenge_is_no_event_where_nothing_is_enforced_either() {
    let until = hookward::time::Wall::from_unix_s(NOW_S + 3600).rfc3339();
    let provider = format!(
        "[[providers.own.handshakes]]\nsigned = false\nmethod = \"GET\"\nwhen = []\ntoken = {{ query = \"bt_challenge\" }}\n\
         body = \"{{hmac-sha1-hex}}\"\n{SIGNATURE}"
    );
    let lenient = format!("enforce = false\nenforce_until = \"{until}\"");
    let world = World::start(&configuration(&provider, &lenient)).await;
    let token = "20f9f8ed05f77439fe955c977e4c8a53";
    is_refused(&world, &ask(&world, "POST", "", &[("x-sig", &hex_mac(token))], token).await).await;
    assert_eq!(code(&world, "signed_by_handshake").await, 1);
    assert_eq!(
        ask(&world, "POST", "", &[("x-sig", &hex_mac("{}"))], "[]").await.ack().0,
        "accepted",
        "another forgery"
    );
}
