//! Signing: the headers that a genuine sender would have sent. For `sign`, `send`, `demo`, tests, and the
//! signature towards upstreams.

use std::fmt::{self, Write as _};

use base64ct::{Base64, Encoding as _};
use http::{HeaderName, header::AUTHORIZATION};

use super::{
    Claim, Stamp,
    keyring::mac_once,
    scheme::{CredentialPlace, Grammar, Kind, Place, Scheme, Signed, TimeUnit},
};
use crate::{secret::Secret, time::Wall};

/// What is to be signed, and with what.
#[derive(Clone, Debug)]
pub struct SignRequest<'a> {
    /// Key bytes, decoded by the key format; of a credential, the secret itself.
    pub key: &'a Secret,
    /// The body.
    pub body: &'a [u8],
    /// The signed time, where the scheme has one.
    pub at: Wall,
    /// The signed id, where the scheme has one.
    pub id: &'a str,
    /// The signed nonce, where the scheme has one.
    pub nonce: &'a str,
    /// Other headers that the signed content may name.
    pub headers: &'a [(HeaderName, String)],
}

/// What goes with the body. A credential is in it as it is, so `Debug` shows names only.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Signature {
    /// Headers to add.
    pub headers: Vec<(HeaderName, String)>,
    /// The segment for `{token}` in the path.
    pub token: Option<String>,
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.headers.iter().map(|(name, _)| name)).finish()
    }
}

impl Scheme {
    /// The headers, or the path token, that make a request authentic under this scheme.
    pub fn sign(&self, request: &SignRequest<'_>) -> Signature {
        match &self.0 {
            Kind::Signed(signed) => Signature { headers: signed.sign(request), token: None },
            Kind::Credential { place, .. } => {
                let secret = String::from_utf8_lossy(request.key.expose());
                match place {
                    CredentialPlace::Header(name) => {
                        Signature { headers: vec![(name.clone(), secret.into_owned())], token: None }
                    }
                    CredentialPlace::Basic => {
                        let value = format!("Basic {}", Base64::encode_string(request.key.expose()));
                        Signature { headers: vec![(AUTHORIZATION, value)], token: None }
                    }
                    CredentialPlace::Token => Signature { headers: Vec::new(), token: Some(secret.into_owned()) },
                }
            }
            Kind::Nothing => Signature::default(),
        }
    }
}

impl Signed {
    fn sign(&self, request: &SignRequest<'_>) -> Vec<(HeaderName, String)> {
        let time = self.timestamp.as_ref().map(|(place, unit)| {
            let number = match unit {
                TimeUnit::Seconds => request.at.unix_s(),
                TimeUnit::Milliseconds => request.at.unix_ms(),
            };
            (place, number.to_string())
        });
        let claim = Claim {
            timestamp: time.as_ref().map(|(_, text)| Stamp { text: text.clone().into_bytes(), at_ns: 0, unit_ns: 1 }),
            id: self.id.as_ref().map(|_| request.id.as_bytes().to_vec()),
            nonce: self.nonce.as_ref().map(|_| request.nonce.as_bytes().to_vec()),
            headers: request.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect(),
            candidates: Vec::new(),
        };
        let mac = mac_once(request.key, self.algorithm, self.content.segments(&claim, request.body));
        let signature = self.encoding.encode(&mac);

        let id = self.id.as_ref().map(|place| (place, request.id.to_owned()));
        let nonce = self.nonce.as_ref().map(|place| (place, request.nonce.to_owned()));
        let mut headers = Vec::new();
        let mut fields = String::new();
        for (place, value) in [id, time, nonce].into_iter().flatten() {
            match (place, &self.grammar) {
                (Place::Header(name), _) => headers.push((name.clone(), value)),
                (Place::Field(key), Grammar::Fields { separator, .. }) => {
                    let _ = write!(fields, "{key}={value}{separator}");
                }
                (Place::Field(_), _) => {}
            }
        }
        let value = match &self.grammar {
            Grammar::Plain { prefix } | Grammar::List { prefix, .. } => format!("{prefix}{signature}"),
            Grammar::Fields { signature: key, .. } => format!("{fields}{key}={signature}"),
        };
        headers.push((self.sources[0].0.clone(), value));
        headers
    }
}
