//! A client that sends bytes in pieces, and what comes back.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    task::yield_now,
};

use super::case::{Case, Expected};
use crate::world::within;

/// Asked on a connection that stays open. A probe is answered whatever else is the matter.
const PROBE: &[u8] = b"GET /livez HTTP/1.1\r\nhost: probe\r\n\r\n";

/// An answer as it came.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// With the status line.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> String {
        self.head.clone() + &String::from_utf8_lossy(&self.body)
    }
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &'_ str| line.split_once(':').is_some_and(|(other, _)| other.eq_ignore_ascii_case(name));
        self.head.lines().skip(1).find(|line| of(line)).and_then(|line| Some(line.split_once(':')?.1.trim()))
    }
}

/// How the connection ended, or did not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Another request was answered on it.
    Open,
    /// The other side closed it.
    Closed,
    /// Neither, and why.
    Broken(String),
}

/// A connection from its first byte to its last.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) answers: Vec<Answer>,
    pub(super) end: End,
}

impl Talk {
    /// How it differs from what the case says.
    pub(super) fn complaints(&self, case: &Case) -> Vec<String> {
        let mut complaints = Vec::new();
        let fit = |(expected, answer): (&Expected, &Answer)| expected.fits(answer);
        let left = case.answers.get(self.answers.len()..);
        if !left.is_some_and(are_optional) || !case.answers.iter().zip(&self.answers).all(fit) {
            let said: Vec<_> = self.answers.iter().map(Answer::text).collect();
            complaints.push(format!("answered {said:?}, not {:?}", case.answers));
        }
        let end = if case.stays_open { End::Open } else { End::Closed };
        if self.end != end {
            complaints.push(format!("then {:?}, not {end:?}", self.end));
        }
        complaints
    }
}

/// Writes piece after piece, each when the one before has been read: on a runtime of one thread everything that can run
/// has run, sockets included, when a task that yielded comes to its turn again. The reader is woken by the first turn and
/// has read by the second.
pub(super) async fn feed(stream: &mut (impl AsyncWrite + Unpin), pieces: &[&[u8]]) {
    for piece in pieces {
        // Whoever has answered may have closed.
        if stream.write_all(piece).await.is_err() {
            return;
        }
        for _ in 0..3 {
            yield_now().await;
        }
    }
}

/// Sends a case and reads what it says will come, then looks at the connection.
pub(super) async fn converse(stream: impl AsyncRead + AsyncWrite, pieces: &[&[u8]], case: &Case) -> Talk {
    let (reading, mut writing) = tokio::io::split(stream);
    let mut reading = Reading::new(reading);
    let sending = async {
        feed(&mut writing, pieces).await;
        if case.ends {
            let _ = writing.shutdown().await;
        }
    };
    let mut answers = Vec::new();
    let hearing = async {
        for expected in &case.answers {
            match reading.answer(expected.is_bare).await {
                Ok(Some(answer)) => answers.push(answer),
                Ok(None) => return End::Closed,
                Err(error) => return End::Broken(error.to_string()),
            }
        }
        if case.stays_open { End::Open } else { reading.end().await }
    };
    let end = tokio::select! {
        biased;
        // Whoever sees the end sends no more.
        end = async { tokio::pin!(hearing); tokio::select! {
            biased;
            () = sending => hearing.await,
            end = &mut hearing, if !case.stays_open => end,
        }} => end,
        () = silence() => End::Broken("silence".to_owned()),
    };
    let end = if end == End::Open { probe(&mut writing, &mut reading).await } else { end };
    Talk { answers, end }
}

async fn probe(writing: &mut (impl AsyncWrite + Unpin), reading: &mut Reading<impl AsyncRead + Unpin>) -> End {
    feed(writing, &[PROBE]).await;
    match within("the probe", reading.answer(false)).await {
        Ok(Some(answer)) if answer.status == 200 && answer.body == b"ok\n" => End::Open,
        Ok(None) => End::Closed,
        other => End::Broken(format!("{other:?} instead of the probe's answer")),
    }
}

fn are_optional(answers: &[Expected]) -> bool {
    answers.iter().all(|answer| answer.is_optional)
}

/// Nothing that works takes this long.
async fn silence() {
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
}

/// Reads answers, one after another.
pub(super) struct Reading<R> {
    stream: R,
    seen: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reading<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, seen: Vec::new() }
    }

    /// The next answer; `None` if the connection ends before it.
    pub(super) async fn answer(&mut self, is_bare: bool) -> io::Result<Option<Answer>> {
        let end = loop {
            if let Some(at) = self.seen.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await? {
                return if self.seen.is_empty() { Ok(None) } else { Err(cut()) };
            }
        };
        let head = String::from_utf8_lossy(&self.seen[..end]).into_owned();
        self.seen.drain(..end);
        let status = head.split(' ').nth(1).and_then(|status| status.get(..3)?.parse().ok()).ok_or_else(cut)?;
        let mut answer = Answer { status, head, body: Vec::new() };
        if is_bare || status < 200 || status == 204 || status == 304 {
            return Ok(Some(answer));
        }
        if answer.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.trim(), 16).map_err(|_| cut())?;
                answer.body.extend(self.exactly(size).await?);
                self.line().await?;
                if size == 0 {
                    return Ok(Some(answer));
                }
            }
        }
        answer.body = match answer.header("content-length").and_then(|value| value.parse().ok()) {
            Some(length) => self.exactly(length).await?,
            None => self.rest().await?,
        };
        Ok(Some(answer))
    }

    /// The end of the connection, if nothing comes before it.
    async fn end(&mut self) -> End {
        match self.rest().await {
            Ok(rest) if rest.is_empty() => End::Closed,
            Ok(rest) => End::Broken(format!("{:?} after the last answer", String::from_utf8_lossy(&rest))),
            Err(error) => End::Broken(error.to_string()),
        }
    }

    async fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.more().await? {}
        Ok(std::mem::take(&mut self.seen))
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.seen.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.seen.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.some().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.seen.len() < length {
            self.some().await?;
        }
        Ok(self.seen.drain(..length).collect())
    }

    async fn some(&mut self) -> io::Result<()> {
        if self.more().await? { Ok(()) } else { Err(cut()) }
    }

    async fn more(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.seen).await? > 0)
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut")
}
