//! JSON pointers, held against `serde_json::Value`. Input: two pointers on a line each, and a document.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, value::RawValue};

use crate::{
    given::{cut, text},
    verify::json::{self, Ambiguous, POINTER_STEPS_MAX, SCALAR_BYTES_MAX, Scalar},
};

pub fn run(data: &[u8]) {
    let (first, rest) = cut(data, b'\n');
    let (second, document) = cut(rest, b'\n');
    let pointers = [text(first), text(second)];
    let keys = [pointers[1].to_owned()];
    let items = json::items(document, pointers[0], &keys);
    let together = json::scalars(document, &pointers);
    for (pointer, together) in pointers.iter().zip(&together) {
        let alone = json::scalar(document, pointer);
        assert_eq!(*together, alone, "read together, {pointer:?} is another");
        let located = json::locate(document, pointer);
        if let Ok(Some(range)) = &located {
            let raw = document.get(range.clone()).expect("a range inside the document");
            let raw = std::str::from_utf8(raw).expect("whole characters");
            assert_eq!(raw, raw.trim(), "white space is no part of a value");
            serde_json::from_str::<&RawValue>(raw).expect("a whole value");
        }
        if !is_json(document) {
            assert_eq!(located, Err(Ambiguous), "{pointer:?} was found in what is no JSON");
            assert!(json::text(document, pointer).is_err() && alone.is_none() && items.is_empty());
            continue;
        }
        // From here on another parser has to agree. It does not see what stands twice.
        let Ok(Unique(value)) = serde_json::from_slice::<Unique>(document) else { continue };
        if !pointer.is_empty() && !json::is_pointer(pointer) {
            assert!(located.is_err() && alone.is_none());
            continue;
        }
        let expected = value.pointer(pointer);
        let located = located.expect("a document without a key twice says what is there");
        let found = located.map(|range| serde_json::from_slice::<Value>(&document[range]).expect("a value"));
        assert_eq!(found.as_ref(), expected, "{pointer:?}");
        let raw = json::locate(document, pointer).ok().flatten().map(|range| text(&document[range]));
        check_text(json::text(document, pointer), expected, raw);
        assert_eq!(alone, scalar(expected, raw), "{pointer:?}");
    }
    if let Ok(Unique(value)) = serde_json::from_slice::<Unique>(document) {
        check_items(&items, &value, pointers, document);
    }
}

fn check_text(
    found: Result<Option<std::borrow::Cow<'_, str>>, Ambiguous>,
    expected: Option<&Value>,
    raw: Option<&str>,
) {
    match expected {
        None | Some(Value::Null) => assert_eq!(found, Ok(None)),
        Some(Value::String(text)) => assert_eq!(found.expect("a text").as_deref(), Some(text.as_str())),
        Some(Value::Array(_) | Value::Object(_)) => assert_eq!(found, Err(Ambiguous)),
        Some(Value::Bool(_) | Value::Number(_)) => assert_eq!(found.expect("a scalar").as_deref(), raw),
    }
}

/// The rule for scalars, written a second time.
fn scalar(value: Option<&Value>, raw: Option<&str>) -> Option<Scalar> {
    match value? {
        Value::String(text) if !text.is_empty() && text.len() <= SCALAR_BYTES_MAX => Some(Scalar::Text(text.clone())),
        Value::Bool(flag) => Some(Scalar::Bool(*flag)),
        Value::Number(_) => {
            let raw = raw?;
            let digits = raw.strip_prefix('-').unwrap_or(raw);
            let whole = digits.bytes().all(|byte| byte.is_ascii_digit()) && raw.len() <= SCALAR_BYTES_MAX;
            whole.then(|| Scalar::Integer(raw.to_owned()))
        }
        _ => None,
    }
}

fn check_items(items: &[Option<(Vec<Scalar>, &[u8])>], value: &Value, [each, key]: [&str; 2], document: &[u8]) {
    let is_read = |pointer: &str| pointer.is_empty() || json::is_pointer(pointer);
    let list = value.pointer(each).and_then(Value::as_array).filter(|_| is_read(each) && is_read(key));
    let Some(list) = list else { return assert!(items.is_empty(), "there is no list, and it has items") };
    assert_eq!(items.len(), list.len(), "some item is missing");
    for (item, value) in items.iter().zip(list) {
        // A key of the item counts before one of the document.
        let own = value.pointer(key).is_some();
        if let Some((scalars, raw)) = item {
            assert_eq!(serde_json::from_slice::<Value>(raw).ok().as_ref(), Some(value));
            let whole = json::scalar(if own { raw } else { document }, key);
            assert_eq!(scalars.as_slice(), whole.as_slice());
        } else {
            let raw = serde_json::to_vec(value).expect("a value is JSON");
            let readable = json::scalar(if own { &raw } else { document }, key);
            // Numbers are not written back as they were read.
            let is_number = value.pointer(key).is_some_and(Value::is_number);
            assert!(readable.is_none() || is_number, "an item with a key was left out");
        }
    }
}

fn is_json(document: &[u8]) -> bool {
    std::str::from_utf8(document).is_ok() && serde_json::from_slice::<&RawValue>(document).is_ok()
}

/// A value in which no key stands twice. As deep as `serde_json` goes, and at most so many steps are compared.
struct Unique(Value);

const _: () = assert!(POINTER_STEPS_MAX < 100, "the other parser must go deeper");

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Unique;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut members = serde_json::Map::new();
                while let Some((key, Unique(value))) = map.next_entry::<String, Unique>()? {
                    if members.insert(key, value).is_some() {
                        return Err(A::Error::custom("a key stands twice"));
                    }
                }
                Ok(Unique(Value::Object(members)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
                let mut list = Vec::new();
                while let Some(Unique(value)) = items.next_element()? {
                    list.push(value);
                }
                Ok(Unique(Value::Array(list)))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }
            fn visit_unit<E>(self) -> Result<Unique, E> {
                Ok(Unique(Value::Null))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
