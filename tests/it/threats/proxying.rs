//! What passes through: names that only Hookward may say, redirects, endless answers, and who may reach the admin API.

use super::requests::*;
use crate::world::{Act, NOW_S, Upstream, World, configuration, request};

const BODY: &[u8] = b"{\"order\":\"PO-1\"}";

fn genuine() -> Lines {
    parts_source(SECRET, &NOW_S.to_string(), BODY)
}

#[tokio::test]
async fn only_hookward_says_hookward_headers() {
    let world = World::start(&source("ps", "partssource", "")).await;
    let mut lines = genuine();
    for name in [
        "hookward-event-id",
        "Hookward-Source",
        "HOOKWARD-VERIFIED",
        "hookward-redelivery",
        "hookward-uncertain",
        "hookward-duplicate-of",
        "hookward-conflict-of",
        "hookward-original-authorization",
        "hookward-anything",
        "hookward_source",
        "Hookward_Verified",
        "HOOKWARD_EVENT_ID",
        "hookward-event_id",
        "x_forwarded_for",
        "x_ps_signature",
    ] {
        lines.push((name, b"forged".into()));
    }
    let replies = hold(&world, &[accepted("forged names", "ps", lines, BODY)]).await;
    let received = world.upstream.wait_for(1).await.remove(0);
    assert_eq!(received.header("hookward-event-id"), Some(&*replies[0].ack().1));
    assert_eq!(received.header("hookward-source"), Some("ps"));
    for (name, value) in &received.headers {
        assert_ne!(value.as_bytes(), b"forged", "{name}");
        assert!(!name.as_str().contains('_'), "{name}");
    }
    for name in ["hookward-redelivery", "hookward-uncertain", "hookward-anything", "hookward-original-authorization"] {
        assert!(!received.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn what_hookward_adds_replaces_what_came_and_keeps_it_by_another_name() {
    let world = World::start(&source("ps", "partssource", "")).await;
    let mut lines = genuine();
    for name in ["x-forwarded-for", "x-forwarded-host", "idempotency-key"] {
        lines.push((name, b"theirs".into()));
    }
    let replies = hold(&world, &[accepted("ours and theirs", "ps", lines, BODY)]).await;
    let received = world.upstream.wait_for(1).await.remove(0);
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(received.header("idempotency-key"), Some(&*replies[0].ack().1));
    for name in ["x-forwarded-for", "x-forwarded-host", "idempotency-key"] {
        assert_eq!(received.headers.get_all(name).iter().count(), 1, "{name}");
        assert_eq!(received.header(&format!("hookward-original-{name}")), Some("theirs"));
    }
}

#[tokio::test]
async fn a_header_named_in_connection_is_a_contradiction() {
    let world = World::start(&source("ps", "partssource", "")).await;
    let mut lines = genuine();
    lines.push(("connection", b"x-ps-signature".into()));
    hold_refused(&world, &[Case { status: 400, ..refused("named", "ps", lines, BODY, "malformed") }]).await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Upstream::start().await;
    for status in [301, 302, 303, 307, 308] {
        let world = World::start(&source("ps", "partssource", "mode = \"proxy\"")).await;
        world.upstream.script([Act::Full(status, vec![("location", elsewhere.url())], 0)]);
        let mut case = accepted(&format!("{status}"), "ps", genuine(), BODY);
        (case.status, case.code) = (502, "upstream_failed");
        let replies = hold(&world, &[case]).await;
        assert!(!replies[0].headers.contains_key("location"), "{}", replies[0].head);
    }
    // In the background it is a failure like any other.
    let world =
        World::with_upstream(&source("ps", "partssource", ""), "retry = { first = \"10ms\", max = \"10ms\" }").await;
    world.upstream.script([Act::Full(307, vec![("location", elsewhere.url())], 0)]);
    let replies = hold(&world, &[accepted("queue", "ps", genuine(), BODY)]).await;
    world.settled().await;
    let shown = world.admin("GET", &format!("/api/v1/events/{}", replies[0].ack().1)).await;
    let history = &shown["event"]["deliveries"][0]["history"];
    assert_eq!((history[0]["status"].as_u64(), history[1]["status"].as_u64()), (Some(307), Some(200)), "{shown}");
    assert!(elsewhere.received().is_empty());
}

#[tokio::test]
async fn a_huge_answer_of_the_upstream_is_bounded() {
    for mode in ["proxy", "respond"] {
        let world = World::start(&source("ps", "partssource", &format!("mode = \"{mode}\""))).await;
        world.upstream.script([Act::Full(200, vec![("content-type", "text/plain".into())], 8 << 20)]);
        let first = hold(&world, &[Case { code: "answered", ..accepted(mode, "ps", genuine(), BODY) }]).await;
        assert_eq!(first[0].body.len(), 64 << 10, "{mode}");
        // A copy gets the same, out of what is kept.
        let copy = hold(&world, &[Case { code: "duplicate", ..accepted(mode, "ps", genuine(), BODY) }]).await;
        assert!(first[0].body == copy[0].body && first[0].headers["content-type"] == copy[0].headers["content-type"]);
        world.settled().await;
        assert_eq!(world.upstream.received().len(), 1);
    }
}

#[tokio::test]
async fn headers_of_the_upstream_stay_inside() {
    let world = World::start(&source("ps", "partssource", "mode = \"proxy\"")).await;
    let inside = ["set-cookie", "server", "x-internal", "www-authenticate"].map(|name| (name, "inside".to_owned()));
    world.upstream.script([Act::Full(200, inside.into(), 2)]);
    let replies = hold(&world, &[Case { code: "answered", ..accepted("proxy", "ps", genuine(), BODY) }]).await;
    assert!(!replies[0].head.contains("inside"), "{}", replies[0].head);
}

#[tokio::test]
async fn the_admin_api_refuses_a_foreign_host() {
    let world = World::start(&source("ps", "partssource", "")).await;
    let replies = hold(&world, &[accepted("an event", "ps", genuine(), BODY)]).await;
    world.settled().await;
    let id = replies[0].ack().1;
    let paths =
        ["/metrics", "/api/v1/status", "/api/v1/events", &format!("/api/v1/events/{id}/body")].map(str::to_owned);
    let port = world.gateway.admin.port();
    for path in &paths {
        for host in
            ["evil.example", "evil.example:9900", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", ""]
        {
            let reply = request(world.gateway.admin, "GET", path, &[("host", host)], b"").await;
            assert_eq!(reply.status, 403, "{path} {host}");
            assert!(!reply.text().contains(&id), "{}", reply.text());
        }
        let own = request(world.gateway.admin, "GET", path, &[("host", &format!("localhost:{port}"))], b"").await;
        assert_eq!(own.status, 200, "{path}");
    }
    let json = ("content-type", "application/json");
    for header in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("host", "evil.example")] {
        let path = format!("/api/v1/events/{id}/purge");
        let reply = request(world.gateway.admin, "POST", &path, &[json, header], b"").await;
        assert_eq!(reply.status, 403, "{header:?}");
    }
    assert_eq!(world.admin("GET", "/api/v1/events").await["events"].as_array().map(Vec::len), Some(1));
}

#[test]
fn the_admin_api_is_not_reachable_from_elsewhere_without_a_token() {
    let text =
        configuration(&source("ps", "partssource", ""), "", "http://127.0.0.1:9/in", std::path::Path::new("data"));
    for address in ["0.0.0.0:9900", "[::]:9900", "192.0.2.1:9900"] {
        let open = text.replacen("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{address}\""), 1);
        assert_ne!(open, text);
        let found = problems_of(&open);
        assert!(found.contains("token"), "{address}: {found}");
    }
}

#[tokio::test]
async fn the_admin_api_is_apart_from_the_public_listener() {
    let world = World::start(&source("ps", "partssource", "")).await;
    for path in ["/metrics", "/api/v1/status", "/api/v1/events"] {
        let reply = request(world.gateway.public, "GET", path, &[], b"").await;
        assert_eq!(reply.status, 404, "{path}");
    }
    assert_eq!(request(world.gateway.admin, "POST", "/hooks/ps", &[], b"").await.status, 404);
}

#[tokio::test]
async fn a_body_is_a_download_that_no_browser_renders() {
    let world = World::start(&source("hub", "github", "")).await;
    let body = b"<script>alert(1)</script>";
    let mut lines = github(body);
    lines.push(("content-type", b"text/html".into()));
    let replies = hold(&world, &[accepted("html", "hub", lines, body)]).await;
    let path = format!("/api/v1/events/{}/body", replies[0].ack().1);
    let reply = request(world.gateway.admin, "GET", &path, &[], b"").await;
    assert_eq!(reply.body, body);
    assert_eq!(reply.headers["content-type"], "application/octet-stream");
    assert_eq!(reply.headers["x-content-type-options"], "nosniff");
    assert!(reply.headers["content-disposition"].starts_with("attachment"));
    for path in [&path, "/metrics", "/api/v1/status", "/nothing"] {
        let reply = request(world.gateway.admin, "GET", path, &[], b"").await;
        assert!(reply.headers["content-security-policy"].contains("default-src 'self'"), "{path}");
        assert!(!reply.headers.contains_key("set-cookie"), "{path}");
    }
}

#[tokio::test]
async fn a_challenge_is_answered_only_if_it_is_signed_and_plain() {
    let world = World::start(&source("slack", "slack", "")).await;
    let now = NOW_S.to_string();
    let lines = |secret: &str, body: &[u8]| -> Lines {
        let mac = hex_mac(secret, &[b"v0:", now.as_bytes(), b":", body]);
        vec![("x-slack-request-timestamp", now.clone().into()), ("x-slack-signature", format!("v0={mac}").into())]
    };
    let body = br#"{"type":"url_verification","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#;
    hold_refused(
        &world,
        &[refused(
            "not signed by the provider",
            "slack",
            lines("another-secret-than-it-is", body),
            body,
            "signature_mismatch",
        )],
    )
    .await;
    let replies = hold_refused(
        &world,
        &[Case { status: 200, ..refused("signed", "slack", lines(SECRET, body), body, "challenge") }],
    )
    .await;
    assert_eq!(replies[0].text(), "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P");
    assert!(replies[0].headers["content-type"].starts_with("text/plain"));
    // What is no plain token is an event, and its text is not sent back.
    let html = br#"{"type":"url_verification","challenge":"<script>alert(1)</script>"}"#;
    let replies = hold(&world, &[accepted("markup", "slack", lines(SECRET, html), html)]).await;
    assert!(!replies[0].text().contains("script"));
}

#[tokio::test]
async fn a_reply_that_signs_for_strangers_signs_no_event() {
    let provider = "[providers.own.signature]\nheaders = [\"x-sig\"]\ncontent = \"{body}\"\n\
        [[providers.own.handshakes]]\nsigned = false\nmethod = \"GET\"\nwhen = [{ query = \"crc_token\" }]\n\
        token = { query = \"crc_token\" }\nbody = \"{hmac-sha256-hex}\"\n";
    let world = World::start(&format!("{provider}{}", source("own", "own", ""))).await;
    let ask = |token: &'static str| {
        let (to, path) = (world.gateway.public, format!("/hooks/own?crc_token={token}"));
        async move { request(to, "GET", &path, &[], b"").await }
    };
    for event in ["%7B%7D", "%7B%22id%22:1%7D", "a.b", "a=b", "a%20b", ""] {
        assert_eq!(ask(event).await.status, 401, "{event}");
    }
    let signature = ask("17").await;
    assert_eq!((signature.status, signature.text()), (200, hex_mac(SECRET, &[b"17"])));
    let lines: Lines = vec![("x-sig", signature.body)];
    hold_refused(&world, &[refused("a token as an event", "own", lines, b"17", "signed_by_handshake")]).await;
}
