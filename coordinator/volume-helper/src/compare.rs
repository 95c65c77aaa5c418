//! Compares two trees down to the bytes.

use crate::entry::{Kind, Stamp, Walk, join};
use crate::error::{At, HelperError};
use crate::file;
use crate::manifest::escape;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What differs.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Entries that were looked at.
    pub entries: u64,
    /// How many differ.
    pub differences: u64,
    /// The first of them, `path: what`.
    pub first: Vec<String>,
}

/// Compares everything except sockets, devices and access times.
pub fn run(from: &Path, to: &Path) -> Result<Report, HelperError> {
    let (left, right) = (tree(from)?, tree(to)?);
    let mut report = Report::default();
    for (path, a) in &left {
        report.entries += 1;
        match right.get(path) {
            None => differs(&mut report, path, "missing"),
            Some(b) => {
                if let Some(what) = difference(from, to, path, a, b)? {
                    differs(&mut report, path, what);
                }
            }
        }
    }
    for path in right.keys().filter(|path| !left.contains_key(*path)) {
        differs(&mut report, path, "extra");
    }
    Ok(report)
}

fn tree(root: &Path) -> Result<BTreeMap<PathBuf, Metadata>, HelperError> {
    Walk::new(root, false)
        .filter(|found| {
            !found
                .as_ref()
                .is_ok_and(|(_, meta)| Kind::of(meta) == Kind::Other)
        })
        .collect()
}

fn differs(report: &mut Report, path: &Path, what: &str) {
    report.differences += 1;
    if report.first.len() < 20 {
        report.first.push(format!("{}: {what}", escape(path)));
    }
}

fn difference(
    from: &Path,
    to: &Path,
    path: &Path,
    a: &Metadata,
    b: &Metadata,
) -> Result<Option<&'static str>, HelperError> {
    let (x, y) = (Stamp::of(a), Stamp::of(b));
    if x.kind != y.kind {
        return Ok(Some("kind"));
    }
    if x.size != y.size {
        return Ok(Some("size"));
    }
    if (a.uid(), a.gid()) != (b.uid(), b.gid()) {
        return Ok(Some("owner"));
    }
    if x.kind != Kind::Link && a.mode() != b.mode() {
        return Ok(Some("mode"));
    }
    if x.mtime != y.mtime {
        return Ok(Some("time"));
    }
    let (left, right) = (join(from, path), join(to, path));
    match x.kind {
        Kind::File if file::digest(&left)? != file::digest(&right)? => Ok(Some("content")),
        Kind::Link
            if fs::read_link(&left).at("read the link", &left)?
                != fs::read_link(&right).at("read the link", &right)? =>
        {
            Ok(Some("target"))
        }
        _ => Ok(None),
    }
}
