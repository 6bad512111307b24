//! Certificates of clients: what a handshake asks for, and what a source makes of them.
//!
//! A handshake proves that the client has the key of the certificate that it shows. Whose certificate counts is the
//! listener's business if it has `client_ca`, and the source's if it has `client_cert`. A source may pin certificates
//! that no authority of the listener vouches for, so wherever one does, the handshake takes any certificate, and only
//! the source says what it is worth.

use std::{
    collections::BTreeSet,
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lru::LruCache;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, InvalidMessage, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use sha2::{Digest as _, Sha256};

use crate::{
    config::{
        certificate::{fingerprint, provider, roots},
        model::ClientCert,
    },
    time::Wall,
};

/// What a client may send in certificates, in bytes: it is kept as long as the connection.
const CHAIN_BYTES_MAX: usize = 16 << 10;
/// Certificates of one chain. Each more multiplies the paths that may have to be tried.
const CHAIN_LENGTH_MAX: usize = 6;
/// Chains whose verdict is remembered, for each source with an issuer.
const VERDICTS_MAX: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// For how long it is. A certificate that expires is refused so much later at most.
const VERDICT_KEPT: Duration = Duration::from_mins(1);

/// What a client has to show to be let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Terms {
    /// Nothing, and it is asked for nothing.
    Nothing,
    /// Any certificate, or none.
    Any,
    /// A certificate of these authorities, in DER; or none, unless it is required.
    Of { authorities: BTreeSet<Box<[u8]>>, required: bool },
}

/// The verifier of a listener's handshakes.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) terms: Terms,
    /// Whose certificates count; `None`: any, and a client may show none.
    authorities: Option<Arc<dyn ClientCertVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Asking {
    /// Asks for certificates of these authorities.
    pub(super) fn of(authorities: &[CertificateDer<'static>], required: bool) -> Result<Self, String> {
        let terms = Terms::Of { authorities: authorities.iter().map(|der| der.as_ref().into()).collect(), required };
        let roots = roots(authorities).map_err(|error| error.to_string())?;
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = if required { builder } else { builder.allow_unauthenticated() };
        let authorities = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { terms, authorities: Some(authorities), provider: provider() })
    }

    /// Asks for any certificate, and takes none, too.
    pub(super) fn any() -> Self {
        Self { terms: Terms::Any, authorities: None, provider: provider() }
    }
}

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        self.authorities.as_ref().is_some_and(|known| known.client_auth_mandatory())
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.as_ref().map_or(&[], |known| known.root_hint_subjects())
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let bytes = end_entity.len() + intermediates.iter().map(|der| der.len()).sum::<usize>();
        if bytes > CHAIN_BYTES_MAX || intermediates.len() >= CHAIN_LENGTH_MAX {
            return Err(Error::InvalidMessage(InvalidMessage::CertificatePayloadTooLarge));
        }
        match &self.authorities {
            Some(known) => known.verify_client_cert(end_entity, intermediates, now),
            None => Ok(ClientCertVerified::assertion()),
        }
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a source asks of its clients' certificates.
pub struct Wanted(Kind);

enum Kind {
    Fingerprints(Vec<[u8; 32]>),
    Issuer {
        verifier: Arc<dyn ClientCertVerifier>,
        verdicts: Mutex<LruCache<[u8; 32], (Wall, bool)>>,
    },
    /// The authorities cannot be used: nobody gets in.
    Nobody,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Fingerprints(_) => "Wanted(fingerprints)",
            Kind::Issuer { .. } => "Wanted(issuer)",
            Kind::Nobody => "Wanted(nobody)",
        })
    }
}

impl Wanted {
    /// As the configuration says.
    pub fn new(wanted: &ClientCert) -> Self {
        Self(match wanted {
            ClientCert::Fingerprints(listed) => Kind::Fingerprints(listed.clone()),
            ClientCert::Issuer(issuer) => {
                let built = roots(&issuer.roots).ok().filter(|roots| !roots.is_empty()).and_then(|roots| {
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().ok()
                });
                match built {
                    Some(verifier) => Kind::Issuer { verifier, verdicts: Mutex::new(LruCache::new(VERDICTS_MAX)) },
                    None => Kind::Nobody,
                }
            }
        })
    }

    /// Whether a client that showed these certificates, and proved the key of the first, is one of those that are
    /// wanted. A pinned certificate is its own proof; one of an issuer must be valid `now`.
    pub fn accepts(&self, chain: &[Box<[u8]>], now: Wall) -> bool {
        let Some((own, others)) = chain.split_first() else { return false };
        match &self.0 {
            Kind::Fingerprints(listed) => listed.contains(&fingerprint(own)),
            Kind::Nobody => false,
            Kind::Issuer { verifier, verdicts } => {
                let of = digest(chain);
                // Trying paths costs more than a request may: the verdict on a chain is found once a minute. Between
                // looking it up and keeping it the lock is open, and two that find the same do no harm.
                let lock = || verdicts.lock().unwrap_or_else(PoisonError::into_inner);
                let known = lock().get(&of).copied();
                let is_fresh = |at: Wall| at <= now && now < at.plus(VERDICT_KEPT);
                if let Some((_, verdict)) = known.filter(|(at, _)| is_fresh(*at)) {
                    return verdict;
                }
                let verdict = is_vouched_for(&**verifier, own, others, now);
                lock().put(of, (now, verdict));
                verdict
            }
        }
    }
}

fn is_vouched_for(verifier: &dyn ClientCertVerifier, own: &[u8], others: &[Box<[u8]>], now: Wall) -> bool {
    let others: Vec<_> = others.iter().map(|der| CertificateDer::from(&**der)).collect();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.unix_s()).unwrap_or(0)));
    verifier.verify_client_cert(&CertificateDer::from(own), &others, now).is_ok()
}

/// Of all certificates, and where each ends.
fn digest(chain: &[Box<[u8]>]) -> [u8; 32] {
    let mut whole = Sha256::new();
    for der in chain {
        whole.update((der.len() as u64).to_be_bytes());
        whole.update(der);
    }
    whole.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;
    use crate::config::model::Authorities;

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        params
    }

    fn authority(name: &str) -> Issuer {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
    }

    fn client(of: &Issuer) -> Box<[u8]> {
        let key = KeyPair::generate().expect("a key");
        let certificate = params("client.example").signed_by(&key, of).expect("signed");
        certificate.der().to_vec().into()
    }

    fn wanted(of: &Issuer) -> Wanted {
        let roots = vec![of.der().clone()];
        Wanted::new(&ClientCert::Issuer(Authorities { file: PathBuf::from("ca.pem"), roots }))
    }

    const NOW: Wall = Wall::from_unix_s(1_700_000_000);
    const LATER: Wall = Wall::from_unix_s(2_000_000_000);

    #[test]
    fn a_certificate_counts_if_its_issuer_does_and_as_long_as_it_is_valid() {
        let (known, other) = (authority("known"), authority("known"));
        let (own, strange) = (vec![client(&known)], vec![client(&other)]);
        let wanted = wanted(&known);
        assert!(wanted.accepts(&own, NOW) && wanted.accepts(&own, NOW), "the second time by memory");
        assert!(!wanted.accepts(&strange, NOW) && !wanted.accepts(&strange, NOW));
        assert!(!wanted.accepts(&[], NOW));
        assert!(!wanted.accepts(&own, LATER), "what is remembered does not outlive the certificate");
        let with_forged_chain = vec![client(&other), own[0].clone()];
        assert!(!wanted.accepts(&with_forged_chain, NOW), "only the first is proven");
    }

    #[test]
    fn a_pinned_certificate_is_accepted_by_its_bytes_alone() {
        let authority = authority("any");
        let (own, another) = (client(&authority), client(&authority));
        let wanted = Wanted::new(&ClientCert::Fingerprints(vec![fingerprint(&own)]));
        assert!(wanted.accepts(std::slice::from_ref(&own), LATER));
        assert!(!wanted.accepts(std::slice::from_ref(&another), NOW));
        assert!(!wanted.accepts(&[another, own], NOW), "only the first is proven");
        assert!(!wanted.accepts(&[], NOW));
    }

    #[test]
    fn without_authorities_nobody_gets_in() {
        let none = Authorities { file: PathBuf::from("ca.pem"), roots: Vec::new() };
        let wanted = Wanted::new(&ClientCert::Issuer(none));
        assert!(!wanted.accepts(&[client(&authority("any"))], NOW));
    }
}
