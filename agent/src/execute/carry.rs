//! Putting what was saved where the new release looks for it, and repairing what package scripts destroy.

use super::engine::Run;
use super::error::StepResult;
use super::saved::{Saved, put};
use super::stop;
use crate::host::command::Tool;
use crate::host::files;
use crate::host::{accounts, systemd};
use client_upgrade::carry::{configuration, rebase, rebase_text, source_base, target_base};
use client_upgrade::collectors::to_carry;
use fleet_common::inventory::Method;
use fs_err as fs;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Carries everything over. The new package's scripts may have started the client with an empty configuration: it is stopped first.
pub fn carry(run: &Run<'_>) -> StepResult<()> {
    let saved = run.saved()?;
    let paths = &run.shared.paths;
    let found = &saved.installation;
    let from = source_base(found.method, &found.base_dir, &found.config_file).to_owned();
    let to = target_base(found.method, &from, run.entry.to.major);
    let unit = saved.unit.as_ref().map(|unit| unit.name.clone());
    stop::everything(
        unit.as_deref(),
        &stop::bases(saved.installation.method, &from),
        Duration::from_secs(90),
    )?;
    account(&saved, &to)?;
    if let Some(config) = &saved.config {
        let carried = configuration(&config.bytes(paths)?, &from, &to);
        let target = rebase(&config.path, &from, &to);
        put(Path::new(&target), &carried.bytes, config.ownership)?;
        if !carried.understood {
            tracing::warn!("the client's configuration can't be read; it was carried byte by byte");
        }
    }
    collectors(run, &saved, &to)?;
    for file in &saved.unit_files {
        let bytes = file.bytes(paths)?;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            put(
                Path::new(&file.path),
                rebase_text(text, &from, &to).as_bytes(),
                file.ownership,
            )?;
        }
    }
    links(&saved, &from, &to)?;
    enablement(&saved)
}

/// The account as it was: same ids, same groups. If it had to be changed, the tree gets its owner again.
pub fn account(saved: &Saved, base: &str) -> StepResult<()> {
    let Some(account) = saved
        .account
        .as_ref()
        .filter(|_| saved.installation.method != Method::Tarball)
    else {
        return Ok(());
    };
    if accounts::restore(account)? {
        let owner = format!("{}:{}", account.uid, account.gid);
        Tool::new("chown")
            .args(["--recursive", "--no-dereference", &owner, base])
            .timeout(Duration::from_secs(60))
            .check()?;
    }
    Ok(())
}

fn collectors(run: &Run<'_>, saved: &Saved, to: &str) -> StepResult<()> {
    let root = Path::new(to).join("collectors");
    let mut new = BTreeMap::new();
    for relative in files::walk(&root) {
        let digest = fleet_artifacts::file_sha256_hex(&root.join(&relative))
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        new.insert(relative.display().to_string(), digest);
    }
    let facts = saved
        .collectors
        .iter()
        .map(|(path, kept)| (path.clone(), kept.facts()))
        .collect();
    for relative in to_carry(&facts, &new) {
        if let Some(kept) = saved.collectors.get(&relative) {
            put(
                &root.join(&relative),
                &kept.file.bytes(&run.shared.paths)?,
                kept.file.ownership,
            )?;
        }
    }
    Ok(())
}

/// Links that led into the old directory lead to the new one; links that scripts deleted come back.
pub fn links(saved: &Saved, from: &str, to: &str) -> StepResult<()> {
    for (path, target) in &saved.links {
        let wanted = rebase(target, from, to);
        let current = std::fs::read_link(path)
            .ok()
            .map(|link| link.display().to_string());
        let resolves = fs::canonicalize(path).is_ok_and(|real| real.starts_with(to));
        if current.as_deref() == Some(&*wanted) || resolves || !wanted.starts_with(to) {
            continue;
        }
        files::remove(Path::new(path))?;
        std::os::unix::fs::symlink(&wanted, path)?;
    }
    Ok(())
}

/// Enabled or disabled as before, whatever the scripts did; never masked if it was not.
pub fn enablement(saved: &Saved) -> StepResult<()> {
    let Some(unit) = saved.unit.as_ref().filter(|_| systemd::present()) else {
        return Ok(());
    };
    systemd::daemon_reload()?;
    let limit = Duration::from_secs(60);
    let now = systemd::show(&unit.name)
        .map(|unit| unit.file_state)
        .unwrap_or_default();
    if now.starts_with("masked") && !unit.file_state.starts_with("masked") {
        systemd::systemctl("unmask", &unit.name, limit)?;
        systemd::daemon_reload()?;
    }
    let now = systemd::show(&unit.name)
        .map(|unit| unit.file_state)
        .unwrap_or_default();
    match (unit.file_state.as_str(), now.as_str()) {
        ("enabled", now) if now != "enabled" => systemd::systemctl("enable", &unit.name, limit).map(drop)?,
        ("disabled", now) if now != "disabled" => {
            systemd::systemctl("disable", &unit.name, limit).map(drop)?
        }
        _ => {}
    }
    Ok(())
}
