//! The host: programs, files, units, processes, accounts. The only part of the agent that touches it.

pub mod accounts;
pub mod clock;
pub mod command;
pub mod files;
pub mod http;
pub mod local_api;
pub mod os;
pub mod processes;
pub mod reserve;
pub mod systemd;
pub mod transaction;
