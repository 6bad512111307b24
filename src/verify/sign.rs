//! Signing: the request that a genuine sender would have made. For `sign`, `send`, `demo`, tests, and the
//! signature towards upstreams.

use std::fmt;

use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header::AUTHORIZATION};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    Algorithm, Claim, Place, Refusal, Seen,
    claim::{CLAIM_BYTES_MAX, Own},
    encode_hex, mac_once,
    public::{self, PrivateKey},
    scheme::{CredentialPlace, Grammar, JwtSpec, Kind, Scheme, SignaturePlace, Signed, TimeUnit, Whom},
    template::Part,
};
use crate::{secret::Secret, time::Wall};

/// What it is signed with.
#[derive(Clone, Copy, Debug)]
pub enum SigningKey<'a> {
    /// Key bytes, decoded by the key format; of a credential, the secret itself.
    Shared(&'a Secret),
    /// The private half of a provider's key.
    Private(&'a PrivateKey),
}

/// What is to be signed, and with what.
#[derive(Clone, Debug)]
pub struct SignRequest<'a> {
    /// The key.
    pub key: SigningKey<'a>,
    /// The method.
    pub method: &'a Method,
    /// The URL as the provider knows it; where it is signed.
    pub url: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
    /// The signed time, where the scheme has one.
    pub at: Wall,
    /// The signed id, where the scheme has one.
    pub id: &'a str,
    /// The signed nonce, where the scheme has one.
    pub nonce: &'a str,
    /// Other headers that the signed content may name.
    pub headers: &'a [(HeaderName, String)],
}

impl<'a> SignRequest<'a> {
    /// A POST of this body now, without an id of its own.
    pub const fn new(key: SigningKey<'a>, body: &'a [u8], at: Wall) -> Self {
        Self { key, method: &Method::POST, url: None, body, at, id: "msg_1", nonce: "1", headers: &[] }
    }
}

/// What goes with the body. A credential is in it as it is, so `Debug` shows names only.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Signature {
    /// Headers to add.
    pub headers: Vec<(HeaderName, String)>,
    /// The segment for `{token}` in the path.
    pub token: Option<String>,
    /// Parameters to add to the query.
    pub query: Vec<(String, String)>,
    /// The body, where the proof stands in it.
    pub body: Option<Vec<u8>>,
}

impl Signature {
    /// The URL with the parameters that belong to it.
    pub fn url(&self, url: &str) -> String {
        with_query(url, &self.query)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.headers.iter().map(|(name, _)| name)).finish()
    }
}

/// Why nothing could be signed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignError {
    /// The scheme needs the other kind of key.
    #[error("signatures of this provider are not made with such a key")]
    OtherKey,
    /// The proof stands in the body, and the body is not of that form.
    #[error("the proof stands in the body, at {0}, and the body has no such place")]
    Body(String),
    /// The scheme signs something that the request does not have.
    #[error("the signed content is incomplete: {0}")]
    Incomplete(Refusal),
    /// The URL is signed, and there is none.
    #[error("this provider signs the URL, and none is given")]
    NoUrl,
}

impl Scheme {
    /// What makes a request authentic under this scheme.
    pub fn sign(&self, request: &SignRequest<'_>) -> Result<Signature, SignError> {
        match &self.0 {
            Kind::Signed(signed) => signed.sign(request),
            Kind::Credential { place, .. } => {
                let SigningKey::Shared(secret) = request.key else { return Err(SignError::OtherKey) };
                let shown = String::from_utf8_lossy(secret.expose()).into_owned();
                let mut signature = Signature::default();
                match place {
                    CredentialPlace::Header(name) => signature.headers.push((name.clone(), shown)),
                    CredentialPlace::Basic => {
                        let value = format!("Basic {}", Base64::encode_string(secret.expose()));
                        signature.headers.push((AUTHORIZATION, value));
                    }
                    CredentialPlace::Token => signature.token = Some(shown),
                    CredentialPlace::Query(name) => signature.query.push((name.clone(), shown)),
                    CredentialPlace::Json(pointer) => {
                        signature.body = Some(set_json(request.body, &pointer.replace("/*", "/0"), &shown)?);
                    }
                }
                Ok(signature)
            }
            Kind::Nothing => Ok(Signature::default()),
        }
    }
}

impl Signed {
    fn sign(&self, request: &SignRequest<'_>) -> Result<Signature, SignError> {
        let mut made = Made { body: request.body.to_vec(), ..Made::default() };
        let time = self.timestamp.as_ref().map(|(place, unit)| (place, time_text(request.at, *unit)));
        let id = self.id.as_ref().map(|place| (place, request.id.to_owned()));
        let nonce = self.nonce.as_ref().map(|place| (place, request.nonce.to_owned()));
        // In this order: ids stand first where they share a header.
        for (place, value) in [id, time, nonce].into_iter().flatten() {
            made.put(place, value)?;
        }
        made.headers.extend(self.requires.iter().cloned());
        made.headers.extend(request.headers.iter().cloned());
        for part in self.content.parts() {
            if let Part::At(place @ Place::Header(name), false) = part
                && !made.headers.iter().any(|(known, _)| known == name)
            {
                made.put(place, request.id.to_owned())?;
            }
        }
        let body_hash = |body: &[u8]| {
            self.body_hash.as_ref().map(|hash| (&hash.place, hash.encoding.encode(&Sha256::digest(body))))
        };
        if let Some((place, digest)) = body_hash(&made.body).filter(|(place, _)| !place.is_in_signature()) {
            made.put(place, digest)?;
        }
        let url = request.url.map(|url| with_query(url, &made.query));
        if url.is_none() && self.needs_url() {
            return Err(SignError::NoUrl);
        }
        if let Grammar::Jwt { prefix, jwt } = &self.grammar {
            let hash = body_hash(&made.body).filter(|(place, _)| place.is_in_signature());
            let claims = self.claims(jwt, request, url.as_deref(), hash);
            let token = compact(jwt, &claims, request.key)?;
            self.put_signature(&mut made, format!("{prefix}{token}"))?;
            return Ok(made.signature(request.body));
        }
        if self.place.is_in_body() {
            let least = *self.algorithm(&Claim::empty()).lengths().start();
            let placeholder = self.encoding.encode(&vec![0; least]);
            let text = self.signature_text(&made.own, &placeholder);
            self.put_signature(&mut made, text)?;
        }
        let head = made.head();
        let query = url.as_deref().and_then(|url| url.split_once('?')).map(|(_, query)| query.to_owned());
        let query = query.or_else(|| with_query("", &made.query).strip_prefix('?').map(str::to_owned));
        let seen =
            Seen { method: request.method, url: url.as_deref(), query: query.as_deref(), headers: &head, token: None };
        let mut claim = Claim::empty();
        self.read_head(seen, &made.own, CLAIM_BYTES_MAX, &mut claim).map_err(SignError::Incomplete)?;
        let content = self.content(&claim, &made.body).map_err(SignError::Incomplete)?;
        let algorithm = self.algorithm(&claim);
        let bytes = match request.key {
            SigningKey::Shared(secret) if algorithm.key_kind() == super::KeyKind::Shared => {
                mac_once(secret, algorithm, content.segments(0, secret.expose()))
            }
            SigningKey::Private(key) => sign_with(key, algorithm, content.segments(0, b""))?,
            SigningKey::Shared(_) => return Err(SignError::OtherKey),
        };
        let text = self.signature_text(&made.own, &self.encoding.encode(&bytes));
        drop(content);
        self.put_signature(&mut made, text)?;
        Ok(made.signature(request.body))
    }

    fn needs_url(&self) -> bool {
        self.content.has(&Part::Url) || self.content.has(&Part::UrlNoQuery) || self.grammar.needs_url()
    }

    /// The text that holds the signature, and the values that stand beside it.
    fn signature_text(&self, own: &Own, signature: &str) -> String {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        match &self.grammar {
            Grammar::Plain { prefix } | Grammar::List { prefix, .. } => format!("{prefix}{signature}"),
            Grammar::Fields { separator, signature: key, .. } => {
                let fields = own.iter().filter_map(|(place, value)| match place {
                    Place::Field(name) => Some(format!("{name}={}{separator}", text(value))),
                    _ => None,
                });
                format!("{}{key}={signature}", fields.collect::<String>())
            }
            Grammar::Positional { separator } => {
                let mut items = vec![signature.to_owned()];
                let mut named: Vec<_> = own
                    .iter()
                    .filter_map(|(place, value)| match place {
                        Place::Position(index) => Some((*index, text(value))),
                        _ => None,
                    })
                    .collect();
                named.sort();
                for (index, value) in named {
                    items.insert(index.min(items.len()), value);
                }
                items.join(&separator.to_string())
            }
            Grammar::Keyed { assign, param, .. } => format!("{param}{assign}{signature}"),
            Grammar::Base64Json { pointer } => {
                let document = set_json(b"{}", pointer, signature).unwrap_or_default();
                Base64::encode_string(&document)
            }
            Grammar::Jwt { .. } => String::new(),
        }
    }

    fn put_signature(&self, made: &mut Made, text: String) -> Result<(), SignError> {
        match &self.place {
            SignaturePlace::Headers(_) => {
                if let Some((Place::Header(name), _)) = self.sources.first() {
                    made.headers.push((name.clone(), text));
                }
                Ok(())
            }
            SignaturePlace::At(place) => made.put(place, text),
        }
    }

    fn claims(
        &self,
        jwt: &JwtSpec,
        request: &SignRequest<'_>,
        url: Option<&str>,
        body_hash: Option<(&Place, String)>,
    ) -> Value {
        let whom = |whom: &Whom| match whom {
            Whom::Text(text) => text.clone(),
            Whom::Url => url.unwrap_or_default().to_owned(),
            Whom::Param(_) => String::new(),
        };
        let now_s = request.at.unix_s();
        let mut claims = serde_json::Map::new();
        let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        if let Some(issuer) = &jwt.issuer {
            set("iss", json!(whom(issuer)));
        }
        if let Some(audience) = &jwt.audience {
            set("aud", json!(whom(audience)));
        }
        set("iat", json!(now_s));
        if jwt.nbf {
            set("nbf", json!(now_s));
        }
        if jwt.exp {
            set("exp", json!(now_s + 60));
        }
        if let Some(name) = &jwt.url_hash {
            set(name, json!(encode_hex(&Sha256::digest(url.unwrap_or_default().as_bytes()))));
        }
        for (place, value) in [(&self.id, request.id), (&self.nonce, request.nonce)] {
            if let Some(Place::Claim(name)) = place {
                set(name, json!(value));
            }
        }
        if let Some((Place::Claim(name), digest)) = body_hash {
            set(name, json!(digest));
        }
        Value::Object(claims)
    }
}

/// A request in the making.
#[derive(Default)]
struct Made {
    headers: Vec<(HeaderName, String)>,
    query: Vec<(String, String)>,
    /// What stands beside the signature in its own text.
    own: Own,
    body: Vec<u8>,
}

impl Made {
    fn put(&mut self, place: &Place, value: String) -> Result<(), SignError> {
        match place {
            Place::Header(name) => self.headers.push((name.clone(), value)),
            Place::Query(key) => self.query.push((key.clone(), value)),
            Place::Field(_) | Place::Position(_) | Place::Claim(_) => {
                self.own.push((place.clone(), value.into_bytes()));
            }
            Place::Json(pointer) => self.body = set_json(&self.body, pointer, &value)?,
            Place::Form(key) => self.body = set_form(&self.body, key, &value),
        }
        Ok(())
    }
    fn head(&self) -> HeaderMap {
        let headers = self.headers.iter();
        headers
            .filter_map(|(name, value)| Some((name.clone(), HeaderValue::from_bytes(value.as_bytes()).ok()?)))
            .collect()
    }
    fn signature(self, before: &[u8]) -> Signature {
        let body = (self.body != before).then_some(self.body);
        Signature { headers: self.headers, token: None, query: self.query, body }
    }
}

fn time_text(at: Wall, unit: TimeUnit) -> String {
    match unit {
        TimeUnit::Seconds => at.unix_s().to_string(),
        TimeUnit::Milliseconds => at.unix_ms().to_string(),
        TimeUnit::Microseconds => (at.unix_ns() / 1_000).to_string(),
        TimeUnit::Nanoseconds => at.unix_ns().to_string(),
        TimeUnit::Rfc3339 => jiff::Timestamp::from_second(at.unix_s()).unwrap_or_default().to_string(),
    }
}

fn compact(jwt: &JwtSpec, claims: &Value, key: SigningKey<'_>) -> Result<String, SignError> {
    let algorithm = jwt.algorithms.first().copied().unwrap_or(Algorithm::HmacSha256);
    let name = Algorithm::JWT.iter().find(|(_, known)| *known == algorithm).map_or("", |(name, _)| name);
    let encode = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    let input = format!("{}.{}", encode(&json!({ "alg": name, "typ": "JWT" })), encode(claims));
    let segments = || std::iter::once(input.as_bytes());
    let signature = match key {
        SigningKey::Shared(secret) if algorithm.key_kind() == super::KeyKind::Shared => {
            mac_once(secret, algorithm, segments())
        }
        SigningKey::Private(key) => sign_with(key, algorithm, segments())?,
        SigningKey::Shared(_) => return Err(SignError::OtherKey),
    };
    Ok(format!("{input}.{}", Base64UrlUnpadded::encode_string(&signature)))
}

fn sign_with<'a>(
    key: &PrivateKey,
    algorithm: Algorithm,
    segments: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, SignError> {
    let algorithm = algorithm.public().ok_or(SignError::OtherKey)?;
    key.sign(&public::Content::new(algorithm, segments), &mut rand::rng()).map_err(|_| SignError::OtherKey)
}

fn with_query(url: &str, more: &[(String, String)]) -> String {
    if more.is_empty() {
        return url.to_owned();
    }
    let added = form_urlencoded::Serializer::new(String::new()).extend_pairs(more).finish();
    let join = if url.contains('?') { '&' } else { '?' };
    format!("{url}{join}{added}")
}

/// The document with this text at the pointer; a number stays one. Objects on the way are made.
fn set_json(body: &[u8], pointer: &str, value: &str) -> Result<Vec<u8>, SignError> {
    let wrong = || SignError::Body(pointer.to_owned());
    let mut document: Value = serde_json::from_slice(body).map_err(|_| wrong())?;
    let mut here = &mut document;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        here = match here {
            Value::Array(items) => step.parse().ok().and_then(|index: usize| items.get_mut(index)).ok_or_else(wrong)?,
            Value::Object(members) => members.entry(step).or_insert_with(|| json!({})),
            _ => return Err(wrong()),
        };
    }
    let number = here.is_number().then(|| value.parse::<i64>().ok()).flatten();
    *here = number.map_or_else(|| json!(value), |number| json!(number));
    serde_json::to_vec(&document).map_err(|_| wrong())
}

/// The form with this field.
fn set_form(body: &[u8], key: &str, value: &str) -> Vec<u8> {
    let others = form_urlencoded::parse(body).filter(|(other, _)| other != key);
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(others).append_pair(key, value);
    form.finish().into_bytes()
}
