//! The fleet of a scenario: lines such as `group db 3`, with the lines of its policy indented below.

use crate::host::{Behaviour, Host};
use fleet_common::compat::CompatibilityTable;
use fleet_common::ids::HostId;
use fleet_common::inventory::Detection;
use fleet_common::survey::{Finding, Verdict};
use fleet_common::verification::{FleetSnapshot, PmmClient, PmmService};
use fleet_common::version::PmmVersion;
use fleet_sim::fixture;
use rollout::fleet::FleetError;
use rollout::plan::{HostRecord, PlanDraft, Running, ServerInput};
use std::collections::BTreeMap;

/// Monday, an hour before midnight.
const BEGIN: &str = "2026-06-01T22:00:00Z";

/// What a scenario begins with.
#[derive(Clone)]
pub struct Setup {
    pub now: u64,
    /// Release of the server and of the clients.
    pub server: PmmVersion,
    clients: PmmVersion,
    target: String,
    /// Group, number of hosts, lines of its policy.
    groups: Vec<(String, usize, String)>,
    /// Lines below `[server]`, `[timing]`, `[defaults]`.
    tables: BTreeMap<String, String>,
    pub records: Vec<HostRecord>,
    behaviours: BTreeMap<String, Behaviour>,
    /// Replication sets by host name.
    sets: BTreeMap<String, String>,
    /// PMM clients without our agent.
    agentless: Vec<String>,
    /// Hosts whose client reports to another PMM Server.
    foreign: Vec<String>,
    pub findings: Vec<Finding>,
}

impl Setup {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut setup = Self {
            now: moment(BEGIN)?,
            server: PmmVersion::new(3, 9, 1),
            clients: PmmVersion::new(3, 7, 1),
            target: "3.9.1".to_owned(),
            groups: Vec::new(),
            tables: BTreeMap::new(),
            records: Vec::new(),
            behaviours: BTreeMap::new(),
            sets: BTreeMap::new(),
            agentless: Vec::new(),
            foreign: Vec::new(),
            findings: Vec::new(),
        };
        let mut below: Option<String> = None;
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            if line.starts_with("    ") {
                let name = below
                    .clone()
                    .ok_or_else(|| format!("`{line}` stands below nothing"))?;
                setup.add(&name, line.trim());
                continue;
            }
            below = setup
                .line(line)
                .ok_or_else(|| format!("no such line of a fleet: `{line}`"))?;
        }
        Ok(setup)
    }

    /// Takes a line; the name that indented lines below it belong to.
    fn line(&mut self, line: &str) -> Option<Option<String>> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["group", name, hosts] => {
                let hosts: usize = hosts.parse().ok()?;
                self.groups.push((name.to_owned(), hosts, String::new()));
                for _ in 0..hosts {
                    self.new_host(name);
                }
                return Some(Some(name.to_owned()));
            }
            ["table", name] => return Some(Some(format!("[{name}]"))),
            ["begin", at] => self.now = moment(at).ok()?,
            ["releases", server, clients] => {
                self.server = server.parse().ok()?;
                self.clients = clients.parse().ok()?;
            }
            ["target", release] => release.clone_into(&mut self.target),
            ["host", name, behaviour] => {
                let behaviour = Behaviour::parse(behaviour)?;
                self.behaviours.insert(name.to_owned(), behaviour);
            }
            ["set", ref names @ .., set] => {
                for name in names {
                    self.sets.insert((*name).to_owned(), set.to_owned());
                }
            }
            ["stray", name] => self.extra(name, "nobody"),
            ["foreign", name] => {
                self.extra(name, "db");
                self.foreign.push(name.to_owned());
                if let Some(Detection::Installed(found)) =
                    self.records.last_mut().map(|host| &mut host.inventory.client)
                {
                    found.server_address = "other-pmm.example.com:443".to_owned();
                }
            }
            ["agentless", name] => self.agentless.push(name.to_owned()),
            ["blocked", ref why @ ..] => self.findings.push(Finding {
                check: "disk_space".to_owned(),
                verdict: Verdict::Fail,
                message: why.join(" "),
                hint: "make room, then plan again".to_owned(),
            }),
            _ => return None,
        }
        Some(None)
    }

    fn add(&mut self, name: &str, line: &str) {
        let text = match self.groups.iter_mut().find(|group| group.0 == name) {
            Some(group) => &mut group.2,
            None => self.tables.entry(name.to_owned()).or_default(),
        };
        text.push_str(line);
        text.push('\n');
    }

    fn new_host(&mut self, group: &str) {
        let number = self.records.len() + 1;
        self.extra(&format!("db{number:02}"), group);
    }

    fn extra(&mut self, name: &str, group: &str) {
        let number = self.records.len() + 1;
        let mut record = fixture::host(number, group);
        record.inventory.hostname = name.to_owned();
        if let Detection::Installed(found) = &mut record.inventory.client {
            found.version = self.clients;
            found.running_version = Some(self.clients);
            let package = if self.clients.major == 2 {
                "pmm2-client"
            } else {
                "pmm-client"
            };
            found.package = Some(package.to_owned());
            found.package_version = Some(format!("{}-6.bookworm", self.clients));
        }
        if let Some((at, _)) = &mut record.survey {
            *at = self.now;
        }
        self.records.push(record);
    }

    /// A host that joined after the plan was made.
    pub fn join_later(&mut self, name: &str, group: &str, now: u64) -> HostRecord {
        self.extra(name, group);
        let record = self.records.last_mut().unwrap();
        if let Some((at, _)) = &mut record.survey {
            *at = now;
        }
        record.clone()
    }

    /// Another value of a key in the policy of a group.
    pub fn edit(&mut self, group: &str, line: &str) -> Result<(), String> {
        let key = line.split(" = ").next().unwrap_or_default().to_owned();
        let policy = self.groups.iter_mut().find(|found| found.0 == group);
        let policy = &mut policy.ok_or("there is no such group")?.2;
        let kept = policy.lines().filter(|known| !known.starts_with(&key));
        *policy = kept.chain([line]).map(|line| format!("{line}\n")).collect();
        Ok(())
    }

    /// The fleet file.
    pub fn fleet_text(&self) -> String {
        let table = |name: &str| self.tables.get(&format!("[{name}]")).cloned().unwrap_or_default();
        let target = &self.target;
        let mut text = format!(
            "[server]\nurl = \"https://pmm.example.com\"\ncredential_file = \"/etc/pmm-coordinator/pmm-admin\"\ntarget = \"{target}\"\n{}",
            table("server")
        );
        let digest = "0123456789abcdef".repeat(4);
        text.push_str("[clients.tarball.sha256]\n");
        for release in ["3.2.0", target] {
            text.push_str(&format!(
                "\"pmm-client-{release}-x86_64.tar.gz\" = \"{digest}\"\n"
            ));
        }
        text.push_str(&format!("[timing]\n{}", table("timing")));
        text.push_str(&format!("[rollout]\n{}", table("rollout")));
        text.push_str(&format!("[defaults]\n{}", table("defaults")));
        for (name, _, policy) in &self.groups {
            text.push_str(&format!(
                "[[group]]\nname = \"{name}\"\nmatch = {{ labels = {{ group = \"{name}\" }} }}\n{policy}"
            ));
        }
        text
    }

    /// PMM's view of the hosts as they are, with the clients that have no agent of ours.
    pub fn snapshot(&self, hosts: &BTreeMap<HostId, Host>, server: PmmVersion, now: u64) -> FleetSnapshot {
        let mut view = FleetSnapshot {
            taken_at_ms: now,
            qan_from_ms: now - 3_600_000,
            server_version: Some(server),
            ..FleetSnapshot::default()
        };
        for host in hosts.values().filter(|host| !self.foreign.contains(&host.name)) {
            host.add_to(&mut view, self.sets.get(&host.name), now);
        }
        for name in &self.agentless {
            view.clients.insert(
                format!("agent-{name}"),
                PmmClient {
                    node_id: format!("node-{name}"),
                    node_name: name.clone(),
                    connected: true,
                    version: Some(self.clients.to_string()),
                },
            );
            view.services.insert(
                format!("service-{name}"),
                service(name, &format!("node-{name}"), ""),
            );
        }
        view
    }

    /// The hosts of the plan and those beside it.
    pub fn hosts(&self) -> BTreeMap<HostId, Host> {
        self.records
            .iter()
            .map(|record| (record.host_id.clone(), self.host(record)))
            .collect()
    }

    pub fn host(&self, record: &HostRecord) -> Host {
        let behaviour = self.behaviours.get(&record.inventory.hostname).copied();
        Host::new(record, behaviour.unwrap_or(Behaviour::Good))
    }

    /// The plan of the fleet file as it is now, made by the real code.
    pub fn draft(
        &self,
        hosts: &BTreeMap<HostId, Host>,
        server: PmmVersion,
        now: u64,
        running: Option<&Running>,
    ) -> Result<PlanDraft, Vec<FleetError>> {
        self.draft_of(&self.fleet_text(), hosts, server, now, running)
    }

    /// The same of another fleet file.
    pub fn draft_of(
        &self,
        file: &str,
        hosts: &BTreeMap<HostId, Host>,
        server: PmmVersion,
        now: u64,
        running: Option<&Running>,
    ) -> Result<PlanDraft, Vec<FleetError>> {
        let fleet = rollout::fleet::parse(file, "fleet.toml")?;
        let input = ServerInput {
            running: server,
            findings: self.findings.clone(),
            reach: fixture::reach(),
        };
        let view = self.snapshot(hosts, server, now);
        // An inventory says what runs now.
        let mut records = self.records.clone();
        for record in &mut records {
            if let Detection::Installed(found) = &mut record.inventory.client
                && let Some(version) = hosts.get(&record.host_id).and_then(Host::version)
            {
                found.version = version;
            }
        }
        let table = CompatibilityTable::shipped().unwrap();
        rollout::plan::join_child(&fleet, &records, &view, &input, &table, now, running)
    }
}

/// A service as PMM describes it.
pub fn service(name: &str, node: &str, set: &str) -> PmmService {
    PmmService {
        name: format!("mysql-{name}"),
        service_type: "mysql".to_owned(),
        node_id: node.to_owned(),
        environment: "prod".to_owned(),
        cluster: String::new(),
        replication_set: set.to_owned(),
        address: "127.0.0.1:3306".to_owned(),
        custom_labels: BTreeMap::new(),
    }
}

fn moment(text: &str) -> Result<u64, String> {
    let at: jiff::Timestamp = text.parse().map_err(|error| format!("`{text}`: {error}"))?;
    u64::try_from(at.as_millisecond()).map_err(|error| error.to_string())
}
