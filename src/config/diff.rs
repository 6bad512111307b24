//! What differs between two configurations, for people and programs. Never a secret, and nothing made of one.
//!
//! What is compared is what the files say, so that no key can be forgotten here; which of them need a restart is a list
//! of its own. Defaults are not spelt out.

use std::{collections::BTreeSet, fmt, sync::Arc};

use super::{Config, Memory, model::Tls, secrets::CONTENT};
use crate::{
    document::{Difference, format_size},
    event::Name,
};

/// What can be read at the start only. A key counts with all below it.
const RESTART: [&str; 10] = [
    "server.listen",
    "server.tls.acme",
    "server.limits.connections_max",
    "server.limits.in_flight_max",
    "server.limits.body_memory_max",
    "admin.listen",
    "store",
    "replay.capacity",
    "replay.on_full",
    "log",
];

/// What differs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Diff {
    /// One line each: sources, upstreams and providers that came and went first, then the keys in order.
    pub changes: Vec<Change>,
    /// Upstreams that are not configured any more.
    pub removed_upstreams: Vec<Name>,
}

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// What became of it.
    pub mark: Mark,
    /// What it is about: `source orders`, or the name of a table of which there is one, such as `server`.
    pub what: String,
    /// What of it, and how: `tolerance 5m -> 10m`; empty if that is all of it.
    pub detail: String,
    /// Whether it needs a restart, and the key that does.
    pub restart: Option<String>,
}

/// What became of something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mark {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is not what it was.
    Changed,
}

impl Mark {
    /// `+`, `-` or `~`.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Added => "+",
            Self::Removed => "-",
            Self::Changed => "~",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.mark.sign(), self.what)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl Diff {
    /// The keys that need a restart, each once.
    pub fn restart(&self) -> Vec<String> {
        let keys: BTreeSet<_> = self.changes.iter().filter_map(|change| change.restart.clone()).collect();
        keys.into_iter().collect()
    }
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// What `new` does otherwise than `old`.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let needs_restart = RestartKeys::of(old, new);
    let mut changes = Vec::new();
    named(&mut changes, "source", old.sources.keys(), new.sources.keys());
    named(&mut changes, "upstream", old.upstreams.keys(), new.upstreams.keys());
    let came_or_went: BTreeSet<String> = changes.iter().map(|change| change.what.clone()).collect();
    let mut last_secret = None;
    for difference in old.written.differences(&new.written) {
        let key = difference.key.as_str();
        let (what, of_it) = about(key);
        // Which files there are shows in what they say; and of what is new or gone all is.
        if key == "include" || came_or_went.contains(&what) {
            continue;
        }
        let change = match secret(of_it) {
            // Several keys of a secret are one change of it.
            Some(secret) if last_secret.as_ref() == Some(&(what.clone(), secret.clone())) => continue,
            Some(secret) => {
                last_secret = Some((what.clone(), secret.clone()));
                let has = |config: &Config| config.written.has_below(&key[..key.len() - of_it.len() + secret.len()]);
                let how = match (has(old), has(new)) {
                    (false, _) => "added",
                    (_, false) => "removed",
                    _ => "changed",
                };
                Change { mark: Mark::Changed, what, detail: format!("{secret} {how}"), restart: needs_restart.key(key) }
            }
            None => Change {
                mark: Mark::Changed,
                what,
                detail: detail(of_it, &difference),
                restart: needs_restart.key(key),
            },
        };
        changes.push(change);
    }
    let removed_upstreams = old.upstreams.keys().filter(|name| !new.upstreams.contains_key(*name)).cloned().collect();
    Diff { changes, removed_upstreams }
}

fn named<'n>(
    changes: &mut Vec<Change>,
    kind: &str,
    old: impl Iterator<Item = &'n Name>,
    new: impl Iterator<Item = &'n Name>,
) {
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (old.collect(), new.collect());
    let change =
        |mark, name: &Name| Change { mark, what: format!("{kind} {name}"), detail: String::new(), restart: None };
    changes.extend(new.difference(&old).map(|name| change(Mark::Added, name)));
    changes.extend(old.difference(&new).map(|name| change(Mark::Removed, name)));
}

/// What a key is about, and the rest of it.
fn about(key: &str) -> (String, &str) {
    let (table, rest) = key.split_once('.').unwrap_or((key, ""));
    let kind = match table {
        "sources" => "source",
        "upstreams" => "upstream",
        "providers" => "provider",
        _ => return (table.to_owned(), rest),
    };
    let (name, rest) = rest.split_once('.').unwrap_or((rest, ""));
    (format!("{kind} {name}"), rest)
}

/// The secret that a key is of: `secrets[main]`, `signing_secret`.
fn secret(of_it: &str) -> Option<String> {
    let (owner, leaf) = of_it.rsplit_once('.')?;
    let is_of_one = matches!(
        leaf,
        "file"
            | "env"
            | "credential"
            | "value"
            | "id"
            | "not_before"
            | "expires_at"
            | "encoding"
            | "allow_short"
            | CONTENT
    );
    let last = owner.rsplit('.').next().unwrap_or(owner);
    let holds_secrets = ["secrets[", "tokens[", "encryption"].iter().any(|list| last.starts_with(list))
        || last == "signing_secret"
        || owner.starts_with("headers")
        || leaf == CONTENT;
    (is_of_one && holds_secrets).then(|| owner.to_owned())
}

fn detail(of_it: &str, difference: &Difference) -> String {
    let unset = || "(unset)".to_owned();
    let (was, is) = (difference.was.clone().unwrap_or_else(unset), difference.is.clone().unwrap_or_else(unset));
    // Two that are not shown look alike.
    if was == is { format!("{of_it} changed") } else { format!("{of_it} {was} -> {is}") }
}

/// Which keys need a restart.
#[derive(Clone, Copy)]
struct RestartKeys {
    /// TLS came or went: a listener speaks it from its start on, or not at all.
    tls: bool,
}

impl RestartKeys {
    fn of(old: &Config, new: &Config) -> Self {
        Self { tls: old.server.tls().is_some() != new.server.tls().is_some() }
    }

    /// The key of the list above that a key falls under.
    fn key(self, key: &str) -> Option<String> {
        let tls = (self.tls && is_below(key, "server.tls")).then_some("server.tls");
        let found = tls.or_else(|| RESTART.into_iter().find(|known| is_below(key, known)))?;
        // Of a table all of which needs one, the very key.
        let shown = key.find('[').map_or(key, |at| &key[..at]);
        Some(if matches!(found, "store" | "log") { shown.to_owned() } else { found.to_owned() })
    }
}

fn is_below(key: &str, above: &str) -> bool {
    key.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

impl Config {
    /// What runs once `new` was loaded into a process that started with this: all of `new` but what needs a restart.
    /// The error says, as a lower-case fragment, why the two cannot be mixed.
    pub fn reloaded(&self, new: Self) -> Result<Self, String> {
        let is_reachable = |config: &Self| {
            !config.admin.listen.ip().is_loopback()
                || !config.server.listeners.iter().all(|listener| listener.at.is_local())
        };
        if self.store.engine != new.store.engine {
            return Err("`store.engine` changed, and what a source promises depends on it: restart".to_owned());
        }
        if is_reachable(self) && !is_reachable(&new) {
            let at: Vec<_> = self.server.listeners.iter().map(|listener| listener.at.to_string()).collect();
            return Err(format!(
                "`server.listen` or `admin.listen` changed to this machine alone, where less is checked, and {} and {} stay open until the \
                 restart: restart",
                at.join(", "),
                self.admin.listen
            ));
        }
        let mut mixed = new;
        let written = std::mem::take(&mut mixed.written);
        let needs_restart = RestartKeys::of(self, &mixed);
        mixed.written = written.keeping(&self.written, |key| needs_restart.key(key).is_some());
        // The sockets stay, and whether they speak TLS; the certificates may be others.
        let tls = mixed.server.tls().cloned();
        mixed.server.listeners.clone_from(&self.server.listeners);
        for old in mixed.server.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut()) {
            let acme = old.acme.clone();
            *old = tls.as_ref().map_or_else(|| old.clone(), |tls| Arc::new(Tls { acme, ..Tls::clone(tls) }));
        }
        let (limits, old) = (&mut mixed.server.limits, &self.server.limits);
        limits.connections_max = old.connections_max;
        limits.in_flight_max = old.in_flight_max;
        limits.body_memory_max = old.body_memory_max;
        // What a source may send has to fit into what there is for bodies, which stays.
        let body_memory_max = limits.body_memory_max;
        if let Some(source) = mixed.sources.values().find(|source| source.body_bytes_max > body_memory_max / 4 * 3) {
            return Err(format!(
                "bodies of source `{}` may be larger than `server.limits.body_memory_max` allows ({}), which changes with a \
                 restart only: restart",
                source.name,
                format_size(body_memory_max)
            ));
        }
        mixed.admin.listen = self.admin.listen;
        mixed.store = self.store.clone();
        mixed.replay = self.replay.clone();
        mixed.log = self.log.clone();
        let memory = Memory::of(&mixed);
        if memory.total() > memory.max {
            let (sum, max) = (format_size(memory.total()), format_size(memory.max));
            return Err(format!(
                "until the restart that it needs it would sum up to {sum}, more than `server.limits.memory_max` ({max}): \
                 restart"
            ));
        }
        Ok(mixed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, model::ListenAt};

    const BASE: &str = "[server]\nlisten = \"127.0.0.1:1\"\n[admin]\nlisten = \"127.0.0.1:2\"\n";

    fn config(text: &str) -> Config {
        let loaded = config::from_text("a.toml", &format!("{BASE}{text}"), Path::new("."));
        loaded.config.unwrap_or_else(|| panic!("{}", loaded.problems.render(false)))
    }

    fn source(name: &str, keys: &str) -> String {
        format!("[sources.{name}]\nprovider = \"github\"\nupstream = \"http://127.0.0.1:9/\"\n{keys}\n")
    }

    const ONE: &str = "secrets = [{ value = \"canary-0123456789\", id = \"a\" }]";

    fn text(old: &str, new: &str) -> String {
        let lines = diff(&config(old), &config(new)).changes.into_iter().map(|change| {
            let when = change.restart.as_ref().map_or("now".to_owned(), |key| format!("restart ({key})"));
            format!("{change} [{when}]\n")
        });
        lines.collect()
    }

    #[test]
    fn the_same_differs_in_nothing_however_it_is_written() {
        let old = source("a", ONE);
        assert_eq!(text(&old, &old), "");
        assert_eq!(text(&old, &format!("# a comment\n{}", old.replace(" = ", "=").replace("[{", "[ {"))), "");
    }

    #[test]
    fn every_difference_is_a_line_and_no_secret_shows() {
        let old = source("a", ONE) + &source("b", &ONE.replace("canary", "canary-b"));
        let new = source(
            "a",
            "secrets = [{ value = \"canary-9876543210\", id = \"a\" }, { value = \"canary-xxxxxxxxxxx\", id = \"n\" }]\nallow = [\"10.0.0.0/8\"]",
        ) + &source("c", &ONE.replace("canary", "canary-c"))
            + "[upstreams.side]\nurl = \"http://127.0.0.1:9/\"\n[store]\npath = \"elsewhere\"\n[log]\nlevel = \"warn\"\n";
        let shown = text(&old, &new);
        assert!(!shown.contains("canary"), "{shown}");
        insta::assert_snapshot!(shown, @r"
        + source c [now]
        - source b [now]
        + upstream c [now]
        + upstream side [now]
        - upstream b [now]
        ~ log: level (unset) -> warn [restart (log.level)]
        ~ source a: allow (unset) -> [10.0.0.0/8] [now]
        ~ source a: secrets[a] changed [now]
        ~ source a: secrets[n] added [now]
        ~ store: path (unset) -> elsewhere [restart (store.path)]
        ");
    }

    #[test]
    fn what_needs_a_restart_stays_and_the_rest_is_taken() {
        let old = config(&source("a", ONE));
        let new = config(&format!(
            "{}[store]\npath = \"elsewhere\"\n",
            source("a", &format!("{ONE}\nallow = [\"10.0.0.0/8\"]"))
        ));
        let mixed = old.reloaded(new.clone()).expect("they can be mixed");
        assert_eq!(mixed.store.path, old.store.path);
        assert_eq!(mixed.sources["a"].allow, new.sources["a"].allow);
        let left = diff(&mixed, &new);
        assert_eq!(left.restart(), ["store.path"], "it is named until there was a restart");
        assert_eq!(left.changes.len(), 1);
    }

    #[test]
    fn every_key_that_is_read_at_the_start_only_stays_and_is_named() {
        let base = source("a", ONE);
        let old = config(&base);
        for (table, line) in [
            ("server.limits", "connections_max = 77"),
            ("server.limits", "in_flight_max = 77"),
            ("server.limits", "body_memory_max = \"77MiB\""),
            ("store", "retention = \"77h\""),
            ("replay", "capacity = 77"),
            ("replay", "on_full = \"evict\""),
            ("log", "level = \"warn\""),
        ] {
            let new = config(&format!("{base}[{table}]\n{line}\n"));
            let key = format!("{table}.{}", line.split(' ').next().expect("a key"));
            assert_eq!(diff(&old, &new).restart(), [key.as_str()]);
            let mixed = old.reloaded(new.clone()).expect("they can be mixed");
            let (is, was) = (&mixed.server.limits, &old.server.limits);
            let limits = |of: &crate::config::model::Limits| (of.connections_max, of.in_flight_max, of.body_memory_max);
            assert_eq!(limits(is), limits(was), "{line}");
            let rest = |of: &Config| format!("{:?} {:?} {:?}", of.store, of.replay, of.log);
            assert_eq!(rest(&mixed), rest(&old), "{line}");
            assert_eq!(diff(&mixed, &new).restart(), [key], "it is named until there was a restart");
        }
    }

    #[test]
    fn sockets_stay_where_they_are_until_the_restart() {
        let old = config(&source("a", ONE));
        let mut new = old.clone();
        new.server.listeners[0].at = ListenAt::Tcp(([127, 0, 0, 1], 81).into());
        new.admin.listen = ([127, 0, 0, 1], 82).into();
        let mixed = old.reloaded(new).expect("they can be mixed");
        assert_eq!(mixed.server.listeners[0].at, old.server.listeners[0].at);
        assert_eq!(mixed.admin.listen, old.admin.listen);
    }

    #[test]
    fn what_has_no_room_in_memory_before_the_restart_is_not_taken() {
        let limits = |text: &str| config(&format!("{}[server.limits]\n{text}\n", source("a", ONE)));
        let old = limits("memory_max = \"4GiB\"\nbody_memory_max = \"2GiB\"");
        let new = limits("memory_max = \"1GiB\"\nbody_memory_max = \"64MiB\"");
        assert!(old.reloaded(new).is_err_and(|why| why.contains("memory_max") && why.contains("until the restart")));
    }

    #[test]
    fn what_was_checked_against_another_engine_or_listener_is_not_taken() {
        let queue = source("a", ONE);
        let memory = format!("{queue}[store]\nengine = \"memory\"\naccept_loss = true\n");
        assert!(config(&memory).reloaded(config(&queue)).is_err_and(|why| why.contains("store.engine")));
        let open = config(&queue.clone());
        let mut reachable = open.clone();
        reachable.server.listeners[0].at = ListenAt::Tcp(([0, 0, 0, 0], 80).into());
        assert!(reachable.reloaded(open.clone()).is_err_and(|why| why.contains("server.listen")));
        assert!(open.reloaded(reachable).is_ok());
        let mut reachable = open.clone();
        reachable.admin.listen = ([0, 0, 0, 0], 80).into();
        assert!(reachable.reloaded(open).is_err_and(|why| why.contains("admin.listen")));
    }

    #[test]
    fn bodies_that_have_no_room_before_the_restart_are_not_taken() {
        let old = config(&source("a", ONE));
        let large = format!(
            "{ONE}\nbody_bytes_max = \"300MiB\"\n[server.limits]\nbody_memory_max = \"512MiB\"\nmemory_max = \"4GiB\"\n"
        );
        assert!(old.reloaded(config(&source("a", &large))).is_err_and(|why| why.contains("body_memory_max")));
    }

    #[test]
    fn of_a_url_only_the_host_is_shown() {
        let at = |url: &str| source("a", ONE).replace("http://127.0.0.1:9/", url);
        let shown = text(&at("https://a.example/canary?sig=canary"), &at("https://b.example/canary"));
        assert!(shown.contains("a.example") && shown.contains("b.example") && !shown.contains("canary"), "{shown}");
        let shown = text(&at("https://a.example/canary-1"), &at("https://a.example/canary-2"));
        assert!(shown.contains("upstream changed") && !shown.contains("canary"), "{shown}");
    }
}
