//! Authorities, certificates and clients for tests.

use std::{net::SocketAddr, path::Path, sync::Arc};

use hookward::config::certificate::{fingerprint, provider, roots};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::world::{NOW_S, Reply, read_reply, sign, within};

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) chain_pem: String,
    pub(crate) key: KeyPair,
}

impl Pair {
    /// As `hookward` wants it in `fingerprints`.
    pub(crate) fn fingerprint(&self) -> String {
        fingerprint(&self.der).iter().fold(String::new(), |text, byte| format!("{text}{byte:02X}"))
    }

    /// Writes `NAME.crt` and `NAME.key`.
    pub(crate) fn write(&self, directory: &Path, name: &str) {
        std::fs::write(directory.join(format!("{name}.crt")), &self.chain_pem).expect("written");
        std::fs::write(directory.join(format!("{name}.key")), self.key.serialize_pem()).expect("written");
    }
}

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(&[name]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed"))
    }

    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 2100)
    }

    /// Valid until the beginning of this year.
    pub(crate) fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(names);
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        Pair { der: certificate.der().clone(), chain_pem: certificate.pem(), key }
    }

    pub(crate) fn write(&self, file: &Path) {
        std::fs::write(file, self.0.pem()).expect("written");
    }
}

/// A certificate that vouches for itself.
pub(crate) fn self_signed(name: &str) -> Pair {
    let key = KeyPair::generate().expect("a key");
    let certificate = params(&[name]).self_signed(&key).expect("signed");
    Pair { der: certificate.der().clone(), chain_pem: certificate.pem(), key }
}

/// Valid at the time of a world and at that of the machine.
fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

/// How a client connects.
#[derive(Clone)]
pub(crate) struct Client {
    trusts: CertificateDer<'static>,
    shows: Option<Arc<CertifiedKey>>,
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) only_12: bool,
}

impl Client {
    pub(crate) fn trusting(authority: &Authority) -> Self {
        Self { trusts: authority.0.der().clone(), shows: None, alpn: Vec::new(), only_12: false }
    }

    /// Shows a certificate, and signs with its key.
    pub(crate) fn showing(&self, pair: &Pair) -> Self {
        self.showing_with(pair, &pair.key)
    }

    /// Shows a certificate, and signs with any key.
    pub(crate) fn showing_with(&self, pair: &Pair, key: &KeyPair) -> Self {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = provider().key_provider.load_private_key(key).expect("a key");
        Self { shows: Some(Arc::new(CertifiedKey::new(vec![pair.der.clone()], key))), ..self.clone() }
    }

    /// Shows so many certificates more, of anybody.
    pub(crate) fn showing_also(&self, more: usize) -> Self {
        let shows = self.shows.as_ref().expect("it shows one");
        let others = std::iter::repeat_with(|| self_signed("other.example").der).take(more);
        let chain = shows.cert.iter().cloned().chain(others).collect();
        Self { shows: Some(Arc::new(CertifiedKey::new(chain, shows.key.clone()))), ..self.clone() }
    }

    pub(crate) fn with_alpn(&self, protocols: &[&str]) -> Self {
        let alpn = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self { alpn, ..self.clone() }
    }

    pub(crate) fn with_tls_12(&self) -> Self {
        Self { only_12: true, ..self.clone() }
    }

    /// A handshake; `name` is a host name, or an address, of which the server learns nothing.
    pub(crate) async fn connect(&self, to: SocketAddr, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let versions = if self.only_12 { &[&rustls::version::TLS12][..] } else { &[&rustls::version::TLS13][..] };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots(std::slice::from_ref(&self.trusts)).expect("an authority"));
        let mut config = match &self.shows {
            Some(shows) => builder.with_client_cert_resolver(Arc::new(Shows(shows.clone()))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let stream = TcpStream::connect(to).await?;
        within("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }

    /// Sends a webhook of PartsSource to a path. `Err`: there was no connection for it.
    pub(crate) async fn send(&self, to: SocketAddr, name: &str, secret: &str, path: &str) -> Result<Reply, String> {
        let body = b"{\"n\":1}";
        let signed = sign("partssource", secret, body, NOW_S);
        let headers = signed.iter().fold(String::new(), |lines, (name, value)| format!("{lines}{name}: {value}\r\n"));
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\ncontent-length: 7\r\n{headers}\r\n");
        let mut stream = self.connect(to, name).await.map_err(|error| error.to_string())?;
        let whole = [head.as_bytes(), body].concat();
        let mut answer = Vec::new();
        let talk = async {
            stream.write_all(&whole).await?;
            stream.read_to_end(&mut answer).await
        };
        within("an answer", talk).await.map_err(|error| error.to_string())?;
        if answer.is_empty() { Err("closed".to_owned()) } else { Ok(read_reply(&mut answer.as_slice()).await) }
    }
}

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// The certificate that the server showed.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().expect("it showed one")[0].clone()
}
