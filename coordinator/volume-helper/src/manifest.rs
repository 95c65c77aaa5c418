//! The manifest of a copy: what each source entry was when it was copied, and the digest of the bytes that were read.
//!
//! One line per entry: kind, size, mtime, ctime, inode, racy, digest, path; path bytes outside of printable ASCII as `%XX`.

use crate::entry::{Kind, Stamp};
use crate::error::{At, HelperError};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One entry of the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The source when it was read.
    pub stamp: Stamp,
    /// The source had changed so shortly before it was read that its change time can't prove the copy is whole.
    pub racy: bool,
    /// SHA-256 of the bytes that were copied, hex; empty for anything but files.
    pub digest: String,
}

/// All entries by path.
pub type Manifest = BTreeMap<PathBuf, Line>;

/// Reads a manifest; `None` when there is none, that is, no copy was ever finished.
pub fn read(path: &Path) -> Result<Option<Manifest>, HelperError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("open", path),
    };
    let mut manifest = Manifest::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.at("read", path)?;
        let (name, entry) = parse(&line).ok_or_else(|| HelperError::Manifest {
            path: path.to_owned(),
            line: index + 1,
        })?;
        manifest.insert(name, entry);
    }
    Ok(Some(manifest))
}

/// Writes a manifest so that it is either the old or the new one after a crash.
pub fn write(path: &Path, manifest: &Manifest) -> Result<(), HelperError> {
    let fresh = path.with_extension("new");
    let file = File::create(&fresh).at("create", &fresh)?;
    let mut out = BufWriter::new(file);
    for (name, line) in manifest {
        let Stamp {
            kind,
            size,
            mtime,
            ctime,
            inode,
        } = &line.stamp;
        let digest = if line.digest.is_empty() { "-" } else { &line.digest };
        let racy = u8::from(line.racy);
        writeln!(
            out,
            "{} {size} {mtime} {ctime} {inode} {racy} {digest} {}",
            kind.letter(),
            escape(name)
        )
        .at("write", &fresh)?;
    }
    let file = out
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .at("write", &fresh)?;
    file.sync_all().at("sync", &fresh)?;
    fs::rename(&fresh, path).at("rename", &fresh)?;
    sync_parent(path)
}

/// Makes a rename in the directory of `path` durable.
pub fn sync_parent(path: &Path) -> Result<(), HelperError> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .at("sync", parent)
}

fn parse(line: &str) -> Option<(PathBuf, Line)> {
    let mut words = line.splitn(8, ' ');
    let kind = match words.next()? {
        "d" => Kind::Dir,
        "f" => Kind::File,
        "l" => Kind::Link,
        "p" => Kind::Fifo,
        _ => return None,
    };
    let size = words.next()?.parse().ok()?;
    let mtime = words.next()?.parse().ok()?;
    let ctime = words.next()?.parse().ok()?;
    let inode = words.next()?.parse().ok()?;
    let racy = words.next()? == "1";
    let digest = words
        .next()
        .map(|word| if word == "-" { "" } else { word })?
        .to_owned();
    let name = unescape(words.next()?)?;
    Some((
        name,
        Line {
            stamp: Stamp {
                kind,
                size,
                mtime,
                ctime,
                inode,
            },
            racy,
            digest,
        },
    ))
}

/// A path as printable text without blanks at risk.
pub fn escape(path: &Path) -> String {
    let mut text = String::from("/");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'!'..=b'~' if *byte != b'%' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// The path behind [`escape`].
pub fn unescape(text: &str) -> Option<PathBuf> {
    let mut bytes = text.strip_prefix('/')?.bytes();
    let mut name = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let pair = [bytes.next()?, bytes.next()?];
            name.push(u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?);
        } else {
            name.push(byte);
        }
    }
    Some(PathBuf::from(OsString::from_vec(name)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn any_name_survives() {
        for bytes in [&b"a b/c%\n\xff"[..], b"", b"plain/name", "gr\u{fc}n".as_bytes()] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            assert_eq!(unescape(&escape(&path)).unwrap(), path);
        }
    }

    #[test]
    fn a_manifest_survives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest");
        assert_eq!(read(&path).unwrap(), None);
        let stamp = Stamp {
            kind: Kind::File,
            size: 3,
            mtime: -5,
            ctime: 7,
            inode: 9,
        };
        let manifest: Manifest = [(
            PathBuf::from("x y"),
            Line {
                stamp,
                racy: true,
                digest: "ab".to_owned(),
            },
        )]
        .into_iter()
        .collect();
        write(&path, &manifest).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), manifest);
        std::fs::write(&path, "f nonsense\n").unwrap();
        assert!(matches!(read(&path), Err(HelperError::Manifest { line: 1, .. })));
    }
}
