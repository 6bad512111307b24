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
        judge::share_bytes_max,
    },
    Options,
    format::{self, APPLICATION_ID, FORMAT_VERSION, Fault},
    restart::{self, Found},
    seal,
    spare::{self, Spare},
};
use crate::{config::model::Durability, files::make_directory};

/// 16 KiB: twice the throughput of 4 KiB with bodies of 2 KiB.
pub(super) const PAGE_BYTES: u64 = 16 * 1024;
/// Whoever has this file locked owns the store.
pub(super) const LOCK: &str = "hookward.lock";
/// The file of [`Spare`].
pub(super) const SPARE: &str = "hookward.spare";

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
    #[error(
        "{path} is not a store of hookward, or one whose first page is damaged; move it away and restore a backup \
         with `hookward store restore BACKUP -c FILE --force`, or set `store.path` to another directory",
        path = .path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is a store, but not as it was written.
    #[error(
        "{path} is damaged: {what}; run `hookward store verify -c FILE` to see how far, and restore a backup with \
         `hookward store restore BACKUP -c FILE --force`",
        path = .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// Not even the few bytes that opening takes are there.
    #[error("the disk of {path} is full; free at least 1MiB on it", path = .0.display())]
    Full(PathBuf),
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
    pub(super) lists: Connection,
    pub(super) elapsed: Elapsed,
    pub(super) limits: DiskLimits,
    pub(super) spare: Spare,
    /// How long the write-ahead log was after the latest commit.
    pub(super) log_pages: Arc<AtomicU64>,
    pub(super) found: Found,
}

/// How `disk_bytes_max` is shared out.
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskLimits {
    /// All files together.
    pub(super) bytes_max: u64,
    /// Above this, in bytes of used pages, nothing new is stored.
    pub(super) soft_bytes: u64,
    /// The database file itself, in pages. What lies between is for settling what was accepted.
    hard_pages: u64,
    /// What the write-ahead log may leave behind, in bytes.
    log_bytes: u64,
    /// The spare file.
    spare_bytes: u64,
    /// What undelivered events and dead letters of one upstream may take.
    pub(super) share_bytes_max: u64,
}

impl DiskLimits {
    fn of(disk_bytes_max: u64, share: f64) -> Self {
        let log_bytes = (disk_bytes_max / 4).min(64 << 20);
        let hard_bytes = disk_bytes_max - log_bytes;
        // Never less than what tells a full disk from one with room.
        let spare_bytes = (log_bytes / 8 * 3).max(spare::BYTES_MIN);
        let reserve = (hard_bytes / 16).clamp(256 << 10, 64 << 20);
        // SQLite counts pages in 32 bits.
        let hard_pages = (hard_bytes / PAGE_BYTES).clamp(1, 0xffff_fffe);
        Self {
            bytes_max: disk_bytes_max,
            soft_bytes: hard_bytes.saturating_sub(reserve),
            hard_pages,
            log_bytes: log_bytes - spare_bytes,
            spare_bytes,
            share_bytes_max: share_bytes_max(share, disk_bytes_max),
        }
    }
}

pub(super) fn open(options: &Options) -> Result<Opened, OpenError> {
    let spare = options.directory.join(SPARE);
    match open_once(options) {
        // Not all that SQLite calls it is as plain as `DiskFull`: the index of the log has an I/O error of its own.
        Err(OpenError::Database { path, .. }) if spare::finds_no_room(&spare) => {
            // What was accepted has to be delivered on a full disk too: the spare file is there for that.
            if std::fs::remove_file(&spare).is_err() {
                return Err(OpenError::Full(path));
            }
            tracing::error!("the disk is full: the store is opened in the room of its spare file");
            open_once(options)
        }
        opened => opened,
    }
}

fn open_once(options: &Options) -> Result<Opened, OpenError> {
    let directory = &options.directory;
    // Bodies may be confidential.
    make_directory(directory).map_err(|source| OpenError::Directory { path: directory.clone(), source })?;
    let lock = take_lock(directory)?;
    let path = database_path(directory);
    let limits = DiskLimits::of(options.disk_bytes_max, options.disk_share_max);
    let database = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::Foreign { path: path.clone() },
        // A value that cannot be read, a page or a statement that cannot be: none of it was written by us.
        None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::Unknown) => {
            OpenError::Damaged { path: path.clone(), what: source.to_string() }
        }
        _ => OpenError::Database { path: path.clone(), source },
    };
    let failed = |fault: Fault| match fault {
        Fault::Sqlite(source) => database(source),
        Fault::Damaged(what) => OpenError::Damaged { path: path.clone(), what },
    };
    make_private(&path);
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
    set_up_writer(&writer, options.durability).map_err(database)?;
    writer.pragma_update(None, "journal_size_limit", limits.log_bytes).map_err(database)?;
    let mut spare = Spare::open(directory.join(SPARE), limits.spare_bytes)
        .map_err(|source| OpenError::Directory { path: directory.clone(), source })?;
    let now = Stamp { elapsed_ms: 0, wall_ms: options.clock.wall().unix_ms() };
    let saved = with_spare(&mut writer, &mut spare, |writer| format::prepare(writer, now)).map_err(failed)?;
    let elapsed = Elapsed::resume(options.clock.clone(), Some(saved.stamp));
    let found =
        with_spare(&mut writer, &mut spare, |writer| restart::restart(writer, elapsed.stamp(), saved.restored_ns))
            .map_err(failed)?;
    // Not before: a migration needs room for both formats at once.
    writer.pragma_update(None, "max_page_count", limits.hard_pages).map_err(database)?;
    let log_pages = watch_log(&mut writer).map_err(database)?;
    let lanes = open_reader(&path).map_err(database)?;
    let people = open_reader(&path).map_err(database)?;
    let lists = open_reader(&path).map_err(database)?;
    sync_directory(directory).map_err(|source| OpenError::Directory { path: directory.clone(), source })?;
    Ok(Opened { lock, writer, lanes, people, lists, elapsed, limits, spare, log_pages, found })
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

/// A new database that only this user reads, whoever made the directory and whatever the umask. SQLite gives its log
/// the mode of the database. One that cannot be made is told of when it is opened.
fn make_private(path: &Path) {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    drop(options.open(path));
}

/// The entry of a new database in its directory has to survive a power cut as well.
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

pub(super) fn take_lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK);
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

fn set_up_writer(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    // These two take effect before the first table only.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    write_ahead(connection)?;
    // FULL syncs the log at every commit. NORMAL syncs at checkpoints only: what a crash of the process leaves to
    // the operating system is kept, a power cut may take the last commits but never breaks the file, as OFF could.
    let synchronous = match durability {
        Durability::Fsync => "FULL",
        Durability::Os => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    // SQLite would not tell of a failure; see `checkpoint`.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // In KiB, as it is negative.
    connection.pragma_update(None, "cache_size", -32 * 1024)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // An I/O error behind a memory map is a signal, not an error code.
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    stable_plans(connection)?;
    seal::install(connection)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(())
}

/// SQLite answers with the new mode and then commits it. Whoever reads the answer alone misses that this failed, and
/// goes on with a rollback journal, behind the back of everything here that looks after the log.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA journal_mode = WAL")?;
    let answers: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if answers == ["wal"] {
        return Ok(());
    }
    let why = format!("its journal mode is {answers:?} and cannot be made wal");
    Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN), Some(why)))
}

/// A plan does not depend on the values that are bound: else a range in a query, as in what is due, has it prepared
/// anew for each execution.
fn stable_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// Writes what is in the log into the database file, as far as no reader is in the way, and syncs that file, so that
/// the log may begin anew. A failed sync has to be known: the next one succeeds although nothing was written, and
/// with the log the only copy would be gone. Returns whether all of it was moved.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<bool> {
    match connection.wal_checkpoint_v2(None::<&str>, rusqlite::wal::CheckpointMode::PASSIVE) {
        // The log stays, and becomes longer.
        Err(error) if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DiskFull)) => {
            Ok(false)
        }
        other => other.map(|(in_log, moved)| in_log >= 0 && in_log == moved),
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
    run: impl Fn(&mut Connection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    match run(writer) {
        Err(Fault::Sqlite(error)) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) && spare.is_there() => {
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
