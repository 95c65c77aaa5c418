//! The `collectors/` tree: queries and text files that administrators edit. Packages treat it as program files: edited copies are replaced
//! or removed without a saved copy, and files that were added stay behind in the old tree.

use std::collections::BTreeMap;

/// A saved file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedFile {
    /// SHA-256 of its content.
    pub digest: String,
    /// Modification time, seconds.
    pub modified_s: i64,
    /// What the package database says: `Some(true)` changed since it was installed, `Some(false)` as shipped, `None` when nobody knows.
    pub edited: Option<bool>,
    /// Whether a package owns it; `None` when nobody knows.
    pub packaged: Option<bool>,
}

/// Seconds within which an installer writes all collector files; a file changed later was changed by somebody else.
const INSTALL_SPREAD_S: i64 = 2;

/// The saved files that must be put into the new tree. Keys are paths relative to `collectors/`.
///
/// - a file that the new release does not have and that no package brought was added by hand: carried;
/// - a file that was edited wins over the one that the new release brings;
/// - a shipped file as shipped stays away: the new release has its own.
///
/// Without a package database (tarballs) "edited" means changed noticeably later than the oldest file of the tree.
pub fn to_carry(saved: &BTreeMap<String, SavedFile>, new: &BTreeMap<String, String>) -> Vec<String> {
    let installed_s = saved
        .values()
        .map(|file| file.modified_s)
        .min()
        .unwrap_or_default();
    saved
        .iter()
        .filter(|(path, file)| match new.get(*path) {
            Some(digest) if *digest == file.digest => false,
            Some(_) => file
                .edited
                .unwrap_or(file.modified_s > installed_s + INSTALL_SPREAD_S),
            None => file.packaged != Some(true) || file.edited == Some(true),
        })
        .map(|(path, _)| path.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(digest: &str, modified_s: i64, edited: Option<bool>, packaged: Option<bool>) -> SavedFile {
        SavedFile {
            digest: digest.into(),
            modified_s,
            edited,
            packaged,
        }
    }

    #[test]
    fn packages_know_what_was_edited() {
        let saved = BTreeMap::from([
            (
                "mysql/queries-mysqld.yml".into(),
                file("edited", 9, Some(true), Some(true)),
            ),
            (
                "mysql/as-shipped.yml".into(),
                file("old", 1, Some(false), Some(true)),
            ),
            ("mysql/mine.yml".into(), file("mine", 9, None, Some(false))),
            (
                "mysql/dropped.yml".into(),
                file("old", 1, Some(false), Some(true)),
            ),
        ]);
        let new = BTreeMap::from([
            ("mysql/queries-mysqld.yml".into(), "new".into()),
            ("mysql/as-shipped.yml".into(), "new".into()),
        ]);
        assert_eq!(
            to_carry(&saved, &new),
            ["mysql/mine.yml", "mysql/queries-mysqld.yml"]
        );
    }

    #[test]
    fn tarballs_go_by_time() {
        let saved = BTreeMap::from([
            ("a.yml".into(), file("old-a", 100, None, None)),
            ("b.yml".into(), file("edited", 500, None, None)),
            ("c.yml".into(), file("mine", 500, None, None)),
        ]);
        let new = BTreeMap::from([("a.yml".into(), "new-a".into()), ("b.yml".into(), "new-b".into())]);
        assert_eq!(to_carry(&saved, &new), ["b.yml", "c.yml"]);
    }
}
