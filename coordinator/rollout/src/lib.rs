//! The rollout: from the fleet file over the plan to the decisions, and the documents that say what is going on.
//!
//! ```text
//! fleet.toml --fleet::parse--> Fleet --plan::join(hosts, PMM inventory, server)--> PlanDraft --> stored bytes
//!                                                                                                    |
//! host events, server events, PMM views, operator commands, ticks --> kernel::Kernel::handle --------+
//!                                                                       |
//!            rows to persist, then orders and events to let out <-------+--> progress, explain, report (read only)
//! ```
//!
//! Everything here is synchronous and deterministic: no clock, no randomness, no I/O. Times are arguments (`now_ms`, Unix
//! milliseconds). What [`kernel::Kernel::handle`] returns may leave the process only after its rows are committed.

mod beside;
pub mod explain;
pub mod fleet;
pub mod kernel;
mod names;
pub mod plan;
pub mod policy;
pub mod progress;
pub mod report;
pub mod survey;
mod verification;
pub mod windows;
