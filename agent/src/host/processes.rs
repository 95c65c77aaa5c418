//! Processes, read from `/proc`.

use client_upgrade::backup::Row;
use client_upgrade::facts::Home;
use client_upgrade::parse::proc::{cgroup_path, home, parent, zero_separated};
use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Resolved executable without `(deleted)`.
    pub exe: String,
    /// Argument vector.
    pub argv: Vec<String>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Working directory.
    pub cwd: String,
    /// Where it lives.
    pub home: Home,
}

/// Every process whose executable satisfies a test.
pub fn find(wanted: impl Fn(&str) -> bool) -> Vec<Process> {
    let init = fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
    let init = cgroup_path(&init).to_owned();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<Process> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let exe = exe(pid)?;
            wanted(&exe).then(|| read(pid, exe, &init)).flatten()
        })
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

/// Every process with its parent, containers included.
pub fn rows() -> Vec<Row> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = parent(&stat)?;
            Some(Row {
                pid,
                parent,
                exe: exe(pid).unwrap_or_default(),
                argv: zero_separated(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()),
            })
        })
        .collect()
}

fn exe(pid: u32) -> Option<String> {
    let link = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let text = link.to_string_lossy();
    Some(text.strip_suffix(" (deleted)").unwrap_or(&text).to_owned())
}

fn read(pid: u32, exe: String, init: &str) -> Option<Process> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let first_id = |key: &str| -> Option<u32> {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .and_then(|ids| ids.split_whitespace().nth(1))
            .and_then(|id| id.parse().ok())
    };
    if status
        .lines()
        .any(|line| line.starts_with("State:") && line.contains('Z'))
    {
        return None;
    }
    let cgroup = fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
    Some(Process {
        pid,
        exe,
        argv: zero_separated(&fs::read(dir.join("cmdline")).unwrap_or_default()),
        uid: first_id("Uid:")?,
        gid: first_id("Gid:")?,
        cwd: std::fs::read_link(dir.join("cwd"))
            .map(|path| path.display().to_string())
            .unwrap_or_else(|_| "/".to_owned()),
        home: home(cgroup_path(&cgroup), init),
    })
}

/// Environment of a process.
pub fn environment(pid: u32) -> Vec<String> {
    zero_separated(&fs::read(format!("/proc/{pid}/environ")).unwrap_or_default())
}

/// The regular file that a process writes a stream to.
pub fn stream_file(pid: u32, stream: u32) -> Option<String> {
    let path = std::fs::read_link(format!("/proc/{pid}/fd/{stream}")).ok()?;
    let meta = std::fs::metadata(&path).ok()?;
    meta.is_file().then(|| path.display().to_string())
}

/// Every running `pmm-agent`, containers included.
pub fn clients() -> Vec<Process> {
    find(|exe| Path::new(exe).file_name().is_some_and(|name| name == "pmm-agent"))
}

/// Every process of the host, not of its containers, that runs from below a directory.
pub fn below(dir: &str) -> Vec<Process> {
    let prefix = format!("{}/", dir.trim_end_matches('/'));
    find(|exe| exe.starts_with(&prefix))
        .into_iter()
        .filter(of_host)
        .collect()
}

/// Whether a process belongs to the host itself.
pub fn of_host(process: &Process) -> bool {
    !matches!(process.home, Home::Container(_) | Home::Pod(_))
}

/// Asks processes to end, then makes them. Returns those that are still there.
pub fn end(pids: &[u32], patience: Duration) -> Vec<u32> {
    let signal = |pids: &[u32], signal| {
        for pid in pids
            .iter()
            .filter_map(|pid| i32::try_from(*pid).ok())
            .filter_map(Pid::from_raw)
        {
            let _ = kill_process(pid, signal);
        }
    };
    signal(pids, Signal::TERM);
    let left = wait_gone(pids, patience);
    signal(&left, Signal::KILL);
    wait_gone(&left, Duration::from_secs(5))
}

/// The same for a whole process group, by its leader.
pub fn end_group(leader: u32, patience: Duration) {
    let Some(group) = i32::try_from(leader).ok().and_then(Pid::from_raw) else {
        return;
    };
    let there = || rustix::process::test_kill_process_group(group).is_ok();
    for signal in [Signal::TERM, Signal::KILL] {
        let _ = rustix::process::kill_process_group(group, signal);
        let until = Instant::now() + patience;
        while there() && Instant::now() < until {
            crate::host::clock::pause(Duration::from_millis(50));
        }
    }
}

fn wait_gone(pids: &[u32], patience: Duration) -> Vec<u32> {
    let until = Instant::now() + patience;
    loop {
        let left: Vec<u32> = pids.iter().copied().filter(|pid| alive(*pid)).collect();
        if left.is_empty() || Instant::now() >= until {
            return left;
        }
        crate::host::clock::pause(Duration::from_millis(50));
    }
}

/// Whether a process is there and no zombie.
pub fn alive(pid: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The state follows the command name, which may itself hold brackets.
    status
        .rsplit_once(')')
        .is_some_and(|(_, rest)| !matches!(rest.trim_start().chars().next(), Some('Z' | 'X')))
}

/// Owner of a file or directory.
pub fn owner_of(path: &Path) -> Option<(u32, u32)> {
    fs::metadata(path).ok().map(|meta| (meta.uid(), meta.gid()))
}
