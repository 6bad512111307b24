//! What a source redacts is shown to nobody, and cannot be found out by asking.

use super::*;
use fake::key_of;

/// A source that redacts, and none else is configured.
async fn gateway() -> Gateway {
    Gateway::start_with(&[(READER, Role::Read), (OPERATOR, Role::Operate)], |given| {
        let hidden = Hidden {
            pointers: vec!["/id".into()],
            headers: ["x-bytes", "host", "traceparent"].map(|name| name.parse().expect("a header")).to_vec(),
            order_key: true,
            event_type: true,
            attempt_id: true,
            event_key: false,
        };
        let anywhere = Hidden::all([Hidden::default(), hidden.clone(), Hidden::default()]);
        given.hidden_anywhere = Box::new(move || anywhere.clone());
        given.hidden = Box::new(move |source| match source {
            "partssource" => Some(hidden.clone()),
            "key-hidden" => Some(Hidden { event_key: true, ..hidden.clone() }),
            "open" => Some(Hidden::default()),
            _ => None,
        });
        given.event_keys = Box::new(|source, id| match (source, id) {
            ("partssource", "evt_2") => Ok(vec![key_of(event_id(7)), key_of(event_id(2))]),
            ("partssource", _) => Ok(vec![key_of(event_id(9))]),
            (source, _) => Err(format!("source `{source}` is not configured")),
        });
    })
    .await
}

impl Gateway {
    async fn as_(&self, token: &str, path: &str) -> Answer {
        self.ask("GET", path, &[("authorization", &format!("Bearer {token}"))], "").await
    }
}

fn event(number: u16) -> String {
    format!("/api/v1/events/{}", event_id(number))
}

#[tokio::test]
async fn what_is_redacted_is_replaced_for_everybody() {
    let gateway = gateway().await;
    for (token, keys) in [(READER, 0), (OPERATOR, 1)] {
        let shown = gateway.as_(token, &event(2)).await.json();
        assert_eq!(shown["body"]["content"], r#"{"id": "redacted", "x": "\u001b"}"#);
        assert_eq!((&shown["body"]["redacted"], &shown["body"]["withheld"]), (&true.into(), &Value::Null));
        assert_eq!(shown["keys"].as_array().expect("keys").len(), keys, "a key could be used to try values out");
        assert_eq!(shown["body"]["sha256"].is_null(), token == READER, "and so could a digest");
        let bytes = shown["headers"].as_array().expect("headers").iter().find(|header| header["name"] == "x-bytes");
        assert_eq!(bytes.expect("it is there")["value"], "redacted");
        assert_eq!((&shown["host"], &shown["traceparent"]), (&"redacted".into(), &"redacted".into()));
        let listed = gateway.as_(token, "/api/v1/events").await.json();
        for event in [&shown["event"], &listed["events"][2]] {
            assert_eq!(event["source"], "partssource");
            assert_eq!((&event["event_type"], &event["attempt_id"]), (&"redacted".into(), &"redacted".into()));
        }
        assert_eq!(listed["events"][1]["attempt_id"], "attempt-9", "of another source");
    }
}

#[tokio::test]
async fn the_body_of_a_source_that_is_gone_is_for_operators() {
    let (log, _until_the_end) = Log::of_this_thread();
    let gateway = gateway().await;
    let shown = gateway.as_(READER, &event(4)).await.json();
    assert_eq!((&shown["body"]["content"], &shown["body"]["redacted"]), (&"".into(), &true.into()));
    assert!(shown["body"]["withheld"].as_str().expect("a reason").contains("not configured any more"));
    assert_eq!(shown["event"]["deliveries"][0]["order_key"], "redacted");
    assert_eq!(gateway.as_(OPERATOR, &event(4)).await.json()["body"]["content"], "{}");

    for number in [2, 4] {
        let body = format!("{}/body", event(number));
        assert_eq!(gateway.as_(READER, &body).await.problem(), problem(403, "role_too_low"));
        assert_eq!(gateway.as_(OPERATOR, &body).await.status, 200);
    }
    let told: Vec<_> =
        log.audit().iter().map(|line| (line["action"].clone(), line["by"].clone(), line["code"].clone())).collect();
    let one = |by: &str, code: Value| ("body".into(), by.into(), code);
    let both = [one("token-1", "role_too_low".into()), one("token-2", Value::Null)];
    assert_eq!(told, [both.clone(), both].concat());
}

#[tokio::test]
async fn nobody_who_may_only_read_tries_values_out() {
    let gateway = gateway().await;
    let search = |rest: &str| format!("/api/v1/events?json_value=7&{rest}");
    for hidden in [
        "json_pointer=/id&source=partssource",
        "json_pointer=/id/deep&source=partssource",
        "json_pointer=/x&source=gone",
        "json_pointer=/x",
    ] {
        assert_eq!(gateway.as_(READER, &search(hidden)).await.problem(), problem(403, "role_too_low"), "{hidden}");
        assert_eq!(gateway.as_(OPERATOR, &search(hidden)).await.status, 200, "{hidden}");
    }
    assert_eq!(gateway.as_(READER, &search("json_pointer=/x&source=partssource")).await.status, 200);

    // A key is a digest of what is hidden, and so is what the provider calls it by.
    let key = event_id(2).to_string().replace('-', "").repeat(2);
    for hidden in [
        &format!("key={key}"),
        &format!("key={key}&source=gone"),
        &format!("key={key}&source=partssource"),
        "key=evt_2&source=key-hidden",
        "type=order.created",
        "type=order.created&source=partssource",
        "attempt_id=attempt-9",
        "attempt_id=attempt-9&source=partssource",
    ] {
        let path = format!("/api/v1/events?{hidden}");
        assert_eq!(gateway.as_(READER, &path).await.problem(), problem(403, "role_too_low"), "{hidden}");
        assert_ne!(gateway.as_(OPERATOR, &path).await.status, 403, "{hidden}");
    }
    for open in [&format!("key={key}&source=open"), "type=x&source=open", "attempt_id=x&source=open"] {
        assert_eq!(gateway.as_(READER, &format!("/api/v1/events?{open}")).await.status, 200, "{open}");
    }
}

#[tokio::test]
async fn a_reader_sees_of_an_operation_only_what_he_may_ask_for_himself() {
    let gateway = gateway().await;
    let operator = format!("Bearer {OPERATOR}");
    let headers = [("authorization", operator.as_str()), ("content-type", "application/json")];
    let key = event_id(2).to_string().replace('-', "").repeat(2);
    let filter = format!(r#"{{"source":"partssource","type":"order.created","attempt_id":"attempt-9","key":"{key}"}}"#);
    let body = format!(r#"{{"action":"forget","filter":{filter}}}"#);
    let begun = gateway.ask("POST", "/api/v1/operations", &headers, &body).await;
    assert_eq!((begun.status, &begun.json()["filter"]["key"]), (202, &key.into()));
    let path = format!("/api/v1/operations/{}", begun.json()["id"].as_str().expect("an id"));
    assert_eq!(gateway.as_(OPERATOR, &path).await.json()["filter"]["type"], "order.created");
    let filter = gateway.as_(READER, &path).await.json()["filter"].clone();
    for part in ["type", "attempt_id", "key"] {
        assert_eq!(filter[part], "redacted", "{part}");
    }
    assert_eq!(filter["source"], "partssource");
}

#[tokio::test]
async fn the_providers_own_id_leads_to_its_event() {
    let gateway = gateway().await;
    let list = |key: &str| format!("/api/v1/events?key={key}");
    let found = gateway.as_(READER, &list("evt_2&source=partssource")).await.json();
    assert_eq!(ids(&found), [event_id(2).to_string()]);
    assert_eq!(ids(&gateway.as_(READER, &list("evt_x&source=partssource")).await.json()), [] as [&str; 0]);
    let digits = event_id(3).to_string().replace('-', "").repeat(2);
    assert_eq!(ids(&gateway.as_(OPERATOR, &list(&digits)).await.json()), [event_id(3).to_string()]);

    let without = gateway.as_(READER, &list("evt_2")).await;
    assert_eq!(without.problem(), problem(422, "key_underivable"));
    assert!(without.text().contains("`source` and the provider's own id"));
    let underivable = gateway.as_(READER, &list("evt_2&source=gains")).await;
    assert_eq!(underivable.problem(), problem(422, "key_underivable"));
}

#[tokio::test]
async fn a_body_that_was_removed_is_said_to_be() {
    let gateway = Gateway::open().await;
    gateway.store.bodiless.store(true, Relaxed);
    let shown = gateway.get(&event(3)).await.json();
    assert_eq!((&shown["body_removed"], &shown["event"]["body_bytes"]), (&true.into(), &fake::BINARY.len().into()));
    assert_eq!(shown["body"]["withheld"], "it was removed once it was delivered");
    assert_eq!(gateway.get(&format!("{}/body", event(3))).await.problem(), problem(410, "body_removed"));
}
