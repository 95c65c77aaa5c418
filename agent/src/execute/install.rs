//! The package transaction or the tarball's installer, in a transient unit of its own: restarting the agent must not kill dpkg half-way.

use super::engine::Run;
use super::error::{StepError, StepResult};
use super::saved::Saved;
use super::stage::Staged;
use super::stop;
use crate::host::command::Tool;
use crate::host::transaction::{Command, Ended, Transaction};
use crate::host::{files, processes};
use client_upgrade::journal::{OnDisk, Transaction as State, on_disk};
use client_upgrade::procedure::StepId;
use fleet_common::codes;
use fleet_common::inventory::Method;
use std::path::Path;
use std::time::Duration;

/// Installs what was staged. If the transaction of this step is under way or over it is waited for and read, not begun again.
pub fn install(run: &Run<'_>, limit: Duration) -> StepResult<()> {
    let saved = run.saved()?;
    // The release was on the disk before, only the process is old: there is nothing to install.
    if saved.nothing_older(run.entry.to) {
        return Ok(());
    }
    let transaction = Transaction::new(
        &run.shared.paths.transactions(),
        &run.order.order_id,
        StepId::Install.as_str(),
    );
    let before = (saved.installation.method, saved.installation.version);
    let seen = || {
        let looked = run.look();
        let found = looked.installation().map(|found| (found.method, found.version));
        on_disk(found, before, run.entry.to)
    };
    if transaction.state() == State::None {
        if seen() == OnDisk::New {
            return already_there(&transaction, saved.installation.method);
        }
        quiet(&saved, limit)?;
    }
    let staged = Staged::load(&run.shared.paths)
        .ok_or_else(|| StepError::new(codes::STAGE_FAILED, "nothing is staged"))?;
    let commands = match saved.installation.method {
        Method::Deb => deb(&staged.new),
        Method::Rpm => rpm(&staged.new),
        Method::Tarball => tarball(&staged.new, &saved),
    };
    let ended = carry_through(run, &transaction, &commands, limit, StepId::Install)?;
    let took = run.shared.paths.saved().join("transaction_ms.json");
    if let Err(error) = files::write_json(&took, &ended.took_ms) {
        // For the report only: no reason to go back.
        tracing::warn!(%error, "the transaction's time can't be stored");
    }
    match seen() {
        OnDisk::New | OnDisk::Same => Ok(()),
        OnDisk::Old | OnDisk::Broken => {
            let message = format!(
                "after the transaction release {} is not there: {}",
                run.entry.to, ended.tail
            );
            Err(StepError::new(codes::INSTALL_FAILED, message))
        }
    }
}

/// The release is here and no transaction tells how it came. A package database only says so when it is complete, whoever was at work; a tree
/// says so as soon as two programs are new, so a copy that was cut off is not trusted.
fn already_there(transaction: &Transaction, method: Method) -> StepResult<()> {
    if method == Method::Tarball && transaction.begun() {
        return Err(StepError::new(
            codes::INSTALL_FAILED,
            "the installation was interrupted; the tree is perhaps not complete",
        ));
    }
    Ok(())
}

/// Nothing may run while programs are exchanged, whoever started it since it was stopped.
pub fn quiet(saved: &Saved, limit: Duration) -> StepResult<()> {
    let bases = stop::bases(saved.installation.method, &saved.installation.base_dir);
    if bases.iter().all(|base| processes::below(base).is_empty()) {
        return Ok(());
    }
    let unit = saved.unit.as_ref().map(|unit| unit.name.as_str());
    stop::everything(unit, &bases, limit)
}

/// Begins a transaction and waits for its good end.
pub fn carry_through(
    run: &Run<'_>,
    transaction: &Transaction,
    commands: &[Command],
    limit: Duration,
    step: StepId,
) -> StepResult<Ended> {
    transaction.begin(commands)?;
    run.note(step, "the transaction runs in its own unit");
    let Some(ended) = transaction.wait(limit) else {
        transaction.kill();
        return Err(StepError::new(
            codes::INSTALL_FAILED,
            "the transaction did not end in its time or vanished without a result",
        ));
    };
    if !ended.ok {
        return Err(StepError::new(
            codes::INSTALL_FAILED,
            format!("the transaction failed: {}", ended.tail),
        ));
    }
    if let Some(scriptlet) = &ended.scriptlet {
        return Err(StepError::new(
            codes::INSTALL_FAILED,
            format!("a package script failed: {scriptlet}"),
        ));
    }
    Ok(ended)
}

/// apt from the staged file: it removes the old package in the same transaction, waits for locks, and asks nothing.
fn deb(package: &Path) -> Vec<Command> {
    let options = [
        "apt-get",
        "--yes",
        "--quiet",
        "--no-install-recommends",
        "--option=DPkg::Lock::Timeout=300",
        "--option=Dpkg::Options::=--force-confdef",
        "--option=Dpkg::Options::=--force-confold",
        "--option=APT::Sandbox::User=root",
        "--option=Dpkg::Use-Pty=0",
        "install",
    ];
    let mut argv = options.map(str::to_owned).to_vec();
    argv.push(package.display().to_string());
    vec![Command {
        argv,
        ..Command::default()
    }]
}

/// dnf from the staged file with every repository off, so that nothing else can come along. It waits for its own lock and writes its history.
fn rpm(package: &Path) -> Vec<Command> {
    let mut argv = [
        "dnf",
        "--assumeyes",
        "--disablerepo=*",
        "--setopt=install_weak_deps=False",
        "install",
    ]
    .map(str::to_owned)
    .to_vec();
    argv.push(package.display().to_string());
    vec![Command {
        argv,
        waits_for_lock: true,
        ..Command::default()
    }]
}

/// The tarball's own installer with `-u`, so that the configuration stays, into the directory that is already in use. Without `PMM_DIR` it would
/// fill the default directory of PMM 3 and leave the running one old.
fn tarball(unpacked: &Path, saved: &Saved) -> Vec<Command> {
    let (uid, gid) = saved.base_owner;
    let tool = Tool::new(unpacked.join("install_tarball"))
        .arg("-u")
        .by_user(uid, gid);
    let mut env = vec![("PMM_DIR".to_owned(), saved.installation.base_dir.clone())];
    if uid != 0 {
        env.push(("HOME".to_owned(), saved.installation.base_dir.clone()));
    }
    let dir = Some(unpacked.display().to_string());
    vec![Command {
        argv: tool.argv().to_vec(),
        env,
        dir,
        ..Command::default()
    }]
}
