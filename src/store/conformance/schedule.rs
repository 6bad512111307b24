//! Order keys while attempts fail, die and are lost: the order holds, and a key that is stuck delays no other.
//!
//! Every event of a healthy key goes to two upstreams, whose attempts have the same fate. One of them has stuck keys
//! beside it, whose first event fails for ever. What the healthy ones see must be the same, to the millisecond.

use std::collections::HashMap;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::prelude::*;
use crate::time::Clock;

const KEYS: u8 = 100;
const STUCK: u8 = 5;
const EVENTS: u8 = 4;
const END: Duration = Duration::from_mins(40);

/// What becomes of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fate {
    Delivered,
    Retry(Duration),
    Dead,
    /// The worker is not heard of until another one has its delivery.
    Lost,
}

/// The same for the same attempt of the same event, whatever the upstream.
fn fate(seed: u8, key: u8, event: u8, attempt: u8) -> Fate {
    if key < STUCK {
        return Fate::Retry(Duration::from_mins(1));
    }
    let drawn = xxh3_64(&[seed, key, event, attempt]);
    match drawn % 20 {
        0..12 => Fate::Delivered,
        12..16 => Fate::Retry(Duration::from_secs(1 + drawn / 20 % 90)),
        16..18 => Fate::Dead,
        _ => Fate::Lost,
    }
}

/// Attempts as an upstream saw them: when, of which event of which key, and how they ended.
type Seen = Vec<(Duration, u8, u8, Fate)>;

/// One upstream's workers and what they know.
struct Work<'a> {
    store: &'a dyn EventStore,
    upstream: &'static str,
    seed: u8,
    began: Instant,
    /// How many events of a key have left the queue.
    over: HashMap<u8, u8>,
    /// How often an event was leased, and the lease that was lost.
    leased: HashMap<(u8, u8), (u8, Option<Lease>)>,
    seen: Seen,
}

impl Work<'_> {
    /// Two workers take and settle until nothing is due at this moment.
    async fn go(&mut self) {
        loop {
            let mine = self.store.lease(self.upstream, 7, LEASE).await.unwrap();
            let others = self.store.lease(self.upstream, 5, LEASE).await.unwrap();
            if mine.is_empty() && others.is_empty() {
                return;
            }
            for leased in others.iter().chain(&mine) {
                self.attempt(leased).await;
            }
        }
    }

    async fn attempt(&mut self, leased: &Leased) {
        let [key, event] = leased.event.body[..] else { panic!("not one of ours") };
        let over = self.over.entry(key).or_default();
        assert_eq!(event, *over, "the next event of key {key} at upstream {}", self.upstream);
        let (attempts, lost) = self.leased.entry((key, event)).or_default();
        if let Some(lost) = lost.take() {
            assert!(leased.uncertain);
            assert_eq!(self.store.settle(lost, settled(1, delivered())).await, Err(StoreError::LeaseLost));
        }
        let fate = fate(self.seed, key, event, *attempts);
        *attempts += 1;
        self.seen.push((self.began.elapsed(), key, event, fate));
        let outcome = match fate {
            Fate::Delivered => delivered(),
            Fate::Retry(after) => retry(after),
            Fate::Dead => dead(),
            Fate::Lost => {
                *lost = Some(leased.lease);
                return;
            }
        };
        *over += u8::from(matches!(fate, Fate::Delivered | Fate::Dead));
        settle(self.store, leased, outcome).await;
    }
}

/// The events of a round of all keys. Keys come in another order each time.
async fn accept(store: &dyn EventStore, round: u8) {
    for n in 0..KEYS {
        let key = (n + 13 * round) % KEYS;
        let unique = u32::from(round) * 1000 + u32::from(key);
        let upstreams: &[&str] = if key < STUCK { &["a"] } else { &["a", "b"] };
        let new = NewEvent {
            order_key: OrderKey::new(&format!("key {key}")),
            body: Body::free(vec![key, round]),
            ..event(keys(unique, unique, unique), upstreams)
        };
        put(store, new).await;
    }
}

async fn run(store: &dyn EventStore, seed: u8) {
    let began = Instant::now();
    let work = |upstream| Work {
        store,
        upstream,
        seed,
        began,
        over: HashMap::new(),
        leased: HashMap::new(),
        seen: Vec::new(),
    };
    let (mut beside_stuck, mut alone) = (work("a"), work("b"));
    // Two events of each key are there at the beginning, the others come while those are at work.
    let mut rounds = 0;
    while began.elapsed() < END {
        while rounds < EVENTS && began.elapsed() >= Duration::from_secs(20) * u32::from(rounds.saturating_sub(1)) {
            accept(store, rounds).await;
            rounds += 1;
        }
        beside_stuck.go().await;
        alone.go().await;
        let next = [store.next_due("a").await.unwrap(), store.next_due("b").await.unwrap()];
        let next = next.into_iter().flatten().min().expect("the stuck ones are always due");
        tokio::time::advance(if rounds < EVENTS { next.min(Duration::from_secs(1)) } else { next }).await;
    }
    for seen in [&mut beside_stuck.seen, &mut alone.seen] {
        seen.retain(|(_, key, ..)| *key >= STUCK);
        // Of one moment, workers may take them in any order.
        seen.sort_unstable();
    }
    assert!(alone.seen.len() > usize::from(KEYS - STUCK) * usize::from(EVENTS));
    assert_eq!(beside_stuck.seen, alone.seen);
    for key in 0..KEYS {
        let expected = if key < STUCK { 0 } else { EVENTS };
        assert_eq!(beside_stuck.over.get(&key), Some(&expected), "events of key {key} that are over");
    }
    let stuck = store.list(Filter { state: Some(State::Due), ..Filter::default() }, Direction::OldestFirst, 1000).await;
    let stuck = stuck.unwrap().events;
    let waiting = stuck.iter().filter(|one| one.deliveries[0].due_in.is_none()).count();
    assert_eq!((stuck.len(), waiting), (usize::from(STUCK * EVENTS), usize::from(STUCK * (EVENTS - 1))));
}

#[tokio::test(start_paused = true)]
async fn order_holds_whatever_fails_and_a_stuck_key_delays_no_other() {
    for engine in ENGINES {
        for seed in 0..4 {
            let directory = tempfile::tempdir().unwrap();
            let store = engine.open(directory.path(), 0.5, &Clock::starting_at(Wall::from_unix_s(EPOCH_S)));
            run(&*store, seed).await;
            store.close().await;
        }
    }
}
