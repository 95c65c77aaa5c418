//! Carrying out orders, one at a time, on a thread of its own.
//!
//! `engine` walks the steps of the procedure with the journal; the other files are one step each.

pub mod back;
pub mod backup;
pub mod bundle;
pub mod carry;
pub mod client_change;
pub mod engine;
pub mod environment;
pub mod error;
pub mod install;
pub mod keep;
pub mod kept;
pub mod orders;
pub mod renew;
pub mod rescue;
pub mod save;
pub mod saved;
pub mod self_update;
pub mod stage;
pub mod start;
pub mod stop;
pub mod survey;
#[cfg(test)]
pub mod testing;
pub mod worker;
