//! What the new container's output and processes say about the migration.

use fleet_common::codes;

/// Lines that PMM 3's start prints only when it makes a new instance (percona/pmm `build/docker/server/entrypoint.sh`).
const FRESH_LINES: &[&str] = &[
    "Initializing /srv",
    "Initializing Postgres",
    "The files belonging to this database system will be owned by",
];
/// What the start prints when the data directory has the wrong owner.
const UNWRITABLE_LINE: &str = "/srv is not writable";
/// What pmm-managed prints once a second while it can't migrate (percona/pmm-doc#892).
const MIGRATION_LINE: &str = "Failed to migrate database";

/// Something that will not get better by waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// One of `fleet_common::codes`.
    pub code: &'static str,
    /// What was seen.
    pub message: String,
}

/// Judges the output of the new container since its start.
pub fn judge_output(output: &str) -> Option<Verdict> {
    let line = |words: &&str| output.lines().find(|line| line.contains(*words));
    if let Some(line) = FRESH_LINES.iter().find_map(line) {
        return Some(Verdict {
            code: codes::FRESH_INSTANCE,
            message: format!(
                "PMM initialises a fresh instance instead of using the data: `{}`",
                line.trim()
            ),
        });
    }
    line(&UNWRITABLE_LINE).map(|line| Verdict {
        code: codes::MIGRATION_FAILED,
        message: format!("PMM can't use its data directory: `{}`", line.trim()),
    })
}

/// Whether pmm-managed's log, as far as it is newer than the start, says that the migration fails.
pub fn migration_fails(log: &str) -> Option<&str> {
    log.lines().rev().find(|line| line.contains(MIGRATION_LINE))
}

/// Logs of the playbook that runs at PMM 3's start; the second name is that of development versions (percona/pmm `pmm.ini`).
pub const INIT_LOGS: &[&str] = &["pmm-init.log", "pmm-update-perform-init.log"];

/// A failed task of that playbook that was not to be ignored. The wait for readiness among them ignores its failures (percona/pmm
/// `roles/initialization/tasks/main.yml`), and Ansible says so on the next line.
pub fn init_failed(log: &str) -> Option<&str> {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let ignored = |index: usize| {
        lines
            .get(index + 1)
            .is_some_and(|next| next.contains("...ignoring"))
    };
    let fatal = |line: &str| line.contains("fatal: [") || line.contains("FAILED! =>");
    let found = lines
        .iter()
        .enumerate()
        .rev()
        .find(|(index, line)| recap_failed(line) || (fatal(line) && !ignored(*index)));
    found.map(|(_, line)| *line)
}

/// `PLAY RECAP` line with a number of failed tasks other than zero.
fn recap_failed(line: &str) -> bool {
    let count = line
        .split_once("failed=")
        .map_or("0", |(_, rest)| rest.split_whitespace().next().unwrap_or("0"));
    line.contains("ok=") && count != "0"
}

/// Whether qan-api2's log says that its own migration was interrupted (percona/pmm issue #3288): it never gets better by itself.
pub fn qan_is_dirty(log: &str) -> Option<&str> {
    log.lines()
        .rev()
        .find(|line| line.contains("Dirty database version"))
}

/// Programs that supervisord gave up on, from the output of `supervisorctl status`.
pub fn fatal_programs(status: &str) -> Vec<String> {
    programs_in(status, |state| state == "FATAL")
}

/// Programs that are not stopped for good, from the output of `supervisorctl status`.
pub fn not_stopped(status: &str) -> Vec<String> {
    programs_in(status, |state| !matches!(state, "STOPPED" | "EXITED" | "FATAL"))
}

fn programs_in(status: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    status
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, state) = (words.next()?, words.next()?);
            let known = matches!(
                state,
                "STOPPED" | "STARTING" | "RUNNING" | "BACKOFF" | "STOPPING" | "EXITED" | "FATAL" | "UNKNOWN"
            );
            (known && wanted(state)).then(|| format!("{name} ({state})"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_fresh_start_is_seen_in_the_output() {
        let verdict = judge_output("Checking /srv directory structure...\nInitializing /srv...\n").unwrap();
        assert_eq!(verdict.code, codes::FRESH_INSTANCE);
        assert_eq!(
            judge_output("FATAL: /srv is not writable for pmm user")
                .unwrap()
                .code,
            codes::MIGRATION_FAILED
        );
        assert_eq!(judge_output("Starting supervisord\n"), None);
    }

    #[test]
    fn failed_tasks() {
        assert!(init_failed("TASK [x]\nfatal: [127.0.0.1]: FAILED! => {\"msg\": \"no\"}\n").is_some());
        assert!(
            init_failed("fatal: [localhost]: FAILED! => {\"attempts\": 20}\n...ignoring\nTASK [y]\n")
                .is_none()
        );
        assert!(init_failed("127.0.0.1 : ok=12 changed=3 unreachable=0 failed=1 skipped=0").is_some());
        assert!(init_failed("127.0.0.1 : ok=12 changed=3 unreachable=0 failed=0 skipped=0").is_none());
        assert!(qan_is_dirty("panic: Dirty database version 18. Fix and force version.").is_some());
        assert!(migration_fails("level=warning msg=\"Failed to migrate database: x\"").is_some());
    }

    #[test]
    fn supervisor_states() {
        let status = "clickhouse   RUNNING   pid 31, uptime 0:01:00\nnginx   STOPPED   Nov 01\npmm-init EXITED x\ngrafana  FATAL  Exited too quickly\nunix:///tmp/supervisor.sock no such file";
        assert_eq!(fatal_programs(status), ["grafana (FATAL)"]);
        assert_eq!(not_stopped(status), ["clickhouse (RUNNING)"]);
    }
}
