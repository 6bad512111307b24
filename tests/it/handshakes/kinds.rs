//! One test for each kind of handshake there is, named after a provider that does it so.

use super::{
    PATH, SIGNATURE, UNAUTHORIZED, answered, ask, base64_mac, code, configuration, hex_mac, is_answered, is_refused,
    no_trace, with_handshake, with_param,
};
use crate::world::World;

#[tokio::test]
async fn slack_is_answered_with_its_token_once_it_verified() {
    let secret = "a-secret-of-some-length";
    let source =
        "[sources.own]\nprovider = \"slack\"\nupstream = \"up\"\nsecrets = [{ value = \"a-secret-of-some-length\" }]\n";
    let world = World::start(source).await;
    let body = r#"{"type":"url_verification","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#;
    is_refused(&world, &ask(&world, "POST", "", &[], body).await).await;
    is_refused(&world, &world.send("slack", "another-secret-of-some-length", PATH, body.as_bytes(), 0).await).await;
    let reply = world.send("slack", secret, PATH, body.as_bytes(), 0).await;
    assert!(reply.headers["content-type"].starts_with("text/plain"));
    is_answered(&world, &reply, 200, "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P").await;
    // An event that only talks of challenges is an event.
    let event = br#"{"type":"event_callback","event_id":"Ev1","challenge":"abc"}"#;
    assert_eq!(world.send("slack", secret, PATH, event, 0).await.ack().0, "accepted");
}

const META: &str = "signed = false\nmethod = \"GET\"\nwhen = [{ query = \"hub.mode\", equals = \"subscribe\" }]\n\
    token = { query = \"hub.challenge\" }\nshape = \"digits\"\n\
    compare = { query = \"hub.verify_token\", param = \"verify_token\" }";

#[tokio::test]
async fn meta_is_answered_if_it_knows_the_verify_token() {
    let world = with_param("verify_token", "of my choice", META).await;
    let ask = |query: &'static str| ask(&world, "GET", query, &[], "");
    for wrong in [
        "?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=of+your+choice",
        "?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=",
        "?hub.mode=subscribe&hub.challenge=1158201444",
        "?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=of+my+choice&hub.verify_token=of+my+choice",
        "?hub.mode=unsubscribe&hub.challenge=1158201444&hub.verify_token=of+my+choice",
        "?hub.mode=subscribe&hub.challenge=%3Cb%3E&hub.verify_token=of+my+choice",
        "",
    ] {
        is_refused(&world, &ask(wrong).await).await;
    }
    assert_eq!((code(&world, "handshake_refused").await, answered(&world).await), (7, 0));
    let reply = ask("?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=of%20my+choice").await;
    assert_eq!(reply.headers["content-type"], "text/plain; charset=utf-8");
    is_answered(&world, &reply, 200, "1158201444").await;
}

#[tokio::test]
async fn microsoft_graph_is_answered_with_the_text_of_its_query() {
    let world = with_handshake(
        "signed = false\nwhen = [{ query = \"validationToken\" }]\ntoken = { query = \"validationToken\" }\nshape = \"words\"",
    )
    .await;
    let query =
        "?validationToken=Validation%3a+Testing+client+application+reachability+for+subscription+Request-Id%3A%201a2b";
    let reply = ask(&world, "POST", query, &[("content-type", "text/plain; charset=utf-8")], "").await;
    assert_eq!(reply.headers["content-type"], "text/plain; charset=utf-8");
    let text = "Validation: Testing client application reachability for subscription Request-Id: 1a2b";
    is_answered(&world, &reply, 200, text).await;
    is_refused(&world, &ask(&world, "POST", "?validationToken=%3Cscript%3E", &[], "").await).await;
    // A body has no say in it, not even one that nobody reads.
    let reply = ask(&world, "POST", query, &[], &"x".repeat(100_000)).await;
    is_answered(&world, &reply, 200, text).await;
}

pub(super) const X: &str = "signed = false\nmethod = \"GET\"\nwhen = [{ query = \"crc_token\" }]\ntoken = { query = \"crc_token\" }\n\
    content_type = \"application/json\"\nbody = '{\"response_token\":\"sha256={hmac-sha256-base64}\"}'";

#[tokio::test]
async fn x_gets_the_mac_of_its_token() {
    let world = with_handshake(X).await;
    let token = "NjM4ZjE5NzgtOWM3Ni00ZTc1LWE0ZTItZDY2NmE1ZDU0YTkz";
    let reply = ask(&world, "GET", &format!("?crc_token={token}&nonce=1"), &[], "").await;
    assert_eq!(reply.headers["content-type"], "application/json");
    let body = format!("{{\"response_token\":\"sha256={}\"}}", base64_mac(token));
    is_answered(&world, &reply, 200, &body).await;
    is_refused(&world, &ask(&world, "GET", "?crc_token=a.b", &[], "").await).await;
}

pub(super) const ZOOM: &str = "when = [{ json = \"/event\", equals = \"endpoint.url_validation\" }]\n\
    token = { json = \"/payload/plainToken\" }\ncontent_type = \"application/json\"\n\
    body = '{\"plainToken\":\"{token}\",\"encryptedToken\":\"{hmac-sha256-hex}\"}'";

#[tokio::test]
async fn zoom_gets_the_mac_of_its_token_if_it_signed_the_question() {
    let world = with_handshake(ZOOM).await;
    let body = r#"{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1,"event":"endpoint.url_validation"}"#;
    is_refused(&world, &ask(&world, "POST", "", &[], body).await).await;
    is_refused(&world, &ask(&world, "POST", "", &[("x-sig", &hex_mac("another"))], body).await).await;
    let reply = ask(&world, "POST", "", &[("x-sig", &hex_mac(body))], body).await;
    let mac = hex_mac("qgg8vlvZRS6UYooatFL8Aw");
    let expected = format!("{{\"plainToken\":\"qgg8vlvZRS6UYooatFL8Aw\",\"encryptedToken\":\"{mac}\"}}");
    is_answered(&world, &reply, 200, &expected).await;
}

#[tokio::test]
async fn dropbox_is_answered_with_its_challenge_and_nothing_sniffs_it() {
    let world = with_handshake("signed = false\nmethod = \"GET\"\nwhen = []\ntoken = { query = \"challenge\" }").await;
    let reply = ask(&world, "GET", "?challenge=abc-123_X", &[], "").await;
    assert!(reply.headers["content-type"].starts_with("text/plain"));
    is_answered(&world, &reply, 200, "abc-123_X").await;
    for wrong in ["?challenge=", "?challenge=%3Cimg%20src=x%3E", "?challenge=a&challenge=a", "?challeng=a"] {
        is_refused(&world, &ask(&world, "GET", wrong, &[], "").await).await;
    }
}

#[tokio::test]
async fn okta_is_answered_with_the_value_of_its_header() {
    let provider = "credential = \"header:authorization\"\n[[providers.own.handshakes]]\nsigned = false\nmethod = \"GET\"\n\
        when = [{ header = \"x-okta-verification-challenge\" }]\ntoken = { header = \"x-okta-verification-challenge\" }\n\
        content_type = \"application/json\"\nbody = '{\"verification\":\"{token}\"}'\n";
    let world = World::start(&configuration(provider, "")).await;
    let reply = ask(&world, "GET", "", &[("X-Okta-Verification-Challenge", "5wWEvjK8pX")], "").await;
    is_answered(&world, &reply, 200, r#"{"verification":"5wWEvjK8pX"}"#).await;
    is_refused(&world, &ask(&world, "GET", "", &[("x-okta-verification-challenge", "a\"b")], "").await).await;
    // It says nothing of webhooks.
    is_refused(&world, &ask(&world, "POST", "", &[("x-okta-verification-challenge", "5wWEvjK8pX")], "{}").await).await;
}

#[tokio::test]
async fn twitch_says_in_a_header_that_its_signed_body_is_a_challenge() {
    let world = with_handshake(
        "when = [{ header = \"twitch-eventsub-message-type\", equals = \"webhook_callback_verification\" }]\n\
         token = { json = \"/challenge\" }",
    )
    .await;
    let body = r#"{"challenge":"pogchamp-kappa-360noscope-vohiyo","subscription":{"status":"pending"}}"#;
    let kind = ("twitch-eventsub-message-type", "webhook_callback_verification");
    is_refused(&world, &ask(&world, "POST", "", &[kind], body).await).await;
    let signature = hex_mac(body);
    let reply = ask(&world, "POST", "", &[kind, ("x-sig", &signature)], body).await;
    is_answered(&world, &reply, 200, "pogchamp-kappa-360noscope-vohiyo").await;
    let kind = ("twitch-eventsub-message-type", "notification");
    assert_eq!(ask(&world, "POST", "", &[kind, ("x-sig", &signature)], body).await.ack().0, "accepted");
}

pub(super) const LINKEDIN: &str = "signed = false\nmethod = \"GET\"\nwhen = [{ query = \"challengeCode\" }]\n\
    token = { query = \"challengeCode\" }\nshape = \"uuid\"\ncontent_type = \"application/json\"\n\
    body = '{\"challengeCode\":\"{token}\",\"challengeResponse\":\"{hmac-sha256-hex}\"}'";

#[tokio::test]
async fn linkedin_gets_its_code_and_the_mac_of_it() {
    let world = with_handshake(LINKEDIN).await;
    let token = "890e4665-4dfe-4ab1-b689-ed553bceeed0";
    let reply = ask(&world, "GET", &format!("?challengeCode={token}&applicationId=7"), &[], "").await;
    let mac = hex_mac(token);
    is_answered(&world, &reply, 200, &format!("{{\"challengeCode\":\"{token}\",\"challengeResponse\":\"{mac}\"}}"))
        .await;
    is_refused(&world, &ask(&world, "GET", "?challengeCode=hello", &[], "").await).await;
}

const MONDAY: &str = "signed = false\nwhen = [{ json = \"/challenge\" }]\ntoken = { json = \"/challenge\" }\n\
    content_type = \"application/json\"\nbody = '{\"challenge\":\"{token}\"}'";

#[tokio::test]
async fn monday_is_answered_if_nothing_is_signed_and_the_body_is_small() {
    let world = with_handshake(MONDAY).await;
    let body = r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#;
    let answer = r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#;
    is_answered(&world, &ask(&world, "POST", "", &[], body).await, 200, answer).await;

    // What else comes without a signature ends as if nobody had looked into it.
    let padded = |length: usize| {
        let rest = length - body.len();
        format!("{{{}{}", " ".repeat(rest), &body[1..])
    };
    is_answered(&world, &ask(&world, "POST", "", &[], &padded(8192)).await, 200, answer).await;
    let missing = code(&world, "signature_missing").await;
    let others = [padded(8193), padded(300_000), r#"{"challenge":"<b>"}"#.to_owned(), "{}".to_owned(), String::new()];
    let mut heads = Vec::new();
    for other in &others {
        let reply = ask(&world, "POST", "", &[], other).await;
        is_refused(&world, &reply).await;
        heads.push(reply);
    }
    // In chunks, so that the length is not known before.
    let chunked = format!("{:x}\r\n{}\r\n0\r\n\r\n", padded(9000).len(), padded(9000));
    let reply = ask(&world, "POST", "", &[("transfer-encoding", "chunked")], &chunked).await;
    is_refused(&world, &reply).await;
    assert_eq!(code(&world, "signature_missing").await - missing, 6);

    // One that shows a signature is judged by it, whatever it says.
    for (signature, expected) in [(hex_mac("another"), "signature_mismatch"), ("00".to_owned(), "signature_malformed")]
    {
        let reply = ask(&world, "POST", "", &[("x-sig", &signature)], body).await;
        is_refused(&world, &reply).await;
        assert_eq!(code(&world, expected).await, 1);
    }
    // A right one changes nothing.
    is_answered(&world, &ask(&world, "POST", "", &[("x-sig", &hex_mac(body))], body).await, 200, answer).await;
}

#[tokio::test]
async fn a_refusal_is_the_same_whether_or_not_somebody_looked_for_a_handshake() {
    let world = with_handshake(MONDAY).await;
    let plain = World::start(&configuration(SIGNATURE, "")).await;
    let without_id = |head: &str| -> Vec<String> {
        let changing = ["x-request-id", "date"];
        head.lines().filter(|line| !changing.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect()
    };
    for body in ["{}", r#"{"challenge":"<b>"}"#, "no json"] {
        let (looked, not) = (ask(&world, "POST", "", &[], body).await, ask(&plain, "POST", "", &[], body).await);
        assert_eq!((without_id(&looked.head), &looked.body), (without_id(&not.head), &not.body), "{body}");
        assert_eq!(looked.text(), UNAUTHORIZED);
    }
}

#[tokio::test]
async fn nylas_is_answered_with_its_challenge() {
    let world = with_handshake(
        "signed = false\nmethod = \"GET\"\nwhen = [{ query = \"challenge\" }]\ntoken = { query = \"challenge\" }",
    )
    .await;
    let reply = ask(&world, "GET", "?challenge=bc609b38-c81f-47fb-a275-1d9bd61a968b", &[], "").await;
    is_answered(&world, &reply, 200, "bc609b38-c81f-47fb-a275-1d9bd61a968b").await;
}

#[tokio::test]
async fn event_grid_is_answered_in_both_of_its_ways() {
    let provider = "credential = \"header:x-key\"\n\
        [[providers.own.handshakes]]\nsigned = false\n\
        when = [{ header = \"aeg-event-type\", equals = \"SubscriptionValidation\" }, { json = \"/0/data/validationCode\" }]\n\
        token = { json = \"/0/data/validationCode\" }\ncontent_type = \"application/json\"\n\
        body = '{\"validationResponse\":\"{token}\"}'\n\
        [[providers.own.handshakes]]\nsigned = false\nmethod = \"OPTIONS\"\n\
        when = [{ header = \"webhook-request-origin\" }]\ntoken = { header = \"webhook-request-origin\" }\nshape = \"host\"\n\
        headers = { webhook-allowed-origin = \"{token}\", webhook-allowed-rate = \"*\" }\nbody = \"\"\n";
    let world = World::start(&configuration(provider, "")).await;
    let body = r#"[{"id":"1","eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","data":{"validationCode":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}}]"#;
    let kind = ("aeg-event-type", "SubscriptionValidation");
    let answer = r#"{"validationResponse":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}"#;
    is_answered(&world, &ask(&world, "POST", "", &[kind], body).await, 200, answer).await;
    is_refused(&world, &ask(&world, "POST", "", &[("aeg-event-type", "Notification")], body).await).await;
    is_refused(&world, &ask(&world, "POST", "", &[kind, ("x-key", "wrong")], body).await).await;
    // It may show the key that its webhooks show.
    let reply = ask(&world, "POST", "", &[kind, ("x-key", "a-secret-of-some-length")], body).await;
    is_answered(&world, &reply, 200, answer).await;

    let reply = ask(&world, "OPTIONS", "", &[("webhook-request-origin", "eventgrid.azure.net")], "").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, ""));
    assert_eq!(reply.headers["webhook-allowed-origin"], "eventgrid.azure.net");
    assert_eq!(reply.headers["webhook-allowed-rate"], "*");
    assert_eq!(world.metric("hookward_handshakes_total{source=\"own\",handshake=\"1\"}").await, 1);
    for wrong in ["a b", "*", "https://eventgrid.azure.net", "a..b"] {
        is_refused(&world, &ask(&world, "OPTIONS", "", &[("webhook-request-origin", wrong)], "").await).await;
    }
    no_trace(&world).await;
}

#[tokio::test]
async fn discord_pings_are_answered_if_they_are_signed() {
    let world = with_handshake(
        "when = [{ json = \"/type\", equals = \"1\" }]\ncontent_type = \"application/json\"\nbody = '{\"type\":1}'",
    )
    .await;
    let ping = r#"{"id":"1","type":1,"version":1}"#;
    is_answered(&world, &ask(&world, "POST", "", &[("x-sig", &hex_mac(ping))], ping).await, 200, r#"{"type":1}"#).await;
    // It tries whether a wrong signature gets 401.
    is_refused(&world, &ask(&world, "POST", "", &[("x-sig", &hex_mac("another"))], ping).await).await;
    let command = r#"{"id":"2","type":2}"#;
    assert_eq!(ask(&world, "POST", "", &[("x-sig", &hex_mac(command))], command).await.ack().0, "accepted");
}

#[tokio::test]
async fn braintree_gets_the_public_key_and_the_mac_of_its_challenge() {
    let world = with_param(
        "public_key",
        "integration_public_key",
        "signed = false\nmethod = \"GET\"\nwhen = [{ query = \"bt_challenge\" }]\ntoken = { query = \"bt_challenge\" }\n\
         body = \"{param:public_key}|{hmac-sha1-hex}\"",
    )
    .await;
    let reply = ask(&world, "GET", "?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53", &[], "").await;
    // `printf %s 20f9f8ed05f77439fe955c977e4c8a53 | openssl dgst -sha1 -hmac a-secret-of-some-length`
    let mac = "dbb725e5460c28bab239ead563465dc37e0507f9";
    is_answered(&world, &reply, 200, &format!("integration_public_key|{mac}")).await;
}

#[tokio::test]
async fn adobe_sign_gets_the_id_of_the_client_that_it_named() {
    let world = with_param(
        "client_id",
        "CBJCHBCAABAAo6",
        "signed = false\nmethod = \"GET\"\nwhen = []\ntoken = { header = \"x-adobesign-clientid\" }\n\
         compare = { header = \"x-adobesign-clientid\", param = \"client_id\" }\n\
         headers = { x-adobesign-clientid = \"{param:client_id}\" }\ncontent_type = \"application/json\"\n\
         body = '{\"xAdobeSignClientId\":\"{token}\"}'",
    )
    .await;
    let reply = ask(&world, "GET", "", &[("X-AdobeSign-ClientId", "CBJCHBCAABAAo6")], "").await;
    assert_eq!(reply.headers["x-adobesign-clientid"], "CBJCHBCAABAAo6");
    is_answered(&world, &reply, 200, r#"{"xAdobeSignClientId":"CBJCHBCAABAAo6"}"#).await;
    is_refused(&world, &ask(&world, "GET", "", &[("x-adobesign-clientid", "CBJCHBCAABAAo7")], "").await).await;
}

#[tokio::test]
async fn trello_asks_for_the_head_alone() {
    let world = with_handshake("signed = false\nmethod = \"HEAD\"\nwhen = []").await;
    let reply = ask(&world, "HEAD", "", &[], "").await;
    is_answered(&world, &reply, 200, "").await;
    let reply = ask(&world, "GET", "", &[], "").await;
    assert_eq!((reply.status, reply.headers["allow"].as_str()), (405, "POST, HEAD"));
}

#[tokio::test]
async fn a_method_is_taken_only_where_a_handshake_names_it() {
    let world = World::start(&configuration(SIGNATURE, "")).await;
    for method in ["GET", "OPTIONS", "PUT", "DELETE"] {
        let reply = ask(&world, method, "?challenge=a", &[("x-sig", &hex_mac("{}"))], "{}").await;
        assert_eq!((reply.status, reply.headers["allow"].as_str()), (405, "POST"), "{method}");
    }
    // Where it is named, only the handshake is, whatever verifies.
    let world = with_handshake("signed = false\nmethod = \"PUT\"\nwhen = [{ json = \"/token\" }]\nstatus = 204").await;
    let reply = ask(&world, "PUT", "", &[], r#"{"token":1}"#).await;
    is_answered(&world, &reply, 204, "").await;
    is_refused(&world, &ask(&world, "PUT", "", &[("x-sig", &hex_mac("{}"))], "{}").await).await;
    let reply = ask(&world, "DELETE", "", &[], "").await;
    assert_eq!((reply.status, reply.headers["allow"].as_str()), (405, "POST, PUT"));
}
