//! `hookward echo`.

use std::process::ExitCode;

/// A small upstream that prints what it receives.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {} = args;
    anyhow::bail!("under construction")
}
