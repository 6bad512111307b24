//! The corpus through real proxies, in front of the gateway and behind it. Two parsers in a row must see the same requests:
//! where they do not, what the one takes for a body is a request for the other.

use std::net::SocketAddr;

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpStream, UnixStream},
};

use super::{
    case::Case,
    client::{Answer, Reading, converse},
    corpus,
    front::Front,
    proxies::{Kind, Proxy, Way},
    recorder::{Recorder, Seen},
};
use crate::world::{request, within};

#[tokio::test]
async fn nginx_behind() {
    behind(Kind::Nginx).await;
}

#[tokio::test]
async fn haproxy_behind() {
    behind(Kind::HaProxy).await;
}

#[tokio::test]
async fn apache_behind() {
    behind(Kind::Apache).await;
}

#[tokio::test]
async fn nginx_in_front() {
    in_front(Kind::Nginx).await;
}

#[tokio::test]
async fn haproxy_in_front() {
    in_front(Kind::HaProxy).await;
}

#[tokio::test]
async fn apache_in_front() {
    in_front(Kind::Apache).await;
}

#[tokio::test]
async fn early_refusals_arrive() {
    let front = Front::start().await;
    all_arrive(front.gateway.public, "nothing in between").await;
    assert_eq!(front.upstream.take().len(), 0);
}

#[tokio::test]
async fn early_refusals_arrive_through_nginx() {
    refuse_early(Kind::Nginx).await;
}

#[tokio::test]
async fn early_refusals_arrive_through_haproxy() {
    refuse_early(Kind::HaProxy).await;
}

#[tokio::test]
async fn early_refusals_arrive_through_apache() {
    refuse_early(Kind::Apache).await;
}

// ---- behind --------------------------------------------------------------------------------------------------------

/// What the gateway passes on is for the proxy what it is for us: the same requests with the same bodies.
async fn behind(kind: Kind) {
    let recorder = Recorder::start().await;
    let Some(proxy) = Proxy::start(kind, recorder.address, Way::Streamed).await else { return };
    let front = Front::start_before(recorder, &format!("http://{}/in", proxy.address)).await;
    let mut wrong = Vec::new();
    for (nonce, written) in (1..).zip(corpus()) {
        let case = written.with(nonce);
        let stream = UnixStream::connect(&front.socket).await.expect("it listens");
        let talk = converse(stream, &[&case.bytes], &case).await;
        let mut complaints = talk.complaints(&case);
        let (bodies, expected) = (bodies(&front.upstream.take()), case.bodies());
        if bodies != expected {
            complaints.push(format!("the upstream saw {bodies:?}, not {expected:?}"));
        }
        if !complaints.is_empty() {
            wrong.push(format!("{case}: {}", complaints.join("; ")));
        }
    }
    assert!(wrong.is_empty(), "{kind}:\n{}", wrong.join("\n"));
}

impl Case {
    fn bodies(&self) -> Vec<String> {
        self.upstream.iter().map(|expected| text(&expected.body)).collect()
    }
}

fn bodies(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(|seen| text(&seen.body)).collect()
}

/// The bytes, as a failure shows them.
fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

// ---- in front ------------------------------------------------------------------------------------------------------

/// Each case goes to the proxy with a genuine webhook behind it on the same connection, and another on a new one. Each
/// answer shows the body that it answers, so a request too many or too few shows as an answer that is not one's own.
async fn in_front(kind: Kind) {
    for way in Way::ALL {
        // Each knows no copies yet.
        let front = Front::start().await;
        let Some(proxy) = Proxy::start(kind, front.gateway.public, way).await else { return };
        let wrong = all_through(&front, &proxy).await;
        assert!(wrong.is_empty(), "{kind}, {way:?}:\n{}", wrong.join("\n"));
    }
}

async fn all_through(front: &Front, proxy: &Proxy) -> Vec<String> {
    let mut wrong = Vec::new();
    for (nonce, written) in (1..).zip(corpus()) {
        let case = written.with(nonce);
        let before = counted(front).await;
        let next = format!("next {nonce}");
        let answers = through(proxy, &case, &next).await;
        let seen = bodies(&front.upstream.take());
        let counted = counted(front).await - before;
        let mut complaints = judge(&case, &next, &answers, counted, &seen);
        let fresh = format!("fresh {nonce}");
        let reply = request(proxy.address, "POST", "/hooks/open", &[], fresh.as_bytes()).await;
        if (reply.status, reply.text()) != (200, fresh.clone()) {
            complaints.push(format!("a genuine webhook afterwards got {} {:?}", reply.status, reply.text()));
        }
        let after = bodies(&front.upstream.take());
        if after != [fresh] {
            complaints.push(format!("afterwards the upstream saw {after:?}"));
        }
        if !complaints.is_empty() {
            let answers: Vec<_> = answers.iter().map(Answer::text).collect();
            wrong.push(format!("{case}: {}; the answers were {answers:?}", complaints.join("; ")));
        }
    }
    wrong
}

fn judge(case: &Case, next: &str, answers: &[Answer], counted: usize, seen: &[String]) -> Vec<String> {
    let mut complaints = Vec::new();
    // Ours carry an id; those of probes may not be stored, and are not counted.
    let ours = |answer: &&Answer| answer.header("x-request-id").is_some() && answer.header("cache-control").is_none();
    let relayed: Vec<_> = answers.iter().filter(ours).collect();
    // Who leaves in the middle of a request gets no answer to it.
    if relayed.len() > counted || (relayed.len() < counted && !case.ends) {
        complaints.push(format!("the gateway saw {counted} requests, and {} of its answers arrived", relayed.len()));
    }
    let accepted: Vec<_> =
        relayed.iter().filter(|answer| answer.status == 200).map(|answer| text(&answer.body)).collect();
    if accepted != seen {
        complaints.push(format!("accepted {accepted:?}, and the upstream saw {seen:?}"));
    }
    let mut own = case.bodies();
    own.extend(case.mended.iter().map(|body| text(body)));
    own.push(next.to_owned());
    // A proxy may answer some itself. What it passes on is what was meant, in order, and nothing out of a body.
    let mut expected = own.iter();
    if !seen.iter().all(|body| expected.any(|own| own == body)) {
        complaints.push(format!("the upstream saw {seen:?}, not only {own:?}"));
    }
    complaints
}

/// Everything that comes back for a case and the webhook behind it, to the end of the connection.
async fn through(proxy: &Proxy, case: &Case, next: &str) -> Vec<Answer> {
    let mut stream = TcpStream::connect(proxy.address).await.expect("it listens");
    let (reading, mut writing) = stream.split();
    let last = format!(
        "POST /hooks/open HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{next}",
        next.len()
    );
    let sending = async {
        // Whoever has answered may have closed.
        let _ = writing.write_all(&case.bytes).await;
        if case.ends {
            let _ = writing.shutdown().await;
        } else {
            let _ = writing.write_all(last.as_bytes()).await;
        }
    };
    let hearing = async {
        let mut reading = Reading::new(reading);
        let mut answers = Vec::new();
        loop {
            let is_bare = case.answers.get(answers.len()).is_some_and(|expected| expected.is_bare);
            match reading.answer(is_bare).await {
                Ok(Some(answer)) if answer.status == 100 => {}
                Ok(Some(answer)) => answers.push(answer),
                // A reset behind the last answer ends it as well.
                Ok(None) | Err(_) => return answers,
            }
        }
    };
    within("the end of the connection", async { tokio::join!(sending, hearing).1 }).await
}

/// Requests that the gateway has counted.
async fn counted(front: &Front) -> usize {
    let reply = request(front.gateway.admin, "GET", "/metrics", &[], b"").await;
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<usize>().ok());
    reply.text().lines().filter(|line| line.starts_with("hookward_webhooks_total")).filter_map(value).sum()
}

// ---- early refusals ------------------------------------------------------------------------------------------------

/// A webhook that is refused from its head while its body is on the way: the refusal has to arrive, every time.
async fn refuse_early(kind: Kind) {
    let front = Front::start().await;
    for way in Way::ALL {
        let Some(proxy) = Proxy::start(kind, front.gateway.public, way).await else { return };
        all_arrive(proxy.address, &format!("{kind}, {way:?}")).await;
    }
    assert_eq!(front.upstream.take().len(), 0);
}

async fn all_arrive(through: SocketAddr, what: &str) {
    for size in [60_000, 1_000_000, 10 << 20] {
        for chunked in [false, true] {
            let mut other = Vec::new();
            for _ in 0..100 {
                let answer = refused(through, size, chunked).await;
                if answer.as_ref().is_none_or(|answer| answer.status != 401) {
                    other.push(answer.map(|answer| answer.head));
                }
            }
            let count = other.len();
            assert_eq!(count, 0, "{what}, {size} bytes, chunked: {chunked}: {count} of 100 got such as {:?}", other[0]);
        }
    }
}

/// Sends everything before it reads, as the simplest clients do.
async fn refused(through: SocketAddr, size: usize, chunked: bool) -> Option<Answer> {
    let head = "POST /hooks/signed HTTP/1.1\r\nhost: a\r\n";
    let body = vec![b'x'; size];
    let bytes = if chunked {
        let head = format!("{head}transfer-encoding: chunked\r\n\r\n{size:x}\r\n");
        [head.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()
    } else {
        [format!("{head}content-length: {size}\r\n\r\n").as_bytes(), &body].concat()
    };
    let mut stream = TcpStream::connect(through).await.expect("it listens");
    let (reading, mut writing) = stream.split();
    let answer = async {
        // Whoever has answered may have closed.
        let _ = writing.write_all(&bytes).await;
        Reading::new(reading).answer(false).await
    };
    within("an answer", answer).await.ok()?
}
