//! How often the bytes of a webhook go through a hash: once for each secret, and once for each digest that keys need.

use std::fmt::Write as _;

use super::*;
use crate::verify::{
    CredentialPlace, Scheme,
    hashing::{Pass, counted},
    public::{self, PrivateKey, PublicFormat},
};

const NOW: Wall = Wall::from_unix_s(1_700_000_000);
const URL: &str = "https://hooks.example.com/hooks/acme";

/// A key of the provider's kind, and what the ring of a source holds of it.
struct Pair {
    signing: Option<PrivateKey>,
    held: Secret,
}

/// The one that signs, and another.
fn pairs(scheme: &Scheme) -> [Pair; 2] {
    let Some(KeyKind::Public(kind)) = scheme.key_kind() else {
        let texts = ["a-secret-of-some-length", "another-secret-of-some-length"];
        return texts.map(|text| Pair { signing: None, held: Secret::new(text) });
    };
    // Those of RSA take long to make.
    let rsa = [
        include_bytes!("../../../tests/presets/keys/rsa-2048-test-key-1.pem").as_slice(),
        include_bytes!("../../../tests/presets/keys/rsa-2048-test-key-2.pem").as_slice(),
    ];
    rsa.map(|pem| {
        let private = match kind {
            public::KeyKind::Rsa => PrivateKey::parse(pem).expect("a key"),
            _ => PrivateKey::generate(kind, &mut rand::rng()),
        };
        let text = private.public().text(PublicFormat::SpkiBase64).expect("every key has it");
        Pair { signing: Some(private), held: Secret::new(text) }
    })
}

struct Request {
    method: Method,
    url: String,
    headers: Vec<(HeaderName, String)>,
    token: Option<String>,
    body: Vec<u8>,
}

impl Request {
    fn signed(provider: &Provider, scheme: &Scheme, pair: &Pair, body: &[u8], url: &str) -> Self {
        let key = pair.signing.as_ref().map_or(SigningKey::Shared(&pair.held), SigningKey::Private);
        let method = provider.methods[0].clone();
        let request = SignRequest { method: &method, url: Some(url), ..SignRequest::new(key, body, NOW) };
        let signature = scheme.sign(&request).unwrap_or_else(|error| panic!("{}: {error}", provider.name));
        let url = signature.url(URL);
        let body = signature.body.unwrap_or_else(|| body.to_vec());
        Self { method, url, headers: signature.headers, token: signature.token, body }
    }

    fn seen<'a>(&'a self, headers: &'a HeaderMap) -> Seen<'a> {
        let query = self.url.split_once('?').map(|(_, query)| query);
        Seen { method: &self.method, url: Some(&self.url), query, headers, token: self.token.as_deref() }
    }

    fn header_map(&self) -> HeaderMap {
        header_map(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
    }

    fn explain(&self, scheme: &Scheme, ring: &Keyring) -> Explanation {
        scheme.explain(self.seen(&self.header_map()), ring, &self.body, NOW, None, 0)
    }

    /// Whether it verifies, and each pass that `claim` and `verify` make.
    fn passes(&self, scheme: &Scheme, ring: &Keyring) -> (bool, Vec<(Pass, usize)>) {
        let headers = self.header_map();
        counted(|| {
            let claim = scheme.claim(self.seen(&headers)).expect("a claim");
            scheme.verify(&claim, ring, &self.body, NOW).is_ok()
        })
    }

    /// The genuine request with two more signatures before its own, where the provider's form allows several.
    fn among_others(&self, provider: &Provider, scheme: &Scheme, ring: &Keyring, pair: &Pair) -> Option<Self> {
        let names = &provider.scheme.description().headers;
        let signing = names.first()?.as_str().replace("-*", "-1");
        let text = |request: &Self| {
            let found = request.headers.iter().find(|(name, _)| *name == signing.as_str());
            found.expect("it was signed").1.clone()
        };
        // Genuine as well, and of other bodies: a member more, a field more, or a byte more.
        let sample = provider.sample.clone().unwrap_or_default();
        let others = ["1", "22"].map(|more| {
            let body = match sample.split_first() {
                Some((b'{', rest)) => [format!("{{\"zz\":{more},").as_bytes(), rest].concat(),
                Some((b'[', rest)) => [format!("[{{\"zz\":{more}}},").as_bytes(), rest].concat(),
                _ => [&sample[..], b"&Zz=", more.as_bytes()].concat(),
            };
            Self::signed(provider, scheme, pair, &body, URL)
        });
        let texts = [text(&others[0]), text(&others[1]), text(self)];
        let with = |headers: Vec<(HeaderName, String)>| {
            let kept = self.headers.iter().filter(|(name, _)| *name != signing.as_str()).cloned();
            let headers = kept.chain(headers).collect();
            let (method, url, token) = (self.method.clone(), self.url.clone(), self.token.clone());
            Self { method, url, headers, token, body: self.body.clone() }
        };
        let mut forms = Vec::new();
        for separator in [",", ";", " ", "&", "|", ", "] {
            let mut items: Vec<&str> = Vec::new();
            for item in texts.iter().flat_map(|text| text.split(separator)) {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            let name = HeaderName::try_from(signing.as_str()).expect("a name");
            forms.push(with(vec![(name, items.join(separator))]));
        }
        let numbered = |name: &HeaderName| match name.as_str().strip_suffix("-*") {
            Some(stem) => (1..=3).map(|n| format!("{stem}-{n}")).collect(),
            None => vec![name.to_string()],
        };
        let names: Vec<String> = names.iter().flat_map(numbered).collect();
        if names.len() >= 3 {
            let names = names.into_iter().map(|name| HeaderName::try_from(name).expect("a name"));
            forms.push(with(names.zip(texts.clone()).collect()));
        }
        forms.into_iter().find(|form| {
            let explained = form.explain(scheme, ring);
            explained.proof.is_ok() && explained.places.len() == 3
        })
    }
}

fn ring(scheme: &Scheme, held: &[&Secret]) -> Keyring {
    let key = |(i, key): (usize, &&Secret)| SecretKey {
        id: format!("{i}").into(),
        key: (*key).clone(),
        not_before: None,
        expires_at: None,
    };
    Keyring::new(held.iter().enumerate().map(key).collect(), scheme).expect("of the right kind")
}

fn bytes_of(passes: &[(Pass, usize)], wanted: Pass) -> Vec<usize> {
    passes.iter().filter(|(pass, _)| *pass == wanted).map(|(_, bytes)| *bytes).collect()
}

/// Whether all of the body goes into what is signed, rather than a digest of it.
fn has_body(content: &str) -> bool {
    ["{body}", "{form-sorted}", "{body-json-string}"].iter().any(|part| content.contains(part))
}

#[test]
fn a_body_is_hashed_once_for_each_secret_and_once_for_each_digest() {
    let mut counts = String::new();
    for provider in all() {
        let params = provider.params.keys().map(|name| (name.clone(), "value".to_owned())).collect();
        let scheme = provider.scheme.with_params(&params);
        let [pair, other] = pairs(&scheme);
        // The one that matches stands behind the other, so that every pass there can be is made.
        let two = ring(&scheme, &[&other.held, &pair.held]);
        let body = provider.sample.clone().expect("every preset has a sample");
        let genuine = Request::signed(&provider, &scheme, &pair, &body, URL);
        let several = genuine.among_others(&provider, &scheme, &two, &pair);
        let request = several.as_ref().unwrap_or(&genuine);
        let candidates = if several.is_some() { 3 } else { 1 };

        let (valid, passes) = request.passes(&scheme, &two);
        assert!(valid, "{}", provider.name);
        let description = scheme.description();
        let signed_bytes = request.explain(&scheme, &two).signed_bytes;
        let body_is_signed = scheme.is_signed() && !matches!(scheme.name(), "jwt") && has_body(&description.content);

        // For keys: the body once, and the signed content once unless it is the body.
        assert_eq!(bytes_of(&passes, Pass::Body), [request.body.len()], "{}", provider.name);
        let bound = if scheme.covers_body() { 0 } else { 32 };
        let of_content =
            if !scheme.is_signed() || description.content == "{body}" { vec![] } else { vec![signed_bytes + bound] };
        assert_eq!(bytes_of(&passes, Pass::Content), of_content, "{}", provider.name);

        // For signatures: once for each secret, however many signatures there are.
        let proofs = match scheme.key_kind() {
            _ if !scheme.is_signed() => 0,
            Some(KeyKind::Shared) | None => 2,
            // The signature itself goes into the hash before the content does.
            Some(KeyKind::Public(public::KeyKind::Ed25519)) => 2 * candidates,
            // The content is hashed without the key.
            Some(KeyKind::Public(_)) => 1,
        };
        let hashed = if description.content.contains("{secret}") {
            [&other, &pair].map(|pair| signed_bytes + pair.held.len()).to_vec()
        } else {
            vec![signed_bytes; proofs]
        };
        assert_eq!(bytes_of(&passes, Pass::Proof), hashed, "{}", provider.name);

        // A forgery costs no more.
        let neither = ring(&scheme, &[&other.held, &other.held]);
        if scheme.needs_secret() {
            let (valid, passes) = genuine.passes(&scheme, &neither);
            let forms = if tries_two_urls(&provider) { 2 } else { 1 };
            assert!(!valid, "{}", provider.name);
            let found = bytes_of(&passes, Pass::Proof).len();
            assert!(found <= proofs.min(2) * forms, "{}: {found}", provider.name);
            assert_eq!(bytes_of(&passes, Pass::Content), [0_usize; 0], "{}", provider.name);
        }

        let of_body = |passes: usize| if body_is_signed { passes } else { 0 };
        // What is shown is of one secret and one signature, as a source has them mostly.
        let lone = genuine.passes(&scheme, &ring(&scheme, &[&pair.held])).1;
        let count = |pass| bytes_of(&lone, pass).len();
        let _ = writeln!(
            counts,
            "{}: {}, {}",
            provider.name,
            of_body(count(Pass::Proof)),
            count(Pass::Body) + of_body(count(Pass::Content))
        );
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../../tests/bench");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("passes", counts));
}

/// Its URL may be signed with its port or without, and the second form is tried if the first explains nothing.
fn tries_two_urls(provider: &Provider) -> bool {
    let text = SHIPPED.iter().find(|(name, _)| *name == &*provider.name).expect("it ships").1;
    text.contains("\nurl_port = \"tolerant\"")
}

#[test]
fn the_second_form_of_a_url_costs_a_second_pass_and_only_where_the_first_fails() {
    let tolerant: Vec<_> = all().into_iter().filter(|provider| tries_two_urls(provider)).collect();
    assert!(!tolerant.is_empty());
    for provider in tolerant {
        let [pair, other] = pairs(&provider.scheme);
        let two = ring(&provider.scheme, &[&other.held, &pair.held]);
        let body = provider.sample.clone().expect("every preset has a sample");
        for (signed_for, proofs) in [(URL, 2), ("https://hooks.example.com:443/hooks/acme", 4)] {
            let request = Request::signed(&provider, &provider.scheme, &pair, &body, signed_for);
            let (valid, passes) = request.passes(&provider.scheme, &two);
            assert!(valid, "{} {signed_for}", provider.name);
            let counts = [Pass::Proof, Pass::Body, Pass::Content].map(|pass| bytes_of(&passes, pass).len());
            assert_eq!(counts, [proofs, 1, 1], "{} {signed_for}", provider.name);
        }
    }
}

#[test]
fn a_match_costs_the_same_wherever_the_secret_stands() {
    for provider in all() {
        let params = provider.params.keys().map(|name| (name.clone(), "value".to_owned())).collect();
        let scheme = provider.scheme.with_params(&params);
        if !scheme.is_signed() || scheme.key_kind() != Some(KeyKind::Shared) {
            continue;
        }
        let [pair, other] = pairs(&scheme);
        let body = provider.sample.clone().expect("every preset has a sample");
        let request = Request::signed(&provider, &scheme, &pair, &body, URL);
        let proofs = |held: [&Secret; 2]| {
            let (valid, passes) = request.passes(&scheme, &ring(&scheme, &held));
            assert!(valid, "{}", provider.name);
            bytes_of(&passes, Pass::Proof).len()
        };
        let both = (proofs([&pair.held, &other.held]), proofs([&other.held, &pair.held]));
        assert_eq!(both, (2, 2), "{}", provider.name);
    }
}

#[test]
fn a_credential_is_compared_without_the_body() {
    let scheme = Scheme::credential(CredentialPlace::Token);
    let headers = HeaderMap::new();
    let seen = Seen { method: &Method::POST, url: None, query: None, headers: &headers, token: Some("a-token") };
    let keys = ring(&scheme, &[&Secret::new("another"), &Secret::new("a-token")]);
    let (valid, passes) = counted(|| {
        let claim = scheme.claim(seen).expect("a claim");
        scheme.verify(&claim, &keys, b"body", NOW).is_ok()
    });
    assert!(valid);
    assert_eq!(passes, [(Pass::Body, 4)], "for keys");
}
