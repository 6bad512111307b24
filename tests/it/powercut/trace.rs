//! What `strace` writes, as steps: what was done to the files of a store, what was synced, what was told to whom.

use std::{collections::HashMap, path::Path};

/// What the program did, in the order in which it was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// These bytes were written to a file at this place.
    Write { file: usize, at: usize, bytes: Vec<u8> },
    /// A file was cut to this length, or grew to it.
    Resize { file: usize, length: usize },
    /// A new file got this name.
    Create { file: usize, name: String },
    /// A name was removed.
    Remove { name: String },
    /// A sync of this ended. It covers the steps before `began`.
    Synced { what: Synced, began: usize },
    /// A sender is about to be told that the event of this id is there.
    Acknowledged { id: String },
    /// An upstream is about to get it.
    Forwarded { id: String },
}

/// What was synced.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Synced {
    File(usize),
    /// The directory: which files there are.
    Names,
}

/// Everything that may change a file, and what goes to sockets. A question mark is for those that a machine does not
/// have.
pub(super) const CALLS: &str = "trace=?open,?openat,?openat2,?creat,?write,?writev,?pwrite64,?pwritev,?pwritev2,\
    ?ftruncate,?truncate,?fallocate,?fsync,?fdatasync,?sync_file_range,?unlink,?unlinkat,?rename,?renameat,\
    ?renameat2,?link,?linkat,?copy_file_range,?sendto,?sendmsg";

/// None has anything that an acknowledgement promises: one tells processes apart, one is made anew from the log, and one
/// says which paths there were, for better answers; it is written under another name first.
const IGNORED: [&str; 4] = ["hookward.lock", "hookward.db-shm", "/paths.json", "/unfinished"];

/// An event's id as text.
const ID_LENGTH: usize = 36;

/// Reads the traces of one process after the other on one directory.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) steps: Vec<Step>,
    /// How many syncs were `fdatasync`.
    pub(super) data_syncs: usize,
    /// The files that have a name.
    names: HashMap<String, usize>,
    files: usize,
}

impl Reader {
    /// Reads the trace of a process whose store is in `directory`. Panics on what it does not know.
    pub(super) fn read(&mut self, trace: &str, directory: &Path) {
        let prefix = format!("{}/", directory.display());
        let own = directory.display().to_string();
        let mut process =
            Process { reader: self, prefix, directory: own, begun: HashMap::new(), places: HashMap::new() };
        trace.lines().for_each(|line| process.line(line));
    }
}

struct Process<'a> {
    reader: &'a mut Reader,
    /// The directory of the store, with a slash.
    prefix: String,
    directory: String,
    /// Calls that have not ended, by thread: their text, and the number of steps before them.
    begun: HashMap<&'a str, (String, usize)>,
    /// Where the next `write` to a descriptor goes.
    places: HashMap<String, usize>,
}

impl<'a> Process<'a> {
    fn line(&mut self, line: &'a str) {
        let (thread, rest) = line.split_once(' ').expect("the thread and what it did");
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            return;
        }
        let steps = self.reader.steps.len();
        if let Some(rest) = rest.strip_prefix("<... ") {
            let (_, end) = rest.split_once(" resumed>").expect("the end of a call");
            let (begin, began) = self.begun.remove(thread).expect("a call ends that began");
            self.call(&format!("{begin}{end}"), began);
        } else if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            self.told(begin);
            self.begun.insert(thread, (begin.trim_end().to_owned(), steps));
        } else {
            self.told(rest);
            // What it told before is no step of the files, so a sync covers it either way.
            self.call(rest, steps);
        }
    }

    /// Notes what goes to a socket, at its begin.
    fn told(&mut self, call: &str) {
        if !call.contains("<socket:[") {
            return;
        }
        let ids = |before: &str| -> Vec<String> {
            call.match_indices(before).map(|(at, _)| call[at + before.len()..][..ID_LENGTH].to_owned()).collect()
        };
        for word in ["accepted", "duplicate"] {
            let told = ids(&format!(r#"{{\"status\":\"{word}\",\"id\":\""#));
            self.reader.steps.extend(told.into_iter().map(|id| Step::Acknowledged { id }));
        }
        let forwarded = ids("hookward-event-id: ");
        self.reader.steps.extend(forwarded.into_iter().map(|id| Step::Forwarded { id }));
    }

    /// A whole call.
    fn call(&mut self, call: &str, began: usize) {
        if !call.contains(&self.directory) || IGNORED.iter().any(|name| call.contains(name)) {
            return;
        }
        // Before the sign there may be spaces: the results of short lines stand in a column.
        let (call, result) = call.rsplit_once(" = ").expect("a result");
        if result.starts_with("-1 ") {
            return;
        }
        let (name, arguments) = call.split_once('(').expect("a name and arguments");
        if matches!(name, "openat" | "open") {
            let flags = arguments.rsplit_once('"').expect("a path").1;
            self.opened(result, flags);
            return;
        }
        if name == "unlink" {
            let path = literal(arguments).0;
            if let Some(name) = self.name(std::str::from_utf8(&path).expect("a path")) {
                self.reader.names.remove(&name).expect("it was there");
                self.reader.steps.push(Step::Remove { name });
            }
            return;
        }
        // `14</path>`: every other call that is known begins with a descriptor.
        let (descriptor, rest) = arguments.split_once('>').expect("a descriptor");
        let (descriptor, path) = descriptor.split_once('<').expect("a descriptor and its path");
        let file = self.name(path).and_then(|name| self.reader.names.get(&name).copied());
        let done = || result.split(' ').next().and_then(|n| n.parse::<usize>().ok()).expect("a number of bytes");
        match (name, file) {
            ("fsync" | "fdatasync", _) if path == self.directory || file.is_some() => {
                let what = file.map_or(Synced::Names, Synced::File);
                self.reader.data_syncs += usize::from(name == "fdatasync");
                self.reader.steps.push(Step::Synced { what, began });
            }
            ("pwrite64", Some(file)) => {
                let (mut bytes, rest) = literal(rest);
                let at = rest.split(", ").nth(2).and_then(|at| at.split(')').next()?.parse().ok()).expect("a place");
                bytes.truncate(done());
                self.reader.steps.push(Step::Write { file, at, bytes });
            }
            ("write", Some(file)) => {
                let mut bytes = literal(rest).0;
                bytes.truncate(done());
                let place = self.places.get_mut(descriptor).expect("it was opened");
                let at = std::mem::replace(place, *place + bytes.len());
                self.reader.steps.push(Step::Write { file, at, bytes });
            }
            ("ftruncate", Some(file)) => {
                let length = rest.trim_start_matches(", ").split(')').next().and_then(|n| n.parse().ok());
                self.reader.steps.push(Step::Resize { file, length: length.expect("a length") });
            }
            // The path stands in what is written to a log.
            (_, None) if !path.starts_with(&self.prefix) => {}
            _ => panic!("what does this do to the store? {}", &call[..call.len().min(200)]),
        }
    }

    fn opened(&mut self, result: &str, flags: &str) {
        let (descriptor, path) = result.split_once('<').expect("a descriptor and its path");
        let Some(name) = self.name(path.trim_end_matches('>')) else { return };
        self.places.insert(descriptor.to_owned(), 0);
        if let Some(&file) = self.reader.names.get(&name) {
            if flags.contains("O_TRUNC") {
                self.reader.steps.push(Step::Resize { file, length: 0 });
            }
        } else {
            assert!(flags.contains("O_CREAT"), "{name} was there and never made");
            let file = self.reader.files;
            self.reader.files += 1;
            self.reader.names.insert(name.clone(), file);
            self.reader.steps.push(Step::Create { file, name });
        }
    }

    /// The name of a file of the store.
    fn name(&self, path: &str) -> Option<String> {
        path.strip_prefix(&self.prefix).map(str::to_owned)
    }
}

/// The bytes of the first string in quotes, and what follows it.
fn literal(text: &str) -> (Vec<u8>, &str) {
    let start = text.find('"').expect("a string") + 1;
    let escaped = text.as_bytes();
    let (mut bytes, mut at) = (Vec::new(), start);
    loop {
        match escaped[at] {
            b'"' => break,
            b'\\' => {
                at += 1;
                let digits = escaped[at..].iter().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
                let byte = match escaped[at] {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'v' => 0x0b,
                    b'f' => 0x0c,
                    other @ (b'"' | b'\\') => other,
                    other => {
                        assert!(digits > 0, "an escape of {}", other as char);
                        let octal = &text[at..at + digits];
                        at += digits - 1;
                        u8::from_str_radix(octal, 8).expect("a byte")
                    }
                };
                bytes.push(byte);
            }
            byte => bytes.push(byte),
        }
        at += 1;
    }
    let rest = &text[at + 1..];
    assert!(!rest.starts_with("..."), "strace cut a string");
    (bytes, rest)
}

#[test]
fn a_trace_is_read_to_the_byte() {
    const TRACE: &str = r#"7  openat(AT_FDCWD</>, "/d/s/hookward.db", O_RDWR|O_CREAT, 0644 <unfinished ...>
8  openat(AT_FDCWD</>, "/d/s/none", O_RDONLY) = -1 ENOENT (No such file or directory)
7  <... openat resumed>)                   = 5</d/s/hookward.db>
7  pwrite64(5</d/s/hookward.db>, "\0a\"\\\n\377\0017\1", 9, 512) = 9
8  fdatasync(5</d/s/hookward.db> <unfinished ...>
7  pwrite64(5</d/s/hookward.db>, "late", 4, 0) = 2
7  sendto(9<socket:[1]>, "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"accepted\",\"id\":\"019a0000-0000-7000-8000-000000000000\"}", 9, MSG_NOSIGNAL, NULL, 0) = 9
8  <... fdatasync resumed>) = 0
7  ftruncate(5</d/s/hookward.db>, 3) = 0
7  pwrite64(5</d/s/hookward.db>, "full", 4, 0) = -1 ENOSPC (No space left on device)
7  write(6</d/s/hookward.lock>, "7", 1) = 1
7  write(2</d/log>, "/d/s/hookward.db is opened", 26) = 26
7  fsync(5</d/s>) = 0
7  unlink("/d/s/hookward.db") = 0
7  +++ exited with 0 +++"#;
    let mut reader = Reader::default();
    reader.read(TRACE, Path::new("/d/s"));
    let (file, name) = (0, "hookward.db".to_owned());
    let id = "019a0000-0000-7000-8000-000000000000".to_owned();
    assert_eq!(
        reader.steps,
        [
            Step::Create { file, name: name.clone() },
            Step::Write { file, at: 512, bytes: b"\0a\"\\\n\xff\x017\x01".to_vec() },
            Step::Write { file, at: 0, bytes: b"la".to_vec() },
            Step::Acknowledged { id },
            Step::Synced { what: Synced::File(file), began: 2 },
            Step::Resize { file, length: 3 },
            Step::Synced { what: Synced::Names, began: 6 },
            Step::Remove { name },
        ]
    );
    assert_eq!(reader.data_syncs, 1);
}
