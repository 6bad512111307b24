//! The same JSON in other writings, token by token: numbers and the order of keys stay as they are.

use std::{fmt, ops::Range};

use serde::de::IgnoredAny;

/// Values of a document; one with more is not written anew.
const NODES_MAX: usize = 100_000;

/// How a document is written, where that differs from what came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rewriting {
    /// White space; as it came if there is nothing.
    pub layout: Option<Layout>,
    /// Whether keys are sorted.
    pub sorted: bool,
    /// What is escaped in strings; as it came if there is nothing.
    pub escapes: Option<Escapes>,
}

/// White space between tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// None.
    Minified,
    /// One line, with a space behind each comma and colon.
    Spaced,
    /// A line for each value, indented by so many spaces.
    Indented(u8),
}

/// What is escaped in strings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Escapes {
    /// `\/` for `/`.
    Slashes,
    /// `/` for `\/`.
    NoSlashes,
    /// `\uXXXX` for what is not ASCII, with digits in lower case.
    Unicode,
    /// The same in upper case.
    UnicodeUpper,
    /// The character for `\uXXXX`, where it is not ASCII.
    NoUnicode,
    /// `\/` and `\uXXXX`.
    SlashesAndUnicode,
    /// Neither `\/` nor `\uXXXX`.
    Nothing,
}

const fn writing(layout: Option<Layout>, sorted: bool, escapes: Option<Escapes>) -> Rewriting {
    Rewriting { layout, sorted, escapes }
}

const MINIFIED: Option<Layout> = Some(Layout::Minified);
const SPACED: Option<Layout> = Some(Layout::Spaced);
const TWO: Option<Layout> = Some(Layout::Indented(2));
const FOUR: Option<Layout> = Some(Layout::Indented(4));

/// One thing changed.
pub(super) const SINGLE: &[Rewriting] = &[
    writing(MINIFIED, false, None),
    writing(SPACED, false, None),
    writing(TWO, false, None),
    writing(FOUR, false, None),
    writing(MINIFIED, true, None),
    writing(None, false, Some(Escapes::Slashes)),
    writing(None, false, Some(Escapes::NoSlashes)),
    writing(None, false, Some(Escapes::Unicode)),
    writing(None, false, Some(Escapes::NoUnicode)),
];

/// What common libraries write by default, where that takes more.
pub(super) const COMBINED: &[Rewriting] = &[
    writing(MINIFIED, false, Some(Escapes::SlashesAndUnicode)),
    writing(SPACED, false, Some(Escapes::Unicode)),
    writing(MINIFIED, false, Some(Escapes::Nothing)),
    writing(MINIFIED, false, Some(Escapes::Unicode)),
    writing(MINIFIED, false, Some(Escapes::Slashes)),
    writing(SPACED, true, None),
    writing(TWO, true, None),
    writing(FOUR, true, None),
    writing(SPACED, false, Some(Escapes::NoUnicode)),
    writing(None, false, Some(Escapes::UnicodeUpper)),
    writing(MINIFIED, false, Some(Escapes::UnicodeUpper)),
];

impl fmt::Display for Rewriting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layout = self.layout.map(|layout| match layout {
            Layout::Minified => "without white space".to_owned(),
            Layout::Spaced => "in one line with a space behind each comma and colon".to_owned(),
            Layout::Indented(by) => format!("indented by {by} spaces"),
        });
        let sorted = self.sorted.then(|| "with its keys sorted".to_owned());
        let escapes = self.escapes.map(|escapes| {
            let text = match escapes {
                Escapes::Slashes => r"with `\/` for `/`",
                Escapes::NoSlashes => r"with `/` for `\/`",
                Escapes::Unicode => r"with `\uXXXX` for what is not ASCII",
                Escapes::UnicodeUpper => r"with `\uXXXX`, in capitals, for what is not ASCII",
                Escapes::NoUnicode => r"without `\uXXXX`",
                Escapes::SlashesAndUnicode => r"with `\/` and `\uXXXX`",
                Escapes::Nothing => r"without `\/` and `\uXXXX`",
            };
            text.to_owned()
        });
        f.write_str(&[layout, sorted, escapes].into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// A body that is JSON.
pub(super) struct Document<'a> {
    body: &'a [u8],
    root: Node,
}

enum Node {
    /// A string, a number, or a name.
    Scalar(Range<usize>),
    List(Vec<Node>),
    Object(Vec<(Range<usize>, Node)>),
}

impl<'a> Document<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        // It bounds the depth, too.
        serde_json::from_slice::<IgnoredAny>(body).ok()?;
        let mut reader = Reader { body, at: 0, nodes: 0 };
        Some(Self { body, root: reader.node()? })
    }

    /// The document in that writing, if it has at most so many bytes.
    pub(super) fn write(&self, writing: Rewriting, bytes_max: usize) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(self.body.len());
        if let Some(layout) = writing.layout {
            let mut writer = Writer { body: self.body, writing, layout, out, bytes_max };
            writer.node(&self.root, 0)?;
            out = writer.out;
        } else {
            let mut at = 0;
            while at < self.body.len() {
                let end = if self.body[at] == b'"' { string_end(self.body, at) } else { at + 1 };
                scalar(&self.body[at..end], writing.escapes, &mut out);
                at = end;
            }
        }
        (out.len() <= bytes_max).then_some(out)
    }
}

/// Reads what is known to be JSON.
struct Reader<'a> {
    body: &'a [u8],
    at: usize,
    nodes: usize,
}

impl Reader<'_> {
    /// The next byte that counts.
    fn peek(&mut self) -> Option<u8> {
        while self.body.get(self.at)?.is_ascii_whitespace() {
            self.at += 1;
        }
        self.body.get(self.at).copied()
    }
    fn node(&mut self) -> Option<Node> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return None;
        }
        match self.peek()? {
            b'{' => self
                .many(b'}', |reader| {
                    let key = reader.string()?;
                    (reader.peek()? == b':').then(|| reader.at += 1)?;
                    Some((key, reader.node()?))
                })
                .map(Node::Object),
            b'[' => self.many(b']', Self::node).map(Node::List),
            b'"' => self.string().map(Node::Scalar),
            _ => {
                let start = self.at;
                let is_part = |byte: &&u8| !byte.is_ascii_whitespace() && !b",]}".contains(byte);
                self.at += self.body[start..].iter().take_while(is_part).count();
                Some(Node::Scalar(start..self.at))
            }
        }
    }
    fn many<T>(&mut self, close: u8, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        self.at += 1;
        while self.peek()? != close {
            if self.peek()? == b',' {
                self.at += 1;
                self.peek()?;
            }
            items.push(item(self)?);
        }
        self.at += 1;
        Some(items)
    }
    fn string(&mut self) -> Option<Range<usize>> {
        let start = (self.peek()? == b'"').then_some(self.at)?;
        self.at = string_end(self.body, start);
        Some(start..self.at)
    }
}

/// Behind the string that begins here.
fn string_end(body: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < body.len() {
        match body[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    body.len()
}

struct Writer<'a> {
    body: &'a [u8],
    writing: Rewriting,
    layout: Layout,
    out: Vec<u8>,
    bytes_max: usize,
}

impl Writer<'_> {
    fn node(&mut self, node: &Node, depth: usize) -> Option<()> {
        match node {
            Node::Scalar(range) => scalar(&self.body[range.clone()], self.writing.escapes, &mut self.out),
            Node::List(items) => self.many(*b"[]", items.iter(), depth, Self::node)?,
            Node::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                if self.writing.sorted {
                    members.sort_by(|one, other| self.body[one.0.clone()].cmp(&self.body[other.0.clone()]));
                }
                self.many(*b"{}", members.into_iter(), depth, |writer, (key, value), depth| {
                    scalar(&writer.body[key.clone()], writer.writing.escapes, &mut writer.out);
                    writer.out.extend_from_slice(if writer.layout == Layout::Minified { b":" } else { b": " });
                    writer.node(value, depth)
                })?;
            }
        }
        (self.out.len() <= self.bytes_max).then_some(())
    }
    fn many<T>(
        &mut self,
        [open, close]: [u8; 2],
        items: impl ExactSizeIterator<Item = T>,
        depth: usize,
        each: impl Fn(&mut Self, T, usize) -> Option<()>,
    ) -> Option<()> {
        self.out.push(open);
        let is_empty = items.len() == 0;
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.out.extend_from_slice(if self.layout == Layout::Spaced { b", " } else { b"," });
            }
            self.line(depth + 1);
            each(self, item, depth + 1)?;
        }
        if !is_empty {
            self.line(depth);
        }
        self.out.push(close);
        Some(())
    }
    fn line(&mut self, depth: usize) {
        if let Layout::Indented(by) = self.layout {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + depth * usize::from(by), b' ');
        }
    }
}

/// A token with its escapes as wanted.
fn scalar(token: &[u8], escapes: Option<Escapes>, out: &mut Vec<u8>) {
    let Some(escapes) = escapes.filter(|_| token.starts_with(b"\"")) else {
        return out.extend_from_slice(token);
    };
    let adds_slashes = matches!(escapes, Escapes::Slashes | Escapes::SlashesAndUnicode);
    let takes_slashes = matches!(escapes, Escapes::NoSlashes | Escapes::Nothing);
    let takes_unicode = matches!(escapes, Escapes::NoUnicode | Escapes::Nothing);
    let adds_unicode = matches!(escapes, Escapes::Unicode | Escapes::UnicodeUpper | Escapes::SlashesAndUnicode);
    let text = String::from_utf8_lossy(token);
    let mut rest = &*text;
    while let Some(next) = rest.chars().next() {
        let escaped = rest.strip_prefix('\\');
        if let Some((character, length)) = escaped.filter(|_| takes_unicode).and_then(|_| unescaped(rest)) {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &rest[length..];
        } else if let Some(behind) = escaped {
            let length = behind.chars().next().map_or(0, char::len_utf8);
            let keeps = !(takes_slashes && behind.starts_with('/'));
            out.extend_from_slice(if keeps { &rest.as_bytes()[..=length] } else { b"/" });
            rest = &behind[length..];
        } else {
            if next == '/' && adds_slashes {
                out.extend_from_slice(b"\\/");
            } else if !next.is_ascii() && adds_unicode {
                for unit in next.encode_utf16(&mut [0; 2]) {
                    let is_upper = escapes == Escapes::UnicodeUpper;
                    let text = if is_upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
                    out.extend_from_slice(text.as_bytes());
                }
            } else {
                out.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
            }
            rest = &rest[next.len_utf8()..];
        }
    }
}

/// The character that is not ASCII behind an escape, and the length of the escape.
fn unescaped(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let first = unit(0)?;
    let units = [first, unit(6).unwrap_or(0)];
    let character = char::decode_utf16(units).next()?.ok().filter(|character| !character.is_ascii())?;
    Some((character, 6 * character.len_utf16()))
}
