//! Known answers from vendors' documentation and libraries: every vector whose preset ships gives the claimed
//! verdict. `HOOKWARD_VECTORS` names a folder with a `vectors.json`; without it the test says that it is skipped.

use std::io::Write as _;

use base64ct::{Base64, Encoding as _};
use hookward::{
    preset::{self, Provider},
    time::Wall,
    verify::{Explanation, Freshness, Keyring, Refusal, SecretKey, Seen},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

/// Vectors that are refused here on purpose: the provider's library accepts any future timestamp, and the future
/// is always bounded here.
const REFUSED_ON_PURPOSE: [&str; 1] = ["stripe-sdk-future"];
/// Vectors whose reason is named loosely: their signature, or time, is none at all, so that it is malformed before it can
/// mismatch or be stale; and one with an empty secret, which no configuration may have.
const LOOSE: [&str; 13] = [
    "adyen-platform-bad",
    "braintree-other-pubkey",
    "messagebird-43",
    "openai-multi-all-bad",
    "openai-too-new",
    "openai-too-old",
    "sanity-bad-hash",
    "sendgrid-bad-timestamp",
    "square-bad-header",
    "stdwh-malformed-sig-js",
    "stdwh-partial-8",
    "stdwh-partial-empty",
    "stripe-sdk-bad-hex",
];
const ALL: usize = 204;

#[test]
fn known_answers_of_vendors_come_out_as_claimed() {
    let Some(folder) = std::env::var_os("HOOKWARD_VECTORS") else {
        say("SKIPPED: HOOKWARD_VECTORS names no folder with a vectors.json");
        return;
    };
    let path = std::path::Path::new(&folder).join("vectors.json");
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let vectors: Vec<Value> = serde_json::from_slice(&text).expect("a list of vectors");
    let (mut checked, mut on_purpose, mut wrong) = (0, 0, Vec::new());
    for vector in &vectors {
        let scheme = vector["scheme"].as_str().expect("every vector has a scheme");
        let id = vector["id"].as_str().expect("every vector has an id");
        let Some(provider) = preset::find(scheme) else {
            wrong.push(format!("{id}: no preset is called {scheme}"));
            continue;
        };
        let refused = REFUSED_ON_PURPOSE.contains(&id);
        let expected = vector["expect"].as_str().expect("a verdict");
        let found = judge(&provider, vector);
        let is_right = match expected {
            "valid" => found.as_ref().is_some_and(|found| found.is_authentic() != refused),
            reason => match &found {
                None => reason == "invalid:bad-key" || LOOSE.contains(&id),
                Some(found) => !found.is_authentic() && (LOOSE.contains(&id) || reasons(found).contains(&reason)),
            },
        };
        if !is_right {
            let found = found.map(|found| (found.proof.map(|proof| proof.secret_id().clone()), found.freshness));
            wrong.push(format!("{id}: expected {expected}, found {found:?}"));
        }
        checked += 1;
        on_purpose += usize::from(refused);
    }
    say(&format!("{checked} of {} vectors checked, {on_purpose} of them refused on purpose", vectors.len()));
    assert!(wrong.is_empty(), "{} mismatches:\n{}", wrong.len(), wrong.join("\n"));
    assert!(checked >= ALL, "only {checked} vectors have a preset");
    assert_eq!(on_purpose, REFUSED_ON_PURPOSE.len());
}

/// What a refusal may be called.
fn reasons(found: &Explanation) -> &'static [&'static str] {
    match (&found.proof, found.freshness) {
        (Err(refusal), _) => match refusal {
            Refusal::SignatureMismatch => &["invalid:signature-mismatch"],
            Refusal::SignatureMalformed => &["invalid:malformed-signature"],
            Refusal::TimestampMalformed => &["invalid:malformed-timestamp"],
            Refusal::SignatureMissing | Refusal::TimestampMissing | Refusal::FieldMissing => {
                &["invalid:missing-header"]
            }
            Refusal::BodyHashMismatch => &["invalid:body-hash-mismatch"],
            Refusal::AlgorithmUnsupported => &["invalid:unsupported-algorithm"],
            Refusal::ClaimMismatch => &["invalid:claim-mismatch"],
            _ => &[],
        },
        (Ok(_), Freshness::Past(_)) => &["invalid:timestamp-too-old"],
        (Ok(_), Freshness::Future(_)) => &["invalid:timestamp-too-new"],
        (Ok(_), _) => &[],
    }
}

/// Past the capture of the test harness, so that a skipped test shows.
fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("stderr is there");
}

/// `None` if a secret is none, which a configuration refuses before any request comes.
fn judge(provider: &Provider, vector: &Value) -> Option<Explanation> {
    let secrets = match &vector["secret"] {
        Value::Array(several) => several.iter().collect(),
        one => vec![one],
    };
    let keys = secrets.into_iter().enumerate().map(|(i, secret)| {
        let key = provider.key_format.decode(secret.as_str()?.as_bytes()).ok()?;
        Some(SecretKey { id: format!("secret-{}", i + 1).into(), key, not_before: None, expires_at: None })
    });
    let params = vector["config"].as_object().into_iter().flatten();
    let params = params.map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned())).collect();
    let scheme = provider.scheme.with_params(&params);
    let keyring = Keyring::new(keys.collect::<Option<_>>()?, &scheme).ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in vector["headers"].as_object().expect("headers are an object") {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_bytes(value.as_str().expect("text").as_bytes()).expect("a value"));
    }
    let body = Base64::decode_vec(vector["body_b64"].as_str().expect("a body")).expect("base64");
    let now = Wall::from_unix_s(vector["now"].as_i64().expect("a time"));
    let method: Method = vector["method"].as_str().expect("a method").parse().expect("a method");
    let url = vector["url"].as_str();
    let query = url.and_then(|url| Some(url.split_once('?')?.1));
    let seen = Seen { method: &method, url, query, headers: &headers, token: None };
    Some(scheme.explain(seen, &keyring, &body, now, provider.tolerance, 0))
}
