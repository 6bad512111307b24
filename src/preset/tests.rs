use std::sync::LazyLock;

use base64ct::{Base64, Encoding as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::{
    secret::Secret,
    time::Wall,
    verify::{Explanation, Freshness, KeyKind, KeyPlan, Keyring, Refusal, SecretKey, Seen, SignRequest, SigningKey},
};

mod passes;

fn keyring(provider: &Provider, secrets: &[String]) -> Keyring {
    let key = |(i, secret): (usize, &String)| {
        let key = provider.key_format.decode(secret.as_bytes()).expect("a secret of a vector decodes");
        SecretKey { id: format!("{}", i + 1).into(), key, not_before: None, expires_at: None }
    };
    Keyring::new(secrets.iter().enumerate().map(key).collect(), &provider.scheme).expect("of the right kind")
}

/// What is no header value never gets here, and is left out.
fn header_map<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> HeaderMap {
    let headers = headers.into_iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        Some((name, HeaderValue::from_bytes(value).ok()?))
    });
    let mut map = HeaderMap::new();
    headers.for_each(|(name, value)| {
        map.append(name, value);
    });
    map
}

/// A request as a vector has it, to be changed.
#[derive(Clone, Debug)]
struct Changed {
    method: Method,
    url: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    token: Option<String>,
    body: Vec<u8>,
}

impl Changed {
    fn of(vector: &Vector) -> Self {
        Self {
            method: vector.method.parse().expect("a method"),
            url: vector.url.clone(),
            headers: vector.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect(),
            token: vector.token.clone(),
            body: vector.body.clone(),
        }
    }
    fn judge(&self, provider: &Provider, vector: &Vector, now: Wall) -> Explanation {
        let headers = header_map(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
        let query = self.url.as_deref().and_then(|url| Some(url.split_once('?')?.1));
        let (url, token) = (self.url.as_deref(), self.token.as_deref());
        let seen = Seen { method: &self.method, url, query, headers: &headers, token };
        let scheme = provider.scheme.with_params(&vector.params);
        scheme.explain(seen, &keyring(provider, &vector.secrets), &self.body, now, provider.tolerance, 0)
    }
}

fn judge_vector(provider: &Provider, vector: &Vector) -> Explanation {
    Changed::of(vector).judge(provider, vector, Wall::from_unix_s(vector.now_s))
}

fn refuses(text: &str, expected: &[&str]) {
    let problems = Problems::default();
    let provider = read(document::parse(&problems, "a.toml", text), "acme");
    let shown = problems.render(false);
    assert!(provider.is_none() && problems.errors() > 0, "{text}");
    for part in expected {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
}

/// The answers of the second implementation: `tests/presets`.
fn generated(name: &str) -> Vec<Vector> {
    let path = format!("{}/tests/presets/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let list: Vec<serde_json::Value> = serde_json::from_slice(&text).expect("a list");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let read = |vector: serde_json::Value| Vector {
        id: text(&vector["id"]),
        secrets: vector["secrets"].as_array().expect("a list").iter().map(text).collect(),
        params: vector["params"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), text(v))).collect(),
        method: text(&vector["method"]),
        url: vector["url"].as_str().map(str::to_owned),
        headers: vector["headers"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|pair| (text(&pair[0]), text(&pair[1])))
            .collect(),
        token: vector["token"].as_str().map(str::to_owned),
        body: Base64::decode_vec(vector["body_b64"].as_str().expect("a body")).expect("base64"),
        now_s: vector["now"].as_i64().expect("a time"),
        valid: vector["valid"].as_bool().expect("a verdict"),
    };
    list.into_iter().map(read).collect()
}

/// Its own known answers, and the generated ones.
fn vectors(provider: &Provider) -> Vec<Vector> {
    provider.vectors.iter().cloned().chain(generated(&provider.name)).collect()
}

#[test]
fn every_preset_reads_without_a_problem_and_its_vectors_come_out_as_claimed() {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/preset/data")).expect("the folder");
    let files = files.filter(|file| file.as_ref().is_ok_and(|f| f.path().extension().is_some_and(|x| x == "toml")));
    assert_eq!(files.count(), SHIPPED.len(), "a preset's file is not in the list");
    let mut wrong = Vec::new();
    for (name, text) in SHIPPED {
        let problems = Problems::default();
        let provider = read(document::parse(&problems, format!("{name}.toml"), text), name);
        assert_eq!(problems.render(false), "");
        let provider = provider.expect("no problems, so there is one");
        let vectors = vectors(&provider);
        let proves = provider.scheme.needs_secret();
        if proves && !(vectors.iter().any(|v| v.valid) && vectors.iter().any(|v| !v.valid)) {
            wrong.push(format!("{name}: no vector is valid, or none is not"));
        }
        for vector in &vectors {
            let explanation = judge_vector(&provider, vector);
            if explanation.is_authentic() != vector.valid {
                let found = (explanation.proof.map(|_| ()), explanation.freshness);
                wrong.push(format!("{name}: {}: should be valid: {}: {found:?}", vector.id, vector.valid));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn vectors_that_test_a_time_bound_fail_by_exactly_one_second() {
    for provider in all().iter().filter(|provider| provider.scheme.is_timed()) {
        // A token has no bound ahead of it unless it says from when it counts.
        let is_token = provider.scheme.name() == "jwt";
        for (id, expected) in [
            ("one-second-too-old", Freshness::Past(Duration::from_secs(1))),
            ("one-second-too-far-ahead", Freshness::Future(Duration::from_secs(1))),
        ] {
            let vectors = vectors(provider);
            let Some(vector) = vectors.iter().find(|v| v.id == id) else {
                assert!(is_token, "{}: there is no {id}", provider.name);
                continue;
            };
            let explanation = judge_vector(provider, vector);
            assert!(explanation.proof.is_ok(), "{}: {id} is authentic but for its time", provider.name);
            assert_eq!(explanation.freshness, expected, "{}: {id}", provider.name);
        }
    }
}

#[test]
fn presets_are_found_by_name_and_listed_in_order() {
    let names: Vec<_> = all().iter().map(|provider| provider.name.to_string()).collect();
    assert!(names.is_sorted() && names.len() == SHIPPED.len(), "{names:?}");
    assert_eq!(find("mobility-work").expect("it ships").title, "Mobility Work");
    assert!(find("acme").is_none());
    assert_eq!(standard_webhooks().key_format, KeyFormat::Whsec);
}

#[test]
fn facts_that_the_gateway_depends_on() {
    let get = |name| find(name).expect("it ships");
    let minutes = Duration::from_mins;
    let partssource = get("partssource");
    assert_eq!(partssource.sender.drops, BTreeSet::from([400, 401, 403, 404, 410]));
    assert_eq!(partssource.attempt_id, Some(Locator::Header(HeaderName::from_static("x-ps-delivery-id"))));
    assert_eq!(partssource.event_key, EventKey::Body);
    let price2b = get("price2b");
    assert_eq!(price2b.tolerance, Some(Tolerance { past: minutes(27 * 60), future: minutes(5) }));
    assert_eq!((price2b.on_stale, price2b.sender.disables_after), (OnStale::Hold, Some(10)));
    assert!(price2b.tolerance.expect("timed").past > price2b.sender.retry_span.expect("documented"));
    let mobility_work = get("mobility-work");
    assert_eq!(mobility_work.tolerance, Some(Tolerance { past: minutes(60), future: minutes(5) }));
    assert_eq!(mobility_work.sender.ack_status, Some(200));
    assert_eq!(get("gains").sender.deadline, Duration::from_secs(90));
    assert_eq!(get("sourcehub").sender.deadline, Duration::from_secs(5));
    assert_eq!(get("stripe").tolerance, Some(Tolerance { past: minutes(5), future: minutes(5) }));
    assert_eq!(get("stripe").key_format, KeyFormat::Utf8);
    assert_eq!(get("github").body_bytes_max, Some(25 << 20));
    assert!(!get("shopify").scheme.is_timed());
    // Whoever gives up on 401 may have a key that changes.
    for sns in ["amazon-sns", "amazon-sns-subject", "amazon-sns-v1", "amazon-sns-v1-subject"] {
        assert!(get(sns).sender.drops.contains(&401) && get(sns).on_mismatch == OnMismatch::Retry, "{sns}");
    }
}

#[test]
fn a_handshake_is_answered_with_its_token_and_nothing_else() {
    let slack = find("slack").expect("it ships");
    let answer = |body: &str| {
        let (headers, method) = (HeaderMap::new(), Method::POST);
        let asked = Asked { method: &method, headers: &headers, query: None, body: body.as_bytes() };
        let known = Known { params: &|_| None, url: None, key: None };
        slack.handshakes[0].meet(asked, known).map(|met| met.reply.body)
    };
    assert!(slack.handshakes[0].signed);
    assert_eq!(answer(r#"{"type":"url_verification","challenge":"3eZbrw1a-_"}"#).as_deref(), Some("3eZbrw1a-_"));
    for other in [
        r#"{"type":"event_callback","challenge":"abc"}"#,
        r#"{"type":"url_verification","challenge":"<script>"}"#,
        r#"{"type":"url_verification","challenge":""}"#,
        r#"{"type":"url_verification","challenge":true}"#,
        r#"{"type":"url_verification"}"#,
        r#"{"type":"url_verification","type":"x","challenge":"abc"}"#,
    ] {
        assert_eq!(answer(other), None, "{other}");
    }
    assert_eq!(answer(&format!(r#"{{"type":"url_verification","challenge":"{}"}}"#, "a".repeat(257))), None);
}

#[test]
fn a_provider_of_ones_own_is_read_with_defaults() {
    let text = "[signature]\nheaders = [\"X-Acme-Signature\"]\ncontent = \"{body}\"\n";
    let problems = Problems::default();
    let provider = read(document::parse(&problems, "a.toml", text), "acme").expect("it is complete");
    assert_eq!(problems.render(false), "");
    assert_eq!((provider.title.as_str(), provider.key_format), ("acme", KeyFormat::Utf8));
    assert_eq!((provider.event_key, provider.tolerance), (EventKey::Body, None));
    assert_eq!(provider.sender, Sender::unknown());
    assert_eq!(provider.scheme.name(), "hmac-sha256");
    let problems = Problems::default();
    let provider = read(document::parse(&problems, "a.toml", "title = \"Acme\"\n"), "acme").expect("all is optional");
    assert_eq!(provider.scheme.name(), "none");
}

#[test]
fn all_problems_of_a_provider_are_reported_at_once_with_place_and_advice() {
    refuses(
        "key_format = \"utf-8\"\ntitel = \"x\"\nevent_key = [\"header:x-id\", \"id\"]\non_stale = 3\n\
         [signature]\nheaders = [\"x-sig\"]\ncontent = \"{id}{body}\"\nid = { header = \"x-id\" }\n\
         [sender]\nack_status = 404\nretries = [42]\n[evidence]\nkind = \"rumour\"\n",
        &[
            "a.toml:1:14",
            "did you mean \"utf8\"?",
            "unknown key `titel`",
            "a.toml:3:29",
            "\"id\" is no place in a request",
            "a.toml:4:12",
            "a.toml:7:11",
            "nothing keeps {id} apart",
            "an acknowledgement is a 2xx status",
            "42 is no HTTP status",
            "`kind` cannot be \"rumour\"",
            "`place` is missing",
        ],
    );
}

#[test]
fn a_provider_that_would_be_unsafe_is_refused() {
    let signature = "[signature]\nheaders = [\"x-sig\"]\n";
    for (text, says) in [
        ("content = \"{timestamp}.{body}\"\ntimestamp = { header = \"x-t\", unit = \"s\" }\n", "there is no tolerance"),
        ("content = \"{body}\"\ntolerance = { past = \"5m\", future = \"5m\" }\n", "no timestamp is signed"),
        (
            "content = \"{timestamp}.{body}\"\ntimestamp = { header = \"x-t\" }\n\
             tolerance = { past = \"5m\", future = \"5m\" }\n",
            "the unit of the timestamp is missing",
        ),
        (
            "content = \"{timestamp}.{body}\"\ntimestamp = { header = \"x-t\", unit = \"s\" }\n\
             tolerance = { past = \"5m\" }\n",
            "always two values",
        ),
        ("content = \"{method}\"\n", "the signed content is without the body"),
        ("content = \"{body}\"\ngrammar = \"fields\"\n", r#"the grammar "fields" is incomplete"#),
        ("content = \"{body}\"\nalgorithm = \"none\"\n", "`algorithm` cannot be \"none\""),
        ("content = \"{nonce}.{body}\"\nnonce = { field = \"n\" }\n", "a field needs the grammar"),
        ("content = \"{body}\"\nnonce = { header = \"x-n\" }\n", "the nonce is not signed"),
    ] {
        refuses(&format!("{signature}{text}"), &[says]);
    }
    refuses(
        &format!("event_key = [\"header:x-id\"]\n{signature}content = \"{{body}}\"\n"),
        &["not inside the signed content"],
    );
    refuses("event_key = []\n", &["without parts"]);
    refuses("credential = \"tokne\"\n", &["is no place for a credential"]);
    refuses(&format!("credential = \"token\"\n{signature}content = \"{{body}}\"\n"), &["not both"]);
    refuses("items = { each = \"/Data\", key = [] }\n", &["the same for every item"]);
}

/// The requests of all valid vectors that have one signature and no garbage (a change in garbage changes
/// nothing), with their providers.
static LONE_VALID: LazyLock<Vec<(Arc<Provider>, Vector)>> = LazyLock::new(|| {
    let vectors = all().into_iter().flat_map(|provider| {
        let vectors = vectors(&provider);
        vectors.into_iter().filter(|vector| vector.valid).map(move |vector| (provider.clone(), vector))
    });
    let lone = |(provider, vector): &(Arc<Provider>, Vector)| {
        judge_vector(provider, vector).places.len() == 1
            && !["garbage", "spaces"].iter().any(|word| vector.id.contains(word))
    };
    vectors.filter(lone).collect()
});

/// Whether a header decides about authenticity: it holds a signature or a signed value.
fn decides(provider: &Provider, header: &str) -> bool {
    let name = HeaderName::from_bytes(header.as_bytes()).expect("a name");
    let description = provider.scheme.description();
    let signed = [description.timestamp, description.id, description.nonce];
    provider.scheme.signs_with(&name)
        || provider.scheme.signs_header(&name)
        || signed.iter().flatten().any(|place| place.starts_with(name.as_str()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn one_changed_byte_in_what_is_proven_is_refused(
        which in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        change in 1_u8..=255,
    ) {
        let (provider, vector) = which.get(&LONE_VALID);
        let mut asked = Changed::of(vector);
        let mut token = asked.token.clone().map(String::into_bytes);
        let mut places: Vec<&mut Vec<u8>> =
            asked.headers.iter_mut().filter(|(name, _)| decides(provider, name)).map(|(_, value)| value).collect();
        places.extend(token.as_mut());
        if provider.scheme.is_signed() && provider.scheme.covers_body() {
            places.push(&mut asked.body);
        }
        prop_assume!(!places.is_empty());
        let place = place.index(places.len());
        let bytes = &mut *places[place];
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        // What is no header value never gets here.
        prop_assume!(asked.headers.iter().all(|(_, value)| HeaderValue::from_bytes(value).is_ok()));
        prop_assume!(token.as_ref().is_none_or(|token| std::str::from_utf8(token).is_ok()));
        asked.token = token.map(|token| String::from_utf8(token).expect("assumed above"));
        let explanation = asked.judge(provider, vector, Wall::from_unix_s(vector.now_s));
        prop_assert!(!explanation.is_authentic(), "{} {}: {asked:?}", provider.name, vector.id);
    }
}

proptest! {
    // Each case tries every preset.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_signed_verifies_with_the_same_secret_only(
        key in "[A-Za-z0-9]{20,60}",
        at_s in 1_000_000_000_i64..9_999_999_999,
        id in "[A-Za-z0-9_]{1,255}",
    ) {
        for provider in all() {
            let kind = provider.scheme.key_kind();
            if kind.is_some_and(|kind| kind != KeyKind::Shared) {
                continue;
            }
            let ring = |key: &Secret| {
                let keys = vec![SecretKey { id: "k".into(), key: key.clone(), not_before: None, expires_at: None }];
                Keyring::new(keys, &provider.scheme).expect("a shared secret")
            };
            let params = provider.params.keys().map(|name| (name.clone(), "value".to_owned())).collect();
            let scheme = provider.scheme.with_params(&params);
            let now = Wall::from_unix_s(at_s);
            let secret = Secret::new(key.clone());
            let body = provider.sample.clone().expect("every preset has a sample");
            let url = format!("https://hooks.example.com/hooks/{}", provider.name);
            let method = &provider.methods[0];
            let request = SignRequest {
                method, url: Some(&url), id: &id, nonce: &id, ..SignRequest::new(SigningKey::Shared(&secret), &body, now)
            };
            let signature = scheme.sign(&request).unwrap_or_else(|error| panic!("{}: {error}", provider.name));
            let headers = header_map(signature.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
            let url = signature.url(&url);
            let query = url.split_once('?').map(|(_, query)| query);
            let body = signature.body.unwrap_or(body);
            let token = signature.token.as_deref();
            let seen = Seen { method, url: Some(&url), query, headers: &headers, token };
            let right = scheme.explain(seen, &ring(&secret), &body, now, provider.tolerance, 10);
            prop_assert!(right.is_authentic(), "{}: {right:?}", provider.name);
            let mut other = key.clone().into_bytes();
            other[0] ^= 1;
            let wrong = scheme.explain(seen, &ring(&Secret::new(other)), &body, now, provider.tolerance, 10);
            prop_assert!(
                wrong.proof.is_err_and(Refusal::is_mismatch) || !provider.scheme.needs_secret(),
                "{}", provider.name
            );
        }
    }

    #[test]
    fn no_request_panics(
        values in prop::collection::vec(prop::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff], 0..60), 1..4),
        text in "(t=|v1=|v1,|v0=|sha256=|nonce=|signature=|[,;= .a-f0-9]){0,40}",
        body in prop::collection::vec(any::<u8>(), 0..60),
        now in any::<i64>(),
    ) {
        for provider in all() {
            let description = provider.scheme.description();
            let mut names: Vec<&str> = description.headers.iter().map(HeaderName::as_str).collect();
            names.extend(["webhook-id", "webhook-timestamp", "x-ps-timestamp", "x-slack-request-timestamp", "authorization"]);
            let values = values.iter().map(Vec::as_slice).chain([text.as_bytes()]).cycle();
            let headers = header_map(names.into_iter().zip(values));
            let key = Secret::new(*b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
            let keys = vec![SecretKey { id: "k".into(), key, not_before: None, expires_at: None }];
            // A public key of that text is none.
            let Ok(keyring) = Keyring::new(keys, &provider.scheme) else { continue };
            let seen = Seen { method: &Method::POST, url: Some(&text), query: Some(&text), headers: &headers, token: Some(&text) };
            let now = Wall::from_unix_s(now);
            let explanation = provider.scheme.explain(seen, &keyring, &body, now, provider.tolerance, 10);
            prop_assert!(!explanation.is_authentic() || !provider.scheme.needs_secret());
        }
    }
}

/// Four bytes that give a body behind them this CRC-32: it is linear.
fn patch(body: &[u8], wanted: u32) -> [u8; 4] {
    let of = |bits: u32| crc32fast::hash(&[body, &bits.to_le_bytes()].concat());
    let mut rows: Vec<(u32, u32)> = (0..32).map(|i| (of(1 << i) ^ of(0), 1 << i)).collect();
    let (mut left, mut found) = (wanted ^ of(0), 0);
    for bit in (0..32).rev().map(|i| 1_u32 << i) {
        let at = rows.iter().position(|(sum, _)| sum & bit != 0).expect("every sum can be had");
        let pivot = rows.swap_remove(at);
        for row in rows.iter_mut().filter(|(sum, _)| sum & bit != 0) {
            *row = (row.0 ^ pivot.0, row.1 ^ pivot.1);
        }
        if left & bit != 0 {
            (left, found) = (left ^ pivot.0, found ^ pivot.1);
        }
    }
    found.to_le_bytes()
}

#[test]
fn another_body_under_a_signature_of_paypal_shares_its_nonce() {
    let paypal = find("paypal").expect("it ships");
    let vector = vectors(&paypal).into_iter().find(|vector| vector.valid).expect("one is valid");
    let forged = [br#"{"event_type":"PAYMENT.SALE.COMPLETED"}    "#, &[][..]].concat();
    let body = [&forged[..], &patch(&forged, crc32fast::hash(&vector.body))].concat();
    let plan = KeyPlan {
        bodiless: false,
        scope: "a".into(),
        replay_scope: "a".into(),
        event_key: paypal.event_key.clone(),
        tolerance: paypal.tolerance.expect("it is timed"),
        untimed_horizon: Duration::from_hours(1),
        event_horizon: Duration::from_hours(1),
    };
    let now = Wall::from_unix_s(vector.now_s);
    let keys = |body: &[u8]| {
        let changed = Changed { body: body.to_vec(), ..Changed::of(&vector) };
        plan.keys(&changed.judge(&paypal, &vector, now).proof.expect("the CRC-32 is right"), body, now)
    };
    let (first, second) = (keys(&vector.body), keys(&body));
    assert!(first.nonce.is_some() && first.nonce == second.nonce && first.body != second.body);
}
