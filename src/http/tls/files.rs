//! A file that may be replaced at any time: whether it is still the one that was read.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

/// What changes when a file is written, replaced, or reached by another symbolic link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl Stamp {
    /// Of the file behind all symbolic links.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
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

/// Stamps of several files; a file that is not there has none.
pub(super) type Stamps = Vec<Option<Stamp>>;

pub(super) fn stamps<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Stamps {
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
