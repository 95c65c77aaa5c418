//! What is at a path, and the walk over a tree in a fixed order.

use crate::error::{At, HelperError};
use crate::mounts::LeftAlone;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Directory.
    Dir,
    /// Regular file.
    File,
    /// Symbolic link.
    Link,
    /// Named pipe.
    Fifo,
    /// Sockets and devices: made anew by the services, never copied.
    Other,
}

impl Kind {
    /// One letter for the manifest.
    pub fn letter(self) -> char {
        match self {
            Self::Dir => 'd',
            Self::File => 'f',
            Self::Link => 'l',
            Self::Fifo => 'p',
            Self::Other => 'o',
        }
    }

    /// The kind of this metadata.
    pub fn of(meta: &Metadata) -> Self {
        let kind = meta.file_type();
        if kind.is_dir() {
            Self::Dir
        } else if kind.is_file() {
            Self::File
        } else if kind.is_symlink() {
            Self::Link
        } else if kind.is_fifo() {
            Self::Fifo
        } else {
            Self::Other
        }
    }
}

/// What decides whether a file has to be copied again. The change time also moves when only owner or mode changed, and it can't be set
/// back by programs, so it is what the second pass relies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Kind.
    pub kind: Kind,
    /// Size; 0 for anything but files.
    pub size: u64,
    /// Modification time, nanoseconds.
    pub mtime: i128,
    /// Change time, nanoseconds.
    pub ctime: i128,
    /// Inode number.
    pub inode: u64,
}

impl Stamp {
    /// The stamp of this metadata.
    pub fn of(meta: &Metadata) -> Self {
        let kind = Kind::of(meta);
        Self {
            kind,
            size: if kind == Kind::File { meta.len() } else { 0 },
            mtime: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            ctime: nanoseconds(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
        }
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(rest)
}

/// A walk over a tree, parents before children, names in byte order; the root itself comes first with an empty path.
pub struct Walk {
    root: PathBuf,
    stack: Vec<PathBuf>,
    live: bool,
    left: LeftAlone,
}

impl Walk {
    /// Walks `root`. With `live`, entries that vanish on the way are left out.
    pub fn new(root: &Path, live: bool) -> Self {
        Self {
            root: root.to_owned(),
            stack: vec![PathBuf::new()],
            live,
            left: LeftAlone::default(),
        }
    }

    /// Passes these by.
    pub fn leaving(mut self, left: &LeftAlone) -> Self {
        self.left = left.clone();
        self
    }

    fn look(&mut self, relative: &Path) -> Result<Option<Metadata>, HelperError> {
        let path = join(&self.root, relative);
        let found = fs::symlink_metadata(&path).at("look at", &path).and_then(|meta| {
            if meta.is_dir() {
                self.push_children(relative, &path)?;
            }
            Ok(meta)
        });
        match found {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if self.live && error.vanished() && !relative.as_os_str().is_empty() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn push_children(&mut self, relative: &Path, path: &Path) -> Result<(), HelperError> {
        let mut names: Vec<OsString> = Vec::new();
        for entry in fs::read_dir(path).at("list", path)? {
            names.push(entry.at("list", path)?.file_name());
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        let left = &self.left;
        self.stack.extend(
            names
                .into_iter()
                .map(|name| relative.join(name))
                .filter(|inside| !left.covers(inside)),
        );
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = Result<(PathBuf, Metadata), HelperError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(relative) = self.stack.pop() {
            match self.look(&relative) {
                Ok(Some(meta)) => return Some(Ok((relative, meta))),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

/// `root/relative`, without a slash at the end when `relative` is empty.
pub fn join(root: &Path, relative: &Path) -> PathBuf {
    if relative.as_os_str().is_empty() {
        root.to_owned()
    } else {
        root.join(relative)
    }
}
