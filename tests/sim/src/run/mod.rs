//! Whole fleets in virtual time: the real kernel, the real store core and the real intake of events against hundreds of hosts, with
//! everything that can go wrong. A life follows from its [`Config`] alone.

mod agent;
mod backup;
mod child;
mod config;
mod coordinator;
mod cover;
mod draw;
pub mod expected;
mod faults;
mod led;
pub mod many;
mod network;
pub(crate) mod operated;
mod operator;
mod pmm;
pub mod shrink;
mod trouble;
mod watch;
mod world;

pub use config::Config;
pub use faults::{Fault, FaultSet};
pub use operated::{ACCEPT, ADOPTED, BACK, CLOSED, LIMIT, WORD};
pub use watch::{ENDS, FORK, LEGAL, RESTORABLE, TRUTH};
pub use world::{Break, Life, live};
