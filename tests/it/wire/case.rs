//! How a case is written.
//!
//! ```text
//! === the name, one line
//! Why it is here, in as many lines as it takes.
//! > POST /hooks/open HTTP/1.1\r\n
//! > host: a\r\ncontent-length: 2\r\n\r\n
//! > {}
//! < 200 {}
//! = open
//! ^ {}
//! ^+ x-forwarded-host: a
//! ^- x-a
//! ```
//!
//! `>` the bytes: nothing is added, line ends are escapes. `\r \n \t \0 \\ \xHH`, `\{text*9}` is `text` nine times,
//! `\{nonce}` eight digits that are others each time, and `\{sign body}` what GitHub would sign that body with.
//! `! end` the client ends its side after them.
//! `<` one answer each, in order: the status, and something that must stand in it; `(bare)` before that has no body,
//! as answers to HEAD. `<?` may come or not. `=` the connection afterwards, `open` for another request or `closed`.
//! `^` one request each that the upstream must have seen: its body; after it `^+` headers that it must have had, and `^-`
//! names that it must not have. `^?` the body that it may see if a proxy in front mends what we refuse.

use std::{fmt, fs, path::Path};

use super::{client::Answer, recorder::Seen};
use crate::world::{NOW_S, sign};

/// The secret of the source that verifies signatures.
pub(super) const SECRET: &str = "a-secret-of-some-length";

/// A case as it is written.
pub(super) struct Written {
    pub(super) name: String,
    place: String,
    lines: Vec<String>,
}

/// A case, as it is sent once.
#[derive(Default)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) why: String,
    pub(super) bytes: Vec<u8>,
    /// The client sends no more after the bytes, and says so.
    pub(super) ends: bool,
    pub(super) answers: Vec<Expected>,
    pub(super) stays_open: bool,
    pub(super) upstream: Vec<Forwarded>,
    /// Bodies that the upstream may see if a proxy in front mends what we refuse.
    pub(super) mended: Vec<Vec<u8>>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) status: u16,
    pub(super) is_bare: bool,
    pub(super) is_optional: bool,
    pub(super) text: String,
}

/// A request that the upstream sees.
#[derive(Default)]
pub(super) struct Forwarded {
    pub(super) body: Vec<u8>,
    has: Vec<(String, String)>,
    has_not: Vec<String>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "case `{}`", self.name)
    }
}

impl Case {
    /// How what the upstream saw differs from what it has to be.
    pub(super) fn complaints_of_upstream(&self, seen: &[Seen]) -> Vec<String> {
        let mut complaints: Vec<_> = seen.iter().flat_map(|seen| seen.complaints.clone()).collect();
        if seen.len() != self.upstream.len() {
            complaints.push(format!("the upstream saw {} requests, not {}", seen.len(), self.upstream.len()));
        }
        for (seen, expected) in seen.iter().zip(&self.upstream) {
            if seen.body != expected.body {
                complaints.push(format!("the upstream saw the body {:?}", String::from_utf8_lossy(&seen.body)));
            }
            let has =
                |name: &str| seen.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
            for (name, value) in expected.has.iter().filter(|(name, value)| has(name) != Some(value)) {
                complaints.push(format!("the upstream saw {name} as {:?}, not {value:?}", has(name)));
            }
            complaints.extend(
                expected
                    .has_not
                    .iter()
                    .filter(|name| has(name).is_some())
                    .map(|name| format!("the upstream saw {name}")),
            );
        }
        complaints
    }
}

impl Expected {
    pub(super) fn fits(&self, answer: &Answer) -> bool {
        self.status == answer.status && answer.text().contains(&self.text)
    }
}

/// Every case of a file.
pub(super) fn read(path: &Path) -> Vec<Written> {
    let text = fs::read_to_string(path).expect("text");
    let mut cases: Vec<Written> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix("=== ") {
            let place = format!("{}:{}", path.display(), at + 1);
            cases.push(Written { name: name.to_owned(), place, lines: Vec::new() });
        } else if let Some(case) = cases.last_mut() {
            case.lines.push(line.to_owned());
        } // What stands before the first case is about the file.
    }
    cases
}

impl Written {
    /// The case with this nonce. What cannot be read fails the test.
    pub(super) fn with(&self, nonce: u32) -> Case {
        let mut case = Case { name: self.name.clone(), ..Case::default() };
        for line in &self.lines {
            case.take(line, nonce).unwrap_or_else(|| panic!("{}: what is {line:?}?", self.place));
        }
        case
    }
}

impl Case {
    fn take(&mut self, line: &str, nonce: u32) -> Option<()> {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (mark, rest) {
            (">", bytes) => self.bytes.extend(unescape(bytes, nonce)?),
            ("!", "end") => self.ends = true,
            ("<" | "<?", answer) => {
                let (status, text) = answer.split_once(' ').unwrap_or((answer, ""));
                let bare = text.strip_prefix("(bare)");
                let text = String::from_utf8(unescape(bare.unwrap_or(text).trim_start(), nonce)?).ok()?;
                let (is_bare, is_optional) = (bare.is_some(), mark == "<?");
                self.answers.push(Expected { status: status.parse().ok()?, is_bare, is_optional, text });
            }
            ("=", "open") => self.stays_open = true,
            ("=", "closed") => self.stays_open = false,
            ("^", body) => self.upstream.push(Forwarded { body: unescape(body, nonce)?, ..Forwarded::default() }),
            ("^?", body) => self.mended.push(unescape(body, nonce)?),
            ("^+", header) => {
                let (name, value) = header.split_once(": ")?;
                self.upstream.last_mut()?.has.push((name.to_owned(), value.to_owned()));
            }
            ("^-", name) => self.upstream.last_mut()?.has_not.push(name.to_owned()),
            _ if line.starts_with(['>', '<', '=', '^', '!']) => return None,
            _ => self.why += line,
        }
        Some(())
    }
}

fn unescape(text: &str, nonce: u32) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let (escape, after) = (rest[at + 1..].chars().next()?, rest.get(at + 2..)?);
        rest = after;
        match escape {
            'r' => bytes.push(b'\r'),
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            '0' => bytes.push(0),
            '\\' => bytes.push(b'\\'),
            'x' => {
                bytes.push(u8::from_str_radix(rest.get(..2)?, 16).ok()?);
                rest = &rest[2..];
            }
            '{' => {
                // What is signed may have brackets: it ends where the line does.
                let is_signed = rest.starts_with("sign ");
                let end = if is_signed { rest.rfind('}') } else { rest.find('}') }?;
                let inner = &rest[..end];
                rest = &rest[end + 1..];
                if let Some(body) = inner.strip_prefix("sign ") {
                    let signed = sign("github", SECRET, &unescape(body, nonce)?, NOW_S);
                    let of = |(name, value): (String, String)| (name == "x-hub-signature-256").then_some(value);
                    bytes.extend(signed.into_iter().find_map(of)?.into_bytes());
                } else if inner == "nonce" {
                    bytes.extend(format!("{nonce:08}").into_bytes());
                } else {
                    let (text, times) = inner.rsplit_once('*')?;
                    bytes.extend(unescape(text, nonce)?.repeat(times.parse().ok()?));
                }
            }
            _ => return None,
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}
