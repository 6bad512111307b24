//! `config.example.toml` is the manual of the configuration, so it is held against the reader: it loads, it has
//! every key, and what it calls a default is one.

use std::{collections::BTreeSet, path::Path};

use super::{LoadOptions, Loaded, from_text_with};

const EXAMPLE: &str = include_str!("../../config.example.toml");

fn load(text: &str) -> Loaded {
    from_text_with("config.example.toml", text, Path::new(""), &LoadOptions::default())
}

/// Lines such as `# key = value`, and whether they are marked as an example without default.
fn commented() -> Vec<(usize, &'static str, bool)> {
    let is_key = |line: &str| {
        line.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let lines = EXAMPLE.lines().enumerate().filter_map(|(i, line)| Some((i, line.strip_prefix("# ")?)));
    lines.filter(|(_, line)| is_key(line)).map(|(i, line)| (i, line, line.contains("# e.g."))).collect()
}

fn uncommented(number: usize) -> String {
    let line = |(i, line): (usize, &str)| if i == number { line[2..].to_owned() } else { line.to_owned() };
    EXAMPLE.lines().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_loads_as_it_is() {
    let loaded = load(EXAMPLE);
    assert_eq!(loaded.problems.errors(), 0, "{}", loaded.problems.render(false));
    let config = loaded.config.expect("there are no errors");
    let paths: BTreeSet<_> = config.sources.values().map(|source| source.path.text.as_str()).collect();
    let expected =
        ["/hooks/gains", "/hooks/mobility-work", "/hooks/partssource", "/hooks/price2b", "/hooks/sourcehub/{token}"];
    assert_eq!(paths, BTreeSet::from(expected));
    for (name, source) in &config.sources {
        let secret = match &**name {
            "gains" => "Bearer example-gains-secret-change-me".to_owned(),
            name => format!("example-{name}-secret-change-me"),
        };
        assert!(source.keyring.keys()[0].key.matches(secret.as_bytes()), "{name}");
    }
    assert_eq!(config.server.listeners[0].at.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9900");
    assert_eq!(config.upstreams["local"].url.authority().expect("a host").as_str(), "127.0.0.1:9000");
}

#[test]
fn what_the_example_calls_a_default_is_the_default() {
    let plain = format!("{:#?}", load(EXAMPLE).config.expect("the example is valid"));
    assert!(commented().len() > 50);
    for (number, line, has_no_default) in commented() {
        let loaded = load(&uncommented(number));
        let shown = loaded.problems.render(false);
        if has_no_default {
            // These need something else that is not there: another upstream, a file, an order, another provider.
            let is_alone = [
                "upstreams = ",
                "ca = ",
                "tls = ",
                "client_cert = ",
                "on_block = ",
                "params = ",
                "remote_keys = ",
                "enforce_until = ",
            ]
            .iter()
            .any(|key| line.starts_with(key));
            assert_eq!(loaded.problems.errors() > 0, is_alone, "{line}\n{shown}");
            assert!(!shown.contains("unknown key") && !shown.contains("must be"), "{line}\n{shown}");
        } else {
            let config = loaded.config.unwrap_or_else(|| panic!("{line}\n{shown}"));
            assert_eq!(format!("{config:#?}"), plain, "{line}");
        }
    }
}

/// The provider of one's own, which stands indented in comments at the end of the file.
fn with_own_provider() -> String {
    let (text, block) = EXAMPLE.split_once("#   [providers.acme]").expect("the example has one");
    let lines: Vec<_> = block.lines().map(|line| line.strip_prefix("#   ").unwrap_or(line)).collect();
    format!("{text}[providers.acme]{}", lines.join("\n"))
}

#[test]
fn the_provider_of_the_example_is_one() {
    let source = "[sources.acme]\nprovider = \"acme\"\nsecrets = [{ value = \"c2l4dGVlbi1vci1tb3JlLWJ5dGVz\" }]\nupstream = \"local\"\nparams = { verify-token = \"1\" }\n";
    let loaded = load(&format!("{}\n{source}", with_own_provider()));
    assert!(loaded.config.is_some(), "{}", loaded.problems.render(false));
}

#[test]
fn the_example_has_every_key() {
    let numbers: BTreeSet<usize> = commented().iter().map(|(i, ..)| *i).collect();
    let everything: Vec<&str> =
        EXAMPLE.lines().enumerate().map(|(i, line)| if numbers.contains(&i) { &line[2..] } else { line }).collect();
    let everything = everything.join("\n");
    let loaded = load(&everything);
    let own_provider = load(&with_own_provider());
    // What is explained: `key = …` anywhere, or a word of the indented lists in comments.
    let explained = |key: &str| {
        everything.contains(&format!("{key} = "))
            || everything
                .lines()
                .filter(|line| line.starts_with("#   "))
                .any(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == key))
    };
    let tables = [
        "server",
        "admin",
        "store",
        "replay",
        "log",
        "limits",
        "sources",
        "upstreams",
        "providers",
        "headers",
        "signature",
        "sender",
        "evidence",
    ];
    let mut asked = loaded.problems.asked.borrow().clone();
    asked.extend(own_provider.problems.asked.borrow().iter().cloned());
    assert!(asked.len() > 100);
    for path in asked {
        let key = path.rsplit('.').next().expect("a name");
        assert!(tables.contains(&key) || explained(key), "`{path}` is not explained in config.example.toml");
    }
}
