//! A wall clock that jumps while the real program runs: an hour back, two days on.
//!
//! What is refused for the clock's sake is refused with 503, so that the sender comes again; deliveries, keys and ages
//! go by elapsed time and do not notice.

mod faked;

use std::time::Duration;

use faked::{Jump, Trial, Webhook};

/// Retries come after half of this at the earliest.
const RETRY: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_an_hour_back_loses_nothing_and_causes_no_storm() {
    jump_and_return(&Jump { offset: "-1h", seconds: -3_600, word: "back" }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_two_days_on_loses_nothing_expires_nothing_and_causes_no_storm() {
    jump_and_return(&Jump { offset: "+2d", seconds: 2 * 86_400, word: "forward" }).await;
}

async fn jump_and_return(jump: &Jump) {
    let trial = Trial::start().await;
    trial.upstream_refuses(b"failing");
    let (timed, untimed) = (Webhook::timed(b"timed"), Webhook::untimed(b"untimed"));
    let first = trial.accepted(&timed).await;
    let untimed_first = trial.accepted(&untimed).await;
    let failing = trial.accepted(&Webhook::timed(b"failing")).await;
    // The guard in memory has room for one key: what came before is known by the store alone.
    trial.accepted(&Webhook::untimed(b"last")).await;
    trial.attempts(b"failing", 2).await;

    trial.jump(jump);
    let (began, before) = (tokio::time::Instant::now(), trial.attempts(b"failing", 0).await);
    let new = Webhook::timed(b"new");
    trial.asked_to_come_again(&new).await;
    trial.asked_to_come_again(&timed).await;
    assert_eq!(trial.duplicate(&untimed).await, untimed_first, "a known key does not expire by a jump");
    trial.until_readiness_names_the_clock(jump).await;
    let during = trial.accepted(&Webhook::untimed(b"during")).await;
    trial.assert_received_in_faked_time(&during, jump).await;

    // Two more attempts at the least, and no more than the schedule allows.
    trial.attempts(b"failing", before + 2).await;
    trial.return_to_true_time();
    trial.until_ready().await;
    let made = trial.attempts(b"failing", 0).await - before;
    let allowed = began.elapsed().as_millis() / (RETRY.as_millis() / 2) + 2;
    assert!((made as u128) <= allowed, "{made} attempts in {:?}", began.elapsed());

    assert_eq!(trial.duplicate(&timed).await, first);
    assert_eq!(trial.duplicate(&untimed).await, untimed_first);
    trial.accepted(&new).await;
    assert_eq!(trial.state(&failing).await, "due", "not given up on for an age that only the calendar shows");
    trial.upstream_takes_all();
    trial.until_state(&failing, "delivered").await;
    for body in [&b"timed"[..], b"untimed", b"last", b"during", b"new"] {
        assert_eq!(trial.attempts(body, 1).await, 1, "{}", String::from_utf8_lossy(body));
    }
    trial.end();
}
