//! `hookward operations`, and how an operation is begun and watched.

use std::{fmt::Write as _, io::IsTerminal as _, process::ExitCode, time::Duration};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;

use super::{
    FAILED,
    admin::{Connect, Gateway, segment},
    print::{print, print_json, table},
};
use crate::{
    admin::api::{OperationList, OperationRequest, OperationRow},
    telemetry::log::escaped,
};

/// A person sees a bar move at this pace, and a gateway does not notice the questions.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a running gateway does to many events: watch it, stop it, resume it.
///
/// `hookward events redeliver`, `release`, `forget` and `purge` with a filter begin one. It goes on in the gateway,
/// whoever watches.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hookward operations list
  hookward operations show 019604a1-…
  hookward operations stop 019604a1-…
  hookward operations resume 019604a1-…")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List them, newest first: all that run, and the latest 100 that have ended.
    #[command(after_help = "Example:
  hookward operations list")]
    List(List),
    /// Show how far one got.
    #[command(after_help = "Examples:
  hookward operations show 019604a1-…
  hookward operations show 019604a1-… --watch     with a progress bar, until it ends")]
    Show(Show),
    /// Stop one after the part that it has begun.
    #[command(after_help = "Example:
  hookward operations stop 019604a1-…")]
    Stop(One),
    /// Let one go on that was stopped or has failed, exactly where it ended.
    #[command(after_help = "Example:
  hookward operations resume 019604a1-…")]
    Resume(One),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// Until it ends.
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    one: One,
}

#[derive(Debug, clap::Args)]
struct One {
    /// Its id, as `operations list` shows it.
    #[arg(value_name = "ID")]
    id: String,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::List(args) => {
            let list: OperationList = Gateway::new(&args.connect)?.get("/api/v1/operations").await?;
            if args.json {
                print_json(&list)?;
            } else {
                print(&render_list(&list))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Show(args) => {
            let gateway = Gateway::new(&args.one.connect)?;
            let operation: OperationRow = gateway.get(&path(&args.one.id, "")).await?;
            if args.watch {
                return watch(&gateway, operation, args.one.json).await;
            }
            tell(&operation, args.one.json)
        }
        Command::Stop(args) => tell(&steer(args, "/stop").await?, args.json),
        Command::Resume(args) => tell(&steer(args, "/resume").await?, args.json),
    }
}

async fn steer(args: &One, what: &str) -> anyhow::Result<OperationRow> {
    Gateway::new(&args.connect)?.post(&path(&args.id, what), None).await
}

fn tell(operation: &OperationRow, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        print_json(operation)?;
    } else {
        print(&render(operation))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Begins an operation and, unless `detach`, waits for its end.
pub(super) async fn begin(
    gateway: &Gateway,
    request: &OperationRequest,
    detach: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let operation: OperationRow = gateway.post("/api/v1/operations", Some(serde_json::to_string(request)?)).await?;
    if detach {
        if json {
            print_json(&operation)?;
        } else {
            let id = escaped(&operation.id);
            print(&format!("operation {id} runs; `hookward operations show {id} --watch` shows how far it is\n"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    watch(gateway, operation, json).await
}

/// Until it does not run any more, or Ctrl-C, which leaves it running.
async fn watch(gateway: &Gateway, mut operation: OperationRow, json: bool) -> anyhow::Result<ExitCode> {
    let bar = bar(operation.total, json);
    while operation.state == "running" {
        bar.set_position(operation.done + operation.skipped);
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            _ = tokio::signal::ctrl_c() => {
                bar.finish_and_clear();
                let id = escaped(&operation.id);
                bail!("operation {id} goes on in the gateway; `hookward operations stop {id}` stops it");
            }
        }
        operation = gateway.get(&path(&operation.id, "")).await?;
    }
    bar.finish_and_clear();
    tell(&operation, json)?;
    Ok(if operation.state == "finished" { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// On a terminal only.
fn bar(total: u64, json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}  {per_sec}  {eta} left");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn path(id: &str, what: &str) -> String {
    format!("/api/v1/operations/{}{what}", segment(id))
}

fn render_list(list: &OperationList) -> String {
    if list.operations.is_empty() {
        return "no operations\n".to_owned();
    }
    let head = ["ID", "BEGUN", "ACTION", "FILTER", "STATE", "PROGRESS", "CHANGED", "SKIPPED"];
    let row = |operation: &OperationRow| {
        vec![
            operation.id.clone(),
            operation.created_at.clone(),
            action(operation),
            filter(operation),
            operation.state.clone(),
            format!("{} %", operation.percent),
            operation.done.to_string(),
            operation.skipped.to_string(),
        ]
    };
    table(&head, &list.operations.iter().map(row).collect::<Vec<_>>())
}

fn render(operation: &OperationRow) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<10} {}", escaped(value));
    };
    let reason = operation.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let least = if operation.total_exact { "" } else { "at least " };
    line("operation", &operation.id);
    line("action", &action(operation));
    line("filter", &filter(operation));
    line("begun", &format!("{} by {}", operation.created_at, operation.by));
    line("state", &format!("{}{reason}", operation.state));
    line(
        "progress",
        &format!(
            "{} %: {} changed, {} skipped, of {least}{}",
            operation.percent, operation.done, operation.skipped, operation.total
        ),
    );
    if operation.skipped > 0 {
        out.push_str(skipped(&operation.action));
    }
    if matches!(operation.state.as_str(), "stopped" | "failed") {
        let _ = writeln!(out, "\nresume it: hookward operations resume {}", escaped(&operation.id));
    }
    out
}

/// Why an event that fits the filter was not changed.
fn skipped(action: &str) -> &'static str {
    match action {
        "redeliver" => {
            "\nskipped: nothing of them can be sent again now. What is held wants `events release`, what is unrouted `--to`, \
             and a body that was removed is gone; `hookward events show ID` says which\n"
        }
        "release" => "\nskipped: nothing of them is held\n",
        _ => "\nskipped: they are gone, or a delivery of them is being tried right now\n",
    }
}

fn action(operation: &OperationRow) -> String {
    let to = operation.upstream.as_ref().map(|upstream| format!(" to {upstream}")).unwrap_or_default();
    let rate = operation.rate.map(|rate| format!(", {rate} a second")).unwrap_or_default();
    format!("{}{to}{rate}", operation.action)
}

fn filter(operation: &OperationRow) -> String {
    let parts = operation.filter.parts();
    let parts: Vec<_> = parts.iter().filter_map(|(name, part)| Some(format!("{name}={}", part.as_ref()?))).collect();
    if parts.is_empty() { "all".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::EventFilter;

    fn operation() -> OperationRow {
        OperationRow {
            id: "01960000-0000-7000-8000-000000000001".into(),
            action: "redeliver".into(),
            filter: EventFilter {
                state: Some("dead".into()),
                event_type: Some("a\u{1b}".into()),
                ..EventFilter::default()
            },
            upstream: Some("orders".into()),
            rate: Some(20),
            by: "token-1".into(),
            state: "stopped".into(),
            reason: Some("token-1 stopped it".into()),
            total: 400,
            total_exact: false,
            done: 90,
            skipped: 10,
            percent: 25,
            cursor: None,
            created_at: "2026-11-21T08:00:00.000Z".into(),
            changed_at: "2026-11-21T08:00:05.000Z".into(),
        }
    }

    #[test]
    fn an_operation_says_how_far_it_got_and_how_it_goes_on() {
        insta::assert_snapshot!(render(&operation()), @r"
        operation  01960000-0000-7000-8000-000000000001
        action     redeliver to orders, 20 a second
        filter     state=dead type=a\u{1b}
        begun      2026-11-21T08:00:00.000Z by token-1
        state      stopped: token-1 stopped it
        progress   25 %: 90 changed, 10 skipped, of at least 400

        skipped: nothing of them can be sent again now. What is held wants `events release`, what is unrouted `--to`, and a body that was removed is gone; `hookward events show ID` says which

        resume it: hookward operations resume 01960000-0000-7000-8000-000000000001
        ");
        insta::assert_snapshot!(render_list(&OperationList { operations: vec![operation()] }), @r"
        ID                                    BEGUN                     ACTION                            FILTER                   STATE    PROGRESS  CHANGED  SKIPPED
        01960000-0000-7000-8000-000000000001  2026-11-21T08:00:00.000Z  redeliver to orders, 20 a second  state=dead type=a\u{1b}  stopped  25 %      90       10
        ");
    }
}
