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
use fleet_common::server::{HopResult, Pmm2Update, ServerEvent, ServerOrder};
use fleet_common::verification::FleetSnapshot;
use fleet_common::version::PmmVersion;
use server_upgrade::facts::{PreflightReport, ServerFacts};
use std::path::PathBuf;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

/// Everything needed to act on one PMM Server.
pub struct Driver {
    config: ServerConfig,
    credential: Credential,
    pmm: Pmm,
    journal_dir: PathBuf,
    /// One hop at a time.
    busy: Mutex<()>,
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
            journal_dir,
            busy: Mutex::new(()),
        })
    }

    /// PMM's own view of the fleet; works with either major. With `qan_from_ms` 0 nothing is asked about queries.
    pub async fn snapshot(&self, qan_from_ms: u64) -> Result<FleetSnapshot, DriverError> {
        snapshot::take(&self.pmm, qan_from_ms).await
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
    /// open and the answer is [`DriverError::Cancelled`].
    pub async fn run_hop(
        &self,
        order: &ServerOrder,
        events: mpsc::Sender<ServerEvent>,
        cancel: CancellationToken,
    ) -> Result<HopResult, DriverError> {
        let _one = self.busy.lock().await;
        if let Some(open) = self.open_order()?.filter(|open| open.order != order.order) {
            return Err(DriverError::Busy {
                open: open.order.to_string(),
            });
        }
        let tools = hop::Tools {
            config: &self.config,
            credential: &self.credential,
            pmm: &self.pmm,
            program: self.program()?,
            journal_dir: &self.journal_dir,
        };
        hop::run(tools, order, events, cancel).await
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
