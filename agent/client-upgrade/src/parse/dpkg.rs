//! `dpkg-query`, `dpkg -S`, `dpkg --verify`, `apt-cache madison` and `apt-get -s`.

use crate::facts::{PackageFacts, PackageState};

/// The format given to `dpkg-query -W -f`.
pub const QUERY_FORMAT: &str = "${Package}\\t${db:Status-Abbrev}\\t${Version}\\n";

/// Reads `dpkg-query -W` in [`QUERY_FORMAT`].
pub fn query(text: &str) -> Vec<PackageFacts> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let (name, abbrev, version) = (fields.next()?, fields.next()?, fields.next()?);
            Some(PackageFacts {
                name: name.to_owned(),
                state: state(abbrev),
                version: version.trim().to_owned(),
            })
        })
        .collect()
}

/// Status abbreviation: wanted, present, error. `ii ` is installed, `rc ` left-over configuration, the rest is neither here nor there.
fn state(abbrev: &str) -> PackageState {
    let mut letters = abbrev.chars();
    let (_wanted, present, error) = (letters.next(), letters.next(), letters.next());
    match (present, error) {
        (Some('i'), None | Some(' ')) => PackageState::Installed,
        (Some('n'), _) => PackageState::Absent,
        (Some('c'), None | Some(' ')) => PackageState::LeftOver,
        _ => PackageState::Broken,
    }
}

/// Reads `dpkg -S <path>`: the owning package.
pub fn owner(text: &str) -> Option<String> {
    text.lines()
        .filter(|line| !line.starts_with("diversion "))
        .find_map(|line| line.split_once(": "))
        .and_then(|(packages, _)| packages.split(',').next())
        .map(|package| package.trim().split(':').next().unwrap_or_default().to_owned())
        .filter(|package| !package.is_empty())
}

/// Reads `apt-cache madison <package>`: the versions on offer, as listed.
pub fn madison(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| !line.contains("Sources"))
        .filter_map(|line| line.split('|').nth(1))
        .map(|version| version.trim().to_owned())
        .filter(|version| !version.is_empty())
        .collect()
}

/// What a simulated apt transaction would do, by package name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Simulation {
    /// Packages to be installed or changed.
    pub install: Vec<String>,
    /// Packages to be removed.
    pub remove: Vec<String>,
}

impl Simulation {
    /// Whether the transaction is exactly the exchange of one client for another.
    pub fn is_exchange(&self, old: &str, new: &str) -> bool {
        let others_removed = self.remove.iter().any(|name| name != old);
        self.install == [new] && !others_removed && (old == new || self.remove == [old])
    }
}

/// Reads `apt-get -s install`.
pub fn simulation(text: &str) -> Simulation {
    let mut found = Simulation::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let target = match words.next() {
            Some("Inst") => &mut found.install,
            Some("Remv" | "Purg") => &mut found.remove,
            _ => continue,
        };
        if let Some(name) = words.next() {
            target.push(name.to_owned());
        }
    }
    found
}

/// Reads `dpkg --verify <package>`: files whose content differs from what was shipped.
pub fn verify(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.as_bytes().get(2) == Some(&b'5'))
        .filter_map(|line| line.find('/').and_then(|at| line.get(at..)))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn query_tells_installed_from_left_over_and_broken() {
        let packages = query(
            "pmm-client\tiF \t3.9.1-1.bookworm\npmm2-client\trc \t2.41.2-6.bookworm\nperl\tii \t5.36\nx\tun \t\n",
        );
        let states: Vec<_> = packages.iter().map(|package| package.state).collect();
        assert_eq!(
            states,
            [
                PackageState::Broken,
                PackageState::LeftOver,
                PackageState::Installed,
                PackageState::Absent
            ]
        );
    }

    #[test]
    fn owner_is_the_first_package() {
        assert_eq!(
            owner("pmm2-client: /usr/local/percona/pmm2/bin/pmm-agent\n").unwrap(),
            "pmm2-client"
        );
        assert_eq!(owner("libc6:amd64: /lib/x\n").unwrap(), "libc6");
        assert_eq!(owner("diversion by x from: /a\nx: /a\n").unwrap(), "x");
        assert_eq!(owner(""), None);
    }

    #[test]
    fn simulation_must_be_the_exchange_alone() {
        let text = "NOTE: x\nRemv pmm2-client [2.41.2-6.bookworm]\nInst pmm-client (3.9.1-1.bookworm repo [amd64])\nConf pmm-client\n";
        let found = simulation(text);
        assert!(found.is_exchange("pmm2-client", "pmm-client"));
        assert!(
            !simulation(&format!("{text}Remv mysql-server [8.0]\n")).is_exchange("pmm2-client", "pmm-client")
        );
        assert!(
            simulation("Inst pmm-client [3.2.0-1] (3.9.1-1 x [amd64])\n")
                .is_exchange("pmm-client", "pmm-client")
        );
    }

    #[test]
    fn madison_and_verify() {
        let text = " pmm-client | 3.9.1-1.bookworm | http://repo x/main amd64 Packages\n pmm-client | 3.7.1-8.bookworm | y Sources\n";
        assert_eq!(madison(text), ["3.9.1-1.bookworm"]);
        assert_eq!(
            verify("??5??????   /usr/local/a b.yml\nmissing     /x\n"),
            ["/usr/local/a b.yml"]
        );
    }
}
