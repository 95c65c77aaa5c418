//! What a PMM data directory says about itself without PMM running.

use crate::entry::{Kind, Walk};
use crate::error::{At, HelperError};
use crate::mounts::{LeftAlone, readable, shown};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Markers, sizes and space.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Nothing at all in the directory.
    pub empty: bool,
    /// Text of `pmm-distribution`; PMM initialises a fresh instance when it is absent (percona/pmm `entrypoint.sh`).
    pub distribution: Option<String>,
    /// Text of `grafana/PERCONA_DASHBOARDS_VERSION`, the version marker on the volume.
    pub dashboards_version: Option<String>,
    /// Text of `postgres14/PG_VERSION`.
    pub pg_version: Option<String>,
    /// Size of `pmm-encryption.key`.
    pub encryption_key: Option<u64>,
    /// `uid:gid` of the directory itself.
    pub owner: String,
    /// Size of each file in `logs`, so that old lines are not taken for new ones.
    pub logs: BTreeMap<String, u64>,
    /// Files, if counted.
    pub files: u64,
    /// Bytes, if counted.
    pub bytes: u64,
    /// Bytes that the file system of `--space`, else of the directory, still takes.
    pub free_bytes: u64,
    /// Entries of what is left alone that the reader's mode bits do not let it read: the first few.
    pub unreadable: Vec<String>,
    /// How many there are.
    pub unreadable_count: u64,
}

/// How many unreadable entries are named.
const NAMED: usize = 5;

/// Reads the markers below `root`, as far as they are not in what is left alone. Free space is measured at `space`, else at `root`. Whether
/// the user and group `reader` may read what is left alone is checked if it is given.
pub fn run(
    root: &Path,
    space: Option<&Path>,
    count: bool,
    leave: &[PathBuf],
    reader: Option<(u32, u32)>,
) -> Result<Report, HelperError> {
    let left = LeftAlone::named(root, leave);
    let text = |relative: &str| {
        (!left.covers(Path::new(relative)))
            .then(|| text(&root.join(relative)))
            .flatten()
    };
    let meta = fs::symlink_metadata(root).at("look at", root)?;
    let measured = space.unwrap_or(root);
    let space = rustix::fs::statvfs(measured).at("measure", measured)?;
    let mut report = Report {
        empty: fs::read_dir(root).at("list", root)?.next().is_none(),
        distribution: text("pmm-distribution"),
        dashboards_version: text("grafana/PERCONA_DASHBOARDS_VERSION"),
        pg_version: text("postgres14/PG_VERSION"),
        encryption_key: fs::metadata(root.join("pmm-encryption.key"))
            .ok()
            .filter(|_| !left.covers(Path::new("pmm-encryption.key")))
            .map(|key| key.len()),
        owner: format!("{}:{}", meta.uid(), meta.gid()),
        free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        ..Report::default()
    };
    for entry in fs::read_dir(root.join("logs")).into_iter().flatten().flatten() {
        if let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) {
            report.logs.insert(name, meta.len());
        }
    }
    if count {
        for found in Walk::new(root, true).leaving(&left) {
            let (_, meta) = found?;
            if Kind::of(&meta) == Kind::File {
                report.files += 1;
                report.bytes += meta.len();
            }
        }
    }
    if let Some((uid, gid)) = reader {
        for relative in left.paths() {
            check_readable(root, relative, uid, gid, &mut report)?;
        }
    }
    Ok(report)
}

fn check_readable(
    root: &Path,
    relative: &Path,
    uid: u32,
    gid: u32,
    report: &mut Report,
) -> Result<(), HelperError> {
    for found in Walk::new(&root.join(relative), true) {
        let (inside, meta) = found?;
        if matches!(Kind::of(&meta), Kind::Dir | Kind::File) && !readable(&meta, uid, gid) {
            report.unreadable_count += 1;
            if report.unreadable.len() < NAMED {
                report.unreadable.push(shown(root, &relative.join(inside)));
            }
        }
    }
    Ok(())
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
