//! The raw HTTP/1 corpus in `tests/corpus/http1`: bytes as they may come, and what has to follow from them.
//!
//! Each case is sent whole, byte by byte, and in two pieces split at every offset; the answers, the connection
//! afterwards and what the upstream saw must be the same each time. Then real proxies stand in front of the gateway and
//! behind it: [`proxied`].
//!
//! A case is a few lines in one of those files, so a new one needs no code: [`case`] says how they are written.

mod case;
mod client;
mod front;
mod proxied;
mod proxies;
mod recorder;

use std::{collections::HashSet, path::Path};

use tokio::net::{TcpStream, UnixListener, UnixStream};

use self::{
    case::Written,
    client::{converse, feed},
    front::Front,
};
use crate::counts::reduced;

/// The corpus. Each case is one idea, so that a failure names it.
fn corpus() -> Vec<Written> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/http1");
    let mut files: Vec<_> = folder.read_dir().expect("the corpus").map(|entry| entry.expect("a file").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files.iter().flat_map(|path| case::read(path)).collect()
}

/// Sends each case once for each list of offsets that `cuts` makes of its length, in the pieces between them, and fails
/// with every case that once went another way than it says.
async fn hold(cuts: impl Fn(usize) -> Vec<Vec<usize>>, over_tcp: bool) {
    let front = Front::start().await;
    let (mut wrong, mut nonce) = (Vec::new(), 0);
    for written in corpus() {
        let length = written.with(nonce).bytes.len();
        for offsets in cuts(length) {
            nonce += 1;
            let case = written.with(nonce);
            let ends = offsets.iter().copied().chain([length]);
            let starts = [0].into_iter().chain(offsets.iter().copied());
            let pieces: Vec<&[u8]> = starts.zip(ends).map(|(start, end)| &case.bytes[start..end]).collect();
            let talk = if over_tcp {
                let stream = TcpStream::connect(front.gateway.public).await.expect("it listens");
                stream.set_nodelay(true).expect("TCP");
                converse(stream, &pieces, &case).await
            } else {
                converse(UnixStream::connect(&front.socket).await.expect("it listens"), &pieces, &case).await
            };
            let complaints = [talk.complaints(&case), case.complaints_of_upstream(&front.upstream.take())].concat();
            if !complaints.is_empty() {
                let first = &offsets[..offsets.len().min(3)];
                wrong.push(format!("{case}, cut at {first:?}…: {}", complaints.join("; ")));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(front.gateway.drain().await, "nothing is left of any of them");
}

#[test]
fn the_corpus_is_large_and_each_case_says_what_it_is_for() {
    let cases = corpus();
    assert!(cases.len() >= 120, "{}", cases.len());
    let mut names = HashSet::new();
    for written in &cases {
        let case = written.with(0);
        assert!(names.insert(&written.name), "{case}: the name is taken");
        assert!(!case.why.is_empty() && !case.bytes.is_empty(), "{case}");
    }
}

#[tokio::test]
async fn each_case_whole() {
    hold(|_| vec![vec![]], true).await;
}

#[tokio::test]
async fn each_case_byte_by_byte() {
    hold(|length| vec![(1..length).collect()], false).await;
}

#[tokio::test]
async fn each_case_split_at_every_offset() {
    let most = reduced("splits of a case of over 2 KiB", 200, 1_000_000) as usize;
    let step = |length: usize| if length > 2 << 10 { length.div_ceil(most) } else { 1 };
    hold(|length| (1..length).step_by(step(length)).map(|at| vec![at]).collect(), false).await;
}

/// What the two tests above rest on: a piece is read before the next is written.
#[tokio::test]
async fn pieces_arrive_one_by_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("bound");
    let reading = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut sizes = Vec::new();
        loop {
            stream.readable().await.expect("open");
            match stream.try_read(&mut [0; 4096]) {
                Ok(0) => return sizes,
                Ok(read) => sizes.push(read),
                Err(_) => {}
            }
        }
    });
    let mut client = UnixStream::connect(&path).await.expect("it listens");
    let pieces: Vec<&[u8]> = vec![b"a", b"bc", b"d", b"efghi", b"j"];
    feed(&mut client, &pieces).await;
    drop(client);
    assert_eq!(reading.await.expect("it reads"), [1, 2, 1, 5, 1]);
}
