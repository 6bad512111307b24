//! The program as a child process.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child as Process, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::load::SECRET;
use crate::world::within;

/// The data and the configuration, which outlive every process.
pub(super) struct Home {
    directory: TempDir,
}

impl Home {
    pub(super) fn new() -> Self {
        Self { directory: TempDir::new().expect("a directory") }
    }

    /// Writes the configuration for an upstream.
    fn config(&self, upstream: &str) -> PathBuf {
        let source = |name: &str, mode: &str| {
            format!(
                "[sources.{name}]\nprovider = \"partssource\"\nsecrets = [{{ value = \"{SECRET}-{name}\" }}]\n\
                 upstream = \"up\"\nmode = \"{mode}\"\n"
            )
        };
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"100ms\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [log]\nformat = \"json\"\n[store]\npath = \"data\"\n\
             [upstreams.up]\nurl = \"{upstream}\"\n\
             retry = {{ first = \"20ms\", factor = 1.0, max = \"100ms\" }}\nbreaker = {{ failures = 10000 }}\n{}{}",
            source("queue", "queue"),
            source("respond", "respond"),
        );
        let path = self.directory.path().join("hookward.toml");
        fs::write(&path, text).expect("the configuration is written");
        path
    }
}

/// A gateway that runs. It is killed when dropped.
pub(super) struct Child {
    process: Process,
    pub(super) public: SocketAddr,
    pub(super) admin: SocketAddr,
    log: Arc<Mutex<Log>>,
}

/// The last lines, and all that a person would have to look at.
#[derive(Default)]
struct Log {
    last: VecDeque<String>,
    errors: Vec<String>,
}

impl Child {
    /// Starts it on the data of `home`; returns when it listens.
    pub(super) async fn start(home: &Home, upstream: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_hookward"))
            .args(["serve", "-c"])
            .arg(home.config(upstream))
            .current_dir(home.directory.path())
            .env_remove("HOOKWARD_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it can be run");
        let stderr = process.stderr.take().expect("it is piped");
        let (tell, mut told) = mpsc::unbounded_channel();
        let log: Arc<Mutex<Log>> = Arc::default();
        let followed = log.clone();
        std::thread::spawn(move || follow(stderr, &tell, &followed));
        // A value before it listens, so that the process is ended whatever comes.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut child = Self { process, public: nowhere, admin: nowhere, log };
        while child.public == nowhere || child.admin == nowhere {
            match within("the gateway to listen", told.recv()).await {
                Some((listener, address)) if listener == "public" => child.public = address,
                Some((_, address)) => child.admin = address,
                None => panic!("it ended:\n{}", child.log.lock().expect("no panic").last.make_contiguous().join("\n")),
            }
        }
        child
    }

    /// SIGKILL.
    pub(super) async fn kill(mut self) {
        self.process.kill().expect("it runs");
        self.end().await;
        self.assert_no_errors();
    }

    /// SIGTERM: drained, with exit code 0.
    pub(super) async fn terminate(mut self) {
        // The standard library sends no signal but SIGKILL; every shell does.
        let sent = Command::new("sh").args(["-c", "kill -TERM \"$0\""]).arg(self.process.id().to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "the signal is sent");
        let status = self.end().await;
        assert_eq!(status.code(), Some(0), "{status}");
        self.assert_no_errors();
    }

    async fn end(&mut self) -> ExitStatus {
        within("the gateway to end", async {
            loop {
                if let Some(status) = self.process.try_wait().expect("it is our child") {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
    }

    fn assert_no_errors(&self) {
        let log = self.log.lock().expect("no panic");
        assert!(log.errors.is_empty(), "{}", log.errors.join("\n"));
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads the log to its end, so that the pipe never fills up, and tells where the gateway listens.
fn follow(stderr: ChildStderr, tell: &mpsc::UnboundedSender<(String, SocketAddr)>, log: &Mutex<Log>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let field = |name: &str| value[name].as_str();
        if field("message") == Some("listening")
            && let (Some(listener), Some(Ok(address))) = (field("listener"), field("address").map(str::parse))
        {
            let _ = tell.send((listener.to_owned(), address));
        }
        let mut log = log.lock().expect("no panic");
        if field("level") == Some("ERROR") {
            log.errors.push(line.clone());
        }
        if log.last.len() == 20 {
            log.last.pop_front();
        }
        log.last.push_back(line);
    }
}
