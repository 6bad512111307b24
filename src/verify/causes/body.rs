//! Bodies that were changed on the way.

use std::io::Read as _;

use http::header::CONTENT_ENCODING;

use super::{
    BODY_BYTES_MAX, CauseKind, Lab,
    rewrite::{Document, Rewriting},
};

const GZIP: &[u8] = b"\x1f\x8b";

impl Lab<'_> {
    /// A line end at the end that was lost, or added.
    pub(super) fn newline(&mut self, body: &[u8]) -> Option<CauseKind> {
        if !self.question.scheme.is_signed() {
            return None;
        }
        let trimmed = body.trim_ascii_end();
        if trimmed.len() < body.len() && self.with_body(trimmed) {
            return Some(CauseKind::BodyNewline { lost: false });
        }
        // Of `\r\n`, a part may be left.
        let (bare, ends) = match body.strip_suffix(b"\n") {
            Some(bare) => (bare.strip_suffix(b"\r").unwrap_or(bare), [&b"\r\n"[..], b"\n"]),
            None => (body, [&b"\n"[..], b"\r\n"]),
        };
        let longer = ends.iter().map(|end| [bare, end].concat()).filter(|other| other != body).collect::<Vec<_>>();
        longer.iter().any(|other| self.with_body(other)).then_some(CauseKind::BodyNewline { lost: true })
    }

    /// What is in a gzip body.
    pub(super) fn compressed(&mut self, body: &[u8]) -> Option<CauseKind> {
        if !self.question.scheme.is_signed() || !body.starts_with(GZIP) {
            return None;
        }
        let mut inside = Vec::new();
        let bound = BODY_BYTES_MAX as u64 + 1;
        flate2::read::GzDecoder::new(body).take(bound).read_to_end(&mut inside).ok()?;
        self.with_body(&inside).then_some(CauseKind::BodyCompressed)
    }

    /// A compression that is announced and not there.
    pub(super) fn decompressed(&self, body: &[u8]) -> Option<CauseKind> {
        let value = self.question.seen.headers.get(CONTENT_ENCODING)?.to_str().ok()?;
        let is_one = ["gzip", "x-gzip", "br", "deflate", "zstd"].iter().any(|known| value.eq_ignore_ascii_case(known));
        let is_text = !body.is_empty() && std::str::from_utf8(body).is_ok();
        (self.question.scheme.is_signed() && is_one && is_text).then_some(CauseKind::BodyDecompressed)
    }

    /// The same JSON in another writing.
    pub(super) fn rewritten(&mut self, body: &[u8], writings: &[Rewriting]) -> Option<CauseKind> {
        if !self.question.scheme.is_signed() {
            return None;
        }
        let document = Document::read(body)?;
        let mut last = Vec::new();
        for writing in writings {
            let Some(other) = document.write(*writing, BODY_BYTES_MAX) else { continue };
            if other == body || other == last {
                continue;
            }
            if self.with_body(&other) {
                return Some(CauseKind::BodyRewritten(*writing));
            }
            last = other;
        }
        None
    }
}
