//! `hookward store`.

use std::{
    fmt::Write as _,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{
    CONFIGURATION, FAILED,
    print::{print, print_json, size, table},
};
use crate::{
    config::{self, LoadOptions, Secrets, model::Engine},
    store::sqlite::tools::{BackUp, BackedUp, Report, Restore, Restored, ToolError, verify},
    time::Clock,
};

/// Verify, back up and restore the store.
///
/// The first two work beside a gateway that runs. Restore does not: a store that is in use is not replaced.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hookward store verify -c hookward.toml
  hookward store backup -c hookward.toml --to backup.db
  hookward store restore backup.db -c hookward.toml")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check that everything in a store, or in a backup, is what was written.
    ///
    /// Reads every page, the seal of every row and body, and whether the tables agree with each other. Changes
    /// nothing, and may run beside the gateway. Exits 0 if all is whole, 1 if anything is damaged.
    #[command(after_help = "Examples:
  hookward store verify -c hookward.toml
  hookward store verify --path backup.db --json")]
    Verify(Verify),
    /// Copy the store to a file, also while the gateway runs.
    ///
    /// The copy has everything that was acknowledged before the command began. It is written as FILE.partial, synced and
    /// verified before it gets its name, and only this user may read it.
    #[command(after_help = "Examples:
  hookward store backup -c hookward.toml --to backup.db
  hookward store backup --path hookward-data --to /mnt/backup/hookward.db --force")]
    Backup(Backup),
    /// Make a backup the store again. The gateway must not run.
    ///
    /// What was not delivered when the backup was made may have been delivered since: it is held until an operator
    /// releases it. What came after the backup is not in it.
    #[command(after_help = "Examples:
  hookward store restore backup.db -c hookward.toml
  hookward store restore backup.db --path hookward-data --force     moves what is there aside")]
    Restore(RestoreArgs),
}

/// Which store.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The configuration that names the store.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory of the store, or a file of its format.
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Verify {
    #[command(flatten)]
    which: Which,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Backup {
    #[command(flatten)]
    which: Which,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Replace the file if it is there.
    #[arg(long)]
    force: bool,
    /// Do not verify the copy, and keep it even if it is damaged.
    #[arg(long)]
    no_verify: bool,
}

#[derive(Debug, clap::Args)]
struct RestoreArgs {
    /// The backup.
    #[arg(value_name = "FILE")]
    backup: PathBuf,
    #[command(flatten)]
    which: Which,
    /// Move the store that is there aside, to hookward.db.replaced-TIME.
    #[arg(long)]
    force: bool,
    /// Restore a damaged backup: what is left of it.
    #[arg(long)]
    accept_damage: bool,
}

#[expect(clippy::unused_async, reason = "every command has the same shape")]
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let which = match &args.command {
        Command::Verify(args) => &args.which,
        Command::Backup(args) => &args.which,
        Command::Restore(args) => &args.which,
    };
    let Some(place) = which.place()? else { return Ok(ExitCode::from(CONFIGURATION)) };
    match args.command {
        Command::Verify(args) => run_verify(&args, &place),
        Command::Backup(args) => run_backup(args, place),
        Command::Restore(args) => run_restore(&args, place),
    }
}

impl Which {
    /// As it was given, to name it in a command.
    fn typed(&self) -> String {
        let option = |name: &str, file: &PathBuf| format!("{name} {}", file.display());
        let config = self.config.as_ref().map(|file| option("-c", file));
        config.or_else(|| self.path.as_ref().map(|path| option("--path", path))).unwrap_or_default()
    }

    /// The directory or the file. `None` if the configuration is wrong, which is said then. Secrets are not read: the
    /// user of a backup need not have them.
    fn place(&self) -> anyhow::Result<Option<PathBuf>> {
        let Some(file) = &self.config else { return Ok(self.path.clone()) };
        let loaded = config::load(file, &LoadOptions { secrets: Secrets::Skip, ..LoadOptions::default() });
        let Some(config) = loaded.config else {
            let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            eprint!("{}", loaded.problems.render(color));
            eprintln!("{} is not usable: see above", file.display());
            return Ok(None);
        };
        if config.store.engine == Engine::Memory {
            bail!("the store of {} is kept in memory: there is nothing on disk", file.display());
        }
        Ok(Some(config.store.path))
    }
}

// ---- verify --------------------------------------------------------------------------------------------------------

fn run_verify(args: &Verify, place: &Path) -> anyhow::Result<ExitCode> {
    let bar = bar(args.json);
    let report = verify(place, &mut progress(&bar));
    bar.finish_and_clear();
    let report = report.context("failed to verify the store")?;
    if args.json {
        print_json(&as_json(&report))?;
    } else {
        print(&as_text(&report))?;
        if !report.is_whole() {
            print(&advice(&args.which, place.is_dir()))?;
        }
    }
    Ok(if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// What was found, without what to do.
fn as_text(report: &Report) -> String {
    let rows: Vec<_> = report
        .checked
        .iter()
        .map(|checked| vec![checked.table.to_owned(), checked.rows.to_string(), checked.damaged.to_string()])
        .collect();
    let mut out = table(&["TABLE", "ROWS", "DAMAGED"], &rows);
    if report.unreadable_log_pages > 0 {
        let _ = writeln!(
            out,
            "\n{} pages at the end of the log cannot be read, and are not used: they were being written when the \
             process ended, or they are damaged.",
            report.unreadable_log_pages
        );
    }
    if report.is_whole() {
        let _ = writeln!(out, "\n{} is whole.", report.path.display());
        return out;
    }
    let rows: Vec<_> = report
        .damage
        .iter()
        .map(|damage| {
            let event = damage.event.map(|id| id.to_string()).unwrap_or_default();
            let upstream = damage.upstream.clone().unwrap_or_default();
            vec![damage.table.to_owned(), damage.row.clone(), event, upstream, damage.what.clone()]
        })
        .collect();
    let _ = writeln!(out, "\n{}", table(&["TABLE", "ROW", "EVENT", "UPSTREAM", "WHAT"], &rows));
    let damaged: u64 = report.checked.iter().map(|checked| checked.damaged).sum();
    if damaged > rows.len() as u64 {
        let _ = writeln!(out, "These are {} of {damaged}.\n", rows.len());
    }
    let _ = writeln!(out, "{} is damaged.", report.path.display());
    out
}

/// What to do about a damaged store, or about a damaged copy of one. The commands are those that would be typed.
fn advice(which: &Which, is_store: bool) -> String {
    let which = which.typed();
    if is_store {
        format!(
            "What to do:
  look at the disk under it, and keep a copy of the whole directory
  an event that is damaged: `hookward events purge ID`, then ask its provider to send it again
  a backup that is whole: `hookward store restore BACKUP {which} --force` moves this store aside
  the tables counts and totals alone: restart the gateway, or restore a backup of now: both count anew
"
        )
    } else {
        "What to do:
  take a backup that is whole; `hookward store verify --path BACKUP` tells
  if there is none: `hookward store restore BACKUP --path DIRECTORY --accept-damage` restores what is left of it
"
        .to_owned()
    }
}

fn as_json(report: &Report) -> serde_json::Value {
    let checked = report
        .checked
        .iter()
        .map(|checked| json!({ "table": checked.table, "rows": checked.rows, "damaged": checked.damaged }));
    let damage = report.damage.iter().map(|damage| {
        json!({
            "table": damage.table,
            "row": damage.row,
            "event": damage.event.map(|id| id.to_string()),
            "upstream": damage.upstream,
            "what": damage.what,
        })
    });
    json!({
        "file": report.path.display().to_string(),
        "whole": report.is_whole(),
        "tables": checked.collect::<Vec<_>>(),
        "damage": damage.collect::<Vec<_>>(),
        "unreadable_log_pages": report.unreadable_log_pages,
    })
}

// ---- backup --------------------------------------------------------------------------------------------------------

fn run_backup(args: Backup, from: PathBuf) -> anyhow::Result<ExitCode> {
    let bar = bar(false);
    let backup = BackUp { from, to: args.to, overwrite: args.force, verify: !args.no_verify, clock: Clock::system() };
    let done = backup.run(&mut progress(&bar));
    bar.finish_and_clear();
    let done = explained(done).context("failed to back up the store")?;
    print(&backed_up(&backup, &done))?;
    Ok(ExitCode::SUCCESS)
}

fn backed_up(backup: &BackUp, done: &BackedUp) -> String {
    let mut out = format!(
        "{} -> {}: {}, {} events, in {:?}; the log was held for {:?}.\n",
        done.from.display(),
        backup.to.display(),
        size(done.bytes),
        done.events,
        done.took,
        done.log_held
    );
    let bodies = if done.keys.is_empty() {
        "its bodies are, as they came".to_owned()
    } else {
        format!("its bodies are, encrypted with {}: keep what opens them", done.keys.join(", "))
    };
    let _ = writeln!(out, "No secret of the configuration is in it; {bodies}.");
    if !backup.verify {
        out.push_str("It was not verified.\n");
    }
    out
}

// ---- restore -------------------------------------------------------------------------------------------------------

fn run_restore(args: &RestoreArgs, directory: PathBuf) -> anyhow::Result<ExitCode> {
    let bar = bar(false);
    let restore = Restore {
        from: args.backup.clone(),
        directory,
        replace: args.force,
        accept_damage: args.accept_damage,
        now: Clock::system().wall(),
    };
    let done = restore.run(&mut progress(&bar));
    bar.finish_and_clear();
    let done = explained(done).context("failed to restore the store")?;
    print(&restored(&restore, &done, &args.which.typed()))?;
    Ok(ExitCode::SUCCESS)
}

fn restored(restore: &Restore, done: &Restored, which: &str) -> String {
    let mut out = format!("{} -> {}: {} events.\n", restore.from.display(), done.path.display(), done.events);
    if let Some(aside) = &done.aside {
        let _ = writeln!(out, "What was there is {} now; it is yours to remove.", aside.display());
    }
    if done.damaged > 0 {
        let _ = writeln!(
            out,
            "{} things in it are damaged and will not be used: see `hookward store verify {which}`.",
            done.damaged
        );
    }
    if done.held > 0 {
        let _ = write!(
            out,
            "{} deliveries are held: they may have been made after the backup. When the gateway runs:
  hookward events list --state held       what they are
  hookward events release ID              deliver one
  hookward events release --state held    deliver all, after a question\n",
            done.held
        );
    }
    out.push_str(
        "Events that were accepted after the backup are not in it: ask their providers to send them again.
Webhooks signed before now are answered 503 as stale, for the tolerance of their source: they may be copies of those.\n",
    );
    out
}

// ---- both ----------------------------------------------------------------------------------------------------------

/// With what is damaged, where that is why.
fn explained<T>(result: Result<T, ToolError>) -> Result<T, ToolError> {
    if let Err(ToolError::Damaged { report, .. }) = &result {
        eprint!("{}", as_text(report));
    }
    result
}

/// On a terminal only.
fn bar(json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent}%  {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn progress(bar: &ProgressBar) -> impl FnMut(u64, u64) + '_ {
    |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    }
}
