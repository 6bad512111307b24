//! An upstream that reads strictly: it notes every byte that two servers could read in two ways, and answers each request
//! with the body that it read. So an answer shows which request it belongs to.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// What no request of ours may have.
    pub(super) complaints: Vec<String>,
}

/// The upstream.
#[derive(Clone)]
pub(super) struct Recorder {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let recorder = Self { address: listener.local_addr().expect("an address"), seen: Arc::default() };
        let seen = recorder.seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, seen.clone()));
            }
        });
        recorder
    }

    /// What came since the last time, oldest first.
    pub(super) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().expect("not poisoned"))
    }
}

async fn serve(mut stream: TcpStream, all: Arc<Mutex<Vec<Seen>>>) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                if !buffer.is_empty() {
                    note(&all, Seen { complaints: vec![format!("{buffer:?} is no request")], ..Seen::default() });
                }
                return Ok(());
            }
        };
        let mut seen = head(&buffer[..end]);
        buffer.drain(..end + 4);
        let value = |name: &str| seen.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
        let length = value("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        if value("transfer-encoding").is_some() {
            seen.complaints.push("transfer-encoding".to_owned());
            // A proxy between us may have chosen it.
            loop {
                let line = loop {
                    if let Some(at) = buffer.windows(2).position(|window| window == b"\r\n") {
                        break at;
                    }
                    more(&mut stream, &mut buffer).await?;
                };
                let size = String::from_utf8_lossy(&buffer[..line]).into_owned();
                let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
                while buffer.len() < line + 2 + size + 2 {
                    more(&mut stream, &mut buffer).await?;
                }
                seen.body.extend_from_slice(&buffer[line + 2..line + 2 + size]);
                buffer.drain(..line + 2 + size + 2);
                if size == 0 {
                    break;
                }
            }
        } else {
            while buffer.len() < length {
                more(&mut stream, &mut buffer).await?;
            }
            seen.body = buffer.drain(..length).collect();
        }
        let body = seen.body.clone();
        note(&all, seen);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    }
}

fn note(all: &Mutex<Vec<Seen>>, seen: Seen) {
    all.lock().expect("not poisoned").push(seen);
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    if stream.read_buf(buffer).await? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// The request line and the headers, without the empty line.
fn head(bytes: &[u8]) -> Seen {
    let mut seen = Seen::default();
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    if !matches!(first.split(' ').collect::<Vec<_>>()[..], ["POST", "/in", "HTTP/1.1"]) {
        seen.complaints.push(format!("the request line is {first:?}"));
    }
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap_or((line, "\n"));
        // Of the characters of a token all but the underscore.
        let is_token = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-!#$%&'*+.^`|~".contains(&byte));
        let is_text = value.chars().all(|c| c == '\t' || !c.is_control() || c > '\u{7f}');
        if !is_token || !is_text || value != value.trim_ascii() {
            seen.complaints.push(format!("the header line {line:?}"));
        }
        seen.headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    for (name, least) in [("content-length", 1), ("host", 1), ("connection", 0), ("expect", 0), ("upgrade", 0)] {
        let count = seen.headers.iter().filter(|(other, _)| other == name).count();
        if count != least {
            seen.complaints.push(format!("{count} times {name}"));
        }
    }
    seen
}
