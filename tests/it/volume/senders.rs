//! Senders on connections that stay open. Every fifth event is sent twice: at the same moment, or again later.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::future::join_all;
use hookward::time::Clock;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::world::sign;

pub(super) const SECRET: &str = "a-secret-of-some-length";
const SENDERS: u32 = 24;
/// What an event is at least as long as: so much that its keys, which outlive it, weigh little.
const PADDING_BYTES: usize = 6_000;
/// Of so many events one is copied.
const COPIED: u32 = 5;

/// Sends the events 0 to `events` with their copies, and returns how many copies there were.
pub(super) async fn send_all(to: SocketAddr, events: u32) -> u32 {
    let senders = (0..SENDERS).map(|sender| tokio::spawn(send_part(to, sender, events)));
    join_all(senders).await.into_iter().map(|copies| copies.expect("no panic")).sum()
}

/// Each sender has every so manieth event.
async fn send_part(to: SocketAddr, sender: u32, events: u32) -> u32 {
    let (mut one, mut other) = (Connection::open(to).await, Connection::open(to).await);
    let mut earlier: Option<(u32, String)> = None;
    let mut copies = 0;
    for number in (sender..events).step_by(SENDERS as usize) {
        let headers = signed(number);
        let id = if number % (2 * COPIED) == 0 {
            copies += 1;
            let (first, second) = tokio::join!(one.post(number, &headers), other.post(number, &headers));
            let mut words = [first.0.as_str(), second.0.as_str()];
            words.sort_unstable();
            assert_eq!(words, ["accepted", "duplicate"], "event {number}");
            assert_eq!(first.1, second.1, "event {number} has two ids");
            first.1
        } else {
            let (word, id) = one.post(number, &headers).await;
            assert_eq!(word, "accepted", "event {number}");
            id
        };
        if number % (2 * COPIED) == COPIED {
            // Of an event some time ago, signed anew as providers do.
            let (number, id) = earlier.replace((number, id)).unwrap_or_default();
            if !id.is_empty() {
                copies += 1;
                let again = other.post(number, &signed(number)).await;
                assert_eq!(again, ("duplicate".to_owned(), id), "event {number}, again");
            }
        }
    }
    copies
}

fn signed(number: u32) -> Vec<(String, String)> {
    sign("partssource", SECRET, &body(number), Clock::system().wall().unix_s())
}

pub(super) fn body(number: u32) -> Bytes {
    let padding = "x".repeat(PADDING_BYTES);
    format!(r#"{{"reference_id":{number},"event_type":"order.updated","company_id":1,"note":"{padding}"}}"#).into()
}

/// The number of the event that this is the body of.
pub(super) fn number(body: &[u8]) -> Option<u32> {
    let rest = body.strip_prefix(br#"{"reference_id":"#)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

struct Connection {
    to: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    async fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        Self { to: to.to_string(), sender }
    }

    /// Returns the word of the acknowledgement and the id.
    async fn post(&mut self, number: u32, headers: &[(String, String)]) -> (String, String) {
        self.sender.ready().await.expect("the connection stays open");
        let mut request = Request::post("/hooks/orders").header("host", &self.to);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body(number))).expect("the parts are valid");
        let response = self.sender.send_request(request).await.expect("an answer");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let ack: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let of = |key: &str| ack[key].as_str().expect("text").to_owned();
        (of("status"), of("id"))
    }
}
