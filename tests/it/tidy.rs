//! Rules about the source itself: the direction of the layers, the shape of the repository, what code may not say.
//!
//! Each rule is a function from files to complaints, so that it can be held against a made-up tree as well.

mod code;
mod rules;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One file: its path from the top of the repository, and its text.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|own| own == extension)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file below these places, in the order of their paths.
fn files(places: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    let mut pending: Vec<PathBuf> = places.iter().map(|place| root().join(place)).filter(|p| p.exists()).collect();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory of the repository is readable");
            pending.extend(entries.map(|entry| entry.expect("its entries are readable").path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root()).expect("it is below the top").display().to_string();
            found.push(File { path, text });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn rust_sources() -> Vec<File> {
    let mut sources = files(&["src"]);
    sources.retain(|file| file.is("rs"));
    assert!(sources.len() > 10, "the sources were not found");
    sources
}

#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn a_module_uses_only_lower_layers() {
    assert_none(&rules::layers(&rust_sources()));
}

#[test]
fn the_top_level_shows_what_it_should_and_nothing_else() {
    let ignored = fs::read_to_string(root().join(".gitignore")).expect(".gitignore is readable");
    let entries = fs::read_dir(root()).expect("the repository is readable");
    let names = entries.map(|entry| entry.expect("its entries are readable").file_name().display().to_string());
    assert_none(&rules::top_level(&names.collect::<Vec<_>>(), &ignored));
}

#[test]
fn files_stay_short_enough_to_read() {
    assert_none(&rules::length(&rust_sources()));
}

#[test]
fn clocks_are_read_in_one_place() {
    assert_none(&rules::clocks(&rust_sources()));
}

#[test]
fn verification_names_no_provider() {
    assert_none(&rules::providers(&files(&["src"])));
}

#[test]
fn production_code_says_why_it_may_panic_and_leaves_nothing_unfinished() {
    assert_none(&rules::panics(&rust_sources()));
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    assert_none(&rules::machine_paths(&files(&[
        "src",
        "deploy",
        "tests",
        "README.md",
        "CHANGELOG.md",
        "config.example.toml",
    ])));
}

#[test]
fn every_preset_has_a_known_answer() {
    assert_none(&rules::presets(&files(&["src/preset", "tests/presets"])));
}
