//! What is done to a store from outside: verify, back up, restore.
//!
//! All three read one snapshot through a connection that cannot write, so they work beside a gateway that runs, and
//! on a backup. A snapshot keeps the write-ahead log from beginning anew, so that it grows by what is written
//! meanwhile: a backup lets go of it once the pages are copied, before it syncs and verifies the copy.
//!
//! * `verify`: every page, every seal, and whether the tables agree with each other.
//! * `log`: whether the end of a write-ahead log can be read.
//! * `backup`: a copy that appears whole or not at all.
//! * `restore`: a copy becomes the store, with its open deliveries held.

mod backup;
mod log;
mod restore;
mod verify;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, backup::StepResult};

pub use backup::{BackUp, BackedUp};
pub use restore::{Restore, Restored};
pub use verify::{Checked, Damage, Report, verify};

use super::{
    OpenError,
    format::{APPLICATION_ID, FORMAT_VERSION},
    open::{LOCK, database_path},
};

/// Pages between two looks at how far a copy got: 4 MiB.
const PAGES_PER_STEP: i32 = 256;

/// Why a tool did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Nothing is there.
    #[error("there is no store at {path}", path = .0.display())]
    Missing(PathBuf),
    /// Some other file, or one of which even the header is damaged.
    #[error("{path} is not a store of hookward, or its header is damaged; if it was one, restore a backup with `hookward store restore BACKUP -c FILE --force`", path = .0.display())]
    Foreign(PathBuf),
    /// Of another version.
    #[error("{path} has format version {found} and this hookward reads {FORMAT_VERSION}; {advice}", path = .path.display(),
        advice = if *.found < FORMAT_VERSION { "start the gateway with it once, which brings it up to date" } else { "use the version that wrote it, or a newer one" })]
    Format {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// So damaged that it cannot be looked into.
    #[error("{path} is damaged and cannot be read ({source}); restore a backup with `hookward store restore BACKUP -c FILE --force`", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// `SQLite` said no.
    #[error("{path} cannot be used", path = .path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The operating system said no.
    #[error("{path} cannot be used", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// Something stands where the result should be.
    #[error("{path} is there already; {advice}", path = .path.display())]
    Occupied {
        /// The file.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// The copy is not what it should be.
    #[error("{path} is damaged; {advice}", path = .report.path.display())]
    Damaged {
        /// What is wrong with it.
        report: Box<Report>,
        /// What to do.
        advice: &'static str,
    },
    /// The directory of a store cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl ToolError {
    fn file(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::File { path: path.to_owned(), source }
    }

    fn database(path: &Path) -> impl Fn(rusqlite::Error) -> Self + '_ {
        move |source| match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign(path.to_owned()),
            Some(ErrorCode::DatabaseCorrupt) => Self::Unreadable { path: path.to_owned(), source },
            _ => Self::Database { path: path.to_owned(), source },
        }
    }
}

/// How far a tool got, in pages or rows of how many.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// The database file that is meant by a directory or a file.
pub fn file_of(place: &Path) -> PathBuf {
    if place.is_dir() { database_path(place) } else { place.to_owned() }
}

/// A store or a copy of one, with a snapshot of it open.
struct Source {
    path: PathBuf,
    connection: Connection,
}

impl Source {
    fn open(place: &Path) -> Result<Self, ToolError> {
        let path = file_of(place);
        if !path.is_file() {
            return Err(ToolError::Missing(path));
        }
        let connection = connect(&path).map_err(ToolError::database(&path))?;
        let format = || -> rusqlite::Result<(i64, i64)> {
            connection.pragma_update(None, "cell_size_check", true)?;
            connection.pragma_update(None, "trusted_schema", false)?;
            connection.pragma_update(None, "mmap_size", 0)?;
            connection.busy_timeout(std::time::Duration::from_secs(5))?;
            // The first read fixes the snapshot.
            connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
            let application = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
            Ok((application, connection.pragma_query_value(None, "user_version", |row| row.get(0))?))
        };
        match format().map_err(ToolError::database(&path))? {
            (APPLICATION_ID, FORMAT_VERSION) => Ok(Self { path, connection }),
            (APPLICATION_ID, found) => Err(ToolError::Format { path, found }),
            _ => Err(ToolError::Foreign(path)),
        }
    }

    /// Copies the snapshot to a file, page by page. The file is not synced.
    fn copy(&self, to: &Path, progress: Progress<'_>) -> Result<(), ToolError> {
        let mut copy_pages = || -> rusqlite::Result<()> {
            let mut copy =
                Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            // What is not whole is thrown away, so there is nothing to roll back, and one sync at the end is enough.
            copy.pragma_update(None, "journal_mode", "OFF")?;
            copy.pragma_update(None, "synchronous", "OFF")?;
            let backup = rusqlite::backup::Backup::new(&self.connection, &mut copy)?;
            loop {
                let step = backup.step(PAGES_PER_STEP)?;
                let pages = |pages| u64::try_from(pages).unwrap_or(0);
                let (all, left) = (pages(backup.progress().pagecount), pages(backup.progress().remaining));
                progress(all - left.min(all), all);
                match step {
                    StepResult::Done => return Ok(()),
                    StepResult::More => {}
                    // Both files are held: the one by its snapshot, the other is nobody's yet.
                    _ => {
                        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
                        return Err(rusqlite::Error::SqliteFailure(busy, None));
                    }
                }
            }
        };
        copy_pages().map_err(ToolError::database(to))
    }
}

/// A connection that cannot write. A file that stands alone is read as it is, without the lock and log files that
/// SQLite would make beside it; the file of a directory that a gateway may use, and one with a log, is shared.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let beside = |name: &str| path.parent().is_some_and(|directory| directory.join(name).exists());
    let may_run = path.file_name() == database_path(Path::new("")).file_name() && beside(LOCK);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if may_run || log_of(path).exists() {
        return Connection::open_with_flags(path, flags);
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let name = percent_encoding::percent_encode(absolute.as_os_str().as_encoded_bytes(), URI);
    Connection::open_with_flags(format!("file:{name}?immutable=1"), flags | OpenFlags::SQLITE_OPEN_URI)
}

/// What a path in a URI says otherwise.
const URI: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ');

/// The write-ahead log of a database file.
fn log_of(database: &Path) -> PathBuf {
    with_suffix(database, "-wal")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A new file that only this user may read. It is removed again unless it is given its final name.
struct Partial {
    path: PathBuf,
    /// Locked, so that another that writes the same one is told apart from one that was interrupted.
    file: fs::File,
    is_done: bool,
}

impl Partial {
    /// `PATH.partial`. What an interrupted one left there is removed.
    fn of(target: &Path) -> Result<Self, ToolError> {
        let path = with_suffix(target, ".partial");
        let busy = || ToolError::Occupied { path: path.clone(), advice: "somebody is writing it now" };
        let failed = ToolError::file(&path);
        let mut options = fs::File::options();
        options.read(true).write(true);
        // Held until the new one is locked.
        let _left_over = match options.open(&path) {
            Ok(left_over) => {
                left_over.try_lock().map_err(|_| busy())?;
                fs::remove_file(&path).map_err(&failed)?;
                Some(left_over)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.create_new(true).open(&path).map_err(&failed)?;
        file.try_lock().map_err(|_| busy())?;
        drop(failed);
        Ok(Self { path, file, is_done: false })
    }

    fn sync(&self) -> Result<(), ToolError> {
        self.file.sync_all().map_err(ToolError::file(&self.path))
    }

    /// Gives it its final name, in place of what has it, and makes that durable.
    fn rename(mut self, target: &Path) -> Result<(), ToolError> {
        fs::rename(&self.path, target).map_err(ToolError::file(target))?;
        self.is_done = true;
        sync_directory_of(target)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn sync_directory_of(path: &Path) -> Result<(), ToolError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(ToolError::file(directory))
}
