//! An upstream on a real socket that does what a script says, byte by byte.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};

/// What the upstream does with one request.
#[derive(Clone)]
pub enum Act {
    /// Answers with this status and nothing else.
    Status(u16),
    /// Answers with these header lines and this body.
    Answer(u16, String, Vec<u8>),
    /// Answers 200 once a permit is there, and takes the permit.
    Wait(Arc<Semaphore>),
    /// Answers 200 after this long.
    After(Duration),
    /// Never answers.
    Hang,
    /// Resets the connection.
    Reset,
    /// Promises ten bytes of body, sends three, and closes.
    Cut,
    /// Writes this and closes.
    Raw(&'static [u8]),
}

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub struct Request {
    pub line: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(header, _)| header == name);
        let value = values.next().map(|(_, value)| std::str::from_utf8(value).expect("text"));
        assert!(values.next().is_none(), "{name} stands twice");
        value
    }
}

pub struct Scripted {
    pub address: SocketAddr,
    pub requests: mpsc::UnboundedReceiver<Request>,
}

type Script = Arc<Mutex<dyn FnMut(&Request) -> Act + Send>>;

impl Scripted {
    pub async fn start(script: impl FnMut(&Request) -> Act + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("an address");
        let (seen, requests) = mpsc::unbounded_channel();
        let script: Script = Arc::new(Mutex::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script.clone(), seen.clone()));
            }
        });
        Self { address, requests }
    }

    /// An upstream that follows the list, and then answers 200.
    pub async fn listing(acts: impl IntoIterator<Item = Act>) -> Self {
        let mut acts = acts.into_iter().collect::<Vec<_>>().into_iter();
        Self::start(move |_| acts.next().unwrap_or(Act::Status(200))).await
    }

    pub async fn next(&mut self) -> Request {
        super::soon(self.requests.recv()).await.expect("a request")
    }
}

async fn serve(mut stream: TcpStream, script: Script, seen: mpsc::UnboundedSender<Request>) {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer).await {
        let act = (script.lock().expect("not poisoned"))(&request);
        let _ = seen.send(request);
        let (status, headers, body) = match act {
            Act::Status(status) => (status, String::new(), Vec::new()),
            Act::Answer(status, headers, body) => (status, headers, body),
            Act::Wait(permits) => {
                permits.acquire().await.expect("open").forget();
                (200, String::new(), Vec::new())
            }
            Act::After(time) => {
                tokio::time::sleep(time).await;
                (200, String::new(), Vec::new())
            }
            Act::Hang => std::future::pending().await,
            Act::Reset => return stream.set_zero_linger().expect("a socket"),
            Act::Cut => return drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await),
            Act::Raw(bytes) => return drop(stream.write_all(bytes).await),
        };
        let head = format!("HTTP/1.1 {status} Scripted\r\n{headers}content-length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&body).await;
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        (stream.read_buf(buffer).await.ok()? > 0).then_some(())?;
    };
    let head = buffer[..end].to_vec();
    buffer.drain(..end + 4);
    let mut lines = head.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let line = String::from_utf8(lines.next()?.to_vec()).ok()?;
    let mut headers = Vec::new();
    for line in lines {
        let colon = line.iter().position(|b| *b == b':')?;
        let name = String::from_utf8(line[..colon].to_ascii_lowercase()).ok()?;
        headers.push((name, line[colon + 1..].trim_ascii().to_vec()));
    }
    let mut request = Request { line, headers, body: Vec::new() };
    let length: usize = request.header("content-length").expect("a length").parse().expect("a number");
    while buffer.len() < length {
        (stream.read_buf(buffer).await.ok()? > 0).then_some(())?;
    }
    request.body = buffer.drain(..length).collect();
    Some(request)
}
