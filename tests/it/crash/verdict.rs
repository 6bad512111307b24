//! What was acknowledged against what came, and every second delivery against the gateway's own record.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    net::SocketAddr,
};

use hookward::time::Clock;

use super::{
    ledger::{Act, Arrival, Entry},
    load::{Load, Named},
    site::{SOURCES, Site},
};
use crate::world::request;

/// Complaints are one line each.
#[derive(Default)]
pub(crate) struct Verdict {
    /// How many webhooks were acknowledged.
    pub(crate) acknowledged: usize,
    /// Those that an upstream never took, or took as another event or as several.
    lost: Vec<String>,
    /// Events with a body that nobody sent.
    changed: Vec<String>,
    /// How often an event came again, by the cause that the gateway gives.
    pub(crate) again: BTreeMap<String, usize>,
    /// Where it gives none, or one that cannot be.
    unexplained: Vec<String>,
}

impl Verdict {
    /// Holds the ledgers against what was acknowledged. Nothing may be under way any more.
    pub(crate) async fn of(load: &Load, site: &Site, admin: SocketAddr) -> Self {
        let mut verdict = Self::default();
        let (sent, acknowledged) = (load.sent(), load.acknowledged());
        verdict.acknowledged = acknowledged.len();
        for ledger in &site.ledgers {
            let entries = ledger.entries();
            verdict.find_changed(&entries, &sent);
            verdict.find_lost(ledger.name, &entries, &acknowledged);
            for (id, entry) in entries.iter().filter(|(_, entry)| entry.arrivals.len() > 1) {
                let shown = request(admin, "GET", &format!("/api/v1/events/{id}"), &[], b"").await.json();
                let deliveries = shown["event"]["deliveries"].as_array().expect("deliveries");
                let delivery = deliveries.iter().find(|delivery| delivery["upstream"] == ledger.name);
                let history = Record::of(delivery.expect("it came from one"));
                let mut was_taken = false;
                for pair in entry.arrivals.windows(2) {
                    was_taken |= pair[0].act.took();
                    if was_taken && !pair[1].uncertain {
                        verdict.unexplained.push(format!("{id} at {}: taken, and not marked: {pair:?}", ledger.name));
                    }
                    match history.cause_of(pair[0], pair[1]) {
                        Ok(cause) => *verdict.again.entry(cause).or_default() += 1,
                        Err(why) => verdict.unexplained.push(format!("{id} at {}: {why}", ledger.name)),
                    }
                }
            }
        }
        verdict
    }

    fn find_changed(&mut self, entries: &HashMap<String, Entry>, sent: &HashSet<Named>) {
        for (id, entry) in entries {
            let is_known =
                |print| SOURCES.iter().any(|(source, ..)| *source == entry.source && sent.contains(&(*source, print)));
            if entry.bodies.len() != 1 || !is_known(entry.bodies[0]) {
                self.changed.push(format!(
                    "{id} of {}: {} bodies, or none that was sent",
                    entry.source,
                    entry.bodies.len()
                ));
            }
        }
    }

    fn find_lost(
        &mut self,
        upstream: &str,
        entries: &HashMap<String, Entry>,
        acknowledged: &HashMap<Named, Option<String>>,
    ) {
        let mut taken: HashMap<(&str, _), Vec<&str>> = HashMap::new();
        for (id, entry) in entries.iter().filter(|(_, entry)| entry.arrivals.iter().any(|one| one.act.took())) {
            taken.entry((&entry.source, entry.bodies[0])).or_default().push(id);
        }
        for (named, id) in acknowledged {
            let (_, _, upstreams) = SOURCES.iter().find(|(source, ..)| *source == named.0).expect("a source");
            if !upstreams.contains(&upstream) {
                continue;
            }
            match taken.get(named).map(Vec::as_slice) {
                Some([only]) if id.as_ref().is_none_or(|id| id == only) => {}
                other => self.lost.push(format!(
                    "{} bytes of {} acknowledged as {id:?}: {upstream} took {other:?}",
                    named.1.0, named.0
                )),
            }
        }
    }

    /// Fails the test if anything is lost, changed or unexplained.
    pub(crate) fn assert_clean(&self) {
        let complaints = [("lost", &self.lost), ("changed", &self.changed), ("unexplained", &self.unexplained)];
        for (what, complaints) in complaints {
            assert!(complaints.is_empty(), "{self}\n{what}:\n{}", complaints.join("\n"));
        }
        assert!(self.acknowledged > 0, "nothing was tried");
    }
}

/// The numbers, on one line.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again: usize = self.again.values().sum();
        write!(
            f,
            "{} acknowledged, {} lost, {} changed, {again} second deliveries",
            self.acknowledged,
            self.lost.len(),
            self.changed.len()
        )?;
        let causes: Vec<_> = self.again.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
        write!(f, " ({}), {} unexplained; {}", causes.join(", "), self.unexplained.len(), built())
    }
}

/// The commit, where there is a repository, and the day.
fn built() -> String {
    let mut git = std::process::Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let commit = git.output().ok().filter(|output| output.status.success());
    let commit =
        commit.map_or_else(|| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
    let now = Clock::system().wall().rfc3339();
    format!("commit {}, {}", commit.trim(), &now[..10])
}

/// What the gateway recorded of one delivery: status, error and cause of each settled attempt, by number.
struct Record(HashMap<u64, (Option<u64>, Option<String>, String)>);

impl Record {
    fn of(delivery: &serde_json::Value) -> Self {
        let attempt = |attempt: &serde_json::Value| {
            let text = |key: &str| attempt[key].as_str().map(str::to_owned);
            let recorded = (attempt["status"].as_u64(), text("error"), text("cause").unwrap_or_default());
            (attempt["number"].as_u64().unwrap_or_default(), recorded)
        };
        Self(delivery["history"].as_array().into_iter().flatten().map(attempt).collect())
    }

    /// Why an event that came as `before` came again as `now`.
    fn cause_of(&self, before: Arrival, now: Arrival) -> Result<String, String> {
        let of = |arrival: Arrival| {
            let recorded = self.0.get(&arrival.attempt.into());
            recorded.ok_or_else(|| format!("attempt {} came, and is not in the history", arrival.attempt))
        };
        let ((status, error, recorded_for), (.., cause)) = (of(before)?, of(now)?);
        let is_lost = |cause: &str| ["restart", "lease lapsed"].contains(&cause);
        if now.attempt == before.attempt {
            // The outcome of the one before was never recorded.
            return if is_lost(cause) && now.uncertain {
                Ok(format!("after a {cause}"))
            } else {
                Err(format!("{before:?} and {now:?} under one number for {cause:?}"))
            };
        }
        let Some(error) = error.as_ref().filter(|_| now.attempt > before.attempt) else {
            return Err(format!("{before:?} was delivered, and came again as {now:?} for {cause:?}"));
        };
        match (before.act, status) {
            (Act::Answer(answered, _), Some(status)) if u64::from(answered) == *status && answered >= 300 => {
                Ok("after a 5xx".to_owned())
            }
            // Also an answer that came later than the gateway waits.
            (Act::Answer(..) | Act::Hang, None) if error.contains("timed out") => Ok("after a timeout".to_owned()),
            (Act::Reset | Act::Cut, None) => Ok("after a cut connection".to_owned()),
            // Its outcome was never recorded: the one of that number that was is another, made after a restart on a
            // connection which broke before it came.
            (_, None) if is_lost(recorded_for) && now.uncertain => Ok(format!("after a {recorded_for}")),
            _ => Err(format!("{before:?} is recorded as {status:?}, {error:?}")),
        }
    }
}
