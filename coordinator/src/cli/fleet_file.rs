//! Reads a fleet file for a command. It is checked here as far as no coordinator is needed, so that a slip is found at once.

use crate::pmm;
use crate::problem::{Problem, Problems};
use fleet_proto::FleetRequest;
use std::path::Path;

/// The request for a fleet file.
pub fn request(path: &Path) -> Result<FleetRequest, Problems> {
    let shown = path.display().to_string();
    let text = fs_err::read(path).map_err(|error| {
        Problem::because("the fleet file can't be read", &error)
            .at(shown.clone())
            .hint("`deploy/coordinator/etc/pmm-coordinator/fleet.toml.example` shows its form")
    })?;
    let utf8 = std::str::from_utf8(&text)
        .map_err(|error| Problem::because("the fleet file is not UTF-8", &error).at(shown.clone()))?;
    rollout::fleet::parse(utf8, &shown).map_err(pmm::problems)?;
    Ok(FleetRequest { path: shown, text })
}
