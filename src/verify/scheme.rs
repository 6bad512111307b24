//! A scheme: where the proof stands, what it covers, how it is computed.

use std::{fmt, sync::Arc};

use http::{HeaderName, header::AUTHORIZATION};

use super::{
    encoding::Encoding,
    template::{Part, Template},
};

/// A verification scheme, as data. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scheme(pub(super) Kind);

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Signed(Arc<Signed>),
    Credential { place: CredentialPlace, shown: Arc<str> },
    Nothing,
}

/// A signed scheme whose parts fit together.
#[derive(Debug)]
pub(super) struct Signed {
    /// Where signatures stand, each with its name as shown.
    pub(super) sources: Vec<(HeaderName, Arc<str>)>,
    pub(super) grammar: Grammar,
    pub(super) encoding: Encoding,
    pub(super) algorithm: Algorithm,
    pub(super) content: Template,
    pub(super) content_text: String,
    pub(super) timestamp: Option<(Place, TimeUnit)>,
    pub(super) id: Option<Place>,
    pub(super) nonce: Option<Place>,
}

/// What a signed scheme is made of, before it is checked by [`Scheme::signed`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedSpec {
    /// The headers that may carry signatures, in order; each stands at most once. Every one is tried.
    pub headers: Vec<HeaderName>,
    /// How a header holds its signatures.
    pub grammar: Grammar,
    /// How a signature is written.
    pub encoding: Encoding,
    /// How it is computed.
    pub algorithm: Algorithm,
    /// The signed content: literals with `{body}`, `{timestamp}`, `{id}`, `{nonce}`, `{header:NAME}`.
    pub content: String,
    /// Where the signed time stands, and its unit.
    pub timestamp: Option<(Place, TimeUnit)>,
    /// Where the signed id stands.
    pub id: Option<Place>,
    /// Where the signed nonce stands.
    pub nonce: Option<Place>,
}

/// How a header holds signatures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Grammar {
    /// One signature behind a fixed prefix: `sha256=<signature>`.
    Plain {
        /// May be empty.
        prefix: String,
    },
    /// `key=value` items: `t=<time>,v1=<signature>,v1=<signature>`. Keys that the scheme does not use are ignored.
    Fields {
        /// Between items.
        separator: char,
        /// The key of a signature; it may repeat.
        signature: String,
        /// Whether spaces may follow a separator.
        trim: bool,
    },
    /// Signatures behind a prefix each: `v1,<signature> v1,<signature>`. Items with another prefix are ignored.
    List {
        /// Between items.
        separator: char,
        /// Before each signature.
        prefix: String,
    },
}

/// How a signature is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-512.
    HmacSha512,
}

impl Algorithm {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 2] = [("hmac-sha256", Self::HmacSha256), ("hmac-sha512", Self::HmacSha512)];
    /// The stable name: in presets, logs and `hookward-verified`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha512 => "hmac-sha512",
        }
    }
    /// Length of a signature in bytes.
    pub const fn mac_bytes(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha512 => 64,
        }
    }
}

/// Where a signed value stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// In a header of its own.
    Header(HeaderName),
    /// In a field of the signature header ([`Grammar::Fields`]).
    Field(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "{name}"),
            Self::Field(key) => write!(f, "field {key}"),
        }
    }
}

/// The unit of a timestamp; never guessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeUnit {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
}

impl TimeUnit {
    /// All of them, by the name they have in a preset.
    pub const ALL: [(&'static str, Self); 2] = [("s", Self::Seconds), ("ms", Self::Milliseconds)];
    pub(super) const fn ns(self) -> i128 {
        match self {
            Self::Seconds => 1_000_000_000,
            Self::Milliseconds => 1_000_000,
        }
    }
    /// Digits of every time from 2001 to 2286.
    pub(super) const fn usual_digits(self) -> usize {
        match self {
            Self::Seconds => 10,
            Self::Milliseconds => 13,
        }
    }
}

/// Where an unsigned provider shows a secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CredentialPlace {
    /// The whole value of a header.
    Header(HeaderName),
    /// `Authorization: Basic …`; the secret is `user:password`.
    Basic,
    /// The `{token}` segment of the source's path.
    Token,
}

impl CredentialPlace {
    /// From `token`, `basic` or `header:NAME`, as written in a configuration.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "token" => Some(Self::Token),
            "basic" => Some(Self::Basic),
            _ => HeaderName::from_bytes(text.strip_prefix("header:")?.as_bytes()).ok().map(Self::Header),
        }
    }
}

impl fmt::Display for CredentialPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Basic => f.write_str("basic"),
            Self::Token => f.write_str("token"),
        }
    }
}

/// Why the parts of a signed scheme do not fit together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SpecError {
    /// Which part: `headers`, `grammar`, `content`, `timestamp`, `id` or `nonce`.
    pub part: &'static str,
    /// What is wrong: a fragment.
    pub message: String,
    /// What to do.
    pub help: &'static str,
}

const HEADERS_MAX: usize = 4;
const SEPARATORS: &str = ",; &|";

impl Scheme {
    /// A scheme with signatures. Checks that whatever it accepts can be taken apart in one way only.
    pub fn signed(spec: SignedSpec) -> Result<Self, SpecError> {
        check_headers(&spec)?;
        check_grammar(&spec)?;
        let content = Template::parse(&spec.content).map_err(|message| SpecError {
            part: "content",
            message,
            help: "write literals and {body}, {timestamp}, {id}, {nonce}, {header:NAME}, with a separator such as `.` between them",
        })?;
        check_places(&spec, &content)?;
        Ok(Self(Kind::Signed(Arc::new(Signed {
            sources: spec.headers.into_iter().map(|name| (name.clone(), Arc::from(name.as_str()))).collect(),
            grammar: spec.grammar,
            encoding: spec.encoding,
            algorithm: spec.algorithm,
            content,
            content_text: spec.content,
            timestamp: spec.timestamp,
            id: spec.id,
            nonce: spec.nonce,
        }))))
    }
    /// A scheme without signatures: whoever shows the secret is believed.
    pub fn credential(place: CredentialPlace) -> Self {
        let shown = Arc::from(match &place {
            CredentialPlace::Header(name) => name.as_str(),
            CredentialPlace::Basic => AUTHORIZATION.as_str(),
            CredentialPlace::Token => "path token",
        });
        Self(Kind::Credential { place, shown })
    }
    /// No proof at all: everything is believed (`accept_unverified`, or another guard in front).
    pub const fn none() -> Self {
        Self(Kind::Nothing)
    }
    /// Whether the provider signs anything (a credential is not a signature).
    pub fn is_signed(&self) -> bool {
        matches!(self.0, Kind::Signed(_))
    }
    /// Whether a time is signed.
    pub fn is_timed(&self) -> bool {
        self.as_signed().is_some_and(|signed| signed.timestamp.is_some())
    }
    /// Whether a secret is needed.
    pub fn needs_secret(&self) -> bool {
        !matches!(self.0, Kind::Nothing)
    }
    /// The stable name: `hmac-sha256`, `credential`, `none`.
    pub fn name(&self) -> &'static str {
        match &self.0 {
            Kind::Signed(signed) => signed.algorithm.name(),
            Kind::Credential { .. } => "credential",
            Kind::Nothing => "none",
        }
    }
    /// Where the credential stands, if the scheme is one.
    pub fn credential_place(&self) -> Option<&CredentialPlace> {
        match &self.0 {
            Kind::Credential { place, .. } => Some(place),
            _ => None,
        }
    }
    /// Whether a header carried the credential that we consumed: it is not stored and not forwarded.
    pub fn consumes(&self, header: &HeaderName) -> bool {
        match self.credential_place() {
            Some(CredentialPlace::Header(name)) => name == header,
            Some(CredentialPlace::Basic) => header == AUTHORIZATION,
            Some(CredentialPlace::Token) | None => false,
        }
    }
    /// Whether a header is inside the signed content, so that it may be part of a key.
    pub fn signs_header(&self, header: &HeaderName) -> bool {
        self.as_signed().is_some_and(|signed| {
            signed.content.has(&Part::Header(header.clone()))
                || [&signed.id, &signed.nonce].into_iter().flatten().any(|p| *p == Place::Header(header.clone()))
        })
    }
    /// Whether this header carries the proof: a signature, or the credential.
    pub fn signs_with(&self, header: &HeaderName) -> bool {
        self.consumes(header)
            || self.as_signed().is_some_and(|signed| signed.sources.iter().any(|(name, _)| name == header))
    }
    /// The headers that a signature stands in, and those that hold what is signed with it: for `providers`.
    pub fn description(&self) -> Description {
        let Some(signed) = self.as_signed() else { return Description::default() };
        let grammar = match &signed.grammar {
            Grammar::Plain { prefix } => format!("{prefix}<signature>"),
            Grammar::Fields { separator, signature, .. } => {
                let places = [signed.timestamp.as_ref().map(|(p, _)| p), signed.nonce.as_ref(), signed.id.as_ref()];
                let fields = places.into_iter().flatten().filter_map(|place| match place {
                    Place::Field(key) => Some(format!("{key}=…{separator}")),
                    Place::Header(_) => None,
                });
                format!("{}{signature}=<signature>", fields.collect::<String>())
            }
            Grammar::List { separator, prefix } => format!("{prefix}<signature>, several between '{separator}'"),
        };
        let encoding = Encoding::ALL.iter().find(|(_, e)| *e == signed.encoding).map_or("", |(name, _)| name);
        Description {
            headers: signed.sources.iter().map(|(name, _)| name.clone()).collect(),
            grammar,
            encoding: encoding.to_owned(),
            content: signed.content_text.clone(),
            timestamp: signed.timestamp.as_ref().map(|(place, unit)| {
                let unit = if *unit == TimeUnit::Seconds { "seconds" } else { "milliseconds" };
                format!("{place}, {unit} since 1970")
            }),
            id: signed.id.as_ref().map(ToString::to_string),
            nonce: signed.nonce.as_ref().map(ToString::to_string),
        }
    }
    pub(super) fn as_signed(&self) -> Option<&Signed> {
        match &self.0 {
            Kind::Signed(signed) => Some(signed),
            _ => None,
        }
    }
}

/// A signed scheme in words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Description {
    /// Where signatures stand.
    pub headers: Vec<HeaderName>,
    /// How a header holds them: `sha256=<signature>`.
    pub grammar: String,
    /// How a signature is written: `hex`, `base64`, …
    pub encoding: String,
    /// What is signed.
    pub content: String,
    /// Where the time stands, and its unit.
    pub timestamp: Option<String>,
    /// Where the id stands.
    pub id: Option<String>,
    /// Where the nonce stands.
    pub nonce: Option<String>,
}

fn wrong<T>(part: &'static str, message: impl Into<String>, help: &'static str) -> Result<T, SpecError> {
    Err(SpecError { part, message: message.into(), help })
}

fn check_headers(spec: &SignedSpec) -> Result<(), SpecError> {
    if spec.headers.is_empty() || spec.headers.len() > HEADERS_MAX {
        return wrong(
            "headers",
            "a signature stands in one to four headers",
            "name the headers, in the order they are tried",
        );
    }
    if (1..spec.headers.len()).any(|i| spec.headers[..i].contains(&spec.headers[i])) {
        return wrong("headers", "a header is named twice", "name each header once");
    }
    Ok(())
}

fn check_grammar(spec: &SignedSpec) -> Result<(), SpecError> {
    let visible = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    match &spec.grammar {
        Grammar::Plain { prefix } if visible(prefix) => Ok(()),
        Grammar::Fields { separator, signature, .. }
            if SEPARATORS.contains(*separator) && visible(signature) && is_field_key(signature) =>
        {
            Ok(())
        }
        Grammar::List { separator, prefix }
            if SEPARATORS.contains(*separator) && visible(prefix) && !prefix.contains(*separator) =>
        {
            Ok(())
        }
        _ => wrong(
            "grammar",
            "the grammar of the signature header can be read in two ways",
            "a separator is one of `,` `;` space `&` `|`; a prefix or key is visible ASCII without it",
        ),
    }
}

fn is_field_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn check_places(spec: &SignedSpec, content: &Template) -> Result<(), SpecError> {
    let timestamp = spec.timestamp.as_ref().map(|(place, _)| place);
    let mut keys = Vec::new();
    if let Grammar::Fields { signature, .. } = &spec.grammar {
        keys.push(signature);
    }
    for (name, part, place) in [
        ("timestamp", Part::Timestamp, timestamp),
        ("id", Part::Id, spec.id.as_ref()),
        ("nonce", Part::Nonce, spec.nonce.as_ref()),
    ] {
        match (content.has(&part), place) {
            (true, None) => {
                return wrong(
                    "content",
                    format!("{} is signed, and nothing says where it stands", part.shown()),
                    "add its place: { header = \"NAME\" } or { field = \"KEY\" }",
                );
            }
            (false, Some(_)) => {
                return wrong(
                    name,
                    format!("the {name} is not signed, so it proves nothing"),
                    "put it into the signed content if the provider signs it, else remove its place",
                );
            }
            (true, Some(Place::Field(key))) => {
                if !matches!(spec.grammar, Grammar::Fields { .. }) || spec.headers.len() != 1 {
                    return wrong(
                        name,
                        format!("there is no one signature header whose field `{key}` could hold it"),
                        "a field needs the grammar \"fields\" and exactly one header",
                    );
                }
                if !is_field_key(key) || keys.contains(&key) {
                    return wrong(name, format!("the field `{key}` is no key of its own"), "name another field");
                }
                keys.push(key);
            }
            (true, Some(Place::Header(header))) if spec.headers.contains(header) => {
                return wrong(
                    name,
                    format!("`{header}` is the signature header"),
                    "name the header of the value itself",
                );
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SignedSpec {
        SignedSpec {
            headers: vec![HeaderName::from_static("x-sig")],
            grammar: Grammar::Fields { separator: ',', signature: "v1".into(), trim: false },
            encoding: Encoding::Hex,
            algorithm: Algorithm::HmacSha256,
            content: "{timestamp}.{body}".into(),
            timestamp: Some((Place::Field("t".into()), TimeUnit::Seconds)),
            id: None,
            nonce: None,
        }
    }

    fn part_at_fault(change: impl FnOnce(&mut SignedSpec)) -> Option<&'static str> {
        let mut changed = spec();
        change(&mut changed);
        Scheme::signed(changed).err().map(|error| error.part)
    }

    #[test]
    fn parts_that_do_not_fit_are_named() {
        assert_eq!(part_at_fault(|_| {}), None);
        assert_eq!(part_at_fault(|s| s.headers.clear()), Some("headers"));
        assert_eq!(part_at_fault(|s| s.headers.push(s.headers[0].clone())), Some("headers"));
        assert_eq!(part_at_fault(|s| s.grammar = Grammar::Plain { prefix: String::new() }), Some("timestamp"));
        assert_eq!(part_at_fault(|s| s.timestamp = None), Some("content"));
        assert_eq!(part_at_fault(|s| s.content = "{body}".into()), Some("timestamp"));
        assert_eq!(part_at_fault(|s| s.nonce = Some(Place::Field("n".into()))), Some("nonce"));
        assert_eq!(
            part_at_fault(|s| s.timestamp = Some((Place::Field("v1".into()), TimeUnit::Seconds))),
            Some("timestamp")
        );
        assert_eq!(
            part_at_fault(|s| s.grammar = Grammar::List { separator: '=', prefix: "v1".into() }),
            Some("grammar")
        );
    }

    #[test]
    fn only_a_header_inside_the_signed_content_may_be_a_key() {
        let scheme = Scheme::signed(SignedSpec {
            content: "{id}.{header:x-other}.{body}".into(),
            timestamp: None,
            id: Some(Place::Header(HeaderName::from_static("x-id"))),
            ..spec()
        })
        .expect("it fits");
        let signs = |name| scheme.signs_header(&HeaderName::from_static(name));
        assert!(signs("x-id") && signs("x-other") && !signs("x-sig") && !signs("x-delivery"));
    }

    #[test]
    fn a_guard_is_written_in_three_ways() {
        for text in ["token", "basic", "header:x-api-key"] {
            assert_eq!(CredentialPlace::parse(text).map(|place| place.to_string()).as_deref(), Some(text));
        }
        for wrong in ["", "tokens", "header:", "header:a b", "x-api-key"] {
            assert_eq!(CredentialPlace::parse(wrong), None, "{wrong}");
        }
    }
}
