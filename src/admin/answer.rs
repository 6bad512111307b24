//! Answers: JSON, and problems that say what to do.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

use super::api::ProblemDocument;

pub(super) type Answer = Response<Full<Bytes>>;

/// A refusal or a failure, on its way to become the answer.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    help: String,
    header: Option<(HeaderName, &'static str)>,
}

impl Problem {
    /// `code` is stable, `detail` says what is wrong, `help` what to do.
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { status, code, detail: detail.into(), help: help.into(), header: None }
    }
    pub(super) fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }
    pub(super) const fn code(&self) -> &'static str {
        self.code
    }
    pub(super) fn into_answer(self) -> Answer {
        let document = ProblemDocument {
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail,
            help: self.help,
        };
        let mut answer = json(self.status, &document);
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some((name, value)) = self.header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(value).expect("the types of the API have string keys and no failing Serialize");
    let mut answer = bytes(text, HeaderValue::from_static("application/json"));
    *answer.status_mut() = status;
    answer
}

pub(super) fn bytes(body: impl Into<Bytes>, content_type: HeaderValue) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type);
    answer
}
