//! `hookward sign`.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail, ensure};
use http::{HeaderName, Method};
use serde_json::json;

use super::{
    CONFIGURATION,
    who::{Key, Known, Origin, PrivateArgs, Who, header_line},
};
use crate::{
    secret::Secret,
    time::{Clock, Wall},
    verify::{CredentialPlace, SignRequest, SigningKey, encode_hex},
};

const EXAMPLES: &str = "Examples:
  hookward sign -p partssource --secret-file secrets/partssource -b order.json
  hookward sign -p stripe --secret-env STRIPE_SECRET --json
  hookward sign -c hookward.toml --source twilio -u http://127.0.0.1:8080/hooks/twilio
  hookward sign -p discord --new-key discord.pem      a key pair, for a provider that has one
  hookward sign -p paypal --private-key paypal.pem --param webhook_id=1JE42
  sh -c \"$(hookward sign -p slack --secret-file secrets/slack)\"      signs and sends

Without --body a sample of the provider is signed. A secret is never printed: where the provider \
shows it as it is, the command reads it from where you keep it. The signed time is now, so run the \
command soon: a provider's tolerance is often five minutes.";

/// Print a correctly signed request of any provider, as curl or JSON.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    private: PrivateArgs,
    /// The exact body: a file, or - for standard input [default: a sample of the provider].
    #[arg(short, long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Where the request goes; {token} in it stands for the secret, for providers whose proof is a part of the
    /// path [default: the source of that name at 127.0.0.1:8080].
    #[arg(short, long)]
    url: Option<String>,
    /// The URL as the provider knows it, where that is signed: whole, or only where paths begin [default: --url].
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// One more header, such as 'X-GitHub-Event: push'; signed, where the provider signs it.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header_line)]
    headers: Vec<(HeaderName, String)>,
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

#[expect(clippy::unused_async, reason = "every command has one shape")]
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Some(known) = args.who.load_sender()? else { return Ok(ExitCode::from(CONFIGURATION)) };
    let now = Clock::system().wall();
    let body = known.read_body(args.body.as_deref())?;
    let key = args.private.key(&known, &args.who.secret, now)?;
    let random = encode_hex(&rand::random::<[u8; 20]>());
    let request = Request {
        at: args.timestamp.map_or(now, Wall::from_unix_s),
        id: args.id.unwrap_or_else(|| format!("msg_{random}")),
        nonce: args.nonce.unwrap_or(random),
        url: args.url,
        public_url: args.public_url,
        headers: args.headers,
        file: args.body,
    };
    let made = request.make(&known, &key, &body)?;
    let text = if args.json { made.json()? } else { made.curl() };
    std::io::stdout().write_all(text.as_bytes()).context("failed to write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// What is to be signed, but for the body.
struct Request {
    at: Wall,
    id: String,
    nonce: String,
    url: Option<String>,
    public_url: Option<String>,
    headers: Vec<(HeaderName, String)>,
    /// Where the body is from.
    file: Option<PathBuf>,
}

/// A signed request. Where a credential belongs, something else stands, and it is known nowhere here.
struct Made {
    method: Method,
    url: String,
    public_url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Where the body is, if what is sent is what stands there.
    file: Option<PathBuf>,
    credential: Option<Credential>,
}

/// A credential that a request shows.
struct Credential {
    place: CredentialPlace,
    origin: Origin,
    /// What stands in its place.
    blank: String,
}

impl Request {
    fn make(&self, known: &Known, key: &Key, body: &[u8]) -> anyhow::Result<Made> {
        let provider = &known.provider;
        let blank = format!("hookward-{}", encode_hex(&rand::random::<[u8; 16]>()));
        let credential = match (provider.scheme.credential_place(), key) {
            (Some(place), Key::Shared(origin, secret)) => {
                ensure_plain(place, secret)?;
                Some(Credential { place: place.clone(), origin: origin.clone(), blank: blank.clone() })
            }
            _ => None,
        };
        let is_token = credential.as_ref().is_some_and(|credential| credential.place == CredentialPlace::Token);
        let default = || {
            let path = known.source.as_ref().map(|source| source.path.text.clone());
            let token = if is_token { "/{token}" } else { "" };
            let path = path.unwrap_or_else(|| format!("/hooks/{}{token}", provider.name));
            format!("http://127.0.0.1:8080{path}")
        };
        let url = self.url.clone().unwrap_or_else(default);
        let public_url = known.public_url(self.public_url.as_deref(), &url)?;
        let blank = Secret::new(blank);
        let method = provider.webhook_methods().first().unwrap_or(&Method::POST);
        let signature = known.sign(&SignRequest {
            key: if credential.is_some() { SigningKey::Shared(&blank) } else { key.signing() },
            method,
            url: Some(&public_url),
            body,
            at: self.at,
            id: &self.id,
            nonce: &self.nonce,
            headers: &self.headers,
        })?;
        let url = signature.url(&signature.token.as_ref().map_or(url.clone(), |token| url.replace("{token}", token)));
        let headers = signature.headers.iter().map(|(name, value)| (name.to_string(), value.clone()));
        Ok(Made {
            method: method.clone(),
            url,
            public_url: signature.url(&public_url),
            headers: headers.collect(),
            file: self.file.clone().filter(|_| signature.body.is_none()),
            body: signature.body.unwrap_or_else(|| body.to_vec()),
            credential,
        })
    }
}

/// A shell puts a secret into a query or a document as it is.
fn ensure_plain(place: &CredentialPlace, secret: &Secret) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(secret.expose());
    let is_plain = match place {
        CredentialPlace::Query(_) => form_urlencoded::byte_serialize(secret.expose()).collect::<String>() == text,
        CredentialPlace::Json(_) => json!(text).to_string().trim_matches('"') == text,
        CredentialPlace::Token | CredentialPlace::Basic | CredentialPlace::Header(_) => true,
    };
    ensure!(
        is_plain,
        "the secret has characters that must be escaped at {place}: use `hookward send`, which does that"
    );
    Ok(())
}

impl Made {
    fn curl(&self) -> String {
        let mut lines = vec![format!("curl --request {} {}", self.method, self.word(&self.url))];
        for (name, value) in &self.headers {
            let basic = self.credential.as_ref().filter(|credential| credential.place == CredentialPlace::Basic);
            lines.push(match basic.filter(|_| name == "authorization") {
                Some(credential) => format!("--user {}", reference(&credential.origin)),
                // A name with a colon alone would take the header out.
                None if value.is_empty() => format!("--header {}", quote(&format!("{name};"))),
                None => format!("--header {}", self.word(&format!("{name}: {value}"))),
            });
        }
        lines.push(match self.file.as_deref() {
            Some(path) if path == Path::new("-") => "--data-binary @-".to_owned(),
            Some(path) => format!("--data-binary {}", quote(&format!("@{}", path.display()))),
            // A document, or a form: neither begins with an @.
            None => format!("--data-binary {}", self.word(&String::from_utf8_lossy(&self.body))),
        });
        format!("{}\n", lines.join(" \\\n  "))
    }

    /// A shell word, with a reference to the credential where that belongs.
    fn word(&self, text: &str) -> String {
        let parts = self.credential.as_ref().and_then(|credential| {
            let (before, after) = text.split_once(&credential.blank)?;
            Some(format!("{}{}{}", quote(before), reference(&credential.origin), quote(after)))
        });
        parts.unwrap_or_else(|| if text.is_empty() { "''".to_owned() } else { quote(text) })
    }

    fn json(&self) -> anyhow::Result<String> {
        let Ok(body) = std::str::from_utf8(&self.body) else {
            bail!("failed to write the body as JSON: it is not UTF-8; leave --json away and use the curl command");
        };
        let (blank, shown) = match &self.credential {
            Some(Credential { place: CredentialPlace::Token, blank, .. }) => (blank.as_str(), "{token}"),
            Some(credential) => (credential.blank.as_str(), "{secret}"),
            None => ("", ""),
        };
        let without = |text: &str| if blank.is_empty() { text.to_owned() } else { text.replace(blank, shown) };
        // That of a credential is left out: who reads this puts it there.
        let shows = |name: &str| match self.credential.as_ref().map(|credential| &credential.place) {
            Some(CredentialPlace::Header(header)) => name == header.as_str(),
            Some(CredentialPlace::Basic) => name == "authorization",
            _ => false,
        };
        let headers = self.headers.iter().filter(|(name, _)| !shows(name));
        let headers: serde_json::Map<_, _> = headers.map(|(name, value)| (name.clone(), json!(value))).collect();
        let credential = self.credential.as_ref().map(
            |credential| json!({ "place": credential.place.to_string(), "secret": credential.origin.to_string() }),
        );
        let value = json!({
            "method": self.method.as_str(),
            "url": without(&self.url),
            "public_url": without(&self.public_url),
            "headers": headers,
            "body": without(body),
            "credential": credential,
        });
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
    use crate::{cli::providers, preset::Provider};

    const AT: Wall = Wall::from_unix_s(1_700_000_000);

    fn made(name: &str, secret: &str, file: Option<&str>, body: &[u8], origin: Origin) -> anyhow::Result<Made> {
        let provider = Provider::clone(&providers::find(name).expect("it ships"));
        let key = provider.key_format.decode(secret.as_bytes()).expect("a key");
        let known = Known { provider, secrets: vec![], source: None };
        let request = Request {
            at: AT,
            id: "msg_1".into(),
            nonce: "n1".into(),
            url: None,
            public_url: None,
            headers: vec![],
            file: file.map(Into::into),
        };
        request.make(&known, &Key::Shared(origin, key), body)
    }

    #[test]
    fn a_signed_request_is_a_curl_command() {
        let secret = "mobility-work-test-secret";
        let made = made("mobility-work", secret, Some("a b.json"), b"{\"it's\":1}", Origin::Typed).expect("signed");
        let curl = made.curl();
        let lines: Vec<_> = curl.lines().collect();
        assert_eq!(lines[0], "curl --request POST http://127.0.0.1:8080/hooks/mobility-work \\");
        assert_eq!(lines[1], "  --header 'content-type: application/json' \\");
        assert!(lines[2].starts_with("  --header 'x-mw-signature: t=1700000000,nonce=n1,signature="), "{curl}");
        assert_eq!(lines[3], "  --data-binary '@a b.json'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }

    #[test]
    fn a_proof_in_the_body_is_printed_with_the_body() {
        let body = br#"{"signature":{"timestamp":"1","token":"t0","signature":"s0"}}"#;
        let made = made("mailgun", "mailgun-test-secret", Some("a.json"), body, Origin::Typed).expect("signed");
        let curl = made.curl();
        assert!(curl.contains(r#"--data-binary '{"signature":{"#) && curl.contains(r#""1700000000""#), "{curl}");
        assert!(!curl.contains("a.json") && !curl.contains("s0"), "{curl}");
    }

    #[test]
    fn a_credential_is_referred_to_and_never_printed() {
        let secret = "canary-canary-canary";
        for (name, expected) in [
            ("gains", r#"--header 'authorization: '"$(cat 'secrets/it'\''s')""#),
            ("sourcehub", r#"http://127.0.0.1:8080/hooks/sourcehub/"$(cat 'secrets/it'\''s')""#),
            ("microsoft-graph", r#"--data-binary '{"value":[{"clientState":"'"$(cat 'secrets/it'\''s')"'"}]}'"#),
            ("customer-io", ""),
        ] {
            let body = br#"{"value":[{"clientState":""}]}"#;
            let Ok(made) = made(name, secret, None, body, Origin::File("secrets/it's".into())) else {
                panic!("{name}")
            };
            let (curl, json) = (made.curl(), made.json().expect("text"));
            assert!(curl.contains(expected), "{curl}");
            assert!(!curl.contains("canary") && !json.contains("canary"));
            if !expected.is_empty() {
                assert!(json.contains("\"secret\": \"file secrets/it's\"") && !json.contains("hookward-"), "{json}");
            }
        }
        let error = made("microsoft-graph", "a\"b", None, b"{\"value\":[{}]}", Origin::Typed).err().expect("refused");
        assert!(error.to_string().contains("use `hookward send`"), "{error}");
    }
}
