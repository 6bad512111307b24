//! Whatever changes something is in the audit log: done, refused, and not let in.

use super::*;

/// The paths that are posted to, of the description of the API.
fn posted() -> Vec<String> {
    let document = schema::document();
    let paths = document["paths"].as_object().expect("paths");
    paths.iter().filter(|(_, methods)| methods.get("post").is_some()).map(|(path, _)| path.clone()).collect()
}

#[tokio::test]
async fn every_change_is_in_the_audit_log_whatever_becomes_of_it() {
    let (log, _until_the_end) = Log::of_this_thread();
    let gateway = Gateway::start(&[(READER, Role::Read), (OPERATOR, Role::Operate)]).await;
    let paths = posted();
    assert!(paths.len() >= 9, "{paths:?}");
    for template in paths {
        let path = template.replace("{id}", &event_id(2).to_string()).replace("{name}", "orders");
        let body =
            if path.ends_with("operations") { r#"{"action":"forget","filter":{"source":"gains"}}"# } else { "{}" };
        for (token, by_and_code) in
            [(READER, Some(("-", "role_too_low"))), ("nobody-canary", Some(("-", "token_unknown"))), (OPERATOR, None)]
        {
            let before = log.audit().len();
            let token = format!("Bearer {token}");
            let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
            let answer = gateway.ask("POST", &path, &headers, body).await;
            let lines = log.audit();
            assert_eq!(lines.len(), before + 1, "{template} {token}");
            let line = &lines[before];
            let told = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            let refused = if answer.status >= 400 { answer.problem().1 } else { "-".to_owned() };
            assert_eq!(told("code"), refused, "{template}");
            match by_and_code {
                Some((by, code)) => assert_eq!((told("by").as_str(), told("code").as_str()), (by, code), "{template}"),
                None => assert_eq!(told("by"), "token-2", "{template}"),
            }
            assert_ne!(told("action"), "-", "{template}");
        }
    }
    assert!(!log.lines().iter().any(|line| line.to_string().contains("canary")));
}

#[tokio::test]
async fn an_operation_is_told_with_its_filter_and_count_but_without_what_is_redacted() {
    let (log, _until_the_end) = Log::of_this_thread();
    let gateway = Gateway::start_with(&[], |given| {
        given.hidden = Box::new(|_| Some(Hidden { pointers: vec!["/ssn".into()], ..Hidden::default() }));
    })
    .await;
    let filter = r#"{"source":"gains","json_pointer":"/ssn","json_value":"078-05-1120"}"#;
    let body = format!(r#"{{"action":"release","filter":{filter},"dry_run":true}}"#);
    assert_eq!(gateway.post("/api/v1/operations", &body).await.status, 200);
    let line = log.audit().pop().expect("a line");
    assert_eq!((line["action"].as_str(), &line["count"], &line["dry_run"]), (Some("release"), &2.into(), &true.into()));
    let told = line["filter"].as_str().expect("a filter");
    assert_eq!(told, r#"{"source":"gains","json_pointer":"/ssn","json_value":"redacted"}"#);
}

#[tokio::test]
async fn nobody_fills_the_log_or_breaks_its_lines_with_a_name() {
    let (log, _until_the_end) = Log::of_this_thread();
    let gateway = Gateway::start(&[(OPERATOR, Role::Operate)]).await;
    let path = format!("/api/v1/upstreams/%0aforged%e2%80%ae{}/pause", "%c3%a9".repeat(8000));
    assert_eq!(gateway.raw(&format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await.status, 401);
    let line = log.audit().pop().expect("a line");
    let told = line["upstream"].as_str().expect("a name");
    assert!(told.starts_with("\nforged") && (250..=256).contains(&told.len()), "{}", told.len());
}
