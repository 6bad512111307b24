//! Paths and methods.

use http::{Method, StatusCode, header};

use super::{answer::Problem, filter::event_id, query::decode};
use crate::{
    config::model::Role,
    event::EventId,
    telemetry::health::{PROBE_METHODS, Probe},
};

/// What a request asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Route {
    /// Answered to anybody.
    Probe(Probe),
    /// Answered to those let in.
    To(Resource),
}

/// What is guarded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Resource {
    Metrics,
    Status,
    OpenApi,
    Events,
    Event(EventId),
    Body(EventId),
    Failures(String),
    Operations,
    Operation(EventId),
    Change(Change),
}

/// What changes something: posted, by those who may operate, and written to the audit log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Something to one event.
    Act(Action, EventId),
    /// Something to many.
    Begin,
    /// An operation ends before its time.
    Stop(EventId),
    /// An operation goes on.
    Resume(EventId),
    /// Deliveries to an upstream wait, or go on.
    Pause(Pausing, String),
    /// The configuration is loaded anew.
    Reload,
}

/// What an operator can do to an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Redeliver,
    Release,
    Forget,
    Purge,
}

impl Action {
    pub(super) const ALL: [Self; 4] = [Self::Redeliver, Self::Release, Self::Forget, Self::Purge];
    /// The stable name: in paths, answers and the audit log.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Redeliver => "redeliver",
            Self::Release => "release",
            Self::Forget => "forget",
            Self::Purge => "purge",
        }
    }
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// What an operator can do to an upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pausing {
    Pause,
    Resume,
}

impl Change {
    /// For the audit log.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Act(action, _) => action.name(),
            Self::Begin => "operation",
            Self::Stop(_) => "operation_stop",
            Self::Resume(_) => "operation_resume",
            Self::Pause(Pausing::Pause, _) => "upstream_pause",
            Self::Pause(Pausing::Resume, _) => "upstream_resume",
            Self::Reload => "reload",
        }
    }
}

impl Route {
    /// Finds the route of a path and holds the method against it.
    pub(super) fn find(method: &Method, path: &str) -> Result<Self, Problem> {
        let (route, posted) = Self::of_path(path)?;
        let (known, allow): (&[Method], _) = match (&route, &posted) {
            (Some(Self::Probe(_)), _) => (&[Method::GET, Method::HEAD, Method::OPTIONS], PROBE_METHODS),
            (Some(Self::To(_)), None) => (&[Method::GET, Method::HEAD], "GET, HEAD"),
            (Some(Self::To(_)), Some(_)) => (&[Method::GET, Method::HEAD, Method::POST], "GET, HEAD, POST"),
            (None, _) => (&[Method::POST], "POST"),
        };
        let found = match posted {
            Some(change) if method == Method::POST => Some(Self::To(Resource::Change(change))),
            _ => route,
        };
        found.filter(|_| known.contains(method)).ok_or_else(|| {
            let detail = format!("{path} does not take {method}");
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail, format!("use {allow}"))
                .with_header(header::ALLOW, allow)
        })
    }

    /// What is looked at there, and what is changed there.
    fn of_path(path: &str) -> Result<(Option<Self>, Option<Change>), Problem> {
        let seen = |resource| Ok((Some(Self::To(resource)), None));
        let posted = |change| Ok((None, Some(change)));
        match path {
            "/livez" => return Ok((Some(Self::Probe(Probe::Live)), None)),
            "/readyz" | "/healthz" => return Ok((Some(Self::Probe(Probe::Ready)), None)),
            "/metrics" => return seen(Resource::Metrics),
            _ => {}
        }
        let Some(rest) = path.strip_prefix("/api/v1/") else { return Err(unknown_path(path)) };
        let steps: Vec<&str> = rest.split('/').collect();
        match *steps.as_slice() {
            ["status"] => seen(Resource::Status),
            ["reload"] => posted(Change::Reload),
            ["openapi.json"] => seen(Resource::OpenApi),
            ["events"] => seen(Resource::Events),
            ["events", id] => seen(Resource::Event(event(id)?)),
            ["events", id, "body"] => seen(Resource::Body(event(id)?)),
            ["events", id, name] => match Action::from_name(name) {
                Some(action) => posted(Change::Act(action, event(id)?)),
                None => Err(unknown_path(path)),
            },
            ["operations"] => Ok((Some(Self::To(Resource::Operations)), Some(Change::Begin))),
            ["operations", id] => seen(Resource::Operation(operation(id)?)),
            ["operations", id, "stop"] => posted(Change::Stop(operation(id)?)),
            ["operations", id, "resume"] => posted(Change::Resume(operation(id)?)),
            ["sources", name, "failures"] => seen(Resource::Failures(source(name)?)),
            ["upstreams", name, "pause"] => posted(Change::Pause(Pausing::Pause, upstream(name)?)),
            ["upstreams", name, "resume"] => posted(Change::Pause(Pausing::Resume, upstream(name)?)),
            _ => Err(unknown_path(path)),
        }
    }
}

impl Resource {
    /// The role that a token must have.
    pub(super) const fn role(&self) -> Role {
        match self {
            Self::Change(_) => Role::Operate,
            Self::Metrics
            | Self::Status
            | Self::OpenApi
            | Self::Events
            | Self::Event(_)
            | Self::Body(_)
            | Self::Failures(_)
            | Self::Operations
            | Self::Operation(_) => Role::Read,
        }
    }
}

fn event(id: &str) -> Result<EventId, Problem> {
    event_id(id).ok_or_else(|| {
        let help = "an id looks like 01960000-0000-7000-8000-000000000000; GET /api/v1/events lists them";
        Problem::new(StatusCode::NOT_FOUND, "event_unknown", format!("`{id}` is no event id"), help)
    })
}

fn operation(id: &str) -> Result<EventId, Problem> {
    event_id(id).ok_or_else(|| {
        let help = "an id looks like 01960000-0000-7000-8000-000000000000; GET /api/v1/operations lists them";
        Problem::new(StatusCode::NOT_FOUND, "operation_unknown", format!("`{id}` is no operation id"), help)
    })
}

fn source(name: &str) -> Result<String, Problem> {
    decode(name).ok_or_else(|| {
        let help = "write it as it is configured";
        Problem::new(StatusCode::NOT_FOUND, "source_unknown", format!("`{name}` is no name of a source"), help)
    })
}

fn upstream(name: &str) -> Result<String, Problem> {
    decode(name).ok_or_else(|| {
        let help = "GET /api/v1/status lists the upstreams";
        Problem::new(StatusCode::NOT_FOUND, "upstream_unknown", format!("`{name}` is no name of an upstream"), help)
    })
}

fn unknown_path(path: &str) -> Problem {
    let help = "GET /api/v1/openapi.json lists what is there; beside it are /livez, /readyz, /healthz and /metrics";
    Problem::new(StatusCode::NOT_FOUND, "path_unknown", format!("nothing is at {path}"), help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    fn role(method: &Method, path: &str) -> Result<Role, &'static str> {
        match Route::find(method, path) {
            Ok(Route::To(resource)) => Ok(resource.role()),
            Ok(Route::Probe(_)) => Err("probe"),
            Err(problem) => Err(problem.code()),
        }
    }

    #[test]
    fn only_what_changes_something_needs_to_operate_and_is_posted() {
        let id = EventId::new(Wall::from_unix_s(1));
        for name in ["redeliver", "release", "forget", "purge"] {
            let path = format!("/api/v1/events/{id}/{name}");
            assert_eq!(role(&Method::POST, &path), Ok(Role::Operate));
            assert_eq!(role(&Method::GET, &path), Err("method_not_allowed"));
        }
        let seen = [format!("/api/v1/events/{id}/body"), format!("/api/v1/operations/{id}")];
        for path in ["/metrics", "/api/v1/status", "/api/v1/events", "/api/v1/openapi.json", &seen[0], &seen[1]] {
            assert_eq!(role(&Method::GET, path), Ok(Role::Read));
            assert_eq!(role(&Method::POST, path), Err("method_not_allowed"));
        }
        assert_eq!(role(&Method::GET, "/api/v1/operations"), Ok(Role::Read));
        assert_eq!(role(&Method::POST, "/api/v1/operations"), Ok(Role::Operate));
        assert_eq!(role(&Method::DELETE, "/api/v1/operations"), Err("method_not_allowed"));
        for path in [format!("operations/{id}/stop"), format!("operations/{id}/resume"), "upstreams/a/pause".to_owned()]
        {
            let path = format!("/api/v1/{path}");
            assert_eq!(role(&Method::POST, &path), Ok(Role::Operate));
            assert_eq!(role(&Method::GET, &path), Err("method_not_allowed"));
        }
    }

    #[test]
    fn paths_match_exactly() {
        let id = EventId::new(Wall::from_unix_s(1));
        let upper = id.to_string().to_uppercase();
        for path in ["/", "/livez/", "//livez", "/Livez", "/api/v1/events/", "/api/v1", "/api/v1/events/x/body"] {
            assert!(Route::find(&Method::GET, path).is_err(), "{path}");
        }
        for path in
            [format!("/api/v1/events/{upper}"), format!("/api/v1/events/{id}/"), format!("/api/v1/events/{id}/x")]
        {
            assert!(Route::find(&Method::GET, &path).is_err(), "{path}");
        }
    }
}
