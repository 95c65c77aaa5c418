//! Waiting for the client to be what it should be. Asked of the local API and `pmm-admin`, never of exit codes.

use crate::detect::{Looked, program_version};
use crate::execute::engine::Run;
use crate::execute::error::{StepError, StepResult};
use crate::execute::saved::Saved;
use crate::host::command::Tool;
use crate::host::processes;
use client_upgrade::carry::target_base;
use client_upgrade::parse::status;
use client_upgrade::procedure::StepId;
use client_upgrade::verify::{Expected, Seen, missing};
use fleet_common::codes;
use fleet_common::inventory::{Installation, RunKind};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks: a client connects within seconds.
const PAUSE: Duration = Duration::from_millis(500);

/// Waits until nothing is missing of what the order makes of the host.
pub fn verify(run: &Run<'_>, step: StepId, limit: Duration) -> StepResult<()> {
    wait(run, step, limit, |installation| expected(run, step, installation))
}

/// Waits until nothing is missing of what is expected of the installation that is found.
pub fn wait(
    run: &Run<'_>,
    step: StepId,
    limit: Duration,
    expected: impl Fn(&Installation) -> Expected,
) -> StepResult<()> {
    let until = Instant::now() + limit;
    let mut told = String::new();
    loop {
        let looked = run.look();
        let left = match looked.installation() {
            Some(installation) => missing(&expected(installation), &seen(&looked, installation)),
            None => vec!["an installation".to_owned()],
        };
        if left.is_empty() {
            return Ok(());
        }
        let text = left.join("; ");
        if text != told {
            run.note(step, format!("still missing: {text}"));
            told.clone_from(&text);
        }
        if Instant::now() >= until {
            return Err(StepError::new(
                codes::VERIFY_FAILED,
                format!("still missing after {} s: {text}", limit.as_secs()),
            ));
        }
        crate::host::clock::pause(PAUSE);
    }
}

fn expected(run: &Run<'_>, step: StepId, now: &Installation) -> Expected {
    let saved = Saved::load(&run.shared.paths);
    let Some(saved) = saved else {
        // Nothing saved: a plain check of what runs.
        return Expected {
            version: run.entry.to,
            agent_id: if run.entry.expect.agent_id.is_empty() {
                now.agent_id.clone()
            } else {
                run.entry.expect.agent_id.clone()
            },
            node_id: String::new(),
            exporters: std::collections::BTreeMap::new(),
            forbidden_dir: None,
            old_pid: None,
            running: now.run != RunKind::Stopped,
            connected: now.configured,
        };
    };
    let before = &saved.installation;
    let back = step == StepId::BackVerify;
    let version = if back { before.version } else { run.entry.to };
    let target = target_base(before.method, &before.base_dir, run.entry.to.major);
    let moved = target != before.base_dir;
    let gone = if back { target } else { before.base_dir.clone() };
    Expected {
        version,
        agent_id: before.agent_id.clone(),
        node_id: before.node_id.clone(),
        exporters: before.exporters.clone(),
        forbidden_dir: moved.then_some(gone),
        old_pid: saved.process.as_ref().map(|process| process.pid),
        running: saved.ran(),
        // On the way back a client that was not connected before need not be connected after.
        connected: before.configured && (!back || before.connected == Some(true)),
    }
}

fn seen(looked: &Looked, installation: &Installation) -> Seen {
    let base = &installation.base_dir;
    let (uid, gid) = processes::owner_of(Path::new(base)).unwrap_or((0, 0));
    let on_disk = program_version(base, uid, gid).filter(|version| *version == installation.version);
    let variables = client_upgrade::detect::variables(&looked.facts, installation);
    let (_, port) = looked.facts.local_api(&installation.config_file, &variables);
    let admin = Tool::new(format!("{base}/bin/pmm-admin"))
        .args(["status", "--json", &format!("--pmm-agent-listen-port={port}")])
        .by_user(uid, gid)
        .run()
        .ok()
        .and_then(|output| status::admin(&output.stdout));
    Seen {
        on_disk,
        local: looked.facts.status.clone(),
        admin,
        pid: looked.main_process().map(|process| process.pid),
    }
}
