//! Reading a claim: a strict grammar before any MAC is computed. No secret is involved, and no byte of the body.

use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use http::{HeaderMap, HeaderName, header::AUTHORIZATION};

use super::{
    Candidate, Claim, Freshness, Refusal, Seen, Stamp, Tolerance,
    scheme::{CredentialPlace, Grammar, Kind, Place, Scheme, Signed},
    template::{Bound, Part},
};
use crate::time::Wall;

/// Signatures that are tried, over all headers of a request.
pub const CANDIDATES_MAX: usize = 8;
/// Bytes of all headers that a claim is read from.
const CLAIM_BYTES_MAX: usize = 8 * 1024;
/// Bytes of an id, a nonce, or a signed header.
const PART_BYTES_MAX: usize = 255;
/// Digits of a timestamp.
const TIMESTAMP_DIGITS_MAX: usize = 19;

impl Scheme {
    /// Reads the claim from the headers, strictly. No secret is involved.
    pub fn claim(&self, seen: Seen<'_>) -> Result<Claim, Refusal> {
        match &self.0 {
            Kind::Signed(signed) => signed.claim(seen.headers),
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
        Self { timestamp: None, id: None, nonce: None, headers: Vec::new(), candidates: Vec::new() }
    }

    /// The value of a signed header.
    pub(super) fn header(&self, wanted: &HeaderName) -> Option<&[u8]> {
        self.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_slice())
    }

    /// How the claimed time relates to the clock. Both bounds are inclusive, in the unit of the scheme.
    pub fn freshness(&self, now: Wall, tolerance: Tolerance) -> Freshness {
        let Some(age_ns) = self.age_ns(now) else { return Freshness::Untimed };
        let past_ns = age_ns - as_ns(tolerance.past);
        let future_ns = -age_ns - as_ns(tolerance.future);
        if past_ns > 0 {
            Freshness::Past(as_duration(past_ns))
        } else if future_ns > 0 {
            Freshness::Future(as_duration(future_ns))
        } else {
            Freshness::Fresh
        }
    }

    /// Nanoseconds from the claimed time to now, rounded down to the unit of the scheme; negative if the claimed
    /// time is ahead.
    pub(super) fn age_ns(&self, now: Wall) -> Option<i128> {
        let stamp = self.timestamp.as_ref()?;
        let now_ns = i128::from(now.unix_ns());
        Some(now_ns.div_euclid(stamp.unit_ns) * stamp.unit_ns - stamp.at_ns)
    }

    /// The claimed time; far beyond what a clock shows it saturates.
    pub fn timestamp(&self) -> Option<Wall> {
        let ms = self.timestamp.as_ref()?.at_ns / 1_000_000;
        Some(Wall::from_unix_ms(i64::try_from(ms).unwrap_or(i64::MAX)))
    }
}

impl Signed {
    fn claim(&self, headers: &HeaderMap) -> Result<Claim, Refusal> {
        let mut budget = CLAIM_BYTES_MAX;
        let mut sources = Vec::with_capacity(self.sources.len());
        for (name, shown) in &self.sources {
            if let Some(value) = single(headers, name)? {
                budget = budget.checked_sub(value.len()).ok_or(Refusal::SignatureMalformed)?;
                sources.push((value, shown));
            }
        }
        if sources.is_empty() {
            return Err(Refusal::SignatureMissing);
        }
        let mut claim = Claim::empty();
        for (part, bound) in self.content.parts() {
            let value = self.part_value(part, headers, sources[0].0)?;
            budget = budget.checked_sub(value.len()).ok_or(Refusal::FieldMalformed)?;
            match part {
                Part::Timestamp => claim.timestamp = Some(self.stamp(value, bound)?),
                Part::Id => claim.id = Some(token(value, bound)?),
                Part::Nonce => claim.nonce = Some(token(value, bound)?),
                Part::Header(name) => claim.headers.push((name.clone(), visible(value, bound)?)),
            }
        }
        // An id or nonce with a header of its own may be asked for by that header's name.
        for (place, value) in [(&self.id, &claim.id), (&self.nonce, &claim.nonce)] {
            if let (Some(Place::Header(name)), Some(value)) = (place, value)
                && !claim.headers.iter().any(|(known, _)| known == name)
            {
                claim.headers.push((name.clone(), value.clone()));
            }
        }
        claim.candidates = self.candidates(&sources)?;
        Ok(claim)
    }

    /// Every well-formed signature of every header. What is malformed is skipped as long as another is left.
    fn candidates(&self, sources: &[(&[u8], &std::sync::Arc<str>)]) -> Result<Vec<Candidate>, Refusal> {
        let mut texts = Vec::new();
        for (value, shown) in sources {
            match &self.grammar {
                Grammar::Plain { prefix } => {
                    texts.extend(value.strip_prefix(prefix.as_bytes()).map(|text| (text, *shown)));
                }
                Grammar::Fields { separator, signature, trim } => {
                    for field in fields(value, *separator, *trim) {
                        let (key, text) = field.ok_or(Refusal::SignatureMalformed)?;
                        if key == signature.as_bytes() {
                            texts.push((text, *shown));
                        }
                    }
                }
                Grammar::List { separator, prefix } => {
                    let items = value.split(|byte| char::from(*byte) == *separator);
                    texts.extend(items.filter_map(|item| Some((item.strip_prefix(prefix.as_bytes())?, *shown))));
                }
            }
        }
        if texts.len() > CANDIDATES_MAX {
            return Err(Refusal::TooManySignatures);
        }
        let length = self.algorithm.mac_bytes();
        let candidates: Vec<_> = texts
            .into_iter()
            .filter_map(|(text, shown)| {
                Some(Candidate { bytes: self.encoding.decode(text, length)?, place: shown.clone() })
            })
            .collect();
        if candidates.is_empty() { Err(Refusal::SignatureMalformed) } else { Ok(candidates) }
    }

    fn part_value<'a>(&self, part: &Part, headers: &'a HeaderMap, source: &'a [u8]) -> Result<&'a [u8], Refusal> {
        let (missing, repeated, place) = match part {
            Part::Header(name) => return single(headers, name)?.ok_or(Refusal::FieldMissing),
            Part::Timestamp => {
                let place = self.timestamp.as_ref().map(|(place, _)| place);
                (Refusal::TimestampMissing, Refusal::TimestampMalformed, place)
            }
            Part::Id => (Refusal::FieldMissing, Refusal::FieldMalformed, self.id.as_ref()),
            Part::Nonce => (Refusal::FieldMissing, Refusal::FieldMalformed, self.nonce.as_ref()),
        };
        match place.ok_or(missing)? {
            Place::Header(name) => single(headers, name)?.ok_or(missing),
            Place::Field(wanted) => {
                let Grammar::Fields { separator, trim, .. } = &self.grammar else { return Err(missing) };
                let mut found = None;
                for field in fields(source, *separator, *trim) {
                    let (key, value) = field.ok_or(Refusal::SignatureMalformed)?;
                    if key == wanted.as_bytes() && found.replace(value).is_some() {
                        return Err(repeated);
                    }
                }
                found.ok_or(missing)
            }
        }
    }

    fn stamp(&self, text: &[u8], bound: Bound) -> Result<Stamp, Refusal> {
        let unit = self.timestamp.as_ref().map(|(_, unit)| *unit).ok_or(Refusal::TimestampMissing)?;
        let fits = match bound {
            Bound::FixedWidth => text.len() == unit.usual_digits(),
            Bound::Without(_) | Bound::Edge => (1..=TIMESTAMP_DIGITS_MAX).contains(&text.len()),
        };
        let canonical = text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || text.first() != Some(&b'0'));
        if !fits || !canonical {
            return Err(Refusal::TimestampMalformed);
        }
        // At most 19 digits and a factor of 10^9 stay far below 2^127.
        let number = text.iter().fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
        Ok(Stamp { text: text.to_vec(), at_ns: number * unit.ns(), unit_ns: unit.ns() })
    }
}

/// The items of a field list; `None` for one that is no `key=value`.
fn fields(value: &[u8], separator: char, trim: bool) -> impl Iterator<Item = Option<(&[u8], &[u8])>> {
    value.split(move |byte| char::from(*byte) == separator).enumerate().map(move |(i, item)| {
        let item = if trim && i > 0 { item.trim_ascii_start() } else { item };
        let equals = item.iter().position(|byte| *byte == b'=')?;
        Some((&item[..equals], &item[equals + 1..]))
    })
}

/// The value of a header that stands at most once: "first wins" would let a second one be the forwarded one.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Refusal::HeaderRepeated);
    }
    Ok(first.map(http::HeaderValue::as_bytes))
}

fn token(value: &[u8], bound: Bound) -> Result<Vec<u8>, Refusal> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_:=+/-".contains(byte);
    delimited(value, bound, allowed)
}

fn visible(value: &[u8], bound: Bound) -> Result<Vec<u8>, Refusal> {
    delimited(value, bound, |byte| byte.is_ascii_graphic() || *byte == b' ')
}

fn delimited(value: &[u8], bound: Bound, allowed: impl Fn(&u8) -> bool) -> Result<Vec<u8>, Refusal> {
    let separator = match bound {
        Bound::Without(byte) => Some(byte),
        Bound::FixedWidth | Bound::Edge => None,
    };
    let fits = (1..=PART_BYTES_MAX).contains(&value.len())
        && value.iter().all(|byte| allowed(byte) && Some(*byte) != separator);
    if fits { Ok(value.to_vec()) } else { Err(Refusal::FieldMalformed) }
}

fn credential(place: &CredentialPlace, seen: Seen<'_>) -> Result<Vec<u8>, Refusal> {
    let value = match place {
        CredentialPlace::Header(name) => single(seen.headers, name)?.map(<[u8]>::to_vec),
        CredentialPlace::Basic => single(seen.headers, &AUTHORIZATION)?.and_then(basic),
        CredentialPlace::Token => seen.token.map(|token| token.as_bytes().to_vec()),
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

fn as_ns(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

pub(super) fn as_duration(ns: i128) -> Duration {
    const NS_PER_S: i128 = 1_000_000_000;
    let ns = ns.max(0);
    match (u64::try_from(ns / NS_PER_S), u32::try_from(ns % NS_PER_S)) {
        (Ok(seconds), Ok(rest)) => Duration::new(seconds, rest),
        _ => Duration::MAX,
    }
}
