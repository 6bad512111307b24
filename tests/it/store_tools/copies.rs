//! Backups of a store that is at work, and gateways on restored ones.

use std::{collections::BTreeSet, net::SocketAddr, path::Path, process::Output, sync::Arc};

use hookward::{
    event::EventId,
    store::{
        Appended, Direction, EventStore as _, Filter,
        sqlite::{
            Options, SqliteStore,
            tools::{self, BackUp},
        },
    },
    time::Clock,
};
use tempfile::TempDir;
use tokio::sync::{Mutex, Notify, Semaphore};

use super::sample::{event, options};
use crate::{
    counts::reduced,
    running::{Gateway, echo, hookward, run, stdout},
    world::within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_busy_store_has_all_that_was_acknowledged_before_it_began() {
    let directory = TempDir::new().expect("a directory");
    // Room for what is stored while a hundred backups are made.
    let roomy = |directory: &Path| Options { disk_bytes_max: 4 << 30, ..options(directory) };
    let store = SqliteStore::open(&roomy(directory.path())).expect("opened");
    let (acknowledged, more) = (Arc::new(Mutex::new(BTreeSet::<EventId>::new())), Arc::new(Notify::new()));
    // So that the store does not grow for as long as the backups take.
    let allowed = Arc::new(Semaphore::new(0));
    let load = tokio::spawn({
        let (store, acknowledged, more, allowed) = (store.clone(), acknowledged.clone(), more.clone(), allowed.clone());
        async move {
            let mut n = 0u32;
            while let Ok(permit) = allowed.acquire().await {
                permit.forget();
                n += 1;
                let mut event = event(u8::try_from(n % 61).expect("below 61"));
                // Each is one of its own.
                for lived in [&mut event.keys.replay, &mut event.keys.event].into_iter().flatten() {
                    lived.key.0[4..8].copy_from_slice(&n.to_be_bytes());
                }
                let Appended::New { id, .. } = store.append(event).await.expect("stored") else { panic!("a copy") };
                acknowledged.lock().await.insert(id);
                more.notify_one();
            }
        }
    });
    let away = TempDir::new().expect("a directory");
    for n in 0..reduced("backups under load", 4, 100) {
        let to = away.path().join(format!("{n}.db"));
        allowed.add_permits(1000);
        for _ in 0..20 {
            within("an event to be stored", more.notified()).await;
        }
        let before = acknowledged.lock().await.clone();
        let from = directory.path().to_owned();
        let back_up = BackUp { from, to: to.clone(), overwrite: false, verify: false, clock: Clock::system() };
        let done = tokio::task::spawn_blocking(move || back_up.run(&mut |_, _| {})).await.expect("no panic");
        let done = done.expect("backed up");
        let report = tools::verify(&to, &mut |_, _| {}).expect("verified");
        assert!(report.is_whole(), "{report:#?}");
        assert!(done.events >= before.len() as u64);
        let copy = TempDir::new().expect("a directory");
        std::fs::rename(&to, SqliteStore::database_path(copy.path())).expect("moved");
        let copy = SqliteStore::open(&roomy(copy.path())).expect("opened");
        let (mut found, mut filter) = (BTreeSet::new(), Filter::default());
        loop {
            let page = copy.list(filter.clone(), Direction::OldestFirst, 1000).await.expect("listed");
            found.extend(page.events.iter().map(|listed| listed.head.id));
            let Some(next) = page.next else { break };
            filter.after = Some(next);
        }
        copy.close().await;
        assert_eq!(found.len() as u64, done.events);
        assert_eq!(before.difference(&found).count(), 0, "acknowledged before, and not in the backup");
    }
    allowed.close();
    load.await.expect("it ends");
    store.close().await;
}

fn configuration(upstream: SocketAddr) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [store]\npath = \"data\"\n[upstreams.up]\nurl = \"http://{upstream}/in\"\n\
         [sources.github]\nprovider = \"github\"\nsecrets = [{{ value = \"a-secret-of-some-length\" }}]\nupstream = \"up\"\n"
    )
}

fn store(directory: &Path, arguments: &[&str]) -> Output {
    run(hookward().arg("store").args(arguments).current_dir(directory))
}

fn printed(output: &Output, code: i32) -> String {
    let text = stdout(output) + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn send(gateway: &Gateway, directory: &Path, body: &str) -> String {
    std::fs::write(directory.join("body"), body).expect("written");
    let url = format!("http://{}/hooks/github", gateway.public);
    let send = ["send", "-p", "github", "--secret", "a-secret-of-some-length", "-b", "body", "-u", &url];
    printed(&run(hookward().args(send).current_dir(directory)), 0)
}

#[test]
fn a_gateway_goes_on_with_a_restored_store_and_delivers_what_is_released() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let gateway = Gateway::start(path, &configuration(nowhere));
    assert!(send(&gateway, path, "{\"n\":1}").contains("accepted"));

    // Beside the gateway.
    let backed_up = printed(&store(path, &["backup", "-c", "hookward.toml", "--to", "backup.db"]), 0);
    assert!(
        backed_up.contains("data/hookward.db -> backup.db: ") && backed_up.contains(" 1 events, in "),
        "{backed_up}"
    );
    let refused = printed(&store(path, &["backup", "-c", "hookward.toml", "--to", "backup.db"]), 1);
    assert!(refused.contains("backup.db is there already") && refused.contains("--force"), "{refused}");
    let verified = printed(&store(path, &["verify", "-c", "hookward.toml"]), 0);
    assert!(verified.ends_with("data/hookward.db is whole.\n"), "{verified}");
    assert!(send(&gateway, path, "{\"n\":2}").contains("accepted"));
    let in_use = printed(&store(path, &["restore", "backup.db", "-c", "hookward.toml", "--force"]), 1);
    assert!(in_use.contains("is in use by another hookward"), "{in_use}");
    assert_eq!(gateway.end().0, Some(0));

    let there = printed(&store(path, &["restore", "backup.db", "-c", "hookward.toml"]), 1);
    assert!(there.contains("hookward.db is there already") && there.contains("--force"), "{there}");
    let restored = printed(&store(path, &["restore", "backup.db", "-c", "hookward.toml", "--force"]), 0);
    assert!(restored.contains("1 deliveries are held") && restored.contains("hookward.db.replaced-"), "{restored}");
    let report = printed(&store(path, &["verify", "--path", "data", "--json"]), 0);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["whole"], true, "{report:#}");

    let (upstream, address) = echo(&["--quiet"]);
    let gateway = Gateway::start(path, &configuration(address));
    let held = gateway.json(&["events", "list", "--state", "held"]);
    let [event] = &held["events"].as_array().expect("a list")[..] else { panic!("{held:#}") };
    assert_eq!(event["deliveries"][0]["reason"], "restored from a backup", "{event:#}");
    let released = gateway.ask(&["events", "release", event["id"].as_str().expect("an id")]);
    assert!(released.status.success());
    let status = gateway.settled();
    assert_eq!(status["upstreams"][0]["delivered"], 1, "{status:#}");
    assert_eq!(gateway.end().0, Some(0));
    let (_, _, totals) = upstream.end("INT");
    assert!(totals.ends_with("1 requests, 1 events, 0 of them again"), "{totals}");
}

#[test]
fn a_damaged_store_is_told_and_not_backed_up() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let gateway = Gateway::start(path, &configuration(SocketAddr::from(([127, 0, 0, 1], 1))));
    assert!(send(&gateway, path, "{\"needle\":1}").contains("accepted"));
    assert_eq!(gateway.end().0, Some(0));
    let file = SqliteStore::database_path(&path.join("data"));
    let mut bytes = std::fs::read(&file).expect("read");
    let needle = bytes.windows(6).position(|window| window == b"needle").expect("the body is in the file");
    bytes[needle] = b'N';
    std::fs::write(&file, bytes).expect("written");

    let report = printed(&store(path, &["verify", "--path", "data", "--json"]), 1);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let [damage] = &report["damage"].as_array().expect("a list")[..] else { panic!("{report:#}") };
    assert_eq!((&damage["table"], &damage["what"]), (&"bodies".into(), &"the body is not what was stored".into()));
    let id = damage["event"].as_str().expect("its event is known");
    let shown = printed(&store(path, &["verify", "-c", "hookward.toml"]), 1);
    assert!(shown.contains(id) && shown.contains("hookward events purge") && shown.contains("is damaged"), "{shown}");
    let refused = printed(&store(path, &["backup", "--path", "data", "--to", "backup.db"]), 1);
    assert!(refused.contains(id) && refused.contains("no backup was made"), "{refused}");
    assert!(!path.join("backup.db").exists() && !path.join("backup.db.partial").exists());
    printed(&store(path, &["backup", "--path", "data", "--to", "backup.db", "--no-verify"]), 0);
    let refused = printed(&store(path, &["restore", "backup.db", "--path", "other"]), 1);
    assert!(refused.contains("--accept-damage"), "{refused}");
    assert!(!path.join("other").exists());
    let restored = printed(&store(path, &["restore", "backup.db", "--path", "other", "--accept-damage"]), 0);
    assert!(restored.contains("1 things in it are damaged"), "{restored}");
}
