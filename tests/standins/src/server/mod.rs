//! The PMM Server.
