//! Where a value stands in a request, and reading it: from the head before the body is there, from the body after.

use std::{borrow::Cow, cell::OnceCell, fmt};

use http::{HeaderMap, HeaderName};

use super::{Refusal, Seen, json};

/// Fields of a form; of a longer one none is read.
const FORM_FIELDS_MAX: usize = 1000;

/// Where a value stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// In a header of its own.
    Header(HeaderName),
    /// In a field of the signature ([`super::Grammar::Fields`]).
    Field(String),
    /// An item of the signature ([`super::Grammar::Positional`]), from 0.
    Position(usize),
    /// At a JSON pointer into the body.
    Json(String),
    /// In a field of a form.
    Form(String),
    /// In a parameter of the query.
    Query(String),
    /// In a claim of a JSON Web Token ([`super::Grammar::Jwt`]).
    Claim(String),
}

impl Place {
    /// Whether the body is needed to read it.
    pub fn is_in_body(&self) -> bool {
        matches!(self, Self::Json(_) | Self::Form(_))
    }
    /// Whether it is a part of the signature's own text.
    pub(super) fn is_in_signature(&self) -> bool {
        matches!(self, Self::Field(_) | Self::Position(_) | Self::Claim(_))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "{name}"),
            Self::Field(key) => write!(f, "field {key}"),
            Self::Position(index) => write!(f, "item {index}"),
            Self::Json(pointer) => write!(f, "json {pointer}"),
            Self::Form(key) => write!(f, "form field {key}"),
            Self::Query(key) => write!(f, "query parameter {key}"),
            Self::Claim(name) => write!(f, "claim {name}"),
        }
    }
}

/// The value of a form field that stands once, as it is decoded.
pub fn form_value(body: &[u8], key: &str) -> Option<String> {
    let value = BodyReader::new(body).value(&Place::Form(key.to_owned())).ok()??;
    String::from_utf8(value.into_owned()).ok()
}

/// The value of a header that stands at most once: "first wins" would let a second one be the forwarded one.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Refusal::HeaderRepeated);
    }
    Ok(first.map(http::HeaderValue::as_bytes))
}

/// A header or query parameter; `None` for places that are elsewhere, and where nothing stands.
pub(super) fn in_head<'a>(place: &Place, seen: &Seen<'a>) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
    match place {
        Place::Header(name) => Ok(single(seen.headers, name)?.map(Cow::Borrowed)),
        Place::Query(key) => match seen.query {
            Some(query) => lone(fields_of(query.as_bytes()), key),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// The decoded fields of a form, in order.
type Form<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// A body that values are read from, each at most parsed once.
#[derive(Debug)]
pub(super) struct BodyReader<'a> {
    bytes: &'a [u8],
    form: OnceCell<Option<Form<'a>>>,
}

impl<'a> BodyReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, form: OnceCell::new() }
    }
    /// A scalar of a JSON body as text, or a form field; `None` where nothing stands.
    pub(super) fn value(&self, place: &Place) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
        match place {
            Place::Json(pointer) => match json::text(self.bytes, pointer) {
                Ok(text) => Ok(text.map(bytes_of)),
                Err(json::Ambiguous) => Err(Refusal::FieldMalformed),
            },
            Place::Form(key) => lone(self.form()?.iter().cloned(), key),
            _ => Ok(None),
        }
    }
    /// All fields, sorted by key and value, each once, run together.
    pub(super) fn form_sorted(&self) -> Result<Vec<u8>, Refusal> {
        let mut fields = self.form()?.clone();
        fields.sort();
        fields.dedup();
        Ok(fields
            .into_iter()
            .flat_map(|(key, value)| [key, value])
            .flat_map(|text| text.into_owned().into_bytes())
            .collect())
    }
    fn form(&self) -> Result<&Form<'a>, Refusal> {
        let read = || {
            let fields: Vec<_> = fields_of(self.bytes).take(FORM_FIELDS_MAX + 1).collect();
            // What is no UTF-8 would be decoded to the same text as other bytes.
            let exact =
                |(key, value): &(Cow<'_, str>, Cow<'_, str>)| !key.contains('\u{fffd}') && !value.contains('\u{fffd}');
            (fields.len() <= FORM_FIELDS_MAX && fields.iter().all(exact)).then_some(fields)
        };
        self.form.get_or_init(read).as_ref().ok_or(Refusal::FieldMalformed)
    }
}

fn fields_of(text: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(text)
}

/// The value under a key that stands at most once.
fn lone<'a>(
    fields: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    wanted: &str,
) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
    let mut values = fields.filter(|(key, _)| key == wanted).map(|(_, value)| value);
    let first = values.next();
    if values.next().is_some() {
        return Err(Refusal::FieldMalformed);
    }
    Ok(first.map(bytes_of))
}

fn bytes_of(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}
