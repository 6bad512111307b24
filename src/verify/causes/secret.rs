//! Other secrets: of the source, of others, and the same one read in another way.

use zeroize::Zeroizing;

use super::{
    super::{KeyKind, encode_hex},
    CauseKind, KeyFormat, Keyring, Lab, SecretKey, timeless,
};
use crate::{secret::Secret, verify::Encoding};

/// Secrets of the source that do not count now and are tried.
const KEYS_NOT_LIVE_MAX: usize = 8;
/// Secrets of other sources that are tried.
const OTHERS_MAX: usize = 16;
const PREFIX: &[u8] = b"whsec_";

impl Lab<'_> {
    /// A secret of the source that does not count now.
    pub(super) fn not_live(&mut self, body: &[u8]) -> Option<CauseKind> {
        let (question, now) = (self.question, self.question.now);
        for key in question.keyring.keys().iter().filter(|key| !key.is_live(now)).take(KEYS_NOT_LIVE_MAX) {
            if self.with_key(timeless(key.clone()), body) {
                let expired = key.expires_at.is_some_and(|until| until <= now);
                return Some(CauseKind::SecretNotLive { id: key.id.clone(), expired });
            }
        }
        None
    }

    /// A secret of another source.
    pub(super) fn of_others(&mut self, body: &[u8]) -> Option<CauseKind> {
        let others = self.question.others.iter();
        let keys = others.flat_map(|(name, ring)| ring.keys().iter().map(move |key| (*name, key)));
        for (name, key) in keys.take(OTHERS_MAX) {
            if self.with_key(timeless(key.clone()), body) {
                return Some(CauseKind::SecretOfOther { source: name.to_owned() });
            }
        }
        None
    }

    /// The secret with white space at its end, or without what it has.
    pub(super) fn space(&mut self, body: &[u8]) -> Option<CauseKind> {
        for key in self.shared() {
            let text = key.key.expose();
            let trimmed = text.trim_ascii();
            if trimmed.len() < text.len() && self.with_bytes(&key, trimmed, body) {
                return Some(CauseKind::SecretSpace { id: key.id, here: true });
            }
            for more in [&b"\n"[..], b"\r\n", b" "] {
                let more = Zeroizing::new([text, more].concat());
                if self.with_bytes(&key, &more, body) {
                    return Some(CauseKind::SecretSpace { id: key.id, here: false });
                }
            }
        }
        None
    }

    /// The text of the secret read in another way. Which text that was is not known any more: it is one of those that
    /// lead to the key.
    pub(super) fn other_encoding(&mut self, body: &[u8]) -> Option<CauseKind> {
        for key in self.shared() {
            let bytes = key.key.expose();
            let base64 = Zeroizing::new(Encoding::Base64.encode(bytes).into_bytes());
            let hex = Zeroizing::new(encode_hex(bytes).into_bytes());
            let bare = bytes.strip_prefix(PREFIX);
            if bare.is_some_and(|bare| self.with_bytes(&key, bare, body)) {
                return Some(CauseKind::SecretPrefix { id: key.id, wanted: false });
            }
            let with_prefix = |text: &[u8]| Zeroizing::new([PREFIX, text].concat());
            for text in [with_prefix(bytes), with_prefix(&base64)] {
                if bare.is_none() && self.with_bytes(&key, &text, body) {
                    return Some(CauseKind::SecretPrefix { id: key.id, wanted: true });
                }
            }
            let unpadded = base64.strip_suffix(b"=").map(|text| text.strip_suffix(b"=").unwrap_or(text));
            for text in [bytes, &base64, &hex].into_iter().chain(unpadded) {
                for format in [KeyFormat::Utf8, KeyFormat::Base64, KeyFormat::Hex] {
                    let Ok(read) = format.decode(text.strip_prefix(PREFIX).unwrap_or(text)) else { continue };
                    if read.expose() != bytes && self.with_bytes(&key, read.expose(), body) {
                        let is_whsec = format == KeyFormat::Base64 && text.starts_with(PREFIX);
                        let format = if is_whsec { KeyFormat::Whsec } else { format };
                        return Some(CauseKind::SecretEncoding { id: key.id, format });
                    }
                }
            }
        }
        None
    }

    /// The live secrets, where they are no public keys.
    fn shared(&self) -> Vec<SecretKey> {
        let is_public = self.question.scheme.key_kind().is_some_and(|kind| kind != KeyKind::Shared);
        if is_public { Vec::new() } else { self.live.clone() }
    }

    fn with_bytes(&mut self, key: &SecretKey, bytes: &[u8], body: &[u8]) -> bool {
        !bytes.is_empty() && self.with_key(SecretKey { key: Secret::new(bytes), ..key.clone() }, body)
    }

    fn with_key(&mut self, key: SecretKey, body: &[u8]) -> bool {
        let question = self.question;
        let ring = Keyring::new(vec![key], question.scheme);
        ring.is_ok_and(|ring| self.verifies(question.scheme, question.seen, &ring, body).is_some())
    }
}
