//! Signatures that are checked with a public key.
//!
//! A [`PublicKey`] is read once, from what a provider shows ([`PublicFormat`]), and is valid from then on. [`Content`] is
//! made once per request: what is signed goes through its hash a single time, however many keys and signatures are held
//! against it, and is never copied. Ed25519 is the exception that its design makes: each attempt hashes all of it again.
//!
//! What counts as a signature is strict. Ed25519: S is reduced, R is canonical, and a key is a canonical point that is not
//! of small order (with such a key anybody could sign). ECDSA: exact DER, or exactly 64 bytes; both numbers from 1 to the
//! order. RSA: as long as the modulus and below it, the padding complete, the salt of PSS as long as the hash. One thing
//! is lenient: of the two S that an ECDSA signature can have both are valid, because signers use both. So a stranger can
//! turn a valid signature into another one of the same content, and nothing may depend on its bytes being the only ones.
//!
//! SHA-1 is here for providers that sign with it. It makes a forgery thinkable for whoever has a say in the content, so a
//! provider's other algorithm is always the better one.
//!
//! The arithmetic is that of `ed25519-dalek`, `p256` and `rsa`; here is which of it applies.

mod private;
mod text;
#[cfg(test)]
mod tests;

use std::fmt;

use ed25519_dalek::ed25519::signature::MultipartVerifier as _;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use rsa::traits::PublicKeyParts as _;
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub use private::{PrivateKey, PrivateKeyError};
pub use text::{PublicFormat, PublicKeyError};

/// RSA keys have from 2048 bits, below which a signature is no proof, to 8192, above which checking one takes too long.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// How something is signed with a private key and checked with the public one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublicAlgorithm {
    /// Ed25519 as in RFC 8032, without a prehash. JWT: `EdDSA`.
    Ed25519,
    /// ECDSA over P-256 with SHA-256, the signature in DER.
    EcdsaP256Sha256,
    /// ECDSA over P-256 with SHA-1, the signature in DER.
    EcdsaP256Sha1,
    /// ECDSA over P-256 with SHA-256, the signature as r and s of 32 bytes each. JWT: `ES256`.
    EcdsaP256Sha256Fixed,
    /// RSASSA-PKCS1-v1_5 with SHA-1.
    RsaPkcs1Sha1,
    /// RSASSA-PKCS1-v1_5 with SHA-256. JWT: `RS256`.
    RsaPkcs1Sha256,
    /// RSASSA-PSS with SHA-256, in its mask too, and a salt of 32 bytes. JWT: `PS256`.
    RsaPssSha256,
}

impl PublicAlgorithm {
    /// All of them, by the name they have in a preset.
    pub const ALL: [(&'static str, Self); 7] = [
        ("ed25519", Self::Ed25519),
        ("ecdsa-p256-sha256", Self::EcdsaP256Sha256),
        ("ecdsa-p256-sha1", Self::EcdsaP256Sha1),
        ("ecdsa-p256-sha256-fixed", Self::EcdsaP256Sha256Fixed),
        ("rsa-pkcs1-sha1", Self::RsaPkcs1Sha1),
        ("rsa-pkcs1-sha256", Self::RsaPkcs1Sha256),
        ("rsa-pss-sha256", Self::RsaPssSha256),
    ];

    /// The stable name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(name, _)| name)
    }
    /// The kind of key that it needs.
    pub const fn key_kind(self) -> KeyKind {
        match self {
            Self::Ed25519 => KeyKind::Ed25519,
            Self::EcdsaP256Sha256 | Self::EcdsaP256Sha1 | Self::EcdsaP256Sha256Fixed => KeyKind::P256,
            Self::RsaPkcs1Sha1 | Self::RsaPkcs1Sha256 | Self::RsaPssSha256 => KeyKind::Rsa,
        }
    }
    /// The length of every signature in bytes, where there is one.
    pub const fn signature_length(self) -> Option<usize> {
        match self {
            Self::Ed25519 | Self::EcdsaP256Sha256Fixed => Some(64),
            _ => None,
        }
    }
    /// The most bytes a signature has: nothing longer needs to be decoded.
    pub const fn signature_bytes_max(self) -> usize {
        match self {
            Self::Ed25519 | Self::EcdsaP256Sha256Fixed => 64,
            Self::EcdsaP256Sha256 | Self::EcdsaP256Sha1 => 72,
            Self::RsaPkcs1Sha1 | Self::RsaPkcs1Sha256 | Self::RsaPssSha256 => RSA_BITS.end().div_ceil(8),
        }
    }
}

impl fmt::Display for PublicAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What kind of key one is; it decides which algorithms it fits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeyKind {
    /// A point of edwards25519.
    Ed25519,
    /// A point of the NIST curve P-256.
    P256,
    /// An RSA modulus and exponent.
    Rsa,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "Ed25519",
            Self::P256 => "P-256",
            Self::Rsa => "RSA",
        })
    }
}

/// Why a signature does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignatureError {
    /// The algorithm needs another kind of key. A mistake of the configuration, not of the sender.
    #[error("the key is {key}, and the algorithm needs {needed}")]
    WrongKind {
        /// What the key is.
        key: KeyKind,
        /// What it should be.
        needed: KeyKind,
    },
    /// It cannot be a signature of this algorithm and key: the length, or the DER.
    #[error("the signature is malformed")]
    Malformed,
    /// It is one, but not by this key, or not of this content.
    #[error("the signature does not match")]
    Mismatch,
}

/// What is signed, ready to be held against any number of keys and signatures of one algorithm.
#[derive(Clone)]
pub struct Content<'a> {
    algorithm: PublicAlgorithm,
    /// For Ed25519, else empty.
    segments: Vec<&'a [u8]>,
    /// For all others, else empty.
    digest: Vec<u8>,
}

impl<'a> Content<'a> {
    /// The content is the segments run together. They are read once here; Ed25519 reads them later, for each attempt.
    pub fn new(algorithm: PublicAlgorithm, segments: impl IntoIterator<Item = &'a [u8]>) -> Self {
        use PublicAlgorithm as A;
        let (mut whole, mut digest) = (Vec::new(), Vec::new());
        match algorithm {
            A::Ed25519 => whole = segments.into_iter().collect(),
            A::EcdsaP256Sha1 | A::RsaPkcs1Sha1 => digest = hash::<Sha1>(segments),
            A::EcdsaP256Sha256 | A::EcdsaP256Sha256Fixed | A::RsaPkcs1Sha256 | A::RsaPssSha256 => {
                digest = hash::<Sha256>(segments);
            }
        }
        Self { algorithm, segments: whole, digest }
    }
    /// How it is signed.
    pub fn algorithm(&self) -> PublicAlgorithm {
        self.algorithm
    }
}

impl fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({})", self.algorithm)
    }
}

fn hash<'a, D: Digest>(segments: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut digest = D::new();
    segments.into_iter().for_each(|segment| digest.update(segment));
    digest.finalize().to_vec()
}

/// The public key of a signer: checked when it was read, so that it can be used without a doubt.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Public);

#[derive(Clone, PartialEq, Eq)]
enum Public {
    Ed25519(ed25519_dalek::VerifyingKey),
    P256(p256::ecdsa::VerifyingKey),
    Rsa(Box<rsa::RsaPublicKey>),
}

impl PublicKey {
    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        match &self.0 {
            Public::Ed25519(_) => KeyKind::Ed25519,
            Public::P256(_) => KeyKind::P256,
            Public::Rsa(_) => KeyKind::Rsa,
        }
    }
    /// Whether the algorithm works with this kind of key.
    pub fn fits(&self, algorithm: PublicAlgorithm) -> bool {
        self.kind() == algorithm.key_kind()
    }
    /// The length of the signatures it makes, if they all have one.
    pub fn signature_length(&self, algorithm: PublicAlgorithm) -> Option<usize> {
        match &self.0 {
            Public::Rsa(key) => Some(key.size()),
            _ => algorithm.signature_length(),
        }
    }

    /// Whether whoever holds the private key signed this content.
    ///
    /// It takes as long as the inputs make it take: key, content and signature are all public.
    pub fn verify(&self, content: &Content<'_>, signature: &[u8]) -> Result<(), SignatureError> {
        use PublicAlgorithm as A;
        use SignatureError::{Malformed, Mismatch};
        let digest = &content.digest;
        match (&self.0, content.algorithm) {
            (Public::Ed25519(key), A::Ed25519) => {
                let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| Malformed)?;
                key.multipart_verify(&content.segments, &signature).map_err(|_| Mismatch)
            }
            (Public::P256(key), A::EcdsaP256Sha256 | A::EcdsaP256Sha1) => {
                let signature = p256::ecdsa::Signature::from_der(signature).map_err(|_| Malformed)?;
                key.verify_prehash(digest, &signature).map_err(|_| Mismatch)
            }
            (Public::P256(key), A::EcdsaP256Sha256Fixed) => {
                let signature = p256::ecdsa::Signature::from_slice(signature).map_err(|_| Malformed)?;
                key.verify_prehash(digest, &signature).map_err(|_| Mismatch)
            }
            (Public::Rsa(key), A::RsaPkcs1Sha1 | A::RsaPkcs1Sha256 | A::RsaPssSha256) => {
                if signature.len() != key.size() {
                    return Err(Malformed);
                }
                match content.algorithm {
                    A::RsaPkcs1Sha1 => key.verify(rsa::Pkcs1v15Sign::new::<Sha1>(), digest, signature),
                    A::RsaPkcs1Sha256 => key.verify(rsa::Pkcs1v15Sign::new::<Sha256>(), digest, signature),
                    _ => key.verify(pss(), digest, signature),
                }
                .map_err(|_| Mismatch)
            }
            (_, algorithm) => Err(SignatureError::WrongKind { key: self.kind(), needed: algorithm.key_kind() }),
        }
    }
}

/// PSS with the salt as long as the hash, which is what JWT and everybody else means by it.
fn pss() -> rsa::Pss<Sha256> {
    rsa::Pss::new_with_salt(<Sha256 as Digest>::output_size())
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.kind())
    }
}
