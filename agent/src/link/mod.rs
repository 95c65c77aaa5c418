//! The link to the coordinator: enrolment, the one session, and what outlives it.

pub mod artifact;
pub mod backoff;
pub mod connector;
pub mod enrol;
pub mod identity;
pub mod outbox;
pub mod renew;
pub mod session;
pub mod state;
