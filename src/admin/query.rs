//! The query of a request, strictly: an unknown or repeated parameter is an error that names the known ones,
//! because a filter with a typing error must not answer with everything.

use http::StatusCode;
use percent_encoding::percent_decode_str;

use super::{
    answer::Problem,
    api::EventFilter,
    filter::{event_id, wrong},
};
use crate::{event::EventId, store::Direction};

/// Events on a page unless asked otherwise.
pub(super) const LIMIT_DEFAULT: usize = 50;
/// Events on a page at most.
pub(super) const LIMIT_MAX: usize = 500;

const PAGING: [&str; 3] = ["limit", "cursor", "order"];

/// What `GET /api/v1/events` is asked for.
#[derive(Debug)]
pub(super) struct ListQuery {
    pub(super) filter: EventFilter,
    pub(super) direction: Direction,
    pub(super) limit: usize,
    pub(super) cursor: Option<EventId>,
}

/// Reads the query of a list. A `+` is a plus sign, as in RFC 3339 and unlike in forms.
pub(super) fn list(raw: Option<&str>) -> Result<ListQuery, Problem> {
    let mut query = ListQuery {
        filter: EventFilter::default(),
        direction: Direction::NewestFirst,
        limit: LIMIT_DEFAULT,
        cursor: None,
    };
    let known: Vec<_> = EventFilter::default().parts().map(|(name, _)| name).into_iter().chain(PAGING).collect();
    for (name, value) in pairs(raw, &known)? {
        let wrong = |help: &str| wrong(&name, &value, help);
        match name.as_str() {
            "limit" => {
                let digits = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
                let limit = value.parse().ok().filter(|limit| digits && (1..=LIMIT_MAX).contains(limit));
                query.limit = limit.ok_or_else(|| wrong(&format!("a number from 1 to {LIMIT_MAX}")))?;
            }
            "cursor" => {
                let at = event_id(&value).ok_or_else(|| wrong("the `next_cursor` of the page before"))?;
                query.cursor = Some(at);
            }
            "order" => {
                query.direction = match value.as_str() {
                    "newest" => Direction::NewestFirst,
                    "oldest" => Direction::OldestFirst,
                    _ => return Err(wrong("`newest`, which comes first unless you say so, or `oldest`")),
                }
            }
            name => *query.filter.part(name).expect("what is no paging is a part") = Some(value),
        }
    }
    Ok(query)
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

/// Percent-encoding undone; `None` if that is not UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

fn bad(code: &'static str, detail: &str, help: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, detail, help)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Wall;

    fn refused(raw: &str) -> String {
        let problem = list(Some(raw)).expect_err(raw);
        format!("{problem:?}")
    }

    #[test]
    fn every_parameter_is_read() {
        let id = EventId::new(Wall::from_unix_s(1_700_000_000));
        let raw = format!("source=parts%20source&type=a%2Fb%26c&since=1+01:00&limit=500&order=oldest&cursor={id}");
        let query = list(Some(&raw)).expect("all are known");
        assert_eq!(query.filter.source.as_deref(), Some("parts source"));
        assert_eq!(query.filter.event_type.as_deref(), Some("a/b&c"));
        assert_eq!(query.filter.since.as_deref(), Some("1+01:00"));
        assert_eq!((query.limit, query.direction, query.cursor), (500, Direction::OldestFirst, Some(id)));
        for (name, _) in EventFilter::default().parts() {
            let query = list(Some(&format!("{name}=x"))).expect("a part");
            let set: Vec<_> = query.filter.parts().into_iter().filter(|(_, part)| part.is_some()).collect();
            assert_eq!(set, [(name, &Some("x".to_owned()))]);
        }
    }

    #[test]
    fn a_typing_error_never_answers_with_everything() {
        assert!(refused("sorce=a").contains("known are source, upstream, state"));
        assert!(refused("state=dead&state=due").contains("stands twice"));
        for raw in
            ["source=", "source", "limit=0", "limit=501", "limit=x", "limit=+1", "cursor=1", "type=%ff", "order=up"]
        {
            refused(raw);
        }
        assert!(none(Some("a=1")).is_err() && none(None).is_ok() && none(Some("")).is_ok());
    }

    proptest! {
        #[test]
        fn no_query_panics(raw in "[a-z=&%+0-9:.-]{0,60}|.{0,40}") {
            let _ = list(Some(&raw));
        }
    }
}
