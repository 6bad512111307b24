//! Typed reading of tables and values.

use std::{ops::Deref, path::PathBuf, time::Duration};

use super::{
    Kind, Node,
    problem::{Place, Problems},
    units::{parse_duration, parse_size},
};
use crate::time::Wall;

/// A value with the place it was written at.
#[derive(Clone, PartialEq, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

impl<T> Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// A number of bytes, written with a unit: `"1MiB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Size(pub u64);

/// A value without parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plain {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Bool(bool),
}

/// A table being read.
#[derive(Debug)]
pub struct Section<'p> {
    problems: &'p Problems,
    /// `sources.orders`, for messages; empty at the top.
    path: String,
    place: Place,
    pub(super) entries: Vec<(String, Place, Node)>,
    asked: Vec<&'static str>,
}

/// A value being read.
#[derive(Clone, Debug)]
pub struct Value<'p> {
    problems: &'p Problems,
    path: String,
    node: Node,
}

impl<'p> Section<'p> {
    pub(crate) fn root(problems: &'p Problems, node: Node) -> Self {
        Value { problems, path: String::new(), node }.section().expect("a document is a table")
    }
    /// Where the table stands.
    pub fn place(&self) -> &Place {
        &self.place
    }
    /// The name of the table from the top: `sources.orders`.
    pub fn path(&self) -> &str {
        &self.path
    }
    /// Where problems go.
    pub fn problems(&self) -> &'p Problems {
        self.problems
    }
    /// Takes the value of a key, typed. `None` if it is absent, or wrong, which is reported.
    pub fn read<T: FromValue>(&mut self, key: &'static str) -> Option<At<T>> {
        let value = self.value(key)?;
        let place = value.place().clone();
        T::from_value(value).map(|value| At { value, place })
    }
    /// As [`Section::read`], or the default if the key is absent or wrong.
    pub fn read_or<T: FromValue>(&mut self, key: &'static str, default: T) -> T {
        self.read(key).map_or(default, |at| at.value)
    }
    /// As [`Section::read`]; an absent key is an error. `help` says what to write.
    pub fn required<T: FromValue>(&mut self, key: &'static str, help: &str) -> Option<At<T>> {
        if !self.has(key) {
            self.asked.push(key);
            self.problems.error(&self.place, format!("`{key}` is missing{}", self.within()), help);
            return None;
        }
        self.read(key)
    }
    /// Takes a value untyped.
    pub fn value(&mut self, key: &'static str) -> Option<Value<'p>> {
        self.asked.push(key);
        #[cfg(test)]
        self.problems.asked.borrow_mut().insert(self.join(key));
        let at = self.entries.iter().position(|(name, ..)| name == key)?;
        let (_, _, node) = self.entries.remove(at);
        Some(Value { problems: self.problems, path: self.join(key), node })
    }
    /// Takes a string that must be one of a few words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&'static str, T)]) -> Option<At<T>> {
        let value = self.value(key)?;
        let place = value.place().clone();
        value.choose(choices).map(|value| At { value, place })
    }
    /// Refuses a key that is known and not in this version. `help` says what to do instead.
    pub fn later(&mut self, key: &'static str, help: &str) {
        if let Some(at) = self.entries.iter().position(|(name, ..)| name == key) {
            let (_, place, _) = self.entries.remove(at);
            self.problems.error(&place, format!("`{}` is not in this version of Hookward", self.join(key)), help);
        }
    }
    /// Takes a table.
    pub fn section(&mut self, key: &'static str) -> Option<Section<'p>> {
        self.value(key)?.section()
    }
    /// Takes everything: for tables whose keys are names chosen by the user. In the order of the file.
    pub fn entries(&mut self) -> Vec<(At<String>, Value<'p>)> {
        std::mem::take(&mut self.entries)
            .into_iter()
            .map(|(name, place, node)| {
                let path = self.join(self.problems.shown_name(&place, &name));
                (At { value: name, place }, Value { problems: self.problems, path, node })
            })
            .collect()
    }
    /// Whether a key is there and not yet taken.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, ..)| name == key)
    }
    /// Where the value of a key stands that is not yet taken.
    pub fn peek_place(&self, key: &str) -> Option<Place> {
        self.entries.iter().find(|(name, ..)| name == key).map(|(_, _, node)| node.place.clone())
    }
    /// Reports every key that nobody asked for.
    pub fn finish(self) {
        for (name, place, _) in &self.entries {
            let help = if let Some(known) = nearest(name, self.asked.iter().copied()) {
                format!("did you mean `{known}`?")
            } else {
                let mut known = self.asked.clone();
                known.sort_unstable();
                known.dedup();
                format!("known keys here: {}", known.join(", "))
            };
            self.problems.error(
                place,
                format!("unknown key `{}`{}", self.problems.shown_name(place, name), self.within()),
                help,
            );
        }
    }
    fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
    fn within(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!(" in [{}]", self.path) }
    }
}

impl<'p> Value<'p> {
    /// Where the value stands.
    pub fn place(&self) -> &Place {
        &self.node.place
    }
    /// Its name from the top: `sources.orders.timeout`.
    pub fn path(&self) -> &str {
        &self.path
    }
    /// Where problems go.
    pub fn problems(&self) -> &'p Problems {
        self.problems
    }
    /// Reports an error at this value.
    pub fn error(&self, message: impl Into<String>, help: impl Into<String>) {
        self.problems.error(&self.node.place, message, help);
    }
    /// The value, typed; reports what does not fit.
    pub fn get<T: FromValue>(self) -> Option<T> {
        T::from_value(self)
    }
    /// Whether it is a string.
    pub fn is_text(&self) -> bool {
        matches!(self.node.kind, Kind::Text(_))
    }
    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.node.kind, Kind::Array(_))
    }
    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.node.kind, Kind::Table(_))
    }
    /// The string, without a report if it is none.
    pub fn as_text(&self) -> Option<&str> {
        match &self.node.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }
    /// The table, or a report.
    pub fn section(self) -> Option<Section<'p>> {
        match self.node.kind {
            Kind::Table(entries) => Some(Section {
                problems: self.problems,
                path: self.path,
                place: self.node.place,
                entries,
                asked: Vec::new(),
            }),
            _ => self.wrong("a table", "write it as [name] with keys below, or as { key = value }"),
        }
    }
    /// The items of a list, or a report.
    pub fn list(self) -> Option<Vec<Value<'p>>> {
        match self.node.kind {
            Kind::Array(items) => Some(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(i, node)| Value { problems: self.problems, path: format!("{}[{i}]", self.path), node })
                    .collect(),
            ),
            _ => self.wrong("a list", "write it in brackets: [ … ]"),
        }
    }
    /// One of a few words, or a report.
    pub fn choose<T: Copy>(self, choices: &[(&'static str, T)]) -> Option<T> {
        let words = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let Kind::Text(text) = &self.node.kind else {
            return self.wrong(&format!("one of {words}"), "with the quotes");
        };
        let found = choices.iter().find(|(word, _)| word == text);
        if found.is_none() {
            let help = match nearest(text, choices.iter().map(|(word, _)| *word)) {
                Some(word) => format!("did you mean \"{word}\"?"),
                None => format!("write one of {words}"),
            };
            self.error(format!("`{}` must be one of {words}", self.path), help);
        }
        found.map(|(_, value)| *value)
    }
    fn wrong<T>(&self, expected: &str, help: &str) -> Option<T> {
        self.error(format!("`{}` must be {expected}, found {}", self.path, self.node.kind_name()), help);
        None
    }
}

/// The name that `text` was probably meant to be.
pub fn nearest<'n>(text: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(text, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}

/// What can be read from a value. An implementation reports what does not fit and returns `None`.
pub trait FromValue: Sized {
    /// Reads it.
    fn from_value(value: Value<'_>) -> Option<Self>;
}

impl FromValue for String {
    fn from_value(value: Value<'_>) -> Option<Self> {
        match &value.node.kind {
            Kind::Text(text) => Some(text.clone()),
            Kind::Array(_) => value.wrong("a string", "one, in quotes, without brackets"),
            _ => value.wrong("a string", "put it in quotes"),
        }
    }
}

impl FromValue for PathBuf {
    fn from_value(value: Value<'_>) -> Option<Self> {
        String::from_value(value).map(PathBuf::from)
    }
}

impl FromValue for bool {
    fn from_value(value: Value<'_>) -> Option<Self> {
        match value.node.kind {
            Kind::Bool(flag) => Some(flag),
            _ => value.wrong("true or false", "without quotes"),
        }
    }
}

impl FromValue for Plain {
    fn from_value(value: Value<'_>) -> Option<Self> {
        match value.node.kind {
            Kind::Text(text) => Some(Self::Text(text)),
            Kind::Integer(Some(n)) => Some(Self::Integer(n)),
            Kind::Bool(flag) => Some(Self::Bool(flag)),
            _ => value.wrong("a string, a whole number, true or false", "nothing else is compared"),
        }
    }
}

impl FromValue for u64 {
    fn from_value(value: Value<'_>) -> Option<Self> {
        match value.node.kind {
            Kind::Integer(Some(n)) if n >= 0 => u64::try_from(n).ok(),
            Kind::Integer(_) => value.wrong("a number from 0 to 9223372036854775807", "without a sign"),
            _ => value.wrong("a whole number", "without quotes or unit"),
        }
    }
}

impl FromValue for u32 {
    fn from_value(value: Value<'_>) -> Option<Self> {
        let seen = value.clone();
        let n = u64::from_value(value)?;
        Self::try_from(n).ok().or_else(|| seen.wrong("a number below 4294967296", "write a smaller one"))
    }
}

impl FromValue for u16 {
    fn from_value(value: Value<'_>) -> Option<Self> {
        let seen = value.clone();
        let n = u64::from_value(value)?;
        Self::try_from(n).ok().or_else(|| seen.wrong("a number below 65536", "write a smaller one"))
    }
}

impl FromValue for usize {
    fn from_value(value: Value<'_>) -> Option<Self> {
        u64::from_value(value).and_then(|n| Self::try_from(n).ok())
    }
}

impl FromValue for f64 {
    fn from_value(value: Value<'_>) -> Option<Self> {
        match value.node.kind {
            Kind::Float(x) if x.is_finite() => Some(x),
            #[expect(clippy::cast_precision_loss, reason = "a factor or ratio in a configuration is small")]
            Kind::Integer(Some(n)) => Some(n as f64),
            _ => value.wrong("a number such as 2.0", "without quotes"),
        }
    }
}

impl FromValue for Duration {
    fn from_value(value: Value<'_>) -> Option<Self> {
        const HELP: &str = "write a number and a unit, such as \"500ms\", \"30s\", \"5m\", \"72h\" or \"7d\"";
        let Kind::Text(text) = &value.node.kind else {
            return value.wrong("a duration", HELP);
        };
        parse_duration(text).or_else(|| {
            value.error(format!("`{}`: \"{text}\" is not a duration", value.path), HELP);
            None
        })
    }
}

impl FromValue for Size {
    fn from_value(value: Value<'_>) -> Option<Self> {
        const HELP: &str =
            "write a number and a unit, such as \"64KiB\", \"1MiB\" (1 048 576 bytes) or \"1MB\" (1 000 000 bytes)";
        let Kind::Text(text) = &value.node.kind else {
            return value.wrong("a size", HELP);
        };
        parse_size(text).map(Size).or_else(|| {
            value.error(format!("`{}`: \"{text}\" is not a size", value.path), HELP);
            None
        })
    }
}

impl FromValue for Wall {
    fn from_value(value: Value<'_>) -> Option<Self> {
        const HELP: &str = "write a date with time and zone, such as 2026-11-21T08:00:00Z";
        let (Kind::Datetime(text) | Kind::Text(text)) = &value.node.kind else {
            return value.wrong("a date", HELP);
        };
        match text.parse::<jiff::Timestamp>() {
            Ok(at) => Some(Wall::from_unix_ms(at.as_millisecond())),
            Err(_) => value.wrong("a date with time and zone", HELP),
        }
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: Value<'_>) -> Option<Self> {
        value.list()?.into_iter().map(T::from_value).collect()
    }
}
