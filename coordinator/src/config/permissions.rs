//! Files and directories that only their owner may read.

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Makes a directory with mode 0700; its parents must exist.
pub fn private_dir(path: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        }
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("can't create directory {}: {error}", path.display()),
        )),
    }
}

/// Writes a file with the mode, by a temporary name and a rename, with both synced: after a crash there is the old file or the new one.
pub fn write_private(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(parent) = path.parent() {
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Who may do what with a path: permission bits and owner.
pub fn mode_and_owner(path: &Path) -> io::Result<(u32, u32)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.mode() & 0o7777, metadata.uid()))
}
