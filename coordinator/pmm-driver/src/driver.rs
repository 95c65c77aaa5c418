//! The driver as the coordinator sees it.

use crate::config::ServerConfig;
use crate::error::DriverError;
use crate::record::HopRecord;
use fleet_common::codes;
use fleet_common::server::{HopResult, Pmm2Update, ServerEvent, ServerOrder};
use fleet_common::verification::FleetSnapshot;
use fleet_common::version::PmmVersion;
use server_upgrade::facts::{PreflightReport, ServerFacts};
use std::path::PathBuf;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Everything needed to act on one PMM Server.
pub struct Driver {
    config: ServerConfig,
    journal_dir: PathBuf,
}

fn later() -> DriverError { DriverError::state(codes::INTERNAL, "not written yet") }

impl Driver {
    /// A driver for one server; reads the credential and the trust, touches nothing else.
    pub fn new(config: ServerConfig, journal_dir: PathBuf) -> Result<Self, DriverError> { Ok(Self { config, journal_dir }) }
    /// PMM's own view of the fleet; works with either major.
    pub async fn snapshot(&self, _qan_from_ms: u64) -> Result<FleetSnapshot, DriverError> { Err(later()) }
    /// What runs.
    pub async fn inspect(&self) -> Result<ServerFacts, DriverError> { Err(later()) }
    /// Checks everything that the hops of `path` depend on; changes nothing that runs.
    pub async fn preflight(&self, _path: &[PmmVersion], _pmm2: Pmm2Update) -> Result<PreflightReport, DriverError> { Err(later()) }
    /// Carries out or continues one hop.
    pub async fn run_hop(
        &self,
        _order: &ServerOrder,
        _events: mpsc::Sender<ServerEvent>,
        _cancel: CancellationToken,
    ) -> Result<HopResult, DriverError> {
        Err(later())
    }
    /// The order of a hop without an end.
    pub fn open_order(&self) -> Result<Option<ServerOrder>, DriverError> { Err(later()) }
    /// All hops in the journal directory, oldest first.
    pub fn hops(&self) -> Result<Vec<HopRecord>, DriverError> { let _ = (&self.config, &self.journal_dir); Err(later()) }
}
