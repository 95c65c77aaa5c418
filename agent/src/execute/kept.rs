//! The file that is the way back: its name for the survey.

use super::save::TREE;
use super::saved::Saved;
use super::stage::Staged;
use crate::config::Paths;
use client_upgrade::source::package_file;
use fleet_common::inventory::{Installation, Method};
use fleet_common::plan_entry::PlanEntry;
use std::path::Path;

/// Name of the package or tree that is kept as the way back, or that will be. `offered` says whether the repository has the installed package
/// and `arch` is the package manager's word. `None` where there is no way back.
pub fn name(
    paths: &Paths,
    entry: &PlanEntry,
    installation: &Installation,
    offered: bool,
    arch: &str,
) -> Option<String> {
    if installation.version == entry.to {
        let saved = Saved::load(paths)?;
        return file_name(saved.package_file.or(saved.tree)?.as_path());
    }
    if installation.method == Method::Tarball {
        return Some(TREE.to_owned());
    }
    if let Some(kept) = Staged::load_for(paths, entry, installation).and_then(|staged| staged.kept) {
        return file_name(&kept);
    }
    let (package, version) = (
        installation.package.as_ref()?,
        installation.package_version.as_ref()?,
    );
    package_file(installation.method, package, version, arch).filter(|_| offered)
}

fn file_name(path: &Path) -> Option<String> {
    path.exists()
        .then(|| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::execute::stage::purpose;
    use crate::execute::testing::{entry, installation, saved};
    use crate::host::files;
    use fleet_common::version::PmmVersion;

    #[test]
    fn what_is_offered_staged_or_saved_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let (entry, found) = (entry(Method::Deb), installation(Method::Deb));
        let see = |offered| name(&paths, &entry, &found, offered, "amd64");
        assert_eq!(see(false), None);
        assert_eq!(
            see(true).as_deref(),
            Some("pmm2-client_2.44.1-6.bookworm_amd64.deb")
        );

        let (new, kept) = (dir.path().join("new.deb"), dir.path().join("staged.deb"));
        std::fs::write(&new, "n").unwrap();
        std::fs::write(&kept, "k").unwrap();
        let staged = Staged {
            purpose: purpose(&entry, &found),
            candidate: String::new(),
            new,
            digest: String::new(),
            kept: Some(kept.clone()),
        };
        files::write_json(&paths.stage().join("stage.json"), &staged).unwrap();
        assert_eq!(see(false).as_deref(), Some("staged.deb"));

        let mut upgraded = found.clone();
        upgraded.version = entry.to;
        assert_eq!(name(&paths, &entry, &upgraded, true, "amd64"), None);
        let mut saved = saved(&found);
        saved.package_file = Some(kept);
        saved.store(&paths).unwrap();
        assert_eq!(
            name(&paths, &entry, &upgraded, true, "amd64").as_deref(),
            Some("staged.deb")
        );
        upgraded.version = PmmVersion::new(3, 0, 0);
        assert_ne!(
            name(&paths, &entry, &upgraded, false, "amd64").as_deref(),
            Some("staged.deb")
        );
    }

    #[test]
    fn a_tarball_keeps_its_tree() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let (entry, found) = (entry(Method::Tarball), installation(Method::Tarball));
        assert_eq!(name(&paths, &entry, &found, false, "").as_deref(), Some(TREE));
    }
}
