//! What many lives must have gone through: every state of the kernel, every move between them, every input, button, pause and fault. A zero
//! means that no rule was tried there; a move that is not in here means that this list is not the kernel's.
//!
//! Each list is a `match` as well: a new variant does not compile before it has its line.

use super::faults::Fault;
use fleet_common::order::{HostEvent, OrderResult, Outcome};
use fleet_common::server::{HopOutcome, ServerEvent};
use rollout::kernel::{
    Command, GroupPhase, HopRow, HostPhase, Input, LegPhase, RollbackTarget, RolloutPhase,
};
use serde::Serialize;

/// Every state of a kind, with those that may follow it.
macro_rules! moves {
    ($name:ident: $kind:ident { $($from:ident => $($to:ident)*;)+ }) => {
        const $name: &[($kind, &[$kind])] = &[$(($kind::$from, &[$($kind::$to),*])),+];
        const _: fn($kind) = |state| match state { $($kind::$from => {})+ };
    };
}

/// Every variant of something with contents, by name.
macro_rules! names {
    ($(#[$doc:meta])* $list:ident, $function:ident: $kind:ident { $($variant:pat => $name:literal,)+ }) => {
        const $list: &[&str] = &[$($name),+];
        $(#[$doc])*
        pub fn $function(of: &$kind) -> &'static str {
            match of { $($variant => $name),+ }
        }
    };
}

// `start` makes a rollout and starts it in one commit: nothing else ever happens to one that is planned.
moves!(ROLLOUT: RolloutPhase {
    Planned => Running;
    Running => Paused Checking Aborting RollingBack;
    Paused => Running Checking Aborting RollingBack;
    Checking => Running Paused Aborting RollingBack Succeeded FinishedWithExceptions FinishedWithLost;
    Aborting => Aborted;
    RollingBack => Paused Aborting RolledBack;
    Succeeded =>;
    FinishedWithExceptions => Running;
    FinishedWithLost => Running;
    Aborted => Aborting;
    RolledBack => RollingBack;
});

moves!(LEG: LegPhase {
    Waiting => Running Cancelled;
    Running => Settled Restored Refused NeedsOperator Cancelled;
    Settled => Running Cancelled;
    Restored => Running;
    Refused => Running;
    NeedsOperator => Running;
    Cancelled =>;
});

moves!(GROUP: GroupPhase {
    Pending => Gated Canary Ramping Done Cancelled;
    Gated => Pending Canary Ramping Cancelled;
    Canary => Gated Ramping Breached RolledBack Cancelled;
    Ramping => Gated Canary Draining Breached RolledBack Cancelled;
    Draining => Canary Ramping Soaking Done Breached RolledBack Cancelled;
    Soaking => Ramping Done Breached RolledBack Cancelled;
    Done => Canary Ramping Breached RolledBack;
    Breached => Canary Ramping RolledBack Cancelled;
    RolledBack => Canary Ramping;
    Cancelled =>;
});

moves!(HOST: HostPhase {
    Waiting => Preparing Repointing AlreadyCurrent Refused Skipped Cancelled;
    Preparing => Waiting Ready Surveyed AlreadyCurrent Failed Refused Skipped Cancelled Lost;
    Ready => Waiting Permitted AlreadyCurrent Skipped Cancelled;
    Permitted => Waiting Switching Verifying RolledBack Failed Inconsistent Refused Skipped Cancelled Lost;
    Switching => Waiting Verifying RolledBack Failed Inconsistent Refused Skipped Cancelled Lost;
    Verifying => Settling RollingBack;
    Settling => Upgraded RollingBack;
    RollingBack => Verifying Settling RolledBack Inconsistent Lost;
    Repointing => Waiting Repointed Failed Inconsistent Refused Skipped Cancelled;
    Surveyed =>;
    Repointed => Waiting;
    Upgraded =>;
    AlreadyCurrent =>;
    RolledBack => Waiting;
    Failed => Waiting;
    Inconsistent => Waiting;
    Refused => Waiting;
    Skipped => Waiting;
    Cancelled =>;
    Lost => Waiting Permitted Switching RollingBack;
});

/// Where the hop of a server leg is, as its row says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopPhase {
    /// Not begun, or to begin again.
    Waiting,
    /// The driver has the order and said nothing.
    Ordered,
    /// It is in one of its steps.
    Stepping,
    /// The release serves.
    Published,
    /// The driver said nothing for too long.
    Silent,
    Settled,
    Restored,
    Refused,
    NeedsOperator,
    /// It needs a person, and the driver's journal is open.
    Open,
}

moves!(HOP: HopPhase {
    Waiting => Ordered;
    Ordered => Stepping Published Silent Settled Restored Refused NeedsOperator Open;
    Stepping => Published Silent Settled Restored Refused NeedsOperator Open;
    Published => Silent Settled Restored Refused NeedsOperator Open;
    Silent => Ordered Stepping Published Settled Restored Refused NeedsOperator Open;
    Settled =>;
    Restored => Waiting Ordered;
    Refused => Waiting Ordered;
    NeedsOperator => Waiting Ordered Stepping Published;
    Open => Published;
});

impl HopPhase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ordered => "ordered",
            Self::Stepping => "stepping",
            Self::Published => "published",
            Self::Silent => "silent",
            Self::Settled => "settled",
            Self::Restored => "restored",
            Self::Refused => "refused",
            Self::NeedsOperator => "needs_operator",
            Self::Open => "open",
        }
    }
}

pub fn hop_phase(hop: &HopRow) -> HopPhase {
    if hop.order.is_some() {
        return match (hop.deadline_ms, hop.published) {
            (None, _) => HopPhase::Silent,
            (_, Some(true)) => HopPhase::Published,
            _ if hop.steps.is_empty() => HopPhase::Ordered,
            _ => HopPhase::Stepping,
        };
    }
    let Some(result) = &hop.result else {
        return HopPhase::Waiting;
    };
    match result.outcome {
        HopOutcome::Settled => HopPhase::Settled,
        HopOutcome::Restored => HopPhase::Restored,
        HopOutcome::Refused => HopPhase::Refused,
        HopOutcome::NeedsOperator if result.open => HopPhase::Open,
        HopOutcome::NeedsOperator => HopPhase::NeedsOperator,
    }
}

names!(INPUTS, input: Input {
    Input::Host { event: HostEvent::InventoryChanged { .. }, .. } => "input host inventory",
    Input::Host { event: HostEvent::Accepted, .. } => "input host accepted",
    Input::Host { event: HostEvent::StepStarted { .. }, .. } => "input host step started",
    Input::Host { event: HostEvent::StepFinished { .. }, .. } => "input host step finished",
    Input::Host { event: HostEvent::Resumed { .. }, .. } => "input host resumed",
    Input::Host { event: HostEvent::HoldChanged { .. }, .. } => "input host hold",
    Input::Host { event: HostEvent::Finished(OrderResult { outcome: Outcome::Done, .. }), .. } => "input host done",
    Input::Host { event: HostEvent::Finished(OrderResult { outcome: Outcome::Refused, .. }), .. } => "input host refused",
    Input::Host { event: HostEvent::Finished(OrderResult { outcome: Outcome::Expired, .. }), .. } => "input host expired",
    Input::Host { event: HostEvent::Finished(OrderResult { outcome: Outcome::FailedNothingChanged, .. }), .. } => "input host unchanged",
    Input::Host { event: HostEvent::Finished(OrderResult { outcome: Outcome::RolledBack, .. }), .. } => "input host back",
    Input::Host { event: HostEvent::Finished(OrderResult { outcome: Outcome::Inconsistent, .. }), .. } => "input host inconsistent",
    Input::Connected { .. } => "input connected",
    Input::Disconnected { .. } => "input disconnected",
    Input::Server { event: ServerEvent::StepStarted { .. }, .. } => "input server step started",
    Input::Server { event: ServerEvent::StepFinished { .. }, .. } => "input server step finished",
    Input::Server { event: ServerEvent::Published, .. } => "input server published",
    Input::Server { event: ServerEvent::Resumed { .. }, .. } => "input server resumed",
    Input::Server { event: ServerEvent::Finished(_), .. } => "input server finished",
    Input::ServerView(_) => "input view",
    Input::Operator { .. } => "input operator",
    Input::Adopt { .. } => "input adopt",
    Input::Tick => "input tick",
    Input::CoordinatorStarted { .. } => "input coordinator started",
    Input::StoreRestored { .. } => "input store restored",
    Input::StoreAdopted { .. } => "input store adopted",
    Input::HostRuns { .. } => "input host runs",
});

names!(BUTTONS, button: Command {
    Command::Start { .. } => "Start",
    Command::Pause { .. } => "Pause",
    Command::Resume { .. } => "Resume",
    Command::Abort { .. } => "Abort",
    Command::Retry { .. } => "Retry",
    Command::Hold { .. } => "Hold",
    Command::Unhold { .. } => "Unhold",
    Command::FreeSlot { .. } => "FreeSlot",
    Command::Approve { .. } => "Approve",
    Command::Limit { .. } => "Limit",
    Command::Rollback { target: RollbackTarget::Host(_), .. } => "Rollback host",
    Command::Rollback { target: RollbackTarget::Group(_), .. } => "Rollback group",
    Command::Rollback { target: RollbackTarget::Clients, .. } => "Rollback clients",
    Command::Accept { .. } => "Accept",
    Command::Skip { .. } => "Skip",
});

/// What else is counted.
const NAMES: &[&str] = &[
    "button Adopt accepted",
    "button Adopt refused",
    "adoption crash-before-commit",
    "adoption crash-after-commit",
    "adoption crash-while-acting",
    "intake duplicate",
    "intake gap",
    "intake rejected",
    "order keep",
    "order preflight",
    "order probe",
    "order repoint",
    "order rollback",
    "order stage",
    "order switch",
    "pause bridge_incomplete",
    "pause group_deadline",
    "pause inconclusive",
    "pause offline",
    "pause operator",
    "pause repoint",
    "pause rollback",
    "pause server_needs_operator",
    "pause server_refused",
    "pause server_restored",
    "look at nodes",
    "look at the fleet",
    "pause server_view_missing",
    "pause set_exhausted",
    "pause site_exhausted",
    "pause slots_exhausted",
    "pause store_restored",
    "pause survey",
    "pause threshold",
    "session quarantined",
    "session stale",
];

const ONLY_WITH_POLICIES: &[&str] = &[
    "pause group_deadline",
    "pause inconclusive",
    "pause offline",
    "pause set_exhausted",
    "pause site_exhausted",
];

/// Moves that need a policy, a way back to PMM 2, or a press in the short end of a rollout: in 400 fleets of 200 hosts without policies they
/// happened twice at most. The lives with policies are asked for all of them.
const MOVES_WITH_POLICIES: &[&str] = &[
    "host preparing -> already_current",
    "host preparing -> lost",
    "group ramping -> canary",
    "group gated -> pending",
    "group done -> canary",
    "group breached -> cancelled",
    "group breached -> rolled_back",
    "group canary -> cancelled",
    "group canary -> gated",
    "group done -> ramping",
    "group done -> rolled_back",
    "group draining -> canary",
    "group draining -> cancelled",
    "group draining -> rolled_back",
    "group gated -> cancelled",
    "group pending -> done",
    "group ramping -> gated",
    "group soaking -> breached",
    "group soaking -> cancelled",
    "group soaking -> ramping",
    "group soaking -> rolled_back",
    "hop refused -> waiting",
    "host lost -> rolling_back",
    "host lost -> waiting",
    "host permitted -> cancelled",
    "host permitted -> failed",
    "host permitted -> rolled_back",
    "host permitted -> skipped",
    "host ready -> already_current",
    "host repointing -> cancelled",
    "host repointing -> failed",
    "host repointing -> skipped",
    "host rolling_back -> lost",
    "host switching -> cancelled",
    "host switching -> skipped",
    "leg settled -> cancelled",
    "leg settled -> running",
    "rollout aborted -> aborting",
    "rollout checking -> aborting",
    "rollout checking -> paused",
    "rollout checking -> rolling_back",
    "rollout checking -> running",
    "rollout checking -> succeeded",
    "rollout finished_with_exceptions -> running",
    "rollout finished_with_lost -> running",
    "rollout paused -> checking",
    "rollout paused -> rolling_back",
    "rollout rolled_back -> rolling_back",
    "rollout rolling_back -> paused",
    "rollout rolling_back -> rolled_back",
];

/// What needs several rare things at once: asked of [`MANY`] lives, not of fewer.
const SELDOM: &[&str] = &[
    "host preparing -> lost",
    "group ramping -> canary",
    "group gated -> pending",
    "group done -> canary",
    "group breached -> rolled_back",
    "group canary -> gated",
    "group done -> breached",
    "group draining -> canary",
    "group draining -> cancelled",
    "group gated -> cancelled",
    "group pending -> done",
    "group rolled_back -> canary",
    "group soaking -> breached",
    "group soaking -> cancelled",
    "group soaking -> ramping",
    "hop refused -> waiting",
    "host lost -> waiting",
    "host permitted -> cancelled",
    "host permitted -> failed",
    "host permitted -> inconsistent",
    "host permitted -> rolled_back",
    "host preparing -> already_current",
    "host ready -> already_current",
    "host repointing -> cancelled",
    "host repointing -> failed",
    "host switching -> cancelled",
    "leg settled -> cancelled",
    "pause site_exhausted",
    "rollout checking -> rolling_back",
    "rollout finished_with_lost -> running",
    "rollout rolled_back -> rolling_back",
    "rollout rolling_back -> aborting",
];

/// Moves of a host that is tried again while its group is past it, or was lost before: a directed test has each (`tests/canaries.rs`,
/// `tests/kept_word.rs`), in lives they are too rare to be asked of so few.
const RETRIED: &[&str] = &[
    "group canary -> pending",
    "group ramping -> pending",
    "group soaking -> canary",
    "host ready -> lost",
    "host waiting -> lost",
];

/// So many lives go through all of it.
const MANY: u64 = 1_300;

/// Kinds of names that are only counted when they are listed.
const CLOSED: &[&str] = &[
    "rollout ", "leg ", "group ", "host ", "hop ", "pause ", "button ", "order ", "input ",
];

pub fn word<T: Serialize>(state: &T) -> String {
    let value = serde_json::to_value(state).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

pub fn is_host_phase(word: &str) -> bool {
    HOST.iter().any(|(phase, _)| phase.as_str() == word)
}

/// Whether this is a state of a `leg` or a `group`.
pub fn is_phase_of(kind: &str, of: &str) -> bool {
    match kind {
        "leg" => LEG.iter().any(|(phase, _)| word(phase) == of),
        _ => GROUP.iter().any(|(phase, _)| word(phase) == of),
    }
}

fn names<T: Copy>(all: &mut Vec<String>, kind: &str, moves: &[(T, &[T])], word: impl Fn(T) -> String) {
    for (from, next) in moves {
        all.push(format!("{kind} {}", word(*from)));
        let moves = next
            .iter()
            .map(|to| format!("{kind} {} -> {}", word(*from), word(*to)));
        all.extend(moves);
    }
}

/// What must happen: with policies everything. Without them every state, button, fault and move that needs none.
pub fn demanded(policies: bool, lives: u64) -> Vec<String> {
    let mut all = all();
    all.retain(|name| !RETRIED.contains(&name.as_str()));
    all.retain(|name| lives >= MANY || !SELDOM.contains(&name.as_str()));
    if !policies {
        let needs = [ONLY_WITH_POLICIES, MOVES_WITH_POLICIES].concat();
        all.retain(|name| !needs.contains(&name.as_str()));
    }
    all
}

/// Everything, as it is counted.
pub fn all() -> Vec<String> {
    let mut all: Vec<String> = Fault::ALL
        .iter()
        .map(|fault| format!("fault {}", fault.word()))
        .collect();
    names(&mut all, "rollout", ROLLOUT, |phase| word(&phase));
    names(&mut all, "leg", LEG, |phase| word(&phase));
    names(&mut all, "group", GROUP, |phase| word(&phase));
    names(&mut all, "host", HOST, |phase| phase.as_str().to_owned());
    names(&mut all, "hop", HOP, |phase| phase.as_str().to_owned());
    for button in BUTTONS {
        all.push(format!("button {button} accepted"));
        all.push(format!("button {button} refused"));
    }
    let rest = INPUTS.iter().chain(NAMES).chain(RETRIED);
    all.extend(rest.map(|name| (*name).to_owned()));
    all
}

/// Whether something that happened should have been listed.
pub fn must_be_listed(name: &str) -> bool {
    CLOSED.iter().any(|kind| name.starts_with(kind))
}
