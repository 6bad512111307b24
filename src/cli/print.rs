//! What commands print: tables, sizes, ages, questions.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::telemetry::log::escaped;

/// Columns as wide as their widest cell. What stands in a cell may come from a provider, so it is escaped.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut lines = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| row.iter().map(|cell| escaped(cell)).collect()));
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for line in &lines {
        let cells: Vec<_> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// As indented JSON.
pub(super) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// To stdout. A reader that left early (`| head`) is no failure.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("failed to write to stdout"),
        _ => Ok(()),
    }
}

/// A size for people: `1.2 MiB`.
pub(super) fn size(bytes: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

/// A duration for people: its two largest units, such as `3d4h` or `1m35s`.
pub(super) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let first = units.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(units.len() - 1);
    let (unit, name) = units[first];
    let rest = seconds % unit;
    let second = units.get(first + 1).filter(|(smaller, _)| rest >= *smaller);
    let second = second.map(|(smaller, name)| format!("{}{name}", rest / smaller)).unwrap_or_default();
    format!("{}{name}{second}", seconds / unit)
}

/// Asks a person; a program has to say `--yes`.
pub(super) fn confirm(question: &str, yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        bail!("{question} There is nobody to ask: say --yes");
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("failed to read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_aligns_and_no_cell_commands_the_terminal() {
        let rows = [vec!["a\u{1b}[31m".to_owned(), "1".to_owned()], vec!["grün".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME         N\na\\u{1b}[31m  1\ngrün\n");
    }

    #[test]
    fn sizes_and_ages_are_short() {
        assert_eq!(
            [0, 1023, 1024, 1_258_291, u64::MAX].map(size).join(" "),
            "0 B 1023 B 1.0 KiB 1.1 MiB 16777215.9 TiB"
        );
        let ages = [0, 59, 60, 95, 3_600, 7_260, 273_600].map(|s| age(Duration::from_secs(s)));
        assert_eq!(ages.join(" "), "0s 59s 1m 1m35s 1h 2h1m 3d4h");
    }
}
