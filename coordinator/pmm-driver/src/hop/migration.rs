//! Waiting for PMM's migration. Healthy is not migrated: the end is readiness, the exact release, and the marker on the data. Unhealthy is
//! normal: health turns red about 20 s into a migration (percona/pmm, `Dockerfile.el9` and `pmm.conf`).

use super::context::Hop;
use crate::docker::{containers, networks, short};
use crate::error::DriverError;
use crate::inspect::MARKER;
use crate::pmm::Pmm;
use fleet_common::codes;
use fleet_common::version::PmmVersion;
use serde_json::Value;
use server_upgrade::fresh::{
    INIT_LOGS, fatal_programs, init_failed, judge_output, migration_fails, qan_is_dirty,
};
use server_upgrade::image::version_in_file;
use server_upgrade::names::Phase;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A failing migration is retried by PMM each second; what it says for this long stays.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks inside of the container.
const INSIDE_EVERY: Duration = Duration::from_secs(2);

/// PMM in the dark: the new container's own address.
pub async fn dark_pmm(hop: &Hop<'_>, phase: Phase) -> Result<Pmm, DriverError> {
    let id: String = hop.need(phase, "new_id")?;
    let container = hop.docker.existing(&id).await?;
    dark_pmm_of(hop, phase, &container)?.ok_or_else(|| {
        DriverError::state(
            codes::UNEXPECTED_STATE,
            "the new container has no address on the dark network",
        )
    })
}

fn dark_pmm_of(hop: &Hop<'_>, phase: Phase, container: &Value) -> Result<Option<Pmm>, DriverError> {
    let port = if hop.versions(phase).1.major >= 3 {
        8080
    } else {
        80
    };
    networks::address(container, &hop.names(phase).dark_network())
        .map(|address| hop.pmm_at(&format!("{address}:{port}")))
        .transpose()
}

/// Waits until PMM has migrated its data, or until something says that it never will.
pub async fn wait(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    let id: String = hop.need(phase, "new_id")?;
    let to = hop.versions(phase).1;
    let mut watch = Watch::new(hop, phase, &id);
    let started = Instant::now();
    let mut last = "no answer yet".to_owned();
    loop {
        let container = hop.docker.existing(&id).await?;
        watch.outside(hop, &container).await?;
        watch.inside(hop).await?;
        if let Some(pmm) = dark_pmm_of(hop, phase, &container)? {
            match pmm.readiness().await {
                Ok(200) => match pmm.version().await {
                    Ok(told) if told.version == to => {
                        if marker_in(hop, &id).await? == Some(to) {
                            // Once more: what was said in the last moments counts too.
                            watch.outside(hop, &container).await?;
                            return watch.queries(hop).await;
                        }
                        last = format!("ready, but the marker on the data is not {to} yet");
                    }
                    Ok(told) => last = format!("ready, but {} answers", told.version),
                    Err(error) => last = format!("ready, but {error}"),
                },
                Ok(status) => last = format!("readiness answers {status}"),
                Err(_) => {}
            }
        }
        if started.elapsed() + hop.tools.config.deadlines.poll > limit {
            return Err(DriverError::Deadline {
                what: format!("PMM {to} to migrate its data ({last})"),
                after_s: limit.as_secs(),
            });
        }
        hop.pause().await;
    }
}

/// The release in the marker on the data, as the container sees it.
pub async fn marker_in(hop: &Hop<'_>, id: &str) -> Result<Option<PmmVersion>, DriverError> {
    Ok(hop
        .docker
        .read_file(id, MARKER)
        .await?
        .as_deref()
        .and_then(version_in_file))
}

struct Watch {
    id: String,
    since_s: i32,
    /// Sizes of log files before the start: the data carries the lines of earlier years.
    logs: BTreeMap<String, u64>,
    looked: Option<Instant>,
    failing: Option<Instant>,
    fatal: Option<Instant>,
}

impl Watch {
    fn new(hop: &Hop<'_>, phase: Phase, id: &str) -> Self {
        let since: u64 = hop.get(phase, "started_at_s").unwrap_or_default();
        Self {
            id: id.to_owned(),
            since_s: i32::try_from(since.saturating_sub(1)).unwrap_or_default(),
            logs: hop.get(phase, "logs").unwrap_or_default(),
            looked: None,
            failing: None,
            fatal: None,
        }
    }

    /// What Docker tells: exits, restarts, output.
    async fn outside(&self, hop: &Hop<'_>, container: &Value) -> Result<(), DriverError> {
        let output = hop.docker.output(&self.id, self.since_s).await?;
        if let Some(verdict) = judge_output(&output) {
            return Err(DriverError::state(verdict.code, verdict.message));
        }
        let restarts = container["RestartCount"].as_i64().unwrap_or_default();
        if !containers::running(container) || restarts > 0 {
            let status = container["State"]["ExitCode"].as_i64().unwrap_or_default();
            let tail: Vec<&str> = output.lines().rev().take(3).collect();
            let tail = short(&tail.into_iter().rev().collect::<Vec<_>>().join(" | "), 400);
            return Err(DriverError::state(
                codes::MIGRATION_FAILED,
                format!("the new container ended with status {status}: {tail}"),
            ));
        }
        Ok(())
    }

    /// What PMM's own logs and supervisor tell.
    async fn inside(&mut self, hop: &Hop<'_>) -> Result<(), DriverError> {
        if self.looked.is_some_and(|at| at.elapsed() < INSIDE_EVERY) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let mut line = migration_fails(&self.log(hop, "pmm-managed.log").await).map(|line| short(line, 300));
        for name in INIT_LOGS {
            line = line.or(init_failed(&self.log(hop, name).await).map(|line| short(line, 300)));
        }
        lasting(&mut self.failing, line.is_some(), PATIENCE, || {
            DriverError::state(
                codes::MIGRATION_FAILED,
                format!("PMM's log says `{}`", line.unwrap_or_default()),
            )
        })?;
        // The supervisor may not answer yet; that alone means nothing.
        let status = hop
            .docker
            .exec(&self.id, &["supervisorctl", "status"], Duration::from_secs(30))
            .await;
        let fatal = status
            .map(|status| fatal_programs(&status.text))
            .unwrap_or_default();
        lasting(&mut self.fatal, !fatal.is_empty(), INSIDE_EVERY, || {
            DriverError::state(
                codes::MIGRATION_FAILED,
                format!("PMM's supervisor gave up on {}", fatal.join(", ")),
            )
        })
    }

    /// PMM is ready without its query store; whether that is broken for good stands in a log.
    async fn queries(&self, hop: &Hop<'_>) -> Result<(), DriverError> {
        match qan_is_dirty(&self.log(hop, "qan-api2.log").await) {
            Some(line) => Err(DriverError::state(
                codes::MIGRATION_FAILED,
                format!("Query Analytics did not migrate: `{}`", short(line, 300)),
            )),
            None => Ok(()),
        }
    }

    async fn log(&self, hop: &Hop<'_>, name: &str) -> String {
        let path = format!("/srv/logs/{name}");
        let from = format!("+{}", self.logs.get(name).copied().unwrap_or_default() + 1);
        let said = hop
            .docker
            .exec(&self.id, &["tail", "-c", &from, &path], Duration::from_secs(30))
            .await;
        said.map(|said| said.text).unwrap_or_default()
    }
}

/// An error once something has held for `patience`.
fn lasting(
    since: &mut Option<Instant>,
    holds: bool,
    patience: Duration,
    error: impl FnOnce() -> DriverError,
) -> Result<(), DriverError> {
    if !holds {
        *since = None;
        return Ok(());
    }
    match since {
        Some(at) if at.elapsed() >= patience => Err(error()),
        Some(_) => Ok(()),
        None => {
            *since = Some(Instant::now());
            Ok(())
        }
    }
}
