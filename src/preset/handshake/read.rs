//! Reading `[[handshakes]]` from TOML, and the parameters that a provider declares.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, Method, header};

use super::{Answer, Compare, Condition, Handshake, Is, Shape, Spot, Token, template::Template};
use crate::{
    document::{At, Place, Problems, Section, Value},
    preset::read::{Header, Pointer, choice},
};

const SPOT_HELP: &str =
    "write one of { header = \"NAME\" }, { query = \"NAME\" }, { json = \"/POINTER\" }, { form = \"NAME\" }";
const METHODS: [(&str, Method); 5] = [
    ("POST", Method::POST),
    ("GET", Method::GET),
    ("HEAD", Method::HEAD),
    ("OPTIONS", Method::OPTIONS),
    ("PUT", Method::PUT),
];
/// Headers that say how an answer is sent, or that have a key or a value of their own.
const RESERVED: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::SET_COOKIE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::X_CONTENT_TYPE_OPTIONS,
    HeaderName::from_static("x-request-id"),
];

/// What of its provider a handshake depends on.
#[derive(Clone, Copy)]
pub(in crate::preset) struct Context<'a> {
    /// The parameters that it declares.
    pub(in crate::preset) params: &'a BTreeMap<String, String>,
    /// The methods of its webhooks.
    pub(in crate::preset) methods: &'a [Method],
}

/// `params = { NAME = "what it is" }`.
pub(in crate::preset) fn read_params(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let Some(mut table) = section.section("params") else { return BTreeMap::new() };
    let mut params = BTreeMap::new();
    for (name, value) in table.entries() {
        let fits = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !fits {
            let help = "a source writes it as a key: params = { NAME = \"…\" }";
            value.error("the name of a parameter is 1 to 64 letters, digits, `_` or `-`", help);
        }
        if let Some(what) = value.get::<String>() {
            params.insert(name.value, what);
        }
    }
    params
}

/// `[[handshakes]]`. Those that are wrong are reported and left out.
pub(in crate::preset) fn read_all(section: &mut Section<'_>, context: Context<'_>) -> Vec<Handshake> {
    let values = section.value("handshakes").and_then(Value::list).unwrap_or_default();
    values.into_iter().filter_map(|value| read(value.section()?, context)).collect()
}

fn read(mut section: Section<'_>, context: Context<'_>) -> Option<Handshake> {
    let errors_before = section.problems().errors();
    let whole = section.place().clone();
    let signed = section.read_or("signed", true);
    let method_place = section.peek_place("method").unwrap_or_else(|| whole.clone());
    let method = read_method(&mut section);
    let when = read_conditions(&mut section);
    let compare = section.section("compare").and_then(|table| read_compare(table, context));
    let shape_place = section.peek_place("shape");
    let shape = choice(&mut section, "shape", &Shape::ALL);
    let has_token = section.has("token");
    let at = section.section("token").and_then(read_spot);
    let captures = section.read::<bool>("capture").filter(|at| at.value);
    let answer = read_answer(&mut section, has_token, context);
    let problems = section.problems();
    section.finish();

    if let Some(place) = shape_place.as_ref().filter(|_| !has_token) {
        problems.error(place, "there is a shape and no token", "add `token`, or take `shape` out");
    }
    if let Some(at) = captures.as_ref().filter(|_| !has_token) {
        let help = "say where the secret stands: token = { header = \"NAME\" }";
        problems.error(&at.place, "`capture` keeps the token, and there is none", help);
    }
    let is_webhooks = context.methods.contains(&method);
    if signed && !is_webhooks {
        let help = "write signed = false, or name the method in `methods` of the provider";
        problems.error(&method_place, format!("no webhook comes with {method}, so that none is verified"), help);
    }
    if when.as_ref().is_some_and(|when| when.value.is_empty()) && is_webhooks {
        let place = when.as_ref().map_or(&whole, |when| &when.place);
        let help = "say what tells it from a webhook: when = [{ json = \"/type\", equals = \"url_verification\" }]";
        problems.error(place, "without a condition every webhook would be this handshake", help);
    }
    let shape = shape.unwrap_or(Shape::Plain);
    if answer.as_ref().is_some_and(Answer::signs) && !signed && has_token && !shape.is_bounded() {
        problems.error(
            shape_place.as_ref().unwrap_or(&whole),
            "a token of this shape has room for an event, and its MAC would be the signature of that event",
            "write shape = \"plain\", \"digits\" or \"uuid\"",
        );
    }
    if problems.errors() != errors_before {
        return None;
    }
    let token = at.map(|at| Token { at, shape });
    let handshake =
        Handshake { signed, method, when: when?.value, token, compare, captures: captures.is_some(), answer: answer? };
    let has_body = !matches!(handshake.method, Method::GET | Method::HEAD | Method::OPTIONS);
    if let Some(spot) = handshake.spots().find(|spot| spot.is_in_body()).filter(|_| !has_body) {
        let help = "look at a header or the query";
        problems.error(&whole, format!("{spot} is in the body, and a {} has none", handshake.method), help);
        return None;
    }
    Some(handshake)
}

fn read_method(section: &mut Section<'_>) -> Method {
    let Some(at) = section.read::<String>("method") else { return Method::POST };
    let known = METHODS.iter().find(|(name, _)| *name == at.value);
    if known.is_none() {
        let names: Vec<_> = METHODS.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let help = format!("one of: {}", names.join(", "));
        section.problems().error(&at.place, format!("`method` cannot be \"{}\"", at.value), help);
    }
    known.map_or(Method::POST, |(_, method)| method.clone())
}

fn read_conditions(section: &mut Section<'_>) -> Option<At<Vec<Condition>>> {
    const HELP: &str = "write when = [{ json = \"/type\", equals = \"url_verification\" }]";
    let Some(value) = section.value("when") else {
        section.problems().error(section.place(), "a handshake needs `when`: what it is known by", HELP);
        return None;
    };
    if !value.is_list() {
        value.error("`when` is a list of conditions", HELP);
        return None;
    }
    let place = value.place().clone();
    let conditions = value.list()?.into_iter().map(|value| value.section().and_then(read_condition));
    // All of them are read, so that every wrong one is reported.
    let value = conditions.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()?;
    Some(At { value, place })
}

fn read_condition(mut section: Section<'_>) -> Option<Condition> {
    let (equals, starts) = (section.read::<String>("equals"), section.read::<String>("starts"));
    let problems = section.problems();
    for at in [&equals, &starts].into_iter().flatten().filter(|at| at.is_empty()) {
        problems.error(&at.place, "nothing is equal to an empty text", "leave it out: then it only has to be there");
    }
    let is = match (equals, starts) {
        (Some(at), None) => Is::Equal(at.value),
        (None, Some(at)) => Is::Starting(at.value),
        (None, None) => Is::There,
        (Some(_), Some(at)) => {
            problems.error(&at.place, "a condition has `equals` or `starts`, not both", "keep one of them");
            return None;
        }
    };
    Some(Condition { at: read_spot(section)?, is })
}

fn read_compare(mut section: Section<'_>, context: Context<'_>) -> Option<Compare> {
    let param = section.required::<String>("param", "name a parameter of the source: { query = \"…\", param = \"…\" }");
    let problems = section.problems();
    let at = read_spot(section);
    let param = param?;
    declared(&param, &param.place, context, problems);
    Some(Compare { at: at?, param: param.value })
}

/// Whether the provider declares this parameter; reports that it does not.
fn declared(name: &str, place: &Place, context: Context<'_>, problems: &Problems) {
    if !context.params.contains_key(name) {
        let help = format!("declare it at the provider: params = {{ {name} = \"what it is\" }}");
        problems.error(place, format!("there is no parameter `{name}`"), help);
    }
}

fn read_spot(mut section: Section<'_>) -> Option<Spot> {
    let (problems, place, before) = (section.problems(), section.place().clone(), section.problems().errors());
    let header = section.read::<Header>("header").map(|at| Spot::Header(at.value.0));
    let query = section.read::<String>("query").map(|at| Spot::Query(at.value));
    let json = section.read::<Pointer>("json").map(|at| Spot::Json(at.value.0));
    let form = section.read::<String>("form").map(|at| Spot::Form(at.value));
    section.finish();
    let mut found = [header, query, json, form].into_iter().flatten();
    match (found.next(), found.next()) {
        (Some(Spot::Query(name) | Spot::Form(name)), None) if name.is_empty() => {
            problems.error(&place, "the name is empty", SPOT_HELP);
            None
        }
        (Some(spot), None) => Some(spot),
        // What was read and is wrong was reported.
        _ if problems.errors() > before => None,
        _ => {
            problems.error(&place, "one place is needed", SPOT_HELP);
            None
        }
    }
}

fn read_answer(section: &mut Section<'_>, has_token: bool, context: Context<'_>) -> Option<Answer> {
    let problems = section.problems();
    let status = section.read::<u16>("status");
    if let Some(at) = status.as_ref().filter(|at| !(200..300).contains(&at.value)) {
        problems.error(&at.place, format!("{} is no success", at.value), "a handshake is answered 200 to 299");
    }
    let status = status.map_or(200, |at| at.value);
    let content_type = section.read::<String>("content_type").and_then(|at| {
        let value = HeaderValue::from_str(&at.value).ok().filter(|_| at.value.contains('/'));
        if value.is_none() {
            problems.error(&at.place, format!("\"{}\" is no content type", at.value), "such as \"application/json\"");
        }
        value
    });
    let mut headers = Vec::new();
    for (name, value) in section.section("headers").map(|mut table| table.entries()).unwrap_or_default() {
        headers.extend(read_header(&name, value, has_token, context));
    }
    let written = section.value("body");
    let body_place = written.as_ref().map(|value| value.place().clone());
    let body = match written {
        Some(value) => read_template(value, has_token, context),
        None if has_token && status != 204 => Template::parse("{token}").ok(),
        None => Some(Template::empty()),
    };
    if let Some(place) = body_place.filter(|_| status == 204 && body.as_ref().is_some_and(|body| !body.is_empty())) {
        problems.error(&place, "a 204 has no body", "write status = 200, or take `body` out");
    }
    Some(Answer {
        status,
        content_type: content_type.unwrap_or_else(|| HeaderValue::from_static("text/plain; charset=utf-8")),
        headers,
        body: body?,
    })
}

fn read_header(
    name: &At<String>,
    value: Value<'_>,
    has_token: bool,
    context: Context<'_>,
) -> Option<(HeaderName, Template)> {
    let problems = value.problems();
    let place = value.place().clone();
    let Ok(known) = HeaderName::from_bytes(name.as_bytes()) else {
        problems.error(
            &name.place,
            format!("\"{}\" is no name of a header", name.value),
            "letters, digits and hyphens",
        );
        return None;
    };
    if RESERVED.contains(&known) {
        let help = if known == header::CONTENT_TYPE { "write content_type = \"…\"" } else { "take it out" };
        problems.error(&name.place, format!("an answer cannot set the header {known}"), help);
        return None;
    }
    let template = read_template(value, has_token, context)?;
    if template.literals().any(|text| HeaderValue::from_str(text).is_err()) {
        problems.error(&place, "a header holds no line ends and no control characters", "take them out");
        return None;
    }
    Some((known, template))
}

fn read_template(value: Value<'_>, has_token: bool, context: Context<'_>) -> Option<Template> {
    let (problems, place) = (value.problems(), value.place().clone());
    let template = match Template::parse(&value.get::<String>()?) {
        Ok(template) => template,
        Err((message, help)) => {
            problems.error(&place, message, help);
            return None;
        }
    };
    if template.needs_token() && !has_token {
        let help = "say where it stands: token = { query = \"challenge\" }";
        problems.error(&place, "the answer takes a token, and there is none", help);
        return None;
    }
    let (shown, digested) = template.params();
    shown.into_iter().chain(digested).for_each(|name| declared(name, &place, context, problems));
    Some(template)
}
