//! Secrets that a provider handed over in a handshake, waiting for an operator.
//!
//! Whoever can reach the endpoint can send one, so none is trusted: it lies in a file of its own below the store, and
//! counts once an operator names that file in the configuration. There are only ever a few of each source.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    config::{
        Source,
        model::{Engine, Store},
    },
    files::{make_directory, write_whole},
    secret::Secret,
    time::Wall,
    verify::encode_hex,
};

/// Different secrets of one source that may wait.
const PER_SOURCE_MAX: usize = 4;
/// Digits of the fingerprint.
const FINGERPRINT_DIGITS: usize = 8;
/// What is kept about a secret beside it.
const ABOUT: &str = "json";

/// The secrets that wait. Without a directory there can be none.
#[derive(Debug)]
pub struct Pending {
    directory: Option<PathBuf>,
    /// One at a time: the bound is on what lies there.
    writing: Mutex<()>,
}

/// A secret that waits; never the secret itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingSecret {
    /// The source that it was sent to.
    pub source: String,
    /// When; RFC 3339 in UTC. `None` if nobody knows any more.
    pub at: Option<String>,
    /// The address that it was sent from, if there was one.
    pub from: Option<String>,
    /// The first digits of its SHA-256, in hex.
    pub fingerprint: String,
    /// Where it lies.
    pub file: PathBuf,
}

/// Why a secret was not kept. A lower-case fragment that says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotKept {
    #[error("engine \"memory\" keeps nothing on disk: use store.engine = \"sqlite\", and register the endpoint again")]
    Memory,
    #[error(
        "{PER_SOURCE_MAX} others wait already in {directory}: name the right one in the `secrets` of the source, delete \
         the others, and register the endpoint again"
    )]
    Full { directory: String },
    #[error("failed to write {file}: {error}")]
    Io { file: String, error: io::Error },
    #[error("keeping it panicked: the log has a line of target `panic`")]
    Panicked,
}

#[derive(Serialize, Deserialize)]
struct About {
    at: String,
    from: Option<String>,
}

impl Pending {
    /// Below this store.
    pub(super) fn new(store: &Store) -> Self {
        let directory = (store.engine == Engine::Sqlite).then(|| store.path.join("pending"));
        Self { directory, writing: Mutex::default() }
    }

    /// Keeps a secret that was sent to a source, durably. The same again is no new one.
    pub(super) fn keep(&self, to: &Source, secret: &Secret, from: Option<IpAddr>, at: Wall) -> Result<(), NotKept> {
        let source = &*to.name;
        let directory = self.directory.as_deref().ok_or(NotKept::Memory)?;
        let fingerprint = fingerprint(secret);
        let file = directory.join(format!("{source}-{fingerprint}"));
        let failed = |error| NotKept::Io { file: file.display().to_string(), error };
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        make_directory(directory).map_err(failed)?;
        match fs::read(&file) {
            Ok(known) if secret.matches(&known) => return Ok(()),
            // Of another secret with the same first digits. Nobody meets one by chance.
            Ok(_) => return Err(NotKept::Full { directory: directory.display().to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        forget_orphans(directory).map_err(failed)?;
        let waiting = self.waiting(|name, known| name == source && is_configured(to, known)).map_err(failed)?;
        if waiting.iter().filter(|other| other.source == source).count() >= PER_SOURCE_MAX {
            return Err(NotKept::Full { directory: directory.display().to_string() });
        }
        let from = from.map(|address| address.to_string());
        let about = About { at: at.rfc3339(), from: from.clone() };
        let about = serde_json::to_vec(&about).map_err(|error| failed(error.into()))?;
        write_whole(directory, &about_of(&file), &about).map_err(failed)?;
        write_whole(directory, &file, secret.expose()).map_err(failed)?;
        let todo = if to.provider.captures() {
            "add secrets = [{ file = … }] to the source if you registered this endpoint just now, else delete the file"
        } else {
            "confirm that at the provider if you registered this endpoint just now, then delete the file"
        };
        let file = file.display().to_string();
        tracing::warn!(source, from, fingerprint, file, todo, "a secret was handed over and waits for you");
        Ok(())
    }

    /// Those that wait, by source. One that is in use waits no more, wherever it lies.
    pub fn waiting(&self, in_use: impl Fn(&str, &Secret) -> bool) -> io::Result<Vec<PendingSecret>> {
        let Some(directory) = self.directory.as_deref() else { return Ok(Vec::new()) };
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let file = entry?.path();
            let name = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('-'));
            let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            let Some((source, fingerprint)) =
                name.filter(|(_, digits)| digits.len() == FINGERPRINT_DIGITS && is_hex(digits))
            else {
                continue;
            };
            match fs::read(&file) {
                Ok(bytes) if !in_use(source, &Secret::new(bytes.as_slice())) => {}
                _ => continue,
            }
            let about = fs::read(about_of(&file)).ok().and_then(|text| serde_json::from_slice::<About>(&text).ok());
            let (at, from) = about.map_or((None, None), |about| (Some(about.at), about.from));
            let (source, fingerprint) = (source.to_owned(), fingerprint.to_owned());
            found.push(PendingSecret { source, at, from, fingerprint, file });
        }
        found.sort_by(|a, b| (&a.source, &a.at, &a.fingerprint).cmp(&(&b.source, &b.at, &b.fingerprint)));
        Ok(found)
    }
}

/// Whether a secret of the source says the same.
pub fn is_configured(source: &Source, secret: &Secret) -> bool {
    let key = source.provider.key_format.decode(secret.expose());
    key.is_ok_and(|key| source.keyring.keys().iter().any(|known| known.key.matches(key.expose())))
}

/// The first digits of the SHA-256 of a secret, in hex.
fn fingerprint(secret: &Secret) -> String {
    let mut digits = encode_hex(&Sha256::digest(secret.expose()));
    digits.truncate(FINGERPRINT_DIGITS);
    digits
}

fn about_of(file: &Path) -> PathBuf {
    file.with_extension(ABOUT)
}

/// An operator deletes secrets, and not what was noted beside them.
fn forget_orphans(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == ABOUT) && !file.with_extension("").exists() {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}
