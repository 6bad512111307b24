//! The secrets of a source, prepared for one scheme.

use std::sync::Arc;

use crate::{secret::Secret, time::Wall};

/// How the text of a secret becomes key bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyFormat {
    /// The text as it is.
    Utf8,
    /// Base64, standard alphabet, padding optional.
    Base64,
    /// As `Base64`, behind the prefix `whsec_`.
    Whsec,
    /// Hexadecimal.
    Hex,
}

impl KeyFormat {
    /// As written in a configuration or preset.
    pub const NAMES: [(&'static str, Self); 4] =
        [("utf8", Self::Utf8), ("base64", Self::Base64), ("whsec", Self::Whsec), ("hex", Self::Hex)];

    /// Turns the text of a secret into key bytes.
    pub fn decode(self, text: &str) -> Result<Secret, KeyFormatError> {
        let bytes = match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Base64 => decode_base64(text).ok_or(KeyFormatError::Base64)?,
            Self::Whsec => {
                let encoded = text.strip_prefix("whsec_").ok_or(KeyFormatError::WhsecPrefix)?;
                decode_base64(encoded).ok_or(KeyFormatError::Whsec)?
            }
            Self::Hex => decode_hex(text).ok_or(KeyFormatError::Hex)?,
        };
        if bytes.is_empty() { Err(KeyFormatError::Empty) } else { Ok(Secret::new(bytes)) }
    }
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64ct::{Base64, Base64Unpadded, Encoding};
    if text.ends_with('=') { Base64::decode_vec(text).ok() } else { Base64Unpadded::decode_vec(text).ok() }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?)).collect()
}

/// Why the text of a secret does not fit its format. Shows nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyFormatError {
    /// Nothing in it.
    #[error("secret is empty")]
    Empty,
    /// Not base64.
    #[error("secret is not base64")]
    Base64,
    /// Not base64 behind its prefix.
    #[error("secret is not base64 behind `whsec_`")]
    Whsec,
    /// Without the prefix.
    #[error("secret does not begin with `whsec_`")]
    WhsecPrefix,
    /// Not hexadecimal.
    #[error("secret is not hexadecimal")]
    Hex,
}

impl KeyFormatError {
    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Empty => "give it the secret that the provider shows",
            Self::Base64 | Self::Whsec => {
                "copy it whole, in the standard alphabet (A-Z a-z 0-9 + /); if it is plain text, set encoding = \"utf8\""
            }
            Self::WhsecPrefix => {
                "copy it with its prefix; if it has none, set encoding = \"base64\" or encoding = \"utf8\""
            }
            Self::Hex => {
                "copy it whole: an even number of the digits 0-9 a-f; if it is plain text, set encoding = \"utf8\""
            }
        }
    }
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

/// All secrets of a source. Every live one is tried against every signature.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: Vec<SecretKey>,
}

impl Keyring {
    /// A ring of these keys, tried in this order.
    pub fn new(keys: Vec<SecretKey>) -> Self {
        Self { keys }
    }
    /// The keys.
    pub fn keys(&self) -> &[SecretKey] {
        &self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_decoded_by_its_format() {
        let decoded = |format: KeyFormat, text| format.decode(text).map(|secret| secret.expose().to_vec());
        for (format, text) in [
            (KeyFormat::Utf8, "key!!"),
            (KeyFormat::Base64, "a2V5ISE="),
            (KeyFormat::Base64, "a2V5ISE"),
            (KeyFormat::Whsec, "whsec_a2V5ISE="),
            (KeyFormat::Whsec, "whsec_a2V5ISE"),
            (KeyFormat::Hex, "6B65792121"),
        ] {
            assert_eq!(decoded(format, text), Ok(b"key!!".to_vec()), "{text}");
        }
        for (format, text, error) in [
            (KeyFormat::Utf8, "", KeyFormatError::Empty),
            (KeyFormat::Whsec, "whsec_", KeyFormatError::Empty),
            (KeyFormat::Whsec, "a2V5ISE=", KeyFormatError::WhsecPrefix),
            (KeyFormat::Whsec, "whsec_a2V5-SE=", KeyFormatError::Whsec),
            (KeyFormat::Base64, "a2V5ISF=", KeyFormatError::Base64),
            (KeyFormat::Base64, "a2V5ISE=\n", KeyFormatError::Base64),
            (KeyFormat::Hex, "6b6", KeyFormatError::Hex),
            (KeyFormat::Hex, "6g", KeyFormatError::Hex),
        ] {
            assert_eq!(decoded(format, text), Err(error), "{text}");
        }
    }
}
