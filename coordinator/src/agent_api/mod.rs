//! The two listeners for agents: sessions (client certificate required) and enrolment (server-authenticated, on its own port).

mod calls;
mod connection;
mod enrolment;
mod ingest;
mod listener;
mod session;

pub use enrolment::EnrolmentService;
pub use ingest::incoming;
pub use listener::{Bound, bind, serve_agents, serve_enrolment};
pub use session::SessionService;
