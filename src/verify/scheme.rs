//! A scheme: where the proof stands, what it covers, how it is computed.

use std::{fmt, sync::Arc};

use http::{HeaderName, header::AUTHORIZATION};

pub use super::spec::{
    BodyHash, Description, Grammar, JwtSpec, SignaturePlace, SignedSpec, SpecError, TimeUnit, UrlPort, Whom,
};
use super::{
    Algorithm, KeyKind, Place,
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
#[derive(Clone, Debug)]
pub(super) struct Signed {
    pub(super) place: SignaturePlace,
    /// Where signatures stand, each with its name as shown: of several headers, all of them.
    pub(super) sources: Vec<(Place, Arc<str>)>,
    pub(super) grammar: Grammar,
    pub(super) encoding: Encoding,
    /// The algorithm, or those that a token may name.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) content: Template,
    pub(super) content_text: String,
    pub(super) timestamp: Option<(Place, TimeUnit)>,
    pub(super) id: Option<Place>,
    pub(super) nonce: Option<Place>,
    pub(super) requires: Vec<(HeaderName, String)>,
    pub(super) body_hash: Option<BodyHash>,
    pub(super) url_port: UrlPort,
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
    /// A parameter of the query.
    Query(String),
    /// A string at a JSON pointer into the body; with `*` in it, of every item of a list, which has one at least.
    Json(String),
}

impl CredentialPlace {
    /// From `token`, `basic`, `header:NAME`, `query:NAME` or `json:/POINTER`, as written in a configuration.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "token" => Some(Self::Token),
            "basic" => Some(Self::Basic),
            _ => match text.split_once(':')? {
                ("header", name) => HeaderName::from_bytes(name.as_bytes()).ok().map(Self::Header),
                ("query", name) if !name.is_empty() => Some(Self::Query(name.to_owned())),
                ("json", pointer) => {
                    let (each, key) = split_star(pointer).unwrap_or((pointer, "/"));
                    let valid = super::json::is_pointer(each) && super::json::is_pointer(key);
                    valid.then(|| Self::Json(pointer.to_owned()))
                }
                _ => None,
            },
        }
    }
    /// Whether the body is needed to read it.
    pub fn is_in_body(&self) -> bool {
        matches!(self, Self::Json(_))
    }
}

/// `/value/*/state` is `/state` of every item of `/value`.
pub(super) fn split_star(pointer: &str) -> Option<(&str, &str)> {
    pointer.split_once("/*")
}

impl fmt::Display for CredentialPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Basic => f.write_str("basic"),
            Self::Token => f.write_str("token"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Json(pointer) => write!(f, "json:{pointer}"),
        }
    }
}

impl Scheme {
    /// A scheme with signatures. Checks that whatever it accepts can be taken apart in one way only, or that it says
    /// that it cannot.
    pub fn signed(spec: SignedSpec) -> Result<Self, SpecError> {
        let (content, algorithms) = spec.check()?;
        Ok(Self(Kind::Signed(Arc::new(Signed {
            sources: spec.place.sources(),
            place: spec.place,
            grammar: spec.grammar,
            encoding: spec.encoding,
            algorithms,
            content,
            content_text: spec.content,
            timestamp: spec.timestamp,
            id: spec.id,
            nonce: spec.nonce,
            requires: spec.requires,
            body_hash: spec.body_hash,
            url_port: spec.url_port,
        }))))
    }
    /// A scheme without signatures: whoever shows the secret is believed.
    pub fn credential(place: CredentialPlace) -> Self {
        let shown = match &place {
            CredentialPlace::Header(name) => Arc::from(name.as_str()),
            CredentialPlace::Basic => Arc::from(AUTHORIZATION.as_str()),
            CredentialPlace::Token => Arc::from("path token"),
            CredentialPlace::Query(name) => Arc::from(format!("query parameter {name}")),
            CredentialPlace::Json(pointer) => Arc::from(format!("json {pointer}")),
        };
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
        self.as_signed().is_some_and(|signed| match &signed.grammar {
            Grammar::Jwt { jwt, .. } => jwt.exp || jwt.max_age.is_some(),
            _ => signed.timestamp.is_some(),
        })
    }
    /// Whether the signed time is known only when the body is there.
    pub fn is_timed_in_body(&self) -> bool {
        self.as_signed().is_some_and(|signed| match &signed.timestamp {
            Some((place, _)) => place.is_in_body() || (place.is_in_signature() && signed.place.is_in_body()),
            None => false,
        })
    }
    /// Whether a secret is needed.
    pub fn needs_secret(&self) -> bool {
        !matches!(self.0, Kind::Nothing)
    }
    /// What kind of key it checks signatures with; `None` where nothing is signed.
    pub fn key_kind(&self) -> Option<KeyKind> {
        Some(self.as_signed()?.algorithms.first()?.key_kind())
    }
    /// Whether the URL is part of what is signed.
    pub fn needs_url(&self) -> bool {
        self.as_signed().is_some_and(|signed| {
            signed.content.has(&Part::Url) || signed.content.has(&Part::UrlNoQuery) || signed.grammar.needs_url()
        })
    }
    /// The parameters that it needs of a source.
    pub fn params(&self) -> Vec<&str> {
        let Some(signed) = self.as_signed() else { return Vec::new() };
        let parts = signed.content.parts().filter_map(|part| match part {
            Part::Param(name) => Some(name.as_str()),
            _ => None,
        });
        parts.chain(signed.grammar.params()).collect()
    }
    /// Whether nobody can change the body without breaking the proof (or the scheme proves nothing at all).
    pub fn covers_body(&self) -> bool {
        self.as_signed().is_none_or(|signed| {
            signed.content.covers_body() || signed.body_hash.as_ref().is_some_and(|hash| !hash.optional)
        })
    }
    /// The stable name: `hmac-sha256`, `credential`, `none`.
    pub fn name(&self) -> &'static str {
        match &self.0 {
            Kind::Signed(signed) => match signed.grammar {
                Grammar::Jwt { .. } => "jwt",
                _ => signed.algorithms.first().map_or("", |algorithm| algorithm.name()),
            },
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
            Some(CredentialPlace::Token | CredentialPlace::Query(_) | CredentialPlace::Json(_)) => false,
            None => {
                // A token behind `Bearer ` is the proof and a credential at once.
                *header == AUTHORIZATION && self.signs_with(header)
            }
        }
    }
    /// The parameter of the query that carried the credential: it is not forwarded.
    pub fn consumed_query(&self) -> Option<&str> {
        match self.credential_place() {
            Some(CredentialPlace::Query(name)) => Some(name),
            _ => None,
        }
    }
    /// Whether a header is inside the signed content, so that it may be part of a key.
    pub fn signs_header(&self, header: &HeaderName) -> bool {
        self.signs(&Place::Header(header.clone()))
    }
    /// Whether the value at this place is inside the signed content, so that it may be part of a key.
    pub fn signs(&self, place: &Place) -> bool {
        let Some(signed) = self.as_signed() else { return !matches!(place, Place::Header(_) | Place::Claim(_)) };
        let named = || [&signed.id, &signed.nonce].into_iter().flatten().any(|known| known == place);
        match place {
            Place::Json(_) | Place::Form(_) if self.covers_body() => true,
            Place::Claim(_) => matches!(signed.grammar, Grammar::Jwt { .. }),
            _ => signed.content.has_place(place) || named(),
        }
    }
    /// Whether this header carries the proof: a signature, or the credential.
    pub fn signs_with(&self, header: &HeaderName) -> bool {
        match &self.0 {
            Kind::Signed(signed) => {
                signed.sources.iter().any(|(place, _)| matches!(place, Place::Header(name) if name == header))
            }
            _ => self.consumes(header),
        }
    }
    pub(super) fn as_signed(&self) -> Option<&Signed> {
        match &self.0 {
            Kind::Signed(signed) => Some(signed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SignedSpec {
        SignedSpec {
            place: SignaturePlace::Headers(vec![HeaderName::from_static("x-sig")]),
            grammar: Grammar::Fields { separator: ',', signature: "v1".into(), trim: false, groups: None },
            timestamp: Some((Place::Field("t".into()), TimeUnit::Seconds)),
            ..SignedSpec::new("{timestamp}.{body}")
        }
    }

    fn part_at_fault(change: impl FnOnce(&mut SignedSpec)) -> Option<&'static str> {
        let mut changed = spec();
        change(&mut changed);
        Scheme::signed(changed).err().map(|error| error.part)
    }

    fn headers(names: &[&'static str]) -> SignaturePlace {
        SignaturePlace::Headers(names.iter().map(|name| HeaderName::from_static(name)).collect())
    }

    #[test]
    fn parts_that_do_not_fit_are_named() {
        assert_eq!(part_at_fault(|_| {}), None);
        assert_eq!(part_at_fault(|s| s.place = headers(&[])), Some("headers"));
        assert_eq!(part_at_fault(|s| s.place = headers(&["x-sig", "x-sig"])), Some("headers"));
        assert_eq!(part_at_fault(|s| s.grammar = Grammar::Plain { prefix: String::new() }), Some("timestamp"));
        assert_eq!(part_at_fault(|s| s.timestamp = None), Some("content"));
        assert_eq!(part_at_fault(|s| s.content = "{body}".into()), Some("timestamp"));
        assert_eq!(part_at_fault(|s| s.content = "{timestamp}".into()), Some("uncovered"));
        assert_eq!(part_at_fault(|s| s.uncovered = Some("but it is".into())), Some("uncovered"));
        assert_eq!(part_at_fault(|s| s.content = "{timestamp}.{body}.{secret}".into()), Some("content"));
        assert_eq!(part_at_fault(|s| s.algorithm = Algorithm::Sha256), Some("content"));
        assert_eq!(part_at_fault(|s| s.nonce = Some(Place::Field("n".into()))), Some("nonce"));
        assert_eq!(
            part_at_fault(|s| s.timestamp = Some((Place::Field("v1".into()), TimeUnit::Seconds))),
            Some("timestamp")
        );
        assert_eq!(
            part_at_fault(|s| s.grammar = Grammar::List { separator: '=', prefix: "v1".into(), trim: false }),
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
    fn a_guard_is_written_in_five_ways() {
        for text in ["token", "basic", "header:x-api-key", "query:token", "json:/secret", "json:/value/*/clientState"] {
            assert_eq!(CredentialPlace::parse(text).map(|place| place.to_string()).as_deref(), Some(text));
        }
        for wrong in ["", "tokens", "header:", "header:a b", "x-api-key", "query:", "json:a"] {
            assert_eq!(CredentialPlace::parse(wrong), None, "{wrong}");
        }
    }
}
