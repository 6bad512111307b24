//! What the writer is handed, and what it shares with those who hand it over.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::{
    super::{StoreError, elapsed::Stamp, wakers::Wakers},
    books::Tallies,
    damage::Damage,
    desk::Desk,
};

/// What the writer receives.
pub(super) enum Message {
    Job(Job),
    Close(oneshot::Sender<()>),
}

/// One piece of work, with the time at which it was handed over.
pub(super) struct Job {
    pub(super) now: Stamp,
    pub(super) body_bytes: usize,
    pub(super) durable: bool,
    pub(super) work: Box<dyn Work>,
    /// Its place in the queue, given back when the writer takes it.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

/// What a job does, and how it answers.
pub(super) trait Work: Send {
    /// Does it inside the transaction. An error is a fault of the group. After a rollback it may be done again.
    fn apply(&mut self, desk: &mut Desk<'_>) -> rusqlite::Result<()>;
    /// Answers: after the commit, or with what prevented it.
    fn finish(self: Box<Self>, outcome: Result<(), StoreError>);
}

/// A refused job, or a fault of its group.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(StoreError),
    Fault(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Fault(error)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

/// A function as [`Work`].
pub(super) struct Task<T, F> {
    pub(super) run: F,
    pub(super) result: Option<Result<T, StoreError>>,
    pub(super) reply: Option<oneshot::Sender<Result<T, StoreError>>>,
}

impl<T, F> Work for Task<T, F>
where
    T: Send,
    F: FnMut(&mut Desk<'_>) -> Result<T, Stop> + Send,
{
    fn apply(&mut self, desk: &mut Desk<'_>) -> rusqlite::Result<()> {
        self.result = Some(match (self.run)(desk) {
            Ok(value) => Ok(value),
            Err(Stop::Refused(error)) => Err(error),
            Err(Stop::Fault(error)) => return Err(error),
        });
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), StoreError>) {
        let result = match (outcome, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(StoreError::Unavailable("the writer skipped a job".to_owned())),
            (Err(error), _) => Err(error),
        };
        match self.reply {
            // Whoever asked may have left: the effect counts.
            Some(reply) => drop(reply.send(result)),
            None => {
                if let Err(error) = result {
                    tracing::warn!(%error, "failed to record bookkeeping of the store");
                }
            }
        }
    }
}

/// What the writer shares with the handles of the store.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) wakers: Wakers,
    /// The writer has done with a group, or is gone.
    pub(super) got_on: Notify,
    /// Why nothing more is written.
    pub(super) poisoned: OnceLock<String>,
    pub(super) closed: AtomicBool,
    /// The last thing that wanted room found none.
    pub(super) full: AtomicBool,
    /// What the disk itself has to have free before anything new is stored; 0 if it has.
    pub(super) wanted_bytes: AtomicU64,
    /// Commits that wrote something.
    pub(super) commits: AtomicU64,
    /// The numbers as of the latest commit.
    pub(super) tallies: Mutex<Tallies>,
    pub(super) damage: Damage,
    /// How long the write-ahead log is, in bytes.
    pub(super) log_bytes: AtomicU64,
    /// How long it was when what a person reads now was begun.
    pub(super) person_reads_from: Mutex<Option<u64>>,
}

impl Shared {
    /// By how much the log has become longer while a person reads.
    pub(super) fn log_grew_under_reader(&self) -> u64 {
        let from = *self.person_reads_from.lock().unwrap_or_else(PoisonError::into_inner);
        from.map_or(0, |from| self.log_bytes.load(Ordering::Relaxed).saturating_sub(from))
    }

    pub(super) fn person_reads(&self, reads: bool) {
        let from = reads.then(|| self.log_bytes.load(Ordering::Relaxed));
        *self.person_reads_from.lock().unwrap_or_else(PoisonError::into_inner) = from;
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        if let Some(why) = self.poisoned.get() {
            return Err(StoreError::Poisoned(why.clone()));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("it is closed".to_owned()));
        }
        Ok(())
    }

    pub(super) fn poison(&self, why: String) {
        tracing::error!(error = %why, "the store is broken and takes no more writes; restart to recover");
        // The first reason is the one that counts.
        let _ = self.poisoned.set(why);
    }
}
