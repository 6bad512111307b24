//! Registration handshakes: what a provider asks when an endpoint is registered, and what it is answered. Pure.
//!
//! An answer may hold a token out of the request, so a token has a shape: a few dozen harmless characters, which need
//! no escaping in a header, in text, in JSON or in HTML. What else an answer holds was written by the operator or by
//! the preset, or is a digest.

mod read;
mod template;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{secret::Secret, verify::json};
use template::{Filling, Template};

pub(super) use read::{Context, read_all, read_params};

/// The longest token, and the longest parameter, in bytes.
pub const TOKEN_BYTES_MAX: usize = 256;

/// A question that is answered from itself, and stored nowhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// Whether it is answered only if it verified as a webhook does.
    pub signed: bool,
    /// The method.
    pub method: Method,
    /// What has to hold, all of it.
    pub when: Vec<Condition>,
    /// What is sent back.
    pub token: Option<Token>,
    /// What has to be known to both sides.
    pub compare: Option<Compare>,
    /// Whether the token is a secret that the provider hands over.
    pub captures: bool,
    /// The answer.
    pub answer: Answer,
}

/// Something that must be so of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// Where it stands.
    pub at: Spot,
    /// What it is.
    pub is: Is,
}

/// What stands at a spot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Is {
    /// Anything, once.
    There,
    /// This text.
    Equal(String),
    /// A text that begins like this.
    Starting(String),
}

/// A spot in a request that is looked at before anything of it is proven. What stands there twice is not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Spot {
    /// A header.
    Header(HeaderName),
    /// A parameter of the query, decoded.
    Query(String),
    /// A JSON pointer into the body.
    Json(String),
    /// A field of a form, decoded.
    Form(String),
}

/// What is sent back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// Where it stands.
    pub at: Spot,
    /// What it may be.
    pub shape: Shape,
}

/// What a token may be. No shape has a character that means something to a header, to JSON or to HTML.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// `A-Z a-z 0-9 _ -`.
    Plain,
    /// Those, and `. : = ~ + /`.
    Dotted,
    /// Those, and single spaces between them.
    Words,
    /// `0-9`.
    Digits,
    /// Five groups of hexadecimal digits.
    Uuid,
    /// A domain name.
    Host,
}

/// A value that must equal a parameter of the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compare {
    /// Where it stands.
    pub at: Spot,
    /// The parameter.
    pub param: String,
}

/// The answer to a handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    status: u16,
    content_type: HeaderValue,
    headers: Vec<(HeaderName, Template)>,
    body: Template,
}

/// A request as a handshake sees it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its query, as it came.
    pub query: Option<&'a str>,
    /// Its body; empty where it was not read.
    pub body: &'a [u8],
}

/// What the source has for answers.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// Its parameters.
    pub params: &'a dyn Fn(&str) -> Option<&'a str>,
    /// Its URL as the provider knows it, without a query.
    pub url: Option<&'a str>,
    /// Its first live secret.
    pub key: Option<&'a Secret>,
}

/// What a handshake is answered, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// A status from 200 to 299.
    pub status: u16,
    /// Its type.
    pub content_type: HeaderValue,
    /// More headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: String,
}

/// A handshake that matched.
#[derive(Clone, Debug)]
pub struct Met {
    /// What to answer.
    pub reply: Reply,
    /// The secret that the provider handed over with it.
    pub captured: Option<Secret>,
}

/// The token may be a secret.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Handshake {
    /// What to answer, if the request is this handshake. A body that was not read fits no condition on it.
    pub fn meet(&self, asked: Asked<'_>, known: Known<'_>) -> Option<Met> {
        if self.method != asked.method || !self.when.iter().all(|condition| condition.holds(asked)) {
            return None;
        }
        if let Some(compare) = &self.compare {
            let (shown, expected) = (compare.at.text(asked)?, (known.params)(&compare.param)?);
            // Of digests, so that the time tells not even the length.
            let (shown, expected) = (Sha256::digest(shown.as_bytes()), Sha256::digest(expected));
            if !bool::from(shown.ct_eq(&expected)) {
                return None;
            }
        }
        let token = match &self.token {
            Some(token) => Some(token.read(asked)?),
            None => None,
        };
        let reply = self.answer.fill(&Filling { token: token.as_deref(), known })?;
        let captured = token.filter(|_| self.captures).map(|token| Secret::new(token.into_owned()));
        Some(Met { reply, captured })
    }

    /// Whether method and head already tell it, and what it is answered with.
    pub fn is_in_head(&self) -> bool {
        self.spots().all(|spot| !spot.is_in_body())
    }

    /// Whether everything fits but what the body would have to tell.
    pub fn head_fits(&self, asked: Asked<'_>) -> bool {
        let in_head = |spot: &Spot| !spot.is_in_body();
        self.method == asked.method
            && self.when.iter().filter(|condition| in_head(&condition.at)).all(|condition| condition.holds(asked))
            && self.compare.iter().filter(|compare| in_head(&compare.at)).all(|c| c.at.text(asked).is_some())
            && self.token.iter().filter(|token| in_head(&token.at)).all(|token| token.read(asked).is_some())
    }

    /// Whether its answer is signed although nothing proves who asked.
    pub fn signs_for_strangers(&self) -> bool {
        !self.signed && self.answer.signs()
    }

    /// Whether a stranger could have this content signed by asking this handshake for it. A webhook whose signed
    /// content is such proves nothing.
    pub fn could_sign(&self, content: &[u8]) -> bool {
        let fits = |token: &Token| std::str::from_utf8(content).is_ok_and(|text| token.shape.fits(text));
        self.signs_for_strangers() && self.token.as_ref().is_some_and(fits)
    }

    /// The parameters that its answer shows.
    pub fn shown_params(&self) -> impl Iterator<Item = &str> {
        self.answer.templates().flat_map(|template| template.params().0)
    }

    /// Whether its answer holds a digest of the URL.
    pub fn needs_url(&self) -> bool {
        self.answer.templates().any(Template::needs_url)
    }

    /// Every part of a request that it looks at.
    fn spots(&self) -> impl Iterator<Item = &Spot> {
        let conditions = self.when.iter().map(|condition| &condition.at);
        conditions.chain(self.compare.iter().map(|c| &c.at)).chain(self.token.iter().map(|token| &token.at))
    }
}

impl Condition {
    fn holds(&self, asked: Asked<'_>) -> bool {
        match &self.is {
            Is::There => self.at.is_there(asked),
            Is::Equal(text) => self.at.text(asked).is_some_and(|found| found == text.as_str()),
            Is::Starting(text) => self.at.text(asked).is_some_and(|found| found.starts_with(text)),
        }
    }
}

impl Spot {
    /// Whether it takes the body to look at it.
    pub fn is_in_body(&self) -> bool {
        matches!(self, Self::Json(_) | Self::Form(_))
    }
    fn is_there(&self, asked: Asked<'_>) -> bool {
        match self {
            Self::Json(pointer) => matches!(json::locate(asked.body, pointer), Ok(Some(_))),
            _ => self.text(asked).is_some(),
        }
    }
    /// What stands there, if it stands there once and is text.
    fn text<'a>(&self, asked: Asked<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::Header(name) => {
                let mut values = asked.headers.get_all(name).iter();
                let value = values.next().filter(|_| values.next().is_none())?;
                value.to_str().ok().map(Cow::Borrowed)
            }
            Self::Query(key) => single(asked.query?, key),
            Self::Form(key) => single(std::str::from_utf8(asked.body).ok()?, key),
            Self::Json(pointer) => match json::scalar(asked.body, pointer)? {
                json::Scalar::Text(text) | json::Scalar::Integer(text) => Some(Cow::Owned(text)),
                json::Scalar::Bool(_) => None,
            },
        }
    }
}

/// The value of a key that stands once among `key=value` pairs, decoded.
fn single<'a>(pairs: &'a str, key: &str) -> Option<Cow<'a, str>> {
    let mut values = pairs.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name)? == key).then_some(value)
    });
    let value = values.next().filter(|_| values.next().is_none())?;
    decode(value)
}

/// A `+` is a space, as in forms.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return percent_decode_str(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()));
    }
    percent_decode_str(text).decode_utf8().ok()
}

impl Token {
    fn read<'a>(&self, asked: Asked<'a>) -> Option<Cow<'a, str>> {
        self.at.text(asked).filter(|text| self.shape.fits(text))
    }
}

impl Shape {
    /// All of them, by the name they have in a preset.
    pub const ALL: [(&'static str, Self); 6] = [
        ("plain", Self::Plain),
        ("dotted", Self::Dotted),
        ("words", Self::Words),
        ("digits", Self::Digits),
        ("uuid", Self::Uuid),
        ("host", Self::Host),
    ];

    /// Whether a text has this shape. An empty one has none.
    pub fn fits(self, text: &str) -> bool {
        let all = |fits: fn(u8) -> bool| text.bytes().all(fits);
        let fits = match self {
            Self::Plain => all(is_plain),
            Self::Dotted => all(is_dotted),
            Self::Words => text.split(' ').all(|word| !word.is_empty() && word.bytes().all(is_dotted)),
            Self::Digits => all(|byte| byte.is_ascii_digit()),
            Self::Uuid => is_uuid(text),
            Self::Host => is_host(text),
        };
        fits && !text.is_empty() && text.len() <= TOKEN_BYTES_MAX
    }

    /// Whether it leaves so little room that what has this shape may be signed for a stranger: no text of several
    /// parts, such as an event.
    const fn is_bounded(self) -> bool {
        matches!(self, Self::Plain | Self::Digits | Self::Uuid)
    }
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

const fn is_dotted(byte: u8) -> bool {
    is_plain(byte) || matches!(byte, b'.' | b':' | b'=' | b'~' | b'+' | b'/')
}

fn is_uuid(text: &str) -> bool {
    let groups = text.split('-').map(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(group.len()));
    groups.eq([8, 4, 4, 4, 12].map(Some))
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

impl Answer {
    /// Whether there is something in it that only a holder of the secret can compute.
    fn signs(&self) -> bool {
        self.templates().any(Template::signs)
    }
    fn templates(&self) -> impl Iterator<Item = &Template> {
        self.headers.iter().map(|(_, template)| template).chain([&self.body])
    }
    fn fill(&self, filling: &Filling<'_, '_>) -> Option<Reply> {
        let header = |(name, template): &(HeaderName, Template)| {
            Some((name.clone(), HeaderValue::from_str(&template.fill(filling)?).ok()?))
        };
        Some(Reply {
            status: self.status,
            content_type: self.content_type.clone(),
            headers: self.headers.iter().map(header).collect::<Option<_>>()?,
            body: self.body.fill(filling)?,
        })
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(key) => write!(f, "query:{key}"),
            Self::Json(pointer) => f.write_str(pointer),
            Self::Form(key) => write!(f, "form:{key}"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.is {
            Is::There => write!(f, "{}", self.at),
            Is::Equal(text) => write!(f, "{} = \"{text}\"", self.at),
            Is::Starting(text) => write!(f, "{} = \"{text}…\"", self.at),
        }
    }
}

/// In words, for people.
impl fmt::Display for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.method)?;
        for (i, condition) in self.when.iter().enumerate() {
            write!(f, " {} {condition}", if i == 0 { "with" } else { "and" })?;
        }
        write!(f, " is answered {}", self.answer.status)?;
        if let Some(token) = &self.token {
            let what = if self.captures { "the secret at" } else { "the token at" };
            write!(f, " with {what} {}", token.at)?;
        }
        if self.answer.signs() {
            f.write_str(", signed")?;
        }
        if let Some(compare) = &self.compare {
            write!(f, ", if {} is the parameter {}", compare.at, compare.param)?;
        }
        if self.signed { f.write_str(", once verified") } else { Ok(()) }
    }
}
