//! The `hookward` binary: parse, run, exit.

#[tokio::main]
async fn main() -> std::process::ExitCode {
    hookward::cli::run().await
}
