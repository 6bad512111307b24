//! The one place where the configuration meets presets and schemes.
//!
//! STAND-IN: the bodies here know the ten presets' facts by name until `crate::preset` and `crate::verify` do.
//! Everything else in `config` goes through these functions only.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::HeaderName;

use crate::{
    document::Section,
    preset::{Evidence, EvidenceKind, Items, OnMismatch, OnStale, Provider, Sender},
    secret::Secret,
    verify::{EventKey, KeyFormat, KeyPart, Scheme, Tolerance},
};

/// Where a credential stands that is compared, not computed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum CredentialPlace {
    /// The whole value of a header.
    Header(HeaderName),
    /// `Authorization: Basic …`; the secret is `user:password`.
    Basic,
    /// The `{token}` segment of the source's path.
    Token,
}

/// What the rules need to know about a provider's scheme.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Whether it signs anything; a credential is not a signature.
    pub(super) signed: bool,
    /// Whether it signs a time.
    pub(super) timed: bool,
    /// The place of the credential that the provider itself sends, if it signs nothing.
    pub(super) credential: Option<CredentialPlace>,
    /// Algorithm and headers, for people.
    pub(super) description: String,
}

/// The preset of that name.
pub(super) fn find_provider(name: &str) -> Option<Arc<Provider>> {
    stand_in(name).map(Arc::new)
}

/// The names of all presets, sorted.
pub(super) fn provider_names() -> Vec<String> {
    STAND_INS.iter().map(|(name, ..)| (*name).to_owned()).collect()
}

/// A `[providers.NAME]` of the user's own; reports what is wrong with it.
pub(super) fn read_provider(mut section: Section<'_>, name: &str) -> Option<Provider> {
    section.entries();
    stand_in("github").map(|provider| Provider { name: name.into(), title: name.to_owned(), ..provider })
}

/// The scheme of a guard.
pub(super) fn guard_scheme(place: &CredentialPlace) -> Scheme {
    let _ = place;
    Scheme {}
}

/// The scheme that proves nothing: for an address list, or `accept_unverified`.
pub(super) fn open_scheme() -> Scheme {
    Scheme {}
}

/// What is known about the provider's scheme.
pub(super) fn facts(provider: &Provider) -> Facts {
    let found = STAND_INS.iter().find(|(name, ..)| **name == *provider.name);
    let (_, scheme, _, _) = found.unwrap_or(&STAND_INS[1]);
    let timed = provider.tolerance.is_some();
    let signed = scheme.starts_with("hmac");
    Facts {
        signed,
        timed,
        credential: (*provider.name == *"gains").then_some(CredentialPlace::Header(http::header::AUTHORIZATION)),
        description: (*scheme).to_owned(),
    }
}

/// Whether a header is inside the signed content.
pub(super) fn signs_header(provider: &Provider, header: &HeaderName) -> bool {
    &*provider.name == "standard-webhooks" && header == "webhook-id"
}

/// The key formats, by the name they have in a configuration.
pub(super) const KEY_FORMATS: [(&str, KeyFormat); 4] =
    [("utf8", KeyFormat::Utf8), ("base64", KeyFormat::Base64), ("whsec", KeyFormat::Whsec), ("hex", KeyFormat::Hex)];

/// Key bytes from the text of a secret, or why not.
pub(super) fn decode_key(format: KeyFormat, text: &str) -> Result<Secret, &'static str> {
    use base64ct::{Base64Unpadded, Encoding as _};
    let base64 = |text: &str| Base64Unpadded::decode_vec(text.trim_end_matches('='));
    let bytes = match format {
        KeyFormat::Utf8 => Ok(text.as_bytes().to_vec()),
        KeyFormat::Base64 => base64(text).map_err(|_| "the secret is not valid base64"),
        KeyFormat::Whsec => {
            base64(text.strip_prefix("whsec_").unwrap_or(text)).map_err(|_| "the secret is not valid base64")
        }
        KeyFormat::Hex => Err("the secret is not valid hexadecimal"),
    };
    bytes.map(Secret::new)
}

/// Whether a text is a JSON pointer as keys may use it.
pub(super) fn is_pointer(text: &str) -> bool {
    text.starts_with('/') && text.len() <= 256 && text.split('~').skip(1).all(|after| after.starts_with(['0', '1']))
}

/// Name, scheme, tolerance in seconds past and future (0: untimed), deadline in seconds.
const STAND_INS: [(&str, &str, (u64, u64), u64); 10] = [
    ("gains", "credential in authorization", (0, 0), 90),
    ("github", "hmac-sha256 in x-hub-signature-256", (0, 0), 10),
    ("mobility-work", "hmac-sha256 in x-mw-signature", (3600, 300), 5),
    ("partssource", "hmac-sha256 in x-ps-signature, x-ps-signature-previous", (300, 300), 30),
    ("price2b", "hmac-sha256 in x-price2b-signature", (27 * 3600, 300), 5),
    ("shopify", "hmac-sha256 in x-shopify-hmac-sha256", (0, 0), 5),
    ("slack", "hmac-sha256 in x-slack-signature", (300, 300), 3),
    ("sourcehub", "none", (0, 0), 5),
    ("standard-webhooks", "hmac-sha256 in webhook-signature", (300, 300), 15),
    ("stripe", "hmac-sha256 in stripe-signature", (300, 300), 20),
];

fn stand_in(name: &str) -> Option<Provider> {
    let (name, _, (past, future), deadline) = *STAND_INS.iter().find(|(known, ..)| *known == name)?;
    let json = |pointer: &str| EventKey::Parts(vec![KeyPart::Json(pointer.to_owned())]);
    Some(Provider {
        name: name.into(),
        title: name.to_owned(),
        scheme: Scheme {},
        key_format: if name == "standard-webhooks" { KeyFormat::Whsec } else { KeyFormat::Utf8 },
        tolerance: (past > 0)
            .then(|| Tolerance { past: Duration::from_secs(past), future: Duration::from_secs(future) }),
        event_key: match name {
            "price2b" | "stripe" => json("/id"),
            "standard-webhooks" => EventKey::Parts(vec![KeyPart::Header(HeaderName::from_static("webhook-id"))]),
            _ => EventKey::Body,
        },
        event_type: None,
        attempt_id: None,
        handshakes: Vec::new(),
        items: (name == "gains")
            .then(|| Items { each: "/Data".into(), key: vec!["/DataType".into(), "/TrackingNumber".into()] }),
        sender: Sender {
            deadline: Duration::from_secs(deadline),
            retry_span: match name {
                "partssource" => Some(Duration::from_mins(20 * 60 + 42)),
                "price2b" => Some(Duration::from_mins(26 * 60 + 36)),
                "sourcehub" => Some(Duration::from_hours(30)),
                "standard-webhooks" => Some(Duration::from_hours(28)),
                "stripe" => Some(Duration::from_hours(72)),
                _ => None,
            },
            retries: None,
            drops: match name {
                "partssource" => BTreeSet::from([400, 401, 403, 404, 410]),
                _ => BTreeSet::new(),
            },
            disables_after: (name == "price2b").then_some(10),
            ack_status: (name == "mobility-work").then_some(200),
        },
        on_stale: if name == "price2b" { OnStale::Hold } else { OnStale::Reject },
        on_mismatch: OnMismatch::Reject,
        body_bytes_max: (name == "github").then_some(25 << 20),
        evidence: Evidence {
            kind: if name == "shopify" { EvidenceKind::SecondHand } else { EvidenceKind::VendorDoc },
            place: "the provider's page".to_owned(),
        },
        unconfirmed: if name == "partssource" { vec!["The key is the text as shown.".to_owned()] } else { Vec::new() },
        vectors: Vec::new(),
    })
}
