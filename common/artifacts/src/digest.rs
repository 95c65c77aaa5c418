//! Pinned digests of files.

use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A file that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    /// The file can't be read.
    #[error("can't read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was read and is another file.
    #[error("{path} has SHA-256 {found}, pinned is {pinned}")]
    Mismatch {
        /// The file.
        path: String,
        /// What it has.
        found: String,
        /// What it should have.
        pinned: String,
    },
}

/// SHA-256 of a file in lower-case hex.
pub fn file_sha256_hex(path: &Path) -> Result<String, DigestError> {
    let failed = |source| DigestError::Read {
        path: path.display().to_string(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
    }
}

/// Checks a file against its pinned digest.
pub fn verify_sha256(path: &Path, pinned: &str) -> Result<(), DigestError> {
    let found = file_sha256_hex(path)?;
    if found.eq_ignore_ascii_case(pinned.trim()) {
        return Ok(());
    }
    Err(DigestError::Mismatch {
        path: path.display().to_string(),
        found,
        pinned: pinned.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn digests_are_compared_without_case() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"abc").unwrap();
        let digest = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        verify_sha256(&path, digest).unwrap();
        assert!(matches!(
            verify_sha256(&path, "00"),
            Err(DigestError::Mismatch { .. })
        ));
    }
}
