//! The fleet of the demo: which hosts, installed how, in which group, with which credentials and services; and its fleet file.

use crate::names;
use std::fmt::Write as _;

/// How the client gets onto a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `apt-get install pmm2-client`.
    Deb,
    /// `dnf install pmm2-client`.
    Rpm,
    /// Tarball in the default directory with a unit.
    TarDefault,
    /// Tarball in a directory of its own, run by hand as an ordinary user.
    TarCustom,
}

impl Kind {
    /// The method as reports name it.
    pub fn method(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Rpm => "rpm",
            Self::TarDefault | Self::TarCustom => "tarball",
        }
    }
    /// The image of the host.
    pub fn image(self) -> &'static str {
        match self {
            Self::Deb => "host-deb",
            Self::Rpm => "host-rpm",
            Self::TarDefault | Self::TarCustom => "host-tar",
        }
    }
    /// Base directory of the PMM 2 client.
    pub fn base_v2(self) -> &'static str {
        match self {
            Self::TarCustom => "/home/dba/pmm2",
            _ => "/usr/local/percona/pmm2",
        }
    }
}

/// One host.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Host name and PMM node name.
    pub name: &'static str,
    /// Installation.
    pub kind: Kind,
    /// Group in the fleet file and value of the label `tier`.
    pub group: &'static str,
    /// API key instead of user and password.
    pub api_key: bool,
    /// Services: (type, name, idle).
    pub services: &'static [(&'static str, &'static str, bool)],
}

/// The six hosts of the demo, in group order.
pub const HOSTS: [Host; 6] = [
    Host {
        name: "deb-a",
        kind: Kind::Deb,
        group: "canary",
        api_key: true,
        services: &[("mysql", "mysql-deb-a", false)],
    },
    Host {
        name: "tar-a",
        kind: Kind::TarDefault,
        group: "canary",
        api_key: false,
        services: &[("postgresql", "pg-tar-a", false)],
    },
    Host {
        name: "deb-b",
        kind: Kind::Deb,
        group: "staging",
        api_key: false,
        services: &[("mysql", "mysql-deb-b", false), ("mongodb", "mongo-deb-b", true)],
    },
    Host {
        name: "rpm-a",
        kind: Kind::Rpm,
        group: "staging",
        api_key: true,
        services: &[("postgresql", "pg-rpm-a", false)],
    },
    Host {
        name: "rpm-b",
        kind: Kind::Rpm,
        group: "production",
        api_key: false,
        services: &[("mysql", "mysql-rpm-b", false)],
    },
    Host {
        name: "tar-b",
        kind: Kind::TarCustom,
        group: "production",
        api_key: true,
        services: &[("mongodb", "mongo-tar-b", false)],
    },
];

/// What a scenario wants other than the demo's fleet.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Hosts whose client addresses the PMM Server's container itself, past its published port: the host, and a name of the container.
    pub direct: &'static [(&'static str, &'static str)],
    /// The host whose client and agent keep their files on small disks of their own.
    pub small_disk: Option<&'static str>,
    /// The host on which PMM backs up a database.
    pub backup: Option<&'static str>,
    /// Nothing is mounted below the server's data. On an empty volume the engine makes the directory of such a mount as root's, and a fresh PMM 3
    /// stops there instead of becoming healthy.
    pub plain_data: bool,
    /// The host whose agent enrols only while the rollout runs.
    pub late: Option<&'static str>,
    /// Times of the fleet file that are not the product's own.
    pub timing: &'static [(&'static str, &'static str)],
}

impl Wishes {
    /// The demo's fleet.
    pub const NONE: Self = Self {
        direct: &[],
        small_disk: None,
        backup: None,
        plain_data: false,
        late: None,
        timing: &[],
    };

    /// Where a host's client finds the PMM Server of a major.
    pub fn server_address(&self, host: &str, major: u32) -> String {
        let direct = self.direct.iter().find(|(name, _)| *name == host);
        match (direct, major) {
            (None, _) => format!("pmm.lab:{}", names::PMM_PORT),
            (Some((_, container)), 2) => format!("{container}:443"),
            (Some((_, container)), _) => format!("{container}:8443"),
        }
    }
}

/// The host of a name.
pub fn host(name: &str) -> anyhow::Result<&'static Host> {
    HOSTS
        .iter()
        .find(|host| host.name == name)
        .ok_or_else(|| anyhow::anyhow!("the fleet has no host {name}"))
}

/// Groups in order.
pub const GROUPS: [&str; 3] = ["canary", "staging", "production"];

/// What differs between the scenarios' fleet files.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// Docker socket that the coordinator uses.
    pub docker_socket: String,
    /// Certificate fingerprint of the PMM Server.
    pub fingerprint: String,
    /// Credential file.
    pub credential_file: String,
    /// Server and client target.
    pub target: &'static str,
    /// `bridge` release, if the decision is a bridge.
    pub bridge: Option<&'static str>,
    /// `image` or `api`.
    pub pmm2_update: &'static str,
    /// Failure threshold of every group.
    pub failure_threshold: u32,
    /// Pinned digests of the tarballs: file name and SHA-256.
    pub tarballs: Vec<(String, String)>,
    /// `[timing]`.
    pub timing: &'static [(&'static str, &'static str)],
}

/// The fleet file.
pub fn fleet_file(options: &FileOptions) -> String {
    let mut text = format!(
        r#"[server]
url = "https://127.0.0.1:{port}"
credential_file = "{credentials}"
fingerprint = "sha256:{fingerprint}"
docker = {{ endpoint = "unix://{socket}", container = "{container}" }}
image_repository = "{repository}"
target = "{target}"
pmm2_update = "{update}"

[server.pmm2_clients]
{decision}

[clients]
target = "{target}"
source = {{ percona_repository = "release" }}
repository_url = "http://repo.lab"

[clients.tarball]
url = "http://repo.lab/downloads"

[clients.tarball.sha256]
"#,
        port = names::PMM_PORT,
        credentials = options.credential_file,
        fingerprint = options.fingerprint,
        socket = options.docker_socket,
        container = names::PMM,
        repository = names::image_repository(),
        target = options.target,
        update = options.pmm2_update,
        decision = options.bridge.map_or_else(
            || format!("accept_gap = \"{}\"", options.target),
            |release| format!("bridge = \"{release}\"")
        ),
    );
    for (file, digest) in &options.tarballs {
        let _ = writeln!(text, "\"{file}\" = \"{digest}\"");
    }
    let _ = write!(
        text,
        "\n[defaults]\nmax_unavailable = 2\nfailure_threshold = {}\non_breach = \"pause\"\n",
        options.failure_threshold
    );
    text.push_str("\n[timing]\n");
    for (key, value) in options.timing {
        let _ = writeln!(text, "{key} = \"{value}\"");
    }
    for group in GROUPS {
        let _ = write!(
            text,
            "\n[[group]]\nname = \"{group}\"\nmatch = {{ labels = {{ tier = \"{group}\" }} }}\ncanaries = 1\n"
        );
    }
    text
}
