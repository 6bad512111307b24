//! The guard under shuttle: every test below runs in many random interleavings of its threads, at each lock.

#[path = "../src/replay/flights.rs"]
#[expect(dead_code, reason = "the file is shared with the crate, which uses the rest of it")]
mod flights;

mod sync {
    pub(super) use shuttle::sync::Mutex;
}

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use flights::{Entry, Flights, Phase, Set};
use shuttle::{future, thread};

type Guard = Flights<u8, u8, u32, Result<u32, &'static str>>;

fn guard() -> Arc<Guard> {
    Flights::new(NonZeroUsize::new(8).expect("not zero"), || Err("lost"))
}

fn set(keys: &[u8]) -> Arc<Set<u8, u8>> {
    Arc::new(Set { keys: keys.to_vec(), body: 1, exact: Some(keys[0]) })
}

fn rounds() -> usize {
    if std::env::var_os("HOOKWARD_FULL").is_some() { 100_000 } else { 3_000 }
}

/// One webhook as a step of the stack handles it: known, or wait, or fly; a failed flight is taken over.
fn webhook(
    guard: &Arc<Guard>,
    keys: &[u8],
    accepted: &AtomicU32,
    flying: &AtomicU32,
    fails: bool,
) -> Result<u32, &'static str> {
    let mut may_fail = fails;
    loop {
        match guard.enter(set(keys)) {
            Entry::Known(id) => return Ok(id),
            Entry::Wait(mut watch) => {
                if let Ok(id) = future::block_on(watch.landed()) {
                    return Ok(id);
                }
            }
            Entry::Lead(flight) => {
                assert_eq!(flying.fetch_add(1, SeqCst), 0, "two flights at once for overlapping keys");
                thread::yield_now();
                flying.fetch_sub(1, SeqCst);
                if std::mem::take(&mut may_fail) {
                    flight.land(Err("upstream"), None);
                    continue;
                }
                let id = 100 + accepted.fetch_add(1, SeqCst);
                flight.durable(id);
                thread::yield_now();
                flight.land(Ok(id), Some(id));
                return Ok(id);
            }
        }
    }
}

#[test]
fn copies_in_any_interleaving_are_accepted_once_and_get_one_id() {
    shuttle::check_random(
        || {
            let (guard, accepted, flying) = (guard(), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let threads: Vec<_> = (0..4)
                .map(|n| {
                    let (guard, accepted, flying) = (guard.clone(), accepted.clone(), flying.clone());
                    thread::spawn(move || webhook(&guard, &[1, 2], &accepted, &flying, n % 2 == 0))
                })
                .collect();
            let ids: Vec<_> = threads.into_iter().map(|t| t.join().expect("no panic")).collect();
            assert_eq!(accepted.load(SeqCst), 1);
            assert!(ids.iter().all(|id| *id == Ok(100)), "{ids:?}");
            assert_eq!(guard.flying(), 0);
        },
        rounds(),
    );
}

#[test]
fn overlapping_keys_never_fly_together_and_never_deadlock() {
    shuttle::check_random(
        || {
            let (guard, accepted, flying) = (guard(), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let threads: Vec<_> = [[1, 9], [2, 9], [9, 1]]
                .into_iter()
                .map(|keys| {
                    let (guard, accepted, flying) = (guard.clone(), accepted.clone(), flying.clone());
                    thread::spawn(move || webhook(&guard, &keys, &accepted, &flying, false))
                })
                .collect();
            for thread in threads {
                assert!(thread.join().expect("no panic").is_ok());
            }
            assert_eq!(guard.flying(), 0);
        },
        rounds(),
    );
}

#[test]
fn whoever_sees_a_landing_finds_its_keys_known() {
    shuttle::check_random(
        || {
            let guard = guard();
            let Entry::Lead(flight) = guard.enter(set(&[1, 2])) else { panic!("nothing is in the air") };
            let seen = flight.watch();
            let other = guard.clone();
            let copy = thread::spawn(move || {
                // Between any two steps of the landing: in the air, or known; never free.
                let entry = other.enter(set(&[1, 2]));
                assert!(!matches!(entry, Entry::Lead(_)), "a copy could lead while the first was landing");
                if matches!(seen.now(), Phase::Landed(_)) {
                    assert!(matches!(other.enter(set(&[1, 2])), Entry::Known(7)));
                }
            });
            flight.land(Ok(7), Some(7));
            copy.join().expect("no panic");
        },
        rounds(),
    );
}

#[test]
fn a_flight_that_is_dropped_wakes_its_copies() {
    shuttle::check_random(
        || {
            let guard = guard();
            let Entry::Lead(flight) = guard.enter(set(&[1])) else { panic!("nothing is in the air") };
            let other = guard.clone();
            let copy = thread::spawn(move || match other.enter(set(&[1])) {
                Entry::Wait(mut watch) => assert_eq!(future::block_on(watch.landed()), Err("lost")),
                Entry::Lead(_) => {}
                Entry::Known(id) => panic!("nothing was accepted, yet {id} is known"),
            });
            drop(flight);
            copy.join().expect("no panic");
        },
        rounds(),
    );
}
