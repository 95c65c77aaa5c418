//! The owner of all decisions. One task holds the kernel and is the only one that changes rollout state: it takes what came in, decides,
//! commits once for the whole batch and only then acts (acknowledges, sends orders, starts server hops).

mod active;
mod dispatcher;
mod handle;
mod intake;
mod server_leg;
#[cfg(test)]
mod rollout_test;
mod survey;

pub use dispatcher::{Deps, start};
pub use server_leg::{Drivers, ServerDriver};
pub use handle::{Begin, EngineHandle, SurveyOrders, SurveyTarget};
