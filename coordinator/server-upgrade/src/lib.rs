//! Decisions of the PMM Server leg. Pure: what Docker, the PMM API and the volume helper saw comes in as values, what to do goes out as
//! values. The shell around it is the crate `pmm-driver`.
//!
//! ```text
//! inspection of the container ──> facts ──> preflight (findings)
//!                            └──> env + ports + recreate ──> body of the new container
//! PMM before ──> baseline ─┐
//! PMM after  ──────────────┴──> compare ──> differences that no rule explains
//! journal file ──> journal::replay ──> which step is next, forward or back
//! ```

pub mod baseline;
pub mod compare;
pub mod env;
pub mod env_table;
pub mod env_value;
pub mod facts;
pub mod fresh;
pub mod image;
pub mod journal;
pub mod names;
pub mod ports;
pub mod preflight;
pub mod reach;
pub mod recreate;
pub mod steps;
pub mod volume;
