//! The newest rollout: its kernel and its server. Feeding the kernel collects what must be committed and what may leave afterwards.

use super::server_leg::{Drivers, ServerDriver, ServerLeg};
use crate::clock;
use crate::problem::Problem;
use crate::store::{RolloutCommit, Store, StoreError};
use fleet_common::ids::{OrderId, RolloutId};
use fleet_common::server::ServerOrder;
use rollout::kernel::{Accepted, HostOrder, Input, Kernel, KernelError, Output, Refusal, Row, ViewRequest};
use std::sync::Arc;

/// What may leave after the commit.
#[derive(Default)]
pub struct Outgoing {
    /// To hosts.
    pub orders: Vec<HostOrder>,
    /// To the server driver.
    pub server: Vec<ServerOrder>,
    /// Server orders to stop.
    pub cancel: Vec<OrderId>,
    /// PMM is asked for the whole fleet.
    pub look_at_fleet: Option<ViewRequest>,
}

/// The newest rollout.
pub struct Active {
    /// Its decisions.
    pub kernel: Kernel,
    /// Its server.
    pub server: ServerLeg,
    /// The nodes that the kernel wants to see.
    pub want_nodes: Option<ViewRequest>,
    /// The end is in the store already.
    finished: bool,
}

/// Why a rollout can't be taken up.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store refused.
    #[error("the rollout can't be read")]
    Store(#[from] StoreError),
    /// Its rows or plan are not understood.
    #[error("the rollout {rollout} is not understood")]
    Kernel {
        /// Which.
        rollout: RolloutId,
        /// Why.
        #[source]
        source: KernelError,
    },
    /// Its plan is gone.
    #[error("the plan of rollout {0} is not in the store")]
    NoPlan(RolloutId),
}

impl Active {
    /// A rollout that begins now.
    pub fn new(kernel: Kernel, driver: Arc<dyn ServerDriver>) -> Self {
        Self {
            kernel,
            server: ServerLeg::new(Some(driver)),
            want_nodes: None,
            finished: false,
        }
    }

    /// The newest rollout of the store, as its last commit left it.
    pub async fn load(store: &Store, drivers: &dyn Drivers) -> Result<Option<Self>, LoadError> {
        let Some(row) = store.newest_rollout().await? else {
            return Ok(None);
        };
        let plan = store
            .plan(&row.plan)
            .await?
            .ok_or_else(|| LoadError::NoPlan(row.rollout.clone()))?;
        let rows: Vec<Row> = store
            .rollout_rows(&row.rollout)
            .await?
            .into_iter()
            .map(|(key, json)| Row { key, json })
            .collect();
        let kernel = Kernel::restore(&plan.document, &rows).map_err(|source| LoadError::Kernel {
            rollout: row.rollout.clone(),
            source,
        })?;
        // An ended rollout needs its server, too: a lost host may come back, or something be tried again.
        let server = ServerLeg::new(restored_driver(&plan.fleet_path, &plan.fleet_text, drivers));
        Ok(Some(Self {
            kernel,
            server,
            want_nodes: None,
            finished: row.finished_at_ms.is_some(),
        }))
    }

    /// Gives the kernel one input; collects what follows.
    pub fn feed(
        &mut self,
        input: Input,
        commit: &mut RolloutCommit,
        outgoing: &mut Outgoing,
    ) -> Option<Result<Accepted, Refusal>> {
        let now_ms = clock::now_ms();
        let output: Output = self.kernel.handle(input, now_ms);
        if let Some(looks) = output.looks {
            self.want_nodes = looks.nodes;
            outgoing.look_at_fleet = looks.fleet.or(outgoing.look_at_fleet.take());
        }
        commit.rollout = Some(self.kernel.rollout_id().clone());
        commit
            .rows
            .extend(output.rows.into_iter().map(|row| (row.key, row.json)));
        if output.plan.is_some() {
            commit.plan = output.plan;
        }
        commit.log.extend(
            output
                .events
                .iter()
                .filter_map(|event| serde_json::to_string(event).ok()),
        );
        for event in &output.events {
            tracing::info!(subject = event.subject, code = event.code, "{}", event.text);
        }
        outgoing.orders.extend(output.orders);
        outgoing.server.extend(output.server);
        outgoing.cancel.extend(output.cancel_server);
        if self.finished && !self.kernel.is_final() {
            self.finished = false;
            commit.reopened = true;
            commit.finished = None;
        }
        if self.kernel.is_final() && !self.finished {
            self.finished = true;
            let report = rollout::report::report(&self.kernel, now_ms);
            commit.finished = Some((now_ms, serde_json::to_vec(&report).unwrap_or_default()));
        }
        output.answer
    }
}

/// The driver of a rollout that goes on. Without one (a credential file that is gone) hosts go on and the server waits.
fn restored_driver(path: &str, text: &[u8], drivers: &dyn Drivers) -> Option<Arc<dyn ServerDriver>> {
    match drivers.of_fleet(path, text) {
        Ok(driver) => Some(driver),
        Err(problems) => {
            tracing::error!(%problems, "the server of the rollout under way can't be reached; repair it and restart the coordinator");
            None
        }
    }
}

/// A refusal of the kernel for the operator.
pub fn refusal(refusal: Refusal) -> Problem {
    let problem = Problem::new(refusal.reason);
    if refusal.hint.is_empty() {
        problem
    } else {
        problem.hint(refusal.hint)
    }
}
