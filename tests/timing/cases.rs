//! What is verified: for each kind of proof one request of each class.

use std::{collections::BTreeMap, hint::black_box};

use anyhow::{Context as _, Result, ensure};
use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use hookward::{
    preset::{self, Provider},
    secret::Secret,
    time::Wall,
    verify::{CredentialPlace, Encoding, Keyring, Scheme, SecretKey, Seen, SignRequest, SigningKey, encode_hex},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header::AUTHORIZATION};
use sha2::Sha256;

const NOW: Wall = Wall::from_unix_s(1_700_000_000);
const URL: &str = "https://hooks.example.com/hooks/measured?a=1";
/// Two secrets that count, and one that does not; all of one length.
const FIRST: &str = "whsec_Zmlyc3Qtc2VjcmV0LWZvci1tZWFzdXJlbWVudHMt";
const SECOND: &str = "whsec_c2Vjb25kLXNlY3JldC1mb3ItbWVhc3VyZW1lbnRz";
const OTHER: &str = "whsec_dW5rbm93bi1zZWNyZXQtZm9yLW1lYXN1cmVtZW50";

/// How a request relates to the secrets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// Signed with a secret that is not configured.
    OtherKey,
    /// Genuine, but for one byte of the body.
    OtherBody,
    /// Genuine, but for the first byte of the MAC or the credential: an unknown user.
    FirstByte,
    /// Genuine, but for the last byte: a known user with a wrong password.
    LastByte,
    /// The first of two secrets explains it.
    First,
    /// The second does.
    Second,
}

impl Class {
    /// Those that are refused, and those that are accepted.
    pub const GROUPS: [&[Self]; 2] =
        [&[Self::OtherKey, Self::OtherBody, Self::FirstByte, Self::LastByte], &[Self::First, Self::Second]];
}

impl Class {
    /// Every one.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::GROUPS.into_iter().flatten().copied()
    }
    /// One digit.
    pub fn number(self) -> String {
        (self as u8).to_string()
    }
}

/// A kind of proof.
pub struct Case {
    pub name: String,
    pub is_naive: bool,
    pub trials: BTreeMap<Class, Trial>,
}

impl Case {
    /// Each request is refused or accepted as its class says.
    pub fn check(&self) -> Result<()> {
        for (class, trial) in &self.trials {
            let expected = Class::GROUPS[1].contains(class);
            ensure!(trial.is_accepted() == expected, "{}: {class:?} is not {expected}", self.name);
        }
        ensure!(self.trials.len() >= 4, "{} has too few classes", self.name);
        Ok(())
    }
}

/// One request, and what judges it.
pub struct Trial {
    judge: Judge,
    method: Method,
    url: String,
    headers: HeaderMap,
    token: Option<String>,
    body: Vec<u8>,
}

#[derive(Clone)]
enum Judge {
    Scheme(Scheme, Keyring),
    /// What must not be done.
    Naive(Vec<Hmac<Sha256>>),
}

impl Trial {
    /// The same with memory of its own, down to the last byte: where the allocator puts it does not depend on the class.
    pub fn copy(&self) -> Self {
        let value = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).expect("it was one");
        Self {
            judge: self.judge.clone(),
            method: self.method.clone(),
            url: self.url.clone(),
            headers: self.headers.iter().map(|(name, shown)| (name.clone(), value(shown))).collect(),
            token: self.token.clone(),
            body: self.body.clone(),
        }
    }

    /// The verdict.
    pub fn is_accepted(&self) -> bool {
        match &self.judge {
            Judge::Scheme(scheme, keyring) => {
                let seen = Seen {
                    method: &self.method,
                    url: Some(&self.url),
                    query: self.url.split_once('?').map(|(_, query)| query),
                    headers: black_box(&self.headers),
                    token: self.token.as_deref(),
                };
                scheme.claim(seen).is_ok_and(|claim| scheme.verify(&claim, keyring, black_box(&self.body), NOW).is_ok())
            }
            Judge::Naive(keys) => self.is_naively_accepted(keys),
        }
    }

    fn is_naively_accepted(&self, keys: &[Hmac<Sha256>]) -> bool {
        let Some(offered) = self.headers.get("x-hub-signature-256").and_then(|value| value.to_str().ok()) else {
            return false;
        };
        keys.iter().any(|key| {
            let mut mac = key.clone();
            mac.update(black_box(&self.body));
            let expected = format!("sha256={}", encode_hex(&mac.finalize().into_bytes()));
            offered.len() == expected.len() && offered.bytes().zip(expected.bytes()).all(|(a, b)| black_box(a) == b)
        })
    }
}

/// A provider whose MAC stands in this header, behind the last of this text.
struct Signed {
    provider: &'static str,
    header: &'static str,
    before: &'static str,
    encoding: Encoding,
    covers_body: bool,
}

const SIGNED: [Signed; 9] = [
    signed("github", "x-hub-signature-256", "sha256=", Encoding::Hex),
    signed("stripe", "stripe-signature", "v1=", Encoding::Hex),
    signed("standard-webhooks", "webhook-signature", "v1,", Encoding::Base64),
    signed("twilio", "x-twilio-signature", "", Encoding::Base64),
    signed("shopify", "x-shopify-hmac-sha256", "", Encoding::Base64),
    signed("slack", "x-slack-signature", "v0=", Encoding::Hex),
    signed("github-sha1", "x-hub-signature", "sha1=", Encoding::Hex),
    signed("hubspot-v1", "x-hubspot-signature", "", Encoding::Hex),
    // The token is what is signed. It shows the digest of the body, so that another body is refused for what is no secret.
    Signed { covers_body: false, ..signed("vonage", "authorization", ".", Encoding::Base64Url) },
];

const fn signed(provider: &'static str, header: &'static str, before: &'static str, encoding: Encoding) -> Signed {
    Signed { provider, header, before, encoding, covers_body: true }
}

/// Every kind of proof.
pub fn all() -> Result<Vec<Case>> {
    let mut cases = SIGNED.iter().map(Signed::case).collect::<Result<Vec<_>>>()?;
    cases.push(credential("basic", &CredentialPlace::Basic)?);
    cases.push(credential("path token", &CredentialPlace::Token)?);
    cases.push(credential("header", &CredentialPlace::Header(HeaderName::from_static("x-api-key")))?);
    let mut naive = SIGNED[0].case()?;
    let key = |text: &str| Hmac::new_from_slice(text.as_bytes()).context("any length");
    let judge = Judge::Naive(vec![key(FIRST)?, key(SECOND)?]);
    naive.trials.values_mut().for_each(|trial| trial.judge = judge.clone());
    cases.push(Case { name: "naive".to_owned(), is_naive: true, ..naive });
    Ok(cases)
}

impl Signed {
    fn case(&self) -> Result<Case> {
        let provider = preset::find(self.provider).context("a preset")?;
        let params = provider.params.keys().map(|name| (name.clone(), "measured".to_owned())).collect();
        let scheme = provider.scheme.with_params(&params);
        let mut known = Vec::new();
        for (id, text) in [("first", FIRST), ("second", SECOND)] {
            let key = provider.key_format.decode(text.as_bytes())?;
            known.push(SecretKey { id: id.into(), key, not_before: None, expires_at: None });
        }
        let keyring = Keyring::new(known, &scheme).map_err(|(_, error)| error)?;
        let sent = |secret| sent(&provider, &scheme, &keyring, secret);
        let mut trials = BTreeMap::new();
        trials.insert(Class::First, sent(FIRST)?);
        trials.insert(Class::Second, sent(SECOND)?);
        trials.insert(Class::OtherKey, sent(OTHER)?);
        for (class, at) in [(Class::FirstByte, 0), (Class::LastByte, usize::MAX)] {
            let mut trial = sent(FIRST)?;
            let value = trial.headers.get_mut(self.header).context("the header")?;
            let text = value.to_str()?;
            // The last of an empty text would be at the end.
            let found = text.rfind(self.before).filter(|_| !self.before.is_empty());
            let start = found.map_or(0, |at| at + self.before.len());
            let mac = flipped(self.encoding, &text[start..], at)?;
            *value = HeaderValue::from_str(&format!("{}{mac}", &text[..start]))?;
            trials.insert(class, trial);
        }
        if self.covers_body {
            let mut trial = sent(FIRST)?;
            // Inside a string, so that it stays what it is.
            let at = trial.body.iter().rposition(u8::is_ascii_alphabetic).context("text in the body")?;
            trial.body[at] ^= 1;
            trials.insert(Class::OtherBody, trial);
        }
        Ok(Case { name: self.provider.to_owned(), is_naive: false, trials })
    }
}

/// A request signed with this secret, to a source that knows the first two.
fn sent(provider: &Provider, scheme: &Scheme, keyring: &Keyring, secret: &str) -> Result<Trial> {
    let key = provider.key_format.decode(secret.as_bytes())?;
    let method = provider.methods[0].clone();
    let body = provider.sample.as_deref().unwrap_or(b"{}").to_vec();
    let request =
        SignRequest { method: &method, url: Some(URL), ..SignRequest::new(SigningKey::Shared(&key), &body, NOW) };
    let signature = scheme.sign(&request)?;
    let mut headers = HeaderMap::new();
    for (name, value) in &signature.headers {
        headers.append(name, HeaderValue::from_str(value)?);
    }
    let url = signature.url(URL);
    let judge = Judge::Scheme(scheme.clone(), keyring.clone());
    Ok(Trial { judge, method, url, headers, token: None, body: signature.body.unwrap_or(body) })
}

/// The text of the MAC with one bit of that byte, or of the last, changed.
fn flipped(encoding: Encoding, text: &str, at: usize) -> Result<String> {
    let mut mac = match encoding {
        Encoding::Base64 => Base64::decode_vec(text).ok(),
        Encoding::Base64Url => Base64UrlUnpadded::decode_vec(text).ok(),
        Encoding::Hex | Encoding::HexAnyCase => {
            let digits = text.as_bytes().as_chunks::<2>().0;
            digits.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
        }
    }
    .with_context(|| format!("{text} is a MAC"))?;
    let at = at.min(mac.len() - 1);
    mac[at] ^= 1;
    Ok(match encoding {
        Encoding::Base64 => Base64::encode_string(&mac),
        Encoding::Base64Url => Base64UrlUnpadded::encode_string(&mac),
        Encoding::Hex | Encoding::HexAnyCase => encode_hex(&mac),
    })
}

/// A secret that is shown as it is, in a place that a preset or a guard names.
fn credential(name: &str, place: &CredentialPlace) -> Result<Case> {
    const FIRST: &str = "first-user:first-password";
    const SECOND: &str = "other-user:other-password";
    let scheme = Scheme::credential(place.clone());
    let keys = [("first", FIRST), ("second", SECOND)].map(|(id, text)| SecretKey {
        id: id.into(),
        key: Secret::new(text),
        not_before: None,
        expires_at: None,
    });
    let keyring = Keyring::new(keys.into(), &scheme).map_err(|(_, error)| error)?;
    let mut trials = BTreeMap::new();
    for (class, shown) in [
        (Class::First, FIRST),
        (Class::Second, SECOND),
        (Class::OtherKey, "nobody-knows:this-password"),
        (Class::FirstByte, "girst-user:first-password"),
        (Class::LastByte, "first-user:first-passwore"),
    ] {
        let shown = &format!("{shown:.25}");
        let mut headers = HeaderMap::new();
        let mut token = None;
        match place {
            CredentialPlace::Header(name) => drop(headers.insert(name, HeaderValue::from_str(shown)?)),
            CredentialPlace::Basic => {
                let text = format!("Basic {}", Base64::encode_string(shown.as_bytes()));
                headers.insert(AUTHORIZATION, HeaderValue::from_str(&text)?);
            }
            _ => token = Some(shown.clone()),
        }
        let judge = Judge::Scheme(scheme.clone(), keyring.clone());
        let body = b"{\"id\":\"evt_1\",\"type\":\"order.paid\"}".to_vec();
        trials.insert(class, Trial { judge, method: Method::POST, url: URL.to_owned(), headers, token, body });
    }
    Ok(Case { name: name.to_owned(), is_naive: false, trials })
}
