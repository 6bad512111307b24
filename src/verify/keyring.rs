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
