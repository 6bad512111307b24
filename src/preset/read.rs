//! Reading a provider from TOML: a shipped preset, or `[providers.NAME]` of a configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    time::Duration,
};

use http::{HeaderName, Method};

use super::{
    Evidence, EvidenceKind, Items, Locator, OnMismatch, OnStale, Provider, Sender, Vector, handshake, signature,
};
use crate::{
    document::{FromValue, Section, Size, Value},
    verify::{CredentialPlace, EventKey, KeyFormat, KeyKind, KeyPart, Place, Scheme, Tolerance, json},
};

const LOCATOR_HELP: &str = "write a JSON pointer such as \"/id\", a header such as \"header:x-request-id\", or a form field such as \"form:id\"";
const EVENT_KEY_HELP: &str =
    "write \"body\", \"none\", or a list of signed parts such as [\"/id\", \"header:webhook-id\"]";
/// How long a provider waits for an answer if nothing says so.
const DEADLINE: Duration = Duration::from_secs(10);

/// Reads a provider. Every problem is reported with its place; `None` if one of them leaves no provider.
pub fn read(mut section: Section<'_>, name: &str) -> Option<Provider> {
    let errors_before = section.problems().errors();
    read_schema(&mut section);
    let title = section.read_or("title", name.to_owned());
    let key_format = choice(&mut section, "key_format", &KeyFormat::ALL).unwrap_or(KeyFormat::Utf8);
    let allow_short = section.read_or("allow_short", false);
    let params = handshake::read_params(&mut section);
    let Schemed { scheme, tolerance, ambiguous, uncovered } = read_scheme(&mut section);
    if let Some(scheme) = &scheme {
        check_params(&section, scheme, &params);
        check_key_format(&section, scheme, key_format);
    }
    let methods = read_methods(&mut section);
    let event_key = section.value("event_key").and_then(|value| event_key(value, scheme.as_ref()));
    let event_type = section.read("event_type").map(|at| at.value);
    let attempt_id = section.read("attempt_id").map(|at| at.value);
    let context = handshake::Context { params: &params, methods: &methods };
    let handshakes = handshake::read_all(&mut section, context);
    let items = section.read("items").map(|at| at.value);
    let sender = section.section("sender").and_then(read_sender);
    let on_stale = choice(&mut section, "on_stale", &OnStale::ALL).unwrap_or(OnStale::Reject);
    let on_mismatch = choice(&mut section, "on_mismatch", &OnMismatch::ALL);
    let body_bytes_max = section.read::<Size>("body_bytes_max").map(|at| at.value.0);
    let evidence = section.section("evidence").and_then(read_evidence);
    let unconfirmed = section.read_or("unconfirmed", Vec::new());
    let sample = section.read::<String>("sample").map(|at| at.value.into_bytes());
    let vectors = tables(&mut section, "vectors", read_vector);
    let clean = section.problems().errors() == errors_before;
    let problems = section.problems();
    section.finish();
    if !clean || problems.errors() != errors_before {
        return None;
    }
    let is_second_hand = evidence.as_ref().is_some_and(|evidence| evidence.kind == EvidenceKind::SecondHand);
    let if_absent = if is_second_hand { OnMismatch::Retry } else { OnMismatch::Reject };
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
        on_mismatch: on_mismatch.unwrap_or(if_absent),
        body_bytes_max,
        evidence: evidence.unwrap_or(Evidence { kind: EvidenceKind::SecondHand, place: "the configuration".into() }),
        allow_short,
        methods,
        sample,
        ambiguous,
        uncovered,
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
        let Part(place) = value.get::<Part>()?;
        if scheme.is_some_and(|scheme| !scheme.signs(&place)) {
            seen.error(
                format!("{} is not inside the signed content", shown_place(&place)),
                "anybody could change it: use what is signed, or \"body\"",
            );
            return None;
        }
        Some(match place {
            Place::Header(name) => KeyPart::Header(name),
            Place::Form(key) => KeyPart::Form(key),
            Place::Claim(name) => KeyPart::Claim(name),
            Place::Json(pointer) => KeyPart::Json(pointer),
            // Nothing else is read from a text.
            Place::Field(_) | Place::Position(_) | Place::Query(_) => return None,
        })
    });
    // All parts are read, so that every wrong one is reported.
    parts.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>().map(EventKey::Parts)
}

/// A scheme, and what its provider says of it.
#[derive(Default)]
struct Schemed {
    scheme: Option<Scheme>,
    tolerance: Option<Tolerance>,
    ambiguous: Option<String>,
    uncovered: Option<String>,
}

fn read_scheme(section: &mut Section<'_>) -> Schemed {
    let signature = section.value("signature");
    let credential = section.value("credential");
    let signed = |signature: Value<'_>| match signature.section().and_then(signature::read) {
        Some((scheme, signed)) => Schemed {
            scheme: Some(scheme),
            tolerance: signed.tolerance,
            ambiguous: signed.ambiguous,
            uncovered: signed.uncovered,
        },
        None => Schemed::default(),
    };
    match (signature, credential) {
        (Some(signature), Some(credential)) => {
            credential.error(
                "a provider has a signature or a credential, not both",
                "remove one; a source may have an address list beside a signature",
            );
            signed(signature)
        }
        (Some(signature), None) => signed(signature),
        (None, Some(credential)) => {
            let scheme = credential.as_text().and_then(CredentialPlace::parse).map(Scheme::credential);
            if scheme.is_none() {
                credential.error(
                    format!("`{}` is no place for a credential", credential.path()),
                    "write \"token\" (the {token} segment of the path), \"basic\", \"header:NAME\", \"query:NAME\" or \"json:/POINTER\"",
                );
            }
            Schemed { scheme, ..Schemed::default() }
        }
        (None, None) => Schemed { scheme: Some(Scheme::none()), ..Schemed::default() },
    }
}

/// The version of the schema: there is one.
fn read_schema(section: &mut Section<'_>) {
    if let Some(at) = section.read::<u64>("schema").filter(|at| at.value != 1) {
        section.problems().error(
            &at.place,
            format!("schema {} is not known here", at.value),
            "this version reads schema 1; a newer one may read more",
        );
    }
}

fn read_params(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let entries = section.section("params").map(|mut table| table.entries()).unwrap_or_default();
    entries.into_iter().filter_map(|(name, value)| Some((name.value, value.get::<String>()?))).collect()
}

/// Every parameter that the scheme uses is declared, so that a source is told what it needs.
fn check_params(section: &Section<'_>, scheme: &Scheme, params: &BTreeMap<String, String>) {
    for name in scheme.params() {
        if !params.contains_key(name) {
            section.problems().error(
                section.place(),
                format!("the parameter `{name}` is used and not declared"),
                format!("add params = {{ {name} = \"what it is, and where it is shown\" }}"),
            );
        }
    }
}

/// A public key for signatures made with a private one, a shared secret for the others.
fn check_key_format(section: &Section<'_>, scheme: &Scheme, format: KeyFormat) {
    let Some(kind) = scheme.key_kind() else { return };
    if (kind == KeyKind::Shared) == format.is_public() {
        let help = if format.is_public() {
            "write how the shared secret is given: \"utf8\", \"base64\", \"whsec\" or \"hex\""
        } else {
            "write how the public key is given: \"pem\", \"spki-base64\", \"ed25519-hex\", \"ed25519-base64\" or \"jwk\""
        };
        let message = format!("signatures are checked with {}, and `key_format` is \"{}\"", kind.name(), format.name());
        section.problems().error(section.place(), message, help);
    }
}

fn read_methods(section: &mut Section<'_>) -> Vec<Method> {
    const KNOWN: [Method; 3] = [Method::POST, Method::GET, Method::PUT];
    let Some(at) = section.read::<Vec<String>>("methods") else { return vec![Method::POST] };
    let found: Vec<Method> =
        KNOWN.into_iter().filter(|known| at.value.iter().any(|text| text == known.as_str())).collect();
    if found.len() != at.value.len() || found.is_empty() {
        section.problems().error(
            &at.place,
            "a webhook comes with one of POST, GET and PUT",
            "write methods = [\"POST\"], or leave it out",
        );
    }
    found
}

fn read_sender(mut section: Section<'_>) -> Option<Sender> {
    let deadline = section.read_or("deadline", DEADLINE);
    let retry_span = section.read("retry_span").map(|at| at.value);
    let retries = section.read::<Vec<Status>>("retries").map(|at| statuses(&at.value));
    let drops = section.read::<Vec<Status>>("drops").map(|at| statuses(&at.value)).unwrap_or_default();
    let disables_after = section.read("disables_after").map(|at| at.value);
    let ack_status = section.read::<Status>("ack_status");
    let ack_body = section.read::<String>("ack_body").map(|at| at.value);
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
    Some(Sender { deadline, retry_span, retries, drops, disables_after, ack_status, ack_body })
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
    let secret = section.read::<String>("secret").map(|at| at.value);
    let secrets = section.read_or("secrets", Vec::new());
    let params = read_params(&mut section);
    let method = section.read_or("method", "POST".to_owned());
    let url = section.read("url").map(|at| at.value);
    let headers = section.section("headers").map(|mut table| table.entries()).unwrap_or_default();
    let token = section.read("token").map(|at| at.value);
    let body = section.required::<String>("body", "the exact body");
    let now_s = section.required::<u64>("now", "the time of the check in Unix seconds");
    let valid = section.required("valid", "true or false");
    let (problems, place) = (section.problems(), section.place().clone());
    section.finish();
    let secrets: Vec<String> = secret.into_iter().chain(secrets).collect();
    if secrets.is_empty() {
        problems.error(&place, "a known answer needs a secret", "the secret as a user would configure it");
        return None;
    }
    let headers = headers.into_iter().map(|(name, value)| Some((name.value, value.get()?)));
    Some(Vector {
        id: id?.value,
        secrets,
        params,
        method,
        url,
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
        let found = match parse_place(&text) {
            Some(Place::Header(name)) => Some(Self::Header(name)),
            Some(Place::Json(pointer)) => Some(Self::Json(pointer)),
            Some(Place::Form(key)) => Some(Self::Form(key)),
            _ => None,
        };
        if found.is_none() {
            seen.error(format!("\"{text}\" is no place in a request"), LOCATOR_HELP);
        }
        found
    }
}

/// A part of an event key.
struct Part(Place);

impl FromValue for Part {
    fn from_value(value: Value<'_>) -> Option<Self> {
        let seen = value.clone();
        let text: String = value.get()?;
        let found = parse_place(&text);
        if found.is_none() {
            seen.error(format!("\"{text}\" is no place in a request"), LOCATOR_HELP);
        }
        found.map(Self)
    }
}

/// `/pointer`, `header:NAME`, `form:KEY` or `claim:NAME`.
fn parse_place(text: &str) -> Option<Place> {
    match text.split_once(':') {
        _ if json::is_pointer(text) => Some(Place::Json(text.to_owned())),
        Some(("header", name)) => HeaderName::from_bytes(name.as_bytes()).ok().map(Place::Header),
        Some(("form", key)) if !key.is_empty() => Some(Place::Form(key.to_owned())),
        Some(("claim", name)) if !name.is_empty() => Some(Place::Claim(name.to_owned())),
        _ => None,
    }
}

fn shown_place(place: &Place) -> String {
    match place {
        Place::Header(name) => format!("the header `{name}`"),
        other => format!("`{other}`"),
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
