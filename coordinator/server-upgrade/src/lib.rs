//! Decisions of the PMM Server leg (skeleton).
pub mod facts;
