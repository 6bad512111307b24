//! SIGKILL at the N-th sync.

use std::os::unix::process::ExitStatusExt as _;

use super::{
    run::{BREAKER, SMALL, assert_recovers, send, send_until_it_is_gone, strike_at_each, webhooks},
    strace::{NEVER, SYNCS, Strace, around, assert_killed_at, calls_in, inject, most_of_a_thread},
};
use crate::{
    counts::reduced,
    crash::{
        child::Child,
        ledger::Ledger,
        load::{Load, Webhook},
        site::Site,
    },
};

const SIGKILL: i32 = 9;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_sync_of_a_run_it_loses_nothing_acknowledged() {
    let (last, moved) = count().await;
    assert!(last >= 30 && moved > 0, "{last} syncs, {moved} of the database file: not the run that is meant");
    let most = reduced("sync points", 15, 1_000);
    let kills = strike_at_each(last, most, is_killed_at).await;
    println!(
        "SIGKILL at a sync: {kills} kills, {last} syncs a run, {moved} of them of the database file; nothing lost"
    );
}

/// How many syncs a whole run has, and how many of them are of the database file.
async fn count() -> (usize, usize) {
    let (site, load) = (Site::new(None, SMALL, BREAKER).await, Load::new());
    let mut child = Child::start(&site).await;
    let strace = Strace::attach(&child, &site, SYNCS, None, None).await;
    send_until_it_is_gone(&load, &child).await;
    child.ask_to_end();
    assert_eq!(child.ended().await.code(), Some(0));
    let calls = strace.end();
    (most_of_a_thread(&calls), calls.iter().filter(|call| call.is_of("hookward.db")).count())
}

/// A run that ends at its N-th sync. `false` if it has fewer.
async fn is_killed_at(n: usize) -> bool {
    let (site, load) = (Site::new(None, SMALL, BREAKER).await, Load::new());
    let mut child = Child::start(&site).await;
    let injection = inject(SYNCS, "signal=SIGKILL", n);
    let strace = Strace::attach(&child, &site, SYNCS, None, Some(&injection)).await;
    send_until_it_is_gone(&load, &child).await;
    child.ask_to_end();
    let status = child.ended().await;
    let calls = strace.end();
    let killed = status.signal() == Some(SIGKILL);
    if killed {
        assert_killed_at(n, &calls);
    } else {
        assert_eq!(status.code(), Some(0), "{}", child.log());
        assert!(most_of_a_thread(&calls) < n, "it was not killed at the {n}th: {calls:#?}");
    }
    assert_recovers(&load, &site, &webhooks()).await;
    killed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_sync_of_its_start_it_starts_the_next_time() {
    for fresh in [true, false] {
        let last = kill_at_start(fresh, NEVER).await.expect_err("nothing has so many syncs");
        assert!(last >= 3, "{last} syncs");
        let most = reduced("sync points of a start", 5, 1_000);
        strike_at_each(last, most, async |n| kill_at_start(fresh, n).await.is_ok()).await;
    }
}

/// Kills it at the N-th sync of its start, on nothing or on what another one left. If it listened before: how many
/// syncs there were until then.
async fn kill_at_start(fresh: bool, n: usize) -> Result<(), usize> {
    let (site, load) = (Site::new(None, SMALL, BREAKER).await, Load::new());
    let sent: Vec<Webhook> = webhooks().into_iter().take(4).collect();
    if !fresh {
        leave_work(&site, &load, &sent).await;
    }
    let mut child = Child::spawn(&site, around(&site, &inject(SYNCS, "signal=SIGKILL", n)));
    if child.listens().await {
        return Err(most_of_a_thread(&calls_in(&site)));
    }
    let status = child.ended().await;
    let calls = calls_in(&site);
    assert_eq!(status.signal(), Some(SIGKILL), "{status}\n{}", child.log());
    assert_killed_at(n, &calls);
    site.ledgers.iter().for_each(Ledger::answer_again);
    assert_recovers(&load, &site, &sent).await;
    Ok(())
}

/// A store that was not closed, with events that are not delivered.
pub(super) async fn leave_work(site: &Site, load: &Load, sent: &[Webhook]) {
    site.ledgers.iter().for_each(Ledger::refuse);
    let child = Child::start(site).await;
    for webhook in sent {
        assert_eq!(send(load, &child, webhook).await.expect("it is there").status, 200);
    }
    child.kill().await;
}
