//! Operations, on paused time: the service itself, without a socket, over the store in memory.

use bytes::Bytes;
use hookward::{
    config::model::OnFull,
    event::{Attempt, Begin, Body, Client, EventHead, EventId, Hold, NewEvent, OnConflict, OnResend},
    store::{
        Appended, Outcome, Settled,
        memory::{MemoryStore, Options},
    },
    verify::{Key, Keys, Lived},
};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tower::ServiceExt as _;

use super::*;
use crate::counts::reduced;

/// An admin listener without the listener.
struct Desk {
    admin: Arc<Admin>,
    operations: Arc<Operations>,
    forgotten: Arc<Mutex<Vec<EventId>>>,
}

impl Desk {
    fn over(store: Arc<dyn EventStore>) -> Self {
        let mut given = given("127.0.0.1:1".parse().expect("an address"), &[], store);
        let forgotten = Arc::new(Mutex::new(Vec::new()));
        let told = forgotten.clone();
        given.forgotten = Arc::new(move |ids| told.lock().expect("not poisoned").extend_from_slice(ids));
        given.operations = Operations::new(given.store.clone(), given.clock.clone(), given.forgotten.clone());
        Self { operations: given.operations.clone(), admin: Admin::new(given), forgotten }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("content-type", "application/json").body(Full::new(Bytes::from(body.to_owned())));
        let answer = admin::service(self.admin.clone()).oneshot(request.expect("a request")).await.expect("an answer");
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(Into::into).expect("it is whole").to_bytes();
        let content_type = head.headers["content-type"].to_str().expect("text");
        schema::check(method, path, head.status.as_u16(), content_type, &body);
        (head.status.as_u16(), serde_json::from_slice(&body).expect("JSON"))
    }

    /// Begins one, and returns its path.
    async fn begin(&self, request: &str) -> String {
        let (status, row) = self.ask("POST", "/api/v1/operations", request).await;
        assert_eq!((status, &row["state"]), (202, &"running".into()), "{row:#}");
        format!("/api/v1/operations/{}", row["id"].as_str().expect("an id"))
    }

    async fn refused(&self, request: &str) -> (u16, String) {
        let (status, problem) = self.ask("POST", "/api/v1/operations", request).await;
        (status, problem["code"].as_str().expect("a problem").to_owned())
    }

    async fn row(&self, path: &str) -> Value {
        let (status, row) = self.ask("GET", path, "").await;
        assert_eq!(status, 200, "{row:#}");
        row
    }

    /// Waits until it does not run any more.
    async fn ended(&self, path: &str) -> Value {
        loop {
            let row = self.row(path).await;
            if row["state"] != "running" {
                return row;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn memory() -> Arc<MemoryStore> {
    MemoryStore::new(&Options {
        keys_max: 1_000_000,
        on_full: OnFull::Evict,
        bytes_max: 4 << 30,
        disk_share_max: 1.0,
        clock: Clock::starting_at(Wall::from_unix_s(1_763_712_000)),
    })
}

/// An event of its own, with deliveries to these.
async fn append(store: &dyn EventStore, number: u32, upstreams: &[&str], begin: Begin) -> (EventId, Appended) {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    let id = EventId::new(Wall::from_unix_ms(1_763_712_000_000 + i64::from(number)));
    let head = EventHead {
        id,
        source: "gains".into(),
        provider: "gains".into(),
        received_at: Wall::from_unix_s(1_763_712_000),
        method: "POST".into(),
        query: None,
        client: Client::default(),
        headers: Vec::new(),
        event_type: None,
        attempt_id: None,
        verified: "none".into(),
        traceparent: String::new(),
        duplicate_of: None,
        conflict_of: None,
    };
    let lived = Lived { key: Key(key), lives: Duration::from_hours(1000) };
    let keys = Keys { body: key, replay: None, nonce: None, event: Some(lived), timed: false, fell_back: false };
    let event = NewEvent {
        head,
        body: Body::free(format!("{{\"n\":{number}}}")),
        keys,
        upstreams: upstreams.iter().map(|&name| name.into()).collect(),
        begin,
        on_conflict: OnConflict::Hold,
        on_resend: OnResend::Drop,
        order_key: None,
        keep_body: true,
    };
    (id, store.append(event).await.expect("stored"))
}

/// An event whose delivery to the first upstream has ended so.
async fn settled(store: &dyn EventStore, number: u32, upstreams: &[&str], outcome: Outcome) -> EventId {
    let (id, appended) = append(store, number, upstreams, Begin::FirstLeased(Duration::from_mins(1))).await;
    let Appended::New { lease: Some(lease), .. } = appended else { panic!("{appended:?}") };
    let attempt = Attempt {
        number: 1,
        began_at: Wall::from_unix_s(1_763_712_000),
        took: Duration::ZERO,
        status: None,
        error: None,
        cause: "first".into(),
    };
    store.settle(lease, Settled { attempt, outcome, answer: None, uncertain: false }).await.expect("settled");
    id
}

fn dead() -> Outcome {
    Outcome::Dead { reason: "status 410".into() }
}

/// Every delivery that is due, each of an event, with the number of the attempt and its cause.
async fn leased(store: &dyn EventStore, upstream: &str) -> BTreeMap<EventId, (u32, String)> {
    let mut all = BTreeMap::new();
    loop {
        let part = store.lease(upstream, 500, Duration::from_hours(1)).await.expect("leased");
        if part.is_empty() {
            return all;
        }
        for one in part {
            let again = all.insert(one.event.head.id, (one.attempt, one.cause));
            assert_eq!(again, None, "no event is due twice");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_redelivery_of_many_can_be_watched_stopped_and_resumed_and_takes_each_exactly_once() {
    let events = reduced("redelivered events", 5_000, 100_000);
    let store = memory();
    for number in 0..events {
        settled(&*store, number, &["orders"], dead()).await;
    }
    let desk = Desk::over(store.clone());
    let began = Instant::now();
    let rate = 1_000;
    let operation = desk.begin(&format!(r#"{{"action":"redeliver","filter":{{"state":"dead"}},"rate":{rate}}}"#)).await;
    let later = settled(&*store, events, &["orders"], dead()).await;

    let mut before = 0;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let row = desk.row(&operation).await;
        let done = row["done"].as_u64().expect("a number");
        let may = began.elapsed().as_secs_f64() * f64::from(rate) + 250.0;
        assert!(done > before, "it gets on: {row:#}");
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let is = done as f64;
        assert!(is <= may && is >= may - 500.0, "the rate is kept: {is} of {may}");
        assert_eq!((&row["total"], &row["total_exact"]), (&events.into(), &true.into()));
        assert_eq!(row["percent"].as_u64(), Some(done * 100 / u64::from(events)));
        before = done;
    }

    let (status, stopped) = desk.ask("POST", &format!("{operation}/stop"), "").await;
    assert_eq!(
        (status, &stopped["state"], &stopped["reason"]),
        (200, &"stopped".into(), &"loopback stopped it".into())
    );
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(desk.row(&operation).await, stopped, "nothing more is done");
    let (status, _) = desk.ask("POST", &format!("{operation}/stop"), "").await;
    assert_eq!(status, 409, "what is stopped cannot be stopped");

    let (status, resumed) = desk.ask("POST", &format!("{operation}/resume"), "").await;
    assert_eq!((status, &resumed["state"], &resumed["done"]), (202, &"running".into(), &stopped["done"]));
    let (status, _) = desk.ask("POST", &format!("{operation}/resume"), "").await;
    assert_eq!(status, 409, "it runs already");

    // The process ends in the middle of it, and another one goes on.
    tokio::time::sleep(Duration::from_millis(700)).await;
    desk.operations.drain().await;
    let ended = desk.row(&operation).await;
    assert_eq!((&ended["state"], &ended["reason"]), (&"stopped".into(), &"the process ended".into()));
    let (status, _) = desk.ask("POST", &format!("{operation}/resume"), "").await;
    assert_eq!(status, 409, "a process that ends begins nothing");
    let desk = Desk::over(store.clone());
    assert_eq!(desk.ask("POST", &format!("{operation}/resume"), "").await.0, 202);

    let finished = desk.ended(&operation).await;
    assert_eq!((&finished["state"], &finished["percent"]), (&"finished".into(), &100.into()));
    // An event that was taken twice would have been due, not dead, and so skipped.
    assert_eq!((&finished["done"], &finished["skipped"]), (&events.into(), &0.into()));
    let due = leased(&*store, "orders").await;
    assert_eq!(due.len(), events as usize);
    assert!(due.values().all(|(attempt, cause)| (*attempt, cause.as_str()) == (2, "redelivery")));
    assert!(!due.contains_key(&later), "what came after the beginning is not meant");
}

#[tokio::test(start_paused = true)]
async fn only_the_deliveries_that_match_are_sent_again() {
    let store = memory();
    let both = settled(&*store, 1, &["orders", "audit"], dead()).await;
    let other = store.lease("audit", 1, Duration::from_mins(1)).await.expect("leased").remove(0);
    let attempt = Attempt {
        number: 1,
        began_at: Wall::from_unix_s(1),
        took: Duration::ZERO,
        status: Some(200),
        error: None,
        cause: "first".into(),
    };
    let outcome = Outcome::Delivered { items: Vec::new() };
    store.settle(other.lease, Settled { attempt, outcome, answer: None, uncertain: false }).await.expect("settled");
    let desk = Desk::over(store.clone());

    let operation = desk.begin(r#"{"action":"redeliver","filter":{"state":"dead"}}"#).await;
    assert_eq!(desk.ended(&operation).await["done"], 1);
    assert_eq!(leased(&*store, "orders").await.into_keys().collect::<Vec<_>>(), [both]);
    assert_eq!(leased(&*store, "audit").await.len(), 0, "it was delivered there, and not asked for");

    let elsewhere = r#"{"action":"redeliver","filter":{"source":"gains"},"upstream":"idle"}"#;
    let operation = desk.begin(elsewhere).await;
    assert_eq!(desk.ended(&operation).await["done"], 1);
    assert_eq!(leased(&*store, "idle").await.into_keys().collect::<Vec<_>>(), [both]);
}

#[tokio::test(start_paused = true)]
async fn what_is_leased_is_not_purged_and_the_guard_hears_of_what_is() {
    let store = memory();
    let gone = settled(&*store, 1, &["orders"], dead()).await;
    let (busy, _) = append(&*store, 2, &["orders"], Begin::FirstLeased(Duration::from_hours(1))).await;
    let desk = Desk::over(store.clone());
    let dry = r#"{"action":"purge","all":true,"dry_run":true}"#;
    let (status, count) = desk.ask("POST", "/api/v1/operations", dry).await;
    assert_eq!((status, count), (200, serde_json::json!({ "events": 2, "exact": true })));
    assert_eq!(store.stats().await.expect("numbers").events, 2, "it was only counted");

    let operation = desk.begin(r#"{"action":"purge","all":true}"#).await;
    let row = desk.ended(&operation).await;
    assert_eq!((&row["done"], &row["skipped"], &row["by"]), (&1.into(), &1.into(), &"loopback".into()));
    assert!(store.show(gone).await.is_err() && store.show(busy).await.is_ok());
    assert!(desk.forgotten.lock().expect("not poisoned").contains(&gone));

    // A released one is due, and a forgotten one has no keys.
    let (held, _) = append(&*store, 3, &["orders"], Begin::Held(Hold::Stale)).await;
    let release = desk.begin(r#"{"action":"release","filter":{"state":"held"}}"#).await;
    assert_eq!(desk.ended(&release).await["done"], 1);
    assert_eq!(leased(&*store, "orders").await.into_keys().collect::<Vec<_>>(), [held]);
    let forget = desk.begin(&format!(r#"{{"action":"forget","filter":{{"id":"{held}"}}}}"#)).await;
    assert_eq!(desk.ended(&forget).await["done"], 1);
    assert_eq!(store.show(held).await.expect("it is there").keys, []);

    let (_, list) = desk.ask("GET", "/api/v1/operations", "").await;
    let actions: Vec<_> = list["operations"].as_array().expect("a list").iter().map(|row| &row["action"]).collect();
    assert_eq!(actions.len(), 3);
    assert!(["purge", "release", "forget"].into_iter().all(|action| actions.contains(&&Value::from(action))));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_could_mean_everything_or_nothing_is_refused() {
    let desk = Desk::over(memory());
    for (request, code) in [
        (r#"{"action":"purge"}"#, "filter_empty"),
        (r#"{"action":"purge","filter":{}}"#, "filter_empty"),
        (r#"{"action":"purge","all":true,"filter":{"source":"gains"}}"#, "filter_empty"),
        (r#"{"action":"purge","filter":{"source":null}}"#, "body_malformed"),
        (r#"{"action":"purge","filter":{"sorce":"gains"}}"#, "body_malformed"),
        (r#"{"action":"purge","filter":[]}"#, "body_malformed"),
        (r#"["purge"]"#, "body_malformed"),
        ("", "body_malformed"),
        (r#"{"action":"burn","all":true}"#, "parameter_wrong"),
        (r#"{"action":"purge","all":true,"upstream":"orders"}"#, "parameter_wrong"),
        (r#"{"action":"purge","all":true,"rate":0}"#, "parameter_wrong"),
        (r#"{"action":"purge","filter":{"since":"never"}}"#, "parameter_wrong"),
    ] {
        assert_eq!(desk.refused(request).await, (400, code.to_owned()), "{request}");
    }
    let nowhere = r#"{"action":"redeliver","all":true,"upstream":"nowhere"}"#;
    assert_eq!(desk.refused(nowhere).await, (422, "upstream_unknown".to_owned()));
    let (status, list) = desk.ask("GET", "/api/v1/operations", "").await;
    assert_eq!((status, list), (200, serde_json::json!({ "operations": [] })));
    let id = event_id(1);
    for path in [format!("{id}/stop"), format!("{id}/resume")] {
        assert_eq!(desk.ask("POST", &format!("/api/v1/operations/{path}"), "").await.0, 404);
    }
}

#[tokio::test(start_paused = true)]
async fn four_run_at_a_time_and_no_more() {
    let store = memory();
    for number in 0..10 {
        settled(&*store, number, &["orders"], dead()).await;
    }
    let desk = Desk::over(store);
    let slow = r#"{"action":"redeliver","filter":{"state":"dead"},"rate":1}"#;
    let first = desk.begin(slow).await;
    for _ in 0..3 {
        desk.begin(slow).await;
    }
    assert_eq!(desk.refused(slow).await, (409, "state_conflict".to_owned()));
    assert_eq!(desk.ask("POST", &format!("{first}/stop"), "").await.0, 200);
    desk.begin(slow).await;
    assert_eq!(desk.ask("POST", &format!("{first}/resume"), "").await.0, 409, "its place is taken");
}

#[tokio::test(start_paused = true)]
async fn a_store_in_trouble_is_asked_again_and_then_the_operation_has_failed() {
    let store = Arc::new(Fake::default());
    store.many.store(true, Relaxed);
    let desk = Desk::over(store.clone());
    let operation = desk.begin(r#"{"action":"redeliver","filter":{"state":"dead"},"rate":400}"#).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    store.broken.store(true, Relaxed);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let waiting = desk.row(&operation).await;
    assert_eq!(waiting["state"], "running");
    store.broken.store(false, Relaxed);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let on = desk.row(&operation).await;
    assert!(on["done"].as_u64() > waiting["done"].as_u64(), "it goes on by itself: {on:#}");
    assert_eq!(desk.ended(&operation).await["done"], 600);

    let operation = desk.begin(r#"{"action":"redeliver","filter":{"state":"dead"},"rate":400}"#).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    store.broken.store(true, Relaxed);
    tokio::time::sleep(Duration::from_mins(5)).await;
    let given_up = desk.row(&operation).await;
    assert_eq!(given_up["state"], "stopped", "how it ended could not be recorded: {given_up:#}");
    store.broken.store(false, Relaxed);
    assert_eq!(desk.ask("POST", &format!("{operation}/resume"), "").await.0, 202);
    assert_eq!(desk.ended(&operation).await["state"], "finished");
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_is_left_out_and_holds_up_nothing() {
    let store = Arc::new(Fake::default());
    store.many.store(true, Relaxed);
    store.damaged.store(true, Relaxed);
    let desk = Desk::over(store.clone());
    let operation = desk.begin(r#"{"action":"forget","filter":{"state":"dead"}}"#).await;
    let row = desk.ended(&operation).await;
    assert_eq!((&row["state"], &row["done"], &row["skipped"]), (&"finished".into(), &599.into(), &1.into()));
    let calls = store.calls();
    let forgotten: std::collections::BTreeSet<_> = calls.iter().collect();
    assert_eq!((calls.len(), forgotten.len()), (599, 599), "each once");
}
