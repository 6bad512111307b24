//! As whom a command signs or verifies: a provider with its parameters and keys, or a source of a configuration.

mod keys;

use std::{
    fmt,
    io::{IsTerminal as _, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use http::{HeaderName, HeaderValue, header::CONTENT_TYPE};

use super::providers;
use crate::{
    config::{self, LoadOptions, Source},
    preset::Provider,
    verify::{SecretKey, SignError, SignRequest, Signature},
};

pub(super) use keys::{Key, PrivateArgs, SecretArgs};

/// A provider, or a source of a configuration.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Who {
    /// As which provider (see `hookward providers`).
    #[arg(short, long, required_unless_present = "source")]
    provider: Option<String>,
    /// A parameter that the provider needs, such as webhook_id=1JE42; once for each.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = param, conflicts_with = "source")]
    params: Vec<(String, String)>,
    /// A configuration, for --source.
    #[arg(short, long, value_name = "FILE", requires = "source")]
    config: Option<PathBuf>,
    /// The source of it that says provider, parameters, URL and secrets; secrets given beside it count instead of its own.
    #[arg(long, value_name = "NAME", requires = "config", conflicts_with = "provider", group = "SecretArgs")]
    source: Option<String>,
    #[command(flatten)]
    pub(super) secret: SecretArgs,
}

fn param(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    parts
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "not of the form NAME=VALUE".to_owned())
}

/// One more header, as it is typed: `Name: value`.
pub(super) fn header_line(text: &str) -> Result<(HeaderName, String), String> {
    let wrong = || "not of the form 'Name: value'".to_owned();
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let value = value.trim();
    HeaderValue::from_str(value).map_err(|_| wrong())?;
    Ok((name.trim().parse().map_err(|_| wrong())?, value.to_owned()))
}

/// Where one secret is.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    File(PathBuf),
    Env(String),
    /// On the command line, or in the configuration itself.
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

/// Who it is, and what is known of it.
#[derive(Debug)]
pub(super) struct Known {
    /// Its scheme has the parameters in it, and a source's guard; its tolerance is that in force.
    pub(super) provider: Provider,
    pub(super) secrets: Vec<(Origin, SecretKey)>,
    pub(super) source: Option<Arc<Source>>,
}

impl Who {
    /// Of a sender, which has no use for public keys.
    pub(super) fn load_sender(&self) -> anyhow::Result<Option<Known>> {
        self.load_if(|provider| self.secret.ensure_sender(provider))
    }

    /// `None` if the configuration is not usable; what is wrong with it was written to standard error.
    pub(super) fn load(&self) -> anyhow::Result<Option<Known>> {
        self.load_if(|_| Ok(()))
    }

    fn load_if(&self, fits: impl Fn(&Provider) -> anyhow::Result<()>) -> anyhow::Result<Option<Known>> {
        let mut known = match (&self.provider, &self.config, &self.source) {
            (None, Some(file), Some(name)) => match configured(file, name)? {
                Some(known) => known,
                None => return Ok(None),
            },
            (provider, _, _) => {
                let provider = providers::find(provider.as_deref().unwrap_or_default())?;
                let mut provider = Provider::clone(&provider);
                provider.scheme = provider.scheme.with_params(&params(&provider, &self.params)?);
                Known { provider, secrets: Vec::new(), source: None }
            }
        };
        fits(&known.provider)?;
        let given = self.secret.load(known.provider.key_format)?;
        if !given.is_empty() {
            known.secrets = given;
        }
        Ok(Some(known))
    }
}

/// All that the scheme needs, and none that the provider does not have.
fn params(
    provider: &Provider,
    given: &[(String, String)],
) -> anyhow::Result<std::collections::BTreeMap<String, String>> {
    let lines = |names: Vec<&str>| {
        let what = |name: &&str| provider.params.get(*name).map_or("", String::as_str);
        let lines = names.iter().map(|name| format!("\n  --param {name}=…   {}", what(name)));
        lines.collect::<Vec<_>>().concat()
    };
    for (name, _) in given {
        let known = || lines(provider.params.keys().map(String::as_str).collect());
        ensure!(!provider.params.is_empty(), "{} has no parameters: leave --param {name}=… away", provider.title);
        ensure!(provider.params.contains_key(name), "{} has no parameter `{name}`, but{}", provider.title, known());
    }
    let needed = provider.scheme.params();
    let missing: Vec<&str> = needed.into_iter().filter(|name| !given.iter().any(|(other, _)| other == name)).collect();
    ensure!(missing.is_empty(), "{} needs of you:{}", provider.title, lines(missing));
    Ok(given.iter().cloned().collect())
}

fn configured(file: &Path, name: &str) -> anyhow::Result<Option<Known>> {
    let loaded = config::load(file, &LoadOptions::default());
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    eprint!("{}", loaded.problems.render(color));
    let Some(config) = loaded.config else {
        eprintln!("{} is not usable: see above", file.display());
        return Ok(None);
    };
    let Some(source) = config.sources.get(name).cloned() else {
        let names: Vec<_> = config.sources.keys().map(ToString::to_string).collect();
        bail!("{} has no source `{name}`; it has: {}", file.display(), names.join(", "));
    };
    let notes = loaded.notes.get(name).map(|note| note.secrets.as_slice()).unwrap_or_default();
    let secrets = source.keyring.keys().iter().map(|key| {
        let note = notes.iter().find(|note| note.id == key.id);
        let origin = note.and_then(|note| note.origin.split_once(' '));
        let origin = match origin {
            Some(("file", path)) => Origin::File(file.parent().unwrap_or(Path::new("")).join(path)),
            Some(("env", name)) => Origin::Env(name.to_owned()),
            _ => Origin::Typed,
        };
        (origin, key.clone())
    });
    let mut provider = Provider::clone(&source.provider);
    provider.scheme = source.scheme.clone();
    provider.tolerance = provider.tolerance.map(|_| source.tolerance);
    Ok(Some(Known { provider, secrets: secrets.collect(), source: Some(source) }))
}

impl Known {
    /// The URL as the provider knows it, of a request that goes to `url`. What is given has no query; of an origin
    /// alone, the path is that of `url`.
    pub(super) fn public_url(&self, given: Option<&str>, url: &str) -> anyhow::Result<String> {
        let (path, query) = target(url);
        let Some(given) = given else {
            let known = self.source.as_ref().and_then(|source| source.public_url.as_ref());
            return Ok(known.map_or_else(|| url.to_owned(), |known| known.of(path, query)));
        };
        ensure!(given.contains("://"), "--public-url `{given}` is not a URL: write it as https://hooks.example.com");
        ensure!(!given.contains('?'), "write --public-url without a query: the query is that of --url");
        let given =
            if target(given).0 == "/" { format!("{}{path}", given.trim_end_matches('/')) } else { given.into() };
        Ok(query.map_or(given.clone(), |query| format!("{given}?{query}")))
    }

    /// Signs as the provider does, with what else its requests have: a content type, and the headers given.
    pub(super) fn sign(&self, request: &SignRequest<'_>) -> anyhow::Result<Signature> {
        let scheme = &self.provider.scheme;
        let mut signature = scheme.sign(request).map_err(|error| {
            let advice = match error {
                SignError::Body(_) => "give a body such as the provider sends: its sample has it",
                SignError::Incomplete(_) => "give a body and --header lines such as the provider sends",
                SignError::OtherKey => "see `hookward providers` for the kind of key",
                SignError::NoUrl => "give it",
            };
            anyhow::anyhow!("{error}: {advice}")
        })?;
        if !scheme.is_signed() {
            signature.headers.extend(request.headers.iter().cloned());
        }
        if !signature.headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
            let kind = self.content_type(signature.body.as_deref().unwrap_or(request.body));
            signature.headers.insert(0, (CONTENT_TYPE, kind.to_owned()));
        }
        Ok(signature)
    }

    fn content_type(&self, body: &[u8]) -> &'static str {
        let json = |body: &[u8]| body.trim_ascii_start().first().is_none_or(|byte| b"{[".contains(byte));
        let description = self.provider.scheme.description();
        let form = description.place.starts_with("form ") || description.content.contains("{form");
        if !form && json(body) {
            "application/json"
        } else if form || self.provider.sample.as_deref().is_some_and(|sample| !json(sample)) {
            "application/x-www-form-urlencoded"
        } else {
            "application/octet-stream"
        }
    }

    /// The body in a file, or standard input; without either a sample.
    pub(super) fn read_body(&self, from: Option<&Path>) -> anyhow::Result<Vec<u8>> {
        match from {
            Some(path) if path == Path::new("-") => {
                let mut bytes = Vec::new();
                std::io::stdin().read_to_end(&mut bytes).context("failed to read standard input")?;
                Ok(bytes)
            }
            Some(path) => std::fs::read(path).with_context(|| format!("failed to read {}", path.display())),
            None => Ok(self.provider.sample.clone().unwrap_or_else(|| b"{}".to_vec())),
        }
    }
}

/// Path and query of a URL, as they are written.
pub(super) fn target(url: &str) -> (&str, Option<&str>) {
    let whole = url.split_once("://").filter(|_| !url.starts_with('/'));
    let behind = whole.map_or(url, |(_, behind)| behind);
    let at = behind.find(['/', '?']).unwrap_or(behind.len());
    match behind[at..].split_once('?') {
        Some((path, query)) => (if path.is_empty() { "/" } else { path }, Some(query)),
        None => (if behind[at..].is_empty() { "/" } else { &behind[at..] }, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Known {
        let provider = Provider::clone(&providers::find(name).expect("it ships"));
        Known { provider, secrets: Vec::new(), source: None }
    }

    #[test]
    fn the_public_url_has_the_path_and_query_of_the_request() {
        let url = |given, url| known("twilio").public_url(given, url).map_err(|error| error.to_string());
        let sent = "http://127.0.0.1:8080/hooks/twilio?a=b";
        assert_eq!(url(None, sent).as_deref(), Ok(sent));
        assert_eq!(url(Some("https://h.example"), sent).as_deref(), Ok("https://h.example/hooks/twilio?a=b"));
        assert_eq!(url(Some("https://h.example/"), sent).as_deref(), Ok("https://h.example/hooks/twilio?a=b"));
        assert_eq!(url(Some("https://h.example/in"), sent).as_deref(), Ok("https://h.example/in?a=b"));
        assert_eq!(url(Some("https://h.example/in"), "http://h").as_deref(), Ok("https://h.example/in"));
        assert!(url(Some("https://h.example/in?c"), sent).is_err_and(|error| error.contains("without a query")));
        assert!(url(Some("h.example"), sent).is_err_and(|error| error.contains("not a URL")));
        assert_eq!(target("https://h.example?a"), ("/", Some("a")));
    }

    #[test]
    fn a_missing_parameter_is_explained_and_an_unknown_one_refused() {
        let paypal = providers::find("paypal").expect("it ships");
        let given = |name: &str| vec![(name.to_owned(), "1".to_owned())];
        let error = params(&paypal, &[]).expect_err("it is missing").to_string();
        assert!(error.contains("--param webhook_id=…   the id of the webhook"), "{error}");
        assert!(params(&paypal, &given("webhook")).is_err_and(|error| error.to_string().contains("webhook_id=…")));
        assert_eq!(params(&paypal, &given("webhook_id")).expect("complete").len(), 1);
        let github = providers::find("github").expect("it ships");
        assert!(params(&github, &given("a")).is_err_and(|error| error.to_string().contains("has no parameters")));
        // Only a handshake needs it.
        assert!(params(&providers::find("ebay").expect("it ships"), &[]).is_ok());
    }

    #[test]
    fn a_body_has_the_content_type_of_its_provider() {
        for (name, body, expected) in [
            ("github", &b" {\"n\":<n>}"[..], "application/json"),
            ("github", b"<a/>", "application/octet-stream"),
            ("twilio", b"a=b", "application/x-www-form-urlencoded"),
            ("slack", b"[]", "application/json"),
        ] {
            assert_eq!(known(name).content_type(body), expected, "{name}");
        }
    }
}
