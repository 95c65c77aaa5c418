//! A file that holds room for one way back. A disk that fills up in the middle of a switch must not leave the client stopped because the
//! journal, an event or a small file can't be written: then the room is given up and the write is tried again.

use super::files;
use crate::config::Paths;
use fs_err as fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Journal, events and result of one order, the transaction's small files, directories: some hundred kilobytes, with room to spare.
const ORDER_BYTES: u64 = 2 * 1024 * 1024;
/// Smallest piece that a file system gives out, with its directory entry.
const PIECE: u64 = 8 * 1024;

/// Room for an order and for files that are put back, each written beside the one it replaces. `rewritten` are the files of the agent's
/// state that are written anew as a whole.
pub fn bytes_for(put_back: impl Iterator<Item = u64>, rewritten: impl Iterator<Item = u64>) -> u64 {
    put_back.chain(rewritten).fold(ORDER_BYTES, |sum, bytes| {
        sum.saturating_add(bytes).saturating_add(PIECE)
    })
}

/// The reserve of a state directory.
#[derive(Clone, Debug)]
pub struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// Of the agent's state directory.
    pub fn of(paths: &Paths) -> Self {
        Self::within(paths.state())
    }

    /// Of a state directory.
    pub fn within(state: &Path) -> Self {
        Self {
            path: state.join("reserve"),
        }
    }

    /// Makes it, durably, unless it is there in this size. Fails when there is no room; then nothing of it is left.
    pub fn make(&self, bytes: u64) -> io::Result<()> {
        if fs::metadata(&self.path).is_ok_and(|meta| meta.len() >= bytes) {
            return Ok(());
        }
        files::remove(&self.path)?;
        let made = self.allocate(bytes);
        if made.is_err() {
            let _ = files::remove(&self.path);
        }
        made
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            // Some file systems can't promise room; what is written is there.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                io::copy(&mut io::Read::take(io::repeat(b'r'), bytes), &mut file)?;
            }
            Err(error) => return Err(error.into()),
        }
        file.flush()?;
        file.sync_all()?;
        files::sync_dir(self.path.parent().unwrap_or(Path::new("/")))
    }

    /// Gives it up. Returns whether it was there.
    pub fn release(&self) -> bool {
        let given = std::fs::OpenOptions::new()
            .write(true)
            .open(&self.path)
            .and_then(|file| {
                // Emptied and synced first: freed blocks can be used again only after that on some file systems.
                file.set_len(0)?;
                file.sync_all()
            });
        let _ = files::remove(&self.path);
        given.is_ok()
    }

    /// Writes, and on a full disk gives the room up and writes again.
    pub fn retry<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match write() {
            Err(error) if full(&error) && self.release() => {
                tracing::warn!(%error, "the disk is full; the agent's reserve is given up");
                write()
            }
            other => other,
        }
    }
}

/// Whether an error says that there is no room.
pub fn full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// A real small disk for tests.
#[cfg(test)]
pub mod small_disk {
    #![allow(clippy::unwrap_used)]
    use super::full;
    use std::io::Write;
    use std::path::Path;
    use std::process::Command;

    /// A tmpfs of some kilobytes, unmounted at the end.
    pub struct SmallDisk(tempfile::TempDir);

    impl SmallDisk {
        /// Mounts it.
        pub fn new(kilobytes: u32) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={kilobytes}k"), "tmpfs"])
                .arg(dir.path())
                .output()
                .unwrap();
            assert!(
                mounted.status.success(),
                "a small tmpfs can't be mounted ({}); run the tests as root with CAP_SYS_ADMIN, in Docker with --privileged",
                String::from_utf8_lossy(&mounted.stderr).trim()
            );
            Self(dir)
        }

        pub fn path(&self) -> &Path {
            self.0.path()
        }

        /// Writes until nothing more fits.
        pub fn fill(&self) {
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.path().join("filler"))
                .unwrap();
            let error = loop {
                if let Err(error) = file.write_all(&[7; 4096]) {
                    break error;
                }
            };
            assert!(full(&error), "{error}");
        }

        /// Makes room again.
        pub fn free(&self) {
            std::fs::remove_file(self.path().join("filler")).unwrap();
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(self.path()).status();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::small_disk::SmallDisk;
    use super::*;

    #[test]
    fn a_write_on_a_full_disk_is_done_with_the_reserve() {
        let disk = SmallDisk::new(1024);
        let reserve = Reserve::within(disk.path());
        reserve.make(128 * 1024).unwrap();
        reserve.make(64 * 1024).unwrap();
        disk.fill();
        let path = disk.path().join("a");
        let write = || files::replace(&path, &[1; 64 * 1024], files::PRIVATE);
        assert!(full(&write().unwrap_err()));
        reserve.retry(write).unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), 64 * 1024);
        assert!(!reserve.release());
        disk.fill();
        assert!(full(&reserve.retry(write).unwrap_err()));
    }

    #[test]
    fn without_room_there_is_no_reserve_and_nothing_stays() {
        let disk = SmallDisk::new(256);
        let reserve = Reserve::within(disk.path());
        assert!(full(&reserve.make(1024 * 1024).unwrap_err()));
        assert_eq!(files::walk(disk.path()).len(), 0);
    }

    #[test]
    fn every_file_counts() {
        let small = bytes_for([1].into_iter(), [].into_iter());
        assert!(bytes_for([1, 1].into_iter(), [100].into_iter()) >= small + 101 + PIECE);
    }
}
