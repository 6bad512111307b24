//! `hookward check`.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use serde_json::json;

use super::CONFIGURATION;
use crate::{
    config::{self, LoadOptions, Loaded, Secrets, Summary},
    document::Severity,
};

/// Check a configuration, and say what it means.
///
/// Exits 0 if a gateway would start with it, warnings or not, and 78 if it would not.
///
/// Problems go to standard error, each with file, line, column and what to do; what the configuration means goes
/// to standard output, so that a person can check it. No secret is shown.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hookward check -c hookward.toml
  hookward check -c hookward.toml --no-secrets --json")]
pub(super) struct Args {
    /// The configuration; config.example.toml explains every key.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Do not read the secrets and certificates that it names: for pipelines that have none.
    #[arg(long)]
    no_secrets: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[expect(clippy::unused_async, reason = "every command has the same shape")]
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let secrets = if args.no_secrets { Secrets::Skip } else { Secrets::Load };
    let loaded = config::load(&args.config, &LoadOptions { secrets, ..LoadOptions::default() });
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", as_json(&loaded))?;
    } else {
        let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprint!("{}", loaded.problems.render(color));
        if let Some(summary) = Summary::of(&loaded) {
            write!(out, "{}", summary.text())?;
        }
        let (errors, warnings) = (loaded.problems.errors(), loaded.problems.warnings());
        let verdict = if errors > 0 { "not usable" } else { "usable" };
        out.flush()?;
        eprintln!("{} is {verdict}: {}, {}", args.config.display(), count(errors, "error"), count(warnings, "warning"));
    }
    Ok(if loaded.config.is_some() { ExitCode::SUCCESS } else { ExitCode::from(CONFIGURATION) })
}

fn as_json(loaded: &Loaded) -> serde_json::Value {
    let problems: Vec<_> = loaded
        .problems
        .sorted()
        .iter()
        .map(|problem| {
            let severity = match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let place = problem.place.as_ref().map(|place| loaded.problems.position(place));
            json!({
                "severity": severity,
                "file": place.as_ref().map(|(file, ..)| file.display().to_string()),
                "line": place.as_ref().map(|(_, line, _)| line),
                "column": place.as_ref().map(|(_, _, column)| column),
                "message": problem.message,
                "help": problem.help,
            })
        })
        .collect();
    json!({
        "usable": loaded.config.is_some(),
        "errors": loaded.problems.errors(),
        "warnings": loaded.problems.warnings(),
        "problems": problems,
        "summary": Summary::of(loaded).map(|summary| summary.json()),
    })
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
