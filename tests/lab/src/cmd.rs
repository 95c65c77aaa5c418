//! Running programs: argument vectors only, captured output, errors that show both.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Output of a finished program.
pub struct Done {
    /// Exit status, -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Done {
    /// Whether it exited with 0.
    pub fn ok(&self) -> bool {
        self.code == 0
    }
    /// Both outputs, for messages.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a program and returns what it said, whatever its status.
pub fn run<S: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = S>,
    stdin: Option<&[u8]>,
) -> Result<Done> {
    let mut command = Command::new(program);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if stdin.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    let mut child = command
        .spawn()
        .with_context(|| format!("`{program}` can't be started; is it installed?"))?;
    if let (Some(bytes), Some(mut pipe)) = (stdin, child.stdin.take()) {
        let bytes = bytes.to_vec();
        // A program that does not read its input closes the pipe; its own status tells.
        std::thread::spawn(move || drop(pipe.write_all(&bytes)));
    }
    Ok(done(
        child
            .wait_with_output()
            .with_context(|| format!("waiting for `{program}`"))?,
    ))
}

/// Runs a program that must succeed; returns its standard output without the last newline.
pub fn must<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    let args: Vec<S> = args.into_iter().collect();
    let shown = args
        .iter()
        .map(|arg| arg.as_ref().to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    let done = run(program, &args, None)?;
    if !done.ok() {
        bail!(
            "`{program} {shown}` ended with {}:\n{}",
            done.code,
            tail(&done.all(), 40)
        );
    }
    Ok(done.stdout.trim_end().to_owned())
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn done(output: Output) -> Done {
    Done {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
