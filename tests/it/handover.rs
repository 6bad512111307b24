//! One process ends and the next one takes over: sockets, store, and what the service manager is told. Real processes,
//! with this test as the service manager.

mod activation;
mod drain;
mod load;
mod lock;
mod words;

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use hookward::time::Clock;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{
    running::{Running, hookward, hookward_under},
    world::{Reply, Upstream, read_reply, sign, within},
};

const SECRET: &str = "a-secret-of-some-length";
const PATH: &str = "/hooks/orders";

/// What outlives every process: the configuration, the data and an upstream that keeps all it gets.
struct Site {
    directory: TempDir,
    upstream: Upstream,
}

impl Site {
    async fn new() -> Self {
        Self { directory: TempDir::new().expect("a directory"), upstream: Upstream::start().await }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A configuration with this in `[server]`.
    fn configured(&self, server: &str) -> PathBuf {
        self.configured_as(server, "127.0.0.1:0", "")
    }

    /// A configuration with this in `[server]`, this as `admin.listen`, and this at the source.
    fn configured_as(&self, server: &str, admin: &str, source: &str) -> PathBuf {
        let text = format!(
            "[server]\n{server}\n[admin]\nlisten = \"{admin}\"\n[store]\npath = \"data\"\n\
             [sources.orders]\nprovider = \"partssource\"\nsecrets = [{{ value = \"{SECRET}\" }}]\n{source}\n\
             upstream = \"up\"\n[upstreams.up]\nurl = \"{}\"\n",
            self.upstream.url()
        );
        let file = self.path().join("hookward.toml");
        std::fs::write(&file, text).expect("there is room for a file");
        file
    }

    /// Starts `hookward serve`; it may not be up yet.
    fn start(&self, mut command: Command, configuration: &Path) -> Running {
        Running::start(command.args(["serve", "-c"]).arg(configuration).current_dir(self.path()))
    }

    /// The bodies that the upstream received, sorted.
    fn received(&self) -> Vec<String> {
        let mut bodies: Vec<_> =
            self.upstream.received().iter().map(|one| String::from_utf8_lossy(&one.body).into_owned()).collect();
        bodies.sort();
        bodies
    }
}

/// The binary with a socket passed to it, as a service manager does.
fn with_socket(socket: impl Into<OwnedFd>, names: &str) -> Command {
    // Its standard input becomes the first descriptor behind standard error.
    const PASS: &str = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"";
    let mut command = hookward_under("sh", &["-c", PASS]);
    command.stdin(Stdio::from(socket.into())).env("LISTEN_FDNAMES", names);
    command
}

/// A socket that this test holds for the processes that come and go, and its address.
fn held_socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    (socket, address)
}

fn passed(socket: &TcpListener) -> Command {
    with_socket(socket.try_clone().expect("a second handle"), "web")
}

/// Waits until it listens; returns the address of a listener, `public` or `admin`.
fn listens(process: &Running, listener: &str) -> String {
    let line = process.line_with(&format!("listening listener={listener} "));
    line.split("address=").nth(1).expect("an address").trim().to_owned()
}

/// A signed webhook, as bytes.
fn webhook(body: &str) -> Vec<u8> {
    let now_s = Clock::system().wall().unix_s();
    let mut text = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in sign("partssource", SECRET, body.as_bytes(), now_s) {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    format!("{text}\r\n{body}").into_bytes()
}

async fn send(to: SocketAddr, body: &str) -> Reply {
    crate::world::raw(to, &webhook(body)).await
}

async fn connected(to: SocketAddr) -> TcpStream {
    within("a connection", TcpStream::connect(to)).await.expect("it listens")
}

async fn reply_on(stream: &mut TcpStream) -> Reply {
    within("an answer", read_reply(stream)).await
}
