//! What a source redacts is shown to nobody, and cannot be found out by asking.

use super::*;
use fake::key_of;

/// A source that redacts, and none else is configured.
async fn gateway() -> Gateway {
    Gateway::start_with(&[(READER, Role::Read), (OPERATOR, Role::Operate)], |given| {
        given.hidden = Box::new(|source| {
            (source == "partssource").then(|| Hidden {
                pointers: vec!["/id".into()],
                headers: vec!["x-bytes".parse().expect("a header")],
                order_key: true,
            })
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
}

#[tokio::test]
async fn the_providers_own_id_leads_to_its_event() {
    let gateway = gateway().await;
    let list = |key: &str| format!("/api/v1/events?key={key}");
    let found = gateway.as_(READER, &list("evt_2&source=partssource")).await.json();
    assert_eq!(ids(&found), [event_id(2).to_string()]);
    assert_eq!(ids(&gateway.as_(READER, &list("evt_x&source=partssource")).await.json()), [] as [&str; 0]);
    let digits = event_id(3).to_string().replace('-', "").repeat(2);
    assert_eq!(ids(&gateway.as_(READER, &list(&digits)).await.json()), [event_id(3).to_string()]);

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
