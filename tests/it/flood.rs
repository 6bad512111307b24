//! Webhooks that nobody signed, as fast as they can be sent: the store is written no more than when nothing comes, and
//! the guard holds no key of theirs.
//!
//! strace counts what the real program does to the files of its store, by a filter in the kernel, so that everything else
//! runs at full speed. A genuine webhook before and after shows that it would have been seen.

use std::{fs, path::Path, time::Duration};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    counts::reduced,
    running::{Gateway, hookward_under, pause},
    world::{read_reply, request, sign, within},
};

const SECRET: &str = "a-secret-of-some-length";
/// More than there are cores, so that the gateway always has something to do.
const CONNECTIONS: usize = 16;
/// Of one webhook: keys in the guard, keys and events in the store.
const HELD_BY_ONE: [u64; 3] = [1, 2, 1];
/// Whatever changes a file.
const WRITES: &str = "write,writev,pwrite64,pwritev,fsync,fdatasync,ftruncate,unlink,rename";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unsigned_flood_writes_no_more_to_the_store_than_silence_and_leaves_the_guard_empty() {
    let each = reduced("forged webhooks a connection", 1_000, 100_000) as usize;
    let home = TempDir::new().expect("a directory");
    let trace = home.path().join("strace.log");
    let trace_path = trace.display().to_string();
    let traced = format!("trace={WRITES}");
    let strace = ["-D", "-f", "--seccomp-bpf", "-qq", "-y", "-e", &traced, "-o", &trace_path];
    let gateway = Gateway::start_as(hookward_under("strace", &strace), home.path(), &configuration());
    let written = || writes(&trace, &home.path().join("data"));

    let (ready, one) = (written(), accepted(&gateway, b"{\"id\":1}").await);
    until_held(&gateway, HELD_BY_ONE).await;
    let after_one = at_rest(written).await;
    assert!(one && after_one > ready, "{after_one} writes of {ready}: the store is not watched");

    // Both spans hold the same share of what the store does by itself.
    let began = tokio::time::Instant::now();
    let statuses = join_all((0..CONNECTIONS).map(|number| flood(&gateway, number, each))).await.concat();
    let took = began.elapsed();
    let flooded = written() - after_one;
    let began = tokio::time::Instant::now();
    while began.elapsed() < took + Duration::from_secs(1) {
        pause().await;
    }
    let idle = written() - after_one - flooded;

    println!(
        "{} forged webhooks in {:.1} s: {flooded} writes to the store, {idle} in as long a silence",
        statuses.len(),
        took.as_secs_f64()
    );
    assert_eq!(statuses.len(), CONNECTIONS * each);
    assert!(statuses.iter().all(|status| matches!(status, 400..=499)), "{statuses:?}");
    assert!(statuses.iter().filter(|status| **status == 401).count() > statuses.len() / 2);
    assert!(flooded <= idle, "{flooded} writes under the flood, {idle} without");

    assert_eq!(held(&gateway).await, HELD_BY_ONE, "keys in the guard, keys and events in the store");
    // And what is genuine comes through as before.
    assert!(accepted(&gateway, b"{\"id\":2}").await);
    until_held(&gateway, HELD_BY_ONE.map(|count| 2 * count)).await;
    let (code, log) = gateway.end();
    assert_eq!(code, Some(0), "{log}");
}

fn configuration() -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [log]\nlevel = \"warn,hookward::gateway=info\"\n[store]\npath = \"data\"\n\
         [upstreams.up]\nurl = \"http://127.0.0.1:9/in\"\nretry = {{ first = \"1h\", max = \"1h\" }}\n\
         [sources.hub]\nprovider = \"github\"\nsecrets = [{{ value = \"{SECRET}\" }}]\nupstream = \"up\"\n\
         [sources.timed]\nprovider = \"stripe\"\nsecrets = [{{ value = \"{SECRET}-timed\" }}]\nupstream = \"up\"\n\
         [sources.token]\nprovider = \"sourcehub\"\npath = \"/hooks/token/{{token}}\"\n\
         secrets = [{{ value = \"{SECRET}-token\" }}]\nupstream = \"up\"\n"
    )
}

/// Calls so far that change a file below this directory.
fn writes(trace: &Path, store: &Path) -> usize {
    let log = fs::read_to_string(trace).expect("strace writes a log");
    let store = store.display().to_string();
    log.lines().filter(|line| line.contains(&store)).count()
}

/// The number of writes once nothing was written for a second: a first attempt is settled after its answer.
async fn at_rest(written: impl Fn() -> usize) -> usize {
    within("the store to be at rest", async {
        let (mut last, mut looks) = (written(), 0);
        while looks < 10 {
            pause().await;
            let now = written();
            looks = if now == last { looks + 1 } else { 0 };
            last = now;
        }
        last
    })
    .await
}

async fn accepted(gateway: &Gateway, body: &[u8]) -> bool {
    let now_s = hookward::time::Clock::system().wall().unix_s();
    let signed = sign("stripe", &format!("{SECRET}-timed"), body, now_s);
    let headers: Vec<_> = signed.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    request(gateway.public, "POST", "/hooks/timed", &headers, body).await.ack().0 == "accepted"
}

/// What the guard and the store hold.
async fn held(gateway: &Gateway) -> [u64; 3] {
    let metrics = request(gateway.admin, "GET", "/metrics", &[], b"").await.text();
    ["hookward_guard_keys ", "hookward_store_keys ", "hookward_store_events "].map(|name| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.parse().ok()).expect("a number")
    })
}

/// Waits until it is this: it is counted once a second.
async fn until_held(gateway: &Gateway, wanted: [u64; 3]) {
    within("what is held to be counted", async {
        while held(gateway).await != wanted {
            pause().await;
        }
    })
    .await;
}

/// So many requests on one connection, one kind after another. Returns the statuses.
async fn flood(gateway: &Gateway, number: usize, count: usize) -> Vec<u16> {
    let now_s = hookward::time::Clock::system().wall().unix_s();
    let mut stream = TcpStream::connect(gateway.public).await.expect("it listens");
    let mut statuses = Vec::with_capacity(count);
    for i in 0..count {
        stream.write_all(&forged(number, i, now_s)).await.expect("it is read");
        statuses.push(within("an answer to the flood", read_reply(&mut stream)).await.status);
    }
    statuses
}

/// A webhook that is not genuine, each a little different.
fn forged(connection: usize, number: usize, now_s: i64) -> Vec<u8> {
    let body = format!("{{\"id\":\"evt_{connection}_{number}\",\"type\":\"invoice.paid\"}}");
    let of = |signed: &str, provider: &str, secret: &str, at_s: i64| {
        let lines = sign(provider, secret, signed.as_bytes(), at_s);
        let lines: Vec<_> = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        lines.concat()
    };
    let signed = |provider: &str, secret: &str, at_s: i64| of(&body, provider, secret, at_s);
    let (path, lines) = match number % 8 {
        0 => ("/hooks/hub", signed("github", "another-secret-than-it-is", now_s)),
        1 => ("/hooks/hub", String::new()),
        2 => ("/hooks/hub", "x-hub-signature-256: sha256=00\r\n".to_owned()),
        3 => ("/hooks/timed", signed("stripe", "another-secret-than-it-is", now_s)),
        4 => ("/hooks/timed", signed("stripe", "another-secret-than-it-is", now_s - 100_000)),
        5 => ("/hooks/token/another-token-than-it-is", String::new()),
        6 => ("/hooks/nothing-is-here", String::new()),
        // Genuine, but for another body.
        _ => ("/hooks/hub", of("{}", "github", SECRET, now_s)),
    };
    format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n{lines}\r\n{body}", body.len()).into_bytes()
}
