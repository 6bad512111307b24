//! The commands, one a file. Arguments as typed are `Args` of each file; what they mean is decided there.
//!
//! Exit codes: 0 ok, 1 failed, 2 usage, 78 configuration.

mod admin;
mod check;
mod cores;
mod demo;
mod diff;
mod echo;
mod events;
mod operations;
mod print;
mod providers;
mod reload;
mod send;
mod serve;
mod sign;
mod status;
mod store;
mod upstreams;
mod verify;
mod who;

use std::{io::IsTerminal as _, path::Path, process::ExitCode};

use clap::Parser;

use crate::{
    config::{self, Config, Files, LoadOptions},
    http::passed::Passed,
};

const FIRST_STEPS: &str = "First steps:
  hookward demo --once                                  everything at once, on temporary data
  hookward check -c config.example.toml                 what a configuration means
  hookward serve -c config.example.toml                 the gateway
  hookward echo                                         an upstream beside it
  hookward sign --help                                  a signed request, to try it

Exit codes: 0 ok, 1 failed, 2 wrong usage, 78 wrong configuration.";

/// A receiver-side webhook gateway: verifies, de-duplicates, stores, acknowledges and forwards webhooks.
#[derive(Debug, Parser)]
#[command(name = "hookward", version, about, max_term_width = 100, after_help = FIRST_STEPS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What each command says of itself stands at its `Args`: a text here would take the place of all of it.
#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(serve::Args),
    Check(check::Args),
    Demo(demo::Args),
    Echo(echo::Args),
    Sign(sign::Args),
    Send(send::Args),
    Verify(verify::Args),
    Providers(providers::Args),
    Events(events::Args),
    Operations(operations::Args),
    Upstreams(upstreams::Args),
    Status(status::Args),
    Reload(reload::Args),
    Diff(diff::Args),
    Store(store::Args),
}

/// The program failed: exit code 1.
pub const FAILED: u8 = 1;
/// The configuration is wrong: exit code 78, `EX_CONFIG` of sysexits.h.
pub const CONFIGURATION: u8 = 78;

/// Runs the command line, with the sockets that were passed to this process. Returns the exit code.
pub async fn run(passed: Passed) -> ExitCode {
    cores::forbid();
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve::run(args, passed).await,
        Command::Check(args) => check::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Echo(args) => echo::run(args).await,
        Command::Sign(args) => sign::run(args).await,
        Command::Send(args) => send::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Providers(args) => providers::run(args).await,
        Command::Events(args) => events::run(args).await,
        Command::Operations(args) => operations::run(args).await,
        Command::Upstreams(args) => upstreams::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Reload(args) => reload::run(args).await,
        Command::Diff(args) => diff::run(args).await,
        Command::Store(args) => store::run(args).await,
    };
    outcome.unwrap_or_else(|error| failed(&error))
}

/// Says on standard error why the program failed. Returns the exit code.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("hookward: {error:#}");
    ExitCode::from(FAILED)
}

/// The configuration in a file. Problems go to standard error, warnings too; `None` if there is an error.
fn load_config(path: &Path) -> Option<Config> {
    load_with_files(path).map(|(config, _)| config)
}

/// As [`load_config`], with the files that it is made of.
fn load_with_files(path: &Path) -> Option<(Config, Files)> {
    let loaded = config::load(path, &LoadOptions::default());
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    eprint!("{}", loaded.problems.render(color));
    if loaded.config.is_none() {
        eprintln!("{} is not usable: see above", path.display());
    }
    Some((loaded.config?, loaded.files))
}
