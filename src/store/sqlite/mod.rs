//! The embedded engine: `SQLite` in write-ahead mode, one writer thread with group commit, readers beside it.
//!
//! * `open`: directory, lock, settings; `format`: made, compared, brought up; `restart`: what the last process left.
//! * `writer`: the thread, the groups, what a failed write means; `job`: what it is handed; `books`: what it knows.
//! * `desk`: one job inside a transaction: `append`, `keys`, `lease`, `settle`, `turns`, `operator`, `acts`, `room`.
//! * `reads`, `list`: what is read beside it.
//! * `schema.sql`: the format; `seal`: the checksum in each row; `rows`: rows to values; `damage`: what does not fit.
//! * `spare`: space for a disk without any.
//! * [`tools`]: what is done to a store from outside.
//!
//! Time is handed to the writer with each job, so that the thread needs no clock to decide by.

mod acts;
mod append;
mod books;
mod damage;
mod desk;
mod format;
mod job;
mod keys;
mod lease;
mod list;
mod open;
mod operator;
mod reads;
mod restart;
mod room;
mod rows;
mod seal;
mod settle;
mod spare;
pub mod tools;
mod turns;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
        mpsc::{self, Sender},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    Act, Appended, Counted, Direction, EventStore, Filter, Known, Lease, Leased, Operation, Page, Pause,
    SEALED_BYTES_MAX, Settled, Shown, Stats, StoreError, Swept,
    elapsed::Elapsed,
    vault::{Kind, Vault},
};
use crate::{
    config::model::{self, Durability, EncryptionKey},
    event::{Answer, Body, EventId, Item, Name, NewEvent},
    time::{Clock, Wall},
    verify::Keys,
};
use append::Prepared;
use books::Books;
use desk::Desk;
use job::{Job, Message, Shared, Stop, Task};
use lease::Taken;
pub use open::OpenError;
use reads::Reading;
use writer::Writer;

/// Jobs that may wait for the writer. The bodies in them are paid for by the budget of their requests.
const QUEUE_MAX: usize = 4096;
/// How long a delivery waits whose body is encrypted with a key that is not configured, and how often that is said.
const KEY_MISSING: Duration = Duration::from_mins(1);

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory; made if it is not there.
    pub directory: PathBuf,
    /// When an append counts as durable.
    pub durability: Durability,
    /// All files together, in bytes.
    pub disk_bytes_max: u64,
    /// What undelivered events and dead letters of one upstream may take of that, from 0 to 1.
    pub disk_share_max: f64,
    /// Keys for bodies at rest: the first encrypts, all decrypt.
    pub encryption: Vec<EncryptionKey>,
    /// The clocks. The wall clock only tells how long the store was closed.
    pub clock: Clock,
}

impl Options {
    /// As configured.
    pub fn of(store: &model::Store, clock: Clock) -> Self {
        Self {
            directory: store.path.clone(),
            durability: store.durability,
            disk_bytes_max: store.disk_bytes_max,
            disk_share_max: store.disk_share_max,
            encryption: store.encryption.clone(),
            clock,
        }
    }
}

/// The embedded store. One process owns it.
pub struct SqliteStore {
    directory: PathBuf,
    elapsed: Elapsed,
    shared: Arc<Shared>,
    jobs: Sender<Message>,
    places: Arc<Semaphore>,
    /// Bytes of sealed copies that wait to be written.
    sealing: Arc<Semaphore>,
    /// For workers, who must not wait behind a long list.
    lanes: Arc<Reader>,
    /// For operators and metrics, who must not either.
    people: Arc<Reader>,
    /// For lists and counts, which may look at everything.
    lists: Arc<Reader>,
    vault: Vault,
    share_bytes_max: u64,
    restored_at: Option<Wall>,
    /// When it may be said again that a key is missing.
    key_missing_said_until_ms: AtomicI64,
}

/// A person reads, for as long as this lives.
struct PersonReads<'a>(&'a Shared);

impl<'a> PersonReads<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.person_reads(true);
        Self(shared)
    }
}

impl Drop for PersonReads<'_> {
    fn drop(&mut self) {
        self.0.person_reads(false);
    }
}

/// A read-only connection.
struct Reader {
    /// `None` once the store is closed.
    connection: Mutex<Option<Connection>>,
    /// Whose turn it is. Whoever waits holds no thread, of which there are few and others need, and may go away.
    turn: Arc<Semaphore>,
}

impl Reader {
    fn of(connection: Connection) -> Arc<Self> {
        Arc::new(Self { connection: Mutex::new(Some(connection)), turn: Arc::new(Semaphore::new(1)) })
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the store, or makes it. What was leased to the last process is due again.
    pub fn open(options: &Options) -> Result<Arc<Self>, OpenError> {
        let opened = open::open(options)?;
        let shared = Arc::new(Shared { tallies: Mutex::new(opened.found.tallies), ..Shared::default() });
        let vault = Vault::new(&options.encryption);
        let (jobs, inbox) = mpsc::channel();
        let stamp = opened.elapsed.stamp();
        let writer = Writer {
            books: Books::new(
                &opened.writer,
                Arc::clone(&shared),
                opened.limits,
                opened.spare,
                vault.clone(),
                opened.found.next,
            ),
            connection: opened.writer,
            inbox,
            shared: Arc::clone(&shared),
            clock_saved_at_ms: stamp.elapsed_ms,
            last: stamp,
            lazy_until: None,
            log_pages: opened.log_pages,
            interrupt: opened.lists.get_interrupt_handle(),
            reindexed: 0,
            relieve_at: tokio::time::Instant::now(),
            lock: opened.lock,
        };
        std::thread::Builder::new()
            .name("hookward-store".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Directory { path: options.directory.clone(), source })?;
        Ok(Arc::new(Self {
            directory: options.directory.clone(),
            elapsed: opened.elapsed,
            shared,
            jobs,
            places: Arc::new(Semaphore::new(QUEUE_MAX)),
            sealing: Arc::new(Semaphore::new(SEALED_BYTES_MAX)),
            lanes: Reader::of(opened.lanes),
            people: Reader::of(opened.people),
            lists: Reader::of(opened.lists),
            vault,
            share_bytes_max: opened.limits.share_bytes_max,
            restored_at: opened.found.restored_at,
            key_missing_said_until_ms: AtomicI64::new(i64::MIN),
        }))
    }

    /// The database file in a directory: for backup and inspection.
    pub fn database_path(directory: &Path) -> PathBuf {
        open::database_path(directory)
    }

    /// How many transactions were committed that wrote something.
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// Has the writer do something in its next transaction and waits until that is durable.
    async fn write<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Desk<'_>) -> Result<T, Stop> + Send + 'static,
    {
        self.write_sized(0, true, run).await
    }

    async fn write_sized<T, F>(&self, body_bytes: usize, durable: bool, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Desk<'_>) -> Result<T, Stop> + Send + 'static,
    {
        self.shared.check()?;
        let place = self.place().await?;
        let (reply, answer) = oneshot::channel();
        let work = Box::new(Task { run, result: None, reply: Some(reply) });
        self.send(Job { now: self.elapsed.stamp(), body_bytes, durable, work, place: Some(place) })?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Hands something over that nobody waits for: it is durable at most 100 ms later.
    fn leave<F>(&self, place: OwnedSemaphorePermit, run: F) -> Result<(), StoreError>
    where
        F: FnMut(&mut Desk<'_>) -> Result<(), Stop> + Send + 'static,
    {
        let work = Box::new(Task { run, result: None, reply: None });
        self.send(Job { now: self.elapsed.stamp(), body_bytes: 0, durable: false, work, place: Some(place) })
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        Arc::clone(&self.places).acquire_owned().await.map_err(|_| self.gone())
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        self.jobs.send(Message::Job(job)).map_err(|_| self.gone())
    }

    /// Why the writer does not answer.
    fn gone(&self) -> StoreError {
        self.shared.check().err().unwrap_or_else(|| StoreError::Unavailable("its writer is gone".to_owned()))
    }

    async fn read<T, F>(&self, reader: &Arc<Reader>, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(Reading<'_>) -> Result<T, Stop> + Send + 'static,
    {
        let turn = Arc::clone(&reader.turn).acquire_owned().await.map_err(|_| self.gone())?;
        let (reader, now_ms) = (Arc::clone(reader), self.elapsed.now_ms());
        let (vault, shared) = (self.vault.clone(), Arc::clone(&self.shared));
        let by_person = Arc::ptr_eq(&reader, &self.lists);
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let connection = reader.connection.lock().unwrap_or_else(PoisonError::into_inner);
            // Under the lock: there is one such reader at a time.
            let _reads = by_person.then(|| PersonReads::new(&shared));
            let connection = connection.as_ref().ok_or_else(|| StoreError::Unavailable("it is closed".to_owned()))?;
            let reading = Reading { connection, now_ms, vault: &vault, damage: &shared.damage };
            run(reading).map_err(|stop| match stop {
                Stop::Refused(error) => error,
                Stop::Fault(error) => match error.sqlite_error_code() {
                    Some(ErrorCode::DatabaseCorrupt) => StoreError::Damaged(error.to_string()),
                    Some(ErrorCode::OperationInterrupted) => StoreError::Unavailable(
                        "the read took so long that what is written meanwhile had no room; ask for less".to_owned(),
                    ),
                    _ => StoreError::Unavailable(error.to_string()),
                },
            })
        });
        read.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// Decrypts leased bodies. What does not open is dealt with here, all of it in one commit: whoever is due behind a
    /// long queue of such deliveries must not wait for each of them.
    async fn opened(&self, all: Vec<Taken>) -> Vec<Leased> {
        let (mut opened, mut closed) = (Vec::with_capacity(all.len()), Vec::new());
        for Taken { mut leased, body_key } in all {
            let Some(key) = body_key else {
                opened.push(leased);
                continue;
            };
            let id = leased.event.head.id;
            match self.vault.open(Kind::Event, id, &key, &leased.event.body) {
                Ok(body) => {
                    leased.event.body = Body::free(body);
                    opened.push(leased);
                }
                Err(StoreError::KeyMissing(_)) => {
                    self.say_that_a_key_is_missing(id, &key);
                    closed.push((leased.lease, None));
                }
                Err(error) => {
                    tracing::error!(event = %id, %error, "a stored body cannot be used");
                    closed.push((leased.lease, Some(format!("the body does not open with the key {key}"))));
                }
            }
        }
        if !closed.is_empty() {
            let dealt_with = self.write(move |desk| {
                closed.iter().try_for_each(|(lease, damage)| desk.put_off(*lease, damage.as_deref()))
            });
            if let Err(error) = dealt_with.await {
                // Their leases lapse. The others are no worse for it.
                tracing::warn!(%error, "failed to put off what cannot be decrypted");
            }
        }
        opened
    }

    fn say_that_a_key_is_missing(&self, event: EventId, key: &str) {
        let (now_ms, said_until) = (self.elapsed.now_ms(), &self.key_missing_said_until_ms);
        if now_ms >= said_until.load(Ordering::Relaxed) {
            said_until.store(super::elapsed::after(now_ms, KEY_MISSING), Ordering::Relaxed);
            tracing::error!(
                %event, key,
                "stored bodies are encrypted with a key that is not among `store.encryption`, or not with the one of this \
                 id; their deliveries wait until it is there"
            );
        }
    }
}

impl EventStore for SqliteStore {
    fn append(&self, event: NewEvent) -> BoxFuture<'_, Result<Appended, StoreError>> {
        let new = Box::new(event);
        Box::pin(async move {
            // A sealed body is another copy: nobody has paid for it, so that only so many are made.
            let bytes = if self.vault.seals() { new.body.len().min(SEALED_BYTES_MAX) } else { 0 };
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            let room = Arc::clone(&self.sealing).acquire_many_owned(bytes).await.map_err(|_| self.gone())?;
            let new = Box::new(Prepared::new(*new, &self.vault));
            self.write_sized(new.stored().len(), true, move |desk| {
                let _room = &room;
                desk.append(&new)
            })
            .await
        })
    }

    fn lookup(&self, keys: Keys) -> BoxFuture<'_, Result<Known, StoreError>> {
        Box::pin(self.write_sized(0, false, move |desk| desk.lookup(&keys)))
    }

    fn record(
        &self,
        id: EventId,
        _source: &Name,
        keys: Keys,
        answer: Option<(Answer, Duration)>,
        fsync: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let run = move |desk: &mut Desk<'_>| desk.record(id, &keys, answer.as_ref());
        if fsync {
            return Box::pin(self.write(run));
        }
        Box::pin(async move {
            self.shared.check()?;
            self.leave(self.place().await?, run)
        })
    }

    fn count_copy(&self, first: EventId) {
        // A queue that is full has better things to do.
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            let _ = self.leave(place, move |desk| desk.count_copy(first));
        }
    }

    fn lease(&self, upstream: &str, max: usize, length: Duration) -> BoxFuture<'_, Result<Vec<Leased>, StoreError>> {
        let upstream = upstream.to_owned();
        Box::pin(async move {
            let all = self.write(move |desk| desk.lease(&upstream, max, length)).await?;
            Ok(self.opened(all).await)
        })
    }

    fn next_due(&self, upstream: &str) -> BoxFuture<'_, Result<Option<Duration>, StoreError>> {
        let upstream = upstream.to_owned();
        Box::pin(self.read(&self.lanes, move |reading| reading.next_due(&upstream)))
    }

    fn settle(&self, lease: Lease, settled: Settled) -> BoxFuture<'_, Result<(), StoreError>> {
        let settled = Box::new(settled);
        Box::pin(self.write(move |desk| desk.settle(lease, &settled)))
    }

    fn give_back(&self, lease: Lease, after: Duration) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.write(move |desk| desk.give_back(lease, after)))
    }

    fn release(&self, id: EventId) -> BoxFuture<'_, Result<u32, StoreError>> {
        Box::pin(self.write(move |desk| desk.release(id)))
    }

    fn redeliver(&self, id: EventId, upstream: Option<&str>) -> BoxFuture<'_, Result<u32, StoreError>> {
        let upstream = upstream.map(str::to_owned);
        Box::pin(self.write(move |desk| desk.redeliver(id, upstream.as_deref(), None)))
    }

    fn forget(&self, id: EventId) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.write(move |desk| desk.forget(id)))
    }

    fn purge(&self, id: EventId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.write(move |desk| desk.purge(id)))
    }

    fn reconcile(&self, upstreams: &[Name]) -> BoxFuture<'_, Result<BTreeMap<Name, u64>, StoreError>> {
        let upstreams: BTreeSet<Name> = upstreams.iter().cloned().collect();
        Box::pin(self.write(move |desk| desk.reconcile(upstreams.clone())))
    }

    fn list(&self, filter: Filter, direction: Direction, limit: usize) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(self.read(&self.lists, move |reading| reading.list(&filter, direction, limit)))
    }

    fn count(&self, filter: Filter) -> BoxFuture<'_, Result<Counted, StoreError>> {
        Box::pin(self.read(&self.lists, move |reading| reading.count(&filter)))
    }

    fn act(&self, act: Act, ids: Vec<EventId>, operation: Operation) -> BoxFuture<'_, Result<Operation, StoreError>> {
        Box::pin(self.write(move |desk| desk.act(&act, &ids, operation.clone())))
    }

    fn save_operation(&self, operation: Operation) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.write(move |desk| desk.save_operation(&operation)))
    }

    fn operations(&self) -> BoxFuture<'_, Result<Vec<Operation>, StoreError>> {
        Box::pin(self.read(&self.people, |reading| reading.operations()))
    }

    fn set_paused(&self, upstream: &str, pause: Option<Pause>) -> BoxFuture<'_, Result<(), StoreError>> {
        let upstream = upstream.to_owned();
        Box::pin(self.write(move |desk| desk.set_paused(&upstream, pause.as_ref())))
    }

    fn paused(&self) -> BoxFuture<'_, Result<BTreeMap<Name, Pause>, StoreError>> {
        Box::pin(self.read(&self.people, |reading| reading.paused()))
    }

    fn restored_at(&self) -> Option<Wall> {
        self.restored_at
    }

    fn show(&self, id: EventId) -> BoxFuture<'_, Result<Shown, StoreError>> {
        Box::pin(self.read(&self.people, move |reading| reading.show(id)))
    }

    fn acknowledged_items(
        &self,
        upstream: &str,
        items: Vec<Item>,
    ) -> BoxFuture<'_, Result<Vec<Option<[u8; 32]>>, StoreError>> {
        let upstream = upstream.to_owned();
        Box::pin(self.read(&self.lanes, move |reading| reading.acknowledged_items(&upstream, &items)))
    }

    fn sweep(&self, retention: Duration) -> BoxFuture<'_, Result<Swept, StoreError>> {
        Box::pin(self.write(move |desk| desk.sweep(retention)))
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        let (directory, shared) = (self.directory.clone(), Arc::clone(&self.shared));
        let share_bytes_max = self.share_bytes_max;
        Box::pin(self.read(&self.people, move |reading| reading.stats(&shared, share_bytes_max, &directory)))
    }

    fn health(&self) -> Result<(), StoreError> {
        self.shared.check()?;
        if self.shared.full.load(Ordering::Relaxed) {
            let directory = self.directory.display();
            let wanted = self.shared.wanted_bytes.load(Ordering::Relaxed);
            return Err(StoreError::Full(if wanted == 0 {
                format!(
                    "`store.disk_bytes_max` is reached in {directory}: raise it, or purge events; deliveries go on, and \
                     make room"
                )
            } else {
                let wanted = format!("{}MiB", wanted.div_ceil(1 << 20));
                format!("the disk of {directory} is full: free at least {wanted} on it; deliveries go on")
            }));
        }
        Ok(())
    }

    fn woken(&self, upstream: &str) -> BoxFuture<'static, ()> {
        self.shared.wakers.woken(upstream)
    }

    fn beat(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut got_on = pin!(self.shared.got_on.notified());
            got_on.as_mut().enable();
            // So that a writer without work has something to get on with. It needs no place, as any group will do; who
            // asks for its result is gone.
            let nothing = |_: &mut Desk<'_>| Ok(());
            let work = Box::new(Task { run: nothing, result: None, reply: Some(oneshot::channel().0) });
            let job = Job { now: self.elapsed.stamp(), body_bytes: 0, durable: false, work, place: None };
            if self.send(job).is_ok() {
                got_on.await;
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let readers = [&self.lanes, &self.people, &self.lists].map(Arc::clone);
            let _ = tokio::task::spawn_blocking(move || {
                for reader in readers {
                    drop(reader.connection.lock().unwrap_or_else(PoisonError::into_inner).take());
                }
            })
            .await;
            let (done, closed) = oneshot::channel();
            if self.jobs.send(Message::Close(done)).is_ok() {
                let _ = closed.await;
            }
        })
    }
}
