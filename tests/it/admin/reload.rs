//! How the outcome of a reload is told: by its status, and by the exit code of the commands.

use hookward::admin::api::{ChangeRow, ReloadAnswer, ReloadRequest};

use super::*;

/// As if the file were right, if nothing else is asked for: with `force` it is refused, with both it is wrong.
pub(super) fn reload_answer(request: ReloadRequest) -> ReloadAnswer {
    let (outcome, why) = match (request.dry_run, request.force) {
        (false, false) => (ReloadOutcome::Applied, None),
        (true, false) => (ReloadOutcome::Planned, None),
        (false, true) => (ReloadOutcome::Refused, Some("something is against it".to_owned())),
        (true, true) => (ReloadOutcome::Invalid, Some("the file has 1 errors".to_owned())),
    };
    let change = |when: &str| ChangeRow {
        mark: "~".into(),
        what: "source shop".into(),
        detail: "tolerance 5m -> 10m".into(),
        when: when.into(),
    };
    ReloadAnswer {
        outcome,
        changes: vec![change("now"), change("restart")],
        restart: vec!["store.path".into()],
        parks: [("orders".to_owned(), 17)].into(),
        why,
        problems: "error: it is wrong\n".into(),
    }
}

#[tokio::test]
async fn the_status_alone_says_whether_the_file_is_in_force() {
    let gateway = Gateway::open().await;
    for (body, status, outcome) in [
        ("{}", 200, "applied"),
        (r#"{"dry_run":true}"#, 200, "planned"),
        (r#"{"force":true}"#, 409, "refused"),
        (r#"{"force":true,"dry_run":true}"#, 422, "invalid"),
    ] {
        let answer = gateway.post("/api/v1/reload", body).await;
        assert_eq!((answer.status, answer.json()["outcome"].as_str()), (status, Some(outcome)), "{body}");
    }
    assert_eq!(gateway.post("/api/v1/reload", r#"{"hurry":true}"#).await.status, 400);
}
