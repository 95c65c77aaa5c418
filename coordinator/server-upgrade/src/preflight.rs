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
    /// Restore points that the whole path writes: one per hop, and one more if the container is re-created first.
    pub restore_points: u64,
    /// Bytes of the images that the engine does not have yet.
    pub image_bytes: u64,
    /// What is mounted read-only below the data, and is left alone.
    pub read_only: &'a [String],
    /// Writable mounts below those.
    pub hidden: &'a [String],
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
    /// Names of variables that point to databases outside of the volume.
    pub external: &'a [String],
    /// External Alertmanager address or rules that PMM 3 deletes.
    pub alertmanager: bool,
}

/// All checks, in order.
pub fn judge(sight: &Sight<'_>) -> Vec<Finding> {
    let mut out = Findings::default();
    version(sight, &mut out);
    data(sight, &mut out);
    read_only_mounts(sight, &mut out);
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

fn read_only_mounts(sight: &Sight<'_>, out: &mut Findings) {
    if !sight.hidden.is_empty() {
        out.add(
            Verdict::Fail,
            "read_only_mounts",
            format!(
                "{} can be written to below a read-only mount, which a restore point passes by",
                sight.hidden.join(", ")
            ),
            "mount it elsewhere, or drop the read-only mount around it",
        );
    }
    let (Ok(look), false) = (sight.look, sight.read_only.is_empty()) else {
        return;
    };
    let names = sight.read_only.join(", ");
    if look.unreadable_count == 0 {
        out.add(
            Verdict::Warn,
            "read_only_mounts",
            format!("{names} is mounted read-only: it is neither copied nor given to PMM 3's user"),
            "keep it as it is until the upgrade has ended",
        );
    } else {
        out.add(
            Verdict::Fail,
            "read_only_mounts",
            format!(
                "PMM 3 runs as uid 1000 and can't read {} entries of the read-only mounts ({names}), among them {}",
                look.unreadable_count,
                look.unreadable.join(", ")
            ),
            "let uid 1000 or group 0 read the files on the Docker host, then plan again",
        );
    }
}

fn space(sight: &Sight<'_>, out: &mut Findings) {
    let Ok(look) = sight.look else { return };
    // Databases need head-room to migrate.
    let needed = look
        .bytes
        .saturating_mul(sight.restore_points.max(1))
        .saturating_add(look.bytes / 10)
        .saturating_add(sight.image_bytes);
    let message = format!(
        "{} bytes free, {needed} needed for {} restore points and {} bytes of images",
        sight.free_bytes, sight.restore_points, sight.image_bytes
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
    if !sight.external.is_empty() {
        out.add(
            Verdict::Fail,
            "external_database",
            format!(
                "PMM uses databases outside of its volume ({}): a copy of the volume is no way back for them",
                sight.external.join(", ")
            ),
            "not supported yet; back them up and upgrade by hand",
        );
    }
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
            restore_points: 1,
            image_bytes: 0,
            read_only: &[],
            hidden: &[],
            specs: &[],
            images: &[],
            admin: Ok(()),
            backups_on: &[],
            backups_running: &[],
            backups_unknown: &[],
            clients: 1,
            services: 1,
            external: &[],
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
        let external = ["PERCONA_TEST_PMM_DISABLE_BUILTIN_POSTGRES".to_owned()];
        let empty = LookReport {
            empty: true,
            ..LookReport::default()
        };
        let mut seen = sight(&bad, &empty, &path);
        let images = [(PmmVersion::new(3, 7, 1), Err("manifest unknown".to_owned()))];
        seen.images = &images;
        seen.admin = Err("403");
        seen.external = &external;
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

    #[test]
    fn read_only_mounts_are_told_and_must_be_readable() {
        let path = [PmmVersion::new(3, 7, 1)];
        let (facts, mut look) = (facts(), look());
        let mounts = ["/srv/nginx".to_owned()];
        let mut seen = sight(&facts, &look, &path);
        seen.read_only = &mounts;
        let findings = judge(&seen);
        assert!(failed(&findings).is_empty());
        assert!(
            findings
                .iter()
                .any(|one| one.verdict == Verdict::Warn && one.message.contains("/srv/nginx"))
        );
        let hidden = ["/srv/nginx/own".to_owned()];
        seen.hidden = &hidden;
        assert_eq!(failed(&judge(&seen)), ["read_only_mounts"]);
        look.unreadable = vec!["/srv/nginx/certificate.key".to_owned()];
        look.unreadable_count = 1;
        let mut seen = sight(&facts, &look, &path);
        seen.read_only = &mounts;
        assert_eq!(failed(&judge(&seen)), ["read_only_mounts"]);
    }

    #[test]
    fn space_is_asked_for_every_copy_and_every_image() {
        let path = [PmmVersion::new(3, 7, 1)];
        let (facts, look) = (facts(), look());
        let mut seen = sight(&facts, &look, &path);
        seen.free_bytes = 1100;
        assert!(failed(&judge(&seen)).is_empty());
        seen.restore_points = 2;
        assert_eq!(failed(&judge(&seen)), ["space"]);
        seen.free_bytes = 2100;
        assert!(failed(&judge(&seen)).is_empty());
        seen.image_bytes = 1;
        assert_eq!(failed(&judge(&seen)), ["space"]);
    }
}
