//! Taking signatures out of the text that holds them, by the scheme's grammar.

use std::{borrow::Cow, sync::Arc};

use base64ct::{Base64, Encoding as _};

use super::{
    Candidate, Claim, Place, Refusal, Seen,
    claim::{CANDIDATES_MAX, CLAIM_BYTES_MAX, Own},
    json, jwt,
    scheme::{Grammar, Signed},
};

/// Texts that hold signatures, each with its place as shown.
type Texts<'t> = [(Cow<'t, [u8]>, &'t Arc<str>)];

impl Signed {
    /// Every well-formed signature of every text, and what else the texts say. What is malformed is skipped as long as
    /// another is left.
    pub(super) fn read_signature(
        &self,
        texts: &Texts<'_>,
        seen: Option<&Seen<'_>>,
        claim: &mut Claim,
    ) -> Result<Own, Refusal> {
        if texts.is_empty() {
            return Err(Refusal::SignatureMissing);
        }
        let mut own = Own::new();
        let mut found: Vec<(Cow<'_, [u8]>, &Arc<str>)> = Vec::new();
        for (text, shown) in texts {
            match &self.grammar {
                Grammar::Plain { prefix } => {
                    found.extend(text.strip_prefix(prefix.as_bytes()).map(|text| (Cow::Borrowed(text), *shown)));
                }
                Grammar::Fields { separator, signature, trim, groups } => {
                    let form = Fields { separator: *separator, signature, trim: *trim, groups: *groups };
                    let signatures = self.read_fields(text, &form, &mut own)?;
                    found.extend(signatures.into_iter().map(|text| (Cow::Borrowed(text), *shown)));
                }
                Grammar::List { separator, prefix, trim } => {
                    let items = split(text, *separator, *trim);
                    found.extend(items.filter_map(|item| Some((item.strip_prefix(prefix.as_bytes())?.into(), *shown))));
                }
                Grammar::Positional { separator } => {
                    for (index, item) in split(text, *separator, false).enumerate() {
                        match self.named_places().find(|place| **place == Place::Position(index)) {
                            Some(place) => own.push((place.clone(), item.to_vec())),
                            None => found.push((item.into(), *shown)),
                        }
                    }
                }
                Grammar::Keyed { separator, assign, param } => {
                    found.extend(split(text, *separator, false).filter_map(|item| {
                        let item = item.strip_prefix(param.as_bytes())?;
                        let mut sign = [0; 4];
                        Some((item.strip_prefix(assign.encode_utf8(&mut sign).as_bytes())?.into(), *shown))
                    }));
                }
                Grammar::Base64Json { pointer } => {
                    let document = std::str::from_utf8(text).ok().and_then(|text| Base64::decode_vec(text).ok());
                    let value = document.as_deref().and_then(|document| match json::text(document, pointer) {
                        Ok(Some(text)) => Some(text.into_owned().into_bytes()),
                        _ => None,
                    });
                    found.extend(value.map(|text| (Cow::Owned(text), *shown)));
                }
                Grammar::Jwt { prefix, jwt } => {
                    let text = text.strip_prefix(prefix.as_bytes()).ok_or(Refusal::SignatureMalformed)?;
                    let seen = seen.ok_or(Refusal::SignatureMissing)?;
                    let token = jwt::read(text, jwt, seen)?;
                    claim.stamp.clone_from(&token.stamp);
                    if let Some(hash) = &self.body_hash {
                        claim.body_hash = token.body_hash(hash)?;
                    }
                    own.extend(self.named_places().filter_map(|place| {
                        let Place::Claim(name) = place else { return None };
                        Some((place.clone(), token.claim(name)?.into_bytes()))
                    }));
                    claim.candidates = vec![Candidate { bytes: token.signature.clone(), place: (*shown).clone() }];
                    claim.token = Some(token);
                    return Ok(own);
                }
            }
        }
        if found.len() > CANDIDATES_MAX {
            return Err(Refusal::TooManySignatures);
        }
        let lengths = self.algorithm(claim).lengths();
        let decoded = found.into_iter().filter_map(|(text, shown)| {
            let bytes = self.encoding.decode(&text, lengths.clone())?;
            Some(Candidate { bytes, place: shown.clone() })
        });
        claim.candidates = decoded.collect();
        if claim.candidates.is_empty() { Err(Refusal::SignatureMalformed) } else { Ok(own) }
    }

    /// The places of the time, the id and the nonce.
    fn named_places(&self) -> impl Iterator<Item = &Place> {
        self.timestamp.iter().map(|(place, _)| place).chain(&self.id).chain(&self.nonce)
    }

    /// The signatures among the fields. Every group must give the other fields the same values.
    fn read_fields<'t>(&self, text: &'t [u8], form: &Fields<'_>, own: &mut Own) -> Result<Vec<&'t [u8]>, Refusal> {
        let mut signatures = Vec::new();
        let groups: Vec<&[u8]> = match form.groups {
            Some(outer) => split(text, outer, false).filter(|group| !group.is_empty()).collect(),
            None => vec![text],
        };
        for (index, group) in groups.iter().enumerate() {
            let mut here = Own::new();
            for field in fields(group, form.separator, form.trim) {
                let (key, value) = field.ok_or(Refusal::SignatureMalformed)?;
                if key == form.signature.as_bytes() {
                    signatures.push(value);
                } else if let Some(place) = self.named_places().find(|place| is_field(place, key)) {
                    if here.iter().any(|(known, _)| known == place) {
                        return Err(self.repeated(place));
                    }
                    here.push((place.clone(), value.to_vec()));
                }
            }
            if index == 0 {
                *own = here;
            } else if let Some((place, _)) = here.iter().find(|field| !own.contains(field)) {
                return Err(self.repeated(place));
            }
        }
        Ok(signatures)
    }

    fn repeated(&self, place: &Place) -> Refusal {
        let is_time = self.timestamp.as_ref().is_some_and(|(time, _)| time == place);
        if is_time { Refusal::TimestampMalformed } else { Refusal::FieldMalformed }
    }
}

struct Fields<'f> {
    separator: char,
    signature: &'f str,
    trim: bool,
    groups: Option<char>,
}

fn is_field(place: &Place, key: &[u8]) -> bool {
    matches!(place, Place::Field(name) if name.as_bytes() == key)
}

/// The items of a text; `trim` takes spaces from the beginning of all but the first.
fn split(text: &[u8], separator: char, trim: bool) -> impl Iterator<Item = &[u8]> {
    let items = text.split(move |byte| char::from(*byte) == separator).enumerate();
    items.map(move |(i, item)| if trim && i > 0 { item.trim_ascii_start() } else { item })
}

/// The items of a field list; `None` for one that is no `key=value`.
fn fields(value: &[u8], separator: char, trim: bool) -> impl Iterator<Item = Option<(&[u8], &[u8])>> {
    split(value, separator, trim).map(|item| {
        let equals = item.iter().position(|byte| *byte == b'=')?;
        Some((&item[..equals], &item[equals + 1..]))
    })
}

const _: () = assert!(CLAIM_BYTES_MAX >= 1024, "a signature of RSA with 8192 bits must fit");
