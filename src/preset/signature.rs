//! Reading `[signature]`: how a provider signs.

use std::collections::BTreeMap;

use http::HeaderName;

use super::read::{Header, Pointer, choice};
use crate::{
    document::{At, Place as TextPlace, Problems, Section},
    verify::{
        Algorithm, BodyHash, Encoding, Grammar, JwtSpec, Place, Scheme, SignaturePlace, SignedSpec, TimeUnit,
        Tolerance, UrlPort, Whom,
    },
};

/// What stands beside the scheme itself.
pub(super) struct Beside {
    pub(super) tolerance: Option<Tolerance>,
    pub(super) ambiguous: Option<String>,
    pub(super) uncovered: Option<String>,
}

/// Reads a signed scheme. Every problem is reported with its place.
pub(super) fn read(mut section: Section<'_>) -> Option<(Scheme, Beside)> {
    let whole = section.place().clone();
    let problems = section.problems();
    let mut places = Places { whole: whole.clone(), of: BTreeMap::new() };

    places.note(&section, ["headers", "json", "form", "query"], "headers");
    let place = read_signature_place(&mut section);
    places.note(&section, ["grammar", "jwt"], "grammar");
    for part in ["separator", "groups", "assign", "jwt"] {
        places.note(&section, [part], part);
    }
    let grammar = read_grammar(&mut section);
    let encoding = choice(&mut section, "encoding", &Encoding::ALL).unwrap_or(Encoding::Hex);
    let algorithm = choice(&mut section, "algorithm", &Algorithm::ALL).unwrap_or(Algorithm::HmacSha256);
    let url_port = choice(&mut section, "url_port", &UrlPort::ALL).unwrap_or(UrlPort::Exact);
    for part in ["content", "timestamp", "id", "nonce", "body_hash", "ambiguous", "uncovered", "tolerance"] {
        places.note(&section, [part], part);
    }
    let is_token = matches!(grammar, Some(Grammar::Jwt { .. }));
    let content = if is_token {
        section.read::<String>("content").or_else(|| Some(At { value: String::new(), place: whole.clone() }))
    } else {
        section.required::<String>("content", "write what is signed, such as \"{timestamp}.{body}\"")
    };
    let timestamp = section.value("timestamp").map(|value| value.section().and_then(read_timestamp));
    let id = section.value("id").map(|value| value.section().and_then(read_place));
    let nonce = section.value("nonce").map(|value| value.section().and_then(read_place));
    let body_hash = section.value("body_hash").map(|value| value.section().and_then(read_body_hash));
    let tolerance = section.section("tolerance").map(read_tolerance);
    let requires = read_requires(&mut section);
    let ambiguous = section.read::<String>("ambiguous").map(|at| at.value);
    let uncovered = section.read::<String>("uncovered").map(|at| at.value);
    section.finish();

    let spec = SignedSpec {
        place: place?,
        grammar: grammar?,
        encoding,
        algorithm,
        content: content?.value,
        timestamp: whole_or_nothing(timestamp)?,
        id: whole_or_nothing(id)?,
        nonce: whole_or_nothing(nonce)?,
        requires: requires?,
        body_hash: whole_or_nothing(body_hash)?,
        url_port,
        ambiguous: ambiguous.clone(),
        uncovered: uncovered.clone(),
    };
    let scheme = match Scheme::signed(spec) {
        Ok(scheme) => scheme,
        Err(error) => {
            problems.error(places.get(error.part), error.message, error.help);
            return None;
        }
    };
    let tolerance = check_tolerance(problems, &places, tolerance, &scheme)?;
    Some((scheme, Beside { tolerance, ambiguous, uncovered }))
}

/// Where the parts stand in the text.
struct Places {
    whole: TextPlace,
    of: BTreeMap<&'static str, TextPlace>,
}

impl Places {
    fn note<const N: usize>(&mut self, section: &Section<'_>, keys: [&'static str; N], part: &'static str) {
        let found = keys.into_iter().find_map(|key| section.peek_place(key));
        self.of.extend(found.map(|place| (part, place)));
    }
    fn get(&self, part: &str) -> &TextPlace {
        // What is missing would say something of the content.
        let content = || self.of.get("content").filter(|_| part == "uncovered");
        self.of.get(part).or_else(content).unwrap_or(&self.whole)
    }
}

#[expect(clippy::option_option, reason = "absent and wrong are two things, and both are used at once")]
fn check_tolerance(
    problems: &Problems,
    places: &Places,
    tolerance: Option<Option<Tolerance>>,
    scheme: &Scheme,
) -> Option<Option<Tolerance>> {
    match (tolerance, scheme.is_timed()) {
        (Some(tolerance), true) => tolerance.map(Some),
        (None, false) => Some(None),
        (Some(_), false) => {
            let help = "remove it, or add `timestamp`";
            problems.error(places.get("tolerance"), "there is a tolerance, and no timestamp is signed", help);
            None
        }
        (None, true) => {
            let help = "say how far the signed time may be off: tolerance = { past = \"5m\", future = \"5m\" }";
            problems.error(places.get("timestamp"), "a timestamp is signed, and there is no tolerance", help);
            None
        }
    }
}

fn read_signature_place(section: &mut Section<'_>) -> Option<SignaturePlace> {
    const KEYS: [&str; 4] = ["headers", "json", "form", "query"];
    let named: Vec<_> = KEYS.into_iter().filter_map(|key| Some((key, section.peek_place(key)?))).collect();
    let headers = section.read::<Vec<SignatureHeader>>("headers");
    let json = section.read::<Pointer>("json").map(|at| Place::Json(at.value.0));
    let form = section.read::<String>("form").map(|at| Place::Form(at.value));
    let query = section.read::<String>("query").map(|at| Place::Query(at.value));
    match named.as_slice() {
        [] => {
            section.problems().error(
                section.place(),
                "nothing says where the signature stands",
                "name the headers that carry it: headers = [\"x-signature\"]; or `json`, `form` or `query`",
            );
            None
        }
        // What is named and could not be read was reported.
        [_] => match headers {
            Some(headers) => Some(SignaturePlace::Headers(headers.value.into_iter().map(|header| header.0).collect())),
            None => [json, form, query].into_iter().flatten().next().map(SignaturePlace::At),
        },
        [(first, _), (second, place), ..] => {
            section.problems().error(
                place,
                format!("`{first}` and `{second}` both say where the signature stands"),
                format!("keep `{first}` or `{second}`; up to four `headers` may hold signatures"),
            );
            None
        }
    }
}

/// The name of a header; `-*` at its end stands for numbers.
struct SignatureHeader(HeaderName);

impl crate::document::FromValue for SignatureHeader {
    fn from_value(value: crate::document::Value<'_>) -> Option<Self> {
        value.get::<Header>().map(|header| Self(header.0))
    }
}

fn read_grammar(section: &mut Section<'_>) -> Option<Grammar> {
    let kind = section.read::<String>("grammar");
    let place = kind.as_ref().map_or_else(|| section.place().clone(), |at| at.place.clone());
    let prefix = section.read_or("prefix", String::new());
    let separator = one_char(section, "separator");
    let groups = one_char(section, "groups");
    let assign = one_char(section, "assign");
    let field = section.read::<String>("field").map(|at| at.value);
    let param = section.read::<String>("param").map(|at| at.value);
    let pointer = section.read::<Pointer>("pointer").map(|at| at.value.0);
    let trim = section.read_or("trim", false);
    let jwt = section.section("jwt").map(read_jwt);
    let kind = kind.as_deref().map_or("plain", String::as_str);
    let grammar = match kind {
        "plain" => Some(Grammar::Plain { prefix }),
        "fields" => {
            separator.zip(field).map(|(separator, signature)| Grammar::Fields { separator, signature, trim, groups })
        }
        "list" => separator.map(|separator| Grammar::List { separator, prefix, trim }),
        "positional" => separator.map(|separator| Grammar::Positional { separator }),
        "keyed" => separator.zip(assign).zip(param).map(|((separator, assign), param)| Grammar::Keyed {
            separator,
            assign,
            param,
        }),
        "base64-json" => pointer.map(|pointer| Grammar::Base64Json { pointer }),
        "jwt" => match jwt {
            Some(jwt) => return Some(Grammar::Jwt { prefix, jwt: jwt? }),
            None => None,
        },
        _ => None,
    };
    if grammar.is_none() {
        let known = GRAMMARS.iter().find(|(name, _)| *name == kind);
        let message = known.map_or_else(
            || format!("`grammar` cannot be \"{kind}\""),
            |(name, _)| format!("the grammar \"{name}\" is incomplete"),
        );
        let all = || GRAMMARS.map(|(name, _)| format!("\"{name}\"")).join(", ");
        let help = known.map_or_else(|| format!("one of: {}", all()), |(_, needs)| format!("add {needs}"));
        section.problems().error(&place, message, help);
    }
    grammar
}

/// All grammars, each with what it cannot do without.
const GRAMMARS: [(&str, &str); 7] = [
    ("plain", ""),
    ("fields", "separator = \",\" and field = \"v1\": what stands between items, and the key of a signature"),
    ("list", "separator = \" \": what stands between signatures"),
    ("positional", "separator = \",\": what stands between items"),
    ("keyed", "separator, assign and param, such as separator = \"&\", assign = \"|\", param = \"public_key\""),
    ("base64-json", "pointer = \"/signature\": where the signature stands in the document"),
    ("jwt", "[signature.jwt] with algorithms = [\"HS256\"]: those that the provider uses"),
];

fn one_char(section: &mut Section<'_>, key: &'static str) -> Option<char> {
    let at = section.read::<String>(key)?;
    let mut chars = at.value.chars();
    let one = chars.next().filter(|_| chars.next().is_none());
    if one.is_none() {
        section.problems().error(&at.place, format!("`{key}` is one character"), "such as \",\"");
    }
    one
}

fn read_jwt(mut section: Section<'_>) -> Option<JwtSpec> {
    let names = section.required::<Vec<String>>("algorithms", "write those that the provider uses: [\"HS256\"]");
    let issuer = section.read::<String>("issuer").map(|at| whom(&at));
    let audience = section.read::<String>("audience").map(|at| whom(&at));
    let exp = section.read_or("exp", false);
    let nbf = section.read_or("nbf", false);
    let max_age = section.read("max_age").map(|at| at.value);
    let url_hash = section.read::<String>("url_hash").map(|at| at.value);
    let problems = section.problems();
    section.finish();
    let names = names?;
    let mut algorithms = Vec::new();
    for name in &names.value {
        let Some((_, algorithm)) = Algorithm::JWT.iter().find(|(known, _)| known == name) else {
            let known: Vec<_> = Algorithm::JWT.iter().map(|(name, _)| *name).collect();
            problems.error(
                &names.place,
                format!("\"{name}\" is no algorithm that a token may use here"),
                format!("one of: {}", known.join(", ")),
            );
            return None;
        };
        algorithms.push(*algorithm);
    }
    Some(JwtSpec { algorithms, issuer, audience, exp, nbf, max_age, url_hash })
}

/// `{url}`, `{param:NAME}`, or the text itself.
fn whom(text: &str) -> Whom {
    let param = text.strip_prefix("{param:").and_then(|rest| rest.strip_suffix('}'));
    match param {
        Some(name) => Whom::Param(name.to_owned()),
        None if text == "{url}" => Whom::Url,
        None => Whom::Text(text.to_owned()),
    }
}

/// `Some(None)` if absent, `None` if wrong.
#[expect(clippy::option_option, reason = "absent and wrong are two things, and both are used at once")]
fn whole_or_nothing<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(value) => value.map(Some),
    }
}

fn read_timestamp(mut section: Section<'_>) -> Option<(Place, TimeUnit)> {
    let missing = !section.has("unit");
    let unit = choice(&mut section, "unit", &TimeUnit::ALL);
    if missing {
        let names: Vec<_> = TimeUnit::ALL.iter().map(|(name, _)| *name).collect();
        section.problems().error(
            section.place(),
            "the unit of the timestamp is missing",
            format!("add unit = \"s\", or one of: {}", names.join(", ")),
        );
    }
    Some((read_place(section)?, unit?))
}

fn read_body_hash(mut section: Section<'_>) -> Option<BodyHash> {
    let encoding = choice(&mut section, "encoding", &Encoding::ALL).unwrap_or(Encoding::Hex);
    let optional = section.read_or("optional", false);
    Some(BodyHash { place: read_place(section)?, encoding, optional })
}

fn read_place(mut section: Section<'_>) -> Option<Place> {
    let found = [
        section.read::<Header>("header").map(|at| Place::Header(at.value.0)),
        section.read::<String>("field").map(|at| Place::Field(at.value)),
        section.read::<usize>("position").map(|at| Place::Position(at.value)),
        section.read::<Pointer>("json").map(|at| Place::Json(at.value.0)),
        section.read::<String>("form").map(|at| Place::Form(at.value)),
        section.read::<String>("query").map(|at| Place::Query(at.value)),
        section.read::<String>("claim").map(|at| Place::Claim(at.value)),
    ];
    let (problems, place) = (section.problems(), section.place().clone());
    section.finish();
    let mut found = found.into_iter().flatten();
    let (Some(one), None) = (found.next(), found.next()) else {
        problems.error(
            &place,
            "one place is needed",
            "write { header = \"NAME\" }, or one of field, position, json, form, query, claim",
        );
        return None;
    };
    Some(one)
}

fn read_requires(section: &mut Section<'_>) -> Option<Vec<(HeaderName, String)>> {
    let Some(mut table) = section.section("requires") else { return Some(Vec::new()) };
    let problems = table.problems();
    let entries = table.entries().into_iter().map(|(name, value)| {
        let header = HeaderName::from_bytes(name.value.as_bytes());
        if header.is_err() {
            problems.error(
                &name.place,
                format!("\"{}\" is no name of a header", name.value),
                "letters, digits and hyphens",
            );
        }
        Some((header.ok()?, value.get::<String>()?))
    });
    entries.collect::<Vec<_>>().into_iter().collect()
}

fn read_tolerance(mut section: Section<'_>) -> Option<Tolerance> {
    const HELP: &str = "always two values: { past = \"5m\", future = \"5m\" }";
    let past = section.required("past", HELP);
    let future = section.required("future", HELP);
    section.finish();
    Some(Tolerance { past: past?.value, future: future?.value })
}
