//! The ownership change. The old owners are written down before the first one is changed.

use crate::entry::{Walk, join};
use crate::error::{At, HelperError};
use crate::manifest::{escape, sync_parent};
use crate::mounts::LeftAlone;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What was done.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Entries whose owner was changed by this run.
    pub changed: u64,
    /// Entries that had the wanted owner already.
    pub already: u64,
    /// Milliseconds.
    pub took_ms: u64,
}

/// Gives everything below `root` to `uid:gid`, what is mounted there read-only left out.
pub fn run(root: &Path, uid: u32, gid: u32, record: &Path, leave: &[PathBuf]) -> Result<Report, HelperError> {
    let started = Instant::now();
    let left = LeftAlone::with_read_only(root, leave)?;
    // A record that is there was written by a run that was killed later: what it says is older than what is on the disk now.
    if fs::symlink_metadata(record).is_err() {
        write_record(root, record, &left)?;
    }
    let mut report = Report::default();
    let mut failures: Option<(u64, PathBuf, std::io::Error)> = None;
    for found in Walk::new(root, false).leaving(&left) {
        let (relative, meta) = found?;
        if meta.uid() == uid && meta.gid() == gid {
            report.already += 1;
            continue;
        }
        let path = join(root, &relative);
        match (lchown(&path, Some(uid), Some(gid)), &mut failures) {
            (Ok(()), _) => report.changed += 1,
            (Err(_), Some((count, _, _))) => *count += 1,
            (Err(error), none) => *none = Some((1, path, error)),
        }
    }
    if let Some((count, path, source)) = failures {
        return Err(HelperError::Owners { count, path, source });
    }
    let volume = File::open(root).at("open", root)?;
    rustix::fs::syncfs(&volume).at("sync", root)?;
    report.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

fn write_record(root: &Path, record: &Path, left: &LeftAlone) -> Result<(), HelperError> {
    let fresh = record.with_extension("new");
    let mut out = BufWriter::new(File::create(&fresh).at("create", &fresh)?);
    for found in Walk::new(root, false).leaving(left) {
        let (relative, meta) = found?;
        writeln!(out, "{} {} {}", meta.uid(), meta.gid(), escape(&relative)).at("write", &fresh)?;
    }
    let file = out
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .at("write", &fresh)?;
    file.sync_all().at("sync", &fresh)?;
    fs::rename(&fresh, record).at("rename", &fresh)?;
    sync_parent(record)
}
