//! Certificates as files: a PEM chain and its key become what a handshake shows, with the facts that decide for whom
//! and for how long. Every reason is a lower-case fragment that names the file and shows nothing of a key.

use std::{fmt, path::Path, sync::Arc};

use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use x509_cert::{
    der::Decode as _,
    ext::pkix::{SubjectAltName, name::GeneralName},
};
use zeroize::Zeroizing;

use super::{load::read_text, model::CertificateFiles};
use crate::time::Wall;

/// A chain of a few certificates has a few KiB, and a bundle of authorities some hundred.
const CHAIN_BYTES_MAX: u64 = 256 << 10;
const KEY_BYTES_MAX: u64 = 64 << 10;
const AUTHORITIES_BYTES_MAX: u64 = 4 << 20;
/// Names of one certificate that count: more than any authority puts into one.
const NAMES_MAX: usize = 1000;

/// A certificate with its chain and key, and what it says of itself.
#[derive(Clone)]
pub struct Certificate {
    /// What a handshake shows and signs with.
    pub key: Arc<CertifiedKey>,
    /// The host names that it is for, in lower case; `*.example.com` stands for one label.
    pub names: Vec<String>,
    /// Not valid before.
    pub not_before: Wall,
    /// Not valid after.
    pub not_after: Wall,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, until {})", self.name(), self.not_after)
    }
}

impl Certificate {
    /// Reads a pair of files.
    pub fn read(files: &CertificateFiles) -> Result<Self, String> {
        let chain = read_pem(&files.cert, CHAIN_BYTES_MAX)?;
        let key = Zeroizing::new(read_pem(&files.key, KEY_BYTES_MAX)?);
        Self::from_pem(&chain, &key).map_err(|wrong| match wrong {
            Wrong::Chain(why) => format!("{}: {why}", files.cert.display()),
            Wrong::Key(why) => format!("{}: {why}", files.key.display()),
            Wrong::Pair => format!("{} is not the key of {}", files.key.display(), files.cert.display()),
        })
    }

    /// From the texts of two PEM files.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, Wrong> {
        let chain = read_chain(chain.as_bytes()).map_err(Wrong::Chain)?;
        let facts = Facts::of(&chain[0]).map_err(Wrong::Chain)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| Wrong::Key("there is no private key in it, or it is encrypted".to_owned()))?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => Wrong::Pair,
            // What it says of the key could show a part of it.
            _ => Wrong::Key("this kind of key is not supported: use ECDSA, Ed25519 or RSA of 2048 bits or more".into()),
        })?;
        let Facts { names, not_before, not_after } = facts;
        Ok(Self { key: Arc::new(key), names, not_before, not_after })
    }

    /// What logs and metrics call it: its first name.
    pub fn name(&self) -> &str {
        self.names.first().map_or("-", String::as_str)
    }

    /// Whether it is valid at this time.
    pub fn is_valid(&self, now: Wall) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// The SHA-256 of the certificate itself.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(self.key.cert.first().map_or(&[], |der| der.as_ref()))
    }
}

/// Why a pair cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// The chain.
    Chain(String),
    /// The key.
    Key(String),
    /// The key is another certificate's.
    Pair,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(why) | Self::Key(why) => f.write_str(why),
            Self::Pair => f.write_str("the key is not the key of the certificate"),
        }
    }
}

/// What a certificate says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The host names that it is for.
    pub names: Vec<String>,
    /// Not valid before.
    pub not_before: Wall,
    /// Not valid after.
    pub not_after: Wall,
}

impl Facts {
    /// Reads the certificate itself.
    pub fn of(der: &[u8]) -> Result<Self, String> {
        let broken = |_| "there is a certificate that cannot be read".to_owned();
        let certificate = x509_cert::Certificate::from_der(der).map_err(broken)?;
        let certificate = certificate.tbs_certificate();
        let at = |time: x509_cert::time::Time| {
            Wall::from_unix_s(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
        };
        let validity = certificate.validity();
        let names = certificate.get_extension::<SubjectAltName>().map_err(broken)?;
        let names = names.into_iter().flat_map(|(_, names)| names.0);
        let dns = |name: GeneralName| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
            _ => None,
        };
        let names = names.filter_map(dns).take(NAMES_MAX).collect();
        Ok(Self { names, not_before: at(validity.not_before), not_after: at(validity.not_after) })
    }
}

/// The authorities in a PEM file. At least one.
pub fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read_pem(path, AUTHORITIES_BYTES_MAX)?;
    let wrong = |why: String| format!("{}: {why}", path.display());
    let authorities = read_chain(text.as_bytes()).map_err(wrong)?;
    roots(&authorities).map_err(|error| wrong(error.to_string()))?;
    Ok(authorities)
}

/// These certificates as trusted ones.
pub fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(roots)
}

/// The SHA-256 of a certificate in DER.
pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

/// The one provider of cryptography for TLS.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read_pem(path: &Path, bytes_max: u64) -> Result<String, String> {
    read_text(path, bytes_max).map_err(|error| format!("failed to read {}: {error}", path.display()))
}

fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|_| "it is not PEM".to_owned())?;
    if chain.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(chain) }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

    use super::*;

    fn made(names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        (params.self_signed(&key).expect("signed").pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_says_for_whom_and_for_how_long() {
        let (chain, key) = made(&["Hooks.example.com", "*.example.org", "192.0.2.1"]);
        let certificate = Certificate::from_pem(&chain, &key).expect("a pair");
        assert_eq!(certificate.names, ["hooks.example.com", "*.example.org"]);
        assert_eq!(certificate.not_before.rfc3339(), "2020-01-01T00:00:00.000Z");
        assert_eq!(certificate.not_after.rfc3339(), "2030-01-01T00:00:00.000Z");
        let at = |seconds| certificate.is_valid(Wall::from_unix_s(seconds));
        assert!(at(1_577_836_800) && at(1_893_456_000) && !at(1_577_836_799) && !at(1_893_456_001));
    }

    #[test]
    fn what_is_no_pair_is_told_apart() {
        let ((chain, key), (_, other)) = (made(&["a.example"]), made(&["b.example"]));
        let wrong = |chain: &str, key: &str| Certificate::from_pem(chain, key).map(|c| c.names).expect_err("wrong");
        assert_eq!(wrong(&chain, &other), Wrong::Pair);
        assert!(matches!(wrong(&key, &key), Wrong::Chain(why) if why.contains("no certificate")));
        assert!(matches!(wrong(&chain, &chain), Wrong::Key(_)));
        assert!(matches!(wrong("", &key), Wrong::Chain(_)));
        let cut = chain.replacen("MII", "MIIB", 1);
        assert!(matches!(wrong(&cut, &key), Wrong::Chain(_)));
        assert!(Certificate::from_pem(&(chain.clone() + &made(&["c.example"]).0), &key).is_ok(), "with its chain");
    }
}
