//! Why a host, a group, the server or the rollout is where it is, and what happens next.

mod choice;
mod group;
mod host;
mod rollout;
mod server;

pub use choice::Choice;

use crate::kernel::{Duty, HostRow, Kernel, LegPhase, Owner};
use crate::plan::{LeftOut, PlanGroup};
use crate::progress::client_legs;
use fleet_common::ids::{GroupName, HostId, LegId, PlanId};
use serde::{Deserialize, Serialize};

/// The answer of `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainDocument {
    /// When it was taken.
    pub now_ms: u64,
    /// `rollout`, `server`, `group:<name>` or `host:<id>`; the same as in events, so that their last ones can be added.
    pub subject: String,
    /// Name for people.
    pub name: String,
    /// State.
    pub state: String,
    /// Since when.
    pub since_ms: u64,
    /// Who must act: `agent`, `coordinator`, `server_driver`, `pmm_server`, `operator`, `nobody`.
    pub owner: String,
    /// Stable name of what it waits for, the same as in `status`; empty when final.
    pub code: String,
    /// Why it is in this state.
    pub reason: String,
    /// What it waits for; empty when final.
    pub waits_for: Vec<String>,
    /// Rules and limits that bind now.
    pub rules: Vec<String>,
    /// When this state ends at the latest, or what it waits for moves.
    pub deadline_ms: Option<u64>,
    /// When a person is reminded.
    pub reminder_ms: Option<u64>,
    /// What happens then.
    pub then: String,
    /// What the operator can do.
    pub you_can: Vec<Choice>,
}

impl ExplainDocument {
    /// Adds that a plan could take over from the one that runs. The kernel knows only the latter.
    pub fn with_waiting_plan(&mut self, plan: &PlanId, follows: &PlanId) {
        self.rules.push(format!(
            "{plan} follows {follows}, which runs, and waits for `adopt`"
        ));
        let choices = [
            choice::run(
                format!("adopt {plan}"),
                "it takes over: what it adds is done in this rollout, what began stays as it is",
            ),
            choice::run(
                format!("plan show {plan}"),
                format!("what it does other than {follows}"),
            ),
        ];
        self.you_can.splice(0..0, choices);
    }
}

/// Explains `rollout`, `server`, a group's name, or a host's id or name. `None` when there is no such thing in the plan.
pub fn explain(kernel: &Kernel, subject: &str, now_ms: u64) -> Option<ExplainDocument> {
    let mut host = None;
    let mut answer = match subject {
        "rollout" | "" => rollout::explain(kernel, now_ms),
        "server" => server::explain(kernel, now_ms),
        _ => {
            let name = GroupName::new(subject.strip_prefix("group:").unwrap_or(subject));
            match kernel.plan.group(&name) {
                Some(group) => group::explain(kernel, group, now_ms)?,
                None => {
                    let planned = kernel
                        .plan
                        .find_host(subject.strip_prefix("host:").unwrap_or(subject))?;
                    host = Some(&planned.host);
                    host::explain(kernel, planned, now_ms)
                }
            }
        }
    };
    if answer.code == fleet_common::codes::STORE_RESTORED {
        answer.then =
            "you are reminded; nothing begins and nobody is given up before a person says which store counts"
                .to_owned();
        answer.you_can.splice(0..0, choice::in_doubt());
    }
    choice::retain_taken(kernel, host, &mut answer.you_can);
    // Whoever is waited for has something to do.
    let other = answer.you_can.iter().any(|choice| *choice != choice::watch());
    if answer.owner == Owner::Operator.as_str() && other {
        answer.you_can.retain(|choice| *choice != choice::watch());
    }
    Some(answer)
}

/// Why a host or PMM client is no part of the rollout, and what to do about it; `None` when the plan does not know it at all.
pub fn left_out(kernel: &Kernel, name: &str) -> Option<(String, &'static str)> {
    let plan = &kernel.plan;
    if plan.unmatched.iter().any(|client| client.name == name) {
        let text = format!("{name} is a PMM client without our agent: the rollout does not touch it");
        return Some((
            text,
            "enrol our agent there, then make a new plan; while a rollout runs it can be adopted",
        ));
    }
    let named = |list: &[LeftOut]| {
        let left = list
            .iter()
            .find(|left| left.name == name || left.host.as_str() == name)?;
        Some(format!("the plan leaves {} out: {}", left.name, left.reason))
    };
    let lists = [
        (&plan.ungrouped, UNGROUPED),
        (&plan.other_server, OTHER_SERVER),
        (&plan.without_node, WITHOUT_NODE),
        (&plan.without_client, WITHOUT_CLIENT),
    ];
    lists
        .into_iter()
        .find_map(|(list, hint)| Some((named(list)?, hint)))
}

/// What to do about hosts that no group matches.
pub const UNGROUPED: &str =
    "let a group of the fleet file match it, then make a new plan; while a rollout runs it can be adopted";
/// What to do about hosts whose client reports elsewhere.
pub const OTHER_SERVER: &str =
    "leave it to the coordinator of that server; or move its client to this server, then make a new plan";
/// What to do about hosts whose client PMM does not know.
pub const WITHOUT_NODE: &str =
    "register its client with this PMM Server, or see why PMM does not list its node, then make a new plan";
/// What to do about hosts without a client.
pub const WITHOUT_CLIENT: &str = "nothing; with a PMM client on it a new plan may have it";

/// A document with what a duty says; the rest is filled in by the subject, which may know better what happens then.
fn document(
    now_ms: u64,
    subject: String,
    name: String,
    state: String,
    since_ms: u64,
    duty: Option<Duty>,
) -> ExplainDocument {
    let then = duty.as_ref().map(then_of).unwrap_or_default();
    ExplainDocument {
        now_ms,
        subject,
        name,
        state,
        since_ms,
        owner: duty
            .as_ref()
            .map_or("nobody", |duty| duty.owner.as_str())
            .to_owned(),
        code: duty.as_ref().map_or("", |duty| duty.code).to_owned(),
        reason: String::new(),
        deadline_ms: duty.as_ref().and_then(|duty| duty.deadline_ms),
        reminder_ms: duty.as_ref().and_then(|duty| duty.reminder_ms),
        waits_for: duty.map(|duty| duty.text).into_iter().collect(),
        rules: Vec::new(),
        then,
        you_can: Vec::new(),
    }
}

/// What happens when what is waited for ends, where that is something else than the subject itself.
fn then_of(duty: &Duty) -> String {
    duty.next.as_ref().map_or_else(
        || "then the coordinator decides anew".to_owned(),
        |next| format!("then {next}; each change before that is looked at, too"),
    )
}

fn word<T: Serialize>(state: T) -> String {
    serde_json::to_value(state)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Who failed, and why: what is known of the first of them.
fn failed(kernel: &Kernel, leg: &LegId, groups: &[PlanGroup]) -> Vec<String> {
    const SHOWN: usize = 3;
    let rows = groups.iter().flat_map(|group| {
        let forgiven = kernel.group(leg, &group.name).map(|row| &row.forgiven);
        let open = move |host: &&HostId| !forgiven.is_some_and(|forgiven| forgiven.contains(*host));
        group.hosts.iter().filter(open)
    });
    let rows = rows.filter_map(|host| Some((host, kernel.host(leg, host)?)));
    let line = |(host, row): (&HostId, &HostRow)| {
        let step = if row.failed_step.is_empty() {
            String::new()
        } else {
            format!(" in step {}", row.failed_step)
        };
        let state = row.phase.as_str().replace('_', " ");
        format!("{} {state}{step}: {}", kernel.name(host), row.reason)
    };
    rows.filter(|(_, row)| row.counts).take(SHOWN).map(line).collect()
}

/// `1 host`, `2 hosts`.
fn counted(number: usize, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}

/// The leg that matters now for hosts: the one under way, or the first to come, or the last.
fn current_leg(kernel: &Kernel) -> Option<LegId> {
    let legs = client_legs(kernel);
    let open = |leg: &&LegId| {
        kernel
            .legs()
            .iter()
            .any(|row| row.leg == **leg && row.phase != LegPhase::Settled)
    };
    legs.iter().find(open).or(legs.last()).cloned()
}
