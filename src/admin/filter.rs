//! From what a client writes to what a store is asked, strictly: a filter with a typing error must not answer with
//! everything, and nobody may try out with it what is hidden.

use http::StatusCode;

use super::{
    Admin,
    access::Caller,
    answer::Problem,
    api::{EventFilter, REDACTED},
    events::store_problem,
    redact,
};
use crate::{
    document::parse_duration,
    event::{EventId, State},
    store::{Direction, Filter, JsonIs},
    time::Wall,
    verify::{Key, encode_hex, json},
};

/// The state that is not one of a delivery: there is none.
const UNROUTED: &str = "unrouted";
const VALUE_CHARS_MAX: usize = 256;

/// The filter with its times made absolute and its key in digits, so that it means the same tomorrow.
pub(super) async fn freeze(admin: &Admin, caller: Caller, filter: EventFilter) -> Result<EventFilter, Problem> {
    let mut filter = absolute(filter, admin.clock.wall())?;
    if let Some(part) = hidden_parts(admin, &filter).first().filter(|_| !caller.may_operate()) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "role_too_low",
            format!("this token may search by `{part}` only in a source that is configured and does not redact that"),
            "name such a `source`, or use a token whose role is \"operate\"",
        ));
    }
    if let Some(id) = filter.key.take_if(|key| parse_key(key).is_none()) {
        let source = filter.source.as_deref().ok_or_else(|| {
            let detail = "`key` is no key, and without `source` nobody knows whose event id it is";
            let help = "give 64 hexadecimal digits, as an event shows them, or `source` and the provider's own id";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "key_underivable", detail, help)
        })?;
        filter.key = Some(find_key(admin, source, &id).await?);
    }
    Ok(filter)
}

/// What a frozen filter asks of a store.
pub(super) fn to_store(filter: &EventFilter) -> Result<Filter, Problem> {
    let unrouted = filter.state.as_deref() == Some(UNROUTED);
    let time = |text: &Option<String>| text.as_deref().and_then(timestamp);
    let json = filter.json_pointer.clone().zip(filter.json_value.clone());
    Ok(Filter {
        source: filter.source.clone(),
        upstream: filter.upstream.clone(),
        state: filter.state.as_deref().filter(|_| !unrouted).map(state).transpose()?,
        unrouted,
        event_type: filter.event_type.clone(),
        since: time(&filter.since),
        until: time(&filter.until),
        attempt_id: filter.attempt_id.clone(),
        id: filter.id.as_deref().and_then(event_id),
        key: filter.key.as_deref().and_then(parse_key),
        json: json.map(|(pointer, value)| JsonIs { pointer, value }),
        before: None,
        after: None,
    })
}

/// The filter as it is shown to those who may not see all, and logged.
pub(super) fn shown(admin: &Admin, filter: &EventFilter) -> EventFilter {
    let mut shown = filter.clone();
    for name in hidden_parts(admin, filter) {
        *shown.part(name).expect("they are parts") = Some(REDACTED.to_owned());
    }
    shown
}

/// The parts that may ask for a value that is redacted: with enough questions it could be found out.
///
/// Of a source that is gone nobody knows what was. What orders its events is shown to nobody, and a body or a key
/// looked for by operators only; its types and attempt ids are shown, by which alone what is left of it can be found.
fn hidden_parts(admin: &Admin, filter: &EventFilter) -> Vec<&'static str> {
    let rule = filter.source.as_deref().and_then(|source| (admin.hidden)(source));
    let anywhere = filter.source.is_none().then(|| (admin.hidden_anywhere)());
    let of_label = anywhere.as_ref().or(rule.as_ref());
    let in_body = |pointer: &String| {
        rule.as_ref().is_none_or(|rule| rule.pointers.iter().any(|hidden| redact::touches(hidden, pointer)))
    };
    // A key is a digest without a secret: whoever knows all but a few digits of what went into it can try those. The
    // provider's own id is tried only where it is hidden; without a source, none leads to a key.
    let by_key = |key: &String| match parse_key(key) {
        Some(_) => rule.as_ref().is_none_or(|rule| !rule.is_empty()),
        None => rule.as_ref().is_some_and(|rule| rule.event_key),
    };
    let hidden = [
        ("type", filter.event_type.is_some() && of_label.is_some_and(|rule| rule.event_type)),
        ("attempt_id", filter.attempt_id.is_some() && of_label.is_some_and(|rule| rule.attempt_id)),
        ("key", filter.key.as_ref().is_some_and(by_key)),
        ("json_value", filter.json_value.is_some() && filter.json_pointer.as_ref().is_some_and(in_body)),
    ];
    hidden.into_iter().filter_map(|(name, is_hidden)| is_hidden.then_some(name)).collect()
}

fn absolute(mut filter: EventFilter, now: Wall) -> Result<EventFilter, Problem> {
    for (name, part) in filter.parts() {
        match part.as_deref() {
            Some("") => {
                return Err(bad("parameter_empty", &format!("`{name}` is empty"), "give it a value, or leave it out"));
            }
            Some(value) if value.chars().count() > VALUE_CHARS_MAX => {
                let detail = format!("`{name}` is longer than {VALUE_CHARS_MAX} characters");
                return Err(bad("parameter_wrong", &detail, "nothing that is looked for is that long"));
            }
            _ => {}
        }
    }
    filter.state.as_deref().filter(|state| *state != UNROUTED).map(state).transpose()?;
    for name in ["since", "until"] {
        let part = filter.part(name).expect("both are parts");
        if let Some(text) = part {
            *text = time(text, now).ok_or_else(|| wrong(name, text, TIME_HELP))?.rfc3339();
        }
    }
    if let Some(text) = &filter.id {
        event_id(text).ok_or_else(|| wrong("id", text, "an id, as the list shows them"))?;
    }
    match (&filter.json_pointer, &filter.json_value) {
        (Some(pointer), Some(_)) if !json::is_pointer(pointer) => {
            return Err(wrong("json_pointer", pointer, "a JSON pointer such as /data/id"));
        }
        (Some(_), None) | (None, Some(_)) => {
            let detail = "`json_pointer` and `json_value` belong together";
            let help = "give both: json_pointer=/data/id&json_value=42";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "parameter_wrong", detail, help));
        }
        _ => {}
    }
    Ok(filter)
}

/// The key that the provider's own id led to: of those it may have led to, the one that an event has.
async fn find_key(admin: &Admin, source: &str, id: &str) -> Result<String, Problem> {
    let keys = (admin.event_keys)(source, id).map_err(|why| {
        let help = "give `key` as 64 hexadecimal digits: GET /api/v1/events/{id} lists the keys of an event";
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "key_underivable", why, help)
    })?;
    for key in &keys {
        let filter = Filter { key: Some(*key), ..Filter::default() };
        let page = admin.store.list(filter, Direction::NewestFirst, 1).await.map_err(|error| store_problem(&error))?;
        if !page.events.is_empty() {
            return Ok(encode_hex(&key.0));
        }
    }
    // None is known: then it does not matter which one nothing is found by.
    Ok(keys.first().map(|key| encode_hex(&key.0)).unwrap_or_default())
}

/// An event id in its one writing.
pub(super) fn event_id(text: &str) -> Option<EventId> {
    text.parse::<EventId>().ok().filter(|id| id.to_string() == text)
}

fn parse_key(text: &str) -> Option<Key> {
    let mut key = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(Key(key))
}

fn state(text: &str) -> Result<State, Problem> {
    State::from_name(text).ok_or_else(|| {
        let known = State::ALL.map(State::name).join(", ");
        wrong("state", text, &format!("one of {known}, {UNROUTED}"))
    })
}

const TIME_HELP: &str = "a time such as 2026-11-21T08:00:00Z, or how long ago, such as 90m or 2d";

fn time(text: &str, now: Wall) -> Option<Wall> {
    if let Some(ago) = parse_duration(text) {
        let ago_ms = i64::try_from(ago.as_millis()).ok()?;
        return Some(Wall::from_unix_ms(now.unix_ms().saturating_sub(ago_ms)));
    }
    timestamp(text)
}

fn timestamp(text: &str) -> Option<Wall> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Wall::from_unix_ms(at.as_millisecond()))
}

pub(super) fn wrong(name: &str, value: &str, help: &str) -> Problem {
    let shown: String = value.chars().take(80).collect();
    bad("parameter_wrong", &format!("`{name}` cannot be `{shown}`"), &format!("give {help}"))
}

fn bad(code: &'static str, detail: &str, help: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, detail, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall::from_unix_s(1_700_000_000);

    fn filter(parts: &[(&str, &str)]) -> EventFilter {
        let mut filter = EventFilter::default();
        for (name, value) in parts {
            *filter.part(name).expect("a part") = Some((*value).to_owned());
        }
        filter
    }

    fn refused(parts: &[(&str, &str)]) -> String {
        format!("{:?}", absolute(filter(parts), NOW).expect_err("it is wrong"))
    }

    #[test]
    fn a_frozen_filter_asks_for_the_same_tomorrow() {
        let id = EventId::new(NOW).to_string();
        let key = "0a".repeat(32);
        let parts = [
            ("source", "parts source"),
            ("upstream", "orders"),
            ("state", "dead"),
            ("type", "a/b&c"),
            ("since", "2023-11-14T23:13:20+01:00"),
            ("until", "90m"),
            ("attempt_id", "x"),
            ("id", &id),
            ("key", &key),
            ("json_pointer", "/a"),
            ("json_value", "1"),
        ];
        let frozen = absolute(filter(&parts), NOW).expect("all is right");
        assert_eq!(absolute(frozen.clone(), NOW.plus(std::time::Duration::from_hours(24))).expect("right"), frozen);
        let asked = to_store(&frozen).expect("right");
        assert_eq!(asked.source.as_deref(), Some("parts source"));
        assert_eq!(
            (asked.upstream.as_deref(), asked.state, asked.unrouted),
            (Some("orders"), Some(State::Dead), false)
        );
        assert_eq!((asked.since, asked.until), (Some(NOW), Some(Wall::from_unix_s(1_700_000_000 - 5400))));
        assert_eq!((asked.event_type.as_deref(), asked.attempt_id.as_deref()), (Some("a/b&c"), Some("x")));
        assert_eq!(
            (asked.id, asked.key),
            (Some(EventId::new(NOW)).map(|_| id.parse().expect("an id")), Some(Key([10; 32])))
        );
        assert_eq!(asked.json, Some(JsonIs { pointer: "/a".to_owned(), value: "1".to_owned() }));
        let unrouted = to_store(&filter(&[("state", "unrouted")])).expect("right");
        assert_eq!((unrouted.state, unrouted.unrouted), (None, true));
    }

    proptest::proptest! {
        #[test]
        fn no_filter_panics_and_what_is_taken_means_the_same_again(
            name in proptest::sample::select(EventFilter::default().parts().map(|(name, _)| name).to_vec()),
            value in "[0-9a-f]{64}|[-+]?[0-9]{1,20}(ms|[smhd])|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8}(Z|[+-][0-9:]{5})|(/[~01a])*|.{0,300}",
            other in ".{0,3}",
        ) {
            let mut given = filter(&[(name, &value)]);
            if name.starts_with("json") {
                for name in ["json_pointer", "json_value"] {
                    given.part(name).expect("a part").get_or_insert_with(|| other.clone());
                }
            }
            if let Ok(frozen) = absolute(given, NOW) {
                proptest::prop_assert_eq!(&absolute(frozen.clone(), NOW).expect("it was taken"), &frozen);
                let asked = to_store(&frozen).expect("its state is one");
                let lost = [
                    frozen.since.is_some() && asked.since.is_none(),
                    frozen.until.is_some() && asked.until.is_none(),
                    frozen.id.is_some() && asked.id.is_none(),
                    frozen.json_pointer.is_some() && asked.json.is_none(),
                    frozen.state.is_some() && asked.state.is_none() && !asked.unrouted,
                ];
                proptest::prop_assert!(!lost.contains(&true), "a part that was taken asks for everything: {lost:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_can() {
        assert!(refused(&[("state", "deed")]).contains("one of due, leased, delivered, held, parked, dead, unrouted"));
        assert!(refused(&[("json_pointer", "/a")]).contains("belong together"));
        assert!(refused(&[("json_value", "/a")]).contains("belong together"));
        assert!(refused(&[("json_pointer", "a"), ("json_value", "1")]).contains("/data/id"));
        for part in [("source", ""), ("since", "yesterday"), ("until", "x"), ("id", "7"), ("type", &"x".repeat(257))] {
            refused(&[part]);
        }
        let upper = EventId::new(NOW).to_string().to_uppercase();
        refused(&[("id", &upper)]);
    }
}
