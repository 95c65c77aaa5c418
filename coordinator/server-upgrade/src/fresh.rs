//! What the new container's output and processes say about the migration.

use fleet_common::codes;

/// Lines that PMM 3's start prints only when it makes a new instance (percona/pmm `build/docker/server/entrypoint.sh`).
const FRESH_LINES: &[&str] = &["Initializing /srv", "Initializing Postgres", "The files belonging to this database system will be owned by"];
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
            message: format!("PMM initialises a fresh instance instead of using the data: `{}`", line.trim()),
        });
    }
    line(&UNWRITABLE_LINE)
        .map(|line| Verdict { code: codes::MIGRATION_FAILED, message: format!("PMM can't use its data directory: `{}`", line.trim()) })
}

/// Whether pmm-managed's log, as far as it is newer than the start, says that the migration fails.
pub fn migration_fails(log: &str) -> Option<&str> { log.lines().rev().find(|line| line.contains(MIGRATION_LINE)) }

/// Whether qan-api2's log says that its own migration was interrupted (percona/pmm issue #3288): it never gets better by itself.
pub fn qan_is_dirty(log: &str) -> Option<&str> { log.lines().rev().find(|line| line.contains("Dirty database version")) }

/// Programs that supervisord gave up on, from the output of `supervisorctl status`.
pub fn fatal_programs(status: &str) -> Vec<String> { programs_in(status, |state| state == "FATAL") }

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
            let known = matches!(state, "STOPPED" | "STARTING" | "RUNNING" | "BACKOFF" | "STOPPING" | "EXITED" | "FATAL" | "UNKNOWN");
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
        assert_eq!(judge_output("FATAL: /srv is not writable for pmm user").unwrap().code, codes::MIGRATION_FAILED);
        assert_eq!(judge_output("Starting supervisord\n"), None);
    }

    #[test]
    fn supervisor_states() {
        let status = "clickhouse   RUNNING   pid 31, uptime 0:01:00\nnginx   STOPPED   Nov 01\npmm-init EXITED x\ngrafana  FATAL  Exited too quickly\nunix:///tmp/supervisor.sock no such file";
        assert_eq!(fatal_programs(status), ["grafana (FATAL)"]);
        assert_eq!(not_stopped(status), ["clickhouse (RUNNING)"]);
    }
}
