//! Whom operators hold. The rows of the hosts in the store are the truth, for hosts of any plan or of none; a rollout's kernel learns of them
//! as commands. Whatever was held or released while no kernel listened (before a start, after an end, or when the coordinator died between
//! the two commits) is told to it wherever a kernel begins or is read back.

use super::dispatcher::Engine;
use crate::store::StoreError;
use fleet_common::ids::HostId;
use rollout::kernel::{Command, Input, Kernel};
use std::collections::BTreeMap;

/// Reason by host.
pub(super) type Holds = BTreeMap<HostId, String>;

impl Engine {
    pub(super) async fn read_holds(&mut self) -> Result<(), StoreError> {
        let rows = self.deps.store.hosts().await?;
        self.holds = rows
            .into_iter()
            .filter_map(|row| Some((row.host, row.held?)))
            .collect();
        Ok(())
    }

    /// The store has it already: this comes after its commit.
    pub(super) fn remember_hold(&mut self, command: &Command) {
        match command {
            Command::Hold { host, reason } => {
                self.holds.insert(HostId::new(host.clone()), reason.clone());
            }
            Command::Unhold { host } => {
                self.holds.remove(&HostId::new(host.clone()));
            }
            _ => {}
        }
    }

    /// Tells the rollout what it does not know.
    pub(super) fn feed_holds(&mut self) {
        let untold = (self.active.as_ref()).map(|active| untold(&active.kernel, &self.holds));
        for input in untold.unwrap_or_default() {
            // A release may be refused: before a restored store is adopted, and where the host is held by its own machine as well.
            let _ = self.feed(input);
        }
    }
}

/// What a kernel must be told so that it holds whom the operators hold.
pub(super) fn untold(kernel: &Kernel, holds: &Holds) -> Vec<Input> {
    let command = |host: &HostId| match (holds.get(host), kernel.held_by_operator(host)) {
        (Some(reason), known) if known != Some(reason.as_str()) => Some(Command::Hold {
            host: host.to_string(),
            reason: reason.clone(),
        }),
        (None, Some(_)) => Some(Command::Unhold {
            host: host.to_string(),
        }),
        _ => None,
    };
    let hosts = kernel.plan().hosts.iter().map(|planned| &planned.host);
    hosts
        .filter_map(command)
        .map(|command| Input::Operator {
            by: "coordinator".to_owned(),
            command,
        })
        .collect()
}
