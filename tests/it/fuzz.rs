//! Parsers of bytes that somebody else wrote, fed with mutations of what they expect. They may refuse; they may not
//! panic. The same rounds every time, so that a failure comes back; a new parser is one more entry in `TARGETS`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hookward::{
    admin::api::{EventFilter, OperationRequest},
    document::{Problems, parse, parse_duration, parse_size},
    policy::{Glob, Route, Routes},
    verify::json::{self, Scalar},
};
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

const TARGETS: [Target; 5] = [
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
    Target {
        name: "json",
        seeds: &[
            r#"{"data":{"id":"a","n":-7,"list":[1,{"id":"b"}],"x":true},"data2":null}"#,
            r#"[{"id":1},{"id":"\u00e9\ud83d\ude00"}]"#,
        ],
        pieces: &[
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "\\",
            "\\ud800",
            "\\u0069",
            "\"id\":",
            "\"data\":",
            "1e400",
            "-0",
            "é",
            "\u{feff}",
            "[[[[[[[[",
            "\0",
        ],
        run: |bytes| {
            let pointers = ["", "/data", "/data/id", "/data/list/1/id", "/0/id", "/1", "/data~1id/~0"];
            let found = json::scalars(bytes, &pointers);
            for (pointer, found) in pointers.iter().zip(found) {
                assert_eq!(json::scalar(bytes, pointer), found, "{pointer}");
                let place = json::locate(bytes, pointer);
                assert!(found.is_none() || matches!(&place, Ok(Some(place)) if bytes.get(place.clone()).is_some()));
            }
            let _ = json::items(bytes, "/data/list", &["/id".to_owned()]);
            // What is given is a pointer, too.
            if let Ok(text) = std::str::from_utf8(bytes) {
                let _ = (json::is_pointer(text), json::scalar(br#"{"a":1}"#, text));
            }
        },
    },
    Target {
        name: "routes",
        seeds: &["invoice.*\n{\"country\":\"DE\",\"n\":1}", "*a?b*\n{\"n\":1,\"live\":true}", "order.created\n[]"],
        pieces: &["*", "?", "**", "[", "\\", "é", "\n", "{", "}", "\"n\":", "1", "\"country\":\"DE\"", ","],
        run: |bytes| {
            let (first, body) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len()));
            let Ok(event_type) = std::str::from_utf8(first) else { return };
            let conditions = vec![("/n".to_owned(), Scalar::Integer("1".to_owned()))];
            let routes = [
                Route::new(Glob::new(event_type).ok(), Vec::new(), vec!["typed".into()]),
                Route::new(None, conditions.clone(), vec!["a".into()]),
                Route::new(Glob::new("*a*b*").ok(), conditions, vec!["b".into()]),
            ];
            let chosen = Routes::new(routes.into_iter().flatten().collect()).choose(Some(event_type), body);
            assert!(chosen.len() <= 3);
        },
    },
    Target {
        name: "what the admin API is sent",
        seeds: &[
            r#"{"action":"redeliver","filter":{"source":"a","since":"2d","json_pointer":"/a","json_value":"1"},"rate":20.0}"#,
            r#"{"action":"purge","all":true,"dry_run":true,"upstream":"b","filter":{}}"#,
        ],
        pieces: &["{", "}", "[", "]", "null", "\"filter\":", "\"", ",", "1e99", "\\ud800", "true", "é", ":"],
        run: |bytes| {
            let _ = serde_json::from_slice::<OperationRequest>(bytes);
            let _ = serde_json::from_slice::<EventFilter>(bytes);
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
