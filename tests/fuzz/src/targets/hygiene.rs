//! Which headers are stored, and which reach an upstream, held against a list of what must not. Input: lines of a head, an
//! empty line, and a body.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    config::Upstream,
    event::{Client, EventHead, EventId},
    given::{KEY, cut, headers, text},
    secret::Secret,
    time::Wall,
    wire::headers::{Facts, outgoing, to_stored},
};

/// What carries a credential at this source.
const CONSUMED: [&str; 2] = ["authorization", "x-api-key"];
/// What is about one connection.
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings"];
/// What Hookward says itself, in this event.
const OURS: [&str; 8] = [
    "hookward-event-id",
    "hookward-source",
    "hookward-provider",
    "hookward-event-type",
    "hookward-attempt",
    "hookward-received-at",
    "hookward-verified",
    "hookward-redelivery",
];

pub fn run(data: &[u8]) {
    let mut pairs: Vec<(&str, &[u8])> = Vec::new();
    let mut rest = data;
    loop {
        let (line, behind) = cut(rest, b'\n');
        if line.is_empty() {
            break;
        }
        let (name, value) = cut(line, b':');
        pairs.push((text(name), value.trim_ascii()));
        rest = behind;
    }
    let body = rest.strip_prefix(b"\n").unwrap_or(rest);
    let received = headers(pairs);

    let stored = to_stored(&received, |name| CONSUMED.contains(&name.as_str()));
    let of_connection = |wanted: &str| {
        let values = received.get_all("connection");
        values.iter().any(|value| {
            String::from_utf8_lossy(value.as_bytes()).split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted))
        })
    };
    let expected: Vec<(String, Vec<u8>)> = received
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .filter(|(name, _)| may_pass(name) && !CONSUMED.contains(&name.as_str()) && !of_connection(name))
        .collect();
    assert_eq!(stored, expected);

    // An older version, or a hand, may have stored anything.
    let everything = received.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    for kept in [stored.clone(), everything.collect()] {
        let head = head(kept.clone());
        let upstream = upstream();
        let facts = Facts {
            attempt: 2,
            now: Wall::from_unix_s(1_700_000_000),
            span: 7,
            redelivery: true,
            uncertain: false,
            duplicate_items: &[],
            changed_items: &[],
        };
        check(&outgoing(&head, body, &upstream, &facts), &head, &kept, body);
    }
}

fn check(sent: &HeaderMap, head: &EventHead, kept: &[(String, Vec<u8>)], body: &[u8]) {
    let one = |name: &str| {
        let mut values = sent.get_all(name).iter();
        let first = values.next().map(|value| value.as_bytes().to_vec());
        assert!(values.next().is_none(), "{name} stands twice");
        first
    };
    for name in sent.keys() {
        let name = name.as_str();
        let original = name.strip_prefix("hookward-original-");
        let is_ours = OURS.contains(&name) || original.is_some_and(|name| sent.contains_key(name) && may_pass(name));
        assert!(is_ours || name == "content-length" || may_pass(name), "{name} reaches an upstream");
    }
    let id = head.id.to_string();
    assert_eq!(one("hookward-event-id"), Some(id.clone().into_bytes()));
    assert_eq!(one("idempotency-key"), Some(id.into_bytes()));
    assert_eq!(one("hookward-verified"), Some(b"hmac-sha256/main".to_vec()));
    assert_eq!(one("x-forwarded-for"), Some(b"203.0.113.9".to_vec()));
    assert_eq!(one("authorization"), Some(b"Bearer ours".to_vec()));
    assert_eq!(one("content-length"), Some(body.len().to_string().into_bytes()));
    assert!(one("webhook-signature").is_some_and(|value| value.starts_with(b"v1,")));

    // What may pass does, under its name or as the original of ours.
    for (name, value) in kept.iter().filter(|(name, _)| may_pass(name)) {
        let there = |name: &str| sent.get_all(name).iter().any(|sent| sent.as_bytes() == value);
        assert!(there(name) || there(&format!("hookward-original-{name}")), "{name} is lost");
    }

    // On the wire it is one line each, and nothing else.
    let mut wire = Vec::new();
    for (name, value) in sent {
        wire.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    let mut read = HeaderMap::new();
    for line in wire.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = line.strip_suffix(b"\r").expect("a line ends in both");
        let (name, value) = cut(line, b':');
        let name = HeaderName::from_bytes(name).expect("a name");
        read.append(name, HeaderValue::from_bytes(value.strip_prefix(b" ").expect("a space")).expect("a value"));
    }
    assert_eq!(read, *sent);
}

/// Whether a header of a webhook may reach an upstream.
fn may_pass(name: &str) -> bool {
    let of_this_request = HOP_BY_HOP.contains(&name) || ["content-length", "expect", "host"].contains(&name);
    let starts = |prefix| name.starts_with(prefix);
    !(of_this_request || starts("proxy-") || starts("hookward-") || name.contains('_') || name.ends_with("-secret"))
}

fn head(headers: Vec<(String, Vec<u8>)>) -> EventHead {
    EventHead {
        id: EventId::from_bytes(*b"0123456789abcdef"),
        source: "orders".into(),
        provider: "acme".into(),
        received_at: Wall::from_unix_s(1_700_000_000),
        method: "POST".to_owned(),
        query: None,
        client: Client {
            address: "203.0.113.9".to_owned(),
            proto: "https".to_owned(),
            host: "hooks.example".to_owned(),
        },
        headers,
        event_type: Some("order.paid".to_owned()),
        attempt_id: None,
        verified: "hmac-sha256/main".to_owned(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        duplicate_of: None,
        conflict_of: None,
    }
}

fn upstream() -> Upstream {
    let authorization = (http::header::AUTHORIZATION, HeaderValue::from_static("Bearer ours"));
    Upstream { signing_secret: Some(Secret::new(KEY)), headers: vec![authorization] }
}
