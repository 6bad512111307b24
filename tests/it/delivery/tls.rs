//! An upstream behind TLS, with an authority of its own. The keys in `tls/` are for this test and open nothing.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use hookward::{
    http::client::{Client, ClientError, Sent},
    time::Clock,
};
use http::{HeaderMap, Method};
use rustls::{
    ServerConfig, ServerConnection, Stream,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/delivery/tls").join(name)
}

/// Answers one request per connection; a handshake that fails only ends its connection.
fn serve() -> SocketAddr {
    let chain = vec![CertificateDer::from_pem_file(file("server.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(file("server.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let config = Arc::new(config.expect("a server"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), Ok(mut tls)) = (stream, ServerConnection::new(config.clone())) else { return };
            let mut tls = Stream::new(&mut tls, &mut stream);
            let mut buffer = [0; 4096];
            if tls.read(&mut buffer).is_ok() {
                let _ = tls.write_all(b"HTTP/1.1 204 Taken\r\nconnection: close\r\n\r\n");
            }
        }
    });
    address
}

async fn post(address: SocketAddr, host: &str, ca: &str) -> Sent {
    let url = format!("https://{host}:{}/in", address.port()).parse().expect("a url");
    let client = Client::new(&url, Some(&file(ca)), Clock::system()).expect("a client");
    client.send(Method::POST, url, HeaderMap::new(), Bytes::from_static(b"{}"), Duration::from_secs(20)).await
}

#[tokio::test]
async fn an_upstream_is_trusted_by_its_configured_authority_and_under_its_own_name_only() {
    let address = serve();
    let answered = post(address, "127.0.0.1", "ca.pem").await;
    assert!(matches!(&answered, Sent::Answered(answer) if answer.status == 204), "{answered:?}");

    for (host, ca) in [("127.0.0.1", "server.pem"), ("localhost", "ca.pem")] {
        let refused = post(address, host, ca).await;
        assert!(matches!(&refused, Sent::NotSent(trouble) if trouble.text.starts_with("tls: ")), "{refused:?}");
    }
}

#[test]
fn authorities_that_cannot_be_read_are_named_at_the_start() {
    let url = "https://127.0.0.1/".parse().expect("a url");
    for name in ["missing.pem", "server.key"] {
        let error = Client::new(&url, Some(&file(name)), Clock::system()).expect_err("no authorities");
        assert!(matches!(&error, ClientError::Authorities { path, .. } if path.ends_with(name)), "{error}");
    }
}
