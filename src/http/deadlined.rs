//! A stream with deadlines for what its peer does not do: the first byte, a head, the reading of an answer. And an end
//! that lets a peer which is still sending read what it was answered.
//!
//! hyper's own header timer also runs while a kept-alive connection is idle, so it cannot tell a slow head from
//! a balancer that keeps its connection warm. [`Deadlined`] tells them apart: idle until the first byte, then a
//! head until the service is called, then no read deadline (the body has its own) until the answer is ready.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::listener::ConnectionLimits;

/// How long a client may refuse to read an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) const IDLE: u8 = 0;
pub(super) const HEAD: u8 = 1;
pub(super) const BUSY: u8 = 2;
/// As `IDLE`, and the connection ends after this answer, maybe in the middle of a request.
pub(super) const LAST: u8 = 3;

/// How long, and how much of it, is read of what a client still sends after its connection has ended. A socket
/// closed on unread bytes is reset, and a client, or a proxy in front, that is still sending then may never read
/// the answer. Apache looks for an answer only when all of a body is sent, so this is more than bodies usually have; what
/// is read is thrown away at once, and the time bounds it anyway.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 16 << 20;

/// A stream with deadlines for what the peer does not do.
#[derive(Debug)]
pub(super) struct Deadlined<S> {
    stream: S,
    phase: Arc<AtomicU8>,
    limits: ConnectionLimits,
    /// The phase that the read timer was set for, and the timer.
    reading: (u8, Pin<Box<Sleep>>),
    writing: Option<Pin<Box<Sleep>>>,
    /// Nothing was waited for since something was written: if it ends now, it ends with an answer.
    answered: bool,
    /// The write side is shut: until when, and how many bytes, are still read.
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Deadlined<S> {
    pub(super) fn new(stream: S, phase: Arc<AtomicU8>, limits: ConnectionLimits) -> Self {
        // A new connection has as long for its first byte as a head has in all.
        let first = Instant::now() + limits.header_timeout.min(limits.idle_timeout);
        let reading = (IDLE, Box::pin(sleep_until(first)));
        Self { stream, phase, limits, reading, writing: None, answered: false, lingering: None }
    }

    /// Sets the read timer anew if the phase changed since.
    fn follow_phase(&mut self) -> u8 {
        let phase = self.phase.load(Relaxed);
        if phase != self.reading.0 {
            let timeout = if phase == HEAD { self.limits.header_timeout } else { self.limits.idle_timeout };
            self.reading.0 = phase;
            self.reading.1.as_mut().reset(Instant::now() + timeout);
        }
        phase
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Deadlined<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if let Poll::Ready(done) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            if buf.filled().len() > before {
                let _ = self.phase.compare_exchange(IDLE, HEAD, Relaxed, Relaxed);
                self.follow_phase();
            }
            return Poll::Ready(done);
        }
        self.answered = false;
        if self.follow_phase() == BUSY {
            return Poll::Pending;
        }
        ready!(self.reading.1.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client sent nothing in time")))
    }
}

impl<S: AsyncWrite + Unpin> Deadlined<S> {
    /// Fails a write that has been pending for too long.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.writing = None;
            self.answered = true;
            return polled;
        }
        let timer = self.writing.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_TIMEOUT)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not read its answer in time")))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Deadlined<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.bounded(cx, polled)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.bounded(cx, polled)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.bounded(cx, polled)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            // Between two requests there is nothing to wait for. Behind the last answer there may be: a client that
            // sends more than it said, if only an empty line, would have its answer taken away by a reset.
            if this.phase.load(Relaxed) == IDLE && !this.answered {
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
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn deadlined(stream: tokio::io::DuplexStream, phase: u8) -> Deadlined<tokio::io::DuplexStream> {
        let limits = ConnectionLimits {
            connections_max: 1,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
        };
        Deadlined::new(stream, Arc::new(AtomicU8::new(phase)), limits)
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_refused_client_still_sends_is_read_to_its_end() {
        let (mut client, server) = duplex(1024);
        let mut server = deadlined(server, LAST);
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
        let mut server = deadlined(server, LAST);
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
        let mut server = deadlined(server, IDLE);
        server.write_all(b"an answer").await.expect("written");
        assert!(server.read(&mut [0; 1]).now_or_never().is_none(), "it waits for the next request");
        server.shutdown().await.expect("shut");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_behind_the_last_answer_is_read() {
        let (mut client, server) = duplex(1024);
        let mut server = deadlined(server, IDLE);
        server.write_all(b"an answer").await.expect("written");
        let ending = tokio::spawn(async move { server.shutdown().await.map(|()| server) });
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("shut");
        assert_eq!(answer, b"an answer");
        client.write_all(b"\r\n").await.expect("taken");
        drop(client);
        ending.await.expect("no panic").expect("shut");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_byte_by_byte_has_one_deadline() {
        let (mut client, server) = duplex(1024);
        let mut server = deadlined(server, IDLE);
        let began = Instant::now();
        tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let error = server.read_to_end(&mut Vec::new()).await.expect_err("no end");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() <= Duration::from_secs(11), "{:?}", began.elapsed());
    }
}
