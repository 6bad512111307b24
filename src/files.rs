//! Files on disk that are this program's own: directories and files that only its user reads, replaced whole. And files of
//! others that may be replaced at any time: whether one is still the one that was read.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Makes a directory that only this user reads, and those above it, unless they are there.
pub fn make_directory(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// The file is there as a whole or not at all, whatever happens, and only this user reads it. A directory has one such
/// writer at a time.
pub fn write_whole(directory: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = directory.join("unfinished");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut written = File::options().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    written.write_all(bytes)?;
    written.sync_all()?;
    fs::rename(&unfinished, file)?;
    File::open(directory)?.sync_all()
}

/// What changes when a file is written, replaced, or reached by another symbolic link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl Stamp {
    /// Of the file behind all symbolic links.
    pub fn of(path: &Path) -> io::Result<Self> {
        let of = fs::metadata(path)?;
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Ok(Self {
            device: of.dev(),
            inode: of.ino(),
            len: of.len(),
            modified_ns: ns(of.mtime(), of.mtime_nsec()),
            changed_ns: ns(of.ctime(), of.ctime_nsec()),
        })
    }
}

/// Stamps of several files; one that is not there has none.
pub type Stamps = Vec<Option<Stamp>>;

/// Of these files, in their order.
pub fn stamps<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Stamps {
    paths.into_iter().map(|path| Stamp::of(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_replaced_or_linked_elsewhere_is_another() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let look = || stamps([path("link").as_path()]);
        assert_eq!(look(), [None]);
        fs::write(path("a"), "one").expect("written");
        fs::write(path("b"), "one").expect("written");
        std::os::unix::fs::symlink(path("a"), path("link")).expect("linked");
        let first = look();
        assert!(first[0].is_some());
        assert_eq!(look(), first);
        // As a mounted volume is updated: the link is replaced by another in one step.
        std::os::unix::fs::symlink(path("b"), path("new")).expect("linked");
        fs::rename(path("new"), path("link")).expect("replaced");
        let second = look();
        assert_ne!(second, first);
        fs::write(path("b"), "two and more").expect("written");
        assert_ne!(look(), second);
    }
}
