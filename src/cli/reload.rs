//! `hookward reload`, and what it shares with `hookward diff`.

use std::{fmt::Write as _, process::ExitCode};

use super::{
    CONFIGURATION, FAILED,
    admin::{Connect, Gateway, Unusable},
    print::{print, print_json},
};
use crate::{
    admin::api::{ReloadAnswer, ReloadOutcome, ReloadRequest},
    telemetry::log::escaped,
};

/// Make a running gateway load its configuration anew.
///
/// The gateway reads the file that it was started with; -c only tells where it is and which token it takes. The new
/// configuration is built whole and then swapped: no request fails, and a file that is wrong changes nothing. What needs
/// a restart is named and stays as it is. A change that parks deliveries, because their upstream is gone, is refused
/// without --force. SIGHUP does the same. Exits 0 if it is in force, 1 if it was refused, 78 if the file is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hookward diff -c hookward.toml          what would change
  hookward reload -c hookward.toml
  hookward reload -c hookward.toml --force")]
pub(super) struct Args {
    /// Also if deliveries are parked by it.
    #[arg(long)]
    force: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let request = ReloadRequest { dry_run: false, force: args.force };
    let Some(answer) = ask(&args.connect, request).await? else { return Ok(ExitCode::from(CONFIGURATION)) };
    show(&answer, &args.connect, args.json)?;
    Ok(match answer.outcome {
        ReloadOutcome::Applied | ReloadOutcome::Unchanged | ReloadOutcome::Planned => ExitCode::SUCCESS,
        ReloadOutcome::Refused => ExitCode::from(FAILED),
        ReloadOutcome::Invalid => ExitCode::from(CONFIGURATION),
    })
}

/// What the gateway says; `None` if the file that was given is wrong, which is shown by then.
pub(super) async fn ask(connect: &Connect, request: ReloadRequest) -> anyhow::Result<Option<ReloadAnswer>> {
    let gateway = match Gateway::new(connect) {
        Ok(gateway) => gateway,
        Err(error) if error.is::<Unusable>() => return Ok(None),
        Err(error) => return Err(error),
    };
    gateway.post_for_outcome("/api/v1/reload", serde_json::to_string(&request)?).await.map(Some)
}

/// Prints it. Problems go to standard error, as those of `check` do.
pub(super) fn show(answer: &ReloadAnswer, connect: &Connect, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(answer);
    }
    if answer.outcome == ReloadOutcome::Invalid || !connect.has_config() {
        eprint!("{}", lines(&answer.problems));
    }
    print(&render(answer))
}

fn render(answer: &ReloadAnswer) -> String {
    let mut out = String::new();
    for change in &answer.changes {
        let _ = write!(out, "{} {}", escaped(&change.mark), escaped(&change.what));
        if !change.detail.is_empty() {
            let _ = write!(out, ": {}", escaped(&change.detail));
        }
        let parked = change.what.strip_prefix("upstream ").and_then(|name| answer.parks.get(name));
        if let Some(count) = parked.filter(|_| change.mark == "-") {
            let _ = write!(out, " ({count} deliveries will be parked)");
        }
        out.push_str(if change.when == "restart" { " [needs a restart]\n" } else { "\n" });
    }
    let restart = answer.restart.iter().map(|key| escaped(key)).collect::<Vec<_>>().join(", ");
    let why = escaped(answer.why.as_deref().unwrap_or_default());
    let _ = match answer.outcome {
        ReloadOutcome::Unchanged => writeln!(out, "nothing differs from what is in force"),
        ReloadOutcome::Applied => writeln!(out, "in force"),
        ReloadOutcome::Planned if why.is_empty() => writeln!(out, "`hookward reload` makes it so"),
        ReloadOutcome::Planned => writeln!(out, "`hookward reload` would refuse: {why}"),
        ReloadOutcome::Refused => writeln!(out, "refused, nothing changed: {why}"),
        ReloadOutcome::Invalid => writeln!(out, "nothing changed: {why}"),
    };
    if !restart.is_empty() {
        let _ = writeln!(out, "needs a restart: {restart}");
    }
    out
}

/// Text of several lines from elsewhere.
fn lines(text: &str) -> String {
    text.lines().map(|line| escaped(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::ChangeRow;

    #[test]
    fn a_person_sees_each_change_when_it_counts_and_what_is_against_it() {
        let row = |mark: &str, what: &str, detail: &str, when: &str| ChangeRow {
            mark: mark.into(),
            what: what.into(),
            detail: detail.into(),
            when: when.into(),
        };
        let answer = ReloadAnswer {
            outcome: ReloadOutcome::Refused,
            changes: vec![
                row("+", "source parts", "", "now"),
                row("-", "upstream orders", "", "now"),
                row("~", "source shop", "tolerance 5m -> 10m", "now"),
                row("~", "source shop", "secrets[2026] added", "now"),
                row("~", "store", "path a -> b\u{1b}[2J", "restart"),
            ],
            restart: vec!["store.path".into()],
            parks: [("orders".to_owned(), 17)].into(),
            why: Some("deliveries would be parked".into()),
            problems: String::new(),
        };
        insta::assert_snapshot!(render(&answer), @r"
        + source parts
        - upstream orders (17 deliveries will be parked)
        ~ source shop: tolerance 5m -> 10m
        ~ source shop: secrets[2026] added
        ~ store: path a -> b\u{1b}[2J [needs a restart]
        refused, nothing changed: deliveries would be parked
        needs a restart: store.path
        ");
        let same =
            ReloadAnswer { outcome: ReloadOutcome::Unchanged, changes: Vec::new(), restart: Vec::new(), ..answer };
        assert_eq!(render(&same), "nothing differs from what is in force\n");
    }
}
