//! Keys of a source: its tolerance, its event key, and how long keys are known.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, Method};

use super::{providers::Facts, read, store::Horizons};
use crate::{
    document::{At, Section, Value, format_duration},
    preset::Provider,
    verify::{EventKey, KeyPart, KeyPlan, Place, Tolerance, json},
};

/// Parts of an event key; more would be a mistake.
const KEY_PARTS_MAX: usize = 16;

pub(super) fn read_tolerance(
    section: &mut Section<'_>,
    provider: Option<&Provider>,
    facts: Option<&Facts>,
) -> Tolerance {
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

pub(super) fn read_plan(
    section: &mut Section<'_>,
    name: &At<String>,
    provider: Option<&Provider>,
    facts: Option<&Facts>,
    tolerance: Tolerance,
    horizons: &Horizons,
) -> KeyPlan {
    let problems = section.problems();
    let preset_key = provider.map_or(EventKey::Body, |provider| provider.event_key.clone());
    let event_key = section.value("event_key").and_then(|value| read_event_key(value, provider)).unwrap_or(preset_key);
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
            format!("make it at least past + future tolerance: {}", format_duration(window)),
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
                format_duration(span)
            ),
            "a late retry would be delivered twice; make it longer",
        );
    }
    KeyPlan {
        bodiless: provider.is_some_and(|provider| provider.webhook_methods().contains(&Method::GET)),
        replay_scope: scope.clone(),
        scope,
        event_key,
        tolerance,
        untimed_horizon: if provider.is_some_and(|provider| provider.repeats) {
            Duration::ZERO
        } else {
            horizons.untimed
        },
        event_horizon,
    }
}

/// `"body"`, `"none"`, `"/pointer"`, `"header:NAME"`, `"form:KEY"`, `"claim:NAME"`, or a list of the last four.
fn read_event_key(value: Value<'_>, provider: Option<&Provider>) -> Option<EventKey> {
    match value.as_text() {
        Some("body") => return Some(EventKey::Body),
        Some("none") => return Some(EventKey::None),
        Some(_) => return read_key_part(&value, provider).map(|part| EventKey::Parts(vec![part])),
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
    items.iter().map(|item| read_key_part(item, provider)).collect::<Option<Vec<_>>>().map(EventKey::Parts)
}

fn read_key_part(value: &Value<'_>, provider: Option<&Provider>) -> Option<KeyPart> {
    const HELP: &str = "write \"body\", \"none\", a JSON pointer such as \"/id\", \"header:NAME\", \"form:KEY\", \"claim:NAME\", or a list of those";
    let text = value.clone().get::<String>()?;
    if let Some(name) = text.strip_prefix("header:") {
        let Ok(header) = HeaderName::try_from(name.trim()) else {
            value.error(format!("`event_key`: \"{name}\" is not the name of a header"), HELP);
            return None;
        };
        if provider.is_some_and(|provider| !provider.scheme.signs_header(&header)) {
            value.error(
                format!("`event_key`: this provider does not sign the header `{header}`"),
                "whoever replays a webhook could change it; use a JSON pointer into the body, or \"body\"",
            );
        }
        return Some(KeyPart::Header(header));
    }
    let (place, part) = match text.split_once(':') {
        _ if json::is_pointer(&text) => (Place::Json(text.clone()), KeyPart::Json(text)),
        Some(("form", key)) if !key.is_empty() => (Place::Form(key.to_owned()), KeyPart::Form(key.to_owned())),
        Some(("claim", name)) if !name.is_empty() => (Place::Claim(name.to_owned()), KeyPart::Claim(name.to_owned())),
        _ => {
            value.error(format!("`event_key`: \"{text}\" is not a JSON pointer"), HELP);
            return None;
        }
    };
    if provider.is_some_and(|provider| !provider.scheme.signs(&place)) {
        value.error(
            format!("`event_key`: this provider does not sign {place}"),
            "whoever replays a webhook could change it; use what is signed, as the preset does, or \"body\"",
        );
    }
    Some(part)
}
