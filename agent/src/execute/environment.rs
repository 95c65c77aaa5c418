//! Whether the switch can correct every variable of the client that names the old directory.

use super::engine::Run;
use super::error::{StepError, StepResult};
use super::save::administrators_units;
use crate::detect::Looked;
use client_upgrade::carry::{source_base, target_base};
use client_upgrade::detect::{variables, variables_at_start};
use client_upgrade::environment::{Variables, out_of_reach};
use client_upgrade::survey;
use fleet_common::codes;
use fleet_common::inventory::{Installation, RunKind};
use fleet_common::plan_entry::PlanEntry;
use fleet_common::survey::Finding;
use fs_err as fs;
use std::path::Path;

/// The survey's finding.
pub fn finding(entry: &PlanEntry, looked: &Looked, installation: &Installation) -> Finding {
    let all = variables(&looked.facts, installation);
    survey::environment(
        &left_behind(entry, looked, installation),
        &all.names().collect::<Vec<_>>(),
    )
}

/// Refuses a switch after which a variable would still name the old directory: the survey may be weeks old.
pub fn check(run: &Run<'_>) -> StepResult<()> {
    let looked = run.look();
    let installation = run.installation(&looked)?;
    let names = left_behind(run.entry, &looked, &installation);
    if names.is_empty() {
        return Ok(());
    }
    let finding = survey::environment(&names, &[]);
    Err(StepError::refused(
        codes::PREFLIGHT,
        format!("{}; {}", finding.message, finding.hint),
    ))
}

fn left_behind(entry: &PlanEntry, looked: &Looked, installation: &Installation) -> Vec<String> {
    let base = source_base(
        installation.method,
        &installation.base_dir,
        &installation.config_file,
    );
    let moves = target_base(installation.method, base, entry.to.major) != base;
    // The environment of a client that was started by hand is given to the new one by us, corrected.
    if !moves || matches!(installation.run, RunKind::ByHand { .. }) {
        return Vec::new();
    }
    let ours = administrators_units(looked);
    let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let owned: Vec<Variables> = ours
        .iter()
        .map(|path| text(path))
        .map(|text| Variables::of_unit_file(&text).with(Variables::of_file(&text)))
        .collect();
    let others: Vec<Variables> = looked
        .facts
        .units
        .iter()
        .flat_map(|unit| &unit.environment_files)
        .filter_map(|path| fs::canonicalize(path).ok())
        .filter(|path| !ours.contains(path))
        .map(|path| Variables::of_file(&text(&path)))
        .collect();
    let seen = variables_at_start(&looked.facts, installation);
    out_of_reach(&seen, base, &owned, &others)
}
