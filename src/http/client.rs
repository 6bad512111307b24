//! The outbound client: one request to one upstream, with a bound on everything.
//!
//! It tells three outcomes apart, because the caller must: the upstream answered; nothing of the request can have
//! reached it; or nobody knows. Whatever is not certainly the second is the third.

use std::{error::Error as _, fmt, io, path::Path, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        self,
        connect::{HttpConnector, capture_connection},
    },
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, sign::SingleCertAndKey};
use tokio::time::{Instant, timeout_at};

use crate::{
    config::{
        certificate::{self, Certificate},
        model::CertificateFiles,
    },
    document::format_duration,
    policy::retry::parse_retry_after,
    time::Clock,
};

/// How much of an answer is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// From the first SYN to an open connection. Within the timeout of the whole attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Below the shortest keep-alive in common use (Node closes after 5 s): a request written just as its server closes
/// the connection ends as "unknown".
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Connections kept open per upstream.
const POOL_IDLE_MAX: usize = 64;

/// A pooled HTTP/1.1 client for one upstream. Cheap to clone. It follows no redirects and uses no proxy.
#[derive(Clone)]
pub struct Client {
    inner: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    clock: Clock,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The system's authorities.
    #[error("failed to load the authorities that this system trusts: {0}")]
    SystemRoots(io::Error),
    /// The file of `tls.ca`.
    #[error("failed to read authorities: {reason}")]
    Authorities {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The files of `tls.cert` and `tls.key`.
    #[error("failed to read the client certificate: {0}")]
    Certificate(String),
    /// TLS itself.
    #[error("failed to set up tls: {0}")]
    Tls(rustls::Error),
}

/// How a request ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sent {
    /// The upstream answered.
    Answered(Answered),
    /// No byte of the request can have reached the upstream: not resolved, refused, no TLS.
    NotSent(Trouble),
    /// It may have reached the upstream: a timeout, or a connection that ended, after sending began.
    Unknown(Trouble),
}

/// What an upstream answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answered {
    /// Its status. 1xx never gets here.
    pub status: StatusCode,
    /// How long it asks us to wait.
    pub retry_after: Option<Duration>,
    /// The content type, where it is text.
    pub content_type: Option<String>,
    /// At most [`ANSWER_BYTES_MAX`] of its body.
    pub body: Bytes,
    /// The body is not whole: it was longer, or its end did not come in time.
    pub truncated: bool,
}

/// What went wrong, in a few words without any part of the URL: `connection refused`, `timed out after 10s`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// The words.
    pub text: String,
    /// Whether it was a timeout.
    pub timed_out: bool,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Client {
    /// A client for `url`. For `https` it trusts the authorities in the PEM file `ca`, or else the system's.
    pub fn new(url: &Uri, ca: Option<&Path>, clock: Clock) -> Result<Self, ClientError> {
        Self::showing(url, ca, None, clock)
    }

    /// As [`Client::new`]; and it shows this certificate to a server that asks for one.
    pub fn showing(
        url: &Uri,
        ca: Option<&Path>,
        certificate: Option<&CertificateFiles>,
        clock: Clock,
    ) -> Result<Self, ClientError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_config(url, ca, certificate)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let inner = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            // Without a pool timer idle connections would be kept for ever.
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(POOL_IDLE_MAX)
            .http1_max_buf_size(ANSWER_BYTES_MAX)
            // A request goes to another connection if the pooled one turns out to be closed before hyper has begun
            // to write: hyper hands the request back only if not a byte of it was written (1.12, in its
            // proto/h1/dispatch.rs), so that this repeats nothing and is no attempt of its own. What was begun on a
            // connection is never repeated here.
            .retry_canceled_requests(true)
            .build(connector);
        Ok(Self { inner, clock })
    }

    /// Sends one request. `timeout` covers all of it, from connect to the end of the answer. The body is not
    /// copied.
    pub async fn send(&self, method: Method, url: Uri, headers: HeaderMap, body: Bytes, timeout: Duration) -> Sent {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = url;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        // Set as soon as a connection is chosen for the request: until then nothing can have been written.
        let connection = capture_connection(&mut request);
        let deadline = Instant::now() + timeout;
        match timeout_at(deadline, self.inner.request(request)).await {
            Ok(Ok(response)) => Sent::Answered(self.read(response, deadline).await),
            Ok(Err(error)) if error.is_connect() || connection.connection_metadata().is_none() => {
                Sent::NotSent(explain(&error))
            }
            Ok(Err(error)) => Sent::Unknown(explain(&error)),
            Err(_elapsed) => {
                let sent = connection.connection_metadata().is_some();
                let doing = if sent { "timed out" } else { "timed out connecting" };
                let trouble = Trouble { text: format!("{doing} after {}", format_duration(timeout)), timed_out: true };
                if sent { Sent::Unknown(trouble) } else { Sent::NotSent(trouble) }
            }
        }
    }

    /// The status is the upstream's word: whatever happens to the body after it only truncates the answer.
    async fn read(&self, response: Response<Incoming>, deadline: Instant) -> Answered {
        let (head, mut incoming) = response.into_parts();
        let (mut body, mut truncated) = (BytesMut::new(), false);
        loop {
            match timeout_at(deadline, incoming.frame()).await {
                Ok(None) => break,
                Ok(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let room = ANSWER_BYTES_MAX - body.len();
                    body.extend_from_slice(&data[..data.len().min(room)]);
                    // Dropping the rest closes the connection, which is cheaper than reading an endless answer.
                    if data.len() > room {
                        truncated = true;
                        break;
                    }
                }
                Ok(Some(Err(_))) | Err(_) => {
                    truncated = true;
                    break;
                }
            }
        }
        let now = self.clock.wall();
        let value = |name| head.headers.get(name);
        Answered {
            status: head.status,
            retry_after: value(header::RETRY_AFTER).and_then(|value| parse_retry_after(value.as_bytes(), now)),
            content_type: value(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned),
            body: body.freeze(),
            truncated,
        }
    }
}

/// TLS towards `url`: its authorities are those in the PEM file `ca`, or else the system's.
pub(super) fn client_config(
    url: &Uri,
    ca: Option<&Path>,
    certificate: Option<&CertificateFiles>,
) -> Result<ClientConfig, ClientError> {
    let builder = ClientConfig::builder_with_provider(certificate::provider())
        .with_safe_default_protocol_versions()
        .map_err(ClientError::Tls)?;
    let builder = match ca {
        Some(path) => builder.with_root_certificates(authorities(path)?),
        None if url.scheme() == Some(&http::uri::Scheme::HTTPS) => {
            builder.with_native_roots().map_err(ClientError::SystemRoots)?
        }
        // Never used: the URL has no TLS. A system without authorities still starts.
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(match certificate {
        Some(files) => {
            let own = Certificate::read(files).map_err(ClientError::Certificate)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.key)))
        }
        None => builder.with_no_client_auth(),
    })
}

fn authorities(path: &Path) -> Result<RootCertStore, ClientError> {
    let read = certificate::read_authorities(path);
    let roots = read.and_then(|authorities| certificate::roots(&authorities).map_err(|error| error.to_string()));
    roots.map_err(|reason| ClientError::Authorities { path: path.display().to_string(), reason })
}

/// Puts the innermost cause that we know into words of our own.
fn explain(error: &legacy::Error) -> Trouble {
    let mut text = None;
    let mut timed_out = false;
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            text = Some(format!("tls: {tls}"));
        } else if let Some(io) = cause.downcast_ref::<io::Error>() {
            timed_out |= io.kind() == io::ErrorKind::TimedOut;
            text = Some(words(io));
        } else if let Some(http) = cause.downcast_ref::<hyper::Error>() {
            if http.is_incomplete_message() || http.is_canceled() {
                text = Some("connection closed before an answer".to_owned());
            } else if http.is_parse() {
                text = Some("the answer is not HTTP".to_owned());
            }
        } else if cause.to_string().starts_with("dns error") {
            return Trouble { text: "failed to resolve the host name".to_owned(), timed_out: false };
        }
        next = cause.source();
    }
    Trouble { text: text.unwrap_or_else(|| "failed to send the request".to_owned()), timed_out }
}

fn words(error: &io::Error) -> String {
    // TLS errors come wrapped in I/O errors, which do not show them as their source.
    if let Some(inner) = error.get_ref() {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return format!("tls: {tls}");
        }
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return words(io);
        }
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => "connection closed while sending".to_owned(),
        io::ErrorKind::UnexpectedEof => "connection closed before an answer".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "no route to the host".to_owned(),
        io::ErrorKind::TimedOut => "timed out connecting".to_owned(),
        kind => kind.to_string(),
    }
}
