//! The breaker as an upstream and an operator notice it.

use super::*;

#[tokio::test]
async fn an_open_breaker_burns_no_attempt_and_one_probe_closes_it() {
    let mut up = Scripted::start(is_bad).await;
    let mut world = World::new(touchy(up.address));
    (1..=3).for_each(|number| world.add(number, b"bad"));
    for _ in 1..=3 {
        assert!(matches!(world.outcome().await, Outcome::Retry { .. }));
        up.next().await;
    }
    assert_eq!(world.breaker(), BreakerState::Open);
    assert!(world.metrics.expose().contains(r#"breaker{upstream="up"} 2"#));

    (4..=8).for_each(|number| world.add(number, b"good"));
    advance(29 * SECOND).await;
    settle_down().await;
    assert!(up.requests.is_empty() && world.store.count(State::Leased) == 0);
    assert!(world.lanes.try_slot("up", id(99)).is_none());

    advance(2 * SECOND).await;
    // Five good events and three bad ones are due; the first request after the pause is an event that did not
    // open the breaker, and all the others follow once it closed.
    let mut ids = Vec::new();
    for _ in 0..8 {
        let (id, settled) = world.settled().await;
        assert!(settled.attempt.number <= 2, "waiting burnt an attempt: {settled:?}");
        ids.push(id);
        up.next().await;
        if world.store.count(State::Delivered) == 5 {
            break;
        }
        if world.breaker() == BreakerState::Open {
            advance(31 * SECOND).await;
        }
    }
    assert_eq!(world.store.count(State::Delivered), 5);
}

#[tokio::test]
async fn the_event_that_opened_it_is_no_probe_while_another_is_due() {
    let mut up = Scripted::start(is_bad).await;
    let mut world = World::new(touchy(up.address));
    (1..=3).for_each(|number| world.add(number, b"bad"));
    let mut opener = id(0);
    for _ in 1..=3 {
        opener = world.settled().await.0;
        up.next().await;
    }
    assert_eq!(world.breaker(), BreakerState::Open);
    // Each failed probe is a suspect itself, so in the end every bad one had its turn before the opener has another.
    let mut probes = Vec::new();
    for _ in 0..2 {
        advance(31 * SECOND).await;
        probes.push(world.settled().await.0);
        up.next().await;
        settle_down().await;
        assert_eq!(world.breaker(), BreakerState::Open);
        assert!(up.requests.is_empty(), "one probe at a time");
    }
    assert!(!probes.contains(&opener) && probes[0] != probes[1], "{probes:?} after {opener}");

    world.add(9, b"good");
    advance(31 * SECOND).await;
    assert_eq!(world.settled().await.0, id(9), "a new event probes before any suspect");
    // It closed: the bad ones are tried without another pause (and open it again).
    for _ in 1..=3 {
        assert!(matches!(world.outcome().await, Outcome::Retry { .. }));
    }
}

#[tokio::test]
async fn a_lone_suspect_is_probed_with() {
    let up = Scripted::listing([Act::Status(500)]).await;
    let mut upstream = touchy(up.address);
    upstream.breaker.failures = 1;
    let mut world = World::new(upstream);
    world.add(1, b"{}");
    assert!(matches!(world.outcome().await, Outcome::Retry { .. }));
    advance(31 * SECOND).await;
    assert_eq!(world.outcome().await, Outcome::Delivered { items: vec![] });
    assert_eq!(world.breaker(), BreakerState::Closed);
}

#[tokio::test]
async fn slots_of_proxy_feed_the_breaker_too() {
    let up = Scripted::start(|_| Act::Status(502)).await;
    let world = World::new(touchy(up.address));
    for number in 1..=3 {
        let tried = world.attempt(number).await;
        assert!(matches!(tried.verdict, Verdict::Failed(answer) if answer.status == 502));
        assert_eq!(tried.outcome, None);
    }
    assert_eq!(world.breaker(), BreakerState::Open);
    assert!(world.lanes.try_slot("up", id(4)).is_none());
    assert!(world.lanes.slot("up", id(4)).await.is_none());
}

/// Everything that an operator sees of the breaker: status, gauge, and how often it changed to which state.
fn seen(world: &World) -> (BreakerState, u64, [u64; 3]) {
    let lane = &world.lanes.status()[0];
    let text = world.metrics.expose();
    let value = |line: &str| text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0);
    assert_eq!(value(r#"hookward_breaker{upstream="up"}"#), u64::from(lane.breaker.number()));
    let changed = |to| value(&format!(r#"hookward_breaker_transitions_total{{upstream="up",to="{to}"}}"#));
    (lane.breaker, lane.opened_total, [changed("open"), changed("half-open"), changed("closed")])
}

#[tokio::test]
async fn an_operator_sees_it_open_probe_and_close_and_why() {
    let gate = Arc::new(Semaphore::new(0));
    let script = gate.clone();
    let mut up = Scripted::start(move |request| {
        let bad = request.body.starts_with(b"bad") && request.header("hookward-attempt") == Some("1");
        if bad { Act::Status(500) } else { Act::Wait(script.clone()) }
    })
    .await;
    let mut world = World::new(touchy(up.address));
    assert_eq!(seen(&world), (BreakerState::Closed, 0, [0, 0, 0]));
    assert_eq!(world.lanes.status()[0].last_failure, None);
    (1..=3).for_each(|number| world.add(number, b"bad"));
    for _ in 1..=3 {
        assert!(matches!(world.outcome().await, Outcome::Retry { .. }));
        up.next().await;
    }
    assert_eq!(seen(&world), (BreakerState::Open, 1, [1, 0, 0]));
    assert_eq!(world.lanes.status()[0].last_failure.as_deref(), Some("status 500"));

    // All three are due again long before the pause is over. None is leased, so none is tried.
    advance(29 * SECOND).await;
    settle_down().await;
    assert_eq!((world.store.count(State::Due), up.requests.len()), (3, 0));
    let since = world.lanes.status()[0].since;
    assert!(since >= 29 * SECOND && since < 30 * SECOND, "{since:?}");

    advance(SECOND).await;
    assert_eq!(up.next().await.header("hookward-attempt"), Some("2"), "waiting burns no attempt");
    settle_down().await;
    assert_eq!(seen(&world), (BreakerState::HalfOpen, 1, [1, 1, 0]));
    assert!(up.requests.is_empty() && world.lanes.status()[0].since < SECOND);

    gate.add_permits(3);
    for _ in 1..=3 {
        let (_, settled) = world.settled().await;
        assert_eq!((settled.attempt.number, settled.outcome), (2, Outcome::Delivered { items: vec![] }));
    }
    assert_eq!(seen(&world), (BreakerState::Closed, 1, [1, 1, 1]));
    assert_eq!(world.lanes.status()[0].last_failure.as_deref(), Some("status 500"), "it is kept for who asks why");
}

#[tokio::test]
async fn a_probe_that_is_not_made_is_no_change() {
    let mut up = Scripted::listing([Act::Status(500)]).await;
    let mut upstream = touchy(up.address);
    upstream.breaker.failures = 1;
    let mut world = World::new(upstream);
    world.add(1, b"{}");
    assert!(matches!(world.outcome().await, Outcome::Retry { .. }));
    up.next().await;
    let gate = Arc::new(Semaphore::new(0));
    world.store.faults().leases_wait = Some(gate.clone());
    advance(31 * SECOND).await;
    drop(world.lanes.try_slot("up", id(2)).expect("the probe, as `respond` takes it"));
    assert_eq!(seen(&world), (BreakerState::Open, 1, [1, 1, 0]));
    gate.add_permits(100);
    assert_eq!(world.outcome().await, Outcome::Delivered { items: vec![] }, "another probe follows at once");
    assert_eq!(seen(&world).0, BreakerState::Closed);
}
