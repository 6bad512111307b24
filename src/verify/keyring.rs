//! The secrets of a source, prepared for verification.

use std::{fmt, sync::Arc};

use base64ct::{Base64Unpadded, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256, Sha512};
use zeroize::Zeroizing;

use super::{encoding::decode_hex, scheme::Algorithm};
use crate::{secret::Secret, time::Wall};

/// How the text of a secret becomes key bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyFormat {
    /// The text as it is.
    Utf8,
    /// Base64, standard alphabet, padding optional.
    Base64,
    /// As `Base64`, behind the prefix `whsec_`, which may be missing.
    Whsec,
    /// Hexadecimal.
    Hex,
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
        }
    }
}

impl KeyFormat {
    /// All of them, by the name they have in a configuration.
    pub const ALL: [(&'static str, Self); 4] =
        [("utf8", Self::Utf8), ("base64", Self::Base64), ("whsec", Self::Whsec), ("hex", Self::Hex)];

    /// The stable name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }

    /// Key bytes from the text of a secret. Never empty: an empty key would verify what anybody signs.
    pub fn decode(self, text: &[u8]) -> Result<Secret, KeyError> {
        let key = match self {
            Self::Utf8 => Secret::new(text),
            Self::Base64 => decode_base64(text)?,
            Self::Whsec => decode_base64(text.strip_prefix(b"whsec_").unwrap_or(text))?,
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
    /// Key bytes, already decoded by the key format.
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
    sha256: Hmac<Sha256>,
    sha512: Hmac<Sha512>,
    plain: [u8; 32],
}

impl Keyring {
    /// A ring of these keys, tried in this order.
    pub fn new(keys: Vec<SecretKey>) -> Self {
        let prepared = keys.iter().map(|key| Prepared::new(&key.key)).collect();
        Self { keys: keys.into(), prepared }
    }
    /// The keys.
    pub fn keys(&self) -> &[SecretKey] {
        &self.keys
    }
    /// Positions of the keys that count at this time.
    pub(super) fn live(&self, now: Wall) -> impl Iterator<Item = usize> {
        self.keys.iter().enumerate().filter(move |(_, key)| key.is_live(now)).map(|(i, _)| i)
    }
    pub(super) fn mac<'a>(&self, index: usize, algorithm: Algorithm, segments: impl Iterator<Item = &'a [u8]>) -> Tag {
        self.prepared[index].mac(algorithm, segments)
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

/// A MAC of 32 or 64 bytes.
pub(super) enum Tag {
    Short([u8; 32]),
    Long([u8; 64]),
}

impl std::ops::Deref for Tag {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Long(bytes) => bytes,
        }
    }
}

impl Prepared {
    fn new(key: &Secret) -> Self {
        const ANY_LENGTH: &str = "HMAC takes keys of any length";
        Self {
            sha256: Hmac::new_from_slice(key.expose()).expect(ANY_LENGTH),
            sha512: Hmac::new_from_slice(key.expose()).expect(ANY_LENGTH),
            plain: Sha256::digest(key.expose()).into(),
        }
    }
    fn mac<'a>(&self, algorithm: Algorithm, segments: impl Iterator<Item = &'a [u8]>) -> Tag {
        match algorithm {
            Algorithm::HmacSha256 => {
                let mut mac = self.sha256.clone();
                segments.for_each(|segment| mac.update(segment));
                Tag::Short(mac.finalize().into_bytes().into())
            }
            Algorithm::HmacSha512 => {
                let mut mac = self.sha512.clone();
                segments.for_each(|segment| mac.update(segment));
                Tag::Long(mac.finalize().into_bytes().into())
            }
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.plain);
    }
}

/// The MAC of one key, for signing.
pub(super) fn mac_once<'a>(key: &Secret, algorithm: Algorithm, segments: impl Iterator<Item = &'a [u8]>) -> Tag {
    Prepared::new(key).mac(algorithm, segments)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let ring = Keyring::new(vec![SecretKey { id: "main".into(), key, not_before: None, expires_at: None }]);
        let shown = format!("{ring:?}");
        assert!(shown.contains("main") && !shown.contains("canary") && !shown.contains("99, 97"), "{shown}");
    }
}
