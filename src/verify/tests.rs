use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::secret::Secret;

mod jwt;
mod keys;

const NOW_S: i64 = 1_700_000_000;
const NOW: Wall = Wall::from_unix_s(NOW_S);
const TOLERANCE: Tolerance = Tolerance { past: Duration::from_mins(5), future: Duration::from_mins(1) };
const BODY: &[u8] = br#"{"id":"evt_1","n":7}"#;

fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}

fn header(text: &'static str) -> Place {
    Place::Header(name(text))
}

fn spec(grammar: Grammar, content: &str) -> SignedSpec {
    let has = |part: &str| content.contains(part);
    SignedSpec {
        place: SignaturePlace::Headers(vec![name("x-sig"), name("x-sig-previous")]),
        grammar,
        timestamp: has("{timestamp}").then(|| (header("x-time"), TimeUnit::Seconds)),
        id: has("{id}").then(|| header("x-id")),
        nonce: has("{nonce}").then(|| header("x-nonce")),
        ..SignedSpec::new(content)
    }
}

fn plain(content: &str) -> Scheme {
    Scheme::signed(spec(Grammar::Plain { prefix: "sha256=".into() }, content)).expect("it fits")
}

/// `t=…,nonce=…,sig=…` in one header, over `{timestamp}.{nonce}.{body}`.
fn fields(trim: bool) -> Scheme {
    Scheme::signed(SignedSpec {
        place: SignaturePlace::Headers(vec![name("x-sig")]),
        timestamp: Some((Place::Field("t".into()), TimeUnit::Seconds)),
        nonce: Some(Place::Field("nonce".into())),
        ..spec(
            Grammar::Fields { separator: ',', signature: "sig".into(), trim, groups: None },
            "{timestamp}.{nonce}.{body}",
        )
    })
    .expect("it fits")
}

fn list() -> Scheme {
    Scheme::signed(spec(Grammar::List { separator: ' ', prefix: "v1,".into(), trim: false }, "{id}.{timestamp}.{body}"))
        .expect("it fits")
}

fn key(id: &str, text: &str) -> SecretKey {
    SecretKey { id: id.into(), key: Secret::new(text), not_before: None, expires_at: None }
}

fn ring(keys: &[(&str, &str)]) -> Keyring {
    ring_for(&plain("{body}"), keys)
}

fn ring_for(scheme: &Scheme, keys: &[(&str, &str)]) -> Keyring {
    Keyring::new(keys.iter().map(|(id, text)| key(id, text)).collect(), scheme).expect("secrets of any length")
}

fn seen<'a>(headers: &'a HeaderMap, token: Option<&'a str>) -> Seen<'a> {
    Seen { method: &Method::POST, url: None, query: None, headers, token }
}

fn map(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    map
}

fn signed(scheme: &Scheme, secret: &str, body: &[u8]) -> HeaderMap {
    let key = Secret::new(secret);
    let signature = scheme.sign(&SignRequest { nonce: "n1", ..SignRequest::new(SigningKey::Shared(&key), body, NOW) });
    let signature = signature.expect("signed");
    let headers: Vec<_> = signature.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    map(&headers)
}

fn claim(scheme: &Scheme, headers: &HeaderMap) -> Result<Claim, Refusal> {
    scheme.claim(seen(headers, None))
}

fn verify(scheme: &Scheme, headers: &HeaderMap, keyring: &Keyring, body: &[u8]) -> Result<Proof, Refusal> {
    scheme.verify(&claim(scheme, headers)?, keyring, body, NOW)
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers[name].to_str().expect("text").to_owned()
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
}

#[test]
fn a_header_that_must_stand_once_and_stands_twice_is_refused() {
    let scheme = plain("{timestamp}.{body}");
    for repeated in ["x-sig", "x-time"] {
        let mut headers = signed(&scheme, "secret-1", BODY);
        headers.append(repeated, headers[repeated].clone());
        assert_eq!(claim(&scheme, &headers).err(), Some(Refusal::HeaderRepeated), "{repeated}");
    }
}

#[test]
fn a_signature_is_taken_whole_or_not_at_all() {
    let scheme = plain("{body}");
    let good = text(&signed(&scheme, "secret-1", BODY), "x-sig");
    let upper = format!("sha256={}", good["sha256=".len()..].to_uppercase());
    let cut = &good[..good.len() - 2];
    let inner_space = good.replacen('a', " ", 1);
    for wrong in [
        "",
        "sha256=",
        "sha1=",
        cut,
        &format!("{good}00"),
        &format!(" {good}"),
        &format!("{good} "),
        &good["sha256=".len()..],
        &good.replace("sha256", "sha1"),
        &good.replace("sha256", "SHA256"),
        &upper,
        &inner_space,
        "sha256=\u{e9}",
        &"a".repeat(9000),
    ] {
        assert_eq!(claim(&scheme, &map(&[("x-sig", wrong)])).err(), Some(Refusal::SignatureMalformed), "{wrong}");
    }
    assert_eq!(claim(&scheme, &map(&[])).err(), Some(Refusal::SignatureMissing));
    assert!(verify(&scheme, &map(&[("x-sig", &good)]), &ring(&[("main", "secret-1")]), BODY).is_ok());
}

#[test]
fn every_secret_is_tried_against_every_signature_of_every_header() {
    let scheme = plain("{timestamp}.{body}");
    let mut headers = signed(&scheme, "new-secret", BODY);
    let old = text(&signed(&scheme, "old-secret", BODY), "x-sig");
    set(&mut headers, "x-sig-previous", &old);
    let both = ring(&[("other", "no-match"), ("old", "old-secret"), ("new", "new-secret")]);
    for (keyring, secret, place) in [
        (ring(&[("new", "new-secret")]), "new", "x-sig"),
        (ring(&[("old", "old-secret")]), "old", "x-sig-previous"),
        (both, "old", "x-sig-previous"),
    ] {
        let proof = verify(&scheme, &headers, &keyring, BODY).expect("one of them matches");
        assert_eq!((&**proof.secret_id(), &**proof.place()), (secret, place));
        assert_eq!(&**proof.scheme(), "hmac-sha256");
    }
    // Without the first header the second still counts, and garbage in one does not spoil the other.
    headers.remove("x-sig");
    assert!(verify(&scheme, &headers, &ring(&[("old", "old-secret")]), BODY).is_ok());
    set(&mut headers, "x-sig", "sha256=garbage");
    assert!(verify(&scheme, &headers, &ring(&[("old", "old-secret")]), BODY).is_ok());
    let none = verify(&scheme, &headers, &ring(&[("x", "another")]), BODY);
    assert_eq!(none.err(), Some(Refusal::SignatureMismatch));
}

#[test]
fn a_list_may_hold_garbage_and_foreign_items_but_not_too_many_signatures() {
    let scheme = list();
    let keyring = ring(&[("main", "secret-1")]);
    let good_headers = signed(&scheme, "secret-1", BODY);
    let good = text(&good_headers, "x-sig");
    let other = text(&signed(&scheme, "secret-2", BODY), "x-sig");
    let with = |value: &str| {
        let mut headers = good_headers.clone();
        set(&mut headers, "x-sig", value);
        verify(&scheme, &headers, &keyring, BODY).map(|_| ())
    };
    for fine in [
        format!("{other} {good}"),
        format!("v1,garbage v1a,{} {good}", "0".repeat(64)),
        format!("{good}  v9,x"),
        [vec![other.as_str(); 7], vec![good.as_str()]].concat().join(" "),
    ] {
        assert_eq!(with(&fine), Ok(()), "{fine}");
    }
    let nine = [vec![other.as_str(); 8], vec![good.as_str()]].concat().join(" ");
    assert_eq!(with(&nine), Err(Refusal::TooManySignatures));
    assert_eq!(with(&good.replace("v1,", "v1a,")), Err(Refusal::SignatureMalformed), "another algorithm");
    assert_eq!(with(&other), Err(Refusal::SignatureMismatch));
    assert_eq!(with(&format!("{} {good}", "x".repeat(8 * 1024))), Err(Refusal::SignatureMalformed), "too long to read");
}

#[test]
fn fields_are_read_strictly() {
    let keyring = ring(&[("main", "secret-1")]);
    let good_headers = signed(&fields(false), "secret-1", BODY);
    let good = text(&good_headers, "x-sig");
    let spaced = good.replace(',', ", ");
    let with = |trim: bool, value: &str| verify(&fields(trim), &map(&[("x-sig", value)]), &keyring, BODY).map(|_| ());
    assert_eq!(with(false, &good), Ok(()));
    assert_eq!(with(false, &format!("{good},sig=bad,other=1")), Ok(()));
    assert_eq!(with(true, &spaced), Ok(()));
    assert!(with(false, &spaced).is_err(), "spaces only where the scheme says so");
    for (wrong, refusal) in [
        (format!("t=1,{good}"), Refusal::TimestampMalformed),
        (format!("{good},nonce=n2"), Refusal::FieldMalformed),
        (good.replacen("t=", "T=", 1), Refusal::TimestampMissing),
        (good.replacen("nonce=", "once=", 1), Refusal::FieldMissing),
        (good.replacen("nonce=n1", "nonce=", 1), Refusal::FieldMalformed),
        (good.replacen("sig=", "sgi=", 1), Refusal::SignatureMalformed),
        (format!("{good},"), Refusal::SignatureMalformed),
        ("no fields at all".to_owned(), Refusal::SignatureMalformed),
    ] {
        assert_eq!(with(false, &wrong), Err(refusal), "{wrong}");
    }
}

#[test]
fn a_timestamp_is_digits_and_nothing_else() {
    let scheme = plain("{timestamp}.{body}");
    let mut headers = signed(&scheme, "secret-1", BODY);
    for wrong in [
        "",
        "hello",
        "-1",
        "+1700000000",
        "01700000000",
        "00",
        "1700000000.0",
        "1e9",
        "0x10",
        " 1700000000",
        "1700000000 ",
        "12345678901234567890",
        "\u{661}\u{667}",
        "1,700,000,000",
    ] {
        set(&mut headers, "x-time", wrong);
        assert_eq!(claim(&scheme, &headers).err(), Some(Refusal::TimestampMalformed), "{wrong}");
    }
    // The largest that is read is far from the clock, and no overflow.
    set(&mut headers, "x-time", "9999999999999999999");
    let far = claim(&scheme, &headers).expect("digits");
    assert!(matches!(far.freshness(NOW, TOLERANCE), Freshness::Future(_)));
    assert!(matches!(far.freshness(Wall::from_unix_s(i64::MIN), TOLERANCE), Freshness::Future(_)));
    headers.remove("x-time");
    assert_eq!(claim(&scheme, &headers).err(), Some(Refusal::TimestampMissing));
}

#[test]
fn the_bounds_of_freshness_are_exact_on_both_sides() {
    let scheme = plain("{timestamp}.{body}");
    let claim = claim(&scheme, &signed(&scheme, "secret-1", BODY)).expect("a claim");
    let at = |ms: i64| claim.freshness(Wall::from_unix_ms(NOW_S * 1000 + ms), TOLERANCE);
    // The clock is rounded down to the unit of the scheme.
    for (ms, expected) in [
        (0, Freshness::Fresh),
        (300_000, Freshness::Fresh),
        (300_999, Freshness::Fresh),
        (301_000, Freshness::Past(Duration::from_secs(1))),
        (-60_000, Freshness::Fresh),
        (-60_001, Freshness::Future(Duration::from_secs(1))),
        (-61_000, Freshness::Future(Duration::from_secs(1))),
        (-61_001, Freshness::Future(Duration::from_secs(2))),
    ] {
        assert_eq!(at(ms), expected, "{ms} ms");
    }
    let in_ms = Scheme::signed(SignedSpec {
        timestamp: Some((header("x-time"), TimeUnit::Milliseconds)),
        ..spec(Grammar::Plain { prefix: String::new() }, "{timestamp}.{body}")
    })
    .expect("it fits");
    let claim = super::tests::claim(&in_ms, &signed(&in_ms, "secret-1", BODY)).expect("a claim");
    let at = |ms: i64| claim.freshness(Wall::from_unix_ms(NOW_S * 1000 + ms), TOLERANCE);
    assert_eq!(at(300_000), Freshness::Fresh);
    assert_eq!(at(300_001), Freshness::Past(Duration::from_millis(1)));
    assert_eq!(at(-60_001), Freshness::Future(Duration::from_millis(1)));
}

#[test]
fn an_id_cannot_hold_what_separates_it_from_its_neighbours() {
    let scheme = list();
    let mut headers = signed(&scheme, "secret-1", BODY);
    for wrong in ["", "a.b", "a b", "a\u{e9}", "{\"a\"}", &"a".repeat(256)] {
        set(&mut headers, "x-id", wrong);
        assert_eq!(claim(&scheme, &headers).err(), Some(Refusal::FieldMalformed), "{wrong}");
    }
    set(&mut headers, "x-id", &"a_:=+/-9".repeat(31));
    assert!(claim(&scheme, &headers).is_ok());
    headers.remove("x-id");
    assert_eq!(claim(&scheme, &headers).err(), Some(Refusal::FieldMissing));
    // A separator that ids may hold elsewhere is not allowed in one that it ends.
    let colon = plain("{id}:{body}");
    set(&mut headers, "x-sig", &text(&signed(&colon, "secret-1", BODY), "x-sig"));
    set(&mut headers, "x-id", "a:b");
    assert_eq!(claim(&colon, &headers).err(), Some(Refusal::FieldMalformed));
}

#[test]
fn a_secret_counts_from_its_first_moment_to_its_last() {
    let scheme = plain("{body}");
    let headers = signed(&scheme, "secret-1", BODY);
    let keys = vec![SecretKey {
        not_before: Some(NOW),
        expires_at: Some(NOW.plus(Duration::from_secs(10))),
        ..key("main", "secret-1")
    }];
    let keyring = Keyring::new(keys, &scheme).expect("a secret of any length");
    let at = |ms: i64| {
        let claim = claim(&scheme, &headers).expect("a claim");
        scheme.verify(&claim, &keyring, BODY, Wall::from_unix_ms(NOW_S * 1000 + ms)).map(|_| ())
    };
    assert_eq!(at(-1), Err(Refusal::NoLiveSecret));
    assert_eq!((at(0), at(9_999)), (Ok(()), Ok(())));
    assert_eq!(at(10_000), Err(Refusal::NoLiveSecret));
}

#[test]
fn a_credential_is_compared_whole() {
    let keyring = ring(&[("old", "Bearer one"), ("new", "Bearer two")]);
    let scheme = Scheme::credential(CredentialPlace::Header(name("authorization")));
    let with = |value: &str| verify(&scheme, &map(&[("authorization", value)]), &keyring, BODY);
    assert_eq!(&**with("Bearer two").expect("it is right").secret_id(), "new");
    for wrong in ["Bearer tw", "Bearer twoo", "bearer two", "Bearer  two", "two"] {
        assert_eq!(with(wrong).err(), Some(Refusal::CredentialMismatch), "{wrong}");
    }
    assert_eq!(with("").err(), Some(Refusal::CredentialMissing));
    assert_eq!(verify(&scheme, &map(&[]), &keyring, BODY).err(), Some(Refusal::CredentialMissing));
    let twice = map(&[("authorization", "Bearer two"), ("authorization", "Bearer two")]);
    assert_eq!(verify(&scheme, &twice, &keyring, BODY).err(), Some(Refusal::HeaderRepeated));
    assert!(scheme.consumes(&name("authorization")) && !scheme.consumes(&name("x-sig")));
    assert!(!scheme.is_signed() && !scheme.is_timed() && scheme.needs_secret());
}

#[test]
fn basic_auth_and_a_path_token_are_credentials_too() {
    let keyring = ring(&[("main", "user:pass word")]);
    let basic = Scheme::credential(CredentialPlace::Basic);
    let with = |value: &str| verify(&basic, &map(&[("authorization", value)]), &keyring, BODY).map(|_| ());
    assert_eq!(with("Basic dXNlcjpwYXNzIHdvcmQ="), Ok(()));
    assert_eq!(with("basic dXNlcjpwYXNzIHdvcmQ="), Ok(()));
    assert_eq!(with("Basic dXNlcjpwYXNzIHdvcmU="), Err(Refusal::CredentialMismatch));
    for missing in ["Bearer dXNlcjpwYXNzIHdvcmQ=", "Basic", "Basic !", "Basic dXNlcjpwYXNzIHdvcmQ"] {
        assert_eq!(with(missing), Err(Refusal::CredentialMissing), "{missing}");
    }
    assert!(basic.consumes(&name("authorization")));

    let token = Scheme::credential(CredentialPlace::Token);
    let none = HeaderMap::new();
    let with = |token_text: Option<&str>| {
        let claim = token.claim(seen(&none, token_text))?;
        token.verify(&claim, &ring(&[("main", "t0ken")]), BODY, NOW).map(|proof| proof.place().to_string())
    };
    assert_eq!(with(Some("t0ken")).as_deref(), Ok("path token"));
    assert_eq!(with(Some("t0keN")), Err(Refusal::CredentialMismatch));
    assert_eq!((with(Some("")), with(None)), (Err(Refusal::CredentialMissing), Err(Refusal::CredentialMissing)));
}

#[test]
fn nothing_that_is_offered_or_expected_shows_in_debug() {
    let scheme = Scheme::credential(CredentialPlace::Header(name("authorization")));
    let headers = map(&[("authorization", "canary")]);
    let seen = seen(&headers, Some("canary"));
    let keyring = ring(&[("main", "canary")]);
    let claim = scheme.claim(seen).expect("a claim");
    let proof = scheme.verify(&claim, &keyring, b"canary", NOW);
    let explanation = scheme.explain(seen, &keyring, b"canary", NOW, None, 9);
    let canary = Secret::new("canary");
    let signature = scheme.sign(&SignRequest::new(SigningKey::Shared(&canary), b"", NOW)).expect("signed");
    let shown = format!("{seen:?} {keyring:?} {claim:?} {proof:?} {explanation:?} {signature:?}");
    assert!(!shown.contains("canary") && !shown.contains("99, 97"), "{shown}");
}

#[test]
fn an_explanation_shows_the_working_and_agrees_with_verification() {
    let scheme = plain("{timestamp}.{body}");
    let mut headers = signed(&scheme, "new-secret", BODY);
    set(&mut headers, "x-sig-previous", &text(&signed(&scheme, "old-secret", BODY), "x-sig"));
    let keyring = ring(&[("other", "no-match"), ("old", "old-secret")]);
    let now = Wall::from_unix_s(NOW_S + 301);
    let seen = seen(&headers, None);
    let explanation = scheme.explain(seen, &keyring, BODY, now, Some(TOLERANCE), 13);
    assert_eq!(explanation.signed_content, b"1700000000.{\"");
    assert_eq!(explanation.signed_bytes, 11 + BODY.len());
    assert_eq!(explanation.skew, Some((Duration::from_secs(301), true)));
    assert_eq!(explanation.freshness, Freshness::Past(Duration::from_secs(1)));
    let matching: Vec<_> =
        explanation.tried.iter().map(|t| (&*t.secret_id, &*explanation.places[t.signature], t.matches)).collect();
    assert_eq!(
        matching,
        [
            ("other", "x-sig", false),
            ("other", "x-sig-previous", false),
            ("old", "x-sig", false),
            ("old", "x-sig-previous", true),
        ]
    );
    assert!(explanation.proof.is_ok() && !explanation.is_authentic(), "authentic but for its time");
    let fresh = scheme.explain(seen, &keyring, BODY, NOW, Some(TOLERANCE), 0);
    assert!(fresh.is_authentic());
}

#[test]
fn nothing_here_knows_a_provider_by_name() {
    let presets = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/preset/data")).expect("the presets");
    let names: Vec<String> = presets
        .filter_map(|file| Some(file.ok()?.path().file_name()?.to_str()?.strip_suffix(".toml")?.to_owned()))
        // Words of every day and of the language.
        .filter(|name| !["box", "front", "line", "segment", "x"].contains(&name.as_str()))
        .collect();
    assert!(names.len() >= 10);
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/verify")).expect("this folder") {
        let path = file.expect("a file").path();
        if path.is_dir() {
            continue; // tests
        }
        let text = std::fs::read_to_string(&path).expect("text").to_ascii_lowercase();
        for name in &names {
            for written in [name.clone(), name.replace('-', " "), name.replace('-', "_")] {
                let named = text.match_indices(&written).any(|(at, _)| {
                    let bytes = text.as_bytes();
                    let letter = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphabetic);
                    !(at > 0 && letter(at - 1) || letter(at + written.len()))
                });
                assert!(!named, "{} names {written}", path.display());
            }
        }
    }
}

/// Every way to take signed bytes apart along a template `{a}.{b}.{body}` or shorter.
fn splits(content: &str, parts: usize) -> Vec<Vec<&str>> {
    if parts == 0 {
        return vec![vec![content]];
    }
    let dots = content.match_indices('.');
    dots.flat_map(|(at, _)| {
        splits(&content[at + 1..], parts - 1).into_iter().map(move |mut rest| {
            rest.insert(0, &content[..at]);
            rest
        })
    })
    .collect()
}

proptest! {
    #[test]
    fn equal_signed_bytes_mean_equal_time_nonce_and_body(
        time in 0_u64..10_000_000_000_000_000_000,
        nonce in "[a-z0-9.:_-]{1,6}",
        body in "[0-9.a:{}]{0,12}",
    ) {
        let content = format!("{time}.{nonce}.{body}");
        let scheme = fields(false);
        let accepted: Vec<_> = splits(&content, 2)
            .into_iter()
            .filter(|parts| {
                let value = format!("t={},nonce={},sig={}", parts[0], parts[1], "0".repeat(64));
                claim(&scheme, &map(&[("x-sig", &value)])).is_ok()
            })
            .collect();
        prop_assert!(accepted.len() <= 1, "{accepted:?}");
    }

    #[test]
    fn equal_signed_bytes_mean_equal_time_and_body_even_without_a_separator(content in "[1-9]{8,25}") {
        for behind in [false, true] {
            let scheme = plain(if behind { "{body}{timestamp}" } else { "{timestamp}{body}" });
            let accepted = (0..=content.len()).filter(|at| {
                let time = if behind { &content[*at..] } else { &content[..*at] };
                let headers = map(&[("x-sig", &format!("sha256={}", "0".repeat(64))), ("x-time", time)]);
                // A time near the clock, that is: another one is refused, or held only if it has as many digits.
                claim(&scheme, &headers).is_ok_and(|claim| claim.may_be_held())
            });
            prop_assert!(accepted.count() <= 1);
        }
    }

    #[test]
    fn no_headers_panic(
        signature in prop::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff], 0..100),
        time in "[0-9.+ -]{0,25}",
        now in any::<i64>(),
    ) {
        for scheme in [plain("{timestamp}.{body}"), fields(true), list(), Scheme::credential(CredentialPlace::Basic)] {
            let mut headers = map(&[("x-time", &time), ("x-id", &time)]);
            let value = HeaderValue::from_bytes(&signature).expect("a value");
            headers.insert("x-sig", value.clone());
            headers.insert("authorization", value);
            if let Ok(claim) = claim(&scheme, &headers) {
                let _ = claim.freshness(Wall::from_unix_s(now), TOLERANCE);
                prop_assert!(scheme.verify(&claim, &ring(&[("main", "secret-1")]), BODY, NOW).is_err());
            }
        }
    }
}

#[test]
fn a_sha512_scheme_signs_and_verifies() {
    let scheme = Scheme::signed(SignedSpec {
        algorithm: Algorithm::HmacSha512,
        encoding: Encoding::Base64Url,
        ..spec(Grammar::Plain { prefix: String::new() }, "{body}")
    })
    .expect("it fits");
    let headers = signed(&scheme, "secret-1", BODY);
    let keyring = ring_for(&scheme, &[("main", "secret-1")]);
    assert_eq!(
        verify(&scheme, &headers, &keyring, BODY).map(|proof| Arc::clone(proof.scheme())),
        Ok("hmac-sha512".into())
    );
    assert_eq!(verify(&scheme, &headers, &keyring, b"other").err(), Some(Refusal::SignatureMismatch));
}

#[test]
fn an_id_beside_a_formed_time_may_not_have_one_in_it() {
    let scheme = Scheme::signed(SignedSpec {
        timestamp: Some((Place::Header(HeaderName::from_static("x-time")), TimeUnit::Rfc3339)),
        id: Some(Place::Header(HeaderName::from_static("x-id"))),
        ..spec(Grammar::Plain { prefix: String::new() }, "{id}{timestamp}{body}")
    })
    .expect("it fits");
    let signature = "0".repeat(64);
    let with = |id| {
        let headers = map(&[("x-sig", &signature), ("x-time", "2023-11-14T22:13:20Z"), ("x-id", id)]);
        claim(&scheme, &headers).err()
    };
    assert_eq!(with("a-2023-11-14"), None);
    // The same bytes as of the id `a`, an older time, and a body that begins with the newer one.
    assert_eq!(with("a2023-11-14T22:00:00Z"), Some(Refusal::FieldMalformed));
}

#[test]
fn behind_a_secret_in_front_of_a_hash_only_text_counts() {
    // Whoever has one such hash can compute that of a longer content without the secret: with padding in it, no text.
    let scheme = |content: &str| {
        Scheme::signed(SignedSpec {
            algorithm: Algorithm::Sha256,
            ..spec(Grammar::Plain { prefix: String::new() }, content)
        })
        .expect("it fits")
    };
    let padded = [BODY, b"\x80\0\0\0", BODY].concat();
    for (content, expected) in [("{secret}{body}", Err(Refusal::SignatureMismatch)), ("{body}{secret}", Ok(()))] {
        let scheme = scheme(content);
        let keyring = ring_for(&scheme, &[("main", "secret-1")]);
        let of = |body: &[u8]| verify(&scheme, &signed(&scheme, "secret-1", body), &keyring, body).map(|_| ());
        assert_eq!((of(BODY), of(&padded)), (Ok(()), expected), "{content}");
    }
}

#[test]
fn a_public_key_of_another_kind_is_none_for_the_scheme() {
    let algorithm = Algorithm::Public(public::PublicAlgorithm::Ed25519);
    let scheme = Scheme::signed(SignedSpec { algorithm, ..spec(Grammar::Plain { prefix: String::new() }, "{body}") });
    let scheme = scheme.expect("it fits");
    let ring = |kind| {
        let public = public::PrivateKey::generate(kind, &mut rand::rng()).public();
        let text = public.text(public::PublicFormat::SpkiBase64).expect("every key has it");
        Keyring::new(vec![key("main", &text)], &scheme).map(|_| ())
    };
    assert_eq!(ring(public::KeyKind::Ed25519), Ok(()));
    let (found, needed) = (public::KeyKind::P256, public::KeyKind::Ed25519);
    let (found, needed) = (KeyKind::Public(found), KeyKind::Public(needed));
    assert_eq!(ring(public::KeyKind::P256), Err((0, KeyError::OtherKind { found, needed })));
}

#[test]
fn every_item_of_a_list_shows_the_same_credential() {
    let keyring = ring(&[("main", "the-state")]);
    let scheme = Scheme::credential(CredentialPlace::Json("/value/*/state".into()));
    let with = |body: &str| verify(&scheme, &map(&[]), &keyring, body.as_bytes()).map(|_| ());
    assert_eq!(with(r#"{"value":[{"state":"the-state"},{"state":"the-state","n":2}]}"#), Ok(()));
    for forged in [
        r#"{"value":[{"state":"the-state"},{"state":"another"}]}"#,
        r#"{"value":[{"state":"another"},{"state":"the-state"}]}"#,
    ] {
        assert_eq!(with(forged), Err(Refusal::CredentialMismatch), "{forged}");
    }
    for missing in [r#"{"value":[{"state":"the-state"},{}]}"#, r#"{"value":[]}"#, "{}"] {
        assert_eq!(with(missing), Err(Refusal::CredentialMissing), "{missing}");
    }
}

#[test]
fn all_groups_of_a_header_say_the_same_time() {
    let grammar = Grammar::Fields { separator: ',', signature: "v1".into(), trim: false, groups: Some(' ') };
    let scheme = Scheme::signed(SignedSpec {
        place: SignaturePlace::Headers(vec![name("x-sig")]),
        timestamp: Some((Place::Field("t".into()), TimeUnit::Seconds)),
        ..spec(grammar, "{timestamp}.{body}")
    })
    .expect("it fits");
    let one = text(&signed(&scheme, "secret-1", BODY), "x-sig");
    let keyring = ring_for(&scheme, &[("main", "secret-1")]);
    let with = |other: &str| verify(&scheme, &map(&[("x-sig", &format!("{one} {other}"))]), &keyring, BODY).map(|_| ());
    let of = |time: i64| format!("t={time},v1={}", "0".repeat(64));
    assert_eq!((with(&of(NOW_S)), with(&of(NOW_S + 1))), (Ok(()), Err(Refusal::TimestampMalformed)));
}
