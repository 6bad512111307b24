//! `store.encryption`: keys for bodies at rest.

use std::sync::Arc;

use super::{
    load::{Reader, Secrets},
    model::EncryptionKey,
    secrets,
};
use crate::{
    document::{Problems, Section, Value},
    secret::Secret,
};

/// Keys in rotation; an older one has no bodies left once their retention is over.
const KEYS_MAX: usize = 16;
const HELP: &str =
    "write encryption = [{ file = \"store.key\", id = \"2026-11\" }] with what `openssl rand -base64 32` prints";

/// The keys, the one that encrypts first.
pub(super) fn read(reader: &Reader<'_>, section: &mut Section<'_>) -> Vec<EncryptionKey> {
    let Some(value) = section.value("encryption") else { return Vec::new() };
    let seen = value.clone();
    if !value.is_list() {
        value.error("`store.encryption` must be a list of tables", HELP);
        return Vec::new();
    }
    let items = value.list().unwrap_or_default();
    if items.is_empty() || items.len() > KEYS_MAX {
        let message = format!("`store.encryption` must have 1 to {KEYS_MAX} keys");
        seen.error(message, "take it out, and bodies are stored as they came; or add a key");
    }
    let is_only = items.len() == 1;
    let mut keys: Vec<EncryptionKey> = Vec::new();
    for item in items {
        let place = item.place().clone();
        let Some(key) = read_key(reader, item, is_only) else { continue };
        if keys.iter().any(|other| other.id == key.id) {
            let help = "give each its own: it is stored beside what the key has encrypted";
            reader.problems.error(&place, format!("two keys have the id \"{}\"", key.id), help);
        }
        keys.push(key);
    }
    keys
}

fn read_key(reader: &Reader<'_>, value: Value<'_>, is_only: bool) -> Option<EncryptionKey> {
    if !value.is_table() {
        value.error("a key of `store.encryption` must say where it is", HELP);
        return None;
    }
    let mut section = value.section()?;
    let problems = reader.problems;
    if !is_only && !section.has("id") {
        let help = "add id = \"…\"; a key that was the only one and had none has the id \"1\"";
        problems.error(section.place(), "of several keys each needs an `id`", help);
    }
    refuse_what_a_key_has_not(problems, &section);
    let text = secrets::read_open(reader, &mut section, "1");
    section.finish();
    let text = text?;
    // Not there, because nobody looked: what is said about the configuration still names it.
    let key = match text.key_of_32_bytes(reader) {
        None if reader.options.secrets == Secrets::Skip => Secret::new(Vec::new()),
        key => key?,
    };
    Some(EncryptionKey { id: Arc::clone(&text.note.id), key })
}

/// The life of a key ends with the last body that it has encrypted, not at a date.
fn refuse_what_a_key_has_not(problems: &Problems, section: &Section<'_>) {
    for key in ["not_before", "expires_at", "allow_short"] {
        if let Some(place) = section.peek_place(key) {
            let help = "take it out: the first key encrypts, all of them decrypt, and each has 32 bytes";
            problems.error(&place, format!("a key of `store.encryption` has no `{key}`"), help);
        }
    }
}
