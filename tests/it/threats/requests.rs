//! Requests as tables: what is sent, what the provider sees, and which code the metric counts.

use std::{collections::BTreeMap, path::Path};

use hmac::{Hmac, KeyInit as _, Mac as _};
use hookward::{config, verify::encode_hex};
use sha2::{Digest as _, Sha256};

use crate::world::{NOW_S, Reply, World, configuration, raw, request, within};

/// The secret of every source here, unless a case is about it.
pub(crate) const SECRET: &str = "a-secret-of-some-length";
/// What a refusal of authenticity says, whatever the reason.
pub(crate) const UNAUTHORIZED: &str =
    r#"{"type":"about:blank","title":"Unauthorized","status":401,"detail":"the webhook could not be authenticated"}"#;

/// Header lines as bytes: some cases are not text.
pub(crate) type Lines = Vec<(&'static str, Vec<u8>)>;

/// One request of a table and what must come of it. The code `-` is for what never gets past the HTTP parser.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) headers: Lines,
    pub(crate) body: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) code: &'static str,
}

/// A request to `/hooks/<source>` that is refused with 401.
pub(crate) fn refused(name: &str, source: &str, headers: Lines, body: &[u8], code: &'static str) -> Case {
    Case { name: name.to_owned(), path: format!("/hooks/{source}"), headers, body: body.to_vec(), status: 401, code }
}

/// A request to `/hooks/<source>` that is accepted.
pub(crate) fn accepted(name: &str, source: &str, headers: Lines, body: &[u8]) -> Case {
    Case { status: 200, ..refused(name, source, headers, body, "accepted") }
}

/// Sends the requests one after the other, and holds status, body and code of each against the table.
pub(crate) async fn hold(world: &World, cases: &[Case]) -> Vec<Reply> {
    let mut replies = Vec::with_capacity(cases.len());
    for case in cases {
        let before = codes(world).await;
        let reply = send_lines(world, &case.path, &case.headers, &case.body).await;
        let counted = newly(&before, &codes(world).await);
        let expected = if case.code == "-" { Vec::new() } else { vec![case.code.to_owned()] };
        assert_eq!((reply.status, counted), (case.status, expected), "{}: {}", case.name, reply.text());
        if reply.status == 401 {
            assert_eq!(reply.text(), UNAUTHORIZED, "{}", case.name);
        }
        replies.push(reply);
    }
    replies
}

/// Sends the requests, all of which are refused, and looks for traces of them.
pub(crate) async fn hold_refused(world: &World, cases: &[Case]) -> Vec<Reply> {
    let replies = hold(world, cases).await;
    no_trace(world).await;
    replies
}

/// Nothing was stored and nothing was forwarded.
pub(crate) async fn no_trace(world: &World) {
    let listed = world.admin("GET", "/api/v1/events").await;
    assert_eq!(listed["events"].as_array().map(Vec::len), Some(0), "{listed}");
    let status = world.admin("GET", "/api/v1/status").await;
    assert_eq!(status["health"]["counts"]["keys"], 0, "{status}");
    assert!(world.upstream.received().is_empty());
}

/// One request whose headers may be any bytes.
pub(crate) async fn send_lines(world: &World, path: &str, headers: &[(&str, Vec<u8>)], body: &[u8]) -> Reply {
    let mut bytes = format!("POST {path} HTTP/1.1\r\nhost: {}\r\n", world.gateway.public).into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    raw(world.gateway.public, &bytes).await
}

/// How often each code was counted, over all sources.
pub(crate) async fn codes(world: &World) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in metrics(world).await.lines() {
        let Some(rest) = line.strip_prefix("hookward_webhooks_total{") else { continue };
        let (labels, count) = rest.split_once("} ").expect("a sample");
        let code = labels.split("code=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a code");
        *counts.entry(code.to_owned()).or_default() += count.parse::<u64>().expect("a number");
    }
    counts
}

/// The text of `/metrics`.
pub(crate) async fn metrics(world: &World) -> String {
    let reply = request(world.gateway.admin, "GET", "/metrics", &[], b"").await;
    assert_eq!(reply.status, 200);
    reply.text()
}

/// The value of a sample: `name{labels}` as it is exposed, 0 if it is not there.
pub(crate) async fn sample(world: &World, name: &str) -> u64 {
    let text = metrics(world).await;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().expect("a whole number"))
}

/// Which codes were counted in between, as often as they were.
fn newly(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Vec<String> {
    let more = |code: &str, count: u64| count - before.get(code).copied().unwrap_or(0);
    let repeat = |(code, count): (&String, &u64)| {
        let code = code.clone();
        (0..more(&code, *count)).map(move |_| code.clone()).collect::<Vec<_>>()
    };
    after.iter().flat_map(repeat).collect()
}

// ---- signatures, made here without the code under test -------------------------------------------------------------

/// HMAC-SHA256.
pub(crate) fn mac(secret: &str, content: &[u8]) -> [u8; 32] {
    mac_of(secret.as_bytes(), content)
}

pub(crate) fn mac_of(key: &[u8], content: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(content);
    mac.finalize().into_bytes().into()
}

/// HMAC-SHA256 in hex over these pieces.
pub(crate) fn hex_mac(secret: &str, pieces: &[&[u8]]) -> String {
    encode_hex(&mac(secret, &pieces.concat()))
}

/// The headers of PartsSource, over this text of a timestamp.
pub(crate) fn parts_source(secret: &str, timestamp: &str, body: &[u8]) -> Lines {
    let signature = hex_mac(secret, &[timestamp.as_bytes(), b".", body]);
    vec![("x-ps-timestamp", timestamp.into()), ("x-ps-signature", format!("sha256={signature}").into())]
}

/// The headers of PartsSource, with this as the signature.
pub(crate) fn parts_source_with(signature: impl Into<Vec<u8>>) -> Lines {
    vec![("x-ps-timestamp", NOW_S.to_string().into()), ("x-ps-signature", signature.into())]
}

/// The signature header of Stripe, with these signatures.
pub(crate) fn stripe_with(items: &str) -> Lines {
    vec![("stripe-signature", items.into())]
}

/// A genuine signature of Stripe over this text of a timestamp.
pub(crate) fn stripe_mac(timestamp: &str, body: &[u8]) -> String {
    hex_mac(SECRET, &[timestamp.as_bytes(), b".", body])
}

/// A genuine request of Stripe for now.
pub(crate) fn stripe(body: &[u8]) -> Lines {
    stripe_with(&format!("t={NOW_S},v1={}", stripe_mac(&NOW_S.to_string(), body)))
}

/// A genuine request of GitHub.
pub(crate) fn github(body: &[u8]) -> Lines {
    vec![("x-hub-signature-256", format!("sha256={}", hex_mac(SECRET, &[body])).into())]
}

/// A genuine request of Mobility Work.
pub(crate) fn mobility_work(timestamp: &str, nonce: &str, body: &[u8]) -> Lines {
    let signature = hex_mac(SECRET, &[timestamp.as_bytes(), b".", nonce.as_bytes(), b".", body]);
    vec![("x-mw-signature", format!("t={timestamp},nonce={nonce},signature={signature}").into())]
}

/// SHA-256 in hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    encode_hex(&Sha256::digest(bytes))
}

// ---- configurations ------------------------------------------------------------------------------------------------

/// A source of this name and provider with [`SECRET`], and more keys.
pub(crate) fn source(name: &str, provider: &str, more: &str) -> String {
    let whsec = "whsec_YS1zZWNyZXQtb2Ytc29tZS1sZW5ndGg="; // SECRET in base64
    let secret = if provider == "standard-webhooks" { whsec } else { SECRET };
    let secrets =
        if more.contains("secrets") { String::new() } else { format!("secrets = [{{ value = \"{secret}\" }}]\n") };
    format!(
        "[sources.{name}]\nprovider = \"{provider}\"\nupstream = \"up\"\nallow_shared_secret = true\n{secrets}{more}\n"
    )
}

/// The problems of a configuration that must not start.
pub(crate) fn problems(sources: &str) -> String {
    let text = configuration(sources, "", "http://127.0.0.1:9/in", Path::new("data"));
    problems_of(&text)
}

pub(crate) fn problems_of(text: &str) -> String {
    let loaded = config::from_text("test.toml", text, Path::new("."));
    assert!(loaded.config.is_none(), "it would start:\n{text}");
    loaded.problems.render(false)
}

/// Waits until a condition holds that nothing announces.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    within(what, async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}
