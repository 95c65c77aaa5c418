//! The operators' API on a unix socket in the data directory: mode 0600, and the credentials of the peer are checked all the same.

mod access;
pub mod documents;
mod host_actions;
mod hosts;
mod planning;
mod rollouts;
mod service;

pub use access::serve;
pub use service::OperatorService;
