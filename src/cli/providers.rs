//! `hookward providers`.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    document::{format_duration, format_size},
    preset::{self, Locator, OnMismatch, OnStale, Provider},
    verify::{EventKey, KeyPart},
};

const EXAMPLES: &str = "Examples:
  hookward providers                 a table of all
  hookward providers mobility-work   one in full, with what nobody has confirmed
  hookward providers --json          for programs

A provider of your own goes into the configuration as [providers.NAME]: config.example.toml shows \
every key.";

/// Show the providers that ship: schemes, headers, deadlines, retry spans, evidence.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Show this one in full.
    name: Option<String>,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[expect(clippy::unused_async, reason = "every command has one shape")]
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let text = match (&args.name, args.json) {
        (Some(name), true) => format!("{:#}\n", as_json(find(name)?.as_ref())),
        (Some(name), false) => detail(find(name)?.as_ref()),
        (None, true) => {
            let all: Vec<_> = preset::all().iter().map(|provider| as_json(provider)).collect();
            format!("{:#}\n", Value::Array(all))
        }
        (None, false) => table(),
    };
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// The preset of a name typed by a person.
pub(super) fn find(name: &str) -> anyhow::Result<std::sync::Arc<Provider>> {
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

fn table() -> String {
    let head = ["NAME", "PROOF", "TIME SIGNED", "ANSWER WITHIN", "RETRIES FOR", "EVIDENCE"].map(str::to_owned);
    let rows = preset::all().into_iter().map(|provider| {
        [
            provider.name.to_string(),
            proof(&provider),
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

fn detail(provider: &Provider) -> String {
    let mut out = format!("{} ({})\n\n", provider.title, provider.name);
    for (label, value) in facts(provider) {
        let _ = writeln!(out, "  {label:<16}{value}");
    }
    if !provider.unconfirmed.is_empty() {
        out.push_str("\nNobody has confirmed:\n");
        provider.unconfirmed.iter().for_each(|sentence| {
            let _ = writeln!(out, "  - {sentence}");
        });
    }
    out
}

/// What is known, as label and text; what does not apply is left out.
fn facts(provider: &Provider) -> Vec<(&'static str, String)> {
    let description = provider.scheme.description();
    let sender = &provider.sender;
    let signed = provider.scheme.is_signed();
    let headers: Vec<_> = description.headers.iter().map(ToString::to_string).collect();
    let statuses =
        |set: &std::collections::BTreeSet<u16>| set.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let retried = match &sender.retries {
        None => "every status but 2xx".to_owned(),
        Some(set) if set.is_empty() => "nothing".to_owned(),
        Some(set) => statuses(set),
    };
    let facts = [
        ("proof", Some(proof(provider))),
        ("signatures in", signed.then(|| headers.join(", "))),
        ("written as", signed.then(|| format!("{} in {}", description.grammar, description.encoding))),
        ("signed content", signed.then_some(description.content)),
        ("secret", provider.scheme.needs_secret().then(|| provider.key_format.name().to_owned())),
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
        ("handshake", handshakes(provider)),
        ("body at most", provider.body_bytes_max.map(format_size)),
        ("answer within", Some(format_duration(sender.deadline))),
        ("success", Some(sender.ack_status.map_or("any 2xx".to_owned(), |status| format!("exactly {status}")))),
        ("retries for", Some(sender.retry_span.map_or("unknown".to_owned(), format_duration))),
        ("retries", Some(retried)),
        ("drops on", (!sender.drops.is_empty()).then(|| statuses(&sender.drops))),
        ("disables after", sender.disables_after.map(|n| format!("{n} failures in a row"))),
        ("stale", Some(word(provider.on_stale, &OnStale::ALL)).filter(|_| provider.scheme.is_timed())),
        ("mismatch", Some(word(provider.on_mismatch, &OnMismatch::ALL))),
        ("evidence", Some(format!("{}: {}", provider.evidence.kind.name(), provider.evidence.place))),
        ("known answers", Some(provider.vectors.len().to_string())),
    ];
    facts.into_iter().filter_map(|(label, value)| Some((label, value?))).collect()
}

fn handshakes(provider: &Provider) -> Option<String> {
    let texts: Vec<_> = provider.handshakes.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
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
            "headers": description.headers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "grammar": description.grammar,
            "encoding": description.encoding,
            "algorithm": provider.scheme.name(),
            "content": description.content,
            "timestamp": description.timestamp,
            "id": description.id,
            "nonce": description.nonce,
        })
    });
    json!({
        "name": &*provider.name,
        "title": provider.title,
        "proof": proof(provider),
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
        },
        "evidence": { "kind": provider.evidence.kind.name().to_string(), "place": provider.evidence.place },
        "unconfirmed": provider.unconfirmed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_preset() {
        let table = table();
        assert_eq!(table.lines().count(), 1 + preset::all().len());
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
        assert_eq!((&value["signature"], &value["proof"]), (&Value::Null, &json!("header:authorization")));
    }
}
