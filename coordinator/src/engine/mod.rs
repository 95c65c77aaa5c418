//! The owner of all decisions. One task holds the kernel and is the only one that changes rollout state: it takes what came in, decides,
//! commits once for the whole batch and only then acts (acknowledges, sends orders, starts server hops).

mod active;
mod commands;
mod dispatcher;
mod errand;
mod handle;
mod holds;
mod host_action;
mod reload;
mod restored;
#[cfg(test)]
mod rollout_test;
mod server_leg;
mod survey;

pub use dispatcher::{Deps, start};
pub use handle::{Begin, EngineHandle, HostAction, SurveyOrders, SurveyTarget};
pub use restored::nothing_to_adopt;
pub use server_leg::{Drivers, ServerDriver};
