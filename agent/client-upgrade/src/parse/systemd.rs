//! `systemctl show`.

use crate::environment::Variables;
use crate::facts::UnitFacts;
use std::collections::BTreeMap;

/// The properties to ask for.
pub const PROPERTIES: &str = "Id,LoadState,ActiveState,SubState,UnitFileState,FragmentPath,DropInPaths,ExecStart,MainPID,User,Result,InvocationID,Environment,EnvironmentFiles";

/// `key=value` lines.
pub fn properties(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// A unit, or `None` when systemd has none of that name.
pub fn unit(text: &str) -> Option<UnitFacts> {
    let map = properties(text);
    let value = |key: &str| map.get(key).cloned().unwrap_or_default();
    if value("LoadState") == "not-found" || value("Id").is_empty() {
        return None;
    }
    Some(UnitFacts {
        name: value("Id"),
        active: value("ActiveState"),
        file_state: value("UnitFileState"),
        fragment: value("FragmentPath"),
        drop_ins: value("DropInPaths")
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        exec_start: argv(&value("ExecStart")),
        user: value("User"),
        environment_files: environment_files(text),
        environment: Variables::of_words(&value("Environment")),
    })
}

/// One line per file: `EnvironmentFiles=/etc/default/x (ignore_errors=yes)`.
fn environment_files(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("EnvironmentFiles="))
        .map(|value| value.rsplit_once(" (").map_or(value, |(path, _)| path))
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Whether the text of a unit file starts a `pmm-agent`. Prefixes such as `-` and `@` belong to systemd.
pub fn starts_client(text: &str) -> bool {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("ExecStart="))
        .filter_map(|command| command.split_whitespace().next())
        .any(|program| program.rsplit('/').next() == Some("pmm-agent") && program.contains('/'))
}

/// The argument vector in `{ path=... ; argv[]=... ; ignore_errors=no ; ... }`.
fn argv(text: &str) -> Vec<String> {
    text.split_once("argv[]=")
        .map(|(_, rest)| rest.split(" ; ").next().unwrap_or_default())
        .map(|words| words.split_whitespace().map(str::to_owned).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_unit_is_read() {
        let text = "Id=pmm-agent.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\nUser=pmm-agent\n\
                    FragmentPath=/lib/systemd/system/pmm-agent.service\nDropInPaths=/etc/systemd/system/pmm-agent.service.d/x.conf\n\
                    ExecStart={ path=/usr/sbin/pmm-agent ; argv[]=/usr/sbin/pmm-agent --config-file=/c.yaml ; ignore_errors=no ; pid=1 }\n\
                    Environment=LANG=C \"PMM_AGENT_SERVER_PASSWORD=hunter 2\"\n\
                    EnvironmentFiles=/etc/default/pmm-agent (ignore_errors=yes)\nEnvironmentFiles=/opt/a b (ignore_errors=no)\n";
        let unit = unit(text).unwrap();
        assert!(unit.enabled());
        assert_eq!(unit.exec_start, ["/usr/sbin/pmm-agent", "--config-file=/c.yaml"]);
        assert_eq!(unit.drop_ins.len(), 1);
        assert_eq!(unit.environment_files, ["/etc/default/pmm-agent", "/opt/a b"]);
        assert_eq!(
            unit.environment.get("PMM_AGENT_SERVER_PASSWORD"),
            Some("hunter 2")
        );
        assert!(!format!("{unit:?}").contains("hunter"));
    }

    #[test]
    fn units_that_start_a_client_are_told_by_their_program() {
        assert!(starts_client(
            "[Service]\nExecStart=-/opt/pmm2/bin/pmm-agent --config-file=/c\n"
        ));
        assert!(!starts_client(
            "[Service]\nExecStart=/usr/bin/pmm-upgrade-agent run\n"
        ));
        assert!(!starts_client(
            "# ExecStart=/opt/pmm2/bin/pmm-agent\nExecStart=\nExecStartPre=/x/pmm-agent\n"
        ));
    }

    #[test]
    fn an_unknown_unit_is_none() {
        assert_eq!(unit("Id=pmm-agent.service\nLoadState=not-found\n"), None);
    }
}
