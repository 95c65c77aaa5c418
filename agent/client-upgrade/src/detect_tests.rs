#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use crate::facts::UnitFacts;
use std::collections::BTreeMap;

fn package(name: &str, version: &str, state: PackageState) -> PackageFacts {
    PackageFacts {
        name: name.into(),
        state,
        version: version.into(),
    }
}

fn process(exe: &str, owner: Option<&str>, home: Home) -> ProcessFacts {
    ProcessFacts {
        pid: 7,
        exe: exe.into(),
        gone: false,
        owner: owner.map(str::to_owned),
        config_file: None,
        user: "pmm-agent".into(),
        home,
        environment: Variables::default(),
    }
}

fn tree(dir: &str, owner: Option<&str>) -> TreeFacts {
    TreeFacts {
        dir: dir.into(),
        owner: owner.map(str::to_owned),
        version: Some(PmmVersion::new(2, 41, 2)),
        user: "dba".into(),
    }
}

fn service() -> Home {
    Home::Service("pmm-agent.service".into())
}

fn deb() -> Facts {
    Facts {
        deb: vec![package(
            "pmm2-client",
            "2.41.2-6.bookworm",
            PackageState::Installed,
        )],
        processes: vec![process(
            "/usr/local/percona/pmm2/bin/pmm-agent",
            Some("pmm2-client"),
            service(),
        )],
        units: vec![UnitFacts {
            name: "pmm-agent.service".into(),
            active: "active".into(),
            file_state: "enabled".into(),
            ..UnitFacts::default()
        }],
        trees: vec![tree("/usr/local/percona/pmm2", Some("pmm2-client"))],
        ..Facts::default()
    }
}

fn installed(facts: &Facts) -> Installation {
    match detect(facts) {
        Detection::Installed(installation) => *installation,
        other => panic!("{other:?}"),
    }
}

fn refused(facts: &Facts) -> String {
    match detect(facts) {
        Detection::Refused { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_package_with_its_service() {
    let found = installed(&deb());
    assert_eq!(
        (found.method, found.version),
        (Method::Deb, PmmVersion::new(2, 41, 2))
    );
    assert_eq!(
        found.run,
        RunKind::Systemd {
            unit: "pmm-agent.service".into(),
            enabled: true
        }
    );
    assert_eq!(found.config_file, "/usr/local/percona/pmm2/config/pmm-agent.yaml");
    assert!(!found.configured);
}

#[test]
fn left_over_configuration_is_no_installation() {
    let mut facts = deb();
    facts.deb = vec![
        package("pmm2-client", "2.41.2-6.bookworm", PackageState::LeftOver),
        package("pmm-client", "3.9.1-1.bookworm", PackageState::Installed),
    ];
    facts.trees = vec![tree("/usr/local/percona/pmm", Some("pmm-client"))];
    facts.processes[0].owner = Some("pmm-client".into());
    assert_eq!(installed(&facts).base_dir, "/usr/local/percona/pmm");
}

#[test]
fn tarball_by_hand_in_a_custom_directory() {
    let facts = Facts {
        processes: vec![ProcessFacts {
            config_file: Some("/home/dba/pmm/config/pmm-agent.yaml".into()),
            user: "dba".into(),
            ..process("/home/dba/pmm/bin/pmm-agent", None, Home::ByHand)
        }],
        trees: vec![tree("/home/dba/pmm", None)],
        ..Facts::default()
    };
    let found = installed(&facts);
    assert_eq!(
        (found.method, found.run),
        (Method::Tarball, RunKind::ByHand { user: "dba".into() })
    );
    assert_eq!(found.config_file, "/home/dba/pmm/config/pmm-agent.yaml");
}

#[test]
fn package_and_tarball_are_refused_unless_the_policy_chooses() {
    let mut facts = deb();
    facts.trees.push(tree("/opt/pmm2", None));
    assert_eq!(refused(&facts), codes::MIXED_INSTALLATION);
    facts.mixed = Mixed::Package;
    assert_eq!(installed(&facts).method, Method::Deb);
    facts.mixed = Mixed::Tarball;
    assert_eq!(installed(&facts).base_dir, "/opt/pmm2");
}

#[test]
fn a_package_whose_running_client_is_from_elsewhere_is_refused() {
    let mut facts = deb();
    facts.processes[0] = process("/opt/pmm2/bin/pmm-agent", None, Home::ByHand);
    assert_eq!(refused(&facts), codes::MIXED_INSTALLATION);
}

#[test]
fn half_installed_pmm1_and_doubles_are_refused() {
    let mut facts = deb();
    facts.deb[0].state = PackageState::Broken;
    assert_eq!(refused(&facts), codes::UNEXPECTED_STATE);
    facts.deb[0] = package("pmm-client", "1.17.4-1.bionic", PackageState::Installed);
    assert_eq!(refused(&facts), codes::NOT_APPLICABLE);
    let mut facts = deb();
    facts.rpm = vec![package("pmm-client", "3.9.1-1.el9", PackageState::Installed)];
    assert_eq!(refused(&facts), codes::MIXED_INSTALLATION);
    let facts = Facts {
        trees: vec![tree("/a", None), tree("/b", None)],
        ..Facts::default()
    };
    assert_eq!(refused(&facts), codes::MIXED_INSTALLATION);
}

#[test]
fn containers_are_reported_and_nothing_is_nothing() {
    let mut facts = Facts::default();
    assert_eq!(detect(&facts), Detection::NotInstalled);
    facts.processes = vec![process(
        "/usr/local/percona/pmm2/bin/pmm-agent",
        None,
        Home::Container("/docker/x".into()),
    )];
    assert_eq!(refused(&facts), codes::NOT_APPLICABLE);
    let mut both = deb();
    both.processes.extend(facts.processes);
    assert_eq!(installed(&both).method, Method::Deb);
}

#[test]
fn identity_comes_from_the_configuration() {
    let mut facts = deb();
    let text = b"id: /agent_id/4d5e\nserver:\n  address: pmm:443\n  username: api_key\n  password: x\n";
    let path = "/usr/local/percona/pmm2/config/pmm-agent.yaml".to_owned();
    facts.configs = BTreeMap::from([(path, crate::parse::config::parse(text))]);
    let found = installed(&facts);
    assert_eq!(
        (
            found.agent_id.as_str(),
            found.credential.as_str(),
            found.configured
        ),
        ("4d5e", "api_key", true)
    );
}

#[test]
fn variables_win_over_the_file_and_only_their_names_are_told() {
    let mut facts = deb();
    let path = "/srv/pmm/agent.yaml".to_owned();
    let text = b"id: /agent_id/4d5e\nserver:\n  address: old:443\n  username: admin\n  password: x\n";
    facts.configs = BTreeMap::from([(path.clone(), crate::parse::config::parse(text))]);
    facts.processes[0].config_file = Some(path);
    facts.processes[0].environment = Variables::of_pairs([
        "PMM_AGENT_SERVER_ADDRESS=new:443",
        "PMM_AGENT_SERVER_USERNAME=service_token",
        "PMM_AGENT_SERVER_PASSWORD=glsa_secret",
    ]);
    let found = installed(&facts);
    assert_eq!(
        (
            found.agent_id.as_str(),
            found.server_address.as_str(),
            found.credential.as_str()
        ),
        ("4d5e", "new:443", "service_token")
    );
    assert_eq!(client_config(&facts, &found).unwrap().password, "glsa_secret");
    let told = serde_json::to_string(&found).unwrap();
    assert!(told.contains("PMM_AGENT_SERVER_PASSWORD") && !told.contains("glsa_secret"));
}

#[test]
fn a_stopped_client_has_the_variables_of_its_unit() {
    let mut facts = deb();
    facts.processes.clear();
    facts.units[0].environment = Variables::of_pairs(["PMM_AGENT_CONFIG_FILE=/etc/a.yaml", "PMM_AGENT_ID=7"]);
    let found = installed(&facts);
    assert_eq!(
        (found.config_file.as_str(), found.agent_id.as_str()),
        ("/etc/a.yaml", "7")
    );
    facts.processes = deb().processes;
    let found = installed(&facts);
    assert!(variables(&facts, &found).is_empty());
    assert_eq!(variables_at_start(&facts, &found).names().count(), 2);
}

#[test]
fn a_stopped_tarball_is_described_by_its_unit_whatever_its_name() {
    let facts = Facts {
        trees: vec![tree("/opt/pmm2", None)],
        units: vec![UnitFacts {
            name: "monitoring.service".into(),
            exec_start: vec![
                "/opt/pmm2/bin/pmm-agent".into(),
                "--config-file=/opt/pmm.yaml".into(),
            ],
            user: "dba".into(),
            ..UnitFacts::default()
        }],
        ..Facts::default()
    };
    let found = installed(&facts);
    assert_eq!(
        (found.method, found.run, found.base_dir.as_str()),
        (Method::Tarball, RunKind::Stopped, "/opt/pmm2")
    );
    assert_eq!(
        (found.config_file.as_str(), found.user.as_str()),
        ("/opt/pmm.yaml", "dba")
    );
}

#[test]
fn a_pmm_server_is_told_without_its_id() {
    assert_eq!(pmm_server([]), None);
    let container = Home::Container("/system.slice/docker-0123.scope".into());
    assert_eq!(
        pmm_server([&container, &container]).unwrap(),
        "pmm-managed runs in a container"
    );
}

#[test]
fn a_package_that_was_exchanged_under_its_client_is_no_mixture() {
    let mut facts = deb();
    facts.deb = vec![package("pmm-client", "3.9.1-1.bookworm", PackageState::Installed)];
    facts.trees = vec![tree("/usr/local/percona/pmm", Some("pmm-client"))];
    let new = "/usr/local/percona/pmm/config/pmm-agent.yaml".to_owned();
    let old = "/usr/local/percona/pmm2/config/pmm-agent.yaml".to_owned();
    let text = b"id: 4d5e\nserver:\n  address: pmm:443\n";
    facts.configs = BTreeMap::from([(new.clone(), crate::parse::config::parse(text))]);
    facts.processes[0].owner = None;
    facts.processes[0].config_file = Some(old.clone());
    assert_eq!(refused(&facts), codes::MIXED_INSTALLATION);
    facts.processes[0].gone = true;
    let found = installed(&facts);
    assert_eq!(
        (found.base_dir.as_str(), &found.config_file),
        ("/usr/local/percona/pmm", &new)
    );
    assert!(matches!(found.run, RunKind::Systemd { .. }));
    facts
        .configs
        .insert(old.clone(), crate::parse::config::parse(text));
    assert_eq!(installed(&facts).config_file, old);
    facts.processes[0].exe = "/opt/pmm2/bin/pmm-agent".into();
    assert_eq!(refused(&facts), codes::MIXED_INSTALLATION);
}
