//! Known answers from vendors' documentation and libraries: every vector whose preset ships gives the claimed
//! verdict. `HOOKWARD_VECTORS` names a folder with a `vectors.json`; without it the test says that it is skipped.

use std::io::Write as _;

use base64ct::{Base64, Encoding as _};
use hookward::{
    preset::{self, Provider},
    time::Wall,
    verify::{Explanation, Keyring, SecretKey, Seen},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// Vectors that are refused here on purpose: the provider's library accepts any future timestamp, and the future
/// is always bounded here.
const REFUSED_ON_PURPOSE: [&str; 1] = ["stripe-sdk-future"];
const AT_LEAST: usize = 41;

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
        let Some(provider) = vector["scheme"].as_str().and_then(preset::find) else { continue };
        let id = vector["id"].as_str().expect("every vector has an id");
        let refused = REFUSED_ON_PURPOSE.contains(&id);
        let expected = vector["expect"] == "valid" && !refused;
        let found = judge(&provider, vector);
        if found.as_ref().is_some_and(Explanation::is_authentic) != expected {
            wrong.push(format!("{id}: expected {}, found {found:?}", vector["expect"]));
        }
        checked += 1;
        on_purpose += usize::from(refused);
    }
    say(&format!("{checked} of {} vectors checked, {on_purpose} of them refused on purpose", vectors.len()));
    assert!(wrong.is_empty(), "{} mismatches:\n{}", wrong.len(), wrong.join("\n"));
    assert!(checked >= AT_LEAST, "only {checked} vectors have a preset");
    assert_eq!(on_purpose, REFUSED_ON_PURPOSE.len());
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
    let keyring = Keyring::new(keys.collect::<Option<_>>()?);
    let mut headers = HeaderMap::new();
    for (name, value) in vector["headers"].as_object().expect("headers are an object") {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_bytes(value.as_str().expect("text").as_bytes()).expect("a value"));
    }
    let body = Base64::decode_vec(vector["body_b64"].as_str().expect("a body")).expect("base64");
    let now = Wall::from_unix_s(vector["now"].as_i64().expect("a time"));
    let seen = Seen { headers: &headers, token: None };
    Some(provider.scheme.explain(seen, &keyring, &body, now, provider.tolerance, 0))
}
