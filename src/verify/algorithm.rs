//! The algorithms of signatures, by the names that presets use.

use std::ops::RangeInclusive;

use super::public::{self, PublicAlgorithm};

/// How a signature is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// HMAC with SHA-1: only because providers still use it; its weakness against collisions does not touch HMAC.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
    /// SHA-1 of a content with the secret in it.
    Sha1,
    /// SHA-256 of a content with the secret in it.
    Sha256,
    /// Signed with a private key.
    Public(PublicAlgorithm),
}

/// What a signature is checked with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    /// A secret that both sides have.
    Shared,
    /// A public key.
    Public(public::KeyKind),
}

impl KeyKind {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shared => "a shared secret",
            Self::Public(public::KeyKind::Ed25519) => "an Ed25519 public key",
            Self::Public(public::KeyKind::P256) => "a P-256 public key",
            Self::Public(public::KeyKind::Rsa) => "an RSA public key",
        }
    }
}

impl Algorithm {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 13] = [
        ("hmac-sha256", Self::HmacSha256),
        ("hmac-sha1", Self::HmacSha1),
        ("hmac-sha384", Self::HmacSha384),
        ("hmac-sha512", Self::HmacSha512),
        ("sha1", Self::Sha1),
        ("sha256", Self::Sha256),
        ("ed25519", Self::Public(PublicAlgorithm::Ed25519)),
        ("ecdsa-p256-sha256", Self::Public(PublicAlgorithm::EcdsaP256Sha256)),
        ("ecdsa-p256-sha1", Self::Public(PublicAlgorithm::EcdsaP256Sha1)),
        ("ecdsa-p256-sha256-fixed", Self::Public(PublicAlgorithm::EcdsaP256Sha256Fixed)),
        ("rsa-pkcs1-sha1", Self::Public(PublicAlgorithm::RsaPkcs1Sha1)),
        ("rsa-pkcs1-sha256", Self::Public(PublicAlgorithm::RsaPkcs1Sha256)),
        ("rsa-pss-sha256", Self::Public(PublicAlgorithm::RsaPssSha256)),
    ];
    /// Those of a JSON Web Token, by their `alg`.
    pub const JWT: [(&'static str, Self); 7] = [
        ("HS256", Self::HmacSha256),
        ("HS384", Self::HmacSha384),
        ("HS512", Self::HmacSha512),
        ("RS256", Self::Public(PublicAlgorithm::RsaPkcs1Sha256)),
        ("PS256", Self::Public(PublicAlgorithm::RsaPssSha256)),
        ("ES256", Self::Public(PublicAlgorithm::EcdsaP256Sha256Fixed)),
        ("EdDSA", Self::Public(PublicAlgorithm::Ed25519)),
    ];
    /// The stable name: in presets, logs and `hookward-verified`.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(name, _)| name)
    }
    /// What it needs to check a signature.
    pub const fn key_kind(self) -> KeyKind {
        match self {
            Self::HmacSha1 | Self::HmacSha256 | Self::HmacSha384 | Self::HmacSha512 | Self::Sha1 | Self::Sha256 => {
                KeyKind::Shared
            }
            Self::Public(algorithm) => KeyKind::Public(algorithm.key_kind()),
        }
    }
    /// How it is checked with a public key, if it is.
    pub const fn public(self) -> Option<PublicAlgorithm> {
        match self {
            Self::Public(algorithm) => Some(algorithm),
            _ => None,
        }
    }
    /// Whether it is a hash of a content that must have the secret in it.
    pub const fn is_plain_hash(self) -> bool {
        matches!(self, Self::Sha1 | Self::Sha256)
    }
    /// How long a signature may be, in bytes.
    pub(super) const fn lengths(self) -> RangeInclusive<usize> {
        match self {
            Self::HmacSha1 | Self::Sha1 => 20..=20,
            Self::HmacSha256 | Self::Sha256 => 32..=32,
            Self::HmacSha384 => 48..=48,
            Self::HmacSha512 => 64..=64,
            Self::Public(algorithm) => match algorithm.signature_length() {
                Some(length) => length..=length,
                None => 1..=algorithm.signature_bytes_max(),
            },
        }
    }
}
