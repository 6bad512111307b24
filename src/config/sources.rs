//! `[sources.NAME]`: one table read against its provider's facts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    bodies, enforce, keys,
    load::{Reader, SourceNote, resolve_provider},
    model::{Limits, Mode, PathTemplate, Rate, Source},
    order, path, proof,
    providers::Facts,
    public_url::{self, PublicUrl},
    read, remote_keys, routes, secrets, server,
    store::Horizons,
    upstreams::UpstreamRead,
};
use crate::{
    document::{At, Place, Problems, Section, Value, format_duration, nearest},
    event::{Name, OnConflict, OnResend},
    preset::{EvidenceKind, Handshake, Items, OnMismatch, OnStale, Provider, Shape, TOKEN_BYTES_MAX},
    secret::Secret,
    verify::{Keyring, Scheme, SecretKey, json},
};

/// What a source falls back to.
#[derive(Debug)]
pub(super) struct Defaults<'a> {
    pub(super) limits: &'a Limits,
    pub(super) horizons: Horizons,
    pub(super) providers: &'a BTreeMap<String, Option<Arc<Provider>>>,
    pub(super) public_url: Option<PublicUrl>,
}

/// A source with what the rules over the whole configuration need.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: Name,
    pub(super) path: PathTemplate,
    pub(super) path_place: Place,
    pub(super) client_cert_place: Option<Place>,
    pub(super) mode: Mode,
    pub(super) mode_place: Place,
    pub(super) upstreams: Vec<At<String>>,
    /// Those, and the ones that routes name.
    pub(super) targets: BTreeSet<String>,
    pub(super) keys: Vec<(Secret, Place)>,
    pub(super) allow_shared_secret: bool,
    pub(super) timed: bool,
    /// `None` if its provider is not known, which was reported.
    pub(super) source: Option<Source>,
    pub(super) note: SourceNote,
}

pub(super) fn read(
    reader: &Reader<'_>,
    defaults: &Defaults<'_>,
    name: &At<String>,
    value: Value<'_>,
    upstreams: &mut Vec<UpstreamRead>,
) -> Option<Draft> {
    let mut section = value.section()?;
    let problems = reader.problems;
    let provider_name =
        section.required::<String>("provider", "name one of those that `hookward providers` lists, or your own");
    let mut provider = provider_name.as_ref().and_then(|at| resolve_provider(problems, defaults.providers, at));
    let facts = provider.as_deref().map(Facts::of);

    let path_text = section
        .read::<String>("path")
        .unwrap_or_else(|| At { value: format!("/hooks/{}", name.value), place: name.place.clone() });
    let path = path::read_template(problems, &path_text);
    let client_cert_place = section.peek_place("client_cert");
    let mode_place = section.peek_place("mode").unwrap_or_else(|| name.place.clone());
    let modes = [("queue", Mode::Queue), ("respond", Mode::Respond), ("proxy", Mode::Proxy)];
    let mode = section.choice("mode", &modes).map_or(Mode::Queue, |at| at.value);
    let routed = routes::read(reader, &mut section, name, mode, provider.as_deref(), upstreams);

    let has_secrets = section.has("secrets") || section.has("remote_keys");
    let secrets = secrets::read_list(reader, &mut section);
    let written = proof::Written { has_secrets, path: &path, path_place: &path_text.place };
    let proof = proof::read(reader, &mut section, facts.as_ref(), &written);
    let allow_shared_secret = section.read_or("allow_shared_secret", false);
    let keyring = proof::decode(reader, &secrets, provider.as_deref(), &proof);
    let note = SourceNote {
        verification: proof.description.clone(),
        secrets: secrets.iter().map(|secret| secret.note.clone()).collect(),
    };

    if let Some(provider) = &mut provider {
        read_sender(&mut section, provider);
        let is_own = defaults.providers.contains_key(&*provider.name);
        if provider.evidence.kind == EvidenceKind::SecondHand && !is_own {
            let place = provider_name.as_ref().map_or(&name.place, |at| &at.place);
            problems.warn(
                place,
                format!("what is known of {} is second-hand: {}", provider.title, provider.evidence.place),
                "send a test webhook before you rely on it",
            );
        }
    }
    let params = read_params(&mut section, name, provider.as_deref());
    let timed = facts.as_ref().is_some_and(|facts| facts.timed && !proof.is_guard);
    let tolerance = keys::read_tolerance(&mut section, provider.as_deref(), facts.as_ref());
    let key_plan =
        keys::read_plan(&mut section, name, provider.as_deref(), facts.as_ref(), tolerance, &defaults.horizons);
    let policy = read_policy(&mut section, provider.as_deref(), facts.as_ref());
    let limits = read_bounds(&mut section, provider.as_deref(), defaults.limits);
    let proxy_status = section.choice("proxy_status", &[("mapped", false), ("raw", true)]);
    let proxy_keys = section.choice("proxy_keys", &[("lazy", false), ("fsync", true)]);
    warn_about_proxy_keys(problems, mode, provider.as_deref(), proxy_status.as_ref(), proxy_keys.as_ref());
    let forward_query = section.read_or("forward_query", false);
    let redact = bodies::read_redact(&mut section);
    let scheme =
        proof.scheme.clone().or_else(|| provider.as_ref().map(|provider| provider.scheme.with_params(&params)));
    let remote_keys = remote_keys::read(reader, &mut section, scheme.as_ref());
    let public_url = read_public_url(&mut section, scheme.as_ref(), provider.as_deref(), defaults);
    let order_by = order::read(&mut section, mode, scheme.as_ref(), &redact);
    let store_body = bodies::read_store_body(&mut section, mode);
    let explain = section.read_or("explain", false);
    let lenient = enforce::read(reader, &mut section);
    section.finish();

    let name_shared: Name = name.value.as_str().into();
    let keys = keyring.iter().map(|(key, place)| (key.key.clone(), place.clone())).collect();
    let keyring = make_keyring(problems, keyring, scheme.as_ref());
    let source = provider.map(|provider| Source {
        name: name_shared.clone(),
        path: path.clone(),
        scheme: scheme.unwrap_or_else(|| provider.scheme.clone()),
        params,
        keyring,
        remote_keys,
        public_url,
        upstreams: routed.upstreams.iter().map(|at| at.value.as_str().into()).collect(),
        routes: routed.routes,
        mode,
        tolerance,
        key_plan,
        answer_within: answer_within(provider.sender.deadline),
        answer_kept: provider.sender.retry_span.unwrap_or(Duration::from_hours(24)),
        body_bytes_max: limits.body_bytes_max,
        ack_status: policy.ack_status,
        allow: proof.allow,
        client_cert: proof.client_cert,
        rate: limits.rate,
        in_flight_max: limits.in_flight_max,
        on_mismatch: policy.on_mismatch,
        on_stale: policy.on_stale,
        on_conflict: policy.on_conflict,
        on_resend: policy.on_resend,
        items: policy.items,
        forward_query,
        order_by,
        store_body,
        redact,
        explain,
        lenient,
        proxy_status_raw: proxy_status.is_some_and(|at| at.value),
        proxy_keys_fsync: proxy_keys.is_some_and(|at| at.value),
        provider,
    });
    Some(Draft {
        name: name_shared,
        path,
        path_place: path_text.place,
        client_cert_place,
        mode,
        mode_place,
        upstreams: routed.upstreams,
        targets: routed.targets,
        keys,
        allow_shared_secret,
        timed,
        source,
        note,
    })
}

/// `params`: all that the provider declares, and nothing else.
fn read_params(
    section: &mut Section<'_>,
    source: &At<String>,
    provider: Option<&Provider>,
) -> BTreeMap<String, String> {
    let problems = section.problems();
    let place = section.peek_place("params").unwrap_or_else(|| source.place.clone());
    let written = section.section("params").map(|mut table| table.entries()).unwrap_or_default();
    let Some(provider) = provider else { return BTreeMap::new() };
    let mut params = BTreeMap::new();
    for (name, value) in written {
        if !provider.params.contains_key(&name.value) {
            let known = provider.params.keys().map(String::as_str);
            let help = match nearest(&name, known.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if provider.params.is_empty() => "take `params` out: this provider has none".to_owned(),
                None => format!("known: {}", known.collect::<Vec<_>>().join(", ")),
            };
            problems.error(&name.place, format!("{} has no parameter `{}`", provider.title, name.value), help);
            continue;
        }
        let value_place = value.place().clone();
        let Some(text) = value.get::<String>() else { continue };
        let is_shown = provider.handshakes.iter().any(|handshake| handshake.shown_params().any(|p| p == name.value));
        if text.is_empty() || text.len() > TOKEN_BYTES_MAX || text.chars().any(char::is_control) {
            let message = format!("`params.{}` must be 1 to {TOKEN_BYTES_MAX} bytes of text", name.value);
            problems.error(&value_place, message, "copy it as the provider shows it");
        } else if is_shown && !Shape::Words.fits(&text) {
            let message = format!("`params.{}` has a character that an answer to a handshake cannot hold", name.value);
            problems.error(&value_place, message, "letters, digits, single spaces, and _ - . : = ~ + /");
        }
        params.insert(name.value, text);
    }
    for (name, what) in provider.params.iter().filter(|(name, _)| !params.contains_key(*name)) {
        let message = format!("the parameter `{name}` of {} is missing: {what}", provider.title);
        problems.error(&place, message, format!("add params = {{ {name} = \"…\" }}"));
    }
    params
}

fn read_public_url(
    section: &mut Section<'_>,
    scheme: Option<&Scheme>,
    provider: Option<&Provider>,
    defaults: &Defaults<'_>,
) -> Option<PublicUrl> {
    let problems = section.problems();
    let own = section.read::<String>("public_url");
    let url = match &own {
        Some(at) => public_url::read(problems, at, true),
        None => defaults.public_url.clone(),
    };
    let in_answer = provider.is_some_and(|provider| provider.handshakes.iter().any(Handshake::needs_url));
    if url.is_none() && own.is_none() && (in_answer || scheme.is_some_and(Scheme::needs_url)) {
        let what = if in_answer { "asks for a digest of" } else { "signs" };
        problems.error(
            section.place(),
            format!("this provider {what} the URL of the endpoint, and nothing says what that is"),
            "add public_url = \"https://hooks.example.com\" to [server], as the provider has it; or the whole URL to the source",
        );
    }
    url
}

fn make_keyring(problems: &Problems, keys: Vec<(SecretKey, Place)>, scheme: Option<&Scheme>) -> Keyring {
    let Some(scheme) = scheme else { return Keyring::default() };
    let (keys, places): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
    Keyring::new(keys, scheme).unwrap_or_else(|(index, error)| {
        problems.error(&places[index], error.to_string(), error.advice());
        Keyring::default()
    })
}

/// The deadline less a margin for the way back: a fifth, at most a second.
fn answer_within(deadline: Duration) -> Duration {
    deadline.saturating_sub((deadline / 5).min(Duration::from_secs(1)))
}

/// `deadline` and `retries`: the customer's settings at the provider.
fn read_sender(section: &mut Section<'_>, provider: &mut Arc<Provider>) {
    let problems = section.problems();
    let place = section.peek_place("deadline");
    let deadline = read::duration(section, "deadline", provider.sender.deadline);
    if let Some(place) = place.filter(|_| deadline > provider.sender.deadline) {
        let known = format_duration(provider.sender.deadline);
        problems.warn(
            &place,
            format!("{} is known to wait for {known} only: a later answer counts as a failure there", provider.title),
            "shorten it, unless the provider promised you more",
        );
    }
    let mut retry_span = provider.sender.retry_span;
    if let Some(mut retries) = section.section("retries") {
        for key in ["attempts", "gap"] {
            if !retries.has(key) {
                let help = "write retries = { attempts = 5, gap = \"30m\" } as they are set at the provider";
                problems.error(retries.place(), format!("`retries` needs `{key}`"), help);
            }
        }
        let attempts = read::count(&mut retries, "attempts", 1, 10_000);
        let gap = read::duration(&mut retries, "gap", Duration::from_secs(1));
        retry_span = u32::try_from(attempts).ok().and_then(|attempts| gap.checked_mul(attempts));
        retries.finish();
    }
    if (deadline, retry_span) != (provider.sender.deadline, provider.sender.retry_span) {
        let changed = Arc::make_mut(provider);
        changed.sender.deadline = deadline;
        changed.sender.retry_span = retry_span;
    }
}

/// What a source does in each situation.
#[derive(Debug)]
struct Policy {
    ack_status: u16,
    on_mismatch: OnMismatch,
    on_stale: OnStale,
    on_conflict: OnConflict,
    on_resend: OnResend,
    items: Option<Items>,
}

fn read_policy(section: &mut Section<'_>, provider: Option<&Provider>, facts: Option<&Facts>) -> Policy {
    const LOST: &str = "a retry could have saved it; leave it out, or write";
    let problems = section.problems();
    let mismatches = [("reject", OnMismatch::Reject), ("retry", OnMismatch::Retry)];
    let stales = [("reject", OnStale::Reject), ("retry", OnStale::Retry), ("hold", OnStale::Hold)];
    let conflicts = [("hold", OnConflict::Hold), ("deliver", OnConflict::Deliver), ("drop", OnConflict::Drop)];
    let resends = [("drop", OnResend::Drop), ("deliver", OnResend::Deliver)];

    let insisted = provider.and_then(|provider| provider.sender.ack_status);
    let ack_status = section.read::<u16>("ack_status");
    if let Some(at) = &ack_status {
        if !(200..=299).contains(&at.value) {
            problems.error(
                &at.place,
                format!("`ack_status` = {} is not a success", at.value),
                "write a status from 200 to 299",
            );
        } else if let Some(exact) = insisted.filter(|exact| *exact != at.value) {
            problems.warn(
                &at.place,
                format!("this provider takes {exact} for success and nothing else"),
                "every event would count as failed there; leave it out",
            );
        }
    }
    let drops =
        |status| provider.is_some_and(|p| p.sender.drops.contains(&status) || p.sender.disables_after.is_some());
    let on_mismatch = section.choice("on_mismatch", &mismatches);
    if let Some(at) = on_mismatch.as_ref().filter(|at| at.value == OnMismatch::Reject && drops(401)) {
        let message = "with a wrong secret here, events are lost: on 401 this provider drops them, or disables itself";
        problems.warn(&at.place, message, format!("{LOST} \"retry\""));
    }
    let on_stale = section.choice("on_stale", &stales);
    if let Some(at) = &on_stale {
        if facts.is_some_and(|facts| !facts.timed) {
            let help = "take it out: nothing can be stale";
            problems.error(&at.place, "`on_stale` is set and this provider signs no time", help);
        } else if at.value == OnStale::Reject && drops(401) {
            let message = "an event that comes late is lost: on 401 this provider drops it, or disables itself";
            problems.warn(&at.place, message, format!("{LOST} \"hold\" or \"retry\""));
        }
    }
    let on_conflict = section.choice("on_conflict", &conflicts);
    if let Some(at) = on_conflict.as_ref().filter(|at| at.value == OnConflict::Drop) {
        let message = "an event that shares its key with another one is lost: it is answered 200 and dropped";
        problems.warn(&at.place, message, "leave it out: it is held until an operator looks at it");
    }
    Policy {
        ack_status: ack_status.map_or(insisted.unwrap_or(200), |at| at.value),
        on_mismatch: on_mismatch
            .map_or_else(|| provider.map_or(OnMismatch::Reject, |provider| provider.on_mismatch), |at| at.value),
        on_stale: on_stale
            .map_or_else(|| provider.map_or(OnStale::Reject, |provider| provider.on_stale), |at| at.value),
        on_conflict: on_conflict.map_or(OnConflict::Hold, |at| at.value),
        on_resend: section.choice("on_resend", &resends).map_or(OnResend::Drop, |at| at.value),
        items: match section.section("items") {
            Some(section) => read_items(section),
            None => provider.and_then(|provider| provider.items.clone()),
        },
    }
}

fn read_items(mut section: Section<'_>) -> Option<Items> {
    const HELP: &str = "write items = { each = \"/Data\", key = [\"/Type\", \"/Number\"] }";
    let problems = section.problems();
    let pointer = |at: &At<String>| {
        if !json::is_pointer(at) {
            problems.error(&at.place, format!("`items`: \"{}\" is not a JSON pointer", at.value), HELP);
        }
    };
    let each = section.required::<String>("each", HELP);
    each.iter().for_each(pointer);
    let key = section.required::<Vec<String>>("key", HELP);
    if let Some(key) = &key {
        if key.is_empty() {
            problems.error(&key.place, "`items.key` is empty: all items would be one", HELP);
        }
        key.value.iter().for_each(|part| pointer(&At { value: part.clone(), place: key.place.clone() }));
    }
    section.finish();
    Some(Items { each: each?.value, key: key?.value })
}

/// What a source may take.
#[derive(Debug)]
struct Bounds {
    body_bytes_max: u64,
    rate: Option<Rate>,
    in_flight_max: Option<usize>,
}

fn read_bounds(section: &mut Section<'_>, provider: Option<&Provider>, limits: &Limits) -> Bounds {
    let preset = provider.and_then(|provider| provider.body_bytes_max);
    let place = section.peek_place("body_bytes_max");
    let body_bytes_max = read::size(section, "body_bytes_max", preset.unwrap_or(limits.body_bytes_max));
    if place.is_some() || preset.is_some() {
        server::body_fits(section, place.as_ref(), body_bytes_max, limits.body_memory_max);
    }
    let in_flight_place = section.peek_place("in_flight_max");
    let in_flight_max = in_flight_place.is_some().then(|| read::count(section, "in_flight_max", 64, 1 << 20));
    Bounds { body_bytes_max, rate: read::rate(section), in_flight_max }
}

fn warn_about_proxy_keys(
    problems: &Problems,
    mode: Mode,
    provider: Option<&Provider>,
    status: Option<&At<bool>>,
    keys: Option<&At<bool>>,
) {
    for (key, at) in [("proxy_status", status), ("proxy_keys", keys)] {
        if let Some(at) = at.filter(|_| mode != Mode::Proxy) {
            problems.warn(&at.place, format!("`{key}` has no effect in mode \"{}\"", mode.name()), "take it out");
        }
    }
    let loses = provider.is_some_and(|p| !p.sender.drops.is_empty() || p.sender.disables_after.is_some());
    if let Some(at) = status.filter(|at| at.value && loses && mode == Mode::Proxy) {
        problems.warn(
            &at.place,
            "an upstream's 4xx reaches this provider as it is, which drops the event for good or disables itself",
            "leave it out: such a status becomes 502, which is tried again",
        );
    }
}
