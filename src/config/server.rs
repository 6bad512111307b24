//! `[server]`, `[server.limits]`, `[admin]`, `[log]`.

use std::{net::SocketAddr, time::Duration};

use super::{
    listeners,
    load::Reader,
    model::{Admin, AdminToken, Limits, Log, LogFormat, Role, Server},
    path, public_url, read, secrets,
};
use crate::{
    document::{Place, Section},
    verify::KeyFormat,
};

/// The tables as found.
#[derive(Debug)]
pub(super) struct ServerTables<'p> {
    pub(super) server: Option<Section<'p>>,
    pub(super) admin: Option<Section<'p>>,
    pub(super) log: Option<Section<'p>>,
}

/// The tables as meant, with the places that later rules point at.
#[derive(Debug)]
pub(super) struct ServerRead {
    pub(super) server: Server,
    pub(super) admin: Admin,
    pub(super) log: Log,
    pub(super) limits: Limits,
    pub(super) listen_place: Option<Place>,
    pub(super) admin_place: Option<Place>,
    pub(super) health_place: Option<Place>,
    pub(super) memory_place: Option<Place>,
    /// Whether `connections_max` is chosen.
    pub(super) has_connections_max: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_max: 1 << 30,
            connections_max: 4096,
            in_flight_max: 1024,
            body_bytes_max: 1 << 20,
            body_memory_max: 256 << 20,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            body_rate_min: 1 << 10,
            idle_timeout: Duration::from_secs(75),
            connection_age_max: Duration::from_hours(1),
            connection_requests_max: 100_000,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

pub(super) fn read(reader: &Reader<'_>, tables: ServerTables<'_>) -> ServerRead {
    let standard = listeners::ListenersRead::standard();
    let mut server = Server {
        listeners: standard.listeners,
        trusted_proxies: standard.trusted_proxies,
        watch: false,
        unknown_path: 404,
        health_path: Some("/healthz".to_owned()),
        drain_delay: Duration::from_secs(5),
        drain_timeout: Duration::from_secs(20),
        public_url: None,
        limits: Limits::default(),
    };
    let (mut listen_place, mut health_place, mut memory_place) = (None, None, None);
    let mut has_connections_max = false;
    if let Some(mut section) = tables.server {
        let read = listeners::read(reader, &mut section);
        (server.listeners, server.trusted_proxies, listen_place) = (read.listeners, read.trusted_proxies, read.place);
        server.watch = section.read_or("watch", server.watch);
        if let Some(at) = section.read::<u16>("unknown_path") {
            if ![404, 503].contains(&at.value) {
                let help = "404 tells a sender that it is wrong for good, 503 that it should try again";
                reader.problems.error(&at.place, "`server.unknown_path` must be 404 or 503", help);
            }
            server.unknown_path = at.value;
        }
        if let Some(at) = section.read::<String>("health_path") {
            server.health_path = (!at.is_empty()).then(|| path::read_plain(reader.problems, &at));
            health_place = Some(at.place);
        }
        server.drain_delay = section.read_or("drain_delay", server.drain_delay);
        server.drain_timeout = section.read_or("drain_timeout", server.drain_timeout);
        if let Some(section) = section.section("limits") {
            memory_place = Some(section.place().clone());
            has_connections_max = section.has("connections_max");
            server.limits = read_limits(section);
        }
        server.public_url =
            section.read::<String>("public_url").and_then(|at| public_url::read(reader.problems, &at, false));
        section.finish();
    }
    let mut admin = Admin { listen: SocketAddr::from(([127, 0, 0, 1], 9900)), tokens: Vec::new() };
    let mut admin_place = None;
    if let Some(mut section) = tables.admin {
        if let Some(at) = section.read::<String>("listen") {
            if at.value.starts_with("unix:") || at.value.starts_with("systemd") {
                let help = "write an address and port, such as \"127.0.0.1:9900\"";
                reader.problems.error(&at.place, "the admin listener is an address and port", help);
            } else {
                admin.listen = listeners::address(reader.problems, "admin.listen", &at).unwrap_or(admin.listen);
            }
            admin_place = Some(at.place);
        }
        let had_tokens = section.has("tokens");
        admin.tokens = read_tokens(reader, &mut section);
        if !admin.listen.ip().is_loopback() && !had_tokens {
            reader.problems.error(
                admin_place.as_ref().unwrap_or(section.place()),
                "the admin listener can be reached from elsewhere and has no token",
                "add tokens = [{ file = \"admin.token\", role = \"operate\" }], or listen on 127.0.0.1",
            );
        }
        section.finish();
    }
    let log = tables.log.map(|section| read_log(reader, section)).unwrap_or_default();
    let limits = server.limits.clone();
    ServerRead {
        server,
        admin,
        log,
        limits,
        listen_place,
        admin_place,
        health_place,
        memory_place,
        has_connections_max,
    }
}

fn read_limits(mut section: Section<'_>) -> Limits {
    let standard = Limits::default();
    let body_bytes_place = section.peek_place("body_bytes_max");
    let limits = Limits {
        memory_max: read::size(&mut section, "memory_max", standard.memory_max),
        connections_max: read::count(&mut section, "connections_max", 4096, 1 << 20),
        in_flight_max: read::count(&mut section, "in_flight_max", 1024, 1 << 20),
        body_bytes_max: read::size(&mut section, "body_bytes_max", standard.body_bytes_max),
        body_memory_max: read::size(&mut section, "body_memory_max", standard.body_memory_max),
        header_timeout: read::duration(&mut section, "header_timeout", standard.header_timeout),
        body_timeout: read::duration(&mut section, "body_timeout", standard.body_timeout),
        body_rate_min: read::size(&mut section, "body_rate_min", standard.body_rate_min),
        idle_timeout: read::duration(&mut section, "idle_timeout", standard.idle_timeout),
        connection_age_max: read::duration(&mut section, "connection_age_max", standard.connection_age_max),
        connection_requests_max: read::count(&mut section, "connection_requests_max", 100_000, u32::MAX) as u64,
    };
    body_fits(&section, body_bytes_place.as_ref(), limits.body_bytes_max, limits.body_memory_max);
    section.finish();
    limits
}

/// A body may take three quarters of the memory for bodies; the rest is kept for small ones.
pub(super) fn body_fits(section: &Section<'_>, place: Option<&Place>, body_bytes_max: u64, body_memory_max: u64) {
    if body_bytes_max > body_memory_max / 4 * 3 {
        section.problems().error(
            place.unwrap_or(section.place()),
            format!(
                "a body of `body_bytes_max` ({}) never fits: a quarter of `body_memory_max` ({}) is kept for small ones",
                crate::document::format_size(body_bytes_max),
                crate::document::format_size(body_memory_max)
            ),
            "lower `body_bytes_max`, or raise server.limits.body_memory_max",
        );
    }
}

fn read_tokens(reader: &Reader<'_>, section: &mut Section<'_>) -> Vec<AdminToken> {
    const ROLES: [(&str, Role); 2] = [("read", Role::Read), ("operate", Role::Operate)];
    let Some(value) = section.value("tokens") else { return Vec::new() };
    let place = value.place().clone();
    let items = value.list().unwrap_or_default();
    if items.is_empty() {
        reader.problems.error(
            &place,
            "`admin.tokens` is empty",
            "leave it out, or write tokens = [{ file = \"admin.token\", role = \"operate\" }]",
        );
    }
    let mut tokens = Vec::new();
    for (i, item) in items.into_iter().enumerate() {
        let Some(mut section) = item.section() else { continue };
        let has_role = section.has("role");
        let role = section.choice("role", &ROLES);
        if !has_role {
            let help = "add role = \"operate\", or role = \"read\" for one that may only look";
            reader.problems.error(section.place(), "a token needs a `role`", help);
        }
        let text = secrets::read_open(reader, &mut section, &(i + 1).to_string());
        section.finish();
        let token = text.and_then(|text| text.decode(reader, KeyFormat::Utf8, false));
        if let Some((token, role)) = token.zip(role) {
            tokens.push(AdminToken { token, role: role.value });
        }
    }
    tokens
}

fn read_log(reader: &Reader<'_>, mut section: Section<'_>) -> Log {
    const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let standard = Log::default();
    let format = section.choice("format", &FORMATS).map_or(standard.format, |at| at.value);
    let level = section.read::<String>("level");
    if let Some(at) = &level
        && !is_filter(at)
    {
        reader.problems.error(
                &at.place,
                format!("`log.level`: \"{}\" is not a level", at.value),
                "write \"error\", \"warn\", \"info\", \"debug\" or \"trace\", or a filter such as \"info,hookward::delivery=debug\"",
            );
    }
    section.finish();
    Log { format, level: level.map_or(standard.level, |at| at.value) }
}

/// A level, or directives of which those without `=` are levels: a misspelt level would name a target.
fn is_filter(text: &str) -> bool {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    text.split(',').all(|part| part.contains('=') || levels.contains(&part.trim()))
        && tracing_subscriber::EnvFilter::builder().parse(text).is_ok()
}
