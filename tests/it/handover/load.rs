//! A restart under load with the listening socket in other hands: nobody outside notices.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
};

use super::*;
use crate::counts::reduced;

/// Senders with a connection for each webhook, and as many that keep theirs.
const SENDERS: u32 = 4;

/// What the senders saw.
#[derive(Default)]
struct Seen {
    /// Every body that was acknowledged, by one 200 with `accepted`.
    acknowledged: Mutex<Vec<String>>,
    /// How often a kept connection was closed between two requests, without a word before.
    closed_between: Mutex<u32>,
    enough: AtomicBool,
}

impl Seen {
    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().expect("no panic").len()
    }

    /// Waits until so many more were acknowledged.
    async fn more(&self, more: usize) {
        let goal = self.acknowledged() + more;
        within("answers", async {
            while self.acknowledged() < goal {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

/// A sender. Every refusal, reset, cut answer or status but 200 fails the test.
async fn work(seen: Arc<Seen>, to: SocketAddr, name: u32, keeps: bool) {
    let mut kept: Option<TcpStream> = None;
    let mut n = 0;
    while !seen.enough.load(Relaxed) {
        let body = format!("{{\"sender\":{name},\"n\":{n}}}");
        let was_kept = kept.is_some();
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => connected(to).await,
        };
        let sent = stream.write_all(&webhook(&body)).await;
        let Some(reply) = reply_or_end(&mut stream).await else {
            // Closed between two requests: this one was not taken, and goes out again on a new connection.
            assert!(was_kept, "a new connection was closed without an answer, sent: {sent:?}");
            *seen.closed_between.lock().expect("no panic") += 1;
            continue;
        };
        assert_eq!(reply.status, 200, "{}", reply.text());
        // `duplicate` would mean that it had been taken, and not answered.
        assert_eq!(reply.ack().0, "accepted", "{body}");
        seen.acknowledged.lock().expect("no panic").push(body);
        let closes = reply.headers.get("connection").is_some_and(|value| value == "close");
        kept = (keeps && !closes).then_some(stream);
        n += 1;
    }
}

/// `None`: closed in order before the first byte of an answer.
async fn reply_or_end(stream: &mut TcpStream) -> Option<Reply> {
    let first = within("an answer", stream.read_u8()).await;
    match first {
        Ok(first) => {
            let (reading, _) = stream.split();
            Some(within("an answer", read_reply(&mut (&[first][..]).chain(reading))).await)
        }
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => None,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_under_load_refuse_nothing_lose_nothing_and_double_nothing() {
    let rounds = reduced("restarts under load", 6, 200);
    let site = Site::new().await;
    let file = site.configured("listen = \"systemd\"\ndrain_delay = \"50ms\"");
    let (socket, at) = held_socket();
    let up = |process: &Running| listens(process, "admin");
    let mut process = site.start(passed(&socket), &file);
    up(&process);
    let seen = Arc::new(Seen::default());
    let senders: Vec<JoinHandle<()>> =
        (0..SENDERS * 2).map(|name| tokio::spawn(work(seen.clone(), at, name, name % 2 == 0))).collect();
    for round in 0..rounds {
        seen.more(100).await;
        let (code, log);
        if round % 2 == 0 {
            (code, _, log) = process.end("TERM");
            process = site.start(passed(&socket), &file);
        } else {
            let next = site.start(passed(&socket), &file);
            next.line_with("waits up to");
            (code, _, log) = process.end("TERM");
            process = next;
        }
        assert_eq!(code, Some(0), "{log}");
        for level in [" WARN ", " ERROR "] {
            assert!(!log.contains(level), "{log}");
        }
        up(&process);
    }
    seen.more(100).await;
    seen.enough.store(true, Relaxed);
    for sender in senders {
        sender.await.expect("no panic");
    }
    let mut acknowledged = seen.acknowledged.lock().expect("no panic").clone();
    acknowledged.sort();
    site.upstream.wait_for(acknowledged.len()).await;
    let (code, _, log) = process.end("TERM");
    assert_eq!(code, Some(0), "{log}");
    let received = site.received();
    println!(
        "restarts under load: {rounds} rounds, {} acknowledged, {} received, {} connections closed between requests",
        acknowledged.len(),
        received.len(),
        seen.closed_between.lock().expect("no panic")
    );
    assert_eq!(acknowledged.iter().collect::<BTreeSet<_>>().len(), acknowledged.len(), "each body is of one webhook");
    assert_eq!(received, acknowledged, "each exactly once");
}
