//! Where an accepted event goes, and what it has to wait its turn for. Decided once, after verification, by the
//! source's routes and its order.

use http::request::Parts;

use super::{Gate, verify::Verified};
use crate::{
    config::model::OrderBy,
    event::{EventHead, Name, OrderKey},
    preset::Locator,
    verify::{form_value, json},
};

/// What of a new event says where it goes.
pub(super) struct Destination {
    /// Nobody, if no route wants it and the source says of nobody else.
    pub(super) upstreams: Vec<Name>,
    pub(super) order_key: Option<OrderKey>,
}

pub(super) fn destination(gate: &Gate, webhook: &Verified, event: &EventHead) -> Destination {
    let source = &webhook.cx.route.source;
    let mut upstreams = source.routes.choose(event.event_type.as_deref(), &webhook.body);
    if upstreams.is_empty() {
        upstreams.clone_from(&source.upstreams);
    }
    let order_key = source.order_by.as_ref().filter(|_| webhook.grounds.is_proven()).and_then(|order| {
        let key = order_key(order, &webhook.head, &webhook.body);
        if key.is_none() {
            gate.metrics.order_key_missing(&source.name);
        }
        key
    });
    Destination { upstreams, order_key }
}

/// The value, where exactly one is there that can be a key. What has none keeps no order, and is not held up.
fn order_key(order: &OrderBy, head: &Parts, body: &[u8]) -> Option<OrderKey> {
    match &order.at {
        Locator::Form(key) => OrderKey::new(&form_value(body, key)?),
        Locator::Json(pointer) => OrderKey::new(&json::scalar(body, pointer)?.to_string()),
        Locator::Header(name) => {
            let mut values = head.headers.get_all(name).iter();
            let value = values.next().filter(|_| values.next().is_none())?;
            OrderKey::new(value.to_str().ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn an_order_key_is_one_value_that_is_there_once_and_short() {
        let by = |at| OrderBy { at, dead_letter_after: None };
        let json = |body: &str| {
            let (head, ()) = Request::new(()).into_parts();
            order_key(&by(Locator::Json("/data/id".to_owned())), &head, body.as_bytes())
        };
        let text = |key: Option<OrderKey>| key.map(|key| key.as_str().to_owned());
        assert_eq!(text(json(r#"{"data":{"id":"a b"}}"#)).as_deref(), Some("a b"));
        assert_eq!(text(json(r#"{"data":{"id":7}}"#)).as_deref(), Some("7"));
        let long = "x".repeat(OrderKey::BYTES_MAX + 1);
        let too_long = format!(r#"{{"data":{{"id":"{long}"}}}}"#);
        for none in
            [r#"{"data":{"id":""}}"#, r#"{"data":{"id":[1]}}"#, r#"{"data":{"id":1,"id":2}}"#, "{}", "no", &too_long]
        {
            assert_eq!(json(none), None, "{none}");
        }

        let header = |values: &[&str]| {
            let request = values.iter().fold(Request::builder(), |request, value| request.header("x-id", *value));
            let (head, ()) = request.body(()).expect("a request").into_parts();
            text(order_key(&by(Locator::Header(http::HeaderName::from_static("x-id"))), &head, b""))
        };
        assert_eq!(header(&["a"]).as_deref(), Some("a"));
        for none in [&[][..], &["a", "a"], &[""], &["é"], &[&long]] {
            assert_eq!(header(none), None, "{none:?}");
        }
    }
}
