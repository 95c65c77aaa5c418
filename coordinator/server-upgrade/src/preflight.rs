//! Judgements of the server's preflight. The shell looks, here it is decided what the sight means.

use crate::facts::{DataMount, ServerFacts};
use crate::recreate::ContainerSpec;
use crate::volume::LookReport;
use fleet_common::survey::{Finding, Verdict};
use fleet_common::version::PmmVersion;

/// What the shell saw.
#[derive(Clone, Debug)]
pub struct Sight<'a> {
    /// The server.
    pub facts: &'a ServerFacts,
    /// The releases to run one after the other.
    pub path: &'a [PmmVersion],
    /// The volume helper's look at the data, or why there is none.
    pub look: Result<&'a LookReport, &'a str>,
    /// Free bytes where restore points are written.
    pub free_bytes: u64,
    /// The specification of the container of each hop.
    pub specs: &'a [(PmmVersion, ContainerSpec)],
    /// For each image that is needed: digest, or why there is none.
    pub images: &'a [(PmmVersion, Result<String, String>)],
    /// Whether the credential is an administrator's, or why that is not known.
    pub admin: Result<(), &'a str>,
    /// Services with scheduled database backups, with their nodes.
    pub backups_on: &'a [String],
    /// Services whose backup or restore runs now, with their nodes.
    pub backups_running: &'a [String],
    /// What PMM did not tell about its backups, and why.
    pub backups_unknown: &'a [String],
    /// Clients in PMM's inventory.
    pub clients: usize,
    /// Services in PMM's inventory, the server's own left out.
    pub services: usize,
    /// External Alertmanager address or rules that PMM 3 deletes.
    pub alertmanager: bool,
}

/// All checks, in order.
pub fn judge(sight: &Sight<'_>) -> Vec<Finding> {
    let mut out = Findings::default();
    version(sight, &mut out);
    data(sight, &mut out);
    space(sight, &mut out);
    container(sight, &mut out);
    images(sight, &mut out);
    access(sight, &mut out);
    losses(sight, &mut out);
    out.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, verdict: Verdict, check: &str, message: String, hint: &str) {
        self.0.push(Finding {
            check: check.to_owned(),
            verdict,
            message,
            hint: hint.to_owned(),
        });
    }
    fn pass(&mut self, check: &str, message: String) {
        self.add(Verdict::Pass, check, message, "");
    }
}

fn version(sight: &Sight<'_>, out: &mut Findings) {
    let facts = sight.facts;
    match facts.image_version {
        Some(image) if image == facts.version => out.pass(
            "image_version",
            format!("the container runs {image} from an image of {image}"),
        ),
        Some(image) => out.add(
            Verdict::Warn,
            "image_version",
            format!(
                "PMM runs {} in a container of an image of {image}: it updated itself",
                facts.version
            ),
            "the container is first re-created on an image of the running release",
        ),
        None => out.add(
            Verdict::Warn,
            "image_version",
            format!("the release of the image {} is not known", facts.image),
            "the container is first re-created on an image of the running release",
        ),
    }
}

fn data(sight: &Sight<'_>, out: &mut Findings) {
    match &sight.facts.data {
        None => out.add(
            Verdict::Fail,
            "data_mount",
            "nothing is mounted at /srv: the data is in the container itself".to_owned(),
            "move /srv to a volume as PMM's documentation describes, then plan again",
        ),
        Some(DataMount::Volume { name }) => out.pass("data_mount", format!("/srv is the volume {name}")),
        Some(DataMount::Bind { source }) => out.pass("data_mount", format!("/srv is the directory {source}")),
    }
    match sight.look {
        Err(why) => out.add(
            Verdict::Fail,
            "data",
            format!("the data could not be looked at: {why}"),
            "see the message",
        ),
        Ok(look) => {
            let objections = look.objections(sight.facts.version);
            if objections.is_empty() {
                out.pass(
                    "data",
                    format!(
                        "{} files, {} bytes, last used by {}",
                        look.files, look.bytes, sight.facts.version
                    ),
                );
            }
            for objection in objections {
                out.add(
                    Verdict::Fail,
                    "data",
                    objection,
                    "check that the container has the right volume and that its last update ended",
                );
            }
        }
    }
}

fn space(sight: &Sight<'_>, out: &mut Findings) {
    let Ok(look) = sight.look else { return };
    let hops = sight.path.len().max(1) as u64;
    // Every hop has its own restore point, and databases need head-room to migrate.
    let needed = look.bytes.saturating_mul(hops).saturating_add(look.bytes / 10);
    let message = format!(
        "{} bytes free, {needed} needed for {hops} restore points",
        sight.free_bytes
    );
    if sight.free_bytes < needed {
        out.add(
            Verdict::Fail,
            "space",
            message,
            "free space where Docker keeps its volumes",
        );
    } else {
        out.pass("space", message);
    }
}

fn container(sight: &Sight<'_>, out: &mut Findings) {
    let before = out.0.len();
    for (to, spec) in sight.specs {
        for problem in &spec.problems {
            out.add(
                Verdict::Fail,
                "container",
                format!("for {to}: {problem}"),
                "change the container so that it can be re-created",
            );
        }
        for warning in &spec.warnings {
            out.add(Verdict::Warn, "container", format!("for {to}: {warning}"), "");
        }
        for change in &spec.env_changes {
            out.pass("environment", format!("for {to}: {change}"));
        }
    }
    if out
        .0
        .iter()
        .skip(before)
        .all(|finding| finding.verdict == Verdict::Pass)
    {
        out.pass(
            "container",
            "everything about the container can be kept".to_owned(),
        );
    }
    let external: Vec<&str> = sight
        .facts
        .operator_env
        .iter()
        .map(String::as_str)
        .filter(|name| is_external(name))
        .collect();
    if !external.is_empty() {
        out.add(
            Verdict::Fail,
            "external_database",
            format!(
                "PMM uses databases outside of its volume ({}): a copy of the volume is no way back for them",
                external.join(", ")
            ),
            "not supported yet; back them up and upgrade by hand",
        );
    }
}

/// Variables that move PMM's data out of the volume.
fn is_external(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["DISABLE_BUILTIN_CLICKHOUSE", "DISABLE_BUILTIN_POSTGRES"]
        .iter()
        .any(|part| name.ends_with(part))
}

fn images(sight: &Sight<'_>, out: &mut Findings) {
    for (version, image) in sight.images {
        match image {
            Ok(digest) => out.pass("image", format!("{version} is {digest}")),
            Err(why) => out.add(
                Verdict::Fail,
                "image",
                format!("no image of {version}: {why}"),
                "check image_repository in the fleet file and that the engine reaches the registry",
            ),
        }
    }
}

fn access(sight: &Sight<'_>, out: &mut Findings) {
    match sight.admin {
        Ok(()) => out.pass("credential", "the credential is an administrator's".to_owned()),
        Err(why) => out.add(
            Verdict::Fail,
            "credential",
            format!("the credential does not open PMM's administration: {why}"),
            "use a local Grafana user with the Admin role; users who sign in with a Percona account are locked out from 3.7.0 on",
        ),
    }
    if sight.clients == 0 && sight.services == 0 {
        out.add(
            Verdict::Warn,
            "inventory",
            "PMM has no clients: only its own data tells an upgraded PMM from a fresh one".to_owned(),
            "",
        );
    } else {
        out.pass(
            "inventory",
            format!("{} clients, {} services", sight.clients, sight.services),
        );
    }
}

fn losses(sight: &Sight<'_>, out: &mut Findings) {
    if !sight.backups_on.is_empty() {
        out.add(
            Verdict::Warn,
            "scheduled_backups",
            format!(
                "database backups by PMM are scheduled on {}; they stop until these clients are upgraded",
                sight.backups_on.join(", ")
            ),
            "take backups by other means in between",
        );
    }
    if !sight.backups_running.is_empty() {
        out.add(
            Verdict::Warn,
            "running_backups",
            format!(
                "PMM runs a database backup or restore now: {}",
                sight.backups_running.join(", ")
            ),
            "let it end before the start; a host with a running one is not switched",
        );
    }
    if !sight.backups_unknown.is_empty() {
        out.add(
            Verdict::Warn,
            "backups_unknown",
            format!("PMM did not tell: {}", sight.backups_unknown.join("; ")),
            "look at Backups in PMM's screens before the start",
        );
    }
    let crosses = sight.facts.version.major == 2 && sight.path.iter().any(|version| version.major >= 3);
    if sight.alertmanager && crosses {
        out.add(
            Verdict::Warn,
            "alertmanager",
            "the external Alertmanager address and rules are deleted by PMM 3".to_owned(),
            "note them down",
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts() -> ServerFacts {
        ServerFacts {
            version: PmmVersion::new(2, 44, 1),
            marker: Some(PmmVersion::new(2, 44, 1)),
            container: "pmm-server".to_owned(),
            container_id: "c".to_owned(),
            image: "percona/pmm-server:2".to_owned(),
            image_id: "i".to_owned(),
            image_version: Some(PmmVersion::new(2, 44, 1)),
            image_digests: vec![],
            data: Some(DataMount::Volume {
                name: "pmm-data".to_owned(),
            }),
            ports: vec![],
            networks: vec![],
            reach: fleet_common::reach::ContainerReach::default(),
            restart_policy: "always".to_owned(),
            operator_env: vec![],
            distribution: "docker".to_owned(),
            engine: "20.10".to_owned(),
            engine_api: "1.41".to_owned(),
        }
    }

    fn look() -> LookReport {
        LookReport {
            distribution: Some("docker".to_owned()),
            dashboards_version: Some("2.44.1".to_owned()),
            bytes: 1000,
            ..LookReport::default()
        }
    }

    fn sight<'a>(facts: &'a ServerFacts, look: &'a LookReport, path: &'a [PmmVersion]) -> Sight<'a> {
        Sight {
            facts,
            path,
            look: Ok(look),
            free_bytes: 1 << 30,
            specs: &[],
            images: &[],
            admin: Ok(()),
            backups_on: &[],
            backups_running: &[],
            backups_unknown: &[],
            clients: 1,
            services: 1,
            alertmanager: false,
        }
    }

    fn failed(findings: &[Finding]) -> Vec<&str> {
        findings
            .iter()
            .filter(|one| one.verdict == Verdict::Fail)
            .map(|one| one.check.as_str())
            .collect()
    }

    #[test]
    fn a_sound_server_passes() {
        let (facts, look) = (facts(), look());
        assert!(failed(&judge(&sight(&facts, &look, &[PmmVersion::new(3, 7, 1)]))).is_empty());
    }

    #[test]
    fn backups_are_named_and_unknown_is_not_none() {
        let (facts, look) = (facts(), look());
        let path = [PmmVersion::new(3, 7, 1)];
        let mut sight = sight(&facts, &look, &path);
        let named = ["mysql-1 on db-1".to_owned()];
        (sight.backups_on, sight.backups_running, sight.backups_unknown) = (&named, &named, &named);
        let found = judge(&sight);
        for check in ["scheduled_backups", "running_backups", "backups_unknown"] {
            let one = found.iter().find(|one| one.check == check).unwrap();
            assert!(
                one.verdict == Verdict::Warn && one.message.contains("mysql-1 on db-1"),
                "{one:?}"
            );
        }
    }

    #[test]
    fn each_trap_is_named() {
        let path = [PmmVersion::new(3, 7, 1)];
        let mut bad = facts();
        bad.data = None;
        bad.operator_env = vec!["PERCONA_TEST_PMM_DISABLE_BUILTIN_POSTGRES".to_owned()];
        let empty = LookReport {
            empty: true,
            ..LookReport::default()
        };
        let mut seen = sight(&bad, &empty, &path);
        let images = [(PmmVersion::new(3, 7, 1), Err("manifest unknown".to_owned()))];
        seen.images = &images;
        seen.admin = Err("403");
        let findings = judge(&seen);
        assert_eq!(
            failed(&findings),
            [
                "data_mount",
                "data",
                "data",
                "external_database",
                "image",
                "credential"
            ]
        );

        let (facts, mut old) = (facts(), look());
        old.dashboards_version = Some("2.41.2".to_owned());
        let mut seen = sight(&facts, &old, &path);
        seen.free_bytes = 10;
        assert_eq!(failed(&judge(&seen)), ["data", "space"]);
    }
}
