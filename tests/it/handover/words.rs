//! What the service manager is told.

use std::{os::unix::net::UnixDatagram, time::Duration};

use super::*;

/// The socket of a service manager, and what came in so far.
struct Manager {
    socket: UnixDatagram,
    heard: String,
}

impl Manager {
    fn new(site: &Site) -> (Self, PathBuf) {
        let path = site.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("nobody is there");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("it is open");
        (Self { socket, heard: String::new() }, path)
    }

    /// Waits for a word; returns all that came from the last one on.
    fn hears(&mut self, word: &str) -> String {
        loop {
            if let Some(at) = self.heard.find(word) {
                return self.heard.drain(..at + word.len()).collect();
            }
            let mut space = [0; 4096];
            let length = self.socket.recv(&mut space).unwrap_or_else(|_| panic!("no {word} in {}", self.heard));
            self.heard += std::str::from_utf8(&space[..length]).expect("text");
        }
    }
}

#[tokio::test]
async fn it_says_when_it_is_ready_that_it_is_alive_and_when_it_stops() {
    let site = Site::new().await;
    let (mut manager, at) = Manager::new(&site);
    let mut command = hookward();
    command.env("NOTIFY_SOCKET", at).env("WATCHDOG_USEC", "200000");
    let process = site.start(command, &site.configured("listen = \"127.0.0.1:0\"\ndrain_delay = \"1s\""));
    let before = manager.hears("READY=1\n");
    assert!(
        before.contains("STATUS=opens the store\n") && before.contains("EXTEND_TIMEOUT_USEC=20000000\n"),
        "{before}"
    );
    listens(&process, "public");
    for _ in 0..5 {
        manager.hears("WATCHDOG=1\n");
    }
    process.signal("TERM");
    manager.hears("STOPPING=1\n");
    manager.hears("STATUS=draining: not ready any more, accepts webhooks for another 1s\n");
    // What it drains by its configuration, and ten seconds for the rest.
    manager.hears("EXTEND_TIMEOUT_USEC=31000000\n");
    manager.hears("WATCHDOG=1\n");
    manager.hears("STATUS=closes the store\n");
}

#[tokio::test]
async fn whoever_waits_for_the_store_says_so() {
    let site = Site::new().await;
    let file = site.configured("listen = \"127.0.0.1:0\"\ndrain_delay = \"0s\"");
    let first = site.start(hookward(), &file);
    listens(&first, "admin");
    let (mut manager, at) = Manager::new(&site);
    let mut command = hookward();
    command.env("NOTIFY_SOCKET", at);
    let second = site.start(command, &file);
    manager.hears("STATUS=waits up to 30s for the other hookward");
    // Again and again, as the wait may be longer than the manager's patience.
    manager.hears("EXTEND_TIMEOUT_USEC=");
    assert_eq!(first.end("TERM").0, Some(0));
    manager.hears("READY=1\n");
    assert_eq!(second.end("TERM").0, Some(0));
}

/// A disk on which no sync ends, by a debugger that holds the call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_store_hangs_is_not_called_alive() {
    let site = Site::new().await;
    let (mut manager, at) = Manager::new(&site);
    let trace = site.path().join("trace");
    let trace = trace.to_str().expect("text");
    // Counted in each thread: what the thread that opens the store syncs is less. The child is the gateway itself.
    let held = "inject=fdatasync:delay_enter=6s:when=20+";
    let held = ["-D", "-f", "-qq", "-o", trace, "-e", "trace=fdatasync", "-e", held];
    let mut command = hookward_under("strace", &held);
    command.env("NOTIFY_SOCKET", &at).env("WATCHDOG_USEC", "400000");
    let process = site.start(command, &site.configured("listen = \"127.0.0.1:0\"\ndrain_delay = \"0s\""));
    let public = listens(&process, "public").parse().expect("an address");
    manager.hears("READY=1\n");
    manager.hears("WATCHDOG=1\n");
    // One after the other, each with a sync of its own, until one does not come back.
    let mut n = 0;
    let answered = async |n: u32| {
        let body = format!("{{\"n\":{n}}}");
        tokio::time::timeout(Duration::from_secs(2), crate::world::raw(public, &webhook(&body))).await.is_ok()
    };
    while answered(n).await {
        n += 1;
        assert!(n < 100, "no sync was held");
    }
    manager.socket.set_read_timeout(Some(Duration::from_millis(1500))).expect("it is open");
    let mut space = [0; 4096];
    // What it said before is still in the queue; then, for several times its interval, there is nothing more.
    let queued = n + 20;
    let words = (0..=queued).take_while(|_| manager.socket.recv(&mut space).is_ok()).count();
    assert!(words <= queued as usize, "it goes on");
    process.end("KILL");
}
