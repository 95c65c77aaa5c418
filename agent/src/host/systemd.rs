//! `systemctl`, as a subprocess: no bus library, works on old systemd.

use super::command::{Output, Tool, ToolError};
use client_upgrade::environment::Variables;
use client_upgrade::facts::UnitFacts;
use client_upgrade::parse::systemd::{PROPERTIES, starts_client, unit};
use fs_err as fs;
use std::path::Path;
use std::time::Duration;

/// Whether systemd is process 1.
pub fn present() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Where unit files are (systemd.unit).
const UNIT_DIRS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Names of the units that start a `pmm-agent`, running or not. The files are read: asking systemd of every unit takes too long for a look
/// that is repeated while a switch is verified.
pub fn client_units() -> Vec<String> {
    let dirs: Vec<&Path> = UNIT_DIRS.iter().map(Path::new).collect();
    client_units_in(&dirs)
}

fn client_units_in(dirs: &[&Path]) -> Vec<String> {
    dirs.iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flat_map(Iterator::flatten)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // A template runs only as an instance, which its process tells.
            let service = name.ends_with(".service") && !name.contains('@');
            let starts = service && fs::read_to_string(entry.path()).is_ok_and(|text| starts_client(&text));
            starts.then_some(name)
        })
        .collect()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn units_with_other_names_are_found_by_what_they_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        file(
            "monitoring.service",
            "[Service]\nExecStart=/opt/pmm2/bin/pmm-agent\n",
        );
        file("pmm@.service", "[Service]\nExecStart=/opt/pmm2/bin/pmm-agent\n");
        file("other.service", "[Service]\nExecStart=/bin/true\n");
        file("note.txt", "ExecStart=/opt/pmm2/bin/pmm-agent\n");
        let gone = dir.path().join("gone");
        assert_eq!(client_units_in(&[dir.path(), &gone]), ["monitoring.service"]);
    }
}
