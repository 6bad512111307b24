//! What outlives every process: the data, the configuration, and the upstreams with their ledgers.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{ledger::Ledger, load::SECRET};

/// Every source: its name, its mode, and where its events go. All are of one provider that signs the time.
pub(crate) const SOURCES: [(&str, &str, &[&str]); 3] =
    [("queue", "queue", &["orders"]), ("respond", "respond", &["orders"]), ("pair", "queue", &["orders", "audit"])];

pub(crate) struct Site {
    directory: TempDir,
    /// The upstreams `orders` and `audit`.
    pub(crate) ledgers: [Ledger; 2],
}

impl Site {
    /// Upstreams that fail by this seed, if there is one; `store` and `upstream` are further keys of those tables.
    pub(crate) async fn new(seed: Option<u64>, store: &str, upstream: &str) -> Self {
        let ledgers =
            [Ledger::start("orders", seed).await, Ledger::start("audit", seed.map(|seed| seed.wrapping_add(1))).await];
        let mut text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"100ms\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [log]\nformat = \"json\"\n[store]\npath = \"data\"\n{store}\n"
        );
        for ledger in &ledgers {
            let _ = write!(
                text,
                "[upstreams.{}]\nurl = \"{}\"\ntimeout = \"250ms\"\n\
                 retry = {{ first = \"20ms\", factor = 1.0, max = \"100ms\" }}\n{upstream}\n",
                ledger.name, ledger.url
            );
        }
        for (name, mode, upstreams) in SOURCES {
            let _ = write!(
                text,
                "[sources.{name}]\nprovider = \"partssource\"\nsecrets = [{{ value = \"{SECRET}-{name}\" }}]\n\
                 upstreams = {upstreams:?}\nmode = \"{mode}\"\n"
            );
        }
        let site = Self { directory: TempDir::new().expect("a directory"), ledgers };
        fs::write(site.configuration(), text).expect("the configuration is written");
        site
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn configuration(&self) -> PathBuf {
        self.path().join("hookward.toml")
    }

    /// A file of the store.
    pub(crate) fn store_file(&self, name: &str) -> PathBuf {
        self.path().join("data").join(name)
    }

    pub(crate) fn ledger(&self, upstream: &str) -> &Ledger {
        self.ledgers.iter().find(|ledger| ledger.name == upstream).expect("one of the two")
    }
}
