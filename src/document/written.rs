//! What a document says, key by key, so that two of them can be compared. What may be secret is compared and never shown.

use std::{collections::BTreeMap, fmt};

use super::{Kind, Node, Section, mask};
use crate::secret::Secret;

/// Characters of a value that are shown.
const SHOWN_MAX: usize = 100;

/// Every key of some documents and what stands there. `Debug` shows nothing of it.
#[derive(Clone, Default)]
pub struct Written(BTreeMap<String, Leaf>);

/// One value without parts, or a list of such.
#[derive(Clone, PartialEq)]
enum Leaf {
    Open(String),
    Hidden(Secret),
}

/// What became of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The key from the top: `sources.orders.tolerance.past`. An entry of a list stands by its `id`, or by its place,
    /// counted from 1: `sources.orders.secrets[main].file`.
    pub key: String,
    /// What it was, as it may be shown; `None`: it was not there.
    pub was: Option<String>,
    /// What it is; `None`: it is not there any more.
    pub is: Option<String>,
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written")
    }
}

impl Written {
    /// Adds what a section holds, before anybody takes a key out of it.
    pub fn add(&mut self, section: &Section<'_>) {
        for (name, _, node) in &section.entries {
            self.add_node(join(section.path(), name), node, mask::names_secret(name));
        }
    }

    /// Adds what was read from elsewhere: never shown.
    pub fn add_hidden(&mut self, key: String, secret: Secret) {
        self.0.insert(key, Leaf::Hidden(secret));
    }

    /// The keys that do not say the same, in order.
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        let mut keys: Vec<_> = self.0.keys().chain(new.0.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        let differing = keys.into_iter().filter(|key| self.0.get(*key) != new.0.get(*key));
        let shown = |leaf: &Leaf| leaf.shown();
        let difference = |key: &String| {
            let (was, is) = (self.0.get(key).map(shown), new.0.get(key).map(shown));
            Difference { key: key.clone(), was, is }
        };
        differing.map(difference).collect()
    }

    /// Whether there is a key below this one.
    pub fn has_below(&self, key: &str) -> bool {
        let below = |known: &str| known.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.0.range(key.to_owned()..).take_while(|(known, _)| known.starts_with(key)).any(|(known, _)| below(known))
    }

    /// This one, but with what `old` says of the keys that are kept.
    #[must_use]
    pub fn keeping(self, old: &Self, is_kept: impl Fn(&str) -> bool) -> Self {
        let old = old.0.iter().filter(|(key, _)| is_kept(key)).map(|(key, leaf)| (key.clone(), leaf.clone()));
        Self(self.0.into_iter().filter(|(key, _)| !is_kept(key)).chain(old).collect())
    }

    fn add_node(&mut self, key: String, node: &Node, is_secret: bool) {
        match &node.kind {
            Kind::Table(entries) => {
                for (name, _, node) in entries {
                    let is_secret = mask::names_secret(name) || (is_secret && !mask::is_harmless(name));
                    self.add_node(join(&key, name), node, is_secret);
                }
            }
            Kind::Array(items) if items.iter().any(|item| matches!(item.kind, Kind::Table(_))) => {
                for (i, item) in items.iter().enumerate() {
                    let name = id_of(item).map_or_else(|| (i + 1).to_string(), str::to_owned);
                    self.add_node(format!("{key}[{name}]"), item, is_secret);
                }
            }
            _ => {
                let text = text_of(node);
                let leaf = if is_secret { Leaf::Hidden(Secret::new(text)) } else { Leaf::Open(text) };
                self.0.insert(key, leaf);
            }
        }
    }
}

impl Leaf {
    fn shown(&self) -> String {
        let Self::Open(text) = self else { return "(not shown)".to_owned() };
        let text = mask::host_only(text);
        match text.char_indices().nth(SHOWN_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn id_of(node: &Node) -> Option<&str> {
    let Kind::Table(entries) = &node.kind else { return None };
    entries.iter().find_map(|(name, _, node)| match &node.kind {
        Kind::Text(text) if name == "id" => Some(text.as_str()),
        _ => None,
    })
}

/// As it could have been written; a plain word without quotes.
fn text_of(node: &Node) -> String {
    match &node.kind {
        Kind::Text(text) => {
            let is_plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '"');
            if is_plain { text.clone() } else { format!("{text:?}") }
        }
        Kind::Integer(number) => number.map_or_else(|| "?".to_owned(), |number| number.to_string()),
        Kind::Float(number) => number.to_string(),
        Kind::Bool(flag) => flag.to_string(),
        Kind::Datetime(text) => text.clone(),
        Kind::Array(items) => format!("[{}]", items.iter().map(text_of).collect::<Vec<_>>().join(", ")),
        Kind::Table(_) => "{…}".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Problems, parse};

    fn written(text: &str) -> Written {
        let problems = Problems::default();
        let mut written = Written::default();
        written.add(&parse(&problems, "a.toml", text));
        assert_eq!(problems.errors(), 0);
        written
    }

    #[test]
    fn what_differs_is_named_by_its_key_and_secrets_are_not_shown() {
        let old = written(
            "[sources.a]\ntolerance = \"5m\"\nallow = [\"10.0.0.0/8\"]\nsecrets = [{ value = \"canary-1\", id = \"x\" }, \
             { file = \"y\" }]\nupstream = \"http://me:canary-2@host/\"",
        );
        let new = written(
            "sources.a.tolerance = { past = \"5m\" }\nsources.a.upstream = \"http://host/\"\n\
             sources.a.secrets = [{ file = \"y\" }, { value = \"canary-3\", id = \"x\" }]",
        );
        let differences = old.differences(&new);
        let text: Vec<_> = differences
            .iter()
            .map(|d| format!("{} {} {}", d.key, d.was.as_deref().unwrap_or("-"), d.is.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(
            text,
            [
                "sources.a.allow [10.0.0.0/8] -",
                "sources.a.secrets[1].file - y",
                "sources.a.secrets[2].file y -",
                "sources.a.secrets[x].value (not shown) (not shown)",
                "sources.a.tolerance 5m -",
                "sources.a.tolerance.past - 5m",
                "sources.a.upstream http://***********@host/ http://host/",
            ]
        );
        assert!(old.differences(&old.clone()).is_empty());
        assert!(!format!("{old:?}").contains("canary"));
    }

    #[test]
    fn keys_can_be_kept_as_they_were() {
        let (old, new) = (written("a.x = 1\nb.x = 1\nb.y = 1"), written("a.x = 2\nb.x = 2\nb.z = 3"));
        let mixed = new.keeping(&old, |key| key.starts_with("b."));
        assert_eq!(old.differences(&mixed).len(), 1);
        assert_eq!(mixed.differences(&written("a.x = 2\nb.x = 1\nb.y = 1")), []);
    }
}
