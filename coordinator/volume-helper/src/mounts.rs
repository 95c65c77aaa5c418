//! What is mounted read-only below the data directory: nothing writes there through the container, so it needs no copy, no new owner and
//! no way back, and every attempt to give it one fails.

use crate::error::{At, HelperError};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Paths, relative to the data directory, that are left alone with everything below them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftAlone(Vec<PathBuf>);

impl LeftAlone {
    /// What the caller names, as absolute paths; paths that are not below `root` are none of its.
    pub fn named(root: &Path, paths: &[PathBuf]) -> Self {
        Self(paths.iter().filter_map(|path| below(root, path)).collect())
    }

    /// As `named`, and what this mount namespace has mounted read-only below `root`.
    pub fn with_read_only(root: &Path, paths: &[PathBuf]) -> Result<Self, HelperError> {
        let info = fs::read(MOUNTINFO).at("read", Path::new(MOUNTINFO))?;
        let mut all = Self::named(root, paths);
        all.0
            .extend(read_only(&info).into_iter().filter_map(|path| below(root, &path)));
        Ok(all)
    }

    /// Whether this path belongs to it.
    pub fn covers(&self, relative: &Path) -> bool {
        self.0.iter().any(|left| relative.starts_with(left))
    }

    /// The paths.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
    }
}

fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    let relative = path.strip_prefix(root).ok()?;
    (!relative.as_os_str().is_empty()).then(|| relative.to_owned())
}

/// Mount points that take no writes: fields 5 and 6 of a line are the mount point and its own options, the last one is the file system's
/// (proc_pid_mountinfo(5)). Of several mounts on one point the last one counts.
fn read_only(info: &[u8]) -> Vec<PathBuf> {
    let mut points: BTreeMap<PathBuf, bool> = BTreeMap::new();
    for line in info.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let (Some(point), Some(own), Some(whole)) = (fields.get(4), fields.get(5), fields.last()) else {
            continue;
        };
        points.insert(unescape(point), refuses_writes(own) || refuses_writes(whole));
    }
    points
        .into_iter()
        .filter_map(|(point, refuses)| refuses.then_some(point))
        .collect()
}

fn refuses_writes(options: &[u8]) -> bool {
    options.split(|byte| *byte == b',').any(|option| option == b"ro")
}

/// Blanks and the like are written as a backslash and three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| *byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// Whether the mode lets a process of this user and group read the entry; directories must be entered as well.
pub fn readable(meta: &fs::Metadata, uid: u32, gid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let shift = if meta.uid() == uid {
        6
    } else if meta.gid() == gid {
        3
    } else {
        0
    };
    let wanted = if meta.is_dir() { 0o5 } else { 0o4 };
    (meta.mode() >> shift) & wanted == wanted
}

/// A path as text for people, relative to the data directory.
pub fn shown(root: &Path, relative: &Path) -> String {
    String::from_utf8_lossy(root.join(relative).as_os_str().as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn read_only_mounts_are_found_by_either_option() {
        let info = b"22 1 0:20 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/a\n\
            30 22 8:1 /v /srv rw,relatime - ext4 /dev/sda1 rw\n\
            31 30 8:1 /f /srv/prometheus/prometheus.base.yml ro,relatime master:2 - ext4 /dev/sda1 rw\n\
            32 30 8:2 /n /srv/my\\040certs rw - ext4 /dev/sdb1 ro\n\
            33 30 8:2 /n /srv/again ro - ext4 /dev/sdb1 rw\n\
            34 33 8:2 /n /srv/again rw - ext4 /dev/sdb1 rw\n\
            35 22 8:2 /n /other ro - ext4 /dev/sdb1 rw\n";
        let points = read_only(info);
        let root = Path::new("/srv");
        let inside: Vec<PathBuf> = points.iter().filter_map(|path| below(root, path)).collect();
        assert_eq!(
            inside,
            [
                PathBuf::from("my certs"),
                PathBuf::from("prometheus/prometheus.base.yml")
            ]
        );
        let left = LeftAlone(inside);
        assert!(left.covers(Path::new("my certs/a/b")));
        assert!(!left.covers(Path::new("my certs2")));
        assert!(!left.covers(Path::new("")));
        assert_eq!(
            LeftAlone::named(root, &[PathBuf::from("/srv"), PathBuf::from("/srv/nginx/")]),
            LeftAlone(vec![PathBuf::from("nginx")])
        );
    }
}
