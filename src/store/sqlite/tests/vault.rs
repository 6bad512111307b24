//! Bodies at rest.

use super::{super::*, LEASE, options};
use crate::{
    event::{OnResend, State},
    secret::Secret,
    store::{
        JsonIs, Outcome,
        conformance::{event, keys, settled},
    },
};

const BODY: &[u8] = br#"{"iban": "a body that nobody may read"}"#;

fn key(id: &str, byte: u8) -> EncryptionKey {
    EncryptionKey { id: id.into(), key: Secret::new([byte; 32]) }
}

fn open(directory: &Path, encryption: Vec<EncryptionKey>) -> Arc<SqliteStore> {
    SqliteStore::open(&Options { encryption, ..options(directory) }).unwrap()
}

fn new(n: u32) -> NewEvent {
    NewEvent { body: Body::free(BODY), on_resend: OnResend::Drop, ..event(keys(n, n, n), &["a"]) }
}

#[tokio::test(start_paused = true)]
async fn no_body_and_no_answer_stands_in_the_file_and_keys_rotate() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), vec![key("old", 1)]);
    store.append(new(1)).await.unwrap();
    store.close().await;
    let store = open(directory.path(), vec![key("new", 2), key("old", 1)]);
    let second = new(2);
    let id = second.head.id;
    store.append(second).await.unwrap();
    let leased = store.lease("a", 9, LEASE).await.unwrap();
    assert!(leased.len() == 2 && leased.iter().all(|leased| leased.event.body[..] == *BODY));
    assert_eq!(&store.show(id).await.unwrap().event.body[..], BODY);
    let json = Some(JsonIs { pointer: "/iban".to_owned(), value: "a body that nobody may read".to_owned() });
    let by_json = store.list(Filter { json, ..Filter::default() }, Direction::NewestFirst, 9).await.unwrap();
    assert_eq!(by_json.events.len(), 2);
    assert_eq!(by_json.events[0].body_bytes, BODY.len() as u64, "as received");

    let answer = Answer { status: 200, content_type: None, body: BODY.into() };
    let delivered = settled(1, Outcome::Delivered { items: Vec::new() });
    let kept = Some((answer.clone(), Duration::from_hours(1)));
    store.settle(leased[1].lease, Settled { answer: kept, ..delivered }).await.unwrap();
    let copy = store.append(new(2)).await.unwrap();
    assert_eq!(copy, Appended::Known { first: id, rearmed: 0, answer: Some(answer) });
    store.close().await;
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|found| found == b"nobody"));
    }
    let store = open(directory.path(), Vec::new());
    let copy = store.append(new(2)).await.unwrap();
    assert_eq!(copy, Appended::Known { first: id, rearmed: 0, answer: None }, "it cannot be read");
}

#[tokio::test(start_paused = true)]
async fn without_its_key_a_delivery_waits_and_is_not_lost() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), vec![key("main", 1)]);
    let first = new(1);
    let id = first.head.id;
    store.append(first).await.unwrap();
    store.close().await;

    let store = open(directory.path(), vec![key("other", 1)]);
    store.append(new(2)).await.unwrap();
    assert_eq!(store.lease("a", 9, LEASE).await.unwrap().len(), 1, "what can be opened goes on");
    assert_eq!(store.next_due("a").await, Ok(Some(KEY_MISSING)));
    assert_eq!(store.show(id).await.unwrap_err(), StoreError::KeyMissing("main".to_owned()));
    let shown = store.list(Filter { id: Some(id), ..Filter::default() }, Direction::NewestFirst, 9).await.unwrap();
    assert_eq!((shown.events[0].deliveries[0].state, shown.events[0].deliveries[0].attempts), (State::Due, 0));
    store.close().await;

    let store = open(directory.path(), vec![key("other", 1), key("main", 1)]);
    tokio::time::advance(KEY_MISSING).await;
    let leased = store.lease("a", 9, LEASE).await.unwrap();
    assert!(leased.iter().any(|leased| leased.event.head.id == id && leased.event.body[..] == *BODY));
}

#[tokio::test(start_paused = true)]
async fn under_another_key_of_its_name_a_delivery_waits_and_is_not_lost() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), vec![key("main", 1)]);
    let first = new(1);
    let id = first.head.id;
    store.append(first).await.unwrap();
    store.close().await;
    // The key of another file: nothing of the store is damaged.
    let store = open(directory.path(), vec![key("main", 2)]);
    assert!(store.lease("a", 9, LEASE).await.unwrap().is_empty());
    let found = store.list(Filter { id: Some(id), ..Filter::default() }, Direction::NewestFirst, 9).await.unwrap();
    assert_eq!(found.events[0].deliveries[0].state, State::Due);
    let refused = store.show(id).await.unwrap_err().to_string();
    assert!(refused.contains("the key main (and not with the one that has this id now)"), "{refused}");
    assert_eq!(store.stats().await.unwrap().damaged, 0);
    store.close().await;

    let store = open(directory.path(), vec![key("main", 1)]);
    tokio::time::advance(KEY_MISSING).await;
    assert_eq!(store.lease("a", 9, LEASE).await.unwrap()[0].event.body[..], *BODY);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_without_its_key_is_put_off_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), vec![key("main", 1)]);
    for n in 0..20 {
        store.append(new(n)).await.unwrap();
    }
    store.close().await;
    let store = open(directory.path(), vec![key("other", 1)]);
    store.append(new(20)).await.unwrap();
    let before = store.commits();
    assert_eq!(store.lease("a", 64, LEASE).await.unwrap().len(), 1);
    let commits = store.commits() - before;
    assert!(commits <= 2, "{commits} commits: whoever is behind them waits for each");
    assert_eq!(store.next_due("a").await, Ok(Some(KEY_MISSING)));
}
