//! Several scalars out of one body.
//!
//! A level of the document is read once for all pointers that pass through it. What is wrong behind one step, a key
//! that stands twice for instance, takes nothing from the pointers that go elsewhere: each gets what [`super::scalar`]
//! would have read for it alone.

use std::borrow::Cow;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Key, Scalar, as_scalar, read, steps};

/// As [`super::scalar`], for each of these pointers.
pub fn scalars(body: &[u8], pointers: &[&str]) -> Vec<Option<Scalar>> {
    let mut found = vec![None; pointers.len()];
    let Ok(text) = std::str::from_utf8(body) else { return found };
    let steps: Vec<_> = pointers.iter().map(|pointer| steps(pointer)).collect();
    let wanted: Vec<Wanted<'_, '_>> = steps
        .iter()
        .enumerate()
        .filter_map(|(pointer, steps)| Some(Wanted { pointer, steps: steps.as_deref()? }))
        .collect();
    look(text, &wanted, &mut found);
    found
}

/// The steps of one pointer that are left at this level.
struct Wanted<'w, 's> {
    pointer: usize,
    steps: &'w [Cow<'s, str>],
}

/// Looks for all of these in one value. At most as deep as a pointer has steps.
fn look(text: &str, wanted: &[Wanted<'_, '_>], found: &mut [Option<Scalar>]) {
    let mut names: Vec<&str> = Vec::new();
    for Wanted { pointer, steps } in wanted {
        match steps.first() {
            None => found[*pointer] = read(text, WholeValue).and_then(|raw| as_scalar(raw.get())),
            Some(name) if !names.contains(&&**name) => names.push(name),
            Some(_) => {}
        }
    }
    if names.is_empty() {
        return;
    }
    let Some(slots) = read(text, Level(&names)) else { return };
    for (name, slot) in names.iter().zip(slots) {
        let Slot::Once(raw) = slot else { continue };
        let below = wanted.iter().filter(|wanted| wanted.steps.first().is_some_and(|step| step == name));
        let below: Vec<_> = below.map(|wanted| Wanted { pointer: wanted.pointer, steps: &wanted.steps[1..] }).collect();
        look(raw.get(), &below, found);
    }
}

/// What stands under one name of a level.
#[derive(Clone, Copy)]
enum Slot<'de> {
    Nothing,
    Once(&'de RawValue),
    /// Nobody can say which one is meant.
    Twice,
}

struct WholeValue;

impl<'de> serde::de::DeserializeSeed<'de> for WholeValue {
    type Value = &'de RawValue;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        serde::Deserialize::deserialize(deserializer)
    }
}

/// One level of a document: an object, or a list whose names are its indexes.
struct Level<'n>(&'n [&'n str]);

impl<'de> serde::de::DeserializeSeed<'de> for Level<'_> {
    type Value = Vec<Slot<'de>>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Vec<Slot<'de>>;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object or a list")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut slots = vec![Slot::Nothing; self.0.len()];
        while let Some(key) = map.next_key::<Key<'de>>()? {
            match self.0.iter().position(|name| *name == key.0) {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(at) => {
                    let value = map.next_value()?;
                    slots[at] = if matches!(slots[at], Slot::Nothing) { Slot::Once(value) } else { Slot::Twice };
                }
            }
        }
        Ok(slots)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let is_index =
            |name: &str| name.bytes().all(|b| b.is_ascii_digit()) && (name.len() == 1 || !name.starts_with('0'));
        let indexes: Vec<Option<usize>> =
            self.0.iter().map(|name| is_index(name).then(|| name.parse().ok()).flatten()).collect();
        let mut slots = vec![Slot::Nothing; self.0.len()];
        for index in 0.. {
            match indexes.iter().position(|wanted| *wanted == Some(index)) {
                None if items.next_element::<IgnoredAny>()?.is_none() => break,
                None => {}
                Some(at) => match items.next_element()? {
                    Some(value) => slots[at] = Slot::Once(value),
                    None => break,
                },
            }
        }
        Ok(slots)
    }
    // A scalar in the middle of a path is an error: there is nothing behind it.
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::scalar, *};

    fn one_by_one(body: &[u8], pointers: &[&str]) -> Vec<Option<Scalar>> {
        pointers.iter().map(|pointer| scalar(body, pointer)).collect()
    }

    #[test]
    fn what_is_wrong_behind_one_step_takes_nothing_from_the_others() {
        let body = br#"{"a":{"x":1,"x":2,"y":true},"b":{"\ud800":0,"z":3},"c":[7,"e",{"d":"f"}],"g":"h","g":"i"}"#;
        let pointers = ["/a/x", "/a/y", "/b/z", "/c/0", "/c/1", "/c/2/d", "/g", "/c", "/c/2", "/none", "/c/01", "/c/9"];
        let found = scalars(body, &pointers);
        assert_eq!(found, one_by_one(body, &pointers));
        let read: Vec<String> = found.iter().flatten().map(ToString::to_string).collect();
        assert_eq!(read, ["true", "7", "e", "f"]);
    }

    /// JSON with few names, so that they repeat and pointers hit them, as text that may be damaged.
    fn documents() -> impl Strategy<Value = String> {
        let leaf =
            prop::sample::select(vec!["1", "-0", "1.5", "\"a\"", "\"\"", "true", "null", "\"\\ud800\"", "01", ""]);
        let leaf = leaf.prop_map(str::to_owned);
        leaf.prop_recursive(4, 24, 4, |inner| {
            let name = prop::sample::select(vec!["a", "b", "0", "1", "\\u0061", "\\ud800"]);
            let object = prop::collection::vec((name, inner.clone()), 0..4).prop_map(|entries| {
                let entries: Vec<_> = entries.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", entries.join(","))
            });
            let list = prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(", ")));
            prop_oneof![object, list]
        })
    }

    proptest! {
        #[test]
        fn all_at_once_is_one_by_one(body in documents(), pointers in prop::collection::vec("(/[ab01]{0,1}){0,4}", 0..6)) {
            let pointers: Vec<&str> = pointers.iter().map(String::as_str).collect();
            prop_assert_eq!(scalars(body.as_bytes(), &pointers), one_by_one(body.as_bytes(), &pointers));
        }
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200), pointer in "[/a~01-]{0,8}") {
            prop_assert_eq!(scalars(&body, &[&pointer, "/a"]), one_by_one(&body, &[&pointer, "/a"]));
        }
    }
}
