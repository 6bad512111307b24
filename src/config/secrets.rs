//! Secrets: `{ file | env | credential | value, id, not_before, expires_at, encoding, allow_short }`.

use std::{path::PathBuf, sync::Arc};

use zeroize::Zeroizing;

use super::load::{Reader, SecretNote, Secrets, read_text};
use crate::{
    document::{At, Place, Section, Value},
    secret::Secret,
    time::Wall,
    verify::{KeyFormat, SecretKey},
};

/// Fewer bytes can be guessed.
const SECRET_BYTES_MIN: usize = 16;
/// Every live secret is tried against every signature of a request.
const SECRETS_MAX: usize = 8;
const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;
/// What a secret that is not inline is called where it is compared with what it was.
pub(super) const CONTENT: &str = "content";
const ONE_OF: &str = "write one of { file = \"…\" }, { env = \"…\" }, { credential = \"…\" } or { value = \"…\" }";

/// A secret as read, not yet decoded.
#[derive(Debug)]
pub(super) struct SecretText {
    pub(super) place: Place,
    /// `None`: not there, which was reported; or not looked for.
    text: Option<Zeroizing<String>>,
    pub(super) note: SecretNote,
    encoding: Option<KeyFormat>,
    allow_short: bool,
}

impl SecretText {
    /// The key bytes, held against the rules for length and for example values.
    pub(super) fn decode(&self, reader: &Reader<'_>, format: KeyFormat, allow_short: bool) -> Option<Secret> {
        let text = self.text.as_ref()?;
        if text.is_empty() {
            reader.problems.error(&self.place, "secret is empty", "give it the secret that the provider shows");
            return None;
        }
        if text.to_ascii_lowercase().contains("change-me") {
            reader.change_me.borrow_mut().push(self.place.clone());
        }
        let secret = self
            .encoding
            .unwrap_or(format)
            .decode(text.as_bytes())
            .map_err(|error| reader.problems.error(&self.place, error.to_string(), error.advice()))
            .ok()?;
        let is_public = self.encoding.unwrap_or(format).is_public();
        if secret.len() < SECRET_BYTES_MIN && !self.allow_short && !allow_short && !is_public {
            reader.problems.error(
                &self.place,
                format!("secret is short: {} bytes, and fewer than {SECRET_BYTES_MIN} can be guessed", secret.len()),
                "use a longer one; if the provider gives no longer one, add allow_short = true",
            );
        }
        Some(secret)
    }
    /// A key of exactly 32 bytes, in hexadecimal or base64 unless its encoding is said.
    pub(super) fn key_of_32_bytes(&self, reader: &Reader<'_>) -> Option<Secret> {
        const KEY_BYTES: usize = 32;
        let text = self.text.as_ref()?;
        let is_hex = text.len() == 2 * KEY_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let format = self.encoding.unwrap_or(if is_hex { KeyFormat::Hex } else { KeyFormat::Base64 });
        let help = "make one with `openssl rand -base64 32`, and keep it apart from backups of the store";
        let key = match format.decode(text.as_bytes()) {
            Ok(key) if key.len() == KEY_BYTES => key,
            Ok(key) => {
                let message = format!("a key for bodies has {KEY_BYTES} bytes, and this one {}", key.len());
                reader.problems.error(&self.place, message, help);
                return None;
            }
            Err(_) => {
                let message = format!("a key for bodies is {KEY_BYTES} bytes in base64 or hexadecimal");
                reader.problems.error(&self.place, message, help);
                return None;
            }
        };
        let is_example = |bytes: &[u8]| bytes.windows(9).any(|part| part.eq_ignore_ascii_case(b"change-me"));
        if is_example(key.expose()) || is_example(text.as_bytes()) {
            reader.change_me.borrow_mut().push(self.place.clone());
        }
        Some(key)
    }
    /// As [`Self::decode`], for a credential that is compared as text.
    pub(super) fn credential(
        &self,
        reader: &Reader<'_>,
        allow_short: bool,
        fits: impl Fn(&str) -> Result<(), &'static str>,
    ) -> Option<Secret> {
        let secret = self.decode(reader, KeyFormat::Utf8, allow_short)?;
        if let Err(why) = fits(self.text.as_ref()?) {
            reader.problems.error(
                &self.place,
                format!("this secret can never match: {why}"),
                "correct it here and at the provider",
            );
        }
        Some(secret)
    }
    /// The entry of a keyring.
    pub(super) fn key(&self, key: Secret) -> SecretKey {
        SecretKey { id: self.note.id.clone(), key, not_before: self.note.not_before, expires_at: self.note.expires_at }
    }
}

/// Reads `secrets = [ … ]`.
pub(super) fn read_list(reader: &Reader<'_>, section: &mut Section<'_>) -> Vec<SecretText> {
    let Some(value) = section.value("secrets") else { return Vec::new() };
    let place = value.place().clone();
    if value.is_table() || value.is_text() {
        value.error("`secrets` must be a list of tables", "write secrets = [{ file = \"…\" }]");
        return Vec::new();
    }
    let mut secrets: Vec<SecretText> = Vec::new();
    let items = value.list();
    if items.as_ref().is_some_and(Vec::is_empty) {
        reader.problems.error(&place, "`secrets` is empty: nothing would ever verify", ONE_OF);
    }
    for (i, item) in items.unwrap_or_default().into_iter().enumerate() {
        let Some(secret) = read(reader, item, &(i + 1).to_string()) else { continue };
        if secrets.iter().any(|other| other.note.id == secret.note.id) {
            reader.problems.error(
                &secret.place,
                format!("two secrets have the id \"{}\"", secret.note.id),
                "give each its own: logs and metrics tell them apart by it",
            );
        }
        secrets.push(secret);
    }
    if secrets.len() > SECRETS_MAX {
        reader.problems.error(
            &place,
            format!("{} secrets: at most {SECRETS_MAX} are tried", secrets.len()),
            "take out the expired ones",
        );
    }
    let is_live = |note: &SecretNote| {
        note.not_before.is_none_or(|from| from <= reader.options.now) && !has_expired(note, reader.options.now)
    };
    if !secrets.is_empty() && !secrets.iter().any(|secret| is_live(&secret.note)) {
        reader.problems.warn(&place, "no secret of this source is live now", "until one is, everything is refused");
    }
    secrets
}

fn has_expired(note: &SecretNote, now: Wall) -> bool {
    note.expires_at.is_some_and(|until| until <= now)
}

/// Reads one secret table.
pub(super) fn read(reader: &Reader<'_>, value: Value<'_>, default_id: &str) -> Option<SecretText> {
    if !value.is_table() {
        value.error(format!("`{}` must say where the secret is", value.path()), ONE_OF);
        return None;
    }
    let mut section = value.section()?;
    let secret = read_open(reader, &mut section, default_id);
    section.finish();
    secret
}

/// As [`read`], leaving keys of its own to the caller.
pub(super) fn read_open(reader: &Reader<'_>, section: &mut Section<'_>, default_id: &str) -> Option<SecretText> {
    let problems = reader.problems;
    let place = section.place().clone();
    let file = section.read::<PathBuf>("file");
    let env = section.read::<String>("env");
    let credential = section.read::<String>("credential");
    let inline = section.read::<String>("value").map(|at| At { value: Zeroizing::new(at.value), place: at.place });
    let id = section.read::<String>("id");
    let not_before = section.read::<Wall>("not_before");
    let expires_at = section.read::<Wall>("expires_at");
    let encoding = section.choice("encoding", &KeyFormat::ALL).map(|at| at.value);
    let allow_short = section.read_or("allow_short", false);

    if let Some(id) = &id {
        let fits = (1..=64).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if !fits {
            problems.error(
                &id.place,
                "`id` must be 1 to 64 letters, digits, `-`, `_` or `.`",
                "it goes into logs and metrics",
            );
        }
    }
    if let Some((from, until)) = not_before.as_ref().zip(expires_at.as_ref())
        && from.value >= until.value
    {
        problems.error(&until.place, "`expires_at` is not after `not_before`", "this secret would never be used");
    }
    if let Some(at) = expires_at.as_ref().filter(|at| at.value <= reader.options.now) {
        problems.warn(&at.place, "this secret has expired", "take it out, or move `expires_at`");
    }
    let sources = usize::from(file.is_some())
        + usize::from(env.is_some())
        + usize::from(credential.is_some())
        + usize::from(inline.is_some());
    if sources != 1 {
        // A source of the wrong type was reported where it stands.
        let what = if sources == 0 { "a secret must say where it is" } else { "a secret has one place only" };
        problems.error(&place, what, ONE_OF);
    }

    let skip = reader.options.secrets == Secrets::Skip;
    let (origin, text) = if let Some(at) = inline {
        problems.warn(
            &at.place,
            "inline secret: whoever may read this file has it",
            "put it into a file of its own and write { file = \"…\" }",
        );
        ("inline".to_owned(), Some(at.value))
    } else if let Some(at) = file {
        let text = if skip { None } else { read_file(reader, &at.place, &reader.resolve(&at.place, &at.value)) };
        (format!("file {}", at.value.display()), text)
    } else if let Some(at) = env {
        let text = if skip { None } else { read_env(reader, &at) };
        (format!("env {}", at.value), text)
    } else if let Some(at) = credential {
        let text = if skip { None } else { read_credential(reader, &at) };
        (format!("credential {}", at.value), text)
    } else {
        return None;
    };
    if let Some(text) = text.as_ref().filter(|_| origin != "inline") {
        let key = format!("{}.{CONTENT}", key_of(section, id.as_deref().map(String::as_str)));
        reader.written.borrow_mut().add_hidden(key, Secret::new(text.as_bytes()));
    }
    let note = SecretNote {
        id: id.map_or_else(|| default_id.into(), |at| Arc::from(at.value)),
        origin,
        not_before: not_before.map(|at| at.value),
        expires_at: expires_at.map(|at| at.value),
    };
    Some(SecretText { place, text, note, encoding, allow_short })
}

/// The name under which [`Written`] compares the table: an entry of a list by its id, or by its place from 1.
///
/// [`Written`]: crate::document::Written
fn key_of(section: &Section<'_>, id: Option<&str>) -> String {
    let (path, name) = match section.path().strip_suffix(']').and_then(|path| path.rsplit_once('[')) {
        Some((path, place)) => (path, place.parse().map_or(0, |place: usize| place + 1)),
        None => return section.path().to_owned(),
    };
    format!("{path}[{}]", id.map_or_else(|| name.to_string(), str::to_owned))
}

fn read_file(reader: &Reader<'_>, place: &Place, path: &std::path::Path) -> Option<Zeroizing<String>> {
    reader.files.borrow_mut().named.push(path.to_owned());
    let problems = reader.problems;
    let text = match read_text(path, SECRET_FILE_BYTES_MAX) {
        Ok(text) => Zeroizing::new(text),
        Err(error) => {
            problems.error(
                place,
                format!("failed to read secret file {}: {error}", path.display()),
                "paths are relative to the configuration file; the user that runs Hookward must be able to read it",
            );
            return None;
        }
    };
    if text.starts_with('\u{feff}') {
        problems.error(
            place,
            format!("secret file {} begins with a byte order mark", path.display()),
            "save it without one (\"UTF-8\", not \"UTF-8 with BOM\")",
        );
        return None;
    }
    let stripped = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    Some(Zeroizing::new(stripped.to_owned()))
}

fn read_env(reader: &Reader<'_>, name: &At<String>) -> Option<Zeroizing<String>> {
    let found = reader.options.environment.get(name).map(Zeroizing::new);
    if found.is_none() {
        reader.problems.error(
            &name.place,
            format!("environment variable {} is not set", name.value),
            "set it for the process that runs Hookward, or check with --no-secrets",
        );
    }
    found
}

fn read_credential(reader: &Reader<'_>, name: &At<String>) -> Option<Zeroizing<String>> {
    if name.contains('/') || name.is_empty() || name.starts_with('.') {
        reader.problems.error(
            &name.place,
            "`credential` must be the name of a credential, not a path",
            "the name before the `:` in LoadCredential=",
        );
        return None;
    }
    let Some(directory) = reader.options.environment.get("CREDENTIALS_DIRECTORY") else {
        reader.problems.error(
            &name.place,
            format!("credential \"{}\": $CREDENTIALS_DIRECTORY is not set", name.value),
            format!("systemd sets it where the unit says LoadCredential={}:/path/to/file", name.value),
        );
        return None;
    };
    read_file(reader, &name.place, &PathBuf::from(directory).join(&name.value))
}
