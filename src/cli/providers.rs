//! `hookward providers`.

use std::{fmt::Write as _, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    document::{format_duration, format_size},
    preset::{self, EvidenceKind, Locator, OnMismatch, OnStale, Provider},
    verify::{CredentialPlace, EventKey, KeyKind, KeyPart},
};

const EXAMPLES: &str = "Examples:
  hookward providers                 a table of all
  hookward providers mobility-work   one in full, with what nobody has confirmed
  hookward providers --evidence second-hand
  hookward providers --json          for programs
  hookward providers --schema        how a provider is written

A provider of your own goes into the configuration as [providers.NAME]: --schema and \
config.example.toml show every key.";

/// The schema of a provider, for people.
const SCHEMA: &str = include_str!("../preset/SCHEMA.md");
/// Columns of what is printed for people.
const WIDTH: usize = 100;

/// Show the providers that ship: schemes, headers, deadlines, retry spans, evidence.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Show this one in full.
    name: Option<String>,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    /// Only those with this evidence: vendor-vector, official-sdk, vendor-doc or second-hand.
    #[arg(long, value_name = "KIND", value_parser = evidence, conflicts_with = "name")]
    evidence: Option<EvidenceKind>,
    /// Print the schema: every key that a provider can have, in Markdown.
    #[arg(long, conflicts_with_all = ["name", "json", "evidence"])]
    schema: bool,
}

fn evidence(text: &str) -> Result<EvidenceKind, String> {
    let found = EvidenceKind::ALL.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
    found.ok_or_else(|| {
        let names: Vec<_> = EvidenceKind::ALL.iter().map(|(name, _)| *name).collect();
        format!("not one of {}", names.join(", "))
    })
}

#[expect(clippy::unused_async, reason = "every command has one shape")]
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut all = preset::all();
    all.retain(|provider| args.evidence.is_none_or(|kind| provider.evidence.kind == kind));
    let text = match (&args.name, args.json) {
        _ if args.schema => SCHEMA.to_owned(),
        (Some(name), true) => format!("{:#}\n", as_json(find(name)?.as_ref())),
        (Some(name), false) => detail(find(name)?.as_ref()),
        (None, true) => format!("{:#}\n", all.iter().map(|provider| as_json(provider)).collect::<Value>()),
        (None, false) => table(&all),
    };
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// The preset of a name typed by a person.
pub(super) fn find(name: &str) -> anyhow::Result<Arc<Provider>> {
    preset::find(name).with_context(|| {
        let names: Vec<_> = preset::all().iter().map(|provider| provider.name.to_string()).collect();
        let near = names.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
        let near = near.filter(|known| strsim::damerau_levenshtein(known, name) <= 1 + known.len() / 4);
        match near {
            Some(near) => format!("there is no provider `{name}`: did you mean `{near}`?"),
            None => format!("there is no provider `{name}`; `hookward providers` lists the {} that ship", names.len()),
        }
    })
}

fn table(providers: &[Arc<Provider>]) -> String {
    let head = ["NAME", "PROOF", "TIME", "ANSWER", "RETRIES", "EVIDENCE"].map(str::to_owned);
    let rows = providers.iter().map(|provider| {
        [
            provider.name.to_string(),
            short_proof(provider).to_owned(),
            provider
                .tolerance
                .map_or("no".to_owned(), |t| format!("-{} +{}", format_duration(t.past), format_duration(t.future))),
            format_duration(provider.sender.deadline),
            provider.sender.retry_span.map_or("unknown".to_owned(), format_duration),
            provider.evidence.kind.name().to_string(),
        ]
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

fn proof(provider: &Provider) -> String {
    match provider.scheme.credential_place() {
        Some(place) => place.to_string(),
        None => provider.scheme.name().to_owned(),
    }
}

/// An algorithm, or what kind of place shows the secret.
fn short_proof(provider: &Provider) -> &'static str {
    match provider.scheme.credential_place() {
        Some(CredentialPlace::Token) => "secret in path",
        Some(CredentialPlace::Basic) => "password",
        Some(CredentialPlace::Header(_)) => "secret in header",
        Some(CredentialPlace::Query(_)) => "secret in query",
        Some(CredentialPlace::Json(_)) => "secret in JSON",
        None => provider.scheme.name(),
    }
}

fn detail(provider: &Provider) -> String {
    let mut out = format!("{} ({})\n\n", provider.title, provider.name);
    for (label, value) in facts(provider) {
        out.push_str(&wrapped(&format!("  {label:<16}"), &value));
    }
    let params = provider.params.iter().map(|(name, what)| format!("{name}: {what}"));
    let handshakes = provider.handshakes.iter().map(ToString::to_string);
    let lists: [(&str, Vec<String>); 4] = [
        ("A source says, as params:", params.collect()),
        ("Handshakes:", handshakes.collect()),
        ("Warnings:", warnings(provider)),
        ("Nobody has confirmed:", provider.unconfirmed.clone()),
    ];
    for (title, items) in lists.iter().filter(|(_, items)| !items.is_empty()) {
        let _ = write!(out, "\n{title}\n");
        for item in items {
            out.push_str(&wrapped("  - ", item));
        }
    }
    out
}

/// What a receiver must know before it relies on the proof.
fn warnings(provider: &Provider) -> Vec<String> {
    let scheme = &provider.scheme;
    let unsigned = match scheme.credential_place() {
        Some(_) => Some("nothing is signed: who learns the secret can send anything".to_owned()),
        None if !scheme.needs_secret() => {
            Some("nothing is signed and no secret is shown: a source needs a guard".into())
        }
        None => None,
    };
    let uncovered = provider.uncovered.as_ref().map(|text| {
        // Where a part of the body is signed, the sentence says which.
        format!("the signature does not cover the body: {text}")
    });
    let ambiguous = provider
        .ambiguous
        .as_ref()
        .map(|text| format!("what is signed can be taken apart in more than one way: {text}"));
    let short =
        provider.allow_short.then(|| "its secrets may be shorter than 16 bytes, and could be guessed".to_owned());
    let strangers = provider
        .signs_for_strangers()
        .then(|| "a handshake answers with a signature; webhooks that look like its token are refused".to_owned());
    let second_hand = (provider.evidence.kind == EvidenceKind::SecondHand)
        .then(|| "what is known of it is second-hand: send a test webhook before you rely on it".to_owned());
    [unsigned, uncovered, ambiguous, short, strangers, second_hand].into_iter().flatten().collect()
}

/// Words in lines of at most [`WIDTH`] columns, the further ones below the first.
fn wrapped(label: &str, text: &str) -> String {
    let (mut out, mut column) = (label.to_owned(), label.len());
    for (i, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if i > 0 && column + 1 + length > WIDTH {
            let _ = write!(out, "\n{:1$}", "", label.len());
            column = label.len();
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out + "\n"
}

/// What is known, as label and text; what does not apply is left out.
fn facts(provider: &Provider) -> Vec<(&'static str, String)> {
    let description = provider.scheme.description();
    let sender = &provider.sender;
    let signed = provider.scheme.is_signed();
    let methods: Vec<_> = provider.methods.iter().map(ToString::to_string).collect();
    let statuses =
        |set: &std::collections::BTreeSet<u16>| set.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let retried = match &sender.retries {
        None => "every status but 2xx".to_owned(),
        Some(set) if set.is_empty() => "nothing".to_owned(),
        Some(set) => statuses(set),
    };
    let facts = [
        ("proof", Some(proof(provider))),
        ("methods", Some(methods.join(", ")).filter(|methods| methods != "POST")),
        ("signatures in", signed.then(|| description.place.clone())),
        ("written as", signed.then(|| format!("{} in {}", description.grammar, description.encoding))),
        ("signed content", signed.then(|| description.content.replace('\n', "\\n"))),
        ("digest of body", description.body_hash),
        (
            "signs the URL",
            provider.scheme.needs_url().then(|| "yes: say public_url, as the provider has it".to_owned()),
        ),
        ("secret", provider.scheme.needs_secret().then(|| secret(provider))),
        ("timestamp", description.timestamp),
        ("id", description.id),
        ("nonce", description.nonce),
        (
            "tolerance",
            provider
                .tolerance
                .map(|t| format!("{} past, {} future", format_duration(t.past), format_duration(t.future))),
        ),
        ("event key", Some(event_key(&provider.event_key))),
        ("event type", provider.event_type.as_ref().map(locator)),
        (
            "attempt id",
            provider.attempt_id.as_ref().map(|at| format!("{} (not signed, never part of a key)", locator(at))),
        ),
        ("items", provider.items.as_ref().map(|items| format!("{} by {}", items.each, items.key.join(" + ")))),
        ("body at most", provider.body_bytes_max.map(format_size)),
        ("answer within", Some(format_duration(sender.deadline))),
        ("success", Some(sender.ack_status.map_or("any 2xx".to_owned(), |status| format!("exactly {status}")))),
        ("success body", sender.ack_body.clone()),
        ("retries for", Some(sender.retry_span.map_or("unknown".to_owned(), format_duration))),
        ("retries", Some(retried)),
        ("drops on", (!sender.drops.is_empty()).then(|| statuses(&sender.drops))),
        ("disables after", sender.disables_after.map(|n| format!("{n} failures in a row"))),
        ("stale", Some(word(provider.on_stale, &OnStale::ALL)).filter(|_| provider.scheme.is_timed())),
        ("mismatch", Some(word(provider.on_mismatch, &OnMismatch::ALL))),
        ("evidence", Some(format!("{}: {}", provider.evidence.kind.name(), provider.evidence.place))),
    ];
    facts.into_iter().filter_map(|(label, value)| Some((label, value?))).collect()
}

fn secret(provider: &Provider) -> String {
    let format = provider.key_format.name();
    match provider.scheme.key_kind() {
        Some(kind @ KeyKind::Public(_)) => format!("{} of the provider, as {format}", kind.name()),
        _ => format.to_owned(),
    }
}

fn event_key(key: &EventKey) -> String {
    match key {
        EventKey::Body => "digest of the body".to_owned(),
        EventKey::None => "none".to_owned(),
        EventKey::Parts(parts) => {
            let part = |part: &KeyPart| match part {
                KeyPart::Json(pointer) => pointer.clone(),
                KeyPart::Header(name) => format!("header:{name}"),
                KeyPart::Form(key) => format!("form:{key}"),
                KeyPart::Claim(name) => format!("claim:{name}"),
            };
            parts.iter().map(part).collect::<Vec<_>>().join(" + ")
        }
    }
}

fn locator(locator: &Locator) -> String {
    match locator {
        Locator::Header(name) => format!("header:{name}"),
        Locator::Json(pointer) => pointer.clone(),
        Locator::Form(key) => format!("form:{key}"),
    }
}

fn word<T: Copy + PartialEq>(value: T, known: &[(&'static str, T)]) -> String {
    known.iter().find(|(_, other)| *other == value).map_or("", |(name, _)| *name).to_owned()
}

fn as_json(provider: &Provider) -> Value {
    let description = provider.scheme.description();
    let sender = &provider.sender;
    let seconds = |duration: std::time::Duration| duration.as_secs_f64();
    let signature = provider.scheme.is_signed().then(|| {
        json!({
            "place": description.place,
            "headers": description.headers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "grammar": description.grammar,
            "encoding": description.encoding,
            "algorithm": provider.scheme.name(),
            "content": description.content,
            "timestamp": description.timestamp,
            "id": description.id,
            "nonce": description.nonce,
            "body_hash": description.body_hash,
        })
    });
    json!({
        "name": &*provider.name,
        "title": provider.title,
        "scheme": provider.scheme.name(),
        "proof": proof(provider),
        "covers_body": provider.scheme.is_signed() && provider.scheme.covers_body(),
        "timed": provider.scheme.is_timed(),
        "needs_url": provider.scheme.needs_url(),
        "methods": provider.methods.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "params": provider.params,
        "signature": signature,
        "key_format": provider.key_format.name(),
        "tolerance": provider.tolerance.map(|t| json!({ "past_s": seconds(t.past), "future_s": seconds(t.future) })),
        "event_key": event_key(&provider.event_key),
        "event_type": provider.event_type.as_ref().map(locator),
        "attempt_id": provider.attempt_id.as_ref().map(locator),
        "body_bytes_max": provider.body_bytes_max,
        "on_stale": word(provider.on_stale, &OnStale::ALL),
        "on_mismatch": word(provider.on_mismatch, &OnMismatch::ALL),
        "sender": {
            "deadline_s": seconds(sender.deadline),
            "retry_span_s": sender.retry_span.map(seconds),
            "retries": sender.retries,
            "drops": sender.drops,
            "disables_after": sender.disables_after,
            "ack_status": sender.ack_status,
            "ack_body": sender.ack_body,
        },
        "evidence": { "kind": provider.evidence.kind.name().to_string(), "place": provider.evidence.place },
        "handshakes": provider.handshakes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "ambiguous": provider.ambiguous,
        "uncovered": provider.uncovered,
        "unconfirmed": provider.unconfirmed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_preset() {
        let table = table(&preset::all());
        assert_eq!(table.lines().count(), 1 + preset::all().len());
        assert!(table.lines().all(|line| line.chars().count() <= WIDTH), "{table}");
        let line = table.lines().find(|line| line.starts_with("price2b")).expect("it ships");
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["price2b", "hmac-sha256", "-1d3h", "+5m", "5s", "1d2h36m", "vendor-doc"]
        );
    }

    #[test]
    fn one_in_full_shows_what_a_person_has_to_know() {
        let text = detail(&find("mobility-work").expect("it ships"));
        for part in [
            "x-mw-signature",
            "t=…,nonce=…,signature=<signature> in hex",
            "{timestamp}.{nonce}.{body}",
            "field t, seconds since 1970",
            "1h past, 5m future",
            "exactly 200",
            "retries         nothing",
            "Nobody has confirmed:",
            "vendor-doc: ",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        let text = detail(&find("partssource").expect("it ships"));
        for part in [
            "x-ps-signature, x-ps-signature-previous",
            "drops on        400, 401, 403, 404, 410",
            "never part of a key",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(!detail(&find("gains").expect("it ships")).contains("signed content"));
    }

    #[test]
    fn what_a_proof_does_not_prove_is_a_warning() {
        for (name, part) in [
            ("gains", "- nothing is signed: who learns the secret can send anything"),
            ("mailgun", "- the signature does not cover the body: Only the time and the token are signed"),
            ("trello", "- what is signed can be taken apart in more than one way: Body and URL"),
            ("trello", "- what is known of it is second-hand"),
            ("trello", "signs the URL   yes"),
            ("paypal", "- webhook_id: the id of the webhook"),
            ("discord", "an Ed25519 public key of the provider, as ed25519-hex"),
            ("ebay", "- GET with "),
            ("adyen-classic", "success body    [accepted]"),
        ] {
            let text = detail(&find(name).expect("it ships"));
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(!detail(&find("stripe").expect("it ships")).contains("Warnings:"));
    }

    #[test]
    fn long_sentences_go_on_below() {
        for provider in preset::all() {
            let text = detail(&provider);
            // One word may be longer than a line.
            let long = text.lines().find(|line| line.len() > WIDTH && line.trim_start().contains(' '));
            assert!(long.is_none_or(|line| line.split(' ').any(|word| word.len() > WIDTH - 20)), "{long:?}");
        }
        assert_eq!(wrapped("- ", "a b"), "- a b\n");
        let wide = "x".repeat(WIDTH - 2);
        assert_eq!(wrapped("- ", &format!("{wide} y")), format!("- {wide}\n  y\n"));
    }

    #[test]
    fn a_mistyped_name_gets_a_hint() {
        assert_eq!(
            find("partsource").err().map(|e| e.to_string()).as_deref(),
            Some("there is no provider `partsource`: did you mean `partssource`?")
        );
        assert!(find("acme").is_err_and(|e| e.to_string().contains("`hookward providers` lists the ")));
    }

    #[test]
    fn json_has_units_in_its_names() {
        let value = as_json(&find("gains").expect("it ships"));
        assert_eq!(value["sender"]["deadline_s"], json!(90.0));
        assert_eq!(
            (&value["covers_body"], &value["timed"], &value["scheme"]),
            (&json!(false), &json!(false), &json!("credential"))
        );
        let stripe = as_json(&find("stripe").expect("it ships"));
        assert_eq!((&stripe["covers_body"], &stripe["timed"]), (&json!(true), &json!(true)));
        assert_eq!((&value["signature"], &value["proof"]), (&Value::Null, &json!("header:authorization")));
    }
}
