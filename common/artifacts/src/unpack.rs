//! Unpacking one entry at a time; the tar crate's own `unpack` is not used.

use flate2::read::GzDecoder;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use tar::{Archive, EntryType};

/// How much an archive may contain.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most entries.
    pub entries: u64,
    /// Most bytes in all files together.
    pub bytes: u64,
}

impl Default for Limits {
    /// A PMM client tarball has below a hundred entries and some 700 MB; ten times and three times that.
    fn default() -> Self {
        Self {
            entries: 1_000,
            bytes: 2 * 1024 * 1024 * 1024,
        }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries.
    pub entries: u64,
    /// Bytes in files.
    pub bytes: u64,
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Reading the archive or writing a file failed.
    #[error("can't unpack {what}")]
    Io {
        /// The archive or the entry.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An entry that would be written elsewhere.
    #[error("entry {0} leaves the target directory")]
    Escapes(String),
    /// An entry that is no file, directory or link.
    #[error("entry {0} is of a kind that is not unpacked")]
    Kind(String),
    /// The same file twice, or a file below a link.
    #[error("entry {0} is there twice or lies below a link")]
    Doubled(String),
    /// Too much.
    #[error("the archive holds more than {0}")]
    TooMuch(String),
}

/// Unpacks into a directory, which must be new or empty. Owners are not restored; modes are, without set-uid, set-gid and sticky bits.
pub fn unpack_tar_gz(archive: &Path, target: &Path, limits: Limits) -> Result<Unpacked, UnpackError> {
    let io = |what: &Path| {
        let what = what.display().to_string();
        move |source| UnpackError::Io { what, source }
    };
    let file = fs::File::open(archive).map_err(io(archive))?;
    fs::create_dir_all(target).map_err(io(target))?;
    let mut tar = Archive::new(GzDecoder::new(io::BufReader::new(file)));
    let mut done = Unpacked::default();
    let mut links: BTreeSet<PathBuf> = BTreeSet::new();
    for entry in tar.entries().map_err(io(archive))? {
        let mut entry = entry.map_err(io(archive))?;
        let named = entry.path().map_err(io(archive))?.into_owned();
        let name = named.display().to_string();
        let Some(relative) = inside(&named) else {
            return Err(UnpackError::Escapes(name));
        };
        done.entries += 1;
        if done.entries > limits.entries {
            return Err(UnpackError::TooMuch(format!("{} entries", limits.entries)));
        }
        if relative.as_os_str().is_empty() {
            continue;
        }
        if relative.ancestors().skip(1).any(|parent| links.contains(parent)) {
            return Err(UnpackError::Doubled(name));
        }
        let path = target.join(&relative);
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&path).map_err(io(&path))?,
            EntryType::Regular | EntryType::Continuous => {
                parent_of(&path)?;
                let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
                let mut out = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
                    .map_err(|source| match source.kind() {
                        io::ErrorKind::AlreadyExists => UnpackError::Doubled(name.clone()),
                        _ => UnpackError::Io {
                            what: name.clone(),
                            source,
                        },
                    })?;
                let room = limits.bytes - done.bytes;
                let written = io::copy(&mut (&mut entry).take(room + 1), &mut out).map_err(io(&path))?;
                if written > room {
                    return Err(UnpackError::TooMuch(format!("{} bytes", limits.bytes)));
                }
                done.bytes += written;
                out.set_permissions(fs::Permissions::from_mode(mode))
                    .map_err(io(&path))?;
                out.sync_all().map_err(io(&path))?;
            }
            EntryType::Symlink => {
                let to = entry
                    .link_name()
                    .map_err(io(&path))?
                    .map(std::borrow::Cow::into_owned)
                    .unwrap_or_default();
                let within = relative.parent().unwrap_or(Path::new("")).join(&to);
                if to.is_absolute() || normalise(&within).is_none() {
                    return Err(UnpackError::Escapes(name));
                }
                parent_of(&path)?;
                symlink(&to, &path).map_err(io(&path))?;
                links.insert(relative);
            }
            EntryType::XGlobalHeader => {}
            _ => return Err(UnpackError::Kind(name)),
        }
    }
    Ok(done)
}

fn parent_of(path: &Path) -> Result<(), UnpackError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    fs::create_dir_all(parent).map_err(|source| UnpackError::Io {
        what: parent.display().to_string(),
        source,
    })
}

/// The entry's path without `.`; `None` for absolute paths and any `..`.
fn inside(path: &Path) -> Option<PathBuf> {
    path.components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect()
}

/// The path with `..` resolved by text; `None` when it leaves its root.
fn normalise(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !out.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use tar::{Builder, Header};

    struct Made {
        name: &'static str,
        kind: EntryType,
        link: &'static str,
        data: Vec<u8>,
        mode: u32,
    }

    fn file(name: &'static str, data: &[u8]) -> Made {
        Made {
            name,
            kind: EntryType::Regular,
            link: "",
            data: data.to_vec(),
            mode: 0o4755,
        }
    }

    fn link(name: &'static str, kind: EntryType, link: &'static str) -> Made {
        Made {
            name,
            kind,
            link,
            data: vec![],
            mode: 0o777,
        }
    }

    fn unpack(entries: &[Made], limits: Limits) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        let mut builder = Builder::new(GzEncoder::new(
            fs::File::create(&path).unwrap(),
            Compression::fast(),
        ));
        for made in entries {
            let mut header = Header::new_gnu();
            // Written by hand, because the builder refuses the names that an attacker would use.
            header.as_gnu_mut().unwrap().name[..made.name.len()].copy_from_slice(made.name.as_bytes());
            header.as_gnu_mut().unwrap().linkname[..made.link.len()].copy_from_slice(made.link.as_bytes());
            header.set_entry_type(made.kind);
            header.set_mode(made.mode);
            header.set_size(made.data.len() as u64);
            header.set_cksum();
            builder.append(&header, &made.data[..]).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap();
        let result = unpack_tar_gz(&path, &dir.path().join("out"), limits);
        (dir, result)
    }

    #[test]
    fn a_good_archive_is_unpacked_without_set_uid() {
        let entries = [
            file("./p/bin/agent", b"x"),
            link("p/agent", EntryType::Symlink, "bin/agent"),
        ];
        let (dir, result) = unpack(&entries, Limits::default());
        assert_eq!(result.unwrap(), Unpacked { entries: 2, bytes: 1 });
        let mode = fs::metadata(dir.path().join("out/p/bin/agent"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o755);
        assert_eq!(fs::read(dir.path().join("out/p/agent")).unwrap(), b"x");
    }

    #[test]
    fn everything_that_leaves_the_target_is_refused() {
        for bad in [
            file("../x", b""),
            file("/etc/x", b""),
            file("a/../../x", b""),
            link("l", EntryType::Symlink, "/etc"),
            link("l", EntryType::Symlink, "../.."),
        ] {
            let name = bad.name;
            assert!(
                matches!(unpack(&[bad], Limits::default()).1, Err(UnpackError::Escapes(_))),
                "{name}"
            );
        }
    }

    #[test]
    fn files_below_links_doubles_and_devices_are_refused() {
        let below = [link("l", EntryType::Symlink, "d"), file("l/x", b"")];
        assert!(matches!(
            unpack(&below, Limits::default()).1,
            Err(UnpackError::Doubled(_))
        ));
        assert!(matches!(
            unpack(&[file("x", b""), file("x", b"")], Limits::default()).1,
            Err(UnpackError::Doubled(_))
        ));
        for kind in [
            EntryType::Char,
            EntryType::Block,
            EntryType::Fifo,
            EntryType::Link,
        ] {
            assert!(matches!(
                unpack(&[link("x", kind, "y")], Limits::default()).1,
                Err(UnpackError::Kind(_))
            ));
        }
    }

    #[test]
    fn limits_hold() {
        let limits = Limits {
            entries: 10,
            bytes: 1000,
        };
        assert!(matches!(
            unpack(&[file("a", &[0; 600]), file("b", &[0; 600])], limits).1,
            Err(UnpackError::TooMuch(_))
        ));
        let many: Vec<_> = ["a", "b", "c"].into_iter().map(|name| file(name, b"")).collect();
        assert!(matches!(
            unpack(
                &many,
                Limits {
                    entries: 2,
                    bytes: 10
                }
            )
            .1,
            Err(UnpackError::TooMuch(_))
        ));
    }
}
