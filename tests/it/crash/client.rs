//! A client for which a gateway that vanishes is nothing special.

use std::{collections::HashMap, fmt::Write as _, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::world::Reply;

/// Sends one request and reads the answer to the end of the connection. `None` if there was no whole answer.
pub(crate) async fn post(stream: TcpStream, path: &str, headers: &[(String, String)], body: &[u8]) -> Option<Reply> {
    let length = body.len();
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    exchange(stream, &[head.as_bytes(), b"\r\n", body].concat()).await
}

/// Asks for something. `None` if there was no whole answer.
pub(crate) async fn get(from: SocketAddr, path: &str) -> Option<Reply> {
    let stream = TcpStream::connect(from).await.ok()?;
    exchange(stream, format!("GET {path} HTTP/1.1\r\nhost: {from}\r\nconnection: close\r\n\r\n").as_bytes()).await
}

async fn exchange(mut stream: TcpStream, request: &[u8]) -> Option<Reply> {
    stream.write_all(request).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Option<Reply> {
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..head_end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let headers: HashMap<_, _> = head.lines().skip(1).filter_map(pair).collect();
    let body = answer[head_end..].to_vec();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    (body.len() == length).then(|| Reply { status, head: head.to_owned(), headers, body })
}
