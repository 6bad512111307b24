//! The writer: one thread that owns the connection which writes, and commits in groups.
//!
//! It takes what has arrived, applies it in one transaction, commits, and answers. While a commit waits for the
//! disk the next group gathers, so the size of a group follows the load and nothing ever waits for a timer. Only
//! jobs that need no durability (`Job::durable` false) may leave the transaction open, for at most [`LAZY_MAX`].
//!
//! A refusal (`NotFound`, `LeaseLost`, over the soft limit) concerns one job: it is decided before that job's first
//! write, so the others of the group are not touched. A fault concerns the group: it is rolled back. After a fault
//! that may have lost writes the store is poisoned and no further job is applied.

use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, InterruptHandle, config::DbConfig, ffi};
use tokio::time::Instant;

use super::{
    super::{StoreError, elapsed::Stamp},
    books::Books,
    damage::{is_index_differing, reindex},
    desk::Desk,
    job::{Job, Message, Shared},
    open::{PAGE_BYTES, checkpoint},
    restart::save_clock,
};

/// Jobs of one transaction.
const GROUP_MAX: usize = 512;
/// Bytes of bodies after which a transaction takes no more jobs.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// How long a transaction of jobs that need no durability may stay open.
const LAZY_MAX: Duration = Duration::from_millis(80);
/// How often the clock is saved, at most.
const CLOCK_SAVED_EVERY_MS: i64 = 1000;

/// How long history is removed from a full disk while others wait, and how long they come first after it.
const RELIEF_MAX: Duration = Duration::from_secs(1);
const RELIEF_EVERY: Duration = Duration::from_secs(2);

/// How often indexes are built anew for one that does not fit its table, before something else must be wrong.
const REINDEXES_MAX: u32 = 8;

/// The state of the thread.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) inbox: Receiver<Message>,
    pub(super) shared: Arc<Shared>,
    pub(super) books: Books,
    pub(super) clock_saved_at_ms: i64,
    pub(super) last: Stamp,
    /// Until when the open transaction has to be committed, if one is open.
    pub(super) lazy_until: Option<Instant>,
    /// How long the write-ahead log was after the latest commit.
    pub(super) log_pages: Arc<AtomicU64>,
    /// Ends a long list.
    pub(super) interrupt: InterruptHandle,
    pub(super) reindexed: u32,
    /// When history may be removed from a full disk again.
    pub(super) relieve_at: Instant,
    /// Released last.
    pub(super) lock: File,
}

/// Says so if the thread ends by a panic: callers must not wait for ever, nor trust what follows.
struct PanicPoisons(Arc<Shared>);

impl Drop for PanicPoisons {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison("its writer panicked".to_owned());
        }
        self.0.closed.store(true, Ordering::Release);
        self.0.got_on.notify_waiters();
    }
}

impl Writer {
    pub(super) fn run(mut self) {
        let _guard = PanicPoisons(Arc::clone(&self.shared));
        let mut closing = None;
        while closing.is_none() {
            let Some(first) = self.next() else { break };
            let mut group = Vec::new();
            let (mut bytes, mut message) = (0, Some(first));
            while let Some(next) = message.take() {
                match next {
                    Message::Job(mut job) => {
                        job.place = None;
                        bytes += job.body_bytes;
                        group.push(job);
                    }
                    Message::Close(done) => {
                        closing = Some(done);
                        break;
                    }
                }
                if group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
                    message = self.inbox.try_recv().ok();
                }
            }
            self.group(group);
            self.tend_log();
            self.shared.got_on.notify_waiters();
        }
        self.close();
        if let Some(done) = closing {
            let _ = done.send(());
        }
    }

    /// The next message; commits an open transaction whose time is over. `None` when no handle is left.
    fn next(&mut self) -> Option<Message> {
        loop {
            let Some(until) = self.lazy_until else { return self.inbox.recv().ok() };
            match self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.commit() {
                        tracing::warn!(%error, "failed to record bookkeeping of the store");
                    }
                }
            }
        }
    }

    fn group(&mut self, mut group: Vec<Job>) {
        if group.is_empty() {
            return;
        }
        let mut outcome = self.shared.poisoned.get().map_or(Ok(()), |why| Err(StoreError::Poisoned(why.clone())));
        if outcome.is_ok() {
            outcome = self.apply(&mut group);
        }
        for job in group {
            job.work.finish(outcome.clone());
        }
    }

    /// Applies a group and, unless nothing in it needs that, makes it durable. If that shows that the disk is full,
    /// history goes first, and then the group has its second chance.
    fn apply(&mut self, group: &mut [Job]) -> Result<(), StoreError> {
        let wants_room = group.iter().any(|job| job.body_bytes > 0);
        if wants_room && !self.books.spare.is_there() && Instant::now() >= self.relieve_at {
            if !self.connection.is_autocommit() {
                self.commit()?;
            }
            self.relieve()?;
        }
        match self.apply_once(group) {
            Err(StoreError::Full(_)) => {
                self.relieve()?;
                self.apply_once(group)
            }
            other => other,
        }
    }

    /// Removes history from a full disk, the oldest first, until the spare file fits on it again, for as long as
    /// whoever waits may be kept waiting. What is left of it is left to the next one, or to the sweep.
    fn relieve(&mut self) -> Result<(), StoreError> {
        let (until, mut gave_back) = (Instant::now() + RELIEF_MAX, 0);
        loop {
            let (goes_on, bytes) = match self.relieve_a_little() {
                Ok(done) => done,
                // Not even for that is there room in the log.
                Err(StoreError::Full(_)) => break,
                Err(other) => return Err(other),
            };
            gave_back += bytes;
            let is_over = !goes_on || Instant::now() >= until;
            // Writing the file is a long look: only where it may fit.
            if (is_over || gave_back >= self.books.spare.bytes()) && self.books.spare.renew_now(self.last.elapsed_ms) {
                break;
            }
            if is_over {
                break;
            }
        }
        self.relieve_at = Instant::now() + RELIEF_EVERY;
        Ok(())
    }

    /// Returns whether there may be more to remove, and the bytes that the disk has back.
    fn relieve_a_little(&mut self) -> Result<(bool, u64), StoreError> {
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| self.fault(&error, false))?;
        let mut desk = Desk { connection: &self.connection, now_ms: self.last.elapsed_ms, books: &mut self.books };
        let done = match desk.relieve() {
            Ok(done) => done,
            Err(error) => return Err(self.fault(&error, false)),
        };
        self.commit()?;
        // The file becomes shorter as the log is moved.
        match self.move_log() {
            Ok(true) => self.renew_log(),
            Ok(false) => {}
            Err(error) => return Err(self.poison(&error)),
        }
        Ok(done)
    }

    fn apply_once(&mut self, group: &mut [Job]) -> Result<(), StoreError> {
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| self.fault(&error, false))?;
        }
        for job in group.iter_mut() {
            // Jobs come from several threads, and time never goes back.
            self.last.elapsed_ms = self.last.elapsed_ms.max(job.now.elapsed_ms);
            self.last.wall_ms = job.now.wall_ms;
            let mut desk = Desk { connection: &self.connection, now_ms: self.last.elapsed_ms, books: &mut self.books };
            if let Err(error) = job.work.apply(&mut desk) {
                return Err(self.fault(&error, false));
            }
        }
        // A stream of jobs without a pause must not keep the transaction open past its time.
        let overdue = self.lazy_until.is_some_and(|until| Instant::now() >= until);
        if overdue || group.iter().any(|job| job.durable) {
            return self.commit();
        }
        if self.books.wrote(&self.connection) {
            self.lazy_until.get_or_insert_with(|| Instant::now() + LAZY_MAX);
            Ok(())
        } else {
            // Nothing to lose: end it, so that checkpoints are not held up.
            self.commit()
        }
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.lazy_until = None;
        let wrote = self.books.wrote(&self.connection);
        if wrote {
            self.books.save(&self.connection).map_err(|error| self.fault(&error, false))?;
        }
        if wrote && self.last.elapsed_ms - self.clock_saved_at_ms >= CLOCK_SAVED_EVERY_MS {
            save_clock(&self.connection, self.last).map_err(|error| self.fault(&error, false))?;
            self.clock_saved_at_ms = self.last.elapsed_ms;
        }
        self.connection.execute_batch("COMMIT").map_err(|error| self.fault(&error, true))?;
        if wrote {
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
        }
        self.tell_whether_full();
        for upstream in self.books.committed(&self.connection) {
            self.shared.wakers.wake(&upstream);
        }
        Ok(())
    }

    /// Moves the log into the database file when it is long, or when that makes the file shorter: after the answers,
    /// which need not wait for it.
    ///
    /// What bounds the log while somebody reads: a reader keeps the log from beginning anew, not from being moved. A
    /// worker's reads are short. A person's read is ended when the log has become twice as long as it should be, and
    /// half of that while it read. That of another process (a backup) cannot be ended: `make_room` refuses what is new
    /// before all files together become too long. Until the reader is gone each group looks again, as there may be no
    /// commit any more to look after; that reads nothing and writes nothing.
    fn tend_log(&mut self) {
        let log_bytes = self.note_log();
        let bytes_max = self.books.spare.log_bytes();
        let is_due = log_bytes >= bytes_max || self.books.shrunk;
        if !is_due || !self.connection.is_autocommit() || self.shared.poisoned.get().is_some() {
            return;
        }
        self.books.shrunk = false;
        match self.move_log() {
            Ok(true) => self.renew_log(),
            Ok(false) if log_bytes >= bytes_max * 2 && self.shared.log_grew_under_reader() >= bytes_max => {
                self.interrupt.interrupt();
            }
            Ok(false) => {}
            Err(error) => {
                self.poison(&error);
            }
        }
        self.note_log();
    }

    /// As [`checkpoint`], which does not know a used up quota.
    fn move_log(&self) -> rusqlite::Result<bool> {
        match checkpoint(&self.connection) {
            Err(error) if self.is_full(&error) => Ok(false),
            other => other,
        }
    }

    fn note_log(&self) -> u64 {
        let bytes = self.log_pages.load(Ordering::Relaxed) * PAGE_BYTES;
        self.shared.log_bytes.store(bytes, Ordering::Relaxed);
        bytes
    }

    /// Begins the log anew, with a new salt, by committing the clock. Else what was moved would stay in it as a valid
    /// log until the next commit: if then a bit flips in it and the process crashes, the recovery takes the part before
    /// the flip, and puts older pages over newer ones.
    fn renew_log(&mut self) {
        let commit = |connection: &Connection, now: Stamp| {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            // SQLite writes no page for a row that stays as it is, and without a page the log does not begin anew. The
            // clock may have been saved a moment ago, so it is changed in between.
            save_clock(connection, Stamp { wall_ms: now.wall_ms ^ 1, ..now })?;
            save_clock(connection, now)?;
            connection.execute_batch("COMMIT")
        };
        match commit(&self.connection, self.last) {
            Ok(()) => {
                self.clock_saved_at_ms = self.last.elapsed_ms;
                // No entry of the books.
                drop(self.books.committed(&self.connection));
            }
            Err(error) => {
                let error = self.fault(&error, true);
                tracing::warn!(%error, "failed to begin the log of the store anew");
            }
        }
    }

    fn tell_whether_full(&self) {
        self.shared.wanted_bytes.store(self.books.spare.wanted_bytes(), Ordering::Relaxed);
        self.shared.full.store(self.books.is_full(), Ordering::Relaxed);
    }

    fn poison(&self, error: &rusqlite::Error) -> StoreError {
        let advice = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                "; run `hookward store verify -c FILE`, and restore a backup with `hookward store restore BACKUP -c FILE --force` if it is damaged"
            }
            _ => "",
        };
        self.shared.poison(format!("{error}{advice}"));
        // Closing would move the log, and remove the only good copy of what was not written.
        let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        StoreError::Poisoned(error.to_string())
    }

    /// Rolls back, and says what it means for the group; poisons the store if writes may be lost.
    fn fault(&mut self, error: &rusqlite::Error, committing: bool) -> StoreError {
        self.lazy_until = None;
        let rolled_back = self.connection.is_autocommit() || self.connection.execute_batch("ROLLBACK").is_ok();
        self.books.rolled_back(&self.connection);
        if rolled_back && is_index_differing(error) {
            return self.reindex(error);
        }
        let broken = match error.sqlite_error_code() {
            _ if rolled_back && self.is_full(error) => {
                self.books.spare.release();
                self.tell_whether_full();
                if let Err(error) = self.move_log() {
                    return self.poison(&error);
                }
                return StoreError::Full("no space is left on its disk".to_owned());
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OutOfMemory) => !rolled_back,
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::InternalMalfunction,
            ) => true,
            _ => committing || !rolled_back,
        };
        if broken { self.poison(error) } else { StoreError::Unavailable(error.to_string()) }
    }

    /// Whether there is no room. SQLite calls a used up quota an I/O error of a write, like one that lost something,
    /// and keeps the difference to itself: so a file of our own asks again.
    fn is_full(&self, error: &rusqlite::Error) -> bool {
        error.sqlite_error_code() == Some(ErrorCode::DiskFull)
            || error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_WRITE)
                && self.books.spare.finds_no_room()
    }

    /// An index that does not fit its table, because one of them is damaged, is built anew. Whoever asked may ask again.
    fn reindex(&mut self, error: &rusqlite::Error) -> StoreError {
        self.reindexed += 1;
        self.shared.damage.found("an index", self.reindexed);
        if self.reindexed > REINDEXES_MAX {
            return self.poison(error);
        }
        match reindex(&self.connection) {
            Ok(twins) => {
                self.books.miscounted |= twins;
                StoreError::Unavailable("an index did not fit its table and was built anew".to_owned())
            }
            Err(error) => self.poison(&error),
        }
    }

    fn close(mut self) {
        self.shared.closed.store(true, Ordering::Release);
        if self.shared.poisoned.get().is_none()
            && let Err(error) = self.leave_in_order()
        {
            if matches!(error.sqlite_error_code(), Some(ErrorCode::SystemIoFailure)) {
                self.poison(&error);
            } else {
                tracing::warn!(%error, "failed to close the store in order");
            }
        }
        let Self { mut connection, inbox, lock, .. } = self;
        // Whoever was late finds its job dropped: an error, and no effect.
        drop(inbox);
        connection.flush_prepared_statement_cache();
        if let Err((left, error)) = connection.close() {
            tracing::warn!(%error, "failed to close the store in order");
            connection = left;
            drop(connection);
        }
        drop(lock);
    }

    /// The last commit, and the log moved: SQLite would do that as it closes, and not tell of a failure.
    fn leave_in_order(&mut self) -> rusqlite::Result<()> {
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
        }
        // Of what no commit was waited for.
        self.books.save(&self.connection)?;
        save_clock(&self.connection, self.last)?;
        self.connection.execute_batch("COMMIT")?;
        checkpoint(&self.connection).map(drop)
    }
}
