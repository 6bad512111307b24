//! Headers that are missing, or not as they should be.

use http::{HeaderName, HeaderValue, header};

use super::{
    super::{
        Algorithm, Encoding, Place, SignaturePlace,
        scheme::{CredentialPlace, Grammar, Kind, Scheme, Signed},
        template::Part,
    },
    Cause, CauseKind, Keyring, Lab, Seen,
};

/// What stands before signatures elsewhere.
const PREFIXES: [&str; 9] = ["", "sha256=", "sha1=", "sha512=", "hmac-sha256=", "v1=", "v0=", "v1,", "Bearer "];
const HMACS: [Algorithm; 4] =
    [Algorithm::HmacSha256, Algorithm::HmacSha1, Algorithm::HmacSha512, Algorithm::HmacSha384];
/// Characters of a signature from which on its beginning proves that it was cut off.
const BEGINNING_MIN: usize = 16;
/// Other headers that are looked at, and bytes of the value and the name of each.
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 128;

impl Lab<'_> {
    /// What became of a header that the scheme names and the request does not have.
    pub(super) fn missing(&mut self, body: Option<&[u8]>) -> Option<Cause> {
        let (scheme, headers) = (self.question.scheme, self.question.seen.headers);
        let places = signature_headers(scheme);
        let has = |name: &HeaderName| headers.contains_key(name);
        let unsigned = !places.is_empty() && !places.iter().any(has);
        let mut wanted: Vec<HeaderName> = if unsigned { places.iter().take(1).cloned().collect() } else { Vec::new() };
        wanted.extend(other_headers(scheme).into_iter().filter(|name| !has(name)));
        if wanted.is_empty() {
            return None;
        }
        if let Some(cause) = self.sibling(&wanted, body) {
            return Some(cause);
        }
        if unsigned {
            if let Some(cause) = self.elsewhere(&wanted[0], body) {
                return Some(cause);
            }
            let name = places.into_iter().find(|name| name.as_str().contains('_'))?;
            return Some(fact(CauseKind::HeaderUnderscore { name }));
        }
        let name = wanted.swap_remove(0);
        Some(fact(if name.as_str().contains('_') {
            CauseKind::HeaderUnderscore { name }
        } else {
            CauseKind::HeaderLost { name }
        }))
    }

    /// All that is missing stands under names that differ by what is often added to a name or taken from it.
    fn sibling(&mut self, wanted: &[HeaderName], body: Option<&[u8]>) -> Option<Cause> {
        let mut headers = self.question.seen.headers.clone();
        let mut renamed = None;
        for name in wanted {
            let is_sibling = |found: &&HeaderName| bare(found) == bare(name);
            let found = self.question.seen.headers.keys().find(is_sibling)?.clone();
            let value = self.question.seen.headers.get(&found)?.clone();
            headers.insert(name, value);
            renamed = renamed.or(Some((name.clone(), found)));
        }
        let (wanted, found) = renamed?;
        self.question.scheme.claim(Seen { headers: &headers, ..self.question.seen }).ok()?;
        let proven = self.with_head(self.question.scheme, &headers, body) == Some(true);
        Some(Cause { kind: CauseKind::HeaderRenamed { wanted, found }, proven })
    }

    /// Another header whose value is a signature.
    fn elsewhere(&mut self, wanted: &HeaderName, body: Option<&[u8]>) -> Option<Cause> {
        let seen = self.question.seen;
        let mut fallback = None;
        for (found, value) in seen.headers.iter().take(HEADERS_MAX) {
            if value.len() > HEADER_BYTES_MAX || found.as_str().len() > NAME_BYTES_MAX {
                continue;
            }
            let mut headers = seen.headers.clone();
            headers.insert(wanted, value.clone());
            if self.question.scheme.claim(Seen { headers: &headers, ..seen }).is_err() {
                continue;
            }
            let kind = CauseKind::HeaderRenamed { wanted: wanted.clone(), found: found.clone() };
            if self.with_head(self.question.scheme, &headers, body) == Some(true) {
                return Some(Cause { kind, proven: true });
            }
            // A digest has the form of a signature.
            let is_named = ["signature", "hmac"].iter().any(|part| found.as_str().contains(part));
            if is_named && self.question.scheme.is_signed() {
                fallback = fallback.or_else(|| Some(fact(kind)));
            }
        }
        fallback
    }

    /// A signature in another form than that of the scheme.
    pub(super) fn malformed(&mut self, body: Option<&[u8]>) -> Option<Cause> {
        let signed = self.question.scheme.as_signed()?;
        let own = *signed.algorithms.first()?;
        if matches!(signed.grammar, Grammar::Jwt { .. }) {
            return None;
        }
        let prefixes = match &signed.grammar {
            Grammar::Plain { prefix } => Some(prefix.clone()),
            _ => None,
        };
        let mut grammars = vec![(signed.grammar.clone(), None)];
        for found in PREFIXES.into_iter().filter(|found| prefixes.as_ref().is_some_and(|wanted| wanted != found)) {
            grammars.push((Grammar::Plain { prefix: found.to_owned() }, Some(found)));
        }
        let mut algorithms = vec![own];
        if HMACS.contains(&own) {
            algorithms.extend(HMACS.into_iter().filter(|other| *other != own));
        }
        // Upper case is the last reading of hexadecimal digits, and the first of such that are not in lower case.
        let encodings = [signed.encoding, Encoding::Hex, Encoding::HexAnyCase, Encoding::Base64, Encoding::Base64Url];
        for (grammar, prefix) in grammars {
            for found in &algorithms {
                for encoding in encodings {
                    let (grammar, algorithms) = (grammar.clone(), vec![*found]);
                    let changed = Signed { grammar, encoding, algorithms, ..signed.clone() };
                    let scheme = Scheme(Kind::Signed(changed.into()));
                    let Some(proven) = self.with_head(&scheme, self.question.seen.headers, body) else { continue };
                    let kind = if *found != own {
                        CauseKind::OtherAlgorithm { wanted: own, found: *found }
                    } else if encoding == Encoding::HexAnyCase && signed.encoding == Encoding::Hex {
                        CauseKind::SignatureUpperCase
                    } else if encoding != signed.encoding {
                        CauseKind::SignatureEncoding { wanted: signed.encoding, found: encoding }
                    } else {
                        let (found, wanted) = (prefix?, prefixes.clone()?);
                        CauseKind::SignaturePrefix { found, wanted }
                    };
                    return Some(Cause { kind, proven });
                }
            }
        }
        self.truncated(body)
    }

    /// A signature that is the beginning of the right one. It is filled up, and compared as far as it goes.
    fn truncated(&mut self, body: Option<&[u8]>) -> Option<Cause> {
        let (scheme, seen) = (self.question.scheme, self.question.seen);
        let signed = scheme.as_signed()?;
        let algorithm = *signed.algorithms.first()?;
        let encoding = signed.encoding;
        let length = *algorithm.lengths().start();
        let full = encoding.encode(&vec![0; length]);
        for name in signature_headers(scheme) {
            let Some(text) = seen.headers.get(&name).and_then(|value| value.to_str().ok()) else { continue };
            let is_digit = |c: char| match encoding {
                Encoding::Hex => c.is_ascii_digit() || ('a'..='f').contains(&c),
                Encoding::HexAnyCase => c.is_ascii_hexdigit(),
                Encoding::Base64 => c.is_ascii_alphanumeric() || "+/".contains(c),
                Encoding::Base64Url => c.is_ascii_alphanumeric() || "-_".contains(c),
            };
            let has = text.len() - text.trim_end_matches(is_digit).len();
            if !(BEGINNING_MIN..full.len()).contains(&has) {
                continue;
            }
            let mut headers = seen.headers.clone();
            headers.insert(&name, HeaderValue::from_str(&format!("{text}{}", &full[has..])).ok()?);
            let Ok(claim) = scheme.claim(Seen { headers: &headers, ..seen }) else { continue };
            let kind = CauseKind::SignatureTruncated { has, needs: full.len() };
            let Some(body) = body else { return Some(fact(kind)) };
            if algorithm.key_kind() != super::super::KeyKind::Shared {
                continue;
            }
            let content = signed.content(&claim, body).ok()?;
            let ring: Keyring = self.ring.clone();
            for secret in (0..ring.keys().len()).take(self.macs_left) {
                self.spend(1);
                let right = encoding.encode(&ring.mac(secret, algorithm, &content, 0));
                if right.get(..has) == text.get(text.len() - has..) {
                    return Some(Cause { kind, proven: true });
                }
            }
        }
        None
    }
}

const fn fact(kind: CauseKind) -> Cause {
    Cause { kind, proven: false }
}

/// A name without what proxies, frameworks and senders put before it.
fn bare(name: &HeaderName) -> String {
    let name = name.as_str().replace('_', "-");
    let mut rest = &*name;
    for prefix in ["http-", "x-"] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest);
    }
    rest.to_owned()
}

/// The headers that a signature, or the credential, may stand in.
fn signature_headers(scheme: &Scheme) -> Vec<HeaderName> {
    match &scheme.0 {
        Kind::Signed(signed) => match &signed.place {
            SignaturePlace::Headers(names) => names.clone(),
            SignaturePlace::At(_) => Vec::new(),
        },
        Kind::Credential { place: CredentialPlace::Header(name), .. } => vec![name.clone()],
        Kind::Credential { place: CredentialPlace::Basic, .. } => vec![header::AUTHORIZATION],
        Kind::Credential { .. } | Kind::Nothing => Vec::new(),
    }
}

/// The other headers that must be there.
fn other_headers(scheme: &Scheme) -> Vec<HeaderName> {
    let Some(signed) = scheme.as_signed() else { return Vec::new() };
    let named = signed.timestamp.iter().map(|(place, _)| place).chain(&signed.id).chain(&signed.nonce);
    let parts = signed.content.parts().filter_map(|part| match part {
        Part::At(place, false) => Some(place),
        _ => None,
    });
    let hash = signed.body_hash.iter().filter(|hash| !hash.optional).map(|hash| &hash.place);
    let places = named.chain(parts).chain(hash).filter_map(|place| match place {
        Place::Header(name) => Some(name.clone()),
        _ => None,
    });
    places.chain(signed.requires.iter().map(|(name, _)| name.clone())).collect()
}
