//! Paths of sources: matched byte for byte, so only what a client sends unchanged may be written.

use super::model::PathTemplate;
use crate::document::{At, Problems};

const TOKEN: &str = "{token}";

/// Reads a source's path, which may have one `{token}` segment.
pub(super) fn read_template(problems: &Problems, at: &At<String>) -> PathTemplate {
    let text = at.value.clone();
    if let Some((why, help)) = wrong(&text, true) {
        problems.error(&at.place, format!("path \"{text}\" {why}"), help);
    }
    let around_token = text.split_once(TOKEN).map(|(before, after)| (before.to_owned(), after.to_owned()));
    PathTemplate { text, around_token }
}

/// Reads a path without placeholders.
pub(super) fn read_plain(problems: &Problems, at: &At<String>) -> String {
    if let Some((why, help)) = wrong(&at.value, false) {
        problems.error(&at.place, format!("path \"{}\" {why}", at.value), help);
    }
    at.value.clone()
}

fn wrong(text: &str, may_have_token: bool) -> Option<(&'static str, &'static str)> {
    const SEGMENTS: &str = "write it as \"/hooks/name\": requests are compared byte for byte";
    let Some(rest) = text.strip_prefix('/') else {
        return Some(("does not begin with `/`", SEGMENTS));
    };
    let mut tokens = 0;
    for segment in rest.split('/') {
        match segment {
            "" => return Some(("has an empty segment", "no `//`, and no `/` at its end")),
            "." | ".." => return Some(("has a dot segment", "clients and proxies take those out before they send")),
            TOKEN if may_have_token => tokens += 1,
            _ if segment.contains('%') => {
                return Some(("has a `%`", "only characters that need no escape can be matched"));
            }
            _ if segment.contains('?') => return Some(("has a `?`", "the query is no part of a path")),
            _ if segment.contains(['{', '}']) => {
                return Some(if may_have_token {
                    ("has braces that are not {token}", "{token} is the only placeholder, and a whole segment")
                } else {
                    ("has braces", "no placeholder can stand here")
                });
            }
            _ if !segment.bytes().all(is_path_byte) => {
                return Some((
                    "has characters that no client sends as they are",
                    "use letters, digits, `-`, `_`, `.`, `~`",
                ));
            }
            _ => {}
        }
    }
    (tokens > 1).then_some(("has two {token} segments", "one secret segment is compared"))
}

/// RFC 3986, `pchar` without the escapes.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

/// Why a token can never stand in a path, if so.
pub(super) fn token_fits(text: &str) -> Result<(), &'static str> {
    if text.bytes().all(is_path_byte) {
        Ok(())
    } else {
        Err("a path token may have letters, digits, `-`, `_`, `.` and `~` only")
    }
}

/// Whether one request path could match both.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    let (a, b): (Vec<_>, Vec<_>) = (a.split('/').collect(), b.split('/').collect());
    a.len() == b.len() && a.iter().zip(&b).all(|(x, y)| x == y || *x == TOKEN || *y == TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_clients_send_unchanged_are_taken() {
        for good in ["/a", "/hooks/orders", "/hooks/{token}", "/hooks/{token}/x", "/a.b/c:d"] {
            assert_eq!(wrong(good, true), None, "{good}");
        }
        for bad in [
            "",
            "a",
            "/",
            "/a/",
            "/a//b",
            "/a/../b",
            "/a%20",
            "/a?b",
            "/a b",
            "/ä",
            "/{name}",
            "/x{token}",
            "/{token}/{token}",
        ] {
            assert!(wrong(bad, true).is_some(), "{bad}");
        }
    }

    #[test]
    fn paths_overlap_if_one_request_fits_both() {
        for (a, b) in [("/a/b", "/a/b"), ("/a/{token}", "/a/b"), ("/{token}/b", "/a/{token}")] {
            assert!(overlap(a, b) && overlap(b, a), "{a} {b}");
        }
        for (a, b) in [("/a/b", "/a/c"), ("/a/{token}", "/a"), ("/a/{token}", "/b/c"), ("/a/{token}/x", "/a/{token}/y")]
        {
            assert!(!overlap(a, b) && !overlap(b, a), "{a} {b}");
        }
    }
}
