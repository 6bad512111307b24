//! Tokens: what of them is believed, and until when.

use base64ct::{Base64UrlUnpadded, Encoding as _};

use super::*;
use crate::verify::{keyring::mac_once, public::PrivateKey};

fn scheme(jwt: JwtSpec) -> Scheme {
    let grammar = Grammar::Jwt { prefix: String::new(), jwt };
    let place = SignaturePlace::Headers(vec![name("x-sig")]);
    Scheme::signed(SignedSpec { place, grammar, uncovered: Some("of a test".into()), ..SignedSpec::new("") })
        .expect("it fits")
}

fn hs256() -> Scheme {
    scheme(JwtSpec { algorithms: vec![Algorithm::HmacSha256], exp: true, ..JwtSpec::default() })
}

/// A token with this header and payload, signed like this whatever its header says.
fn token(header: &str, payload: &str, signed: Algorithm, key: &[u8]) -> HeaderMap {
    let encode = |text: &str| Base64UrlUnpadded::encode_string(text.as_bytes());
    let input = format!("{}.{}", encode(header), encode(payload));
    let mac = mac_once(&Secret::new(key), signed, std::iter::once(input.as_bytes()));
    map(&[("x-sig", &format!("{input}.{}", Base64UrlUnpadded::encode_string(&mac)))])
}

fn outcome(scheme: &Scheme, keyring: &Keyring, headers: &HeaderMap) -> Result<(), Refusal> {
    verify(scheme, headers, keyring, BODY).map(|_| ())
}

const PAYLOAD: &str = r#"{"exp":1700000010}"#;

#[test]
fn a_token_may_name_the_algorithms_of_the_list_and_no_other() {
    let scheme = hs256();
    let keyring = ring_for(&scheme, &[("main", "secret-1")]);
    let with = |header, signed| outcome(&scheme, &keyring, &token(header, PAYLOAD, signed, b"secret-1"));
    assert_eq!(with(r#"{"alg":"HS256"}"#, Algorithm::HmacSha256), Ok(()));
    // Genuine, and still not what this provider signs with.
    for (header, signed) in [
        (r#"{"alg":"HS384"}"#, Algorithm::HmacSha384),
        (r#"{"alg":"HS512"}"#, Algorithm::HmacSha512),
        (r#"{"alg":"none"}"#, Algorithm::HmacSha256),
        (r#"{"alg":"hs256"}"#, Algorithm::HmacSha256),
        (r#"{"alg":"RS256"}"#, Algorithm::HmacSha256),
    ] {
        assert_eq!(with(header, signed), Err(Refusal::AlgorithmUnsupported), "{header}");
    }
    assert_eq!(with(r#"{"alg":"HS256"}"#, Algorithm::HmacSha512), Err(Refusal::SignatureMalformed), "as long as it is");
}

#[test]
fn a_public_key_is_never_a_secret() {
    let algorithms = Algorithm::JWT.iter().filter(|(name, _)| *name == "ES256").map(|(_, algorithm)| *algorithm);
    let scheme = scheme(JwtSpec { algorithms: algorithms.collect(), exp: true, ..JwtSpec::default() });
    let public = PrivateKey::generate(public::KeyKind::P256, &mut rand::rng()).public();
    let text = public.text(public::PublicFormat::SpkiBase64).expect("every key has it");
    let keyring = ring_for(&scheme, &[("main", &text)]);
    let forged = token(r#"{"alg":"HS256"}"#, PAYLOAD, Algorithm::HmacSha256, text.as_bytes());
    assert_eq!(outcome(&scheme, &keyring, &forged), Err(Refusal::AlgorithmUnsupported));
}

#[test]
fn an_extension_that_must_be_understood_is_refused() {
    let scheme = hs256();
    let keyring = ring_for(&scheme, &[("main", "secret-1")]);
    for header in [r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, r#"{"alg":"HS256","crit":[]}"#] {
        let genuine = token(header, PAYLOAD, Algorithm::HmacSha256, b"secret-1");
        assert_eq!(outcome(&scheme, &keyring, &genuine), Err(Refusal::AlgorithmUnsupported), "{header}");
    }
}

#[test]
fn at_the_second_in_which_it_expires_it_counts_no_more() {
    let claim = claim(&hs256(), &token(r#"{"alg":"HS256"}"#, PAYLOAD, Algorithm::HmacSha256, b"secret-1"));
    let claim = claim.expect("a claim");
    let none = Tolerance { past: Duration::ZERO, future: Duration::ZERO };
    let at = |ms: i64| claim.freshness(Wall::from_unix_ms(NOW_S * 1000 + ms), none);
    assert_eq!((at(9_999), at(10_000)), (Freshness::Fresh, Freshness::Past(Duration::from_secs(1))));
}

#[test]
fn of_several_audiences_one_has_to_be_this_one() {
    let audience = Some(Whom::Text("us".into()));
    let scheme = scheme(JwtSpec { algorithms: vec![Algorithm::HmacSha256], audience, ..JwtSpec::default() });
    let keyring = ring_for(&scheme, &[("main", "secret-1")]);
    let with = |audience: &str| {
        let payload = format!(r#"{{"aud":{audience}}}"#);
        outcome(&scheme, &keyring, &token(r#"{"alg":"HS256"}"#, &payload, Algorithm::HmacSha256, b"secret-1"))
    };
    assert_eq!((with(r#""us""#), with(r#"["others","us"]"#)), (Ok(()), Ok(())));
    for others in [r#""others""#, r#"["others","usa"]"#, "[]", "null", r#"{"us":1}"#] {
        assert_eq!(with(others), Err(Refusal::ClaimMismatch), "{others}");
    }
}
