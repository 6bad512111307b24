//! The course of one connection: what has happened on it, and from that when and why it is over. Pure: it is told the
//! time. [`Deadlined`](super::deadlined::Deadlined) tells it of bytes, the service of requests and answers, and the
//! connection asks it when to look again.
//!
//! It bounds what hyper and h2 leave open. A kept-alive connection may be silent for `idle_timeout`, but a head that
//! has begun must end within `header_timeout`, and a new connection must begin at once. An answer is read within 30 s
//! and what its size adds at 4 KiB/s, on a connection of HTTP/1.1 by the bytes that are written, on one of HTTP/2 by
//! each stream, since one that never opens its window holds up nothing else.
//!
//! **Floods.** Whatever comes has to be explained by requests: a connection has a credit of bytes. Every byte that
//! comes takes one of it, and a read takes at least 64. Body bytes that somebody has read give back what they took, the
//! head of their frame, and what a read took beyond its bytes, so that an upload of any size pays for itself, in however
//! small pieces, and for nothing else; an answer gives what a request may cost beside it, its head and a window of a body
//! that was refused. What nothing explains (frames that ask for nothing, padding, bodies of streams that are closed,
//! requests that are taken back at once) ends the connection when the credit is spent. The credit that a connection
//! begins with, and can never have more than, is 1.5 MiB: more than may be under way without an answer, the window of the
//! connection and 32 heads, and more than a head costs that comes byte by byte.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    connection::{HEAD_BYTES_MAX, STREAMS_MAX},
    ended::Ended,
    frames::Frames,
};
use crate::config::memory::{HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_STREAM_WINDOW_BYTES};

/// For the first byte of a new connection.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may refuse to read an answer, and how fast it must read it then, in bytes per second.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const WRITE_RATE_MIN: u64 = 4 << 10;
/// A connection that was told to end: without a request, and in any case.
const LEAVE_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
const LEAVE_TIMEOUT: Duration = Duration::from_mins(5);

/// One request of HTTP/2, beside its body: its head, and a window of a body that nobody reads.
const CREDIT_PER_ANSWER: i64 = (HEAD_BYTES_MAX + HTTP2_STREAM_WINDOW_BYTES) as i64;
const CREDIT_MAX: i64 = 3 << 19;
const _: () = assert!(CREDIT_MAX > (HTTP2_CONNECTION_WINDOW_BYTES + STREAMS_MAX * HEAD_BYTES_MAX) as i64);
const _: () = assert!(CREDIT_MAX > HEAD_BYTES_MAX as i64 * READ_COST_MIN);
/// What a read takes at least.
const READ_COST_MIN: i64 = 64;
/// What a frame of a body is, beside its bytes. (The head of a chunk is shorter.)
const FRAME_HEAD_BYTES: i64 = 9;

/// The bounds of a connection that are configured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) header_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) age_max: Duration,
    pub(super) requests_max: u64,
}

/// What has happened on a connection.
#[derive(Debug)]
pub(super) struct Course {
    bounds: Bounds,
    began: Instant,
    phase: Phase,
    in_service: u32,
    requests: u64,
    credit: i64,
    /// What short reads took beyond their bytes.
    beyond: i64,
    /// Since when something is written that the client has not taken yet, and how many bytes of it it has.
    writing: Option<(Instant, u64)>,
    http2: Option<Http2>,
    /// Why and since when it takes no more requests.
    leaving: Option<(Ended, Instant)>,
}

/// The course, for all who tell it something.
#[derive(Clone, Debug)]
pub(super) struct SharedCourse(Arc<Mutex<Course>>);

impl SharedCourse {
    pub(super) fn new(course: Course) -> Self {
        Self(Arc::new(Mutex::new(course)))
    }

    /// Tells it something, now, or asks it.
    pub(super) fn now<T>(&self, tell: impl FnOnce(&mut Course, Instant) -> T) -> T {
        tell(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), Instant::now())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing has come.
    New(Instant),
    /// Between two requests.
    Idle(Instant),
    /// A head has begun.
    Head(Instant),
    /// A request is in service. Its body has deadlines of its own.
    Busy,
}

#[derive(Debug)]
struct Http2 {
    coming: Frames,
    going: Frames,
    /// Answers that have begun and not ended: their stream, and since when.
    answers: Vec<(u32, Instant)>,
    /// Streams that the client took back last. The head of an answer may still be on its way out, and is all of it.
    taken_back: VecDeque<u32>,
    /// Since when a head is unfinished.
    head: Option<Instant>,
}

impl Course {
    /// A connection on which HTTP begins now.
    pub(super) fn new(bounds: Bounds, is_http2: bool, now: Instant) -> Self {
        let http2 = || Http2 {
            coming: Frames::from_client(),
            going: Frames::from_us(),
            answers: Vec::new(),
            taken_back: VecDeque::new(),
            head: None,
        };
        Self {
            bounds,
            began: now,
            phase: Phase::New(now),
            in_service: 0,
            requests: 0,
            credit: CREDIT_MAX,
            beyond: 0,
            writing: None,
            http2: is_http2.then(http2),
            leaving: None,
        }
    }

    /// These bytes came.
    pub(super) fn read(&mut self, bytes: &[u8], now: Instant) {
        let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let cost = length.max(READ_COST_MIN);
        self.credit -= cost;
        self.beyond += cost - length;
        let Some(http2) = &mut self.http2 else {
            if matches!(self.phase, Phase::New(_) | Phase::Idle(_)) {
                self.phase = Phase::Head(now);
            }
            return;
        };
        if matches!(self.phase, Phase::New(_)) {
            self.phase = Phase::Idle(now);
        }
        let Http2 { answers, taken_back, .. } = http2;
        http2.coming.pass(bytes, |frame| {
            if frame.resets_stream() {
                answers.retain(|(stream, _)| *stream != frame.stream);
                taken_back.truncate(STREAMS_MAX as usize - 1);
                taken_back.push_front(frame.stream);
            }
        });
        http2.head = http2.coming.is_within_head().then(|| http2.head.unwrap_or(now));
    }

    /// So many bytes of a body, as one frame, reached whoever reads it.
    pub(super) fn delivered(&mut self, bytes: usize, now: Instant) {
        // What is left of a body behind its answer is no head of another request.
        if self.in_service == 0 && self.http2.is_none() && matches!(self.phase, Phase::Head(_)) {
            self.phase = Phase::Idle(now);
        }
        let of_read = self.beyond.min(READ_COST_MIN);
        self.beyond -= of_read;
        self.earn(i64::try_from(bytes).unwrap_or(i64::MAX).saturating_add(FRAME_HEAD_BYTES + of_read));
    }

    fn earn(&mut self, credit: i64) {
        self.credit = self.credit.saturating_add(credit).min(CREDIT_MAX);
    }

    /// A request is in service.
    pub(super) fn asked(&mut self, now: Instant) {
        self.phase = Phase::Busy;
        self.in_service += 1;
        self.requests += 1;
        if self.requests >= self.bounds.requests_max {
            self.leave(Ended::Requests, now);
        } else if now >= self.began + self.bounds.age_max {
            self.leave(Ended::Age, now);
        }
    }

    /// A request is answered. Returns whether it is the last on this connection.
    pub(super) fn answered(&mut self, now: Instant) -> bool {
        self.earn(CREDIT_PER_ANSWER);
        self.served(now);
        self.leaving.is_some()
    }

    /// A request is out of service, answered or not.
    pub(super) fn served(&mut self, now: Instant) {
        self.in_service -= 1;
        if self.in_service == 0 {
            self.phase = Phase::Idle(now);
        }
    }

    /// No more requests on this connection.
    pub(super) fn leave(&mut self, why: Ended, now: Instant) {
        let leaving = self.leaving.get_or_insert((why, now));
        // A drain is no last answer: behind one the connection still has to linger.
        if leaving.0 == Ended::Drain {
            leaving.0 = why;
        }
    }

    /// Whether a head has begun.
    pub(super) fn begins(&self) -> bool {
        matches!(self.phase, Phase::Head(_))
    }

    /// Why it takes no more requests.
    pub(super) fn leaving(&self) -> Option<Ended> {
        self.leaving.map(|(why, _)| why)
    }

    /// The client took these bytes of what is written to it.
    pub(super) fn wrote(&mut self, bytes: &[u8], now: Instant) {
        self.writing.get_or_insert((now, 0)).1 += bytes.len() as u64;
        let Some(http2) = &mut self.http2 else { return };
        let Http2 { answers, taken_back, .. } = http2;
        http2.going.pass(bytes, |frame| {
            if frame.ends_stream() {
                answers.retain(|(stream, _)| *stream != frame.stream);
            } else if frame.is_head() && !taken_back.contains(&frame.stream) {
                answers.push((frame.stream, now));
            }
        });
    }

    /// The client takes nothing now of what is written to it.
    pub(super) fn blocked(&mut self, now: Instant) {
        self.writing.get_or_insert((now, 0));
    }

    /// The client took all that was written to it. On HTTP/1.1 that was an answer, and it rests from now on.
    pub(super) fn flushed(&mut self, now: Instant) {
        if let (Some(_), Phase::Idle(since), None) = (self.writing.take(), &mut self.phase, &self.http2) {
            *since = now;
        }
    }

    /// Whether its end waits for a client that may still be sending: a socket closed on unread bytes is reset, and
    /// the client may never see the last answer. Between two requests of HTTP/1.1 there is nothing to wait for.
    pub(super) fn lingers(&self) -> bool {
        let is_last = self.leaving().is_some_and(|why| why != Ended::Drain);
        self.http2.is_some() || is_last || !matches!(self.phase, Phase::Idle(_) | Phase::New(_))
    }

    /// Whether more came than its requests explain.
    pub(super) fn is_flooded(&self) -> bool {
        self.credit < 0
    }

    /// Looks at the time. `Err`: it is over now. `Ok`: when to look again, at the latest, if nothing happens. A
    /// connection of HTTP/2 that has been idle or open for too long begins to leave.
    pub(super) fn look(&mut self, now: Instant) -> Result<Instant, Ended> {
        if self.is_flooded() {
            return Err(Ended::Flood);
        }
        if self.http2.is_some() && self.leaving.is_none() {
            let idle = matches!(self.phase, Phase::Idle(since) if now >= since + self.bounds.idle_timeout);
            if idle || now >= self.began + self.bounds.age_max {
                self.leave(if idle { Ended::Idle } else { Ended::Age }, now);
            }
        }
        let (at, why) = self.bound(now);
        if now >= at { Err(why) } else { Ok(at) }
    }

    /// The next bound, of those that can be told now.
    fn bound(&self, now: Instant) -> (Instant, Ended) {
        let Bounds { header_timeout, idle_timeout, age_max, .. } = self.bounds;
        // What begins later is over later than this.
        let mut next = (now + idle_timeout.clamp(Duration::from_secs(1), WRITE_TIMEOUT), Ended::Idle);
        let mut bound = |at: Instant, why: Ended| {
            if at < next.0 {
                next = (at, why);
            }
        };
        match self.phase {
            Phase::New(since) => bound(since + FIRST_BYTE_TIMEOUT.min(idle_timeout), Ended::FirstByte),
            // On HTTP/2 the client is told first, and has a moment to leave.
            Phase::Idle(_) if self.http2.is_some() && self.leaving.is_some() => {}
            // Nor does anybody rest who is still reading an answer.
            Phase::Idle(_) if self.http2.is_none() && self.writing.is_some() => {}
            Phase::Idle(since) => bound(since + idle_timeout, Ended::Idle),
            Phase::Head(since) => bound(since + header_timeout, Ended::Head),
            Phase::Busy => {}
        }
        if let Some((since, taken)) = self.writing {
            bound(since + WRITE_TIMEOUT + Duration::from_secs(taken / WRITE_RATE_MIN), Ended::Write);
        }
        if let Some(http2) = &self.http2 {
            if let Some(since) = http2.head {
                bound(since + header_timeout, Ended::Head);
            }
            if let Some(since) = http2.answers.iter().map(|(_, since)| *since).min() {
                bound(since + WRITE_TIMEOUT, Ended::Write);
            }
            if self.leaving.is_none() {
                bound(self.began + age_max, Ended::Age);
            }
        }
        if let Some((why, since)) = self.leaving {
            bound(since + LEAVE_TIMEOUT, why);
            let is_answering = || self.http2.as_ref().is_some_and(|http2| !http2.answers.is_empty());
            if let Phase::Idle(idle) = self.phase
                && self.writing.is_none()
                && !is_answering()
            {
                bound(since.max(idle) + LEAVE_IDLE_TIMEOUT, why);
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        age_max: Duration::from_hours(1),
        requests_max: 1000,
    };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Looks whenever it asks for it, and returns when it was over, in seconds since `from`, and why.
    fn over(course: &mut Course, from: Instant, began: Instant) -> (u64, Ended) {
        let mut now = from;
        for _ in 0..1000 {
            match course.look(now) {
                Err(why) => return (now.duration_since(began).as_secs(), why),
                Ok(at) => {
                    assert!(at > now, "it would spin");
                    now = at;
                }
            }
        }
        panic!("never over: {course:?}");
    }

    fn http1() -> (Course, Instant) {
        let began = Instant::now();
        (Course::new(BOUNDS, false, began), began)
    }

    fn http2() -> (Course, Instant) {
        let began = Instant::now();
        let mut course = Course::new(BOUNDS, true, began);
        course.read(crate::http::frames::PREFACE, began);
        (course, began)
    }

    /// A whole window of a body.
    /// Frames of 16 KiB that fill the window of a stream.
    const FRAMES: usize = HTTP2_STREAM_WINDOW_BYTES as usize >> 14;

    fn window() -> Vec<u8> {
        [&[0, 0x40, 0, 0, 0, 0, 0, 0, 1][..], &[0; 16 << 10]].concat().repeat(FRAMES)
    }

    /// A frame, filled with zeros.
    fn frame(length: u8, kind: u8, flags: u8, stream: u8) -> Vec<u8> {
        [&[0, 0, length, kind, flags, 0, 0, 0, stream][..], &vec![0; length.into()]].concat()
    }

    #[test]
    fn a_new_connection_says_something_within_five_seconds() {
        let (mut course, began) = http1();
        assert_eq!(over(&mut course, began, began), (5, Ended::FirstByte));
    }

    #[test]
    fn a_head_has_ten_seconds_however_it_comes() {
        let (mut course, began) = http1();
        for second in 0..10 {
            course.read(b"x", began + s(second));
        }
        assert_eq!(over(&mut course, began + s(9), began), (10, Ended::Head));
    }

    #[test]
    fn between_two_requests_a_connection_may_rest() {
        let (mut course, began) = http1();
        course.read(b"GET", began);
        course.asked(began + s(1));
        assert_eq!(
            course.look(began + s(200)).map(drop),
            Ok(()),
            "its body and its answer have deadlines of their own"
        );
        assert!(!course.answered(began + s(200)));
        assert_eq!(over(&mut course, began + s(200), began), (275, Ended::Idle));
    }

    #[test]
    fn an_answer_is_read_in_thirty_seconds_or_at_a_rate() {
        let (mut trickle, began) = http1();
        trickle.blocked(began);
        for second in 0..60 {
            trickle.wrote(b"x", began + s(second));
        }
        assert_eq!(over(&mut trickle, began, began), (5, Ended::FirstByte), "only what nobody asked for ends before");
        trickle.asked(began);
        assert_eq!(over(&mut trickle, began, began), (30, Ended::Write));
        let (mut steady, began) = http1();
        steady.asked(began);
        for second in 0..600 {
            steady.wrote(&[b'x'; 4 << 10], began + s(second));
            assert!(steady.look(began + s(second)).is_ok(), "after {second} s");
        }
        steady.flushed(began + s(600));
        assert!(steady.look(began + s(10_000)).is_ok(), "nothing is written any more");
    }

    #[test]
    fn an_old_connection_of_http_1_ends_with_its_next_answer() {
        for (requests, age, why) in [(1, 3600, Ended::Age), (1000, 0, Ended::Requests)] {
            let (mut course, began) = http1();
            let at = began + s(age);
            for request in 1..=requests {
                course.asked(at);
                assert_eq!(course.answered(at), request == requests, "{why:?}");
            }
            assert_eq!(course.leaving(), Some(why));
            assert!(course.lingers());
        }
        let (mut course, began) = http1();
        course.asked(began + s(3599));
        assert!(!course.answered(began + s(3599)), "not yet");
        assert!(course.look(began + s(3650)).is_ok() && course.leaving().is_none(), "never between two requests");
    }

    #[test]
    fn an_idle_or_old_connection_of_http_2_is_told_to_leave_and_then_cut() {
        let (mut course, began) = http2();
        assert_eq!(over(&mut course, began, began), (80, Ended::Idle));
        let (mut course, began) = http2();
        course.asked(began);
        assert_eq!(over(&mut course, began, began), (3600 + 300, Ended::Age), "while a request never ends");
        let (mut course, began) = http2();
        course.asked(began);
        let late = began + s(3600);
        assert!(course.look(late).is_ok() && course.leaving() == Some(Ended::Age));
        course.answered(late + s(60));
        assert_eq!(over(&mut course, late + s(60), late), (65, Ended::Age), "its answer gets out");
    }

    #[test]
    fn a_head_of_http_2_has_ten_seconds_even_beside_other_requests() {
        let (mut course, began) = http2();
        course.asked(began);
        // The head of a request without its end, and a frame that goes on with it every second.
        course.read(&frame(1, 1, 0, 3), began);
        for second in 1..10 {
            course.read(&frame(1, 9, 0, 3), began + s(second));
        }
        assert_eq!(over(&mut course, began + s(9), began), (10, Ended::Head));
        let began = Instant::now();
        let mut preface = Course::new(BOUNDS, true, began);
        preface.read(b"PRI *", began);
        assert_eq!(over(&mut preface, began, began), (10, Ended::Head));
    }

    #[test]
    fn an_answer_that_is_begun_and_never_read_ends_the_connection() {
        let (mut course, began) = http2();
        // Two answers begin, one ends; and other requests come and are answered all the time.
        for stream in [1, 3] {
            course.asked(began);
            course.wrote(&frame(5, 1, 4, stream), began);
            course.answered(began);
        }
        course.wrote(&frame(5, 0, 1, 3), began);
        course.flushed(began);
        for second in 1..30 {
            let now = began + s(second);
            course.asked(now);
            course.wrote(&frame(5, 1, 5, 5), now);
            course.flushed(now);
            course.answered(now);
            assert!(course.look(now).is_ok(), "after {second} s");
        }
        assert_eq!(course.look(began + s(30)), Err(Ended::Write));
        // A client that gives it up holds nothing.
        course.read(&frame(4, 3, 0, 1), began + s(30));
        assert!(course.look(began + s(30)).is_ok());
    }

    #[test]
    fn control_frames_without_requests_are_a_flood() {
        for kind in [4, 6, 8, 0xee] {
            let (mut course, began) = http2();
            let (many, mut sent) = (frame(8, kind, 0, 0).repeat(900), 0);
            while course.look(began).is_ok() {
                course.read(&many, began);
                sent += many.len();
            }
            assert_eq!(course.look(began), Err(Ended::Flood));
            let max = usize::try_from(CREDIT_MAX).expect("above zero");
            assert!((max..max + 2 * many.len()).contains(&sent), "{sent}");
        }
    }

    #[test]
    fn tiny_reads_are_dear() {
        let (mut course, began) = http2();
        let reads = (1..100_000).find(|_| {
            course.read(b"\0", began);
            course.is_flooded()
        });
        assert!(reads.is_some_and(|reads| reads < 30_000), "{reads:?}");
    }

    #[test]
    fn requests_that_are_taken_back_are_a_flood_and_those_that_are_answered_are_not() {
        let head = [frame(30, 1, 5, 1), frame(4, 3, 0, 1)].concat();
        for (answered, over) in [(true, false), (false, true)] {
            let (mut course, began) = http2();
            course.bounds.requests_max = u64::MAX;
            for _ in 0..100_000 {
                course.read(&head, began);
                course.asked(began);
                if answered {
                    course.answered(began);
                } else {
                    course.served(began);
                }
            }
            assert_eq!(course.is_flooded(), over);
        }
    }

    #[test]
    fn uploads_of_any_size_explain_themselves() {
        let (mut course, began) = http2();
        // As many as there may be at a time, of 25 MiB each, whose windows are always full of what nobody has read.
        for stream in 0..32 {
            course.asked(began);
            course.read(&frame(255, 1, 4, 2 * stream + 1).repeat(60), began);
        }
        let window = window();
        course.read(&window, began);
        for _ in 0..32 * 100 {
            course.read(&window, began);
            (0..FRAMES).for_each(|_| course.delivered(16 << 10, began));
            assert!(!course.is_flooded());
        }
        // And one that comes byte by byte.
        for _ in 0..100_000 {
            course.read(&frame(1, 0, 0, 1), began);
            course.delivered(1, began);
        }
        assert!(!course.is_flooded());
    }

    #[test]
    fn a_body_explains_itself_and_no_other_frames() {
        for kind in [4, 6, 8, 0xee] {
            let (mut course, began) = http2();
            course.asked(began);
            // A little of a body in small frames, many of them to a read, beside as much of what asks for nothing.
            let (data, other) = (frame(1, 0, 0, 1).repeat(1000), frame(8, kind, 0, 0).repeat(500));
            let turns = (1..1000).find(|_| {
                course.read(&data, began);
                (0..1000).for_each(|_| course.delivered(1, began));
                course.read(&other, began);
                course.is_flooded()
            });
            let explained = CREDIT_MAX / i64::try_from(other.len()).expect("short");
            assert!(turns.is_some_and(|turns| (explained..explained + 3).contains(&turns)), "{turns:?}");
        }
    }

    #[test]
    fn an_answer_that_is_taken_back_on_its_way_holds_nothing() {
        let (mut course, began) = http2();
        course.asked(began);
        course.answered(began);
        // Its head was about to leave when the client took the request back; its body never does.
        course.read(&frame(4, 3, 0, 1), began);
        course.wrote(&frame(5, 1, 4, 1), began);
        course.flushed(began);
        assert!(course.look(began + s(60)).is_ok());
        // A later one counts.
        course.asked(began);
        course.wrote(&frame(5, 1, 4, 3), began);
        course.answered(began);
        assert_eq!(course.look(began + s(30)), Err(Ended::Write));
    }

    #[test]
    fn refused_uploads_are_no_flood() {
        let ((mut course, began), window) = (http2(), window());
        for _ in 0..500 {
            course.read(&window, began);
            course.asked(began);
            course.answered(began);
        }
        assert!(!course.is_flooded());
    }

    #[test]
    fn nobody_saves_up_for_a_flood() {
        let (mut course, began) = http2();
        course.bounds.requests_max = u64::MAX;
        for _ in 0..100 {
            course.asked(began);
            course.answered(began);
        }
        let max = usize::try_from(CREDIT_MAX).expect("above zero");
        let (many, mut sent) = (frame(8, 6, 0, 0).repeat(900), 0);
        while !course.is_flooded() {
            course.read(&many, began);
            sent += many.len();
        }
        assert!((max..max + 2 * many.len()).contains(&sent), "{sent}");
    }
}
