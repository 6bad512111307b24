//! The `hookward` binary: parse, run, exit.

use hookward::{cli, http::passed::Passed};

fn main() -> std::process::ExitCode {
    // First: it changes the environment, which is safe while there is one thread.
    let passed = Passed::take();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(cli::run(passed)),
        Err(error) => cli::failed(&error.into()),
    }
}
