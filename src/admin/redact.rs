//! What of an event nobody is shown (`redact` of a source), and the preview of a body without it.
//!
//! A body is shown as it was received but for the values at the pointers. Where it cannot be said where those stand, or
//! what they are, nothing of it is shown: a body that is no JSON, one whose keys stand twice, one of a source that is
//! not configured any more.

use base64ct::{Base64, Encoding as _};
use http::HeaderName;
use sha2::{Digest as _, Sha256};

use super::api::{BodyPreview, REDACTED};
use crate::{
    config::Source,
    preset::Locator,
    verify::{EventKey, KeyPart, encode_hex, json},
};

/// What of a source's events nobody is shown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each says of one thing that is shown whether it is hidden")]
pub struct Hidden {
    /// JSON pointers into the body.
    pub pointers: Vec<String>,
    /// Headers.
    pub headers: Vec<HeaderName>,
    /// Whether what orders deliveries stands at one of those.
    pub order_key: bool,
    /// Whether the type of an event does.
    pub event_type: bool,
    /// Whether the provider's id of an attempt does.
    pub attempt_id: bool,
    /// Whether the event key is made of one of those.
    pub event_key: bool,
}

impl Hidden {
    /// As a source is configured.
    pub fn of(source: &Source) -> Self {
        let (pointers, headers) = (source.redact.pointers.clone(), source.redact.headers.clone());
        let has_pointer = |pointer: &str| pointers.iter().any(|hidden| touches(hidden, pointer));
        let has = |at: &Option<Locator>| match at {
            None | Some(Locator::Form(_)) => false,
            Some(Locator::Header(name)) => headers.contains(name),
            Some(Locator::Json(pointer)) => has_pointer(pointer),
        };
        let has_part = |part: &KeyPart| match part {
            KeyPart::Header(name) => headers.contains(name),
            KeyPart::Json(pointer) => has_pointer(pointer),
            KeyPart::Form(_) | KeyPart::Claim(_) => false,
        };
        Self {
            order_key: source.order_by.as_ref().is_some_and(|order| has(&Some(order.at.clone()))),
            event_type: has(&source.provider.event_type),
            attempt_id: has(&source.provider.attempt_id),
            event_key: match &source.key_plan.event_key {
                EventKey::Body => !pointers.is_empty(),
                EventKey::None => false,
                EventKey::Parts(parts) => parts.iter().any(has_part),
            },
            pointers,
            headers,
        }
    }

    /// All that any of these hides.
    pub fn all(rules: impl IntoIterator<Item = Self>) -> Self {
        rules.into_iter().fold(Self::default(), |mut all, rule| {
            all.pointers.extend(rule.pointers);
            all.headers.extend(rule.headers);
            Self {
                order_key: all.order_key || rule.order_key,
                event_type: all.event_type || rule.event_type,
                attempt_id: all.attempt_id || rule.attempt_id,
                event_key: all.event_key || rule.event_key,
                ..all
            }
        })
    }

    /// Whether a header is.
    pub(super) fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|header| header.as_str() == name)
    }

    /// Whether nothing is. If something is, a key may be a digest of it.
    pub(super) fn is_empty(&self) -> bool {
        self.pointers.is_empty() && self.headers.is_empty()
    }
}

/// Whether one pointer leads to, or into, what the other leads to.
pub(super) fn touches(one: &str, other: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    within(one, other) || within(other, one)
}

/// The preview of a body that is shown without these; `digest` says whether the digest of the whole body is, too.
pub(super) fn preview(body: &[u8], hidden: &[String], digest: bool) -> BodyPreview {
    let sha256 = digest.then(|| encode_hex(&Sha256::digest(body)));
    if hidden.is_empty() {
        return beginning(body, body.len(), sha256);
    }
    match redacted(body, hidden) {
        Some((text, changed)) => BodyPreview { redacted: changed, ..beginning(&text, body.len(), sha256) },
        None => withheld(body.len(), sha256, "it cannot be said where in it the redacted values stand"),
    }
}

/// The preview of a body of which nothing is shown.
pub(super) fn withheld(bytes: usize, sha256: Option<String>, why: &str) -> BodyPreview {
    BodyPreview {
        bytes: bytes as u64,
        sha256,
        encoding: "utf-8".to_owned(),
        content: String::new(),
        truncated: false,
        redacted: true,
        withheld: Some(why.to_owned()),
    }
}

/// The preview with at most so many bytes of the body, in at most a third more of text.
pub(super) fn shortened(preview: BodyPreview, bytes_max: usize) -> BodyPreview {
    let is_text = preview.encoding == "utf-8";
    let most = if is_text { bytes_max } else { bytes_max.div_ceil(3) * 4 };
    let kept = preview.content.floor_char_boundary(most);
    let truncated = preview.truncated || kept < preview.content.len();
    BodyPreview { content: preview.content[..kept].to_owned(), truncated, ..preview }
}

/// The body with each value at one of the pointers replaced, and whether any was; `None` if one of them cannot be
/// looked up.
fn redacted(body: &[u8], pointers: &[String]) -> Option<(Vec<u8>, bool)> {
    let mut places = Vec::new();
    for pointer in pointers {
        places.extend(json::locate(body, pointer).ok()?);
    }
    // The outer of two that lie in one another comes first and swallows the inner.
    places.sort_unstable_by_key(|place| (place.start, std::cmp::Reverse(place.end)));
    let (mut out, mut at) = (Vec::with_capacity(body.len()), 0);
    for place in &places {
        if place.start < at {
            continue;
        }
        out.extend_from_slice(&body[at..place.start]);
        out.extend_from_slice(format!("\"{REDACTED}\"").as_bytes());
        at = place.end;
    }
    out.extend_from_slice(&body[at..]);
    Some((out, !places.is_empty()))
}

fn beginning(body: &[u8], bytes: usize, sha256: Option<String>) -> BodyPreview {
    let beginning = &body[..body.len().min(BodyPreview::BYTES_MAX)];
    let truncated = beginning.len() < body.len();
    let (encoding, content) = match std::str::from_utf8(beginning) {
        Ok(text) => ("utf-8", text.to_owned()),
        // A character that the cut went through does not make the body binary.
        Err(error) if truncated && error.error_len().is_none() => {
            ("utf-8", String::from_utf8_lossy(&beginning[..error.valid_up_to()]).into_owned())
        }
        Err(_) => ("base64", Base64::encode_string(beginning)),
    };
    BodyPreview {
        bytes: bytes as u64,
        sha256,
        encoding: encoding.to_owned(),
        content,
        truncated,
        redacted: false,
        withheld: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(body: &[u8]) -> BodyPreview {
        preview(body, &[], true)
    }

    #[test]
    fn a_preview_is_text_where_it_can_be_and_bounded() {
        let text = plain("grüße".as_bytes());
        assert_eq!((text.encoding.as_str(), text.content.as_str(), text.truncated), ("utf-8", "grüße", false));

        let binary = plain(&[0xff, 0, 1]);
        assert_eq!((binary.encoding.as_str(), binary.content.as_str()), ("base64", "/wAB"));

        // The last character of the preview is cut in two.
        let long = format!("{}ü more", "x".repeat(BodyPreview::BYTES_MAX - 1));
        let cut = plain(long.as_bytes());
        assert_eq!((cut.encoding.as_str(), cut.truncated), ("utf-8", true));
        assert_eq!(cut.content.len(), BodyPreview::BYTES_MAX - 1);
        assert_eq!(cut.bytes, long.len() as u64);

        let ends_in_half_a_character = plain(b"abc\xc3");
        assert_eq!(ends_in_half_a_character.encoding, "base64");
    }

    #[test]
    fn the_digest_is_that_of_the_whole_body() {
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(plain(b"abc").sha256.as_deref(), Some(digest));
    }

    fn hiding(body: &str, pointers: &[&str]) -> BodyPreview {
        preview(body.as_bytes(), &pointers.iter().map(|&pointer| pointer.to_owned()).collect::<Vec<_>>(), false)
    }

    #[test]
    fn values_are_replaced_and_the_rest_stays_as_it_was_received() {
        let body = r#"{ "n": 12345678901234567890, "who": {"name": "A", "mail": ["a@b"]}, "list": [1, {"pin": 7}] }"#;
        let shown = hiding(body, &["/list/1/pin", "/who/mail", "/missing"]);
        assert_eq!(
            shown.content,
            r#"{ "n": 12345678901234567890, "who": {"name": "A", "mail": "redacted"}, "list": [1, {"pin": "redacted"}] }"#
        );
        assert!(shown.redacted && shown.sha256.is_none() && shown.bytes == body.len() as u64);
        // One that lies within another, in either order.
        for pointers in [["/who", "/who/name"], ["/who/name", "/who"]] {
            assert!(hiding(body, &pointers).content.contains(r#""who": "redacted", "list""#));
        }
        let nothing = hiding(body, &["/missing"]);
        assert_eq!((nothing.content.as_str(), nothing.redacted), (body, false));
    }

    #[test]
    fn what_could_hide_a_value_elsewhere_is_withheld_whole() {
        for body in ["pin=7", r#"{"pin":1,"\u0070in":2}"#, r#"{"pin":1} {"pin":2}"#, "", r#"{"pin":1"#] {
            let shown = hiding(body, &["/pin"]);
            assert_eq!((shown.content.as_str(), shown.redacted), ("", true), "{body}");
            assert!(shown.withheld.is_some(), "{body}");
        }
    }

    #[test]
    fn what_is_read_from_a_hidden_place_is_hidden_with_it() {
        let of = |provider: &str, redact: &str| {
            let text = format!(
                "[sources.a]\nprovider = \"{provider}\"\nsecrets = [{{ value = \"whsec_c2VjcmV0LW9mLXRoZS1zb3VyY2U=\" }}]\n\
                 upstream = \"http://127.0.0.1:9/\"\nredact = [\"{redact}\"]\n"
            );
            let loaded = crate::config::from_text("a.toml", &text, std::path::Path::new("."));
            let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.problems.render(false)));
            let hidden = Hidden::of(&config.sources["a"]);
            (hidden.event_type, hidden.attempt_id, hidden.event_key)
        };
        assert_eq!(of("stripe", "/type"), (true, false, false));
        assert_eq!(of("stripe", "/id"), (false, false, true));
        assert_eq!(of("stripe", "/id/deep"), (false, false, true));
        assert_eq!(of("stripe", "/data"), (false, false, false));
        assert_eq!(of("github", "header:x-github-event"), (true, false, false));
        assert_eq!(of("github", "header:x-github-delivery"), (false, true, false));
        assert_eq!(of("github", "/sender"), (false, false, true), "the key is a digest of the body");
    }

    #[test]
    fn pointers_touch_where_one_leads_into_the_other() {
        assert!(touches("/a", "/a") && touches("/a/b", "/a") && touches("/a", "/a/b/c"));
        assert!(!touches("/a", "/ab") && !touches("/a/b", "/a/c") && !touches("/ab", "/a"));
    }
}
