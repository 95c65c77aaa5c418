//! Files that survive a power cut: written beside, synced, renamed, directory synced.

use fs_err as fs;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Mode and owner of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ownership {
    /// Permission bits.
    pub mode: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Private to root.
pub const PRIVATE: Ownership = Ownership {
    mode: 0o600,
    uid: 0,
    gid: 0,
};

impl Ownership {
    /// Of an existing file.
    pub fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(path)?;
        Ok(Self {
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
        })
    }
}

/// Replaces a file as a whole.
pub fn replace(path: &Path, bytes: &[u8], ownership: Ownership) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let beside = dir.join(format!(
        ".{}.{}",
        path.file_name().unwrap_or_default().to_string_lossy(),
        uuid::Uuid::new_v4().simple()
    ));
    let result = write_new(&beside, bytes, ownership)
        .and_then(|()| fs::rename(&beside, path))
        .and_then(|()| sync_dir(dir));
    if result.is_err() {
        let _ = fs::remove_file(&beside);
    }
    result
}

fn write_new(path: &Path, bytes: &[u8], ownership: Ownership) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::fchown(&file, Some(ownership.uid), Some(ownership.gid))?;
    }
    file.set_permissions(std::fs::Permissions::from_mode(ownership.mode))?;
    file.sync_all()
}

/// Adds to a file of known length, durably, and returns the new length. Bytes behind the known length were never relied upon and go. When it
/// fails, nothing of it stays: half a line would make everything behind it unreadable.
pub fn append(path: &Path, length: u64, bytes: &[u8]) -> io::Result<u64> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    let there = file.metadata()?.len();
    if there < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if there > length {
        file.set_len(length)?;
    }
    let added = file
        .seek(io::SeekFrom::Start(length))
        .and_then(|_| file.write_all(bytes))
        .and_then(|()| file.sync_data());
    match added {
        Ok(()) => Ok(length + bytes.len() as u64),
        Err(error) => {
            let _ = file.set_len(length);
            Err(error)
        }
    }
}

/// The lines that were written whole, each with its end.
pub fn whole_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"))
}

/// Puts a complete directory at a place where another may be, so that at every instant one of the two is there. `aside` holds the old one
/// for a moment where the file system can't exchange two names at once; [`recover`] knows it. The old one is removed.
pub fn swap_dir(new: &Path, place: &Path, aside: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let parent = place.parent().unwrap_or(Path::new("/"));
    sync_dir(new)?;
    if !place.exists() {
        fs::rename(new, place)?;
        return sync_dir(parent);
    }
    match renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE) {
        Ok(()) => {
            sync_dir(parent)?;
            remove(new)
        }
        // Old kernels and some file systems.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            by_two_renames(new, place, aside)
        }
        Err(error) => Err(error.into()),
    }
}

fn by_two_renames(new: &Path, place: &Path, aside: &Path) -> io::Result<()> {
    let parent = place.parent().unwrap_or(Path::new("/"));
    remove(aside)?;
    fs::rename(place, aside)?;
    fs::rename(new, place)?;
    sync_dir(parent)?;
    remove(aside)
}

/// Puts in order what a crash during [`swap_dir`] or before it left: an old directory without a new one comes back, half-made and replaced
/// ones go.
pub fn recover(new: &Path, place: &Path, aside: &Path) -> io::Result<()> {
    if aside.exists() && !place.exists() {
        fs::rename(aside, place)?;
        sync_dir(place.parent().unwrap_or(Path::new("/")))?;
    }
    remove(aside)?;
    remove(new)
}

/// Makes a rename or a removal durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Writes a document, private to root.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    replace(path, &serde_json::to_vec_pretty(value)?, PRIVATE)
}

/// Reads a document; `None` when it is not there or half of one.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// All regular files below a directory, as paths relative to it, sorted. Links are not followed.
pub fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    if let Ok(relative) = entry.path().strip_prefix(root) {
                        found.push(relative.to_owned());
                    }
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Removes a file or a directory if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mark(dir: &Path, text: &str) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("mark"), text).unwrap();
    }

    fn marked(dir: &Path) -> Option<String> {
        fs::read_to_string(dir.join("mark")).ok()
    }

    #[test]
    fn a_directory_is_swapped_in_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let [new, place, aside] = ["new", "place", "aside"].map(|name| dir.path().join(name));
        mark(&new, "1");
        swap_dir(&new, &place, &aside).unwrap();
        assert_eq!(marked(&place).as_deref(), Some("1"));
        mark(&new, "2");
        swap_dir(&new, &place, &aside).unwrap();
        assert_eq!(marked(&place).as_deref(), Some("2"));
        mark(&new, "3");
        by_two_renames(&new, &place, &aside).unwrap();
        assert_eq!(marked(&place).as_deref(), Some("3"));
        assert!(!new.exists() && !aside.exists());
    }

    /// Every state that a kill can leave, by what is where: new one half made, new one complete, between the two renames, exchanged but
    /// the old one not removed, renamed twice but the old one not removed.
    #[test]
    fn whatever_the_instant_of_the_kill_one_complete_directory_is_left() {
        for (new, place, aside, left) in [
            (Some("half"), Some("old"), None, "old"),
            (Some("new"), Some("old"), None, "old"),
            (Some("new"), None, Some("old"), "old"),
            (Some("old"), Some("new"), None, "new"),
            (None, Some("new"), Some("old"), "new"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let paths = ["new", "place", "aside"].map(|name| dir.path().join(name));
            for (path, text) in paths.iter().zip([new, place, aside]) {
                if let Some(text) = text {
                    mark(path, text);
                }
            }
            recover(&paths[0], &paths[1], &paths[2]).unwrap();
            assert_eq!(marked(&paths[1]).as_deref(), Some(left));
            assert!(!paths[0].exists() && !paths[2].exists());
        }
    }

    #[test]
    fn replaced_files_have_the_mode_and_nothing_stays_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mine = Ownership::of(dir.path()).unwrap();
        replace(&path, b"1", Ownership { mode: 0o660, ..mine }).unwrap();
        replace(&path, b"2", Ownership { mode: 0o640, ..mine }).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(Ownership::of(&path).unwrap().mode, 0o640);
        assert_eq!(walk(dir.path()), [PathBuf::from("a")]);
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
