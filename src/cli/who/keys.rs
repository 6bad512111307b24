//! What it is signed or verified with: secrets, public keys, and private keys for trying out.

use std::{fs, io::Write as _, path::PathBuf, str::FromStr};

use anyhow::{Context as _, anyhow, bail, ensure};

use super::{Known, Origin};
use crate::{
    preset::Provider,
    secret::Secret,
    time::Wall,
    verify::{
        KeyError, KeyFormat, KeyKind, SecretKey, SigningKey,
        public::{self, PrivateKey, PublicFormat},
    },
};

/// Where secrets are, for commands that take them.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(in crate::cli) struct SecretArgs {
    /// A file with the secret; one trailing newline is not part of it.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) secret_file: Vec<PathBuf>,
    /// An environment variable with the secret.
    #[arg(long, value_name = "NAME")]
    secret_env: Vec<String>,
    /// The secret itself. Careful: others on this machine see it in the list of processes, and your shell keeps
    /// it in its history.
    #[arg(long, value_name = "SECRET")]
    secret: Vec<TypedSecret>,
}

/// Private keys, for providers whose webhooks are checked with a public key.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(in crate::cli) struct PrivateArgs {
    /// The private key in PEM (PKCS#8), for a provider whose webhooks are checked with a public key.
    #[arg(long, value_name = "FILE", group = "SecretArgs")]
    private_key: Option<PathBuf>,
    /// Make such a key: the private half is written to FILE, which must not exist; the public half is shown, to be put
    /// into the secrets of the source.
    #[arg(long, value_name = "FILE", group = "SecretArgs", conflicts_with = "private_key")]
    new_key: Option<PathBuf>,
}

/// A secret from the command line; `Debug` shows nothing of it.
#[derive(Clone, Debug)]
struct TypedSecret(Secret);

impl FromStr for TypedSecret {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(Secret::new(text)))
    }
}

impl SecretArgs {
    fn is_empty(&self) -> bool {
        self.secret_file.is_empty() && self.secret_env.is_empty() && self.secret.is_empty()
    }

    /// Who signs with a private key has no secret to give.
    pub(super) fn ensure_sender(&self, provider: &Provider) -> anyhow::Result<()> {
        let is_public = matches!(provider.scheme.key_kind(), Some(KeyKind::Public(_)));
        ensure!(
            !is_public || self.is_empty(),
            "{} signs with a private key, and shares no secret: give --private-key FILE, or --new-key FILE to make one",
            provider.title
        );
        Ok(())
    }

    /// All secrets, decoded, each under the name of where it is from.
    pub(super) fn load(&self, format: KeyFormat) -> anyhow::Result<Vec<(Origin, SecretKey)>> {
        let files = self.secret_file.iter().map(|path| {
            let text = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
            Ok((Origin::File(path.clone()), Secret::new(text)))
        });
        let variables = self.secret_env.iter().map(|name| {
            let text = std::env::var(name).with_context(|| format!("failed to read the variable {name}"))?;
            Ok((Origin::Env(name.clone()), Secret::new(text)))
        });
        let typed = self.secret.iter().map(|secret| Ok((Origin::Typed, secret.0.clone())));
        let all = files.chain(variables).chain(typed);
        all.map(|found: anyhow::Result<(Origin, Secret)>| {
            let (origin, text) = found?;
            let text = secret_text(text.expose()).with_context(|| format!("failed to use {origin}"))?;
            let key = format.decode(text).map_err(|error| {
                let advice = match error {
                    KeyError::Public(error) => error.advice(),
                    _ => "copy it whole, as the provider shows it",
                };
                anyhow!("failed to use {origin}: {error}; {advice}")
            })?;
            let id = origin.to_string().into();
            Ok((origin, SecretKey { id, key, not_before: None, expires_at: None }))
        })
        .collect()
    }
}

/// The secret in a file's text: one trailing newline is an editor's, a byte order mark is a mistake.
fn secret_text(text: &[u8]) -> anyhow::Result<&[u8]> {
    ensure!(!text.starts_with(b"\xef\xbb\xbf"), "it begins with a byte order mark: save it as UTF-8 without one");
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    Ok(text.strip_suffix(b"\r").unwrap_or(text))
}

/// What a sender signs with.
#[derive(Debug)]
pub(in crate::cli) enum Key {
    Shared(Origin, Secret),
    Private(PrivateKey),
}

impl Key {
    pub(in crate::cli) const fn signing(&self) -> SigningKey<'_> {
        match self {
            Self::Shared(_, secret) => SigningKey::Shared(secret),
            Self::Private(key) => SigningKey::Private(key),
        }
    }
}

impl PrivateArgs {
    /// The one key to sign with: of a source, the first secret that is live.
    pub(in crate::cli) fn key(&self, known: &Known, given: &SecretArgs, now: Wall) -> anyhow::Result<Key> {
        let provider = &known.provider;
        let is_private = self.private_key.is_some() || self.new_key.is_some();
        let Some(KeyKind::Public(kind)) = provider.scheme.key_kind() else {
            ensure!(
                !is_private,
                "{} and its receivers share a secret: give that by --secret-file, and no private key",
                provider.title
            );
            return shared(known, given, now);
        };
        match (&self.private_key, &self.new_key) {
            (Some(path), _) => {
                let text = Secret::new(fs::read(path).with_context(|| format!("failed to read {}", path.display()))?);
                let key = PrivateKey::parse(text.expose())
                    .map_err(|error| anyhow!("failed to use {}: {error}; {}", path.display(), error.advice()))?;
                ensure!(
                    key.kind() == kind,
                    "failed to use {}: it is {}, and {} signs with {kind}; --new-key FILE makes one",
                    path.display(),
                    key.kind(),
                    provider.title
                );
                Ok(Key::Private(key))
            }
            (None, Some(path)) => Ok(Key::Private(make(path, provider, kind)?)),
            (None, None) => bail!(
                "the source knows the public key of {} only, and signing needs the private one: give --private-key FILE, \
                 or --new-key FILE to make one",
                provider.title
            ),
        }
    }
}

fn shared(known: &Known, given: &SecretArgs, now: Wall) -> anyhow::Result<Key> {
    if !known.provider.scheme.needs_secret() {
        return Ok(Key::Shared(Origin::Typed, Secret::new("")));
    }
    ensure!(given.is_empty() || known.secrets.len() == 1, "give one secret: a sender signs with one");
    let live = known.secrets.iter().find(|(_, key)| key.is_live(now));
    let (origin, key) = live.context("the source has no secret that is live now: give one by --secret-file")?;
    Ok(Key::Shared(origin.clone(), key.key.clone()))
}

/// A new key: private in the file, public on standard error.
fn make(path: &PathBuf, provider: &Provider, kind: public::KeyKind) -> anyhow::Result<PrivateKey> {
    let key = PrivateKey::generate(kind, &mut rand::rng());
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file =
        options.open(path).with_context(|| format!("failed to write a new private key to {}", path.display()))?;
    file.write_all(key.to_pem().as_bytes()).with_context(|| format!("failed to write {}", path.display()))?;
    let format = provider.key_format.name();
    let known = PublicFormat::ALL.iter().find(|(name, _)| *name == format).map(|(_, format)| *format);
    let public =
        known.and_then(|format| key.public().text(format)).context("this provider's key format is not public")?;
    eprintln!(
        "The private key is in {}: from now on, give it as --private-key.\n\
         Put this into the source's secrets, as a file of its own (it is the public key, as {format}):\n{}",
        path.display(),
        public.trim_end()
    );
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_loses_one_newline_and_refuses_a_byte_order_mark() {
        for (text, expected) in [("abc\n", "abc"), ("abc\r\n", "abc"), ("abc\n\n", "abc\n"), ("abc", "abc")] {
            assert_eq!(secret_text(text.as_bytes()).ok(), Some(expected.as_bytes()));
        }
        assert!(secret_text("\u{feff}abc".as_bytes()).is_err());
    }

    #[test]
    fn a_typed_secret_shows_in_no_debug() {
        let args =
            SecretArgs { secret_file: vec![], secret_env: vec![], secret: vec!["canary".parse().expect("text")] };
        assert!(!format!("{args:?}").contains("canary"));
        let loaded = args.load(KeyFormat::Utf8).expect("a secret");
        assert_eq!((loaded.len(), &*loaded[0].1.id), (1, "--secret"));
    }
}
