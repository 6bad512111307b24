//! The contract of a durable store, and the engines that keep it.
//!
//! A store is the truth about keys, events and deliveries. Time inside a store is elapsed time that survives
//! restarts and never jumps with the wall clock: callers pass durations from now. Every engine passes the one
//! conformance suite in `conformance`.
//!
//! No method is cancel safe in its answer, only in its effect: an append begun is finished even if nobody
//! waits for it any more.

mod elapsed;
mod judge;
pub mod memory;
pub mod sqlite;
pub mod vault;
mod wakers;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod model;

use std::{collections::BTreeMap, fmt, time::Duration};

use futures_util::future::BoxFuture;

use crate::{
    event::{Answer, Attempt, Delivery, Event, EventHead, EventId, Item, Name, NewEvent, State},
    time::Wall,
    verify::{Key, Keys},
};

/// Bodies that one lease brings into memory, in bytes; a single event may be larger.
pub const LEASE_BYTES_MAX: usize = 8 << 20;

/// Sealed copies of bodies that are made at a time, in bytes; a single one may be larger.
pub const SEALED_BYTES_MAX: usize = 32 << 20;

/// What became of an append.
#[derive(Clone, PartialEq, Debug)]
pub enum Appended {
    /// Stored. `lease` is there if the first delivery was born leased.
    New {
        /// Its id.
        id: EventId,
        /// The lease of the first delivery, for [`crate::event::Begin::FirstLeased`].
        lease: Option<Lease>,
        /// The first event of a re-send that is delivered (`on_resend = "deliver"`).
        duplicate_of: Option<EventId>,
    },
    /// A key is known, with the same body: a copy. Counted on the first event; unknown keys of the copy are
    /// recorded with it, so that they are known next time.
    Known {
        /// The first event.
        first: EventId,
        /// How many dead or parked deliveries this re-send armed again.
        rearmed: u32,
        /// What the upstream answered to the first, while it is kept.
        answer: Option<Answer>,
    },
    /// A key is known, with another body.
    Conflict {
        /// The new event: stored, held or due. `None` with `on_conflict = "drop"`.
        id: Option<EventId>,
        /// The first event.
        first: EventId,
    },
}

/// What is known of a webhook's keys, without storing anything (`proxy`).
#[derive(Clone, PartialEq, Debug)]
pub enum Known {
    /// Nothing.
    No,
    /// A copy, same body.
    Copy {
        /// The first event.
        first: EventId,
        /// What the upstream answered, while it is kept.
        answer: Option<Answer>,
    },
    /// A known key with another body.
    Conflict {
        /// The first event.
        first: EventId,
    },
}

/// The right to settle one delivery, fenced: after it lapsed and was given to another, it settles nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lease {
    /// The engine's number of the delivery.
    pub delivery: i64,
    /// Grows with every lease of that delivery.
    pub fence: i64,
}

/// A delivery that a worker has taken.
#[derive(Clone, Debug)]
pub struct Leased {
    /// The right to settle it.
    pub lease: Lease,
    /// The event, with its body.
    pub event: Event,
    /// Where to.
    pub upstream: Name,
    /// The number of the attempt now to be made, from 1.
    pub attempt: u32,
    /// How many attempts were made since the delivery was armed: what the retry schedule counts.
    pub tries: u32,
    /// Whether an operator had it delivered again: also true for the retries of a redelivery.
    pub redelivery: bool,
    /// An earlier attempt may have reached the upstream: its outcome was unknown, or its lease ended unsettled.
    pub uncertain: bool,
    /// Whether it has an order key, so that others may wait until it is delivered or given up.
    pub ordered: bool,
    /// Why it is made: `first`, `retry`, `redelivery`, `re-send`, `released`; `restart` or `lease lapsed`
    /// where a lease ended unsettled, so that nobody knows whether the upstream has it.
    pub cause: String,
    /// Elapsed time since the delivery was armed (accepted, re-armed, redelivered): its age for giving up.
    pub age: Duration,
}

/// How an attempt ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// The upstream took it. Its items are recorded as acknowledged.
    Delivered {
        /// The items of the body, if the source has `items`.
        items: Vec<Item>,
    },
    /// Due again after this long.
    Retry {
        /// From now.
        after: Duration,
    },
    /// Given up on: a dead letter.
    Dead {
        /// Why, for people.
        reason: String,
    },
}

/// What [`EventStore::settle`] records.
#[derive(Clone, PartialEq, Debug)]
pub struct Settled {
    /// The attempt made.
    pub attempt: Attempt,
    /// How it ended.
    pub outcome: Outcome,
    /// An upstream's answer to keep with the event's keys (`respond`), and for how long.
    pub answer: Option<(Answer, Duration)>,
    /// The upstream may have taken it although the outcome does not say so.
    pub uncertain: bool,
}

/// Which events are meant; everything given must hold.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Filter {
    /// Of this source.
    pub source: Option<String>,
    /// With a delivery to this upstream.
    pub upstream: Option<String>,
    /// With a delivery in this state; with `upstream`, that very delivery.
    pub state: Option<State>,
    /// That no route wanted: without any delivery.
    pub unrouted: bool,
    /// Of this type, exactly.
    pub event_type: Option<String>,
    /// Received at or after.
    pub since: Option<Wall>,
    /// Received before.
    pub until: Option<Wall>,
    /// With this attempt id of the provider.
    pub attempt_id: Option<String>,
    /// This one.
    pub id: Option<EventId>,
    /// With this key, expired or not.
    pub key: Option<Key>,
    /// With this scalar in the JSON of the body.
    pub json: Option<JsonIs>,
    /// Only ids below this one.
    pub before: Option<EventId>,
    /// Only ids above this one.
    pub after: Option<EventId>,
}

/// A scalar at a place of a JSON body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JsonIs {
    /// A JSON pointer: `/data/id`.
    pub pointer: String,
    /// As text: a string without its quotes, the digits of an integer, `true`, `false`.
    pub value: String,
}

/// Which end of the list comes first, by id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// For people.
    NewestFirst,
    /// For redelivery.
    OldestFirst,
}

/// A part of a list. A call looks at a bounded number of events, so that a page may be short, or empty, and the
/// list still goes on.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Those that the filter fits.
    pub events: Vec<Listed>,
    /// Where the list goes on: the next `before` or `after`, by direction. `None` at its end.
    pub next: Option<EventId>,
}

/// A part of a count. As with [`Page`], a call looks at a bounded number of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// How many the filter fits, of those looked at.
    pub events: u64,
    /// Where the count goes on: the next `after`. `None` at its end.
    pub next: Option<EventId>,
}

/// What an operator does to an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// See [`EventStore::redeliver`].
    Redeliver {
        /// Only there, or everywhere it went.
        to: Option<Name>,
        /// Only what is in this state: of an event with a dead and a delivered delivery not both.
        state: Option<State>,
    },
    /// See [`EventStore::release`].
    Release,
    /// See [`EventStore::forget`].
    Forget,
    /// See [`EventStore::purge`].
    Purge,
}

/// An act over many events, as far as it got. Kept, so that it can be watched, stopped, and resumed after a restart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Its id.
    pub id: EventId,
    /// What is done to which events at what rate; its meaning is the caller's.
    pub spec: String,
    /// Where it stands.
    pub state: OperationState,
    /// Why it stands there, where there is something to say.
    pub reason: Option<String>,
    /// The last event that was looked at.
    pub cursor: Option<EventId>,
    /// How many events were counted before it began.
    pub total: u64,
    /// How many of them were changed.
    pub done: u64,
    /// How many were not, because nothing of them was in a state that fits.
    pub skipped: u64,
    /// When it was created.
    pub created_at: Wall,
    /// When it last got on.
    pub changed_at: Wall,
}

/// Where an operation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OperationState {
    /// It goes on.
    Running,
    /// An operator stopped it, or the process ended; it can be resumed.
    Stopped,
    /// Every event was looked at.
    Finished,
    /// It cannot go on by itself; it can be resumed.
    Failed,
}

impl OperationState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Running, Self::Stopped, Self::Finished, Self::Failed];
    /// The stable name: in the store and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A pause of deliveries to an upstream: outlives restarts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pause {
    /// Since when.
    pub since: Wall,
    /// Who paused it, for people.
    pub by: String,
}

/// An event in a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// All but the body.
    pub head: EventHead,
    /// Length of the body in bytes.
    pub body_bytes: u64,
    /// Copies that came after it.
    pub copies: u64,
    /// Its deliveries, without history.
    pub deliveries: Vec<Delivery>,
}

/// An event in full.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The event.
    pub event: Event,
    /// Whether the body was removed after delivery (`store_body = false`); `event.body` is empty then.
    pub body_removed: bool,
    /// Its keys that still live, and for how long.
    pub keys: Vec<(Key, Duration)>,
    /// Its deliveries with their attempts.
    pub deliveries: Vec<Delivery>,
}

/// Numbers for `status` and metrics.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Deliveries by upstream and state.
    pub deliveries: BTreeMap<(Name, State), u64>,
    /// Elapsed time since the oldest due delivery of an upstream was armed.
    pub oldest_due: BTreeMap<Name, Duration>,
    /// Events stored.
    pub events: u64,
    /// Keys known.
    pub keys: u64,
    /// Bytes on disk (all files), or in memory.
    pub bytes: u64,
    /// Events that no route wanted.
    pub unrouted: u64,
    /// Bytes that undelivered events and dead letters take, by upstream: what `store.disk_share_max` bounds.
    pub open_bytes: BTreeMap<Name, u64>,
    /// What one upstream may take of that.
    pub share_bytes_max: u64,
    /// Damaged rows found since the store was opened.
    pub damaged: u64,
}

/// What a sweep removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Expired keys and answers.
    pub keys: u64,
    /// Events past their retention, all of whose deliveries are delivered.
    pub events: u64,
    /// Whether there may be more: a sweep works in slices.
    pub more: bool,
}

/// Why a store did not do what was asked. Nothing of it was done, except where it says "unknown".
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// No room: on disk, in `disk_bytes_max`, or for keys that may not be forgotten.
    #[error("store is full: {0}")]
    Full(String),
    /// An error that may pass.
    #[error("store is unavailable: {0}")]
    Unavailable(String),
    /// A write or sync failed for good: this handle accepts nothing more, the process has to restart.
    #[error("store is broken and takes no more writes: {0}")]
    Poisoned(String),
    /// The lease was lost to another worker or an operator.
    #[error("lease was lost")]
    LeaseLost,
    /// No such event, or nothing of it in a state that fits.
    #[error("not found")]
    NotFound,
    /// The body is not there any more (`store_body = false`): it cannot be delivered again.
    #[error("the body was removed after delivery")]
    BodyRemoved,
    /// What is stored is not what was written: it is not used.
    #[error("stored data is damaged: {0}; run `hookward store verify -c FILE`")]
    Damaged(String),
    /// The body was encrypted with a key that is not configured.
    #[error("the body is encrypted with the key {0}, which is not among `store.encryption`")]
    KeyMissing(String),
}

/// Everything Hookward asks of a store.
pub trait EventStore: Send + Sync + fmt::Debug + 'static {
    /// Stores an event with its keys and deliveries in one transaction, or says that it is known. Answers after
    /// the transaction is durable.
    fn append(&self, event: NewEvent) -> BoxFuture<'_, Result<Appended, StoreError>>;
    /// What is known of these keys. Counts a copy and records its unknown keys (not durable at once).
    fn lookup(&self, keys: Keys) -> BoxFuture<'_, Result<Known, StoreError>>;
    /// Records the keys of a webhook that an upstream took (`proxy`), with the answer to keep. With `fsync`
    /// the future waits until it is durable; without, it is durable at most 100 ms later. `source` is whose share
    /// the keys count in where keys are bounded (memory).
    fn record(
        &self,
        id: EventId,
        source: &Name,
        keys: Keys,
        answer: Option<(Answer, Duration)>,
        fsync: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Counts a copy that the guard recognised by itself. Best effort, never waits.
    fn count_copy(&self, first: EventId);
    /// Takes up to `max` due deliveries of an upstream for `length`; a lease that lapses makes them due again. Sources
    /// take turns; of one source the longest due comes first. Bodies of a call sum up to [`LEASE_BYTES_MAX`] at most,
    /// or are of one event. What is damaged becomes a dead letter.
    fn lease(&self, upstream: &str, max: usize, length: Duration) -> BoxFuture<'_, Result<Vec<Leased>, StoreError>>;
    /// In how long the next delivery of an upstream falls due (zero: now); `None` if there is none.
    fn next_due(&self, upstream: &str) -> BoxFuture<'_, Result<Option<Duration>, StoreError>>;
    /// Records how an attempt ended. [`StoreError::LeaseLost`] if the lease is not current: nothing is recorded.
    fn settle(&self, lease: Lease, settled: Settled) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Gives a lease back untried: due again after this long, no attempt counted.
    fn give_back(&self, lease: Lease, after: Duration) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Makes the held deliveries of an event due. Returns how many.
    fn release(&self, id: EventId) -> BoxFuture<'_, Result<u32, StoreError>>;
    /// Makes the deliveries of an event due again, whatever their state but leased or held; with `upstream`
    /// only that one, made anew if the event has none to it. Returns how many.
    fn redeliver(&self, id: EventId, upstream: Option<&str>) -> BoxFuture<'_, Result<u32, StoreError>>;
    /// Frees the keys of an event, so that the same webhook is accepted anew. Returns how many.
    fn forget(&self, id: EventId) -> BoxFuture<'_, Result<u64, StoreError>>;
    /// Removes an event with its keys, deliveries and history. [`StoreError::NotFound`] if a worker has it.
    fn purge(&self, id: EventId) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Parks what is due or leased to upstreams not named here, and arms what was parked for those that are.
    /// Returns how many are parked after it, by upstream.
    fn reconcile(&self, upstreams: &[Name]) -> BoxFuture<'_, Result<BTreeMap<Name, u64>, StoreError>>;
    /// A page of at most `limit` events, capped at 1000.
    fn list(&self, filter: Filter, direction: Direction, limit: usize) -> BoxFuture<'_, Result<Page, StoreError>>;
    /// Counts a part of what a filter fits, oldest first.
    fn count(&self, filter: Filter) -> BoxFuture<'_, Result<Counted, StoreError>>;
    /// Does something to each of these events, and saves how far the operation got, in one transaction. `done` and
    /// `skipped` of the operation are as before the call; those of the returned one count this part, too.
    /// What fits no event of it is skipped, not an error.
    fn act(&self, act: Act, ids: Vec<EventId>, operation: Operation) -> BoxFuture<'_, Result<Operation, StoreError>>;
    /// Saves an operation: begun, stopped, resumed. Of those that do not run the latest 100
    /// are kept, and this one.
    fn save_operation(&self, operation: Operation) -> BoxFuture<'_, Result<(), StoreError>>;
    /// All that are kept, newest first.
    fn operations(&self) -> BoxFuture<'_, Result<Vec<Operation>, StoreError>>;
    /// Remembers that an upstream is paused, or with `None` that it is not. The lanes do the pausing.
    fn set_paused(&self, upstream: &str, pause: Option<Pause>) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Which upstreams are paused.
    fn paused(&self) -> BoxFuture<'_, Result<BTreeMap<Name, Pause>, StoreError>>;
    /// When this store was restored from a backup, if it was: what was signed before may have been accepted already.
    fn restored_at(&self) -> Option<Wall>;
    /// One event in full.
    fn show(&self, id: EventId) -> BoxFuture<'_, Result<Shown, StoreError>>;
    /// Which of these items an upstream has acknowledged, and with what content: one entry per item asked.
    fn acknowledged_items(
        &self,
        upstream: &str,
        items: Vec<Item>,
    ) -> BoxFuture<'_, Result<Vec<Option<[u8; 32]>>, StoreError>>;
    /// Removes what has expired, a slice at a time. `retention` is that of delivered events.
    fn sweep(&self, retention: Duration) -> BoxFuture<'_, Result<Swept, StoreError>>;
    /// Numbers.
    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>>;
    /// Whether an append would be tried now.
    fn health(&self) -> Result<(), StoreError>;
    /// Resolves whenever a delivery to this upstream may have become due: after an append, a release, a
    /// redelivery, a re-arming. May resolve without need.
    fn woken(&self, upstream: &str) -> BoxFuture<'static, ()>;
    /// Resolves once whatever writes has got on with its work, or is gone; not while it hangs. Neither a full disk nor
    /// a fault keeps it from resolving.
    fn beat(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    /// Finishes what was handed over and closes. Nothing is accepted after it.
    fn close(&self) -> BoxFuture<'_, ()>;
}
