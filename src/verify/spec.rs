//! What a signed scheme is made of, before it is checked.

use std::{fmt, sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    Algorithm, Place,
    encoding::Encoding,
    template::{Part, Reading, Template},
};

/// What a signed scheme is made of, before it is checked by [`super::Scheme::signed`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedSpec {
    /// Where signatures stand.
    pub place: SignaturePlace,
    /// How that place holds them.
    pub grammar: Grammar,
    /// How a signature is written.
    pub encoding: Encoding,
    /// How it is computed; a token names its own.
    pub algorithm: Algorithm,
    /// The signed content, see `crate::preset`; of a token, nothing.
    pub content: String,
    /// Where the signed time stands, and its unit.
    pub timestamp: Option<(Place, TimeUnit)>,
    /// Where the signed id stands.
    pub id: Option<Place>,
    /// Where the signed nonce stands.
    pub nonce: Option<Place>,
    /// Headers that must have exactly this value.
    pub requires: Vec<(HeaderName, String)>,
    /// Where the digest of the body stands.
    pub body_hash: Option<BodyHash>,
    /// Which forms of the URL may have been signed.
    pub url_port: UrlPort,
    /// Why the content may be taken apart in several ways.
    pub ambiguous: Option<String>,
    /// What of the body is not signed.
    pub uncovered: Option<String>,
}

/// Where signatures stand in a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SignaturePlace {
    /// In these headers, tried in order; each stands at most once. A name that ends in `-*` is `-1` to `-8`.
    Headers(Vec<HeaderName>),
    /// In one other place: JSON, a form, the query.
    At(Place),
}

/// How a place holds signatures.
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
        /// Between several such lists, each with its own fields, which must agree.
        groups: Option<char>,
    },
    /// Signatures behind a prefix each: `v1,<signature> v1,<signature>`. Items with another prefix are ignored.
    List {
        /// Between items.
        separator: char,
        /// Before each signature.
        prefix: String,
        /// Whether spaces may follow a separator.
        trim: bool,
    },
    /// Items by position: those that the time, the id or the nonce name, and signatures.
    Positional {
        /// Between items.
        separator: char,
    },
    /// `key|signature` items: those whose key is a parameter of the source.
    Keyed {
        /// Between items.
        separator: char,
        /// Between key and signature.
        assign: char,
        /// The parameter.
        param: String,
    },
    /// Base64 of a JSON document.
    Base64Json {
        /// Where the signature stands in it.
        pointer: String,
    },
    /// A compact JSON Web Token.
    Jwt {
        /// Before it; may be empty.
        prefix: String,
        /// What it must say.
        jwt: JwtSpec,
    },
}

/// What a token must say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct JwtSpec {
    /// The algorithms that its header may name; all for one kind of key.
    pub algorithms: Vec<Algorithm>,
    /// The exact issuer.
    pub issuer: Option<Whom>,
    /// The audience, or one of several.
    pub audience: Option<Whom>,
    /// It must say when it expires.
    pub exp: bool,
    /// It must say from when it counts.
    pub nbf: bool,
    /// It must say when it was issued, and that may be so long ago.
    pub max_age: Option<Duration>,
    /// The claim with the digest of the URL, in hex.
    pub url_hash: Option<String>,
}

/// A name in a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Whom {
    /// This text.
    Text(String),
    /// The URL of the endpoint.
    Url,
    /// A parameter of the source.
    Param(String),
}

/// Where the SHA-256 of the body stands, signed with the rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BodyHash {
    /// A place in the head, or a claim.
    pub place: Place,
    /// `hex` or `base64`.
    pub encoding: Encoding,
    /// Whether it may be missing: then nothing covers the body.
    pub optional: bool,
}

/// Which forms of the URL may have been signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UrlPort {
    /// As the provider was told.
    Exact,
    /// Also without its port, or with the default one.
    Tolerant,
}

impl UrlPort {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 2] = [("exact", Self::Exact), ("tolerant", Self::Tolerant)];
}

/// The unit of a timestamp; never guessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeUnit {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
    /// Microseconds since 1970.
    Microseconds,
    /// Nanoseconds since 1970.
    Nanoseconds,
    /// RFC 3339: `2023-11-14T22:13:20.5Z`, with up to nine decimals and any offset.
    Rfc3339,
}

impl TimeUnit {
    /// All of them, by the name they have in a preset.
    pub const ALL: [(&'static str, Self); 5] = [
        ("s", Self::Seconds),
        ("ms", Self::Milliseconds),
        ("us", Self::Microseconds),
        ("ns", Self::Nanoseconds),
        ("rfc3339", Self::Rfc3339),
    ];
    /// In words.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Seconds => "seconds since 1970",
            Self::Milliseconds => "milliseconds since 1970",
            Self::Microseconds => "microseconds since 1970",
            Self::Nanoseconds => "nanoseconds since 1970",
            Self::Rfc3339 => "RFC 3339",
        }
    }
    pub(super) const fn ns(self) -> i128 {
        match self {
            Self::Seconds => 1_000_000_000,
            Self::Milliseconds => 1_000_000,
            Self::Microseconds => 1_000,
            Self::Nanoseconds | Self::Rfc3339 => 1,
        }
    }
    /// Digits of every time from 2001 to 2286.
    pub(super) const fn usual_digits(self) -> usize {
        match self {
            Self::Seconds => 10,
            Self::Milliseconds => 13,
            Self::Microseconds => 16,
            Self::Nanoseconds | Self::Rfc3339 => 19,
        }
    }
}

/// A signed scheme in words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Description {
    /// Where signatures stand, if that is headers.
    pub headers: Vec<HeaderName>,
    /// Where signatures stand, in words.
    pub place: String,
    /// How that place holds them: `sha256=<signature>`.
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
    /// Where the digest of the body stands.
    pub body_hash: Option<String>,
}

/// Why the parts of a signed scheme do not fit together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SpecError {
    /// Which part: `headers`, `grammar`, `content`, `timestamp`, `id`, `nonce`, `body_hash`, `ambiguous` or `uncovered`.
    pub part: &'static str,
    /// What is wrong: a fragment.
    pub message: String,
    /// What to do.
    pub help: &'static str,
}

const HEADERS_MAX: usize = 4;
/// Headers that a name with `-*` at its end stands for.
const NUMBERED_MAX: usize = 8;
const SEPARATORS: &str = ",; &|";

impl SignaturePlace {
    /// Every place that is looked at, each with its name as shown.
    pub(super) fn sources(&self) -> Vec<(Place, Arc<str>)> {
        match self {
            Self::At(place) => vec![(place.clone(), Arc::from(place.to_string()))],
            Self::Headers(names) => names
                .iter()
                .flat_map(numbered)
                .map(|name| {
                    let shown = Arc::from(name.as_str());
                    (Place::Header(name), shown)
                })
                .collect(),
        }
    }
    /// Whether the body is needed to read it.
    pub(super) fn is_in_body(&self) -> bool {
        matches!(self, Self::At(place) if place.is_in_body())
    }
}

fn numbered(name: &HeaderName) -> Vec<HeaderName> {
    match name.as_str().strip_suffix("-*") {
        None => vec![name.clone()],
        Some(stem) => (1..=NUMBERED_MAX).filter_map(|n| HeaderName::try_from(format!("{stem}-{n}")).ok()).collect(),
    }
}

impl fmt::Display for SignaturePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(place) => write!(f, "{place}"),
            Self::Headers(names) => f.write_str(&names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ")),
        }
    }
}

impl Grammar {
    pub(super) fn needs_url(&self) -> bool {
        match self {
            Self::Jwt { jwt, .. } => jwt.url_hash.is_some() || jwt.names().any(|whom| *whom == Whom::Url),
            _ => false,
        }
    }
    pub(super) fn params(&self) -> Vec<&str> {
        match self {
            Self::Keyed { param, .. } => vec![param],
            Self::Jwt { jwt, .. } => jwt
                .names()
                .filter_map(|whom| match whom {
                    Whom::Param(name) => Some(name.as_str()),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

impl JwtSpec {
    fn names(&self) -> impl Iterator<Item = &Whom> {
        self.issuer.iter().chain(&self.audience)
    }
}

impl SignedSpec {
    /// HMAC-SHA256 in hex, in a header that is still to be named, over this content.
    pub fn new(content: impl Into<String>) -> Self {
        Self {
            place: SignaturePlace::Headers(Vec::new()),
            grammar: Grammar::Plain { prefix: String::new() },
            encoding: Encoding::Hex,
            algorithm: Algorithm::HmacSha256,
            content: content.into(),
            timestamp: None,
            id: None,
            nonce: None,
            requires: Vec::new(),
            body_hash: None,
            url_port: UrlPort::Exact,
            ambiguous: None,
            uncovered: None,
        }
    }

    /// Whether the parts fit together: the content as it is read, and the algorithms.
    pub(super) fn check(&self) -> Result<(Template, Vec<Algorithm>), SpecError> {
        self.check_place()?;
        self.check_grammar()?;
        let algorithms = match &self.grammar {
            Grammar::Jwt { jwt, .. } => jwt.algorithms.clone(),
            _ => vec![self.algorithm],
        };
        let reading = Reading {
            ambiguous: self.ambiguous.is_some(),
            formed_time: self.timestamp.as_ref().is_some_and(|(_, unit)| *unit == TimeUnit::Rfc3339),
        };
        let content = Template::parse(&self.content, reading).map_err(|message| SpecError {
            part: "content",
            help: if message.contains("nothing keeps") {
                "put a separator such as `.` between them; if the provider really signs it so, say what follows: ambiguous = \"…\""
            } else {
                "write literals and {body}, {timestamp}, {id}, {nonce}, {header:NAME}, {url}, {method}, … with a separator such as `.` between them"
            },
            message,
        })?;
        self.check_content(&content)?;
        self.check_places(&content)?;
        self.check_coverage(&content)?;
        Ok((content, algorithms))
    }

    fn check_place(&self) -> Result<(), SpecError> {
        match &self.place {
            SignaturePlace::Headers(names) => {
                if names.is_empty() || names.len() > HEADERS_MAX {
                    return wrong(
                        "headers",
                        "a signature stands in one to four headers",
                        "name the headers, in the order they are tried",
                    );
                }
                if (1..names.len()).any(|i| names[..i].contains(&names[i])) {
                    return wrong("headers", "a header is named twice", "name each header once");
                }
                Ok(())
            }
            SignaturePlace::At(Place::Json(_) | Place::Form(_) | Place::Query(_)) => Ok(()),
            SignaturePlace::At(_) => {
                wrong("headers", "a signature cannot stand there", "name `headers`, or one of `json`, `form`, `query`")
            }
        }
    }

    fn check_grammar(&self) -> Result<(), SpecError> {
        let visible = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        let separates = |c: char| SEPARATORS.contains(c);
        let fits = match &self.grammar {
            Grammar::Plain { prefix } => visible(prefix),
            Grammar::Fields { separator, signature, groups, .. } => {
                separates(*separator)
                    && is_field_key(signature)
                    && groups.is_none_or(|outer| separates(outer) && outer != *separator)
            }
            Grammar::List { separator, prefix, .. } => {
                // A prefix may have the character in it: `v1,<signature>` between commas would not be readable.
                separates(*separator) && visible(prefix) && !prefix.contains(*separator)
            }
            Grammar::Positional { separator } => separates(*separator),
            Grammar::Keyed { separator, assign, param } => {
                separates(*separator)
                    && (separates(*assign) || "=:".contains(*assign))
                    && separator != assign
                    && !param.is_empty()
            }
            Grammar::Base64Json { pointer } => super::json::is_pointer(pointer),
            Grammar::Jwt { prefix, jwt } => return check_jwt(self, prefix, jwt),
        };
        if fits {
            return Ok(());
        }
        wrong(
            "grammar",
            "the grammar of the signature can be read in two ways",
            "a separator is one of `,` `;` space `&` `|`; a prefix or key is visible ASCII without it",
        )
    }

    fn check_content(&self, content: &Template) -> Result<(), SpecError> {
        let has_secret = content.has(&Part::Secret);
        match (self.algorithm.is_plain_hash(), has_secret) {
            (true, false) => {
                return wrong(
                    "content",
                    "a plain hash without {secret} in it could be made by anybody",
                    "put {secret} where the provider hashes it, or name an hmac algorithm",
                );
            }
            (false, true) => {
                return wrong(
                    "content",
                    "{secret} stands in the content, and the algorithm has a key of its own",
                    "take it out, or name the algorithm \"sha256\" or \"sha1\" if the provider hashes without a key",
                );
            }
            _ => {}
        }
        if let Some(hash) = &self.body_hash
            && (hash.place.is_in_body()
                || matches!(hash.place, Place::Field(_) | Place::Position(_))
                || matches!(hash.place, Place::Claim(_)) != matches!(self.grammar, Grammar::Jwt { .. }))
        {
            return wrong(
                "body_hash",
                "the digest of the body cannot stand there",
                "write { header = \"NAME\" }, { query = \"KEY\" }, or { claim = \"NAME\" } of a token",
            );
        }
        if let Some(hash) = self.body_hash.as_ref().filter(|hash| !matches!(hash.place, Place::Claim(_))) {
            let signed =
                content.has_place(&hash.place) || (matches!(hash.place, Place::Query(_)) && content.has(&Part::Url));
            if !signed {
                let message = format!("the digest of the body ({}) is not signed, so it proves nothing", hash.place);
                return wrong(
                    "body_hash",
                    message,
                    "put it into the signed content if the provider signs it, else remove it",
                );
            }
        }
        Ok(())
    }

    fn check_places(&self, content: &Template) -> Result<(), SpecError> {
        let timestamp = self.timestamp.as_ref().map(|(place, _)| place);
        let mut keys: Vec<&Place> = Vec::new();
        for (name, part, place) in [
            ("timestamp", Part::Timestamp, timestamp),
            ("id", Part::Id, self.id.as_ref()),
            ("nonce", Part::Nonce, self.nonce.as_ref()),
        ] {
            let has = content.has(&part);
            let Some(place) = place else {
                if has {
                    return wrong(
                        "content",
                        format!("{} is signed, and nothing says where it stands", part.shown()),
                        "add its place: { header = \"NAME\" } or { field = \"KEY\" }",
                    );
                }
                continue;
            };
            let by_itself = content.has_place(place)
                || (place.is_in_body() && content.covers_body())
                || matches!(place, Place::Claim(_))
                || (matches!(place, Place::Query(_)) && content.has(&Part::Url));
            if !has && !by_itself {
                return wrong(
                    name,
                    format!("the {name} is not signed, so it proves nothing"),
                    "put it into the signed content if the provider signs it, else remove its place",
                );
            }
            self.check_own_place(name, place, &keys)?;
            keys.push(place);
        }
        Ok(())
    }

    fn check_own_place(&self, name: &'static str, place: &Place, taken: &[&Place]) -> Result<(), SpecError> {
        let one_source = self.place.sources().len() == 1;
        match (place, &self.grammar) {
            (Place::Field(key), Grammar::Fields { signature, .. })
                if one_source && is_field_key(key) && key != signature && !taken.contains(&place) => {}
            (Place::Field(key), Grammar::Fields { .. }) if one_source => {
                return wrong(name, format!("the field `{key}` is no key of its own"), "name another field");
            }
            (Place::Field(key), _) => {
                return wrong(
                    name,
                    format!("there is no one signature whose field `{key}` could hold it"),
                    "a field needs the grammar \"fields\" and exactly one header",
                );
            }
            (Place::Position(_), Grammar::Positional { .. }) if one_source && !taken.contains(&place) => {}
            (Place::Position(index), _) => {
                return wrong(
                    name,
                    format!("there is no one signature whose item {index} could hold it"),
                    "a position needs the grammar \"positional\", exactly one header, and a number of its own",
                );
            }
            (Place::Claim(_), Grammar::Jwt { .. }) if name != "timestamp" => {}
            (Place::Claim(claim), _) => {
                return wrong(
                    name,
                    format!("there is no token whose claim `{claim}` could be that"),
                    "a claim needs the grammar \"jwt\"; the times of a token are `exp`, `nbf` and `max_age` of [signature.jwt]",
                );
            }
            (place, _) if self.place.sources().iter().any(|(source, _)| source == place) => {
                return wrong(name, format!("`{place}` is the signature"), "name the place of the value itself");
            }
            _ => {}
        }
        Ok(())
    }

    fn check_coverage(&self, content: &Template) -> Result<(), SpecError> {
        let covered = content.covers_body() || self.body_hash.as_ref().is_some_and(|hash| !hash.optional);
        match (covered, &self.uncovered) {
            (false, None) => wrong(
                "uncovered",
                "the signed content is without the body, which anybody could change on the way",
                "add {body} if the provider signs it; if it does not, say what follows: uncovered = \"…\"",
            ),
            (true, Some(_)) if self.body_hash.is_none() => {
                wrong("uncovered", "the body is signed, and `uncovered` says that it is not", "take `uncovered` out")
            }
            _ => Ok(()),
        }
    }
}

fn check_jwt(spec: &SignedSpec, prefix: &str, jwt: &JwtSpec) -> Result<(), SpecError> {
    let Some(first) = jwt.algorithms.first() else {
        return wrong(
            "grammar",
            "the token's algorithms are missing",
            "write [signature.jwt] with algorithms = [\"HS256\"]",
        );
    };
    if jwt.algorithms.iter().any(|other| other.key_kind() != first.key_kind()) {
        // A public key must never serve as the secret of an HMAC.
        return wrong(
            "grammar",
            "the token's algorithms need different kinds of keys",
            "allow those of one kind: HS…, or RS256 and PS256, or ES256, or EdDSA",
        );
    }
    if !spec.content.is_empty() {
        return wrong("content", "a token says by itself what is signed", "take `content` out");
    }
    if !prefix.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return wrong("grammar", "the prefix is not visible ASCII", "write such as prefix = \"Bearer \"");
    }
    Ok(())
}

fn wrong<T>(part: &'static str, message: impl Into<String>, help: &'static str) -> Result<T, SpecError> {
    Err(SpecError { part, message: message.into(), help })
}

fn is_field_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}
