//! README.md is a promise to a new user, so what it shows is run as it stands: its commands with bash, curl and
//! openssl against the real binary, and its configurations through the loader.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use hookward::config::{self, Environment, LoadOptions};

use crate::running::{Gateway, echo, run, stdout};

const README: &str = include_str!("../../README.md");
const EXAMPLE: &str = include_str!("../../config.example.toml");

/// The fenced block behind a marker such as `<!-- curl: functions -->`.
fn block(marker: &str) -> &'static str {
    let (_, rest) = README.split_once(marker).unwrap_or_else(|| panic!("{marker} is not in README.md"));
    let fenced = rest.trim_start().strip_prefix("```").expect("a fenced block follows");
    let (_, text) = fenced.split_once('\n').expect("text");
    text.split_once("\n```").expect("the block ends").0
}

/// `text` with one thing replaced that stands in it exactly once.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to)
}

/// The statuses that a script prints, one a line.
fn statuses(script: &str) -> Vec<u16> {
    let output = Command::new("bash").arg("-euc").arg(script).output().expect("bash is there");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    stdout(&output).lines().map(|line| line.parse().expect("a status")).collect()
}

#[test]
fn the_commands_of_the_readme_print_what_it_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let (upstream, upstream_address) = echo(&[]);
    let text = replaced(EXAMPLE, "\"127.0.0.1:8080\"", "\"127.0.0.1:0\"");
    let text = replaced(&text, "\"127.0.0.1:9900\"", "\"127.0.0.1:0\"");
    let text = replaced(&text, "url = \"http://127.0.0.1:9000/\"", &format!("url = \"http://{upstream_address}/\""));
    let gateway = Gateway::start(directory.path(), &text);

    let functions = replaced(block("<!-- curl: functions -->"), "127.0.0.1:8080", &gateway.public.to_string());
    let accepted = block("<!-- curl: accepted -->");
    assert_eq!(statuses(&format!("{functions}\n{accepted}")), [200; 15]);
    let status = gateway.settled();
    assert_eq!(status["upstreams"][0]["delivered"], 5, "{status:#}");

    let refused = block("<!-- curl: refused -->");
    let expected = [401, 401, 401, 401, 401, 401, 401, 200, 413, 413, 413, 413, 413];
    assert_eq!(statuses(&format!("{functions}\nnow=$(date +%s)\n{refused}")), expected);

    let held = gateway.json(&["events", "list", "--state", "held"]);
    let held = held["events"].as_array().expect("a list");
    assert_eq!(held.len(), 1, "{held:#?}");
    assert_eq!((&held[0]["source"], &held[0]["deliveries"][0]["state"]), (&"price2b".into(), &"held".into()));
    assert_eq!(gateway.json(&["events", "list"])["events"].as_array().map(Vec::len), Some(6));

    // What the README tells to look at.
    for command in [&["status"][..], &["events", "list"], &["events", "show", held[0]["id"].as_str().expect("an id")]] {
        assert!(gateway.ask(command).status.success(), "{command:?}");
    }
    let metrics = run(Command::new("curl").args(["-sS", &format!("http://{}/metrics", gateway.admin)]));
    let metrics = stdout(&metrics);
    let named: Vec<_> = quoted(README).filter(|text| text.starts_with("hookward_")).collect();
    assert!(named.len() >= 4);
    for name in named {
        let is_there = metrics.lines().any(|line| line.split(['{', ' ']).next() == Some(name));
        assert!(is_there, "README.md names {name}; there are:\n{metrics}");
    }
    gateway.settled();
    let (_, received, totals) = upstream.end("INT");
    assert!(totals.ends_with("5 requests, 5 events, 0 of them again"), "{totals}\n{received}");
    for provider in ["partssource", "price2b", "mobility-work", "gains", "sourcehub"] {
        assert_eq!(received.matches(&format!("hookward-source: {provider}\n")).count(), 1, "{provider}:\n{received}");
    }
    for secret in ["change-me", "example-"] {
        assert!(!received.contains(secret), "{received}");
    }
    let (_, log) = gateway.end();
    assert!(!log.contains("-secret-change-me"), "{log}");
}

/// Loads a configuration of the README with the secrets that it names.
fn load(text: &str) -> config::Loaded {
    let directory = tempfile::tempdir().expect("a directory");
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../presets/vectors/paypal.json")).expect("JSON");
    let write = |path: &str, secret: &str| {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, secret).expect("written");
    };
    write("secrets/partssource", "a-secret-of-some-length\n");
    write("secrets/orders-signing", "whsec_YS1zZWNyZXQtb2Ytc29tZS1sZW5ndGg=\n");
    write("secrets/acme", "another-secret-of-some-length\n");
    write("secrets/acme-old", "one-more-secret-of-some-length\n");
    write("secrets/hubspot", "a-hubspot-secret-of-some-length\n");
    write("keys/paypal.pem", vectors[0]["secrets"][0].as_str().expect("a public key"));
    write("credentials/legacy-token", "a-token-of-some-length\n");
    let credentials = directory.path().join("credentials").display().to_string();
    let variables =
        [("STRIPE_SIGNING_SECRET", "whsec_a-secret-of-some-length"), ("CREDENTIALS_DIRECTORY", &credentials)];
    let variables: BTreeMap<_, _> = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let options = LoadOptions { environment: Environment::Fixed(variables), ..LoadOptions::default() };
    config::from_text_with("README.md", text, directory.path(), &options)
}

/// Every fenced block of TOML.
fn configurations() -> Vec<&'static str> {
    README.split("\n```toml\n").skip(1).map(|rest| rest.split_once("\n```").expect("the block ends").0).collect()
}

#[test]
fn the_configurations_of_the_readme_load() {
    let blocks = configurations();
    assert!(blocks.len() >= 2);
    for text in blocks {
        let loaded = load(text);
        assert!(loaded.config.is_some(), "{}", loaded.problems.render(false));
    }
}

#[test]
fn what_the_readme_says_of_its_configuration_is_so() {
    let loaded = load(configurations()[0]);
    let shown = loaded.problems.render(false);
    let Some(config) = loaded.config else { panic!("{shown}") };
    assert_eq!(config.sources["partssource"].path.text, "/hooks/partssource");
    assert_eq!(config.sources["legacy"].path.text, "/hooks/legacy/{token}");
    assert_eq!(config.upstreams["orders"].concurrency, 16);
}

/// The texts in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A table: from its heading row to the empty line.
fn table(heading: &str) -> &'static str {
    let (_, rest) = README.split_once(heading).unwrap_or_else(|| panic!("{heading} is not in README.md"));
    rest.split_once("\n\n").expect("the table ends").0
}

#[test]
fn every_code_has_its_row_and_every_row_its_code() {
    let sources = [include_str!("../../src/ingress/outcome.rs"), include_str!("../../src/verify/mod.rs")];
    let codes: BTreeSet<_> = sources
        .iter()
        .flat_map(|source| source.split("=> \"").skip(1))
        .map(|rest| rest.split_once('"').expect("the string ends").0)
        .collect();
    assert!(codes.len() > 30, "{codes:?}");
    let first_cells = table("| code in log and metric |").lines().skip(2).filter_map(|row| row.split('|').nth(1));
    let named: BTreeSet<_> = first_cells.flat_map(quoted).collect();
    let fits = |name: &str, code: &str| match name.strip_suffix('*') {
        Some(prefix) => code.starts_with(prefix),
        None => name == code,
    };
    for code in &codes {
        assert!(named.iter().any(|name| fits(name, code)), "{code} has no row in README.md");
    }
    for name in named {
        // The one that is no outcome of a step: nobody was there to hear it.
        let known = name == "client_left" || codes.iter().any(|code| fits(name, code));
        assert!(known, "README.md names a code {name}");
    }
}

#[test]
fn every_file_that_the_readme_points_to_is_there() {
    let targets = README.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let links = targets.filter(|target| !target.starts_with("http") && !target.starts_with('#'));
    let tests = quoted(table("| | promise | today | held by |")).filter(|text| text.contains(".rs"));
    let (links, tests) = (links.collect::<Vec<_>>(), tests.collect::<Vec<_>>());
    assert!(!links.is_empty() && tests.len() >= 12);
    for target in links.into_iter().chain(tests) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(target);
        assert!(path.exists(), "README.md points to {target}");
    }
}
