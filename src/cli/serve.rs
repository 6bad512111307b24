//! `hookward serve`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CONFIGURATION, FAILED};
use crate::{
    admin::api::ReloadRequest,
    config::LoadOptions,
    gateway::{Gateway, Origin, notify},
    http::passed::Passed,
    telemetry,
    time::Clock,
};

/// Run the gateway.
///
/// Starts if the configuration is right, and says everything that is wrong with it if not (exit code 78). SIGTERM
/// or Ctrl-C drains: not ready at once, listeners closed after server.drain_delay, the rest ended at
/// server.drain_timeout. A second signal exits at once. While the process before it still has the store, it waits.
/// SIGHUP loads the configuration anew, as `hookward reload` does.
///
/// Under systemd: takes the sockets that are passed to it ("systemd" in server.listen), tells when it is ready, reloads
/// and stops, and feeds the watchdog.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  hookward serve -c config.example.toml

Environment: HOOKWARD_LOG overrides the level of the log, such as debug or hookward::delivery=debug.")]
pub(super) struct Args {
    /// The configuration; config.example.toml explains every key.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) async fn run(args: Args, passed: Passed) -> anyhow::Result<ExitCode> {
    let Some((config, files)) = super::load_with_files(&args.config) else {
        return Ok(ExitCode::from(CONFIGURATION));
    };
    telemetry::log::init(config.log.format, &config.log.level)?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("failed to listen for SIGHUP")?;
    let origin = Origin { path: args.config, options: LoadOptions::default(), files };
    let gateway = tokio::select! {
        started = Gateway::start_from(config, Some(origin), Clock::system(), passed) => started?,
        _ = terminate.recv() => anyhow::bail!("told to end before it was up"),
        _ = interrupt.recv() => anyhow::bail!("told to end before it was up"),
    };
    let live = gateway.live().clone();
    // It ends with the process. What comes of each reload is in the log.
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let _ = live.reload(ReloadRequest::default()).await;
        }
    });
    notify::ready();
    let watchdog = tokio::spawn(gateway.watchdog());
    let code = serve(gateway, &mut terminate, &mut interrupt).await;
    watchdog.abort();
    Ok(code)
}

/// Serves until a signal, or until the store is broken, and drains. Returns the exit code.
async fn serve(gateway: Gateway, terminate: &mut Signal, interrupt: &mut Signal) -> ExitCode {
    let mut broken = false;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        error = gateway.broken() => {
            tracing::error!(%error, "ending, so that a restart reads the disk again");
            broken = true;
        }
    }
    let whole = tokio::select! {
        whole = gateway.drain() => whole,
        _ = terminate.recv() => exit_at_once(),
        _ = interrupt.recv() => exit_at_once(),
    };
    if whole && !broken { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// Without waiting for a thread that reads or writes the store: what is durable is durable.
fn exit_at_once() -> bool {
    std::process::exit(i32::from(FAILED))
}
