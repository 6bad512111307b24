//! EIO from the N-th sync: what it was for is not acknowledged, nothing is after it, and the process ends with a code
//! that has its supervisor start it again.

use super::{
    kills::leave_work,
    run::{BREAKER, SMALL, assert_recovers, send, strike_at_each, webhooks},
    strace::{Call, NEVER, SYNCS, Strace, around, calls_in, inject, most_of_a_thread},
};
use crate::{
    counts::reduced,
    crash::{
        child::Child,
        ledger::Ledger,
        load::{Load, Webhook},
        site::Site,
    },
    world::Reply,
};

/// After the first failure nothing is tried for so long that nothing but an append syncs.
const ONCE: &str = "breaker = { failures = 1, pause = \"1h\" }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_whose_sync_fails_is_not_acknowledged_and_nothing_is_after_it() {
    for n in 1..=reduced("failing appends", 3, 24) as usize {
        let (site, load) = (Site::new(None, "", ONCE).await, Load::new());
        site.ledger("orders").refuse();
        let mut child = Child::start(&site).await;
        let webhook = |n: usize| Webhook::new("queue", format!("webhook {n}").as_bytes());
        assert_eq!(send(&load, &child, &webhook(0)).await.expect("it is there").status, 200);
        site.ledger("orders").refused_once().await;
        assert!(child.has_none_in(&["leased"]).await);

        let injection = inject(SYNCS, "error=EIO", n);
        let strace = Strace::attach(&child, &site, SYNCS, None, Some(&injection)).await;
        let sent: Vec<_> = (0..n + 3).map(webhook).collect();
        for (at, webhook) in sent.iter().enumerate().skip(1) {
            let reply = send(&load, &child, webhook).await.expect("it answers while it is broken");
            assert_eq!(strace.has_injected(), at >= n, "one webhook, one sync");
            if at < n {
                assert_eq!(reply.status, 200, "{}", reply.text());
            } else {
                assert_refused(&reply);
            }
        }
        assert_eq!(child.ended().await.code(), Some(1), "{}", child.log());
        assert!(child.errors().contains("restart to recover"), "{}", child.errors());
        assert_eq!(strace.end().iter().filter(|call| call.was_injected()).count(), 1);
        site.ledger("orders").answer_again();
        assert_recovers(&load, &site, &sent).await;
    }
}

fn assert_refused(reply: &Reply) {
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.headers.contains_key("retry-after"), "{}", reply.head);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_sync_anywhere_in_a_run_nothing_is_acknowledged_and_it_ends_with_1() {
    let last = run_with_error(None, NEVER).await.expect_err("no run has so many syncs");
    assert!(last >= 30, "{last} syncs");
    let most = reduced("failing syncs", 12, 1_000);
    let failures = strike_at_each(last, most, async |n| run_with_error(None, n).await.is_ok()).await;
    println!("EIO from a sync: {failures} failures, {last} syncs a run; nothing acknowledged after it, nothing lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_could_not_be_moved_is_kept() {
    // The sync of the database file alone: a checkpoint in the run.
    for n in 1..=2 {
        let calls = run_with_error(Some("hookward.db"), n).await.expect("the log is moved more than once");
        let failed = calls.iter().find(|call| call.was_injected()).expect("one failed");
        assert!(failed.is_of("hookward.db"), "{failed:?}");
    }
}

/// A run in which the N-th sync, of any file or of this one, fails. If it has fewer: how many.
async fn run_with_error(file: Option<&str>, n: usize) -> Result<Vec<Call>, usize> {
    let (site, load) = (Site::new(None, SMALL, BREAKER).await, Load::new());
    let mut child = Child::start(&site).await;
    let path = file.map(|file| site.store_file(file));
    let injection = inject(SYNCS, "error=EIO", n);
    let strace = Strace::attach(&child, &site, SYNCS, path.as_deref(), Some(&injection)).await;
    for webhook in webhooks() {
        let (was_broken, was_known) = (strace.has_injected(), load.acknowledged().contains_key(&webhook.name()));
        let Some(reply) = send(&load, &child, &webhook).await else { break };
        if reply.status != 200 {
            assert!(strace.has_injected(), "{}", reply.text());
            assert_refused(&reply);
        } else if was_known {
            // What is on the disk already may be said at any time.
            assert_eq!(reply.ack().0, "duplicate");
        } else {
            assert!(!was_broken, "acknowledged after a sync had failed");
        }
        if !strace.has_injected() && !child.settled().await {
            break;
        }
    }
    let in_time = strace.has_injected();
    if !in_time {
        child.ask_to_end();
    }
    let status = child.ended().await;
    let calls = strace.end();
    let was_injected = calls.iter().any(Call::was_injected);
    if was_injected {
        assert_eq!(status.code(), Some(1), "{calls:#?}\n{}", child.log());
        let log = std::fs::metadata(site.store_file("hookward.db-wal"));
        assert!(log.is_ok_and(|log| log.len() > 0), "the log is the only good copy, and it is gone");
    } else {
        assert_eq!(status.code(), Some(0), "{}", child.log());
    }
    assert_recovers(&load, &site, &webhooks()).await;
    if was_injected { Ok(calls) } else { Err(most_of_a_thread(&calls)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_of_its_start_ends_it_or_was_not_needed() {
    for fresh in [true, false] {
        let last = start_with_error(fresh, NEVER).await.expect_err("nothing has so many syncs");
        let most = reduced("failing syncs of a start", 6, 1_000);
        strike_at_each(last, most, async |n| start_with_error(fresh, n).await.is_ok()).await;
    }
}

/// A start in which the N-th sync fails, on nothing or on what another one left. If it has fewer: how many.
async fn start_with_error(fresh: bool, n: usize) -> Result<(), usize> {
    let (site, load) = (Site::new(None, SMALL, BREAKER).await, Load::new());
    let sent: Vec<Webhook> = webhooks().into_iter().take(4).collect();
    if !fresh {
        leave_work(&site, &load, &sent).await;
    }
    let mut child = Child::spawn(&site, around(&site, &inject(SYNCS, "error=EIO", n)));
    let listens = child.listens().await;
    let calls = calls_in(&site);
    let Some(failed) = calls.iter().find(|call| call.was_injected()) else {
        assert!(listens, "{}", child.log());
        return Err(most_of_a_thread(&calls));
    };
    if listens {
        // SQLite does not look at these. The store itself syncs its directory before it is open.
        let of_directory = failed.name == "fdatasync" && failed.is_of("data");
        assert!(of_directory, "it goes on although {failed:?}");
        drop(child);
    } else {
        assert_eq!(child.ended().await.code(), Some(1), "{}", child.log());
        assert!(child.log().contains("failed to open the store"), "{}", child.log());
    }
    site.ledgers.iter().for_each(Ledger::answer_again);
    assert_recovers(&load, &site, &sent).await;
    Ok(())
}
