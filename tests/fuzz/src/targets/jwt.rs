//! JSON Web Tokens. Input: the JSON of a header, a line end, and the JSON of a payload; or a token as it is.
//!
//! Whatever stands in it is signed with the right key, so that everything but the signature is put to the test. Then a
//! genuine token is changed, and must not count.

use arbitrary::Unstructured;
use base64ct::{Base64UrlUnpadded, Encoding as _};
use http::{HeaderName, Method};
use serde_json::Value;

use crate::{
    given::{KEY, OTHER_KEY, URL, cut, headers, ring, seen},
    secret::Secret,
    time::Wall,
    verify::{
        Algorithm, Explanation, Freshness, Grammar, JwtSpec, Place, Refusal, Scheme, SignRequest, SignaturePlace,
        SignedSpec, SigningKey, Tolerance, Whom, mac_once,
    },
};

const NOW_S: i64 = 1_700_000_000;
const LEEWAY_S: i64 = 5;
const BODY: &[u8] = b"{\"id\":1}";

pub fn run(data: &[u8]) {
    let scheme = scheme();
    as_it_is(&scheme, data);
    let (header, payload) = cut(data, b'\n');
    rightly_signed(&scheme, header, payload);
    changed(&scheme, data);
}

fn scheme() -> Scheme {
    let jwt = JwtSpec {
        algorithms: vec![Algorithm::HmacSha256, Algorithm::HmacSha384],
        issuer: Some(Whom::Text("acme".into())),
        audience: Some(Whom::Url),
        exp: true,
        ..JwtSpec::default()
    };
    let spec = SignedSpec {
        place: SignaturePlace::Headers(vec![HeaderName::from_static("authorization")]),
        grammar: Grammar::Jwt { prefix: "Bearer ".into(), jwt },
        nonce: Some(Place::Claim("jti".into())),
        uncovered: Some("the token says nothing of the body".into()),
        ..SignedSpec::new("")
    };
    Scheme::signed(spec).expect("it fits")
}

fn judge(scheme: &Scheme, token: &[u8], key: &[u8]) -> Explanation {
    let value = [b"Bearer ", token].concat();
    let headers = headers([("authorization", value.as_slice())]);
    let leeway = std::time::Duration::from_secs(LEEWAY_S.unsigned_abs());
    let tolerance = Tolerance { past: leeway, future: leeway };
    let ring = ring(scheme, key).expect("a shared secret");
    scheme.explain(seen(&headers, URL), &ring, BODY, Wall::from_unix_s(NOW_S), Some(tolerance), 0)
}

/// Nobody signed it.
fn as_it_is(scheme: &Scheme, token: &[u8]) {
    let explanation = judge(scheme, token, OTHER_KEY);
    assert!(explanation.proof.is_err(), "nobody signed this");
    assert!(explanation.places.len() <= 1);
}

fn rightly_signed(scheme: &Scheme, header: &[u8], payload: &[u8]) {
    let encode = Base64UrlUnpadded::encode_string;
    let input = format!("{}.{}", encode(header), encode(payload));
    let read: Option<Value> = serde_json::from_slice(header).ok();
    let name = read.as_ref().and_then(|header| header.get("alg")?.as_str());
    let algorithm = if name == Some("HS384") { Algorithm::HmacSha384 } else { Algorithm::HmacSha256 };
    let mac = mac_once(&Secret::new(KEY), algorithm, std::iter::once(input.as_bytes()));
    let explanation = judge(scheme, format!("{input}.{}", encode(&mac)).as_bytes(), KEY);
    let unsigned = judge(scheme, format!("{input}.").as_bytes(), KEY);
    assert!(unsigned.proof.is_err(), "a token without a signature counts");

    let is_allowed = matches!(name, Some("HS256" | "HS384"));
    if !is_allowed {
        assert!(explanation.proof.is_err(), "{name:?} is not allowed");
    }
    if read.as_ref().is_some_and(|header| header.get("crit").is_some()) {
        assert!(explanation.proof.is_err(), "extensions that nobody understands were accepted");
    }
    let Ok(claims) = serde_json::from_slice::<Value>(payload) else {
        // What is no JSON, or is too deep or too large for the other parser, has at least no claims that count.
        return;
    };
    let names = claims["iss"] == "acme"
        && match &claims["aud"] {
            Value::Array(list) => list.iter().any(|one| *one == URL),
            one => *one == URL,
        };
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let seconds = |name: &str| claims.get(name).filter(|value| !value.is_null()).map(number);
    if explanation.proof.is_ok() {
        assert!(names, "for another, or from another: {claims}");
        let exp = seconds("exp").flatten().expect("an expiry is required, and is a number or its text");
        let now = NOW_S as f64;
        let fresh = explanation.freshness == Freshness::Fresh;
        // Decimals are cut off.
        let due = exp.trunc() + LEEWAY_S as f64 > now;
        let begun =
            seconds("nbf").is_none_or(|nbf| nbf.expect("a number or its text").trunc() - LEEWAY_S as f64 <= now);
        assert_eq!(fresh, due && begun, "at {now}: {claims}");
    } else if is_allowed {
        assert_ne!(explanation.proof.err(), Some(Refusal::SignatureMismatch), "the signature is right");
    }
}

/// A genuine token, changed as the input says.
fn changed(scheme: &Scheme, data: &[u8]) {
    let secret = Secret::new(KEY);
    let request = SignRequest {
        url: Some(URL),
        method: &Method::POST,
        ..SignRequest::new(SigningKey::Shared(&secret), BODY, Wall::from_unix_s(NOW_S))
    };
    let signature = scheme.sign(&request).expect("it can be signed");
    let genuine = signature.headers[0].1.strip_prefix("Bearer ").expect("its prefix").as_bytes().to_vec();
    assert!(judge(scheme, &genuine, KEY).is_authentic(), "the genuine one counts");
    let mut input = Unstructured::new(data);
    let mut token = genuine.clone();
    for _ in 0..=input.int_in_range(0..=3).unwrap_or(0_u8) {
        let Ok(at) = input.choose_index(token.len() + 1) else { break };
        let byte = input.arbitrary().unwrap_or(b'A');
        match input.int_in_range(0..=3).unwrap_or(0_u8) {
            0 => token.insert(at, byte),
            1 if at < token.len() => drop(token.remove(at)),
            2 => token.truncate(at),
            _ if at < token.len() => token[at] = byte,
            _ => token.push(byte),
        }
    }
    let counts = judge(scheme, &token, KEY).proof.is_ok();
    assert_eq!(counts, token == genuine, "{}", String::from_utf8_lossy(&token));
}
