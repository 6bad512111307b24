//! Which certificate a client is shown: by the name it asks for, or that of a challenge that an authority looks at.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::config::certificate::Certificate;

/// What a connection that proves a name to an authority negotiates (RFC 8737). It carries nothing else.
pub(super) const ACME_PROTOCOL: &[u8] = b"acme-tls/1";

/// Certificates by the names in them.
#[derive(Debug)]
pub(super) struct Resolver {
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// In the order of the configuration.
    all: Vec<Arc<CertifiedKey>>,
    challenges: Arc<Challenges>,
}

impl Resolver {
    pub(super) fn new(certificates: impl Iterator<Item = Arc<Certificate>>, challenges: Arc<Challenges>) -> Self {
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        let mut all = Vec::new();
        for certificate in certificates {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_default().push(certificate.key.clone());
            }
            all.push(certificate.key.clone());
        }
        Self { by_name, all, challenges }
    }

    /// The first certificate that is for this name and that the client can verify; else the first that it can
    /// verify, whatever its name: a client that knows us by another name says so in its own log.
    fn choose(&self, name: Option<&str>, fits: impl Fn(&CertifiedKey) -> bool) -> Option<Arc<CertifiedKey>> {
        let named = name.map(str::to_ascii_lowercase).and_then(|name| {
            let wildcard = || name.split_once('.').and_then(|(_, rest)| self.by_name.get(&format!("*.{rest}")));
            let of_name = self.by_name.get(&name).into_iter().chain(wildcard()).flatten();
            of_name.into_iter().find(|key| fits(key)).cloned()
        });
        named.or_else(|| self.all.iter().find(|key| fits(key)).or(self.all.first()).cloned())
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == ACME_PROTOCOL)) {
            return self.challenges.get(hello.server_name()?);
        }
        self.choose(hello.server_name(), |key| key.key.choose_scheme(hello.signature_schemes()).is_some())
    }
}

/// Certificates that answer an authority's question whether a name is ours, by name.
#[derive(Debug, Default)]
pub(super) struct Challenges(Mutex<HashMap<String, Arc<CertifiedKey>>>);

impl Challenges {
    pub(super) fn set(&self, name: &str, key: Arc<CertifiedKey>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), key);
    }
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
    fn get(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&name.to_ascii_lowercase()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate(names: &[&str]) -> Arc<Certificate> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let chain = CertificateParams::new(names).expect("names").self_signed(&key).expect("signed").pem();
        Arc::new(Certificate::from_pem(&chain, &key.serialize_pem()).expect("a pair"))
    }

    #[test]
    fn a_client_is_shown_the_certificate_of_the_name_that_it_asks_for() {
        let all = [
            certificate(&["first.example"]),
            certificate(&["*.example.org", "b.example"]),
            certificate(&["deep.example.org"]),
        ];
        let resolver = Resolver::new(all.iter().cloned(), Arc::default());
        for (asked, shown) in [
            (Some("first.example"), 0),
            (Some("B.Example"), 1),
            (Some("any.example.org"), 1),
            // The exact name goes before the wildcard, which stands for one label.
            (Some("deep.example.org"), 2),
            (Some("a.b.example.org"), 0),
            (Some("example.org"), 0),
            (Some("*.example.org"), 1),
            (Some("unknown.example"), 0),
            (Some(""), 0),
            (None, 0),
        ] {
            let chosen = resolver.choose(asked, |_| true).expect("there are some");
            assert!(Arc::ptr_eq(&chosen, &all[shown].key), "{asked:?}");
        }
        assert!(Resolver::new(std::iter::empty(), Arc::default()).choose(None, |_| true).is_none());
    }

    #[test]
    fn of_two_certificates_for_a_name_the_one_that_the_client_can_verify_is_shown() {
        let all = [certificate(&["a.example"]), certificate(&["a.example"])];
        let resolver = Resolver::new(all.iter().cloned(), Arc::default());
        let second = resolver.choose(Some("a.example"), |key| !std::ptr::eq(key, &raw const *all[0].key));
        assert!(Arc::ptr_eq(&second.expect("one fits"), &all[1].key));
    }
}
