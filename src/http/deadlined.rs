//! A stream that tells the course of its connection what goes by. And an end that lets a peer which is still sending
//! read what it was answered.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop,
    time::{Instant, Sleep, sleep_until},
};

use super::course::SharedCourse;

/// How long, and how much of it, is read of what a client still sends after its connection has ended. A socket
/// closed on unread bytes is reset, and a client, or a proxy in front, that is still sending then may never read
/// the answer. Apache looks for an answer only when all of a body is sent, so this is more than bodies usually have; what
/// is read is thrown away at once, and the time bounds it anyway.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 16 << 20;

/// So many bytes that are read count as one operation more. The runtime lets a task have 128 of them before others have
/// their turn, which would be a mebibyte and more: that many bytes of small frames take ten milliseconds.
const BYTES_PER_OPERATION: usize = 512;

/// A stream whose connection has deadlines.
#[derive(Debug)]
pub(super) struct Deadlined<S> {
    stream: S,
    /// What was read already, to find out what is spoken: it comes first.
    ahead: Vec<u8>,
    /// Operations that the bytes of the last read stand for.
    owed: usize,
    course: SharedCourse,
    /// When something was written last, unless the next request was waited for since: if it ends now, it ends with an
    /// answer.
    answered: Option<Instant>,
    /// The write side is shut: until when, and how many bytes, are still read.
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Deadlined<S> {
    pub(super) fn new(stream: S, ahead: Vec<u8>, course: SharedCourse) -> Self {
        Self { stream, ahead, owed: 0, course, answered: None, lingering: None }
    }

    /// What came is told of, and ends the connection if it is too much.
    fn tell_read(&self, bytes: &[u8]) -> io::Result<()> {
        let flooded = self.course.now(|course, now| {
            course.read(bytes, now);
            course.is_flooded()
        });
        if flooded { Err(io::Error::other("the client sent more than its requests explain")) } else { Ok(()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Deadlined<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.owed > 0 {
            ready!(coop::poll_proceed(cx)).made_progress();
            self.owed -= 1;
        }
        let before = buf.filled().len();
        if self.ahead.is_empty() {
            let polled = Pin::new(&mut self.stream).poll_read(cx, buf)?;
            if polled.is_pending() {
                self.answered = None;
            }
            ready!(polled);
        } else {
            let length = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..length]);
            self.ahead.drain(..length);
        }
        let came = &buf.filled()[before..];
        self.owed = came.len() / BYTES_PER_OPERATION;
        Poll::Ready(if came.is_empty() { Ok(()) } else { self.tell_read(came) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Deadlined<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf)?;
        let this = &mut *self;
        this.course.now(|course, now| match polled {
            Poll::Ready(taken) => {
                this.answered = Some(now);
                course.wrote(&buf[..taken], now);
            }
            Poll::Pending => course.blocked(now),
        });
        polled.map(Ok)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)?;
        let this = &mut *self;
        this.course.now(|course, now| match polled {
            Poll::Ready(taken) => {
                this.answered = Some(now);
                let mut left = taken;
                for buf in bufs {
                    let part = left.min(buf.len());
                    course.wrote(&buf[..part], now);
                    left -= part;
                }
            }
            Poll::Pending => course.blocked(now),
        });
        polled.map(Ok)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx)?;
        self.course.now(|course, now| match polled {
            Poll::Ready(()) => course.flushed(now),
            Poll::Pending => course.blocked(now),
        });
        polled.map(Ok)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            let polled = Pin::new(&mut this.stream).poll_shutdown(cx)?;
            let lingers = this.course.now(|course, now| {
                if polled.is_pending() {
                    course.blocked(now);
                }
                course.lingers()
            });
            ready!(polled);
            // Between two requests there is nothing to wait for. Behind the last answer there may be: a client that
            // sends more than it said, if only an empty line, would have its answer taken away by a reset.
            let just_answered = this.answered.is_some_and(|at| at + LINGER_TIME_MAX > Instant::now());
            if !lingers && !just_answered {
                return Poll::Ready(Ok(()));
            }
        }
        let deadline = || Box::pin(sleep_until(Instant::now() + LINGER_TIME_MAX));
        let (deadline, left) = this.lingering.get_or_insert_with(|| (deadline(), LINGER_BYTES_MAX));
        let mut space = [0; 8 << 10];
        while deadline.as_mut().poll(cx).is_pending() {
            // The rest of a flood is left where it is: it holds up its sender, and closing on it would reset.
            if *left == 0 {
                return Poll::Pending;
            }
            let mut discarded = ReadBuf::new(&mut space);
            match Pin::new(&mut this.stream).poll_read(cx, &mut discarded) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !discarded.filled().is_empty() => {
                    *left = left.saturating_sub(discarded.filled().len());
                }
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;
    use crate::http::{
        course::{Bounds, Course},
        ended::Ended,
    };

    /// A stream that is idle, or ends after an answer.
    fn deadlined(stream: tokio::io::DuplexStream, is_last: bool) -> Deadlined<tokio::io::DuplexStream> {
        let bounds = Bounds {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            age_max: Duration::from_hours(1),
            requests_max: 1000,
        };
        let mut course = Course::new(bounds, false, Instant::now());
        if is_last {
            course.leave(Ended::Done, Instant::now());
        }
        Deadlined::new(stream, Vec::new(), SharedCourse::new(course))
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_refused_client_still_sends_is_read_to_its_end() {
        let (mut client, server) = duplex(1024);
        let mut server = deadlined(server, true);
        let ending = tokio::spawn(async move { server.shutdown().await.map(|()| server) });
        assert_eq!(client.read(&mut [0; 1]).await.expect("shut"), 0, "the end is seen before all is sent");
        // Far more than fits: it goes through because it is read.
        client.write_all(&vec![b'x'; 100_000]).await.expect("taken");
        drop(client);
        let began = Instant::now();
        ending.await.expect("no panic").expect("shut");
        assert_eq!(began.elapsed(), Duration::ZERO, "nothing is waited for after its end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_read_to_a_limit_and_for_a_second() {
        let (mut client, server) = duplex(1024);
        let mut server = deadlined(server, true);
        let flood = tokio::spawn(async move {
            let mut sent = 0;
            while let Ok(written) = client.write(&[b'x'; 1024]).await {
                sent += written;
            }
            sent
        });
        let began = Instant::now();
        server.shutdown().await.expect("shut");
        assert!(began.elapsed() >= LINGER_TIME_MAX && began.elapsed() < LINGER_TIME_MAX * 2);
        drop(server);
        let sent = flood.await.expect("no panic");
        assert!((LINGER_BYTES_MAX..LINGER_BYTES_MAX + (16 << 10)).contains(&sent), "{sent}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_at_once() {
        let (_client, server) = duplex(1024);
        let began = Instant::now();
        deadlined(server, false).shutdown().await.expect("shut");
        assert_eq!(began.elapsed(), Duration::ZERO);
        let (_client, server) = duplex(1024);
        let mut server = deadlined(server, false);
        server.write_all(b"an answer").await.expect("written");
        assert!(server.read(&mut [0; 1]).now_or_never().is_none(), "it waits for the next request");
        server.shutdown().await.expect("shut");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_behind_the_last_answer_is_read() {
        let (mut client, server) = duplex(1024);
        let mut server = deadlined(server, false);
        server.write_all(b"an answer").await.expect("written");
        let ending = tokio::spawn(async move { server.shutdown().await.map(|()| server) });
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("shut");
        assert_eq!(answer, b"an answer");
        client.write_all(b"\r\n").await.expect("taken");
        drop(client);
        ending.await.expect("no panic").expect("shut");
    }

    #[tokio::test]
    async fn a_client_that_sends_much_lets_others_have_their_turn() {
        const SENT: usize = 1 << 20;
        let (mut client, server) = duplex(SENT);
        let mut server = deadlined(server, false);
        client.write_all(&vec![b'x'; SENT]).await.expect("taken");
        let (mut space, mut left) = (vec![0; 16 << 10], SENT);
        while left > 0 {
            let turn = poll_fn(|cx| {
                let before = left;
                while left > 0 {
                    let mut buf = ReadBuf::new(&mut space);
                    if Pin::new(&mut server).poll_read(cx, &mut buf)?.is_pending() {
                        break;
                    }
                    left -= buf.filled().len();
                }
                Poll::Ready(io::Result::Ok(before - left))
            });
            let read = turn.await.expect("it goes on");
            assert!((1..=80 << 10).contains(&read), "{read} bytes in one turn");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_was_read_ahead_comes_first() {
        let (mut client, server) = duplex(1024);
        let mut server = deadlined(server, false);
        server.ahead = b"GET /".to_vec();
        client.write_all(b"livez").await.expect("taken");
        drop(client);
        let mut read = String::new();
        server.read_to_string(&mut read).await.expect("text");
        assert_eq!(read, "GET /livez");
    }
}
