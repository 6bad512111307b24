//! Random operations against both engines: whatever one says, the other says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::{
    Appended, Direction, EventStore, Filter, Lease, Outcome, Settled, StoreError,
    conformance::{EPOCH_S, event, flush, keys, settled},
    memory::{self, MemoryStore},
    sqlite::{self, SqliteStore},
};
use crate::{
    config::model::{Durability, OnFull},
    event::{Answer, Begin, EventId, Hold, Name, NewEvent, OnConflict, OnResend},
    time::{Clock, Wall},
};

const UPSTREAMS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Op {
    Append { signed: u32, event: u32, body: u32, timed: bool, begin: u8, on_conflict: u8, again: bool, both: bool },
    Lookup { signed: u32, event: u32, body: u32 },
    Record { signed: u32, event: u32, body: u32, fsync: bool },
    Lease { upstream: usize, max: usize },
    Settle { lease: usize, outcome: u8 },
    GiveBack { lease: usize },
    Release { event: usize },
    Redeliver { event: usize, upstream: Option<usize> },
    Forget { event: usize },
    Purge { event: usize },
    Reconcile { configured: [bool; 3] },
    Sweep { retention_min: u64 },
    Advance { minutes: u64 },
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let small = 0..3u32;
    let append = (small.clone(), small.clone(), 0..2u32, any::<bool>(), 0..4u8, 0..3u8, any::<bool>(), any::<bool>())
        .prop_map(|(signed, event, body, timed, begin, on_conflict, again, both)| Op::Append {
            signed,
            event,
            body,
            timed,
            begin,
            on_conflict,
            again,
            both,
        });
    prop_oneof![
        6 => append,
        1 => (small.clone(), small.clone(), 0..2u32).prop_map(|(signed, event, body)| Op::Lookup { signed, event, body }),
        1 => (small.clone(), small, 0..2u32, any::<bool>())
            .prop_map(|(signed, event, body, fsync)| Op::Record { signed, event, body, fsync }),
        4 => (0..3usize, 1..3usize).prop_map(|(upstream, max)| Op::Lease { upstream, max }),
        4 => (0..8usize, 0..4u8).prop_map(|(lease, outcome)| Op::Settle { lease, outcome }),
        1 => (0..8usize).prop_map(|lease| Op::GiveBack { lease }),
        1 => (0..8usize).prop_map(|event| Op::Release { event }),
        1 => (0..8usize, proptest::option::of(0..3usize))
            .prop_map(|(event, upstream)| Op::Redeliver { event, upstream }),
        1 => (0..8usize).prop_map(|event| Op::Forget { event }),
        1 => (0..8usize).prop_map(|event| Op::Purge { event }),
        1 => any::<[bool; 3]>().prop_map(|configured| Op::Reconcile { configured }),
        1 => (0..600u64).prop_map(|retention_min| Op::Sweep { retention_min }),
        2 => (1..90u64).prop_map(|minutes| Op::Advance { minutes }),
        1 => Just(Op::Reopen),
    ]
}

/// One engine with what it handed out.
struct Side {
    store: Arc<dyn EventStore>,
    leases: Vec<Lease>,
}

impl Side {
    /// Does it, and says what happened in words that do not depend on the engine.
    async fn apply(&mut self, op: &Op, new: EventId, ids: &[EventId]) -> String {
        let store = &*self.store;
        let id = |index: usize| ids.get(index).copied().unwrap_or(EventId::from_bytes([3; 16]));
        let nobodys = Lease { delivery: -1, fence: 0 };
        let lease = |index: usize| self.leases.iter().rev().nth(index).copied().unwrap_or(nobodys);
        let minutes = Duration::from_mins;
        match *op {
            Op::Append { signed, event: logical, body, timed, begin, on_conflict, again, both } => {
                let keys = crate::verify::Keys { timed, ..keys(signed, logical, body) };
                let upstreams = if both { &UPSTREAMS[..2] } else { &UPSTREAMS[..1] };
                let mut webhook = NewEvent {
                    begin: match begin {
                        0 => Begin::FirstLeased(minutes(1)),
                        1 => Begin::Held(Hold::Stale),
                        _ => Begin::Due,
                    },
                    on_conflict: [OnConflict::Hold, OnConflict::Deliver, OnConflict::Drop][usize::from(on_conflict)],
                    on_resend: if again { OnResend::Deliver } else { OnResend::Drop },
                    ..event(keys, upstreams)
                };
                webhook.head.id = new;
                let appended = store.append(webhook).await;
                if let Ok(Appended::New { id, lease, duplicate_of }) = appended {
                    self.leases.extend(lease);
                    return format!("new {id} {} {duplicate_of:?}", lease.is_some());
                }
                format!("{appended:?}")
            }
            Op::Lookup { signed, event, body } => format!("{:?}", store.lookup(keys(signed, event, body)).await),
            Op::Record { signed, event, body, fsync } => {
                let answer = Answer { status: 200, content_type: None, body: vec![1].into() };
                let answer = fsync.then_some((answer, minutes(30)));
                format!("{:?}", store.record(new, &"shop".into(), keys(signed, event, body), answer, fsync).await)
            }
            Op::Lease { upstream, max } => {
                let leased = store.lease(UPSTREAMS[upstream], max, minutes(5)).await.unwrap();
                self.leases.extend(leased.iter().map(|one| one.lease));
                let shown = leased.iter().map(|one| {
                    format!("{} {} {} {:?} {}", one.event.head.id, one.attempt, one.cause, one.age, one.event.copies)
                });
                shown.collect::<Vec<_>>().join("; ")
            }
            Op::Settle { lease: index, outcome } => {
                let outcome = match outcome {
                    0 => Outcome::Retry { after: minutes(7) },
                    1 => Outcome::Dead { reason: "status 410".to_owned() },
                    _ => Outcome::Delivered { items: Vec::new() },
                };
                let answer = Answer { status: 200, content_type: None, body: vec![2].into() };
                let kept = Settled { answer: Some((answer, minutes(60))), ..settled(1, outcome) };
                format!("{:?}", store.settle(lease(index), kept).await)
            }
            Op::GiveBack { lease: index } => format!("{:?}", store.give_back(lease(index), minutes(1)).await),
            Op::Release { event } => format!("{:?}", store.release(id(event)).await),
            Op::Redeliver { event, upstream } => {
                format!("{:?}", store.redeliver(id(event), upstream.map(|index| UPSTREAMS[index])).await)
            }
            Op::Forget { event } => format!("{:?}", store.forget(id(event)).await),
            Op::Purge { event } => format!("{:?}", store.purge(id(event)).await),
            Op::Reconcile { configured } => {
                let names = UPSTREAMS.iter().zip(configured).filter(|(_, is)| *is);
                let names: Vec<Name> = names.map(|(name, _)| Name::from(*name)).collect();
                format!("{:?}", store.reconcile(&names).await)
            }
            Op::Sweep { retention_min } => format!("{:?}", store.sweep(minutes(retention_min)).await),
            Op::Advance { .. } | Op::Reopen => String::new(),
        }
    }

    /// Everything that can be seen of it.
    async fn state(&self) -> String {
        flush(&*self.store).await;
        let mut stats = self.store.stats().await.unwrap();
        stats.bytes = 0;
        let mut dues = BTreeMap::new();
        for upstream in UPSTREAMS {
            dues.insert(upstream, self.store.next_due(upstream).await.unwrap());
        }
        let mut shown = Vec::new();
        for listed in self.store.list(Filter::default(), Direction::NewestFirst, 100).await.unwrap().events {
            shown.push(self.store.show(listed.head.id).await.unwrap());
        }
        format!("{stats:#?}\n{dues:#?}\n{shown:#?}")
    }
}

async fn run(ops: &[Op]) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().unwrap();
    let epoch = Wall::from_unix_s(EPOCH_S);
    let clock = Clock::starting_at(epoch);
    let open = || -> Arc<dyn EventStore> {
        let options = sqlite::Options {
            directory: directory.path().to_owned(),
            durability: Durability::Os,
            disk_bytes_max: 1 << 30,
            clock: clock.clone(),
        };
        SqliteStore::open(&options).unwrap()
    };
    let memory_options = memory::Options {
        keys_max: 1000,
        on_full: OnFull::Refuse,
        bytes_max: 1 << 30,
        disk_share_max: 0.5,
        clock: clock.clone(),
    };
    let mut memory = Side { store: MemoryStore::new(&memory_options), leases: Vec::new() };
    let mut sqlite = Side { store: open(), leases: Vec::new() };
    let (mut ids, mut configured) = (Vec::new(), None);
    for (step, op) in ops.iter().enumerate() {
        match op {
            Op::Advance { minutes } => tokio::time::advance(Duration::from_mins(*minutes)).await,
            // Memory cannot; with nobody at work the two differ in nothing.
            Op::Reopen => {
                for side in [&mut memory, &mut sqlite] {
                    for lease in side.leases.drain(..) {
                        let given_back = side.store.give_back(lease, Duration::ZERO).await;
                        prop_assert!(matches!(given_back, Ok(()) | Err(StoreError::LeaseLost)));
                    }
                }
                sqlite.store.close().await;
                sqlite.store = open();
                if let Some(reconcile) = &configured {
                    sqlite.apply(reconcile, EventId::from_bytes([0; 16]), &ids).await;
                    memory.apply(reconcile, EventId::from_bytes([0; 16]), &ids).await;
                }
            }
            Op::Reconcile { .. } => configured = Some(op.clone()),
            _ => {}
        }
        let mut bytes = [0; 16];
        bytes[0] = u8::try_from(step + 1).expect("few steps");
        let new = EventId::from_bytes(bytes);
        ids.insert(0, new);
        let (expected, found) = (memory.apply(op, new, &ids).await, sqlite.apply(op, new, &ids).await);
        prop_assert_eq!(expected, found, "step {} {:?}", step, op);
    }
    let (expected, found) = (memory.state().await, sqlite.state().await);
    prop_assert_eq!(expected, found);
    sqlite.store.close().await;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    #[ignore = "until the embedded engine knows order keys, pages and operations"]
    fn both_engines_say_the_same(ops in proptest::collection::vec(op(), 1..50)) {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
            .block_on(run(&ops))?;
    }
}

/// Found by the above, once in some thousand runs: SQLite kept the rows, memory did not.
#[tokio::test(start_paused = true)]
#[ignore = "until the embedded engine knows order keys, pages and operations"]
async fn forgetting_what_has_only_expired_keys_is_the_same_on_both() {
    let record = Op::Record { signed: 0, event: 0, body: 0, fsync: true };
    run(&[record, Op::Advance { minutes: 100_000 }, Op::Forget { event: 2 }]).await.unwrap();
}
