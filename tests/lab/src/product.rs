//! The coordinator as a process of this machine, driven by its command line.

use crate::build::Programs;
use crate::cmd::{self, Done};
use crate::wait::{self, Probe};
use crate::{names, output};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A coordinator and its data directory.
pub struct Coordinator {
    program: PathBuf,
    volume_helper: PathBuf,
    data: PathBuf,
    child: Option<Child>,
}

impl Coordinator {
    /// A coordinator on an empty data directory: `init`, not yet running.
    pub fn init(programs: &Programs, data: &Path) -> Result<Self> {
        if data.exists() {
            fs_err::remove_dir_all(data)?;
        }
        let (program, volume_helper) = (programs.coordinator.clone(), programs.volume_helper.clone());
        let this = Self {
            program,
            volume_helper,
            data: data.to_owned(),
            child: None,
        };
        this.must(&["init", "--name", "coordinator.lab"])?;
        Ok(this)
    }

    /// Starts `serve` and waits until it answers.
    pub fn serve(&mut self) -> Result<()> {
        let log = fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())?
            .into_parts()
            .0;
        let child = Command::new(&self.program)
            .args(["--data", &self.data.display().to_string(), "serve"])
            .args(["--listen", &format!("0.0.0.0:{}", names::SESSION_PORT)])
            .args(["--enrol-listen", &format!("0.0.0.0:{}", names::ENROL_PORT)])
            .arg("--volume-helper")
            .arg(&self.volume_helper)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting `pmm-coordinator serve`")?;
        fs_err::write(pid_file()?, child.id().to_string())?;
        self.child = Some(child);
        wait::until("the coordinator's operator socket", 30, || {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!(
                    "`pmm-coordinator serve` ended with {status}:\n{}",
                    cmd::tail(&fs_err::read_to_string(self.log())?, 30)
                );
            }
            let done = self.run(&["host", "list", "--json"])?;
            Ok(if done.ok() {
                Probe::Ready(())
            } else {
                Probe::NotYet(done.stderr)
            })
        })
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the coordinator is not running")?;
        child.kill()?;
        child.wait()?;
        output::step("killed the coordinator with SIGKILL");
        Ok(())
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// Runs a command and returns whatever happened.
    pub fn run(&self, args: &[&str]) -> Result<Done> {
        let data = self.data.display().to_string();
        let all = ["--data", &data].into_iter().chain(args.iter().copied());
        cmd::run(&self.program.display().to_string(), all, None)
    }

    /// Runs a command that must succeed; returns its standard output.
    pub fn must(&self, args: &[&str]) -> Result<String> {
        let done = self.run(args)?;
        if !done.ok() {
            bail!(
                "`pmm-coordinator {}` ended with {}:\n{}",
                args.join(" "),
                done.code,
                done.all()
            );
        }
        Ok(done.stdout)
    }

    /// Runs a command with `--json`.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let mut all = args.to_vec();
        all.push("--json");
        let text = self.must(&all)?;
        serde_json::from_str(&text).with_context(|| format!("`{}` printed no JSON: {text}", args.join(" ")))
    }

    /// Shows a command and its output as an operator sees them.
    pub fn show(&self, args: &[&str]) -> Result<Done> {
        output::line(&format!("\n$ pmm-coordinator {}", args.join(" ")));
        let done = self.run(args)?;
        output::line(done.all().trim_end());
        Ok(done)
    }

    /// Starts a command whose output goes to this terminal.
    pub fn spawn_shown(&self, args: &[&str]) -> Result<Child> {
        output::line(&format!("\n$ pmm-coordinator {}", args.join(" ")));
        Command::new(&self.program)
            .args(["--data", &self.data.display().to_string()])
            .args(args)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("starting `pmm-coordinator {}`", args.join(" ")))
    }
}

/// Writes down every container that Docker creates from now on, until the value is dropped. Docker itself remembers only its last 256 events,
/// which health checks use up within minutes.
pub struct EventLog(Child);

impl EventLog {
    /// Starts to listen.
    pub fn start() -> Result<Self> {
        let file = fs_err::File::create(events_file()?)?.into_parts().0;
        let child = Command::new("docker")
            .args([
                "events",
                "--filter",
                "type=container",
                "--filter",
                "event=create",
                "--format",
                "{{json .}}",
            ])
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .context("starting `docker events`")?;
        fs_err::write(events_pid_file()?, child.id().to_string())?;
        Ok(Self(child))
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn events_file() -> Result<PathBuf> {
    Ok(crate::build::run_dir()?.join("docker-events.jsonl"))
}

/// What the last [`EventLog`] wrote down.
pub fn docker_events() -> Result<Vec<Value>> {
    let text = fs_err::read_to_string(events_file()?)?;
    text.lines()
        .map(|line| serde_json::from_str(line).context("an event is no JSON"))
        .collect()
}

fn pid_file() -> Result<PathBuf> {
    Ok(crate::build::run_dir()?.join("coordinator.pid"))
}

fn events_pid_file() -> Result<PathBuf> {
    Ok(crate::build::run_dir()?.join("docker-events.pid"))
}

/// Ends the coordinator and the `docker events` that an interrupted lab run left behind.
pub fn stop_leftover() -> Result<()> {
    let data = crate::scenario::run::data_dir()?.display().to_string();
    end(&pid_file()?, &["pmm-coordinator", "--data", &data, "serve"])?;
    end(&events_pid_file()?, &["docker", "events", "--filter"])
}

/// Kills the process that a file names if it is still the one that was started: its number may belong to another one by now.
fn end(pid_file: &Path, started: &[&str]) -> Result<()> {
    let pid = fs_err::read_to_string(pid_file).unwrap_or_default();
    let arguments = fs_err::read_to_string(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
    let mut words = arguments.split('\0');
    let program = words.next().and_then(|path| path.rsplit('/').next());
    let wanted = started.split_first();
    if let Some((name, rest)) = wanted
        && program == Some(*name)
        && rest.iter().all(|word| words.next() == Some(*word))
    {
        cmd::must("kill", ["-9", pid.trim()])?;
    }
    Ok(())
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_process_that_was_started_is_ended() {
        let file = std::env::temp_dir().join(format!("fleetlab-pid-{}", std::process::id()));
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        fs_err::write(&file, format!("{}\n", child.id())).unwrap();
        // The arguments are there a moment after the program is.
        let arguments = || fs_err::read(format!("/proc/{}/cmdline", child.id())).unwrap();
        wait::until("the program to run", 10, || {
            wait::check(arguments().starts_with(b"sleep"), "not yet")
        })
        .unwrap();
        end(&file, &["sleep", "60"]).unwrap();
        end(&file, &["docker", "600"]).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        end(&file, &["sleep", "600"]).unwrap();
        assert!(!child.wait().unwrap().success());
        end(&file, &["sleep", "600"]).unwrap();
        fs_err::remove_file(&file).unwrap();
        end(&file, &["sleep", "600"]).unwrap();
    }
}
