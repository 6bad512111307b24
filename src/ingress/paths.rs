//! Paths that sources had. A provider that still sends to one that was removed gets 503 for two days, and not the 404 that
//! some of them take for the end: it may have been a mistake. And keys of one path in another scope are new keys, which
//! somebody should know of.
//!
//! They lie in a small file beside the store, so that a restart forgets none. A file that cannot be read is no reason not
//! to start. Who is asked for the time is the wall clock: nobody else's outlives the process.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    config::{
        Config,
        model::{Engine, PathTemplate, Store},
    },
    files::{make_directory, write_whole},
    time::Wall,
};

/// How long a path that was removed gets 503.
const REMOVED_FOR: Duration = Duration::from_hours(48);
/// Removed paths that are remembered: the last ones.
const REMOVED_MAX: usize = 1024;
/// More than so many paths take.
const BYTES_MAX: u64 = 4 << 20;

/// The paths that sources have and had.
#[derive(Debug)]
pub(super) struct KnownPaths {
    /// Without one they are forgotten with the process.
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

/// By path as it is written in the configuration.
type Known = BTreeMap<String, Standing>;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Standing {
    /// The scope of its keys.
    scope: String,
    /// When its source was found to be gone, in milliseconds since 1970.
    removed_at_ms: Option<i64>,
}

/// A path whose source is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Removed {
    pub(super) path: PathTemplate,
    /// From then on it is a path like any other that nobody has.
    pub(super) until: Wall,
}

impl KnownPaths {
    /// As they lie beside this store.
    pub(super) fn open(store: &Store) -> Self {
        let file = (store.engine == Engine::Sqlite).then(|| store.path.join("paths.json"));
        let known = file.as_deref().map(read).unwrap_or_default();
        Self { file, known: Mutex::new(known) }
    }

    /// Takes the paths of a configuration, and returns those that are gone. What cannot be written is known to this
    /// process all the same.
    pub(super) fn update(&self, config: &Config, now: Wall) -> Vec<Removed> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let paths = config.sources.values().map(|source| (source.path.text.as_str(), &*source.key_plan.scope));
        let (next, moved) = merge(&known, paths, now);
        for path in moved {
            let (was, is) = (known.get(&path).map(|standing| standing.scope.clone()), next.get(&path));
            tracing::warn!(
                path,
                was,
                is = is.map(|standing| standing.scope.as_str()),
                "the scope of a path changed: what was accepted there before is not known as a copy any more; set `scope` \
                 to the old one to keep its keys"
            );
        }
        if *known != next {
            if let Some(Err(error)) = self.file.as_deref().map(|file| write(file, &next)) {
                tracing::warn!(%error, "failed to write which paths there are: a restart forgets those that were removed");
            }
            *known = next;
        }
        removed(&known)
    }
}

fn removed(known: &Known) -> Vec<Removed> {
    let gone = known.iter().filter_map(|(path, standing)| {
        let until = Wall::from_unix_ms(standing.removed_at_ms?).plus(REMOVED_FOR);
        Some(Removed { path: PathTemplate::of(path), until })
    });
    gone.collect()
}

/// What is known once a configuration has these paths with their scopes, and the paths whose scope changed.
fn merge<'c>(known: &Known, paths: impl Iterator<Item = (&'c str, &'c str)>, now: Wall) -> (Known, Vec<String>) {
    let now_ms = now.unix_ms();
    let mut next: Known = paths
        .map(|(path, scope)| (path.to_owned(), Standing { scope: scope.to_owned(), removed_at_ms: None }))
        .collect();
    let moved = next.iter().filter(|(path, standing)| known.get(*path).is_some_and(|old| old.scope != standing.scope));
    let moved = moved.map(|(path, _)| path.clone()).collect();
    let gone = known.iter().filter(|(path, _)| !next.contains_key(*path)).map(|(path, standing)| {
        // A clock that went back since must not make it last longer.
        let removed_at_ms = standing.removed_at_ms.map_or(now_ms, |at| at.min(now_ms));
        (removed_at_ms, path.clone(), standing.scope.clone())
    });
    let mut gone: Vec<_> = gone.filter(|(at, ..)| now < Wall::from_unix_ms(*at).plus(REMOVED_FOR)).collect();
    gone.sort_unstable();
    for (at, path, scope) in gone.into_iter().rev().take(REMOVED_MAX) {
        next.insert(path, Standing { scope, removed_at_ms: Some(at) });
    }
    (next, moved)
}

fn read(file: &Path) -> Known {
    let text = match fs::metadata(file) {
        Ok(about) if about.len() > BYTES_MAX => Err(io::Error::other("it is too large")),
        Ok(_) => fs::read(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Known::default(),
        Err(error) => Err(error),
    };
    let known = text.and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other));
    known.unwrap_or_else(|error| {
        let file = file.display().to_string();
        tracing::warn!(file, %error, "failed to read which paths there were: removed ones get 404; the file is written anew");
        Known::default()
    })
}

fn write(file: &Path, known: &Known) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    make_directory(directory)?;
    write_whole(directory, file, &serde_json::to_vec_pretty(known)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_S: i64 = 3600;

    fn at(hours: i64) -> Wall {
        Wall::from_unix_s(1_700_000_000 + hours * HOUR_S)
    }

    fn after(known: &Known, paths: &[(&str, &str)], hours: i64) -> (Known, Vec<String>) {
        merge(known, paths.iter().copied(), at(hours))
    }

    #[test]
    fn a_path_is_gone_for_two_days_from_the_first_moment_that_it_was_missed() {
        let (known, moved) = after(&Known::default(), &[("/a", "a"), ("/b/{token}", "b")], 0);
        assert!(moved.is_empty() && removed(&known).is_empty());
        let (known, _) = after(&known, &[("/a", "a")], 5);
        assert_eq!(removed(&known), [Removed { path: PathTemplate::of("/b/{token}"), until: at(53) }]);
        let (later, _) = after(&known, &[("/a", "a")], 52);
        assert_eq!(removed(&later), removed(&known), "looking again does not make it last longer");
        assert!(removed(&after(&later, &[("/a", "a")], 53).0).is_empty());
        assert!(removed(&after(&later, &[("/a", "a"), ("/b/{token}", "b")], 52).0).is_empty(), "it is back");
        let (back, _) = after(&known, &[("/a", "a")], -100);
        assert_eq!(removed(&back)[0].until, at(-52), "nor does a clock that goes back");
    }

    #[test]
    fn a_scope_that_changes_is_named_once_even_after_the_path_was_gone() {
        let (known, _) = after(&Known::default(), &[("/a", "a"), ("/b", "b")], 0);
        let (known, moved) = after(&known, &[("/a", "x")], 1);
        assert_eq!(moved, ["/a"]);
        assert!(after(&known, &[("/a", "x")], 1).1.is_empty());
        assert_eq!(after(&known, &[("/b", "c")], 2).1, ["/b"]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let paths: Vec<_> = (0..3 * REMOVED_MAX).map(|n| (format!("/{n}"), "s")).collect();
        let all = paths.iter().map(|(path, scope)| (path.as_str(), *scope));
        let (known, _) = merge(&Known::default(), all, at(0));
        assert_eq!(after(&known, &[], 1).0.len(), REMOVED_MAX);
    }

    #[test]
    fn what_is_written_is_read_and_a_damaged_file_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("store/paths.json");
        assert_eq!(read(&file), Known::default(), "there is none yet");
        let (known, _) = after(&Known::default(), &[("/a", "a"), ("/b", "b")], 0);
        let (known, _) = after(&known, &[("/a", "a")], 1);
        write(&file, &known).expect("written");
        assert_eq!(read(&file), known);
        fs::write(&file, "{").expect("written");
        assert_eq!(read(&file), Known::default());
    }
}
