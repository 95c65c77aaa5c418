//! Gathering the facts that `client_upgrade::detect` concludes from. Programs of a tree that belongs to an ordinary user are run as that user.

pub mod address;

use crate::host::command::{Tool, ToolError};
use crate::host::{accounts, local_api, processes, systemd};
use client_upgrade::carry::{PMM2_BASE, PMM3_BASE};
use client_upgrade::environment::{CONFIG_FILE, Variables};
use client_upgrade::facts::{Facts, Home, Mixed, PackageFacts, ProcessFacts, TreeFacts, UnitFacts};
use client_upgrade::parse::{config, dpkg, proc, rpm, version};
use fleet_common::version::PmmVersion;
use fs_err as fs;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Client packages of both majors.
const PACKAGES: [&str; 2] = ["pmm2-client", "pmm-client"];
/// A package database answers within a second; a busy disk takes its time.
const DATABASE_PATIENCE: Duration = Duration::from_secs(60);
/// The unit that packages install.
pub const UNIT: &str = "pmm-agent.service";

/// Links to the client's program: all that a stopped tarball without a unit leaves outside its directory (facts: packages and
/// administrators make them).
const LINKS: [&str; 4] = [
    "/usr/bin/pmm-agent",
    "/usr/sbin/pmm-agent",
    "/usr/local/bin/pmm-agent",
    "/usr/local/sbin/pmm-agent",
];

/// Facts and what they amount to.
#[derive(Debug, Clone)]
pub struct Looked {
    /// Everything seen.
    pub facts: Facts,
    /// What it amounts to.
    pub detection: fleet_common::inventory::Detection,
    /// Every client process with what the shell needs of it.
    pub clients: Vec<processes::Process>,
}

impl Looked {
    /// The installation, if there is one that we can upgrade.
    pub fn installation(&self) -> Option<&fleet_common::inventory::Installation> {
        match &self.detection {
            fleet_common::inventory::Detection::Installed(installation) => Some(installation),
            _ => None,
        }
    }

    /// The process that is the client of an installation.
    pub fn main_process(&self) -> Option<&processes::Process> {
        let installation = self.installation()?;
        let main = client_upgrade::detect::main_process(
            &self.facts,
            &installation.base_dir,
            installation.package.is_some(),
        )?;
        self.clients.iter().find(|process| process.pid == main.pid)
    }
}

/// Looks at the host. `known` are base directories that somebody named, such as the plan: a tarball that was started by hand, has no link and
/// is stopped now leaves no other trace.
pub fn look(mixed: Mixed, known: &[&str]) -> Looked {
    let clients = processes::clients();
    let process_facts: Vec<ProcessFacts> = clients.iter().map(process).collect();
    let mut units: BTreeSet<String> = BTreeSet::from([UNIT.to_owned()]);
    units.extend(process_facts.iter().filter_map(|process| match &process.home {
        Home::Service(name) => Some(name.clone()),
        _ => None,
    }));
    units.extend(systemd::client_units());
    let units: Vec<UnitFacts> = if systemd::present() {
        units.iter().filter_map(|name| systemd::show(name)).collect()
    } else {
        Vec::new()
    };
    let host = clients.iter().filter(|process| processes::of_host(process));
    let named = known
        .iter()
        .filter(|base| !base.is_empty())
        .map(|base| (*base).to_owned());
    let mut bases: BTreeSet<String> = BTreeSet::from([PMM2_BASE.to_owned(), PMM3_BASE.to_owned()]);
    bases.extend(named);
    bases.extend(host.filter_map(|process| base_of(&process.exe)));
    bases.extend(LINKS.iter().filter_map(|link| linked_base(link)));
    bases.extend(
        units
            .iter()
            .filter_map(|unit| unit.exec_start.first())
            .filter_map(|exe| base_of(exe)),
    );
    let trees: Vec<TreeFacts> = bases.iter().filter_map(|base| tree(base)).collect();
    let mut facts = Facts {
        deb: deb(),
        rpm: rpm(),
        processes: process_facts,
        units,
        trees,
        mixed,
        ..Facts::default()
    };
    let paths: BTreeSet<String> = config_paths(&facts);
    for path in paths {
        if let Ok(bytes) = fs::read(&path) {
            facts.configs.insert(path, config::parse(&bytes));
        }
    }
    facts.status = status(&facts);
    let detection = client_upgrade::detect::detect(&facts);
    Looked {
        facts,
        detection,
        clients,
    }
}

/// What shows that a PMM Server runs on this host; read from `/proc`, so that no container engine is asked.
pub fn pmm_server() -> Option<String> {
    let found =
        processes::find(|exe| exe.rsplit('/').next() == Some(client_upgrade::detect::PMM_SERVER_PROGRAM));
    client_upgrade::detect::pmm_server(found.iter().map(|process| &process.home))
}

fn process(found: &processes::Process) -> ProcessFacts {
    let host = processes::of_host(found);
    let environment = if host {
        Variables::of_pairs(processes::environment(found.pid))
    } else {
        Variables::default()
    };
    let config_file = proc::flag(&found.argv, "config-file")
        .or_else(|| environment.get(CONFIG_FILE).map(str::to_owned))
        .map(|path| absolute(&found.cwd, &path));
    ProcessFacts {
        pid: found.pid,
        exe: found.exe.clone(),
        gone: host && fs::symlink_metadata(&found.exe).is_err(),
        owner: if host { package_owner(&found.exe) } else { None },
        config_file,
        user: if host {
            accounts::name_of(found.uid)
        } else {
            found.uid.to_string()
        },
        home: found.home.clone(),
        environment,
    }
}

fn absolute(cwd: &str, path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        PathBuf::from(cwd).join(path).display().to_string()
    }
}

/// The base directory of `<base>/bin/pmm-agent`, links resolved.
fn base_of(exe: &str) -> Option<String> {
    let resolved = fs::canonicalize(exe).unwrap_or_else(|_| PathBuf::from(exe));
    let bin = resolved.parent()?;
    (bin.file_name()? == "bin")
        .then(|| bin.parent().map(|base| base.display().to_string()))
        .flatten()
        .filter(|base| base != "/usr")
}

/// The base directory that a link leads to; a dangling one leads nowhere.
fn linked_base(link: &str) -> Option<String> {
    std::fs::read_link(link).ok()?;
    base_of(&fs::canonicalize(link).ok()?.display().to_string())
}

fn config_paths(facts: &Facts) -> BTreeSet<String> {
    let from_processes = facts
        .processes
        .iter()
        .filter(|process| !matches!(process.home, Home::Container(_) | Home::Pod(_)));
    let from_units = facts.units.iter().filter_map(client_upgrade::detect::unit_config);
    let from_trees = facts
        .trees
        .iter()
        .map(|tree| format!("{}/config/pmm-agent.yaml", tree.dir));
    from_processes
        .filter_map(|process| process.config_file.clone())
        .chain(from_units)
        .chain(from_trees)
        .collect()
}

/// The answer of the local API, asked at the address that the running client has from its variables or its configuration.
fn status(facts: &Facts) -> Option<client_upgrade::parse::status::ClientStatus> {
    client_upgrade::detect::host_processes(facts).next()?;
    let mut asked = BTreeSet::new();
    let running = client_upgrade::detect::host_processes(facts).map(|process| {
        let path = process.config_file.as_deref().unwrap_or_default();
        facts.local_api(path, &process.environment)
    });
    let others = facts.configs.values().flatten().map(|config| config.local_api());
    for (address, port) in running.chain(others) {
        if asked.insert((address.clone(), port))
            && let Some(status) = local_api::status(&address, port)
        {
            return Some(status);
        }
    }
    if asked.contains(&("127.0.0.1".to_owned(), 7777)) {
        None
    } else {
        local_api::status("127.0.0.1", 7777)
    }
}

fn tree(base: &str) -> Option<TreeFacts> {
    let agent = format!("{base}/bin/pmm-agent");
    fs::symlink_metadata(&agent).ok()?;
    let owner = package_owner(&agent);
    let (uid, gid) = processes::owner_of(Path::new(base)).unwrap_or((0, 0));
    let version = if owner.is_some() {
        None
    } else {
        program_version(base, uid, gid)
    };
    Some(TreeFacts {
        dir: base.to_owned(),
        owner,
        version,
        user: accounts::name_of(uid),
    })
}

/// Release of the programs in a tree, by running `pmm-admin --version` as the tree's owner.
pub fn program_version(base: &str, uid: u32, gid: u32) -> Option<PmmVersion> {
    let output = Tool::new(format!("{base}/bin/pmm-admin"))
        .arg("--version")
        .by_user(uid, gid)
        .run()
        .ok()?;
    version::program(&output.stdout).or_else(|| version::program(&output.stderr))
}

/// The client packages in dpkg's database; none where there is no dpkg.
fn deb() -> Vec<PackageFacts> {
    deb_packages().unwrap_or_default()
}

/// The same, where "could not be asked" must not pass for "none".
pub fn deb_packages() -> Result<Vec<PackageFacts>, ToolError> {
    let call = Tool::new("dpkg-query")
        .args(["-W", "-f", dpkg::QUERY_FORMAT])
        .args(PACKAGES);
    Ok(dpkg::query(&call.timeout(DATABASE_PATIENCE).run()?.stdout))
}

/// The client packages in rpm's database; none where there is no rpm.
fn rpm() -> Vec<PackageFacts> {
    rpm_packages().unwrap_or_default()
}

/// The same, where "could not be asked" must not pass for "none".
pub fn rpm_packages() -> Result<Vec<PackageFacts>, ToolError> {
    let call = Tool::new("rpm")
        .args(["-q", "--qf", rpm::QUERY_FORMAT])
        .args(PACKAGES);
    Ok(rpm::query(&call.timeout(DATABASE_PATIENCE).run()?.stdout))
}

/// The package that owns a file.
pub fn package_owner(path: &str) -> Option<String> {
    let dpkg_says = Tool::new("dpkg")
        .args(["-S", "--", path])
        .run()
        .ok()
        .filter(|output| output.ok());
    if let Some(owner) = dpkg_says.and_then(|output| dpkg::owner(&output.stdout)) {
        return Some(owner);
    }
    let rpm_says = Tool::new("rpm")
        .args(["-qf", "--qf", "%{NAME}\\n", "--", path])
        .run()
        .ok()
        .filter(|output| output.ok());
    rpm_says.and_then(|output| rpm::owner(&output.stdout))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn links_tell_the_directory_of_a_stopped_tarball() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let (bin, link) = (root.join("pmm2/bin"), root.join("pmm-agent"));
        let seen = || linked_base(&link.display().to_string());
        fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink(bin.join("pmm-agent"), &link).unwrap();
        assert_eq!(seen(), None);
        fs::write(bin.join("pmm-agent"), "").unwrap();
        assert_eq!(seen(), Some(root.join("pmm2").display().to_string()));
        fs::remove_file(&link).unwrap();
        fs::write(&link, "").unwrap();
        assert_eq!(seen(), None);
    }
}
