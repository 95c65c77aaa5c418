//! Brings a copy back: afterwards the tree is what it was when it was copied, owners and times included.

use crate::entry::{Kind, Stamp, Walk, join};
use crate::error::{At, HelperError};
use crate::file;
use crate::mounts::LeftAlone;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What was done.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Files in the restored tree.
    pub files: u64,
    /// Files whose bytes were brought back.
    pub copied_files: u64,
    /// Bytes brought back.
    pub copied_bytes: u64,
    /// Entries removed because the copy does not have them.
    pub removed: u64,
    /// Milliseconds.
    pub took_ms: u64,
}

/// Makes `to` equal to `from`, what is mounted there read-only left out: it can't have changed. Files with the same size and modification
/// time to the nanosecond are taken as equal.
pub fn run(from: &Path, to: &Path, leave: &[PathBuf]) -> Result<Report, HelperError> {
    let started = Instant::now();
    let left = LeftAlone::with_read_only(to, leave)?;
    let mut report = Report::default();
    let mut wanted: BTreeSet<PathBuf> = BTreeSet::new();
    let mut dirs: Vec<(PathBuf, Metadata)> = Vec::new();
    let mut links: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    for found in Walk::new(from, false).leaving(&left) {
        let (relative, meta) = found?;
        let (source, target) = (join(from, &relative), join(to, &relative));
        match Kind::of(&meta) {
            Kind::Dir => {
                if !fs::symlink_metadata(&target).is_ok_and(|there| there.is_dir()) {
                    file::remove(&target)?;
                    fs::create_dir(&target).at("create", &target)?;
                }
                dirs.push((relative.clone(), meta));
            }
            Kind::File => {
                report.files += 1;
                let first = (meta.nlink() > 1)
                    .then(|| links.get(&(meta.dev(), meta.ino())).cloned())
                    .flatten();
                if let Some(first) = first {
                    relink(&first, &target)?;
                } else {
                    restore_file(&source, &meta, &target, &mut report)?;
                    if meta.nlink() > 1 {
                        links.insert((meta.dev(), meta.ino()), target);
                    }
                }
            }
            kind @ (Kind::Link | Kind::Fifo) => {
                file::make_other(kind, &source, &target)?;
                file::copy_metadata(&source, &meta, &target)?;
            }
            Kind::Other => {}
        }
        wanted.insert(relative);
    }
    report.removed = remove_extra(to, &wanted, &left)?;
    for (relative, meta) in dirs.iter().rev() {
        file::copy_metadata(&join(from, relative), meta, &join(to, relative))?;
    }
    let volume = File::open(to).at("open", to)?;
    rustix::fs::syncfs(&volume).at("sync", to)?;
    report.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

fn restore_file(
    source: &Path,
    meta: &Metadata,
    target: &Path,
    report: &mut Report,
) -> Result<(), HelperError> {
    let same = fs::symlink_metadata(target).is_ok_and(|there| {
        let (a, b) = (Stamp::of(&there), Stamp::of(meta));
        // A file that shares its inode with others may share it with ones that the copy does not link it to.
        there.nlink() == meta.nlink() && a.kind == b.kind && a.size == b.size && a.mtime == b.mtime
    });
    if !same {
        let (length, _) = file::copy_bytes(source, target)?;
        report.copied_files += 1;
        report.copied_bytes += length;
    }
    file::copy_metadata(source, meta, target)
}

fn relink(first: &Path, target: &Path) -> Result<(), HelperError> {
    let wanted = fs::symlink_metadata(first).at("look at", first)?.ino();
    if fs::symlink_metadata(target).is_ok_and(|there| there.ino() == wanted) {
        return Ok(());
    }
    file::remove(target)?;
    fs::hard_link(first, target).at("link", target)
}

fn remove_extra(to: &Path, wanted: &BTreeSet<PathBuf>, left: &LeftAlone) -> Result<u64, HelperError> {
    let mut extra: Vec<PathBuf> = Vec::new();
    for found in Walk::new(to, true).leaving(left) {
        let (relative, _) = found?;
        let inside = extra.last().is_some_and(|last| relative.starts_with(last));
        if !inside && !wanted.contains(&relative) {
            extra.push(relative);
        }
    }
    for relative in &extra {
        file::remove(&join(to, relative))?;
    }
    Ok(extra.len() as u64)
}
