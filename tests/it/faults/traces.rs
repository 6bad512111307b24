//! Refused, or killed before the commit: no trace is left that would keep the genuine webhook out.

use super::{
    run::{BREAKER, assert_recovers, points, send},
    strace::{NEVER, Strace, assert_killed_at, inject},
};
use crate::{
    counts::reduced,
    crash::{
        child::Child,
        client,
        load::{Load, Webhook},
        site::Site,
    },
    world::sign,
};

/// What writes to the log.
const WRITES: &str = "pwrite64,write,writev,pwritev";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_storing_leaves_all_of_a_webhook_or_nothing() {
    let Stored::Whole { writes } = store_and_kill_at(NEVER).await else { panic!("nothing writes so often") };
    assert!(writes >= 4, "{writes} writes");
    let most = reduced("writes of an append", 8, 1_000);
    let (mut none, mut all) = (0, 0);
    for n in points(writes, most) {
        match store_and_kill_at(n).await {
            Stored::Not => none += 1,
            Stored::Killed => all += 1,
            Stored::Whole { .. } if n >= writes => break,
            Stored::Whole { .. } => {}
        }
    }
    println!("SIGKILL while storing: {none} kills left nothing, {all} left the whole event, of {writes} writes");
    assert!(none >= 3, "a kill that comes before the commit leaves nothing");
}

enum Stored {
    /// Killed, and nothing was left.
    Not,
    /// Killed, and it was there.
    Killed,
    /// Acknowledged and delivered, with so many writes in all.
    Whole { writes: usize },
}

/// Forged, then genuine with a kill at the N-th write to the log, then genuine again.
async fn store_and_kill_at(n: usize) -> Stored {
    let (site, load) = (Site::new(None, "", BREAKER).await, Load::new());
    let mut child = Child::start(&site).await;
    let webhook = Webhook::new("queue", &vec![0x5a; 20_000]);
    let now_s = hookward::time::Clock::system().wall().unix_s();
    let forged = sign("partssource", "another-secret-than-it-is", &webhook.body, now_s).into();
    assert_eq!(load.send(child.public, &webhook, &forged).await.expect("it is there").status, 401);

    let log = site.store_file("hookward.db-wal");
    let injection = inject(WRITES, "signal=SIGKILL", n);
    let strace = Strace::attach(&child, &site, WRITES, Some(&log), Some(&injection)).await;
    let acknowledged = send(&load, &child, &webhook).await.is_some_and(|reply| reply.status == 200);
    if acknowledged && child.settled().await {
        let writes = strace.calls().len();
        assert!(writes < n, "it was not killed at the {n}th of {writes} writes");
        // Its end writes, too.
        drop(strace);
        child.terminate().await;
        return Stored::Whole { writes };
    }
    child.ended().await;
    assert_killed_at(n, &strace.end());

    let child = Child::start(&site).await;
    let listed = client::get(child.admin, "/api/v1/events").await.expect("it is there").json();
    let events = listed["events"].as_array().expect("a list").len();
    assert!(events <= 1 && (events == 1 || !acknowledged), "{events} events");
    let (word, _) = send(&load, &child, &webhook).await.expect("it is there").ack();
    assert_eq!(word, ["accepted", "duplicate"][events], "{events} events were there");
    assert!(child.settled().await);
    child.terminate().await;
    assert_recovers(&load, &site, &[webhook]).await;
    if events == 0 { Stored::Not } else { Stored::Killed }
}
