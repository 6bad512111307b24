//! Header hygiene, both ways: which headers of a webhook are stored, and what an upstream receives.
//!
//! Signatures are verified on the headers as received; only afterwards is anything dropped. Names that could
//! mean something else behind another server (`_` becomes `-` in CGI) or that only Hookward may say
//! (`hookward-*`) never pass.

use std::fmt::Write as _;

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::Sha256;

use crate::{
    config::Upstream,
    event::{EventHead, Headers},
    secret::Secret,
    time::Wall,
};

/// The longest list of item indexes in one header, in bytes. Servers refuse heads beyond 8 KiB or so, and a
/// shorter list is safe: the items it leaves out are processed as if they were new.
const ITEMS_BYTES_MAX: usize = 4096;

/// The headers of a received request that are stored, in their order (values of one name stand together).
/// `consumed` names the headers that carried a credential.
pub fn to_stored(received: &HeaderMap, consumed: impl Fn(&HeaderName) -> bool) -> Headers {
    let connection: Vec<String> = received
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .map(|token| String::from_utf8_lossy(token).trim().to_ascii_lowercase())
        .collect();
    received
        .iter()
        .filter(|(name, _)| {
            passes(name.as_str()) && !connection.iter().any(|token| token == name.as_str()) && !consumed(name)
        })
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_owned()))
        .collect()
}

/// Whether a header of a webhook may reach an upstream at all. `name` is in lower case.
fn passes(name: &str) -> bool {
    let of_this_connection = matches!(
        name,
        "connection"
            | "content-length"
            | "expect"
            | "host"
            | "http2-settings"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    );
    // Some senders put the secret itself beside the signature: `x-github-encoded-secret`.
    let is_secret = name.ends_with("-secret");
    let is_ours_or_ambiguous = name.starts_with("hookward-") || name.contains('_');
    !(of_this_connection || is_secret || is_ours_or_ambiguous || name.starts_with("proxy-"))
}

/// What is said of one attempt, besides what is known of the event.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Its number, from 1.
    pub attempt: u32,
    /// When it begins: the time of its signature.
    pub now: Wall,
    /// The span id in its trace context: a random number.
    pub span: u64,
    /// An operator asked for it.
    pub redelivery: bool,
    /// An earlier attempt may have reached the upstream, its outcome is unknown.
    pub uncertain: bool,
    /// Indexes of items that the upstream acknowledged, with this content.
    pub duplicate_items: &'a [usize],
    /// Indexes of items that it acknowledged with other content.
    pub changed_items: &'a [usize],
}

/// All headers of one attempt but `host`. What is added replaces an original header of that name, which is kept
/// as `hookward-original-<name>`.
pub fn outgoing(head: &EventHead, body: &[u8], upstream: &Upstream, facts: &Facts<'_>) -> HeaderMap {
    let added = added(head, body, upstream, facts);
    let mut all = HeaderMap::with_capacity(head.headers.len() + added.len() + 1);
    for (name, value) in &head.headers {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        if !passes(name.as_str()) {
            continue;
        }
        let name = if added.contains_key(&name) {
            let Ok(kept) = HeaderName::try_from(format!("hookward-original-{name}")) else { continue };
            kept
        } else {
            name
        };
        all.append(name, value);
    }
    all.extend(added);
    all.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    all
}

fn added(head: &EventHead, body: &[u8], upstream: &Upstream, facts: &Facts<'_>) -> HeaderMap {
    let mut added = Added(HeaderMap::new());
    added.put("hookward-event-id", &head.id.to_string());
    added.put("hookward-source", &head.source);
    added.put("hookward-provider", &head.provider);
    added.put_some("hookward-event-type", head.event_type.as_deref());
    added.put("hookward-attempt", &facts.attempt.to_string());
    added.put("hookward-received-at", &head.received_at.rfc3339());
    let unverified = head.unverified_reason();
    added.put("hookward-verified", unverified.map_or(head.verified.as_str(), |_| "false"));
    added.put_some("hookward-unverified-reason", unverified);
    added.put_some("hookward-redelivery", facts.redelivery.then_some("true"));
    added.put_some("hookward-uncertain", facts.uncertain.then_some("true"));
    added.put_some("hookward-duplicate-of", head.duplicate_of.map(|id| id.to_string()).as_deref());
    added.put_some("hookward-conflict-of", head.conflict_of.map(|id| id.to_string()).as_deref());
    added.put_some("hookward-duplicate-items", index_list(facts.duplicate_items).as_deref());
    added.put_some("hookward-changed-items", index_list(facts.changed_items).as_deref());
    added.put("idempotency-key", &head.id.to_string());
    added.put_some("traceparent", child_span(&head.traceparent, facts.span).as_deref());
    added.put_some("x-forwarded-for", Some(head.client.address.as_str()).filter(|text| !text.is_empty()));
    added.put_some("x-forwarded-proto", Some(head.client.proto.as_str()).filter(|text| !text.is_empty()));
    added.put_some("x-forwarded-host", Some(head.client.host.as_str()).filter(|text| !text.is_empty()));
    if let Some(secret) = &upstream.signing_secret {
        let (id, timestamp) = (head.id.to_string(), facts.now.unix_s().to_string());
        added.put("webhook-signature", &standard_webhooks(secret, &id, &timestamp, body));
        added.put("webhook-id", &id);
        added.put("webhook-timestamp", &timestamp);
    }
    for (name, value) in &upstream.headers {
        let mut value = value.clone();
        value.set_sensitive(true);
        added.0.append(name.clone(), value);
    }
    added.0
}

/// Headers under construction. A value that cannot stand in a header (it has control characters) is left out.
struct Added(HeaderMap);

impl Added {
    fn put(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            self.0.insert(HeaderName::from_static(name), value);
        }
    }
    fn put_some(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }
}

/// `0,3,17`; `None` for none.
fn index_list(indexes: &[usize]) -> Option<String> {
    let mut list = String::new();
    for index in indexes {
        let before = list.len();
        let separator = if list.is_empty() { "" } else { "," };
        let _ = write!(list, "{separator}{index}");
        if list.len() > ITEMS_BYTES_MAX {
            list.truncate(before);
            break;
        }
    }
    (!list.is_empty()).then_some(list)
}

/// The trace context with the same trace and flags, and this attempt as the parent of what follows.
fn child_span(traceparent: &str, span: u64) -> Option<String> {
    let mut parts = traceparent.split('-');
    let (version, trace, _parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // A span id of zeros is invalid.
    let span = span.max(1);
    (version == "00" && trace.len() == 32 && parts.next().is_none()).then(|| format!("00-{trace}-{span:016x}-{flags}"))
}

/// `v1,<base64 of HMAC-SHA256 over "{id}.{timestamp}.{body}">`, without copying the body.
fn standard_webhooks(secret: &Secret, id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose()).expect("an HMAC takes a key of any length");
    for segment in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(segment);
    }
    format!("v1,{}", Base64::encode_string(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        config::model::{Breaker, Retry},
        event::{Client, EventId},
    };

    fn map(lines: &[(&str, &[u8])]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_bytes(value).expect("a value"),
            );
        }
        map
    }

    fn head(headers: &[(&str, &[u8])]) -> EventHead {
        EventHead {
            id: EventId::from_bytes(*b"0123456789abcdef"),
            source: "orders".into(),
            provider: "acme".into(),
            received_at: Wall::from_unix_ms(1_700_000_000_250),
            method: "POST".to_owned(),
            query: None,
            client: Client {
                address: "203.0.113.9".to_owned(),
                proto: "https".to_owned(),
                host: "hooks.example".to_owned(),
            },
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect(),
            event_type: Some("order.paid".to_owned()),
            attempt_id: None,
            verified: "hmac-sha256/main".to_owned(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            duplicate_of: None,
            conflict_of: None,
        }
    }

    fn upstream() -> Upstream {
        Upstream {
            name: "orders".into(),
            url: http::Uri::from_static("http://127.0.0.1:9/in"),
            timeout: Duration::from_secs(10),
            concurrency: 1,
            rate: None,
            retry: Retry {
                first: Duration::from_secs(1),
                factor: 2.0,
                max: Duration::from_mins(15),
                give_up_after: Duration::from_hours(72),
            },
            breaker: Breaker {
                failures: 5,
                ratio: 0.5,
                within: Duration::from_mins(1),
                pause: Duration::from_secs(30),
            },
            dead_letter_on: vec![],
            signing_secret: None,
            headers: vec![],
            ca: None,
            client_cert: None,
        }
    }

    fn facts() -> Facts<'static> {
        Facts {
            attempt: 2,
            now: Wall::from_unix_s(1_700_000_100),
            span: 0xab,
            redelivery: false,
            uncertain: false,
            duplicate_items: &[],
            changed_items: &[],
        }
    }

    fn lines(map: &HeaderMap) -> Vec<(&str, &[u8])> {
        map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    #[test]
    fn what_belongs_to_the_connection_or_could_be_mistaken_is_not_stored() {
        let received = map(&[
            ("x-first", b"1"),
            ("Connection", b"keep-alive, X-Hop"),
            ("connection", b"close,x-other-hop"),
            ("x-hop", b"dropped"),
            ("x-other-hop", b"dropped"),
            ("keep-alive", b"timeout=5"),
            ("host", b"hooks.example"),
            ("content-length", b"3"),
            ("transfer-encoding", b"chunked"),
            ("te", b"trailers"),
            ("trailer", b"x"),
            ("upgrade", b"h2c"),
            ("expect", b"100-continue"),
            ("proxy-authorization", b"x"),
            ("proxy-connection", b"x"),
            ("X_Signature", b"folded by CGI"),
            ("Hookward-Verified", b"a lie"),
            ("hookward-event-id", b"a lie"),
            ("authorization", b"Bearer consumed"),
            ("x-twice", b"a"),
            ("x-twice", b"b"),
            ("x-bytes", b"caf\xe9"),
            ("x-last", b""),
        ]);
        let stored = to_stored(&received, |name| name == header::AUTHORIZATION);
        let stored: Vec<_> = stored.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let expected: Vec<(&str, &[u8])> =
            vec![("x-first", b"1"), ("x-twice", b"a"), ("x-twice", b"b"), ("x-bytes", b"caf\xe9"), ("x-last", b"")];
        assert_eq!(stored, expected);
    }

    #[test]
    fn an_upstream_receives_the_original_headers_in_order_and_then_ours() {
        let mut upstream = upstream();
        upstream.headers.push((header::AUTHORIZATION, HeaderValue::from_static("Bearer upstream")));
        let original: [(&str, &[u8]); 8] = [
            ("content-type", b"application/json"),
            ("authorization", b"Bearer inbound"),
            ("x-bytes", b"caf\xe9"),
            ("traceparent", b"00-inbound"),
            ("x-forwarded-for", b"10.0.0.1"),
            ("x-forwarded-for", b"10.0.0.2"),
            ("hookward-sneaked", b"in by an old version"),
            ("bad_name", b"likewise"),
        ];
        let out = outgoing(&head(&original), b"{}", &upstream, &facts());
        let expected: Vec<(&str, &[u8])> = vec![
            ("content-type", b"application/json"),
            ("hookward-original-authorization", b"Bearer inbound"),
            ("x-bytes", b"caf\xe9"),
            ("hookward-original-traceparent", b"00-inbound"),
            ("hookward-original-x-forwarded-for", b"10.0.0.1"),
            ("hookward-original-x-forwarded-for", b"10.0.0.2"),
            ("hookward-event-id", b"30313233-3435-3637-3839-616263646566"),
            ("hookward-source", b"orders"),
            ("hookward-provider", b"acme"),
            ("hookward-event-type", b"order.paid"),
            ("hookward-attempt", b"2"),
            ("hookward-received-at", b"2023-11-14T22:13:20.250Z"),
            ("hookward-verified", b"hmac-sha256/main"),
            ("idempotency-key", b"30313233-3435-3637-3839-616263646566"),
            ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-00000000000000ab-01"),
            ("x-forwarded-for", b"203.0.113.9"),
            ("x-forwarded-proto", b"https"),
            ("x-forwarded-host", b"hooks.example"),
            ("authorization", b"Bearer upstream"),
            ("content-length", b"2"),
        ];
        assert_eq!(lines(&out), expected);
        assert!(out[header::AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn what_is_special_about_an_attempt_is_said() {
        let mut head = head(&[]);
        head.duplicate_of = Some(EventId::from_bytes([1; 16]));
        head.conflict_of = Some(EventId::from_bytes([2; 16]));
        head.event_type = Some("line\nbreak".to_owned());
        let facts =
            Facts { redelivery: true, uncertain: true, duplicate_items: &[0, 2], changed_items: &[1], ..facts() };
        let out = outgoing(&head, b"", &upstream(), &facts);
        assert_eq!(out["hookward-redelivery"], "true");
        assert_eq!(out["hookward-uncertain"], "true");
        assert_eq!(out["hookward-duplicate-of"], "01010101-0101-0101-0101-010101010101");
        assert_eq!(out["hookward-conflict-of"], "02020202-0202-0202-0202-020202020202");
        assert_eq!(out["hookward-duplicate-items"], "0,2");
        assert_eq!(out["hookward-changed-items"], "1");
        assert_eq!(out["content-length"], "0");
        assert!(!out.contains_key("hookward-event-type"), "a value that no header can hold is left out");
    }

    #[test]
    fn a_long_list_of_items_is_cut_between_two_indexes() {
        let indexes: Vec<usize> = (0..100_000).collect();
        let list = index_list(&indexes).expect("a list");
        assert!(list.len() <= ITEMS_BYTES_MAX && list.len() > ITEMS_BYTES_MAX - 8);
        let read: Vec<usize> = list.split(',').map(|index| index.parse().expect("an index")).collect();
        assert_eq!(read, indexes[..read.len()]);
    }

    #[test]
    fn a_signing_secret_signs_each_attempt_as_standard_webhooks() {
        // The example of the specification: its secret, id, timestamp, body and signature.
        let secret = Secret::new(Base64::decode_vec("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64"));
        let signature =
            standard_webhooks(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");

        let upstream =
            Upstream { signing_secret: Some(Secret::new(Arc::<[u8]>::from(&b"key"[..]).to_vec())), ..upstream() };
        let out = outgoing(&head(&[("webhook-id", b"msg_inbound")]), b"{}", &upstream, &facts());
        assert_eq!(out["webhook-id"], "30313233-3435-3637-3839-616263646566");
        assert_eq!(out["webhook-timestamp"], "1700000100");
        assert_eq!(out["hookward-original-webhook-id"], "msg_inbound");
        assert!(out["webhook-signature"].to_str().is_ok_and(|text| text.starts_with("v1,")));
    }

    #[test]
    fn a_broken_trace_context_is_not_passed_on() {
        for broken in
            ["", "00", "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-short-b7ad6b7169203331-01"]
        {
            assert_eq!(child_span(broken, 1), None, "{broken}");
        }
    }
}
