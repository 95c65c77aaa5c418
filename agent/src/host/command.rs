//! Running the host's own tools: argument vectors, a clean environment in the C locale, a time limit.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Environment variables that are passed on: only what downloads need.
const PASSED_ON: &[&str] = &[
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];
/// A local tool that only reads.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the output of a tool that has ended is waited for.
const PIPE_PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes kept of one stream.
const MOST_OUTPUT: u64 = 4 * 1024 * 1024;

/// A tool call.
#[derive(Debug)]
pub struct Tool {
    argv: Vec<String>,
    dir: Option<PathBuf>,
    timeout: Duration,
}

/// What a tool left.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it ended with 0.
    pub fn ok(&self) -> bool {
        self.status == Some(0)
    }

    /// The last lines of what it said, for messages.
    pub fn tail(&self) -> String {
        tail(&format!("{}\n{}", self.stdout, self.stderr))
    }
}

/// The last few lines of a text in one line.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

/// A tool that could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not on this host.
    #[error("{0} is not on this host")]
    Missing(String),
    /// It could not be started or watched.
    #[error("can't run {program}")]
    Io {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its time was over.
    #[error("{program} did not end within {seconds} s")]
    Timeout {
        /// The program.
        program: String,
        /// The limit.
        seconds: u64,
    },
    /// It ended with another status than 0.
    #[error("{program} ended with status {status}: {tail}")]
    Failed {
        /// The program and its first argument.
        program: String,
        /// Exit status.
        status: String,
        /// Its last lines.
        tail: String,
    },
}

impl Tool {
    /// A call of a program found in the usual directories.
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self {
            argv: vec![program.as_ref().display().to_string()],
            dir: None,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// One argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.argv.push(argument.as_ref().to_string_lossy().into_owned());
        self
    }

    /// Several arguments.
    pub fn args<S: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = S>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Working directory.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Time limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same call under an account. A tree that belongs to an ordinary user is only ever executed and written as that user.
    pub fn by_user(mut self, uid: u32, gid: u32) -> Self {
        if uid != 0 {
            let mut argv: Vec<String> = [
                "setpriv",
                &format!("--reuid={uid}"),
                &format!("--regid={gid}"),
                "--init-groups",
                "--",
            ]
            .map(str::to_owned)
            .to_vec();
            argv.append(&mut self.argv);
            self.argv = argv;
        }
        self
    }

    /// The argument vector.
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    fn program(&self) -> String {
        self.argv.first().cloned().unwrap_or_default()
    }

    /// Runs it and reads what it says. Any exit status is an answer.
    pub fn run(self) -> Result<Output, ToolError> {
        let program = self.program();
        let io = |source| ToolError::Io {
            program: program.clone(),
            source,
        };
        let mut command = clean(&program);
        command.args(&self.argv[1..]);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .process_group(0)
            .spawn()
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => ToolError::Missing(program.clone()),
                _ => io(source),
            })?;
        let stdout = child.stdout.take().map(reader);
        let stderr = child.stderr.take().map(reader);
        let status = wait(&mut child, self.timeout).map_err(io)?;
        let Some(status) = status else {
            kill_group(&child);
            let _ = child.wait();
            return Err(ToolError::Timeout {
                program,
                seconds: self.timeout.as_secs(),
            });
        };
        // A daemon that the tool started may keep the pipe open for ever.
        let text = |reader: Option<mpsc::Receiver<String>>| {
            reader
                .and_then(|it| it.recv_timeout(PIPE_PATIENCE).ok())
                .unwrap_or_default()
        };
        Ok(Output {
            status: status.code(),
            stdout: text(stdout),
            stderr: text(stderr),
        })
    }

    /// Runs it and takes any other status than 0 for an error.
    pub fn check(self) -> Result<Output, ToolError> {
        let program = self.argv.iter().take(2).cloned().collect::<Vec<_>>().join(" ");
        let output = self.run()?;
        if output.ok() {
            return Ok(output);
        }
        let status = output
            .status
            .map_or_else(|| "of a signal".to_owned(), |status| status.to_string());
        Err(ToolError::Failed {
            program,
            status,
            tail: output.tail(),
        })
    }
}

/// A command with the environment that every tool gets.
pub fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command.envs(environment());
    command
}

/// The environment of every tool: C locale, no questions, no restarts of other services by needrestart.
pub fn environment() -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        ("HOME", "/root"),
        ("LC_ALL", "C"),
        ("LANG", "C"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("NEEDRESTART_MODE", "l"),
        ("NEEDRESTART_SUSPEND", "1"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec();
    env.extend(
        PASSED_ON
            .iter()
            .filter_map(|key| std::env::var(key).ok().map(|value| ((*key).to_owned(), value))),
    );
    env
}

fn reader(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (to, from) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut stream = stream;
        let _ = (&mut stream).take(MOST_OUTPUT).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
        // Nobody waits any more when it took too long.
        let _ = to.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    from
}

/// Waits with a limit; `None` when it is over.
pub fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let until = Instant::now() + limit;
    // Short tools are seen within a millisecond, long ones cost fifty looks a second at most.
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        crate::host::clock::pause(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn kill_group(child: &Child) {
    let group = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn output_status_and_environment() {
        let output = Tool::new("sh")
            .args(["-c", "echo $LC_ALL; echo x >&2; exit 3"])
            .run()
            .unwrap();
        assert_eq!(
            (output.status, output.stdout.as_str(), output.stderr.as_str()),
            (Some(3), "C\n", "x\n")
        );
    }

    #[test]
    fn limits_and_missing_programs() {
        assert!(matches!(Tool::new("/no/such").run(), Err(ToolError::Missing(_))));
        let slow = Tool::new("sleep").arg("100").timeout(Duration::from_millis(30));
        assert!(matches!(slow.run(), Err(ToolError::Timeout { .. })));
    }

    #[test]
    fn a_daemon_that_keeps_the_pipe_does_not_hold_us() {
        let begun = Instant::now();
        let output = Tool::new("sh")
            .args(["-c", "echo x; sleep 60 & exit 4"])
            .run()
            .unwrap();
        assert_eq!(output.status, Some(4));
        assert!(begun.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn other_users_go_through_setpriv() {
        let tool = Tool::new("x").by_user(7, 8);
        assert_eq!(
            tool.argv(),
            ["setpriv", "--reuid=7", "--regid=8", "--init-groups", "--", "x"]
        );
        assert_eq!(Tool::new("x").by_user(0, 0).argv(), ["x"]);
    }
}
