//! Carries out the PMM Server leg: Docker through its socket, PMM through its HTTP API, and a journal of its own, so that a hop can be
//! continued after a kill at any instant and so that the whole can later run in an agent on the PMM Server's host.
//!
//! ```text
//! run_hop(order) ──> journal ──> next step (server_upgrade::journal, pure) ──> intent, fsync ──> act ──> result, fsync ──> event
//!                                   │ failure
//!                                   └──> way back: undo_new, undo_volume, undo_container, undo_verify ──> Restored
//! ```
//!
//! Nothing here decides what a difference or a finding means; that is `server-upgrade`.

mod baseline;
mod checkpoint;
mod clock;
pub mod config;
pub mod credential;
mod docker;
mod driver;
pub mod error;
mod hop;
mod inspect;
mod journal;
mod pmm;
mod preflight;
mod record;
mod snapshot;

pub use config::{Deadlines, ServerConfig, Trust};
pub use driver::Driver;
pub use error::DriverError;
pub use record::{HopRecord, StepRecord};
