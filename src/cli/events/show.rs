//! `hookward events show`.

use std::{fmt::Write as _, time::Duration};

use super::{
    super::admin::{Connect, Gateway},
    event_path,
};
use crate::{
    admin::api::{AttemptRow, BodyPreview, DeliveryRow, EventDetail},
    cli::print::{age, print, print_json, size},
    telemetry::log::escaped,
};

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// Its id, as `events list` shows it.
    #[arg(value_name = "ID")]
    id: String,
    /// Only the body, exactly as it was received, to stdout.
    #[arg(long, conflicts_with = "json")]
    body: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Show) -> anyhow::Result<()> {
    let gateway = Gateway::new(&args.connect)?;
    if args.body {
        return gateway.download(&event_path(&args.id, "body")).await;
    }
    let detail: EventDetail = gateway.get(&event_path(&args.id, "")).await?;
    if args.json { print_json(&detail) } else { print(&render(&detail)) }
}

fn render(detail: &EventDetail) -> String {
    let event = &detail.event;
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name:<13} {}", escaped(value));
        }
    };
    let optional = |value: &Option<String>| value.clone().unwrap_or_default();
    line("event", &event.id);
    line("received", &event.received_at);
    line("source", &event.source);
    line("provider", &event.provider);
    line("type", &optional(&event.event_type));
    line("attempt id", &optional(&event.attempt_id));
    line("verified", &event.verified);
    line("client", &format!("{} {} {}", detail.client, detail.proto, detail.host));
    line("method", &detail.method);
    line("query", &optional(&detail.query));
    line("traceparent", &detail.traceparent);
    line("copies", &event.copies.to_string());
    line("duplicate of", &optional(&event.duplicate_of));
    line("conflict of", &optional(&event.conflict_of));

    out.push_str("\nheaders\n");
    for header in &detail.headers {
        let _ = writeln!(out, "  {}: {}", escaped(&header.name), escaped(&header.value));
    }
    out.push_str("\ndeliveries\n");
    for delivery in &event.deliveries {
        delivery_lines(&mut out, delivery);
    }
    if event.deliveries.is_empty() {
        let _ = writeln!(out, "  none, unrouted: hookward events redeliver {} --to UPSTREAM", escaped(&event.id));
    }
    let waits = |delivery: &&DeliveryRow| {
        delivery.state == "due" && delivery.due_in_ms.is_none() && delivery.order_key.is_some()
    };
    if let Some(waiting) = event.deliveries.iter().find(waits) {
        let (source, upstream) = (escaped(&event.source), escaped(&waiting.upstream));
        let _ = writeln!(
            out,
            "  what it waits for has the same order: hookward events list --source {source} --upstream {upstream} \
             --state due --oldest"
        );
    }
    if !detail.keys.is_empty() {
        out.push_str("\nkeys\n");
    }
    for key in &detail.keys {
        let _ = writeln!(out, "  {}  for {}", escaped(&key.key), age(Duration::from_millis(key.lives_ms)));
    }
    if detail.body_removed {
        let _ = writeln!(out, "\nbody  {} as received, removed once it was delivered", size(event.body_bytes));
    } else {
        body_lines(&mut out, &event.id, &detail.body);
    }
    out
}

fn delivery_lines(out: &mut String, delivery: &DeliveryRow) {
    let due = delivery.due_in_ms.map(|ms| format!(" in {}", age(Duration::from_millis(ms)))).unwrap_or_default();
    let reason = delivery.reason.as_ref().map(|reason| format!(": {}", escaped(reason))).unwrap_or_default();
    let order = delivery.order_key.as_ref().map(|key| format!("  in order of {}", escaped(key))).unwrap_or_default();
    let _ = writeln!(out, "  {}  {}{due}{reason}{order}", escaped(&delivery.upstream), escaped(&delivery.state));
    for attempt in &delivery.history {
        attempt_line(out, attempt);
    }
}

fn attempt_line(out: &mut String, attempt: &AttemptRow) {
    let status = attempt.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    let error = attempt.error.as_ref().map(|error| format!(": {}", escaped(error))).unwrap_or_default();
    let (number, at, took) = (attempt.number, escaped(&attempt.began_at), attempt.took_ms);
    let _ = writeln!(out, "    {number:>3}  {at}  {took} ms  {}  {status}{error}", escaped(&attempt.cause));
}

fn body_lines(out: &mut String, id: &str, body: &BodyPreview) {
    let digest = body.sha256.as_ref().map(|digest| format!(", sha256 {}", escaped(digest))).unwrap_or_default();
    let redacted = if body.redacted { ", redacted" } else { "" };
    let _ = writeln!(out, "\nbody  {}{digest}{redacted}", size(body.bytes));
    if let Some(why) = &body.withheld {
        let _ = writeln!(out, "  not shown: {}", escaped(why));
        return;
    }
    if body.encoding == "utf-8" {
        // Lines and tabs stay; whatever else could command a terminal is escaped.
        for line in body.content.lines() {
            let _ = writeln!(out, "  {}", escaped(&line.replace('\t', "    ")));
        }
    } else {
        out.push_str("  binary\n");
    }
    if body.truncated || body.redacted || body.encoding != "utf-8" {
        let _ = writeln!(out, "whole: hookward events show {} --body", escaped(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::{EventRow, HeaderRow, KeyRow};

    fn detail() -> EventDetail {
        let attempt = AttemptRow {
            number: 1,
            began_at: "2026-11-21T08:00:01.000Z".into(),
            took_ms: 12,
            status: Some(410),
            error: Some("gone\nforged line".into()),
            cause: "first".into(),
        };
        let delivery = DeliveryRow {
            upstream: "orders".into(),
            state: "dead".into(),
            reason: Some("status 410".into()),
            attempts: 1,
            due_in_ms: None,
            order_key: Some("customer-7".into()),
            history: vec![attempt],
        };
        let event = EventRow {
            id: "01960000-0000-7000-8000-000000000001".into(),
            received_at: "2026-11-21T08:00:00.000Z".into(),
            source: "partssource".into(),
            provider: "partssource".into(),
            event_type: Some("order.created".into()),
            attempt_id: None,
            verified: "hmac-sha256/main".into(),
            duplicate_of: None,
            conflict_of: None,
            body_bytes: 20,
            copies: 2,
            deliveries: vec![delivery],
        };
        EventDetail {
            event,
            method: "POST".into(),
            query: None,
            client: "203.0.113.7".into(),
            host: "hooks.example.com".into(),
            proto: "https".into(),
            traceparent: "00-0-0-01".into(),
            headers: vec![HeaderRow { name: "x-ps-signature".into(), value: "redacted".into() }],
            keys: vec![KeyRow { key: "0a".repeat(32), lives_ms: 3_600_000 }],
            body_removed: false,
            body: BodyPreview {
                bytes: 20,
                sha256: Some("ab".into()),
                encoding: "utf-8".into(),
                content: "{\n\t\"a\": \"\u{1b}[2J\"\n}".into(),
                truncated: false,
                redacted: false,
                withheld: None,
            },
        }
    }

    #[test]
    fn an_event_is_shown_whole_and_commands_no_terminal() {
        insta::assert_snapshot!(render(&detail()), @r#"
        event         01960000-0000-7000-8000-000000000001
        received      2026-11-21T08:00:00.000Z
        source        partssource
        provider      partssource
        type          order.created
        verified      hmac-sha256/main
        client        203.0.113.7 https hooks.example.com
        method        POST
        traceparent   00-0-0-01
        copies        2

        headers
          x-ps-signature: redacted

        deliveries
          orders  dead: status 410  in order of customer-7
              1  2026-11-21T08:00:01.000Z  12 ms  first  410: gone\nforged line

        keys
          0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a  for 1h

        body  20 B, sha256 ab
          {
              "a": "\u{1b}[2J"
          }
        "#);
    }

    #[test]
    fn a_binary_body_is_not_printed_but_where_to_get_it_is() {
        let mut detail = detail();
        detail.body.encoding = "base64".into();
        detail.body.content = "/wAB".into();
        let shown = render(&detail);
        assert!(!shown.contains("/wAB") && shown.ends_with("000000000001 --body\n"), "{shown}");
    }

    #[test]
    fn a_body_that_was_removed_and_an_event_without_an_upstream_are_said() {
        let mut detail = detail();
        (detail.body_removed, detail.body.bytes, detail.body.redacted) = (true, 0, true);
        detail.event.deliveries.clear();
        let shown = render(&detail);
        assert!(shown.ends_with("\nbody  20 B as received, removed once it was delivered\n"), "{shown}");
        let command = "hookward events redeliver 01960000-0000-7000-8000-000000000001 --to UPSTREAM\n";
        assert!(shown.contains(&format!("\ndeliveries\n  none, unrouted: {command}")), "{shown}");
    }

    #[test]
    fn what_waits_for_its_turn_says_how_to_find_for_whom() {
        let mut detail = detail();
        let waiting = &mut detail.event.deliveries[0];
        (waiting.state, waiting.reason) = ("due".into(), Some("waits for its turn".into()));
        let command = "hookward events list --source partssource --upstream orders --state due --oldest\n";
        assert!(render(&detail).contains(command));
        detail.event.deliveries[0].due_in_ms = Some(9);
        assert!(!render(&detail).contains(command));
    }

    #[test]
    fn what_is_not_shown_says_why() {
        let mut detail = detail();
        detail.body = BodyPreview {
            sha256: None,
            content: String::new(),
            redacted: true,
            withheld: Some("nobody knows what to redact".into()),
            ..detail.body
        };
        let shown = render(&detail);
        assert!(shown.ends_with("body  20 B, redacted\n  not shown: nobody knows what to redact\n"), "{shown}");
    }
}
