//! `pmm-coordinator`: sequences the migration of one PMM Server and all of its clients.
//!
//! One binary is both the daemon (`serve`) and the operator's command line, which talks to the daemon over a unix socket in the data
//! directory. It is a library with a small `main`, so that benchmarks and golden screens use the very code of the program; nothing else
//! should build on it.

pub use fleet_store as store;

pub mod agent_api;
pub mod artifacts;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod operator_api;
pub mod pki;
pub mod plan_choice;
pub mod pmm;
pub mod problem;
pub mod sessions;
pub mod telemetry;
