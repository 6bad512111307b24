//! What `deploy/` says must agree with itself and with the binary.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use hookward::document::{parse_duration, parse_size};
use yaml_rust2::{Yaml, YamlLoader};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path))
        .unwrap_or_else(|error| panic!("failed to read deploy/{path}: {error}"))
}

/// The one object of this kind in `deploy/kubernetes/`.
fn object(kind: &str) -> Yaml {
    let documents = ["kubernetes/hookward.yaml", "kubernetes/secrets.yaml"].map(|file| {
        YamlLoader::load_from_str(&read(file)).unwrap_or_else(|error| panic!("failed to parse deploy/{file}: {error}"))
    });
    let mut found = documents.concat().into_iter().filter(|object| object["kind"].as_str() == Some(kind));
    let only = found.next().unwrap_or_else(|| panic!("there is no {kind}"));
    assert!(found.next().is_none(), "there are several of kind {kind}");
    only
}

fn pod() -> Yaml {
    object("Deployment")["spec"]["template"]["spec"].clone()
}

fn config_text() -> String {
    let map = object("ConfigMap");
    map["data"]["hookward.toml"].as_str().expect("the ConfigMap holds hookward.toml").to_owned()
}

fn config() -> toml::Table {
    toml::from_str(&config_text()).expect("the configuration is TOML")
}

/// A value of the configuration, as written: `["server", "drain_delay"]`.
fn setting(path: &[&str]) -> String {
    let (last, tables) = path.split_last().expect("a path has a name");
    let table = tables.iter().fold(config(), |table, name| table[*name].as_table().expect("it is a table").clone());
    table[*last].as_str().expect("it is text").to_owned()
}

fn duration(path: &[&str]) -> Duration {
    parse_duration(&setting(path)).expect("it is a duration")
}

fn size(path: &[&str]) -> u64 {
    parse_size(&setting(path)).expect("it is a size")
}

/// `1280Mi` of Kubernetes in bytes.
fn quantity(text: &Yaml) -> u64 {
    let text = text.as_str().expect("a quantity is text");
    parse_size(&format!("{text}B")).unwrap_or_else(|| panic!("{text} is no quantity in Mi or Gi"))
}

/// The value of `KEY=` in the unit.
fn unit(key: &str) -> String {
    let unit = read("systemd/hookward.service");
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.next().unwrap_or_else(|| panic!("the unit has no {key}")).to_owned()
}

#[test]
fn a_pod_is_given_longer_than_it_drains() {
    let grace_s = pod()["terminationGracePeriodSeconds"].as_i64().expect("it is a number");
    let drain = duration(&["server", "drain_delay"]) + duration(&["server", "drain_timeout"]);
    assert!(Duration::from_secs(grace_s.unsigned_abs()) > drain, "{grace_s} s is not longer than {drain:?}");
}

#[test]
fn a_pod_is_out_of_rotation_before_its_listener_closes() {
    let probe = &pod()["containers"][0]["readinessProbe"];
    let number = |name: &str| probe[name].as_i64().expect("it is a number").unsigned_abs();
    let noticed = Duration::from_secs(number("periodSeconds") * number("failureThreshold") + number("timeoutSeconds"));
    assert!(noticed < duration(&["server", "drain_delay"]), "it takes {noticed:?} to notice");
}

#[test]
fn the_container_has_the_memory_and_the_disk_that_the_configuration_allows() {
    let resources = &pod()["containers"][0]["resources"];
    assert!(quantity(&resources["limits"]["memory"]) > size(&["server", "limits", "memory_max"]));
    assert_eq!(resources["requests"]["memory"], resources["limits"]["memory"]);
    let claimed = quantity(&object("PersistentVolumeClaim")["spec"]["resources"]["requests"]["storage"]);
    assert!(claimed > size(&["store", "disk_bytes_max"]));
}

#[test]
fn every_secret_file_of_the_configuration_is_mounted_beside_it() {
    let mut wanted = BTreeSet::new();
    for source in config()["sources"].as_table().expect("there are sources").values() {
        for secret in source["secrets"].as_array().expect("it has secrets") {
            wanted.insert(secret["file"].as_str().expect("it comes from a file").to_owned());
        }
    }
    let (pod, secret) = (pod(), object("Secret"));
    let mut mounted = BTreeSet::new();
    for source in pod["volumes"][0]["projected"]["sources"].as_vec().expect("the volume is projected") {
        for item in source["secret"]["items"].as_vec().into_iter().flatten() {
            let key = item["key"].as_str().expect("an item has a key");
            let value = secret["stringData"][key].as_str().unwrap_or_else(|| panic!("the Secret has no {key}"));
            // Hookward refuses such a secret on a public listener, so that nobody runs with it.
            assert!(value.contains("change-me"), "{key} looks like a real secret");
            mounted.insert(item["path"].as_str().expect("an item has a path").to_owned());
        }
    }
    assert_eq!(mounted, wanted);
}

#[test]
fn ports_and_places_are_the_same_everywhere() {
    let pod = pod();
    let container = &pod["containers"][0];
    let port = container["ports"][0]["containerPort"].as_i64().expect("it is a number");
    assert_eq!(setting(&["server", "listen"]), format!("0.0.0.0:{port}"));
    let policy = object("NetworkPolicy");
    assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"].as_i64(), Some(port));
    assert_eq!(object("Service")["spec"]["ports"][0]["targetPort"], container["ports"][0]["name"]);
    // Off loopback the admin listener would need a token.
    assert!(setting(&["admin", "listen"]).starts_with("127.0.0.1:"));
    let mounted: Vec<_> = container["volumeMounts"]
        .as_vec()
        .into_iter()
        .flatten()
        .filter_map(|mount| mount["mountPath"].as_str())
        .collect();
    assert_eq!(mounted, ["/etc/hookward", "/var/lib/hookward"]);
    assert!(setting(&["store", "path"]).starts_with("/var/lib/hookward/"));

    let image = read("Dockerfile");
    let user = pod["securityContext"]["runAsUser"].as_i64().expect("it is a number");
    for line in [
        format!("EXPOSE {port}"),
        format!("USER {user}:{user}"),
        "VOLUME /var/lib/hookward".to_owned(),
        "STOPSIGNAL SIGTERM".to_owned(),
        "CMD [\"serve\", \"-c\", \"/etc/hookward/hookward.toml\"]".to_owned(),
    ] {
        assert!(image.lines().any(|own| own == line), "the Dockerfile has no `{line}`");
    }
}

#[test]
fn one_pod_at_a_time_owns_the_store() {
    let spec = &object("Deployment")["spec"];
    assert_eq!(spec["replicas"].as_i64(), Some(1));
    assert_eq!(spec["strategy"]["type"].as_str(), Some("Recreate"));
}

#[test]
fn the_image_is_built_with_the_toolchain_of_the_crate() {
    let version = env!("CARGO_PKG_RUST_VERSION");
    assert!(read("Dockerfile").contains(&format!("FROM rust:{version}-alpine AS build")));
    let image = pod()["containers"][0]["image"].as_str().map(str::to_owned);
    assert_eq!(image.as_deref(), Some(concat!("registry.example.com/hookward:", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn systemd_waits_longer_than_it_drains_and_allows_what_the_limits_need() {
    // The defaults: the unit comes without a configuration.
    let (drain, memory_max, connections_max) = (Duration::from_secs(5 + 20), 1 << 30, 4096);
    let stop = Duration::from_secs(unit("TimeoutStopSec").parse().expect("it is in seconds"));
    assert!(stop > drain, "{stop:?} is not longer than {drain:?}");
    assert!(stop > drain + Duration::from_secs(10), "settling and closing the store come on top");
    for key in ["MemoryHigh", "MemoryMax"] {
        assert!(parse_size(&format!("{}iB", unit(key))).expect("it is a size") > memory_max, "{key} is too small");
    }
    assert!(unit("LimitNOFILE").parse::<u64>().expect("it is a number") > 2 * connections_max);
    assert_eq!(unit("LimitCORE"), "0");
    assert_eq!(unit("RestartPreventExitStatus"), hookward::cli::CONFIGURATION.to_string());
}

#[test]
fn the_service_tells_systemd_what_it_does() {
    assert_eq!(unit("Type"), "notify");
    let watchdog = unit("WatchdogSec").parse::<u64>().expect("it is in seconds");
    assert!((10..=60).contains(&watchdog), "{watchdog} s: a slow disk is not a hung one, and a hung one is noticed");
    assert!(unit("ExecReload").contains("-HUP $MAINPID"));
}

#[test]
fn the_listeners_that_the_socket_unit_names_take_all_its_sockets() {
    let unit = read("systemd/hookward.socket");
    let values =
        |key: &str| unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect::<Vec<_>>();
    let [name] = values("FileDescriptorName")[..] else { panic!("it names them once") };
    let line = unit.lines().find_map(|line| line.strip_prefix("#     listen = ")).expect("it says what to write");
    assert_eq!(line.matches(&format!("\"systemd:{name}\"")).count(), values("ListenStream").len(), "{line}");
    let text = format!("[server]\nlisten = {line}\ntls = {{ cert = \"c\", key = \"k\" }}\n");
    let loaded = hookward::config::from_text("hookward.toml", &text, Path::new("/"));
    let problems = loaded.problems.render(false);
    assert!(!problems.contains("listen"), "{problems}");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let mut files = Vec::new();
    for name in ["hookward.service", "hookward.socket"] {
        // It looks whether the program is there.
        let text = read(&format!("systemd/{name}")).replace("/usr/local/bin/hookward", env!("CARGO_BIN_EXE_hookward"));
        let file = directory.path().join(name);
        fs::write(&file, text).expect("there is room for a file");
        files.push(file);
    }
    let analyze = |arguments: &[&str], files: &[PathBuf]| {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(arguments).args(files).output().expect("systemd-analyze is there: Debian's systemd");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    };
    assert_eq!(analyze(&["verify", "--man=no"], &files), (true, String::new()));
    let (safe, said) = analyze(&["security", "--offline=true", "--threshold=15", "--no-pager"], &files[..1]);
    assert!(safe, "{said}");
}

#[test]
fn the_configuration_of_the_pod_loads() {
    let base = tempfile::tempdir().expect("there is room for a directory");
    fs::create_dir(base.path().join("secrets")).expect("it is new");
    for name in ["partssource", "gains"] {
        let secret = format!("Bearer a-secret-of-its-own-for-{name}");
        fs::write(base.path().join("secrets").join(name), secret).expect("there is room for a file");
    }
    let loaded = hookward::config::from_text("hookward.toml", &config_text(), base.path());
    assert_eq!(loaded.problems.errors(), 0, "{}", loaded.problems.render(false));
    let config = loaded.config.expect("it has no problems");
    assert_eq!(config.server.drain_delay, duration(&["server", "drain_delay"]));
}
