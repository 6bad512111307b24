//! A backup: the pages of one snapshot in a file that appears under its name only when it is whole and on disk.
//!
//! Pages are copied rather than rows (`VACUUM INTO`), because that holds the log of a running gateway for half
//! the time (0.3 s for 317 MB, against 0.6 s): no index is built. Free pages are copied with the others.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::Connection;

use super::{
    super::open::{LOCK, SPARE},
    Partial, Progress, Report, Source, ToolError, log_of, verify, with_suffix,
};
use crate::time::Clock;

/// What to back up, and how.
#[derive(Clone, Debug)]
pub struct BackUp {
    /// A directory of a store, or its file.
    pub from: PathBuf,
    /// The file to be made.
    pub to: PathBuf,
    /// Whether it may take the place of a file.
    pub overwrite: bool,
    /// Whether the copy is verified before it gets its name.
    pub verify: bool,
    /// For how long it took.
    pub clock: Clock,
}

/// What a backup became.
#[derive(Clone, Debug)]
pub struct BackedUp {
    /// The file that was copied.
    pub from: PathBuf,
    /// Of the copy.
    pub bytes: u64,
    /// In it.
    pub events: u64,
    /// The ids of the keys without which some of the bodies cannot be read.
    pub keys: Vec<String>,
    /// All of it.
    pub took: Duration,
    /// How long the log of a running gateway could not begin anew.
    pub log_held: Duration,
}

impl BackUp {
    /// Does it.
    pub fn run(&self, progress: Progress<'_>) -> Result<BackedUp, ToolError> {
        let began = self.clock.monotonic();
        self.check_target()?;
        let source = Source::open(&self.from)?;
        if same_file(&source.path, &self.to) || is_beside(&source.path, &self.to) {
            let advice = "it is the store itself, or a file of it: name another file with --to";
            return Err(ToolError::Occupied { path: self.to.clone(), advice });
        }
        let partial = Partial::of(&self.to)?;
        source.copy(&partial.path, progress)?;
        let from = source.path.clone();
        drop(source);
        let log_held = began.elapsed();
        partial.sync()?;
        if self.verify {
            let report = verify(&partial.path, progress)?;
            if !report.is_whole() {
                let advice = "so is the store that it was copied from, and no backup was made: see `hookward store verify -c FILE`; \
                              with --no-verify it is kept as it is";
                return Err(ToolError::Damaged { report: Box::new(Report { path: from, ..report }), advice });
            }
        }
        let (bytes, events, keys) = about(&partial.path)?;
        self.check_target()?;
        partial.rename(&self.to)?;
        Ok(BackedUp { from, bytes, events, keys, took: began.elapsed(), log_held })
    }

    fn check_target(&self) -> Result<(), ToolError> {
        let occupied = |path: &Path, advice| Err(ToolError::Occupied { path: path.to_owned(), advice });
        if self.to.is_dir() {
            return occupied(&self.to, "it is a directory: name a file");
        }
        // A link that leads nowhere is there, too.
        if self.to.symlink_metadata().is_ok() && !self.overwrite {
            return occupied(&self.to, "name another file, or replace it with --force");
        }
        // SQLite would apply it to whatever has the name of its database.
        let log = log_of(&self.to);
        if log.exists() {
            return occupied(&log, "it is the log of another database: name another file, or move it away");
        }
        Ok(())
    }
}

pub(super) fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Whether a file is, or would be, one of those that the engine has beside its database.
fn is_beside(database: &Path, other: &Path) -> bool {
    let [Some(directory), Some(of_other)] =
        [database, other].map(|path| std::path::absolute(path).ok()?.parent()?.canonicalize().ok())
    else {
        return false;
    };
    let names = [log_of(database), with_suffix(database, "-shm"), directory.join(LOCK), directory.join(SPARE)];
    directory == of_other && names.iter().any(|name| name.file_name() == other.file_name())
}

/// Bytes, events, keys.
fn about(path: &Path) -> Result<(u64, u64, Vec<String>), ToolError> {
    let bytes = std::fs::metadata(path).map_err(ToolError::file(path))?.len();
    let count = |connection: &Connection| -> rusqlite::Result<(u64, Vec<String>)> {
        let events = connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
        let mut keys = connection.prepare(
            "SELECT body_key FROM events WHERE body_key IS NOT NULL AND body_seal IS NOT NULL
             UNION SELECT body_key FROM answers WHERE body_key IS NOT NULL ORDER BY 1",
        )?;
        Ok((events, keys.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?))
    };
    let (events, keys) = count(&Source::open(path)?.connection).map_err(ToolError::database(path))?;
    Ok((bytes, events, keys))
}
