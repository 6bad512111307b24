//! Configurations as data: every file in `tests/config/invalid` with what is said about it, every file in
//! `tests/config/valid` with its summary. `INSTA_UPDATE=always cargo test` writes the snapshots anew.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use hookward::{
    config::{self, Environment, LoadOptions, Loaded, Memory, Secrets, Summary, memory::HTTP2_CONNECTION_WINDOW_BYTES},
    store::{LEASE_BYTES_MAX, SEALED_BYTES_MAX},
    time::Wall,
};
use proptest::prelude::*;

/// Stands in every inline secret of the test configurations, and must never be shown.
const CANARIES: [&str; 4] = ["canary", "Y2FuYXJ5", "from-a-file", "66726f6d2d61"];

fn options() -> LoadOptions {
    let variables = [
        ("ADMIN_TOKEN", "canary-of-an-admin-token"),
        ("GITHUB_NEW", "canary-of-github-in-2027"),
        ("GITHUB_OLD", "canary-of-github-in-2026"),
        ("SIGNING", "whsec_Y2FuYXJ5LW9mLWF0LWxlYXN0LTE2LWJ5dGVz"),
        ("OLD_STORE_KEY", "Y2FuYXJ5LW9mLWEta2V5LW9mLTMyLWJ5dGVzLi4uLi4="),
        ("CREDENTIALS_DIRECTORY", "tests/config"),
    ];
    LoadOptions {
        secrets: Secrets::Load,
        environment: Environment::Fixed(
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        ),
        now: Wall::from_unix_s(1_795_000_000),
    }
}

/// The configurations of a folder, by name. Paths are relative, so that messages do not depend on the machine.
fn configurations(folder: &str) -> BTreeMap<String, PathBuf> {
    let folder = Path::new("tests/config").join(folder);
    let found = std::fs::read_dir(&folder).expect("the folder is there");
    let paths = found.map(|entry| entry.expect("it can be listed").path());
    let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), path)).collect()
}

fn assert_snapshot(kind: &str, name: &str, text: &str) {
    assert_no_secret(text);
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../config/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(format!("{kind}-{name}"), text));
}

fn assert_no_secret(text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "a secret is shown in:\n{text}");
    }
}

#[test]
fn a_broken_configuration_is_explained_where_it_is_broken() {
    let configurations = configurations("invalid");
    assert!(configurations.len() >= 25);
    for (name, path) in configurations {
        // systemd gives no credentials here.
        let mut options = options();
        options.environment = Environment::Fixed(BTreeMap::new());
        let loaded = config::load(&path, &options);
        assert!(loaded.config.is_none() && loaded.problems.errors() > 0, "{name} is accepted");
        for problem in loaded.problems.sorted() {
            assert!(!problem.help.is_empty(), "{name}: nothing says what to do about: {}", problem.message);
        }
        assert_snapshot("invalid", &name, &loaded.problems.render(false));
    }
}

#[test]
fn a_valid_configuration_is_summed_up_for_a_person_to_check() {
    for (name, path) in configurations("valid") {
        let loaded = config::load(&path, &options());
        let problems = loaded.problems.render(false);
        let Some(summary) = Summary::of(&loaded) else { panic!("{name} is refused:\n{problems}") };
        assert_snapshot("valid", &name, &format!("{problems}{}", summary.text()));
        assert_no_secret(&summary.json().to_string());
        assert_no_secret(&format!("{:?}", loaded.config));
    }
}

#[test]
fn without_secrets_nothing_outside_the_configuration_is_needed() {
    let path = Path::new("tests/config/valid/rotation-and-modes.toml");
    let environment = Environment::Fixed(BTreeMap::new());
    let load = |secrets| config::load(path, &LoadOptions { secrets, environment: environment.clone(), ..options() });
    assert!(load(Secrets::Load).config.is_none());
    let skipped = load(Secrets::Skip);
    let Some(config) = &skipped.config else { panic!("{}", skipped.problems.render(false)) };
    assert!(config.sources["github"].keyring.keys().is_empty());
    assert_eq!(skipped.notes["github"].secrets.len(), 2);
}

#[test]
fn a_secret_file_loses_one_line_end_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory for the test");
    let text = "[sources.a]\nprovider = \"github\"\nsecrets = [{ file = \"s\" }]\nupstream = \"http://127.0.0.1:1/\"\n";
    for (written, kept) in [
        ("sixteen-or-more-1", "sixteen-or-more-1"),
        ("sixteen-or-more-1\n", "sixteen-or-more-1"),
        ("sixteen-or-more-1\r\n", "sixteen-or-more-1"),
        ("sixteen-or-more-1\n\n", "sixteen-or-more-1\n"),
        (" sixteen-or-more-1 \r", " sixteen-or-more-1 \r"),
    ] {
        std::fs::write(directory.path().join("s"), written).expect("the file can be written");
        let loaded = config::from_text_with("a.toml", text, directory.path(), &options());
        let config = loaded.config.expect("it is valid");
        assert_eq!(config.sources["a"].keyring.keys()[0].key.expose(), kept.as_bytes());
    }
}

#[test]
fn sources_that_share_a_secret_share_the_scope_of_replay_keys() {
    let source = |name: &str, provider: &str, secret: &str| {
        format!(
            "[sources.{name}]\nprovider = \"{provider}\"\nallow_shared_secret = true\n\
             secrets = [{{ value = \"{secret}\" }}]\nupstream = \"http://127.0.0.1:1/\"\n"
        )
    };
    let text = source("b", "github", "the-same-secret-of-two")
        + &source("a", "github", "the-same-secret-of-two")
        + &source("c", "github", "a-secret-of-its-own-here");
    let loaded = from_text(&text);
    let config = loaded.config.expect("it is valid");
    let scope = |name: &str| config.sources[name].key_plan.replay_scope.to_string();
    assert_eq!((scope("a"), scope("b"), scope("c")), ("a".into(), "a".into(), "c".into()));
    assert_eq!(&*config.sources["b"].key_plan.scope, "b");
}

#[test]
fn what_a_source_promises_follows_from_its_provider() {
    let text = "[sources.a]\nprovider = \"gains\"\nsecrets = [{ value = \"Bearer sixteen-or-more\" }]\n\
                retries = { attempts = 100, gap = \"1h\" }\nupstream = \"http://127.0.0.1:1/\"\n\
                [sources.b]\nprovider = \"sourcehub\"\naccept_unverified = true\ndeadline = \"2s\"\nupstream = \"http://127.0.0.1:1/\"\n";
    let loaded = from_text(text);
    let config = loaded.config.expect("it is valid");
    let hours = |n: u64| std::time::Duration::from_secs(n * 3600);
    let (a, b) = (&config.sources["a"], &config.sources["b"]);
    assert_eq!(a.answer_kept, hours(100));
    assert_eq!(a.key_plan.event_horizon, hours(150));
    assert_eq!(a.answer_within.as_millis(), 89_000);
    assert_eq!(b.answer_within.as_millis(), 1_600);
    assert_eq!(a.path.text, "/hooks/a");
    assert_eq!(config.upstreams["a"].url.to_string(), "http://127.0.0.1:1/");
}

#[test]
fn what_deliveries_may_hold_is_bounded_by_the_largest_body_that_may_go_there() {
    let source = |name: &str, keys: &str| {
        format!(
            "[sources.{name}]\nprovider = \"partssource\"\nsecrets = [{{ value = \"the-secret-of-{name}\" }}]\n{keys}\n"
        )
    };
    let upstream = |name: &str, keys: &str| format!("[upstreams.{name}]\nurl = \"http://127.0.0.1:1/\"\n{keys}\n");
    let small = source("small", "upstream = \"a\"");
    let deliveries = |text: &str| {
        let loaded = from_text(&format!("[server.limits]\nmemory_max = \"8GiB\"\n{text}"));
        let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.problems.render(false)));
        let part = Memory::of(&config).parts.into_iter().find(|part| part.name == "deliveries").expect("a part");
        (part.bytes, config)
    };
    let (mib, answer, leased) = (1 << 20, 64 << 10, LEASE_BYTES_MAX as u64);
    let (alone, _) = deliveries(&(small.clone() + &upstream("a", "concurrency = 3")));
    assert_eq!(alone, 3 * (mib + answer) + leased);

    // What a route may send counts, too, at the upstream that it may be sent to.
    let large = source(
        "large-ones",
        "upstream = \"a\"\nbody_bytes_max = \"20MiB\"\nroutes = [{ json = { \"/n\" = 1 }, to = \"b\" }]",
    );
    let upstreams = upstream("a", "concurrency = 3") + &upstream("b", "concurrency = 2");
    let (both, _) = deliveries(&(small + &large + &upstreams));
    assert_eq!(both, 5 * (20 * mib + answer) + 2 * leased);

    // A concurrency that nobody chose gives way: 64 MiB hold three of them.
    let (_, config) = deliveries(&(large + &upstream("a", "") + &upstream("b", "concurrency = 16")));
    assert_eq!((config.upstreams["a"].concurrency, config.upstreams["b"].concurrency), (3, 16));
}

fn part(text: &str, name: &str) -> Option<u64> {
    let loaded = from_text(&format!(
        "{text}\n[sources.a]\nprovider = \"partssource\"\nupstream = \"http://127.0.0.1:1/\"\n\
        secrets = [{{ value = \"a-secret-of-some-length\" }}]\n"
    ));
    let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.problems.render(false)));
    Memory::of(&config).parts.into_iter().find(|part| part.name == name).map(|part| part.bytes)
}

#[test]
fn what_connections_may_hold_is_bounded_by_what_they_speak() {
    let kib = 1 << 10;
    let tls = "[server]\ntls = { cert = \"tls.crt\", key = \"tls.key\" }";
    let h2c = "[server]\nlisten = [{ at = \"127.0.0.1:8080\", h2c = true }]";
    let ten = |server: &str| format!("{server}\n[server.limits]\nconnections_max = 10\n");
    let kibs = |text: &str, name: &str| part(text, name).map(|bytes| bytes / kib);
    assert_eq!((kibs(&ten(""), "connections"), kibs("", "windows")), (Some(10 * 64), None));
    assert_eq!((kibs(&ten(tls), "connections"), kibs(&ten(h2c), "connections")), (Some(10 * 120), Some(10 * 64)));
    for http2 in [tls, h2c] {
        let window = u64::from(HTTP2_CONNECTION_WINDOW_BYTES);
        assert_eq!((part(http2, "windows"), part(&ten(http2), "windows")), (Some(512 * window), Some(10 * window)));
    }
}

#[test]
fn the_number_of_connections_gives_way_unless_it_is_chosen() {
    let tls = "[server]\ntls = { cert = \"tls.crt\", key = \"tls.key\" }\n[server.limits]\n";
    let connections =
        |more: &str, kib: u64| part(&format!("{tls}{more}"), "connections").map(|bytes| bytes / (kib << 10));
    assert_eq!(part("", "connections"), Some(4096 * (64 << 10)));
    let fitting = connections("", 120).expect("a part");
    assert!((2048..4096).contains(&fitting), "{fitting}");
    assert_eq!(connections("memory_max = \"2GiB\"", 120), Some(4096));
    let chosen = from_text(&format!(
        "{tls}connections_max = 4096\n[sources.a]\nprovider = \"partssource\"\n\
        upstream = \"http://127.0.0.1:1/\"\nsecrets = [{{ value = \"a-secret-of-some-length\" }}]\n"
    ));
    assert!(chosen.config.is_none() && chosen.problems.render(false).contains("the limits sum up to"));
}

#[test]
fn sealed_copies_count_where_bodies_are_encrypted() {
    let key = format!("[store]\nencryption = [{{ value = \"{}\" }}]", "63".repeat(32));
    assert_eq!((part("", "sealed bodies"), part(&key, "sealed bodies")), (None, Some(SEALED_BYTES_MAX as u64)));
}

#[test]
fn a_key_for_bodies_is_read_in_either_writing() {
    let bytes = *b"canary-of-a-key-of-32-bytes.....";
    let hex = "63616e6172792d6f662d612d6b65792d6f662d33322d62797465732e2e2e2e2e";
    for text in [
        hex,
        &hex.to_uppercase(),
        "Y2FuYXJ5LW9mLWEta2V5LW9mLTMyLWJ5dGVzLi4uLi4=",
        "Y2FuYXJ5LW9mLWEta2V5LW9mLTMyLWJ5dGVzLi4uLi4",
    ] {
        let text = format!(
            "[store]\nencryption = [{{ value = \"{text}\" }}]\n[sources.a]\nprovider = \"partssource\"\n\
             secrets = [{{ value = \"a-secret-of-some-length\" }}]\nupstream = \"http://127.0.0.1:1/\"\n"
        );
        let loaded = from_text(&text);
        let Some(config) = &loaded.config else { panic!("{}", loaded.problems.render(false)) };
        let [key] = &config.store.encryption[..] else { panic!("one key") };
        assert!(key.key.matches(&bytes) && &*key.id == "1");
    }
}

#[test]
fn check_exits_as_documented_and_prints_no_secret() {
    let check = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_hookward"))
            .arg("check")
            .args(arguments)
            .output()
            .expect("the program starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, err) = check(&["-c", "tests/config/invalid/unknown-keys.toml"]);
    assert_eq!((code, out.as_str()), (Some(78), ""));
    assert!(err.contains("did you mean `server`?") && err.contains("unknown-keys.toml:1:2"), "{err}");
    assert!(!err.contains('\u{1b}'), "colors where nobody sees them:\n{err}");
    assert_no_secret(&err);

    let (code, out, err) = check(&["-c", "tests/config/valid/guards.toml"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("source token") && err.contains("is usable: 0 errors"), "{out}{err}");
    assert_no_secret(&(out + &err));

    let (code, out, _) = check(&["-c", "tests/config/invalid/unknown-keys.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("it is JSON");
    assert_eq!((code, &json["usable"], &json["summary"]), (Some(78), &false.into(), &serde_json::Value::Null));
    assert_eq!((&json["problems"][0]["line"], &json["problems"][0]["column"]), (&1.into(), &2.into()));

    let (code, out, _) = check(&["-c", "tests/config/valid/minimal.toml", "--json", "--no-secrets"]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("it is JSON");
    assert_eq!((code, &json["summary"]["source orders"]["path"]), (Some(0), &"/hooks/orders".into()));
    assert_eq!(json["summary"]["source orders"]["secrets"][0], "1 from file ../good.secret");

    let (code, _, err) = check(&["-c", "no-such-file.toml"]);
    assert_eq!(code, Some(78));
    assert!(err.contains("failed to read configuration no-such-file.toml"), "{err}");
}

fn from_text(text: &str) -> Loaded {
    config::from_text_with("test.toml", text, Path::new("tests/config/valid"), &options())
}

/// The example without its comments, its secrets turned into canaries, and where it may be damaged: not just before
/// or inside a canary, which would hide it from the test and not from a reader.
fn example_with_canaries() -> (String, Vec<usize>) {
    let example = include_str!("../../config.example.toml").replace("example-", "canary-");
    let lines: Vec<_> = example.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let text = lines.join("\n");
    let around = |at: &usize| &text.as_bytes()[at.saturating_sub(40)..(at + 4).min(text.len())];
    let is_apart = |at: &usize| !around(at).windows("canary".len()).any(|bytes| bytes == b"canary");
    let places = text.char_indices().map(|(at, _)| at).filter(is_apart).collect();
    (text, places)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered_and_never_panics(text in ".{0,200}") {
        from_text(&text).problems.render(true);
    }

    #[test]
    fn a_damaged_configuration_never_shows_its_secrets(
        at in any::<prop::sample::Index>(),
        length in 0usize..4,
        put in prop::sample::select(vec!["", "\"", "'", "]", "}", "[", "{", "=", "\n", "#", ".", ",", "\"\"\"", "x", "é", "["]),
    ) {
        let (mut text, places) = example_with_canaries();
        let start = places[at.index(places.len())];
        let end = text.ceil_char_boundary(start + length);
        text.replace_range(start..end, put);
        let loaded = from_text(&text);
        let shown = loaded.problems.render(false) + &format!("{:?}", loaded.config);
        prop_assert!(!shown.contains("canary"), "{}", shown);
    }
}
