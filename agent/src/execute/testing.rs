//! Documents for tests.

use super::saved::Saved;
use fleet_common::inventory::{Installation, Method, RunKind};
use fleet_common::plan_entry::{ClientSource, Expect, PlanEntry};
use fleet_common::version::PmmVersion;
use std::collections::BTreeMap;

/// A client of release 2.44.1 that does not run.
pub fn installation(method: Method) -> Installation {
    let packaged = method != Method::Tarball;
    Installation {
        method,
        package: packaged.then(|| "pmm2-client".to_owned()),
        package_version: packaged.then(|| "2.44.1-6.bookworm".to_owned()),
        version: PmmVersion::new(2, 44, 1),
        running_version: None,
        base_dir: "/no/such/pmm2".to_owned(),
        configured: true,
        config_file: "/no/such/pmm2/config/pmm-agent.yaml".to_owned(),
        user: "root".to_owned(),
        run: RunKind::Stopped,
        agent_id: "a".to_owned(),
        node_id: "n".to_owned(),
        server_ips: Vec::new(),
        server_address: "pmm:443".to_owned(),
        connected: None,
        credential: "password".to_owned(),
        exporters: BTreeMap::new(),
        evidence: Vec::new(),
    }
}

/// The plan of going to 3.9.1.
pub fn entry(method: Method) -> PlanEntry {
    PlanEntry {
        host: "h".to_owned(),
        name: "h".to_owned(),
        group: "g".to_owned(),
        leg: "l".to_owned(),
        expect: Expect {
            method,
            from_min: PmmVersion::new(2, 0, 0),
            from_max: PmmVersion::new(2, 44, 1),
            base_dir: "/no/such/pmm2".to_owned(),
            agent_id: "a".to_owned(),
        },
        to: PmmVersion::new(3, 9, 1),
        source: ClientSource {
            repository_url: String::new(),
            component: "release".to_owned(),
            tarball_url: String::new(),
            tarball_sha256: BTreeMap::new(),
        },
        verify_for_ms: 1_000,
        repoint: None,
    }
}

/// A saved set of an installation with nothing in it.
pub fn saved(installation: &Installation) -> Saved {
    Saved {
        order_id: "o".to_owned(),
        installation: installation.clone(),
        config: None,
        collectors: BTreeMap::new(),
        unit_files: Vec::new(),
        package_unit: None,
        unit: None,
        account: None,
        links: BTreeMap::new(),
        process: None,
        base_owner: (0, 0),
        tree: None,
        package_file: None,
    }
}
