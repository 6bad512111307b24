//! Parsers of bytes that somebody else wrote, fed with mutations of what they expect. They may refuse; they may not
//! panic. The same rounds every time, so that a failure comes back; a new parser is one more entry in `TARGETS`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hookward::document::{Problems, parse, parse_duration, parse_size};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::counts::reduced;

struct Target {
    name: &'static str,
    /// What it expects, whole.
    seeds: &'static [&'static str],
    /// Pieces that mutations put in.
    pieces: &'static [&'static str],
    run: fn(&[u8]),
}

const TARGETS: [Target; 2] = [
    Target {
        name: "document",
        seeds: &[
            "include = [\"conf.d/*.toml\"]\n[server]\nlisten = \"127.0.0.1:8080\"\nunknown_path = 404\n",
            "[sources.a]\nsecrets = [{ value = \"s\", not_before = 2026-01-01T00:00:00Z }]\n[sources.\"b c\"]\nx.y = 1.5\n",
        ],
        pieces: &[
            "[", "]", "[[", "{", "}", "\"", "'", "\"\"\"", "=", ".", ",", "\n", "#", "\\u", "1e400", "é", "\u{feff}",
            "value",
        ],
        run: |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            let problems = Problems::default();
            parse(&problems, "fuzz.toml", text).finish();
            // Rendering cuts the text at the places of the problems.
            let _ = problems.render(false);
        },
    },
    Target {
        name: "units",
        seeds: &["1h30m", "500ms", "64KiB", "9223372036854775807B"],
        pieces: &["0", "99999999999", "h", "m", "ms", "MiB", "-", "+", ".", " ", "µs", "é"],
        run: |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            let _ = (parse_duration(text), parse_size(text));
        },
    },
];

#[test]
fn no_mutation_makes_a_parser_panic() {
    let rounds = reduced("mutations of each parser's input", 2_000, 2_000_000);
    for target in &TARGETS {
        for round in 0..rounds {
            let input = mutation(target, &mut StdRng::seed_from_u64(round.into()));
            let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
            assert!(outcome.is_ok(), "{} panics at \"{}\" (round {round})", target.name, input.escape_ascii());
        }
    }
}

/// A seed with up to eight changes.
fn mutation(target: &Target, random: &mut StdRng) -> Vec<u8> {
    let mut bytes = target.seeds[random.random_range(0..target.seeds.len())].as_bytes().to_vec();
    for _ in 0..random.random_range(1..=8) {
        let at = random.random_range(0..=bytes.len());
        let end = random.random_range(at..=bytes.len().min(at + 16));
        match random.random_range(0..4) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            2 => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << random.random_range(0..8)),
            _ => {
                let piece = target.pieces[random.random_range(0..target.pieces.len())];
                bytes.splice(at..at, piece.bytes());
            }
        }
    }
    bytes
}
