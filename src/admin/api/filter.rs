//! Which events are meant, as a client writes it.

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned, de::Error as _};
use serde_json::value::RawValue;

/// Which events: everything given must hold. The parameters of `GET /api/v1/events`, and `filter` of an operation.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventFilter {
    /// Of this source.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// With a delivery to this upstream.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// With a delivery in this state (with `upstream`, that very delivery); `unrouted`: without any.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Of this type, exactly.
    #[serde(rename = "type", deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Received at or after: RFC 3339, or how long ago.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Received before.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// With this attempt id of the provider.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub attempt_id: Option<String>,
    /// This one.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// With this key: 64 hexadecimal digits, or with `source` the provider's own id of the event.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// With `json_value` at this JSON pointer of the body.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub json_pointer: Option<String>,
    /// As text: a string without its quotes, the digits of an integer, `true`, `false`.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub json_value: Option<String>,
}

impl EventFilter {
    /// Every part by the name of its parameter, in the order in which they are documented.
    pub fn parts(&self) -> [(&'static str, &Option<String>); 11] {
        [
            ("source", &self.source),
            ("upstream", &self.upstream),
            ("state", &self.state),
            ("type", &self.event_type),
            ("since", &self.since),
            ("until", &self.until),
            ("attempt_id", &self.attempt_id),
            ("id", &self.id),
            ("key", &self.key),
            ("json_pointer", &self.json_pointer),
            ("json_value", &self.json_value),
        ]
    }

    /// The part of that name, to be set.
    pub(in crate::admin) fn part(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "source" => &mut self.source,
            "upstream" => &mut self.upstream,
            "state" => &mut self.state,
            "type" => &mut self.event_type,
            "since" => &mut self.since,
            "until" => &mut self.until,
            "attempt_id" => &mut self.attempt_id,
            "id" => &mut self.id,
            "key" => &mut self.key,
            "json_pointer" => &mut self.json_pointer,
            "json_value" => &mut self.json_value,
            _ => return None,
        })
    }

    /// Whether it names nothing, so that every event fits.
    pub fn is_empty(&self) -> bool {
        self.parts().iter().all(|(_, part)| part.is_none())
    }
}

/// A field that is there has a value: `null` is no way to leave a filter out, which could then mean everything.
pub(in crate::admin) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// An object, and no list of its values, which would be taken for it otherwise.
pub(super) fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    if !raw.get().starts_with('{') {
        return Err(D::Error::custom("expected an object"));
    }
    serde_json::from_str(raw.get()).map_err(D::Error::custom)
}
