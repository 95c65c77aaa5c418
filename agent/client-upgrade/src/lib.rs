//! What one host's client upgrade decides, without touching the host.
//!
//! ```text
//! tool output ─ parse ─> Facts ─ detect ─> Detection
//!                                   plan entry ─┴─> procedure (ordered steps) ─> journal records ─ resume ─> next step
//! saved configuration ─ carry ─> configuration of the new release
//! observations ─ survey ─> findings
//! ```
//!
//! Pure: no clock, randomness, environment or I/O. The agent's shell gathers facts, carries steps out and writes the journal.

pub mod backup;
pub mod bundle;
pub mod carry;
pub mod client_change;
pub mod collectors;
pub mod detect;
pub mod environment;
pub mod facts;
pub mod journal;
pub mod order_clock;
pub mod parse;
pub mod policy;
pub mod procedure;
pub mod renewal;
pub mod repoint;
pub mod self_update;
pub mod source;
pub mod survey;
pub mod verify;
