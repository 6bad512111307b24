//! What durability costs: how many syncs, of what kind.

use std::time::Duration;

use super::{
    run::{BREAKER, send},
    strace::{Call, SYNCS, Strace},
};
use crate::crash::{
    child::Child,
    load::{Load, Webhook},
    site::Site,
};

/// Longer than from one look for what has expired to the next.
const IDLE: Duration = Duration::from_secs(11);

fn webhook(n: usize) -> Webhook {
    Webhook::new("queue", format!("webhook {n}").as_bytes())
}

fn of_log(calls: &[Call]) -> usize {
    calls.iter().filter(|call| call.name == "fdatasync" && call.is_of("hookward.db-wal")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_alone_costs_three_syncs_and_an_idle_gateway_none() {
    let (site, load) = (Site::new(None, "", BREAKER).await, Load::new());
    let child = Child::start(&site).await;
    let strace = Strace::attach(&child, &site, SYNCS, None, None).await;
    let alone = 20;
    for n in 0..alone {
        assert_eq!(send(&load, &child, &webhook(n)).await.expect("it is there").status, 200);
        assert!(child.settled().await);
    }
    let calls = strace.calls();
    // Accepted, leased, settled. A group that holds two of these makes it fewer; the clock is saved along with them.
    let syncs = of_log(&calls);
    assert!((alone..=3 * alone).contains(&syncs), "{syncs} for {alone} webhooks");
    assert_eq!(syncs, calls.len(), "nothing else is synced: {calls:?}");

    // Nothing happens that could be waited for: this is what is tried.
    tokio::time::sleep(IDLE).await;
    assert_eq!(strace.calls().len(), syncs, "an idle gateway syncs");
    assert_eq!(send(&load, &child, &webhook(alone)).await.expect("it is there").status, 200);
    assert!(strace.calls().len() > syncs, "and strace would have seen it");
    child.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_at_the_same_time_share_syncs() {
    let site = Site::new(None, "", "breaker = { failures = 1, pause = \"1h\" }").await;
    let load = Load::new();
    site.ledger("orders").refuse();
    let child = Child::start(&site).await;
    assert_eq!(send(&load, &child, &webhook(0)).await.expect("it is there").status, 200);
    site.ledger("orders").refused_once().await;
    assert!(child.has_none_in(&["leased"]).await);
    let strace = Strace::attach(&child, &site, SYNCS, None, None).await;
    let together = 200;
    let webhooks: Vec<_> = (1..=together).map(webhook).collect();
    let replies = futures_util::future::join_all(webhooks.iter().map(|webhook| send(&load, &child, webhook))).await;
    assert!(replies.iter().all(|reply| reply.as_ref().is_some_and(|reply| reply.status == 200)));
    let syncs = strace.calls().len();
    assert!((1..=together / 2).contains(&syncs), "{syncs} syncs for {together} webhooks at the same time");
    child.terminate().await;
}
