//! Pausing deliveries to an upstream, and letting them go on.

use http::{HeaderMap, StatusCode};

use super::{
    Admin,
    access::Caller,
    answer::{self, Answer, Problem},
    api::{PauseRow, PausedUpstream},
    audit::Entry,
    events::{Nothing, read, store_problem},
    route::Pausing,
};
use crate::store::Pause;

/// Pausing what is paused keeps when and by whom it was; resuming what flows changes nothing.
pub(super) async fn pause(
    admin: &Admin,
    entry: &mut Entry,
    caller: Caller,
    pausing: Pausing,
    name: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answer, Problem> {
    let Nothing {} = read(headers, body)?;
    let known = (admin.upstreams)();
    let Some(upstream) = known.iter().find(|upstream| &*upstream.name == name) else {
        return Err(unknown(name, &known.iter().map(|upstream| &*upstream.name).collect::<Vec<_>>()));
    };
    let paused = match pausing {
        Pausing::Resume => None,
        Pausing::Pause => {
            let now = Pause { since: admin.clock.wall(), by: caller.to_string() };
            Some(upstream.paused.clone().unwrap_or(now))
        }
    };
    if !(admin.set_paused)(name.to_owned(), paused.clone()).await.map_err(|error| store_problem(&error))? {
        return Err(unknown(name, &[]));
    }
    let answer = PausedUpstream { name: name.to_owned(), paused: paused.as_ref().map(PauseRow::from) };
    entry.count = Some(1);
    Ok(answer::json(StatusCode::OK, &answer))
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    let detail = format!("upstream `{name}` is not configured");
    Problem::new(StatusCode::NOT_FOUND, "upstream_unknown", detail, format!("configured are: {}", known.join(", ")))
}
