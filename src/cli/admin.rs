//! A small client of the admin API, for the commands that use it: one connection for each request.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, uri::Authority};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::{net::TcpStream, time::timeout};

use crate::{admin::api::ProblemDocument, secret::Secret, telemetry::log::escaped};

const DEFAULT_URL: &str = "http://127.0.0.1:9900";
const URL_VARIABLE: &str = "HOOKWARD_ADMIN_URL";
const TOKEN_FILE_VARIABLE: &str = "HOOKWARD_ADMIN_TOKEN_FILE";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Also between two pieces of a body that is downloaded.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A page of 500 events, or a preview of 256 KiB in which every byte is escaped, is well below this.
const JSON_BYTES_MAX: usize = 16 << 20;
/// A token file that is larger is another file.
const TOKEN_BYTES_MAX: usize = 4096;
/// All but what RFC 3986 calls unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where the gateway is, as typed.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Which gateway")]
pub(super) struct Connect {
    /// The gateway's configuration, which has the address and the token.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the admin listener [env: HOOKWARD_ADMIN_URL] [default: http://127.0.0.1:9900]
    #[arg(long, value_name = "URL")]
    admin_url: Option<String>,
    /// File with the token [env: HOOKWARD_ADMIN_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Connect {
    /// Whether the address and the token come from a configuration, whose warnings are shown by then.
    pub(super) fn has_config(&self) -> bool {
        self.config.is_some()
    }
}

/// The configuration that was given is wrong. Its problems are shown by then.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not usable; give --admin-url and --token-file instead")]
pub(super) struct Unusable(String);

/// The address and the token of the admin listener, from a configuration.
fn admin_from_config(path: &Path) -> anyhow::Result<(SocketAddr, Option<Secret>)> {
    let config = super::load_config(path).ok_or_else(|| Unusable(path.display().to_string()))?;
    // The strongest token there is: the gateway says so if that is not enough.
    let token = config.admin.tokens.into_iter().max_by_key(|token| token.role).map(|token| token.token);
    Ok((config.admin.listen, token))
}

/// A gateway to talk to.
#[derive(Debug)]
pub(super) struct Gateway {
    authority: Authority,
    authorization: Option<HeaderValue>,
}

impl Gateway {
    /// What is given wins over the configuration, and that over the environment.
    pub(super) fn new(connect: &Connect) -> anyhow::Result<Self> {
        let configured = connect.config.as_deref().map(admin_from_config).transpose()?;
        let (address, mut token) = configured.map_or((None, None), |(address, token)| (Some(address), token));
        let from_config = address.is_some();
        let authority = match (&connect.admin_url, address) {
            (Some(url), _) => authority(url)?,
            (None, Some(address)) => reachable(address).to_string().parse()?,
            (None, None) => authority(&variable(URL_VARIABLE).unwrap_or_else(|| DEFAULT_URL.to_owned()))?,
        };
        let from_environment = || variable(TOKEN_FILE_VARIABLE).filter(|_| !from_config).map(PathBuf::from);
        if let Some(file) = connect.token_file.clone().or_else(from_environment) {
            token = Some(read_token(&file)?);
        }
        let authorization = token.map(|token| bearer(&token)).transpose()?;
        Ok(Self { authority, authorization })
    }

    /// `GET`, read as JSON.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.json(self.request(Method::GET, path, Bytes::new())?).await
    }

    /// `POST` of JSON, or of nothing, read as JSON.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: Option<String>) -> anyhow::Result<T> {
        self.json(self.request(Method::POST, path, body.unwrap_or_default().into())?).await
    }

    /// As [`Gateway::post`], where a refusal (409, 422) says as much as an answer.
    pub(super) async fn post_for_outcome<T: DeserializeOwned>(&self, path: &str, body: String) -> anyhow::Result<T> {
        let answer = self.send(self.request(Method::POST, path, body.into())?).await?;
        let is_outcome = matches!(answer.status(), StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY);
        self.read_if(answer, |status| status.is_success() || is_outcome).await
    }

    /// `GET`, written to stdout as it comes.
    pub(super) async fn download(&self, path: &str) -> anyhow::Result<()> {
        let mut answer = self.send(self.request(Method::GET, path, Bytes::new())?).await?;
        if answer.status() != StatusCode::OK {
            return self.read::<serde::de::IgnoredAny>(answer).await.map(drop);
        }
        let mut stdout = std::io::stdout();
        while let Some(frame) =
            timeout(ANSWER_TIMEOUT, answer.frame()).await.context("the gateway stopped answering")?
        {
            if let Ok(piece) = frame.context("the answer broke off")?.into_data() {
                stdout.write_all(&piece).context("failed to write to stdout")?;
            }
        }
        stdout.flush().context("failed to write to stdout")
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.authority.as_str());
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        Ok(request.body(Full::new(body))?)
    }

    async fn json<T: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> anyhow::Result<T> {
        let answer = self.send(request).await?;
        self.read(answer).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        let at = &self.authority;
        let port = at.port_u16().unwrap_or(80);
        let host = at.host().trim_start_matches('[').trim_end_matches(']');
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port)))
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|error| anyhow!("no gateway at {at} ({error}): is it running? give --admin-url or -c FILE"))?;
        let talk = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // It ends by itself, when the sender and the answer's body are dropped.
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        let answer = timeout(ANSWER_TIMEOUT, talk).await;
        answer
            .with_context(|| format!("{at} took the connection but did not answer"))?
            .with_context(|| format!("what listens at {at} does not answer as a gateway: give --admin-url or -c FILE"))
    }

    async fn read<T: DeserializeOwned>(&self, answer: Response<Incoming>) -> anyhow::Result<T> {
        self.read_if(answer, |status| status.is_success()).await
    }

    async fn read_if<T: DeserializeOwned>(
        &self,
        answer: Response<Incoming>,
        is_read: impl Fn(StatusCode) -> bool,
    ) -> anyhow::Result<T> {
        let at = &self.authority;
        let status = answer.status();
        let collected = timeout(ANSWER_TIMEOUT, Limited::new(answer.into_body(), JSON_BYTES_MAX).collect()).await;
        let body = collected
            .with_context(|| format!("{at} stopped answering"))?
            .map_err(|error| anyhow!("failed to read the answer of {at}: {error}"))?
            .to_bytes();
        if is_read(status) {
            return serde_json::from_slice(&body).with_context(|| {
                format!("what listens at {at} is no gateway, or one of another version: give --admin-url or -c FILE")
            });
        }
        match serde_json::from_slice::<ProblemDocument>(&body) {
            Ok(problem) => bail!("{}; {}", escaped(&problem.detail), escaped(&problem.help)),
            Err(_) => bail!("{at} answered {status}: is it the admin listener? give --admin-url or -c FILE"),
        }
    }
}

/// The query of these parameters, with the `?`; nothing if there are none.
pub(super) fn query(parameters: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in parameters {
        out.push(if out.is_empty() { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        out.extend(utf8_percent_encode(value, ENCODED));
    }
    out
}

/// `text` as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn authority(url: &str) -> anyhow::Result<Authority> {
    let example = "write it as http://127.0.0.1:9900";
    let uri: Uri = url.parse().with_context(|| format!("`{url}` is not a URL: {example}"))?;
    let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/") && uri.query().is_none();
    match uri.authority() {
        Some(authority) if plain && !authority.as_str().contains('@') => Ok(authority.clone()),
        _ => bail!("`{url}` is not the address of an admin listener, which speaks plain http: {example}"),
    }
}

/// A listener on all addresses is reached on this machine's own.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn read_token(file: &Path) -> anyhow::Result<Secret> {
    let token = Secret::new(std::fs::read(file).with_context(|| format!("failed to read {}", file.display()))?);
    let bytes = token.expose();
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.is_empty() || bytes.len() > TOKEN_BYTES_MAX {
        bail!("{} holds no token: it must hold one line of at most {TOKEN_BYTES_MAX} bytes", file.display());
    }
    Ok(Secret::new(bytes))
}

fn bearer(token: &Secret) -> anyhow::Result<HeaderValue> {
    let value = zeroize::Zeroizing::new([b"Bearer ", token.expose()].concat());
    let mut value =
        HeaderValue::from_bytes(&value).ok().context("the token has characters that no header can carry")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_to_an_authority_is_an_address() {
        assert_eq!(authority("http://127.0.0.1:9900").expect("an address").as_str(), "127.0.0.1:9900");
        assert_eq!(authority("http://[::1]:9900/").expect("an address").as_str(), "[::1]:9900");
        for wrong in ["127.0.0.1:9900", "https://a", "http://a/x", "http://a?x", "http://u:p@a", "/x", ""] {
            let error = authority(wrong).expect_err(wrong).to_string();
            assert!(error.contains("http://127.0.0.1:9900"), "{error}");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        assert_eq!(reachable("0.0.0.0:1".parse().expect("an address")).to_string(), "127.0.0.1:1");
        assert_eq!(reachable("[::]:1".parse().expect("an address")).to_string(), "[::1]:1");
        assert_eq!(reachable("10.0.0.1:1".parse().expect("an address")).to_string(), "10.0.0.1:1");
    }

    #[test]
    fn a_query_survives_any_value() {
        assert_eq!(query(&[("type", "a&b=c d+ü"), ("limit", "5")]), "?type=a%26b%3Dc%20d%2B%C3%BC&limit=5");
        assert_eq!(query(&[]), "");
    }

    #[test]
    fn a_token_file_may_end_in_a_newline_and_never_shows() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("token");
        std::fs::write(&file, "canary\r\n").expect("written");
        let token = read_token(&file).expect("a token");
        assert!(token.matches(b"canary"));
        assert!(!format!("{:?}", bearer(&token)).contains("canary"));
        std::fs::write(&file, "\n").expect("written");
        assert!(read_token(&file).is_err());
    }
}
