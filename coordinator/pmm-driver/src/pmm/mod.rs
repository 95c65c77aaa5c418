//! The HTTP API of both PMM majors, as far as the driver needs it. Parsing is tolerant: PMM 2 leaves out what is empty, PMM 3 adds members
//! with each release, 64-bit numbers arrive as strings.

pub mod accounts;
pub mod backups;
mod http;
pub mod inventory;
pub mod metrics;
pub mod qan;
pub mod server;
#[cfg(test)]
mod tests;
pub mod updates;

pub use http::{Pmm, trust};
