//! Signed webhooks from several senders at once, and what they were told.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::future::join_all;
use hookward::time::Clock;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{net::TcpStream, sync::watch, task::JoinHandle};

use super::{
    client,
    ledger::{Print, print_of},
    site::SOURCES,
};
use crate::world::{Reply, sign, within};

/// The secret of a source is this and its name.
pub(crate) const SECRET: &str = "a-secret-of-some-length";
const WORKERS: u64 = 8;
/// How many of the latest requests may come again; all of them are far younger than the tolerance.
const RECENT: usize = 256;

/// One webhook, as its provider would send it again and again.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    pub(crate) source: &'static str,
    pub(crate) body: Arc<[u8]>,
}

impl Webhook {
    pub(crate) fn new(source: &'static str, body: &[u8]) -> Self {
        Self { source, body: body.into() }
    }

    /// Empty, small, or of many pages; any bytes at all.
    fn drawn(random: &mut StdRng) -> Self {
        let (source, ..) = SOURCES[random.random_range(0..SOURCES.len())];
        let length = match random.random_range(0..64) {
            0 => 0,
            1..4 => random.random_range(20_000..200_000),
            _ => random.random_range(16..4096),
        };
        let mut body = vec![0; length];
        random.fill(&mut body[..]);
        Self { source, body: body.into() }
    }

    pub(crate) fn name(&self) -> Named {
        (self.source, print_of(&self.body))
    }

    /// Its headers, signed now.
    pub(crate) fn signed(&self) -> Signed {
        let now_s = Clock::system().wall().unix_s();
        sign("partssource", &format!("{SECRET}-{}", self.source), &self.body, now_s).into()
    }
}

/// What tells one webhook from every other: two sources may get the same bytes.
pub(crate) type Named = (&'static str, Print);
/// The headers of one request.
type Signed = Arc<[(String, String)]>;

#[derive(Default)]
struct Book {
    /// Everything that was ever sent.
    sent: HashSet<Named>,
    /// What was acknowledged, with the id where the answer tells it.
    acknowledged: HashMap<Named, Option<String>>,
    /// What was sent and never acknowledged: the provider sends it again.
    unanswered: Vec<Webhook>,
    /// The latest requests.
    recent: VecDeque<(Webhook, Signed)>,
}

#[derive(Clone)]
pub(crate) struct Load {
    book: Arc<Mutex<Book>>,
    count: Arc<watch::Sender<usize>>,
}

impl Load {
    pub(crate) fn new() -> Self {
        Self { book: Arc::default(), count: Arc::new(watch::Sender::new(0)) }
    }

    /// Senders that go on until the gateway is gone. `seed` must be another one each time.
    pub(crate) fn start(&self, to: SocketAddr, seed: u64) -> Vec<JoinHandle<()>> {
        let worker = |n| tokio::spawn(self.clone().work(to, StdRng::seed_from_u64(seed * WORKERS + n)));
        (0..WORKERS).map(worker).collect()
    }

    async fn work(self, to: SocketAddr, mut random: StdRng) {
        loop {
            let (webhook, signed) = self.next(&mut random);
            let copies = if random.random_ratio(1, 4) { random.random_range(2..=4) } else { 1 };
            let replies = join_all((0..copies).map(|_| self.send(to, &webhook, &signed))).await;
            // Anything but a 2xx fails the test: the gateway is there or it is not.
            replies.iter().flatten().for_each(|reply| assert_eq!(reply.status, 200, "{}", reply.text()));
            let mut book = self.book.lock().expect("no panic");
            if !book.acknowledged.contains_key(&webhook.name()) {
                book.unanswered.push(webhook.clone());
            }
            if replies.iter().any(Option::is_none) {
                return;
            }
            if book.recent.len() == RECENT {
                book.recent.pop_front();
            }
            book.recent.push_back((webhook, signed));
        }
    }

    /// Something new, a retry of what nobody answered, or a copy: as it was, or signed anew.
    fn next(&self, random: &mut StdRng) -> (Webhook, Signed) {
        let mut book = self.book.lock().expect("no panic");
        let again = match random.random_range(0..24) {
            0..8 => book.unanswered.pop(),
            kind @ 8..11 if !book.recent.is_empty() => {
                let (webhook, signed) = &book.recent[random.random_range(0..book.recent.len())];
                if kind == 8 {
                    return (webhook.clone(), signed.clone());
                }
                Some(webhook.clone())
            }
            _ => None,
        };
        drop(book);
        let webhook = again.unwrap_or_else(|| Webhook::drawn(random));
        let signed = webhook.signed();
        (webhook, signed)
    }

    /// Sends it once, and writes down what came of it. `None` if there was no whole answer.
    pub(crate) async fn send(&self, to: SocketAddr, webhook: &Webhook, signed: &Signed) -> Option<Reply> {
        self.book.lock().expect("no panic").sent.insert(webhook.name());
        let stream = TcpStream::connect(to).await.ok()?;
        let reply = client::post(stream, &format!("/hooks/{}", webhook.source), signed, &webhook.body).await?;
        if reply.status != 200 {
            return Some(reply);
        }
        let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let id = json["id"].as_str().map(str::to_owned);
        let mut book = self.book.lock().expect("no panic");
        let known = book.acknowledged.entry(webhook.name()).or_default();
        if let (Some(known), Some(id)) = (&known, &id) {
            assert_eq!(known, id, "one webhook, two ids");
        }
        *known = id.or(known.take());
        drop(book);
        self.count.send_modify(|count| *count += 1);
        Some(reply)
    }

    /// Waits until so many more answers came.
    pub(crate) async fn acknowledged_more(&self, more: usize) {
        let mut count = self.count.subscribe();
        let goal = *count.borrow() + more;
        within("answers", count.wait_for(|count| *count >= goal)).await.expect("it is there");
    }

    /// As a provider does.
    pub(crate) async fn send_again_what_was_not_answered(&self, to: SocketAddr) {
        let unanswered = std::mem::take(&mut self.book.lock().expect("no panic").unanswered);
        for webhook in unanswered {
            let reply = self.send(to, &webhook, &webhook.signed()).await.expect("the gateway is there");
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
    }

    /// Everything that was ever sent.
    pub(crate) fn sent(&self) -> HashSet<Named> {
        self.book.lock().expect("no panic").sent.clone()
    }

    /// Everything acknowledged, with the id where an answer told it.
    pub(crate) fn acknowledged(&self) -> HashMap<Named, Option<String>> {
        self.book.lock().expect("no panic").acknowledged.clone()
    }
}
