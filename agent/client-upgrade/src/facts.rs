//! What was seen on the host, before anything is concluded from it.

use crate::carry::{PMM2_BASE, PMM3_BASE};
use crate::environment::Variables;
use crate::parse::config::ClientConfig;
use crate::parse::status::ClientStatus;
use fleet_common::version::PmmVersion;
use std::collections::BTreeMap;

/// State of a package in its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageState {
    /// Installed and configured.
    Installed,
    /// Removed, configuration left (`rc`). Never purged by us: the purge script of `pmm2-client` deletes the account that the PMM 3 service
    /// uses (percona/pmm build/packages/deb/postrm).
    LeftOver,
    /// Half installed, half configured, or waiting for triggers.
    Broken,
    /// Not there.
    Absent,
}

/// A package as its database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageFacts {
    /// Package name.
    pub name: String,
    /// State.
    pub state: PackageState,
    /// Full version text.
    pub version: String,
}

/// Where a process lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// In this systemd service of the host.
    Service(String),
    /// In a container of the host, with its cgroup path.
    Container(String),
    /// In a pod, with its cgroup path.
    Pod(String),
    /// In a login session, a scope, or no group at all: started by hand.
    ByHand,
}

/// A running `pmm-agent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Process id.
    pub pid: u32,
    /// The executable, resolved; `(deleted)` removed.
    pub exe: String,
    /// Whether the executable is no longer on the disk: it was exchanged or removed while it ran.
    pub gone: bool,
    /// Package that owns the executable.
    pub owner: Option<String>,
    /// `--config-file`, or the variable of that name, made absolute.
    pub config_file: Option<String>,
    /// Account name, or the uid as text.
    pub user: String,
    /// Where it lives.
    pub home: Home,
    /// Its `PMM_AGENT_*` variables.
    pub environment: Variables,
}

impl ProcessFacts {
    /// Whether it runs from a package: one that is installed, or one that was exchanged for another under the running client.
    pub fn packaged(&self) -> bool {
        let was = |base: &str| {
            self.exe
                .strip_prefix(base)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        self.owner.is_some() || (self.gone && (was(PMM2_BASE) || was(PMM3_BASE)))
    }
}

/// A systemd unit that runs, or would run, the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFacts {
    /// Unit name.
    pub name: String,
    /// `ActiveState`.
    pub active: String,
    /// `UnitFileState`.
    pub file_state: String,
    /// `FragmentPath`.
    pub fragment: String,
    /// `DropInPaths`.
    pub drop_ins: Vec<String>,
    /// argv of `ExecStart`.
    pub exec_start: Vec<String>,
    /// `User`.
    pub user: String,
    /// Paths of `EnvironmentFiles`.
    pub environment_files: Vec<String>,
    /// `PMM_AGENT_*` variables of `Environment`, over them those of the files.
    pub environment: Variables,
}

impl UnitFacts {
    /// Whether the unit starts at boot.
    pub fn enabled(&self) -> bool {
        self.file_state.starts_with("enabled")
    }
}

/// A directory with a client's program tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeFacts {
    /// Base directory.
    pub dir: String,
    /// Package that owns `bin/pmm-agent` in it.
    pub owner: Option<String>,
    /// Release of `bin/pmm-admin`.
    pub version: Option<PmmVersion>,
    /// Account that owns the directory.
    pub user: String,
}

/// Which installation wins when several are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mixed {
    /// None: report and refuse.
    #[default]
    Refuse,
    /// The package.
    Package,
    /// The tarball.
    Tarball,
}

/// Everything that detection looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `pmm2-client` and `pmm-client` in dpkg's database.
    pub deb: Vec<PackageFacts>,
    /// The same in rpm's.
    pub rpm: Vec<PackageFacts>,
    /// Every running `pmm-agent`.
    pub processes: Vec<ProcessFacts>,
    /// `pmm-agent.service` and the units of the processes.
    pub units: Vec<UnitFacts>,
    /// Program trees: the two default directories and those of the processes.
    pub trees: Vec<TreeFacts>,
    /// Configuration files by path; `None` where the file can't be understood.
    pub configs: BTreeMap<String, Option<ClientConfig>>,
    /// Answer of the local API.
    pub status: Option<ClientStatus>,
    /// The policy's choice.
    pub mixed: Mixed,
}

impl Facts {
    /// A configuration as the client sees it: the file with variables over it. `None` where the file is opaque, or where nothing is known.
    pub fn effective(&self, path: &str, variables: &Variables) -> Option<ClientConfig> {
        match self.configs.get(path) {
            Some(file) => file.as_ref().map(|file| variables.applied(file)),
            None if variables.is_empty() => None,
            None => Some(variables.applied(&ClientConfig::default())),
        }
    }

    /// Address and port of the local API. Variables tell it even where the file is opaque.
    pub fn local_api(&self, path: &str, variables: &Variables) -> (String, u16) {
        let file = self.configs.get(path).cloned().flatten().unwrap_or_default();
        variables.applied(&file).local_api()
    }
}
