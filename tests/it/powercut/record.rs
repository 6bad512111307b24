//! A gateway at work under `strace`: webhooks, copies, failures of the upstream, a kill with leases out, restarts.

use std::{collections::HashMap, fs, net::SocketAddr, path::Path, thread};

use futures_util::future::join_all;
use hookward::{store::sqlite::SqliteStore, time::Clock};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::TempDir;

use super::{
    disk::{self, Cut, Survival},
    trace::{CALLS, Reader, Step, Synced},
};
use crate::{
    running::{Gateway, hookward_under},
    world::{Act, Reply, Upstream, request, sign},
};

const SECRET: &str = "a-secret-of-some-length";
/// Makes the log so short that it is moved into the database file every few events.
pub(super) const DISK_BYTES_MAX: &str = "8MiB";

/// What was done, and what was promised.
pub(super) struct Recording {
    pub(super) steps: Vec<Step>,
    /// How many syncs were `fdatasync`.
    pub(super) data_syncs: usize,
    /// The body of each event that was acknowledged.
    pub(super) sent: HashMap<String, Vec<u8>>,
}

impl Recording {
    /// How often the database file was synced after the log began.
    pub(super) fn checkpoints(&self) -> usize {
        let numbers = |wanted: &str| -> Vec<usize> {
            let made = |step: &Step| match step {
                Step::Create { file, name } if name == wanted => Some(*file),
                _ => None,
            };
            self.steps.iter().filter_map(made).collect()
        };
        let database = numbers("hookward.db");
        let log = self.steps.iter().position(|step| matches!(step, Step::Acknowledged { .. })).expect("one is");
        let is_sync =
            |step: &&Step| matches!(step, Step::Synced { what: Synced::File(file), .. } if database.contains(file));
        self.steps[log..].iter().filter(is_sync).count()
    }
}

/// Records three processes: the first is killed, the others end in order.
pub(super) async fn record(durability: &str) -> Recording {
    let home = TempDir::new().expect("a directory");
    let base = fs::canonicalize(home.path()).expect("it is there");
    let data = base.join("data");
    let upstream = Upstream::start().await;
    let configuration = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [store]\npath = \"{}\"\ndurability = \"{durability}\"\ndisk_bytes_max = \"{DISK_BYTES_MAX}\"\n\
         [sources.orders]\nprovider = \"partssource\"\nsecrets = [{{ value = \"{SECRET}\" }}]\nupstream = \"up\"\n\
         [upstreams.up]\nurl = \"{}\"\nretry = {{ first = \"20ms\", factor = 1.0, max = \"100ms\" }}\n\
         breaker = {{ failures = 10000 }}\n",
        data.display(),
        upstream.url()
    );
    let mut reader = Reader::default();
    let mut sent = HashMap::new();
    for process in 0..3 {
        let trace = base.join(format!("trace-{process}"));
        // A pipe has an end, which strace may reach after the gateway has ended.
        mkfifoat(CWD, &trace, Mode::RUSR | Mode::WUSR).expect("a pipe");
        let lines = thread::spawn({
            let trace = trace.clone();
            move || fs::read_to_string(trace).expect("strace writes it; text is ASCII")
        });
        let gateway = Gateway::start_as(traced(&trace), &base, &configuration);
        upstream.script((0..4).map(|n| Act::Answer(if n % 2 == 0 { 503 } else { 200 }, "")));
        for round in 0..14 {
            sent.extend(send(gateway.public, process * 100 + round).await);
        }
        gateway.settled();
        let all = upstream.received().len();
        if process == 0 {
            // These are with the upstream when the process is killed.
            upstream.script([Act::Hang(200), Act::Hang(200)]);
            for round in 90..92 {
                sent.extend(send(gateway.public, round).await);
            }
            upstream.wait_for(all + 2).await;
        }
        let (code, log) = gateway.end_by(if process == 0 { "KILL" } else { "TERM" });
        assert_eq!(code, (process > 0).then_some(0), "{log}");
        reader.read(&lines.join().expect("it was read"), &data);
        assert_same(&reader.steps, &data);
    }
    Recording { steps: reader.steps, data_syncs: reader.data_syncs, sent }
}

fn traced(trace: &Path) -> std::process::Command {
    let trace = trace.to_str().expect("text");
    // -D: the gateway is our child, and strace a stranger that ends with it.
    hookward_under("strace", &["-D", "-f", "-y", "-s", "10000000", "-o", trace, "-e", "signal=none", "-e", CALLS])
}

/// The steps are all that was done: made again they give the same files.
fn assert_same(steps: &[Step], data: &Path) {
    let all = disk::after(steps, Cut { steps: steps.len() }, &Survival::All);
    assert!(all.keys().any(|name| data.join(name) == SqliteStore::database_path(data)), "{:?}", all.keys());
    for (name, content) in &all {
        let real = fs::read(data.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(real == *content, "{name} is not what the trace says it is");
    }
}

/// Sends something new, some of it as several copies at the same moment, and returns the id and the body.
async fn send(to: SocketAddr, number: u64) -> Option<(String, Vec<u8>)> {
    let mut random = StdRng::seed_from_u64(number);
    let mut body = vec![0; random.random_range(16..20_000)];
    random.fill(&mut body[..]);
    let headers = sign("partssource", SECRET, &body, Clock::system().wall().unix_s());
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let copies = if number.is_multiple_of(4) { 3 } else { 1 };
    let answers = join_all((0..copies).map(|_| request(to, "POST", "/hooks/orders", &headers, &body))).await;
    let mut acks: Vec<_> = answers.iter().map(Reply::ack).collect();
    acks.sort();
    assert_eq!(acks[0].0, "accepted");
    assert!(acks[1..].iter().all(|ack| *ack == ("duplicate".to_owned(), acks[0].1.clone())), "{acks:?}");
    Some((acks.remove(0).1, body))
}
