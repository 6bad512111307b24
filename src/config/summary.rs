//! What a configuration means, for a person who wants to check it, and the same as JSON. Never a secret.

use std::{fmt::Write as _, sync::Arc};

use super::{
    load::{Loaded, SecretNote},
    memory::{self, Memory, mebibytes},
    model::{Config, Durability, Engine, Listener, LogFormat, Mode, OrderBy, Role, Source, Store, Upstream},
};
use crate::{
    document::{format_duration, format_size},
    event::{OnConflict, OnResend},
    policy::Route,
    preset::{Locator, OnMismatch, OnStale},
    verify::{EventKey, KeyPart, json::Scalar},
};

/// A configuration in words: groups of lines, each a name and what it is.
#[derive(Debug)]
pub struct Summary {
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    name: String,
    lines: Vec<(&'static str, String)>,
    /// One line each, and one list as JSON: what one is called, and what all are.
    lists: Vec<(&'static str, &'static str, Vec<String>)>,
}

impl Group {
    fn new(name: impl Into<String>, lines: Vec<(&'static str, String)>) -> Self {
        Self { name: name.into(), lines, lists: Vec::new() }
    }
}

impl Summary {
    /// Of what was loaded; `None` if it has errors.
    pub fn of(loaded: &Loaded) -> Option<Self> {
        let config = loaded.config.as_ref()?;
        let mut groups = vec![listeners(config), store(config), memory(config)];
        for (name, source) in &config.sources {
            let note = loaded.notes.get(name).cloned().unwrap_or_default();
            groups.push(of_source(source, &note.verification, &note.secrets));
        }
        groups.extend(config.upstreams.values().map(of_upstream));
        Some(Self { groups })
    }
    /// As text, a blank line between groups.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for group in &self.groups {
            let _ = writeln!(out, "{}", group.name);
            for (name, what) in &group.lines {
                let _ = writeln!(out, "  {name:<14} {what}");
            }
            for (name, what) in group.lists.iter().flat_map(|(name, _, all)| all.iter().map(move |what| (name, what))) {
                let _ = writeln!(out, "  {name:<14} {what}");
            }
            out.push('\n');
        }
        out
    }
    /// As JSON: an object of objects.
    pub fn json(&self) -> serde_json::Value {
        let groups = self.groups.iter().map(|group| {
            let lines = group.lines.iter().map(|(name, what)| (name.replace([' ', '-'], "_"), what.clone().into()));
            let mut lines: serde_json::Map<_, serde_json::Value> = lines.collect();
            lines.extend(group.lists.iter().map(|(_, all, list)| ((*all).to_owned(), list.clone().into())));
            (group.name.clone(), lines.into())
        });
        serde_json::Value::Object(groups.collect())
    }
}

fn listeners(config: &Config) -> Group {
    let (server, limits) = (&config.server, &config.server.limits);
    let tokens = match config.admin.tokens.len() {
        0 => "no token, reachable from this machine only".to_owned(),
        n => {
            let operate = config.admin.tokens.iter().filter(|token| token.role == Role::Operate).count();
            format!("tokens: {operate} operate, {} read", n - operate)
        }
    };
    let format = match config.log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    Group::new(
        "listeners",
        vec![
            (
                "public",
                format!(
                    "{}, unknown paths get {}, health at {}",
                    join(server.listeners.iter().map(listener)),
                    server.unknown_path,
                    server.health_path.as_deref().unwrap_or("nowhere")
                ),
            ),
            ("admin", format!("{}, {tokens}", config.admin.listen)),
            (
                "limits",
                format!(
                    "{} connections, {} requests, head {}, body {} at {}/s or more, idle {}",
                    limits.connections_max,
                    limits.in_flight_max,
                    format_duration(limits.header_timeout),
                    format_duration(limits.body_timeout),
                    format_size(limits.body_rate_min),
                    format_duration(limits.idle_timeout)
                ),
            ),
            (
                "shutdown",
                format!(
                    "{} announced, then up to {} for what is left",
                    format_duration(server.drain_delay),
                    format_duration(server.drain_timeout)
                ),
            ),
            ("log", format!("{format}, {}", config.log.level)),
        ],
    )
}

fn listener(listener: &Listener) -> String {
    let mut how = Vec::new();
    if let Some(tls) = &listener.tls {
        how.push(match (&tls.clients, &tls.acme) {
            (Some(clients), _) if clients.required => "tls with client certificates",
            (_, Some(_)) => "tls, certificates by acme",
            _ => "tls",
        });
    }
    how.extend(listener.proxy_protocol.then_some("proxy protocol"));
    how.extend(listener.h2c.then_some("h2c"));
    if how.is_empty() { listener.at.to_string() } else { format!("{} ({})", listener.at, how.join(", ")) }
}

fn store(config: &Config) -> Group {
    let store = &config.store;
    let engine = match (store.engine, store.durability) {
        (Engine::Memory, _) => "memory: lost with the process".to_owned(),
        (Engine::Sqlite, Durability::Fsync) => format!("sqlite in {}, survives a power cut", store.path.display()),
        (Engine::Sqlite, Durability::Os) => {
            let lost = "survives a crash of the process, NOT a power cut or a crash of the machine";
            format!("sqlite in {}, {lost}", store.path.display())
        }
    };
    Group::new(
        "store",
        vec![
            ("engine", engine),
            (
                "share",
                format!(
                    "{}% of the disk for what one upstream has not taken, then its sources get 503",
                    percent(store)
                ),
            ),
            ("bodies", encryption(store)),
            (
                "keeps",
                format!(
                    "delivered events {}, up to {}",
                    format_duration(store.retention),
                    format_size(store.disk_bytes_max)
                ),
            ),
            ("known keys", format!("{} in memory", config.replay.capacity)),
        ],
    )
}

fn percent(store: &Store) -> f64 {
    (store.disk_share_max * 1000.0).round() / 10.0
}

fn encryption(store: &Store) -> String {
    let mut ids = store.encryption.iter().map(|key| &*key.id);
    let Some(first) = ids.next() else { return "stored as they came, not encrypted".to_owned() };
    let older = join(ids);
    if older.is_empty() {
        format!("encrypted with the key {first}")
    } else {
        format!("encrypted with the key {first}; older ones are read with {older}")
    }
}

fn memory(config: &Config) -> Group {
    let memory = Memory::of(config);
    let line = |part: &memory::Part| (part.name, format!("{:>7}  {}", mebibytes(part.bytes), part.how));
    let mut lines: Vec<_> = memory.parts.iter().map(line).collect();
    lines.push(("sum", format!("{:>7}  of memory_max = {}", mebibytes(memory.total()), format_size(memory.max))));
    Group::new("memory", lines)
}

fn of_source(source: &Source, verification: &str, secrets: &[SecretNote]) -> Group {
    let provider = &source.provider;
    let mut known = format!("{} ({})", provider.name, provider.title);
    match provider.unconfirmed.len() {
        0 => {}
        n => {
            let _ = write!(known, ", {n} of its facts unconfirmed: see `hookward providers {}`", provider.name);
        }
    }
    let mut lines = vec![("provider", known), ("path", source.path.text.clone())];
    lines.push(("verified by", verification.to_owned()));
    if provider.tolerance.is_some() && source.tolerance.past > std::time::Duration::ZERO {
        let (past, future) = (format_duration(source.tolerance.past), format_duration(source.tolerance.future));
        lines.push(("timestamp", format!("at most {past} old or {future} ahead, else {}", stale(source.on_stale))));
    }
    if !secrets.is_empty() {
        lines.push(("mismatch", mismatch(source.on_mismatch).to_owned()));
    }
    if !source.allow.is_empty() {
        lines.push(("only from", join(source.allow.iter())));
    }
    let upstreams =
        if source.routes.is_empty() { join(source.upstreams.iter()) } else { "whom its routes say".to_owned() };
    lines.push((
        "mode",
        match source.mode {
            Mode::Queue => format!("queue: stored, answered, then delivered to {upstreams}"),
            Mode::Respond => format!("respond: stored, delivered to {upstreams}, the first answers"),
            Mode::Proxy => format!("proxy: {upstreams} answers"),
        },
    ));
    lines.push((
        "answer",
        format!(
            "{} within {} (the provider waits {})",
            source.ack_status,
            format_duration(source.answer_within),
            format_duration(provider.sender.deadline)
        ),
    ));
    if let Some(order) = &source.order_by {
        lines.push(("order", describe_order(order)));
    }
    if !source.store_body && source.mode != Mode::Proxy {
        lines.push(("bodies", "removed from the store once every delivery is delivered".to_owned()));
    }
    if !source.redact.is_empty() {
        let headers = source.redact.headers.iter().map(|name| format!("header {name}"));
        lines.push(("redacted", join(source.redact.pointers.iter().cloned().chain(headers))));
    }
    let mut bounds = format!("body up to {}", format_size(source.body_bytes_max));
    if let Some(rate) = source.rate {
        let _ = write!(bounds, ", {} per second in bursts of {}", rate.per_second, rate.burst);
    }
    if let Some(max) = source.in_flight_max {
        let _ = write!(bounds, ", {max} requests at a time");
    }
    lines.push(("limits", bounds));
    let plan = &source.key_plan;
    lines.push((
        "event key",
        match &plan.event_key {
            EventKey::None => "none: every new signed content is an event".to_owned(),
            key => format!("{}, known for {}", event_key(key), format_duration(plan.event_horizon)),
        },
    ));
    if provider.tolerance.is_none() {
        let known = format!("known for {}", format_duration(plan.untimed_horizon));
        let none = "none: two events may be signed alike".to_owned();
        lines.push(("replay key", if plan.untimed_horizon.is_zero() { none } else { known }));
    }
    let mut scope = plan.scope.to_string();
    if plan.replay_scope != plan.scope {
        let _ = write!(scope, ", replay keys shared with {}", plan.replay_scope);
    }
    lines.push(("scope", scope));
    lines.push(("conflict", conflict(source.on_conflict).to_owned()));
    lines.push((
        "re-send",
        match source.on_resend {
            OnResend::Drop => "of a delivered event: counted, not delivered again",
            OnResend::Deliver => "of a delivered event: delivered, marked hookward-duplicate-of",
        }
        .to_owned(),
    ));
    if let Some(items) = &source.items {
        lines.push(("items", format!("each of {} by {}", items.each, items.key.join(" + "))));
    }
    let retries =
        provider.sender.retry_span.map_or("unknown".to_owned(), |span| format!("for {}", format_duration(span)));
    lines.push((
        "retried",
        format!("by the provider: {retries}; answers are kept {}", format_duration(source.answer_kept)),
    ));
    let mut group = Group::new(format!("source {}", source.name), lines);
    if !source.routes.is_empty() {
        let nobody = "nobody: stored as unrouted".to_owned();
        let rest = if source.upstreams.is_empty() { nobody } else { join(source.upstreams.iter()) };
        let routes = source.routes.iter().map(describe_route).chain([format!("what none of them wants -> {rest}")]);
        group.lists.push(("route", "routes", routes.collect()));
    }
    group.lists.push(("secret", "secrets", secrets.iter().map(secret).collect()));
    group
}

fn describe_order(order: &OrderBy) -> String {
    let at = match &order.at {
        Locator::Json(pointer) => pointer.clone(),
        Locator::Header(name) => format!("header {name}"),
        Locator::Form(key) => format!("form field {key}"),
    };
    let blocked = match order.dead_letter_after {
        None => "one that fails holds up the others until it is delivered or given up on".to_owned(),
        Some(attempts) => format!("one that fails is a dead letter after {attempts} attempts"),
    };
    format!("events of one {at} reach an upstream one after another; {blocked}")
}

fn describe_route(route: &Route) -> String {
    let event_type = route.event_type().map(|glob| format!("type {}", glob.as_str()));
    let json = route.json().iter().map(|(pointer, value)| match value {
        Scalar::Text(text) => format!("{pointer} = {text:?}"),
        Scalar::Integer(_) | Scalar::Bool(_) => format!("{pointer} = {value}"),
    });
    let conditions: Vec<String> = event_type.into_iter().chain(json).collect();
    format!("{} -> {}", conditions.join(" and "), join(route.to().iter()))
}

fn secret(note: &SecretNote) -> String {
    let mut out = format!("{} from {}", note.id, note.origin);
    if let Some(at) = note.not_before {
        let _ = write!(out, ", not before {at}");
    }
    if let Some(at) = note.expires_at {
        let _ = write!(out, ", expires {at}");
    }
    out
}

fn event_key(key: &EventKey) -> String {
    match key {
        EventKey::Body => "digest of the body".to_owned(),
        EventKey::None => "none".to_owned(),
        EventKey::Parts(parts) => {
            let part = |part: &KeyPart| match part {
                KeyPart::Json(pointer) => pointer.clone(),
                KeyPart::Header(name) => format!("header {name}"),
                KeyPart::Form(key) => format!("form field {key}"),
                KeyPart::Claim(name) => format!("claim {name}"),
            };
            parts.iter().map(part).collect::<Vec<_>>().join(" + ")
        }
    }
}

fn of_upstream(upstream: &Arc<Upstream>) -> Group {
    let (retry, breaker) = (&upstream.retry, &upstream.breaker);
    let mut attempts = format!("{} at a time, {} each", upstream.concurrency, format_duration(upstream.timeout));
    if let Some(rate) = upstream.rate {
        let _ = write!(attempts, ", {} per second in bursts of {}", rate.per_second, rate.burst);
    }
    let mut lines = vec![
        ("url", upstream.url.to_string()),
        ("attempts", attempts),
        (
            "retry",
            format!(
                "after {}, then × {} up to {}, given up after {}",
                format_duration(retry.first),
                retry.factor,
                format_duration(retry.max),
                format_duration(retry.give_up_after)
            ),
        ),
        ("dead letter on", join(upstream.dead_letter_on.iter())),
        (
            "breaker",
            format!(
                "pauses {} after {} failures in {}, if they are {} of all or more",
                format_duration(breaker.pause),
                breaker.failures,
                format_duration(breaker.within),
                breaker.ratio
            ),
        ),
        ("signed", if upstream.signing_secret.is_some() { "yes, as Standard Webhooks" } else { "no" }.to_owned()),
    ];
    if !upstream.headers.is_empty() {
        lines.push(("adds headers", join(upstream.headers.iter().map(|(name, _)| name))));
    }
    if let Some(ca) = &upstream.ca {
        lines.push(("trusts", ca.display().to_string()));
    }
    if let Some(files) = &upstream.client_cert {
        lines.push(("shows", files.cert.display().to_string()));
    }
    Group::new(format!("upstream {}", upstream.name), lines)
}

fn join(items: impl Iterator<Item = impl std::fmt::Display>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

const fn mismatch(policy: OnMismatch) -> &'static str {
    match policy {
        OnMismatch::Reject => "401: a wrong signature is refused",
        OnMismatch::Retry => "503: a wrong signature is asked to come again",
    }
}

const fn stale(policy: OnStale) -> &'static str {
    match policy {
        OnStale::Reject => "401",
        OnStale::Retry => "503",
        OnStale::Hold => "held for an operator",
    }
}

const fn conflict(policy: OnConflict) -> &'static str {
    match policy {
        OnConflict::Hold => "same key, other body: held for an operator",
        OnConflict::Deliver => "same key, other body: delivered, marked hookward-conflict-of",
        OnConflict::Drop => "same key, other body: dropped",
    }
}
