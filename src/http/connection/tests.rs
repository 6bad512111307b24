//! Connections as their clients see them, on a pair of sockets and on paused time. What HTTP/2 is made of is written by
//! hand, because no library writes what is wrong.

mod places;

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    task::JoinHandle,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    super::listener::{ConnectionLimits, Connections, Offer, TlsConfig, Told},
    *,
};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;

fn limits() -> ConnectionLimits {
    ConnectionLimits {
        connections_max: 100,
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        age_max: Duration::from_hours(1),
        requests_max: 1000,
        trusted_proxies: Vec::new(),
        health_path: Some("/healthz".to_owned()),
    }
}

/// `/wait` never answers, `/later` does after a second, `/huge` answers with 4 MiB, `/refuse` without reading the body, and the rest with the client's
/// address, the host, the path and the length of the body.
async fn answer((peer, request): (Arc<Connected>, Request<ClientBody>)) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut answer = Response::new(Full::default());
    match head.uri.path() {
        "/wait" => pending().await,
        "/later" => tokio::time::sleep(Duration::from_secs(1)).await,
        "/huge" => *answer.body_mut() = Full::from(vec![b'x'; 4 << 20]),
        "/refuse" => {
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        _ => match body.collect().await {
            Err(_) => *answer.status_mut() = StatusCode::BAD_REQUEST,
            Ok(body) => {
                let (body, host) = (body.to_bytes(), head.headers.get(header::HOST));
                let text = format!("{:?} {host:?} {} {}", peer.address, head.uri, body.len());
                *answer.body_mut() = Full::from(text);
            }
        },
    }
    Ok(answer)
}

struct House {
    connections: Arc<Connections>,
    entrance: Entrance,
    drain: CancellationToken,
    /// The terms of its listener are others from then on.
    outdated: CancellationToken,
}

impl House {
    fn new(limits: ConnectionLimits) -> Self {
        let entrance = Entrance { h2c: true, ..Entrance::default() };
        let (drain, outdated) = (CancellationToken::new(), CancellationToken::new());
        Self { connections: Connections::new(limits, |_| {}), entrance, drain, outdated }
    }

    /// A connection, and why it ended.
    fn connect(&self) -> (UnixStream, JoinHandle<Ended>) {
        let (client, server) = UnixStream::pair().expect("a pair of sockets");
        let guest = self.connections.admit(None, &self.entrance).expect("a place");
        (client, self.serve(server, guest))
    }

    fn serve(&self, server: UnixStream, mut guest: Guest) -> JoinHandle<Ended> {
        guest.outdated = self.outdated.clone();
        let (entrance, drain) = (self.entrance.clone(), self.drain.clone());
        let service = tower::service_fn(answer);
        tokio::spawn(serve(Stream::Unix(server), guest, entrance, service, drain, TaskTracker::new()))
    }

    async fn http2(&self) -> (Http2, JoinHandle<Ended>) {
        let (stream, ended) = self.connect();
        let mut client = Http2 { stream, seen: Vec::new() };
        client.send(&[PREFACE, &frame(4, 0, 0, &[])[..]].concat()).await;
        (client, ended)
    }
}

/// How long it takes until it ends, in seconds, and why it does.
async fn end(ended: JoinHandle<Ended>) -> (u64, Ended) {
    let began = Instant::now();
    let why = ended.await.expect("no panic");
    (began.elapsed().as_secs(), why)
}

// ---- HTTP/2 by hand --------------------------------------------------------------------------------------------------

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header list, without any compression.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let short = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("short");
    let field = |(name, value): &(&str, &str)| {
        [&[0, short(name)][..], name.as_bytes(), &[short(value)], value.as_bytes()].concat()
    };
    fields.iter().flat_map(field).collect()
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "a")];

/// A request with these fields behind those of [`GET`], and nothing after it.
fn get(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(1, 5, stream, &fields(&[&GET, more].concat()))
}

/// The head of a request for a path, with a body to come.
fn post(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")];
    frame(1, 4, stream, &fields(&[&head, more].concat()))
}

struct Http2 {
    stream: UnixStream,
    seen: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Got {
    Status(u16),
    Reset(u32),
    GoAway(u32),
    Closed,
}

impl Http2 {
    async fn send(&mut self, bytes: &[u8]) {
        // It may have been told to go away in the middle of it.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next frame that is neither about settings nor about windows. A PING is answered, as by any client.
    async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            while self.seen.len() < 9 || self.seen.len() < 9 + self.length() {
                if self.stream.read_buf(&mut self.seen).await.ok()? == 0 {
                    return None;
                }
            }
            let rest = self.seen.split_off(9 + self.length());
            let whole = std::mem::replace(&mut self.seen, rest);
            let stream = u32::from_be_bytes(whole[5..9].try_into().expect("four bytes"));
            let payload = whole[9..].to_vec();
            match (whole[3], whole[4] & 1) {
                (4 | 8, _) => {}
                (6, 0) => self.send(&frame(6, 1, 0, &payload)).await,
                _ => return Some((whole[3], whole[4], stream, payload)),
            }
        }
    }

    fn length(&self) -> usize {
        usize::from(self.seen[1]) << 8 | usize::from(self.seen[2])
    }

    /// What becomes of a stream.
    async fn outcome(&mut self, of: u32) -> Got {
        let code = |payload: &[u8]| u32::from_be_bytes(payload[payload.len() - 4..].try_into().expect("four bytes"));
        loop {
            match self.next().await {
                None => return Got::Closed,
                Some((1, _, stream, payload)) if stream == of => return Got::Status(status(&payload)),
                Some((3, _, stream, payload)) if stream == of => return Got::Reset(code(&payload)),
                Some((7, _, _, payload)) if payload[4..8] != [0; 4] => {
                    return Got::GoAway(u32::from_be_bytes(payload[4..8].try_into().expect("four bytes")));
                }
                Some(_) => {}
            }
        }
    }

    /// The text of an answer.
    async fn text(&mut self, of: u32) -> String {
        loop {
            let (kind, _, stream, payload) = self.next().await.expect("an answer");
            if kind == 0 && stream == of {
                return String::from_utf8(payload).expect("text");
            }
        }
    }
}

/// The status at the beginning of a header list: from the static table, or three digits in Huffman's code.
fn status(list: &[u8]) -> u16 {
    match list[0] {
        0x88 => return 200,
        0x8c => return 400,
        0x8d => return 404,
        0x48 => {}
        other => panic!("a status that is not written as expected: {other:#x}"),
    }
    let length = usize::from(list[1] & 0x7f);
    let bits = list[2..2 + length].iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = 8 * length;
    let mut status = 0;
    for _ in 0..3 {
        let take = |count: usize| bits >> (left - count) & ((1 << count) - 1);
        let (digit, taken) = if take(5) <= 2 { (take(5), 5) } else { (take(6) - 0b01_1001 + 3, 6) };
        status = status * 10 + u16::try_from(digit).expect("a digit");
        left -= taken;
    }
    status
}

#[tokio::test(start_paused = true)]
async fn frames_that_break_the_rules_end_the_connection() {
    let unended = frame(1, 1, 1, &fields(&GET));
    let settings = |id: u8, value: u32| frame(4, 0, 0, &[&[0, id][..], &value.to_be_bytes()].concat());
    for (name, frames, code) in [
        ("data on no stream", frame(0, 0, 0, b"x"), PROTOCOL_ERROR),
        ("data on a stream that never began", frame(0, 0, 1, b"x"), PROTOCOL_ERROR),
        (
            "data with more padding than it has",
            [post(1, "/a", &[]), frame(0, 8, 1, &[9, 0, 0])].concat(),
            PROTOCOL_ERROR,
        ),
        ("a head on no stream", frame(1, 5, 0, &fields(&GET)), PROTOCOL_ERROR),
        ("a head on a stream of ours", get(2, &[]), PROTOCOL_ERROR),
        ("a head on an older stream", [get(5, &[]), get(3, &[])].concat(), PROTOCOL_ERROR),
        ("a head that is no header list", frame(1, 5, 1, &[0x80]), PROTOCOL_ERROR),
        ("a head that refers to nothing", frame(1, 5, 1, &[0xff, 0xff, 0x7f]), PROTOCOL_ERROR),
        ("a head that another frame interrupts", [&unended[..], &frame(6, 0, 0, &[0; 8])].concat(), PROTOCOL_ERROR),
        ("a head that goes on elsewhere", [&unended[..], &frame(9, 4, 3, &[])].concat(), PROTOCOL_ERROR),
        ("what goes on and never began", frame(9, 4, 1, &fields(&GET)), PROTOCOL_ERROR),
        ("a reset of no stream", frame(3, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        ("a reset of a stream that never began", frame(3, 0, 1, &[0; 4]), PROTOCOL_ERROR),
        ("a reset of a wrong size", [get(1, &[]), frame(3, 0, 1, &[0; 3])].concat(), FRAME_SIZE_ERROR),
        ("settings of a stream", frame(4, 0, 1, &[]), PROTOCOL_ERROR),
        ("settings of a wrong size", frame(4, 0, 0, &[0; 5]), FRAME_SIZE_ERROR),
        ("settings that acknowledge and say more", frame(4, 1, 0, &[0; 6]), FRAME_SIZE_ERROR),
        ("settings: push is neither 0 nor 1", settings(2, 2), PROTOCOL_ERROR),
        ("settings: a window too large", settings(4, 1 << 31), FLOW_CONTROL_ERROR),
        ("settings: frames too small", settings(5, 100), PROTOCOL_ERROR),
        ("an unknown pseudo header", get(1, &[(":other", "x")]), PROTOCOL_ERROR),
        ("a name in upper case", get(1, &[("X-Upper", "x")]), PROTOCOL_ERROR),
        ("a promise", frame(5, 4, 1, &[0; 8]), PROTOCOL_ERROR),
        ("a ping of a stream", frame(6, 0, 1, &[0; 8]), PROTOCOL_ERROR),
        ("a ping of a wrong size", frame(6, 0, 0, &[0; 7]), FRAME_SIZE_ERROR),
        ("a farewell of a stream", frame(7, 0, 1, &[0; 8]), PROTOCOL_ERROR),
        ("a window of a wrong size", frame(8, 0, 0, &[0; 3]), FRAME_SIZE_ERROR),
        ("a window that opens by nothing", frame(8, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        ("a window that overflows", frame(8, 0, 0, &[0x7f, 255, 255, 255]), FLOW_CONTROL_ERROR),
        ("a window of a stream that never began", frame(8, 0, 1, &[0, 0, 0, 1]), PROTOCOL_ERROR),
        ("a frame too large", frame(0, 0, 1, &vec![0; (16 << 10) + 1]), FRAME_SIZE_ERROR),
    ] {
        let (mut client, ended) = House::new(limits()).http2().await;
        client.send(&frames).await;
        let got = client.outcome(u32::MAX).await;
        // Of some of them h2 says no more than that they are wrong.
        assert!([Got::GoAway(code), Got::GoAway(PROTOCOL_ERROR)].contains(&got), "{name}: {got:?}");
        drop(client);
        assert_eq!(end(ended).await.1, Ended::Protocol, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_break_the_rules_are_reset_and_others_go_on() {
    let without = |name: &str| {
        let left: Vec<_> = GET.iter().copied().filter(|field| field.0 != name).collect();
        frame(1, 5, 1, &fields(&left))
    };
    let first = |field: (&str, &str)| frame(1, 5, 1, &fields(&[&[field], &GET[..]].concat()));
    let with = |name, value| get(1, &[(name, value)]);
    for (name, frames) in [
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("an empty path", frame(1, 5, 1, &fields(&[GET[0], GET[1], (":path", ""), GET[3]]))),
        ("two methods", with(":method", "GET")),
        ("two paths", with(":path", "/b")),
        ("a status", with(":status", "200")),
        ("a pseudo header behind a header", frame(1, 5, 1, &fields(&[GET[0], ("x", "y"), GET[1], GET[2], GET[3]]))),
        ("a protocol, which nobody offered", first((":protocol", "websocket"))),
        ("connection", with("connection", "keep-alive")),
        ("transfer-encoding", with("transfer-encoding", "chunked")),
        ("te that is not trailers", with("te", "gzip")),
        ("a length and no body", with("content-length", "1")),
        ("less body than its length", [post(1, "/a", &[("content-length", "2")]), frame(0, 1, 1, b"x")].concat()),
        ("more body than its length", [post(1, "/a", &[("content-length", "1")]), frame(0, 1, 1, b"xy")].concat()),
    ] {
        let (mut client, _ended) = House::new(limits()).http2().await;
        client.send(&frames).await;
        assert_eq!(client.outcome(1).await, Got::Reset(PROTOCOL_ERROR), "{name}");
        client.send(&get(3, &[("te", "trailers")])).await;
        assert_eq!(client.outcome(3).await, Got::Status(200), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_http_2_allows_is_served() {
    let (mut client, ended) = House::new(limits()).http2().await;
    // A frame that nobody knows, a PING, padding, a body in pieces, trailers.
    client.send(&frame(0xee, 0xff, 77, b"whatever")).await;
    client.send(&frame(6, 0, 0, b"12345678")).await;
    assert!(matches!(client.next().await, Some((6, 1, 0, payload)) if payload == b"12345678"));
    client.send(&post(1, "/hooks/a?b=c", &[])).await;
    client.send(&[frame(0, 8, 1, &[2, b'x', 0, 0]), frame(0, 0, 1, b"yz"), frame(0, 0, 1, b"")].concat()).await;
    client.send(&frame(1, 5, 1, &fields(&[("x-late", "1")]))).await;
    assert_eq!(client.outcome(1).await, Got::Status(200));
    assert_eq!(client.text(1).await, "None Some(\"a\") /hooks/a?b=c 3", "in the form of HTTP/1.1");
    // A head in two frames, whose host is its authority in other letters.
    let list = fields(&[&GET[..], &[("host", "A")]].concat());
    client.send(&[frame(1, 1, 3, &list[..7]), frame(9, 4, 3, &list[7..])].concat()).await;
    assert_eq!(client.text(3).await, "None Some(\"a\") /a 0".replace("\"a\"", "\"A\""));
    // A contradiction goes on as it is, and is refused like an absolute URI.
    client.send(&get(5, &[("host", "b")])).await;
    assert_eq!(client.text(5).await, "None Some(\"b\") http://a/a 0");
    client.send(&post(7, "/refuse", &[])).await;
    assert_eq!(client.outcome(7).await, Got::Status(401), "and not the end of the others");
    client.send(&get(9, &[])).await;
    assert_eq!(client.outcome(9).await, Got::Status(200));
    drop(client);
    assert_eq!(end(ended).await.1, Ended::Done);
}

#[tokio::test(start_paused = true)]
async fn there_are_so_many_streams_heads_and_bytes_and_no_more() {
    let (mut client, _ended) = House::new(limits()).http2().await;
    for stream in 0..32 {
        client.send(&post(2 * stream + 1, "/wait", &[])).await;
    }
    client.send(&get(65, &[])).await;
    assert_eq!(client.outcome(65).await, Got::Reset(REFUSED_STREAM));

    let (mut client, _ended) = House::new(limits()).http2().await;
    let long = "x".repeat(120);
    client.send(&get(1, &vec![("x-long", long.as_str()); 120])).await;
    assert_eq!(client.outcome(1).await, Got::Status(431));

    let (mut client, _ended) = House::new(limits()).http2().await;
    client.send(&post(1, "/wait", &[])).await;
    client.send(&frame(0, 0, 1, &[0; 16 << 10]).repeat(17)).await;
    assert_eq!(client.outcome(1).await, Got::GoAway(FLOW_CONTROL_ERROR), "more than a window");
}

#[tokio::test(start_paused = true)]
async fn floods_end_the_connection() {
    let empty_data = || [post(1, "/wait", &[]), frame(0, 0, 1, &[]).repeat(1000)].concat();
    for (name, first, again) in [
        ("settings", vec![], frame(4, 0, 0, &[])),
        ("pings", vec![], frame(6, 0, 0, &[0; 8])),
        ("answers to pings", vec![], frame(6, 1, 0, &[0; 8])),
        ("windows of one byte", vec![], frame(8, 0, 0, &[0, 0, 0, 1])),
        ("frames that nobody knows", vec![], frame(0xee, 0, 0, &[0; 16 << 10])),
        ("priorities", vec![], frame(2, 0, 3, &[0, 0, 0, 0, 1])),
        ("empty data", empty_data(), frame(0, 0, 1, &[])),
    ] {
        let (client, ended) = House::new(limits()).http2().await;
        let (mut reading, mut writing) = tokio::io::split(client.stream);
        // As a client that answers nothing, but does not stand in its own way.
        let reader = tokio::spawn(async move { while matches!(reading.read(&mut [0; 4096]).await, Ok(1..)) {} });
        let again = again.repeat((16 << 10) / again.len() + 1);
        let flood = tokio::spawn(async move {
            let _ = writing.write_all(&first).await;
            let mut sent = 0;
            while writing.write_all(&again).await.is_ok() {
                sent += again.len();
                assert!(sent < 64 << 20, "it never ends");
            }
        });
        let (took, why) = end(ended).await;
        // h2 has bounds of its own for some of them.
        assert!(matches!(why, Ended::Flood | Ended::Protocol), "{name}: {why:?}");
        assert!(took < 5, "{name}: {took}");
        flood.await.expect(name);
        reader.await.expect(name);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_of_many_tiny_frames_is_no_flood() {
    let (mut client, _ended) = House::new(limits()).http2().await;
    client.send(&post(1, "/a", &[])).await;
    // With a PING behind each hundred, as if they came one by one: h2 bounds those that nobody has read yet.
    let tiny = [frame(0, 0, 1, b"x").repeat(100), frame(6, 0, 0, &[0; 8])].concat();
    for _ in 0..2000 {
        client.send(&tiny).await;
        assert!(matches!(client.next().await, Some((6, ..))));
    }
    client.send(&frame(0, 1, 1, b"")).await;
    assert_eq!(client.outcome(1).await, Got::Status(200));
    assert!(client.text(1).await.ends_with(" 200000"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_opens_its_window_is_cut_after_thirty_seconds() {
    let (mut client, ended) = House::new(limits()).http2().await;
    client.send(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    client.send(&frame(1, 5, 1, &fields(&[GET[0], GET[1], (":path", "/huge"), GET[3]]))).await;
    let (began, other) = (Instant::now(), tokio::spawn(async move { while client.next().await.is_some() {} }));
    assert_eq!(ended.await.expect("no panic"), Ended::Write);
    assert_eq!(began.elapsed().as_secs(), 30);
    other.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_of_http_2_is_told_before_it_ends() {
    let (mut client, ended) = House::new(limits()).http2().await;
    client.send(&get(1, &[])).await;
    assert_eq!(client.outcome(1).await, Got::Status(200));
    let began = Instant::now();
    let mut told = Vec::new();
    while let Some((kind, _, _, payload)) = client.next().await {
        if kind == 7 {
            told.push((began.elapsed().as_secs(), payload[4..8].to_vec()));
        }
    }
    // That it will, and after which request it does: none was lost.
    assert_eq!(told, [(75, vec![0; 4]), (75, vec![0; 4])]);
    drop(client);
    assert_eq!(end(ended).await.1, Ended::Idle);
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_of_http_2_finishes_what_it_has() {
    let (mut client, ended) = House::new(ConnectionLimits { requests_max: 2, ..limits() }).http2().await;
    client.send(&get(1, &[])).await;
    assert_eq!(client.outcome(1).await, Got::Status(200));
    client.send(&post(3, "/a", &[])).await;
    assert!(matches!(client.next().await, Some((0, ..))), "the rest of the first answer");
    assert!(matches!(client.next().await, Some((7, ..))), "told while it still sends");
    client.send(&frame(0, 1, 3, b"xyz")).await;
    assert_eq!(client.outcome(3).await, Got::Status(200));
    assert!(client.text(3).await.ends_with(" 3"));
    assert_eq!(client.outcome(5).await, Got::Closed);
    drop(client);
    assert_eq!(end(ended).await.1, Ended::Requests);
}

// ---- HTTP/1.1 --------------------------------------------------------------------------------------------------------

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n";

/// The next answer, of which the status line, the headers and the body are text.
async fn read_answer(client: &mut (impl AsyncRead + Unpin)) -> String {
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.len() >= length.unwrap_or(0)
        {
            return format!("{head}\r\n\r\n{body}");
        }
        let read = client.read_buf(&mut seen).await.expect("an answer");
        assert!(read > 0, "closed after {text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_and_slowness_end_a_connection_in_time() {
    let house = House::new(limits());
    let (client, ended) = house.connect();
    assert_eq!(end(ended).await, (5, Ended::FirstByte));
    drop(client);
    // The first bytes of HTTP/2, and of HTTP/1.1.
    for begun in ["P", "PRI * HTTP/2.0\r\n\r\n", "G", "GET /a HTTP/1.1\r\n"] {
        let (mut client, ended) = house.connect();
        client.write_all(begun.as_bytes()).await.expect("taken");
        assert_eq!(end(ended).await, (10, Ended::Head), "{begun}");
    }
    let (mut client, ended) = house.connect();
    client.write_all(REQUEST).await.expect("taken");
    assert!(read_answer(&mut client).await.contains("200 OK"));
    assert_eq!(end(ended).await, (75, Ended::Idle));
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_answers_took_their_time_is_idle_like_any_other() {
    for requests in [1, 2] {
        let (mut client, ended) = House::new(limits()).connect();
        for _ in 0..requests {
            client.write_all(b"GET /later HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("taken");
            assert!(read_answer(&mut client).await.contains("200 OK"));
        }
        assert_eq!(end(ended).await, (75, Ended::Idle), "after {requests}");
        assert_eq!(client.read(&mut [0; 1]).await.expect("closed"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn one_byte_of_an_answer_now_and_then_is_not_enough() {
    for silent in [true, false] {
        let (mut client, ended) = House::new(limits()).connect();
        client.write_all(b"GET /huge HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("taken");
        let reading = tokio::spawn(async move {
            let bytes = if silent { 0 } else { u32::MAX };
            for _ in 0..bytes {
                tokio::time::sleep(Duration::from_secs(7)).await;
                if client.read(&mut [0; 1]).await.is_err() {
                    break;
                }
            }
            client
        });
        assert_eq!(end(ended).await.1, Ended::Write);
        reading.abort();
    }
    let (mut client, ended) = House::new(limits()).connect();
    client.write_all(b"GET /huge HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("taken");
    let mut read = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        match client.read(&mut [0; 16 << 10]).await.expect("it goes on") {
            0 => break,
            more => read += more,
        }
    }
    assert!(read > 4 << 20, "whoever is slow and steady gets it all");
    assert_eq!(end(ended).await.1, Ended::Done);
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_of_a_connection_says_so() {
    for (bounds, wait, why) in [
        (ConnectionLimits { requests_max: 2, ..limits() }, 0, Ended::Requests),
        (ConnectionLimits { age_max: Duration::from_mins(1), ..limits() }, 60, Ended::Age),
    ] {
        let (mut client, ended) = House::new(bounds).connect();
        client.write_all(REQUEST).await.expect("taken");
        assert!(!read_answer(&mut client).await.contains("connection: close"));
        tokio::time::sleep(Duration::from_secs(wait)).await;
        client.write_all(REQUEST).await.expect("still there");
        assert!(read_answer(&mut client).await.contains("connection: close"), "{why:?}");
        assert_eq!(client.read(&mut [0; 1]).await.expect("closed, not reset"), 0);
        drop(client);
        assert_eq!(end(ended).await.1, why);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_both_kinds_after_their_present_request() {
    let house = House::new(limits());
    let (mut idle, idle_ended) = house.connect();
    idle.write_all(REQUEST).await.expect("taken");
    read_answer(&mut idle).await;
    let (mut busy, busy_ended) = house.http2().await;
    busy.send(&post(1, "/a", &[])).await;
    busy.send(&frame(6, 0, 0, &[0; 8])).await;
    assert!(matches!(busy.next().await, Some((6, ..))), "it is being served");
    house.drain.cancel();
    assert_eq!(end(idle_ended).await, (0, Ended::Drain));
    assert!(matches!(busy.next().await, Some((7, ..))));
    busy.send(&frame(0, 1, 1, b"x")).await;
    assert_eq!(busy.outcome(1).await, Got::Status(200));
    assert_eq!(busy.outcome(3).await, Got::Closed);
    drop(busy);
    assert_eq!(end(busy_ended).await.1, Ended::Drain);
}

#[tokio::test(start_paused = true)]
async fn under_other_terms_what_is_in_service_is_answered_and_nothing_else() {
    let mut house = House::new(limits());
    house.entrance.h2c = false;
    let (mut idle, idle_ended) = house.connect();
    idle.write_all(REQUEST).await.expect("taken");
    read_answer(&mut idle).await;
    let (mut silent, silent_ended) = house.connect();
    house.entrance.h2c = true;
    let (mut busy, busy_ended) = house.connect();
    busy.write_all(b"GET /later HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("taken");
    let mut begun = Vec::new();
    for path in ["/a", "/healthz"] {
        let (mut client, ended) = house.connect();
        client.write_all(REQUEST).await.expect("taken");
        read_answer(&mut client).await;
        client.write_all(format!("GET {path} HTTP/1.1\r\n").as_bytes()).await.expect("taken");
        begun.push((path, client, ended));
    }
    let (mut streams, streams_ended) = house.http2().await;
    streams.send(&post(1, "/a", &[])).await;
    streams.send(&frame(6, 0, 0, &[0; 8])).await;
    assert!(matches!(streams.next().await, Some((6, ..))), "it is being served");
    let began = Instant::now();
    house.outdated.cancel();

    for (client, ended) in [(&mut idle, idle_ended), (&mut silent, silent_ended)] {
        assert_eq!(client.read(&mut [0; 1]).await.expect("closed, not reset"), 0);
        assert_eq!(began.elapsed(), Duration::ZERO, "between two requests there is nothing to wait for");
        client.shutdown().await.expect("it goes");
        assert_eq!(end(ended).await, (0, Ended::Terms));
    }
    // What has begun and is no request yet: it is answered, so that it is sent again, and not served.
    for (path, mut client, ended) in begun {
        client.write_all(b"host: a\r\n\r\n").await.expect("it is open");
        let answer = read_answer(&mut client).await;
        let (status, says) = if path == "/a" { ("503", "connect anew") } else { ("200", "/healthz") };
        assert!(answer.contains(status) && answer.contains(says), "{path}: {answer}");
        assert!(answer.contains("connection: close"), "{path}: {answer}");
        drop(client);
        assert_eq!(end(ended).await.1, Ended::Terms);
    }
    let answer = read_answer(&mut busy).await;
    assert!(answer.contains("200 OK") && answer.contains("connection: close"), "{answer}");
    drop(busy);
    assert_eq!(end(busy_ended).await.1, Ended::Terms);
    // On HTTP/2 others may begin until the client knows. It says that it does only when it likes to.
    assert!(matches!(streams.next().await, Some((7, ..))));
    streams.send(&get(3, &[])).await;
    assert_eq!(streams.outcome(3).await, Got::Status(503));
    streams.send(&frame(0, 1, 1, b"x")).await;
    assert_eq!(streams.outcome(1).await, Got::Status(200));
    assert_eq!(streams.outcome(5).await, Got::Closed);
    drop(streams);
    assert_eq!(end(streams_ended).await.1, Ended::Terms);
}

// ---- before HTTP -----------------------------------------------------------------------------------------------------

/// A certificate that nobody vouches for, and a client that trusts it.
fn tls(protocols: &[&str]) -> (TlsConfig, tokio_rustls::TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a key that fits");
    server.alpn_protocols = ["h2", "http/1.1", "acme-tls/1"].map(|name| name.as_bytes().to_vec()).to_vec();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate");
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let offer = Offer { config: Arc::new(server), outdated: CancellationToken::new() };
    (Arc::new(move || offer.clone()), Arc::new(client).into())
}

#[tokio::test]
async fn tls_says_what_is_spoken() {
    for (protocols, spoken) in
        [(&[][..], "HTTP/1.1"), (&["http/1.1"], "HTTP/1.1"), (&["http/1.1", "h2"], "h2"), (&["acme-tls/1"], "nothing")]
    {
        let mut house = House::new(limits());
        let (config, connector) = tls(protocols);
        house.entrance = Entrance { tls: Some(config), proxy_protocol: true, ..Entrance::default() };
        let (mut client, ended) = house.connect();
        client.write_all(b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n").await.expect("taken");
        let name = "localhost".try_into().expect("a name");
        let mut client = connector.connect(name, client).await.expect("a handshake");
        let mut seen = vec![0; 9];
        match spoken {
            "h2" => {
                client.write_all(&[PREFACE, &frame(4, 0, 0, &[])[..]].concat()).await.expect("taken");
                client.read_exact(&mut seen).await.expect("settings");
                assert_eq!(seen[3..], [4, 0, 0, 0, 0, 0]);
            }
            "HTTP/1.1" => {
                client.write_all(REQUEST).await.expect("taken");
                assert!(read_answer(&mut client).await.contains("Some(203.0.113.7)"));
            }
            _ => {
                assert!(!matches!(client.read(&mut seen).await, Ok(1..)));
                assert_eq!(end(ended).await.1, Ended::Done);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_five_seconds() {
    let mut house = House::new(limits());
    house.entrance = Entrance { tls: Some(tls(&[]).0), ..Entrance::default() };
    for (sent, seconds) in [(&b""[..], 5), (b"\x16\x03\x01\x00\xf0", 5), (REQUEST, 0)] {
        let (mut client, ended) = house.connect();
        client.write_all(sent).await.expect("taken");
        assert_eq!(end(ended).await, (seconds, Ended::Tls), "{sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_the_body_of_a_refused_request_is_no_head() {
    let house = House::new(limits());
    let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
    let guest = house.connections.admit(None, &Entrance::default()).expect("a place");
    let service = tower::service_fn(|(_, request): (Arc<Connected>, Request<ClientBody>)| async move {
        let mut body = request.into_body();
        tokio::spawn(async move { while body.frame().await.is_some() {} });
        let mut answer = Response::new(Full::<Bytes>::default());
        *answer.status_mut() = StatusCode::NOT_FOUND;
        Ok::<_, Infallible>(answer)
    });
    let (drain, tracker) = (house.drain.clone(), TaskTracker::new());
    let ended = tokio::spawn(serve(Stream::Unix(server), guest, Entrance::default(), service, drain, tracker));
    client.write_all(b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n").await.expect("sent");
    assert!(client.read(&mut [0; 1024]).await.expect("an answer") > 0);
    client.write_all(b"hello").await.expect("sent");
    assert_eq!(end(ended).await, (75, Ended::Idle));
}

#[tokio::test(start_paused = true)]
async fn a_refused_upload_is_read_on_in_a_drain_as_well() {
    for drains in [false, true] {
        let house = House::new(limits());
        let (mut client, _ended) = house.connect();
        client.write_all(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
        assert!(client.read(&mut [0; 1024]).await.expect("an answer") > 0);
        if drains {
            house.drain.cancel();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        client.write_all(b"POST /refuse HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\n").await.expect("sent");
        assert!(client.read(&mut [0; 1024]).await.expect("an answer") > 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.write_all(&[b'x'; 1000]).await.expect("not reset: the answer may still be under way");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_has_begun_when_a_drain_lets_nobody_begin_any_more_is_answered() {
    for used in [false, true] {
        let house = House::new(limits());
        let (mut client, _ended) = house.connect();
        if used {
            client.write_all(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
            assert!(client.read(&mut [0; 1024]).await.expect("an answer") > 0);
        }
        house.drain.cancel();
        tokio::time::sleep(LAST_REQUEST.mul_f32(0.9)).await;
        client.write_all(b"POST /a HTTP/1.1\r\nhost: a\r\n").await.expect("sent");
        tokio::time::sleep(LAST_REQUEST).await;
        client.write_all(b"content-length: 5\r\n\r\nhello").await.expect("it is open");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("not reset");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("connection: close"), "used {used}: {answer}");
    }
}
