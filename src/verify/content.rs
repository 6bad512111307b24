//! The signed content of one request: the scheme's template, the claim and the body, piece by piece and without a copy
//! of the body.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use super::{
    Candidate, Claim, Refusal,
    claim::{inside, own_value},
    json,
    place::BodyReader,
    scheme::{CredentialPlace, Signed, split_star},
    template::{Part, Piece},
};

/// A claim with everything that stands in the body, and what it says is signed.
#[derive(Debug)]
pub(super) struct Content<'a> {
    pub(super) claim: Cow<'a, Claim>,
    /// SHA-256 of the body.
    pub(super) body_digest: [u8; 32],
    segments: Vec<Segment<'a>>,
}

#[derive(Debug)]
enum Segment<'a> {
    Bytes(Cow<'a, [u8]>),
    Url,
    UrlNoQuery,
    Secret,
}

impl Signed {
    /// Completes the claim from the body.
    pub(super) fn content<'a>(&'a self, claim: &'a Claim, body: &'a [u8]) -> Result<Content<'a>, Refusal> {
        let reader = BodyReader::new(body);
        let body_digest: [u8; 32] = Sha256::digest(body).into();
        let claim = self.complete(claim, &reader)?;
        let mut segments = Vec::new();
        if let Some(token) = &claim.token {
            segments.push(Segment::Bytes(Cow::Owned(token.input.clone())));
        }
        for (i, piece) in self.content.pieces().iter().enumerate() {
            segments.push(match piece {
                Piece::Literal(bytes) => Segment::Bytes(Cow::Borrowed(bytes)),
                Piece::Part { part, bound } => match part {
                    Part::Url => Segment::Url,
                    Part::UrlNoQuery => Segment::UrlNoQuery,
                    Part::Secret => Segment::Secret,
                    Part::Body => Segment::Bytes(Cow::Borrowed(body)),
                    Part::Timestamp => {
                        owned(claim.stamp.as_ref().map(|stamp| stamp.text.clone()).ok_or(Refusal::TimestampMissing)?)
                    }
                    Part::Id => owned(claim.id.clone().ok_or(Refusal::FieldMissing)?),
                    Part::Nonce => owned(claim.nonce.clone().ok_or(Refusal::FieldMissing)?),
                    Part::At(place, optional) if place.is_in_body() => match reader.value(place)? {
                        Some(value) => owned(inside(&value, *bound)?),
                        None if *optional => owned(Vec::new()),
                        None => return Err(Refusal::FieldMissing),
                    },
                    // A parameter that the source does not give was reported when it was configured.
                    Part::At(..) | Part::Method | Part::Param(_) => {
                        owned(claim.values.get(i).cloned().flatten().ok_or(Refusal::FieldMissing)?)
                    }
                    Part::FormSorted => owned(reader.form_sorted()?),
                    Part::BodySha256 => owned(super::encode_hex(&body_digest).into_bytes()),
                    Part::BodyCrc32 => owned(crc32fast::hash(body).to_string().into_bytes()),
                    Part::BodyJsonString => owned(json_string(body)?),
                },
            });
        }
        Ok(Content { claim, body_digest, segments })
    }

    fn complete<'a>(&self, claim: &'a Claim, reader: &BodyReader<'_>) -> Result<Cow<'a, Claim>, Refusal> {
        let named = || self.timestamp.iter().map(|(place, _)| place).chain(&self.id).chain(&self.nonce);
        let signature_in_body = self.place.is_in_body();
        if !signature_in_body && !named().any(super::Place::is_in_body) {
            return Ok(Cow::Borrowed(claim));
        }
        let mut claim = claim.clone();
        let mut own = super::claim::Own::new();
        if signature_in_body {
            let mut texts = Vec::new();
            for (place, shown) in &self.sources {
                texts.extend(reader.value(place)?.filter(|text| !text.is_empty()).map(|value| (value, shown)));
            }
            own = self.read_signature(&texts, None, &mut claim)?;
        }
        self.read_named(&mut claim, |place| {
            if place.is_in_signature() {
                Ok(Some(own_value(&own, place)))
            } else {
                reader.value(place).map(|value| Some(value.map(Cow::into_owned)))
            }
        })?;
        Ok(Cow::Owned(claim))
    }
}

impl Content<'_> {
    /// How many forms of the URL may have been signed; one where no URL is.
    pub(super) fn forms(&self) -> usize {
        self.claim.urls.len().max(1)
    }
    /// The signed bytes, with this form of the URL.
    pub(super) fn segments<'s>(&'s self, form: usize, secret: &'s [u8]) -> impl Iterator<Item = &'s [u8]> + Clone {
        let url = self.claim.urls.get(form).map_or("", String::as_str);
        self.segments.iter().map(move |segment| match segment {
            Segment::Bytes(bytes) => &**bytes,
            Segment::Url => url.as_bytes(),
            Segment::UrlNoQuery => url.split('?').next().unwrap_or_default().as_bytes(),
            Segment::Secret => secret,
        })
    }
    /// The signed bytes but for the secret, if there are at most so many.
    pub(super) fn short(&self, most: usize) -> Option<Vec<u8>> {
        let length: usize = self.segments(0, b"").map(<[u8]>::len).sum();
        (length <= most).then(|| self.segments(0, b"").flatten().copied().collect())
    }
}

fn owned<'a>(bytes: Vec<u8>) -> Segment<'a> {
    Segment::Bytes(Cow::Owned(bytes))
}

/// The inside of a JSON string that is this text.
fn json_string(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| Refusal::FieldMalformed)?;
    let mut quoted = serde_json::to_vec(text).map_err(|_| Refusal::FieldMalformed)?;
    quoted.pop();
    quoted.remove(0);
    Ok(quoted)
}

/// What a body shows as a credential. Of a list every item shows it, and all show the same.
pub(super) fn credential_in_body(
    place: &CredentialPlace,
    shown: &std::sync::Arc<str>,
    body: &[u8],
) -> Result<Candidate, Refusal> {
    let CredentialPlace::Json(pointer) = place else { return Err(Refusal::CredentialMissing) };
    let text = |scalar: json::Scalar| match scalar {
        json::Scalar::Text(text) => Some(text),
        _ => None,
    };
    let found: Option<String> = match split_star(pointer) {
        None => json::scalar(body, pointer).and_then(text),
        Some((each, key)) => {
            let items = json::items(body, each, &[key.to_owned()]);
            let shown: Option<Vec<String>> =
                items.into_iter().map(|item| item.and_then(|(mut scalars, _)| text(scalars.pop()?))).collect();
            let mut shown = shown.ok_or(Refusal::CredentialMissing)?.into_iter();
            let first = shown.next();
            if first.as_ref().is_some_and(|first| !shown.all(|other| other == *first)) {
                return Err(Refusal::CredentialMismatch);
            }
            first
        }
    };
    let bytes = found.filter(|text| !text.is_empty()).ok_or(Refusal::CredentialMissing)?.into_bytes();
    Ok(Candidate { bytes, place: shown.clone() })
}
