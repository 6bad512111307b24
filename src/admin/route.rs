//! Paths and methods.

use http::{Method, StatusCode, header};

use super::answer::Problem;
use crate::{
    config::model::Role,
    event::EventId,
    telemetry::health::{PROBE_METHODS, Probe},
};

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route {
    /// Answered to anybody.
    Probe(Probe),
    /// Answered to those let in.
    To(Resource),
}

/// What is guarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resource {
    Metrics,
    Status,
    Events,
    Event(EventId),
    Body(EventId),
    Act(Action, EventId),
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
    const ALL: [Self; 4] = [Self::Redeliver, Self::Release, Self::Forget, Self::Purge];
    /// The stable name: in paths, answers and the audit log.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Redeliver => "redeliver",
            Self::Release => "release",
            Self::Forget => "forget",
            Self::Purge => "purge",
        }
    }
}

impl Route {
    /// Finds the route of a path and holds the method against it.
    pub(super) fn find(method: &Method, path: &str) -> Result<Self, Problem> {
        let route = Self::of_path(path)?;
        let (known, allow): (&[Method], _) = match route {
            Self::Probe(_) => (&[Method::GET, Method::HEAD, Method::OPTIONS], PROBE_METHODS),
            Self::To(Resource::Act(..)) => (&[Method::POST], "POST"),
            Self::To(_) => (&[Method::GET, Method::HEAD], "GET, HEAD"),
        };
        if known.contains(method) {
            return Ok(route);
        }
        let detail = format!("{path} does not take {method}");
        Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail, format!("use {allow}"))
            .with_header(header::ALLOW, allow))
    }

    fn of_path(path: &str) -> Result<Self, Problem> {
        match path {
            "/livez" => return Ok(Self::Probe(Probe::Live)),
            "/readyz" | "/healthz" => return Ok(Self::Probe(Probe::Ready)),
            "/metrics" => return Ok(Self::To(Resource::Metrics)),
            "/api/v1/status" => return Ok(Self::To(Resource::Status)),
            "/api/v1/events" => return Ok(Self::To(Resource::Events)),
            _ => {}
        }
        let Some(rest) = path.strip_prefix("/api/v1/events/") else { return Err(unknown_path(path)) };
        let (id, what) = rest.split_once('/').map_or((rest, None), |(id, what)| (id, Some(what)));
        let parsed = id.parse::<EventId>().ok().filter(|parsed| parsed.to_string() == id);
        let Some(id) = parsed else {
            let help = "an id looks like 01960000-0000-7000-8000-000000000000; GET /api/v1/events lists them";
            return Err(Problem::new(StatusCode::NOT_FOUND, "event_unknown", format!("`{id}` is no event id"), help));
        };
        match what {
            None => Ok(Self::To(Resource::Event(id))),
            Some("body") => Ok(Self::To(Resource::Body(id))),
            Some(name) => {
                let action = Action::ALL.into_iter().find(|action| action.name() == name);
                action.map(|action| Self::To(Resource::Act(action, id))).ok_or_else(|| unknown_path(path))
            }
        }
    }
}

impl Resource {
    /// The role that a token must have.
    pub(super) const fn role(self) -> Role {
        match self {
            Self::Act(..) => Role::Operate,
            Self::Metrics | Self::Status | Self::Events | Self::Event(_) | Self::Body(_) => Role::Read,
        }
    }
}

fn unknown_path(path: &str) -> Problem {
    let help = "known are /livez, /readyz, /healthz, /metrics, /api/v1/status and /api/v1/events";
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
        for path in ["/metrics", "/api/v1/status", "/api/v1/events", &format!("/api/v1/events/{id}/body")] {
            assert_eq!(role(&Method::GET, path), Ok(Role::Read));
            assert_eq!(role(&Method::POST, path), Err("method_not_allowed"));
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
