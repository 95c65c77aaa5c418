//! Actions on one host outside of a rollout, and the files that they need.

use super::documents::{ArtifactDocument, HostActionDocument};
use super::service::OperatorService;
use crate::artifacts::ArtifactError;
use crate::clock;
use crate::engine::HostAction;
use crate::problem::{Problem, Problems};
use crate::store::{AuditEntry, HostRow};
use fleet_common::agent_release::AgentRelease;
use fleet_common::inventory::Inventory;
use fleet_common::order::Action;
use fleet_common::plan_entry::{ClientSource, Expect, PlanEntry};
use fleet_proto::{ArtifactPart, HostActionRequest};
use std::collections::BTreeMap;
use std::io;
use tokio::sync::mpsc;
use tonic::Streaming;

/// Longest wait for an action; the longest of them, an update of the agent with its way back, takes half an hour at most.
const LONGEST_WAIT_MS: u64 = 2 * 3_600_000;
/// A client that was restarted connects within seconds; one that was refused before waits up to 30 s.
const VERIFY_MS: u64 = 120_000;
/// Parts of a file between the socket and the disk.
const PARTS: usize = 4;

impl OperatorService {
    pub(super) async fn host_action_document(
        &self,
        who: String,
        request: HostActionRequest,
    ) -> Result<HostActionDocument, Problems> {
        let action = fleet_proto::convert::action(request.action)
            .ok()
            .filter(|action| {
                matches!(
                    action,
                    Action::RestartClient | Action::CollectBundle | Action::Renew | Action::SelfUpdate
                )
            })
            .ok_or_else(|| {
                Problem::new("this action is not one that can be asked of a host outside of a rollout")
            })?;
        if request.wait_for_ms == 0 || request.wait_for_ms > LONGEST_WAIT_MS {
            return Err(
                Problem::new("the wait must be more than nothing and at most two hours")
                    .hint("for example `--wait 10m`")
                    .into(),
            );
        }
        let row = self.find_host(&request.host).await?;
        let inventory = inventory_of(&row);
        may_be_asked(&row, inventory.as_ref(), action)?;
        let entry = match action {
            Action::RestartClient => entry(&row, inventory.as_ref())?,
            _ => Vec::new(),
        };
        if action == Action::SelfUpdate {
            let release: AgentRelease = serde_json::from_slice(&request.release)
                .map_err(|error| Problem::because("the release is not understood", &error))?;
            release
                .check()
                .map_err(|error| Problem::because("this is no release of the agent", &error))?;
        }
        let wish = HostAction {
            by: who,
            host: row.host.clone(),
            name: row.name.clone(),
            action,
            entry,
            release: request.release,
            wait_for_ms: request.wait_for_ms,
        };
        let result = self.engine.host_action(wish).await?;
        Ok(HostActionDocument {
            host: row.host.to_string(),
            name: row.name,
            action: action.as_str().to_owned(),
            result,
        })
    }

    pub(super) async fn import_document(
        &self,
        who: String,
        mut parts: Streaming<ArtifactPart>,
    ) -> Result<ArtifactDocument, Problems> {
        let broken =
            |status: tonic::Status| Problem::new(format!("the file did not arrive: {}", status.message()));
        let first = parts
            .message()
            .await
            .map_err(broken)?
            .ok_or_else(|| Problem::new("there is no file"))?;
        let file = first.file.clone();
        let (to, mut from) = mpsc::channel::<io::Result<Vec<u8>>>(PARTS);
        let (artifacts, name) = (self.artifacts.clone(), file.clone());
        let written = tokio::task::spawn_blocking(move || {
            artifacts.import(&name, std::iter::from_fn(|| from.blocking_recv()))
        });
        let mut next: Result<_, tonic::Status> = Ok(Some(first));
        loop {
            let part = match next {
                Ok(Some(part)) => Ok(part.data),
                Ok(None) => break,
                // Half a file is never kept.
                Err(status) => Err(io::Error::other(status.message().to_owned())),
            };
            let last = part.is_err();
            if to.send(part).await.is_err() || last {
                break;
            }
            next = parts.message().await;
        }
        drop(to);
        let imported = written
            .await
            .map_err(|_| Problem::new("the coordinator is stopping"))?;
        let (sha256, length) = imported.map_err(|error| import_problem(&file, &error))?;
        let audit = AuditEntry {
            at_ms: clock::now_ms(),
            who,
            what: "artifact import".to_owned(),
            detail: format!("{file}, {length} bytes, {sha256}"),
        };
        self.store.note(audit).await?;
        Ok(ArtifactDocument { file, sha256, length })
    }
}

fn import_problem(file: &str, error: &ArtifactError) -> Problem {
    let problem = Problem::because(format!("`{file}` was not taken in"), error);
    match error {
        ArtifactError::Name(_) => {
            problem.hint("letters, digits and `.-_+~`, such as pmm-upgrade-agent_0.2.0_amd64.deb")
        }
        ArtifactError::TooLong(_) => problem.hint("is it the agent's package?"),
        _ => problem.hint("see the free space in the coordinator's data directory"),
    }
}

fn inventory_of(row: &HostRow) -> Option<Inventory> {
    serde_json::from_slice(row.inventory.as_deref()?).ok()
}

/// What the store says against it; whether the host is there and free is the engine's to say.
fn may_be_asked(row: &HostRow, inventory: Option<&Inventory>, action: Action) -> Result<(), Problem> {
    if row.revoked {
        return Err(Problem::new(format!("{} is revoked", row.name))
            .hint("it can come back only with a new key and a new token"));
    }
    if let Some(reason) = &row.quarantined {
        return Err(
            Problem::new(format!("{} is quarantined: {reason}", row.name)).hint(format!(
                "find out which machine is the real one, then `pmm-coordinator host unhold {}`",
                row.name
            )),
        );
    }
    let held = row
        .held
        .clone()
        .or_else(|| inventory.and_then(|inventory| inventory.held.clone()));
    match held.filter(|_| matches!(action, Action::RestartClient | Action::SelfUpdate)) {
        Some(reason) => Err(Problem::new(format!("{} is held: {reason}", row.name)).hint(format!(
            "`pmm-coordinator host unhold {}`, or `pmm-upgrade-agent unhold` on the host if it is held there",
            row.name
        ))),
        None => Ok(()),
    }
}

/// What the agent must find to restart the client: what it told last.
fn entry(row: &HostRow, inventory: Option<&Inventory>) -> Result<Vec<u8>, Problem> {
    let found = inventory
        .and_then(|inventory| inventory.installation())
        .ok_or_else(|| {
            Problem::new(format!("{} has no PMM client that we know of", row.name))
                .hint("`pmm-coordinator host show` says what was found there")
        })?;
    let entry = PlanEntry {
        host: row.host.to_string(),
        name: row.name.clone(),
        group: String::new(),
        leg: "host".to_owned(),
        expect: Expect {
            method: found.method,
            from_min: found.version,
            from_max: found.version,
            base_dir: found.base_dir.clone(),
            agent_id: found.agent_id.clone(),
        },
        to: found.version,
        source: ClientSource {
            repository_url: String::new(),
            component: String::new(),
            tarball_url: String::new(),
            tarball_sha256: BTreeMap::new(),
        },
        verify_for_ms: VERIFY_MS,
        repoint: None,
    };
    serde_json::to_vec(&entry).map_err(|error| Problem::because("the order can't be written", &error))
}
