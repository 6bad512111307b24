//! Why webhooks of a source were refused.

use serde::{Deserialize, Serialize};

use super::{BodyPreview, HeaderRow};
use crate::verify::causes::Cause;

/// `GET /api/v1/sources/{name}/failures`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailureList {
    /// The source.
    pub source: String,
    /// The last ones, newest first.
    pub failures: Vec<FailureRow>,
    /// How many more were refused since the start and only counted.
    pub not_explained: u64,
}

/// One webhook that was refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailureRow {
    /// When it came; RFC 3339 in UTC.
    pub at: String,
    /// As in the log and in the answer.
    pub request_id: String,
    /// Why it was refused: the code in log and metric.
    pub code: String,
    /// The address of the client.
    pub client: Option<String>,
    /// What it probably comes from, most certain first; empty if nothing that is tried explains it.
    pub causes: Vec<CauseRow>,
    /// The first 64; of signatures and credentials the length and the beginning.
    pub headers: Vec<HeaderRow>,
    /// The first KiB of the body.
    pub body: BodyPreview,
}

/// A likely cause.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CauseRow {
    /// Stable.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do.
    pub advice: String,
    /// Whether the webhook verifies once that is put right.
    pub proven: bool,
}

impl From<&Cause> for CauseRow {
    fn from(cause: &Cause) -> Self {
        Self {
            code: cause.code().to_owned(),
            message: cause.message(),
            advice: cause.advice().to_owned(),
            proven: cause.proven,
        }
    }
}

/// How many refusals of a source are explained.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailureCount {
    /// The source.
    pub source: String,
    /// How many are kept; `GET /api/v1/sources/{name}/failures` shows them.
    pub kept: u64,
    /// How many more were refused since the start and only counted.
    pub not_explained: u64,
    /// The code of the likeliest cause of the last one, if there is one.
    pub last_cause: Option<String>,
}
