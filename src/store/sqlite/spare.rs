//! Space on the disk that is kept for a disk without any.
//!
//! What is accepted has to be delivered, and recorded as delivered, on a full disk too. Both write to the log, and a
//! log that cannot be moved into the database file, because that file cannot grow, only becomes longer. So a file
//! of the log's size is kept beside them. When the disk is full it is removed, the log is moved and begins anew in
//! the place that it has, and nothing new is stored until the disk has room for the spare file again.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

/// A disk that has not even twice this much room is full.
pub(super) const BYTES_MIN: u64 = 256 << 10;
/// From one look at whether the disk has room again to the next.
const LOOK_EVERY_MS: i64 = 1000;

/// The spare file.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    bytes: u64,
    is_there: bool,
    look_at_ms: i64,
}

impl Spare {
    /// Of `wanted` bytes, or on a small disk of at most half its room. On a full one it is not there yet.
    pub(super) fn open(path: PathBuf, wanted: u64) -> io::Result<Self> {
        let mut spare = Self { path, bytes: wanted, is_there: false, look_at_ms: i64::MIN };
        let found = fs::metadata(&spare.path).map_or(0, |metadata| metadata.len());
        if (BYTES_MIN..=wanted).contains(&found) {
            (spare.bytes, spare.is_there) = (found, true);
            return Ok(spare);
        }
        let mut bytes = wanted;
        while bytes >= BYTES_MIN {
            match spare.fill(bytes) {
                Ok(()) => {
                    spare.is_there = true;
                    if bytes < wanted {
                        // It took more than half of all the room there is.
                        spare.bytes = bytes / 2;
                        File::options().write(true).open(&spare.path)?.set_len(spare.bytes)?;
                    }
                    break;
                }
                Err(error) if is_no_room(&error) => bytes /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(spare)
    }

    /// How long the log may become, in bytes: the last commit of it may go over that by half.
    pub(super) fn log_bytes(&self) -> u64 {
        self.bytes / 3 * 2
    }

    /// What it takes, there or not.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// What the disk lacks for it: 0 if it is there.
    pub(super) fn wanted_bytes(&self) -> u64 {
        if self.is_there { 0 } else { self.bytes }
    }

    /// Gives the space back to the disk.
    pub(super) fn release(&mut self) {
        if self.is_there {
            (self.is_there, self.look_at_ms) = (false, i64::MIN);
            tracing::error!("the disk is full: nothing new is stored until it has room, deliveries go on");
            if let Err(error) = fs::remove_file(&self.path) {
                tracing::warn!(%error, "failed to remove the spare file of the store");
            }
        }
    }

    /// Takes the space again, if it is not there and the disk has it. Returns whether it is there.
    pub(super) fn renew(&mut self, now_ms: i64) -> bool {
        if !self.is_there && now_ms >= self.look_at_ms {
            match self.fill(self.bytes) {
                Ok(()) => {
                    self.is_there = true;
                    tracing::info!("the disk has room again");
                }
                Err(error) => {
                    self.look_at_ms = now_ms.saturating_add(LOOK_EVERY_MS);
                    tracing::debug!(%error, "failed to make the spare file of the store");
                }
            }
        }
        self.is_there
    }

    /// The same, however short ago somebody looked.
    pub(super) fn renew_now(&mut self, now_ms: i64) -> bool {
        self.look_at_ms = i64::MIN;
        self.renew(now_ms)
    }

    /// Whether a small file beside this one can not be written for want of room, or of quota.
    pub(super) fn finds_no_room(&self) -> bool {
        let probe = Self { path: self.path.with_extension("probe"), ..*self };
        match probe.fill(BYTES_MIN) {
            Ok(()) => {
                let _ = fs::remove_file(&probe.path);
                false
            }
            Err(error) => is_no_room(&error),
        }
    }

    fn fill(&self, bytes: u64) -> io::Result<()> {
        // No zeros: a file system may keep those as a hole.
        let block = vec![0x5a; 64 << 10];
        let write = || {
            let mut file = File::create(&self.path)?;
            let mut left = bytes;
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
                file.write_all(&block[..part])?;
                left -= part as u64;
            }
            Ok(())
        };
        write().inspect_err(|_| drop(fs::remove_file(&self.path)))
    }
}

/// Whether a small file beside this one can not be written for want of room, or of quota.
pub(super) fn finds_no_room(path: &Path) -> bool {
    Spare { path: path.to_owned(), bytes: BYTES_MIN, is_there: false, look_at_ms: i64::MIN }.finds_no_room()
}

fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_again_released_and_renewed_when_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spare");
        let length = || fs::metadata(&path).map(|metadata| metadata.len()).ok();
        assert!(Spare::open(path.clone(), 1 << 20).unwrap().is_there());
        assert_eq!(length(), Some(1 << 20));
        let mut spare = Spare::open(path.clone(), 4 << 20).unwrap();
        assert_eq!((spare.is_there(), spare.log_bytes()), (true, (1 << 20) / 3 * 2), "as it was found");

        spare.release();
        assert!(!spare.is_there() && length().is_none() && spare.wanted_bytes() == 1 << 20);
        // What stands in its place is as good as a full disk.
        fs::create_dir(&path).unwrap();
        assert!(!spare.renew(5));
        fs::remove_dir(&path).unwrap();
        assert!(!spare.renew(5 + LOOK_EVERY_MS - 1), "looked a moment ago");
        assert!(spare.renew(5 + LOOK_EVERY_MS));
        assert_eq!((length(), spare.wanted_bytes()), (Some(1 << 20), 0));
    }
}
