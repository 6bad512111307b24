use base64ct::{Base64, Encoding as _};
use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::Value;

use super::*;
use crate::verify::encoding::decode_hex;

const ALGORITHMS: [PublicAlgorithm; 7] = {
    let mut all = [PublicAlgorithm::Ed25519; 7];
    let mut at = 0;
    while at < all.len() {
        all[at] = PublicAlgorithm::ALL[at].1;
        at += 1;
    }
    all
};
const KINDS: [KeyKind; 3] = [KeyKind::Ed25519, KeyKind::P256, KeyKind::Rsa];

/// Keys and signatures by OpenSSL, through the Python package `cryptography` 48. `valid` is what its `sign` methods
/// returned, or the same numbers written in another allowed way. Each of `invalid` was put together with plain integer
/// arithmetic from the private key or a valid signature, as its `what` says, and was refused by OpenSSL as well. The
/// points of small order among `refused_keys` were computed from the curve equation, in all 14 ways to write them.
fn known() -> Value {
    serde_json::from_str(include_str!("known_answers.json")).expect("it is JSON")
}

fn list(of: &Value) -> &[Value] {
    of.as_array().expect("it is a list")
}

fn entries(of: &Value) -> impl Iterator<Item = (&str, &str)> {
    of.as_object().expect("it is an object").iter().map(|(name, value)| (name.as_str(), text(value)))
}

fn text(of: &Value) -> &str {
    of.as_str().expect("it is a text")
}

fn bytes(of: &Value) -> Vec<u8> {
    decode_hex(text(of).as_bytes(), false).expect("it is hexadecimal")
}

fn algorithm(name: &str) -> PublicAlgorithm {
    PublicAlgorithm::ALL.into_iter().find(|(other, _)| *other == name).expect("it exists").1
}

fn format(name: &str) -> PublicFormat {
    PublicFormat::ALL.into_iter().find(|(other, _)| *other == name).expect("it exists").1
}

fn parse(format: PublicFormat, text: &str) -> Result<PublicKey, PublicKeyError> {
    PublicKey::parse(format, text.as_bytes())
}

fn pem(text: &str) -> Result<PublicKey, PublicKeyError> {
    parse(PublicFormat::Pem, text)
}

fn key(known: &Value, name: &str) -> PublicKey {
    pem(text(&known["keys"][name]["texts"]["pem"])).expect("it is a key")
}

fn private(known: &Value, name: &str) -> PrivateKey {
    PrivateKey::parse(text(&known["keys"][name]["private"]).as_bytes()).expect("it is a key")
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

/// The variant's name alone.
fn variant(error: impl fmt::Debug) -> String {
    let shown = format!("{error:?}");
    shown.split(['(', ' ']).next().unwrap_or_default().to_owned()
}

#[test]
fn every_text_of_a_key_is_the_same_key() {
    let known = known();
    let keys = known["keys"].as_object().expect("it is an object");
    for (name, of) in keys {
        let expected = key(&known, name);
        assert_eq!(expected.kind().to_string(), text(&of["kind"]), "{name}");
        for (written, text) in entries(&of["texts"]) {
            let format = format(written);
            assert_eq!(parse(format, text).as_ref(), Ok(&expected), "{name} as {written}");
            let again = expected.text(format).expect("it is for this kind");
            assert_eq!(parse(format, &again).as_ref(), Ok(&expected), "{name} written as {written}");
            if format != PublicFormat::Jwk {
                assert_eq!(again.trim(), text.trim(), "{name} as {written}");
            }
        }
        for more in ["certificate", "pkcs1"] {
            if let Some(text) = of[more].as_str() {
                assert_eq!(pem(text).as_ref(), Ok(&expected), "{name} as {more}");
            }
        }
        if let Some(text) = of["compressed_spki"].as_str() {
            assert_eq!(parse(PublicFormat::SpkiBase64, text).as_ref(), Ok(&expected), "{name} compressed");
        }
    }
    let hex = text(&known["keys"]["ed25519"]["texts"]["ed25519-hex"]);
    assert_eq!(parse(PublicFormat::Ed25519Hex, &hex.to_uppercase()), Ok(key(&known, "ed25519")));
    let base64 = text(&known["keys"]["ed25519"]["texts"]["ed25519-base64"]);
    for written in [format!("whpk_{base64}"), base64.trim_end_matches('=').to_owned(), format!(" {base64}\n")] {
        assert_eq!(parse(PublicFormat::Ed25519Base64, &written), Ok(key(&known, "ed25519")), "{written}");
    }
    for format in [PublicFormat::Ed25519Hex, PublicFormat::Ed25519Base64] {
        assert_eq!(key(&known, "p256").text(format), None);
    }
}

#[test]
fn line_ends_of_pem_may_be_lost_and_text_around_it_is_ignored() {
    let known = known();
    for (name, of) in [("p256", "certificate"), ("rsa", "pkcs1"), ("rsa", "certificate"), ("ed25519", "certificate")] {
        let whole = text(&known["keys"][name][of]);
        for written in [
            whole.replace('\n', ""),
            whole.replace('\n', " "),
            whole.replace('\n', "\\n"),
            whole.replace('\n', "\\r\\n"),
            whole.replace('\n', "\r\n"),
            format!("\"{}\"", whole.replace('\n', "\\n")),
            format!("subject=CN = somebody\n{whole}\ntrailer"),
        ] {
            assert_eq!(pem(&written), Ok(key(&known, name)), "{written}");
        }
    }
    let spki = text(&known["keys"]["rsa"]["texts"]["pem"]).lines().filter(|line| !line.starts_with('-'));
    let lines = spki.collect::<Vec<_>>();
    for between in ["\n", "\\n", " "] {
        assert_eq!(parse(PublicFormat::SpkiBase64, &lines.join(between)), Ok(key(&known, "rsa")));
    }
}

#[test]
fn a_text_that_is_no_key_says_what_is_wrong_with_it_and_nothing_of_itself() {
    for case in list(&known()["refused_keys"]) {
        let written = text(&case["text"]);
        let error = parse(format(text(&case["format"])), written).expect_err(written);
        assert_eq!(variant(error), text(&case["error"]), "{} {written}", text(&case["format"]));
        let said = format!("{error} {error:?} {}", error.advice());
        let inside = written.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.len() > 11);
        assert!(inside.clone().all(|word| !said.contains(word)), "{said}");
    }
    assert_eq!(PublicKey::parse(PublicFormat::Pem, &[0xff, 0xfe]), Err(PublicKeyError::NotPem));
}

#[test]
fn a_text_that_is_no_private_key_says_what_is_wrong_with_it() {
    for case in list(&known()["refused_private_keys"]) {
        let written = text(&case["text"]);
        let error = PrivateKey::parse(written.as_bytes()).expect_err(written);
        assert_eq!(variant(error), text(&case["error"]), "{written}");
        assert!(!error.advice().is_empty());
    }
}

#[test]
fn genuine_signatures_count_however_the_content_is_cut() {
    let known = known();
    for case in list(&known["valid"]) {
        let (key, algorithm) = (key(&known, text(&case["key"])), algorithm(text(&case["algorithm"])));
        let (message, signature) = (bytes(&case["message"]), bytes(&case["signature"]));
        assert!(key.fits(algorithm), "{case}");
        assert!(key.signature_length(algorithm).is_none_or(|length| signature.len() == length), "{case}");
        assert!(signature.len() <= algorithm.signature_bytes_max(), "{case}");
        for size in [1, 7, 64, 1000] {
            let content = Content::new(algorithm, message.chunks(size));
            assert_eq!(key.verify(&content, &signature), Ok(()), "in pieces of {size}: {case}");
        }
    }
}

#[test]
fn what_only_looks_like_a_signature_does_not_count() {
    let known = known();
    for case in list(&known["invalid"]) {
        let (key, algorithm) = (key(&known, text(&case["key"])), algorithm(text(&case["algorithm"])));
        let message = bytes(&case["message"]);
        let result = key.verify(&Content::new(algorithm, [&message[..]]), &bytes(&case["signature"]));
        assert!(matches!(result, Err(SignatureError::Malformed | SignatureError::Mismatch)), "{result:?}: {case}");
    }
}

#[test]
fn a_signature_does_not_count_with_another_key_or_under_another_algorithm() {
    let known = known();
    for case in list(&known["valid"]) {
        let (message, signature) = (bytes(&case["message"]), bytes(&case["signature"]));
        for name in known["keys"].as_object().expect("it is an object").keys() {
            for algorithm in ALGORITHMS {
                if name == text(&case["key"]) && algorithm.name() == text(&case["algorithm"]) {
                    continue;
                }
                let key = key(&known, name);
                let result = key.verify(&Content::new(algorithm, [&message[..]]), &signature);
                let wrong = SignatureError::WrongKind { key: key.kind(), needed: algorithm.key_kind() };
                assert_eq!(result == Err(wrong), !key.fits(algorithm), "{name} {algorithm}");
                assert!(result.is_err(), "{name} takes as {algorithm}: {case}");
            }
        }
    }
}

#[test]
fn signing_is_what_another_implementation_does_where_there_is_one_answer() {
    let known = known();
    let settled = ["ed25519", "rsa-pkcs1-sha1", "rsa-pkcs1-sha256"];
    let cases = list(&known["valid"]).iter().filter(|case| {
        settled.contains(&text(&case["algorithm"])) && known["keys"][text(&case["key"])]["private"].is_string()
    });
    let mut tried = 0;
    for case in cases {
        let message = bytes(&case["message"]);
        let content = Content::new(algorithm(text(&case["algorithm"])), message.chunks(5));
        let key = private(&known, text(&case["key"]));
        assert_eq!(key.sign(&content, &mut rng()), Ok(bytes(&case["signature"])), "{case}");
        tried += 1;
    }
    assert!(tried >= 9, "{tried}");
}

#[test]
fn a_new_key_signs_what_its_public_half_verifies_and_survives_its_text() {
    let mut rng = rng();
    for kind in KINDS {
        let made = PrivateKey::generate(kind, &mut rng);
        let public = made.public();
        assert_eq!((made.kind(), public.kind()), (kind, kind));
        assert_ne!(PrivateKey::generate(kind, &mut rng).public(), public, "each is another");
        let read = PrivateKey::parse(made.to_pem().as_bytes()).expect("it is a key");
        assert_eq!(read.public(), public);
        let one_line = made.to_pem().replace('\n', "\\n");
        assert_eq!(PrivateKey::parse(one_line.as_bytes()).expect("it is a key").public(), public);
        for (_, format) in PublicFormat::ALL {
            if let Some(text) = public.text(format) {
                assert_eq!(parse(format, &text), Ok(public.clone()), "{text}");
            }
        }
        for algorithm in ALGORITHMS {
            let content = Content::new(algorithm, [&b"{\"id\":"[..], b"1}"]);
            match read.sign(&content, &mut rng) {
                Ok(signature) => {
                    assert!(public.fits(algorithm));
                    assert_eq!(public.verify(&content, &signature), Ok(()), "{algorithm}");
                    assert!(public.signature_length(algorithm).is_none_or(|length| signature.len() == length));
                    let other = Content::new(algorithm, [&b"{\"id\":2}"[..]]);
                    assert_eq!(public.verify(&other, &signature), Err(SignatureError::Mismatch), "{algorithm}");
                }
                Err(error) => {
                    assert_eq!(error, SignatureError::WrongKind { key: kind, needed: algorithm.key_kind() });
                    assert!(!public.fits(algorithm));
                }
            }
        }
        assert_eq!(format!("{made:?} {public:?}"), format!("PrivateKey(redacted) PublicKey({kind})"));
    }
}

fn flip(bytes: &[u8], at: prop::sample::Index) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    let bit = at.index(bytes.len() * 8);
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

fn algorithms() -> impl Strategy<Value = PublicAlgorithm> {
    prop::sample::select(ALGORITHMS.to_vec())
}

fn formats() -> impl Strategy<Value = PublicFormat> {
    prop::sample::select(PublicFormat::ALL.map(|(_, format)| format).to_vec())
}

fn name_of(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Ed25519 => "ed25519",
        KeyKind::P256 => "p256",
        KeyKind::Rsa => "rsa",
    }
}

proptest! {
    #[test]
    fn one_bit_less_and_nothing_is_proven(
        algorithm in algorithms(),
        message in prop::collection::vec(any::<u8>(), 1..200),
        at in any::<prop::sample::Index>(),
    ) {
        let known = known();
        let private = private(&known, name_of(algorithm.key_kind()));
        let key = private.public();
        let content = Content::new(algorithm, [&message[..]]);
        let signature = private.sign(&content, &mut rng()).expect("the kind is right");
        prop_assert_eq!(key.verify(&content, &signature), Ok(()));

        let other = flip(&message, at);
        prop_assert!(key.verify(&Content::new(algorithm, [&other[..]]), &signature).is_err(), "the message");
        prop_assert!(key.verify(&content, &flip(&signature, at)).is_err(), "the signature");
        let spki = key.text(PublicFormat::SpkiBase64).expect("every key has one");
        let flipped = flip(&text::base64(spki.as_bytes()).expect("it is base64"), at);
        let flipped = parse(PublicFormat::SpkiBase64, &Base64::encode_string(&flipped));
        prop_assert!(!flipped.is_ok_and(|key| key.verify(&content, &signature).is_ok()), "the key");
    }

    #[test]
    fn rubbish_is_no_key_and_does_no_harm(
        format in formats(),
        rubbish in prop::collection::vec(any::<u8>(), 0..300),
        label in "(PUBLIC KEY|RSA PUBLIC KEY|CERTIFICATE|PRIVATE KEY|[A-Z ]{0,9})",
        kty in "(OKP|EC|RSA|oct|.{0,4})",
        crv in "(Ed25519|P-256|.{0,4})",
        member in "[A-Za-z0-9_-]{0,700}",
    ) {
        let _ = PublicKey::parse(format, &rubbish);
        let _ = PrivateKey::parse(&rubbish);
        let base64 = Base64::encode_string(&rubbish);
        let pem = format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n");
        let jwk = serde_json::json!({ "kty": kty, "crv": crv, "x": member, "y": member, "n": member, "e": member });
        for text in [base64, pem, jwk.to_string()] {
            let _ = PublicKey::parse(format, text.as_bytes());
            let _ = PrivateKey::parse(text.as_bytes());
        }
    }

    #[test]
    fn a_damaged_key_does_no_harm(
        name in prop::sample::select(vec!["ed25519", "p256", "rsa"]),
        of in prop::sample::select(vec!["pem", "certificate", "private"]),
        at in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let known = known();
        let of = if of == "pem" { &known["keys"][name]["texts"][of] } else { &known["keys"][name][of] };
        let block = &text::blocks(text(of).as_bytes())[0];
        let der = text::base64(block.body.as_bytes()).expect("it is base64");
        let flipped = flip(&der, at);
        for der in [&flipped[..], &flipped[..cut.index(der.len())]] {
            let base64 = Base64::encode_string(der);
            let pem = format!("-----BEGIN {0}-----\n{base64}\n-----END {0}-----\n", block.label);
            let _ = PublicKey::parse(PublicFormat::Pem, pem.as_bytes());
            if let Ok(key) = PrivateKey::parse(pem.as_bytes()) {
                let algorithm = ALGORITHMS.into_iter().find(|algorithm| algorithm.key_kind() == key.kind());
                let _ = key.sign(&Content::new(algorithm.expect("there is one"), []), &mut rng());
            }
        }
    }

    #[test]
    fn rubbish_is_no_signature(
        algorithm in algorithms(),
        rubbish in prop::collection::vec(any::<u8>(), 0..1100),
        numbers in prop::collection::vec(any::<u8>(), 64),
    ) {
        let known = known();
        let content = Content::new(algorithm, [&b"content"[..]]);
        let der = p256::ecdsa::Signature::from_slice(&numbers).map(|numbers| numbers.to_der().as_bytes().to_vec());
        for name in known["keys"].as_object().expect("it is an object").keys() {
            let key = key(&known, name);
            for length in [rubbish.len(), 64, 256, 257, 1024] {
                let signature: Vec<u8> = rubbish.iter().copied().chain([0; 1024]).take(length).collect();
                prop_assert!(key.verify(&content, &signature).is_err());
            }
            prop_assert!(key.verify(&content, &numbers).is_err());
            prop_assert!(key.verify(&content, der.as_deref().unwrap_or_default()).is_err());
        }
    }
}
