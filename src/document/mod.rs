//! TOML documents with places: typed reading that collects every problem, each with file, line, column, the
//! source line and what to do.
//!
//! A [`Section`] hands out its keys by name; what nobody asked for is reported by [`Section::finish`] as an
//! unknown key, with the nearest known one. A value of the wrong type is reported where it stands, and reading
//! goes on, so that one run shows all problems. Secrets written inline are masked in every rendered line.

mod mask;
mod problem;
mod section;
mod units;
mod written;

use std::{ops::Range, path::PathBuf};

use toml::de::{DeTable, DeValue};

pub use problem::{FileId, Place, Problem, Problems, Severity};
pub use section::{At, FromValue, Plain, Section, Size, Value, nearest};
pub use units::{format_duration, format_size, parse_duration, parse_size};
pub use written::{Difference, Written};

/// Parses `text` and returns its top level. Syntax errors go to `problems`; what could be read is still
/// returned, so that the problems behind a syntax error show in the same run.
pub fn parse<'p>(problems: &'p Problems, name: impl Into<PathBuf>, text: &str) -> Section<'p> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let span = table.span();
    let shown = mask::mask_secrets(text);
    let file = problems.add_file(name.into(), shown);
    for error in errors {
        let place = Place::new(file, error.span().unwrap_or(0..0));
        problems.error(&place, format!("failed to read this as TOML: {}", error.message()), SYNTAX_HELP);
    }
    let root = Node::from_toml(file, span, DeValue::Table(table.into_inner()));
    Section::root(problems, root)
}

const SYNTAX_HELP: &str =
    "look for a missing quote, bracket or comma here or just before; problems below may be its echo";

/// One value of a document, owned, with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Text(String),
    /// `None`: does not fit 64 bits.
    Integer(Option<i64>),
    Float(f64),
    Bool(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Vec<(String, Place, Node)>),
}

impl Node {
    fn from_toml(file: FileId, span: Range<usize>, value: DeValue<'_>) -> Self {
        let kind = match value {
            DeValue::String(s) => Kind::Text(s.into_owned()),
            DeValue::Integer(i) => Kind::Integer(i64::from_str_radix(i.as_str(), i.radix()).ok()),
            DeValue::Float(f) => Kind::Float(f.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(b) => Kind::Bool(b),
            DeValue::Datetime(d) => Kind::Datetime(d.to_string()),
            DeValue::Array(items) => Kind::Array(
                items
                    .into_iter()
                    .map(|item| {
                        let span = item.span();
                        Self::from_toml(file, span, item.into_inner())
                    })
                    .collect(),
            ),
            DeValue::Table(table) => {
                let mut entries: Vec<_> = table
                    .into_iter()
                    .map(|(key, item)| {
                        let (key_span, span) = (key.span(), item.span());
                        let key_place = Place::new(file, key_span);
                        (key.into_inner().into_owned(), key_place, Self::from_toml(file, span, item.into_inner()))
                    })
                    .collect();
                entries.sort_by_key(|(_, place, _)| place.span.start);
                Kind::Table(entries)
            }
        };
        Self { place: Place::new(file, span), kind }
    }

    pub(crate) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Text(_) => "a string",
            Kind::Integer(_) => "a number",
            Kind::Float(_) => "a fraction",
            Kind::Bool(_) => "true or false",
            Kind::Datetime(_) => "a date",
            Kind::Array(_) => "a list",
            Kind::Table(_) => "a table",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn everything_wrong_is_reported_at_once_with_its_place() {
        let problems = Problems::default();
        let mut root = parse(&problems, "a.toml", "timeout = 5\nretires = 3\n[deep]\nsize = \"1XB\"\n");
        assert!(root.read::<Duration>("timeout").is_none());
        assert!(root.read::<u64>("retries").is_none());
        let mut deep = root.section("deep").expect("there is one");
        assert!(deep.read::<Size>("size").is_none());
        deep.finish();
        root.finish();
        let text = problems.render(false);
        for expected in ["a.toml:1:11", "a.toml:2:1", "did you mean `retries`", "a.toml:4:8", "\"1MiB\""] {
            assert!(text.contains(expected), "{expected} is not in:\n{text}");
        }
        assert_eq!(problems.errors(), 3);
    }

    #[test]
    fn an_inline_secret_is_masked_in_what_is_shown_even_beside_a_syntax_error() {
        for text in ["a = { value = \"canary-1\", x = 1 }", "secret = \"canary-2\nb = ]", "tokens = ['canary-3', ]]"] {
            let problems = Problems::default();
            let root = parse(&problems, "a.toml", text);
            root.finish();
            let shown = problems.render(false);
            assert!(problems.errors() > 0 && !shown.contains("canary"), "{shown}");
        }
    }
}
