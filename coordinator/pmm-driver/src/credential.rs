//! The credential of the PMM Server: a file that nobody else can read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet_common::hint::Hint;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What is sent in the `Authorization` header. The secret shows in no output.
#[derive(Clone)]
pub struct Credential {
    header: String,
    user: Option<String>,
}

impl Credential {
    /// The header's value.
    pub fn header(&self) -> &str {
        &self.header
    }
    /// The user name, when it is not a token.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Why the credential can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file can't be read.
    #[error("the PMM credential file {path} can't be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others may read the file.
    #[error("the PMM credential file {path} has mode {mode:04o}; others may read it")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file does not hold one line.
    #[error("the PMM credential file {path} holds neither `user:password` nor a token on its first line")]
    Form {
        /// The file.
        path: PathBuf,
    },
}

impl Hint for CredentialError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Read { path, .. } => vec![format!(
                "create {} with mode 0600, readable by the coordinator's account",
                path.display()
            )],
            Self::Mode { path, .. } => vec![format!("chmod 0600 {}", path.display())],
            Self::Form { .. } => vec![
                "write `user:password` of a local Grafana admin, or an admin token, on one line".to_owned(),
            ],
        }
    }
}

/// Reads the credential: `user:password` or a token.
pub fn read(path: &Path) -> Result<Credential, CredentialError> {
    let unreadable = |source| CredentialError::Read {
        path: path.to_owned(),
        source,
    };
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CredentialError::Mode {
            path: path.to_owned(),
            mode,
        });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse(&text).ok_or_else(|| CredentialError::Form {
        path: path.to_owned(),
    })
}

fn parse(text: &str) -> Option<Credential> {
    let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let line = lines.next()?;
    if lines.next().is_some() || line.bytes().any(|byte| byte.is_ascii_control()) {
        return None;
    }
    match line.split_once(':') {
        Some(("", _) | (_, "")) => None,
        Some((user, _)) => Some(Credential {
            header: format!("Basic {}", STANDARD.encode(line)),
            user: Some(user.to_owned()),
        }),
        None if line.contains(' ') => None,
        None => Some(Credential {
            header: format!("Bearer {line}"),
            user: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_forms() {
        assert_eq!(
            parse("admin:s3:cret\n").unwrap().header(),
            "Basic YWRtaW46czM6Y3JldA=="
        );
        assert_eq!(parse("glsa_abc\n").unwrap().header(), "Bearer glsa_abc");
        for bad in ["", "\n", ":x", "x:", "two words", "a:b\nc:d"] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_readable_file_is_refused_and_the_secret_never_prints() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pmm-admin");
        std::fs::write(&path, "admin:secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            read(&path),
            Err(CredentialError::Mode { mode: 0o640, .. })
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(!format!("{:?}", read(&path).unwrap()).contains("secret"));
        assert!(matches!(
            read(&dir.path().join("none")),
            Err(CredentialError::Read { .. })
        ));
    }
}
