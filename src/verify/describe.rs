//! A scheme in words, and with a source's parameters put in.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Place,
    scheme::{Description, Grammar, Kind, Scheme, SignaturePlace, Signed, Whom},
    template::Part,
};

impl Scheme {
    /// The scheme with the source's parameters in the place of their names. A name that is not among them stays, and
    /// then nothing verifies.
    #[must_use]
    pub fn with_params(&self, params: &BTreeMap<String, String>) -> Self {
        let Kind::Signed(signed) = &self.0 else { return self.clone() };
        if self.params().is_empty() {
            return self.clone();
        }
        let put = |name: &str| params.get(name).cloned();
        let whom = |whom: &Whom| match whom {
            Whom::Param(name) => put(name).map_or_else(|| whom.clone(), Whom::Text),
            other => other.clone(),
        };
        let grammar = match &signed.grammar {
            Grammar::Keyed { separator, assign, param } => Grammar::Keyed {
                separator: *separator,
                assign: *assign,
                param: put(param).unwrap_or_else(|| param.clone()),
            },
            Grammar::Jwt { prefix, jwt } => {
                let mut jwt = jwt.clone();
                jwt.issuer = jwt.issuer.as_ref().map(whom);
                jwt.audience = jwt.audience.as_ref().map(whom);
                Grammar::Jwt { prefix: prefix.clone(), jwt }
            }
            other => other.clone(),
        };
        let content = signed.content.with_literals(|part| match part {
            Part::Param(name) => put(name),
            _ => None,
        });
        Self(Kind::Signed(Arc::new(Signed { grammar, content, ..Signed::clone(signed) })))
    }

    /// The places that a signature stands in, and those that hold what is signed with it: for `providers`.
    pub fn description(&self) -> Description {
        let Some(signed) = self.as_signed() else { return Description::default() };
        Description {
            headers: match &signed.place {
                SignaturePlace::Headers(names) => names.clone(),
                SignaturePlace::At(_) => Vec::new(),
            },
            place: signed.place.to_string(),
            grammar: signed.shown_grammar(),
            encoding: match signed.grammar {
                Grammar::Jwt { .. } => "base64url".to_owned(),
                _ => signed.encoding.name().to_owned(),
            },
            content: match signed.grammar {
                Grammar::Jwt { .. } => "header and payload of the token".to_owned(),
                _ => signed.content_text.clone(),
            },
            timestamp: match &signed.grammar {
                Grammar::Jwt { jwt, .. } => shown_times(jwt.exp, jwt.nbf, jwt.max_age.is_some()),
                _ => signed.timestamp.as_ref().map(|(place, unit)| format!("{place}, {}", unit.in_words())),
            },
            id: signed.id.as_ref().map(ToString::to_string),
            nonce: signed.nonce.as_ref().map(ToString::to_string),
            body_hash: signed.body_hash.as_ref().map(|hash| format!("{}, {}", hash.place, hash.encoding.name())),
        }
    }
}

fn shown_times(exp: bool, nbf: bool, iat: bool) -> Option<String> {
    let claims = [(exp, "exp"), (nbf, "nbf"), (iat, "iat")];
    let named: Vec<_> = claims.iter().filter(|(required, _)| *required).map(|(_, name)| *name).collect();
    (!named.is_empty()).then(|| format!("claims {}", named.join(", ")))
}

impl Signed {
    fn shown_grammar(&self) -> String {
        match &self.grammar {
            Grammar::Plain { prefix } => format!("{prefix}<signature>"),
            Grammar::Fields { separator, signature, groups, .. } => {
                let places = self.timestamp.iter().map(|(place, _)| place).chain(&self.nonce).chain(&self.id);
                let fields = places.filter_map(|place| match place {
                    Place::Field(key) => Some(format!("{key}=…{separator}")),
                    _ => None,
                });
                let group = format!("{}{signature}=<signature>", fields.collect::<String>());
                groups.map_or_else(|| group.clone(), |outer| format!("{group}, several between '{outer}'"))
            }
            Grammar::List { separator, prefix, .. } => format!("{prefix}<signature>, several between '{separator}'"),
            Grammar::Positional { separator } => {
                let named = self.timestamp.iter().map(|(place, _)| place).chain(&self.nonce).chain(&self.id);
                let items = named.filter(|place| matches!(place, Place::Position(_))).count();
                format!("{}<signature>, several between '{separator}'", format!("…{separator}").repeat(items))
            }
            Grammar::Keyed { separator, assign, param } => {
                format!("<{param}>{assign}<signature>, several between '{separator}'")
            }
            Grammar::Base64Json { pointer } => format!("base64 of JSON with the signature at {pointer}"),
            Grammar::Jwt { prefix, .. } => format!("{prefix}<token>"),
        }
    }
}
