//! Many events, a fifth of them copied, through the real program: each arrives once, in bounded memory, and the disk
//! that they took is given back.

mod count;
mod senders;

use std::{fs, path::Path, time::Duration};

use tempfile::TempDir;

use crate::{
    counts::reduced,
    running::{Gateway, hookward, run, stdout},
    world::request,
};
use count::Counting;
use senders::{SECRET, send_all};

/// The bound that the configuration sets. Everything that sums up to it is set so low that a leak shows.
const MEMORY_MAX: &str = "144MiB";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_events_with_copies_arrive_once_each_in_bounded_memory_and_leave_no_room_taken() {
    let events = reduced("events", 50_000, 1_000_000);
    let home = TempDir::new().expect("a directory");
    let upstream = Counting::start(events).await;
    let configuration = |retention: &str| {
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n\
             [server.limits]\nmemory_max = \"{MEMORY_MAX}\"\nconnections_max = 256\nin_flight_max = 256\n\
             body_memory_max = \"16MiB\"\nbody_bytes_max = \"64KiB\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"warn,hookward::gateway=info\"\n\
             [store]\npath = \"data\"\nretention = \"{retention}\"\ndisk_bytes_max = \"20GiB\"\n\
             [replay]\ncapacity = 20000\n\
             [sources.orders]\nprovider = \"partssource\"\nsecrets = [{{ value = \"{SECRET}\" }}]\nupstream = \"up\"\n\
             [upstreams.up]\nurl = \"{}\"\nconcurrency = 32\n",
            upstream.url
        )
    };

    let gateway = Gateway::start(home.path(), &configuration("7d"));
    let began = tokio::time::Instant::now();
    let copies = send_all(gateway.public, events).await;
    upstream.until_all_came().await;
    let took = began.elapsed();
    settled(&gateway).await;
    let (most_kib, bound) = (memory_most_kib(gateway.id()), bound_of(home.path()));
    let (code, log) = gateway.end();
    assert_eq!(code, Some(0), "{log}");
    upstream.assert_once_each();
    let largest = database_bytes(home.path());

    // The same store with no use for history.
    let gateway = Gateway::start(home.path(), &configuration("1ms"));
    let smallest = shrunk(home.path(), largest / 10).await;
    let (code, log) = gateway.end();
    assert_eq!(code, Some(0), "{log}");
    upstream.assert_once_each();

    println!(
        "{events} events and {copies} copies in {:.1} s ({:.0} events/s): each arrived once; at most {} MiB resident \
         of {bound} computed, {MEMORY_MAX} allowed; database {} MiB, {} MiB without history",
        took.as_secs_f64(),
        f64::from(events) / took.as_secs_f64(),
        most_kib / 1024,
        largest >> 20,
        smallest >> 20,
    );
    assert!(most_kib < 144 * 1024, "{most_kib} KiB resident, {MEMORY_MAX} allowed");
}

/// Waits until every delivery is recorded.
async fn settled(gateway: &Gateway) {
    loop {
        let status = request(gateway.admin, "GET", "/api/v1/status", &[], b"").await.json();
        let open = |upstream: &serde_json::Value| upstream["due"] != 0 || upstream["leased"] != 0;
        if !status["upstreams"].as_array().expect("a list").iter().any(open) {
            return;
        }
        pause().await;
    }
}

/// Waits until the database file is smaller than this. What is left are keys, which outlive history.
async fn shrunk(home: &Path, bytes: u64) -> u64 {
    loop {
        let now = database_bytes(home);
        if now < bytes {
            return now;
        }
        pause().await;
    }
}

fn database_bytes(home: &Path) -> u64 {
    fs::metadata(home.join("data/hookward.db")).expect("it is there").len()
}

/// The most memory that a process ever had.
fn memory_most_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// What the program says that its limits sum up to.
fn bound_of(home: &Path) -> String {
    let text = stdout(&run(hookward().args(["check", "-c"]).arg(home.join("hookward.toml"))));
    let sum = text.lines().find_map(|line| line.trim().strip_prefix("sum ")).expect("a sum").trim();
    sum.split(' ').next().expect("a size").to_owned()
}

/// Between two looks at something that changes by itself.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
