//! `server.listen`, `server.tls` and `server.trusted_proxies`: where providers connect, and how.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use http::Uri;
use ipnet::IpNet;

use super::{
    certificate::{self, Certificate},
    load::{Reader, Secrets},
    model::{Acme, CertificateFiles, ClientAuthorities, ListenAt, Listener, Tls},
    networks,
};
use crate::document::{At, Place, Section, Value};

/// More than any machine needs; a bound.
const LISTENERS_MAX: usize = 16;
/// Certificates of one listener, and names of one certificate that is asked for.
const CERTIFICATES_MAX: usize = 256;
/// Where certificates are asked for unless the file says otherwise.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// What was read, with the place of `listen`.
#[derive(Debug)]
pub(super) struct ListenersRead {
    pub(super) listeners: Vec<Listener>,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) place: Option<Place>,
}

impl ListenersRead {
    /// What is served when the file says nothing.
    pub(super) fn standard() -> Self {
        Self { listeners: vec![plain(standard())], trusted_proxies: Vec::new(), place: None }
    }
}

fn standard() -> ListenAt {
    ListenAt::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080)))
}

fn plain(at: ListenAt) -> Listener {
    Listener { at, tls: None, proxy_protocol: false, h2c: false }
}

pub(super) fn read(reader: &Reader<'_>, section: &mut Section<'_>) -> ListenersRead {
    let trusted_proxies = networks::read(section, "trusted_proxies");
    let tls_place = section.peek_place("tls");
    let tls = section.section("tls").map(|section| Arc::new(read_tls(reader, section)));
    let place = section.peek_place("listen");
    let Some(value) = section.value("listen") else {
        let listeners = vec![Listener { tls, ..plain(standard()) }];
        return ListenersRead { listeners, trusted_proxies, place };
    };
    let whole = value.clone();
    let items = if value.is_list() { value.list().unwrap_or_default() } else { vec![value] };
    if items.is_empty() || items.len() > LISTENERS_MAX {
        whole.error(format!("`listen` must name 1 to {LISTENERS_MAX} places"), "write listen = \"127.0.0.1:8080\"");
    }
    let mut listeners: Vec<Listener> = Vec::new();
    for item in items {
        let at = item.place().clone();
        let Some(listener) = read_one(reader, item, tls.as_ref()) else { continue };
        if listeners.iter().any(|other| other.at == listener.at && !other.at.may_repeat()) {
            reader.problems.error(&at, format!("`listen` names {} twice", listener.at), "once is enough");
        }
        if listener.proxy_protocol && trusted_proxies.is_empty() && !matches!(listener.at, ListenAt::Unix(_)) {
            reader.problems.error(
                &at,
                "`proxy_protocol` needs to know whose word counts",
                "add trusted_proxies = [\"10.0.0.0/8\"]: connections from elsewhere are closed on this listener",
            );
        }
        listeners.push(listener);
    }
    if let Some(at) = tls_place.filter(|_| tls.is_some() && listeners.iter().all(|listener| listener.tls.is_none())) {
        reader.problems.error(
            &at,
            "no listener uses `tls`",
            "a Unix socket does only with { at = \"unix:…\", tls = true }",
        );
    }
    ListenersRead { listeners, trusted_proxies, place }
}

fn read_one(reader: &Reader<'_>, value: Value<'_>, tls: Option<&Arc<Tls>>) -> Option<Listener> {
    if !value.is_table() {
        let at = At { place: value.place().clone(), value: value.get::<String>()? };
        let at = read_at(reader, "server.listen", &at)?;
        let tls = tls.filter(|_| !matches!(at, ListenAt::Unix(_))).cloned();
        return Some(Listener { tls, ..plain(at) });
    }
    let mut section = value.section()?;
    let text = section.required::<String>("at", "write { at = \"127.0.0.1:8080\", tls = false }");
    let at = text.as_ref().and_then(|text| read_at(reader, "server.listen", text));
    let wants_tls = section.read::<bool>("tls");
    let proxy_protocol = section.read_or("proxy_protocol", false);
    let h2c = section.read::<bool>("h2c");
    section.finish();
    let at = at?;
    if let Some(wanted) = wants_tls.as_ref().filter(|wanted| wanted.value && tls.is_none()) {
        let help = "add tls = { cert = \"tls.crt\", key = \"tls.key\" } to [server]";
        reader.problems.error(&wanted.place, "there is no `tls` that this listener could use", help);
    }
    let default = !matches!(at, ListenAt::Unix(_));
    let tls = tls.filter(|_| wants_tls.map_or(default, |wanted| wanted.value)).cloned();
    if let Some(h2c) = h2c.as_ref().filter(|h2c| h2c.value && tls.is_some()) {
        reader.problems.error(&h2c.place, "`h2c` is HTTP/2 without TLS, and this listener has TLS", "take it out");
    }
    Some(Listener { at, tls, proxy_protocol, h2c: h2c.is_some_and(|h2c| h2c.value) })
}

/// Reads `"127.0.0.1:8080"`, `"unix:/run/hookward.sock"`, `"systemd"` or `"systemd:name"`.
fn read_at(reader: &Reader<'_>, key: &str, at: &At<String>) -> Option<ListenAt> {
    if let Some(path) = at.value.strip_prefix("unix:") {
        if path.is_empty() {
            reader.problems.error(&at.place, format!("`{key}` names no socket"), "write \"unix:/run/hookward.sock\"");
            return None;
        }
        return Some(ListenAt::Unix(reader.resolve(&at.place, &PathBuf::from(path))));
    }
    match at.value.strip_prefix("systemd") {
        Some("") => return Some(ListenAt::Systemd(None)),
        Some(name) if name.starts_with(':') && name.len() > 1 => {
            return Some(ListenAt::Systemd(Some(name[1..].to_owned())));
        }
        _ => {}
    }
    address(reader.problems, key, at).map(ListenAt::Tcp)
}

/// An address and port.
pub(super) fn address(problems: &crate::document::Problems, key: &str, at: &At<String>) -> Option<SocketAddr> {
    let text = &at.value;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let help = match text.rsplit_once(':') {
        Some(("localhost", port)) => format!("write \"127.0.0.1:{port}\""),
        Some(("" | "*", port)) => format!("write \"0.0.0.0:{port}\" for every address of this machine"),
        _ => "write an IP address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned(),
    };
    problems.error(&at.place, format!("`{key}`: \"{text}\" is not an address and port"), help);
    None
}

fn read_tls(reader: &Reader<'_>, mut section: Section<'_>) -> Tls {
    const HELP: &str = "write tls = { cert = \"tls.crt\", key = \"tls.key\" }, with certificates = [{ cert, key }, …] for \
                        more, or tls = { acme = { domains = [\"hooks.example.com\"] } }";
    let before = reader.problems.errors();
    let place = section.place().clone();
    let (mut certificates, mut usable) = (Vec::new(), 0);
    if section.has("cert") || section.has("key") {
        certificates.extend(read_files(reader, &mut section, &mut usable));
    }
    for item in
        section.value("certificates").and_then(Value::list).unwrap_or_default().into_iter().take(CERTIFICATES_MAX)
    {
        let Some(mut section) = item.section() else { continue };
        certificates.extend(read_files(reader, &mut section, &mut usable));
        section.finish();
    }
    let client_ca = section.read::<String>("client_ca");
    let required = section.read::<bool>("client_required");
    if let Some(at) = required.as_ref().filter(|_| client_ca.is_none()) {
        let help = "add client_ca = \"partners.crt\": the authorities whose clients may connect";
        reader.problems.error(&at.place, "`client_required` needs `client_ca`", help);
    }
    let clients = client_ca.map(|at| {
        let ca = reader.resolve(&at.place, &PathBuf::from(&at.value));
        if reader.options.secrets == Secrets::Load
            && let Err(why) = certificate::read_authorities(&ca)
        {
            let help = "name a PEM file with the authorities of those clients, relative to the configuration file";
            reader.problems.error(&at.place, format!("`client_ca`: {why}"), help);
        }
        ClientAuthorities { ca, required: required.is_none_or(|at| at.value) }
    });
    let acme = section.section("acme").and_then(|section| read_acme(reader, section));
    section.finish();
    if certificates.is_empty() && acme.is_none() && reader.problems.errors() == before {
        reader.problems.error(&place, "`tls` has no certificate", HELP);
    } else if usable == 0 && acme.is_none() && reader.problems.errors() == before {
        let help = "renew one of them, and look at the clock of this machine";
        reader.problems.error(&place, "no certificate of `tls` is valid now", help);
    }
    Tls { certificates, clients, acme }
}

/// Reads a pair, which must be one. `usable` counts those that are valid now.
fn read_files(reader: &Reader<'_>, section: &mut Section<'_>, usable: &mut usize) -> Option<CertificateFiles> {
    const HELP: &str = "a certificate is two PEM files: cert = \"tls.crt\" with its chain, and key = \"tls.key\"";
    let (cert, key) = (section.required::<String>("cert", HELP), section.required::<String>("key", HELP));
    let path = |at: &At<String>| reader.resolve(&at.place, &PathBuf::from(&at.value));
    let (cert, key) = (cert?, key?);
    let files = CertificateFiles { cert: path(&cert), key: path(&key) };
    if reader.options.secrets == Secrets::Skip {
        *usable += 1;
        return Some(files);
    }
    match Certificate::read(&files) {
        Ok(certificate) if certificate.is_valid(reader.options.now) => *usable += 1,
        Ok(certificate) => {
            let until = certificate.not_after;
            let what = if certificate.not_before > reader.options.now {
                format!("this certificate is not valid before {}", certificate.not_before)
            } else {
                format!("this certificate expired at {until}")
            };
            reader.problems.warn(&cert.place, what, "clients will refuse it: renew it, or take it out");
        }
        Err(why) => {
            let help =
                "both are PEM files, relative to the configuration file, which the user that runs Hookward can read";
            reader.problems.error(&cert.place, why, help);
        }
    }
    Some(files)
}

fn read_acme(reader: &Reader<'_>, mut section: Section<'_>) -> Option<Acme> {
    let domains = section.required::<Vec<String>>("domains", "write domains = [\"hooks.example.com\"]");
    if let Some(at) = &domains {
        let is_name = |name: &String| {
            let labels = || name.split('.');
            name.len() <= 253
                && labels().count() > 1
                && labels().all(|label| {
                    (1..=63).contains(&label.len())
                        && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                })
        };
        if at.value.is_empty() || at.value.len() > CERTIFICATES_MAX || !at.value.iter().all(is_name) {
            let help = "host names in lower case, without wildcards: [\"hooks.example.com\"]";
            reader.problems.error(&at.place, "`acme.domains` has a name that no certificate can be asked for", help);
        }
    }
    let contact = section.read::<String>("contact");
    if let Some(at) = contact.as_ref().filter(|at| !at.value.contains('@') || at.value.contains(':')) {
        reader.problems.error(&at.place, "`acme.contact` is not an e-mail address", "write \"ops@example.com\"");
    }
    let directory = section.read::<String>("directory");
    let uri = directory.as_ref().map_or(LETS_ENCRYPT, |at| at.value.as_str()).parse::<Uri>().ok();
    let uri = uri.filter(|uri| uri.scheme_str() == Some("https") && uri.authority().is_some());
    if let Some(at) = directory.as_ref().filter(|_| uri.is_none()) {
        reader.problems.error(&at.place, "`acme.directory` is not an https URL", format!("write \"{LETS_ENCRYPT}\""));
    }
    let ca = section.read::<String>("ca").map(|at| reader.resolve(&at.place, &PathBuf::from(&at.value)));
    let cache = match section.read::<String>("cache") {
        Some(at) => reader.resolve(&at.place, &PathBuf::from(&at.value)),
        None => reader.resolve_main(&PathBuf::from("hookward-acme")),
    };
    section.finish();
    Some(Acme { directory: uri?, domains: domains?.value, contact: contact.map(|at| at.value), ca, cache })
}
