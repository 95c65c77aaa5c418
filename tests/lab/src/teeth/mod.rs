//! Naive runs that fall into the known traps, one case per trap. A trap that nobody falls into is a failure of the lab.

use crate::suite::Case;

/// All traps.
pub const CASES: &[Case] = &[];
