//! Signed content. Input: a template (`\n` for a line end), a unit, then a time, an id, a nonce, a header, a query on a line
//! each, and the body.
//!
//! The bytes that are signed are taken apart in every other way that the template allows. None of them may be a request
//! that would be accepted and has the same signed bytes: else text could move from one part into another under one
//! signature.

use http::{HeaderName, uri::PathAndQuery};

use crate::{
    given::{URL, cut, headers, seen, text},
    verify::{Place, Scheme, SignaturePlace, SignedSpec, TimeUnit},
};

/// Bytes of signed content that are taken apart.
const CONTENT_BYTES_MAX: usize = 160;
/// Other ways that are tried.
const WAYS_MAX: usize = 100;

pub fn run(data: &[u8]) {
    let (template, rest) = cut(data, b'\n');
    let template = text(template).replace("\\n", "\n");
    let (unit, rest) = cut(rest, b'\n');
    let unit =
        TimeUnit::ALL.iter().find(|(name, _)| name.as_bytes() == unit).map_or(TimeUnit::Seconds, |(_, unit)| *unit);
    let mut rest = rest;
    let mut line = || {
        let (line, behind) = cut(rest, b'\n');
        rest = behind;
        line.to_vec()
    };
    let request = Request {
        time: line(),
        id: line(),
        nonce: line(),
        header: line(),
        query: text(&line()).as_bytes().to_vec(),
        body: rest.to_vec(),
    };

    let has = |part: &str| template.contains(part);
    let header = |name| Place::Header(HeaderName::from_static(name));
    let spec = SignedSpec {
        place: SignaturePlace::Headers(vec![HeaderName::from_static("x-sig")]),
        timestamp: has("{timestamp}").then(|| (header("x-time"), unit)),
        id: has("{id}").then(|| header("x-id")),
        nonce: has("{nonce}").then(|| header("x-nonce")),
        ..SignedSpec::new(template.as_str())
    };
    let Ok(scheme) = Scheme::signed(spec) else { return };
    let Some(content) = request.content(&scheme) else { return };
    assert_eq!(request.content(&scheme).as_ref(), Some(&content), "it is the same every time");
    let pieces = pieces(&template);
    let Some(pieces) = pieces.filter(|_| content.len() <= CONTENT_BYTES_MAX) else { return };
    let mut search = Search { pieces: &pieces, content: &content, unit, ways: Vec::new(), steps: 0 };
    search.go(0, 0, &mut Vec::new());
    for way in &search.ways {
        let other = request.with(&pieces, way);
        if other != request && other.content(&scheme).as_ref() == Some(&content) {
            panic!("{template:?}: {request:?} and {other:?} are both {:?}", String::from_utf8_lossy(&content));
        }
    }
}

/// What a template can name, each at a place of its own.
#[derive(Clone, PartialEq, Eq)]
struct Request {
    time: Vec<u8>,
    id: Vec<u8>,
    nonce: Vec<u8>,
    header: Vec<u8>,
    query: Vec<u8>,
    body: Vec<u8>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [&self.time, &self.id, &self.nonce, &self.header, &self.query, &self.body];
        f.debug_list().entries(parts.map(|part| String::from_utf8_lossy(part))).finish()
    }
}

impl Request {
    /// What would be signed, if it were accepted, and its time could be held.
    fn content(&self, scheme: &Scheme) -> Option<Vec<u8>> {
        let url = if self.query.is_empty() { URL.to_owned() } else { format!("{URL}?{}", text(&self.query)) };
        // What a server would not take for a request.
        url.strip_prefix("https://hooks.example.com")?.parse::<PathAndQuery>().ok().filter(|_| !url.contains('#'))?;
        let signature = "0".repeat(64);
        let headers = headers([
            ("x-sig", signature.as_bytes()),
            ("x-time", &self.time),
            ("x-id", &self.id),
            ("x-nonce", &self.nonce),
            ("x-a", &self.header),
        ]);
        let claim = scheme.claim(seen(&headers, &url)).ok()?;
        // The bytes of a value on the wire are those of the input.
        let sent = [("x-time", &self.time), ("x-id", &self.id), ("x-nonce", &self.nonce), ("x-a", &self.header)];
        let kept = sent.iter().all(|(name, value)| headers.get(*name).is_some_and(|kept| kept.as_bytes() == **value));
        (kept && claim.may_be_held()).then(|| scheme.short_content(&claim, &self.body, usize::MAX))?
    }

    /// The request with these values in the place of its own.
    fn with(&self, pieces: &[Piece], way: &[&[u8]]) -> Self {
        let mut other = self.clone();
        let parts = pieces.iter().filter_map(|piece| if let Piece::Part(part) = piece { Some(part) } else { None });
        for (part, value) in parts.zip(way) {
            let value = value.to_vec();
            match part {
                Part::Body => other.body = value,
                Part::JsonString => {
                    let quoted = [b"\"", value.as_slice(), b"\""].concat();
                    other.body = serde_json::from_slice::<String>(&quoted).map(String::into_bytes).unwrap_or_default();
                }
                Part::Time => other.time = value,
                Part::Id => other.id = value,
                Part::Nonce => other.nonce = value,
                Part::Header => other.header = value,
                Part::Url => other.query = value.get(URL.len() + 1..).unwrap_or_default().to_vec(),
                Part::Query => {
                    let mut form = form_urlencoded::Serializer::new(String::new());
                    other.query = form.append_pair("q", text(&value)).finish().into_bytes();
                }
                Part::Fixed(_) => {}
            }
        }
        // One query in two writings is read in the same way.
        if other.query_value().is_some() && other.query_value() == self.query_value() && !has_url(pieces) {
            other.query.clone_from(&self.query);
        }
        other
    }

    fn query_value(&self) -> Option<String> {
        form_urlencoded::parse(&self.query).find(|(key, _)| key == "q").map(|(_, value)| value.into_owned())
    }
}

fn has_url(pieces: &[Piece]) -> bool {
    pieces.iter().any(|piece| matches!(piece, Piece::Part(Part::Url)))
}

enum Piece {
    Literal(Vec<u8>),
    Part(Part),
}

enum Part {
    Body,
    JsonString,
    Time,
    Id,
    Nonce,
    Header,
    Url,
    Query,
    /// Nothing that a sender chooses.
    Fixed(&'static [u8]),
}

/// The pieces of a template; `None` if it has a part that cannot be read back out of the signed bytes.
fn pieces(template: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(first) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            pieces.push(Piece::Literal(rest.as_bytes()[..1].to_vec()));
            rest = behind;
        } else if let Some(inside) = rest.strip_prefix('{') {
            let (name, behind) = inside.split_once('}')?;
            pieces.push(Piece::Part(match name {
                "body" => Part::Body,
                "body-json-string" => Part::JsonString,
                "timestamp" => Part::Time,
                "id" => Part::Id,
                "nonce" => Part::Nonce,
                "header:x-a" => Part::Header,
                "url" => Part::Url,
                "url-no-query" => Part::Fixed(URL.as_bytes()),
                "method" => Part::Fixed(b"POST"),
                "query:q" => Part::Query,
                _ => return None,
            }));
            rest = behind;
        } else {
            pieces.push(Piece::Literal(first.to_string().into_bytes()));
            rest = &rest[first.len_utf8()..];
        }
    }
    Some(pieces)
}

/// Every way to take the bytes apart that is not hopeless.
struct Search<'a> {
    pieces: &'a [Piece],
    content: &'a [u8],
    unit: TimeUnit,
    ways: Vec<Vec<&'a [u8]>>,
    steps: usize,
}

impl<'a> Search<'a> {
    fn go(&mut self, piece: usize, at: usize, way: &mut Vec<&'a [u8]>) {
        self.steps += 1;
        if self.steps > 200 * WAYS_MAX || self.ways.len() >= WAYS_MAX {
            return;
        }
        let content = self.content;
        match self.pieces.get(piece) {
            None if at == content.len() => self.ways.push(way.clone()),
            None => {}
            Some(Piece::Literal(literal)) => {
                if content[at..].starts_with(literal) {
                    self.go(piece + 1, at + literal.len(), way);
                }
            }
            Some(Piece::Part(part)) => {
                for end in at..=content.len() {
                    let value = &content[at..end];
                    if self.could_be(part, value) {
                        way.push(value);
                        self.go(piece + 1, end, way);
                        way.pop();
                    }
                }
            }
        }
    }

    fn could_be(&self, part: &Part, value: &[u8]) -> bool {
        match part {
            Part::Body | Part::JsonString => true,
            Part::Fixed(text) => value == *text,
            Part::Url => {
                let rest = value.strip_prefix(URL.as_bytes());
                rest.is_some_and(|rest| rest.is_empty() || (rest.len() > 1 && rest[0] == b'?'))
            }
            Part::Time if self.unit == TimeUnit::Rfc3339 => value.len() >= 20 && value[10] == b'T',
            Part::Time => value.len() >= 10 && value.iter().all(u8::is_ascii_digit),
            Part::Id | Part::Nonce | Part::Header | Part::Query => (1..=255).contains(&value.len()),
        }
    }
}
