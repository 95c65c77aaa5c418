//! What the coordinator, its pure crates and the agent agree on: identifiers, versions, the PMM compatibility table, the
//! documents that travel as stored bytes (inventory, survey, plan entry, order outcome) and the error printer.
//!
//! Pure: no clock, randomness, environment or I/O. Times are `u64` milliseconds since the Unix epoch (`*_ms`), durations are
//! `u64` milliseconds (`*_for_ms`, `took_ms`).

pub mod agent_release;
pub mod codes;
pub mod compat;
pub mod digest;
pub mod hint;
pub mod ids;
pub mod inventory;
pub mod native_version;
pub mod order;
pub mod plan_entry;
pub mod reach;
pub mod server;
pub mod survey;
pub mod verification;
pub mod version;
