//! What the programs share: a coordinator in this process, made of the parts of `serve` (real store on disk, real TLS and sockets), a PMM
//! Server that only exists as its view, and agents that only pretend to switch a client.
//!
//! The programs print ratios against a baseline of the same run. Nothing here is a test with a stop-watch.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

pub mod agent;
pub mod coordinator;
pub mod figures;
pub mod fleet;
