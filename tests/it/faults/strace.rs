//! strace, which makes a system call of the gateway fail, or kills the gateway as it begins one.
//!
//! `when=N` counts in each thread for itself. The thread that opens the store is another one than the writer, so that
//! opening is tried from the first instruction on ([`around`]), and everything else in a gateway that is open already
//! ([`Strace::attach`]): there the writer alone syncs.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child as Process, Command, Stdio},
};

use tokio::sync::mpsc;

use crate::{
    crash::{child::Child, site::Site},
    world::within,
};

/// The calls that make something durable.
pub(super) const SYNCS: &str = "fdatasync,fsync";
/// A call that nothing here gets to.
pub(super) const NEVER: usize = 60_000;
const MISSING: &str = "strace is there: Debian's package of that name";

/// What is done at the N-th of these calls.
pub(super) fn inject(calls: &str, what: &str, n: usize) -> String {
    format!("inject={calls}:{what}:when={n}")
}

/// The program under strace from its first instruction on, for [`Child::spawn`]. The child is the program itself.
pub(super) fn around(site: &Site, injection: &str) -> Command {
    let mut command = Command::new("strace");
    let _ = fs::remove_file(log_of(site));
    command.args(["-D", "-f", "-qq", "-y", "-e", &format!("trace={SYNCS}"), "-e", injection, "-o"]);
    command.arg(log_of(site)).arg(env!("CARGO_BIN_EXE_hookward"));
    command
}

/// What strace saw in [`around`].
pub(super) fn calls_in(site: &Site) -> Vec<Call> {
    parse(&fs::read_to_string(log_of(site)).unwrap_or_default())
}

fn log_of(site: &Site) -> PathBuf {
    site.path().join("strace.log")
}

/// strace, at work on a gateway that runs.
pub(super) struct Strace {
    process: Process,
    log: PathBuf,
}

impl Strace {
    /// Traces `calls`, of the file at `path` if one is given, with an injection if there is one. Returns once every
    /// thread is watched.
    pub(super) async fn attach(
        child: &Child,
        site: &Site,
        calls: &str,
        path: Option<&Path>,
        injection: Option<&str>,
    ) -> Self {
        let log = log_of(site);
        let _ = fs::remove_file(&log);
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-e", &format!("trace={calls}"), "-p", &child.id().to_string(), "-o"]).arg(&log);
        if let Some(path) = path {
            command.arg("-P").arg(path);
        }
        if let Some(injection) = injection {
            command.args(["-e", injection]);
        }
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect(MISSING);
        let stderr = BufReader::new(process.stderr.take().expect("it is piped"));
        let strace = Self { process, log };
        let (tell, mut told) = mpsc::unbounded_channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        let mut said = Vec::new();
        while !said.iter().any(|line: &String| line.contains(" attached")) {
            let line = within("strace to attach", told.recv()).await;
            said.push(line.unwrap_or_else(|| panic!("strace cannot trace here:\n{}", said.join("\n"))));
        }
        strace
    }

    /// What it saw so far. A call is in here before it returns.
    pub(super) fn calls(&self) -> Vec<Call> {
        parse(&fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Whether a call failed because we wanted it to.
    pub(super) fn has_injected(&self) -> bool {
        self.calls().iter().any(Call::was_injected)
    }

    /// All that it saw: the gateway has ended, and strace with it.
    pub(super) fn end(mut self) -> Vec<Call> {
        self.process.wait().expect("it was started here");
        self.calls()
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One system call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Call {
    /// Its number.
    pub(super) thread: String,
    /// `fdatasync`.
    pub(super) name: String,
    /// The file of its first argument.
    pub(super) path: PathBuf,
    /// What it returned; `?` if the process was killed in it.
    pub(super) result: String,
}

impl Call {
    pub(super) fn was_injected(&self) -> bool {
        self.result.ends_with("(INJECTED)")
    }

    /// Whether the process was killed as it began this one.
    pub(super) fn was_fatal(&self) -> bool {
        self.result == "?"
    }

    pub(super) fn is_of(&self, file: &str) -> bool {
        self.path.ends_with(file)
    }
}

/// How many calls the thread made that made the most: where `when=N` has an end.
pub(super) fn most_of_a_thread(calls: &[Call]) -> usize {
    let of = |thread: &str| calls.iter().filter(|call| call.thread == thread).count();
    calls.iter().map(|call| of(&call.thread)).max().unwrap_or(0)
}

/// Fails the test unless the process was killed as a thread began its N-th call, and did nothing more. Another thread may
/// have been in a call of its own at that moment.
pub(super) fn assert_killed_at(n: usize, calls: &[Call]) {
    let fatal: Vec<_> = calls.iter().filter(|call| call.was_fatal()).collect();
    let last: Vec<_> = calls.iter().skip(calls.len() - fatal.len()).collect();
    assert!(!fatal.is_empty() && fatal == last, "{calls:#?}");
    let of = |thread: &str| calls.iter().filter(|call| call.thread == thread).count();
    assert!(fatal.iter().any(|call| of(&call.thread) == n), "{calls:#?}");
}

/// Calls in the order in which they returned. One that was going on while another was written down stands in two lines.
fn parse(log: &str) -> Vec<Call> {
    let mut begun: HashMap<&str, (&str, &str)> = HashMap::new();
    let mut calls = Vec::new();
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if rest == "+++ killed by SIGKILL +++" {
            calls.extend(begun.remove(thread).map(|(name, path)| call(thread, name, path, "?")));
        } else if let Some((name, arguments)) = rest.split_once('(').filter(|(name, _)| !name.contains([' ', '<'])) {
            let path =
                arguments.split_once('<').and_then(|(_, path)| path.split_once('>')).map_or("", |(path, _)| path);
            match rest.rsplit_once(" = ") {
                Some((_, result)) => calls.push(call(thread, name, path, result)),
                None => drop(begun.insert(thread, (name, path))),
            }
        } else if rest.contains(" resumed>")
            && let (Some((_, result)), Some((name, path))) = (rest.rsplit_once(" = "), begun.remove(thread))
        {
            calls.push(call(thread, name, path, result));
        }
    }
    // One that hangs in the middle of being killed is not written to its end.
    calls
}

fn call(thread: &str, name: &str, path: &str, result: &str) -> Call {
    Call { thread: thread.to_owned(), name: name.to_owned(), path: path.into(), result: result.trim().to_owned() }
}

#[test]
fn calls_are_found_however_their_lines_are_cut() {
    let log = "17602 fdatasync(14</d/a-wal>) = 0\n\
               17602 fdatasync(14</d/a-wal> <unfinished ...>\n\
               99 fsync(3</d>) = -1 EIO (Input/output error) (INJECTED)\n\
               17602 <... fdatasync resumed>)          = 0\n\
               17602 fdatasync(13</d/a> <unfinished ...>\n\
               99 --- SIGTERM {si_signo=SIGTERM} ---\n\
               99 +++ killed by SIGKILL +++\n\
               17602 +++ killed by SIGKILL +++\n";
    let calls = parse(log);
    let expected = [
        call("17602", "fdatasync", "/d/a-wal", "0"),
        call("99", "fsync", "/d", "-1 EIO (Input/output error) (INJECTED)"),
        call("17602", "fdatasync", "/d/a-wal", "0"),
        call("17602", "fdatasync", "/d/a", "?"),
    ];
    assert_eq!(calls, expected);
    assert!(calls[1].was_injected() && calls[3].was_fatal() && !calls[2].is_of("a"));
}
