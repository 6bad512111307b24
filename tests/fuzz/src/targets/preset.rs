//! Providers as TOML. Input: a provider. It loads, or something is said about a place in it; and what loads can sign.

use std::sync::LazyLock;

use http::HeaderValue;
use rand::{SeedableRng as _, rngs::StdRng};

use crate::{
    document::{self, Problems},
    given::{KEY, headers, ring},
    preset::{self, Provider},
    secret::Secret,
    time::Wall,
    verify::{
        KeyKind, Seen, SignRequest, SigningKey,
        public::{self, PrivateKey},
    },
};

/// Longer texts say nothing new, and take long.
const TEXT_BYTES_MAX: usize = 8 * 1024;
const URL: &str = "https://hooks.example.com/in?x=1";

pub fn run(data: &[u8]) {
    let Some(text) = std::str::from_utf8(data).ok().filter(|text| text.len() <= TEXT_BYTES_MAX) else { return };
    let problems = Problems::default();
    let document = document::parse(&problems, "a.toml", text);
    // What is no TOML is reported, and the rest is read for more problems.
    let syntax_errors = problems.errors();
    let provider = preset::read(document, "acme");
    for problem in problems.sorted() {
        let place = problem.place.expect("a provider's problems have a place");
        assert!(place.span.start <= place.span.end && place.span.end <= text.len(), "{:?}", place.span);
        assert!(!problem.message.is_empty());
        let (_, line, column) = problems.position(&place);
        assert!(line <= text.matches('\n').count() + 1 && column <= text.chars().count() + 1);
    }
    let shown = problems.render(false);
    match provider {
        None => assert!(problems.errors() > syntax_errors && shown.contains("error"), "nothing is said about it"),
        Some(provider) => {
            assert_eq!(problems.errors(), syntax_errors, "{shown}");
            signs(&provider);
        }
    }
}

static PRIVATE: LazyLock<[PrivateKey; 3]> = LazyLock::new(|| {
    let mut rng = StdRng::seed_from_u64(1);
    let rsa = include_bytes!("../../../presets/keys/rsa-2048-test-key-1.pem");
    [
        PrivateKey::generate(public::KeyKind::Ed25519, &mut rng),
        PrivateKey::generate(public::KeyKind::P256, &mut rng),
        PrivateKey::parse(rsa).expect("the key of the tests"),
    ]
});

fn signs(provider: &Provider) {
    let params = provider.params.keys().map(|name| (name.clone(), "value".to_owned())).collect();
    let scheme = provider.scheme.with_params(&params);
    let secret = Secret::new(KEY);
    let (key, text) = match scheme.key_kind() {
        Some(KeyKind::Public(kind)) => {
            let key = PRIVATE.iter().find(|key| key.kind() == kind).expect("one of each kind");
            let text = key.public().text(public::PublicFormat::SpkiBase64).expect("every key has this form");
            (SigningKey::Private(key), text.into_bytes())
        }
        _ => (SigningKey::Shared(&secret), KEY.to_vec()),
    };
    let now = Wall::from_unix_s(1_700_000_000);
    let sample = provider.sample.clone().unwrap_or_else(|| b"{}".to_vec());
    let method = &provider.methods[0];
    let request = SignRequest { method, url: Some(URL), ..SignRequest::new(key, &sample, now) };
    let signature = match scheme.sign(&request) {
        Ok(signature) => signature,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let on_the_wire = signature.headers.iter().all(|(_, value)| HeaderValue::from_str(value).is_ok());
    if !on_the_wire {
        return;
    }
    let headers = headers(signature.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    let url = signature.url(URL);
    let query = url.split_once('?').map(|(_, query)| query);
    let body = signature.body.unwrap_or(sample);
    let seen = Seen { method, url: Some(&url), query, headers: &headers, token: signature.token.as_deref() };
    let ring = ring(&scheme, text).expect("a key of the right kind");
    let explanation = scheme.explain(seen, &ring, &body, now, provider.tolerance, 0);
    assert!(explanation.proof.is_ok(), "what it signed does not verify: {:?}", explanation.proof);
}
