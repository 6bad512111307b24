//! Random operations against both engines: whatever one says, the other says, and after every step they hold the same.
//!
//! A crash of the embedded engine is a copy of its files while it is open, which another store then opens.

mod ops;

use std::{fmt::Write, path::Path, sync::Arc, time::Duration};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    Act, Appended, Direction, EventStore, Filter, JsonIs, Lease, Operation, OperationState, Outcome, Pause, Settled,
    conformance::{EPOCH_S, Engine, event, flush, keys, settled},
    memory::{self, MemoryStore},
};
use crate::{
    config::model::OnFull,
    event::{Answer, Begin, Body, EventId, Hold, Name, NewEvent, OnConflict, OnResend, OrderKey, State},
    time::{Clock, Wall},
    verify::Keys,
};
use ops::{Asked, Op};

const UPSTREAMS: [&str; 3] = ["a", "b", "c"];
const SOURCES: [&str; 3] = ["shop", "bank", "post"];
/// What an event may be for, by place.
const ROUTES: [&[&str]; 4] = [&["a"], &["a", "b"], &["b", "c"], &[]];
/// Equal numbers are equal bodies.
const BODIES: [&str; 3] = [r#"{"n":0}"#, r#"{"n":"1","m":true}"#, "no JSON"];

/// One engine with what it handed out.
struct Side {
    store: Arc<dyn EventStore>,
    leases: Vec<Lease>,
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}

fn webhook(op: &ops::Append, new: EventId, now: Wall) -> NewEvent {
    let keys = Keys { timed: op.timed, ..keys(op.signed, op.event, op.body) };
    let mut webhook = NewEvent {
        body: Body::free(BODIES[op.body as usize]),
        begin: match op.begin {
            0 => Begin::FirstLeased(minutes(1)),
            1 => Begin::Held(Hold::Stale),
            _ => Begin::Due,
        },
        on_conflict: [OnConflict::Hold, OnConflict::Deliver, OnConflict::Drop][op.on_conflict],
        on_resend: if op.again { OnResend::Deliver } else { OnResend::Drop },
        order_key: op.order_key.and_then(OrderKey::new),
        keep_body: op.keep_body,
        ..event(keys, ROUTES[op.route])
    };
    (webhook.head.id, webhook.head.received_at) = (new, now);
    webhook.head.source = SOURCES[op.source].into();
    webhook.head.event_type = (op.source != 0).then(|| "order.paid".to_owned());
    webhook.head.attempt_id = (op.signed != 0).then(|| format!("try-{}", op.signed));
    webhook
}

fn operation(n: u8, state: OperationState) -> Operation {
    Operation {
        id: EventId::from_bytes([n; 16]),
        spec: "all of it".to_owned(),
        state,
        reason: None,
        cursor: Some(EventId::from_bytes([n + 1; 16])),
        total: 9,
        done: 1,
        skipped: 2,
        created_at: Wall::from_unix_s(EPOCH_S),
        changed_at: Wall::from_unix_s(EPOCH_S),
    }
}

fn filter(asked: &Asked, ids: &[EventId]) -> Filter {
    let id = |index: usize| ids.get(index).copied();
    let at = |minutes: u64| Wall::from_unix_s(EPOCH_S + i64::try_from(minutes).expect("few") * 60);
    let key = |(is_replay, n): (bool, u32)| {
        let keys = keys(n, n, 0);
        if is_replay { keys.replay } else { keys.event }.map(|lived| lived.key)
    };
    let json = |(pointer, value): (&str, &str)| JsonIs { pointer: pointer.to_owned(), value: value.to_owned() };
    Filter {
        source: asked.source.map(|index| SOURCES[index].to_owned()),
        upstream: asked.upstream.map(|index| UPSTREAMS[index].to_owned()),
        state: asked.state.map(|index| State::ALL[index]),
        unrouted: asked.unrouted,
        event_type: asked.event_type.then(|| "order.paid".to_owned()),
        since: asked.since.map(at),
        until: asked.until.map(at),
        attempt_id: asked.attempt_id.map(|n| format!("try-{n}")),
        id: asked.id.and_then(id),
        key: asked.key.and_then(key),
        json: asked.json.map(json),
        before: asked.before.and_then(id),
        after: asked.after.and_then(id),
    }
}

impl Side {
    /// Does it, and says what happened in words that do not depend on the engine.
    async fn apply(&mut self, op: &Op, new: EventId, now: Wall, ids: &[EventId]) -> String {
        let store = &*self.store;
        let id = |index: usize| ids.get(index).copied().unwrap_or(EventId::from_bytes([3; 16]));
        let nobodys = Lease { delivery: -1, fence: 0 };
        let lease = |index: usize| self.leases.iter().rev().nth(index).copied().unwrap_or(nobodys);
        let answer = |body: u8| Answer { status: 200, content_type: None, body: vec![body].into() };
        match op {
            Op::Append(append) => {
                let appended = store.append(webhook(append, new, now)).await;
                if let Ok(Appended::New { id, lease, duplicate_of }) = appended {
                    self.leases.extend(lease);
                    return format!("new {id} {} {duplicate_of:?}", lease.is_some());
                }
                format!("{appended:?}")
            }
            Op::Lookup { signed, event, body } => format!("{:?}", store.lookup(keys(*signed, *event, *body)).await),
            Op::Record { signed, event, body, fsync } => {
                let answer = fsync.then(|| (answer(1), minutes(30)));
                format!("{:?}", store.record(new, &"shop".into(), keys(*signed, *event, *body), answer, *fsync).await)
            }
            Op::Lease { upstream, max } => {
                let leased = store.lease(UPSTREAMS[*upstream], *max, minutes(5)).await.unwrap();
                self.leases.extend(leased.iter().map(|one| one.lease));
                let mut text = String::new();
                for mut one in leased {
                    one.lease = nobodys;
                    writeln!(text, "{one:?} {:?}", one.event.body.bytes()).unwrap();
                }
                text
            }
            Op::Settle { lease: index, outcome, uncertain } => {
                let outcome = match outcome {
                    0 => Outcome::Retry { after: minutes(7) },
                    1 => Outcome::Dead { reason: "status 410".to_owned() },
                    _ => Outcome::Delivered { items: Vec::new() },
                };
                let answer = Some((answer(2), minutes(60)));
                let settled = Settled { answer, uncertain: *uncertain, ..settled(1, outcome) };
                format!("{:?}", store.settle(lease(*index), settled).await)
            }
            Op::GiveBack { lease: index } => format!("{:?}", store.give_back(lease(*index), minutes(1)).await),
            Op::Release { event } => format!("{:?}", store.release(id(*event)).await),
            Op::Redeliver { event, upstream } => {
                format!("{:?}", store.redeliver(id(*event), upstream.map(|index| UPSTREAMS[index])).await)
            }
            Op::Forget { event } => format!("{:?}", store.forget(id(*event)).await),
            Op::Purge { event } => format!("{:?}", store.purge(id(*event)).await),
            Op::Act { act, upstream, events, operation: n } => {
                let to = upstream.map(|index| UPSTREAMS[index].into());
                let dead = Act::Redeliver { to: to.clone(), state: Some(State::Dead) };
                let any = Act::Redeliver { to, state: None };
                let act = [any, dead, Act::Release, Act::Forget, Act::Purge][*act].clone();
                let events = events.iter().map(|index| id(*index)).collect();
                format!("{:?}", store.act(act, events, operation(*n, OperationState::Running)).await)
            }
            Op::SaveOperation { operation: n, state } => {
                format!("{:?}", store.save_operation(operation(*n, OperationState::ALL[*state])).await)
            }
            Op::Pause { upstream, is_paused } => {
                let pause = is_paused.then(|| Pause { since: now, by: "anna".to_owned() });
                format!("{:?}", store.set_paused(UPSTREAMS[*upstream], pause).await)
            }
            Op::List { asked, oldest_first, limit } => {
                let direction = if *oldest_first { Direction::OldestFirst } else { Direction::NewestFirst };
                format!("{:?}", store.list(filter(asked, ids), direction, *limit).await)
            }
            Op::Count { asked } => format!("{:?}", store.count(filter(asked, ids)).await),
            Op::Reconcile { configured } => {
                let names = UPSTREAMS.iter().zip(configured).filter(|(_, is)| **is);
                let names: Vec<Name> = names.map(|(name, _)| Name::from(*name)).collect();
                format!("{:?}", store.reconcile(&names).await)
            }
            Op::Sweep { retention_min } => format!("{:?}", store.sweep(minutes(*retention_min)).await),
            Op::Advance { .. } | Op::Reopen | Op::Crash => String::new(),
        }
    }

    /// Everything that can be seen of it.
    async fn state(&self) -> String {
        let store = &*self.store;
        flush(store).await;
        let mut stats = store.stats().await.unwrap();
        stats.bytes = 0;
        stats.open_bytes.retain(|_, bytes| *bytes > 0);
        let mut text = format!("{stats:#?}\n");
        for upstream in UPSTREAMS {
            writeln!(text, "{upstream} is due in {:?}", store.next_due(upstream).await).unwrap();
        }
        for listed in store.list(Filter::default(), Direction::NewestFirst, 100).await.unwrap().events {
            let shown = store.show(listed.head.id).await.unwrap();
            writeln!(text, "{listed:?}\n{shown:#?}\n{:?}", shown.event.body.bytes()).unwrap();
        }
        writeln!(text, "{:?}\n{:?}", store.operations().await, store.paused().await).unwrap();
        text
    }
}

/// Both engines, and what the embedded one lies in.
struct Pair {
    memory: Side,
    embedded: Side,
    engine: Arc<MemoryStore>,
    directory: TempDir,
    clock: Clock,
}

impl Pair {
    fn new() -> Self {
        let clock = Clock::starting_at(Wall::from_unix_s(EPOCH_S));
        let directory = tempfile::tempdir().unwrap();
        let options = memory::Options {
            keys_max: 1000,
            on_full: OnFull::Refuse,
            bytes_max: 64 << 20,
            disk_share_max: SHARE,
            clock: clock.clone(),
        };
        let engine = MemoryStore::new(&options);
        let embedded = Engine::Embedded.open(directory.path(), SHARE, &clock);
        let [memory, embedded] =
            [Arc::clone(&engine) as Arc<dyn EventStore>, embedded].map(|store| Side { store, leases: Vec::new() });
        Self { memory, embedded, engine, directory, clock }
    }

    async fn reopen(&mut self) {
        self.embedded.store.close().await;
        self.embedded.store = Engine::Embedded.open(self.directory.path(), SHARE, &self.clock);
        self.engine.restart();
    }

    /// As [`Pair::reopen`], but with what is on disk while the store is open.
    async fn crash(&mut self) {
        flush(&*self.embedded.store).await;
        let copy = tempfile::tempdir().unwrap();
        copy_database(self.directory.path(), copy.path());
        self.embedded.store.close().await;
        self.embedded.store = Engine::Embedded.open(copy.path(), SHARE, &self.clock);
        self.directory = copy;
        self.engine.restart();
    }

    /// Does it on both sides, which must agree.
    async fn apply(&mut self, op: &Op, new: EventId, ids: &[EventId]) -> Result<(), TestCaseError> {
        let now = self.clock.wall();
        let expected = self.memory.apply(op, new, now, ids).await;
        prop_assert_eq!(expected, self.embedded.apply(op, new, now, ids).await);
        Ok(())
    }
}

fn copy_database(from: &Path, to: &Path) {
    std::fs::copy(from.join("hookward.db"), to.join("hookward.db")).unwrap();
    // Without a log there was nothing to write since the last one was moved into the database file.
    match std::fs::copy(from.join("hookward.db-wal"), to.join("hookward.db-wal")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
}

/// An id of now, behind those of the steps before.
fn id_of(step: usize, now: Wall) -> EventId {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&now.unix_ms().to_be_bytes()[2..]);
    (bytes[6], bytes[8]) = (0x70, 0x80);
    bytes[15] = u8::try_from(step).expect("few steps");
    EventId::from_bytes(bytes)
}

/// Of 64 MiB: some six of the model's events fill it.
const SHARE: f64 = 0.0004;

async fn run(ops: &[Op]) -> Result<(), TestCaseError> {
    let mut pair = Pair::new();
    let (mut ids, mut configured) = (Vec::new(), None);
    for (step, op) in ops.iter().enumerate() {
        let new = id_of(step, pair.clock.wall());
        match op {
            Op::Advance { minutes: advanced } => tokio::time::advance(minutes(*advanced)).await,
            Op::Reopen => pair.reopen().await,
            Op::Crash => pair.crash().await,
            Op::Reconcile { .. } => configured = Some(op.clone()),
            _ => {}
        }
        if let (Op::Reopen | Op::Crash, Some(reconcile)) = (op, &configured) {
            // As at each start.
            pair.apply(reconcile, new, &ids).await?;
        }
        if matches!(op, Op::Append(_) | Op::Record { .. }) {
            ids.insert(0, new);
        }
        pair.apply(op, new, &ids).await?;
        let (expected, found) = (pair.memory.state().await, pair.embedded.state().await);
        prop_assert_eq!(expected, found, "after step {} {:?}", step, op);
    }
    pair.embedded.store.close().await;
    Ok(())
}

/// 64, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig::default();
    ProptestConfig { cases: if asked { default.cases } else { 64 }, failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn both_engines_say_the_same(ops in proptest::collection::vec(ops::op(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
            .block_on(run(&ops))?;
    }
}

/// Found by the above, once in some thousand runs: SQLite kept the rows, memory did not.
#[tokio::test(start_paused = true)]
async fn forgetting_what_has_only_expired_keys_is_the_same_on_both() {
    let record = Op::Record { signed: 0, event: 0, body: 0, fsync: true };
    run(&[record, Op::Advance { minutes: 100_000 }, Op::Forget { event: 0 }]).await.unwrap();
}
