//! kill -9 and SIGTERM under load, with the real program and an upstream that keeps a ledger.
//!
//! Every round loads a child process with signed webhooks, some as copies at the same moment, some sent again later,
//! ends it in the middle, and starts the next one on the same data. The upstream lives through all of it. In the end
//! its ledger is held against what was acknowledged.

mod child;
pub(crate) mod client;
mod ledger;
mod load;

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    counts::reduced,
    world::{request, within},
};
use child::{Child, Home};
use ledger::Ledger;
use load::Load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_acknowledged_before_a_kill_is_delivered_and_nothing_twice_without_a_cause() {
    let rounds = reduced("kill rounds", 5, 1_000);
    let home = Home::new();
    let ledger = Ledger::start(7).await;
    let load = Load::new();
    for round in 0..rounds {
        let mut random = StdRng::seed_from_u64(round.into());
        let child = Child::start(&home, &ledger.url).await;
        let workers = load.start(child.public, u64::from(round));
        load.acknowledged_more(random.random_range(1..60)).await;
        if round % 2 == 0 {
            // The upstream has taken events whose outcome the gateway will never learn.
            ledger.withhold_answers();
            ledger.withheld_some().await;
        } else {
            // No event of ours ends this pause: the moment is meant to be any.
            tokio::time::sleep(Duration::from_micros(random.random_range(0..30_000))).await;
        }
        child.kill().await;
        ledger.answer_again();
        for worker in workers {
            worker.await.expect("no panic");
        }
    }
    let child = Child::start(&home, &ledger.url).await;
    load.send_again_what_was_not_answered(child.public).await;
    settled(&child).await;

    let entries = ledger.entries();
    load.assert_all_in(&entries);
    let repeated: Vec<_> = entries.iter().filter(|(_, entry)| entry.forwards > 1).collect();
    assert!(!repeated.is_empty(), "no attempt was interrupted, so nothing was tried");
    for (id, _) in repeated {
        let shown = request(child.admin, "GET", &format!("/api/v1/events/{id}"), &[], b"").await.json();
        let history = shown["event"]["deliveries"][0]["history"].as_array().expect("a history");
        let cause = history.last().and_then(|attempt| attempt["cause"].as_str()).expect("a cause");
        assert!(["retry", "restart", "lease lapsed"].contains(&cause), "{id} was forwarded again for {cause:?}");
    }
    child.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_with_0_and_loses_nothing() {
    for round in 0..reduced("sigterm rounds", 2, 100) {
        let home = Home::new();
        let ledger = Ledger::start(0).await;
        let load = Load::new();
        let child = Child::start(&home, &ledger.url).await;
        let workers = load.start(child.public, u64::from(round));
        load.acknowledged_more(50).await;
        child.terminate().await;
        for worker in workers {
            worker.await.expect("no panic");
        }
        let child = Child::start(&home, &ledger.url).await;
        settled(&child).await;
        let entries = ledger.entries();
        load.assert_all_in(&entries);
        assert!(entries.values().all(|entry| entry.forwards == 1), "after a drain nothing is uncertain");
        child.terminate().await;
    }
}

/// Waits until nothing is due or leased.
async fn settled(child: &Child) {
    within("everything to be delivered", async {
        loop {
            let mut open = 0;
            for state in ["due", "leased"] {
                let path = format!("/api/v1/events?limit=1&state={state}");
                let listed = request(child.admin, "GET", &path, &[], b"").await.json();
                open += listed["events"].as_array().expect("a list").len();
            }
            if open == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
