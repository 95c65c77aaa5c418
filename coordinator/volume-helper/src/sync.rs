//! A copy of a tree in two passes: the first while PMM runs, the second, after everything stopped, copies only what changed since.

use crate::entry::{Kind, Stamp, Walk, join};
use crate::error::{At, HelperError};
use crate::file;
use crate::look;
use crate::manifest::{self, Line, Manifest};
use crate::mounts::LeftAlone;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A change this close before the reading may hide a second one with the same change time (file systems stamp with the timer tick).
const RACY_NS: i128 = 2_000_000_000;

/// What a pass did.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Files in the copy.
    pub files: u64,
    /// Directories in the copy.
    pub dirs: u64,
    /// Bytes in the copy.
    pub bytes: u64,
    /// Files copied by this pass.
    pub copied_files: u64,
    /// Bytes copied by this pass.
    pub copied_bytes: u64,
    /// Entries removed because the source no longer has them.
    pub removed: u64,
    /// Entries that vanished while they were copied (first pass only).
    pub vanished: u64,
    /// Sockets and devices, which are not copied.
    pub skipped: u64,
    /// Milliseconds.
    pub took_ms: u64,
    /// After the final pass: what the source says about itself.
    pub source: Option<look::Report>,
    /// After the final pass: the same of the copy, counted.
    pub copy: Option<look::Report>,
}

/// Copies `from` to `to`. A pass that is not live is the final one and looks at both sides once more. What is read-only for PMM is named
/// by the caller: while copying, everything is mounted read-only.
pub fn run(
    from: &Path,
    to: &Path,
    manifest_path: &Path,
    live: bool,
    leave: &[PathBuf],
) -> Result<Report, HelperError> {
    let started = Instant::now();
    let left = LeftAlone::named(from, leave);
    let before = manifest::read(manifest_path)?;
    if before.is_none() {
        file::remove(to)?;
    }
    fs::create_dir_all(to).at("create", to)?;
    let mut pass = Pass {
        from,
        to,
        live,
        before: before.unwrap_or_default(),
        after: Manifest::new(),
        links: BTreeMap::new(),
        report: Report::default(),
    };
    let mut dirs: Vec<(PathBuf, Metadata)> = Vec::new();
    for found in Walk::new(from, live).leaving(&left) {
        let (relative, meta) = found?;
        if meta.is_dir() {
            dirs.push((relative.clone(), meta.clone()));
        }
        match pass.entry(&relative, &meta) {
            Err(error) if live && error.vanished() => pass.report.vanished += 1,
            other => other?,
        }
    }
    pass.remove_gone()?;
    // Children change the times of their directory, so directories come last, deepest first.
    for (relative, meta) in dirs.iter().rev() {
        match file::copy_metadata(&join(from, relative), meta, &join(to, relative)) {
            Err(error) if live && error.vanished() => pass.report.vanished += 1,
            other => other?,
        }
    }
    let volume = File::open(to).at("open", to)?;
    rustix::fs::syncfs(&volume).at("sync", to)?;
    manifest::write(manifest_path, &pass.after)?;
    if !live {
        pass.report.source = Some(look::run(from, None, false, leave, None)?);
        pass.report.copy = Some(look::run(to, None, true, &[], None)?);
    }
    pass.report.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(pass.report)
}

struct Pass<'a> {
    from: &'a Path,
    to: &'a Path,
    live: bool,
    before: Manifest,
    after: Manifest,
    /// First copy of a file with several names, by device and inode of the source.
    links: BTreeMap<(u64, u64), PathBuf>,
    report: Report,
}

impl Pass<'_> {
    fn entry(&mut self, relative: &Path, meta: &Metadata) -> Result<(), HelperError> {
        let stamp = Stamp::of(meta);
        let source = join(self.from, relative);
        let target = join(self.to, relative);
        let racy = now_ns() - stamp.ctime < RACY_NS;
        let old = self
            .before
            .get(relative)
            .filter(|line| !line.racy && line.stamp == stamp)
            .cloned();
        let mut digest = old.as_ref().map_or_else(String::new, |line| line.digest.clone());
        match stamp.kind {
            Kind::Other => {
                self.report.skipped += 1;
                return Ok(());
            }
            Kind::Dir => {
                if !fs::symlink_metadata(&target).is_ok_and(|there| there.is_dir()) {
                    file::remove(&target)?;
                    fs::create_dir(&target).at("create", &target)?;
                }
                self.report.dirs += 1;
            }
            Kind::File if self.link(meta, &target)? => {}
            Kind::File => {
                if old.is_none() || !same_size(&target, stamp.size) {
                    let (length, fresh) = file::copy_bytes(&source, &target)?;
                    digest = fresh;
                    self.report.copied_files += 1;
                    self.report.copied_bytes += length;
                    file::copy_metadata(&source, meta, &target)?;
                }
                if meta.nlink() > 1 {
                    self.links.insert((meta.dev(), meta.ino()), target);
                }
            }
            Kind::Link | Kind::Fifo => {
                if old.is_none() || fs::symlink_metadata(&target).is_err() {
                    file::make_other(stamp.kind, &source, &target)?;
                    file::copy_metadata(&source, meta, &target)?;
                }
            }
        }
        if stamp.kind == Kind::File {
            self.report.files += 1;
            self.report.bytes += stamp.size;
        }
        self.after.insert(
            relative.to_owned(),
            Line {
                stamp,
                racy: racy && self.live,
                digest,
            },
        );
        Ok(())
    }

    /// For a further name of a file that is copied already: makes or keeps the link. False for the first name.
    fn link(&self, meta: &Metadata, target: &Path) -> Result<bool, HelperError> {
        if meta.nlink() < 2 {
            return Ok(false);
        }
        let Some(first) = self.links.get(&(meta.dev(), meta.ino())) else {
            return Ok(false);
        };
        let wanted = fs::symlink_metadata(first).at("look at", first)?.ino();
        if !fs::symlink_metadata(target).is_ok_and(|there| there.ino() == wanted) {
            file::remove(target)?;
            fs::hard_link(first, target).at("link", target)?;
        }
        Ok(true)
    }

    fn remove_gone(&mut self) -> Result<(), HelperError> {
        let gone: Vec<PathBuf> = self
            .before
            .keys()
            .filter(|path| !self.after.contains_key(*path))
            .cloned()
            .collect();
        for relative in gone {
            file::remove(&join(self.to, &relative))?;
            self.report.removed += 1;
        }
        Ok(())
    }
}

fn same_size(path: &Path, size: u64) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| there.is_file() && there.len() == size)
}

fn now_ns() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}
