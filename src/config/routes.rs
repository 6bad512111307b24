//! Where the events of a source go: `upstream`, `upstreams`, `routes`.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    load::Reader,
    model::Mode,
    upstreams::{self, UpstreamRead},
};
use crate::{
    document::{At, Place, Plain, Problems, Section, Value, nearest},
    policy::{Glob, Route, Routes},
    preset::{Locator, Provider},
    verify::json::{self, Scalar},
};

const UPSTREAM_HELP: &str = "write upstream = \"http://127.0.0.1:9000/\", or the name of an [upstreams.NAME]";
const ROUTE_HELP: &str = "write { type = \"invoice.*\", to = \"billing\" } or { json = { \"/data/country\" = \"DE\" }, to = [\"de\", \"audit\"] }";

/// Where events go.
#[derive(Debug)]
pub(super) struct Routed {
    /// Who gets what no route wants.
    pub(super) upstreams: Vec<At<String>>,
    pub(super) routes: Routes,
    /// Everybody named, known or not.
    pub(super) targets: BTreeSet<String>,
}

pub(super) fn read(
    reader: &Reader<'_>,
    section: &mut Section<'_>,
    name: &At<String>,
    mode: Mode,
    provider: Option<&Provider>,
    upstreams: &mut Vec<UpstreamRead>,
) -> Routed {
    let names = read_upstreams(reader, section, name, upstreams);
    let mut targets: BTreeSet<String> = names.iter().map(|at| at.value.clone()).collect();
    let mut routes: Vec<(Route, Place)> = Vec::new();
    let problems = reader.problems;
    if let Some(value) = section.value("routes") {
        if mode == Mode::Proxy {
            value.error(
                "`routes` in mode \"proxy\": its one upstream has to answer, whatever comes",
                "use mode \"respond\", where the first upstream chosen answers, or \"queue\"",
            );
        }
        let seen = value.clone();
        let items = value.list();
        if items.as_ref().is_some_and(|items| items.is_empty() || items.len() > Routes::MAX) {
            let help = "take `routes` out if there is none; what needs more is the work of an upstream";
            seen.error(format!("`routes` must have 1 to {} routes", Routes::MAX), help);
        }
        for item in items.unwrap_or_default() {
            let place = item.place().clone();
            let Some(route) = read_route(item, provider, upstreams, &mut targets) else { continue };
            if let Some((_, first)) = routes.iter().find(|(other, _)| other.has_conditions_of(&route)) {
                problems.error(
                    &place,
                    format!("a route with these conditions stands at {} already", problems.locate(first)),
                    "put the upstreams of both into one `to`",
                );
            }
            routes.push((route, place));
        }
    }
    Routed {
        upstreams: names.into_iter().filter(|at| is_known(problems, at, upstreams)).collect(),
        routes: Routes::new(routes.into_iter().map(|(route, _)| route).collect()),
        targets,
    }
}

/// `upstream = "name or URL"` or `upstreams = ["a", "b"]`; beside routes neither is needed.
fn read_upstreams(
    reader: &Reader<'_>,
    section: &mut Section<'_>,
    name: &At<String>,
    upstreams: &mut Vec<UpstreamRead>,
) -> Vec<At<String>> {
    let problems = reader.problems;
    let (has_list, has_routes) = (section.has("upstreams"), section.has("routes"));
    let mut names: Vec<At<String>> = Vec::new();
    if !section.has("upstream") {
        if !has_list && !has_routes {
            section.required::<String>("upstream", UPSTREAM_HELP);
        }
    } else if let Some(at) = section.read::<String>("upstream") {
        if has_list {
            problems.error(&at.place, "`upstream` and `upstreams` are both set", "put all names into `upstreams`");
        }
        if at.contains("://") {
            if let Some(other) = upstreams.iter().find(|other| *other.upstream.name == *name.value) {
                problems.error(
                    &at.place,
                    format!(
                        "an upstream written as a URL is named after its source, and [upstreams.{}] is defined at {}",
                        name.value,
                        problems.locate(&other.place)
                    ),
                    format!("write upstream = \"{}\"", name.value),
                );
            } else {
                upstreams.push(upstreams::from_url(reader, name, &at));
            }
            names.push(At { value: name.value.clone(), place: at.place });
        } else {
            names.push(at);
        }
    }
    if let Some(value) = section.value("upstreams") {
        read_names(value, "`upstreams` is empty: nobody would get the events", UPSTREAM_HELP, &mut names);
    }
    names
}

/// A list of names, each once, added to those that there are.
fn read_names(value: Value<'_>, if_empty: &str, help: &str, names: &mut Vec<At<String>>) {
    let (problems, place) = (value.problems(), value.place().clone());
    let items = value.list();
    if items.as_ref().is_some_and(Vec::is_empty) {
        problems.error(&place, if_empty, help);
    }
    for item in items.unwrap_or_default() {
        let place = item.place().clone();
        let Some(value) = item.get::<String>() else { continue };
        if value.contains("://") {
            problems.error(&place, "a URL cannot stand in a list", "name it in a table [upstreams.NAME] with `url`");
        } else if names.iter().any(|other| other.value == value) {
            problems.error(&place, format!("upstream `{value}` stands here twice"), "one delivery each is made");
        } else {
            names.push(At { value, place });
        }
    }
}

/// Whether there is such an upstream; reports it if not.
fn is_known(problems: &Problems, at: &At<String>, upstreams: &[UpstreamRead]) -> bool {
    let names = || upstreams.iter().map(|other| &*other.upstream.name);
    let found = names().any(|name| name == at.value);
    if !found {
        let help = match nearest(&at.value, names()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("define it: [upstreams.{}] with url = \"http://…\"", at.value),
        };
        problems.error(&at.place, format!("there is no upstream \"{}\"", at.value), help);
    }
    found
}

/// `{ type = GLOB, json = { POINTER = SCALAR }, to = NAME or [NAME, …] }`.
fn read_route(
    value: Value<'_>,
    provider: Option<&Provider>,
    upstreams: &[UpstreamRead],
    targets: &mut BTreeSet<String>,
) -> Option<Route> {
    let mut section = value.section()?;
    let problems = section.problems();
    let has_condition = section.has("type") || section.has("json");
    let event_type = section.value("type").map(|value| read_type(value, provider));
    let json = section.value("json").map(read_json);
    let mut names = Vec::new();
    match section.value("to") {
        None => problems.error(section.place(), "this route says not to whom: `to` is missing", ROUTE_HELP),
        Some(value) if value.is_list() => {
            read_names(value, "`to` is empty: nobody would get the events", ROUTE_HELP, &mut names);
        }
        Some(value) => {
            let place = value.place().clone();
            match value.get::<String>() {
                Some(url) if url.contains("://") => {
                    let help = "name it in a table [upstreams.NAME] with `url`, and that name here";
                    problems.error(&place, "`to` names upstreams, and this is a URL", help);
                }
                Some(value) => names.push(At { value, place }),
                None => {}
            }
        }
    }
    if !has_condition {
        problems.error(
            section.place(),
            "this route has no condition: every event would take it",
            "give it `type` or `json`; who gets what no route wants stands in `upstream` of the source",
        );
    }
    section.finish();
    targets.extend(names.iter().map(|at| at.value.clone()));
    let known: Vec<Arc<str>> =
        names.iter().filter(|at| is_known(problems, at, upstreams)).map(|at| at.value.as_str().into()).collect();
    // A condition that is wrong was reported, and the route is not there.
    Route::new(
        event_type.map_or(Some(None), |read| read.map(Some))?,
        json.map_or(Some(Vec::new()), |read| read)?,
        known,
    )
}

fn read_type(value: Value<'_>, provider: Option<&Provider>) -> Option<Glob> {
    let seen = value.clone();
    let text: String = value.get()?;
    let glob = match Glob::new(&text) {
        Ok(glob) => glob,
        Err(why) => {
            let help =
                "write the type as the provider does, with `*` for any characters and `?` for one: \"invoice.*\"";
            seen.error(format!("\"{text}\" is no pattern of an event type: {why}"), help);
            return None;
        }
    };
    let provider = provider?;
    match &provider.event_type {
        None => seen.error(
            format!("this pattern fits no event: where {} says what type an event is, is not known", provider.title),
            "write conditions on the body: json = { \"/kind\" = \"…\" }",
        ),
        Some(Locator::Header(name)) if provider.scheme.is_signed() && !provider.scheme.signs_header(name) => {
            seen.problems().warn(
                seen.place(),
                format!("{} does not sign `{name}`, where it says what type an event is", provider.title),
                "whoever gets hold of a webhook before it arrives could send it elsewhere; `json` is signed with the body",
            );
        }
        Some(_) => {}
    }
    Some(glob)
}

fn read_json(value: Value<'_>) -> Option<Vec<(String, Scalar)>> {
    let mut section = value.section()?;
    let problems = section.problems();
    let entries = section.entries();
    if entries.is_empty() {
        problems.error(section.place(), "`json` is empty: it asks for nothing", ROUTE_HELP);
        return None;
    }
    let conditions: Vec<_> = entries.into_iter().map(|(pointer, value)| read_condition(&pointer, value)).collect();
    conditions.into_iter().collect()
}

fn read_condition(pointer: &At<String>, value: Value<'_>) -> Option<(String, Scalar)> {
    let seen = value.clone();
    let is_pointer = json::is_pointer(pointer);
    if !is_pointer {
        let help = "it begins with `/`, in quotes: json = { \"/data/country\" = \"DE\" }";
        seen.problems().error(&pointer.place, format!("`json`: \"{}\" is not a JSON pointer", pointer.value), help);
    }
    let scalar = match value.get::<Plain>()? {
        Plain::Text(text) if text.is_empty() || text.len() > json::SCALAR_BYTES_MAX => {
            let most = json::SCALAR_BYTES_MAX;
            let help = "leave the condition out, or ask for another value";
            seen.error(format!("`json` compares strings of 1 to {most} bytes, and this one has {}", text.len()), help);
            return None;
        }
        Plain::Text(text) => Scalar::Text(text),
        Plain::Integer(n) => Scalar::Integer(n.to_string()),
        Plain::Bool(flag) => Scalar::Bool(flag),
    };
    is_pointer.then(|| (pointer.value.clone(), scalar))
}
