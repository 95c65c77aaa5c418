//! The PMM client programs.
