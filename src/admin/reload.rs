//! Loading the configuration anew.

use http::{HeaderMap, StatusCode};

use super::{
    Admin,
    answer::{self, Answer, Problem},
    api::{ReloadOutcome, ReloadRequest},
    audit::Entry,
    events::{read, store_problem},
};

/// What came of it is the answer, whatever it is: the status alone says whether the file is in force.
pub(super) async fn reload(
    admin: &Admin,
    entry: &mut Entry,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answer, Problem> {
    let request: ReloadRequest = read(headers, body)?;
    entry.dry_run = request.dry_run;
    let answer = (admin.reload)(request).await.map_err(|error| store_problem(&error))?;
    entry.outcome = Some(answer.outcome.name());
    entry.count = Some(answer.changes.len() as u64);
    let status = match answer.outcome {
        ReloadOutcome::Applied | ReloadOutcome::Unchanged | ReloadOutcome::Planned => StatusCode::OK,
        ReloadOutcome::Refused => StatusCode::CONFLICT,
        ReloadOutcome::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Ok(answer::json(status, &answer))
}
