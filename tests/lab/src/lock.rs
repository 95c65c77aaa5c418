//! Locks between lab processes on one machine. A lock is held as long as its value lives.

use crate::output;
use anyhow::{Context, Result};

/// Takes the lock of a name, waiting for whoever holds it.
pub fn hold(name: &str) -> Result<fs_err::File> {
    let path = std::env::temp_dir().join(format!("fleetlab-{name}.lock"));
    let file = fs_err::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)?;
    if file.file().try_lock().is_err() {
        output::step(&format!("another lab run holds `{name}`; waiting for it"));
        file.file()
            .lock()
            .with_context(|| format!("waiting for {}", path.display()))?;
    }
    Ok(file)
}
