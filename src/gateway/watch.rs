//! `server.watch`: the configuration is loaded anew when what it is made of changes.
//!
//! Every other second the files are looked at without reading them. Once that has been the same for two looks, so that
//! nobody is writing any more, their content decides. A file that is wrong is tried once, and again when it changes.

use std::{collections::BTreeMap, fs, io, io::Read as _, path::PathBuf, sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::{Live, next_tick};
use crate::{admin::api::ReloadRequest, config::Files, files::Stamp};

const EVERY: Duration = Duration::from_secs(2);
/// What is read of a file; more than any of them has.
const BYTES_MAX: u64 = 8 << 20;

/// Looks until it is told to end. Whether anything is to be watched is asked anew each time.
pub(super) async fn keep(live: Arc<Live>, ending: CancellationToken) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut watched = None;
    while next_tick(&mut every, &ending).await {
        if !live.running().server.watch {
            watched = None;
            continue;
        }
        let files = live.files();
        let is_first = watched.is_none();
        let look = tokio::task::spawn_blocking(move || match watched {
            None => (Watched::begin(&files), false),
            Some(mut watched) => {
                let changed = Watched::look(&mut watched, &files);
                (watched, changed)
            }
        });
        // A panic is in the log.
        let Ok((next, changed)) = look.await else { return };
        if is_first {
            tracing::info!("watching the files of the configuration");
        }
        watched = Some(next);
        if changed {
            tracing::info!("files of the configuration changed");
            // The answer is in the log.
            let _ = live.reload(ReloadRequest::default()).await;
        }
    }
}

/// What can be seen of files without reading them.
type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

/// What was seen so far.
#[derive(Debug)]
struct Watched {
    /// When their content was last compared.
    settled: Stamps,
    /// At the last look.
    last: Stamps,
    digest: [u8; 32],
}

impl Watched {
    fn begin(files: &Files) -> Self {
        let last = stamps(files);
        Self { settled: last.clone(), digest: digest(&last), last }
    }

    /// Whether they changed, and have stopped changing. Says so once.
    fn look(&mut self, files: &Files) -> bool {
        let now = stamps(files);
        let is_stable = now == self.last;
        self.last = now;
        if !is_stable || self.last == self.settled {
            return false;
        }
        self.settled = self.last.clone();
        let digest = digest(&self.settled);
        std::mem::replace(&mut self.digest, digest) != digest
    }
}

fn stamps(files: &Files) -> Stamps {
    let found = files.patterns.iter().filter_map(|pattern| glob::glob(pattern).ok());
    let found = found.flatten().filter_map(Result::ok);
    let all = files.configuration.iter().chain(&files.named).cloned().chain(found);
    all.map(|file| {
        let stamp = Stamp::of(&file).ok();
        (file, stamp)
    })
    .collect()
}

/// Of the names and what they hold; a file that cannot be read is as if it was not there.
fn digest(stamps: &Stamps) -> [u8; 32] {
    let mut digest = Sha256::new();
    for file in stamps.keys() {
        let content: io::Result<[u8; 32]> = (|| {
            let mut bytes = zeroize::Zeroizing::new(Vec::new());
            fs::File::open(file)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(Sha256::digest(&*bytes).into())
        })();
        let name = file.as_os_str().as_encoded_bytes();
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name);
        digest.update(content.unwrap_or_default());
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_change_counts_once_and_only_when_it_is_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let (main, secret) = (directory.path().join("main.toml"), directory.path().join("secret"));
        let write = |file: &Path, text: &str| fs::write(file, text).expect("written");
        write(&main, "a");
        write(&secret, "s");
        let files = Files {
            configuration: vec![main.clone()],
            patterns: vec![directory.path().join("conf.d/*.toml").display().to_string()],
            named: vec![secret.clone(), directory.path().join("missing")],
        };
        let mut watched = Watched::begin(&files);
        let mut look = || watched.look(&files);
        assert!(!look() && !look());
        write(&main, "longer");
        assert!(!look(), "it may still be written");
        write(&main, "longer still");
        assert!(!look(), "it was");
        assert!(look());
        assert!(!look() && !look(), "once");

        // Another file of the same content under the name, as an editor saves it: nothing to load.
        write(&directory.path().join("new"), "longer still");
        fs::rename(directory.path().join("new"), &main).expect("renamed");
        assert!(!look() && !look());

        write(&secret, "another");
        assert!(!look());
        assert!(look(), "a secret counts");
        fs::create_dir(directory.path().join("conf.d")).expect("made");
        write(&directory.path().join("conf.d/b.toml"), "b");
        assert!(!look());
        assert!(look(), "a file that fits a pattern counts");
        fs::remove_file(&secret).expect("removed");
        assert!(!look());
        assert!(look(), "and one that is gone");
    }
}
