//! What follows from earlier attempts: the schedule, the marks of a redelivery and of doubt, and who may settle.

use super::*;

#[tokio::test]
async fn a_redelivery_starts_the_schedule_over_and_says_what_it_is_on_every_attempt() {
    let mut up = Scripted::start(|_| Act::Status(500)).await;
    let mut world = World::new(upstream(up.address));
    world.add(1, b"{}");
    for _ in 1..=7 {
        assert_eq!(up.next().await.header("hookward-redelivery"), None);
        world.pass_retry().await;
    }
    up.next().await;
    assert!(matches!(world.outcome().await, Outcome::Retry { after } if after >= 64 * SECOND));

    world.store.arm_again(id(1));
    for (attempt, ceiling) in [("9", 1), ("10", 2), ("11", 4)] {
        let request = up.next().await;
        assert_eq!(request.header("hookward-attempt"), Some(attempt), "attempts are counted on");
        assert_eq!(request.header("hookward-redelivery"), Some("true"));
        let after = world.pass_retry().await;
        assert!(after >= ceiling * SECOND / 2 && after <= ceiling * SECOND, "{after:?} after attempt {attempt}");
    }
}

#[tokio::test]
async fn an_attempt_of_unknown_outcome_makes_all_later_ones_uncertain() {
    let mut up = Scripted::listing([Act::Reset, Act::Status(500), Act::Hang, Act::Status(500)]).await;
    let mut world = World::new(upstream(up.address));
    world.add(1, b"{}");
    for (uncertain, unknown) in [(None, true), (Some("true"), false), (Some("true"), true), (Some("true"), false)] {
        let request = up.next().await;
        assert_eq!(request.header("hookward-uncertain"), uncertain);
        if request.header("hookward-attempt") == Some("3") {
            advance(10 * SECOND).await;
        }
        let (_, settled) = world.settled().await;
        assert_eq!(settled.uncertain, unknown, "{:?}", settled.attempt);
        let Outcome::Retry { after } = settled.outcome else { panic!("not a retry: {settled:?}") };
        advance(after).await;
    }
    assert_eq!(up.next().await.header("hookward-uncertain"), Some("true"));
}

#[tokio::test]
async fn what_was_certainly_not_sent_is_not_uncertain() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("an address");
    let mut world = World::new(upstream(closed));
    world.add(1, b"{}");
    assert!(!world.settled().await.1.uncertain);
}

#[tokio::test]
async fn what_was_answered_with_an_error_is_not_uncertain() {
    let mut up = Scripted::listing([Act::Status(503)]).await;
    let mut world = World::new(upstream(up.address));
    world.add(1, b"{}");
    up.next().await;
    assert!(!world.settled().await.1.uncertain);
}

#[tokio::test]
async fn an_event_that_blocks_its_key_is_given_up_after_so_many_attempts_and_any_other_is_not() {
    let up = Scripted::start(|_| Act::Status(500)).await;
    let rule = SourceRule { dead_letter_after: Some(3), ..SourceRule::default() };
    let mut world = World::with(upstream(up.address), rule);
    world.store.add_as(head(1), b"{}".to_vec(), "up", true);
    world.add(2, b"{}");
    let (mut tried, mut dead) = ([0; 3], None);
    while tried[2] < 5 {
        let (event, settled) = world.settled().await;
        tried[if event == id(1) { 1 } else { 2 }] += 1;
        match settled.outcome {
            Outcome::Retry { .. } => {}
            Outcome::Dead { reason } => assert_eq!(dead.replace((event, reason)), None),
            Outcome::Delivered { .. } => panic!("delivered"),
        }
        if world.store.count(State::Due) > 0 {
            advance(20 * SECOND).await;
        }
    }
    assert_eq!((tried[1], dead), (3, Some((id(1), "blocked its key: status 500".to_owned()))));
}

#[tokio::test]
async fn who_lost_its_lease_settles_nothing() {
    let mut up = Scripted::listing([Act::Status(500)]).await;
    let mut world = World::new(upstream(up.address));
    // The first worker has its answer, and the way to the store takes longer than its lease.
    let gate = Arc::new(Semaphore::new(0));
    world.store.faults().settle_waits = Some(gate.clone());
    world.add(1, b"{}");
    up.next().await;
    until(|| world.store.faults().settle_waits.is_none()).await;
    advance(31 * SECOND).await;
    assert_eq!(up.next().await.header("hookward-uncertain"), Some("true"), "the lease lapsed: another has it now");
    let (_, settled) = world.settled().await;
    assert_eq!(
        (settled.attempt.cause.as_str(), settled.outcome),
        ("lease lapsed", Outcome::Delivered { items: vec![] })
    );

    gate.add_permits(1);
    settle_down().await;
    assert!(world.settled.try_recv().is_err(), "the late outcome is not recorded");
    assert_eq!(world.store.count(State::Delivered), 1);
    advance(HOUR).await;
    settle_down().await;
    assert!(up.requests.is_empty(), "nor does it bring the delivery back");
}
