//! The program as a child process.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child as Process, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::mpsc;

use super::{client, site::Site};
use crate::world::within;

/// A gateway that runs. It is killed when dropped.
pub(crate) struct Child {
    process: Process,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    told: mpsc::UnboundedReceiver<(String, SocketAddr)>,
    log: Arc<Mutex<Log>>,
}

/// The last lines, and all that a person would have to look at.
#[derive(Default)]
struct Log {
    last: VecDeque<String>,
    errors: Vec<String>,
}

impl Child {
    /// Starts it on the data of `site`; returns when it listens.
    pub(crate) async fn start(site: &Site) -> Self {
        let mut child = Self::spawn(site, Command::new(env!("CARGO_BIN_EXE_hookward")));
        assert!(child.listens().await, "it ended:\n{}", child.log());
        child
    }

    /// Starts it by a command that ends in the program and lacks its arguments.
    pub(crate) fn spawn(site: &Site, mut command: Command) -> Self {
        let mut process = command
            .args(["serve", "-c"])
            .arg(site.configuration())
            .current_dir(site.path())
            .env_remove("HOOKWARD_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it can be run");
        let stderr = process.stderr.take().expect("it is piped");
        let (tell, told) = mpsc::unbounded_channel();
        let log: Arc<Mutex<Log>> = Arc::default();
        let followed = log.clone();
        std::thread::spawn(move || follow(stderr, &tell, &followed));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { process, public: nowhere, admin: nowhere, told, log }
    }

    /// Waits until it listens on both; `false` if it ended before.
    pub(crate) async fn listens(&mut self) -> bool {
        while self.public.port() == 0 || self.admin.port() == 0 {
            match within("the gateway to listen", self.told.recv()).await {
                Some((listener, address)) if listener == "public" => self.public = address,
                Some((_, address)) => self.admin = address,
                None => return false,
            }
        }
        true
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.process.kill().expect("it runs");
        self.ended().await;
        assert_eq!(self.errors(), "");
    }

    /// SIGTERM: drained, with exit code 0.
    pub(crate) async fn terminate(mut self) {
        self.ask_to_end();
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{status}\n{}", self.log());
        assert_eq!(self.errors(), "");
    }

    /// SIGTERM, which may come too late.
    pub(crate) fn ask_to_end(&self) {
        // The standard library sends no signal but SIGKILL; every shell does. Nobody but us reaps the process, so
        // that its number is its own.
        let kill = "kill -TERM \"$0\"";
        let sent = Command::new("sh").args(["-c", kill]).arg(self.id().to_string()).stderr(Stdio::null()).status();
        sent.expect("a shell");
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
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

    /// Waits until nothing is due or leased. `false` if it ended before.
    pub(crate) async fn settled(&self) -> bool {
        self.has_none_in(&["due", "leased"]).await
    }

    /// Waits until no delivery is in one of these states, for as long as they become fewer. `false` if it ended before.
    pub(crate) async fn has_none_in(&self, states: &[&str]) -> bool {
        let mut least = u64::MAX;
        while least > 0 {
            let fewer = within("more to be delivered", async {
                loop {
                    let status = client::get(self.admin, "/api/v1/status").await?.json();
                    let upstreams = status["upstreams"].as_array().expect("a list");
                    let open = upstreams.iter().flat_map(|row| states.iter().map(|state| row[*state].as_u64()));
                    let open = open.map(|count| count.expect("a count")).sum();
                    if open < least {
                        return Some(open);
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
            match fewer.await {
                Some(open) => least = open,
                None => return false,
            }
        }
        true
    }

    /// The lines of level ERROR.
    pub(crate) fn errors(&self) -> String {
        self.log.lock().expect("no panic").errors.join("\n")
    }

    /// The last lines.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no panic").last.make_contiguous().join("\n")
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
        if log.last.len() == 60 {
            log.last.pop_front();
        }
        log.last.push_back(line);
    }
}
