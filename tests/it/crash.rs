//! kill -9 and SIGTERM under load, with the real program and upstreams that fail by a seed and keep a ledger.
//!
//! Every round loads a child process with signed webhooks, some as copies at the same moment, some sent again later or
//! replayed exactly, ends it in the middle, and starts the next one on the same data. The upstreams live through all
//! of it. In the end their ledgers are held against what was acknowledged, and against what the gateway says itself.

pub(crate) mod child;
pub(crate) mod client;
pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod site;
pub(crate) mod verdict;

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::counts::reduced;
use child::Child;
use load::Load;
use site::Site;
use verdict::Verdict;

/// So that only the faults of the test decide when something is tried.
const BREAKER: &str = "breaker = { failures = 10000 }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_acknowledged_before_a_kill_is_delivered_and_nothing_twice_without_a_cause() {
    let rounds = reduced("kill rounds", 30, 1_000);
    let site = Site::new(Some(7), "", BREAKER).await;
    let load = Load::new();
    for round in 0..rounds {
        let mut random = StdRng::seed_from_u64(round.into());
        let child = Child::start(&site).await;
        let workers = load.start(child.public, u64::from(round));
        load.acknowledged_more(random.random_range(1..200)).await;
        let ledger = &site.ledgers[random.random_range(0..2)];
        match round % 3 {
            0 => {
                // An upstream has taken events whose outcome the gateway will never learn.
                ledger.withhold_answers();
                ledger.withheld_some().await;
            }
            1 => ledger.given_up_once_more().await,
            // No event of ours ends this pause: the moment is meant to be any.
            _ => tokio::time::sleep(Duration::from_micros(random.random_range(0..30_000))).await,
        }
        child.kill().await;
        site.ledgers.iter().for_each(ledger::Ledger::answer_again);
        for worker in workers {
            worker.await.expect("no panic");
        }
    }
    let child = Child::start(&site).await;
    load.send_again_what_was_not_answered(child.public).await;
    assert!(child.settled().await);
    let verdict = Verdict::of(&load, &site, child.admin).await;
    println!("kill -9 under load: {rounds} rounds, {verdict}");
    verdict.assert_clean();
    for cause in ["after a restart", "after a 5xx", "after a timeout", "after a cut connection"] {
        assert!(verdict.again.contains_key(cause), "nothing came again {cause}, so that was not tried");
    }
    child.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_with_0_and_loses_nothing() {
    for round in 0..reduced("sigterm rounds", 2, 100) {
        let site = Site::new(None, "", BREAKER).await;
        let load = Load::new();
        let child = Child::start(&site).await;
        let workers = load.start(child.public, u64::from(round));
        load.acknowledged_more(50).await;
        child.terminate().await;
        for worker in workers {
            worker.await.expect("no panic");
        }
        let child = Child::start(&site).await;
        assert!(child.settled().await);
        let verdict = Verdict::of(&load, &site, child.admin).await;
        verdict.assert_clean();
        assert!(verdict.again.is_empty(), "after a drain nothing is uncertain: {verdict}");
        child.terminate().await;
    }
}
