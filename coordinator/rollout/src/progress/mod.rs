//! What is going on, as one document.

mod doc;

pub use doc::{
    Counts, Estimate, Failure, GroupView, HopView, InFlight, LegView, PauseView, ServerView, StatusDocument, StepView, Wait,
};

use fleet_common::codes::exit;

/// Exit status that goes with a report's outcome.
pub(crate) fn exit_code(outcome: &str) -> i32 {
    match outcome {
        "succeeded" => exit::OK,
        "finished_with_exceptions" | "finished_with_lost" => exit::EXCEPTIONS,
        "aborted" | "aborting" => exit::ABORTED,
        "server_restored" | "server_refused" | "server_needs_operator" => exit::SERVER_NOT_UPGRADED,
        "paused" => exit::PAUSED,
        _ => exit::FAILED,
    }
}

/// The rollout at one moment.
pub fn view(kernel: &crate::kernel::Kernel, now_ms: u64) -> StatusDocument {
    StatusDocument {
        now_ms,
        rollout: kernel.rollout.id.to_string(),
        plan: kernel.plan_id.to_string(),
        state: kernel.rollout.phase,
        since_ms: kernel.rollout.since_ms,
        headline: String::new(),
        epoch: kernel.rollout.epoch.to_string(),
        started_at_ms: None,
        ended_at_ms: None,
        paused: None,
        legs: Vec::new(),
        server: Vec::new(),
        groups: Vec::new(),
        in_flight: Vec::new(),
        failures: Vec::new(),
        waits: Vec::new(),
        done: 0,
        total: 0,
        estimate: None,
        disturbances: Vec::new(),
        at_rest: false,
        exit_code: 1,
    }
}
