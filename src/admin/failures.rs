//! The last refusals of the sources with `explain = true`, each with what it probably comes from.
//!
//! What is kept is small, masked and in memory only. It is found out by one task, with the secrets of that source alone.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{HeaderName, HeaderValue, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{
    Admin,
    access::Caller,
    answer::{self, Answer, Problem},
    api::{BodyPreview, CauseRow, FailureCount, FailureList, FailureRow, HeaderRow, REDACTED},
    events,
    redact::{self, Hidden},
};
use crate::{
    config::Source,
    ingress::Failed,
    verify::{
        CredentialPlace,
        causes::{CauseKind, Question},
        encode_hex,
    },
};

/// Failures kept of each source.
const KEPT: usize = 16;
/// Headers of each, and bytes of a name and of a value.
const HEADERS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 128;
const VALUE_BYTES_MAX: usize = 256;
/// Bytes of a body that are shown.
const BODY_BYTES_MAX: usize = 1024;
/// Characters of a signature or a credential that are shown, and the length from which on they are.
const BEGINNING: usize = 6;
const BEGINNING_OF: usize = 24;

/// How many refusals of a source were only counted.
pub type NotExplained = Box<dyn Fn(&str) -> u64 + Send + Sync>;

/// What is known of refusals.
pub struct FailureLog {
    /// The configured sources, and what of each is hidden if its refusals are explained.
    sources: Mutex<BTreeMap<String, Option<Hidden>>>,
    kept: Mutex<BTreeMap<String, VecDeque<FailureRow>>>,
    not_explained: NotExplained,
}

impl fmt::Debug for FailureLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.sources().keys()).finish()
    }
}

impl FailureLog {
    /// An empty one for these sources.
    pub fn new<'s>(sources: impl Iterator<Item = &'s Source>, not_explained: NotExplained) -> Arc<Self> {
        let log = Self { sources: Mutex::default(), kept: Mutex::default(), not_explained };
        log.reload(sources);
        Arc::new(log)
    }

    /// These are the sources from now on. What was kept of one stays, if its refusals are still explained and no more is
    /// hidden of it: what was shown is not shown any more where it is to be hidden.
    pub fn reload<'s>(&self, sources: impl Iterator<Item = &'s Source>) {
        let hidden = |source: &Source| source.explain.then(|| Hidden::of(source));
        let sources: BTreeMap<_, _> = sources.map(|source| (source.name.to_string(), hidden(source))).collect();
        let before = std::mem::replace(&mut *self.sources(), sources.clone());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|name, _| sources.get(name).is_some_and(|now| now.is_some() && before.get(name) == Some(now)));
    }

    fn sources(&self) -> MutexGuard<'_, BTreeMap<String, Option<Hidden>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out what is handed over, one after another, until nobody hands over any more.
    pub async fn keep(self: Arc<Self>, mut failures: mpsc::Receiver<Failed>) {
        while let Some(failed) = failures.recv().await {
            let source = failed.source.name.to_string();
            // A panic is in the log, and costs this one only.
            let Ok(row) = tokio::task::spawn_blocking(move || explain(&failed)).await else { continue };
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let rows = kept.entry(source).or_default();
            rows.truncate(KEPT - 1);
            rows.push_front(row);
        }
    }

    /// Those sources that anything is known of.
    pub(super) fn counts(&self) -> Vec<FailureCount> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = self.sources().clone();
        let explained = sources.iter().filter(|(_, hidden)| hidden.is_some());
        let counts = explained.map(|(source, _)| {
            let rows = kept.get(source);
            FailureCount {
                source: source.clone(),
                kept: rows.map_or(0, VecDeque::len) as u64,
                not_explained: (self.not_explained)(source),
                last_cause: rows.and_then(|rows| Some(rows.front()?.causes.first()?.code.clone())),
            }
        });
        counts.filter(|count| count.kept + count.not_explained > 0).collect()
    }
}

pub(super) fn list(admin: &Admin, caller: Caller, source: &str) -> Result<Answer, Problem> {
    let log = &admin.failures;
    let sources = log.sources().clone();
    let Some(hidden) = sources.get(source) else {
        let known = sources.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let detail = format!("source `{source}` is not configured");
        return Err(Problem::new(StatusCode::NOT_FOUND, "source_unknown", detail, format!("configured are: {known}")));
    };
    let Some(hidden) = hidden else {
        let detail = format!("refusals of source `{source}` are not explained");
        let help = "set explain = true at the source, or use `hookward verify` on a captured request";
        return Err(Problem::new(StatusCode::CONFLICT, "explain_off", detail, help));
    };
    let kept = log.kept.lock().unwrap_or_else(PoisonError::into_inner).get(source).cloned();
    let mut failures: Vec<_> = kept.into_iter().flatten().collect();
    if !hidden.pointers.is_empty() && !caller.may_operate() {
        for failure in &mut failures {
            failure.body.sha256 = None;
        }
    }
    let not_explained = (log.not_explained)(source);
    Ok(answer::json(StatusCode::OK, &FailureList { source: source.to_owned(), failures, not_explained }))
}

/// The row of one refusal. Takes as long as up to 64 MACs over the body, and more memory than the body.
fn explain(failed: &Failed) -> FailureRow {
    let source = &*failed.source;
    let question = Question {
        scheme: &source.scheme,
        seen: failed.seen(),
        keyring: &source.keyring,
        body: failed.body.as_deref(),
        now: failed.at,
        tolerance: source.tolerance,
        others: &[],
    };
    let causes = question.causes();
    let hidden = Hidden::of(source);
    let is_found = |name: &HeaderName| {
        causes.iter().any(|cause| matches!(&cause.kind, CauseKind::HeaderRenamed { found, .. } if found == name))
    };
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        let is_credential = events::is_telltale(name.as_str()) || source.scheme.signs_with(name) || is_found(name);
        let value = if hidden.has_header(name.as_str()) {
            REDACTED.to_owned()
        } else if has_secret(failed, value.as_bytes()) {
            format!("{} bytes", value.len())
        } else if is_credential {
            masked(value.as_bytes())
        } else {
            cut(&String::from_utf8_lossy(value.as_bytes()), VALUE_BYTES_MAX)
        };
        HeaderRow { name: cut(name.as_str(), NAME_BYTES_MAX), value }
    };
    FailureRow {
        at: failed.at.rfc3339(),
        request_id: failed.request_id.clone(),
        code: failed.code.to_owned(),
        client: failed.client.map(|client| client.to_string()),
        headers: failed.seen().headers.iter().take(HEADERS_MAX).map(header).collect(),
        body: body(failed, &hidden),
        causes: causes.iter().map(CauseRow::from).collect(),
    }
}

fn body(failed: &Failed, hidden: &Hidden) -> BodyPreview {
    let Some(body) = &failed.body else {
        let bytes = failed.body_bytes.unwrap_or(0);
        let why = if bytes > 0 { "it is too large to be kept" } else { "it was not read: the head was refused" };
        return redact::withheld(bytes, None, why);
    };
    let is_credential = matches!(failed.source.scheme.credential_place(), Some(CredentialPlace::Json(_)));
    if is_credential || has_secret(failed, body) {
        let digest = (!is_credential).then(|| encode_hex(&Sha256::digest(&**body)));
        return redact::withheld(body.len(), digest, "there is a credential in it");
    }
    redact::shortened(redact::preview(body, &hidden.pointers, true), BODY_BYTES_MAX)
}

/// Whether one of the source's secrets is in there as it is, or the token of the path.
fn has_secret(failed: &Failed, bytes: &[u8]) -> bool {
    let keys = failed.source.keyring.keys().iter().map(|key| key.key.expose());
    let shown = failed.seen().token.map(str::as_bytes);
    keys.chain(shown).any(|secret| !secret.is_empty() && bytes.windows(secret.len()).any(|part| part == secret))
}

/// Of a long value the length and the beginning, of a short one the length.
fn masked(value: &[u8]) -> String {
    let length = value.len();
    if length < BEGINNING_OF {
        return format!("{length} bytes");
    }
    format!("{}… {length} bytes", value[..BEGINNING].escape_ascii())
}

fn cut(text: &str, bytes_max: usize) -> String {
    let kept = &text[..text.floor_char_boundary(bytes_max)];
    if kept.len() < text.len() { format!("{kept}…") } else { kept.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_secret_a_short_beginning_is_shown_at_most() {
        assert_eq!(masked(b"sha256=0123456789abcdef0123"), "sha256… 27 bytes");
        assert_eq!(masked(b"a-short-credential"), "18 bytes");
        assert_eq!(masked(&[0xff; 30]), r"\xff\xff\xff\xff\xff\xff… 30 bytes");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("grüße", 3), "gr…");
        assert_eq!(cut("grüße", 7), "grüße");
    }
}
