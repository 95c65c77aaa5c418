//! Whether the client is what it should be. Asked of the local API, never of exit codes: `pmm-admin status` ends with 0 although the client
//! is not connected.

use crate::parse::status::ClientStatus;
use fleet_common::inventory::ExporterState;
use fleet_common::version::PmmVersion;
use std::collections::BTreeMap;

/// What must be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Release on disk and running.
    pub version: PmmVersion,
    /// Agent id from before, prefix removed; empty when the client was never set up.
    pub agent_id: String,
    /// Node id from before; empty when it was not connected then.
    pub node_id: String,
    /// Exporters from before.
    pub exporters: BTreeMap<String, ExporterState>,
    /// A directory that nothing may run from any more.
    pub forbidden_dir: Option<String>,
    /// Process id from before.
    pub old_pid: Option<u32>,
    /// Whether the client must run at all.
    pub running: bool,
    /// Whether it must be connected.
    pub connected: bool,
}

/// What is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Release on disk (package database or `pmm-admin --version`).
    pub on_disk: Option<PmmVersion>,
    /// `/local/Status`.
    pub local: Option<ClientStatus>,
    /// `pmm-admin status --json`.
    pub admin: Option<ClientStatus>,
    /// Process id now.
    pub pid: Option<u32>,
}

/// What is still missing, in words; empty means verified.
pub fn missing(expected: &Expected, seen: &Seen) -> Vec<String> {
    let mut missing = Vec::new();
    if seen.on_disk != Some(expected.version) {
        missing.push(format!(
            "release {} on disk (there is {})",
            expected.version,
            shown(seen.on_disk)
        ));
    }
    if !expected.running {
        return missing;
    }
    let Some(local) = &seen.local else {
        missing.push("an answer of the client's local API".to_owned());
        return missing;
    };
    if local.version != Some(expected.version) {
        missing.push(format!(
            "release {} running (it is {})",
            expected.version,
            shown(local.version)
        ));
    }
    if let Some(admin) = seen.admin.as_ref().and_then(|admin| admin.admin_version)
        && admin != expected.version
    {
        missing.push(format!(
            "pmm-admin of release {} (it is {admin})",
            expected.version
        ));
    }
    if expected.old_pid.is_some() && expected.old_pid == seen.pid {
        missing.push("a new process".to_owned());
    }
    if local.agent_id != expected.agent_id {
        missing.push(format!(
            "agent id {} (it is {:?})",
            expected.agent_id, local.agent_id
        ));
    }
    if let Some(dir) = &expected.forbidden_dir {
        let old = |path: &String| {
            path.strip_prefix(dir.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
        };
        if let Some(path) = local
            .executables
            .iter()
            .chain([&local.config_file])
            .find(|path| old(path))
        {
            missing.push(format!("nothing left from {dir} (there is {path})"));
        }
    }
    if !expected.connected {
        return missing;
    }
    if !local.connected {
        missing.push("a connection to the PMM Server".to_owned());
    } else if !seen.admin.as_ref().is_some_and(|admin| admin.connected) {
        missing.push("pmm-admin seeing the connection".to_owned());
    }
    if !expected.node_id.is_empty() && local.node_id != expected.node_id {
        missing.push(format!(
            "node id {} (it is {:?})",
            expected.node_id, local.node_id
        ));
    }
    for (id, before) in expected
        .exporters
        .iter()
        .filter(|(_, before)| before.status == "running")
    {
        match local.exporters.get(id) {
            Some(now) if now.status == "running" => {}
            Some(now) => missing.push(format!(
                "{} {id} running (it is {})",
                before.exporter_type, now.status
            )),
            None => missing.push(format!("{} {id}", before.exporter_type)),
        }
    }
    missing
}

fn shown(version: Option<PmmVersion>) -> String {
    version.map_or_else(|| "nothing".to_owned(), |version| version.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: PmmVersion = PmmVersion::new(3, 9, 1);

    fn exporters(status: &str) -> BTreeMap<String, ExporterState> {
        BTreeMap::from([(
            "e".to_owned(),
            ExporterState {
                exporter_type: "mysqld_exporter".into(),
                status: status.into(),
            },
        )])
    }

    fn expected() -> Expected {
        Expected {
            version: NEW,
            agent_id: "a".into(),
            node_id: "n".into(),
            exporters: exporters("running"),
            forbidden_dir: Some("/usr/local/percona/pmm2".into()),
            old_pid: Some(1),
            running: true,
            connected: true,
        }
    }

    fn good() -> Seen {
        let local = ClientStatus {
            agent_id: "a".into(),
            node_id: "n".into(),
            connected: true,
            version: Some(NEW),
            admin_version: Some(NEW),
            config_file: "/usr/local/percona/pmm/config/pmm-agent.yaml".into(),
            exporters: exporters("running"),
            executables: vec!["/usr/local/percona/pmm/exporters/mysqld_exporter".into()],
        };
        Seen {
            on_disk: Some(NEW),
            admin: Some(local.clone()),
            local: Some(local),
            pid: Some(2),
        }
    }

    #[test]
    fn the_good_case_misses_nothing() {
        assert!(missing(&expected(), &good()).is_empty());
    }

    #[test]
    fn each_trap_is_seen() {
        type Break = fn(&mut Seen);
        let breaks: [(&str, Break); 8] = [
            ("old process kept the port", |seen| {
                seen.local
                    .as_mut()
                    .into_iter()
                    .for_each(|l| l.version = Some(PmmVersion::new(2, 41, 2)))
            }),
            ("same pid", |seen| seen.pid = Some(1)),
            ("other identity", |seen| {
                seen.local
                    .as_mut()
                    .into_iter()
                    .for_each(|l| l.agent_id = "b".into())
            }),
            ("not connected", |seen| {
                seen.local.as_mut().into_iter().for_each(|l| l.connected = false)
            }),
            ("exporter gone", |seen| {
                seen.local.as_mut().into_iter().for_each(|l| l.exporters.clear())
            }),
            ("exporter waiting", |seen| {
                seen.local
                    .as_mut()
                    .into_iter()
                    .for_each(|l| l.exporters = exporters("waiting"))
            }),
            ("old path", |seen| {
                seen.local
                    .as_mut()
                    .into_iter()
                    .for_each(|l| l.executables = vec!["/usr/local/percona/pmm2/exporters/x".into()]);
            }),
            ("no api", |seen| seen.local = None),
        ];
        for (name, spoil) in breaks {
            let mut seen = good();
            spoil(&mut seen);
            assert_eq!(missing(&expected(), &seen).len(), 1, "{name}");
        }
    }

    #[test]
    fn a_client_that_was_never_set_up_or_was_stopped_is_not_asked_for_a_connection() {
        let unset = Expected {
            connected: false,
            agent_id: String::new(),
            ..expected()
        };
        let mut seen = good();
        seen.local.as_mut().into_iter().for_each(|local| {
            local.connected = false;
            local.agent_id.clear();
        });
        assert!(missing(&unset, &seen).is_empty());
        let stopped = Expected {
            running: false,
            ..expected()
        };
        assert!(
            missing(
                &stopped,
                &Seen {
                    on_disk: Some(NEW),
                    ..Seen::default()
                }
            )
            .is_empty()
        );
    }
}
