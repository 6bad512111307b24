//! A disk without room, and a store that has used up its share of it: what is given up, and what is not.
//!
//! The real program; the small disk is a file system in memory that it alone sees.

mod small;
mod trial;

use std::{fs::File, os::fd::AsRawFd as _, process};

use crate::running::{Gateway, hookward_under, run};
use small::hookward_on;
use trial::Trial;

/// Bytes of the bodies that fill a disk.
const BODY_BYTES: usize = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_history_then_503_and_nothing_that_was_accepted() {
    let mut trial = Trial::on_a_disk_of("24m").await;
    trial.deliver_history(20).await;
    trial.upstream_fails();

    trial.disk().fill();
    let refused = trial.send_until_refused().await;
    assert_eq!(trial.delivered(), 0, "history went first");
    trial.assert_readiness_names_the_disk("free at least ").await;

    // Somebody removes a large file; nobody restarts anything.
    trial.disk().free();
    trial.until_accepted(refused).await;
    trial.until_ready().await;

    trial.disk().fill();
    let refused = trial.send_until_refused().await;
    trial.upstream_works();
    trial.everything_accepted_arrives().await;
    // What was delivered is history now, and makes room although the disk is as full as before.
    trial.until_accepted(refused).await;
    trial.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_at_its_bound_costs_history_then_503_and_nothing_that_was_accepted() {
    const BYTES_MAX: u64 = 8 << 20;
    let mut trial = Trial::with_store_keys("disk_bytes_max = \"8MiB\"").await;
    trial.deliver_history(40).await;
    trial.upstream_fails();

    let refused = trial.send_until_refused().await;
    assert_eq!(trial.delivered(), 0, "history went first");
    let most = trial.store_bytes_most();
    println!("at most {most} bytes of {BYTES_MAX}");
    assert!(most <= BYTES_MAX, "{most} bytes on disk");
    assert!(most > BYTES_MAX / 2, "{most} bytes are no full store");
    trial.assert_readiness_names_the_disk("`store.disk_bytes_max` is reached").await;

    trial.upstream_works();
    trial.everything_accepted_arrives().await;
    trial.until_accepted(refused).await;
    trial.until_ready().await;
    trial.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_upstream_fills_its_share_and_costs_no_other_anything() {
    const SHARE: usize = 4 << 20;
    let mut trial = Trial::without("two", "disk_bytes_max = \"16MiB\"\ndisk_share_max = 0.25").await;
    let mut waiting = Vec::new();
    let refused = loop {
        match trial.send_to("two").await {
            (_, Some(id)) => waiting.push(id),
            (number, None) => break number,
        }
        assert!(waiting.len() * BODY_BYTES < 2 * SHARE, "it goes past its share");
    };
    assert!(waiting.len() * BODY_BYTES > SHARE / 2, "{} events are not its share", waiting.len());

    for _ in 0..20 {
        for upstream in ["one", "three"] {
            let (_, id) = trial.send_to(upstream).await;
            assert!(id.is_some(), "{upstream} has a share of its own");
        }
        let (_, id) = trial.send_to("two").await;
        assert_eq!(id, None, "its share is used up");
    }
    trial.arrives(40).await;
    trial.until_ready().await;

    trial.purge(&waiting[0]).await;
    trial.until_accepted(refused).await;
    let log = trial.end();
    let said: Vec<_> = log.lines().filter(|line| line.contains("has used up its share of the disk")).collect();
    assert!(!said.is_empty() && said.len() <= 3, "once a minute: {said:#?}");
    assert!(
        said[0].contains(" WARN ") && said[0].contains("source=two") && said[0].contains("upstream `two`"),
        "{}",
        said[0]
    );
}

#[test]
fn a_gateway_starts_on_a_disk_without_any_room() {
    let home = tempfile::tempdir().expect("a directory");
    let place = home.path().join("disk");
    let configuration = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [store]\npath = \"{}/data\"\n[sources.github]\nprovider = \"github\"\n\
         secrets = [{{ value = \"a-secret-of-some-length\" }}]\nupstream = \"http://127.0.0.1:1/\"\n",
        place.display()
    );
    let gateway = Gateway::start_as(hookward_on("40m", &place), home.path(), &configuration);
    // Keeps the disk, which goes with the last that sees it.
    let disk = File::open(format!("/proc/{}/ns/mnt", gateway.id())).expect("it runs");
    let inside = format!("--mount=/proc/{}/fd/{}", process::id(), disk.as_raw_fd());
    gateway.end();
    let ballast = format!("of={}/ballast", place.display());
    let filled = run(process::Command::new("nsenter").args([&*inside, "dd", "if=/dev/zero", &*ballast, "bs=4096"]));
    assert!(!filled.status.success(), "it ends when nothing is left");

    let gateway = Gateway::start_as(hookward_under("nsenter", &[&*inside]), home.path(), &configuration);
    let (code, log) = gateway.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("the store is opened in the room of its spare file"), "{log}");
}
