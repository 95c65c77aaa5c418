//! The ordered steps of each action, with their deadlines.

use crate::client_change;
use fleet_common::inventory::Method;
use fleet_common::order::Action;
use serde::{Deserialize, Serialize};

/// A step. The order of the variants is the order in which a switch passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepId {
    /// Detect again and compare with what the order expects.
    Check,
    /// The survey's checks.
    Survey,
    /// Download and verify; keep the old package.
    Stage,
    /// Save configuration, collectors, unit, account, links; for tarballs the whole tree.
    Save,
    /// Stop the client and every stray copy of it. The first change.
    Stop,
    /// The package transaction or the tarball's installer, in a transient unit of its own.
    Install,
    /// Put configuration, collectors, account, links and enablement where the new release looks for them.
    Carry,
    /// Start the client as it was run before.
    Start,
    /// Wait for the client to be what it should be.
    Verify,
    /// Way back: stop what runs now.
    BackStop,
    /// Way back: the old package or tree.
    BackInstall,
    /// Way back: the saved files.
    BackRestore,
    /// Way back: start as before.
    BackStart,
    /// Way back: verify the old release.
    BackVerify,
    /// Write the repository file as `percona-release enable` would.
    Repository,
    /// Remove what was saved for the way back.
    Discard,
    /// Remember how the client is run and where it reports to.
    SaveAddress,
    /// Write the new address into the client's configuration.
    Rewrite,
    /// Restart the client as it is run.
    Restart,
    /// Wait for the restarted client to be itself and connected.
    Reconnect,
    /// Way back: the old address.
    BackRewrite,
    /// Way back: restart on the old address.
    BackRestart,
    /// Way back: wait for the client on the old address.
    BackReconnect,
    /// Write the bundle for fault finding.
    Collect,
    /// Ask for a certificate for a new key.
    RequestCertificate,
    /// Use the new certificate and drop the old one.
    UseCertificate,
    /// Download the agent's new release and check digest and signature.
    Fetch,
    /// Let the guardian install it, and wait for what it says.
    Replace,
}

impl StepId {
    /// The word in events and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Survey => "survey",
            Self::Stage => "stage",
            Self::Save => "save",
            Self::Stop => "stop",
            Self::Install => "install",
            Self::Carry => "carry",
            Self::Start => "start",
            Self::Verify => "verify",
            Self::BackStop => "back-stop",
            Self::BackInstall => "back-install",
            Self::BackRestore => "back-restore",
            Self::BackStart => "back-start",
            Self::BackVerify => "back-verify",
            Self::Repository => "repository",
            Self::Discard => "discard",
            Self::SaveAddress => "save-address",
            Self::Rewrite => "rewrite",
            Self::Restart => "restart",
            Self::Reconnect => "reconnect",
            Self::BackRewrite => "back-rewrite",
            Self::BackRestart => "back-restart",
            Self::BackReconnect => "back-reconnect",
            Self::Collect => "collect",
            Self::RequestCertificate => "request-certificate",
            Self::UseCertificate => "use-certificate",
            Self::Fetch => "fetch",
            Self::Replace => "replace",
        }
    }

    /// Whether the host is changed from this step on.
    pub fn changes_host(self) -> bool {
        (Self::Stop..=Self::BackVerify).contains(&self)
            || (Self::Rewrite..=Self::BackReconnect).contains(&self)
    }

    /// Whether the step belongs to the way back.
    pub fn is_back(self) -> bool {
        (Self::BackStop..=Self::BackVerify).contains(&self)
            || (Self::BackRewrite..=Self::BackReconnect).contains(&self)
    }
}

/// A step and the time it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub id: StepId,
    /// Milliseconds until it is given up.
    pub deadline_ms: u64,
}

/// Local reads: a few tool calls of at most 20 s each.
const CHECK_MS: u64 = 60_000;
/// Metadata of two repositories and one HTTPS request, each with its own limit.
const SURVEY_MS: u64 = 300_000;
/// Two packages of at most some 150 MB at 500 KB/s.
const STAGE_MS: u64 = 900_000;
/// Copies of small files; for tarballs some hundred MB once.
const SAVE_MS: u64 = 300_000;
/// systemd's own stop limit is 90 s; then strays get a kill.
const STOP_MS: u64 = 120_000;
/// Five minutes of waiting for another package manager's lock, then ten for the transaction.
const INSTALL_MS: u64 = 900_000;
/// Small files and a recursive change of ownership.
const CARRY_MS: u64 = 120_000;
/// systemd's own start limit is 90 s.
const START_MS: u64 = 120_000;

/// systemd's own limits for stop and start together; a client run by hand gets the same.
const RESTART_MS: u64 = 200_000;
/// A client connects within seconds; one that was refused before waits up to 30 s between attempts.
const RECONNECT_MS: u64 = 60_000;
/// A dozen tool calls of at most 20 s each.
const COLLECT_MS: u64 = 300_000;
/// The longest wait between two connections is 20 s for a fleet of 10,000.
const RENEW_MS: u64 = 120_000;
/// Some ten megabytes at 50 KB/s.
const FETCH_MS: u64 = 300_000;
/// See `self_update`: lock, transaction, the new agent's time to be welcomed, and the same again for the way back.
const REPLACE_MS: u64 = 1_800_000;

const SWITCH: &[StepId] = &[
    StepId::Check,
    StepId::Stage,
    StepId::Save,
    StepId::Stop,
    StepId::Install,
    StepId::Carry,
    StepId::Start,
    StepId::Verify,
];
const BACK: &[StepId] = &[
    StepId::BackStop,
    StepId::BackInstall,
    StepId::BackRestore,
    StepId::BackStart,
    StepId::BackVerify,
];

/// The steps of an action.
pub fn procedure(action: Action, method: Option<Method>, verify_for_ms: u64) -> Vec<Step> {
    let ids: Vec<StepId> = match action {
        Action::Probe => vec![StepId::Check],
        Action::Preflight => vec![StepId::Check, StepId::Survey],
        Action::Stage => vec![StepId::Check, StepId::Stage],
        Action::Switch => SWITCH.to_vec(),
        Action::Verify => vec![StepId::Verify],
        Action::Keep if method == Some(Method::Tarball) => vec![StepId::Discard],
        Action::Keep => vec![StepId::Repository, StepId::Discard],
        Action::Rollback => return way_back(verify_for_ms),
        Action::Repoint => client_change::REPOINT.to_vec(),
        Action::RestartClient => client_change::RESTART.to_vec(),
        Action::CollectBundle => vec![StepId::Collect],
        Action::Renew => vec![StepId::RequestCertificate, StepId::UseCertificate],
        Action::SelfUpdate => vec![StepId::Check, StepId::Fetch, StepId::Replace],
    };
    ids.into_iter().map(|id| step(id, verify_for_ms)).collect()
}

/// The steps back to the saved release.
pub fn way_back(verify_for_ms: u64) -> Vec<Step> {
    BACK.iter().map(|id| step(*id, verify_for_ms)).collect()
}

/// A step with the time it gets.
pub(crate) fn step(id: StepId, verify_for_ms: u64) -> Step {
    let deadline_ms = match id {
        StepId::Check
        | StepId::Repository
        | StepId::Discard
        | StepId::SaveAddress
        | StepId::Rewrite
        | StepId::BackRewrite => CHECK_MS,
        StepId::Survey => SURVEY_MS,
        StepId::Stage => STAGE_MS,
        StepId::Save => SAVE_MS,
        StepId::Stop | StepId::BackStop => STOP_MS,
        StepId::Install | StepId::BackInstall => INSTALL_MS,
        StepId::Carry | StepId::BackRestore => CARRY_MS,
        StepId::Start | StepId::BackStart => START_MS,
        StepId::Verify | StepId::BackVerify => verify_for_ms.max(1_000),
        StepId::Restart | StepId::BackRestart => RESTART_MS,
        StepId::Reconnect | StepId::BackReconnect => verify_for_ms.max(RECONNECT_MS),
        StepId::Collect => COLLECT_MS,
        StepId::RequestCertificate | StepId::UseCertificate => RENEW_MS,
        StepId::Fetch => FETCH_MS,
        StepId::Replace => REPLACE_MS,
    };
    Step { id, deadline_ms }
}

/// The step after another within one list.
pub fn next(steps: &[Step], after: StepId) -> Option<Step> {
    let at = steps.iter().position(|step| step.id == after)?;
    steps.get(at + 1).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn downloads_come_before_the_client_stops_and_the_save_before_any_change() {
        let steps = procedure(Action::Switch, Some(Method::Deb), 60_000);
        let at = |id| steps.iter().position(|step| step.id == id).unwrap();
        assert!(at(StepId::Stage) < at(StepId::Save) && at(StepId::Save) < at(StepId::Stop));
        assert!(
            steps[..at(StepId::Stop)]
                .iter()
                .all(|step| !step.id.changes_host())
        );
        assert!(
            steps[at(StepId::Stop)..]
                .iter()
                .all(|step| step.id.changes_host())
        );
        assert_eq!(next(&steps, StepId::Install).unwrap().id, StepId::Carry);
        assert_eq!(next(&steps, StepId::Verify), None);
    }

    #[test]
    fn survey_actions_change_nothing() {
        for action in [Action::Probe, Action::Preflight, Action::Stage, Action::Verify] {
            assert!(
                procedure(action, None, 1)
                    .iter()
                    .all(|step| !step.id.changes_host() || step.id == StepId::Verify)
            );
        }
    }

    #[test]
    fn every_step_has_a_deadline_and_serde_uses_its_word() {
        for step in procedure(Action::Switch, None, 0).into_iter().chain(way_back(0)) {
            assert!(step.deadline_ms > 0);
            assert_eq!(serde_json::to_value(step.id).unwrap(), step.id.as_str());
        }
    }
}
