//! Database backups that PMM runs. pmm-agent starts the backup tool as a process of its own: ending pmm-agent ends a half-done backup or
//! restore, so a host with such a process is left alone.
//!
//! The facts, each with its place in percona/pmm; correct them here.

/// A program that a backup or restore job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobProgram {
    /// File name.
    pub name: &'static str,
    /// What it does there.
    pub job: &'static str,
    /// Where that is written.
    pub source: &'static str,
}

/// Programs that only run for a backup or restore job. `mysqldump` and the like are not among them: PMM makes physical MySQL backups.
pub const PROGRAMS: &[JobProgram] = &[
    JobProgram {
        name: "xtrabackup",
        job: "MySQL backup or restore",
        source: "agent/runner/jobs/mysql_backup_job.go, mysql_restore_job.go",
    },
    JobProgram {
        name: "xbcloud",
        job: "MySQL backup or restore",
        source: "agent/runner/jobs/mysql_backup_job.go, mysql_restore_job.go",
    },
    JobProgram {
        name: "xbstream",
        job: "MySQL restore",
        source: "agent/runner/jobs/mysql_restore_job.go",
    },
    JobProgram {
        name: "qpress",
        job: "MySQL backup or restore",
        source: "agent/runner/jobs/mysql_backup_job.go (demanded there, run by xtrabackup)",
    },
    JobProgram {
        name: "pbm",
        job: "MongoDB backup or restore",
        source: "agent/runner/jobs/pbm_helpers.go, pbm_job_logger.go",
    },
];

/// A MongoDB job leaves the work to pbm-agent, a service of its own, and asks it with short calls of `pbm`: for its log every 3 s
/// (`logsCheckInterval` in agent/runner/jobs/mongodb_backup_job.go) and for its state every 5 s (`statusCheckInterval` in pbm_helpers.go).
/// Looking for this long meets at least one call.
pub const PBM_WATCH_MS: u64 = 6_000;

/// pmm-agent also asks the tools for their versions, apart from any job (agent/versioner/versioner.go).
const VERSION_QUESTIONS: &[&str] = &["--version", "version"];

/// Programs that only carry a script.
const INTERPRETERS: &[&str] = &["sh", "bash", "dash", "perl", "env"];

/// One process of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Process id.
    pub pid: u32,
    /// The parent's.
    pub parent: u32,
    /// Resolved executable; empty where it can't be read.
    pub exe: String,
    /// Argument vector. May hold passwords: never shown.
    pub argv: Vec<String>,
}

/// A running job's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which program.
    pub program: JobProgram,
    /// Its process id.
    pub pid: u32,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "a {} runs under pmm-agent: {}, process {}",
            self.program.job, self.program.name, self.pid
        )
    }
}

/// A job's process among the descendants of the clients. What lies below a client's base directory (exporters, vmagent, the pt-* summary
/// tools) is the client's own and no job.
pub fn find(rows: &[Row], clients: &[u32], bases: &[String]) -> Option<Found> {
    rows.iter()
        .filter(|row| descends(rows, row, clients))
        .filter(|row| !bases.iter().any(|base| own(row, base)))
        .find_map(|row| {
            program(row).map(|program| Found {
                program,
                pid: row.pid,
            })
        })
}

fn descends(rows: &[Row], row: &Row, clients: &[u32]) -> bool {
    let mut parent = row.parent;
    // The list is a snapshot of something that moves: a loop in it must not hang us.
    for _ in 0..rows.len() {
        if clients.contains(&parent) {
            return true;
        }
        match rows.iter().find(|candidate| candidate.pid == parent) {
            Some(next) if next.parent != parent => parent = next.parent,
            _ => return false,
        }
    }
    false
}

fn own(row: &Row, base: &str) -> bool {
    let below = |path: &str| path.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'));
    below(&row.exe) || script(row).is_some_and(below)
}

/// The script of an interpreter.
fn script(row: &Row) -> Option<&str> {
    INTERPRETERS
        .contains(&file_name(&row.exe))
        .then(|| {
            row.argv
                .iter()
                .skip(1)
                .find(|argument| !argument.starts_with('-'))
        })
        .flatten()
        .map(String::as_str)
}

fn program(row: &Row) -> Option<JobProgram> {
    if let [_, question] = &row.argv[..]
        && VERSION_QUESTIONS.contains(&question.as_str())
    {
        return None;
    }
    let first = row.argv.first().map_or("", String::as_str);
    let names = [&row.exe, first, script(row).unwrap_or_default()].map(file_name);
    PROGRAMS
        .iter()
        .find(|program| names.contains(&program.name))
        .copied()
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const BASE: &str = "/usr/local/percona/pmm2";

    fn row(pid: u32, parent: u32, argv: &[&str]) -> Row {
        Row {
            pid,
            parent,
            exe: argv.first().map_or(String::new(), |exe| (*exe).to_owned()),
            argv: argv.iter().map(|part| (*part).to_owned()).collect(),
        }
    }

    fn look(rows: &[Row]) -> Option<(&'static str, u32)> {
        find(rows, &[10], &[BASE.to_owned()]).map(|found| (found.program.name, found.pid))
    }

    fn client() -> Vec<Row> {
        vec![
            row(1, 0, &["/sbin/init"]),
            row(
                10,
                1,
                &["/usr/local/percona/pmm2/bin/pmm-agent", "--config-file=x"],
            ),
            row(11, 10, &["/usr/local/percona/pmm2/exporters/node_exporter"]),
            row(12, 10, &["/usr/local/percona/pmm2/exporters/vmagent"]),
        ]
    }

    #[test]
    fn exporters_and_summaries_are_no_jobs() {
        let mut rows = client();
        let mut summary = row(
            13,
            10,
            &[
                "perl",
                "/usr/local/percona/pmm2/tools/pt-mongodb-summary",
                "xbcloud",
            ],
        );
        summary.exe = "/usr/bin/perl".into();
        rows.push(summary);
        rows.push(row(14, 10, &["/usr/local/percona/pmm2/tools/pbm"]));
        assert_eq!(look(&rows), None);
    }

    #[test]
    fn a_backup_below_the_client_is_found_at_any_depth() {
        let mut rows = client();
        rows.push(row(
            20,
            10,
            &["/usr/bin/xtrabackup", "--backup", "--password=secret"],
        ));
        assert_eq!(look(&rows), Some(("xtrabackup", 20)));
        let text = find(&rows, &[10], &[]).unwrap().to_string();
        assert!(text.contains("xtrabackup") && text.contains("20") && !text.contains("secret"));
        let mut rows = client();
        rows.push(row(20, 10, &["/bin/sh", "-c", "x"]));
        rows.push(row(21, 20, &["/usr/bin/qpress"]));
        assert_eq!(look(&rows), Some(("qpress", 21)));
    }

    #[test]
    fn wrappers_count_and_questions_for_the_version_do_not() {
        let mut rows = client();
        let mut wrapped = row(20, 10, &["bash", "/opt/bin/pbm", "logs"]);
        wrapped.exe = "/usr/bin/bash".into();
        rows.push(wrapped);
        assert_eq!(look(&rows), Some(("pbm", 20)));
        let mut rows = client();
        rows.push(row(20, 10, &["/usr/bin/xtrabackup", "--version"]));
        rows.push(row(21, 10, &["/usr/bin/pbm", "version"]));
        assert_eq!(look(&rows), None);
    }

    #[test]
    fn somebody_elses_backup_is_not_ours() {
        let mut rows = client();
        rows.push(row(20, 1, &["/usr/bin/xtrabackup", "--backup"]));
        assert_eq!(look(&rows), None);
    }

    proptest! {
        /// Whatever the snapshot looks like, loops included: it ends, and what it finds descends from a client.
        #[test]
        fn any_snapshot_is_survived(links in proptest::collection::vec((0u32..12, 0u32..12), 0..14)) {
            let rows: Vec<Row> = links.iter().map(|(pid, parent)| row(*pid, *parent, &["/usr/bin/xtrabackup"])).collect();
            if let Some(found) = find(&rows, &[10], &[]) {
                prop_assert!(rows.iter().any(|row| row.parent == 10));
                prop_assert!(rows.iter().any(|row| row.pid == found.pid));
            }
        }
    }
}
