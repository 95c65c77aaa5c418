//! Where packages and tarballs are, and the repository files as `percona-release` 1.0-32 writes them
//! (percona/percona-repositories scripts/percona-release.sh).

use fleet_common::inventory::Method;
use fleet_common::plan_entry::ClientSource;
use fleet_common::version::PmmVersion;

/// Package name of a major release.
pub fn package(major: u32) -> &'static str {
    if major < 3 { "pmm2-client" } else { "pmm-client" }
}

/// Repository name of a major release; for PMM 3 it differs from the package name.
pub fn repository(major: u32) -> &'static str {
    if major < 3 { "pmm2-client" } else { "pmm3-client" }
}

/// The apt line of a repository.
pub fn apt_line(source: &ClientSource, major: u32, codename: &str, keyring: &str) -> String {
    format!("deb {}", apt_rest(source, major, codename, keyring))
}

fn apt_rest(source: &ClientSource, major: u32, codename: &str, keyring: &str) -> String {
    // Percona's `release` component is called `main` inside apt repositories.
    let section = if source.component == "release" {
        "main"
    } else {
        &source.component
    };
    let root = source.repository_url.trim_end_matches('/');
    format!(
        "[signed-by={keyring}] {root}/{}/apt {codename} {section}",
        repository(major)
    )
}

/// Name and text of the file that `percona-release enable <repository> <component>` leaves in `/etc/apt/sources.list.d`.
pub fn apt_file(source: &ClientSource, major: u32, codename: &str, keyring: &str) -> (String, String) {
    let rest = apt_rest(source, major, codename, keyring);
    let mut text =
        format!("#\n# This repo is managed by \"percona-release\" utility, do not edit!\n#\ndeb {rest}\n");
    if source.component == "release" {
        text.push_str(&format!("deb-src {rest}\n"));
    }
    (
        format!("percona-{}-{}.list", repository(major), source.component),
        text,
    )
}

/// Name of the yum repository section.
pub fn yum_section(source: &ClientSource, major: u32, arch: &str) -> String {
    format!("{}-{}-{arch}", repository(major), source.component)
}

/// Name and text of the file that `percona-release enable` leaves in `/etc/yum.repos.d`. `releasever` is `$releasever`, except on Amazon
/// Linux 2023.
pub fn yum_file(
    source: &ClientSource,
    major: u32,
    arch: &str,
    releasever: &str,
    key: &str,
) -> (String, String) {
    let root = source.repository_url.trim_end_matches('/');
    let (name, component) = (repository(major), &source.component);
    let section = yum_section(source, major, arch);
    let text = format!(
        "#\n# This repo is managed by \"percona-release\" utility, do not edit!\n#\n\
         [{section}]\nname = Percona {name} {component}/{arch} YUM repository\n\
         baseurl = {root}/{name}/yum/{component}/{releasever}/RPMS/{arch}\nenabled = 1\ngpgcheck = 1\ngpgkey = file://{key}\n"
    );
    (format!("percona-{name}-{component}.repo"), text)
}

/// File name of a client package as its package manager downloads it: apt writes the colon of an epoch as `%3a`. `arch` is the word of the
/// package manager. `None` for tarballs, which are no package.
pub fn package_file(method: Method, name: &str, version: &str, arch: &str) -> Option<String> {
    match method {
        Method::Deb => Some(format!("{name}_{}_{arch}.deb", version.replace(':', "%3a"))),
        Method::Rpm => Some(format!("{name}-{version}.{arch}.rpm")),
        Method::Tarball => None,
    }
}

/// File name of a client tarball. PMM 2 has `pmm2-client`, PMM 3 `pmm-client`.
pub fn tarball_name(version: PmmVersion, arch: &str) -> String {
    format!("{}-{version}-{arch}.tar.gz", package(version.major))
}

/// Top directory in a client tarball.
pub fn tarball_dir(version: PmmVersion) -> String {
    format!("{}-{version}", package(version.major))
}

/// URL of a client tarball (PMM docs: binary_package.md).
pub fn tarball_url(source: &ClientSource, version: PmmVersion, arch: &str) -> String {
    let root = source.tarball_url.trim_end_matches('/');
    format!(
        "{root}/pmm{}/{version}/binary/tarball/{}",
        version.major,
        tarball_name(version, arch)
    )
}

/// The full package version among those on offer: resolved by release, because the build number changes from release to release. The last
/// listed by the native order wins; `later` says whether its first argument is the later one.
pub fn resolve(
    offered: &[String],
    target: PmmVersion,
    later: impl Fn(&str, &str) -> bool,
) -> Option<&String> {
    offered
        .iter()
        .filter(|text| PmmVersion::from_package_version(text) == Ok(target))
        .fold(None, |best, text| match best {
            Some(best) if !later(text, best) => Some(best),
            _ => Some(text),
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;

    fn source() -> ClientSource {
        ClientSource {
            repository_url: "http://repo.example/".into(),
            component: "release".into(),
            tarball_url: "https://dl.example/downloads".into(),
            tarball_sha256: BTreeMap::new(),
        }
    }

    #[test]
    fn urls_and_lines() {
        let version = PmmVersion::new(3, 9, 1);
        assert_eq!(
            tarball_url(&source(), version, "x86_64"),
            "https://dl.example/downloads/pmm3/3.9.1/binary/tarball/pmm-client-3.9.1-x86_64.tar.gz"
        );
        assert_eq!(
            apt_line(&source(), 3, "bookworm", "/k.gpg"),
            "deb [signed-by=/k.gpg] http://repo.example/pmm3-client/apt bookworm main"
        );
        let (name, text) = yum_file(&source(), 3, "x86_64", "$releasever", "/k");
        assert_eq!(name, "percona-pmm3-client-release.repo");
        assert!(
            text.contains("baseurl = http://repo.example/pmm3-client/yum/release/$releasever/RPMS/x86_64\n")
        );
    }

    #[test]
    fn package_files() {
        let file = |method, version, arch| package_file(method, "pmm2-client", version, arch);
        assert_eq!(
            file(Method::Deb, "2:2.41.2-6.bookworm", "amd64").unwrap(),
            "pmm2-client_2%3a2.41.2-6.bookworm_amd64.deb"
        );
        assert_eq!(
            file(Method::Rpm, "2.41.2-6.el9", "x86_64").unwrap(),
            "pmm2-client-2.41.2-6.el9.x86_64.rpm"
        );
        assert_eq!(file(Method::Tarball, "2.41.2", "x86_64"), None);
    }

    #[test]
    fn builds_are_resolved_by_release() {
        let offered = [
            "3.7.1-8.jammy",
            "3.9.1-1.jammy",
            "3.9.1-2.jammy",
            "3.9.10-1.jammy",
        ]
        .map(str::to_owned);
        let found = resolve(&offered, PmmVersion::new(3, 9, 1), |a, b| {
            fleet_common::native_version::compare_deb(a, b).unwrap().is_gt()
        });
        assert_eq!(found.unwrap(), "3.9.1-2.jammy");
        assert_eq!(resolve(&offered, PmmVersion::new(3, 9, 2), |_, _| true), None);
    }
}
