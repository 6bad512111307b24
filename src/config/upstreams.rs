//! `[upstreams.NAME]`, and URLs written at a source.

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue, Uri};

use super::{
    certificate::Certificate,
    load::{Reader, Secrets, read_text},
    model::{Breaker, CertificateFiles, Retry, Upstream},
    read, secrets,
};
use crate::{
    document::{At, Place, Problems, Section, Value},
    verify::KeyFormat,
};

const CA_FILE_BYTES_MAX: u64 = 4 << 20;

/// An upstream with the places that later rules point at.
#[derive(Debug)]
pub(super) struct UpstreamRead {
    pub(super) upstream: Upstream,
    /// Its name, or the URL at the source.
    pub(super) place: Place,
    pub(super) url_place: Place,
    pub(super) retry_place: Option<Place>,
    /// `concurrency` is written, and not to be fitted to the bodies of the sources.
    pub(super) has_concurrency: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_mins(15),
            give_up_after: Duration::from_hours(72),
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, ratio: 0.5, within: Duration::from_mins(1), pause: Duration::from_secs(30) }
    }
}

/// An upstream of which only the URL is known.
fn standard(name: &str, url: Uri) -> Upstream {
    Upstream {
        name: name.into(),
        url,
        timeout: Duration::from_secs(10),
        concurrency: 16,
        rate: None,
        retry: Retry::default(),
        breaker: Breaker::default(),
        dead_letter_on: vec![400, 410, 413, 415, 422],
        signing_secret: None,
        headers: Vec::new(),
        ca: None,
        client_cert: None,
    }
}

/// An upstream written as a URL at the source `name`.
pub(super) fn from_url(reader: &Reader<'_>, name: &str, url: &At<String>) -> UpstreamRead {
    let upstream = standard(name, read_url(reader.problems, url).unwrap_or_default());
    let (place, url_place) = (url.place.clone(), url.place.clone());
    UpstreamRead { upstream, place, url_place, retry_place: None, has_concurrency: false }
}

/// Reads one table.
pub(super) fn read(reader: &Reader<'_>, name: At<String>, value: Value<'_>) -> Option<UpstreamRead> {
    let mut section = value.section()?;
    let url = section.required::<String>("url", "write url = \"http://127.0.0.1:9000/\"");
    let url_place = url.as_ref().map_or_else(|| section.place().clone(), |at| at.place.clone());
    let url = url.and_then(|at| read_url(reader.problems, &at)).unwrap_or_default();
    let mut upstream = standard(&name, url);
    upstream.timeout = read::duration(&mut section, "timeout", upstream.timeout);
    let has_concurrency = section.has("concurrency");
    upstream.concurrency = read::count(&mut section, "concurrency", 16, 1024);
    upstream.rate = read::rate(&mut section);
    let retry_place = section.peek_place("retry");
    if let Some(section) = section.section("retry") {
        upstream.retry = read_retry(section);
    }
    if let Some(section) = section.section("breaker") {
        upstream.breaker = read_breaker(section);
    }
    if let Some(statuses) = section.value("dead_letter_on") {
        upstream.dead_letter_on = read_statuses(reader.problems, statuses);
    }
    if let Some(value) = section.value("signing_secret") {
        let text = secrets::read(reader, value, "1");
        upstream.signing_secret = text.and_then(|text| text.decode(reader, KeyFormat::Whsec, false));
    }
    if let Some(mut section) = section.section("headers") {
        upstream.headers =
            section.entries().into_iter().filter_map(|(name, value)| read_header(reader, &name, value)).collect();
    }
    if let Some(at) = section.read::<PathBuf>("ca") {
        upstream.ca = Some(read_ca(reader, &at, &upstream.url));
    }
    if let Some(section) = section.section("tls") {
        read_tls(reader, section, &mut upstream);
    }
    section.finish();
    Some(UpstreamRead { upstream, place: name.place, url_place, retry_place, has_concurrency })
}

fn read_url(problems: &Problems, at: &At<String>) -> Option<Uri> {
    const HELP: &str = "write it whole, such as \"http://127.0.0.1:9000/orders\"";
    let url: Option<Uri> = at.parse().ok();
    let Some(url) = url.filter(|url| url.scheme().is_some() && url.host().is_some_and(|host| !host.is_empty())) else {
        problems.error(&at.place, "this is not a URL with a scheme and a host", HELP);
        return None;
    };
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let (why, help) = if !matches!(url.scheme_str(), Some("http" | "https")) {
        ("a URL of an upstream begins with http:// or https://", HELP)
    } else if authority.contains('@') {
        (
            "a URL of an upstream has no user and password",
            "put them into headers = { authorization = { file = \"…\" } }",
        )
    } else if at.contains('#') {
        ("a URL of an upstream has no `#`", "that part is never sent")
    } else if url.port_u16() == Some(0)
        || (url.port().is_none() && authority.contains("]:") || authority.ends_with(':'))
    {
        ("the port of this URL is none", HELP)
    } else {
        return Some(url);
    };
    problems.error(&at.place, why, help);
    None
}

fn read_retry(mut section: Section<'_>) -> Retry {
    let standard = Retry::default();
    let (factor_place, max_place) = (section.peek_place("factor"), section.peek_place("max"));
    let retry = Retry {
        first: read::duration(&mut section, "first", standard.first),
        factor: section.read_or("factor", standard.factor),
        max: read::duration(&mut section, "max", standard.max),
        give_up_after: read::duration(&mut section, "for", standard.give_up_after),
    };
    if !(1.0..=100.0).contains(&retry.factor) {
        let place = factor_place.unwrap_or_else(|| section.place().clone());
        section.problems().error(&place, "`retry.factor` must be from 1 to 100", "2.0 doubles the delay each time");
    }
    if retry.max < retry.first {
        let place = max_place.unwrap_or_else(|| section.place().clone());
        section.problems().error(&place, "`retry.max` is shorter than `retry.first`", "it is the longest delay");
    }
    section.finish();
    retry
}

fn read_breaker(mut section: Section<'_>) -> Breaker {
    let standard = Breaker::default();
    let ratio_place = section.peek_place("ratio");
    let failures = read::count(&mut section, "failures", standard.failures, 10_000);
    let breaker = Breaker {
        failures: u32::try_from(failures).unwrap_or(standard.failures),
        ratio: section.read_or("ratio", standard.ratio),
        within: read::duration(&mut section, "within", standard.within),
        pause: read::duration(&mut section, "pause", standard.pause),
    };
    if !(breaker.ratio > 0.0 && breaker.ratio <= 1.0) {
        let place = ratio_place.unwrap_or_else(|| section.place().clone());
        let help = "0.5: half of all attempts failed";
        section.problems().error(&place, "`breaker.ratio` must be above 0 and at most 1", help);
    }
    section.finish();
    breaker
}

fn read_statuses(problems: &Problems, value: Value<'_>) -> Vec<u16> {
    let mut statuses = Vec::new();
    for item in value.list().unwrap_or_default() {
        let place = item.place().clone();
        let Some(status) = item.get::<u16>() else { continue };
        if !(300..=599).contains(&status) {
            let help = "a 2xx is a success; every other status is retried unless it stands here";
            problems.error(&place, format!("`dead_letter_on`: {status} is not a status of a failure"), help);
        } else if status >= 500 || matches!(status, 408 | 425 | 429) {
            problems.warn(
                &place,
                format!("a {status} becomes a dead letter at once, although a retry could still deliver the event"),
                "take it out of `dead_letter_on`, unless this upstream means it for good",
            );
        }
        statuses.push(status);
    }
    statuses
}

fn read_header(reader: &Reader<'_>, name: &At<String>, value: Value<'_>) -> Option<(HeaderName, HeaderValue)> {
    let problems = reader.problems;
    let place = value.place().clone();
    let header = HeaderName::try_from(name.as_str()).ok();
    match &header {
        None => problems.error(&name.place, "this is not the name of a header", "letters, digits and `-`"),
        Some(header) if is_ours(header) => {
            problems.error(&name.place, format!("the header `{header}` is set by Hookward itself"), "leave it out");
        }
        Some(_) => {}
    }
    let bytes = if value.is_table() {
        let text = secrets::read(reader, value, "1")?;
        text.decode(reader, KeyFormat::Utf8, false)?.expose().to_vec()
    } else {
        if header.as_ref().is_some_and(looks_secret) {
            problems.warn(
                &place,
                "inline secret: whoever may read this file has it",
                "put it into a file of its own and write { file = \"…\" }",
            );
        }
        value.get::<String>()?.into_bytes()
    };
    let Ok(mut bytes) = HeaderValue::from_maybe_shared(bytes::Bytes::from(bytes)) else {
        problems.error(&place, "this cannot be the value of a header", "no line ends or control characters");
        return None;
    };
    bytes.set_sensitive(true);
    Some((header?, bytes))
}

/// Headers of the connection, of the message's framing, and those that every delivery gets.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    let framing = [
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
        "idempotency-key",
        "traceparent",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    ];
    framing.contains(&name) || name.starts_with("hookward-") || name.starts_with("x-forwarded-")
}

fn looks_secret(name: &HeaderName) -> bool {
    let name = name.as_str();
    ["authorization", "cookie", "token", "secret", "key", "password"].iter().any(|word| name.contains(word))
}

/// `tls = { ca, cert, key }`: whom to trust, and what to show.
fn read_tls(reader: &Reader<'_>, mut section: Section<'_>, upstream: &mut Upstream) {
    let place = section.place().clone();
    if let Some(at) = section.read::<PathBuf>("ca") {
        if upstream.ca.is_some() {
            reader.problems.error(&at.place, "`ca` stands here and at the upstream itself", "keep one of them");
        }
        upstream.ca = Some(read_ca(reader, &at, &upstream.url));
    }
    let (cert, key) = (section.read::<PathBuf>("cert"), section.read::<PathBuf>("key"));
    section.finish();
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => return,
        _ => {
            let help = "name both: cert = \"client.crt\" with its chain, and key = \"client.key\"";
            reader.problems.error(&place, "a client certificate is two files, `cert` and `key`", help);
            return;
        }
    };
    if upstream.url.scheme_str() == Some("http") {
        let help = "use an https URL, or take `cert` and `key` out";
        reader.problems.error(&cert.place, "a client certificate is set and the URL is plain http", help);
    }
    let path = |at: &At<PathBuf>| reader.resolve(&at.place, &at.value);
    let files = CertificateFiles { cert: path(&cert), key: path(&key) };
    if reader.options.secrets == Secrets::Load {
        match Certificate::read(&files) {
            Ok(read) if !read.is_valid(reader.options.now) => {
                let message = format!("this certificate is valid from {} until {}", read.not_before, read.not_after);
                reader.problems.warn(&cert.place, message, "the upstream will refuse it: renew it");
            }
            Ok(_) => {}
            Err(why) => {
                reader.problems.error(&cert.place, why, "both are PEM files, relative to the configuration file");
            }
        }
    }
    upstream.client_cert = Some(files);
}

pub(super) fn read_ca(reader: &Reader<'_>, at: &At<PathBuf>, url: &Uri) -> PathBuf {
    let path = reader.resolve(&at.place, &at.value);
    if url.scheme_str() == Some("http") {
        let help = "use an https URL, or take `ca` out";
        reader.problems.error(&at.place, "`ca` is set and the URL is plain http", help);
    }
    if reader.options.secrets == Secrets::Load {
        let problem = match read_text(&path, CA_FILE_BYTES_MAX) {
            Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => None,
            Ok(_) => Some(format!("there is no certificate in {}", path.display())),
            Err(error) => Some(format!("failed to read {}: {error}", path.display())),
        };
        if let Some(problem) = problem {
            let help = "name a PEM file with the authorities to trust, relative to the configuration file";
            reader.problems.error(&at.place, problem, help);
        }
    }
    path
}
