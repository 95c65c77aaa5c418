//! Files that agents may fetch, in `<data>/artifacts`, known by their digest only: no name or path of a peer is ever used. Regular files
//! only; links are not followed. A file is hashed once and again only when it changed.

use crate::config;
use fs_err as fs;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The directory with its index; cheap to clone.
#[derive(Clone)]
pub struct Artifacts {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    files: BTreeMap<PathBuf, Known>,
    looked: Option<Instant>,
}

/// What tells that a file is still the one that was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

struct Known {
    stamp: Stamp,
    sha256: String,
}

/// A file that is open for one peer.
pub struct Opened {
    file: std::fs::File,
    stamp: Stamp,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// No file has this digest.
    #[error("there is no file with this SHA-256")]
    Unknown,
    /// The offset is behind the end.
    #[error("the file is {0} bytes long")]
    Offset(u64),
    /// It was replaced or written to while it was read.
    #[error("the file was changed while it was read")]
    Changed,
    /// A name that can't stand in the directory.
    #[error("`{0}` is no plain file name")]
    Name(String),
    /// More than a file may be.
    #[error("more than {0} bytes")]
    TooLong(u64),
    /// The file system refused.
    #[error("the artifacts can't be read or written")]
    Io(#[from] io::Error),
}

impl Artifacts {
    /// With the files that are there now. The directory is made when it is missing.
    pub fn open(dir: &Path) -> io::Result<Self> {
        crate::config::permissions::private_dir(dir)?;
        let artifacts = Self {
            inner: Arc::new(Inner {
                dir: dir.to_owned(),
                index: Mutex::default(),
            }),
        };
        artifacts.look(true)?;
        Ok(artifacts)
    }

    /// Opens a file by digest, at an offset. Blocks on the disk.
    pub fn find(&self, sha256: &str, offset: u64) -> Result<Opened, ArtifactError> {
        let mut found = self.known(sha256);
        if found.is_none() {
            self.look(false)?;
            found = self.known(sha256);
        }
        let (path, stamp) = found.ok_or(ArtifactError::Unknown)?;
        let mut file = no_link(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ArtifactError::Unknown,
            _ => error.into(),
        })?;
        if stamp_of(&file.metadata()?) != stamp {
            self.look(true)?;
            return Err(ArtifactError::Changed);
        }
        if offset > stamp.length {
            return Err(ArtifactError::Offset(stamp.length));
        }
        file.seek(SeekFrom::Start(offset))?;
        Ok(Opened { file, stamp })
    }

    /// Takes a file in; its digest and length. What is there under this name is replaced as a whole.
    pub fn import(
        &self,
        name: &str,
        parts: impl Iterator<Item = io::Result<Vec<u8>>>,
    ) -> Result<(String, u64), ArtifactError> {
        let plain = !name.is_empty()
            && name.len() <= 200
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_+~".contains(&byte));
        if !plain {
            return Err(ArtifactError::Name(name.to_owned()));
        }
        let beside = self.inner.dir.join(format!(".{}", uuid::Uuid::new_v4().simple()));
        let written = write(&beside, parts);
        let result = written.and_then(|written| {
            fs::rename(&beside, self.inner.dir.join(name))?;
            fs::File::open(&self.inner.dir)?.sync_all()?;
            Ok(written)
        });
        if result.is_err() {
            let _ = fs::remove_file(&beside);
        }
        self.look(true)?;
        result
    }

    fn known(&self, sha256: &str) -> Option<(PathBuf, Stamp)> {
        let index = self.inner.index.lock().unwrap_or_else(PoisonError::into_inner);
        index
            .files
            .iter()
            .find(|(_, known)| known.sha256 == sha256)
            .map(|(path, known)| (path.clone(), known.stamp))
    }

    /// Brings the index up to date; on behalf of a peer only now and then, so that nobody can keep the disk busy with unknown digests.
    fn look(&self, at_once: bool) -> io::Result<()> {
        let mut index = self.inner.index.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = index
            .looked
            .is_some_and(|looked| looked.elapsed() < config::ARTIFACTS_LOOK);
        if lately && !at_once {
            return Ok(());
        }
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&self.inner.dir)?.flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            // What vanishes or can't be read meanwhile is not offered.
            let Ok(mut file) = no_link(&path) else { continue };
            let Ok(meta) = file.metadata() else { continue };
            if !meta.is_file() {
                continue;
            }
            let stamp = stamp_of(&meta);
            let known = match index.files.remove(&path) {
                Some(known) if known.stamp == stamp => known,
                _ => match digest(&mut file) {
                    Ok(sha256) if file.metadata().is_ok_and(|meta| stamp_of(&meta) == stamp) => {
                        Known { stamp, sha256 }
                    }
                    _ => continue,
                },
            };
            files.insert(path, known);
        }
        index.files = files;
        index.looked = Some(Instant::now());
        Ok(())
    }
}

impl Opened {
    /// Length of the whole file.
    pub fn length(&self) -> u64 {
        self.stamp.length
    }

    /// The next piece; empty at the end. Blocks on the disk.
    pub fn next_piece(&mut self) -> Result<Vec<u8>, ArtifactError> {
        let mut piece = Vec::with_capacity(config::ARTIFACT_CHUNK);
        (&self.file)
            .take(config::ARTIFACT_CHUNK as u64)
            .read_to_end(&mut piece)?;
        if stamp_of(&self.file.metadata()?) != self.stamp {
            return Err(ArtifactError::Changed);
        }
        Ok(piece)
    }
}

fn write(
    path: &Path,
    parts: impl Iterator<Item = io::Result<Vec<u8>>>,
) -> Result<(String, u64), ArtifactError> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let (mut hash, mut length) = (Sha256::new(), 0u64);
    for part in parts {
        let part = part?;
        length += part.len() as u64;
        if length > config::ARTIFACT_LIMIT {
            return Err(ArtifactError::TooLong(config::ARTIFACT_LIMIT));
        }
        hash.update(&part);
        file.write_all(&part)?;
    }
    file.sync_all()?;
    Ok((hex::encode(hash.finalize()), length))
}

fn no_link(path: &Path) -> io::Result<std::fs::File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
        .open(path)
}

fn stamp_of(meta: &std::fs::Metadata) -> Stamp {
    Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        length: meta.len(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    }
}

fn digest(file: &mut std::fs::File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; config::ARTIFACT_CHUNK];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use fleet_common::digest::sha256_hex;

    fn all(opened: &mut Opened) -> Result<Vec<u8>, ArtifactError> {
        let mut bytes = Vec::new();
        loop {
            let piece = opened.next_piece()?;
            if piece.is_empty() {
                return Ok(bytes);
            }
            bytes.extend(piece);
        }
    }

    #[test]
    fn files_are_found_by_digest_from_an_offset_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("artifacts");
        let artifacts = Artifacts::open(&place).unwrap();
        let bytes: Vec<u8> = (0..200_000u32).map(|number| (number % 251) as u8).collect();
        let parts = bytes.chunks(1000).map(|part| Ok(part.to_vec()));
        let (sha256, length) = artifacts.import("a.deb", parts).unwrap();
        assert_eq!((sha256.as_str(), length), (sha256_hex(&bytes).as_str(), 200_000));
        assert_eq!(all(&mut artifacts.find(&sha256, 0).unwrap()).unwrap(), bytes);
        assert_eq!(
            all(&mut artifacts.find(&sha256, 70_000).unwrap()).unwrap(),
            bytes[70_000..]
        );
        assert!(matches!(
            artifacts.find(&sha256, 200_001),
            Err(ArtifactError::Offset(200_000))
        ));
        let secret = dir.path().join("secret");
        fs::write(&secret, b"secret").unwrap();
        std::os::unix::fs::symlink(&secret, place.join("link")).unwrap();
        artifacts.look(true).unwrap();
        assert!(matches!(
            artifacts.find(&sha256_hex(b"secret"), 0),
            Err(ArtifactError::Unknown)
        ));
    }

    #[test]
    fn a_file_that_is_changed_underneath_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("artifacts");
        let artifacts = Artifacts::open(&place).unwrap();
        let bytes = vec![7u8; 3 * config::ARTIFACT_CHUNK];
        let (sha256, _) = artifacts
            .import("a.deb", std::iter::once(Ok(bytes.clone())))
            .unwrap();
        let mut opened = artifacts.find(&sha256, 0).unwrap();
        assert_eq!(opened.next_piece().unwrap().len(), config::ARTIFACT_CHUNK);
        fs::write(place.join("a.deb"), b"another").unwrap();
        assert!(matches!(opened.next_piece(), Err(ArtifactError::Changed)));
        assert!(matches!(artifacts.find(&sha256, 0), Err(ArtifactError::Changed)));
        assert!(matches!(artifacts.find(&sha256, 0), Err(ArtifactError::Unknown)));
        assert!(artifacts.find(&sha256_hex(b"another"), 0).is_ok());
    }

    #[test]
    fn names_stay_in_the_directory_and_half_a_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(&dir.path().join("artifacts")).unwrap();
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "a b"] {
            let imported = artifacts.import(bad, std::iter::once(Ok(vec![1])));
            assert!(matches!(imported, Err(ArtifactError::Name(_))), "{bad}");
        }
        let parts = [Ok(vec![1]), Err(io::Error::other("the line is cut"))];
        assert!(artifacts.import("a.deb", parts.into_iter()).is_err());
        assert_eq!(fs::read_dir(dir.path().join("artifacts")).unwrap().count(), 0);
    }
}
