//! Carries out the PMM Server leg (skeleton; see the next commit).
mod clock;
pub mod config;
pub mod credential;
mod driver;
pub mod error;
mod record;
pub use config::{Deadlines, ServerConfig, Trust};
pub use driver::Driver;
pub use error::DriverError;
pub use record::{HopRecord, StepRecord};
