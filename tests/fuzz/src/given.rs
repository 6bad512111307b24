//! What several targets need: requests, keys, and fields out of an input.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::{
    secret::Secret,
    verify::{Keyring, Scheme, SecretKey, Seen},
};

/// The secret that genuine requests are signed with.
pub const KEY: &[u8] = b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// A secret that nobody signs with.
pub const OTHER_KEY: &[u8] = b"C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// The URL that providers were told.
pub const URL: &str = "https://hooks.example.com/in";

/// A ring of one key for this scheme.
pub fn ring(scheme: &Scheme, key: impl Into<Vec<u8>>) -> Option<Keyring> {
    let key = Secret::new(key.into());
    Keyring::new(vec![SecretKey { id: "key".into(), key, not_before: None, expires_at: None }], scheme).ok()
}

/// Headers; what could not be one on the wire is left out.
pub fn headers<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    map
}

/// A POST to this URL.
pub fn seen<'a>(headers: &'a HeaderMap, url: &'a str) -> Seen<'a> {
    Seen {
        method: &Method::POST,
        url: Some(url),
        query: url.split_once('?').map(|(_, query)| query),
        headers,
        token: None,
    }
}

/// The text before the first byte of this kind, and what is behind it.
pub fn cut(data: &[u8], at: u8) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == at) {
        Some(position) => (&data[..position], &data[position + 1..]),
        None => (data, b""),
    }
}

/// As much of it as is UTF-8.
pub fn text(data: &[u8]) -> &str {
    match std::str::from_utf8(data) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&data[..error.valid_up_to()]).unwrap_or_default(),
    }
}
