//! Flights: a flight owns the outcome of one set of keys. Requests only wait for it.
//!
//! A flight is `Open`, then perhaps `Durable`, then `Landed`, forward only. Its keys are in the table from
//! `enter` until `land`, which first remembers the keys of a success and then removes them from the table, in
//! one critical section, and publishes after it: whoever is woken finds the truth. The lock is never held
//! across an await. `tests/shuttle.rs` explores the interleavings.

use std::{collections::HashMap, fmt, hash::Hash, num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use tokio::sync::watch;

use super::sync::Mutex;

/// The keys of one webhook, as the guard needs them. `K` is a key, `D` the digest of a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Set<K, D> {
    /// All keys.
    pub keys: Vec<K>,
    /// Tells a copy from a conflict.
    pub body: D,
    /// A key that, when known with the same body, settles it without asking the store: the replay key of a
    /// scheme that signs a time. Everything else may be a re-send, which only the store can judge.
    pub exact: Option<K>,
}

/// What is known of a flight.
#[derive(Clone, PartialEq, Debug)]
pub enum Phase<I, T> {
    /// In the air, nothing durable.
    Open,
    /// The event is on disk: from here on no deadline turns the answer into a refusal.
    Durable(I),
    /// Over, with this outcome.
    Landed(T),
}

/// What became of an attempt to enter.
#[derive(Debug)]
pub enum Entry<K: Eq + Hash + Copy, D: Copy, I: Copy, T> {
    /// The exact same bytes are known as this event.
    Known(I),
    /// One of the keys is in the air: wait for it.
    Wait(Watch<K, D, I, T>),
    /// The caller flies.
    Lead(Flight<K, D, I, T>),
}

/// The view of a flight that waits.
#[derive(Debug)]
pub struct Watch<K, D, I, T> {
    phase: watch::Receiver<Phase<I, T>>,
    set: Arc<Set<K, D>>,
}

impl<K, D, I, T> Clone for Watch<K, D, I, T> {
    fn clone(&self) -> Self {
        Self { phase: self.phase.clone(), set: self.set.clone() }
    }
}

/// The duty to say how it ended. Dropped without landing (a panic, an abandoned task), it lands `lost`.
#[derive(Debug)]
pub struct Flight<K: Eq + Hash + Copy, D: Copy, I: Copy, T> {
    flights: Arc<Flights<K, D, I, T>>,
    set: Arc<Set<K, D>>,
    phase: watch::Sender<Phase<I, T>>,
    landed: bool,
    uncertain: bool,
}

/// The table of flights and the memory of known keys.
pub struct Flights<K, D, I, T> {
    table: Mutex<Table<K, D, I, T>>,
    lost: fn() -> T,
}

struct Table<K, D, I, T> {
    flying: HashMap<K, Watch<K, D, I, T>>,
    known: LruCache<K, (I, D)>,
    /// Keys whose last flight ended without anybody knowing whether the upstream took it.
    uncertain: LruCache<K, ()>,
}

impl<K, D, I, T> fmt::Debug for Flights<K, D, I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flights")
    }
}

/// How many uncertain keys are remembered. Each costs about 100 bytes.
const UNCERTAIN_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

impl<K, D, I, T> Flights<K, D, I, T>
where
    K: Eq + Hash + Copy,
    D: Eq + Copy,
    I: Copy,
{
    /// An empty table that remembers `capacity` keys. `lost` is the outcome of a flight that nobody landed.
    pub fn new(capacity: NonZeroUsize, lost: fn() -> T) -> Arc<Self> {
        // The map grows as it fills: a configured capacity is a bound, not a reservation.
        let mut known = LruCache::unbounded();
        known.resize(capacity);
        let mut uncertain = LruCache::unbounded();
        uncertain.resize(UNCERTAIN_MAX);
        Arc::new(Self { table: Mutex::new(Table { flying: HashMap::new(), known, uncertain }), lost })
    }

    /// All keys or none, in one critical section: nobody holds one key while waiting for another.
    pub fn enter(self: &Arc<Self>, set: Arc<Set<K, D>>) -> Entry<K, D, I, T> {
        let mut table = self.table.lock().expect("no panic while the table is locked");
        for key in &set.keys {
            if let Some(watch) = table.flying.get(key) {
                return Entry::Wait(watch.clone());
            }
        }
        if let Some((id, _)) = set.exact.as_ref().and_then(|key| table.known.get(key)).filter(|(_, b)| *b == set.body) {
            return Entry::Known(*id);
        }
        let uncertain = set.keys.iter().any(|key| table.uncertain.contains(key));
        let (phase, watching) = watch::channel(Phase::Open);
        for key in &set.keys {
            table.flying.insert(*key, Watch { phase: watching.clone(), set: set.clone() });
        }
        Entry::Lead(Flight { flights: self.clone(), set, phase, landed: false, uncertain })
    }

    /// Drops the keys of these events from memory, so that the store decides about them again. One pass through the
    /// whole memory, while everybody waits: so it is for many events at once.
    pub fn forget(&self, ids: &[I])
    where
        I: Ord,
    {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        let mut table = self.table.lock().expect("no panic while the table is locked");
        let is_meant = |known: &I| ids.binary_search(known).is_ok();
        let keys: Vec<K> = table.known.iter().filter(|(_, (known, _))| is_meant(known)).map(|(key, _)| *key).collect();
        for key in keys {
            table.known.pop(&key);
        }
    }

    /// How many keys are remembered or in the air.
    pub fn held(&self) -> usize {
        let table = self.table.lock().expect("no panic while the table is locked");
        table.known.len() + table.uncertain.len() + table.flying.len()
    }

    /// How many keys are in the air.
    pub fn flying(&self) -> usize {
        self.table.lock().expect("no panic while the table is locked").flying.len()
    }
}

impl<K, D, I, T> Flight<K, D, I, T>
where
    K: Eq + Hash + Copy,
    D: Copy,
    I: Copy,
{
    /// A view of this flight, to wait like any copy.
    pub fn watch(&self) -> Watch<K, D, I, T> {
        Watch { phase: self.phase.subscribe(), set: self.set.clone() }
    }

    /// Whether an earlier flight of one of these keys ended without anybody knowing whether the upstream took it.
    pub fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// The event is on disk. Remembered and published; the keys stay in the air, so that copies still get the
    /// upstream's answer.
    pub fn durable(&self, id: I) {
        self.flights.table.lock().expect("no panic while the table is locked").remember(&self.set, id);
        self.phase.send_replace(Phase::Durable(id));
    }

    /// The end. `known` is the event that the keys stand for from now on; `None` frees them.
    pub fn land(mut self, outcome: T, known: Option<I>) {
        self.finish(outcome, known, false);
    }

    /// The end of an attempt whose outcome nobody knows: the keys are free, the next flight is told.
    pub fn land_uncertain(mut self, outcome: T) {
        self.finish(outcome, None, true);
    }

    fn finish(&mut self, outcome: T, known: Option<I>, uncertain: bool) {
        self.landed = true;
        {
            let mut table = self.flights.table.lock().expect("no panic while the table is locked");
            if let Some(id) = known {
                table.remember(&self.set, id);
            }
            for key in &self.set.keys {
                table.flying.remove(key);
                if uncertain {
                    table.uncertain.put(*key, ());
                } else if known.is_some() {
                    table.uncertain.pop(key);
                }
            }
        } // Known, or free, before anybody is woken.
        self.phase.send_replace(Phase::Landed(outcome));
    }
}

impl<K: Eq + Hash + Copy, D: Copy, I: Copy, T> Drop for Flight<K, D, I, T> {
    fn drop(&mut self) {
        if !self.landed {
            let lost = (self.flights.lost)();
            self.finish(lost, None, false);
        }
    }
}

impl<K: PartialEq, D: Eq, I, T: Clone> Watch<K, D, I, T> {
    /// Waits for the end.
    pub async fn landed(&mut self) -> T {
        let seen = self.phase.wait_for(|phase| matches!(phase, Phase::Landed(_))).await;
        match &*seen.expect("a flight lands before its sender goes") {
            Phase::Landed(outcome) => outcome.clone(),
            _ => unreachable!("waited for a landing"),
        }
    }
    /// What is known now. One look: it may land between two.
    pub fn now(&self) -> Phase<I, T>
    where
        I: Clone,
    {
        self.phase.borrow().clone()
    }
    /// Whether the flight carries the same body.
    pub fn is_copy(&self, set: &Set<K, D>) -> bool {
        self.set.body == set.body
    }
    /// Whether the flight carries the very same keys.
    pub fn has_same_keys(&self, set: &Set<K, D>) -> bool {
        self.set.keys == set.keys
    }
}

impl<K: Eq + Hash + Copy, D: Copy, I: Copy, T> Table<K, D, I, T> {
    fn remember(&mut self, set: &Set<K, D>, id: I) {
        // Nothing but `exact` is ever looked up: another key would only push one out that is.
        if let Some(key) = set.exact {
            self.known.put(key, (id, set.body));
        }
    }
}
