//! What a signature covers: literals and parts of the request, in order.
//!
//! A template is accepted only if the signed bytes can be taken apart in one way: every part but the body is
//! followed (behind the body: preceded) by a literal that it cannot contain, or has a fixed length. So equal
//! signed bytes mean equal parts, and no text can move from a body into a nonce or a timestamp.

use http::HeaderName;

use super::Claim;

/// The signed content of a scheme.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
pub(super) enum Piece {
    Literal(Box<[u8]>),
    Body,
    Part { part: Part, bound: Bound },
}

/// A part of the request, other than the body, that is signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Timestamp,
    Id,
    Nonce,
    Header(HeaderName),
}

/// What keeps a part apart from its neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bound {
    /// It may not contain this byte: the neighbouring literal begins (or ends) with it.
    Without(u8),
    /// It has as many digits as every time from 2001 to 2286.
    FixedWidth,
    /// It stands at the edge.
    Edge,
}

impl Template {
    /// Reads a template such as `v0:{timestamp}:{body}`. The error is a fragment for people.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = split(text)?;
        for i in 0..pieces.len() {
            let Piece::Part { part, .. } = &pieces[i] else { continue };
            let part = part.clone();
            if pieces[..i].iter().any(|p| matches!(p, Piece::Part { part: other, .. } if *other == part)) {
                return Err(format!("{} stands twice", part.shown()));
            }
            let behind_body = pieces[..i].iter().any(|p| matches!(p, Piece::Body));
            let neighbour = if behind_body { Some(&pieces[i - 1]) } else { pieces.get(i + 1) };
            let bound = bound(&part, neighbour, behind_body)?;
            pieces[i] = Piece::Part { part, bound };
        }
        Ok(Self { pieces })
    }

    /// Whether the body is signed.
    pub(super) fn has_body(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Body))
    }

    /// The signed parts with their bounds.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&Part, Bound)> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Part { part, bound } => Some((part, *bound)),
            _ => None,
        })
    }

    /// Whether this part is signed.
    pub(super) fn has(&self, wanted: &Part) -> bool {
        self.parts().any(|(part, _)| part == wanted)
    }

    /// The signed bytes, piece by piece, without a copy.
    pub(super) fn segments<'a>(&'a self, claim: &'a Claim, body: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.pieces.iter().map(move |piece| match piece {
            Piece::Literal(bytes) => bytes,
            Piece::Body => body,
            Piece::Part { part, .. } => match part {
                Part::Timestamp => claim.timestamp.as_ref().map_or(&[][..], |stamp| &stamp.text),
                Part::Id => claim.id.as_deref().unwrap_or_default(),
                Part::Nonce => claim.nonce.as_deref().unwrap_or_default(),
                Part::Header(name) => claim.header(name).unwrap_or_default(),
            },
        })
    }
}

impl Part {
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Timestamp => "{timestamp}".to_owned(),
            Self::Id => "{id}".to_owned(),
            Self::Nonce => "{nonce}".to_owned(),
            Self::Header(name) => format!("{{header:{name}}}"),
        }
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
        let (name, after) = rest
            .strip_prefix('{')
            .and_then(|inside| inside.split_once('}'))
            .ok_or_else(|| "a brace is open, or closes nothing".to_owned())?;
        rest = after;
        let piece = match name {
            "body" if pieces.iter().any(|p| matches!(p, Piece::Body)) => return Err("{body} stands twice".to_owned()),
            "body" => Piece::Body,
            "timestamp" => unbound(Part::Timestamp),
            "id" => unbound(Part::Id),
            "nonce" => unbound(Part::Nonce),
            _ => {
                let header = name.strip_prefix("header:").and_then(|h| HeaderName::from_bytes(h.as_bytes()).ok());
                unbound(Part::Header(header.ok_or_else(|| format!("{{{name}}} is no part of a request"))?))
            }
        };
        pieces.push(piece);
    }
    Ok(pieces)
}

fn unbound(part: Part) -> Piece {
    Piece::Part { part, bound: Bound::Edge }
}

fn bound(part: &Part, neighbour: Option<&Piece>, behind_body: bool) -> Result<Bound, String> {
    let separator = match neighbour {
        None => return Ok(Bound::Edge),
        Some(Piece::Literal(bytes)) => if behind_body { bytes.last() } else { bytes.first() }.copied(),
        Some(_) => None,
    };
    match separator.filter(|byte| !byte.is_ascii_alphanumeric()) {
        Some(byte) => Ok(Bound::Without(byte)),
        None if *part == Part::Timestamp => Ok(Bound::FixedWidth),
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
            "{body}.{id}",
            "{header:x-a}|{header:x-b}|{body}",
        ] {
            assert!(Template::parse(fine).is_ok(), "{fine}");
        }
        for (wrong, says) in [
            ("{id}{body}", "nothing keeps {id} apart"),
            ("{id}x{body}", "nothing keeps {id} apart"),
            ("{id}{nonce}.{body}", "nothing keeps {id} apart"),
            ("{body}{nonce}", "nothing keeps {nonce} apart"),
            ("{body}.{body}", "{body} stands twice"),
            ("{id}.{id}.{body}", "{id} stands twice"),
            ("{boby}", "{boby} is no part"),
            ("{header:}", "is no part"),
            ("{body", "a brace"),
            ("body}", "a brace"),
        ] {
            let error = Template::parse(wrong).expect_err(wrong);
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
