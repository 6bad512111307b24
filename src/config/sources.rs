//! `[sources.NAME]`: one table read against its provider's facts.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use http::HeaderName;
use ipnet::IpNet;

use super::{
    load::{Reader, SourceNote, resolve_provider},
    model::{Limits, Mode, PathTemplate, Rate, Source},
    path,
    provider_seam::{self as seam, CredentialPlace, Facts},
    read,
    secrets::{self, SecretText},
    server,
    store::Horizons,
    upstreams::{self, UpstreamRead},
};
use crate::{
    document::{At, Place, Problems, Section, Value, nearest},
    event::{Name, OnConflict, OnResend},
    preset::{EvidenceKind, Items, OnMismatch, OnStale, Provider},
    secret::Secret,
    verify::{EventKey, KeyPart, KeyPlan, Keyring, Scheme, Tolerance},
};

/// Parts of an event key; more would be a mistake.
const KEY_PARTS_MAX: usize = 16;

/// What a source falls back to.
#[derive(Debug)]
pub(super) struct Defaults<'a> {
    pub(super) limits: &'a Limits,
    pub(super) horizons: Horizons,
    pub(super) providers: &'a BTreeMap<String, Option<Arc<Provider>>>,
}

/// A source with what the rules over the whole configuration need.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: Name,
    pub(super) path: PathTemplate,
    pub(super) path_place: Place,
    pub(super) mode: Mode,
    pub(super) mode_place: Place,
    pub(super) upstreams: Vec<At<String>>,
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
    name: At<String>,
    value: Value<'_>,
    upstreams: &mut Vec<UpstreamRead>,
) -> Option<Draft> {
    let mut section = value.section()?;
    let problems = reader.problems;
    let provider_name =
        section.required::<String>("provider", "name one of those that `hookward providers` lists, or your own");
    let mut provider = provider_name.as_ref().and_then(|at| resolve_provider(problems, defaults.providers, at));
    let facts = provider.as_deref().map(seam::facts);

    let path_text = section
        .read::<String>("path")
        .unwrap_or_else(|| At { value: format!("/hooks/{}", name.value), place: name.place.clone() });
    let path = path::read_template(problems, &path_text);
    let mode_place = section.peek_place("mode").unwrap_or_else(|| name.place.clone());
    let modes = [("queue", Mode::Queue), ("respond", Mode::Respond), ("proxy", Mode::Proxy)];
    let mode = section.choice("mode", &modes).map_or(Mode::Queue, |at| at.value);
    let upstream_names = read_upstreams(reader, &mut section, &name, upstreams);

    let has_secrets = section.has("secrets");
    let secrets = secrets::read_list(reader, &mut section);
    let written = Written { has_secrets, path: &path, path_place: &path_text.place };
    let proof = read_proof(reader.problems, &mut section, facts.as_ref(), &written);
    let allow_shared_secret = section.read_or("allow_shared_secret", false);
    let keyring = decode_keys(reader, &secrets, provider.as_deref(), &proof);
    let note = SourceNote {
        verification: proof.description.clone(),
        secrets: secrets.iter().map(|secret| secret.note.clone()).collect(),
    };

    if let Some(provider) = &mut provider {
        read_sender(&mut section, provider);
        if provider.evidence.kind == EvidenceKind::SecondHand {
            let place = provider_name.as_ref().map_or(&name.place, |at| &at.place);
            problems.warn(
                place,
                format!("what is known of {} is second-hand: {}", provider.title, provider.evidence.place),
                "send a test webhook before you rely on it",
            );
        }
    }
    let timed = facts.as_ref().is_some_and(|facts| facts.timed && !proof.is_guard);
    let tolerance = read_tolerance(&mut section, provider.as_deref(), facts.as_ref());
    let key_plan = read_keys(&mut section, &name, provider.as_deref(), facts.as_ref(), tolerance, &defaults.horizons);
    let policy = read_policy(&mut section, provider.as_deref(), facts.as_ref());
    let limits = read_bounds(&mut section, provider.as_deref(), defaults.limits);
    let proxy_status = section.choice("proxy_status", &[("mapped", false), ("raw", true)]);
    let proxy_keys = section.choice("proxy_keys", &[("lazy", false), ("fsync", true)]);
    warn_about_proxy_keys(problems, mode, provider.as_deref(), proxy_status.as_ref(), proxy_keys.as_ref());
    let forward_query = section.read_or("forward_query", false);
    section.later("enforce", "leave it out: what does not verify is refused");
    section.later("explain", "use `hookward verify` on a captured request");
    section.later("routes", "name every upstream in `upstreams`: each gets all events of this source");
    section.later("order_by", "leave it out: deliveries run side by side");
    section.finish();

    let name_shared: Name = name.value.as_str().into();
    let keys = keyring.iter().map(|(key, place)| (key.key.clone(), place.clone())).collect();
    let source = provider.map(|provider| Source {
        name: name_shared.clone(),
        path: path.clone(),
        scheme: proof.scheme.unwrap_or_else(|| provider.scheme.clone()),
        keyring: Keyring::new(keyring.into_iter().map(|(key, _)| key).collect()),
        upstreams: upstream_names.iter().map(|at| at.value.as_str().into()).collect(),
        mode,
        tolerance,
        key_plan,
        answer_within: answer_within(provider.sender.deadline),
        answer_kept: provider.sender.retry_span.unwrap_or(Duration::from_hours(24)),
        body_bytes_max: limits.body_bytes_max,
        ack_status: policy.ack_status,
        allow: proof.allow,
        rate: limits.rate,
        in_flight_max: limits.in_flight_max,
        on_mismatch: policy.on_mismatch,
        on_stale: policy.on_stale,
        on_conflict: policy.on_conflict,
        on_resend: policy.on_resend,
        items: policy.items,
        forward_query,
        proxy_status_raw: proxy_status.is_some_and(|at| at.value),
        proxy_keys_fsync: proxy_keys.is_some_and(|at| at.value),
        provider,
    });
    Some(Draft {
        name: name_shared,
        path,
        path_place: path_text.place,
        mode,
        mode_place,
        upstreams: upstream_names,
        keys,
        allow_shared_secret,
        timed,
        source,
        note,
    })
}

/// The deadline less a margin for the way back: a fifth, at most a second.
fn answer_within(deadline: Duration) -> Duration {
    deadline - (deadline / 5).min(Duration::from_secs(1))
}

/// `upstream = "name or URL"` or `upstreams = ["a", "b"]`.
fn read_upstreams(
    reader: &Reader<'_>,
    section: &mut Section<'_>,
    name: &At<String>,
    upstreams: &mut Vec<UpstreamRead>,
) -> Vec<At<String>> {
    const HELP: &str = "write upstream = \"http://127.0.0.1:9000/\", or the name of an [upstreams.NAME]";
    let problems = reader.problems;
    let has_list = section.has("upstreams");
    let mut names = Vec::new();
    if let Some(at) = section.read::<String>("upstream") {
        if has_list {
            problems.error(&at.place, "`upstream` and `upstreams` are both set", "put all names into `upstreams`");
        }
        if at.contains("://") {
            if let Some(other) = upstreams.iter().find(|other| *other.upstream.name == *name.value) {
                problems.error(
                    &at.place,
                    format!(
                        "an upstream written as a URL is named after its source, and [upstreams.{}] is defined at {}",
                        name.value,
                        problems.locate(&other.place)
                    ),
                    format!("write upstream = \"{}\"", name.value),
                );
            } else {
                upstreams.push(upstreams::from_url(reader, name, &at));
            }
            names.push(At { value: name.value.clone(), place: at.place });
        } else {
            names.push(at);
        }
    } else if !has_list {
        // Present but of the wrong type was reported.
        section.required::<String>("upstream", HELP);
    }
    if let Some(value) = section.value("upstreams") {
        let place = value.place().clone();
        let items = value.list();
        if items.as_ref().is_some_and(Vec::is_empty) {
            problems.error(&place, "`upstreams` is empty: nobody would get the events", HELP);
        }
        for item in items.unwrap_or_default() {
            let place = item.place().clone();
            let Some(value) = item.get::<String>() else { continue };
            if value.contains("://") {
                problems.error(
                    &place,
                    "a URL cannot stand in a list",
                    "name it in a table [upstreams.NAME] with `url`",
                );
            } else if names.iter().any(|other: &At<String>| other.value == value) {
                problems.error(&place, format!("upstream `{value}` stands here twice"), "one delivery each is made");
            } else {
                names.push(At { value, place });
            }
        }
    }
    let known = |at: &At<String>| upstreams.iter().any(|other| *other.upstream.name == *at.value);
    names
        .into_iter()
        .filter(|at| {
            let found = known(at);
            if !found {
                let names = upstreams.iter().map(|other| &*other.upstream.name);
                let help = match nearest(&at.value, names) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("define it: [upstreams.{}] with url = \"http://…\"", at.value),
                };
                problems.error(&at.place, format!("there is no upstream \"{}\"", at.value), help);
            }
            found
        })
        .collect()
}

/// How a source proves its requests.
#[derive(Debug)]
struct Proof {
    /// `None`: the provider's own.
    scheme: Option<Scheme>,
    place: Option<CredentialPlace>,
    is_guard: bool,
    allow: Vec<IpNet>,
    description: String,
}

/// What of a source `read_proof` goes by.
#[derive(Debug)]
struct Written<'a> {
    /// Whether secrets were written, right or wrong: what is wrong with them was reported.
    has_secrets: bool,
    path: &'a PathTemplate,
    path_place: &'a Place,
}

/// A signed provider needs its secret; one that signs nothing needs a guard, unless the user accepts that.
fn read_proof(problems: &Problems, section: &mut Section<'_>, facts: Option<&Facts>, written: &Written<'_>) -> Proof {
    let Written { has_secrets, path, path_place } = *written;
    let guard = section.read::<String>("guard");
    let accept_unverified = section.read::<bool>("accept_unverified");
    let allow = read_allow(problems, section);
    let mut proof = Proof { scheme: None, place: None, is_guard: false, allow, description: String::new() };
    let Some(facts) = facts else { return proof };
    let place = section.place().clone();
    let has_token = path.around_token.is_some();

    if facts.signed {
        proof.description = facts.description.clone();
        if has_token {
            let help = "take {token} out of `path`: the signature is the proof";
            problems.error(path_place, "this provider signs its webhooks and needs no {token} in its path", help);
        }
        if let Some(at) = &guard {
            let help = "take it out: the signature is the proof";
            problems.error(&at.place, "`guard` is for providers that sign nothing, and this one signs", help);
        }
        if let Some(at) = accept_unverified.filter(|at| at.value) {
            let help = "take it out and set `secrets`";
            problems.error(
                &at.place,
                "`accept_unverified` is for providers that sign nothing, and this one signs",
                help,
            );
        }
        if !has_secrets {
            problems.error(
                &place,
                "this provider signs its webhooks and the source has no secret",
                "add secrets = [{ file = \"…\" }] with the secret that the provider shows",
            );
        }
        return proof;
    }

    let chosen = guard.as_ref().and_then(|at| read_guard(problems, at));
    if chosen == Some(CredentialPlace::PathToken) && !has_token {
        problems.error(
            path_place,
            "`guard` is \"token\" and there is no {token} in the path",
            format!("write path = \"{}/{{token}}\"", path.text),
        );
    }
    if has_token && chosen.as_ref().is_some_and(|place| *place != CredentialPlace::PathToken) {
        let at = guard.as_ref().map_or(path_place, |at| &at.place);
        problems.error(at, "there are two guards: this one, and {token} in the path", "keep one of them");
    }
    let token = has_token.then_some(CredentialPlace::PathToken);
    proof.place = chosen.or(token).or_else(|| facts.credential.clone());
    if let Some(place) = &proof.place {
        proof.is_guard = facts.credential.as_ref() != Some(place);
        proof.scheme = proof.is_guard.then(|| seam::guard_scheme(place));
        proof.description = describe_guard(place);
    }
    match (&proof.place, !has_secrets) {
        (Some(_), false) => {}
        (Some(place), true) => {
            let open = accept_unverified.is_some_and(|at| at.value) || !proof.allow.is_empty();
            let written = guard.is_some() || has_token;
            if written || !open {
                problems.error(
                    &section.place().clone(),
                    format!("the guard ({}) has no secret to compare with", describe_guard(place)),
                    "add secrets = [{ file = \"…\" }]",
                );
            } else {
                open_up(&mut proof);
            }
        }
        (None, false) => problems.error(
            &section.place().clone(),
            "the secrets of this source are compared with nothing: its provider signs nothing",
            format!("add {{token}} to its path, such as \"{}/{{token}}\", or guard = \"header:NAME\" or \"basic\"", path.text),
        ),
        (None, true) if accept_unverified.is_some_and(|at| at.value) || !proof.allow.is_empty() => open_up(&mut proof),
        (None, true) => problems.error(
            &section.place().clone(),
            "anybody could send to this source: its provider signs nothing, and there is no guard",
            format!(
                "write path = \"{}/{{token}}\" and secrets = [{{ file = \"…\" }}]; or allow = [\"…\"]; or accept_unverified = true",
                path.text
            ),
        ),
    }
    proof
}

fn open_up(proof: &mut Proof) {
    proof.place = None;
    proof.is_guard = true;
    proof.scheme = Some(seam::open_scheme());
    proof.description =
        if proof.allow.is_empty() { "none: anybody may send" } else { "none: by address only" }.to_owned();
}

fn describe_guard(place: &CredentialPlace) -> String {
    match place {
        CredentialPlace::PathToken => "token in the path".to_owned(),
        CredentialPlace::Basic => "basic authentication".to_owned(),
        CredentialPlace::Header(name) => format!("value of the header {name}"),
    }
}

fn read_guard(problems: &Problems, at: &At<String>) -> Option<CredentialPlace> {
    const HELP: &str = "write \"token\", \"basic\" or \"header:NAME\"";
    match at.value.split_once(':') {
        None if at.value == "token" => Some(CredentialPlace::PathToken),
        None if at.value == "basic" => Some(CredentialPlace::Basic),
        Some(("header", name)) => {
            let header = HeaderName::try_from(name.trim()).ok();
            if header.is_none() {
                problems.error(&at.place, format!("`guard`: \"{name}\" is not the name of a header"), HELP);
            }
            header.map(CredentialPlace::Header)
        }
        _ => {
            problems.error(&at.place, format!("`guard`: \"{}\" is not a guard", at.value), HELP);
            None
        }
    }
}

fn decode_keys(
    reader: &Reader<'_>,
    secrets: &[SecretText],
    provider: Option<&Provider>,
    proof: &Proof,
) -> Vec<(crate::verify::SecretKey, Place)> {
    let Some(provider) = provider else { return Vec::new() };
    let decode = |secret: &SecretText| match &proof.place {
        None => secret.decode(reader, provider.key_format),
        Some(CredentialPlace::PathToken) => secret.credential(reader, path::token_fits),
        Some(CredentialPlace::Basic) => secret.credential(reader, |text| {
            if text.contains(':') { Ok(()) } else { Err("basic authentication is \"user:password\"") }
        }),
        Some(CredentialPlace::Header(_)) => secret.credential(reader, |text| {
            let fits = text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.trim() == text;
            if fits { Ok(()) } else { Err("the value of a header has neither line ends nor spaces around it") }
        }),
    };
    secrets.iter().filter_map(|secret| Some((secret.key(decode(secret)?), secret.place.clone()))).collect()
}

/// `deadline` and `retries`: the customer's settings at the provider.
fn read_sender(section: &mut Section<'_>, provider: &mut Arc<Provider>) {
    let problems = section.problems();
    let place = section.peek_place("deadline");
    let deadline = read::duration(section, "deadline", provider.sender.deadline);
    if let Some(place) = place.filter(|_| deadline > provider.sender.deadline) {
        let known = crate::document::format_duration(provider.sender.deadline);
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

fn read_tolerance(section: &mut Section<'_>, provider: Option<&Provider>, facts: Option<&Facts>) -> Tolerance {
    let preset = provider.and_then(|provider| provider.tolerance);
    let standard = preset.unwrap_or(Tolerance { past: Duration::ZERO, future: Duration::ZERO });
    let Some(value) = section.value("tolerance") else { return standard };
    if facts.is_some_and(|facts| !facts.timed) {
        value.error("`tolerance` is set and this provider signs no time", "take it out: there is nothing to compare");
    }
    let Some(mut section) = value.section() else { return standard };
    let tolerance = Tolerance {
        past: read::duration(&mut section, "past", standard.past),
        future: section.read_or("future", standard.future),
    };
    section.finish();
    tolerance
}

fn read_keys(
    section: &mut Section<'_>,
    name: &At<String>,
    provider: Option<&Provider>,
    facts: Option<&Facts>,
    tolerance: Tolerance,
    horizons: &Horizons,
) -> KeyPlan {
    let problems = section.problems();
    let preset_key = provider.map_or(EventKey::Body, |provider| provider.event_key.clone());
    let event_key = section.value("event_key").and_then(|value| read_event_key(value, facts)).unwrap_or(preset_key);
    let scope: Arc<str> = match section.read::<String>("scope") {
        Some(at) if at.is_empty() => {
            problems.error(&at.place, "`scope` is empty", "leave it out: a source has a scope of its own");
            at.value.into()
        }
        Some(at) => at.value.into(),
        None => name.value.as_str().into(),
    };
    let retry_span = provider.and_then(|provider| provider.sender.retry_span);
    let own_place = section.peek_place("event_horizon");
    let standard = retry_span.map_or(horizons.event, |span| horizons.event.max(span + span / 2));
    let event_horizon = read::duration(section, "event_horizon", standard);

    let window = tolerance.past + tolerance.future;
    let place = own_place.as_ref().or(horizons.event_place.as_ref());
    if let Some(place) = place.filter(|_| event_horizon < window) {
        problems.error(
            place,
            format!("event keys of source `{}` would be forgotten while their timestamps still pass", name.value),
            format!("make it at least past + future tolerance: {}", crate::document::format_duration(window)),
        );
    }
    let untimed = facts.is_some_and(|facts| !facts.timed);
    let short = |horizon: Duration| retry_span.filter(|span| horizon < *span);
    for (place, span) in [
        own_place.as_ref().zip(short(event_horizon)),
        horizons.untimed_place.as_ref().zip(short(horizons.untimed).filter(|_| untimed)),
    ]
    .into_iter()
    .flatten()
    {
        problems.warn(
            place,
            format!(
                "keys of source `{}` are forgotten before its provider gives up trying again ({})",
                name.value,
                crate::document::format_duration(span)
            ),
            "a late retry would be delivered twice; make it longer",
        );
    }
    KeyPlan {
        replay_scope: scope.clone(),
        scope,
        event_key,
        tolerance,
        untimed_horizon: horizons.untimed,
        event_horizon,
    }
}

/// `"body"`, `"none"`, `"/pointer"`, `"header:NAME"`, or a list of the last two.
fn read_event_key(value: Value<'_>, facts: Option<&Facts>) -> Option<EventKey> {
    match value.as_text() {
        Some("body") => return Some(EventKey::Body),
        Some("none") => return Some(EventKey::None),
        Some(_) => return read_key_part(&value, facts).map(|part| EventKey::Parts(vec![part])),
        None => {}
    }
    let seen = value.clone();
    let items = value.list()?;
    if items.is_empty() || items.len() > KEY_PARTS_MAX {
        seen.error(
            format!("`event_key` must have 1 to {KEY_PARTS_MAX} parts"),
            "write \"none\" to turn it off, \"body\" for the digest of the body",
        );
        return None;
    }
    items.iter().map(|item| read_key_part(item, facts)).collect::<Option<Vec<_>>>().map(EventKey::Parts)
}

fn read_key_part(value: &Value<'_>, facts: Option<&Facts>) -> Option<KeyPart> {
    const HELP: &str =
        "write \"body\", \"none\", a JSON pointer such as \"/id\", \"header:NAME\", or a list of pointers";
    let text = value.clone().get::<String>()?;
    if let Some(name) = text.strip_prefix("header:") {
        let Ok(header) = HeaderName::try_from(name.trim()) else {
            value.error(format!("`event_key`: \"{name}\" is not the name of a header"), HELP);
            return None;
        };
        if facts.is_some_and(|facts| !facts.signed_headers.contains(&header)) {
            value.error(
                format!("`event_key`: this provider does not sign the header `{header}`"),
                "whoever replays a webhook could change it; use a JSON pointer into the body, or \"body\"",
            );
        }
        return Some(KeyPart::Header(header));
    }
    if !is_pointer(&text) {
        value.error(format!("`event_key`: \"{text}\" is not a JSON pointer"), HELP);
        return None;
    }
    Some(KeyPart::Json(text))
}

/// RFC 6901, not the whole document, and of sane length.
fn is_pointer(text: &str) -> bool {
    text.starts_with('/') && text.len() <= 256 && text.split('~').skip(1).all(|after| after.starts_with(['0', '1']))
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
        let message = "with a wrong secret here, events are lost: this provider takes 401 for final";
        problems.warn(&at.place, message, format!("{LOST} \"retry\""));
    }
    let on_stale = section.choice("on_stale", &stales);
    if let Some(at) = &on_stale {
        if facts.is_some_and(|facts| !facts.timed) {
            let help = "take it out: nothing can be stale";
            problems.error(&at.place, "`on_stale` is set and this provider signs no time", help);
        } else if at.value == OnStale::Reject && drops(401) {
            let message = "an event that comes late is lost: this provider takes 401 for final";
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
        if !is_pointer(at) {
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
    Bounds { body_bytes_max, rate: section.section("rate").and_then(read_rate), in_flight_max }
}

fn read_rate(mut section: Section<'_>) -> Option<Rate> {
    let per_second = section.required::<f64>("per_second", "write rate = { per_second = 50, burst = 200 }");
    let burst = section.read::<u32>("burst");
    let problems = section.problems();
    if let Some(at) = per_second.as_ref().filter(|at| !(at.value > 0.0 && at.value <= 1e6)) {
        problems.error(
            &at.place,
            "`rate.per_second` must be above 0 and at most 1000000",
            "take `rate` out for no limit",
        );
    }
    if let Some(at) = burst.as_ref().filter(|at| at.value == 0) {
        problems.error(&at.place, "`rate.burst` must not be 0", "nothing would ever pass");
    }
    section.finish();
    let per_second = per_second?.value;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates in a cast")]
    let burst = burst.map_or(per_second.ceil() as u32, |at| at.value);
    Some(Rate { per_second, burst })
}

fn read_allow(problems: &Problems, section: &mut Section<'_>) -> Vec<IpNet> {
    const HELP: &str = "write addresses or networks, such as \"203.0.113.7\" or \"203.0.113.0/24\"";
    let Some(value) = section.value("allow") else { return Vec::new() };
    let place = value.place().clone();
    let items = value.list();
    if items.as_ref().is_some_and(Vec::is_empty) {
        problems.error(&place, "`allow` is empty: nobody could send", "leave it out to allow every address");
    }
    let mut networks = Vec::new();
    for item in items.unwrap_or_default() {
        let place = item.place().clone();
        let Some(text) = item.get::<String>() else { continue };
        // A bare address is a network of itself, 32 bits long or 128.
        match text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>()) {
            Ok(network) if network.addr() != network.network() => {
                let help = format!("write \"{}\"", network.trunc());
                problems.error(&place, format!("`allow`: \"{text}\" names an address inside a network"), help);
            }
            Ok(network) => networks.push(network),
            Err(_) => problems.error(&place, format!("`allow`: \"{text}\" is not an address or network"), HELP),
        }
    }
    networks
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
