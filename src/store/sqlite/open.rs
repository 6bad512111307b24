//! Opening: the directory, the lock, the format, the settings of every connection.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use super::{
    super::{
        elapsed::{Elapsed, Stamp},
        judge::cause,
    },
    Options,
    spare::{self, Spare},
};
use crate::{config::model::Durability, time::Clock};

/// The version of the format that this program writes, in `user_version`.
const FORMAT_VERSION: i64 = 1;
/// "Hkwd": tells our file from any other SQLite database.
const APPLICATION_ID: i64 = 0x486b_7764;
/// 16 KiB: twice the throughput of 4 KiB with bodies of 2 KiB.
pub(super) const PAGE_BYTES: u64 = 16 * 1024;
/// The file of [`Spare`].
const SPARE: &str = "hookward.spare";
const SCHEMA: &str = include_str!("schema.sql");

/// Why a store was not opened. Reads after "failed to open the store: ".
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or is something else.
    #[error("{path} cannot be used as a directory; point `store.path` at a directory this user may write", path = .path.display())]
    Directory {
        /// As configured.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// Another process owns the store.
    #[error(
        "{path} is in use by another hookward{owner}; stop that one, or give this one a `store.path` of its own",
        path = .path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// ` (process 123)` where the lock file tells.
        owner: String,
    },
    /// Written by a newer program.
    #[error(
        "{path} has format version {found} and this hookward knows up to {FORMAT_VERSION}; \
         run the version that wrote it, or a newer one",
        path = .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// Some other file stands there.
    #[error("{path} is not a store of hookward; move it away, or set `store.path` to another directory", path = .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// `SQLite` said no.
    #[error("{path} cannot be opened", path = .path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
}

/// An opened store, not yet running.
pub(super) struct Opened {
    pub(super) lock: File,
    pub(super) writer: Connection,
    pub(super) lanes: Connection,
    pub(super) people: Connection,
    pub(super) elapsed: Elapsed,
    pub(super) limits: DiskLimits,
    pub(super) spare: Spare,
    /// How long the write-ahead log was after the latest commit.
    pub(super) log_pages: Arc<AtomicU64>,
    /// Numbers of deliveries are not used twice while leases of them may be around.
    pub(super) next_delivery: i64,
}

/// How `disk_bytes_max` is shared out.
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskLimits {
    /// Above this, in bytes of used pages, nothing new is stored.
    pub(super) soft_bytes: u64,
    /// The database file itself, in pages. What lies between is for settling what was accepted.
    hard_pages: u64,
    /// What the write-ahead log may leave behind, in bytes.
    log_bytes: u64,
    /// The spare file.
    spare_bytes: u64,
}

impl DiskLimits {
    fn of(disk_bytes_max: u64) -> Self {
        let log_bytes = (disk_bytes_max / 4).min(64 << 20);
        let hard_bytes = disk_bytes_max - log_bytes;
        // Never less than what tells a full disk from one with room.
        let spare_bytes = (log_bytes / 8 * 3).max(spare::BYTES_MIN);
        let reserve = (hard_bytes / 16).clamp(256 << 10, 64 << 20);
        // SQLite counts pages in 32 bits.
        let hard_pages = (hard_bytes / PAGE_BYTES).clamp(1, 0xffff_fffe);
        Self {
            soft_bytes: hard_bytes.saturating_sub(reserve),
            hard_pages,
            log_bytes: log_bytes - spare_bytes,
            spare_bytes,
        }
    }
}

pub(super) fn open(options: &Options) -> Result<Opened, OpenError> {
    let directory = &options.directory;
    make_directory(directory).map_err(|source| OpenError::Directory { path: directory.clone(), source })?;
    let lock = take_lock(directory)?;
    let path = database_path(directory);
    let limits = DiskLimits::of(options.disk_bytes_max);
    let database = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => OpenError::Foreign { path: path.clone() },
        _ => OpenError::Database { path: path.clone(), source },
    };
    let mut writer = Connection::open_with_flags(
        &path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(database)?;
    match format_of(&writer).map_err(database)? {
        Format::Ours(found) if found > FORMAT_VERSION => return Err(OpenError::Newer { path, found }),
        Format::Empty | Format::Ours(_) => {}
        Format::Foreign => return Err(OpenError::Foreign { path }),
    }
    set_up_writer(&writer, options.durability, limits).map_err(database)?;
    let mut spare = Spare::open(directory.join(SPARE), limits.spare_bytes)
        .map_err(|source| OpenError::Directory { path: directory.clone(), source })?;
    let saved = with_spare(&mut writer, &mut spare, |writer| prepare(writer, &options.clock)).map_err(database)?;
    let elapsed = Elapsed::resume(options.clock.clone(), saved);
    let next_delivery =
        with_spare(&mut writer, &mut spare, |writer| restart(writer, elapsed.stamp())).map_err(database)?;
    let log_pages = watch_log(&mut writer).map_err(database)?;
    let lanes = open_reader(&path).map_err(database)?;
    let people = open_reader(&path).map_err(database)?;
    sync_directory(directory).map_err(|source| OpenError::Directory { path: directory.clone(), source })?;
    Ok(Opened { lock, writer, lanes, people, elapsed, limits, spare, log_pages, next_delivery })
}

pub(super) fn database_path(directory: &Path) -> PathBuf {
    directory.join("hookward.db")
}

/// Bytes of all files of the store.
pub(super) fn files_bytes(directory: &Path) -> u64 {
    ["hookward.db", "hookward.db-wal", "hookward.db-shm", SPARE]
        .iter()
        .filter_map(|name| fs::metadata(directory.join(name)).ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// Bodies may be confidential: only this user reads them.
fn make_directory(directory: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// The entry of a new database in its directory has to survive a power cut as well.
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

fn take_lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join("hookward.lock");
    let failed = |source| OpenError::Directory { path: directory.to_owned(), source };
    let mut lock = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = (&lock).take(20).read_to_string(&mut text);
            let pid = text.trim().parse::<u32>();
            let owner = pid.map_or_else(|_| String::new(), |pid| format!(" (process {pid})"));
            return Err(OpenError::InUse { path: directory.to_owned(), owner });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // The number is for the message above only; the lock is what counts.
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(lock)
}

enum Format {
    Empty,
    Ours(i64),
    Foreign,
}

fn format_of(connection: &Connection) -> rusqlite::Result<Format> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application, tables) {
        (APPLICATION_ID, _) => Format::Ours(version),
        (0, 0) if version == 0 => Format::Empty,
        _ => Format::Foreign,
    })
}

fn set_up_writer(connection: &Connection, durability: Durability, limits: DiskLimits) -> rusqlite::Result<()> {
    // These two take effect before the first table only.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL syncs the log at every commit. NORMAL syncs at checkpoints only: what a crash of the process leaves to
    // the operating system is kept, a power cut may take the last commits but never breaks the file, as OFF could.
    let synchronous = match durability {
        Durability::Fsync => "FULL",
        Durability::Os => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "journal_size_limit", limits.log_bytes)?;
    // SQLite would not tell of a failure; see `checkpoint`.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "max_page_count", limits.hard_pages)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // In KiB, as it is negative.
    connection.pragma_update(None, "cache_size", -32 * 1024)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // An I/O error behind a memory map is a signal, not an error code.
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    stable_plans(connection)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(())
}

/// A plan does not depend on the values that are bound: else a range in a query, as in what is due, has it prepared
/// anew for each execution.
fn stable_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// Writes what is in the log into the database file, as far as no reader is in the way, and syncs that file, so that
/// the log may begin anew. A failed sync has to be known: the next one succeeds although nothing was written, and
/// with the log the only copy would be gone.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    match connection.wal_checkpoint_v2(None::<&str>, rusqlite::wal::CheckpointMode::PASSIVE) {
        // The log stays, and becomes longer.
        Err(error) if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DiskFull)) => {
            Ok(())
        }
        other => other.map(drop),
    }
}

fn watch_log(connection: &mut Connection) -> rusqlite::Result<Arc<AtomicU64>> {
    let pages = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&pages);
    connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
        seen.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }))?;
    Ok(pages)
}

/// A full disk is no reason not to start: what was accepted before is delivered.
fn with_spare<T>(
    writer: &mut Connection,
    spare: &mut Spare,
    run: impl Fn(&mut Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    match run(writer) {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) && spare.is_there() => {
            spare.release();
            checkpoint(writer)?;
            run(writer)
        }
        other => other,
    }
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.pragma_update(None, "cache_size", -4 * 1024)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    stable_plans(&connection)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Makes the tables of a new store. Returns the clock as it was saved last.
fn prepare(connection: &mut Connection, clock: &Clock) -> rusqlite::Result<Option<Stamp>> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let saved = if version == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", FORMAT_VERSION)?;
        // With the tables, because whoever finds tables relies on it: the process may end before the next commit.
        save_clock(&transaction, Stamp { elapsed_ms: 0, wall_ms: clock.wall().unix_ms() })?;
        None
    } else {
        let stamp = transaction.query_row("SELECT elapsed_ms, wall_ms FROM clock", [], |row| {
            Ok(Stamp { elapsed_ms: row.get(0)?, wall_ms: row.get(1)? })
        })?;
        Some(stamp)
    };
    transaction.commit()?;
    Ok(saved)
}

pub(super) const RESTART: &str = "UPDATE deliveries SET state = 'due', due_at = ?1, cause = ?2, fence = fence + 1
     WHERE state = 'leased' AND state IN ('due', 'leased')";

/// The workers of the last process are gone: what they had is due. Returns the first free number of a delivery.
fn restart(connection: &mut Connection, now: Stamp) -> rusqlite::Result<i64> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    save_clock(&transaction, now)?;
    transaction.execute(RESTART, (now.elapsed_ms, cause::RESTART))?;
    let next = transaction.query_row("SELECT coalesce(max(id), 0) + 1 FROM deliveries", [], |row| row.get(0))?;
    transaction.commit()?;
    Ok(next)
}

pub(super) fn save_clock(connection: &Connection, now: Stamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO clock VALUES (1, ?1, ?2)")?
        .execute((now.elapsed_ms, now.wall_ms))
        .map(drop)
}
