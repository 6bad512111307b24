//! Public keys as text: what providers show, and what becomes of it in environment variables.

use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use rsa::{
    BoxedUint, RsaPublicKey,
    pkcs1::der::{
        Decode as _,
        asn1::{AnyRef, ObjectIdentifier},
    },
    pkcs8::{EncodePublicKey as _, LineEnding, PrivateKeyInfoRef, spki::SubjectPublicKeyInfoRef},
    traits::PublicKeyParts as _,
};
use rustls::{pki_types::CertificateDer, server::ParsedCertificate};
use serde_json::{Map, Value, json};

use super::{KeyKind, Public, PublicKey, RSA_BITS};
use crate::verify::{encode_hex, encoding::decode_hex};

pub(super) const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
pub(super) const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
pub(super) const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
pub(super) const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The members of a JWK that only its owner may have.
const PRIVATE_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// How a public key is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublicFormat {
    /// PEM: `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`. Line ends may be missing, or be written as `\n`; text around
    /// the block is ignored. Of a certificate the key is taken, and nothing else is looked at: neither who issued it
    /// nor until when it is valid. Whoever configures it vouches for it.
    Pem,
    /// The inside of a `PUBLIC KEY` in base64, padding optional.
    SpkiBase64,
    /// The 32 bytes of an Ed25519 key in hexadecimal.
    Ed25519Hex,
    /// They in base64, padding optional, behind the prefix `whpk_`, which may be missing.
    Ed25519Base64,
    /// One JSON Web Key: `OKP` with `Ed25519`, `EC` with `P-256`, or `RSA`. Other members, such as `kid`, are ignored.
    Jwk,
}

impl PublicFormat {
    /// All of them, by the name they have in a configuration.
    pub const ALL: [(&'static str, Self); 5] = [
        ("pem", Self::Pem),
        ("spki-base64", Self::SpkiBase64),
        ("ed25519-hex", Self::Ed25519Hex),
        ("ed25519-base64", Self::Ed25519Base64),
        ("jwk", Self::Jwk),
    ];

    /// The stable name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }
}

/// Why a text is no public key. Says nothing of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PublicKeyError {
    /// There is nothing in it.
    #[error("the public key is empty")]
    Empty,
    /// Whoever has it can sign in the provider's name.
    #[error("this is a private key, and a public key belongs here")]
    PrivateKey,
    /// A JWK of the kind `oct`.
    #[error("this is a shared secret, and a public key belongs here")]
    SharedSecret,
    /// No block from `BEGIN` to `END`.
    #[error("there is no complete PEM block in the public key")]
    NotPem,
    /// Keys in a row: which one is meant cannot be told.
    #[error("there are several PEM blocks, and one key belongs here")]
    Several,
    /// Another label.
    #[error("the PEM block is none of PUBLIC KEY, RSA PUBLIC KEY and CERTIFICATE")]
    PemLabel,
    /// Another character, or a length that no bytes have.
    #[error("the public key is not valid base64")]
    NotBase64,
    /// Another character, or an odd length.
    #[error("the public key is not valid hexadecimal")]
    NotHex,
    /// The bytes are not laid out as the format says.
    #[error("the bytes are no public key of this format")]
    NotKey,
    /// The bytes are not an X.509 certificate of version 3.
    #[error("the certificate cannot be read")]
    Certificate,
    /// Not an object, or cut off.
    #[error("the public key is not a JSON object")]
    NotJwk,
    /// A set with the member `keys`.
    #[error("this is a set of JSON Web Keys, and one key belongs here")]
    KeySet,
    /// The member is missing, no text, or not base64url of the right length.
    #[error("the member `{0}` of the JSON Web Key is missing or malformed")]
    JwkMember(&'static str),
    /// Another kind of key, or another curve.
    #[error("the key is none of Ed25519, P-256 and RSA")]
    Unsupported,
    /// Not the length of an Ed25519 key.
    #[error("an Ed25519 public key has 32 bytes, and this has {0}")]
    Length(usize),
    /// Too small to prove anything, or too large to be checked in time.
    #[error("the RSA key has {0} bits, and 2048 to 8192 are taken")]
    RsaSize(usize),
    /// It looks like a key, but its numbers are no key: not a point of the curve, not an exponent.
    #[error("the numbers in it are no {0} key")]
    Invalid(KeyKind),
    /// An Ed25519 key of small order, such as all zeros: anybody can make signatures for it.
    #[error("this Ed25519 key proves nothing: anybody can sign for it")]
    Weak,
}

impl PublicKeyError {
    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Empty => "give it the public key that the provider shows",
            Self::PrivateKey => {
                "give it the public half: openssl pkey -in FILE -pubout; if the private key was handed over by mistake, \
                 have it replaced"
            }
            Self::SharedSecret => "a scheme with a shared secret takes it as a secret, not as a public key",
            Self::NotPem => {
                "copy it whole, from -----BEGIN to the dashes behind END; if it has none, it is \"spki-base64\""
            }
            Self::Several => "keep the block of the signer; give every further key a place of its own",
            Self::PemLabel => "ask the provider for a PEM of PUBLIC KEY, or convert it: openssl pkey -pubin -in FILE",
            Self::NotBase64 => {
                "copy it whole, in the standard alphabet (A-Z a-z 0-9 + /); between BEGIN and END it is \"pem\""
            }
            Self::NotHex => "copy it whole: 64 of the digits 0-9 a-f",
            Self::NotKey => "copy it whole; check its format with openssl pkey -pubin -in FILE -noout -text",
            Self::Certificate => "copy it whole, or take its key: openssl x509 -in FILE -noout -pubkey",
            Self::NotJwk => "copy it whole, from { to }",
            Self::KeySet => "copy one key out of the list, from { to }",
            Self::JwkMember(_) => "copy the key whole from the provider's key set",
            Self::Unsupported => {
                "ask the provider which key belongs to this scheme; other curves and DSA are not used by any"
            }
            Self::Length(_) => "copy it whole; 64 bytes would be a private key, more of them another format",
            Self::RsaSize(_) => "ask the provider for a current key",
            Self::Invalid(_) => "copy it again: a character is wrong or missing",
            Self::Weak => "this is a placeholder; copy the key that the provider shows",
        }
    }
}

impl PublicKey {
    /// A public key from its text.
    pub fn parse(format: PublicFormat, text: &[u8]) -> Result<Self, PublicKeyError> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Err(PublicKeyError::Empty);
        }
        match format {
            PublicFormat::Pem => from_pem(text),
            PublicFormat::SpkiBase64 => from_spki(&base64(text).ok_or(PublicKeyError::NotBase64)?),
            PublicFormat::Ed25519Hex => ed25519(&decode_hex(text, true).ok_or(PublicKeyError::NotHex)?),
            PublicFormat::Ed25519Base64 if text.starts_with(b"whsk_") => Err(PublicKeyError::PrivateKey),
            PublicFormat::Ed25519Base64 => {
                ed25519(&base64(text.strip_prefix(b"whpk_").unwrap_or(text)).ok_or(PublicKeyError::NotBase64)?)
            }
            PublicFormat::Jwk => from_jwk(text),
        }
    }

    /// Its text; `None` if the format is not for this kind of key.
    pub fn text(&self, format: PublicFormat) -> Option<String> {
        const ENCODES: &str = "a key that was checked can be encoded";
        let spki = match &self.0 {
            Public::Ed25519(key) => key.to_public_key_der(),
            Public::P256(key) => key.to_public_key_der(),
            Public::Rsa(key) => key.to_public_key_der(),
        }
        .expect(ENCODES);
        match (format, &self.0) {
            (PublicFormat::Pem, _) => Some(spki.to_pem("PUBLIC KEY", LineEnding::LF).expect(ENCODES)),
            (PublicFormat::SpkiBase64, _) => Some(Base64::encode_string(spki.as_bytes())),
            (PublicFormat::Ed25519Hex, Public::Ed25519(key)) => Some(encode_hex(key.as_bytes())),
            (PublicFormat::Ed25519Base64, Public::Ed25519(key)) => Some(Base64::encode_string(key.as_bytes())),
            (PublicFormat::Ed25519Hex | PublicFormat::Ed25519Base64, _) => None,
            (PublicFormat::Jwk, key) => Some(jwk(key).to_string()),
        }
    }
}

/// The label and the bytes of the one block in a PEM text.
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    pub(super) body: &'a str,
}

/// All complete blocks. Labels are taken as they are.
pub(super) fn blocks(text: &[u8]) -> Vec<Block<'_>> {
    let mut rest = str::from_utf8(text).unwrap_or_default();
    let mut found = Vec::new();
    while let Some((_, opened)) = rest.split_once("-----BEGIN ") {
        let Some((label, opened)) = opened.split_once("-----") else { break };
        let Some((body, behind)) = opened.split_once(&format!("-----END {label}-----")) else { break };
        found.push(Block { label, body });
        rest = behind;
    }
    found
}

/// Bytes from base64 with white space in it, or with line ends that became `\n` and `\r` as two characters each.
/// Padding is optional.
pub(super) fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(text).ok()?.replace("\\r", "").replace("\\n", "");
    let mut digits: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    digits.extend(std::iter::repeat_n('=', digits.len().next_multiple_of(4) - digits.len()));
    Base64::decode_vec(&digits).ok()
}

fn from_pem(text: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let blocks = blocks(text);
    if blocks.iter().any(|block| block.label.ends_with("PRIVATE KEY")) {
        return Err(PublicKeyError::PrivateKey);
    }
    let block = match &blocks[..] {
        [] => return Err(PublicKeyError::NotPem),
        [block] => block,
        _ => return Err(PublicKeyError::Several),
    };
    let bytes = || base64(block.body.as_bytes()).ok_or(PublicKeyError::NotBase64);
    match block.label {
        "PUBLIC KEY" => from_spki(&bytes()?),
        "RSA PUBLIC KEY" => from_pkcs1(&bytes()?),
        "CERTIFICATE" => {
            let certificate = CertificateDer::from(bytes()?);
            let parsed = ParsedCertificate::try_from(&certificate).map_err(|_| PublicKeyError::Certificate)?;
            from_spki(&parsed.subject_public_key_info())
        }
        _ => Err(PublicKeyError::PemLabel),
    }
}

fn from_spki(der: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let Ok(info) = SubjectPublicKeyInfoRef::from_der(der) else {
        let private = PrivateKeyInfoRef::from_der(der).is_ok();
        return Err(if private { PublicKeyError::PrivateKey } else { PublicKeyError::NotKey });
    };
    let bytes = info.subject_public_key.as_bytes().ok_or(PublicKeyError::NotKey)?;
    let parameters = info.algorithm.parameters;
    match info.algorithm.oid {
        RSA if parameters.is_none_or(AnyRef::is_null) => from_pkcs1(bytes),
        ED25519 if parameters.is_none() => ed25519(bytes),
        RSA | ED25519 => Err(PublicKeyError::NotKey),
        EC if info.algorithm.parameters_oid() == Ok(P256) => p256(bytes),
        _ => Err(PublicKeyError::Unsupported),
    }
}

fn from_pkcs1(der: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let key = rsa::pkcs1::RsaPublicKeyRef::from_der(der).map_err(|_| PublicKeyError::NotKey)?;
    rsa_key(key.modulus.as_bytes(), key.public_exponent.as_bytes())
}

fn from_jwk(text: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let members: Map<String, Value> = serde_json::from_slice(text).map_err(|_| PublicKeyError::NotJwk)?;
    let text = |name: &'static str| members.get(name).and_then(Value::as_str).ok_or(PublicKeyError::JwkMember(name));
    let bytes =
        |name: &'static str| Base64UrlUnpadded::decode_vec(text(name)?).map_err(|_| PublicKeyError::JwkMember(name));
    let coordinate =
        |name: &'static str| <[u8; 32]>::try_from(bytes(name)?).map_err(|_| PublicKeyError::JwkMember(name));
    if PRIVATE_MEMBERS.iter().any(|name| members.contains_key(*name)) {
        return Err(PublicKeyError::PrivateKey);
    }
    if members.contains_key("keys") {
        return Err(PublicKeyError::KeySet);
    }
    match text("kty")? {
        "OKP" if text("crv")? == "Ed25519" => ed25519(&coordinate("x")?),
        "EC" if text("crv")? == "P-256" => p256(&[&[4][..], &coordinate("x")?, &coordinate("y")?].concat()),
        "RSA" => rsa_key(&bytes("n")?, &bytes("e")?),
        "oct" => Err(PublicKeyError::SharedSecret),
        _ => Err(PublicKeyError::Unsupported),
    }
}

/// Only the public members, in no other order than that of the alphabet.
fn jwk(key: &Public) -> Value {
    let text = |bytes: &[u8]| Base64UrlUnpadded::encode_string(bytes);
    match key {
        Public::Ed25519(key) => json!({ "kty": "OKP", "crv": "Ed25519", "x": text(key.as_bytes()) }),
        Public::P256(key) => {
            let point = key.to_sec1_point(false);
            let (x, y) = point.as_bytes()[1..].split_at(32);
            json!({ "kty": "EC", "crv": "P-256", "x": text(x), "y": text(y) })
        }
        Public::Rsa(key) => {
            let number = |number: &BoxedUint| text(&number.to_be_bytes_trimmed_vartime());
            json!({ "kty": "RSA", "n": number(key.n().as_ref()), "e": number(key.e()) })
        }
    }
}

/// A canonical point that is not of small order.
fn ed25519(bytes: &[u8]) -> Result<PublicKey, PublicKeyError> {
    const INVALID: PublicKeyError = PublicKeyError::Invalid(KeyKind::Ed25519);
    let bytes = bytes.try_into().map_err(|_| PublicKeyError::Length(bytes.len()))?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| INVALID)?;
    if key.is_weak() {
        return Err(PublicKeyError::Weak);
    }
    if key.to_edwards().compress().as_bytes() != bytes {
        return Err(INVALID);
    }
    Ok(PublicKey(Public::Ed25519(key)))
}

/// A point of the curve, compressed or not, that is not the one at infinity.
fn p256(bytes: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).map_err(|_| PublicKeyError::Invalid(KeyKind::P256))?;
    Ok(PublicKey(Public::P256(key)))
}

/// Big-endian numbers, zeros before them allowed.
fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, PublicKeyError> {
    const INVALID: PublicKeyError = PublicKeyError::Invalid(KeyKind::Rsa);
    let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(PublicKeyError::RsaSize(bits));
    }
    let number = |bytes: &[u8]| {
        let bits = u32::try_from(bytes.len() * 8).ok()?;
        BoxedUint::from_be_slice(bytes, bits).ok()
    };
    if exponent.is_empty() || exponent.len() > size_of::<u64>() {
        return Err(INVALID);
    }
    let (modulus, exponent) = number(modulus).zip(number(exponent)).ok_or(INVALID)?;
    let key = RsaPublicKey::new_with_size_limits(modulus, exponent, RSA_BITS).map_err(|_| INVALID)?;
    Ok(PublicKey(Public::Rsa(Box::new(key))))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}
