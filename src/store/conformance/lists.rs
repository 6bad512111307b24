//! Lists and counts: filters, pages, and what one call may read.

use super::{
    super::judge::{SCAN_BODIES_MAX, SCAN_BYTES_MAX},
    prelude::*,
};

pub(super) const CASES: Cases = &[
    ("pages", |s| Box::pin(pages_are_full_and_the_last_one_says_so(s))),
    ("ends of a list", |s| Box::pin(a_list_goes_between_two_ids_in_both_directions(s))),
    ("filter by id, key, state", |s| Box::pin(everything_given_must_hold(s))),
    ("filter by time", |s| Box::pin(the_time_of_receipt_counts_and_not_that_of_the_id(s))),
    ("filter by JSON", |s| Box::pin(a_scalar_of_the_body_is_found(s))),
    ("many bodies", |s| Box::pin(a_call_reads_a_bounded_number_of_bodies(s))),
    ("large bodies", |s| Box::pin(a_call_reads_a_bounded_number_of_bytes(s))),
];

/// Events `first..last`, a second after one another.
async fn put_range(
    store: &dyn EventStore,
    range: std::ops::Range<u32>,
    change: impl Fn(u32, &mut NewEvent),
) -> Vec<EventId> {
    let mut ids = Vec::new();
    for n in range {
        let mut new = event(keys(n, n, n), &["a"]);
        new.head.received_at = Wall::from_unix_s(EPOCH_S + i64::from(n));
        new.head.id = EventId::new(new.head.received_at);
        change(n, &mut new);
        ids.push(put(store, new).await);
    }
    ids
}

fn ids(page: &Page) -> Vec<EventId> {
    page.events.iter().map(|one| one.head.id).collect()
}

/// Pages of a list, followed to its end.
async fn pages(store: &dyn EventStore, filter: &Filter, direction: Direction, limit: usize) -> Vec<Vec<EventId>> {
    let (mut pages, mut filter) = (Vec::new(), filter.clone());
    loop {
        let page = store.list(filter.clone(), direction, limit).await.unwrap();
        pages.push(ids(&page));
        let Some(next) = page.next else { return pages };
        match direction {
            Direction::NewestFirst => filter.before = Some(next),
            Direction::OldestFirst => filter.after = Some(next),
        }
    }
}

/// A count, followed to its end, and in how many calls.
async fn count(store: &dyn EventStore, mut filter: Filter) -> (u64, usize) {
    let (mut events, mut calls) = (0, 0);
    loop {
        let counted = store.count(filter.clone()).await.unwrap();
        (events, calls) = (events + counted.events, calls + 1);
        match counted.next {
            Some(next) => filter.after = Some(next),
            None => return (events, calls),
        }
    }
}

/// What a filter fits, by its place in `ids`; the same whichever way it is asked for.
async fn fitting(store: &dyn EventStore, ids: &[EventId], filter: Filter) -> Vec<usize> {
    let oldest_first = pages(store, &filter, Direction::OldestFirst, 1000).await.concat();
    let mut newest_first = pages(store, &filter, Direction::NewestFirst, 2).await.concat();
    newest_first.reverse();
    assert_eq!(oldest_first, newest_first);
    assert_eq!(count(store, filter).await.0, oldest_first.len() as u64);
    oldest_first.iter().map(|found| ids.iter().position(|id| id == found).unwrap()).collect()
}

async fn pages_are_full_and_the_last_one_says_so(store: &dyn EventStore) {
    let ids = put_range(store, 0..6, |n, new| {
        if n < 2 {
            new.head.event_type = Some("rare".to_owned());
        }
    })
    .await;
    let sizes = async |filter: &Filter, direction, limit| -> Vec<usize> {
        pages(store, filter, direction, limit).await.iter().map(Vec::len).collect()
    };
    let all = Filter::default();
    for direction in [Direction::NewestFirst, Direction::OldestFirst] {
        assert_eq!(sizes(&all, direction, 4).await, [4, 2]);
        assert_eq!(sizes(&all, direction, 3).await, [3, 3], "no empty page behind the last one");
        assert_eq!(sizes(&all, direction, 6).await, [6]);
        assert_eq!(sizes(&all, direction, 1_000_000).await, [6]);
        let rare = Filter { event_type: Some("rare".to_owned()), ..all.clone() };
        assert_eq!(sizes(&rare, direction, 1).await, [1, 1]);
    }
    let first = store.list(all, Direction::OldestFirst, 2).await.unwrap();
    assert_eq!((self::ids(&first), first.next), (ids[..2].to_vec(), Some(ids[1])));
    assert_eq!(store.count(Filter::default()).await, Ok(Counted { events: 6, next: None }));
}

async fn a_list_goes_between_two_ids_in_both_directions(store: &dyn EventStore) {
    let ids = put_range(store, 0..6, |_, _| {}).await;
    let between = |after: usize, before: usize| Filter {
        after: Some(ids[after]),
        before: Some(ids[before]),
        ..Filter::default()
    };
    assert_eq!(fitting(store, &ids, between(1, 5)).await, [2, 3, 4]);
    assert_eq!(fitting(store, &ids, between(2, 3)).await, [0; 0]);
    assert_eq!(fitting(store, &ids, between(3, 3)).await, [0; 0]);
    assert_eq!(fitting(store, &ids, between(4, 1)).await, [0; 0]);
    assert_eq!(fitting(store, &ids, Filter { after: Some(ids[3]), ..Filter::default() }).await, [4, 5]);
    assert_eq!(fitting(store, &ids, Filter { before: Some(ids[2]), ..Filter::default() }).await, [0, 1]);
}

async fn everything_given_must_hold(store: &dyn EventStore) {
    let ids = put_range(store, 0..4, |n, new| match n {
        1 => new.upstreams = vec!["a".into(), "b".into()],
        2 => new.upstreams = Vec::new(),
        3 => new.head.source = "other".into(),
        _ => {}
    })
    .await;
    settle(store, &take(store, "b").await, dead()).await;
    let all = Filter::default;
    let text = |text: &str| Some(text.to_owned());
    let fitting = async |filter| fitting(store, &ids, filter).await;
    assert_eq!(fitting(Filter { id: Some(ids[1]), ..all() }).await, [1]);
    assert_eq!(fitting(Filter { id: Some(ids[1]), source: text("other"), ..all() }).await, [0; 0]);
    assert_eq!(fitting(Filter { id: Some(EventId::from_bytes([9; 16])), ..all() }).await, [0; 0]);
    assert_eq!(fitting(Filter { unrouted: true, ..all() }).await, [2]);
    assert_eq!(fitting(Filter { unrouted: true, upstream: text("a"), ..all() }).await, [0; 0]);
    assert_eq!(fitting(Filter { upstream: text("a"), ..all() }).await, [0, 1, 3]);
    assert_eq!(fitting(Filter { state: Some(State::Dead), ..all() }).await, [1]);
    assert_eq!(fitting(Filter { state: Some(State::Dead), upstream: text("a"), ..all() }).await, [0; 0]);

    // The replay key lives an hour, the event key three days; both are found until a sweep removes them.
    let of = |n: u32| keys(n, n, n);
    let key = |lived: Option<Lived>| Filter { key: lived.map(|lived| lived.key), ..all() };
    assert_eq!(fitting(key(of(1).replay)).await, [1]);
    assert_eq!(fitting(key(of(2).event)).await, [2]);
    assert_eq!(fitting(key(of(9).event)).await, [0; 0]);
    store.append(event(keys(77, 1, 1), &["a"])).await.unwrap();
    assert_eq!(fitting(key(of(77).replay)).await, [1], "a key that came with a copy");
    tokio::time::advance(HOUR * 2).await;
    assert_eq!(fitting(key(of(1).replay)).await, [1], "expired");
    store.sweep(DAY).await.unwrap();
    assert_eq!(fitting(key(of(1).replay)).await, [0; 0], "swept");
    assert_eq!(fitting(key(of(1).event)).await, [1]);
    // Another body under the same event key: both own it.
    let mut other_body = event(keys(5, 1, 5), &["a"]);
    other_body.head.id = EventId::from_bytes([0xff; 16]);
    let conflict = put(store, other_body).await;
    let owners = store.list(key(of(1).event), Direction::OldestFirst, 9).await.unwrap();
    assert_eq!(self::ids(&owners), [ids[1], conflict]);
}

async fn the_time_of_receipt_counts_and_not_that_of_the_id(store: &dyn EventStore) {
    // The clock was set forward, and back, between the two readings.
    let ids = put_range(store, 0..5, |n, new| {
        let step_s = [0, 3000, 0, -3000, 0][n as usize];
        new.head.id = EventId::new(Wall::from_unix_s(EPOCH_S + i64::from(n) + step_s));
    })
    .await;
    let at = |s| Some(Wall::from_unix_s(EPOCH_S + s));
    let mut found = fitting(store, &ids, Filter { since: at(1), until: at(4), ..Filter::default() }).await;
    found.sort_unstable();
    assert_eq!(found, [1, 2, 3]);
    let one_ns_later = Wall::from_unix_ns(Wall::from_unix_s(EPOCH_S + 2).unix_ns() + 1);
    let mut found = fitting(store, &ids, Filter { since: Some(one_ns_later), ..Filter::default() }).await;
    found.sort_unstable();
    assert_eq!(found, [3, 4]);
    let mut found = fitting(store, &ids, Filter { until: Some(one_ns_later), ..Filter::default() }).await;
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2]);
}

async fn a_scalar_of_the_body_is_found(store: &dyn EventStore) {
    let bodies = [
        r#"{"id":"7","data":{"paid":true,"tags":["x","y"]}}"#,
        r#"{"id":7,"data":{"paid":false}}"#,
        r#"{"id":{"id":7}}"#,
        r"not JSON",
        r#"{"id":7,"gone":1}"#,
        r#"{"id":7,"id":8}"#,
    ];
    let ids = put_range(store, 0..6, |n, new| {
        new.body = Body::free(bodies[n as usize].as_bytes());
        if n == 4 {
            (new.keep_body, new.upstreams) = (false, vec!["b".into()]);
        }
    })
    .await;
    deliver(store, "b", delivered()).await;
    let json = |pointer: &str, value: &str| Filter {
        json: Some(JsonIs { pointer: pointer.to_owned(), value: value.to_owned() }),
        ..Filter::default()
    };
    let fitting = async |filter| fitting(store, &ids, filter).await;
    assert_eq!(fitting(json("/id", "7")).await, [0, 1], "as text; not where the body is gone or says two things");
    assert_eq!(fitting(json("/id/id", "7")).await, [2]);
    assert_eq!(fitting(json("/data/paid", "true")).await, [0]);
    assert_eq!(fitting(json("/data/paid", "false")).await, [1]);
    assert_eq!(fitting(json("/data/tags/1", "y")).await, [0]);
    assert_eq!(fitting(json("/id", "\"7\"")).await, [0; 0]);
    assert_eq!(fitting(json("/gone", "1")).await, [0; 0]);
    assert_eq!(fitting(json("/nothing", "")).await, [0; 0]);
    assert_eq!(fitting(Filter { id: Some(ids[1]), ..json("/id", "7") }).await, [1]);
}

async fn a_call_reads_a_bounded_number_of_bodies(store: &dyn EventStore) {
    let total = u32::try_from(SCAN_BODIES_MAX).unwrap() + 10;
    let appends = (0..total).map(|n| {
        let mut new = event(keys(n, n, n), &["a"]);
        new.head.id = EventId::new(Wall::from_unix_s(EPOCH_S + i64::from(n)));
        new.body = Body::free(if n == 0 || n == total - 1 { &b"{\"n\":1}"[..] } else { b"{\"n\":2}" });
        put(store, new)
    });
    let ids = join_all(appends).await;
    let wanted =
        || Filter { json: Some(JsonIs { pointer: "/n".to_owned(), value: "1".to_owned() }), ..Filter::default() };
    let (oldest, newest) = (ids[0], ids[total as usize - 1]);
    let found = pages(store, &wanted(), Direction::NewestFirst, 2).await;
    assert_eq!(
        (&*found[0], found.concat()),
        (&[newest][..], vec![newest, oldest]),
        "a short page, and the list goes on"
    );
    assert_eq!(count(store, wanted()).await, (2, 2));
    assert_eq!(
        count(store, Filter { event_type: Some("order.paid".to_owned()), ..Filter::default() }).await.0,
        u64::from(total)
    );
    // Only bodies of events that fit otherwise are read.
    let one = store.list(Filter { id: Some(oldest), ..wanted() }, Direction::NewestFirst, 9).await.unwrap();
    assert_eq!((self::ids(&one), one.next), (vec![oldest], None));
}

async fn a_call_reads_a_bounded_number_of_bytes(store: &dyn EventStore) {
    let large = usize::try_from(SCAN_BYTES_MAX / 4).unwrap();
    put_range(store, 0..5, |_, new| new.body = Body::free(vec![b' '; large])).await;
    let wanted = Filter { json: Some(JsonIs { pointer: "/n".to_owned(), value: "1".to_owned() }), ..Filter::default() };
    let (found, calls) = count(store, wanted.clone()).await;
    assert!((found, calls) == (0, 2), "{calls} calls for five quarters");
    let page = store.list(wanted.clone(), Direction::NewestFirst, 9).await.unwrap();
    assert!(page.events.is_empty() && page.next.is_some());
    assert_eq!(pages(store, &wanted, Direction::NewestFirst, 9).await.len(), 2);
}
