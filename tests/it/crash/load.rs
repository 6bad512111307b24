//! Signed webhooks from several senders at once, and what they were told.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::future::join_all;
use hookward::time::Clock;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{net::TcpStream, sync::watch, task::JoinHandle};

use super::{client, ledger::Entry};
use crate::world::{sign, within};

/// The secret of a source is this and its name.
pub(super) const SECRET: &str = "a-secret-of-some-length";
const WORKERS: u64 = 8;

/// One webhook, as its provider would send it again and again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Webhook {
    source: &'static str,
    body: Vec<u8>,
}

#[derive(Default)]
struct Book {
    /// What was acknowledged, with the id where the answer tells it.
    acknowledged: HashMap<Webhook, Option<String>>,
    /// What was sent and never acknowledged: the provider sends it again.
    unanswered: Vec<Webhook>,
}

#[derive(Clone)]
pub(super) struct Load {
    book: Arc<Mutex<Book>>,
    count: Arc<watch::Sender<usize>>,
}

impl Load {
    pub(super) fn new() -> Self {
        Self { book: Arc::default(), count: Arc::new(watch::Sender::new(0)) }
    }

    /// Senders that go on until the gateway is gone. `seed` must be another one each time.
    pub(super) fn start(&self, to: SocketAddr, seed: u64) -> Vec<JoinHandle<()>> {
        let worker = |n| tokio::spawn(self.clone().work(to, StdRng::seed_from_u64(seed * WORKERS + n)));
        (0..WORKERS).map(worker).collect()
    }

    async fn work(self, to: SocketAddr, mut random: StdRng) {
        loop {
            let webhook = self.next(&mut random);
            let copies = if random.random_ratio(1, 4) { random.random_range(2..=4) } else { 1 };
            let answers = join_all((0..copies).map(|_| self.send(to, &webhook))).await;
            let mut book = self.book.lock().expect("no panic");
            if !answers.contains(&true) && !book.acknowledged.contains_key(&webhook) {
                book.unanswered.push(webhook);
            }
            if answers.contains(&false) {
                return;
            }
        }
    }

    /// Something new, or something sent before.
    fn next(&self, random: &mut StdRng) -> Webhook {
        let mut book = self.book.lock().expect("no panic");
        if random.random_ratio(1, 3)
            && let Some(webhook) = book.unanswered.pop()
        {
            return webhook;
        }
        if random.random_ratio(1, 8)
            && let Some(webhook) = book.acknowledged.keys().next()
        {
            return webhook.clone();
        }
        let source = if random.random_ratio(1, 3) { "respond" } else { "queue" };
        let mut body = vec![0; random.random_range(16..4096)];
        random.fill(&mut body[..]);
        Webhook { source, body }
    }

    /// Whether it was answered. Anything but a 2xx fails the test: the gateway is there or it is not.
    async fn send(&self, to: SocketAddr, webhook: &Webhook) -> bool {
        let Ok(stream) = TcpStream::connect(to).await else { return false };
        let Webhook { source, body } = webhook;
        let now_s = Clock::system().wall().unix_ns() / 1_000_000_000;
        let headers = sign("partssource", &format!("{SECRET}-{source}"), body, now_s);
        let Some(reply) = client::post(stream, &format!("/hooks/{source}"), &headers, body).await else { return false };
        assert_eq!(reply.status, 200, "{}", reply.text());
        let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let id = json["id"].as_str().map(str::to_owned);
        let mut book = self.book.lock().expect("no panic");
        let known = book.acknowledged.entry(webhook.clone()).or_default();
        if let (Some(known), Some(id)) = (&known, &id) {
            assert_eq!(known, id, "one webhook, two ids");
        }
        *known = id.or(known.take());
        drop(book);
        self.count.send_modify(|count| *count += 1);
        true
    }

    /// Waits until so many more answers came.
    pub(super) async fn acknowledged_more(&self, more: usize) {
        let mut count = self.count.subscribe();
        let goal = *count.borrow() + more;
        within("answers", count.wait_for(|count| *count >= goal)).await.expect("it is there");
    }

    /// As a provider does.
    pub(super) async fn send_again_what_was_not_answered(&self, to: SocketAddr) {
        let unanswered = std::mem::take(&mut self.book.lock().expect("no panic").unanswered);
        for webhook in unanswered {
            assert!(self.send(to, &webhook).await, "the gateway is there");
        }
    }

    /// Everything acknowledged came to the upstream, as one event, byte for byte.
    pub(super) fn assert_all_in(&self, entries: &HashMap<String, Entry>) {
        let mut by_body: HashMap<&[u8], HashSet<&str>> = HashMap::new();
        for (id, entry) in entries {
            by_body.entry(&entry.body[..]).or_default().insert(id);
        }
        let book = self.book.lock().expect("no panic");
        assert!(!book.acknowledged.is_empty());
        for (webhook, id) in &book.acknowledged {
            let ids = by_body.get(&webhook.body[..]);
            let ids = ids.unwrap_or_else(|| panic!("acknowledged as {id:?} by {} and lost", webhook.source));
            assert_eq!(ids.len(), 1, "one webhook, several events: {ids:?}");
            assert!(id.as_ref().is_none_or(|id| ids.contains(&**id)), "acknowledged as {id:?}, forwarded as {ids:?}");
        }
    }
}
