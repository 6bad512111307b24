//! Bodies at rest: encrypted by the first key of `store.encryption`, decrypted by any of them.
//!
//! XChaCha20-Poly1305. Stored is a random nonce of 24 bytes, the ciphertext, and a tag of 16 bytes. What kind of body it
//! is, the event's id and the key's id are authenticated with it, so that a body moved to another place, or said to be
//! under another key, does not open. Nonces of that length may be drawn at random for as long as a key is in use.

use std::{fmt, sync::Arc};

use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};

use super::StoreError;
use crate::{config::model::EncryptionKey, event::EventId};

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// What a stored body is longer than the body as received.
pub const SEALED_BYTES_MORE: usize = NONCE_BYTES + TAG_BYTES;

/// What a body is of. The numbers are part of what is authenticated: they stay as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An event, as its provider sent it.
    Event = 1,
    /// An upstream's answer to an event, kept for its copies.
    Answer = 2,
}

/// The keys for bodies at rest.
#[derive(Clone, Default)]
pub struct Vault {
    /// The first one seals.
    keys: Vec<(Arc<str>, XChaCha20Poly1305)>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

impl Vault {
    /// The first of these seals, all open. Without any, bodies are stored as they came.
    pub fn new(keys: &[EncryptionKey]) -> Self {
        let cipher = |key: &EncryptionKey| {
            let cipher = XChaCha20Poly1305::new_from_slice(key.key.expose());
            (Arc::clone(&key.id), cipher.expect("the configuration takes keys of 32 bytes only"))
        };
        Self { keys: keys.iter().map(cipher).collect() }
    }

    /// Whether bodies are encrypted.
    pub const fn seals(&self) -> bool {
        !self.keys.is_empty()
    }

    /// What to store for a body, and the id of the key that opens it. `None` without keys.
    pub fn seal(&self, kind: Kind, id: EventId, body: &[u8]) -> Option<(Arc<str>, Vec<u8>)> {
        let (key_id, cipher) = self.keys.first()?;
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let mut stored = Vec::with_capacity(body.len() + SEALED_BYTES_MORE);
        stored.extend_from_slice(&nonce);
        stored.extend_from_slice(body);
        let tag = cipher
            .encrypt_inout_detached(
                &XNonce::from(nonce),
                &context(kind, id, key_id),
                (&mut stored[NONCE_BYTES..]).into(),
            )
            .expect("a body is far below 256 GiB");
        stored.extend_from_slice(&tag);
        Some((Arc::clone(key_id), stored))
    }

    /// The body of what [`Vault::seal`] gave. [`StoreError::KeyMissing`] if the key is not configured, or if it is not the
    /// one that sealed these bytes of this kind for this event: whoever asks has found them as they were written. So two keys that
    /// were configured under each other's ids cost nothing but time. [`StoreError::Damaged`] if they were never sealed.
    pub fn open(&self, kind: Kind, id: EventId, key_id: &str, stored: &[u8]) -> Result<Vec<u8>, StoreError> {
        let known = self.keys.iter().find(|(known, _)| **known == *key_id);
        let (_, cipher) = known.ok_or_else(|| StoreError::KeyMissing(key_id.to_owned()))?;
        let parts = stored.split_first_chunk::<NONCE_BYTES>().and_then(|(nonce, sealed)| {
            let (sealed, tag) = sealed.split_last_chunk::<TAG_BYTES>()?;
            Some((XNonce::from(*nonce), sealed.to_vec(), Tag::from(*tag)))
        });
        let (nonce, mut body, tag) =
            parts.ok_or_else(|| StoreError::Damaged(format!("the body of event {id} is too short to be encrypted")))?;
        cipher
            .decrypt_inout_detached(&nonce, &context(kind, id, key_id), body.as_mut_slice().into(), &tag)
            .map_err(|_| StoreError::KeyMissing(format!("{key_id} (and not with the one that has this id now)")))?;
        Ok(body)
    }
}

/// What is authenticated besides the body: all but the last part have a fixed length, so they cannot run together.
fn context(kind: Kind, id: EventId, key_id: &str) -> Vec<u8> {
    [&[kind as u8], id.as_bytes().as_slice(), key_id.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Kind::Event, *};
    use crate::secret::Secret;

    fn id(n: u8) -> EventId {
        EventId::from_bytes([n; 16])
    }

    fn key(id: &str, byte: u8) -> EncryptionKey {
        EncryptionKey { id: id.into(), key: Secret::new([byte; 32]) }
    }

    #[test]
    fn without_a_key_nothing_is_sealed() {
        assert_eq!(Vault::new(&[]).seal(Event, id(1), b"body"), None);
    }

    #[test]
    fn a_new_key_seals_and_the_old_one_still_opens() {
        let old = Vault::new(&[key("2025", 1)]);
        let (old_key, old_stored) = old.seal(Event, id(1), b"old").unwrap();
        let rotated = Vault::new(&[key("2026", 2), key("2025", 1)]);
        let (new_key, new_stored) = rotated.seal(Event, id(2), b"new").unwrap();
        assert_eq!((&*old_key, &*new_key), ("2025", "2026"));
        assert_eq!(rotated.open(Event, id(1), "2025", &old_stored).as_deref(), Ok(&b"old"[..]));
        assert_eq!(rotated.open(Event, id(2), "2026", &new_stored).as_deref(), Ok(&b"new"[..]));
        assert_eq!(old.open(Event, id(2), "2026", &new_stored), Err(StoreError::KeyMissing("2026".to_owned())));
    }

    #[test]
    fn what_is_not_as_it_was_sealed_does_not_open() {
        let vault = Vault::new(&[key("a", 1), key("b", 1)]);
        let (_, stored) = vault.seal(Event, id(1), b"body").unwrap();
        let opens = |vault: &Vault, id, key_id: &str, stored: &[u8]| match vault.open(Event, id, key_id, stored) {
            Ok(_) => true,
            Err(StoreError::Damaged(_) | StoreError::KeyMissing(_)) => false,
            Err(other) => panic!("{other}"),
        };
        assert!(opens(&vault, id(1), "a", &stored));
        assert!(!opens(&vault, id(2), "a", &stored), "the body of another event");
        assert!(vault.open(Kind::Answer, id(1), "a", &stored).is_err(), "the event for the answer to it");
        assert!(!opens(&vault, id(1), "b", &stored), "the same key by another name");
        assert!(!opens(&Vault::new(&[key("a", 2)]), id(1), "a", &stored), "another key of that name");
        for at in 0..stored.len() {
            let mut flipped = stored.clone();
            flipped[at] ^= 1;
            assert!(!opens(&vault, id(1), "a", &flipped), "byte {at} flipped");
            assert!(!opens(&vault, id(1), "a", &stored[..at]), "cut to {at} bytes");
        }
    }

    #[test]
    fn debug_shows_ids_and_no_key() {
        let vault =
            Vault::new(&[EncryptionKey { id: "2026".into(), key: Secret::new(*b"canary-canary-canary-canary-cana") }]);
        assert_eq!(format!("{vault:?}"), r#"["2026"]"#);
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_shows_nothing(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let vault = Vault::new(&[key("a", 7)]);
            let (key_id, stored) = vault.seal(Event, id(3), &body).unwrap();
            prop_assert_eq!(stored.len(), body.len() + SEALED_BYTES_MORE);
            prop_assert!(body.len() < 8 || !stored.windows(body.len()).any(|window| window == body));
            prop_assert_ne!(&vault.seal(Event, id(3), &body).unwrap().1, &stored, "each sealing has its own nonce");
            prop_assert_eq!(vault.open(Event, id(3), &key_id, &stored), Ok(body));
        }
    }
}
