//! Copying one entry with everything that belongs to it: bytes (holes stay holes), owner, mode, extended attributes, times.

use crate::entry::Kind;
use crate::error::{At, HelperError};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};
use sha2::{Digest, Sha256};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::Path;

const BLOCK: usize = 1 << 20;

/// Takes away what is at `path`, whatever it is; nothing there is fine.
pub fn remove(path: &Path) -> Result<(), HelperError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).at("remove", path),
        Ok(_) => fs::remove_file(path).at("remove", path),
        // The directory itself may be gone already, or a file by now.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
        Err(error) => Err(error).at("look at", path),
    }
}

/// Copies the bytes of a regular file into a new file; returns their number and SHA-256.
pub fn copy_bytes(from: &Path, to: &Path) -> Result<(u64, String), HelperError> {
    let mut source = File::open(from).at("open", from)?;
    remove(to)?;
    let mut target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .at("create", to)?;
    let mut digest = Sha256::new();
    let mut block = vec![0u8; BLOCK];
    let mut length = 0u64;
    loop {
        let got = source.read(&mut block).at("read", from)?;
        if got == 0 {
            break;
        }
        let part = block.get(..got).unwrap_or_default();
        digest.update(part);
        if part.iter().all(|byte| *byte == 0) {
            target
                .seek(SeekFrom::Current(i64::try_from(got).unwrap_or(i64::MAX)))
                .at("seek in", to)?;
        } else {
            target.write_all(part).at("write", to)?;
        }
        length += got as u64;
    }
    target.set_len(length).at("set the length of", to)?;
    Ok((length, hex::encode(digest.finalize())))
}

/// Makes anything but a regular file or a directory.
pub fn make_other(kind: Kind, from: &Path, to: &Path) -> Result<(), HelperError> {
    remove(to)?;
    match kind {
        Kind::Link => symlink(fs::read_link(from).at("read the link", from)?, to).at("make the link", to),
        Kind::Fifo => rustix::fs::mknodat(CWD, to, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .at("make the pipe", to),
        Kind::Dir | Kind::File | Kind::Other => Ok(()),
    }
}

/// Gives `to` the owner, mode, extended attributes and times of the source, as far as they differ. Times last: everything else moves them.
pub fn copy_metadata(from: &Path, meta: &Metadata, to: &Path) -> Result<(), HelperError> {
    let there = fs::symlink_metadata(to).at("look at", to)?;
    let owned = (there.uid(), there.gid()) == (meta.uid(), meta.gid());
    if !owned {
        lchown(to, Some(meta.uid()), Some(meta.gid())).at("change the owner of", to)?;
    }
    if !meta.is_symlink() {
        // A new owner may cost the set-user-id bits.
        if !owned || there.mode() & 0o7777 != meta.mode() & 0o7777 {
            fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))
                .at("change the mode of", to)?;
        }
        copy_attributes(from, to)?;
    }
    if (there.mtime(), there.mtime_nsec()) == (meta.mtime(), meta.mtime_nsec()) {
        return Ok(());
    }
    copy_times(meta, to)
}

/// Gives `to` the times of the source.
pub fn copy_times(meta: &Metadata, to: &Path) -> Result<(), HelperError> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: meta.atime(),
            tv_nsec: meta.atime_nsec(),
        },
        last_modification: Timespec {
            tv_sec: meta.mtime(),
            tv_nsec: meta.mtime_nsec(),
        },
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW).at("change the times of", to)
}

/// Copies extended attributes (access control lists among them). A file system without them is no error; one that takes them on one
/// side only is.
fn copy_attributes(from: &Path, to: &Path) -> Result<(), HelperError> {
    let mut names = vec![0u8; 64 << 10];
    let length = match rustix::fs::llistxattr(from, names.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error).at("list the attributes of", from),
    };
    let mut value = vec![0u8; 64 << 10];
    for name in names
        .get(..length)
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = std::ffi::OsStr::from_bytes(name);
        let got = rustix::fs::lgetxattr(from, name, value.as_mut_slice()).at("read an attribute of", from)?;
        let bytes = value.get(..got).unwrap_or_default();
        let mut own = vec![0u8; bytes.len()];
        if rustix::fs::lgetxattr(to, name, own.as_mut_slice())
            .is_ok_and(|length| own.get(..length) == Some(bytes))
        {
            continue;
        }
        rustix::fs::lsetxattr(to, name, bytes, rustix::fs::XattrFlags::empty())
            .at("set an attribute of", to)?;
    }
    Ok(())
}

/// SHA-256 of a file's bytes.
pub fn digest(path: &Path) -> Result<String, HelperError> {
    let mut source = File::open(path).at("open", path)?;
    let mut digest = Sha256::new();
    let mut block = vec![0u8; BLOCK];
    loop {
        let got = source.read(&mut block).at("read", path)?;
        if got == 0 {
            return Ok(hex::encode(digest.finalize()));
        }
        digest.update(block.get(..got).unwrap_or_default());
    }
}
