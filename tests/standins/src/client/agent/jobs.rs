//! Backup jobs: `xtrabackup` piped into `xbcloud`, both children of `pmm-agent` (percona/pmm agent/runner/jobs/mysql_backup_job.go).
//!
//! A job lives in this process: when it ends, the backup is lost and nobody takes it up again.

use super::shared::Shared;
use crate::client::out;
use crate::wire::JobSpec;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

const COMPONENT: &str = "runner";
/// What a MySQL backup looks for in the search path.
const TOOLS: [&str; 3] = ["xtrabackup", "qpress", "xbcloud"];

/// Starts a job unless this process has it already; its result is told over the connection, whenever there is one.
pub fn start(shared: &Arc<Shared>, spec: JobSpec) {
    if !shared.lock().jobs.insert(spec.job_id.clone()) {
        return;
    }
    let shared = Arc::clone(shared);
    // The children end with the thread that started them, and it waits for them.
    thread::spawn(move || {
        out::log(
            "INFO",
            COMPONENT,
            &format!("Starting mysql_backup job {}.", spec.job_id),
        );
        let error = backup(&spec).err().unwrap_or_default();
        if !error.is_empty() {
            out::log("WARN", COMPONENT, &format!("Job {} failed: {error}", spec.job_id));
        }
        let mut inner = shared.lock();
        inner.jobs.remove(&spec.job_id);
        inner.ended_jobs.push((spec.job_id, error));
    });
}

fn backup(spec: &JobSpec) -> Result<(), String> {
    let search = std::env::var("PATH").unwrap_or_default();
    for tool in TOOLS {
        if !search
            .split(':')
            .any(|dir| std::path::Path::new(dir).join(tool).exists())
        {
            return Err(format!(
                "lookpath: {tool}: exec: \"{tool}\": executable file not found in $PATH"
            ));
        }
    }
    let target = std::env::temp_dir().join(format!(
        "mysql-backup{}",
        spec.job_id.rsplit('/').next().unwrap_or_default()
    ));
    std::fs::create_dir_all(&target).map_err(|e| format!("failed to create tempdir: {e}"))?;
    let result = pipe(spec, &target.display().to_string());
    let _ = std::fs::remove_dir_all(&target);
    result
}

fn pipe(spec: &JobSpec, target: &str) -> Result<(), String> {
    let mut xtrabackup = spawn(
        "xtrabackup",
        &[
            "--compress".to_owned(),
            "--backup".to_owned(),
            format!("--target-dir={target}"),
            format!("--user={}", spec.user),
            format!("--password={}", spec.password),
            format!("--host={}", spec.address),
            format!("--port={}", spec.port),
            "--stream=xbstream".to_owned(),
        ],
        Stdio::null(),
        Stdio::piped(),
    )?;
    let stream = xtrabackup.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let xbcloud = spawn(
        "xbcloud",
        &[
            "put".to_owned(),
            "--storage=s3".to_owned(),
            format!("--s3-endpoint={}", spec.endpoint),
            format!("--s3-access-key={}", spec.access_key),
            format!("--s3-secret-key={}", spec.secret_key),
            format!("--s3-bucket={}", spec.bucket),
            "--s3-region=us-east-1".to_owned(),
            "--parallel=10".to_owned(),
            spec.artifact.clone(),
        ],
        stream,
        Stdio::null(),
    );
    let mut xbcloud = match xbcloud {
        Ok(child) => child,
        Err(error) => {
            let _ = xtrabackup.kill();
            let _ = xtrabackup.wait();
            return Err(error);
        }
    };
    let copied = end("xbcloud", &mut xbcloud);
    end("xtrabackup", &mut xtrabackup).and(copied)
}

fn spawn(program: &str, args: &[String], stdin: Stdio, stdout: Stdio) -> Result<Child, String> {
    Command::new(program)
        .args(args)
        .env("STANDIN_PARENT_PID", std::process::id().to_string())
        .stdin(stdin)
        .stdout(stdout)
        .spawn()
        .map_err(|e| format!("{program}: {e}"))
}

fn end(program: &str, child: &mut Child) -> Result<(), String> {
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} wait error: {status}")),
        Err(e) => Err(format!("{program}: {e}")),
    }
}
