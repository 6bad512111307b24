//! Reading a claim: a strict grammar before any MAC is computed. No secret is involved, and no byte of the body.

use std::{borrow::Cow, sync::Arc, time::Duration};

use base64ct::{Base64, Encoding as _};
use http::header::AUTHORIZATION;

use super::{
    Candidate, Claim, Freshness, Place, Refusal, Seen, Stamp, Tolerance,
    place::{in_head, single},
    scheme::{CredentialPlace, Kind, Scheme, Signed, UrlPort},
    template::{Bound, Part, Piece},
    time::stamp,
};
use crate::time::Wall;

/// Signatures that are tried, over all headers of a request.
pub const CANDIDATES_MAX: usize = 8;
/// Bytes of all headers that a claim is read from.
pub(super) const CLAIM_BYTES_MAX: usize = 8 * 1024;
/// Bytes of an id, a nonce, or a signed header.
const PART_BYTES_MAX: usize = 255;

impl Scheme {
    /// Reads the claim from the head, strictly. No secret is involved. What stands in the body is read by
    /// [`Scheme::verify`].
    pub fn claim(&self, seen: Seen<'_>) -> Result<Claim, Refusal> {
        match &self.0 {
            Kind::Signed(signed) => signed.claim(seen),
            Kind::Credential { place, .. } if place.is_in_body() => Ok(Claim::empty()),
            Kind::Credential { place, shown } => {
                let bytes = credential(place, seen)?;
                Ok(Claim { candidates: vec![Candidate { bytes, place: shown.clone() }], ..Claim::empty() })
            }
            Kind::Nothing => Ok(Claim::empty()),
        }
    }
}

impl Claim {
    pub(super) const fn empty() -> Self {
        Self {
            stamp: None,
            id: None,
            nonce: None,
            headers: Vec::new(),
            values: Vec::new(),
            candidates: Vec::new(),
            urls: Vec::new(),
            token: None,
            body_hash: None,
        }
    }

    /// How the claimed time relates to the clock. Both bounds are inclusive, in the unit of the scheme.
    pub fn freshness(&self, now: Wall, tolerance: Tolerance) -> Freshness {
        self.stamp.as_ref().map_or(Freshness::Untimed, |stamp| stamp.freshness(now, tolerance))
    }

    /// Whether a time out of tolerance may be held for an operator: it is one of this age. Digits of a time could be those
    /// of its neighbour in the signed content; near the clock it has as many as it should.
    pub fn may_be_held(&self) -> bool {
        self.stamp.as_ref().is_none_or(|stamp| stamp.is_usual)
    }

    /// The claimed time of signing; far beyond what a clock shows it saturates.
    pub fn timestamp(&self) -> Option<Wall> {
        self.stamp.as_ref().map(Stamp::signed_at)
    }
}

/// What a signature's own text says besides signatures: values by their place.
pub(super) type Own = Vec<(Place, Vec<u8>)>;

impl Signed {
    fn claim(&self, seen: Seen<'_>) -> Result<Claim, Refusal> {
        self.check_required(seen)?;
        let mut budget = CLAIM_BYTES_MAX;
        let mut claim = Claim::empty();
        let mut own = Own::new();
        if !self.place.is_in_body() {
            let mut texts: Vec<(Cow<'_, [u8]>, &Arc<str>)> = Vec::with_capacity(self.sources.len());
            for (place, shown) in &self.sources {
                if let Some(value) = in_head(place, &seen)? {
                    budget = budget.checked_sub(value.len()).ok_or(Refusal::SignatureMalformed)?;
                    texts.push((value, shown));
                }
            }
            own = self.read_signature(&texts, Some(&seen), &mut claim)?;
        }
        self.read_head(seen, &own, budget, &mut claim)?;
        Ok(claim)
    }

    /// Reads what the head says besides signatures; `own` is what the signature's text said.
    pub(super) fn read_head(
        &self,
        seen: Seen<'_>,
        own: &Own,
        mut budget: usize,
        claim: &mut Claim,
    ) -> Result<(), Refusal> {
        if self.content.has(&Part::Url) || self.content.has(&Part::UrlNoQuery) {
            let url = seen.url.ok_or(Refusal::FieldMissing)?;
            claim.urls = url_forms(url, self.url_port);
        }
        self.read_named(claim, |place| {
            if place.is_in_signature() {
                return Ok((!self.place.is_in_body()).then(|| own_value(own, place)));
            }
            if place.is_in_body() {
                Ok(None)
            } else {
                in_head(place, &seen).map(|value| Some(value.map(Cow::into_owned)))
            }
        })?;
        for piece in self.content.pieces() {
            let value = match piece {
                Piece::Part { part: Part::At(place, _), bound } if !place.is_in_body() => {
                    let value = in_head(place, &seen)?.ok_or(Refusal::FieldMissing)?;
                    budget = budget.checked_sub(value.len()).ok_or(Refusal::FieldMalformed)?;
                    let value = visible(&value, *bound)?;
                    if let Place::Header(name) = place {
                        claim.headers.push((name.clone(), value.clone()));
                    }
                    Some(value)
                }
                Piece::Part { part: Part::Method, .. } => Some(seen.method.as_str().as_bytes().to_vec()),
                _ => None,
            };
            claim.values.push(value);
        }
        if let Some(hash) = self.body_hash.as_ref().filter(|hash| !hash.place.is_in_signature()) {
            claim.body_hash = match in_head(&hash.place, &seen)? {
                Some(text) => Some(hash.decode(&text)?),
                None if hash.optional => None,
                None => return Err(Refusal::BodyHashMismatch),
            };
        }
        Ok(())
    }

    fn check_required(&self, seen: Seen<'_>) -> Result<(), Refusal> {
        for (name, wanted) in &self.requires {
            if single(seen.headers, name)?.is_none_or(|value| value != wanted.as_bytes()) {
                return Err(Refusal::AlgorithmUnsupported);
            }
        }
        Ok(())
    }

    /// Reads the time, the id and the nonce. `value` gives what stands at a place: `None` if it cannot be known yet,
    /// `Some(None)` if nothing stands there.
    pub(super) fn read_named(
        &self,
        claim: &mut Claim,
        value: impl Fn(&Place) -> Result<Option<Option<Vec<u8>>>, Refusal>,
    ) -> Result<(), Refusal> {
        if let Some((place, unit)) = &self.timestamp
            && claim.stamp.is_none()
            && let Some(text) = value(place).map_err(timestamp_error)?
        {
            let text = text.ok_or(Refusal::TimestampMissing)?;
            claim.stamp = Some(stamp(&text, *unit)?);
        }
        for (place, part) in [(&self.id, Part::Id), (&self.nonce, Part::Nonce)] {
            let Some(place) = place else { continue };
            let known = if part == Part::Id { claim.id.is_some() } else { claim.nonce.is_some() };
            if known {
                continue;
            }
            let Some(text) = value(place)? else { continue };
            let text = token(&text.ok_or(Refusal::FieldMissing)?, self.bound_of(&part))?;
            // It may be asked for by its header's name, too.
            if let Place::Header(name) = place
                && !claim.headers.iter().any(|(known, _)| known == name)
            {
                claim.headers.push((name.clone(), text.clone()));
            }
            if part == Part::Id { claim.id = Some(text) } else { claim.nonce = Some(text) }
        }
        Ok(())
    }

    fn bound_of(&self, wanted: &Part) -> Bound {
        let bounds = self.content.pieces().iter().filter_map(|piece| match piece {
            Piece::Part { part, bound } if part == wanted => Some(*bound),
            _ => None,
        });
        bounds.last().unwrap_or(Bound::Edge)
    }
}

/// A time that stands twice is a malformed time.
fn timestamp_error(error: Refusal) -> Refusal {
    if error == Refusal::FieldMalformed { Refusal::TimestampMalformed } else { error }
}

/// The value at a place of the signature's own text.
pub(super) fn own_value(own: &Own, wanted: &Place) -> Option<Vec<u8>> {
    own.iter().find(|(place, _)| place == wanted).map(|(_, value)| value.clone())
}

/// The forms of a URL that may have been signed: as it is; tolerant also without its port, or with the default one.
fn url_forms(url: &str, port: UrlPort) -> Vec<String> {
    let mut forms = vec![url.to_owned()];
    let split = url.split_once("://").filter(|_| port == UrlPort::Tolerant);
    if let Some((scheme, rest)) = split {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(end);
        let numbered =
            authority.rsplit_once(':').filter(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
        let other = match (numbered, scheme) {
            (Some((host, _)), _) => host.to_owned(),
            (None, "http") => format!("{authority}:80"),
            (None, _) => format!("{authority}:443"),
        };
        forms.push(format!("{scheme}://{other}{behind}"));
    }
    forms
}

/// An id or a nonce.
pub(super) fn token(value: &[u8], bound: Bound) -> Result<Vec<u8>, Refusal> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_:=+/-.~@|".contains(byte);
    delimited(value, bound, PART_BYTES_MAX, allowed)
}

/// The value of a signed header or parameter.
fn visible(value: &[u8], bound: Bound) -> Result<Vec<u8>, Refusal> {
    delimited(value, bound, PART_BYTES_MAX, |byte| byte.is_ascii_graphic() || *byte == b' ')
}

/// A value out of the body: any text.
pub(super) fn inside(value: &[u8], bound: Bound) -> Result<Vec<u8>, Refusal> {
    if value.is_empty() { Ok(Vec::new()) } else { delimited(value, bound, value.len(), |_| true) }
}

fn delimited(value: &[u8], bound: Bound, most: usize, allowed: impl Fn(&u8) -> bool) -> Result<Vec<u8>, Refusal> {
    let separator = match bound {
        Bound::Without(byte) => Some(byte),
        Bound::FixedForm | Bound::Edge | Bound::Loose => None,
    };
    let fits = (1..=most).contains(&value.len()) && value.iter().all(|byte| allowed(byte) && Some(*byte) != separator);
    if fits { Ok(value.to_vec()) } else { Err(Refusal::FieldMalformed) }
}

fn credential(place: &CredentialPlace, seen: Seen<'_>) -> Result<Vec<u8>, Refusal> {
    let value = match place {
        CredentialPlace::Header(name) => single(seen.headers, name)?.map(<[u8]>::to_vec),
        CredentialPlace::Basic => single(seen.headers, &AUTHORIZATION)?.and_then(basic),
        CredentialPlace::Token => seen.token.map(|token| token.as_bytes().to_vec()),
        CredentialPlace::Query(key) => in_head(&Place::Query(key.clone()), &seen)?.map(Cow::into_owned),
        CredentialPlace::Json(_) => None,
    };
    match value {
        Some(bytes) if bytes.len() > CLAIM_BYTES_MAX => Err(Refusal::CredentialMismatch),
        Some(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(Refusal::CredentialMissing),
    }
}

/// `user:password` out of `Basic <base64>`.
fn basic(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, text) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") || text.len() > CLAIM_BYTES_MAX {
        return None;
    }
    Base64::decode_vec(std::str::from_utf8(text).ok()?).ok()
}

impl Tolerance {
    pub(super) fn ns(self) -> (i128, i128) {
        let ns = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX / 4);
        (ns(self.past), ns(self.future))
    }
}
