//! A small disk: a tmpfs in a mount namespace of the gateway's own, so that nothing is left to unmount.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use crate::running::hookward_under;

/// The disk as it is seen from outside of the namespace.
pub(super) struct SmallDisk {
    top: PathBuf,
}

/// The program with a disk of `size` at `place`; needs to be root.
pub(super) fn hookward_on(size: &str, place: &Path) -> Command {
    fs::create_dir(place).expect("a place for the disk");
    let script = format!("mount -t tmpfs -o size={size},mode=700 none \"$0\" && exec \"$@\"");
    let place = place.to_str().expect("text");
    hookward_under("unshare", &["--mount", "--propagation", "private", "sh", "-c", &script, place])
}

impl SmallDisk {
    /// That of a process, which the small disk is mounted for.
    pub(super) fn of(process: u32, place: &Path) -> Self {
        let top = format!("/proc/{process}/root{}", place.display());
        assert!(!fs::exists(place.join("data")).expect("readable"), "nothing is mounted: the store is outside");
        Self { top: top.into() }
    }

    fn ballast(&self) -> PathBuf {
        self.top.join("ballast")
    }

    /// Leaves no room at all.
    pub(super) fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("the disk is there");
        let mut block = vec![1; 64 << 10];
        while !block.is_empty() {
            match ballast.write(&block) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => block.truncate(block.len() / 2),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Removes what fills it.
    pub(super) fn free(&self) {
        fs::remove_file(self.ballast()).expect("it was filled");
    }
}
