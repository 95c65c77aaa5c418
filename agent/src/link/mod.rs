//! The link to the coordinator: enrolment, the one session, and what outlives it.

pub mod backoff;
pub mod connector;
pub mod enrol;
pub mod outbox;
pub mod session;
pub mod state;
