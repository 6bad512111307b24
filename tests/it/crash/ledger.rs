//! An upstream that misbehaves by a seed, and writes down what came and what it did with it.
//!
//! It speaks HTTP on bare sockets: no library resets a connection in the middle of an answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::world::within;

/// Length and SHA-256 of a body: what is compared, so that a long run need not keep every body.
pub(crate) type Print = (usize, [u8; 32]);

pub(crate) fn print_of(body: &[u8]) -> Print {
    (body.len(), Sha256::digest(body).into())
}

/// What the upstream did with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    /// Answered with this status, after this long.
    Answer(u16, Duration),
    /// Took it and never answered.
    Hang,
    /// Read it and reset the connection.
    Reset,
    /// Took it, and reset the connection behind a part of its 200, or all of it: the gateway may have read it or not.
    Cut,
}

impl Act {
    /// Whether the event is there, whatever the gateway knows of it.
    pub(crate) fn took(self) -> bool {
        !matches!(self, Self::Answer(300.., _) | Self::Reset)
    }

    fn drawn(random: &mut StdRng) -> Self {
        match random.random_range(0..100) {
            0..8 => Self::Answer([500, 502, 503, 504][random.random_range(0..4)], Duration::ZERO),
            8..11 => Self::Hang,
            11..17 => Self::Reset,
            17..25 => Self::Cut,
            25..45 => Self::Answer(200, Duration::from_millis(random.random_range(5..100))),
            _ => Self::Answer(200, Duration::ZERO),
        }
    }
}

/// One time that an event came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// `hookward-attempt`.
    pub(crate) attempt: u32,
    /// `hookward-uncertain`.
    pub(crate) uncertain: bool,
    pub(crate) act: Act,
}

/// What is known of one event.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) source: String,
    /// The body of each arrival is in here; one event has one body.
    pub(crate) bodies: Vec<Print>,
    /// In the order they came.
    pub(crate) arrivals: Vec<Arrival>,
}

pub(crate) struct Ledger {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    entries: Mutex<HashMap<String, Entry>>,
    random: Option<Mutex<StdRng>>,
    mood: watch::Sender<Mood>,
    waiting: watch::Sender<usize>,
    /// How often the gateway waited for an answer as long as it waits.
    given_up: watch::Sender<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    AsSeeded,
    /// What comes is taken, and the answer is kept back.
    Withholds,
    /// What comes is answered 503.
    Refuses,
}

impl Ledger {
    pub(super) async fn start(name: &'static str, seed: Option<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let url = format!("http://{}/in", listener.local_addr().expect("an address"));
        let shared = Arc::new(Shared {
            entries: Mutex::default(),
            random: seed.map(|seed| Mutex::new(StdRng::seed_from_u64(seed))),
            mood: watch::Sender::new(Mood::AsSeeded),
            waiting: watch::Sender::new(0),
            given_up: watch::Sender::new(0),
        });
        let served = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(served.clone(), stream));
            }
        });
        Self { name, url, shared }
    }

    /// From now on what comes is taken, and the answer is kept back.
    pub(crate) fn withhold_answers(&self) {
        self.shared.mood.send_replace(Mood::Withholds);
    }
    /// Waits until at least one answer is kept back.
    pub(crate) async fn withheld_some(&self) {
        let mut waiting = self.shared.waiting.subscribe();
        within("an attempt", waiting.wait_for(|waiting| *waiting > 0)).await.expect("it is there");
    }
    /// Waits until it refused something.
    pub(crate) async fn refused_once(&self) {
        let mut waiting = self.shared.waiting.subscribe();
        within("an attempt", waiting.wait_for(|waiting| *waiting > 0)).await.expect("it is there");
    }
    /// Waits until the gateway gives up on one more answer.
    pub(crate) async fn given_up_once_more(&self) {
        let mut given_up = self.shared.given_up.subscribe();
        let goal = *given_up.borrow() + 1;
        within("a timeout", given_up.wait_for(|given_up| *given_up >= goal)).await.expect("it is there");
    }
    /// From now on what comes is answered 503.
    pub(crate) fn refuse(&self) {
        self.shared.mood.send_replace(Mood::Refuses);
    }
    pub(crate) fn answer_again(&self) {
        self.shared.mood.send_replace(Mood::AsSeeded);
        self.shared.waiting.send_replace(0);
    }

    /// Everything that came, by event id.
    pub(crate) fn entries(&self) -> HashMap<String, Entry> {
        self.shared.entries.lock().expect("no panic").clone()
    }
}

/// One connection. An error is one whose gateway was killed.
async fn serve(shared: Arc<Shared>, mut stream: TcpStream) {
    let mut read = Vec::new();
    while let Some((head, body)) = next_request(&mut stream, &mut read).await {
        let id = header(&head, "hookward-event-id").unwrap_or_default().to_owned();
        let (act, cut_at) = shared.enter(&id, &head, &body);
        let mut withheld = shared.mood.subscribe();
        if *withheld.borrow() == Mood::Withholds {
            shared.waiting.send_modify(|waiting| *waiting += 1);
            let _ = withheld.wait_for(|mood| *mood != Mood::Withholds).await;
        }
        // In mode `respond` this is what the provider gets, and can tell the event by.
        let json = format!("{{\"id\":\"{id}\"}}");
        let status = if let Act::Answer(status, _) = act { status } else { 200 };
        let length = json.len();
        let answer = format!(
            "HTTP/1.1 {status} Any\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{json}"
        );
        match act {
            Act::Answer(_, pause) => {
                tokio::time::sleep(pause).await;
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Act::Hang => {
                let _ = stream.read_buf(&mut read).await;
                shared.given_up.send_modify(|given_up| *given_up += 1);
                return;
            }
            Act::Reset | Act::Cut => {
                if act == Act::Cut {
                    let _ = stream.write_all(&answer.as_bytes()[..cut_at.min(answer.len())]).await;
                }
                let _ = stream.set_zero_linger();
                return;
            }
        }
    }
}

impl Shared {
    /// Writes it down. Returns what to do, and where a [`Act::Cut`] is.
    fn enter(&self, id: &str, head: &str, body: &[u8]) -> (Act, usize) {
        let (act, cut_at) = match (*self.mood.borrow(), &self.random) {
            (Mood::Refuses, _) => {
                self.waiting.send_modify(|waiting| *waiting += 1);
                (Act::Answer(503, Duration::ZERO), 0)
            }
            (Mood::AsSeeded, Some(random)) => {
                let mut random = random.lock().expect("no panic");
                (Act::drawn(&mut random), random.random_range(0..256))
            }
            (Mood::AsSeeded, None) | (Mood::Withholds, _) => (Act::Answer(200, Duration::ZERO), 0),
        };
        let arrival = Arrival {
            attempt: header(head, "hookward-attempt").and_then(|number| number.parse().ok()).unwrap_or_default(),
            uncertain: header(head, "hookward-uncertain") == Some("true"),
            act,
        };
        let source = header(head, "hookward-source").unwrap_or_default();
        let mut entries = self.entries.lock().expect("no panic");
        let entry = entries.entry(id.to_owned()).or_insert_with(|| Entry {
            source: source.to_owned(),
            bodies: Vec::new(),
            arrivals: Vec::new(),
        });
        let print = print_of(body);
        if !entry.bodies.contains(&print) {
            entry.bodies.push(print);
        }
        entry.arrivals.push(arrival);
        (act, cut_at)
    }
}

/// Head and body of the next request; `None` at the end of the connection. A body cut by a kill reached nobody.
async fn next_request(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let head_end = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&read[..head_end]).into_owned();
    let length: usize = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while read.len() < head_end + length {
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
    let rest = read.split_off(head_end + length);
    let body = std::mem::replace(read, rest).split_off(head_end);
    Some((head, body))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.split_once(": ").filter(|(own, _)| own.eq_ignore_ascii_case(name));
    head.lines().find_map(value).map(|(_, value)| value)
}
