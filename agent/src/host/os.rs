//! Which system this is.

use client_upgrade::parse::os_release::{OsRelease, parse};

/// `/etc/os-release`.
pub fn release() -> OsRelease {
    ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| fs_err::read_to_string(path).ok())
        .map(|text| parse(&text))
        .unwrap_or_default()
}

/// Host name.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Machine architecture as the kernel says it.
pub fn arch() -> String {
    rustix::system::uname().machine().to_string_lossy().into_owned()
}

/// Free bytes for us at a path, which need not exist yet.
pub fn free_bytes(path: &std::path::Path) -> Option<u64> {
    let existing = path.ancestors().find(|candidate| candidate.exists())?;
    let fs = rustix::fs::statvfs(existing).ok()?;
    Some(fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// The file system of a path, which need not exist yet.
pub fn device(path: &std::path::Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let existing = path.ancestors().find(|candidate| candidate.exists())?;
    fs_err::metadata(existing).ok().map(|meta| meta.dev())
}
