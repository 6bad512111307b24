//! Real processes: the binary as a user runs it, on free ports, with the system's clock.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use hookward::time::Clock;
use tokio::time::Instant;

use crate::world::{request, within};

/// Long enough for a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks at something that changes by itself.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn now() -> Instant {
    Clock::system().monotonic()
}

/// The binary with nothing of this process' environment that it reads.
pub(crate) fn hookward() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookward"));
    for variable in ["COLUMNS", "HOOKWARD_ADMIN_URL", "HOOKWARD_ADMIN_TOKEN_FILE", "HOOKWARD_LOG"] {
        command.env_remove(variable);
    }
    command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command
}

/// The binary, run by another program: that program with these arguments, then the path of the binary.
pub(crate) fn hookward_under(program: &str, arguments: &[&str]) -> Command {
    let plain = hookward();
    let mut command = Command::new(program);
    command.args(arguments).arg(plain.get_program()).stdin(Stdio::null());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().expect("it can be started")
}

/// What it wrote to standard output, which is text.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// A process that goes on until it is told to end. What it writes to standard error is read as it comes. Whatever is done
/// to it, no secret of its configuration may be in what it wrote: that is looked for in every test.
pub(crate) struct Running {
    child: Child,
    configuration: Option<PathBuf>,
    secrets: RefCell<BTreeSet<String>>,
    lines: mpsc::Receiver<String>,
    seen: RefCell<Vec<String>>,
    stdout: Option<JoinHandle<String>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary can be started");
        let (tell, lines) = mpsc::channel();
        let errors = BufReader::new(child.stderr.take().expect("it is piped"));
        // Both go on reading to the end, so that no pipe fills up.
        thread::spawn(move || errors.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        let mut out = child.stdout.take().expect("it is piped");
        let stdout = thread::spawn(move || {
            let mut text = String::new();
            let _ = out.read_to_string(&mut text);
            text
        });
        let mut words = command.get_args().skip_while(|word| *word != "-c");
        let directory = command.get_current_dir().unwrap_or(Path::new("."));
        let configuration = words.nth(1).map(|file| directory.join(file));
        let secrets = RefCell::default();
        let running = Self { child, configuration, secrets, lines, seen: RefCell::default(), stdout: Some(stdout) };
        running.learn_secrets();
        running
    }

    /// Notes what is to be kept a secret now. A configuration may change while it runs.
    fn learn_secrets(&self) {
        let text = self.configuration.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let values = text.split("value = \"").skip(1).filter_map(|rest| rest.split('"').next());
        self.secrets.borrow_mut().extend(values.filter(|value| value.len() >= 16).map(str::to_owned));
    }

    /// Waits for a line of standard error that has this in it.
    pub(crate) fn line_with(&self, what: &str) -> String {
        let until = now() + PATIENCE;
        loop {
            let line = self.line_within(until.saturating_duration_since(now()));
            let Some(line) = line else { panic!("no line with {what:?} in:\n{}", self.seen()) };
            if line.contains(what) {
                return line;
            }
        }
    }

    fn line_within(&self, time: Duration) -> Option<String> {
        let line = self.lines.recv_timeout(time).ok()?;
        self.seen.borrow_mut().push(line.clone());
        Some(line)
    }

    fn seen(&self) -> String {
        self.seen.borrow().join("\n")
    }

    /// The id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end_status(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        self.child.wait().expect("it was started here")
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        self.learn_secrets();
        let id = self.child.id().to_string();
        let told = Command::new("kill").args(["-s", name, &id]).status().expect("kill is there");
        assert!(told.success(), "it had ended before:\n{}", self.seen());
    }

    /// Sends a signal and waits for the end. Returns the exit code, standard output and standard error.
    pub(crate) fn end(self, signal: &str) -> (Option<i32>, String, String) {
        self.signal(signal);
        self.ended()
    }

    /// Waits for the end. Returns the exit code, standard output and standard error.
    pub(crate) fn ended(mut self) -> (Option<i32>, String, String) {
        let code = self.child.wait().expect("it was started here").code();
        let stdout = self.stdout.take().expect("taken once").join().expect("it reads");
        self.seen.borrow_mut().extend(self.lines.iter());
        self.learn_secrets();
        let seen = self.seen();
        for secret in self.secrets.borrow().iter() {
            assert!(!stdout.contains(secret) && !seen.contains(secret), "{secret:?} is in what it wrote:\n{seen}");
        }
        (code, stdout, seen)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `hookward echo` on a free port.
pub(crate) fn echo(arguments: &[&str]) -> (Running, SocketAddr) {
    let echo = Running::start(hookward().args(["echo", "-l", "127.0.0.1:0"]).args(arguments));
    let line = echo.line_with("echo upstream on http://");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split(',').next()).map(str::parse);
    (echo, address.expect("an address").expect("an address"))
}

/// `hookward serve` with a configuration file in a directory, which holds its store, too.
pub(crate) struct Gateway {
    pub(crate) process: Running,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Gateway {
    /// The text names port 0 for both listeners and leaves the log at its text format.
    pub(crate) fn start(directory: &Path, configuration: &str) -> Self {
        Self::start_as(hookward(), directory, configuration)
    }

    /// As [`Gateway::start`], by a command that ends in the path of the binary.
    pub(crate) fn start_as(mut command: Command, directory: &Path, configuration: &str) -> Self {
        let file: PathBuf = directory.join("hookward.toml");
        std::fs::write(&file, configuration).expect("written");
        let process = Running::start(command.arg("serve").arg("-c").arg(&file).current_dir(directory));
        let address = |listener: &str| -> SocketAddr {
            let line = process.line_with(&format!("listening listener={listener} "));
            line.split("address=").nth(1).expect("an address").trim().parse().expect("an address")
        };
        let (public, admin) = (address("public"), address("admin"));
        Self { process, public, admin }
    }

    /// `hookward` with the address of this gateway.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        run(hookward().env("HOOKWARD_ADMIN_URL", format!("http://{}", self.admin)).args(arguments))
    }

    /// `hookward … --json`, which must succeed.
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.ask(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Waits until nothing is due or being delivered, and returns the status.
    pub(crate) fn settled(&self) -> serde_json::Value {
        let open = |upstream: &serde_json::Value| upstream["due"] != 0 || upstream["leased"] != 0;
        self.json_once(&["status"], |status| !status["upstreams"].as_array().expect("a list").iter().any(open))
    }

    /// Waits until what a command prints is so, and returns it.
    pub(crate) fn json_once(
        &self,
        arguments: &[&str],
        is_so: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let until = now() + PATIENCE;
        loop {
            let printed = self.json(arguments);
            if is_so(&printed) {
                return printed;
            }
            assert!(now() < until, "it stays like this: {printed:#}");
            // What changes something is a line of the log, as a rule; but which of them is the last, nobody knows.
            let _ = self.process.line_within(Duration::from_millis(100));
        }
    }

    /// Waits until readiness on the admin listener has this status, and returns the detail.
    pub(crate) async fn until_readiness(&self, status: u16) -> serde_json::Value {
        within("readiness to change", async {
            loop {
                let reply = request(self.admin, "GET", "/readyz", &[], b"").await;
                if reply.status == status {
                    return reply.json();
                }
                pause().await;
            }
        })
        .await
    }

    /// The id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits for a line of the log that has this in it.
    pub(crate) fn line_with(&self, what: &str) -> String {
        self.process.line_with(what)
    }

    /// SIGTERM. Returns the exit code and the log.
    pub(crate) fn end(self) -> (Option<i32>, String) {
        self.end_by("TERM")
    }

    /// Sends a signal and waits for the end. Returns the exit code and the log.
    pub(crate) fn end_by(self, signal: &str) -> (Option<i32>, String) {
        let (code, _, log) = self.process.end(signal);
        (code, log)
    }
}
