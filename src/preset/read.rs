//! Reading a provider from TOML: a shipped preset, or `[providers.NAME]` of a configuration.

use std::{collections::BTreeSet, fmt::Display, time::Duration};

use http::HeaderName;

use super::{Evidence, EvidenceKind, Items, Locator, OnMismatch, OnStale, Provider, Sender, Vector, handshake};
use crate::{
    document::{At, FromValue, Place as TextPlace, Section, Size, Value},
    verify::{
        Algorithm, CredentialPlace, Encoding, EventKey, Grammar, KeyFormat, KeyPart, Place, Scheme, SignedSpec,
        TimeUnit, Tolerance, json,
    },
};

const LOCATOR_HELP: &str = "write a JSON pointer such as \"/id\", or a header such as \"header:x-request-id\"";
const EVENT_KEY_HELP: &str =
    "write \"body\", \"none\", or a list of signed parts such as [\"/id\", \"header:webhook-id\"]";
/// How long a provider waits for an answer if nothing says so.
const DEADLINE: Duration = Duration::from_secs(10);

/// Reads a provider. Every problem is reported with its place; `None` if one of them leaves no provider.
pub fn read(mut section: Section<'_>, name: &str) -> Option<Provider> {
    let errors_before = section.problems().errors();
    let title = section.read_or("title", name.to_owned());
    let key_format = choice(&mut section, "key_format", &KeyFormat::ALL).unwrap_or(KeyFormat::Utf8);
    let (scheme, tolerance) = read_scheme(&mut section);
    let event_key = section.value("event_key").and_then(|value| event_key(value, scheme.as_ref()));
    let event_type = section.read("event_type").map(|at| at.value);
    let attempt_id = section.read("attempt_id").map(|at| at.value);
    let params = handshake::read_params(&mut section);
    let context = handshake::Context { params: &params, methods: &super::WEBHOOK_METHODS };
    let handshakes = handshake::read_all(&mut section, context);
    let items = section.read("items").map(|at| at.value);
    let sender = section.section("sender").and_then(read_sender);
    let on_stale = choice(&mut section, "on_stale", &OnStale::ALL).unwrap_or(OnStale::Reject);
    let on_mismatch = choice(&mut section, "on_mismatch", &OnMismatch::ALL).unwrap_or(OnMismatch::Reject);
    let body_bytes_max = section.read::<Size>("body_bytes_max").map(|at| at.value.0);
    let evidence = section.section("evidence").and_then(read_evidence);
    let unconfirmed = section.read_or("unconfirmed", Vec::new());
    let vectors = tables(&mut section, "vectors", read_vector);
    let clean = section.problems().errors() == errors_before;
    let problems = section.problems();
    section.finish();
    if !clean || problems.errors() != errors_before {
        return None;
    }
    Some(Provider {
        name: name.into(),
        title,
        scheme: scheme?,
        key_format,
        tolerance,
        event_key: event_key.unwrap_or(EventKey::Body),
        event_type,
        attempt_id,
        params,
        handshakes,
        items,
        sender: sender.unwrap_or_else(Sender::unknown),
        on_stale,
        on_mismatch,
        body_bytes_max,
        evidence: evidence.unwrap_or(Evidence { kind: EvidenceKind::SecondHand, place: "the configuration".into() }),
        unconfirmed,
        vectors,
    })
}

/// Reads an event key: `"body"`, `"none"`, or a list of parts that the scheme signs.
pub fn event_key(value: Value<'_>, scheme: Option<&Scheme>) -> Option<EventKey> {
    match value.as_text() {
        Some("body") => return Some(EventKey::Body),
        Some("none") => return Some(EventKey::None),
        Some(text) => {
            value.error(format!("\"{text}\" is no event key"), EVENT_KEY_HELP);
            return None;
        }
        None if !value.is_list() => {
            value.error("an event key is a text or a list", EVENT_KEY_HELP);
            return None;
        }
        None => {}
    }
    let empty = value.clone();
    let values = value.list()?;
    if values.is_empty() {
        empty.error("an event key without parts would be the same for every event", EVENT_KEY_HELP);
        return None;
    }
    let parts = values.into_iter().map(|value| {
        let seen = value.clone();
        match value.get::<Locator>()? {
            Locator::Json(pointer) => Some(KeyPart::Json(pointer)),
            Locator::Header(name) if scheme.is_none_or(|scheme| scheme.signs_header(&name)) => {
                Some(KeyPart::Header(name))
            }
            Locator::Header(name) => {
                seen.error(
                    format!("the header `{name}` is not inside the signed content"),
                    "anybody could change it: use signed fields of the body, or \"body\"",
                );
                None
            }
        }
    });
    // All parts are read, so that every wrong one is reported.
    parts.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>().map(EventKey::Parts)
}

fn read_scheme(section: &mut Section<'_>) -> (Option<Scheme>, Option<Tolerance>) {
    let signature = section.value("signature");
    let credential = section.value("credential");
    match (signature, credential) {
        (Some(signature), Some(credential)) => {
            credential.error(
                "a provider has a signature or a credential, not both",
                "remove one; a source may have an address list beside a signature",
            );
            (signature.section().and_then(read_signature).map(|(scheme, _)| scheme), None)
        }
        (Some(signature), None) => match signature.section().and_then(read_signature) {
            Some((scheme, tolerance)) => (Some(scheme), tolerance),
            None => (None, None),
        },
        (None, Some(credential)) => {
            let scheme = credential.as_text().and_then(CredentialPlace::parse).map(Scheme::credential);
            if scheme.is_none() {
                credential.error(
                    format!("`{}` is no place for a credential", credential.path()),
                    "write \"token\" (the {token} segment of the path), \"basic\", or \"header:NAME\"",
                );
            }
            (scheme, None)
        }
        (None, None) => (Some(Scheme::none()), None),
    }
}

fn read_signature(mut section: Section<'_>) -> Option<(Scheme, Option<Tolerance>)> {
    let whole = section.place().clone();
    let problems = section.problems();
    let headers =
        section.required::<Vec<Header>>("headers", "name the headers that carry signatures: [\"x-signature\"]");
    let grammar_kind = section.read::<String>("grammar");
    let prefix = section.read_or("prefix", String::new());
    let separator = section.read::<String>("separator");
    let field = section.read::<String>("field");
    let trim = section.read_or("trim", false);
    let encoding = choice(&mut section, "encoding", &Encoding::ALL).unwrap_or(Encoding::Hex);
    let algorithm = choice(&mut section, "algorithm", &Algorithm::ALL).unwrap_or(Algorithm::HmacSha256);
    let content = section.required::<String>("content", "write what is signed, such as \"{timestamp}.{body}\"");
    let timestamp =
        section.value("timestamp").map(|value| (value.place().clone(), value.section().and_then(read_timestamp)));
    let id = section.value("id").map(|value| (value.place().clone(), value.section().and_then(read_place)));
    let nonce = section.value("nonce").map(|value| (value.place().clone(), value.section().and_then(read_place)));
    let tolerance = section.section("tolerance").map(|table| (table.place().clone(), read_tolerance(table)));
    section.finish();

    let one = separator.as_ref().and_then(|text| {
        let mut chars = text.chars();
        chars.next().filter(|_| chars.next().is_none())
    });
    let grammar = match (grammar_kind.as_deref().map_or("plain", String::as_str), one, field) {
        ("plain", _, _) => Some(Grammar::Plain { prefix }),
        ("fields", Some(separator), Some(field)) => Some(Grammar::Fields { separator, signature: field.value, trim }),
        ("list", Some(separator), _) => Some(Grammar::List { separator, prefix }),
        _ => None,
    };
    let grammar_place = grammar_kind.map_or_else(|| whole.clone(), |at| at.place);
    if grammar.is_none() {
        problems.error(
            &grammar_place,
            "the grammar of the signature header is incomplete",
            "\"plain\" (with `prefix`), \"fields\" (with `separator` and `field`) or \"list\" (with `separator` and `prefix`)",
        );
    }
    let content_place = content.as_ref().map_or_else(|| whole.clone(), |at| at.place.clone());
    if content.as_ref().is_some_and(|at| !at.contains("{body}")) {
        problems.error(
            &content_place,
            "the signed content is without {body}",
            "a body that is not signed could be changed on the way; use a credential instead",
        );
        return None;
    }
    let place_of = |part: &str, headers: &At<Vec<Header>>| match part {
        "headers" => headers.place.clone(),
        "grammar" => grammar_place.clone(),
        "timestamp" => timestamp.as_ref().map_or_else(|| whole.clone(), |(at, _)| at.clone()),
        "id" => id.as_ref().map_or_else(|| whole.clone(), |(at, _)| at.clone()),
        "nonce" => nonce.as_ref().map_or_else(|| whole.clone(), |(at, _)| at.clone()),
        _ => content_place.clone(),
    };
    let timed = timestamp.is_some();
    let (headers, content, grammar) = (headers?, content?, grammar?);
    let spec = SignedSpec {
        headers: headers.value.iter().map(|header| header.0.clone()).collect(),
        grammar,
        encoding,
        algorithm,
        content: content.value,
        timestamp: whole_or_nothing(timestamp.as_ref())?,
        id: whole_or_nothing(id.as_ref())?,
        nonce: whole_or_nothing(nonce.as_ref())?,
    };
    let scheme = match Scheme::signed(spec) {
        Ok(scheme) => scheme,
        Err(error) => {
            problems.error(&place_of(error.part, &headers), error.message, error.help);
            return None;
        }
    };
    match tolerance {
        Some((_, tolerance)) if timed => Some((scheme, Some(tolerance?))),
        None if !timed => Some((scheme, None)),
        Some((place, _)) => {
            problems.error(&place, "there is a tolerance, and no timestamp is signed", "remove it, or add `timestamp`");
            None
        }
        None => {
            let help = "say how far the signed time may be off: tolerance = { past = \"5m\", future = \"5m\" }";
            problems.error(&place_of("timestamp", &headers), "a timestamp is signed, and there is no tolerance", help);
            None
        }
    }
}

/// `Some(None)` if absent, `None` if wrong.
#[expect(clippy::option_option, reason = "absent and wrong are two things, and both are used at once")]
fn whole_or_nothing<T: Clone>(read: Option<&(TextPlace, Option<T>)>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some((_, value)) => value.clone().map(Some),
    }
}

fn read_timestamp(mut section: Section<'_>) -> Option<(Place, TimeUnit)> {
    let missing = !section.has("unit");
    let unit = choice(&mut section, "unit", &TimeUnit::ALL);
    if missing {
        section.problems().error(section.place(), "the unit of the timestamp is missing", "add unit = \"s\" or \"ms\"");
    }
    Some((read_place(section)?, unit?))
}

fn read_place(mut section: Section<'_>) -> Option<Place> {
    let header = section.read::<Header>("header");
    let field = section.read::<String>("field");
    let (problems, place) = (section.problems(), section.place().clone());
    section.finish();
    match (header, field) {
        (Some(header), None) => Some(Place::Header(header.value.0)),
        (None, Some(field)) => Some(Place::Field(field.value)),
        _ => {
            problems.error(&place, "one place is needed", "write { header = \"NAME\" }, or { field = \"KEY\" }");
            None
        }
    }
}

fn read_tolerance(mut section: Section<'_>) -> Option<Tolerance> {
    const HELP: &str = "always two values: { past = \"5m\", future = \"5m\" }";
    let past = section.required("past", HELP);
    let future = section.required("future", HELP);
    section.finish();
    Some(Tolerance { past: past?.value, future: future?.value })
}

fn read_sender(mut section: Section<'_>) -> Option<Sender> {
    let deadline = section.read_or("deadline", DEADLINE);
    let retry_span = section.read("retry_span").map(|at| at.value);
    let retries = section.read::<Vec<Status>>("retries").map(|at| statuses(&at.value));
    let drops = section.read::<Vec<Status>>("drops").map(|at| statuses(&at.value)).unwrap_or_default();
    let disables_after = section.read("disables_after").map(|at| at.value);
    let ack_status = section.read::<Status>("ack_status");
    let problems = section.problems();
    section.finish();
    if let Some(status) = ack_status.as_ref().filter(|status| !(200..300).contains(&status.0)) {
        problems.error(
            &status.place,
            "an acknowledgement is a 2xx status",
            "write the one that the provider insists on",
        );
        return None;
    }
    let ack_status = ack_status.map(|status| status.0);
    Some(Sender { deadline, retry_span, retries, drops, disables_after, ack_status })
}

fn read_evidence(mut section: Section<'_>) -> Option<Evidence> {
    let missing = !section.has("kind");
    let kind = choice(&mut section, "kind", &EvidenceKind::ALL);
    if missing {
        let names: Vec<_> = EvidenceKind::ALL.iter().map(|(name, _)| *name).collect();
        section.problems().error(
            section.place(),
            "the kind of evidence is missing",
            format!("one of: {}", names.join(", ")),
        );
    }
    let place = section.required("place", "name the page, or the file of the library");
    section.finish();
    Some(Evidence { kind: kind?, place: place?.value })
}

fn read_vector(mut section: Section<'_>) -> Option<Vector> {
    let id = section.required("id", "name it");
    let secret = section.required("secret", "the secret as a user would configure it");
    let headers = section.section("headers").map(|mut table| table.entries()).unwrap_or_default();
    let token = section.read("token").map(|at| at.value);
    let body = section.required::<String>("body", "the exact body");
    let now_s = section.required::<u64>("now", "the time of the check in Unix seconds");
    let valid = section.required("valid", "true or false");
    section.finish();
    let headers = headers.into_iter().map(|(name, value)| Some((name.value, value.get()?)));
    Some(Vector {
        id: id?.value,
        secret: secret?.value,
        headers: headers.collect::<Option<_>>()?,
        token,
        body: body?.value.into_bytes(),
        now_s: i64::try_from(now_s?.value).ok()?,
        valid: valid?.value,
    })
}

/// The tables of a list, each read; those that are wrong are reported and left out.
fn tables<T>(section: &mut Section<'_>, key: &'static str, read: fn(Section<'_>) -> Option<T>) -> Vec<T> {
    let values = section.value(key).and_then(Value::list).unwrap_or_default();
    values.into_iter().filter_map(|value| value.section().and_then(read)).collect()
}

/// One of a closed set of words.
pub(super) fn choice<T: Copy>(section: &mut Section<'_>, key: &'static str, known: &[(&'static str, T)]) -> Option<T> {
    let at = section.read::<String>(key)?;
    let found = known.iter().find(|(name, _)| *name == at.value);
    if found.is_none() {
        let near = known
            .iter()
            .map(|(name, _)| (strsim::damerau_levenshtein(&at.value, name), *name))
            .min()
            .filter(|(distance, name)| *distance <= 1 + name.len() / 4);
        let names: Vec<_> = known.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let help = match near {
            Some((_, name)) => format!("did you mean \"{name}\"?"),
            None => format!("one of: {}", names.join(", ")),
        };
        section.problems().error(&at.place, format!("`{key}` cannot be \"{}\"", at.value), help);
    }
    found.map(|(_, value)| *value)
}

fn statuses(list: &[Status]) -> BTreeSet<u16> {
    list.iter().map(|status| status.0).collect()
}

struct Status(u16);

impl FromValue for Status {
    fn from_value(value: Value<'_>) -> Option<Self> {
        let seen = value.clone();
        let number = value.get::<u16>()?;
        let valid = (100..600).contains(&number);
        if !valid {
            seen.error(format!("{number} is no HTTP status"), "a status is a number from 100 to 599");
        }
        valid.then_some(Self(number))
    }
}

pub(super) struct Header(pub(super) HeaderName);

impl FromValue for Header {
    fn from_value(value: Value<'_>) -> Option<Self> {
        let seen = value.clone();
        let text: String = value.get()?;
        let name = HeaderName::from_bytes(text.as_bytes());
        if name.is_err() {
            seen.error(format!("\"{text}\" is no name of a header"), "letters, digits and hyphens");
        }
        name.ok().map(Self)
    }
}

pub(super) struct Pointer(pub(super) String);

impl FromValue for Pointer {
    fn from_value(value: Value<'_>) -> Option<Self> {
        let seen = value.clone();
        let text: String = value.get()?;
        let valid = json::is_pointer(&text);
        if !valid {
            wrong_pointer(&seen, &text);
        }
        valid.then_some(Self(text))
    }
}

fn wrong_pointer(value: &Value<'_>, text: &str) {
    let most = json::POINTER_STEPS_MAX;
    let help = format!("a pointer begins with `/` and has at most {most} steps: \"/data/id\"");
    value.error(format!("\"{text}\" is no JSON pointer"), help);
}

impl FromValue for Locator {
    fn from_value(value: Value<'_>) -> Option<Self> {
        let seen = value.clone();
        let text: String = value.get()?;
        if let Some(name) = text.strip_prefix("header:") {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                return Some(Self::Header(name));
            }
        } else if json::is_pointer(&text) {
            return Some(Self::Json(text));
        }
        seen.error(format!("\"{text}\" is no place in a request"), LOCATOR_HELP);
        None
    }
}

impl FromValue for Items {
    fn from_value(value: Value<'_>) -> Option<Self> {
        const HELP: &str = "write { each = \"/Data\", key = [\"/TrackingNumber\"] }";
        let mut section = value.section()?;
        let each = section.required::<Pointer>("each", HELP);
        let key = section.required::<Vec<Pointer>>("key", HELP);
        let problems = section.problems();
        section.finish();
        let (each, key) = (each?, key?);
        if key.value.is_empty() {
            problems.error(&key.place, "an item key without pointers would be the same for every item", HELP);
            return None;
        }
        Some(Self { each: each.value.0, key: key.value.into_iter().map(|pointer| pointer.0).collect() })
    }
}

/// The name of a value of a closed set.
pub(super) fn name_of<T: Copy + PartialEq>(value: T, known: &[(&'static str, T)]) -> impl Display + use<T> {
    known.iter().find(|(_, other)| *other == value).map_or("", |(name, _)| *name)
}
