//! What a signature covers: literals and parts of the request, in order.
//!
//! A template is accepted only if the signed bytes can be taken apart in one way: every part but the body is
//! followed (behind the body: preceded) by a literal that it cannot contain, or has a fixed form. So equal signed
//! bytes mean equal parts, and no text can move from a body into a nonce or a timestamp. A provider that signs
//! otherwise says so (`ambiguous`), and then its values may contain what separates them.

use http::HeaderName;

use super::Place;

/// The signed content of a scheme.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
pub(super) enum Piece {
    Literal(Box<[u8]>),
    Part { part: Part, bound: Bound },
}

/// A part of the request that is signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Body,
    Timestamp,
    Id,
    Nonce,
    /// A header, form field, query parameter or JSON value; whether it may be missing.
    At(Place, bool),
    FormSorted,
    Url,
    UrlNoQuery,
    Method,
    Param(String),
    Secret,
    BodySha256,
    BodyCrc32,
    BodyJsonString,
}

/// What keeps a part apart from its neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bound {
    /// It may not contain this byte: the neighbouring literal begins (or ends) with it.
    Without(u8),
    /// It has a form that shows where it ends: RFC 3339, or digits that are a time near the clock.
    FixedForm,
    /// It stands at the edge, or it is nothing that a sender chooses.
    Edge,
    /// Nothing: the provider signs so, and the scheme says it.
    Loose,
}

/// How strictly a template is read.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Reading {
    /// The provider's content can be taken apart in several ways, and the scheme says so.
    pub(super) ambiguous: bool,
    /// The time is written as in RFC 3339.
    pub(super) formed_time: bool,
}

impl Template {
    /// Reads a template such as `v0:{timestamp}:{body}`. The error is a fragment for people.
    pub(super) fn parse(text: &str, reading: Reading) -> Result<Self, String> {
        let Reading { ambiguous, formed_time } = reading;
        let mut pieces = split(text)?;
        if pieces.iter().filter(|piece| piece.part().is_some_and(Part::is_body)).count() > 1 {
            return Err("the body stands twice".to_owned());
        }
        for i in 0..pieces.len() {
            let Some(part) = pieces[i].part().cloned() else { continue };
            if pieces[..i].iter().any(|piece| piece.part() == Some(&part)) {
                return Err(format!("{} stands twice", part.shown()));
            }
            let behind_body = pieces[..i].iter().any(|piece| piece.part().is_some_and(Part::is_body));
            let neighbour = if behind_body { Some(&pieces[i - 1]) } else { pieces.get(i + 1) };
            let found = match bound(&part, neighbour, behind_body, formed_time) {
                Ok(Bound::Without(_)) if ambiguous && matches!(part, Part::At(..) | Part::Url | Part::UrlNoQuery) => {
                    Bound::Loose
                }
                Ok(bound) => bound,
                Err(_) if ambiguous => Bound::Loose,
                Err(error) => return Err(error),
            };
            pieces[i] = Piece::Part { part, bound: found };
        }
        Ok(Self { pieces })
    }

    /// The same content with these parts as literals.
    pub(super) fn with_literals(&self, literal: impl Fn(&Part) -> Option<String>) -> Self {
        let put = |piece: &Piece| match piece.part().and_then(&literal) {
            Some(text) => Piece::Literal(text.into_bytes().into()),
            None => piece.clone(),
        };
        Self { pieces: self.pieces.iter().map(put).collect() }
    }

    /// All pieces, in order.
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
    /// The signed parts with their bounds.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.pieces.iter().filter_map(Piece::part)
    }
    /// Whether this part is signed.
    pub(super) fn has(&self, wanted: &Part) -> bool {
        self.parts().any(|part| part == wanted)
    }
    /// Whether a value at this place is signed by its own name.
    pub(super) fn has_place(&self, wanted: &Place) -> bool {
        self.parts().any(|part| matches!(part, Part::At(place, _) if place == wanted))
    }
    /// Whether everything in the body is signed, so that nobody can change it.
    pub(super) fn covers_body(&self) -> bool {
        self.parts().any(|part| matches!(part, Part::Body | Part::FormSorted | Part::BodySha256 | Part::BodyJsonString))
    }
    /// Whether the content is the body and nothing else: then their digests are the same.
    pub(super) fn is_body_alone(&self) -> bool {
        matches!(self.pieces.as_slice(), [Piece::Part { part: Part::Body, .. }])
    }
    /// Whether text behind the secret is hashed: then a hash could be extended.
    pub(super) fn is_extendable(&self) -> bool {
        let secret = self.pieces.iter().position(|piece| piece.part() == Some(&Part::Secret));
        secret.is_some_and(|at| at + 1 < self.pieces.len())
    }
}

impl Piece {
    pub(super) fn part(&self) -> Option<&Part> {
        match self {
            Self::Part { part, .. } => Some(part),
            Self::Literal(_) => None,
        }
    }
}

impl Part {
    /// Whether it is the body, or has all of it in it.
    fn is_body(&self) -> bool {
        matches!(self, Self::Body | Self::FormSorted | Self::BodyJsonString)
    }
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Body => "{body}".to_owned(),
            Self::Timestamp => "{timestamp}".to_owned(),
            Self::Id => "{id}".to_owned(),
            Self::Nonce => "{nonce}".to_owned(),
            Self::At(Place::Header(name), _) => format!("{{header:{name}}}"),
            Self::At(Place::Json(pointer), _) => format!("{{json:{pointer}}}"),
            Self::At(Place::Form(key), _) => format!("{{form:{key}}}"),
            Self::At(Place::Query(key), _) => format!("{{query:{key}}}"),
            Self::At(place, _) => format!("{{{place}}}"),
            Self::FormSorted => "{form-sorted}".to_owned(),
            Self::Url => "{url}".to_owned(),
            Self::UrlNoQuery => "{url-no-query}".to_owned(),
            Self::Method => "{method}".to_owned(),
            Self::Param(name) => format!("{{param:{name}}}"),
            Self::Secret => "{secret}".to_owned(),
            Self::BodySha256 => "{body-sha256}".to_owned(),
            Self::BodyCrc32 => "{body-crc32}".to_owned(),
            Self::BodyJsonString => "{body-json-string}".to_owned(),
        }
    }
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "body" => Self::Body,
            "timestamp" => Self::Timestamp,
            "id" => Self::Id,
            "nonce" => Self::Nonce,
            "form-sorted" => Self::FormSorted,
            "url" => Self::Url,
            "url-no-query" => Self::UrlNoQuery,
            "method" => Self::Method,
            "secret" => Self::Secret,
            "body-sha256" => Self::BodySha256,
            "body-crc32" => Self::BodyCrc32,
            "body-json-string" => Self::BodyJsonString,
            _ => match name.split_once(':')? {
                ("header", header) => Self::At(Place::Header(HeaderName::from_bytes(header.as_bytes()).ok()?), false),
                ("json", pointer) => {
                    let (pointer, optional) = pointer.strip_suffix('?').map_or((pointer, false), |p| (p, true));
                    let valid = super::json::is_pointer(pointer);
                    valid.then(|| Self::At(Place::Json(pointer.to_owned()), optional))?
                }
                ("form", key) if !key.is_empty() => Self::At(Place::Form(key.to_owned()), false),
                ("query", key) if !key.is_empty() => Self::At(Place::Query(key.to_owned()), false),
                ("param", name) if !name.is_empty() => Self::Param(name.to_owned()),
                _ => return None,
            },
        })
    }
}

fn split(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let literal = &rest[..rest.find(['{', '}']).unwrap_or(rest.len())];
        rest = &rest[literal.len()..];
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.as_bytes().into()));
        }
        if rest.is_empty() {
            break;
        }
        // `{{` and `}}` stand for a brace.
        if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            pieces.push(Piece::Literal(rest.as_bytes()[..1].into()));
            rest = after;
            continue;
        }
        let (name, after) = rest
            .strip_prefix('{')
            .and_then(|inside| inside.split_once('}'))
            .ok_or_else(|| "a brace is open, or closes nothing".to_owned())?;
        rest = after;
        let part = Part::parse(name).ok_or_else(|| format!("{{{name}}} is no part of a request"))?;
        pieces.push(Piece::Part { part, bound: Bound::Edge });
    }
    Ok(pieces)
}

fn bound(part: &Part, neighbour: Option<&Piece>, behind_body: bool, formed_time: bool) -> Result<Bound, String> {
    match part {
        // The body fills what is left; the others are not chosen by who sends.
        Part::Body
        | Part::FormSorted
        | Part::BodyJsonString
        | Part::Secret
        | Part::Method
        | Part::Param(_)
        | Part::BodySha256 => return Ok(Bound::Edge),
        _ => {}
    }
    let separator = match neighbour {
        None => return Ok(Bound::Edge),
        Some(Piece::Literal(bytes)) => if behind_body { bytes.last() } else { bytes.first() }.copied(),
        // A formed time shows by itself where it begins and ends; digits would not, beside other digits.
        Some(Piece::Part { part: Part::Timestamp, .. }) if formed_time => return Ok(Bound::FixedForm),
        Some(_) => None,
    };
    match separator.filter(|byte| !byte.is_ascii_alphanumeric()) {
        Some(byte) => Ok(Bound::Without(byte)),
        None if *part == Part::Timestamp => Ok(Bound::FixedForm),
        None => Err(format!("nothing keeps {} apart from what stands beside it", part.shown())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_could_be_read_in_two_ways_is_refused() {
        for fine in [
            "{body}",
            "{timestamp}.{body}",
            "{timestamp}.{nonce}.{body}",
            "v0:{timestamp}:{body}",
            "{timestamp}{body}",
            "{body}{timestamp}",
            "{body}{timestamp}{secret}",
            "{secret}{body}",
            "{body}.{id}",
            "{header:x-a}|{header:x-b}|{body}",
            "{method}\n{url}\n{timestamp}\n{body}",
            "{{\"Body\":\"{body-json-string}\"}}",
            "{timestamp}{json:/signature/token}",
        ] {
            assert!(Template::parse(fine, Reading::default()).is_ok(), "{fine}");
        }
        let formed = Reading { formed_time: true, ambiguous: false };
        assert!(Template::parse("{id}{timestamp}{body}", formed).is_ok());
        let loose = Reading { ambiguous: true, formed_time: false };
        for (wrong, says) in [
            ("{id}{body}", "nothing keeps {id} apart"),
            ("{id}{timestamp}{body}", "nothing keeps {id} apart"),
            ("{id}x{body}", "nothing keeps {id} apart"),
            ("{id}{nonce}.{body}", "nothing keeps {id} apart"),
            ("{body}{nonce}", "nothing keeps {nonce} apart"),
            ("{body}{header:date}", "nothing keeps {header:date} apart"),
            ("{url}{body}", "nothing keeps {url} apart"),
            ("{json:/a}{json:/b}", "nothing keeps {json:/a} apart"),
        ] {
            let error = Template::parse(wrong, Reading::default()).expect_err(wrong);
            assert!(error.contains(says), "{wrong}: {error}");
            assert!(Template::parse(wrong, loose).is_ok(), "{wrong}");
        }
        for (wrong, says) in [
            ("{body}.{body}", "stands twice"),
            ("{form-sorted}.{body}", "the body stands twice"),
            ("{id}.{id}.{body}", "{id} stands twice"),
            ("{boby}", "{boby} is no part"),
            ("{header:}", "is no part"),
            ("{json:a}", "is no part"),
            ("{body", "a brace"),
            ("body}", "a brace"),
        ] {
            for ambiguous in [false, true] {
                let error = Template::parse(wrong, Reading { ambiguous, formed_time: true }).expect_err(wrong);
                assert!(error.contains(says), "{wrong}: {error}");
            }
        }
    }
}
