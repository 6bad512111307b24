//! `hookward verify`.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, anyhow, ensure};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::{
    CONFIGURATION, FAILED,
    who::{Who, target},
};
use crate::{
    document::format_duration,
    preset::Provider,
    time::{Clock, Wall},
    verify::{
        Explanation, Freshness, Keyring, Refusal, Seen,
        causes::{Cause, Question},
    },
};

const EXAMPLES: &str = "Examples:
  hookward verify -p partssource --secret-file secrets/partssource \\
    --headers captured.headers -b captured.body
  hookward verify -p stripe --secret-env OLD --secret-env NEW \\
    --headers captured.headers -b captured.body --now 1700000000 --json
  hookward verify -p discord --public-key discord.pub --headers captured.headers -b captured.body
  hookward verify -c hookward.toml --source twilio --headers captured.headers -b captured.body

The headers file has one `Name: value` a line, as captured; a request line before them says the method, \
and with --source the path. The body must be the exact bytes. A captured request is stale by now: --now says when it arrived.

Exit code 0 if the request is authentic and fresh, 1 if not.";

/// Bytes of the signed content that are shown.
const PREVIEW_BYTES: usize = 200;

/// Explain why a captured request is authentic, or is not.
///
/// Works offline: shows what was signed, how far the clocks are apart, and which secret and signature were tried.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    who: Who,
    /// A file with a public key, for a provider whose webhooks are checked with one.
    #[arg(long, value_name = "FILE", group = "SecretArgs")]
    public_key: Vec<PathBuf>,
    /// The headers as received.
    #[arg(long, value_name = "FILE")]
    headers: PathBuf,
    /// The exact body as received.
    #[arg(short, long, value_name = "FILE")]
    body: PathBuf,
    /// A file with the path token as received, for a provider whose credential is the path.
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// The method [default: that of the request line, else the first of the provider].
    #[arg(long)]
    method: Option<Method>,
    /// The URL as the provider knows it, with its query; for providers that sign it, or put something into the query.
    #[arg(long)]
    url: Option<String>,
    /// When the request arrived, in Unix seconds [default: now].
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    now: Option<i64>,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[expect(clippy::unused_async, reason = "every command has one shape")]
pub(super) async fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    args.who.secret.secret_file.append(&mut args.public_key);
    let Some(known) = args.who.load()? else { return Ok(ExitCode::from(CONFIGURATION)) };
    let provider = &known.provider;
    let keys = known.secrets.iter().map(|(_, key)| key.clone()).collect();
    let keyring =
        Keyring::new(keys, &provider.scheme).map_err(|(_, error)| anyhow!("failed to use a secret: {error}"))?;
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("failed to read {}", path.display()));
    let (line, headers) =
        parse_headers(&read(&args.headers)?).with_context(|| format!("failed to read {}", args.headers.display()))?;
    let body = read(&args.body)?;
    let token = match &args.token {
        Some(path) => {
            Some(String::from_utf8(read(path)?).with_context(|| format!("failed to read {}", path.display()))?)
        }
        None => None,
    };
    let now = args.now.map_or_else(|| Clock::system().wall(), Wall::from_unix_s);
    let token = token.as_deref().map(str::trim_end);
    let (method, path) = line.map_or((None, None), |(method, path)| (Some(method), Some(path)));
    let url = match (&args.url, path) {
        (Some(url), _) => Some(url.clone()),
        (None, Some(path)) if known.source.as_ref().is_some_and(|source| source.public_url.is_some()) => {
            Some(known.public_url(None, &path)?)
        }
        (None, path) => {
            ensure!(
                !provider.scheme.needs_url(),
                "{} signs the URL: give it by --url, as {0} has it, with the query of this request",
                provider.title
            );
            path
        }
    };
    let method = args.method.or(method).or_else(|| provider.webhook_methods().first().cloned()).unwrap_or_default();
    let seen = Seen {
        method: &method,
        url: url.as_deref(),
        query: url.as_deref().and_then(|url| target(url).1),
        headers: &headers,
        token,
    };
    let explanation = provider.scheme.explain(seen, &keyring, &body, now, provider.tolerance, PREVIEW_BYTES);
    let causes = if explanation.is_authentic() {
        Vec::new()
    } else {
        let tolerance = provider.tolerance.unwrap_or_default();
        let (scheme, keyring, body) = (&provider.scheme, &keyring, Some(&*body));
        Question { scheme, seen, keyring, body, now, tolerance, others: &[] }.causes()
    };
    if args.json {
        let mut json = as_json(provider, &explanation);
        json["causes"] = causes_as_json(&causes);
        println!("{json:#}");
    } else {
        print!("{}{}", as_text(provider, &explanation), causes_as_text(&explanation, &causes));
    }
    Ok(if explanation.is_authentic() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Method and path, with its query, of a request line.
type RequestLine = (Method, String);

/// Lines of `Name: value`, line ends of either kind, and the request line if there is one. The marks of `curl -v` are
/// skipped. A message names the line by its number: there may be a credential in it.
fn parse_headers(text: &[u8]) -> anyhow::Result<(Option<RequestLine>, HeaderMap)> {
    let (mut first, mut headers) = (None, HeaderMap::new());
    for (i, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.strip_prefix(b"> ").unwrap_or(line);
        if line.is_empty() || line == b">" {
            continue;
        }
        if is_request_line(line) {
            first = request_line(line);
            continue;
        }
        let header = || {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
        };
        let (name, value) = header().ok_or_else(|| anyhow!("line {} is no `Name: value`", i + 1))?;
        headers.append(name, value);
    }
    Ok((first, headers))
}

fn request_line(line: &[u8]) -> Option<RequestLine> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, path) = (words.next()?.parse().ok()?, words.next()?);
    path.starts_with('/').then(|| (method, path.to_owned()))
}

fn is_request_line(line: &[u8]) -> bool {
    let version = [&b" HTTP/1.0"[..], b" HTTP/1.1", b" HTTP/2", b" HTTP/2.0"];
    version.iter().any(|version| line.ends_with(version)) && line.first().is_some_and(u8::is_ascii_uppercase)
}

fn as_text(provider: &Provider, explanation: &Explanation) -> String {
    let mut out = String::new();
    let mut row = |label: &str, value: &str| {
        let _ = writeln!(out, "{label:<12}{value}");
    };
    row("provider", &format!("{} ({})", provider.title, provider.name));
    row("scheme", &scheme(provider));
    row("proof in", &places(provider, explanation));
    if let Some(time) = time(provider, explanation) {
        row("timestamp", &time);
    }
    if provider.scheme.is_signed() && explanation.claim.is_ok() {
        let shown = preview(explanation);
        let more = if explanation.signed_bytes > explanation.signed_content.len() { "…" } else { "" };
        row("signed", &format!("{} bytes: {shown}{more}", explanation.signed_bytes));
    }
    for (i, tried) in explanation.tried.iter().enumerate() {
        let place = &explanation.places[tried.signature];
        let found = match (tried.live, tried.matches) {
            (false, _) => "not live",
            (true, true) => "matches",
            (true, false) => "does not match",
        };
        let number = tried.signature + 1;
        row(if i == 0 { "tried" } else { "" }, &format!("{} with no. {number} ({place}): {found}", tried.secret_id));
    }
    row("verdict", &verdict(explanation));
    out
}

/// Control characters and what is not ASCII as escapes; quotes stay as they are, since most bodies are JSON.
fn preview(explanation: &Explanation) -> String {
    explanation.signed_content.escape_ascii().to_string().replace("\\\"", "\"").replace("\\'", "'")
}

fn scheme(provider: &Provider) -> String {
    let description = provider.scheme.description();
    if !provider.scheme.is_signed() {
        return format!("{}: nothing is signed", provider.scheme.name());
    }
    let secret = provider.key_format.name();
    format!("{} over {}, {}, secret as {secret}", provider.scheme.name(), description.content, description.encoding)
}

/// What was found, or where it should have been.
fn places(provider: &Provider, explanation: &Explanation) -> String {
    let found: Vec<_> =
        explanation.places.iter().enumerate().map(|(i, place)| format!("no. {} {place}", i + 1)).collect();
    if !found.is_empty() {
        return found.join(", ");
    }
    let expected = match provider.scheme.credential_place() {
        Some(place) => place.to_string(),
        None => provider.scheme.description().place.replace(", ", " or "),
    };
    format!("nothing usable; expected in {expected}")
}

fn time(provider: &Provider, explanation: &Explanation) -> Option<String> {
    let (skew, behind) = explanation.skew?;
    let (at, tolerance) = (explanation.timestamp?, provider.tolerance?);
    let relation = match explanation.freshness {
        Freshness::Past(by) => format!("{} too old", format_duration(by)),
        Freshness::Future(by) => format!("{} too far ahead", format_duration(by)),
        Freshness::Fresh | Freshness::Untimed => "within it".to_owned(),
    };
    let side = if behind { "before" } else { "after" };
    Some(format!(
        "{at}, {} {side} --now; tolerance {} past, {} future: {relation}",
        format_duration(skew),
        format_duration(tolerance.past),
        format_duration(tolerance.future),
    ))
}

fn verdict(explanation: &Explanation) -> String {
    match (&explanation.proof, explanation.freshness) {
        (Err(refusal), _) => format!("refused: {refusal}: {}", meaning(*refusal)),
        (Ok(_), Freshness::Past(by)) => format!("authentic, but stale by {}", format_duration(by)),
        (Ok(_), Freshness::Future(by)) => {
            format!("authentic, but ahead of the tolerance by {}: is a clock wrong?", format_duration(by))
        }
        (Ok(proof), _) => format!("authentic: {} with {}", proof.place(), proof.secret_id()),
    }
}

/// A refusal as a sentence.
const fn meaning(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::SignatureMissing => "there is no signature header",
        Refusal::SignatureMalformed => "no signature has the prefix, length and alphabet of this provider",
        Refusal::HeaderRepeated => "a header that must stand once stands several times",
        Refusal::TooManySignatures => "there are more signatures than are ever tried",
        Refusal::TimestampMissing => "the signed time is missing",
        Refusal::TimestampMalformed => "the signed time is not plain digits, or stands twice",
        Refusal::FieldMissing => "an id, nonce or header that is signed is missing",
        Refusal::FieldMalformed => "an id, nonce or header that is signed has characters that could be misread",
        Refusal::SignatureMismatch => {
            "no secret explains any signature: another secret, or other bytes than were signed"
        }
        Refusal::AlgorithmUnsupported => "it says that another version or algorithm was used than this provider uses",
        Refusal::ClaimMismatch => "the token is for another endpoint, or from another issuer",
        Refusal::BodyHashMismatch => "the signature matches, and the digest of the body that it covers does not",
        Refusal::NoLiveSecret => "no secret is live at that time",
        Refusal::CredentialMissing => "the credential is missing",
        Refusal::CredentialMismatch => "the credential is another one",
    }
}

fn as_json(provider: &Provider, explanation: &Explanation) -> Value {
    let refusal = explanation.proof.as_ref().err();
    let freshness = match explanation.freshness {
        Freshness::Untimed => json!("untimed"),
        Freshness::Fresh => json!("fresh"),
        Freshness::Past(by) => json!({ "past_s": by.as_secs_f64() }),
        Freshness::Future(by) => json!({ "future_s": by.as_secs_f64() }),
    };
    let tried = explanation.tried.iter().map(|tried| {
        json!({
            "secret": &*tried.secret_id,
            "place": &*explanation.places[tried.signature],
            "signature": tried.signature + 1,
            "live": tried.live,
            "matches": tried.matches,
        })
    });
    let skew_s = explanation.skew.map(|(skew, behind)| if behind { skew.as_secs_f64() } else { -skew.as_secs_f64() });
    json!({
        "provider": &*provider.name,
        "scheme": explanation.scheme,
        "authentic": explanation.is_authentic(),
        "refusal": refusal.map(|refusal| refusal.code()),
        "meaning": refusal.map(|refusal| meaning(*refusal)),
        "freshness": freshness,
        "timestamp": explanation.timestamp.map(Wall::rfc3339),
        "age_s": skew_s,
        "tried": tried.collect::<Vec<_>>(),
        "signed_bytes": explanation.signed_bytes,
        "signed_content": preview(explanation),
    })
}

/// What probably is the cause, and what to do.
fn causes_as_text(explanation: &Explanation, causes: &[Cause]) -> String {
    let one = |cause: &Cause| format!("likely cause: {}\n  do: {}\n", cause.message(), cause.advice());
    let is_mismatch = explanation.proof.as_ref().is_err_and(|refusal| refusal.is_mismatch());
    if causes.is_empty() && is_mismatch {
        return "likely cause: nothing that is tried explains it: another secret, or another body\n".to_owned();
    }
    causes.iter().map(one).collect()
}

fn causes_as_json(causes: &[Cause]) -> Value {
    let one = |cause: &Cause| json!({ "code": cause.code(), "message": cause.message(), "advice": cause.advice(), "proven": cause.proven });
    causes.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::providers, verify::SecretKey};

    fn explained(name: &str, vector: &str, now_s: Option<i64>) -> (std::sync::Arc<Provider>, Explanation) {
        let provider = providers::find(name).expect("it ships");
        let vector = provider.vectors.iter().find(|v| v.id == vector).expect("it is there").clone();
        let key = provider.key_format.decode(vector.secrets[0].as_bytes()).expect("a key");
        let keys = vec![SecretKey { id: "file s".into(), key, not_before: None, expires_at: None }];
        let keyring = Keyring::new(keys, &provider.scheme).expect("a key of the right kind");
        let lines = vector.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let lines = lines.collect::<Vec<_>>().concat();
        let (_, headers) = parse_headers(lines.as_bytes()).expect("headers");
        let now = Wall::from_unix_s(now_s.unwrap_or(vector.now_s));
        let token = vector.token.as_deref();
        let seen = Seen { method: &Method::POST, url: None, query: None, headers: &headers, token };
        let explanation = provider.scheme.explain(seen, &keyring, &vector.body, now, provider.tolerance, PREVIEW_BYTES);
        (provider, explanation)
    }

    fn text(name: &str, vector: &str, now_s: Option<i64>) -> String {
        let (provider, explanation) = explained(name, vector, now_s);
        as_text(&provider, &explanation)
    }

    #[test]
    fn a_rotation_shows_which_secret_and_which_signature() {
        let shown = text("partssource", "valid-under-the-previous-secret", Some(1_700_000_012));
        for part in [
            "scheme      hmac-sha256 over {timestamp}.{body}, hex, secret as utf8",
            "proof in    no. 1 x-ps-signature, no. 2 x-ps-signature-previous",
            "2023-11-14T22:13:20.000Z, 12s before --now; tolerance 5m past, 5m future: within it",
            "signed      213 bytes: 1700000000.{\"company_id\":4711,",
            "tried       file s with no. 1 (x-ps-signature): does not match",
            "            file s with no. 2 (x-ps-signature-previous): matches",
            "verdict     authentic: x-ps-signature-previous with file s",
        ] {
            assert!(shown.contains(part), "{part} is not in:\n{shown}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        for (name, vector, part) in [
            ("partssource", "one-second-too-old", "verdict     authentic, but stale by 1s"),
            ("partssource", "one-second-too-far-ahead", "verdict     authentic, but ahead of the tolerance by 1s"),
            ("partssource", "other-body", "verdict     refused: signature_mismatch: no secret explains"),
            ("mobility-work", "unsigned", "proof in    nothing usable; expected in x-mw-signature"),
            ("stripe", "two-times", "verdict     refused: timestamp_malformed"),
            ("gains", "missing", "verdict     refused: credential_missing"),
        ] {
            let (provider, explanation) = explained(name, vector, None);
            let shown = as_text(&provider, &explanation);
            assert!(shown.contains(part), "{part} is not in:\n{shown}");
            assert!(!explanation.is_authentic());
            assert_eq!(as_json(&provider, &explanation)["authentic"], json!(false));
        }
    }

    #[test]
    fn no_credential_is_shown() {
        for (name, vector) in [("gains", "other-token"), ("gains", "valid"), ("sourcehub", "other-token")] {
            let (provider, explanation) = explained(name, vector, None);
            let shown = format!("{}{}", as_text(&provider, &explanation), as_json(&provider, &explanation));
            assert!(!shown.contains("test-secre") && !shown.contains("test-token"), "{shown}");
        }
    }

    #[test]
    fn likely_causes_say_what_to_do() {
        let (provider, explanation) = explained("partssource", "valid-under-the-previous-secret", Some(1_700_003_600));
        let vector = provider.vectors.iter().find(|v| v.id == "valid-under-the-previous-secret").expect("it is there");
        let key = provider.key_format.decode(vector.secrets[0].as_bytes()).expect("a key");
        let keys = vec![SecretKey { id: "file s".into(), key, not_before: None, expires_at: None }];
        let lines = vector.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
        let lines = lines.collect::<Vec<_>>().concat();
        let question = Question {
            scheme: &provider.scheme,
            seen: Seen {
                method: &Method::POST,
                url: None,
                query: None,
                headers: &parse_headers(lines.as_bytes()).expect("headers").1,
                token: None,
            },
            keyring: &Keyring::new(keys, &provider.scheme).expect("a key of the right kind"),
            body: Some(&vector.body),
            now: Wall::from_unix_s(1_700_003_600),
            tolerance: provider.tolerance.expect("it signs a time"),
            others: &[],
        };
        let causes = question.causes();
        let text = causes_as_text(&explanation, &causes);
        assert!(text.starts_with("likely cause: the signed time is 1h before ours"), "{text}");
        assert!(text.contains("\n  do: let the sender sign the time in UTC"), "{text}");
        let json = causes_as_json(&causes);
        assert_eq!((&json[0]["code"], &json[0]["proven"]), (&json!("time_zone"), &json!(true)));

        let (_, explanation) = explained("partssource", "other-body", None);
        let nothing = causes_as_text(&explanation, &[]);
        assert_eq!(nothing, "likely cause: nothing that is tried explains it: another secret, or another body\n");
        let (_, explanation) = explained("mobility-work", "unsigned", None);
        assert_eq!(causes_as_text(&explanation, &[]), "");
    }

    #[test]
    fn captured_headers_are_read_as_they_came() {
        let (line, headers) =
            parse_headers(b"POST /hooks/a?b HTTP/1.1\r\nHost: a\r\n> X-Sig:  a:b \n\nX-Sig: c\n").expect("headers");
        assert_eq!(headers.get_all("x-sig").iter().collect::<Vec<_>>(), ["a:b", "c"]);
        assert_eq!(headers["host"], "a");
        assert_eq!(line, Some((Method::POST, "/hooks/a?b".to_owned())));
        let error = parse_headers(b"A: b\ncanary without a colon\n").expect_err("no header").to_string();
        assert_eq!(error, "line 2 is no `Name: value`");
    }
}
