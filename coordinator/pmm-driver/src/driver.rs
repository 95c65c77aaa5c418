//! The driver as the coordinator sees it.

use crate::config::ServerConfig;
use crate::credential::{self, Credential};
use crate::docker::Docker;
use crate::error::DriverError;
use crate::hop;
use crate::inspect;
use crate::journal;
use crate::pmm::{Pmm, trust};
use crate::preflight;
use crate::record::HopRecord;
use crate::snapshot;
use fleet_common::codes;
use fleet_common::ids::OrderId;
use fleet_common::server::{HopOutcome, HopResult, Pmm2Update, ServerEvent, ServerOrder};
use fleet_common::verification::FleetSnapshot;
use fleet_common::version::PmmVersion;
use server_upgrade::facts::{PreflightReport, ServerFacts};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, PoisonError};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

/// Everything needed to act on one PMM Server.
pub struct Driver {
    config: ServerConfig,
    credential: Credential,
    pmm: Pmm,
    journal_dir: PathBuf,
    desk: Arc<Desk>,
}

/// What all drivers of one journal directory share: a rollout that ended may leave a hop under way while the next one makes its own driver.
#[derive(Default)]
struct Desk {
    /// One hop at a time.
    busy: Mutex<()>,
    /// Orders that are to go back to where they started.
    given_up: std::sync::Mutex<BTreeSet<OrderId>>,
}

impl Desk {
    fn of(journal_dir: &Path) -> Arc<Self> {
        static DESKS: LazyLock<std::sync::Mutex<BTreeMap<PathBuf, Arc<Desk>>>> =
            LazyLock::new(Default::default);
        let mut desks = DESKS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(desks.entry(journal_dir.to_owned()).or_default())
    }
}

impl Driver {
    /// A driver for one server. Reads the credential and the trust and makes the journal directory; touches neither Docker nor PMM.
    pub fn new(config: ServerConfig, journal_dir: PathBuf) -> Result<Self, DriverError> {
        fleet_tls::install_default();
        let credential = credential::read(&config.credential_file)?;
        let pmm = Pmm::new(&config.url, trust(&config.trust)?, credential.clone())?;
        journal::prepare(&journal_dir)?;
        Ok(Self {
            config,
            credential,
            pmm,
            desk: Desk::of(&journal_dir),
            journal_dir,
        })
    }

    /// What PMM has listed, of a server that nothing is to be done with: no journal, no Docker, no samples.
    pub async fn list(config: &ServerConfig) -> Result<FleetSnapshot, DriverError> {
        fleet_tls::install_default();
        let credential = credential::read(&config.credential_file)?;
        let pmm = Pmm::new(&config.url, trust(&config.trust)?, credential)?;
        snapshot::list(&pmm).await
    }

    /// PMM's own view of the fleet; works with either major. With `qan_from_ms` 0 nothing is asked about queries.
    pub async fn snapshot(&self, qan_from_ms: u64) -> Result<FleetSnapshot, DriverError> {
        snapshot::take(&self.pmm, qan_from_ms).await
    }

    /// The same of some nodes (by id) alone, by questions for these: for hosts under verification, between two views of the fleet.
    pub async fn snapshot_of(
        &self,
        nodes: &BTreeSet<String>,
        qan_from_ms: u64,
    ) -> Result<FleetSnapshot, DriverError> {
        snapshot::of_nodes(&self.pmm, nodes, qan_from_ms).await
    }

    /// What runs.
    pub async fn inspect(&self) -> Result<ServerFacts, DriverError> {
        let docker = self.docker().await?;
        Ok(inspect::gather(&docker, &self.pmm, &self.config).await?.facts)
    }

    /// Checks everything that the hops of `path` depend on; changes nothing that runs.
    pub async fn preflight(
        &self,
        path: &[PmmVersion],
        pmm2: Pmm2Update,
    ) -> Result<PreflightReport, DriverError> {
        let docker = self.docker().await?;
        preflight::run(&docker, &self.pmm, &self.config, &self.program()?, path, pmm2).await
    }

    /// Carries out one hop, or continues it from its journal. Idempotent by the order's id: an order that has ended answers its result
    /// again. The last event is always `Finished`. `cancel` means that this process is going down: nothing is undone, the journal stays
    /// open and the answer is [`DriverError::Cancelled`]. An older order that is still open ends first: it is kept where clients deliver
    /// already and goes back otherwise, as its journal then says.
    pub async fn run_hop(
        &self,
        order: &ServerOrder,
        events: mpsc::Sender<ServerEvent>,
        cancel: CancellationToken,
    ) -> Result<HopResult, DriverError> {
        let _one = tokio::select! {
            () = cancel.cancelled() => return Err(DriverError::Cancelled),
            one = self.desk.busy.lock() => one,
        };
        while let Some(open) = self.open_order()?.filter(|open| open.order != order.order) {
            let ended =
                hop::take_over(self.tools()?, &open, &order.order, events.clone(), cancel.clone()).await?;
            if ended.outcome == HopOutcome::NeedsOperator {
                return Err(DriverError::State {
                    code: codes::GIVEN_UP,
                    message: format!(
                        "the earlier order {} could not be brought back: {}",
                        open.order, ended.message
                    ),
                    hints: ended.hints,
                });
            }
        }
        hop::run(self.tools()?, order, events, cancel).await
    }

    /// Lets an order go back to where it started at its next safe point, unless its release serves clients by then. Lost with this process,
    /// and harmless when told again.
    pub fn give_up(&self, order: &OrderId) {
        let mut given_up = self.desk.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        given_up.insert(order.clone());
    }

    fn tools(&self) -> Result<hop::Tools<'_>, DriverError> {
        Ok(hop::Tools {
            config: &self.config,
            credential: &self.credential,
            pmm: &self.pmm,
            program: self.program()?,
            journal_dir: &self.journal_dir,
            given_up: &self.desk.given_up,
        })
    }

    /// The order of a hop that has no end yet.
    pub fn open_order(&self) -> Result<Option<ServerOrder>, DriverError> {
        let open = journal::all(&self.journal_dir)?
            .into_iter()
            .rfind(|replay| replay.finished.is_none());
        Ok(open.and_then(|replay| replay.order))
    }

    /// All hops, oldest first.
    pub fn hops(&self) -> Result<Vec<HopRecord>, DriverError> {
        Ok(journal::all(&self.journal_dir)?
            .iter()
            .filter_map(journal::record)
            .collect())
    }

    async fn docker(&self) -> Result<Docker, DriverError> {
        Docker::connect(&self.config.docker_endpoint).await
    }

    fn program(&self) -> Result<Vec<u8>, DriverError> {
        let path = &self.config.helper;
        std::fs::read(path).map_err(|source| DriverError::File {
            what: "can't read the volume helper",
            path: path.clone(),
            source,
        })
    }
}
