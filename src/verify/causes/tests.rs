use std::io::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::{
    secret::Secret,
    verify::{CredentialPlace, Grammar, Place, SignRequest, SignaturePlace, SignedSpec, SigningKey, UrlPort},
};

const NOW: Wall = Wall::from_unix_s(1_700_000_000);
const TOLERANCE: Tolerance = Tolerance { past: Duration::from_mins(5), future: Duration::from_mins(5) };
const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
const BODY: &str = r#"{"url":"https://a/b","name":"Grüße","n":1.0,"list":[1,{"b":[],"a":"\u00e9\/"}]}"#;

/// A case: what was signed, what came, and what was held against it.
#[derive(Clone)]
struct Case {
    scheme: Scheme,
    keys: Vec<SecretKey>,
    others: Vec<(String, Vec<SecretKey>)>,
    headers: HeaderMap,
    url: Option<String>,
    body: Option<Vec<u8>>,
    now: Wall,
}

fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}

fn spec(content: &str) -> SignedSpec {
    SignedSpec {
        place: SignaturePlace::Headers(vec![name("x-sig")]),
        grammar: Grammar::Plain { prefix: "sha256=".into() },
        timestamp: content.contains("{timestamp}").then(|| (Place::Header(name("x-time")), TimeUnit::Seconds)),
        id: content.contains("{id}").then(|| Place::Header(name("x-id"))),
        ..SignedSpec::new(content)
    }
}

fn scheme(spec: SignedSpec) -> Scheme {
    Scheme::signed(spec).expect("it fits")
}

fn key(id: &str, bytes: impl AsRef<[u8]>) -> SecretKey {
    SecretKey { id: id.into(), key: Secret::new(bytes.as_ref()), not_before: None, expires_at: None }
}

fn header(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("a value")
}

/// What a sender makes of it with its own idea of the scheme.
fn signed(scheme: &Scheme, secret: &[u8], body: &[u8], at: Wall, url: Option<&str>) -> HeaderMap {
    let key = Secret::new(secret);
    let request = SignRequest { url, ..SignRequest::new(SigningKey::Shared(&key), body, at) };
    let made = scheme.sign(&request).expect("it signs");
    made.headers.into_iter().map(|(name, value)| (name, header(&value))).collect()
}

impl Case {
    /// Signed as it should be.
    fn of(spec: SignedSpec) -> Self {
        Self::by(spec.clone(), spec, SECRET.as_bytes(), BODY.as_bytes())
    }
    fn by(ours: SignedSpec, theirs: SignedSpec, secret: &[u8], body: &[u8]) -> Self {
        let url = ours.content.contains("{url}").then(|| "https://hooks.example/a?b=1".to_owned());
        let headers = signed(&scheme(theirs), secret, body, NOW, url.as_deref());
        let keys = vec![key("main", SECRET)];
        let body = Some(BODY.as_bytes().to_vec());
        Self { scheme: scheme(ours), keys, others: Vec::new(), headers, url, body, now: NOW }
    }
    /// Another body was signed than the one that came.
    fn over(body: &[u8]) -> Self {
        Self::by(spec("{body}"), spec("{body}"), SECRET.as_bytes(), body)
    }
    /// Signed with other key bytes than ours.
    fn with_keys(ours: &[u8], theirs: &[u8]) -> Self {
        Self { keys: vec![key("main", ours)], ..Self::by(spec("{body}"), spec("{body}"), theirs, BODY.as_bytes()) }
    }
    fn causes(&self) -> Vec<Cause> {
        let ring = |keys: &Vec<SecretKey>| Keyring::new(keys.clone(), &self.scheme).expect("secrets");
        let others: Vec<_> = self.others.iter().map(|(name, keys)| (name.as_str(), ring(keys))).collect();
        let others: Vec<_> = others.iter().map(|(name, ring)| (*name, ring)).collect();
        let url = self.url.as_deref();
        let seen = Seen { method: &Method::POST, url, query: None, headers: &self.headers, token: None };
        let question = Question {
            scheme: &self.scheme,
            seen,
            keyring: &ring(&self.keys),
            body: self.body.as_deref(),
            now: self.now,
            tolerance: TOLERANCE,
            others: &others,
        };
        let causes = question.causes();
        let shown = format!("{causes:?} {:?}", causes.iter().map(Cause::message).collect::<Vec<_>>());
        assert!(!shown.contains(SECRET) && !shown.contains("48, 49"), "{shown}");
        causes
    }
    /// The code of the first cause, and whether it is proven.
    fn first(&self) -> Option<(&'static str, bool)> {
        self.causes().first().map(|cause| (cause.code(), cause.proven))
    }
    fn rename(mut self, from: &str, to: &'static str) -> Self {
        let value = self.headers.remove(from).expect("it is there");
        self.headers.insert(to, value);
        self
    }
    fn set(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, header(value));
        self
    }
    fn text(&self, name: &str) -> String {
        self.headers[name].to_str().expect("text").to_owned()
    }
}

#[test]
fn what_is_authentic_and_fresh_has_no_cause() {
    for content in ["{body}", "{timestamp}.{body}", "{id}.{timestamp}.{body}", "{url}\n{body}"] {
        assert_eq!(Case::of(spec(content)).causes(), [], "{content}");
    }
}

#[test]
fn json_that_was_written_anew_is_recognised() {
    let minified = BODY;
    let python = "{\"url\": \"https://a/b\", \"name\": \"Gr\\u00fc\\u00dfe\", \"n\": 1.0, \"list\": [1, {\"b\": [], \"a\": \"\\u00e9\\/\"}]}";
    for (signed, words) in [
        (
            "{\n  \"url\": \"https://a/b\",\n  \"name\": \"Grüße\",\n  \"n\": 1.0,\n  \"list\": [\n    1,\n    {\n      \"b\": [],\n      \"a\": \"\\u00e9\\/\"\n    }\n  ]\n}",
            "indented by 2",
        ),
        (
            "{\n    \"url\": \"https://a/b\",\n    \"name\": \"Grüße\",\n    \"n\": 1.0,\n    \"list\": [\n        1,\n        {\n            \"b\": [],\n            \"a\": \"\\u00e9\\/\"\n        }\n    ]\n}",
            "indented by 4",
        ),
        (r#"{"list":[1,{"a":"\u00e9\/","b":[]}],"n":1.0,"name":"Grüße","url":"https://a/b"}"#, "with its keys sorted"),
        (r#"{"url":"https:\/\/a\/b","name":"Grüße","n":1.0,"list":[1,{"b":[],"a":"\u00e9\/"}]}"#, r"with `\/` for `/`"),
        (r#"{"url":"https://a/b","name":"Grüße","n":1.0,"list":[1,{"b":[],"a":"\u00e9/"}]}"#, r"with `/` for `\/`"),
        (
            r#"{"url":"https://a/b","name":"Gr\u00fc\u00dfe","n":1.0,"list":[1,{"b":[],"a":"\u00e9\/"}]}"#,
            r"with `\uXXXX` for",
        ),
        (r#"{"url":"https://a/b","name":"Grüße","n":1.0,"list":[1,{"b":[],"a":"é\/"}]}"#, r"without `\uXXXX`"),
        (
            r#"{"url":"https:\/\/a\/b","name":"Gr\u00fc\u00dfe","n":1.0,"list":[1,{"b":[],"a":"\u00e9\/"}]}"#,
            r"`\/` and `\uXXXX`",
        ),
        (python, "a space behind each comma"),
    ] {
        let case = Case::over(signed.as_bytes());
        assert_eq!(case.first(), Some(("body_reserialised", true)), "{signed}");
        let message = case.causes()[0].message();
        assert!(message.contains(words), "{words}: {message}");
    }
    // The other way round: pretty on the way.
    let mut case = Case::over(minified.as_bytes());
    case.body = Some(minified.replace(':', ": ").into_bytes());
    assert_eq!(case.first(), None, "a colon in a string is not layout");
    case.body = Some(minified.replace("\":", "\" :\t").into_bytes());
    assert_eq!(case.first(), Some(("body_reserialised", true)));
}

#[test]
fn a_line_end_that_was_lost_or_added_is_recognised() {
    for end in ["\n", "\r\n"] {
        assert_eq!(Case::over(format!("{BODY}{end}").as_bytes()).first(), Some(("body_newline", true)));
        let mut case = Case::over(BODY.as_bytes());
        case.body = Some(format!("{BODY}{end}").into_bytes());
        assert_eq!(case.first(), Some(("body_newline", true)));
    }
    let mut case = Case::over(b"a\r\n");
    case.body = Some(b"a\n".to_vec());
    assert_eq!(case.first(), Some(("body_newline", true)));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).expect("in memory");
    writer.finish().expect("in memory")
}

#[test]
fn compression_on_the_way_is_recognised_either_way() {
    let mut case = Case::over(BODY.as_bytes());
    case.body = Some(gzip(BODY.as_bytes()));
    assert_eq!(case.first(), Some(("body_compressed", true)));
    let case = Case::over(&gzip(BODY.as_bytes()));
    assert_eq!(case.first(), None);
    assert_eq!(case.set("content-encoding", "gzip").first(), Some(("body_decompressed", false)));
}

#[test]
fn what_unpacks_to_more_than_the_bound_is_not_looked_into() {
    let large = vec![b'a'; BODY_BYTES_MAX + 1];
    let mut case = Case::over(&large);
    case.body = Some(gzip(&large));
    assert_eq!(case.first(), None);
    let large = &large[..BODY_BYTES_MAX];
    let mut case = Case::over(large);
    case.body = Some(gzip(large));
    assert_eq!(case.first(), Some(("body_compressed", true)));
}

#[test]
fn another_secret_of_the_source_or_of_another_is_named() {
    let mut case = Case::with_keys(b"ours", b"old");
    case.keys.push(SecretKey { expires_at: Some(NOW), ..key("old", "old") });
    assert_eq!(case.first(), Some(("secret_expired", true)));
    case.keys[1] = SecretKey { not_before: Some(Wall::from_unix_s(1_700_000_001)), ..key("old", "old") };
    assert_eq!(case.first(), Some(("secret_not_yet_live", true)));
    case.keys.pop();
    assert_eq!(case.first(), None);
    case.others = vec![("shop".into(), vec![key("a", "else")]), ("erp".into(), vec![key("a", "old")])];
    assert_eq!(case.causes()[0].kind, CauseKind::SecretOfOther { source: "erp".into() });
    case.keys.clear();
    assert_eq!(case.first(), Some(("secret_of_other_source", true)), "also if no secret is live");
}

#[test]
fn a_secret_read_in_another_way_is_recognised() {
    let (bytes, text) = (b"0123456789abcdef", SECRET);
    let hex = "30313233343536373839616263646566";
    let prefixed = format!("whsec_{text}");
    let encoding = |ours: &[u8], theirs: &[u8]| match &Case::with_keys(ours, theirs).causes()[0].kind {
        CauseKind::SecretEncoding { format, .. } => format.name(),
        other => panic!("{other:?}"),
    };
    assert_eq!(encoding(text.as_bytes(), bytes), "base64");
    assert_eq!(encoding(bytes, text.as_bytes()), "utf8");
    assert_eq!(encoding(bytes, text.trim_end_matches('=').as_bytes()), "utf8");
    assert_eq!(encoding(hex.as_bytes(), bytes), "hex");
    assert_eq!(encoding(bytes, hex.as_bytes()), "utf8");
    assert_eq!(encoding(prefixed.as_bytes(), bytes), "whsec");
    let code = |ours: &[u8], theirs: &[u8]| Case::with_keys(ours, theirs).first().expect("a cause").0;
    assert_eq!(code(bytes, prefixed.as_bytes()), "secret_prefix");
    assert_eq!(code(prefixed.as_bytes(), text.as_bytes()), "secret_prefix");
    assert_eq!(code(text.as_bytes(), prefixed.as_bytes()), "secret_prefix");
    for end in ["\n", "\r\n", " "] {
        let longer = format!("{text}{end}");
        assert_eq!(code(text.as_bytes(), longer.as_bytes()), "secret_white_space");
        assert_eq!(code(longer.as_bytes(), text.as_bytes()), "secret_white_space");
    }
}

#[test]
fn a_credential_has_causes_too() {
    let scheme = Scheme::credential(CredentialPlace::Header(name("x-api-key")));
    let mut case = Case { scheme, headers: HeaderMap::new(), ..Case::of(spec("{body}")) };
    assert_eq!(case.first(), None);
    case = case.set("x-api-key", "canary");
    assert_eq!(case.first(), None);
    case.keys = vec![key("main", "canary\n")];
    assert_eq!(case.first(), Some(("secret_white_space", true)));
    case.keys = vec![key("main", "canary")];
    assert_eq!(case.rename("x-api-key", "api-key").first(), Some(("header_renamed", true)));
}

#[test]
fn a_time_in_another_unit_is_recognised() {
    let with =
        |unit| SignedSpec { timestamp: Some((Place::Header(name("x-time")), unit)), ..spec("{timestamp}.{body}") };
    let units = TimeUnit::ALL.map(|(_, unit)| unit);
    for (ours, theirs) in units.iter().flat_map(|ours| units.iter().map(move |theirs| (*ours, *theirs))) {
        let case = Case::by(with(ours), with(theirs), SECRET.as_bytes(), BODY.as_bytes());
        if ours == theirs {
            assert_eq!(case.first(), None);
            continue;
        }
        let kind = CauseKind::TimestampUnit { wanted: ours, found: theirs };
        assert_eq!(case.causes(), [Cause { kind: kind.clone(), proven: true }], "{ours:?} {theirs:?}");
        // Without a body it is what the head says.
        let blind = Case { body: None, ..case };
        assert_eq!(blind.causes(), [Cause { kind, proven: false }]);
    }
}

#[test]
fn clocks_zones_and_late_deliveries_are_told_apart() {
    for (off_s, code) in [
        (301, "clock_skew"),
        (-301, "clock_skew"),
        (20 * 60, "clock_skew"),
        (3_600 + 4, "time_zone"),
        (-2 * 3_600, "time_zone"),
        (5 * 3_600 + 1_800, "time_zone"),
        (4_500, "late"),
        (-4_500, "clock_skew"),
        (86_400 * 3, "late"),
    ] {
        let mut case = Case::of(spec("{timestamp}.{body}"));
        case.now = Wall::from_unix_s(1_700_000_000 + off_s);
        assert_eq!(case.first(), Some((code, true)), "{off_s}");
        case.body = None;
        assert_eq!(case.first(), Some((code, false)), "{off_s}");
        let forged = case.clone().set("x-sig", &format!("sha256={}", "ab".repeat(32)));
        assert_eq!(Case { body: Some(BODY.into()), ..forged }.first(), None, "a forged one is not late");
    }
}

#[test]
fn another_url_is_recognised() {
    let ours = "https://hooks.example/a?b=1";
    for (signed_url, change) in [
        ("http://hooks.example/a?b=1", UrlChange::Scheme),
        ("https://hooks.example:443/a?b=1", UrlChange::DefaultPort),
        ("https://hooks.example/a/?b=1", UrlChange::Slash),
        ("https://internal:8080/a?b=1", UrlChange::Host),
        ("https://hooks.example/a", UrlChange::NoQuery),
        ("/a?b=1", UrlChange::PathAndQuery),
        ("/a", UrlChange::Path),
    ] {
        let mut case = Case::of(spec("{url}\n{body}"));
        case.headers = signed(&case.scheme, SECRET.as_bytes(), BODY.as_bytes(), NOW, Some(signed_url));
        assert_eq!(case.url.as_deref(), Some(ours));
        let case = case.set("host", "internal:8080");
        assert_eq!(case.causes(), [Cause { kind: CauseKind::Url(change), proven: true }], "{signed_url}");
    }
    let mut case = Case::of(spec("{url}\n{body}"));
    case.url = Some("https://hooks.example:8443/a/".into());
    for (signed_url, change) in
        [("https://hooks.example/a/", UrlChange::NoPort), ("https://hooks.example:8443/a", UrlChange::NoSlash)]
    {
        case.headers = signed(&case.scheme, SECRET.as_bytes(), BODY.as_bytes(), NOW, Some(signed_url));
        assert_eq!(case.causes()[0].kind, CauseKind::Url(change));
    }
    case.url = None;
    assert_eq!(case.first(), Some(("url_unknown", false)));
}

#[test]
fn headers_under_other_names_and_lost_ones_are_recognised() {
    let case = || Case::of(spec("{id}.{timestamp}.{body}"));
    assert_eq!(case().rename("x-sig", "sig").first(), Some(("header_renamed", true)));
    assert_eq!(case().rename("x-sig", "x_sig").first(), Some(("header_renamed", true)));
    assert_eq!(case().rename("x-sig", "acme-digest").first(), Some(("header_renamed", true)), "found by its value");
    let all = case().rename("x-sig", "sig").rename("x-time", "time").rename("x-id", "id");
    assert_eq!(all.first(), Some(("header_renamed", true)));
    let blind = Case { body: None, ..case().rename("x-sig", "sig") };
    assert_eq!(blind.first(), Some(("header_renamed", false)));
    for lost in ["x-time", "x-id"] {
        let mut case = case();
        case.headers.remove(lost);
        let kind = CauseKind::HeaderLost { name: name(lost) };
        assert_eq!(case.causes(), [Cause { kind, proven: false }]);
    }
    let mut unsigned = case();
    unsigned.headers.remove("x-sig");
    assert_eq!(unsigned.first(), None, "a request without any signature may be anybody's");
    let underscore = SignedSpec { place: SignaturePlace::Headers(vec![name("acme_sig")]), ..spec("{body}") };
    let mut case = Case::of(underscore);
    case.headers.remove("acme_sig");
    assert_eq!(case.first(), Some(("header_underscore", false)));
    let versioned = SignedSpec { requires: vec![(name("x-version"), "1".to_owned())], ..spec("{body}") };
    let mut case = Case::of(versioned);
    case.headers.remove("x-version");
    assert_eq!(case.first(), Some(("header_lost", false)));
}

#[test]
fn signatures_of_another_make_are_recognised() {
    let ours = || spec("{body}");
    let made = |theirs: SignedSpec| Case::by(ours(), theirs, SECRET.as_bytes(), BODY.as_bytes());
    for (algorithm, prefix) in
        [(Algorithm::HmacSha1, "sha256="), (Algorithm::HmacSha512, "sha512="), (Algorithm::HmacSha1, "sha1=")]
    {
        let case = made(SignedSpec { algorithm, grammar: Grammar::Plain { prefix: prefix.into() }, ..ours() });
        let kind = CauseKind::OtherAlgorithm { wanted: Algorithm::HmacSha256, found: algorithm };
        assert_eq!(case.causes(), [Cause { kind, proven: true }]);
    }
    for encoding in [Encoding::Base64, Encoding::Base64Url] {
        assert_eq!(made(SignedSpec { encoding, ..ours() }).first(), Some(("signature_encoding", true)));
    }
    let bare = made(SignedSpec { grammar: Grammar::Plain { prefix: String::new() }, ..ours() });
    assert_eq!(bare.first(), Some(("signature_prefix", true)));
    let case = Case::of(ours());
    let text = case.text("x-sig");
    let upper = format!("sha256={}", text[7..].to_uppercase());
    assert_eq!(case.clone().set("x-sig", &upper).first(), Some(("signature_upper_case", true)));
    assert_eq!(Case { body: None, ..case.clone().set("x-sig", &upper) }.first(), Some(("signature_upper_case", false)));
    let cut = case.clone().set("x-sig", &text[..text.len() - 24]);
    assert_eq!(cut.causes(), [Cause { kind: CauseKind::SignatureTruncated { has: 40, needs: 64 }, proven: true }]);
    let forged = format!("sha256={}", "0".repeat(41));
    assert_eq!(case.set("x-sig", &forged).first(), None, "a short forgery was not cut off");
}

#[test]
fn no_more_macs_are_computed_than_allowed() {
    let mut case = Case::over(b"something else");
    case.keys = (0..40).map(|i| key("k", format!("key {i}"))).collect();
    case.others = vec![("erp".into(), (0..100).map(|i| key("k", format!("other {i}"))).collect())];
    let ring = Keyring::new(case.keys.clone(), &case.scheme).expect("keys");
    let seen = Seen { method: &Method::POST, url: None, query: None, headers: &case.headers, token: None };
    let question = Question {
        scheme: &case.scheme,
        seen,
        keyring: &ring,
        body: case.body.as_deref(),
        now: NOW,
        tolerance: TOLERANCE,
        others: &[],
    };
    let mut lab = Lab::new(&question);
    assert_eq!(lab.live.len(), KEYS_MAX);
    assert_eq!(lab.mismatch(BODY.as_bytes()), None);
    assert!(lab.macs_left < KEYS_MAX, "all was spent: {}", lab.macs_left);
    assert!(!lab.with_body(BODY.as_bytes()));
    assert_eq!(case.first(), None);
}

fn grammars() -> Vec<SignedSpec> {
    let fields = Grammar::Fields { separator: ',', signature: "v1".into(), trim: false, groups: None };
    let field_time = Some((Place::Field("t".into()), TimeUnit::Seconds));
    vec![
        spec("{body}"),
        spec("{timestamp}.{body}"),
        SignedSpec { url_port: UrlPort::Tolerant, ..spec("{url}\n{body}") },
        SignedSpec { grammar: fields, timestamp: field_time, ..spec("{timestamp}.{body}") },
        SignedSpec {
            grammar: Grammar::List { separator: ' ', prefix: "v1,".into(), trim: false },
            encoding: Encoding::Base64,
            ..spec("{id}.{timestamp}.{body}")
        },
        SignedSpec { algorithm: Algorithm::HmacSha1, ..spec("{body}") },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_forged_signature_has_no_cause(
        which in 0..grammars().len(),
        forged in prop::collection::vec(any::<u8>(), 64),
        writing in 0..4_usize,
        known in any::<bool>(),
    ) {
        let spec = grammars()[which].clone();
        let mut case = Case::of(spec.clone());
        let right = case.text("x-sig");
        let length = *spec.algorithm.lengths().start();
        let right_text = right.rsplit(['=', ',']).find(|part| part.len() > 20).expect("a signature");
        let tail = if spec.encoding == Encoding::Base64 { format!("{right_text}=") } else { right_text.to_owned() };
        let text = match writing {
            0 => spec.encoding.encode(&forged[..length]),
            1 => encode_upper(&forged[..length]),
            2 => Encoding::Base64.encode(&forged[..64]),
            _ => spec.encoding.encode(&forged[..length - 6]),
        };
        case.headers.insert("x-sig", header(&right.replace(&tail, &text)));
        if known {
            case.keys.push(SecretKey { expires_at: Some(NOW), ..key("old", "old") });
            case.others = vec![("erp".into(), vec![key("a", "else")])];
        }
        prop_assert_eq!(case.causes(), []);
    }
}

fn encode_upper(bytes: &[u8]) -> String {
    Encoding::Hex.encode(bytes).to_uppercase()
}
