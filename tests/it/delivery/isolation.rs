//! One upstream in trouble is no trouble of another's, and one bad event none of the others'.

use std::sync::Mutex;

use tokio::time::Instant;

use super::*;

fn named(name: &str, upstream: Upstream) -> Upstream {
    Upstream { name: name.into(), ..upstream }
}

fn event(kind: u8, number: u8) -> EventHead {
    let mut bytes = [kind; 16];
    bytes[15] = number;
    EventHead { id: EventId::from_bytes(bytes), ..head(number) }
}

/// When each event reached a healthy upstream, counted from the start. Five come every second; two attempts run at a
/// time and take half a second each, so that they queue up. With `trouble`, one more upstream hangs and one fails, and
/// both get as much.
async fn schedule(trouble: bool) -> Vec<(String, Duration)> {
    const EVENTS: usize = 100;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let script_seen = seen.clone();
    let healthy = Scripted::start(move |request| {
        let event = request.header("hookward-event-id").expect("an id").to_owned();
        script_seen.lock().expect("not poisoned").push((event, Instant::now()));
        Act::After(SECOND / 2)
    })
    .await;
    let (hung, mut failing) = (Scripted::start(|_| Act::Hang).await, Scripted::start(|_| Act::Status(500)).await);
    let breaker = Breaker { failures: 5, ratio: 0.5, within: 60 * SECOND, pause: 3 * SECOND };
    let (store, settled) = FakeStore::new();
    let upstreams = [
        named("healthy", Upstream { concurrency: 2, breaker, ..upstream(healthy.address) }),
        named("hung", Upstream { breaker, timeout: 5 * SECOND, ..upstream(hung.address) }),
        named("failing", Upstream { breaker, ..upstream(failing.address) }),
    ];
    let world = World::start(upstreams, SourceRule::default(), store, settled);
    let began = Instant::now();

    let mut added = 0;
    for step in 0.. {
        if step % 10 == 0 && added < EVENTS {
            for number in 0..5 {
                let number = u8::try_from(added + number).expect("few");
                world.store.add(event(1, number), b"{}".to_vec(), "healthy");
                if trouble {
                    world.store.add(event(2, number), b"{}".to_vec(), "hung");
                    world.store.add(event(3, number), b"{}".to_vec(), "failing");
                }
            }
            added += 5;
        }
        // Whatever has to happen at this moment has happened: the places are taken as far as there is work.
        settle_down().await;
        until(|| {
            let delivered = world.store.count_at("healthy", State::Delivered);
            let running = seen.lock().expect("not poisoned").len() - delivered;
            running == 2.min(added - delivered)
        })
        .await;
        if world.store.count_at("healthy", State::Delivered) == EVENTS {
            break;
        }
        tokio::time::advance(SECOND / 10).await;
    }
    if trouble {
        let status = world.lanes.status();
        assert!(status.iter().all(|lane| (lane.opened_total > 0) == (&*lane.upstream != "healthy")), "{status:?}");
        assert!(failing.requests.try_recv().is_ok() && !hung.requests.is_empty());
    }
    let seen = seen.lock().expect("not poisoned").clone();
    assert_eq!(seen.len(), EVENTS);
    seen.into_iter().map(|(event, at)| (event, at - began)).collect()
}

#[test]
fn a_hung_and_a_failing_upstream_move_no_attempt_at_a_healthy_one() {
    // A runtime each, with a clock of its own.
    let run = |trouble| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(schedule(trouble))
    };
    let alone = run(false);
    assert!(alone.last().is_some_and(|(_, at)| *at > 24 * SECOND), "it queues: {:?}", alone.last());
    assert_eq!(run(true), alone);
}

/// One event that always fails among 200 that are fine, one every six seconds.
async fn poisoned(failures: u32, ratio: f64, within_step: bool) -> World {
    let up = Scripted::start(|request| Act::Status(if request.body == b"poison" { 500 } else { 200 })).await;
    let breaker = Breaker { failures, ratio, within: 60 * SECOND, pause: 30 * SECOND };
    let mut upstream = Upstream { breaker, ..upstream(up.address) };
    upstream.retry.give_up_after = 600 * SECOND;
    let world = World::new(upstream);
    world.store.add(event(9, 0), b"poison".to_vec(), "up");
    let mut opened_long = false;
    for number in 1..=200u8 {
        world.store.add(event(1, number), b"{}".to_vec(), "up");
        settle_down().await;
        if within_step {
            until(|| world.store.count(State::Delivered) == usize::from(number)).await;
            assert_eq!(world.breaker(), BreakerState::Closed);
        }
        let lane = &world.lanes.status()[0];
        opened_long |= lane.breaker != BreakerState::Closed && lane.since > 37 * SECOND;
        advance(6 * SECOND).await;
    }
    advance(31 * SECOND).await;
    until(|| world.store.count(State::Delivered) == 200).await;
    until(|| world.store.count(State::Dead) == 1).await;
    assert!(!opened_long, "closed off for longer than its pause");
    assert_eq!(world.breaker(), BreakerState::Closed);
    world
}

fn reason(mut world: World) -> (usize, String) {
    let mut tried = 0;
    while let Ok((_, settled)) = world.settled.try_recv() {
        tried += usize::from(settled.attempt.error.is_some());
        if let Outcome::Dead { reason } = settled.outcome {
            return (tried, reason);
        }
    }
    panic!("nothing is dead");
}

#[tokio::test]
async fn one_poisonous_event_among_two_hundred_stops_none_of_them_and_dies_of_age() {
    let world = poisoned(5, 0.5, true).await;
    assert_eq!(world.lanes.status()[0].opened_total, 0);
    let (tried, reason) = reason(world);
    assert_eq!(reason, "given up after 10m: status 500");
    assert!(tried >= 9, "{tried} attempts in ten minutes");
}

#[tokio::test]
async fn a_breaker_that_one_event_can_open_does_not_stay_open_because_of_it() {
    let world = poisoned(1, 0.01, false).await;
    assert!(world.lanes.status()[0].opened_total > 0);
    let (_, reason) = reason(world);
    assert_eq!(reason, "given up after 10m: status 500");
}
