//! `hookward diff`.

use std::process::ExitCode;

use super::{
    CONFIGURATION, FAILED,
    admin::Connect,
    reload::{ask, show},
};
use crate::admin::api::{ReloadOutcome, ReloadRequest};

/// Show what a reload of a running gateway would change.
///
/// The gateway compares the file that it was started with to what is in force; -c only tells where it is and which token
/// it takes. Secrets are named and never shown. Exits 0 whatever differs, 78 if the file is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hookward diff -c hookward.toml
  hookward diff --admin-url http://127.0.0.1:9900 --json")]
pub(super) struct Args {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let request = ReloadRequest { dry_run: true, force: false };
    let Some(answer) = ask(&args.connect, request).await? else { return Ok(ExitCode::from(CONFIGURATION)) };
    show(&answer, &args.connect, args.json)?;
    Ok(match answer.outcome {
        ReloadOutcome::Invalid => ExitCode::from(CONFIGURATION),
        // There was nothing to compare with.
        ReloadOutcome::Refused if answer.changes.is_empty() => ExitCode::from(FAILED),
        _ => ExitCode::SUCCESS,
    })
}
