//! `hookward providers`.

use std::process::ExitCode;

/// What ships: schemes, headers, deadlines, retry spans, evidence.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {} = args;
    anyhow::bail!("under construction")
}
