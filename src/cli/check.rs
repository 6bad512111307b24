//! `hookward check`.

use std::process::ExitCode;

/// Validate a configuration: explains, warns, exits 78 on errors.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {} = args;
    anyhow::bail!("under construction")
}
