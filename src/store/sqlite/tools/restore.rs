//! A backup becomes the store of a directory.
//!
//! What was open when the backup was made may have been delivered after it, so nothing of it goes out by itself: it is
//! held, and marked as uncertain. What the directory had before is moved aside, never removed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, params};

use super::{
    super::{
        open::{database_path, take_lock},
        seal::{self, CLOCK, DELIVERIES, OPERATIONS},
    },
    OpenError, Partial, Progress, Source, ToolError,
    backup::same_file,
    log_of, sync_directory_of, verify, with_suffix,
};
use crate::{files::make_directory, time::Wall};

/// Why deliveries of a restored store are held, and its operations stopped.
const REASON: &str = "restored from a backup";

/// What to restore, and where.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The backup.
    pub from: PathBuf,
    /// The directory of the store; made if it is not there.
    pub directory: PathBuf,
    /// Whether a store that is there is moved aside.
    pub replace: bool,
    /// Whether a damaged backup is better than none.
    pub accept_damage: bool,
    /// Kept in the store: what was signed before may have been accepted already.
    pub now: Wall,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The file of the store.
    pub path: PathBuf,
    /// Events in it.
    pub events: u64,
    /// Deliveries that wait to be released.
    pub held: u64,
    /// Where the store is that was there before.
    pub aside: Option<PathBuf>,
    /// How much of it is damaged.
    pub damaged: u64,
}

impl Restore {
    /// Does it.
    pub fn run(&self, progress: Progress<'_>) -> Result<Restored, ToolError> {
        let report = verify(&self.from, progress)?;
        let damaged = report.checked.iter().map(|checked| checked.damaged).sum();
        if damaged > 0 && !self.accept_damage {
            let advice = "use another backup, or restore what is left of it with --accept-damage";
            return Err(ToolError::Damaged { report: Box::new(report), advice });
        }
        let directory = &self.directory;
        make_directory(directory).map_err(|source| OpenError::Directory { path: directory.clone(), source })?;
        let _lock = take_lock(directory)?;
        let path = database_path(directory);
        if same_file(&report.path, &path) {
            return Err(ToolError::Occupied { path, advice: "it is the store itself: name a backup of it" });
        }
        let is_occupied = path.exists() || log_of(&path).exists();
        if is_occupied && !self.replace {
            return Err(ToolError::Occupied { path, advice: "--force moves it aside and restores the backup" });
        }
        let partial = Partial::of(&path)?;
        Source::open(&self.from)?.copy(&partial.path, progress)?;
        let (events, held) = settle_down(&partial.path, self.now).map_err(ToolError::database(&report.path))?;
        partial.sync()?;
        let aside = if is_occupied { Some(move_aside(&path, self.now)?) } else { None };
        partial.rename(&path)?;
        Ok(Restored { path, events, held, aside, damaged })
    }
}

/// What is different in a store that was restored. Returns its events, and how many deliveries are held for it.
fn settle_down(path: &Path, now: Wall) -> rusqlite::Result<(u64, u64)> {
    let mut connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // A copy that is not finished is thrown away.
    connection.pragma_update(None, "journal_mode", "MEMORY")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    seal::install(&connection)?;
    let transaction = connection.transaction()?;
    let elapsed_ms = set_clock(&transaction, now)?;
    // Nobody waits for a turn in a queue that nobody is in.
    let hold = DELIVERIES.update(
        &[("state", "'held'"), ("reason", "?1"), ("due_at", "?2"), ("fence", "fence + 1"), ("uncertain", "1")],
        "state IN ('due', 'leased')",
    );
    let held = transaction.execute(&hold, params![REASON, elapsed_ms])?;
    let stop =
        OPERATIONS.update(&[("state", "'stopped'"), ("reason", "?1"), ("changed_ns", "?2")], "state = 'running'");
    transaction.execute(&stop, params![REASON, now.unix_ns()])?;
    transaction.execute_batch(
        "DELETE FROM counts;
         INSERT INTO counts SELECT upstream, state, n, bytes, seal(upstream, state, n, bytes) FROM
           (SELECT upstream, state, count(*) AS n, sum(bytes) AS bytes FROM deliveries GROUP BY upstream, state);
         DELETE FROM totals;
         INSERT INTO totals SELECT what, n, seal(what, n) FROM
           (SELECT 'events' AS what, count(*) AS n FROM events UNION ALL SELECT 'keys', count(*) FROM keys
            UNION ALL SELECT 'unrouted', count(*) FROM events WHERE unrouted = 1);",
    )?;
    let events = transaction.query_row("SELECT n FROM totals WHERE what = 'events'", [], |row| row.get(0))?;
    transaction.commit()?;
    Ok((events, held as u64))
}

/// Says that the store was restored. A damaged clock begins anew at the latest time that the store has seen: then keys
/// live longer than they should, and none shorter. Returns the elapsed time.
fn set_clock(connection: &Connection, now: Wall) -> rusqlite::Result<i64> {
    let mut clock =
        connection.prepare(&format!("SELECT {}, seal FROM clock WHERE one = 1", CLOCK.columns.join(", ")))?;
    let mut rows = clock.query([])?;
    let saved = match rows.next()? {
        Some(row) if CLOCK.is_whole(row, 0)? => Some((row.get(1)?, row.get(2)?)),
        _ => None,
    };
    let (elapsed_ms, wall_ms) = match saved {
        Some(saved) => saved,
        None => (latest(connection)?, now.unix_ms()),
    };
    connection.execute(
        "INSERT OR REPLACE INTO clock VALUES (1, ?1, ?2, ?3, seal(1, ?1, ?2, ?3))",
        params![elapsed_ms, wall_ms, now.unix_ns()],
    )?;
    Ok(elapsed_ms)
}

/// When the latest delivery was armed, of those that are whole.
fn latest(connection: &Connection) -> rusqlite::Result<i64> {
    let mut deliveries =
        connection.prepare(&format!("SELECT {}, seal FROM deliveries", DELIVERIES.columns.join(", ")))?;
    let (mut rows, mut latest) = (deliveries.query([])?, 0);
    while let Some(row) = rows.next()? {
        if DELIVERIES.is_whole(row, 0)? {
            latest = latest.max(row.get(DELIVERIES.place("armed_at"))?);
        }
    }
    Ok(latest)
}

/// Gives the store another name, with its log, which holds its last commits. At no moment is there a database under
/// either name without its log.
fn move_aside(path: &Path, now: Wall) -> Result<PathBuf, ToolError> {
    let aside = free_name(path, now);
    let log = log_of(path);
    let aside_log = log_of(&aside);
    if log.exists() {
        fs::hard_link(&log, &aside_log)
            .or_else(|_| fs::copy(&log, &aside_log).and_then(|_| fs::File::open(&aside_log)?.sync_all()))
            .map_err(ToolError::file(&aside_log))?;
    }
    absent_is_fine(fs::rename(path, &aside)).map_err(ToolError::file(path))?;
    sync_directory_of(path)?;
    for gone in [log, with_suffix(path, "-shm")] {
        absent_is_fine(fs::remove_file(&gone)).map_err(ToolError::file(&gone))?;
    }
    sync_directory_of(path)?;
    Ok(aside)
}

/// `hookward.db.replaced-2026-11-21T080000Z`, with a number if that is taken.
fn free_name(path: &Path, now: Wall) -> PathBuf {
    let time: String = now.rfc3339().chars().take(19).filter(|c| *c != ':').collect();
    let name = |n: u32| {
        let more = if n == 0 { String::new() } else { format!("-{n}") };
        with_suffix(path, &format!(".replaced-{time}Z{more}"))
    };
    (0..u32::MAX).map(name).find(|name| !name.exists() && !log_of(name).exists()).expect("a name is free")
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}
