//! The rules. Each returns its complaints, one a line, with place and remedy.

use super::{
    File,
    code::{Keep, line, production, strip, words},
};

/// What the top level of the repository shows; files that start with a dot are settings and do not count.
const TOP_LEVEL: [&str; 8] =
    ["CHANGELOG.md", "Cargo.lock", "Cargo.toml", "README.md", "config.example.toml", "deploy", "src", "tests"];

const LINES_MAX: usize = 900;

/// Files that may be longer, each with its reason.
const LONG: [(&str, &str); 0] = [];

/// `src/lib.rs` lists the modules, lowest first; a module uses itself and lower ones.
pub(super) fn layers(sources: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    let Some(lib) = sources.iter().find(|file| file.path == "src/lib.rs") else {
        return vec!["src/lib.rs is missing".to_owned()];
    };
    let mut order = Vec::new();
    for item in strip(&lib.text, Keep::Code).split(['\n', ';']).map(str::trim).filter(|item| !item.is_empty()) {
        match item.strip_prefix("pub mod ") {
            Some(name) => order.push(name.to_owned()),
            // A name at the root of the crate would be a way around the layers.
            None if !item.starts_with("#!") => complaints.push(format!("src/lib.rs holds modules only, not `{item}`")),
            None => {}
        }
    }
    let layer = |name: &str| order.iter().position(|module| module == name);
    for file in sources.iter().filter(|file| !matches!(&*file.path, "src/lib.rs" | "src/main.rs")) {
        let path: Vec<&str> = file.path.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
        let Some(own) = layer(path[0]) else {
            complaints.push(format!("{}: src/lib.rs does not list `{}`", file.path, path[0]));
            continue;
        };
        let depth = path.len() - usize::from(path.last() == Some(&"mod"));
        let code = strip(&file.text, Keep::Code);
        for (offset, used) in names_from_the_root(&code, depth) {
            let place = format!("{}:{}", file.path, line(&code, offset));
            match layer(&used) {
                Some(other) if other <= own => {}
                Some(_) => complaints.push(format!("{place}: {} uses {used}, which is a higher layer", path[0])),
                None => complaints.push(format!("{place}: `{used}` is not a module of src/lib.rs; name the module")),
            }
        }
    }
    complaints
}

/// What follows `crate::`, or as many `super::` as lead to the root, with its place. `depth` is that of the file.
fn names_from_the_root(code: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, "crate") {
        let rest = code[at + "crate".len()..].trim_start();
        if let Some(rest) = rest.strip_prefix("::") {
            found.extend(first_names(rest).into_iter().map(|name| (at, name)));
        } else if rest.starts_with("as ") {
            found.push((at, "crate as".to_owned()));
        }
    }
    for at in words(code, "super").filter(|&at| !code[..at].trim_end().ends_with("super::")) {
        let (mut rest, mut climbed) = (&code[at..], 0);
        while let Some(further) = rest.strip_prefix("super::") {
            (rest, climbed) = (further, climbed + 1);
        }
        if climbed >= depth + inline_modules_around(code, at) {
            found.extend(first_names(rest).into_iter().map(|name| (at, name)));
        }
    }
    found
}

/// The first name of each path: of `a::b` that is a, of `{a::{b, c}, d}` a and d.
fn first_names(rest: &str) -> Vec<String> {
    let name =
        |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '*')).collect::<String>();
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(group[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// How many `mod x { … }` enclose the offset.
fn inline_modules_around(code: &str, offset: usize) -> usize {
    let mut open = Vec::new();
    for (at, c) in code[..offset].char_indices() {
        match c {
            '{' => {
                let head = code[..at].rsplit(['{', '}', ';', ']']).next().unwrap_or_default();
                open.push(words(head, "mod").next().is_some());
            }
            '}' => {
                open.pop();
            }
            _ => {}
        }
    }
    open.into_iter().filter(|module| *module).count()
}

/// `names` stand at the top level; what `ignored` (the text of .gitignore) names may stand there too.
pub(super) fn top_level(names: &[String], ignored: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for name in names.iter().filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str())) {
        if !ignored.lines().any(|line| line.trim_matches('/') == name) {
            complaints.push(format!("{name} does not belong at the top level of the repository"));
        }
    }
    let missing = TOP_LEVEL.iter().filter(|wanted| !names.iter().any(|name| name == *wanted));
    complaints.extend(missing.map(|wanted| format!("{wanted} is missing at the top level of the repository")));
    complaints
}

/// No file is longer than a person reads in one go.
pub(super) fn length(sources: &[File]) -> Vec<String> {
    let long = |file: &&File| file.text.lines().count() > LINES_MAX;
    let excused = |file: &&File| LONG.iter().any(|(path, _)| *path == file.path);
    let mut complaints: Vec<String> = sources
        .iter()
        .filter(long)
        .filter(|file| !excused(file))
        .map(|file| format!("{}: over {LINES_MAX} lines; what is the second idea in it?", file.path))
        .collect();
    for (path, _) in LONG.iter().filter(|(path, _)| !sources.iter().filter(long).any(|file| file.path == *path)) {
        complaints.push(format!("{path} is excused for its length and need not be"));
    }
    complaints
}

/// The clocks of the standard library are read in `src/time.rs` only.
pub(super) fn clocks(sources: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in sources.iter().filter(|file| file.path != "src/time.rs") {
        let code = strip(&file.text, Keep::Code);
        let mut complain = |offset, what: &str| {
            complaints.push(format!("{}:{}: {what}; use time::Clock", file.path, line(&code, offset)));
        };
        for (offset, _) in code.match_indices("SystemTime::now") {
            complain(offset, "reads the wall clock");
        }
        for (offset, _) in code.match_indices("std::time::Instant") {
            complain(offset, "uses the monotonic clock of std");
        }
        for offset in words(&code, "use") {
            let import = code[offset..].split(';').next().unwrap_or_default();
            let from_std = words(import, "std").next().is_some();
            if from_std && !import.contains("std::time::Instant") && words(import, "Instant").next().is_some() {
                complain(offset, "imports the monotonic clock of std");
            }
        }
    }
    complaints
}

/// Providers are data: `src/verify` names none of those that `src/preset` has.
pub(super) fn providers(sources: &[File]) -> Vec<String> {
    let names: Vec<&str> =
        sources.iter().filter_map(|file| file.path.strip_prefix("src/preset/data/")?.strip_suffix(".toml")).collect();
    // Words of every day and of the language are no names there.
    let names: Vec<&str> =
        names.into_iter().filter(|name| !["box", "front", "line", "segment", "x"].contains(name)).collect();
    let mut complaints = Vec::new();
    for file in sources.iter().filter(|file| file.path.starts_with("src/verify") && file.is("rs")) {
        let code = production(&strip(&file.text, Keep::CodeAndText)).to_lowercase();
        for name in &names {
            let joined = name.replace('-', "_");
            for offset in words(&code, name).chain(words(&code, &joined).filter(|_| joined != **name)) {
                complaints.push(format!("{}:{}: names {name}; a provider is data", file.path, line(&code, offset)));
            }
        }
    }
    complaints
}

/// Outside tests nothing is unwrapped without a word; nowhere is anything left to be done.
pub(super) fn panics(sources: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in sources {
        let code = strip(&file.text, Keep::Code);
        for mark in ["dbg!", "todo!", "unimplemented!"] {
            for (offset, _) in code.match_indices(mark) {
                complaints.push(format!("{}:{}: {mark} is for unfinished work", file.path, line(&code, offset)));
            }
        }
        if is_for_tests(file, sources) {
            continue;
        }
        let code = production(&code);
        for (offset, _) in code.match_indices(".unwrap()").filter(|(offset, _)| !is_in_constant(&code, *offset)) {
            complaints.push(format!("{}:{}: unwrap(); say with expect() why it holds", file.path, line(&code, offset)));
        }
    }
    complaints
}

/// A constant that cannot be had does not compile, so it needs no reason.
fn is_in_constant(code: &str, offset: usize) -> bool {
    let statement = code[..offset].rsplit([';', '{', '}']).next().unwrap_or_default();
    let declared = statement.split('=').next().unwrap_or_default();
    words(declared, "const").next().is_some()
}

/// Whether the file is a module, or lies below one, that is declared under `#[cfg(test)]`.
fn is_for_tests(file: &File, sources: &[File]) -> bool {
    sources.iter().any(|parent| {
        let folder = parent.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let Some(below) = file.path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) else {
            return false;
        };
        let name = below.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        let code = strip(&parent.text, Keep::Code);
        let declares = |text: &str| words(text, &format!("mod {name};")).next().is_some();
        declares(&code) && !declares(&production(&code))
    })
}

/// What ships names no place of the machine it was written on.
pub(super) fn machine_paths(sources: &[File]) -> Vec<String> {
    // In two parts, or this file would name them.
    let needles = [["/wo", "rk/"], ["/ro", "ot/"], ["../sha", "red"]].map(|parts| parts.concat());
    let mut complaints = Vec::new();
    for file in sources {
        for needle in &needles {
            for (offset, _) in file.text.match_indices(needle.as_str()) {
                complaints.push(format!("{}:{}: names {needle}", file.path, line(&file.text, offset)));
            }
        }
    }
    complaints
}

/// A preset without a known answer is a guess.
pub(super) fn presets(sources: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in sources.iter().filter(|file| file.is("toml")) {
        let name = file.path.rsplit('/').next().and_then(|name| name.strip_suffix(".toml")).unwrap_or_default();
        let generated = format!("tests/presets/vectors/{name}.json");
        let own = match toml::from_str::<toml::Table>(&file.text) {
            Ok(preset) => preset.get("vectors").and_then(|vectors| Some(vectors.as_array()?.len())),
            Err(error) => {
                complaints.push(format!("{}: {error}", file.path));
                continue;
            }
        };
        let others = sources.iter().find(|other| other.path == generated);
        let others =
            others.and_then(|other| Some(serde_json::from_str::<Vec<serde_json::Value>>(&other.text).ok()?.len()));
        if own.unwrap_or(0) + others.unwrap_or(0) == 0 {
            complaints.push(format!("{}: has no known-answer vector", file.path));
        }
    }
    complaints
}

mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Vec<File> {
        files.iter().map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() }).collect()
    }

    const LIB: (&str, &str) =
        ("src/lib.rs", "//! Text.\n#![warn(missing_docs)]\npub mod low;\npub mod mid; // why\npub mod high;\n");

    #[test]
    fn a_module_that_reaches_upwards_is_found_however_it_is_written() {
        for (path, text) in [
            ("src/low.rs", "fn f() { crate::mid::g() }"),
            ("src/low.rs", "use crate::high;"),
            ("src/mid/mod.rs", "use crate::{low::A, high::{B, C}};"),
            ("src/mid/mod.rs", "use crate::{\n    low::{self, A},\n    high,\n};"),
            ("src/mid/part.rs", "use super::super::high::B;"),
            ("src/mid/part.rs", "mod tests { use super::super::super::high::B; }"),
            ("src/mid/part/deep.rs", "pub use super::super::super::high::B;"),
            ("src/low.rs", "use super::high;"),
            ("src/low.rs", "#[cfg(test)] mod tests { use crate::high::B; }"),
            ("src/low.rs", "use crate::*;"),
            ("src/low.rs", "use crate as all;"),
            ("src/low.rs", "macro_rules! m { () => { $crate::high::g() } }"),
            ("src/unlisted.rs", ""),
        ] {
            let complaints = layers(&tree(&[LIB, (path, text)]));
            assert_eq!(complaints.len(), 1, "{path}: {text}: {complaints:?}");
        }
        assert!(!layers(&tree(&[("src/lib.rs", "pub mod low;\npub use low::Thing;")])).is_empty());
    }

    #[test]
    fn a_module_may_use_itself_and_what_is_below() {
        let sources = tree(&[
            LIB,
            ("src/high.rs", "use crate::{low::A, mid::{B, C}};\npub(crate) fn f() {} // crate::other"),
            (
                "src/mid/mod.rs",
                "use crate::{low, mid::part}; mod part; /* crate::high */ const TEXT: &str = \"crate::high\";",
            ),
            ("src/mid/part.rs", "use super::B; mod tests { use super::super::B; use super::*; }"),
            ("src/main.rs", "fn main() { hookward::high::run() }"),
        ]);
        assert_eq!(layers(&sources), Vec::<String>::new());
    }

    #[test]
    fn the_top_level_is_compared_both_ways() {
        let mut names: Vec<String> = TOP_LEVEL.map(str::to_owned).into();
        names.extend(["target".to_owned(), ".git".to_owned()]);
        assert_eq!(top_level(&names, "/target\n"), Vec::<String>::new());
        assert_eq!(top_level(&names, "").len(), 1);
        names.retain(|name| name != "README.md");
        assert_eq!(top_level(&names, "/target\n").len(), 1);
    }

    #[test]
    fn each_rule_about_code_finds_its_case_and_spares_the_others() {
        let clean = "// SystemTime::now() dbg!() .unwrap()\nuse std::time::Duration; use tokio::time::Instant;\n\
            const A: NonZeroU8 = NonZeroU8::new(1).unwrap();\n\
            fn f() { Instant::now(); x.unwrap_or(1); y.expect(\"todo! is text\"); }\n\
            #[cfg(test)] mod tests { fn f() { x.unwrap() } }";
        let sources = tree(&[("src/low.rs", clean)]);
        assert_eq!([clocks(&sources), panics(&sources)].concat(), Vec::<String>::new());
        for text in ["a(SystemTime::now())", "use std::{a, time::{Duration, Instant}};", "std::time::Instant::now()"] {
            assert_eq!(clocks(&tree(&[("src/low.rs", text)])).len(), 1, "{text}");
        }
        for text in [
            "x.unwrap();",
            "const A: u8 = 1; const fn f() { x.unwrap() }",
            "dbg!(x);",
            "#[cfg(test)] mod tests { fn f() { todo!() } }",
            "unimplemented!()",
        ] {
            assert_eq!(panics(&tree(&[("src/low.rs", text)])).len(), 1, "{text}");
        }
        assert_eq!(length(&tree(&[("src/low.rs", &"\n".repeat(LINES_MAX + 1))])).len(), 1);
        assert_eq!(machine_paths(&tree(&[("README.md", &["see /wo", "rk/x"].concat())])).len(), 1);
    }

    #[test]
    fn a_file_that_only_tests_declare_is_test_code() {
        let unwraps = ("src/mid/tests.rs", "fn f() { x.unwrap() }");
        assert!(panics(&tree(&[("src/mid/mod.rs", "#[cfg(test)]\nmod tests;"), unwraps])).is_empty());
        assert_eq!(panics(&tree(&[("src/mid/mod.rs", "mod tests;"), unwraps])).len(), 1);
    }

    #[test]
    fn a_provider_in_verification_and_a_preset_without_vectors_are_found() {
        let preset = ("src/preset/data/acme-post.toml", "title = \"Acme\"\nvectors = []\n");
        let named =
            ("src/verify/mod.rs", "// acme-post is fine here\nfn f() { acme_post() }\nconst X: &str = \"Acme-Post\";");
        assert_eq!(providers(&tree(&[preset, named])).len(), 2);
        assert_eq!(presets(&tree(&[preset])).len(), 1);
        assert_eq!(presets(&tree(&[("src/preset/data/a.toml", "[[vectors]]\nid = \"a\"\n")])), Vec::<String>::new());
        let generated = |text| ("tests/presets/vectors/acme-post.json", text);
        assert_eq!(presets(&tree(&[preset, generated("[]")])).len(), 1);
        assert_eq!(presets(&tree(&[preset, generated("[{\"id\":\"a\"}]")])), Vec::<String>::new());
    }
}
