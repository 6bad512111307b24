//! A store that the process before still has.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_process_waits_for_the_store_and_takes_over_when_the_old_one_ends() {
    let site = Site::new().await;
    let (socket, at) = held_socket();
    let server = "listen = \"systemd\"\ndrain_delay = \"0s\"";
    let old = site.start(passed(&socket), &site.configured(server));
    listens(&old, "public");
    let admin = listens(&old, "admin");
    // The same for both, as in a real one: that address too is free only when the old one ends.
    let new = site.start(passed(&socket), &site.configured_as(server, &admin, ""));
    let waits = new.line_with("waits up to 30s for the other hookward");
    assert!(waits.contains(&format!("(process {})", old.id())) && waits.contains("data"), "{waits}");
    assert_eq!(send(at, "{\"n\":1}").await.status, 200, "the old one serves meanwhile");
    let (code, _, log) = old.end("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(listens(&new, "admin"), admin);
    assert_eq!(send(at, "{\"n\":2}").await.status, 200);
    let (code, _, log) = new.end("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("waits up to").count(), 1, "said once:\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_the_store_ends_when_it_is_told_to_and_leaves_the_other_alone() {
    let site = Site::new().await;
    let file = site.configured("listen = \"127.0.0.1:0\"\ndrain_delay = \"0s\"");
    let first = site.start(hookward(), &file);
    let at = listens(&first, "public").parse().expect("an address");
    listens(&first, "admin");
    let second = site.start(hookward(), &file);
    second.line_with("waits up to");
    let (code, _, log) = second.end("TERM");
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("told to end before it was up"), "{log}");
    assert_eq!(send(at, "{}").await.status, 200);
    assert_eq!(first.end("TERM").0, Some(0));
}
