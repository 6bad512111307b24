//! What this API is, for programs: OpenAPI 3.1. It is data in `openapi.json`; a test holds it against the routes,
//! and every answer that a test gets against its schemas.

use http::HeaderValue;

use super::answer::{self, Answer};

/// The description.
pub const TEXT: &str = include_str!("openapi.json");

pub(super) fn openapi() -> Answer {
    answer::bytes(TEXT, HeaderValue::from_static("application/json"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::Method;
    use serde_json::Value;

    use super::*;
    use crate::admin::{
        api::EventFilter,
        query::{LIMIT_DEFAULT, LIMIT_MAX},
        route::{Action, Change, Pausing, Resource, Route},
    };

    fn document() -> Value {
        serde_json::from_str(TEXT).expect("JSON")
    }

    /// The path of a route as the description writes it. Exhaustive: a new route has to come here.
    fn template(route: &Route) -> String {
        match route {
            Route::Probe(_) => "/livez /readyz /healthz".to_owned(),
            Route::To(resource) => match resource {
                Resource::Metrics => "/metrics".to_owned(),
                Resource::Status => "/api/v1/status".to_owned(),
                Resource::OpenApi => "/api/v1/openapi.json".to_owned(),
                Resource::Events => "/api/v1/events".to_owned(),
                Resource::Event(_) => "/api/v1/events/{id}".to_owned(),
                Resource::Body(_) => "/api/v1/events/{id}/body".to_owned(),
                Resource::Failures(_) => "/api/v1/sources/{name}/failures".to_owned(),
                Resource::Operations | Resource::Change(Change::Begin) => "/api/v1/operations".to_owned(),
                Resource::Operation(_) => "/api/v1/operations/{id}".to_owned(),
                Resource::Change(Change::Act(action, _)) => format!("/api/v1/events/{{id}}/{}", action.name()),
                Resource::Change(Change::Reload) => "/api/v1/reload".to_owned(),
                Resource::Change(Change::Stop(_)) => "/api/v1/operations/{id}/stop".to_owned(),
                Resource::Change(Change::Resume(_)) => "/api/v1/operations/{id}/resume".to_owned(),
                Resource::Change(Change::Pause(Pausing::Pause, _)) => "/api/v1/upstreams/{name}/pause".to_owned(),
                Resource::Change(Change::Pause(Pausing::Resume, _)) => "/api/v1/upstreams/{name}/resume".to_owned(),
            },
        }
    }
    /// The probes, and as many as the match has arms for resources, where one stands for every action.
    const PATHS: usize = 3 + 14 + Action::ALL.len();

    #[test]
    fn the_description_and_the_routes_have_the_same_paths_and_methods() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        let id = "01960000-0000-7000-8000-000000000001";
        let mut found = BTreeSet::new();
        for (path, methods) in paths {
            let real = path.replace("{id}", id).replace("{name}", "orders");
            for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                let described = methods.get(method.as_str().to_lowercase()).is_some();
                let route = Route::find(&method, &real);
                assert_eq!(route.is_ok(), described, "{method} {path}");
                if let Ok(route) = route {
                    assert!(template(&route).split(' ').any(|template| template == path), "{path} leads to {route:?}");
                    found.insert(path.clone());
                }
            }
        }
        assert_eq!(found.len(), PATHS, "{found:#?}");
    }

    #[test]
    fn the_filters_are_described_wherever_they_are_taken() {
        let document = document();
        let described: Vec<_> = document["paths"]["/api/v1/events"]["get"]["parameters"]
            .as_array()
            .expect("parameters")
            .iter()
            .map(|parameter| parameter["$ref"].as_str().expect("a reference").trim_start_matches('#'))
            .map(|place| document.pointer(place).expect("it is there")["name"].as_str().expect("a name"))
            .collect();
        let filters = EventFilter::default().parts().map(|(name, _)| name);
        assert_eq!(described[..filters.len()], filters);
        assert_eq!(described[filters.len()..], ["limit", "cursor", "order"]);
        let schema = &document["components"]["schemas"]["EventFilter"];
        let properties: BTreeSet<_> = schema["properties"].as_object().expect("properties").keys().cloned().collect();
        assert_eq!(properties, filters.map(ToOwned::to_owned).into());
        let limit = &document["components"]["parameters"]["limit"]["schema"];
        assert_eq!((&limit["default"], &limit["maximum"]), (&LIMIT_DEFAULT.into(), &LIMIT_MAX.into()));
    }
}
