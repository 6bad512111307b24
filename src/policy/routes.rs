//! Which upstreams get an event: `routes` of a source.
//!
//! Every route whose conditions all hold has its upstreams get the event, whatever the other routes say: their order
//! decides nothing but who answers first in mode `respond`. A body that is no JSON, or says something in two ways,
//! fulfils no condition about it, and an event without a type fulfils none about its type.

use std::sync::Arc;

use crate::verify::json::{self, Scalar};

/// The routes of a source, as written. Empty: there are none.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Routes {
    routes: Vec<Route>,
}

/// Conditions, and who gets the events that fulfil them.
#[derive(Clone, PartialEq, Debug)]
pub struct Route {
    event_type: Option<Glob>,
    json: Vec<(String, Scalar)>,
    to: Vec<Arc<str>>,
}

impl Route {
    /// A route; `None` without any condition, or to nobody.
    pub fn new(event_type: Option<Glob>, json: Vec<(String, Scalar)>, to: Vec<Arc<str>>) -> Option<Self> {
        let says_something = (event_type.is_some() || !json.is_empty()) && !to.is_empty();
        says_something.then_some(Self { event_type, json, to })
    }
    /// The pattern of the event's type, if there is one.
    pub fn event_type(&self) -> Option<&Glob> {
        self.event_type.as_ref()
    }
    /// Scalars that must stand at these pointers.
    pub fn json(&self) -> &[(String, Scalar)] {
        &self.json
    }
    /// The upstreams.
    pub fn to(&self) -> &[Arc<str>] {
        &self.to
    }
    /// Whether both ask for the same.
    pub fn has_conditions_of(&self, other: &Self) -> bool {
        let all_in = |a: &Self, b: &Self| a.json.iter().all(|condition| b.json.contains(condition));
        self.event_type == other.event_type && all_in(self, other) && all_in(other, self)
    }
}

impl Routes {
    /// A longer list is a program, which belongs into an upstream.
    pub const MAX: usize = 64;

    /// These, in the order as written.
    pub fn new(routes: Vec<Route>) -> Self {
        Self { routes }
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }
    /// The upstreams of every route that fits, each once, in the order as written. The body is read at most once.
    pub fn choose(&self, event_type: Option<&str>, body: &[u8]) -> Vec<Arc<str>> {
        let has_type = |route: &&Route| match &route.event_type {
            None => true,
            Some(glob) => event_type.is_some_and(|text| glob.fits(text)),
        };
        let candidates: Vec<&Route> = self.routes.iter().filter(has_type).collect();
        let mut pointers: Vec<&str> = candidates.iter().flat_map(|route| &route.json).map(|(at, _)| &**at).collect();
        pointers.sort_unstable();
        pointers.dedup();
        let found = if pointers.is_empty() { Vec::new() } else { json::scalars(body, &pointers) };
        let is_there = |(pointer, value): &(String, Scalar)| {
            pointers.binary_search(&&**pointer).is_ok_and(|at| found[at].as_ref() == Some(value))
        };
        let mut chosen: Vec<Arc<str>> = Vec::new();
        for upstream in candidates.iter().filter(|route| route.json.iter().all(is_there)).flat_map(|route| &route.to) {
            if !chosen.contains(upstream) {
                chosen.push(upstream.clone());
            }
        }
        chosen
    }
}

/// A pattern: `*` stands for any characters or none, `?` for one; everything else for itself, case included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Glob {
    text: String,
    /// Without a `*` behind another one.
    pattern: Vec<char>,
}

impl Glob {
    /// As long as an event type can be.
    pub const BYTES_MAX: usize = 256;

    /// A pattern; the error says why the text is none. What other patterns give a meaning to is refused, so that
    /// nobody believes it to have one here.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("it is empty");
        }
        if text.len() > Self::BYTES_MAX {
            return Err("it is longer than 256 bytes, and so is no event type");
        }
        if text.chars().any(char::is_control) {
            return Err("no event type has control characters");
        }
        if text.contains(['[', ']', '{', '}', '\\']) {
            return Err("only `*` and `?` stand for something else");
        }
        let mut pattern: Vec<char> = text.chars().collect();
        pattern.dedup_by(|next, last| *next == '*' && *last == '*');
        Ok(Self { text: text.to_owned(), pattern })
    }
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// Whether the whole text fits. Never more steps than pattern times text.
    pub fn fits(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut pos) = (0, 0);
        // The last `*`, and how much of the text it takes as far as tried: only the last one is ever widened, since
        // what the earlier ones took already leads up to it.
        let mut star: Option<(usize, usize)> = None;
        while pos < text.len() {
            match self.pattern.get(at) {
                Some('*') => {
                    star = Some((at, pos));
                    at += 1;
                }
                Some(c) if *c == '?' || *c == text[pos] => (at, pos) = (at + 1, pos + 1),
                _ => {
                    let Some((star_at, taken)) = star.as_mut() else { return false };
                    *taken += 1;
                    (at, pos) = (*star_at + 1, *taken);
                }
            }
        }
        self.pattern[at..].iter().all(|c| *c == '*')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(text: &str) -> Glob {
        Glob::new(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    fn route(event_type: Option<&str>, json: &[(&str, Scalar)], to: &[&str]) -> Route {
        let json = json.iter().map(|(at, value)| ((*at).to_owned(), value.clone())).collect();
        Route::new(event_type.map(glob), json, to.iter().map(|name| (*name).into()).collect()).expect("a route")
    }

    fn text(value: &str) -> Scalar {
        Scalar::Text(value.to_owned())
    }

    fn chosen(routes: &Routes, event_type: Option<&str>, body: &str) -> String {
        routes.choose(event_type, body.as_bytes()).join(" ")
    }

    #[test]
    fn every_route_that_fits_adds_its_upstreams_once_in_the_order_as_written() {
        let routes = Routes::new(vec![
            route(Some("invoice.*"), &[], &["billing"]),
            route(None, &[("/data/country", text("DE"))], &["de", "audit"]),
            route(
                Some("*.paid"),
                &[("/data/n", Scalar::Integer("7".to_owned())), ("/live", Scalar::Bool(true))],
                &["audit", "paid"],
            ),
        ]);
        let body = r#"{"data":{"country":"DE","n":7},"live":true}"#;
        assert_eq!(chosen(&routes, Some("invoice.paid"), body), "billing de audit paid");
        assert_eq!(chosen(&routes, Some("invoice.paid"), r#"{"data":{"n":7},"live":true}"#), "billing audit paid");
        assert_eq!(
            chosen(&routes, Some("invoice.paid"), r#"{"data":{"n":7},"live":false}"#),
            "billing",
            "all must hold"
        );
        assert_eq!(chosen(&routes, Some("invoice.paid"), "no JSON"), "billing");
        assert_eq!(chosen(&routes, Some("order"), "{}"), "");
        assert_eq!(chosen(&routes, None, body), "de audit", "no pattern fits a type that is not known");
    }

    #[test]
    fn a_condition_tells_types_apart_and_takes_nothing_that_could_mean_two_things() {
        let routes = Routes::new(vec![route(None, &[("/n", Scalar::Integer("1".to_owned()))], &["a"])]);
        assert_eq!(chosen(&routes, None, r#"{"n":1}"#), "a");
        for other in [r#"{"n":"1"}"#, r#"{"n":1.0}"#, r#"{"n":1,"n":1}"#, r#"{"n":[1]}"#, r#"{"n":1}x"#, "", "[1]"] {
            assert_eq!(chosen(&routes, None, other), "", "{other}");
        }
        assert_eq!(Routes::default().choose(Some("a"), b"{}"), []);
    }

    #[test]
    fn without_a_condition_or_a_target_there_is_no_route() {
        assert_eq!(Route::new(None, Vec::new(), vec!["a".into()]), None);
        assert_eq!(Route::new(Some(glob("*")), Vec::new(), Vec::new()), None);
    }

    #[test]
    fn a_pattern_fits_the_whole_text_and_its_case() {
        for (pattern, fits, fits_not) in [
            (
                "invoice.*",
                &["invoice.", "invoice.paid", "invoice.a.b"][..],
                &["invoice", "xinvoice.", "Invoice.paid"][..],
            ),
            ("*", &["", "a", "*"], &[]),
            ("?", &["a", "é", "?"], &["", "ab"]),
            ("*.paid", &[".paid", "a.paid.paid"], &["paid", "a.paid."]),
            ("a*b*c", &["abc", "aXbYc", "abbcc", "abcbc"], &["ab", "acb", "abcd"]),
            ("a.b", &["a.b"], &["aXb"]),
        ] {
            assert!(fits.iter().all(|text| glob(pattern).fits(text)), "{pattern}");
            assert!(!fits_not.iter().any(|text| glob(pattern).fits(text)), "{pattern}");
        }
        for none in ["", "a[bc]", "{a,b}", "a\\*", "a\nb", &"x".repeat(257)] {
            assert!(Glob::new(none).is_err(), "{none}");
        }
    }

    /// What a pattern means, by definition.
    fn fits_by_definition(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some(('*', rest)), _) => (0..=text.len()).any(|taken| fits_by_definition(rest, &text[taken..])),
            (Some(_), None) => false,
            (Some((c, rest)), Some((first, text))) => (*c == '?' || c == first) && fits_by_definition(rest, text),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_fits_what_its_definition_says(pattern in "[ab*?]{1,8}", text in "[ab*é]{0,10}") {
            let (by, of): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(glob(&pattern).fits(&text), fits_by_definition(&by, &of));
        }
        #[test]
        fn no_pattern_takes_long(pattern in "(a?\\*){1,80}b", text in "a{0,256}") {
            prop_assert_eq!(glob(&pattern).fits(&text), false);
        }
        #[test]
        fn no_body_panics_and_all_conditions_are_those_of_the_one_reader(
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..100),
                r#"\{("[ab]":([01]|"x"|true|\{"a":1\}),?){0,4}\}"#.prop_map(String::into_bytes),
            ],
            event_type in prop::option::of("[ab]{0,3}"),
            asked in prop::collection::vec((prop::option::of("[ab*?]{1,3}"), prop::collection::vec(("/[ab](/a)?", 0usize..3), 0..3)), 0..5),
        ) {
            let values = [Scalar::Integer("1".to_owned()), text("x"), Scalar::Bool(true)];
            let asked = asked.into_iter().enumerate().filter_map(|(i, (pattern, json))| {
                let json = json.into_iter().map(|(at, value)| (at, values[value].clone())).collect();
                Route::new(pattern.as_deref().map(glob), json, vec![i.to_string().into()])
            });
            let asked: Vec<Route> = asked.collect();
            let expected: Vec<_> = asked
                .iter()
                .filter(|route| {
                    route.event_type.as_ref().is_none_or(|glob| event_type.as_ref().is_some_and(|text| glob.fits(text)))
                        && route.json.iter().all(|(at, value)| json::scalar(&body, at).as_ref() == Some(value))
                })
                .flat_map(|route| route.to.clone())
                .collect();
            prop_assert_eq!(Routes::new(asked).choose(event_type.as_deref(), &body), expected);
        }
    }
}
