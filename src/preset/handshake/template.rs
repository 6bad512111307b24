//! What an answer is made of: literals, and parts in braces.
//!
//! A brace before a letter begins a part; every other brace is itself, so that JSON needs no escaping here.

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::{Known, Shape};
use crate::verify::encode_hex;

/// A text with holes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Literal(String),
    Token,
    /// A MAC of the token.
    Mac(MacKind),
    /// The SHA-256 of what a template of its own comes to, in hex.
    Sha256(Template),
    Param(String),
    Url,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum MacKind {
    Sha1Hex,
    Sha256Hex,
    Sha256Base64,
}

const PARTS: &str = "{token}, {hmac-sha1-hex}, {hmac-sha256-hex}, {hmac-sha256-base64}, {sha256-hex:…}, {param:NAME}";
const DIGESTED: &str = "{token}, {param:NAME}, {url}";

/// What the holes are filled with.
pub(super) struct Filling<'t, 'k> {
    pub(super) token: Option<&'t str>,
    pub(super) known: Known<'k>,
}

impl Template {
    /// Reads a template. The error is a fragment for people, and what to write.
    pub(super) fn parse(text: &str) -> Result<Self, (String, String)> {
        parse(text, false)
    }

    pub(super) const fn empty() -> Self {
        Self(Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it has a MAC in it.
    pub(super) fn signs(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Mac(_)))
    }

    /// Whether it takes a token to fill it.
    pub(super) fn needs_token(&self) -> bool {
        self.0.iter().any(|part| match part {
            Part::Token | Part::Mac(_) => true,
            Part::Sha256(inner) => inner.needs_token(),
            Part::Literal(_) | Part::Param(_) | Part::Url => false,
        })
    }

    /// The parameters that are shown in it, and those that are only digested.
    pub(super) fn params(&self) -> (Vec<&str>, Vec<&str>) {
        let (mut shown, mut digested) = (Vec::new(), Vec::new());
        for part in &self.0 {
            match part {
                Part::Param(name) => shown.push(name.as_str()),
                Part::Sha256(inner) => digested.extend(inner.params().0),
                Part::Literal(_) | Part::Token | Part::Mac(_) | Part::Url => {}
            }
        }
        (shown, digested)
    }

    /// Whether the URL is digested in it.
    pub(super) fn needs_url(&self) -> bool {
        self.0.iter().any(|part| match part {
            Part::Url => true,
            Part::Sha256(inner) => inner.needs_url(),
            Part::Literal(_) | Part::Token | Part::Mac(_) | Part::Param(_) => false,
        })
    }

    /// Its literals.
    pub(super) fn literals(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The text; `None` if something that goes into it is missing, or could break out of what stands around it.
    pub(super) fn fill(&self, filling: &Filling<'_, '_>) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Token => out.push_str(filling.token?),
                Part::Mac(kind) => out.push_str(&kind.of(filling.known.key?.expose(), filling.token?)),
                Part::Sha256(inner) => out.push_str(&encode_hex(&Sha256::digest(inner.fill_raw(filling)?))),
                Part::Param(name) => {
                    out.push_str((filling.known.params)(name).filter(|value| Shape::Words.fits(value))?);
                }
                Part::Url => out.push_str(filling.known.url?),
            }
        }
        Some(out)
    }

    /// As `fill`, of what is digested: there is nothing to break out of.
    fn fill_raw(&self, filling: &Filling<'_, '_>) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            out.push_str(match part {
                Part::Literal(text) => text,
                Part::Token => filling.token?,
                Part::Param(name) => (filling.known.params)(name)?,
                Part::Url => filling.known.url?,
                Part::Mac(_) | Part::Sha256(_) => return None,
            });
        }
        Some(out)
    }
}

impl MacKind {
    fn of(self, key: &[u8], token: &str) -> String {
        const ANY_LENGTH: &str = "HMAC takes keys of any length";
        if self == Self::Sha1Hex {
            let mut mac = Hmac::<Sha1>::new_from_slice(key).expect(ANY_LENGTH);
            mac.update(token.as_bytes());
            return encode_hex(&mac.finalize().into_bytes());
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect(ANY_LENGTH);
        mac.update(token.as_bytes());
        let bytes = mac.finalize().into_bytes();
        if self == Self::Sha256Hex { encode_hex(&bytes) } else { Base64::encode_string(&bytes) }
    }
}

/// `digested`: inside of `{sha256-hex:…}`.
fn parse(text: &str, digested: bool) -> Result<Template, (String, String)> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(brace) = rest.find('{') {
        let behind = &rest[brace + 1..];
        if !behind.starts_with(|c: char| c.is_ascii_alphabetic()) {
            literal.push_str(&rest[..=brace]);
            rest = behind;
            continue;
        }
        literal.push_str(&rest[..brace]);
        let end = closing(behind).ok_or_else(|| {
            let help = "close it with }; a brace that is itself stands before no letter";
            (format!("the part `{{{behind}` has no end"), help.to_owned())
        })?;
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(part(&behind[..end], digested)?);
        rest = &behind[end + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(Template(parts))
}

/// Where the part that begins here ends; parts nest.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_u32;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn part(name: &str, digested: bool) -> Result<Part, (String, String)> {
    let unknown = || {
        let (what, known) = if digested { ("a digest", DIGESTED) } else { ("an answer", PARTS) };
        (format!("{{{name}}} is no part of {what}"), format!("there are: {known}"))
    };
    if let Some(param) = name.strip_prefix("param:") {
        return Ok(Part::Param(param.to_owned()));
    }
    match name {
        "token" => Ok(Part::Token),
        "url" if digested => Ok(Part::Url),
        "hmac-sha1-hex" if !digested => Ok(Part::Mac(MacKind::Sha1Hex)),
        "hmac-sha256-hex" if !digested => Ok(Part::Mac(MacKind::Sha256Hex)),
        "hmac-sha256-base64" if !digested => Ok(Part::Mac(MacKind::Sha256Base64)),
        _ => match name.strip_prefix("sha256-hex:").filter(|inner| !digested && !inner.is_empty()) {
            Some(inner) => Ok(Part::Sha256(parse(inner, true)?)),
            None => Err(unknown()),
        },
    }
}
