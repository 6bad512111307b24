//! The body of a request, which tells its connection what somebody has read of it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::course::SharedCourse;

/// What a client sends, as hyper reads it.
#[derive(Debug)]
pub struct ClientBody {
    incoming: Incoming,
    course: SharedCourse,
}

impl ClientBody {
    pub(super) fn new(incoming: Incoming, course: SharedCourse) -> Self {
        Self { incoming, course }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.course.now(|course, now| course.delivered(data.len(), now));
        }
        Poll::Ready(frame)
    }
    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
