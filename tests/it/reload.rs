//! Taking another configuration under load, over real sockets: no request fails, no connection is dropped, nothing is lost
//! and nothing delivered twice.

mod binary;
mod load;
mod terms;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use hookward::{
    config::Config,
    config::{self, LoadOptions},
    gateway::{Gateway, Origin, Reloadable, Swap},
    http::passed::Passed,
    time::{Clock, Wall},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    guard::trouble::break_store,
    remote_keys,
    world::{Act, NOW_S, Reply, Upstream, World, configuration, request, within},
};

const SECRET: &str = "reload-canary-0123456789";

/// A gateway that was started from a file.
struct Reloading {
    world: World,
    file: PathBuf,
}

/// A source of that name at its default path, with more keys.
fn source(name: &str, keys: &str) -> String {
    format!("[sources.{name}]\nprovider = \"partssource\"\n{keys}\n")
}

fn with_secret(name: &str, keys: &str) -> String {
    source(name, &format!("secrets = [{{ value = \"{SECRET}-{name}\" }}]\n{keys}"))
}

impl Reloading {
    async fn start(rest: &str) -> Self {
        Self::start_at(rest, NOW_S, Upstream::start().await, TempDir::new().expect("a directory")).await
    }

    async fn start_at(rest: &str, epoch_s: i64, upstream: Upstream, data: TempDir) -> Self {
        let text = configuration(rest, "", &upstream.url(), data.path());
        Self::start_as(&text, epoch_s, upstream, data).await
    }

    async fn start_as(text: &str, epoch_s: i64, upstream: Upstream, data: TempDir) -> Self {
        let file = data.path().join("hookward.toml");
        std::fs::write(&file, text).expect("written");
        let loaded = config::load(&file, &LoadOptions::default());
        let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.problems.render(false)));
        let origin = Origin { path: file.clone(), options: LoadOptions::default(), files: loaded.files };
        let clock = Clock::starting_at(Wall::from_unix_s(epoch_s));
        let gateway = Gateway::start_from(config, Some(origin), clock.clone(), Passed::default())
            .await
            .expect("the gateway starts");
        Self { world: World { gateway, upstream, data, clock }, file }
    }

    /// On the same data, this long after the epoch of the first.
    async fn restart(self, rest: &str, later_s: i64) -> Self {
        let World { gateway, upstream, data, .. } = self.world;
        assert!(gateway.drain().await, "drained whole");
        Self::start_at(rest, NOW_S + later_s, upstream, data).await
    }

    /// Puts another text into the file, as an editor does: the file is never half written.
    fn write(&self, rest: &str) {
        self.write_as(&configuration(rest, "", &self.world.upstream.url(), self.world.data.path()));
    }

    fn write_as(&self, text: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, &self.file).expect("renamed");
    }

    async fn ask(&self, body: &str) -> (u16, Value) {
        let headers = [("content-type", "application/json")];
        let reply = request(self.world.gateway.admin, "POST", "/api/v1/reload", &headers, body.as_bytes()).await;
        assert!(!reply.text().contains("canary"), "a secret shows: {}", reply.text());
        (reply.status, reply.json())
    }

    /// A reload that is taken.
    async fn reload(&self) -> Value {
        let (status, answer) = self.ask("{}").await;
        assert_eq!((status, answer["outcome"].as_str()), (200, Some("applied")), "{answer:#}");
        answer
    }

    async fn send(&self, source: &str, body: &str) -> Reply {
        let path = format!("/hooks/{source}");
        self.world.send("partssource", &format!("{SECRET}-{source}"), &path, body.as_bytes(), 0).await
    }

    async fn upstream_row(&self, name: &str) -> Value {
        let status = self.world.admin("GET", "/api/v1/status").await;
        let rows = status["upstreams"].as_array().expect("a list");
        rows.iter().find(|row| row["name"] == name).cloned().unwrap_or_default()
    }
}

fn lines(answer: &Value) -> Vec<String> {
    let of = |change: &Value, key: &str| change[key].as_str().unwrap_or_default().to_owned();
    let changes = answer["changes"].as_array().expect("a list").iter();
    changes.map(|c| [of(c, "mark"), of(c, "what"), of(c, "detail"), of(c, "when")].join("|")).collect()
}

#[tokio::test]
async fn a_file_that_is_wrong_changes_nothing_and_says_why() {
    let gateway = Reloading::start(&with_secret("a", "upstream = \"up\"")).await;
    gateway.write("[sources.a]\nprovider = \"partsource\"\n");
    let (status, answer) = gateway.ask("{}").await;
    assert_eq!((status, answer["outcome"].as_str()), (422, Some("invalid")));
    let problems = answer["problems"].as_str().expect("text");
    assert!(problems.contains("did you mean \"partssource\"") && problems.contains("hookward.toml"), "{problems}");
    assert_eq!(gateway.send("a", "{\"id\":1}").await.ack().0, "accepted");

    let ready = request(gateway.world.gateway.admin, "GET", "/readyz", &[], b"").await;
    assert_eq!(ready.status, 200, "a wrong file is no reason not to be ready");
    let last = &ready.json()["config"]["last_reload"];
    assert_eq!(last["outcome"], "invalid");
    assert!(last["why"].as_str().is_some_and(|why| why.contains("errors")), "{last}");
    assert_eq!(gateway.world.metric("hookward_reloads_total{outcome=\"invalid\"}").await, 1);

    gateway.write(&(with_secret("a", "upstream = \"up\"") + &with_secret("b", "upstream = \"up\"")));
    assert_eq!(lines(&gateway.reload().await), ["+|source b||now"]);
    assert_eq!(gateway.send("b", "{\"id\":2}").await.ack().0, "accepted");
    assert_eq!(gateway.world.metric("hookward_reloads_total{outcome=\"applied\"}").await, 1);
    assert!(gateway.world.metric("hookward_config_loaded_at_seconds").await >= NOW_S.unsigned_abs());
    let (status, answer) = gateway.ask("{}").await;
    assert_eq!((status, answer["outcome"].as_str()), (200, Some("unchanged")));
}

#[tokio::test]
async fn what_needs_a_restart_is_named_until_there_is_one_and_the_rest_is_taken() {
    let base = with_secret("a", "upstream = \"up\"");
    let gateway = Reloading::start(&base).await;
    let text = std::fs::read_to_string(&gateway.file).expect("text");
    assert_eq!(gateway.world.post("/nowhere", &[], b"").await.status, 404);
    let changed = text
        .replace("[server]\n", "[server]\nunknown_path = 503\n")
        .replace("/store\"", "/elsewhere\"")
        .replace("[admin]\n", &format!("[admin]\ntokens = [{{ value = \"{SECRET}-token\", role = \"operate\" }}]\n"));
    gateway.write_as(&changed);
    let (_, planned) = gateway.ask("{\"dry_run\":true}").await;
    assert_eq!(planned["outcome"], "planned");
    assert_eq!(gateway.world.post("/nowhere", &[], b"").await.status, 404, "it was a question only");
    let answer = gateway.reload().await;
    assert_eq!(lines(&answer), lines(&planned));
    assert_eq!(answer["restart"], serde_json::json!(["store.path"]));
    assert_eq!(gateway.world.post("/nowhere", &[], b"").await.status, 503);
    assert!(!gateway.world.data.path().join("elsewhere").exists());

    let admin = gateway.world.gateway.admin;
    assert_eq!(request(admin, "GET", "/api/v1/status", &[], b"").await.status, 401, "the token counts at once");
    let token = format!("Bearer {SECRET}-token");
    let status = request(admin, "GET", "/api/v1/status", &[("authorization", &token)], b"").await;
    assert_eq!(status.json()["health"]["config"]["restart"], serde_json::json!(["store.path"]));
}

#[tokio::test]
async fn what_was_taken_of_a_rate_is_not_given_back_by_a_reload_that_leaves_it() {
    let rated = with_secret("a", "upstream = \"up\"\nrate = { per_second = 0.001, burst = 2 }");
    let gateway = Reloading::start(&rated).await;
    assert_eq!(gateway.send("a", "{\"id\":1}").await.status, 200);
    gateway.write(&rated.replace("[sources.a]\n", "[sources.a]\nallow = [\"127.0.0.0/8\"]\n"));
    gateway.reload().await;
    assert_eq!(gateway.send("a", "{\"id\":2}").await.status, 200);
    assert_eq!(gateway.send("a", "{\"id\":3}").await.status, 429, "two were all");
    assert_eq!(gateway.send("a", "{\"id\":1}").await.status, 429);
    gateway.write(&rated.replace("burst = 2", "burst = 3"));
    gateway.reload().await;
    assert_eq!(gateway.send("a", "{\"id\":1}").await.ack().0, "duplicate", "and the guard forgets nothing");
}

#[tokio::test]
async fn an_upstream_goes_only_by_force_while_deliveries_wait_and_they_go_on_when_it_is_back() {
    let both = with_secret("a", "upstream = \"side\"") + &with_secret("b", "upstream = \"up\"");
    let side = Upstream::start().await;
    let with_side = format!("{both}[upstreams.side]\nurl = \"{}\"\n", side.url());
    let gateway = Reloading::start(&with_side).await;
    let post = |path: &'static str| gateway.world.admin("POST", path);
    post("/api/v1/upstreams/side/pause").await;
    for n in 0..3 {
        assert_eq!(gateway.send("a", &format!("{{\"id\":{n}}}")).await.ack().0, "accepted");
    }
    let without = with_secret("a", "upstream = \"up\"") + &with_secret("b", "upstream = \"up\"");
    gateway.write(&without);
    let (status, answer) = gateway.ask("{}").await;
    assert_eq!((status, answer["outcome"].as_str()), (409, Some("refused")), "{answer:#}");
    assert_eq!(answer["parks"], serde_json::json!({ "side": 3 }));
    assert!(answer["why"].as_str().is_some_and(|why| why.contains("3 to side")));
    assert_eq!(gateway.upstream_row("side").await["configured"], true, "nothing changed");

    let (status, answer) = gateway.ask("{\"force\":true}").await;
    assert_eq!((status, answer["outcome"].as_str()), (200, Some("applied")));
    within("the deliveries to be parked", async {
        while gateway.upstream_row("side").await["parked"] != 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(gateway.send("a", "{\"id\":9}").await.ack().0, "accepted");
    gateway.world.upstream.wait_for(1).await;
    assert!(side.received().is_empty());

    gateway.write(&with_side);
    gateway.reload().await;
    let row = gateway.upstream_row("side").await;
    assert_eq!((&row["parked"], &row["due"]), (&0.into(), &3.into()));
    assert!(row["paused"].is_object(), "it was paused by a person, who lets it go on");
    post("/api/v1/upstreams/side/resume").await;
    assert_eq!(side.wait_for(3).await.len(), 3);
    gateway.world.settled().await;
    assert_eq!(side.received().len(), 3, "each once");
}

#[tokio::test]
async fn what_an_upstream_has_when_it_goes_is_its_own_over_the_next_reload_as_well() {
    let side = Upstream::start().await;
    let without = with_secret("a", "upstream = \"up\"");
    let with_side = with_secret("a", &format!("upstream = \"side\"\n[upstreams.side]\nurl = \"{}\"", side.url()));
    let gateway = Reloading::start(&with_side).await;
    side.script([Act::Hang(200)]);
    assert_eq!(gateway.send("a", "{}").await.ack().0, "accepted");
    side.wait_for(1).await;
    gateway.write(&without);
    assert_eq!(gateway.ask("{\"force\":true}").await.1["outcome"], "applied");
    gateway.write(&(without + &with_secret("b", "upstream = \"up\"")));
    gateway.reload().await;
    let row = gateway.upstream_row("side").await;
    assert_eq!((&row["parked"], &row["leased"]), (&0.into(), &1.into()), "{row:#}");
    side.let_go();
    gateway.world.settled().await;
    gateway.write(&with_side);
    gateway.reload().await;
    gateway.world.settled().await;
    let row = gateway.upstream_row("side").await;
    assert_eq!((&row["parked"], &row["leased"], &row["due"]), (&0.into(), &0.into(), &0.into()), "{row:#}");
    assert_eq!(side.received().len(), 1, "once");
}

#[tokio::test]
async fn a_path_that_is_gone_gets_503_for_two_days_even_over_a_restart() {
    let (a, b) = (with_secret("a", "upstream = \"up\""), with_secret("b", "upstream = \"up\""));
    let gateway = Reloading::start(&(a.clone() + &b)).await;
    gateway.write(&a);
    gateway.reload().await;
    let reply = gateway.send("b", "{\"id\":1}").await;
    assert_eq!(reply.status, 503);
    assert!(reply.headers.contains_key("retry-after"));
    assert_eq!(gateway.world.metric("hookward_webhooks_total{source=\"-\",code=\"removed_path\"}").await, 1);
    assert_eq!(gateway.world.post("/hooks/never", &[], b"").await.status, 404);

    let gateway = gateway.restart(&a, 47 * 3600).await;
    assert_eq!(gateway.world.post("/hooks/b", &[], b"").await.status, 503);
    let gateway = gateway.restart(&a, 49 * 3600).await;
    assert_eq!(gateway.world.post("/hooks/b", &[], b"").await.status, 404);
    gateway.write(&(a + &b));
    gateway.reload().await;
    assert_eq!(gateway.world.post("/hooks/b", &[], b"").await.status, 401, "it is back");
}

#[tokio::test]
async fn fetched_keys_stay_until_they_are_to_come_from_elsewhere() {
    let (published, other) = (remote_keys::key(), remote_keys::key());
    let (keys, elsewhere) = (Upstream::start().await, Upstream::start().await);
    keys.script([remote_keys::set(&[&published])]);
    elsewhere.script([remote_keys::set(&[&other])]);
    let gateway = Reloading::start(&remote_keys::source(&keys.url(), "")).await;
    gateway.world.until_metric("hookward_remote_keys{source=\"discord\"}", 1).await;

    gateway.write(&remote_keys::source(&keys.url(), "allow = [\"127.0.0.0/8\"]\n"));
    gateway.reload().await;
    assert_eq!(remote_keys::sent(&gateway.world, &published).await.ack().0, "accepted");
    assert_eq!(keys.received().len(), 1, "a reload fetches nothing that is there");

    gateway.write(&remote_keys::source(&elsewhere.url(), ""));
    gateway.reload().await;
    elsewhere.wait_for(1).await;
    within("the other key to count", async {
        while remote_keys::sent(&gateway.world, &other).await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(remote_keys::sent(&gateway.world, &published).await.status, 401, "the old ones count no more");
}

/// A part that notes what it was given, or says that it cannot take it.
#[derive(Debug, Default)]
struct Part {
    is_broken: AtomicBool,
    given: Arc<Mutex<Vec<u16>>>,
}

impl Reloadable for Part {
    fn prepare(&self, config: &Config) -> Result<Swap, String> {
        if self.is_broken.load(SeqCst) {
            return Err("failed to read tls.crt".to_owned());
        }
        let (given, status) = (self.given.clone(), config.server.unknown_path);
        Ok(Box::new(move || given.lock().expect("not poisoned").push(status)))
    }
}

#[tokio::test]
async fn another_part_takes_part_and_if_it_cannot_nothing_changes() {
    let base = with_secret("a", "upstream = \"up\"");
    let gateway = Reloading::start(&base).await;
    let part = Arc::new(Part::default());
    gateway.world.gateway.live().add(part.clone());
    let text = std::fs::read_to_string(&gateway.file).expect("text");
    gateway.write_as(&text.replace("[server]\n", "[server]\nunknown_path = 503\n"));
    part.is_broken.store(true, SeqCst);
    let (status, answer) = gateway.ask("{}").await;
    assert_eq!((status, answer["outcome"].as_str()), (422, Some("invalid")));
    assert_eq!(answer["why"], "failed to read tls.crt");
    assert_eq!(gateway.world.post("/nowhere", &[], b"").await.status, 404);
    assert!(part.given.lock().expect("not poisoned").is_empty());

    part.is_broken.store(false, SeqCst);
    gateway.reload().await;
    assert_eq!(*part.given.lock().expect("not poisoned"), [503]);
    assert_eq!(gateway.world.post("/nowhere", &[], b"").await.status, 503);
}

#[tokio::test]
async fn refusals_are_explained_from_the_reload_on_that_says_so() {
    let gateway = Reloading::start(&with_secret("a", "upstream = \"up\"")).await;
    let forge = || gateway.world.send("partssource", "another-secret-than-it-is", "/hooks/a", b"{}", 0);
    let path = "/api/v1/sources/a/failures";
    assert_eq!(forge().await.status, 401);
    assert_eq!(request(gateway.world.gateway.admin, "GET", path, &[], b"").await.status, 409);
    gateway.write(&with_secret("a", "upstream = \"up\"\nexplain = true"));
    gateway.reload().await;
    assert_eq!(forge().await.status, 401);
    within("the refusal", async {
        while gateway.world.admin("GET", path).await["failures"].as_array().is_none_or(Vec::is_empty) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn if_the_store_cannot_be_told_nothing_changes() {
    let gateway = Reloading::start(&with_secret("a", "upstream = \"up\"")).await;
    let text = std::fs::read_to_string(&gateway.file).expect("text");
    gateway.write_as(&text.replace("[server]\n", "[server]\nunknown_path = 503\n"));
    break_store(&gateway.world);
    let (status, answer) = gateway.ask("{}").await;
    assert_eq!(status, 503, "{answer}");
    assert_eq!(gateway.world.post("/nowhere", &[], b"").await.status, 404);
    assert_eq!(gateway.world.metric("hookward_reloads_total{outcome=\"failed\"}").await, 1);
}

#[tokio::test]
async fn an_upstream_that_stays_keeps_its_breaker_and_one_that_changes_begins_anew() {
    let at = |timeout: &str| {
        with_secret("a", "upstream = \"gone\"")
            + &format!(
                "[upstreams.gone]\nurl = \"http://127.0.0.1:1/\"\ntimeout = \"{timeout}\"\nbreaker = {{ failures = 1 }}\n"
            )
    };
    let gateway = Reloading::start(&at("5s")).await;
    assert_eq!(gateway.send("a", "{\"id\":1}").await.status, 200);
    gateway.world.until_metric("hookward_breaker{upstream=\"gone\"}", 2).await;
    gateway.write(&(at("5s") + &with_secret("b", "upstream = \"up\"")));
    gateway.reload().await;
    assert_eq!(gateway.upstream_row("gone").await["breaker_opened_total"], 1);
    assert_eq!(gateway.upstream_row("gone").await["breaker"], "open");
    gateway.write(
        &at("6s").replace(
            "127.0.0.1:1/",
            &format!("{}/", gateway.world.upstream.url().split('/').nth(2).expect("an address")),
        ),
    );
    gateway.reload().await;
    gateway.world.settled().await;
    assert_eq!(gateway.world.upstream.received().len(), 1, "it is tried at the new address");
    assert_eq!(gateway.upstream_row("gone").await["breaker"], "closed");
}
