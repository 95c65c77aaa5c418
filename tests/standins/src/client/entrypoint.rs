//! `pmm-agent-entrypoint`: what the client's container image starts.

use super::out;
use std::process::Command;

/// Runs setup when asked to (at every start), then the agent. Takes no arguments.
pub fn main(args: &[String]) -> u8 {
    if !args.is_empty() {
        out::error("pmm-agent-entrypoint takes no arguments; it is configured with PMM_AGENT_* variables.");
        return 1;
    }
    let on = |name: &str| std::env::var(name).is_ok_and(|v| v == "1" || v == "true");
    let value = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let (file, script) = (value("PMM_AGENT_PRERUN_FILE"), value("PMM_AGENT_PRERUN_SCRIPT"));
    if file.is_some() && script.is_some() {
        out::error("PMM_AGENT_PRERUN_FILE and PMM_AGENT_PRERUN_SCRIPT are mutually exclusive.");
        return 1;
    }
    if on("PMM_AGENT_SETUP") {
        match Command::new("pmm-agent").arg("setup").status() {
            Ok(status) if status.success() => {}
            _ => return 1,
        }
    }
    prerun(file, script);
    loop {
        let status = Command::new("pmm-agent").arg("run").status();
        if !on("PMM_AGENT_SIDECAR") {
            return status
                .ok()
                .and_then(|s| s.code())
                .and_then(|c| u8::try_from(c).ok())
                .unwrap_or(1);
        }
        let pause = std::env::var("PMM_AGENT_SIDECAR_SLEEP")
            .ok()
            .and_then(|v| v.parse().ok())
            .unwrap_or(5);
        crate::client::clock::pause(std::time::Duration::from_secs(pause));
    }
}

/// Runs what the operator wants to run before the agent: beside a temporary agent, so that it can add services.
fn prerun(file: Option<String>, script: Option<String>) {
    let mut command = match (file, script) {
        (Some(file), _) => Command::new(file),
        (None, Some(script)) => {
            let mut shell = Command::new("/bin/sh");
            shell.arg("-c").arg(script);
            shell
        }
        (None, None) => return,
    };
    let agent = Command::new("pmm-agent").arg("run").spawn();
    if let Err(e) = command.status() {
        out::error(&format!("pre-run: {e}"));
    }
    if let Ok(mut agent) = agent {
        let _ = agent.kill();
        let _ = agent.wait();
    }
}
