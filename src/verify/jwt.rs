//! JSON Web Tokens as proofs: the compact form, an allow-list of algorithms, and claims that are checked.
//!
//! What a token says is read before its signature is checked, because it chooses the algorithm and says until when
//! it counts. Nothing of it is believed until the signature matched.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use sha2::{Digest as _, Sha256};

use super::{
    Algorithm, Place, Refusal, Seen, Stamp,
    encoding::Encoding,
    json,
    scheme::{BodyHash, JwtSpec, Whom},
};

/// In nanoseconds.
const SECOND: i128 = 1_000_000_000;

/// A token, read and unproven.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// What is signed: header and payload as they stand.
    pub(super) input: Vec<u8>,
    pub(super) signature: Vec<u8>,
    pub(super) algorithm: Algorithm,
    pub(super) stamp: Option<Stamp>,
    payload: Vec<u8>,
}

/// Reads a compact token and checks what can be checked without a key.
pub(super) fn read(text: &[u8], spec: &JwtSpec, seen: &Seen<'_>) -> Result<Token, Refusal> {
    let text = std::str::from_utf8(text).map_err(|_| Refusal::SignatureMalformed)?;
    let mut parts = text.split('.');
    let (Some(header), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::SignatureMalformed);
    };
    let decode = |part: &str| Base64UrlUnpadded::decode_vec(part).map_err(|_| Refusal::SignatureMalformed);
    let (header_json, payload_json) = (decode(header)?, decode(payload)?);
    let name = json::text(&header_json, "/alg").ok().flatten().ok_or(Refusal::SignatureMalformed)?;
    // `crit` names extensions that must be understood, and none is.
    if json::locate(&header_json, "/crit").map_err(|_| Refusal::SignatureMalformed)?.is_some() {
        return Err(Refusal::AlgorithmUnsupported);
    }
    let known = Algorithm::JWT.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm);
    let algorithm = known.filter(|known| spec.algorithms.contains(known)).ok_or(Refusal::AlgorithmUnsupported)?;
    let signature = decode(signature)?;
    if !algorithm.lengths().contains(&signature.len()) {
        return Err(Refusal::SignatureMalformed);
    }
    let mut token = Token {
        input: text.as_bytes()[..header.len() + 1 + payload.len()].to_vec(),
        signature,
        algorithm,
        stamp: None,
        payload: payload_json,
    };
    token.stamp = token.read_times(spec)?;
    token.check_names(spec, seen)?;
    Ok(token)
}

impl Token {
    /// A claim that is a string, a number or a boolean, as text.
    pub(super) fn claim(&self, name: &str) -> Option<String> {
        json::text(&self.payload, &pointer(name)).ok().flatten().map(std::borrow::Cow::into_owned)
    }

    /// The digest of the body that it carries.
    pub(super) fn body_hash(&self, hash: &BodyHash) -> Result<Option<[u8; 32]>, Refusal> {
        let Place::Claim(name) = &hash.place else { return Ok(None) };
        match self.claim(name) {
            Some(text) => hash.decode(text.as_bytes()).map(Some),
            None => Ok(None),
        }
    }

    fn time(&self, name: &str) -> Result<Option<i128>, Refusal> {
        let text = match json::text(&self.payload, &pointer(name)) {
            Ok(None) => return Ok(None),
            Ok(Some(text)) => text,
            Err(_) => return Err(Refusal::TimestampMalformed),
        };
        // Decimals are allowed, and cut off.
        let whole = text.split('.').next().unwrap_or_default();
        let fits = (1..=15).contains(&whole.len()) && whole.bytes().all(|byte| byte.is_ascii_digit());
        let seconds: i128 = whole.parse().ok().filter(|_| fits).ok_or(Refusal::TimestampMalformed)?;
        Ok(Some(seconds * SECOND))
    }

    fn read_times(&self, spec: &JwtSpec) -> Result<Option<Stamp>, Refusal> {
        let (exp, nbf, iat) = (self.time("exp")?, self.time("nbf")?, self.time("iat")?);
        let missing =
            (spec.exp && exp.is_none()) || (spec.nbf && nbf.is_none()) || (spec.max_age.is_some() && iat.is_none());
        if missing {
            return Err(Refusal::TimestampMissing);
        }
        let age_ns = |age: Duration| i128::try_from(age.as_nanos()).unwrap_or(i128::MAX / 4);
        let oldest = spec.max_age.zip(iat).map(|(age, iat)| iat + age_ns(age));
        // At the second that `exp` names it counts no more.
        let until_ns = [exp.map(|exp| exp - SECOND), oldest].into_iter().flatten().min();
        let from_ns = [nbf, spec.max_age.and(iat)].into_iter().flatten().max();
        let Some(at_ns) = iat.or(nbf).or(exp) else { return Ok(None) };
        let timed = until_ns.is_some() || from_ns.is_some();
        Ok(timed.then(|| Stamp { text: Vec::new(), at_ns, from_ns, until_ns, unit_ns: SECOND, is_usual: true }))
    }

    fn check_names(&self, spec: &JwtSpec, seen: &Seen<'_>) -> Result<(), Refusal> {
        let is = |whom: &Whom, claimed: &str| match whom {
            Whom::Text(text) => text == claimed,
            Whom::Url => seen.url == Some(claimed),
            // A parameter that was not put in is nobody.
            Whom::Param(_) => false,
        };
        if let Some(issuer) = &spec.issuer
            && !self.claim("iss").is_some_and(|claimed| is(issuer, &claimed))
        {
            return Err(Refusal::ClaimMismatch);
        }
        if let Some(audience) = &spec.audience {
            let listed = json::items(&self.payload, "/aud", &[]);
            let among = listed
                .into_iter()
                .flatten()
                .any(|(_, raw)| serde_json::from_slice::<String>(raw).is_ok_and(|claimed| is(audience, &claimed)));
            if !among && !self.claim("aud").is_some_and(|claimed| is(audience, &claimed)) {
                return Err(Refusal::ClaimMismatch);
            }
        }
        if let Some(name) = &spec.url_hash {
            let url = seen.url.ok_or(Refusal::FieldMissing)?;
            let expected = Encoding::Hex.encode(&Sha256::digest(url.as_bytes()));
            if self.claim(name).as_deref() != Some(&expected) {
                return Err(Refusal::ClaimMismatch);
            }
        }
        Ok(())
    }
}

impl BodyHash {
    pub(super) fn decode(&self, text: &[u8]) -> Result<[u8; 32], Refusal> {
        let bytes = self.encoding.decode(text, 32..=32).ok_or(Refusal::BodyHashMismatch)?;
        bytes.try_into().map_err(|_| Refusal::BodyHashMismatch)
    }
}

fn pointer(claim: &str) -> String {
    format!("/{}", claim.replace('~', "~0").replace('/', "~1"))
}
