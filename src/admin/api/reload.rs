//! Loading the configuration anew.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The body of `POST /api/v1/reload`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {
    /// Say what would change, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Also if deliveries are parked by it.
    #[serde(default)]
    pub force: bool,
}

/// What came of a reload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadOutcome {
    /// It is in force, but for what needs a restart.
    Applied,
    /// It says what is in force already.
    Unchanged,
    /// Nothing was to be changed: `dry_run`.
    Planned,
    /// Nothing was changed: `why` says what is against it.
    Refused,
    /// Nothing was changed: `problems` says what is wrong.
    Invalid,
}

impl ReloadOutcome {
    /// The stable name: in answers, in the metric and in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Planned => "planned",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
        }
    }
}

/// The answer to `POST /api/v1/reload`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// What came of it.
    pub outcome: ReloadOutcome,
    /// What the file says otherwise than what is in force.
    pub changes: Vec<ChangeRow>,
    /// The keys that need a restart.
    pub restart: Vec<String>,
    /// How many deliveries are parked by it, by upstream that is gone.
    pub parks: BTreeMap<String, u64>,
    /// What is against it.
    pub why: Option<String>,
    /// Errors and warnings in the file, for people; empty if there are none.
    pub problems: String,
}

/// One difference. Never a secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeRow {
    /// `+`, `-` or `~`.
    pub mark: String,
    /// What it is about: `source orders`, `server`.
    pub what: String,
    /// What of it: `tolerance 5m -> 10m`; empty if that is all of it.
    pub detail: String,
    /// `now` or `restart`.
    pub when: String,
}

/// Of which configuration is in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConfigRow {
    /// When it was loaded; RFC 3339 in UTC.
    pub loaded_at: String,
    /// What came of the last reload that was not a question only.
    pub last_reload: Option<ReloadRow>,
    /// The keys that the file says otherwise and that need a restart.
    pub restart: Vec<String>,
}

/// A reload that was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReloadRow {
    /// When; RFC 3339 in UTC.
    pub at: String,
    /// What came of it.
    pub outcome: ReloadOutcome,
    /// What is against it, or wrong with the file.
    pub why: Option<String>,
}
