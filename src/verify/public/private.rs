//! Private keys: for trying a provider out without it, and for tests. The gateway itself holds none.

use std::fmt;

use ed25519_dalek::ed25519::signature::MultipartSigner as _;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use rand::CryptoRng;
use rsa::pkcs1::der::Decode as _;
use rsa::pkcs8::{EncodePrivateKey as _, LineEnding, PrivateKeyInfoRef};
use sha1::Sha1;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    Content, KeyKind, Public, PublicAlgorithm, PublicKey, RSA_BITS, SignatureError, pss,
    text::{EC, ED25519, RSA, base64, blocks},
};

/// The size of the RSA keys that are made here.
const RSA_BITS_MADE: usize = 2048;

/// A private key. Wiped when it is dropped; `Debug` shows nothing of it.
#[derive(Clone)]
pub struct PrivateKey(Private);

#[derive(Clone)]
enum Private {
    Ed25519(ed25519_dalek::SigningKey),
    P256(p256::ecdsa::SigningKey),
    Rsa(Box<rsa::RsaPrivateKey>),
}

/// Why a text is no private key. Says nothing of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrivateKeyError {
    /// No complete block, or several.
    #[error("there is not one PEM block of a private key")]
    NotPem,
    /// The public half.
    #[error("this is a public key, and signing needs the private one")]
    PublicKey,
    /// Behind a password.
    #[error("the private key is encrypted")]
    Encrypted,
    /// `RSA PRIVATE KEY`, `EC PRIVATE KEY`, `OPENSSH PRIVATE KEY`, or something else.
    #[error("the private key is not in PKCS#8")]
    OtherForm,
    /// Another kind of key, or another curve.
    #[error("the private key is none of Ed25519, P-256 and RSA")]
    Unsupported,
    /// Not base64, not laid out as PKCS#8, or numbers that are no key.
    #[error("the private key is damaged")]
    Damaged,
    /// Signatures that nobody should take.
    #[error("the private RSA key has fewer than 2048 bits, or more than 8192")]
    RsaSize,
}

impl PrivateKeyError {
    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::NotPem => "give it one block, from -----BEGIN PRIVATE KEY----- to its END",
            Self::PublicKey => "give it the private key that belongs to it",
            Self::Encrypted => "decrypt it: openssl pkcs8 -in FILE -out NEW",
            Self::OtherForm => "convert it: openssl pkcs8 -topk8 -nocrypt -in FILE -out NEW",
            Self::Unsupported | Self::RsaSize => "make one with `hookward sign`, or with openssl genpkey",
            Self::Damaged => "copy it whole",
        }
    }
}

impl PrivateKey {
    /// A new key. RSA takes the longest: a tenth of a second, and sometimes several.
    pub fn generate(kind: KeyKind, rng: &mut impl CryptoRng) -> Self {
        Self(match kind {
            KeyKind::Ed25519 => {
                let mut seed = Zeroizing::new([0; 32]);
                rng.fill_bytes(&mut *seed);
                Private::Ed25519(ed25519_dalek::SigningKey::from_bytes(&seed))
            }
            KeyKind::P256 => loop {
                // All but one in four thousand million texts are a key.
                let mut scalar = Zeroizing::new([0; 32]);
                rng.fill_bytes(&mut *scalar);
                if let Ok(key) = p256::ecdsa::SigningKey::from_slice(&*scalar) {
                    break Private::P256(key);
                }
            },
            KeyKind::Rsa => {
                let key = rsa::RsaPrivateKey::new(rng, RSA_BITS_MADE).expect("the size is one that is allowed");
                Private::Rsa(Box::new(key))
            }
        })
    }

    /// A key from PEM of `PRIVATE KEY`, which is PKCS#8. Line ends may be missing, as in a public key.
    pub fn parse(pem: &[u8]) -> Result<Self, PrivateKeyError> {
        let blocks = blocks(pem);
        let [block] = &blocks[..] else { return Err(PrivateKeyError::NotPem) };
        match block.label {
            "PRIVATE KEY" => {}
            "ENCRYPTED PRIVATE KEY" => return Err(PrivateKeyError::Encrypted),
            "PUBLIC KEY" | "RSA PUBLIC KEY" | "CERTIFICATE" => return Err(PrivateKeyError::PublicKey),
            _ => return Err(PrivateKeyError::OtherForm),
        }
        let der = Zeroizing::new(base64(block.body.as_bytes()).ok_or(PrivateKeyError::Damaged)?);
        let info = PrivateKeyInfoRef::from_der(&der).map_err(|_| PrivateKeyError::Damaged)?;
        match info.algorithm.oid {
            ED25519 => {
                let pair = ed25519_dalek::pkcs8::KeypairBytes::try_from(info);
                let key = pair.and_then(|pair| ed25519_dalek::SigningKey::try_from(&pair));
                key.map(Private::Ed25519).map_err(|_| PrivateKeyError::Damaged)
            }
            EC if info.algorithm.parameters_oid() != Ok(super::text::P256) => Err(PrivateKeyError::Unsupported),
            EC => p256::ecdsa::SigningKey::try_from(info).map(Private::P256).map_err(|_| PrivateKeyError::Damaged),
            RSA => {
                let key = rsa::RsaPrivateKey::try_from(info).map_err(|_| PrivateKeyError::Damaged)?;
                let bits = rsa::traits::PublicKeyParts::n(&key).bits_vartime() as usize;
                if RSA_BITS.contains(&bits) { Ok(Private::Rsa(Box::new(key))) } else { Err(PrivateKeyError::RsaSize) }
            }
            _ => Err(PrivateKeyError::Unsupported),
        }
        .map(Self)
    }

    /// As [`PrivateKey::parse`] takes it.
    pub fn to_pem(&self) -> Zeroizing<String> {
        match &self.0 {
            Private::Ed25519(key) => key.to_pkcs8_pem(LineEnding::LF),
            Private::P256(key) => key.to_pkcs8_pem(LineEnding::LF),
            Private::Rsa(key) => key.to_pkcs8_pem(LineEnding::LF),
        }
        .expect("a key that was checked can be encoded")
    }

    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        match &self.0 {
            Private::Ed25519(_) => KeyKind::Ed25519,
            Private::P256(_) => KeyKind::P256,
            Private::Rsa(_) => KeyKind::Rsa,
        }
    }

    /// The public half, which verifies what this signs.
    pub fn public(&self) -> PublicKey {
        PublicKey(match &self.0 {
            Private::Ed25519(key) => Public::Ed25519(key.verifying_key()),
            Private::P256(key) => Public::P256(*key.verifying_key()),
            Private::Rsa(key) => Public::Rsa(Box::new(key.to_public_key())),
        })
    }

    /// A signature of the content. Fails only if the algorithm needs another kind of key.
    ///
    /// Randomness goes into the salt of PSS, and hides what an RSA operation works on from whoever measures its time.
    pub fn sign(&self, content: &Content<'_>, rng: &mut impl CryptoRng) -> Result<Vec<u8>, SignatureError> {
        use PublicAlgorithm as A;
        const SIGNS: &str = "a key that was checked signs every digest";
        let digest = &content.digest;
        Ok(match (&self.0, content.algorithm) {
            (Private::Ed25519(key), A::Ed25519) => key.multipart_sign(&content.segments).to_vec(),
            (Private::P256(key), A::EcdsaP256Sha256 | A::EcdsaP256Sha1 | A::EcdsaP256Sha256Fixed) => {
                let signature: p256::ecdsa::Signature = key.sign_prehash(digest).expect(SIGNS);
                if content.algorithm == A::EcdsaP256Sha256Fixed {
                    signature.to_bytes().to_vec()
                } else {
                    signature.to_der().as_bytes().to_vec()
                }
            }
            (Private::Rsa(key), A::RsaPkcs1Sha1) => {
                key.sign_with_rng(rng, rsa::Pkcs1v15Sign::new::<Sha1>(), digest).expect(SIGNS)
            }
            (Private::Rsa(key), A::RsaPkcs1Sha256) => {
                key.sign_with_rng(rng, rsa::Pkcs1v15Sign::new::<Sha256>(), digest).expect(SIGNS)
            }
            (Private::Rsa(key), A::RsaPssSha256) => key.sign_with_rng(rng, pss(), digest).expect(SIGNS),
            (_, algorithm) => {
                return Err(SignatureError::WrongKind { key: self.kind(), needed: algorithm.key_kind() });
            }
        })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}
