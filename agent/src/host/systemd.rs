//! `systemctl`, as a subprocess: no bus library, works on old systemd.

use super::command::{Output, Tool, ToolError};
use client_upgrade::environment::Variables;
use client_upgrade::facts::UnitFacts;
use client_upgrade::parse::systemd::{PROPERTIES, unit};
use fs_err as fs;
use std::path::Path;
use std::time::Duration;

/// Whether systemd is process 1.
pub fn present() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// What systemd knows of a unit.
pub fn show(name: &str) -> Option<UnitFacts> {
    let output = Tool::new("systemctl")
        .args(["show", "--no-pager", "-p", PROPERTIES, "--", name])
        .run()
        .ok()?;
    let mut unit = unit(&output.stdout)?;
    // What the files set wins over `Environment=` (systemd.exec).
    for path in &unit.environment_files {
        if let Ok(text) = fs::read_to_string(path) {
            unit.environment = unit.environment.with(Variables::of_file(&text));
        }
    }
    Some(unit)
}

/// A `systemctl` call that changes something.
pub fn systemctl(verb: &str, unit: &str, timeout: Duration) -> Result<Output, ToolError> {
    Tool::new("systemctl")
        .args(["--no-ask-password", verb, "--", unit])
        .timeout(timeout)
        .check()
}

/// Makes systemd read changed unit files.
pub fn daemon_reload() -> Result<Output, ToolError> {
    Tool::new("systemctl")
        .arg("daemon-reload")
        .timeout(Duration::from_secs(60))
        .check()
}

/// Whether a unit is active or on its way there.
pub fn is_active(name: &str) -> bool {
    let output = Tool::new("systemctl").args(["is-active", "--", name]).run();
    output.is_ok_and(|output| {
        matches!(
            output.stdout.trim(),
            "active" | "activating" | "deactivating" | "reloading"
        )
    })
}
