//! Naive runs that fall into the known traps, one case per trap. A trap that nobody falls into is a failure of the lab.

mod client;
mod server;

use crate::suite::Table;

/// All traps. Several at a time keep two cores busy, since most cases wait most of the time.
pub const TABLES: &[Table] = &[
    Table {
        jobs: 3,
        cases: server::CASES,
    },
    Table {
        jobs: 2,
        cases: client::CASES,
    },
];

/// Removes what the cases share; each removes its own things itself.
pub fn clear() {
    client::clear();
}

/// A stand-in server without teeth must be noticed.
pub fn toothless() -> anyhow::Result<()> {
    server::toothless()
}
