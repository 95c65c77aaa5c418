//! Transactions: commands that must run to their end whatever happens to the agent. They run in a transient systemd unit outside our cgroup,
//! as `pmm-upgrade-agent transaction DIR`, which leaves its result in a file. The unit's name and the directory are made from the order, so
//! that an agent that comes back finds the transaction again instead of beginning a second one.

use super::command::{clean, tail, wait};
use super::files;
use super::reserve::Reserve;
use super::{processes, systemd};
use client_upgrade::journal::Transaction as State;
use client_upgrade::parse;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// One command of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Argument vector.
    pub argv: Vec<String>,
    /// Additional environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub dir: Option<String>,
    /// File for standard input.
    pub stdin: Option<String>,
    /// Whether the transaction goes on when it fails.
    pub may_fail: bool,
    /// Whether to try again while another package manager holds its lock: `dpkg` and `rpm` themselves don't wait.
    pub waits_for_lock: bool,
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Whether every command that had to succeed did.
    pub ok: bool,
    /// Why it failed, or the last lines of the log.
    pub tail: String,
    /// A scriptlet that failed although the package manager ended well.
    pub scriptlet: Option<String>,
    /// Milliseconds it took.
    pub took_ms: u64,
}

/// A transaction by name.
#[derive(Clone, Debug)]
pub struct Transaction {
    dir: PathBuf,
    unit: String,
}

/// Longest wait for systemd to take a unit; it answers within a second.
const BEGIN_PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for somebody else's package manager lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(300);

impl Transaction {
    /// The transaction of a step of an order.
    pub fn new(transactions: &Path, order_id: &str, step: &str) -> Self {
        let digest = fleet_common::digest::sha256_hex(format!("{order_id}/{step}").as_bytes());
        let name = format!("pmm-upgrade-tx-{}", &digest[..16]);
        Self {
            dir: transactions.join(&name),
            unit: format!("{name}.service"),
        }
    }

    /// What there is of it.
    pub fn state(&self) -> State {
        if self.dir.join("result.json").exists() {
            return State::Ended;
        }
        if !self.dir.join("spec.json").exists() {
            return State::None;
        }
        let running = self.running_pid().is_some() || (systemd::present() && systemd::is_active(&self.unit));
        // It may have ended between the two looks.
        match (self.dir.join("result.json").exists(), running) {
            (true, _) => State::Ended,
            (false, true) => State::Running,
            (false, false) => State::None,
        }
    }

    /// Whether it was ever begun. One that was begun and of which [`Self::state`] knows nothing vanished without a result.
    pub fn begun(&self) -> bool {
        self.dir.join("spec.json").exists()
    }

    /// Begins it, unless it runs or has ended.
    pub fn begin(&self, commands: &[Command]) -> std::io::Result<()> {
        if self.state() != State::None {
            return Ok(());
        }
        files::remove(&self.dir)?;
        // Makes the directory too.
        reserve(&self.dir).retry(|| files::write_json(&self.dir.join("spec.json"), &commands))?;
        let argv = [
            own_program()?,
            "transaction".to_owned(),
            self.dir.display().to_string(),
        ];
        let log = reserve(&self.dir).retry(|| fs::File::create(self.dir.join("begin.log")))?;
        let started = in_own_unit(
            &self.unit,
            "PMM client upgrade transaction",
            &argv,
            log.into_parts().0,
        )?;
        let why = match started {
            Some(status) if status.success() => return Ok(()),
            // It may have been started all the same, by a systemd that did not answer in time.
            None if self.state() != State::None => return Ok(()),
            Some(_) => tail(&fs::read_to_string(self.dir.join("begin.log")).unwrap_or_default()),
            None => format!("it did not end within {} s", BEGIN_PATIENCE.as_secs()),
        };
        // Without it a unit that is started late does nothing.
        files::remove(&self.dir.join("spec.json"))?;
        Err(std::io::Error::other(format!("it could not be started: {why}")))
    }

    /// Waits for its end; `None` when the time is over or it vanished without a result (a power cut).
    pub fn wait(&self, limit: Duration) -> Option<Ended> {
        let until = Instant::now() + limit;
        let mut looks = 0u32;
        loop {
            if let Some(ended) = files::read_json(&self.dir.join("result.json")) {
                return Some(ended);
            }
            looks += 1;
            // Asking systemd costs a process: every two seconds is enough to notice that it vanished.
            if Instant::now() >= until || (looks.is_multiple_of(20) && self.state() == State::None) {
                return None;
            }
            crate::host::clock::pause(Duration::from_millis(100));
        }
    }

    /// Ends it by force, with everything it started. Whether that worked is for [`Self::state`] to say.
    pub fn kill(&self) {
        if systemd::present() {
            let _ = systemd::systemctl("stop", &self.unit, Duration::from_secs(100));
        }
        // Without systemd it leads a session of its own, and so a process group.
        if let Some(pid) = self.running_pid() {
            processes::end_group(pid, Duration::from_secs(20));
        }
    }

    fn running_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.dir.join("pid")).ok()?;
        let pid = text.trim().parse::<u32>().ok()?;
        let argv = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let ours = String::from_utf8_lossy(&argv).contains(&*self.dir.to_string_lossy());
        (processes::alive(pid) && ours).then_some(pid)
    }
}

/// The reserve of the state directory that holds a transaction's directory.
fn reserve(dir: &Path) -> Reserve {
    Reserve::within(dir.ancestors().nth(2).unwrap_or(dir))
}

/// The program that runs, also after its file was replaced.
pub fn own_program() -> std::io::Result<String> {
    let exe = std::env::current_exe()?.display().to_string();
    Ok(exe.strip_suffix(" (deleted)").unwrap_or(&exe).to_owned())
}

/// Starts a program in a transient unit outside our cgroup; without systemd in a session of its own. `None` when the command that starts it
/// does not end in its time. The output goes to a file: the program inherits it, and a pipe would stay open as long as the program runs.
pub fn in_own_unit(
    unit: &str,
    description: &str,
    program: &[String],
    said: std::fs::File,
) -> std::io::Result<Option<std::process::ExitStatus>> {
    let mut argv: Vec<String> = if systemd::present() {
        [
            "systemd-run",
            "--quiet",
            "--collect",
            &format!("--unit={unit}"),
            &format!("--description={description}"),
            "--",
        ]
        .map(str::to_owned)
        .to_vec()
    } else {
        ["setsid", "--fork"].map(str::to_owned).to_vec()
    };
    argv.extend_from_slice(program);
    let mut child = clean(&argv[0])
        .args(&argv[1..])
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said)
        .spawn()?;
    let status = wait(&mut child, BEGIN_PATIENCE)?;
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    Ok(status)
}

/// The inside of the transient unit: runs the commands, leaves the result.
pub fn carry_out(dir: &Path) -> std::io::Result<()> {
    if dir.join("result.json").exists() {
        return Ok(());
    }
    let reserve = reserve(dir);
    let pid = std::process::id().to_string();
    reserve.retry(|| files::replace(&dir.join("pid"), pid.as_bytes(), files::PRIVATE))?;
    let commands: Vec<Command> = serde_json::from_slice(&fs::read(dir.join("spec.json"))?)?;
    let log_path = dir.join("log");
    let begun = Instant::now();
    let mut ok = true;
    let mut why = String::new();
    for command in &commands {
        // Whatever happens there is a result: without one nobody knows whether to begin again.
        let done = run(command, &log_path).unwrap_or_else(|error| {
            why = format!("\n{error}");
            false
        });
        if !done && !command.may_fail {
            ok = false;
            break;
        }
    }
    let log = String::from_utf8_lossy(&fs::read(&log_path).unwrap_or_default()).into_owned();
    let ended = Ended {
        ok,
        tail: parse::transaction::failure(&format!("{log}{why}")),
        scriptlet: parse::transaction::failed_scriptlet(&log),
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    reserve.retry(|| files::write_json(&dir.join("result.json"), &ended))
}

fn run(command: &Command, log_path: &Path) -> std::io::Result<bool> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        let before = fs::metadata(log_path).map_or(0, |meta| meta.len());
        let mut log = fs::OpenOptions::new().create(true).append(true).open(log_path)?;
        // On a full disk the log has gaps; the commands are what counts.
        let _ = writeln!(log, "+ {}", command.argv.join(" "));
        let log = log.into_parts().0;
        let mut child = clean(command.argv.first().map_or("", String::as_str));
        child
            .args(&command.argv[1..])
            .envs(command.env.iter().map(|(key, value)| (key, value)));
        if let Some(dir) = &command.dir {
            child.current_dir(dir);
        }
        child.stdin(match &command.stdin {
            Some(path) => Stdio::from(std::fs::File::open(path)?),
            None => Stdio::null(),
        });
        let status = child.stdout(log.try_clone()?).stderr(log).status()?;
        if status.success() {
            return Ok(true);
        }
        let text = String::from_utf8_lossy(&fs::read(log_path).unwrap_or_default()).into_owned();
        let said = text
            .get(usize::try_from(before).unwrap_or(0)..)
            .unwrap_or_default()
            .to_ascii_lowercase();
        let locked = said.contains("locked by another process")
            || said.contains("lock on /var/lib/rpm")
            || said.contains(".rpm.lock");
        if !(command.waits_for_lock && locked) || Instant::now() >= until {
            return Ok(false);
        }
        crate::host::clock::pause(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn command(argv: &[&str], may_fail: bool) -> Command {
        Command {
            argv: argv.iter().map(|part| (*part).to_owned()).collect(),
            may_fail,
            ..Command::default()
        }
    }

    fn carried(commands: &[Command]) -> Ended {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("spec.json"),
            serde_json::to_vec(commands).unwrap(),
        )
        .unwrap();
        carry_out(dir.path()).unwrap();
        carry_out(dir.path()).unwrap();
        files::read_json(&dir.path().join("result.json")).unwrap()
    }

    #[test]
    fn a_failure_ends_it_unless_allowed() {
        assert!(
            carried(&[
                command(&["true"], false),
                command(&["false"], true),
                command(&["true"], false)
            ])
            .ok
        );
        let failed = carried(&[
            command(&["sh", "-c", "echo why; exit 1"], false),
            command(&["echo", "never"], false),
        ]);
        assert!(!failed.ok && failed.tail.ends_with("why"), "{failed:?}");
    }

    #[test]
    fn scriptlets_that_fail_quietly_are_seen() {
        let ended = carried(&[command(
            &["echo", "warning: %posttrans(x) scriptlet failed, exit status 1"],
            false,
        )]);
        assert!(ended.ok && ended.scriptlet.is_some());
    }
}
