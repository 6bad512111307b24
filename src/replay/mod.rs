//! The guard: one flight for each set of keys, and a bounded memory of what has landed.
//!
//! A key is looked up among the flights in the air, then in the LRU, then in the store's unique index, which
//! is the truth. The guard is never the truth: it spares the store work and makes simultaneous copies wait for
//! the first. `append` in the store is check-and-insert, so eviction, a restart, or a second node is harmless.

mod flights;

/// What the flights lock with; the exploration under shuttle puts its own here.
mod sync {
    pub(super) use std::sync::Mutex;
}

pub use flights::{Entry, Flight, Flights, Phase, Set, Watch};

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, sync::Arc};

    use super::*;

    type Guard = Flights<u8, u8, u32, Result<u32, &'static str>>;

    fn guard(capacity: usize) -> Arc<Guard> {
        Flights::new(NonZeroUsize::new(capacity).expect("not zero"), || Err("lost"))
    }
    fn set(keys: &[u8], body: u8) -> Arc<Set<u8, u8>> {
        Arc::new(Set { keys: keys.to_vec(), body, exact: keys.first().copied() })
    }
    fn lead(guard: &Arc<Guard>, set: Arc<Set<u8, u8>>) -> Flight<u8, u8, u32, Result<u32, &'static str>> {
        match guard.enter(set) {
            Entry::Lead(flight) => flight,
            other => panic!("expected to lead, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_copy_waits_and_then_is_known() {
        let guard = guard(10);
        let flight = lead(&guard, set(&[1, 2], 7));
        let Entry::Wait(mut copy) = guard.enter(set(&[3, 2], 7)) else { panic!("one key is in the air") };
        assert_eq!(copy.now(), Phase::Open);
        flight.durable(5);
        assert_eq!(copy.now(), Phase::Durable(5));
        assert!(matches!(guard.enter(set(&[1], 7)), Entry::Wait(_)), "durable stays in the air");
        flight.land(Ok(5), Some(5));
        assert_eq!(copy.landed().await, Ok(5));
        assert!(matches!(guard.enter(set(&[1, 2], 7)), Entry::Known(5)));
        assert_eq!(guard.flying(), 0);
    }

    #[tokio::test]
    async fn another_body_or_another_first_key_is_for_the_store_to_judge() {
        let guard = guard(10);
        lead(&guard, set(&[1, 2], 7)).land(Ok(5), Some(5));
        assert!(matches!(guard.enter(set(&[1, 2], 8)), Entry::Lead(_)));
        assert!(matches!(guard.enter(set(&[9, 2], 7)), Entry::Lead(_)));
    }

    #[tokio::test]
    async fn a_failure_and_a_lost_flight_free_the_keys() {
        let guard = guard(10);
        lead(&guard, set(&[1], 7)).land(Err("no"), None);
        let flight = lead(&guard, set(&[1], 7));
        let mut watch = flight.watch();
        drop(flight);
        assert_eq!(watch.landed().await, Err("lost"));
        assert!(!lead(&guard, set(&[1], 7)).is_uncertain());
    }

    #[tokio::test]
    async fn an_unknown_outcome_is_told_to_the_next_flight_until_one_succeeds() {
        let guard = guard(10);
        lead(&guard, set(&[1], 7)).land_uncertain(Err("cut"));
        let flight = lead(&guard, set(&[1], 7));
        assert!(flight.is_uncertain());
        flight.land(Ok(1), Some(1));
        assert!(!lead(&guard, set(&[1], 9)).is_uncertain());
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_on_request() {
        let guard = guard(2);
        for key in 1..=3 {
            lead(&guard, set(&[key], 7)).land(Ok(0), Some(u32::from(key)));
        }
        assert!(matches!(guard.enter(set(&[1], 7)), Entry::Lead(_)), "the oldest was evicted");
        assert!(matches!(guard.enter(set(&[3], 7)), Entry::Known(3)));
        guard.forget(&[7, 3]);
        assert!(matches!(guard.enter(set(&[3], 7)), Entry::Lead(_)));
        assert!(matches!(guard.enter(set(&[2], 7)), Entry::Known(2)), "and nothing else");
    }
}
