//! `hookward sign`.

use std::{
    fmt,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use serde_json::json;

use super::providers;
use crate::{
    preset::Provider,
    secret::Secret,
    time::{Clock, Wall},
    verify::{CredentialPlace, KeyFormat, SecretKey, SignRequest, SigningKey, encode_hex},
};

const EXAMPLES: &str = "Examples:
  hookward sign -p partssource --secret-file secrets/partssource -b order.json
  hookward sign -p stripe --secret-env STRIPE_SECRET --json
  sh -c \"$(hookward sign -p slack --secret-file secrets/slack)\"      signs and sends

Without --body a sample of the provider is signed. A secret is never printed: where the provider \
shows it as it is, the command reads it from where you keep it. The signed time is now, so run the \
command soon: a provider's tolerance is often five minutes.";

/// Print a correctly signed request of any provider, as curl or JSON.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// As which provider (see `hookward providers`).
    #[arg(short, long)]
    provider: String,
    #[command(flatten)]
    secret: SecretArgs,
    /// The exact body: a file, or - for standard input.
    #[arg(short, long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Where the request goes; {token} in it stands for the secret, for providers whose proof is a part of the
    /// path [default: the source of that name at 127.0.0.1:8080].
    #[arg(short, long)]
    url: Option<String>,
    /// The signed time in Unix seconds [default: now].
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<i64>,
    /// The signed id, where the provider has one [default: random].
    #[arg(long)]
    id: Option<String>,
    /// The signed nonce, where the provider has one [default: random].
    #[arg(long)]
    nonce: Option<String>,
    /// Print JSON instead of a command: method, URL, headers, body.
    #[arg(long)]
    json: bool,
}

/// Where secrets are, for commands that take them.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct SecretArgs {
    /// A file with the secret; one trailing newline is not part of it.
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,
    /// An environment variable with the secret.
    #[arg(long, value_name = "NAME")]
    secret_env: Vec<String>,
    /// The secret itself. Careful: others on this machine see it in the list of processes, and your shell keeps
    /// it in its history.
    #[arg(long, value_name = "SECRET")]
    secret: Vec<TypedSecret>,
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

/// Where one secret is.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    File(PathBuf),
    Env(String),
    Typed,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Typed => f.write_str("--secret"),
        }
    }
}

impl SecretArgs {
    /// All secrets, decoded, each under the name of where it is from.
    pub(super) fn load(&self, format: KeyFormat) -> anyhow::Result<Vec<(Origin, SecretKey)>> {
        let files = self.secret_file.iter().map(|path| {
            let text = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
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
            let decoded = format.decode(text);
            let key = decoded
                .map_err(|error| anyhow!("failed to use {origin}: {error}; copy it whole, as the provider shows it"))?;
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

#[expect(clippy::unused_async, reason = "every command has one shape")]
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let provider = providers::find(&args.provider)?;
    let mut secrets = args.secret.load(provider.key_format)?;
    ensure!(secrets.len() == 1, "give one secret: a sender signs with one");
    let (origin, key) = secrets.remove(0);
    let body = Body::read(args.body.as_deref(), &provider)?;
    let random = encode_hex(&rand::random::<[u8; 20]>());
    let request = Request {
        at: args.timestamp.map_or_else(|| Clock::system().wall(), Wall::from_unix_s),
        id: args.id.unwrap_or_else(|| format!("msg_{random}")),
        nonce: args.nonce.unwrap_or(random),
        url: args.url,
    };
    let made = request.make(&provider, &key.key, &origin, &body)?;
    let text = if args.json { made.json(&provider, &body, &origin)? } else { made.curl(&body) };
    std::io::stdout().write_all(text.as_bytes()).context("failed to write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// The body, and how a command line names it.
enum Body {
    File(PathBuf, Vec<u8>),
    Stdin(Vec<u8>),
    Sample(Vec<u8>),
}

impl Body {
    fn read(from: Option<&Path>, provider: &Provider) -> anyhow::Result<Self> {
        match from {
            Some(path) if path == Path::new("-") => {
                let mut bytes = Vec::new();
                std::io::stdin().read_to_end(&mut bytes).context("failed to read standard input")?;
                Ok(Self::Stdin(bytes))
            }
            Some(path) => {
                let bytes = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
                Ok(Self::File(path.to_owned(), bytes))
            }
            None => Ok(Self::Sample(provider.sample.clone().unwrap_or_else(|| b"{}".to_vec()))),
        }
    }
    fn bytes(&self) -> &[u8] {
        match self {
            Self::File(_, bytes) | Self::Stdin(bytes) | Self::Sample(bytes) => bytes,
        }
    }
}

/// What is to be signed, but for the body.
struct Request {
    at: Wall,
    id: String,
    nonce: String,
    url: Option<String>,
}

/// A signed request. Texts are shell words already: a secret stands in them as a reference, never as itself.
struct Made {
    /// Without the secret: `{token}` stands for it.
    url: String,
    url_word: String,
    headers: Vec<(String, String)>,
    credential: Option<String>,
}

impl Request {
    fn make(&self, provider: &Provider, key: &Secret, origin: &Origin, body: &Body) -> anyhow::Result<Made> {
        let scheme = &provider.scheme;
        let place = scheme.credential_place();
        let token = place == Some(&CredentialPlace::Token);
        let default = || {
            let token = if token { "/{token}" } else { "" };
            format!("http://127.0.0.1:8080/hooks/{}{token}", provider.name)
        };
        let url = self.url.clone().unwrap_or_else(default);
        let reference = reference(origin);
        let url_word = match url.split_once("{token}") {
            Some((before, after)) if token => format!("{}{reference}{}", quote(before), quote(after)),
            _ => quote(&url),
        };
        let credential = match place {
            Some(CredentialPlace::Header(name)) => Some(format!("--header {}{reference}", quote(&format!("{name}: ")))),
            Some(CredentialPlace::Basic) => Some(format!("--user {reference}")),
            Some(CredentialPlace::Token | CredentialPlace::Query(_) | CredentialPlace::Json(_)) | None => None,
        };
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        if scheme.is_signed() {
            let request = SignRequest {
                id: &self.id,
                nonce: &self.nonce,
                ..SignRequest::new(SigningKey::Shared(key), body.bytes(), self.at)
            };
            let signature = scheme.sign(&request)?;
            headers.extend(signature.headers.into_iter().map(|(name, value)| (name.to_string(), value)));
        }
        Ok(Made { url, url_word, headers, credential })
    }
}

impl Made {
    fn curl(&self, body: &Body) -> String {
        let mut lines = vec![format!("curl --request POST {}", self.url_word)];
        lines.extend(
            self.headers.iter().map(|(name, value)| format!("--header {}", quote(&format!("{name}: {value}")))),
        );
        lines.extend(self.credential.clone());
        lines.push(match body {
            Body::File(path, _) => format!("--data-binary {}", quote(&format!("@{}", path.display()))),
            Body::Stdin(_) => "--data-binary @-".to_owned(),
            // Samples are texts of a preset and begin with a brace, never with an @.
            Body::Sample(bytes) => format!("--data-binary {}", quote(&String::from_utf8_lossy(bytes))),
        });
        format!("{}\n", lines.join(" \\\n  "))
    }

    fn json(&self, provider: &Provider, body: &Body, origin: &Origin) -> anyhow::Result<String> {
        let Ok(text) = std::str::from_utf8(body.bytes()) else {
            bail!("failed to write the body as JSON: it is not UTF-8; leave --json away and use the curl command");
        };
        let headers: serde_json::Map<_, _> =
            self.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let credential = provider
            .scheme
            .credential_place()
            .map(|place| json!({ "place": place.to_string(), "secret": origin.to_string() }));
        let value =
            json!({ "method": "POST", "url": self.url, "headers": headers, "body": text, "credential": credential });
        Ok(format!("{value:#}\n"))
    }
}

/// A shell expression for a secret, in quotes.
fn reference(origin: &Origin) -> String {
    match origin {
        Origin::File(path) => format!("\"$(cat {})\"", quote(&path.display().to_string())),
        Origin::Env(name) => format!("\"${name}\""),
        Origin::Typed => "\"$SECRET\"".to_owned(),
    }
}

/// One word for a POSIX shell.
fn quote(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Wall = Wall::from_unix_s(1_700_000_000);

    fn made(name: &str, secret: &str, body: &Body) -> (Made, std::sync::Arc<Provider>) {
        let provider = providers::find(name).expect("it ships");
        let key = provider.key_format.decode(secret.as_bytes()).expect("a key");
        let request = Request { at: AT, id: "msg_1".into(), nonce: "n1".into(), url: None };
        (request.make(&provider, &key, &Origin::File("secrets/it's".into()), body).expect("signed"), provider)
    }

    #[test]
    fn a_signed_request_is_a_curl_command() {
        let body = Body::File("a b.json".into(), b"{\"it's\":1}".to_vec());
        let (made, _) = made("mobility-work", "mobility-work-test-secret", &body);
        let curl = made.curl(&body);
        let lines: Vec<_> = curl.lines().collect();
        assert_eq!(lines[0], "curl --request POST http://127.0.0.1:8080/hooks/mobility-work \\");
        assert_eq!(lines[1], "  --header 'content-type: application/json' \\");
        assert!(lines[2].starts_with("  --header 'x-mw-signature: t=1700000000,nonce=n1,signature="), "{curl}");
        assert_eq!(lines[3], "  --data-binary '@a b.json'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }

    #[test]
    fn a_credential_is_referred_to_and_never_printed() {
        let body = Body::Sample(b"{}".to_vec());
        for (name, expected) in [
            ("gains", r#"--header 'authorization: '"$(cat 'secrets/it'\''s')""#),
            ("sourcehub", r#"http://127.0.0.1:8080/hooks/sourcehub/"$(cat 'secrets/it'\''s')""#),
        ] {
            let (made, provider) = made(name, "canary-canary-canary", &body);
            let curl = made.curl(&body);
            let json = made.json(&provider, &body, &Origin::Env("NAME".into())).expect("text");
            assert!(curl.contains(expected), "{curl}");
            assert!(!curl.contains("canary") && !json.contains("canary"));
            assert!(json.contains("\"secret\": \"env NAME\""), "{json}");
        }
    }

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
