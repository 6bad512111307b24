//! What the writer knows between jobs: numbers, who is to be woken, how much room there is.
//!
//! Numbers for status, metrics and shares are kept in memory. A transaction's part of them is apart until its commit,
//! which writes those that changed, so that nothing has to be read again after a rollback.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, PoisonError},
};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    job::Shared,
    open::DiskLimits,
    rows::{self, Sql},
    seal::{COUNTS, TOTALS},
    spare::Spare,
};
use crate::{
    event::{Name, State},
    store::vault::Vault,
};

/// Deliveries of one upstream in one state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Count {
    pub(super) n: i64,
    pub(super) bytes: i64,
}

/// Every number that is kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Tallies {
    pub(super) counts: BTreeMap<(Name, State), Count>,
    pub(super) events: i64,
    pub(super) keys: i64,
    pub(super) unrouted: i64,
}

impl Tallies {
    pub(super) fn of(&self, upstream: &Name, state: State) -> Count {
        self.counts.get(&(Name::clone(upstream), state)).copied().unwrap_or_default()
    }

    /// Bytes in every state but delivered.
    pub(super) fn open_bytes(&self, upstream: &Name) -> i64 {
        let open = State::ALL.into_iter().filter(|state| *state != State::Delivered);
        open.map(|state| self.of(upstream, state).bytes).sum()
    }

    /// The same of all upstreams.
    fn all_open_bytes(&self) -> i64 {
        let open = self.counts.iter().filter(|((_, state), _)| *state != State::Delivered);
        open.map(|(_, count)| count.bytes).sum()
    }

    /// The leases of another process are over.
    pub(super) fn leased_are_due(&mut self) {
        let leased: Vec<Name> =
            self.counts.keys().filter(|key| key.1 == State::Leased).map(|key| Name::clone(&key.0)).collect();
        for upstream in leased {
            let Count { n, bytes } = self.counts.remove(&(Name::clone(&upstream), State::Leased)).unwrap_or_default();
            self.add(&upstream, State::Due, n, bytes);
        }
    }

    fn add(&mut self, upstream: &Name, state: State, n: i64, bytes: i64) {
        let count = self.counts.entry((Name::clone(upstream), state)).or_default();
        count.n += n;
        count.bytes += bytes;
    }

    const fn totals(&self) -> [(&'static str, i64); 3] {
        [("events", self.events), ("keys", self.keys), ("unrouted", self.unrouted)]
    }
}

/// What the writer knows between jobs.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) limits: DiskLimits,
    pub(super) spare: Spare,
    pub(super) vault: Vault,
    /// With the numbers as of the latest commit.
    pub(super) shared: Arc<Shared>,
    pub(super) next: NextNumbers,
    /// The upstreams of the configuration, once somebody reconciled.
    pub(super) configured: Option<BTreeSet<Name>>,
    /// Which source each upstream was served of last.
    pub(super) served: BTreeMap<Name, Name>,
    /// Whom to wake after the commit.
    pub(super) wake: BTreeSet<Name>,
    /// Bytes until the soft limit, if they were looked up in this transaction.
    pub(super) room_bytes: Option<u64>,
    pub(super) full: bool,
    /// The file has become shorter in the log, and is as long as before on the disk.
    pub(super) shrunk: bool,
    /// A damaged delivery was counted as something that it perhaps was not: the next opening counts anew.
    pub(super) miscounted: bool,
    /// What this transaction adds to the numbers.
    pub(super) added: Tallies,
    changes_before: u64,
}

/// The first free number of each table. Numbers of deliveries are not used twice while leases of them may be around.
#[derive(Clone, Copy, Debug)]
pub(super) struct NextNumbers {
    pub(super) delivery: i64,
    pub(super) event: i64,
    pub(super) key: i64,
}

pub(super) static SAVE_COUNT: Sql = Sql::new(|| COUNTS.insert("REPLACE"));
pub(super) static SAVE_TOTAL: Sql = Sql::new(|| TOTALS.insert("REPLACE"));

impl Books {
    pub(super) fn new(
        connection: &Connection,
        shared: Arc<Shared>,
        limits: DiskLimits,
        spare: Spare,
        vault: Vault,
        next: NextNumbers,
    ) -> Self {
        Self {
            limits,
            spare,
            vault,
            shared,
            next,
            configured: None,
            served: BTreeMap::new(),
            wake: BTreeSet::new(),
            room_bytes: None,
            full: false,
            shrunk: false,
            miscounted: false,
            added: Tallies::default(),
            changes_before: connection.total_changes(),
        }
    }

    pub(super) fn wrote(&self, connection: &Connection) -> bool {
        connection.total_changes() != self.changes_before
    }

    pub(super) fn is_full(&self) -> bool {
        self.full || !self.spare.is_there()
    }

    pub(super) fn is_configured(&self, upstream: &str) -> bool {
        self.configured.as_ref().is_none_or(|all| all.contains(upstream))
    }

    /// A delivery changed its state; one that began has none before, one that was removed none after.
    pub(super) fn moved(&mut self, upstream: &Name, before: Option<State>, now: Option<State>, bytes: i64) {
        self.moved_many(upstream, before, now, Count { n: 1, bytes });
    }

    pub(super) fn moved_many(&mut self, upstream: &Name, before: Option<State>, now: Option<State>, count: Count) {
        if before == now {
            return;
        }
        if let Some(before) = before {
            self.added.add(upstream, before, -count.n, -count.bytes);
        }
        if let Some(now) = now {
            self.added.add(upstream, now, count.n, count.bytes);
        }
    }

    /// The number as of now, with what this transaction adds.
    pub(super) fn count(&self, upstream: &Name, state: State) -> Count {
        let (committed, added) =
            (self.committed_tallies(|all| all.of(upstream, state)), self.added.of(upstream, state));
        Count { n: (committed.n + added.n).max(0), bytes: (committed.bytes + added.bytes).max(0) }
    }

    /// What deliveries to an upstream take that are not delivered.
    pub(super) fn open_bytes(&self, upstream: &Name) -> u64 {
        let bytes = self.committed_tallies(|all| all.open_bytes(upstream)) + self.added.open_bytes(upstream);
        u64::try_from(bytes).unwrap_or(0)
    }

    /// What all deliveries take that are not delivered.
    pub(super) fn all_open_bytes(&self) -> u64 {
        let bytes = self.committed_tallies(Tallies::all_open_bytes) + self.added.all_open_bytes();
        u64::try_from(bytes).unwrap_or(0)
    }

    /// Every upstream that ever had a delivery.
    pub(super) fn upstreams(&self) -> BTreeSet<Name> {
        let mut all: BTreeSet<Name> = self.added.counts.keys().map(|(upstream, _)| Name::clone(upstream)).collect();
        self.committed_tallies(|tallies| all.extend(tallies.counts.keys().map(|(upstream, _)| Name::clone(upstream))));
        all
    }

    fn committed_tallies<T>(&self, read: impl FnOnce(&Tallies) -> T) -> T {
        read(&self.shared.tallies.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes the numbers that this transaction changed.
    pub(super) fn save(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.added.counts.retain(|_, count| *count != Count::default());
        for (upstream, state) in self.added.counts.keys() {
            let Count { n, bytes } = self.count(upstream, *state);
            connection.prepare_cached(&SAVE_COUNT)?.execute(params![upstream, state.name(), n, bytes])?;
        }
        let committed = self.committed_tallies(Tallies::totals);
        for ((what, before), (_, added)) in committed.into_iter().zip(self.added.totals()) {
            if added != 0 {
                connection.prepare_cached(&SAVE_TOTAL)?.execute((what, before + added))?;
            }
        }
        if self.miscounted {
            connection.execute("DELETE FROM totals", [])?;
        }
        Ok(())
    }

    /// Ends a transaction's entries. Returns whom to wake.
    pub(super) fn committed(&mut self, connection: &Connection) -> BTreeSet<Name> {
        let added = mem::take(&mut self.added);
        if added != Tallies::default() {
            let mut all = self.shared.tallies.lock().unwrap_or_else(PoisonError::into_inner);
            for ((upstream, state), count) in added.counts {
                all.add(&upstream, state, count.n, count.bytes);
            }
            all.events += added.events;
            all.keys += added.keys;
            all.unrouted += added.unrouted;
        }
        self.end(connection)
    }

    /// The entries of this transaction up to here, for undoing what comes after.
    pub(super) fn mark(&self) -> (Tallies, BTreeSet<Name>) {
        (self.added.clone(), self.wake.clone())
    }

    pub(super) fn back_to(&mut self, mark: (Tallies, BTreeSet<Name>)) {
        (self.added, self.wake) = mark;
    }

    pub(super) fn rolled_back(&mut self, connection: &Connection) {
        self.added = Tallies::default();
        drop(self.end(connection));
    }

    fn end(&mut self, connection: &Connection) -> BTreeSet<Name> {
        self.changes_before = connection.total_changes();
        self.room_bytes = None;
        mem::take(&mut self.wake)
    }
}

/// The numbers as they were saved, or counted if they are damaged or were never saved.
pub(super) fn open_tallies(connection: &Connection) -> rusqlite::Result<Tallies> {
    match saved(connection)? {
        Some(tallies) => Ok(tallies),
        None => counted(connection),
    }
}

pub(super) fn save_all(connection: &Connection, tallies: &Tallies) -> rusqlite::Result<()> {
    connection.execute_batch("DELETE FROM counts; DELETE FROM totals")?;
    for ((upstream, state), Count { n, bytes }) in &tallies.counts {
        connection.prepare_cached(&SAVE_COUNT)?.execute(params![upstream, state.name(), n, bytes])?;
    }
    for total in tallies.totals() {
        connection.prepare_cached(&SAVE_TOTAL)?.execute(total)?;
    }
    Ok(())
}

fn saved(connection: &Connection) -> rusqlite::Result<Option<Tallies>> {
    let mut tallies = Tallies::default();
    for (what, total) in
        [("events", &mut tallies.events), ("keys", &mut tallies.keys), ("unrouted", &mut tallies.unrouted)]
    {
        let found = connection
            .prepare(&format!("SELECT {} FROM totals WHERE what = ?1", TOTALS.listed()))?
            .query_row([what], |row| TOTALS.read(row, 0, |row, at| Ok((row.get::<_, String>(at)?, row.get(at + 1)?))))
            .optional()?;
        match found.flatten() {
            Some((name, n)) if name == what => *total = n,
            _ => return Ok(None),
        }
    }
    let mut statement = connection.prepare(&format!("SELECT {} FROM counts", COUNTS.listed()))?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let count = COUNTS.read(row, 0, |row, at| {
            let count = Count { n: row.get(at + 2)?, bytes: row.get(at + 3)? };
            Ok(((row.get(at)?, rows::state(row, at + 1)?), count))
        })?;
        let Some((place, count)) = count else { return Ok(None) };
        tallies.counts.insert(place, count);
    }
    Ok(Some(tallies))
}

fn counted(connection: &Connection) -> rusqlite::Result<Tallies> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get(0));
    let mut tallies = Tallies {
        events: number("SELECT count(*) FROM events")?,
        keys: number("SELECT count(*) FROM keys")?,
        unrouted: number("SELECT count(*) FROM events WHERE unrouted = 1")?,
        counts: BTreeMap::new(),
    };
    let mut statement = connection.prepare(
        "SELECT upstream, state, count(*), sum(CASE WHEN bytes BETWEEN 0 AND 1 << 40 THEN bytes ELSE 0 END)
             FROM deliveries GROUP BY upstream, state",
    )?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        // A damaged delivery may say anything: what can be counted is.
        let place = row.get(0).and_then(|upstream| Ok((upstream, rows::state(row, 1)?)));
        let count = row.get(2).and_then(|n| Ok(Count { n, bytes: row.get(3)? }));
        if let (Ok(place), Ok(count)) = (place, count) {
            tallies.counts.insert(place, count);
        }
    }
    Ok(tallies)
}
