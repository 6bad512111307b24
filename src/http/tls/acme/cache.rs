//! What is kept on disk: the account, the certificate with its key, and what is known of earlier orders.
//!
//! Each authority has a directory of its own, so that what one for trying out has issued is never shown as another's.
//! A file is replaced whole, and nobody but the user that runs Hookward can read it.

use std::{fs, path::PathBuf};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::plan::History;
use crate::{
    config::{certificate::Certificate, model::Acme},
    files::{make_directory, write_whole},
};

/// The key first, then the chain.
const CERTIFICATE: &str = "certificate.pem";
const ACCOUNT: &str = "account.json";
const HISTORY: &str = "orders.json";
const FILE_BYTES_MAX: u64 = 256 << 10;

/// The files of one authority.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    directory: PathBuf,
}

impl Cache {
    pub(super) fn of(acme: &Acme) -> Self {
        let digest: [u8; 32] = Sha256::digest(acme.directory.to_string()).into();
        let short = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        let host = acme.directory.host().unwrap_or("authority").replace([':', '[', ']'], "");
        Self { directory: acme.cache.join(format!("{host}-{short:08x}")) }
    }

    /// The certificate, if it is whole and for exactly these names.
    pub(super) fn certificate(&self, domains: &[String]) -> Option<Certificate> {
        let text = Zeroizing::new(self.read(CERTIFICATE)?);
        match Certificate::from_pem(&text, &text) {
            Ok(certificate) if is_for(&certificate, domains) => Some(certificate),
            Ok(_) => None,
            Err(why) => {
                tracing::warn!(file = %self.directory.join(CERTIFICATE).display(), %why, "the kept certificate is damaged: another is asked for");
                None
            }
        }
    }

    pub(super) fn keep_certificate(&self, key: &str, chain: &str) {
        self.write(CERTIFICATE, Zeroizing::new(format!("{key}\n{chain}")).as_bytes());
    }

    pub(super) fn account(&self) -> Option<Zeroizing<String>> {
        self.read(ACCOUNT).map(Zeroizing::new)
    }

    pub(super) fn keep_account(&self, text: &str) {
        self.write(ACCOUNT, text.as_bytes());
    }

    /// The authority does not know it any more.
    pub(super) fn forget_account(&self) {
        let _ = fs::remove_file(self.directory.join(ACCOUNT));
    }

    pub(super) fn history(&self) -> History {
        self.read(HISTORY).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    pub(super) fn remember(&self, past: &History) {
        self.write(HISTORY, &serde_json::to_vec(past).unwrap_or_default());
    }

    fn read(&self, name: &str) -> Option<String> {
        let path = self.directory.join(name);
        match fs::metadata(&path) {
            Ok(found) if found.len() <= FILE_BYTES_MAX => fs::read_to_string(path).ok(),
            _ => None,
        }
    }

    /// What cannot be kept is used all the same: it is asked for again after a restart.
    fn write(&self, name: &str, bytes: &[u8]) {
        let file = self.directory.join(name);
        let written = make_directory(&self.directory).and_then(|()| write_whole(&self.directory, &file, bytes));
        if let Err(error) = written {
            tracing::warn!(file = %file.display(), %error, "failed to keep a file of the certificate's authority");
        }
    }
}

/// Whether these are its names, in any order.
pub(super) fn is_for(certificate: &Certificate, domains: &[String]) -> bool {
    let has = |name: &String| certificate.names.contains(name);
    domains.iter().all(has) && certificate.names.iter().all(|name| domains.contains(name))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, path::Path};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn acme(directory: &str, cache: &Path) -> Acme {
        let directory = directory.parse().expect("a URL");
        Acme { directory, domains: Vec::new(), contact: None, ca: None, cache: cache.to_owned() }
    }

    #[test]
    fn a_certificate_is_kept_for_its_names_its_authority_and_its_owner() {
        let place = tempfile::tempdir().expect("a directory");
        let root = place.path().join("not/there/yet");
        let cache = Cache::of(&acme("https://acme.example/directory", &root));
        let names = ["b.example".to_owned(), "a.example".to_owned()];
        assert!(cache.certificate(&names).is_none());
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["a.example".to_owned(), "b.example".to_owned()]).expect("names");
        cache.keep_certificate(&key.serialize_pem(), &params.self_signed(&key).expect("signed").pem());
        assert!(cache.certificate(&names).is_some());
        assert!(cache.certificate(&names[..1]).is_none(), "it is for another name, too");
        assert!(cache.certificate(&[names.to_vec(), vec!["c.example".to_owned()]].concat()).is_none());
        let other = Cache::of(&acme("https://acme.example/trying-out", &root));
        assert!(other.certificate(&names).is_none());
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&cache.directory), mode(&cache.directory.join(CERTIFICATE))), (0o700, 0o600));

        fs::write(cache.directory.join(CERTIFICATE), "damaged").expect("written");
        assert!(cache.certificate(&names).is_none());
    }
}
