//! `hookward events redeliver`, `release`, `forget` and `purge`: of events that are named, or of all that a filter fits.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use clap::{CommandFactory as _, error::ErrorKind};
use tokio::time::{MissedTickBehavior, interval};

use super::{Filter, event_path, plural};
use crate::{
    admin::api::{Done, OperationCount, OperationRequest},
    cli::{
        FAILED,
        admin::{Connect, Gateway},
        operations,
        print::{confirm, print, print_json},
    },
    telemetry::log::escaped,
};

#[derive(Debug, clap::Args)]
pub(super) struct Redeliver {
    /// Only to this upstream, even if the event never went there.
    #[arg(long, value_name = "UPSTREAM")]
    to: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// Which events, and how.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that is typed")]
pub(super) struct Change {
    /// Ids, as `events list` shows them; instead of a filter.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Every event there is; instead of a filter.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Events a second, at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// With a filter: begin, and do not wait for the end.
    #[arg(long, conflicts_with = "ids")]
    detach: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Release,
    Forget,
    Purge,
}

/// What is done, with where to if that is said.
#[derive(Clone, Copy)]
struct What<'a> {
    name: &'static str,
    to: Option<&'a str>,
}

pub(super) async fn redeliver(args: &Redeliver) -> anyhow::Result<ExitCode> {
    change(What { name: "redeliver", to: args.to.as_deref() }, &args.change).await
}

pub(super) async fn run(action: Action, args: &Change) -> anyhow::Result<ExitCode> {
    let name = match action {
        Action::Release => "release",
        Action::Forget => "forget",
        Action::Purge => "purge",
    };
    change(What { name, to: None }, args).await
}

async fn change(what: What<'_>, args: &Change) -> anyhow::Result<ExitCode> {
    let filter = args.filter.filter();
    let ways = [!args.ids.is_empty(), !filter.is_empty(), args.all];
    if ways.iter().filter(|way| **way).count() != 1 {
        wrong_usage(what.name, "give ids, or a filter such as --state dead, or --all, and only one of them");
    }
    let gateway = Gateway::new(&args.connect)?;
    if !args.ids.is_empty() {
        return each(&gateway, what, args).await;
    }
    let request = OperationRequest {
        action: what.name.to_owned(),
        filter,
        upstream: what.to.map(ToOwned::to_owned),
        rate: args.rate,
        dry_run: false,
        all: args.all,
    };
    let count = OperationRequest { dry_run: true, ..request.clone() };
    let count: OperationCount = gateway.post("/api/v1/operations", Some(serde_json::to_string(&count)?)).await?;
    if count.events == 0 && count.exact {
        print("no events match\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{}", question(what, &count));
    if !confirm("Go on?", args.yes)? {
        bail!("nothing was changed");
    }
    operations::begin(&gateway, &request, args.detach, args.json).await
}

fn question(what: What<'_>, count: &OperationCount) -> String {
    let least = if count.exact { "" } else { "At least " };
    let events = plural(count.events, "matching event");
    match (what.name, what.to) {
        ("redeliver", Some(to)) => format!("{least}{events} to redeliver to `{}`.", escaped(to)),
        ("redeliver", None) => format!("{least}{events} to redeliver to their upstreams."),
        ("purge", _) => format!("{least}{events} to purge for good."),
        (name, _) => format!("{least}{events} to {name}."),
    }
}

/// Ends as clap does, with the usage of this command.
fn wrong_usage(name: &str, message: &str) -> ! {
    let mut all = crate::cli::Cli::command();
    all.build();
    let command = all.find_subcommand_mut("events").and_then(|events| events.find_subcommand_mut(name));
    command.expect("it is this command").error(ErrorKind::ArgumentConflict, message).exit()
}

/// One after another; what fails is told and does not stop the rest.
async fn each(gateway: &Gateway, what: What<'_>, args: &Change) -> anyhow::Result<ExitCode> {
    if what.name == "purge" {
        let question = format!("Purge {} for good?", plural(args.ids.len() as u64, "event"));
        if !confirm(&question, args.yes)? {
            return Ok(ExitCode::from(FAILED));
        }
    }
    let mut pace = args.rate.map(|rate| {
        let mut pace = interval(Duration::from_secs(1) / rate);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pace
    });
    let (mut done, mut failed) = (Vec::new(), 0);
    for id in &args.ids {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let body = what.to.map(|upstream| serde_json::json!({ "upstream": upstream }).to_string());
        match gateway.post::<Done>(&event_path(id, what.name), body).await {
            Ok(one) => {
                if !args.json {
                    print(&told(&one))?;
                }
                done.push(one);
            }
            Err(error) => {
                failed += 1;
                eprintln!("{}: {error:#}", escaped(id));
            }
        }
    }
    if args.json {
        print_json(&done)?;
    } else if what.name == "redeliver" {
        print(&format!("{} due again\n", plural(done.iter().map(|one| one.count).sum(), "delivery")))?;
    }
    if failed > 0 {
        bail!("{failed} of {} could not be done", args.ids.len());
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for one event; redeliveries are summed up.
fn told(done: &Done) -> String {
    let id = escaped(&done.id);
    match done.action.as_str() {
        "redeliver" => String::new(),
        "release" => format!("{id}: {} released\n", plural(done.count, "delivery")),
        "forget" => format!("{id}: {} freed\n", plural(done.count, "key")),
        _ => format!("{id}: purged\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_says_how_many_and_what_becomes_of_them() {
        let ask = |name, to, events, exact| question(What { name, to }, &OperationCount { events, exact });
        assert_eq!(ask("redeliver", None, 1, true), "1 matching event to redeliver to their upstreams.");
        assert_eq!(ask("redeliver", Some("new"), 2, true), "2 matching events to redeliver to `new`.");
        assert_eq!(ask("purge", None, 9, false), "At least 9 matching events to purge for good.");
        assert_eq!(ask("forget", None, 9, true), "9 matching events to forget.");
    }
}
