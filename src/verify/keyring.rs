//! The secrets of a source, prepared for verification.

use std::{fmt, sync::Arc};

use base64ct::{Base64Unpadded, Encoding as _};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::{Choice, ConstantTimeEq as _};
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use super::{
    Algorithm, Candidate, KeyKind, Scheme,
    content::Content,
    encoding::decode_hex,
    public::{self, PublicKey},
};
use crate::{secret::Secret, time::Wall};

/// How the text of a secret becomes key bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyFormat {
    /// The text as it is.
    Utf8,
    /// Base64, standard alphabet, padding optional.
    Base64,
    /// As `Base64`, behind the prefix `whsec_` or `v1,whsec_`, which may be missing.
    Whsec,
    /// Hexadecimal.
    Hex,
    /// The text in Unicode's compatibility decomposition (NFKD).
    Utf8Nfkd,
    /// The SHA-1 of the text.
    Sha1OfUtf8,
    /// A public key as PEM, with or without line ends.
    Pem,
    /// A public key as base64 of its `SubjectPublicKeyInfo`.
    SpkiBase64,
    /// An Ed25519 public key as hexadecimal.
    Ed25519Hex,
    /// An Ed25519 public key as base64, also behind `whpk_`.
    Ed25519Base64,
    /// A public key as a JSON Web Key.
    Jwk,
}

/// Why the text of a secret is no key. Says nothing of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// There is nothing in it.
    #[error("the secret is empty")]
    Empty,
    /// Another character, or a length that no bytes have.
    #[error("the secret is not valid base64")]
    NotBase64,
    /// Another character, or an odd length.
    #[error("the secret is not valid hexadecimal")]
    NotHex,
    /// Bytes that are no UTF-8.
    #[error("the secret is not text")]
    NotText,
    /// What should be a public key is none.
    #[error(transparent)]
    Public(#[from] public::PublicKeyError),
    /// A public key of another kind.
    #[error("it is {}, and the provider's signatures need {}", .found.name(), .needed.name())]
    OtherKind {
        /// What it is.
        found: KeyKind,
        /// What the scheme checks signatures with.
        needed: KeyKind,
    },
}

impl KeyError {
    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Empty => "give it the secret that the provider shows",
            Self::NotBase64 => {
                "copy it whole, in the standard alphabet (A-Z a-z 0-9 + /); if it is plain text, set encoding = \"utf8\""
            }
            Self::NotHex => {
                "copy it whole: an even number of the digits 0-9 a-f; if it is plain text, set encoding = \"utf8\""
            }
            Self::NotText => "save it as UTF-8",
            Self::Public(error) => error.advice(),
            Self::OtherKind { .. } => "copy the key that this provider publishes for its webhooks",
        }
    }
}

impl KeyFormat {
    /// All of them, by the name they have in a configuration.
    pub const ALL: [(&'static str, Self); 11] = [
        ("utf8", Self::Utf8),
        ("base64", Self::Base64),
        ("whsec", Self::Whsec),
        ("hex", Self::Hex),
        ("utf8-nfkd", Self::Utf8Nfkd),
        ("sha1-of-utf8", Self::Sha1OfUtf8),
        ("pem", Self::Pem),
        ("spki-base64", Self::SpkiBase64),
        ("ed25519-hex", Self::Ed25519Hex),
        ("ed25519-base64", Self::Ed25519Base64),
        ("jwk", Self::Jwk),
    ];

    /// Whether it is a public key, which is no secret.
    pub const fn is_public(self) -> bool {
        self.public().is_some()
    }

    /// The format of the public key that it is.
    pub(super) const fn public(self) -> Option<public::PublicFormat> {
        Some(match self {
            Self::Pem => public::PublicFormat::Pem,
            Self::SpkiBase64 => public::PublicFormat::SpkiBase64,
            Self::Ed25519Hex => public::PublicFormat::Ed25519Hex,
            Self::Ed25519Base64 => public::PublicFormat::Ed25519Base64,
            Self::Jwk => public::PublicFormat::Jwk,
            _ => return None,
        })
    }

    /// The stable name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }

    /// Key bytes from the text of a secret. Never empty: an empty key would verify what anybody signs.
    pub fn decode(self, text: &[u8]) -> Result<Secret, KeyError> {
        if let Some(format) = self.public() {
            let key = PublicKey::parse(format, text)?;
            return Ok(Secret::new(key.text(public::PublicFormat::SpkiBase64).unwrap_or_default()));
        }
        let key = match self {
            Self::Utf8Nfkd => {
                let text = std::str::from_utf8(text).map_err(|_| KeyError::NotText)?;
                Secret::new(text.nfkd().collect::<String>())
            }
            Self::Sha1OfUtf8 if text.is_empty() => return Err(KeyError::Empty),
            Self::Sha1OfUtf8 => Secret::new(Sha1::digest(text).to_vec()),
            Self::Pem | Self::SpkiBase64 | Self::Ed25519Hex | Self::Ed25519Base64 | Self::Jwk | Self::Utf8 => {
                Secret::new(text)
            }
            Self::Base64 => decode_base64(text)?,
            Self::Whsec => {
                let text = text.strip_prefix(b"v1,").unwrap_or(text);
                decode_base64(text.strip_prefix(b"whsec_").unwrap_or(text))?
            }
            Self::Hex => Secret::new(decode_hex(text, true).ok_or(KeyError::NotHex)?),
        };
        if key.is_empty() { Err(KeyError::Empty) } else { Ok(key) }
    }
}

/// Secrets come from people and from libraries that leave out padding and ignore unused bits, so this is lenient
/// where signatures are strict: the text is filled up to whole groups and the surplus cut off again.
fn decode_base64(text: &[u8]) -> Result<Secret, KeyError> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = &text[..text.len() - padding];
    if padding > 2 || digits.len() % 4 == 1 || (padding > 0 && !text.len().is_multiple_of(4)) {
        return Err(KeyError::NotBase64);
    }
    let mut filled = Zeroizing::new(digits.to_vec());
    filled.resize(digits.len().next_multiple_of(4), b'A');
    let mut bytes = Zeroizing::new(vec![0; filled.len()]);
    let decoded = Base64Unpadded::decode(&*filled, &mut bytes).map_err(|_| KeyError::NotBase64)?;
    Ok(Secret::new(&decoded[..digits.len() * 3 / 4]))
}

/// One secret with its life.
#[derive(Clone, Debug)]
pub struct SecretKey {
    /// What logs and metrics call it.
    pub id: Arc<str>,
    /// Key bytes, already decoded by the key format; of a public key its `SubjectPublicKeyInfo` in base64.
    pub key: Secret,
    /// Not used before this time.
    pub not_before: Option<Wall>,
    /// Not used from this time on.
    pub expires_at: Option<Wall>,
}

impl SecretKey {
    /// Whether it counts at this time.
    pub fn is_live(&self, now: Wall) -> bool {
        self.not_before.is_none_or(|from| from <= now) && self.expires_at.is_none_or(|until| now < until)
    }
}

/// All secrets of a source. Every live one is tried against every signature. Cheap to clone.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: Arc<[SecretKey]>,
    prepared: Arc<[Prepared]>,
}

/// What is computed once per secret. As secret as the secret.
struct Prepared {
    plain: [u8; 32],
    /// For each algorithm of the scheme.
    states: Vec<(Algorithm, State)>,
}

enum State {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
    /// The secret is a part of what is hashed.
    Hashed(Secret),
    Public(PublicKey),
}

impl Keyring {
    /// A ring of these keys for this scheme, tried in this order. The first key that is none for the scheme is the
    /// error, with its position.
    pub fn new(keys: Vec<SecretKey>, scheme: &Scheme) -> Result<Self, (usize, KeyError)> {
        let algorithms: &[Algorithm] = scheme.as_signed().map_or(&[], |signed| &signed.algorithms);
        let prepare = |(i, key): (usize, &SecretKey)| Prepared::new(&key.key, algorithms).map_err(|error| (i, error));
        let prepared = keys.iter().enumerate().map(prepare).collect::<Result<_, _>>()?;
        Ok(Self { keys: keys.into(), prepared })
    }
    /// The keys.
    pub fn keys(&self) -> &[SecretKey] {
        &self.keys
    }
    /// The first key that counts at this time.
    pub fn first_live(&self, now: Wall) -> Option<&SecretKey> {
        self.live(now).next().map(|index| &self.keys[index])
    }
    /// Positions of the keys that count at this time.
    pub(super) fn live(&self, now: Wall) -> impl Iterator<Item = usize> {
        self.keys.iter().enumerate().filter(move |(_, key)| key.is_live(now)).map(|(i, _)| i)
    }
    /// The MAC, or the hash with the secret in it, over this form of the content.
    pub(super) fn mac(&self, index: usize, algorithm: Algorithm, content: &Content<'_>, form: usize) -> Tag {
        self.prepared[index].mac(algorithm, |secret| content.segments(form, secret))
    }
    /// Whether the public key explains the signature.
    pub(super) fn verifies(&self, index: usize, content: &public::Content<'_>, signature: &[u8]) -> bool {
        self.prepared[index].states.iter().any(|(_, state)| match state {
            State::Public(key) => key.verify(content, signature).is_ok(),
            _ => false,
        })
    }
    /// Whether this secret explains this signature, whatever the time.
    pub(super) fn explains(
        &self,
        index: usize,
        algorithm: Algorithm,
        content: &Content<'_>,
        form: usize,
        candidate: &Candidate,
    ) -> Choice {
        match algorithm.public() {
            None => candidate.bytes.ct_eq(&self.mac(index, algorithm, content, form)),
            Some(algorithm) => {
                let signed = public::Content::new(algorithm, content.segments(form, b""));
                Choice::from(u8::from(self.verifies(index, &signed, &candidate.bytes)))
            }
        }
    }
    /// SHA-256 of the secret itself, for credentials.
    pub(super) fn plain_digest(&self, index: usize) -> &[u8; 32] {
        &self.prepared[index].plain
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.keys).finish()
    }
}

/// A MAC or a hash: of 20 to 64 bytes. One that nothing could be computed of is empty, and matches nothing.
pub(super) struct Tag {
    bytes: [u8; 64],
    length: usize,
}

impl Tag {
    fn new(bytes: &[u8]) -> Self {
        let mut tag = Self { bytes: [0; 64], length: bytes.len() };
        tag.bytes[..bytes.len()].copy_from_slice(bytes);
        tag
    }
}

impl std::ops::Deref for Tag {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Prepared {
    fn new(key: &Secret, algorithms: &[Algorithm]) -> Result<Self, KeyError> {
        let prepare = |algorithm: &Algorithm| State::new(key, *algorithm).map(|state| (*algorithm, state));
        let states = algorithms.iter().map(prepare).collect::<Result<_, _>>()?;
        Ok(Self { plain: Sha256::digest(key.expose()).into(), states })
    }
    fn mac<'s, S>(&'s self, algorithm: Algorithm, content: impl FnOnce(&'s [u8]) -> S) -> Tag
    where
        S: Iterator<Item = &'s [u8]>,
    {
        fn over<'a, M: Mac + Clone>(mac: &M, segments: impl Iterator<Item = &'a [u8]>) -> Tag {
            let mut mac = mac.clone();
            segments.for_each(|segment| mac.update(segment));
            Tag::new(&mac.finalize().into_bytes())
        }
        fn hash<'a, D: Digest>(segments: impl Iterator<Item = &'a [u8]>) -> Tag {
            let mut hash = D::new();
            segments.for_each(|segment| hash.update(segment));
            Tag::new(&hash.finalize())
        }
        match self.states.iter().find(|(known, _)| *known == algorithm) {
            Some((_, State::Sha1(mac))) => over(mac, content(b"")),
            Some((_, State::Sha256(mac))) => over(mac, content(b"")),
            Some((_, State::Sha384(mac))) => over(mac, content(b"")),
            Some((_, State::Sha512(mac))) => over(mac, content(b"")),
            Some((Algorithm::Sha1, State::Hashed(secret))) => hash::<Sha1>(content(secret.expose())),
            Some((_, State::Hashed(secret))) => hash::<Sha256>(content(secret.expose())),
            Some((_, State::Public(_))) | None => Tag::new(b""),
        }
    }
}

impl State {
    fn new(key: &Secret, algorithm: Algorithm) -> Result<Self, KeyError> {
        fn keyed<M: KeyInit>(key: &Secret) -> M {
            M::new_from_slice(key.expose()).expect("HMAC takes keys of any length")
        }
        Ok(match algorithm {
            Algorithm::HmacSha1 => Self::Sha1(keyed(key)),
            Algorithm::HmacSha256 => Self::Sha256(keyed(key)),
            Algorithm::HmacSha384 => Self::Sha384(keyed(key)),
            Algorithm::HmacSha512 => Self::Sha512(keyed(key)),
            Algorithm::Sha1 | Algorithm::Sha256 => Self::Hashed(key.clone()),
            Algorithm::Public(_) => {
                let public = PublicKey::parse(public::PublicFormat::SpkiBase64, key.expose())?;
                let found = KeyKind::Public(public.kind());
                if found != algorithm.key_kind() {
                    return Err(KeyError::OtherKind { found, needed: algorithm.key_kind() });
                }
                Self::Public(public)
            }
        })
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.plain);
    }
}

/// The MAC, or the hash, of one key over these segments, for signing and for handshakes.
pub fn mac_once<'a>(key: &'a Secret, algorithm: Algorithm, segments: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let segments: Vec<_> = segments.collect();
    let prepared = Prepared::new(key, &[algorithm]);
    prepared.map_or_else(|_| Vec::new(), |prepared| prepared.mac(algorithm, |_| segments.into_iter()).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::CredentialPlace;

    fn decoded(format: KeyFormat, text: &str) -> Result<Vec<u8>, KeyError> {
        format.decode(text.as_bytes()).map(|secret| secret.expose().to_vec())
    }

    #[test]
    fn a_secret_is_decoded_by_its_format() {
        assert_eq!(decoded(KeyFormat::Utf8, "whsec_abc"), Ok(b"whsec_abc".to_vec()));
        for text in ["whsec_AAEC", "AAEC"] {
            assert_eq!(decoded(KeyFormat::Whsec, text), Ok(vec![0, 1, 2]));
        }
        for text in ["/wA=", "/wA", "/wB"] {
            assert_eq!(decoded(KeyFormat::Base64, text), Ok(vec![255, 0]), "padding and unused bits do not matter");
        }
        assert_eq!(decoded(KeyFormat::Hex, "00fF"), Ok(vec![0, 255]));
    }

    #[test]
    fn what_is_no_key_is_an_error() {
        assert_eq!(decoded(KeyFormat::Utf8, ""), Err(KeyError::Empty));
        assert_eq!(decoded(KeyFormat::Whsec, "whsec_"), Err(KeyError::Empty));
        for text in ["whsec_A", "whsec_ab!d", "whsec_AA=", "whsec_AAEC====", "whsec_AA EC", "whsec_AA\u{e9}A"] {
            assert_eq!(decoded(KeyFormat::Whsec, text), Err(KeyError::NotBase64), "{text}");
        }
        for text in ["abc", "0g"] {
            assert_eq!(decoded(KeyFormat::Hex, text), Err(KeyError::NotHex), "{text}");
        }
    }

    #[test]
    fn a_ring_shows_ids_and_no_secret() {
        let key = Secret::new(*b"canary-canary-canary");
        let keys = vec![SecretKey { id: "main".into(), key, not_before: None, expires_at: None }];
        let ring = Keyring::new(keys, &Scheme::credential(CredentialPlace::Basic)).expect("any text");
        let shown = format!("{ring:?}");
        assert!(shown.contains("main") && !shown.contains("canary") && !shown.contains("99, 97"), "{shown}");
    }
}
