//! Single values out of JSON bodies, without building a tree.
//!
//! Bodies are authentic when they get here, but not harmless: the readers are total. What could be understood in
//! two ways is not read at all: a wanted key that stands twice, text behind the document, a byte order mark, a
//! lone surrogate on the way. What lies beside the path is skipped without recursion, so no depth overflows a stack.

mod many;

use std::{borrow::Cow, fmt, ops::Range};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub use many::scalars;

/// Bytes of a scalar; a longer one is not read.
pub const SCALAR_BYTES_MAX: usize = 1024;
/// Steps of a pointer; a longer one points at nothing.
pub const POINTER_STEPS_MAX: usize = 16;
/// Items of a list; of a longer one none is read.
const ITEMS_MAX: usize = 10_000;

/// A scalar that cannot be mistaken for another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scalar {
    /// A string that is not empty, unescaped.
    Text(String),
    /// An integer as it was written: `-?(0|[1-9][0-9]*)`, of any size.
    Integer(String),
    /// True or false.
    Bool(bool),
}

impl Scalar {
    /// A letter for the type, so that `"1"` and `1` differ, and the value.
    pub(super) fn tagged(&self) -> (u8, &[u8]) {
        match self {
            Self::Text(text) => (b's', text.as_bytes()),
            Self::Integer(digits) => (b'n', digits.as_bytes()),
            Self::Bool(true) => (b'b', b"1"),
            Self::Bool(false) => (b'b', b"0"),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Integer(text) => f.write_str(text),
            Self::Bool(flag) => write!(f, "{flag}"),
        }
    }
}

/// The scalar at a JSON pointer (RFC 6901), if the body is JSON and says unambiguously what it is.
pub fn scalar(body: &[u8], pointer: &str) -> Option<Scalar> {
    match find(std::str::from_utf8(body).ok()?, &steps(pointer)?) {
        Found::Value(raw) => as_scalar(raw.get()),
        Found::Absent | Found::Unusable => None,
    }
}

/// The string, number or boolean at a JSON pointer as text, a number as it was written: `Ok(None)` where nothing, or null,
/// stands; `Err` if the body is no JSON, does not say unambiguously, or has a list or an object there.
pub fn text<'a>(body: &'a [u8], pointer: &str) -> Result<Option<Cow<'a, str>>, Ambiguous> {
    let document = std::str::from_utf8(body).map_err(|_| Ambiguous)?;
    match find(document, &steps(pointer).ok_or(Ambiguous)?) {
        Found::Value(raw) => match raw.get().as_bytes().first() {
            Some(b'"') => serde_json::from_str::<Text<'a>>(raw.get()).map(|text| Some(text.0)).map_err(|_| Ambiguous),
            Some(b'n') => Ok(None),
            Some(b'{' | b'[') | None => Err(Ambiguous),
            Some(_) => Ok(Some(Cow::Borrowed(raw.get()))),
        },
        Found::Absent => Ok(None),
        Found::Unusable => Err(Ambiguous),
    }
}

/// A string, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Where in a body the value at a JSON pointer stands: `Ok(None)` if there is none, `Err` if the body is no JSON or does
/// not say unambiguously.
pub fn locate(body: &[u8], pointer: &str) -> Result<Option<Range<usize>>, Ambiguous> {
    let text = std::str::from_utf8(body).map_err(|_| Ambiguous)?;
    match find(text, &steps(pointer).ok_or(Ambiguous)?) {
        Found::Value(raw) => {
            let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
            Ok(Some(start..start + raw.get().len()))
        }
        Found::Absent => Ok(None),
        Found::Unusable => Err(Ambiguous),
    }
}

/// A body that is no JSON, or one that could be understood in two ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ambiguous;

/// Whether a text is a JSON pointer that is read here.
pub fn is_pointer(text: &str) -> bool {
    text.starts_with('/') && steps(text).is_some()
}

/// The key scalars and the raw text of each item of the list at `each`; `None` for an item without a full key.
///
/// A pointer of `key` is looked up in the item first. If nothing stands there, it is looked up from the top of the
/// document, for senders that write a type once for all items.
pub fn items<'a>(body: &'a [u8], each: &str, key: &[String]) -> Vec<Option<(Vec<Scalar>, &'a [u8])>> {
    let list = || -> Option<Vec<&'a RawValue>> {
        let text = std::str::from_utf8(body).ok()?;
        let Found::Value(list) = find(text, &steps(each)?) else { return None };
        let items: Vec<&'a RawValue> = read(list.get(), Items)?;
        Some(items)
    };
    let pointers: Option<Vec<_>> = key.iter().map(|pointer| steps(pointer)).collect();
    let (Some(list), Some(pointers)) = (list(), pointers) else { return Vec::new() };
    let mut from_top: Vec<Option<Option<Scalar>>> = vec![None; key.len()];
    list.into_iter()
        .map(|item| {
            let mut scalars = Vec::with_capacity(key.len());
            for (i, pointer) in pointers.iter().enumerate() {
                let scalar = match find(item.get(), pointer) {
                    Found::Value(raw) => as_scalar(raw.get()),
                    Found::Unusable => None,
                    Found::Absent => from_top[i].get_or_insert_with(|| scalar(body, &key[i])).clone(),
                };
                scalars.push(scalar?);
            }
            Some((scalars, item.get().as_bytes()))
        })
        .collect()
}

fn as_scalar(raw: &str) -> Option<Scalar> {
    match raw.as_bytes().first()? {
        b'"' => {
            // An escape takes at most six bytes for one.
            let fits = raw.len() <= 6 * SCALAR_BYTES_MAX + 2;
            let text: String = fits.then(|| serde_json::from_str(raw).ok()).flatten()?;
            (!text.is_empty() && text.len() <= SCALAR_BYTES_MAX).then_some(Scalar::Text(text))
        }
        b't' => Some(Scalar::Bool(true)),
        b'f' => Some(Scalar::Bool(false)),
        b'-' | b'0'..=b'9' => {
            // The text is a JSON number already: without these it is an integer in its one writing.
            let plain = !raw.contains(['.', 'e', 'E']) && raw.len() <= SCALAR_BYTES_MAX;
            plain.then(|| Scalar::Integer(raw.to_owned()))
        }
        _ => None,
    }
}

/// The steps of a pointer; `""` is the whole document.
fn steps(pointer: &str) -> Option<Vec<Cow<'_, str>>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let steps = pointer.strip_prefix('/')?.split('/').map(|step| {
        let valid = step.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        valid.then(|| {
            if step.contains('~') {
                Cow::Owned(step.replace("~1", "/").replace("~0", "~"))
            } else {
                Cow::Borrowed(step)
            }
        })
    });
    steps.collect::<Option<Vec<_>>>().filter(|steps| steps.len() <= POINTER_STEPS_MAX)
}

/// What stands at a pointer.
enum Found<'a> {
    Value(&'a RawValue),
    Absent,
    /// Twice there, or the document is broken.
    Unusable,
}

fn find<'a>(text: &'a str, steps: &[Cow<'_, str>]) -> Found<'a> {
    match read(text, Path(steps)) {
        Some(Some(raw)) => Found::Value(raw),
        Some(None) => Found::Absent,
        None => Found::Unusable,
    }
}

/// Reads a whole document; `None` if it is no JSON, or not to its end.
fn read<'a, S: DeserializeSeed<'a>>(text: &'a str, seed: S) -> Option<S::Value> {
    let mut document = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut document).ok()?;
    document.end().ok().map(|()| value)
}

/// Walks along the steps that are left.
struct Path<'s>(&'s [Cow<'s, str>]);

impl<'de> DeserializeSeed<'de> for Path<'_> {
    type Value = Option<&'de RawValue>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            return serde::Deserialize::deserialize(deserializer).map(Some);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Path<'_> {
    type Value = Option<&'de RawValue>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut seen = false;
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if key.0 == self.0[0] {
                if std::mem::replace(&mut seen, true) {
                    return Err(A::Error::custom("a wanted key stands twice"));
                }
                found = map.next_value_seed(Path(&self.0[1..]))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let step = &self.0[0];
        let canonical = step.bytes().all(|b| b.is_ascii_digit()) && (step.len() == 1 || !step.starts_with('0'));
        let wanted: Option<usize> = canonical.then(|| step.parse().ok()).flatten();
        let mut found = None;
        let mut index = 0;
        loop {
            if Some(index) == wanted {
                match items.next_element_seed(Path(&self.0[1..]))? {
                    Some(value) => found = value,
                    None => return Ok(None),
                }
            } else if items.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            index += 1;
        }
    }
    // A scalar in the middle of the path: there is nothing behind it.
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// A key, borrowed where it has no escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The items of a list, raw.
struct Items;

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Vec<&'de RawValue>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() == ITEMS_MAX {
                return Err(A::Error::custom("too many items"));
            }
            list.push(item);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: &str) -> Scalar {
        Scalar::Text(value.to_owned())
    }
    fn integer(value: &str) -> Scalar {
        Scalar::Integer(value.to_owned())
    }

    #[test]
    fn a_scalar_is_read_along_its_pointer() {
        let body = br#" {"id":"evt_1","n":[{"a/b":{"~":12345678901234567890123}},true],"s":"\u00e9\n","z":-0} "#;
        assert_eq!(scalar(body, "/id"), Some(text("evt_1")));
        assert_eq!(scalar(body, "/n/0/a~1b/~0"), Some(integer("12345678901234567890123")));
        assert_eq!(scalar(body, "/n/1"), Some(Scalar::Bool(true)));
        assert_eq!(scalar(body, "/s"), Some(text("\u{e9}\n")));
        for nothing in ["", "/", "/n", "/n/2", "/n/01", "/n/-", "/id/x", "/n/1/x", "id", "/n/0/a~2b"] {
            assert_eq!(scalar(body, nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_value_of_any_kind_is_located_and_what_is_ambiguous_is_said_to_be() {
        let body = br#" {"a": {"b": [1, {"c":"\u00e9"}]}, "d":null}"#;
        let found = |pointer: &str| locate(body, pointer).map(|range| range.map(|range| &body[range]));
        assert_eq!(found("/a/b"), Ok(Some(&br#"[1, {"c":"\u00e9"}]"#[..])));
        assert_eq!(found("/a/b/1/c"), Ok(Some(&br#""\u00e9""#[..])));
        assert_eq!(found("/d"), Ok(Some(&b"null"[..])));
        assert_eq!(found("/a/x"), Ok(None));
        for body in [&b"{\"a\":1,\"\\u0061\":2}"[..], b"{\"a\":1} x", b"a=1", b"\xff", b""] {
            assert_eq!(locate(body, "/a"), Err(Ambiguous), "{body:?}");
        }
    }

    #[test]
    fn what_could_mean_two_things_is_not_read() {
        for body in [
            r#"{"id":"a","id":"b"}"#,
            r#"{"id":"a","\u0069d":"b"}"#,
            r#"{"id":null}"#,
            r#"{"id":""}"#,
            r#"{"id":1.0}"#,
            r#"{"id":1e0}"#,
            r#"{"id":01}"#,
            r#"{"id":{"id":1}}"#,
            r#"{"id":[1]}"#,
            r#"{"id":"\ud800"}"#,
            r#"{"id":"a"}x"#,
            r#"{"id":"a""#,
            "{\"id\":\"a\nb\"}",
            "\u{feff}{\"id\":\"a\"}",
            r#"["id"]"#,
            "id",
            "",
        ] {
            assert_eq!(scalar(body.as_bytes(), "/id"), None, "{body}");
        }
        assert_eq!(scalar(b"{\"id\":\"a\",\"x\":\"\xff\"}", "/id"), None);
        assert_eq!(
            scalar(format!(r#"{{"id":"{}"}}"#, "a".repeat(1024)).as_bytes(), "/id"),
            Some(text(&"a".repeat(1024)))
        );
        assert_eq!(scalar(format!(r#"{{"id":"{}"}}"#, "a".repeat(1025)).as_bytes(), "/id"), None);
        assert_eq!(scalar(format!(r#"{{"id":{}}}"#, "1".repeat(1025)).as_bytes(), "/id"), None);
        // A duplicate beside the path changes nothing.
        assert_eq!(scalar(br#"{"x":1,"x":2,"id":"a"}"#, "/id"), Some(text("a")));
    }

    #[test]
    fn no_depth_overflows_the_stack() {
        let deep = "[".repeat(1 << 20);
        assert_eq!(scalar(deep.as_bytes(), "/id"), None);
        assert_eq!(scalar(deep.as_bytes(), &"/0".repeat(POINTER_STEPS_MAX)), None);
        let closed = format!(r#"{{"x":{}1{},"id":7}}"#, "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(scalar(closed.as_bytes(), "/id"), Some(integer("7")));
        let objects = format!("{}1{}", r#"{"id":"#.repeat(200_000), "}".repeat(200_000));
        assert_eq!(scalar(objects.as_bytes(), "/id"), None);
        assert!(items(deep.as_bytes(), "", &["/id".to_owned()]).is_empty());
    }

    #[test]
    fn an_item_takes_its_key_from_itself_and_else_from_the_top() {
        let key = ["/DataType".to_owned(), "/TrackingNumber".to_owned()];
        let read = |body: &'static str| items(body.as_bytes(), "/Data", &key);
        let got = read(
            r#"{"DataType":"PO","Data":[{"TrackingNumber":"A1", "q":1},{"DataType":"TO","TrackingNumber":2},{}]}"#,
        );
        assert_eq!(got.len(), 3);
        assert_eq!(got[0], Some((vec![text("PO"), text("A1")], r#"{"TrackingNumber":"A1", "q":1}"#.as_bytes())));
        assert_eq!(got[1].as_ref().map(|(key, _)| key.clone()), Some(vec![text("TO"), integer("2")]));
        assert_eq!(got[2], None, "there is no tracking number anywhere");
        // A key that stands twice in the item is not taken from the top instead.
        let got =
            read(r#"{"DataType":"PO","TrackingNumber":9,"Data":[{"TrackingNumber":"A1","TrackingNumber":"A2"}]}"#);
        assert_eq!(got, [None]);
        assert!(read(r#"{"Data":{"TrackingNumber":"A1"}}"#).is_empty());
        assert!(read("[]").is_empty());
        let many = format!(r#"{{"Data":[{}1]}}"#, "1,".repeat(ITEMS_MAX));
        assert!(items(many.as_bytes(), "/Data", &key).is_empty());
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200), pointer in "[/a~01-]{0,8}") {
            let _ = locate(&body, &pointer);
            let _ = (scalar(&body, &pointer), items(&body, &pointer, std::slice::from_ref(&pointer)));
        }
        #[test]
        fn no_json_panics(body in r#"[{}\[\]",:a01.e\\ud8 -]{0,60}"#, pointer in "(/[a01]{0,2}){0,3}") {
            let _ = (scalar(body.as_bytes(), &pointer), items(body.as_bytes(), &pointer, std::slice::from_ref(&pointer)));
        }
        #[test]
        fn a_string_is_read_as_a_full_parser_reads_it(value in ".{1,40}") {
            let body = serde_json::json!({"x": [1, {"id": &value}]}).to_string();
            prop_assert_eq!(scalar(body.as_bytes(), "/x/1/id"), Some(text(&value)));
        }
    }
}
