//! `rate`: attempts per second, whoever makes them.

use hookward::config::model::Rate;
use tokio::time::Instant;

use super::*;

fn slow(address: std::net::SocketAddr, per_second: f64, burst: u32) -> Upstream {
    Upstream { rate: Some(Rate { per_second, burst }), concurrency: 16, ..upstream(address) }
}

#[tokio::test]
async fn a_backlog_is_worked_off_at_the_rate_and_no_faster() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let script = seen.clone();
    let up = Scripted::start(move |_| {
        script.lock().expect("not poisoned").push(Instant::now());
        Act::Status(200)
    })
    .await;
    let world = World::new(slow(up.address, 5.0, 5));
    let began = Instant::now();
    (1..=200).for_each(|number| world.add(number, b"{}"));
    while began.elapsed() < 10 * SECOND {
        settle_down().await;
        tokio::time::advance(SECOND / 20).await;
    }
    let within = |seen: &[Instant]| seen.iter().filter(|at| **at <= began + 10 * SECOND).count();
    until(|| within(&seen.lock().expect("not poisoned")) >= 53).await;
    let seen = seen.lock().expect("not poisoned").clone();
    assert!(within(&seen) <= 55, "5 at once and 5 a second make {} in 10 s", within(&seen));
    for (first, at) in seen.iter().enumerate() {
        let in_a_second = seen[first..].iter().filter(|other| **other < *at + SECOND).count();
        assert!(in_a_second <= 10, "{in_a_second} in the second after {at:?}");
    }
}

#[tokio::test]
async fn a_webhook_that_waits_in_person_comes_before_the_backlog() {
    let mut up = Scripted::listing([]).await;
    let world = World::new(slow(up.address, 1.0, 1));
    (1..=9).for_each(|number| world.add(number, b"{}"));
    assert_eq!(up.next().await.header("hookward-event-id"), Some(&*id(1).to_string()));
    settle_down().await;
    assert!(world.lanes.try_slot("up", id(99)).is_none(), "`respond` queues it instead");
    {
        let waiting = world.lanes.slot("up", id(99));
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        advance(SECOND).await;
        settle_down().await;
        assert!(up.requests.is_empty(), "the token is the one's that waits");
        let slot = soon(waiting).await.expect("a slot");
        // Nothing was sent, so the token is there for the backlog.
        drop(slot);
        until(|| !up.requests.is_empty()).await;
        up.next().await;
    }
    // One that leaves while it waits holds up nobody.
    let waiting = tokio::time::timeout(SECOND / 2, world.lanes.slot("up", id(99)));
    let (left, ()) = tokio::join!(waiting, advance(SECOND / 2));
    assert!(left.is_err());
    advance(SECOND / 2).await;
    up.next().await;
    assert!(up.requests.is_empty());
}
