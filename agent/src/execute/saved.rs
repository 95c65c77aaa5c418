//! What the way back needs, in `<state>/saved`, private to root.

use crate::config::Paths;
use crate::host::accounts::Account;
use crate::host::files::{self, Ownership};
use crate::host::reserve::Reserve;
use client_upgrade::collectors::SavedFile;
use client_upgrade::facts::UnitFacts;
use fleet_common::inventory::{Installation, RunKind};
use fleet_common::version::PmmVersion;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A saved file with its bytes beside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Where it was.
    pub path: String,
    /// Name of the copy below `saved/files`.
    pub copy: String,
    /// Mode and owner.
    pub ownership: Ownership,
}

/// The unit as systemd knew it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptUnit {
    /// Unit name.
    pub name: String,
    /// `UnitFileState`.
    pub file_state: String,
    /// Whether it was active.
    pub active: bool,
}

/// The process as it ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptProcess {
    /// Process id.
    pub pid: u32,
    /// Argument vector.
    pub argv: Vec<String>,
    /// Environment, `key=value`; may hold secrets, so this file is private.
    pub environment: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Regular file that its output went to.
    pub log: Option<String>,
}

/// A collector file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCollector {
    /// Copy, mode and owner.
    pub file: Kept,
    /// SHA-256.
    pub digest: String,
    /// Modification time.
    pub modified_s: i64,
    /// See [`SavedFile::edited`].
    pub edited: Option<bool>,
    /// See [`SavedFile::packaged`].
    pub packaged: Option<bool>,
}

impl KeptCollector {
    /// For the decision what to carry.
    pub fn facts(&self) -> SavedFile {
        SavedFile {
            digest: self.digest.clone(),
            modified_s: self.modified_s,
            edited: self.edited,
            packaged: self.packaged,
        }
    }
}

/// Everything saved for one switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The order that saved it.
    pub order_id: String,
    /// What was detected.
    pub installation: Installation,
    /// Configuration file.
    pub config: Option<Kept>,
    /// Collector files by path relative to `collectors/`.
    pub collectors: BTreeMap<String, KeptCollector>,
    /// Unit files and drop-ins of the administrator.
    pub unit_files: Vec<Kept>,
    /// The package's own unit file. It is a configuration file of the packages of both majors: a way back from a transaction that was cut
    /// between the two leaves the other one's content in place (seen with rpm 4.18 on a power cut).
    #[serde(default)]
    pub package_unit: Option<Kept>,
    /// The unit.
    pub unit: Option<KeptUnit>,
    /// The account that the client runs as.
    pub account: Option<Account>,
    /// Links in `/usr/bin` and `/usr/sbin` with their targets.
    pub links: BTreeMap<String, String>,
    /// The main process.
    pub process: Option<KeptProcess>,
    /// Owner of the base directory.
    pub base_owner: (u32, u32),
    /// Archive of the whole tree, for tarballs.
    pub tree: Option<PathBuf>,
    /// The kept package of the old release.
    pub package_file: Option<PathBuf>,
}

impl Saved {
    /// Reads it.
    pub fn load(paths: &Paths) -> Option<Self> {
        files::read_json(&paths.saved().join("saved.json"))
    }

    /// Stores it; this makes the save complete.
    pub fn store(&self, paths: &Paths) -> std::io::Result<()> {
        files::write_json(&paths.saved().join("saved.json"), self)
    }

    /// Whether the new release was on the disk before the order: then nothing is installed, and there is no old release to go back to.
    pub fn nothing_older(&self, to: PmmVersion) -> bool {
        self.installation.version == to
    }

    /// Whether the client ran, and so must run again.
    pub fn ran(&self) -> bool {
        !matches!(self.installation.run, RunKind::Stopped)
    }
}

impl Kept {
    /// Copies a file away.
    pub fn save(paths: &Paths, source: &Path) -> std::io::Result<Self> {
        let dir = paths.saved().join("files");
        fs_err::create_dir_all(&dir)?;
        let path = source.display().to_string();
        let copy = fleet_common::digest::sha256_hex(path.as_bytes());
        files::replace(&dir.join(&copy), &fs_err::read(source)?, files::PRIVATE)?;
        Ok(Self {
            path,
            copy,
            ownership: Ownership::of(source)?,
        })
    }

    /// The saved bytes.
    pub fn bytes(&self, paths: &Paths) -> std::io::Result<Vec<u8>> {
        fs_err::read(self.copy_path(paths))
    }

    /// Where they lie.
    pub fn copy_path(&self, paths: &Paths) -> PathBuf {
        paths.saved().join("files").join(&self.copy)
    }

    /// Puts it back where it was.
    pub fn restore(&self, paths: &Paths) -> std::io::Result<()> {
        let bytes = self.bytes(paths)?;
        Reserve::of(paths).retry(|| put(Path::new(&self.path), &bytes, self.ownership))
    }
}

/// Unit name and the state of a unit as facts say it.
impl From<&UnitFacts> for KeptUnit {
    fn from(unit: &UnitFacts) -> Self {
        Self {
            name: unit.name.clone(),
            file_state: unit.file_state.clone(),
            active: unit.active == "active",
        }
    }
}

/// Writes a file with its directories, unless it already is what it should be. Directories that are links are not followed: in a tree that
/// belongs to an ordinary user they could lead anywhere.
pub fn put(path: &Path, bytes: &[u8], ownership: Ownership) -> std::io::Result<()> {
    let same = fs_err::read(path).is_ok_and(|now| now == bytes)
        && Ownership::of(path).is_ok_and(|now| now == ownership);
    if same {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    if !dir.exists() {
        let owner = dir
            .ancestors()
            .find(|parent| parent.exists())
            .and_then(|parent| Ownership::of(parent).ok());
        fs_err::create_dir_all(dir)?;
        if let Some(owner) = owner {
            std::os::unix::fs::chown(dir, Some(owner.uid), Some(owner.gid))?;
        }
    }
    if fs_err::canonicalize(dir)? != *dir {
        return Err(std::io::Error::other(format!(
            "{} goes through a link",
            dir.display()
        )));
    }
    files::replace(path, bytes, ownership)
}
