//! The query of a request, strictly: an unknown or repeated parameter is an error that names the known ones,
//! because a filter with a typing error must not answer with everything.

use http::StatusCode;
use percent_encoding::percent_decode_str;

use super::answer::Problem;
use crate::{
    document::parse_duration,
    event::{EventId, State},
    store::Filter,
    time::Wall,
};

/// Events on a page unless asked otherwise.
pub(super) const LIMIT_DEFAULT: usize = 50;
/// Events on a page at most.
pub(super) const LIMIT_MAX: usize = 500;

const FILTERS: [&str; 9] = ["source", "upstream", "state", "type", "since", "until", "attempt_id", "limit", "cursor"];

/// Reads the filter of `GET /api/v1/events`. A `+` is a plus sign, as in RFC 3339 and unlike in forms.
pub(super) fn filter(raw: Option<&str>, now: Wall) -> Result<(Filter, usize), Problem> {
    let (mut filter, mut events_max) = (Filter::default(), LIMIT_DEFAULT);
    for (name, value) in pairs(raw, &FILTERS)? {
        let wrong = |help: &str| wrong_value(&name, &value, help);
        match name.as_str() {
            "source" => filter.source = Some(value),
            "upstream" => filter.upstream = Some(value),
            "state" => filter.state = Some(state(&value).ok_or_else(|| wrong(&state_help()))?),
            "type" => filter.event_type = Some(value),
            "since" => filter.since = Some(time(&value, now).ok_or_else(|| wrong(TIME_HELP))?),
            "until" => filter.until = Some(time(&value, now).ok_or_else(|| wrong(TIME_HELP))?),
            "attempt_id" => filter.attempt_id = Some(value),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                events_max = limit.ok_or_else(|| wrong(&format!("a number from 1 to {LIMIT_MAX}")))?;
            }
            "cursor" => {
                let before = value.parse::<EventId>().ok();
                filter.before = Some(before.ok_or_else(|| wrong("the `next_cursor` of the page before"))?);
            }
            _ => unreachable!("pairs yields known names only"),
        }
    }
    Ok((filter, events_max))
}

/// Refuses any query.
pub(super) fn none(raw: Option<&str>) -> Result<(), Problem> {
    pairs(raw, &[]).map(|_| ())
}

fn pairs(raw: Option<&str>, known: &[&str]) -> Result<Vec<(String, String)>, Problem> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (decode(name), decode(value)) else {
            return Err(bad("query_malformed", "the query is not UTF-8", "percent-encode the parameters as UTF-8"));
        };
        if !known.contains(&name.as_str()) {
            let help = match known {
                [] => "this path takes no parameters".to_owned(),
                _ => format!("known are {}", known.join(", ")),
            };
            return Err(bad("parameter_unknown", &format!("unknown parameter `{name}`"), &help));
        }
        if pairs.iter().any(|(other, _)| *other == name) {
            return Err(bad("parameter_repeated", &format!("`{name}` stands twice"), "give it once"));
        }
        if value.is_empty() {
            return Err(bad("parameter_empty", &format!("`{name}` is empty"), "give it a value, or leave it out"));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

fn decode(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

fn state(text: &str) -> Option<State> {
    State::from_name(text)
}

fn state_help() -> String {
    format!("one of {}", State::ALL.map(State::name).join(", "))
}

const TIME_HELP: &str = "a time such as 2026-11-21T08:00:00Z, or how long ago, such as 90m or 2d";

fn time(text: &str, now: Wall) -> Option<Wall> {
    if let Some(ago) = parse_duration(text) {
        let ago_ms = i64::try_from(ago.as_millis()).ok()?;
        return Some(Wall::from_unix_ms(now.unix_ms().saturating_sub(ago_ms)));
    }
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Wall::from_unix_ms(at.as_millisecond()))
}

fn wrong_value(name: &str, value: &str, help: &str) -> Problem {
    bad("parameter_wrong", &format!("`{name}` cannot be `{value}`"), &format!("give {help}"))
}

fn bad(code: &'static str, detail: &str, help: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, detail, help)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Wall = Wall::from_unix_s(1_700_000_000);

    fn refused(raw: &str) -> String {
        let problem = filter(Some(raw), NOW).expect_err(raw);
        format!("{problem:?}")
    }

    #[test]
    fn every_filter_is_read() {
        let id = EventId::new(NOW);
        let raw = format!(
            "source=parts%20source&upstream=orders&state=dead&type=a%2Fb%26c&since=2023-11-14T23:13:20+01:00&until=90m\
             &attempt_id=x&limit=500&cursor={id}"
        );
        let (filter, limit) = filter(Some(&raw), NOW).expect("all are known");
        assert_eq!(filter.source.as_deref(), Some("parts source"));
        assert_eq!(filter.upstream.as_deref(), Some("orders"));
        assert_eq!(filter.state, Some(State::Dead));
        assert_eq!(filter.event_type.as_deref(), Some("a/b&c"));
        assert_eq!(filter.since, Some(NOW));
        assert_eq!(filter.until, Some(Wall::from_unix_s(1_700_000_000 - 5400)));
        assert_eq!(filter.attempt_id.as_deref(), Some("x"));
        assert_eq!((limit, filter.before), (500, Some(id)));
    }

    #[test]
    fn a_typing_error_never_answers_with_everything() {
        assert!(refused("sorce=a").contains("known are source, upstream, state"));
        assert!(refused("state=deed").contains("one of due, leased, delivered"));
        assert!(refused("state=dead&state=due").contains("stands twice"));
        for raw in ["source=", "source", "limit=0", "limit=501", "limit=x", "since=yesterday", "cursor=1", "type=%ff"] {
            refused(raw);
        }
        assert!(none(Some("a=1")).is_err() && none(None).is_ok() && none(Some("")).is_ok());
    }

    proptest! {
        #[test]
        fn no_query_panics(raw in "[a-z=&%+0-9:.-]{0,60}|.{0,40}") {
            let _ = filter(Some(&raw), NOW);
        }
    }
}
