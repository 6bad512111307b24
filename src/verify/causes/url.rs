//! Another URL than the one that was signed.

use http::header::HOST;

use super::{super::Seen, CauseKind, Lab};

/// How the signed URL differs from the one that is known here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UrlChange {
    /// `http` for `https`, or the other way round.
    Scheme,
    /// It has no port.
    NoPort,
    /// It has the default port.
    DefaultPort,
    /// It has the host of the request.
    Host,
    /// Its path ends in a slash.
    Slash,
    /// Its path does not end in a slash.
    NoSlash,
    /// It has no query.
    NoQuery,
    /// It is the path and the query alone.
    PathAndQuery,
    /// It is the path alone.
    Path,
}

impl Lab<'_> {
    /// Another URL that was signed.
    pub(super) fn other_url(&mut self, body: &[u8]) -> Option<CauseKind> {
        let question = self.question;
        let url = question.seen.url.filter(|_| question.scheme.needs_url())?;
        let host = question.seen.headers.get(HOST).and_then(|host| host.to_str().ok());
        let ring = self.ring.clone();
        for (change, other) in others(url, host) {
            let seen = Seen { url: Some(&other), ..question.seen };
            if other != url && self.verifies(question.scheme, seen, &ring, body).is_some() {
                return Some(CauseKind::Url(change));
            }
        }
        None
    }
}

fn others(url: &str, host: Option<&str>) -> Vec<(UrlChange, String)> {
    let Some((scheme, rest)) = url.split_once("://") else { return Vec::new() };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, format!("?{query}")),
        None => (rest, String::new()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let bare = authority.rsplit_once(':').filter(|(_, port)| is_port(port)).map(|(host, _)| host);
    let (other, port) = if scheme == "https" { ("http", 443) } else { ("https", 80) };
    let ported = match bare {
        Some(bare) => (UrlChange::NoPort, format!("{scheme}://{bare}{path}{query}")),
        None => (UrlChange::DefaultPort, format!("{scheme}://{authority}:{port}{path}{query}")),
    };
    let slashed = match path.strip_suffix('/') {
        Some(path) => (UrlChange::NoSlash, format!("{scheme}://{authority}{path}{query}")),
        None => (UrlChange::Slash, format!("{scheme}://{authority}{path}/{query}")),
    };
    let mut all = vec![(UrlChange::Scheme, format!("{other}://{authority}{path}{query}")), ported, slashed];
    all.extend(host.map(|host| (UrlChange::Host, format!("{scheme}://{host}{path}{query}"))));
    all.push((UrlChange::NoQuery, format!("{scheme}://{authority}{path}")));
    all.push((UrlChange::PathAndQuery, format!("{path}{query}")));
    all.push((UrlChange::Path, path.to_owned()));
    all
}
