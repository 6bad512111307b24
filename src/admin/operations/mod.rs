//! Operations: one act over the events that a filter fits, carried out by the gateway, whoever stops watching.

mod plan;
mod runner;

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::Instant;

pub use runner::Operations;

use super::{
    Admin,
    access::Caller,
    answer::{self, Answer, Problem},
    api::{OperationCount, OperationList, OperationRequest, OperationRow},
    audit::Entry,
    events::{Nothing, check_upstream, read, read_needed, store_problem},
    filter,
    route::Action,
};
use crate::{
    event::EventId,
    store::{Direction, Filter, Operation, OperationState},
};
use plan::Plan;

/// Events per second, at most.
const RATE_MAX: u32 = 100_000;
/// Counting looks at everything that a filter may fit; whoever waits for it does not wait longer than this.
const COUNT_TIMEOUT: Duration = Duration::from_secs(15);

/// Counts, and unless that was all, begins.
pub(super) async fn begin(
    admin: &Admin,
    entry: &mut Entry,
    caller: Caller,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answer, Problem> {
    let request: OperationRequest = read_needed(headers, body)?;
    let action = check(admin, &request)?;
    (entry.action, entry.dry_run) = (action.name(), request.dry_run);
    (entry.upstream, entry.rate) = (request.upstream.clone(), request.rate);
    let frozen = filter::freeze(admin, caller, request.filter).await?;
    entry.filter = serde_json::to_string(&filter::shown(admin, &frozen)).ok();

    let mut plan = Plan {
        action: action.name().to_owned(),
        filter: frozen,
        upstream: request.upstream,
        rate: request.rate,
        by: caller.to_string(),
        before: newest(admin).await?.map(|id| plan::successor(id).to_string()),
        total_exact: true,
    };
    let total;
    (total, plan.total_exact) = count(admin, plan.rest(None)?).await?;
    entry.count = Some(total);
    if request.dry_run {
        return Ok(answer::json(StatusCode::OK, &OperationCount { events: total, exact: plan.total_exact }));
    }

    let now = admin.clock.wall();
    let operation = Operation {
        id: EventId::new(now),
        spec: plan.spec(),
        state: OperationState::Running,
        reason: None,
        cursor: None,
        total,
        done: 0,
        skipped: 0,
        created_at: now,
        changed_at: now,
    };
    entry.operation = Some(operation.id);
    start(admin, plan, operation).await
}

pub(super) async fn list(admin: &Admin, caller: Caller) -> Result<Answer, Problem> {
    let all = admin.store.operations().await.map_err(|error| store_problem(&error))?;
    let operations = all.iter().map(|operation| row(admin, caller, operation)).collect();
    Ok(answer::json(StatusCode::OK, &OperationList { operations }))
}

pub(super) async fn show(admin: &Admin, caller: Caller, id: EventId) -> Result<Answer, Problem> {
    Ok(answer::json(StatusCode::OK, &row(admin, caller, &find(admin, id).await?)))
}

pub(super) async fn stop(
    admin: &Admin,
    caller: Caller,
    id: EventId,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answer, Problem> {
    let Nothing {} = read(headers, body)?;
    find(admin, id).await?;
    if !admin.operations.stop(id, format!("{caller} stopped it")).await {
        return Err(conflict("this operation does not run", "GET /api/v1/operations says where each stands"));
    }
    show(admin, caller, id).await
}

/// Goes on behind the last event that was looked at.
pub(super) async fn resume(admin: &Admin, id: EventId, headers: &HeaderMap, body: &[u8]) -> Result<Answer, Problem> {
    let Nothing {} = read(headers, body)?;
    let operation = find(admin, id).await?;
    if operation.state == OperationState::Finished {
        return Err(conflict("this operation is finished", "begin another one"));
    }
    if admin.operations.is_running(id) {
        return Err(conflict("this operation runs already", "GET /api/v1/operations says where each stands"));
    }
    let Some(plan) = Plan::of(&operation.spec) else {
        return Err(conflict("this operation was begun by another version", "begin it anew"));
    };
    let (state, changed_at) = (OperationState::Running, admin.clock.wall());
    start(admin, plan, Operation { state, reason: None, changed_at, ..operation }).await
}

async fn start(admin: &Admin, plan: Plan, operation: Operation) -> Result<Answer, Problem> {
    let id = operation.id;
    let Some(place) = admin.operations.place(id) else {
        let max = runner::RUNNING_MAX;
        return Err(conflict(&format!("{max} operations run already"), "wait until one has ended, or stop one"));
    };
    admin.store.save_operation(operation.clone()).await.map_err(|error| store_problem(&error))?;
    let mut answer = answer::json(StatusCode::ACCEPTED, &row_of(&operation, Some(&plan), plan.filter.clone()));
    admin.operations.start(place, plan, operation);
    let location = HeaderValue::try_from(format!("/api/v1/operations/{id}")).expect("an id is digits and hyphens");
    answer.headers_mut().insert(header::LOCATION, location);
    Ok(answer)
}

/// What a request means, if it can be meant.
fn check(admin: &Admin, request: &OperationRequest) -> Result<Action, Problem> {
    let Some(action) = Action::from_name(&request.action) else {
        let known = Action::ALL.map(Action::name).join(", ");
        return Err(filter::wrong("action", &request.action, &format!("one of {known}")));
    };
    if request.filter.is_empty() != request.all {
        let detail = "give a `filter` that names something, or `\"all\": true`, and not both";
        let help = "to act on every event there is, say \"all\": true";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "filter_empty", detail, help));
    }
    if request.upstream.is_some() && action != Action::Redeliver {
        let detail = format!("`upstream` is where to redeliver, and this is `{}`", action.name());
        let help = "leave it out; which deliveries are meant is said by `filter.upstream`";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "parameter_wrong", detail, help));
    }
    if let Some(rate) = request.rate.filter(|rate| !(1..=RATE_MAX).contains(rate)) {
        return Err(filter::wrong("rate", &rate.to_string(), &format!("a number from 1 to {RATE_MAX}")));
    }
    check_upstream(admin, request.upstream.as_deref())?;
    Ok(action)
}

/// The newest event there is: those that come after it are not meant.
async fn newest(admin: &Admin) -> Result<Option<EventId>, Problem> {
    let page = admin.store.list(Filter::default(), Direction::NewestFirst, 1).await;
    let page = page.map_err(|error| store_problem(&error))?;
    Ok(page.events.first().map(|listed| listed.head.id).or(page.next))
}

/// How many there are, and whether that is all of them.
async fn count(admin: &Admin, mut filter: Filter) -> Result<(u64, bool), Problem> {
    let until = Instant::now() + COUNT_TIMEOUT;
    let mut total = 0;
    loop {
        let counted = admin.store.count(filter.clone()).await.map_err(|error| store_problem(&error))?;
        total += counted.events;
        match counted.next {
            None => return Ok((total, true)),
            Some(_) if Instant::now() >= until => return Ok((total, false)),
            next => filter.after = next,
        }
    }
}

async fn find(admin: &Admin, id: EventId) -> Result<Operation, Problem> {
    let all = admin.store.operations().await.map_err(|error| store_problem(&error))?;
    all.into_iter().find(|operation| operation.id == id).ok_or_else(|| {
        let help = "the latest 100 that have ended are kept; GET /api/v1/operations lists them";
        Problem::new(StatusCode::NOT_FOUND, "operation_unknown", "there is no such operation", help)
    })
}

/// An operation as this caller may see it.
fn row(admin: &Admin, caller: Caller, operation: &Operation) -> OperationRow {
    let plan = Plan::of(&operation.spec);
    let mut filter = plan.as_ref().map(|plan| plan.filter.clone()).unwrap_or_default();
    if !caller.may_operate() {
        filter = filter::shown(admin, &filter);
    }
    let mut row = row_of(operation, plan.as_ref(), filter);
    if operation.state == OperationState::Running && !admin.operations.is_running(operation.id) {
        // It may have ended since the store was asked; if not, its task could not record why it ended.
        OperationState::Stopped.name().clone_into(&mut row.state);
        row.reason = Some("it does not run any more; resume it".to_owned());
    }
    row
}

fn row_of(operation: &Operation, plan: Option<&Plan>, filter: super::api::EventFilter) -> OperationRow {
    let seen = operation.done.saturating_add(operation.skipped);
    let percent = match operation.state {
        OperationState::Finished => 100,
        // What changed since it was counted makes no progress go beyond its end.
        _ => seen.saturating_mul(100).checked_div(operation.total).unwrap_or(0).min(99),
    };
    OperationRow {
        id: operation.id.to_string(),
        action: plan.map_or_else(|| "unknown".to_owned(), |plan| plan.action.clone()),
        filter,
        upstream: plan.and_then(|plan| plan.upstream.clone()),
        rate: plan.and_then(|plan| plan.rate),
        by: plan.map_or_else(|| "unknown".to_owned(), |plan| plan.by.clone()),
        state: operation.state.name().to_owned(),
        reason: operation.reason.clone(),
        total: operation.total,
        total_exact: plan.is_some_and(|plan| plan.total_exact),
        done: operation.done,
        skipped: operation.skipped,
        percent: u8::try_from(percent).unwrap_or(100),
        cursor: operation.cursor.map(|id| id.to_string()),
        created_at: operation.created_at.rfc3339(),
        changed_at: operation.changed_at.rfc3339(),
    }
}

fn conflict(detail: &str, help: &str) -> Problem {
    Problem::new(StatusCode::CONFLICT, "state_conflict", detail, help)
}
