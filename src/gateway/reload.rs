//! Taking another configuration while it runs.
//!
//! Everything is built whole before anything is swapped: what can fail fails first and changes nothing. Requests in
//! flight finish with the configuration that they began with. What can be applied is applied; what needs a restart is
//! named, and stays as it was until there is one.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Parts, notify, report_parked, smallest_tolerance, source_rules};
use crate::{
    admin::api::{ChangeRow, ConfigRow, ReloadAnswer, ReloadOutcome, ReloadRequest, ReloadRow},
    config::{self, Config, Diff, Files, LoadOptions, Loaded},
    delivery::{Retired, StartError},
    document::{Problems, Severity},
    event::{Name, State},
    store::StoreError,
    time::Wall,
};

/// Between two tries to park what an upstream that is gone has left.
const PARK_AGAIN: Duration = Duration::from_secs(1);
/// Changes that are logged one by one.
const LOGGED_MAX: usize = 100;

/// Where a configuration came from, so that it can be loaded anew.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The main file.
    pub path: PathBuf,
    /// As it was loaded at the start; the time is always that of the load.
    pub options: LoadOptions,
    /// What it was made of.
    pub files: Files,
}

/// Puts something new in the place of the old. It cannot fail.
pub type Swap = Box<dyn FnOnce() + Send>;

/// A part beside those that every gateway has that takes another configuration while it runs, such as the certificates
/// of the listeners.
pub trait Reloadable: fmt::Debug + Send + Sync {
    /// Makes all that this configuration needs and changes nothing yet; may read files. The error is a lower-case
    /// fragment that says what to do, and then nothing at all is swapped.
    fn prepare(&self, config: &Config) -> Result<Swap, String>;
}

/// The configuration in force, and what takes another.
#[derive(Debug)]
pub struct Live {
    running: ArcSwap<Config>,
    origin: Option<Origin>,
    pub(super) parts: Parts,
    ending: CancellationToken,
    /// What a reload has begun and is not waited for: the fetching of keys, and lanes that finish.
    tasks: TaskTracker,
    /// One at a time.
    reloading: tokio::sync::Mutex<()>,
    shown: Mutex<Shown>,
    /// Upstreams that are gone, and whose lanes have not finished: their deliveries are not parked yet. One that went
    /// twice is in it twice.
    leaving: Mutex<Vec<Name>>,
    reloadables: Mutex<Vec<Arc<dyn Reloadable>>>,
}

/// What an operator is shown.
#[derive(Debug)]
struct Shown {
    loaded_at: Wall,
    last: Option<ReloadRow>,
    restart: Vec<String>,
    files: Files,
}

impl Live {
    pub(super) fn new(config: Config, origin: Option<Origin>, parts: Parts, ending: CancellationToken) -> Arc<Self> {
        let loaded_at = parts.clock.wall();
        parts.metrics.config_loaded_at(loaded_at.unix_s());
        let files = origin.as_ref().map(|origin| origin.files.clone()).unwrap_or_default();
        Arc::new(Self {
            running: ArcSwap::from_pointee(config),
            origin,
            parts,
            ending,
            tasks: TaskTracker::new(),
            reloading: tokio::sync::Mutex::default(),
            shown: Mutex::new(Shown { loaded_at, last: None, restart: Vec::new(), files }),
            leaving: Mutex::default(),
            reloadables: Mutex::default(),
        })
    }

    /// The configuration in force: as it was loaded last, but for what needs a restart.
    pub fn running(&self) -> Arc<Config> {
        self.running.load_full()
    }

    /// From now on this takes part in every reload.
    pub fn add(&self, reloadable: Arc<dyn Reloadable>) {
        self.reloadables.lock().unwrap_or_else(PoisonError::into_inner).push(reloadable);
    }

    /// Loads the file anew and takes what it says, or says why not. The error is the store's, and then nothing changed.
    pub async fn reload(self: &Arc<Self>, request: ReloadRequest) -> Result<ReloadAnswer, StoreError> {
        let _one_at_a_time = self.reloading.lock().await;
        // Dropped, it says that all is ready again.
        let _told = (!request.dry_run).then(notify::reloading);
        let answer = self.try_reload(request).await;
        if !request.dry_run {
            self.note(answer.as_ref());
        }
        answer
    }

    async fn try_reload(self: &Arc<Self>, request: ReloadRequest) -> Result<ReloadAnswer, StoreError> {
        let Some(origin) = &self.origin else {
            return Ok(refused("this gateway was not started from a file: start it anew".to_owned()));
        };
        let Loaded { config, problems, files, .. } = self.load(origin).await;
        self.shown().files = files;
        let Some(new) = config else {
            log_invalid(&problems);
            let why = format!("errors in the file: {}; `hookward diff` shows them", problems.errors());
            return Ok(invalid(why, problems.render(false)));
        };
        let running = self.running();
        let diff = config::diff(&running, &new);
        let parks = self.parks(&diff).await?;
        let answer = ReloadAnswer {
            outcome: if diff.is_empty() { ReloadOutcome::Unchanged } else { ReloadOutcome::Planned },
            changes: diff.changes.iter().map(row).collect(),
            restart: diff.restart(),
            why: None,
            problems: problems.render(false),
            parks,
        };
        let mixed = match running.reloaded(new) {
            Ok(mixed) => Arc::new(mixed),
            Err(why) => return Ok(ReloadAnswer { outcome: ReloadOutcome::Refused, why: Some(why), ..answer }),
        };
        if !request.force && !answer.parks.is_empty() {
            let why = against_parking(&answer.parks);
            // Asked what would be, this is no refusal.
            let outcome = if request.dry_run { answer.outcome } else { ReloadOutcome::Refused };
            return Ok(ReloadAnswer { outcome, why: Some(why), ..answer });
        }
        if request.dry_run {
            return Ok(answer);
        }
        match self.apply(&running, mixed, &diff).await? {
            Ok(()) if diff.is_empty() => Ok(answer),
            Ok(()) => Ok(ReloadAnswer { outcome: ReloadOutcome::Applied, ..answer }),
            Err(why) => Ok(ReloadAnswer { changes: answer.changes, ..invalid(why.clone(), format!("error: {why}\n")) }),
        }
    }

    async fn load(&self, origin: &Origin) -> Loaded {
        let (path, options) = (origin.path.clone(), origin.options.clone());
        let options = LoadOptions { now: self.parts.clock.wall(), ..options };
        let load = tokio::task::spawn_blocking(move || config::load(&path, &options));
        load.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// How many deliveries wait for upstreams that are gone.
    async fn parks(&self, diff: &Diff) -> Result<BTreeMap<String, u64>, StoreError> {
        if diff.removed_upstreams.is_empty() {
            return Ok(BTreeMap::new());
        }
        let stats = self.parts.store.stats().await?;
        let waiting = |name: &Name| {
            let in_state = |state| stats.deliveries.get(&(name.clone(), state)).copied().unwrap_or(0);
            (name.to_string(), in_state(State::Due) + in_state(State::Leased))
        };
        Ok(diff.removed_upstreams.iter().map(waiting).filter(|(_, count)| *count > 0).collect())
    }

    /// Builds all of it, then swaps it. What is wrong with it is the inner error; after either error nothing changed.
    async fn apply(
        self: &Arc<Self>,
        running: &Config,
        new: Arc<Config>,
        diff: &Diff,
    ) -> Result<Result<(), String>, StoreError> {
        let parts = &self.parts;
        let prepared = match parts.lanes.prepare(&new.upstreams, source_rules(&new)).await {
            Ok(prepared) => prepared,
            Err(StartError::Paused(error)) => return Err(error),
            Err(error) => return Ok(Err(with_causes(&error))),
        };
        let swaps = match self.prepare_others(new.clone()).await {
            Ok(swaps) => swaps,
            Err(why) => return Ok(Err(why)),
        };
        // New upstreams are known to the store before anything is stored for them, and those that go until their lanes
        // have finished. The last step that can fail.
        let both = running.upstreams.keys().chain(new.upstreams.keys()).cloned().chain(self.leaving().clone());
        let both: std::collections::BTreeSet<Name> = both.collect();
        report_parked(both.into_iter(), &*parts.store).await?;
        // From here on it is done, and to its end.
        let (gate, config, set) = (parts.gate.clone(), new.clone(), prepared.set().clone());
        let swapped = tokio::task::spawn_blocking(move || gate.reload(&config, set));
        swapped.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        let retired = parts.lanes.change(prepared);
        for swap in swaps {
            swap();
        }
        parts.health.set_smallest_tolerance(smallest_tolerance(&new));
        parts.failures.reload(new.sources.values().map(|source| &**source));
        self.running.store(new);
        self.keep_remote_keys();
        if !retired.is_empty() {
            self.leaving().extend(diff.removed_upstreams.iter().cloned());
            self.tasks.spawn(self.clone().park(retired, diff.removed_upstreams.clone()));
        }
        Ok(Ok(()))
    }

    async fn prepare_others(&self, config: Arc<Config>) -> Result<Vec<Swap>, String> {
        let others = self.reloadables.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let prepare = move || others.iter().map(|other| other.prepare(&config)).collect();
        let prepared = tokio::task::spawn_blocking(prepare);
        prepared.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Parks what the upstreams that are gone have left, once their lanes have finished what they had.
    async fn park(self: Arc<Self>, retired: Retired, gone: Vec<Name>) {
        let ending = self.ending.clone();
        let work = async {
            retired.finished().await;
            if gone.is_empty() {
                return;
            }
            while let Err(error) = self.park_left(&gone).await {
                tracing::warn!(%error, "failed to park what is left of upstreams that are gone");
                tokio::time::sleep(PARK_AGAIN).await;
            }
        };
        tokio::select! {
            () = work => {}
            // The next start parks them.
            () = ending.cancelled() => {}
        }
    }

    async fn park_left(&self, gone: &[Name]) -> Result<(), StoreError> {
        let _one_at_a_time = self.reloading.lock().await;
        let mut left = self.leaving().clone();
        for name in gone {
            if let Some(at) = left.iter().position(|other| other == name) {
                left.swap_remove(at);
            }
        }
        let names: Vec<_> = self.running().upstreams.keys().chain(&left).cloned().collect();
        report_parked(names.into_iter(), &*self.parts.store).await?;
        *self.leaving() = left;
        Ok(())
    }

    /// Begins to fetch the keys that nobody fetches yet.
    pub(super) fn keep_remote_keys(&self) {
        for keeping in self.parts.gate.keep_remote_keys(&self.ending) {
            self.tasks.spawn(keeping);
        }
    }

    /// Waits for what it has begun, after the end was announced.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn note(&self, answer: Result<&ReloadAnswer, &StoreError>) {
        let parts = &self.parts;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                parts.metrics.reloaded("failed");
                tracing::warn!(%error, "failed to load the configuration anew: nothing changed");
                return;
            }
        };
        let now = parts.clock.wall();
        parts.metrics.reloaded(answer.outcome.name());
        let mut shown = self.shown();
        shown.last = Some(ReloadRow { at: now.rfc3339(), outcome: answer.outcome, why: answer.why.clone() });
        match answer.outcome {
            ReloadOutcome::Applied | ReloadOutcome::Unchanged => {
                shown.loaded_at = now;
                shown.restart.clone_from(&answer.restart);
                parts.metrics.config_loaded_at(now.unix_s());
                for change in answer.changes.iter().take(LOGGED_MAX) {
                    let ChangeRow { mark, what, detail, when } = change;
                    tracing::info!(mark, what, detail, when, "configuration: changed");
                }
                if !answer.restart.is_empty() {
                    tracing::warn!(keys = answer.restart.join(", "), "configuration: needs a restart");
                }
                tracing::info!(
                    outcome = answer.outcome.name(),
                    changes = answer.changes.len(),
                    "configuration loaded anew"
                );
            }
            ReloadOutcome::Refused | ReloadOutcome::Invalid => {
                let why = answer.why.as_deref().unwrap_or_default();
                tracing::warn!(
                    outcome = answer.outcome.name(),
                    why,
                    "failed to take the configuration: nothing changed"
                );
            }
            ReloadOutcome::Planned => {}
        }
    }

    /// As operators are shown it.
    pub(super) fn state(&self) -> ConfigRow {
        let shown = self.shown();
        ConfigRow {
            loaded_at: shown.loaded_at.rfc3339(),
            last_reload: shown.last.clone(),
            restart: shown.restart.clone(),
        }
    }

    /// What the configuration was made of when it was loaded last, well or not.
    pub(super) fn files(&self) -> Files {
        self.shown().files.clone()
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leaving(&self) -> MutexGuard<'_, Vec<Name>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(why: String) -> ReloadAnswer {
    ReloadAnswer { outcome: ReloadOutcome::Refused, ..invalid(why, String::new()) }
}

fn invalid(why: String, problems: String) -> ReloadAnswer {
    let (changes, restart, parks) = (Vec::new(), Vec::new(), BTreeMap::new());
    ReloadAnswer { outcome: ReloadOutcome::Invalid, changes, restart, parks, why: Some(why), problems }
}

fn row(change: &config::Change) -> ChangeRow {
    ChangeRow {
        mark: change.mark.sign().to_owned(),
        what: change.what.clone(),
        detail: change.detail.clone(),
        when: if change.restart.is_some() { "restart" } else { "now" }.to_owned(),
    }
}

fn against_parking(parks: &BTreeMap<String, u64>) -> String {
    let each: Vec<_> = parks.iter().map(|(upstream, count)| format!("{count} to {upstream}")).collect();
    format!(
        "deliveries would be parked, for their upstream is not configured any more ({}): wait until it took them, or \
         force it (`hookward reload --force`)",
        each.join(", ")
    )
}

/// One line each, so that who reads only the log knows what to do.
fn log_invalid(problems: &Problems) {
    for problem in problems.sorted().into_iter().filter(|problem| problem.severity == Severity::Error) {
        let at = problem.place.as_ref().map(|place| problems.locate(place));
        tracing::warn!(at, help = problem.help, "configuration: {}", problem.message);
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
