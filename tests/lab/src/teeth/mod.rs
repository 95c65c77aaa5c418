//! Naive runs that fall into the known traps, one case per trap. A trap that nobody falls into is a failure of the lab.

mod client;
mod server;

use crate::suite::Case;

/// All traps.
pub const CASES: &[&[Case]] = &[server::CASES, client::CASES];

/// Removes what the cases share; each removes its own things itself.
pub fn clear() { client::clear(); }
