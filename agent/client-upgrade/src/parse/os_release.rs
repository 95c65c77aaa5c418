//! `/etc/os-release`.

/// The three fields we use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `ID`.
    pub id: String,
    /// `VERSION_ID`.
    pub version: String,
    /// `VERSION_CODENAME`.
    pub codename: String,
}

impl OsRelease {
    /// First part of the version, as in repository paths for EL.
    pub fn major(&self) -> &str {
        self.version.split('.').next().unwrap_or_default()
    }
}

/// Reads the file's text.
pub fn parse(text: &str) -> OsRelease {
    let value = |key: &str| {
        text.lines()
            .filter_map(|line| line.trim().split_once('='))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned())
            .unwrap_or_default()
    };
    OsRelease {
        id: value("ID"),
        version: value("VERSION_ID"),
        codename: value("VERSION_CODENAME"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_removed() {
        let os = parse("PRETTY_NAME=\"x\"\nID=\"rocky\"\nVERSION_ID=\"9.4\"\nVERSION_CODENAME=\n");
        assert_eq!(
            (os.id.as_str(), os.major(), os.codename.as_str()),
            ("rocky", "9", "")
        );
    }
}
