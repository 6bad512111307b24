//! What a drain means for those who are connected, on real processes.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::world::{Act, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_alive_connection_gets_a_last_answer_that_says_close() {
    let site = Site::new().await;
    let process = site.start(hookward(), &site.configured("listen = \"127.0.0.1:0\"\ndrain_delay = \"0s\""));
    let at = listens(&process, "public").parse().expect("an address");
    listens(&process, "admin");
    let mut used = connected(at).await;
    used.write_all(&webhook("{\"n\":1}")).await.expect("it is open");
    let reply = reply_on(&mut used).await;
    assert_eq!((reply.status, reply.headers.get("connection")), (200, None));
    let mut fresh = connected(at).await;
    process.signal("TERM");
    process.line_with("listeners close");
    // Either is a request that was on its way.
    for (n, stream) in [(2, &mut used), (3, &mut fresh)] {
        stream.write_all(&webhook(&format!("{{\"n\":{n}}}"))).await.expect("it is open");
        let reply = reply_on(stream).await;
        assert_eq!((reply.status, reply.headers.get("connection").map(String::as_str)), (200, Some("close")), "{n}");
        assert_eq!(stream.read(&mut [0; 1]).await.expect("no reset"), 0, "{n}: closed behind it");
    }
    let (code, _, log) = process.ended();
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_on_which_nothing_happens_do_not_hold_up_a_drain() {
    let site = Site::new().await;
    // The silent one would be closed by its own deadline only after the drain.
    let server = "listen = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\ndrain_timeout = \"3s\"";
    let process = site.start(hookward(), &site.configured(server));
    let at = listens(&process, "public").parse().expect("an address");
    listens(&process, "admin");
    let mut idle = connected(at).await;
    idle.write_all(&webhook("{}")).await.expect("it is open");
    assert_eq!(reply_on(&mut idle).await.status, 200);
    let mut silent = connected(at).await;
    site.upstream.wait_for(1).await;
    let (code, _, log) = process.end("TERM");
    assert_eq!(code, Some(0), "{log}");
    for stream in [&mut idle, &mut silent] {
        assert_eq!(stream.read(&mut [0; 1]).await.expect("no reset"), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_ends_at_once_and_webhooks_are_taken_until_the_delay_is_over() {
    let site = Site::new().await;
    let process = site.start(hookward(), &site.configured("listen = \"127.0.0.1:0\"\ndrain_delay = \"2s\""));
    let at = listens(&process, "public").parse().expect("an address");
    listens(&process, "admin");
    process.signal("TERM");
    process.line_with("draining");
    let readyz = || request(at, "GET", "/readyz", &[], b"");
    within("readiness to end", async { while readyz().await.status != 503 {} }).await;
    let reply = send(at, "{}").await;
    assert_eq!((reply.status, reply.headers.get("connection")), (200, None));
    let (code, _, log) = process.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(TcpStream::connect(at).await.is_err(), "closed");
    assert_eq!(site.received(), ["{}"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_at_the_timeout_gets_503() {
    let site = Site::new().await;
    let server = "listen = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\ndrain_timeout = \"300ms\"";
    let file = site.configured_as(server, "127.0.0.1:0", "mode = \"proxy\"");
    let process = site.start(hookward(), &file);
    let at = listens(&process, "public").parse().expect("an address");
    listens(&process, "admin");
    site.upstream.script([Act::Hang(200)]);
    let mut waiting = connected(at).await;
    waiting.write_all(&webhook("{}")).await.expect("it is open");
    site.upstream.wait_for(1).await;
    process.signal("TERM");
    let reply = reply_on(&mut waiting).await;
    assert_eq!((reply.status, reply.headers.contains_key("retry-after")), (503, true));
    site.upstream.let_go();
    let (code, _, log) = process.ended();
    assert_eq!(code, Some(0), "its flight still landed: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_queue_of_our_own_socket_is_served_before_it_closes() {
    let site = Site::new().await;
    let process = site.start(hookward(), &site.configured("listen = \"127.0.0.1:0\"\ndrain_delay = \"0s\""));
    let at: SocketAddr = listens(&process, "public").parse().expect("an address");
    listens(&process, "admin");
    // While it stands still the kernel accepts for it; the order to end is there when it goes on.
    process.signal("STOP");
    let mut waiting = Vec::new();
    for n in 0..300 {
        let mut stream = connected(at).await;
        stream.write_all(&webhook(&format!("{{\"n\":{n}}}"))).await.expect("the kernel has it");
        waiting.push(stream);
    }
    process.signal("TERM");
    process.signal("CONT");
    for (n, stream) in waiting.iter_mut().enumerate() {
        assert_eq!(reply_on(stream).await.status, 200, "{n}");
    }
    drop(waiting);
    let (code, _, log) = process.ended();
    assert_eq!(code, Some(0), "{log}");
}
