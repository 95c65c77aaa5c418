//! The steps of a hop as data: what each one needs, leaves behind and is undone by.

use crate::names::Phase;
use fleet_common::server::{Pmm2Update, ServerOrder};

/// A step of a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Look at container, image and release; decide whether the container has to be re-created first.
    Inspect,
    /// Write down what PMM holds.
    Baseline,
    /// Check everything that the hop depends on.
    Preflight,
    /// First pass of the restore point, while PMM runs.
    RestorePoint,
    /// Pull the image by the digest that the registry gives for the tag.
    Pull,
    /// Set the old container's restart policy to `no`.
    Disarm,
    /// Stop PMM's services, confirm, stop the container. PMM is down from here.
    StopServices,
    /// Second pass of the restore point: only what changed.
    RestorePointFinal,
    /// PMM 2's update API needs a running PMM.
    StartServices,
    /// PMM 2's own update.
    ApiUpdate,
    /// Stop the updated PMM.
    StopAgain,
    /// Give the data to PMM 3's user.
    Ownership,
    /// Rename the old container.
    Retire,
    /// Create the new container.
    Create,
    /// Start it where no client reaches it.
    DarkStart,
    /// Wait until PMM has migrated its data.
    Migration,
    /// Compare with the baseline.
    Compare,
    /// Give it the networks, ports, restart policy and name of the old one. PMM is up from here.
    Publish,
    /// Turn API keys into service accounts.
    ServiceAccounts,
    /// Wait for the clients.
    Settle,
}

/// How long a step may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Asking and renaming.
    Quick,
    /// Stopping services.
    Stop,
    /// Pulling.
    Pull,
    /// Volume work, grows with the data.
    Volume,
    /// Migration, grows with the data.
    Migration,
    /// PMM 2's update.
    ApiUpdate,
    /// Clients that come back, grows with the fleet.
    Settle,
}

/// What is known about a step without looking at anything.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Name in events and in the journal.
    pub name: &'static str,
    /// What it waits for, for people.
    pub waits_for: &'static str,
    /// What must hold before.
    pub precondition: &'static str,
    /// What holds afterwards; a repetition that finds it does nothing.
    pub postcondition: &'static str,
    /// How it is undone.
    pub inverse: &'static str,
    /// How long it may take.
    pub limit: Limit,
}

impl Step {
    /// The step's row.
    pub fn info(self) -> Info {
        let info = |name, waits_for, precondition, postcondition, inverse, limit| Info {
            name,
            waits_for,
            precondition,
            postcondition,
            inverse,
            limit,
        };
        match self {
            Self::Inspect => info(
                "inspect",
                "Docker and the PMM API",
                "the container runs the expected release",
                "facts are in the journal",
                "none",
                Limit::Quick,
            ),
            Self::Baseline => info(
                "baseline",
                "PMM's inventory, metrics and queries",
                "PMM answers",
                "the baseline is in the journal",
                "none",
                Limit::Settle,
            ),
            Self::Preflight => info(
                "preflight",
                "checks of data, environment, image and space",
                "facts and baseline",
                "no check failed",
                "none",
                Limit::Volume,
            ),
            Self::RestorePoint => info(
                "restore_point",
                "the first copy of the data while PMM runs",
                "space for one copy",
                "backup volume, keeper and manifest exist",
                "the volume is kept",
                Limit::Volume,
            ),
            Self::Pull => info(
                "pull",
                "the image",
                "the registry or the engine has it",
                "the image with the recorded digest is there",
                "the image is kept",
                Limit::Pull,
            ),
            Self::Disarm => info(
                "disarm",
                "Docker",
                "the original policy is in the journal",
                "restart policy `no`",
                "set the original policy",
                Limit::Quick,
            ),
            Self::StopServices => info(
                "stop_services",
                "each service to be STOPPED, then the container",
                "restart policy `no`",
                "the container does not run",
                "start the container",
                Limit::Stop,
            ),
            Self::RestorePointFinal => info(
                "restore_point_final",
                "the copy of what changed since",
                "nothing writes to the data",
                "the copy equals the data",
                "the volume is kept",
                Limit::Volume,
            ),
            Self::StartServices => info(
                "start_services",
                "PMM to be ready again",
                "the restore point is whole",
                "PMM answers",
                "stop the container",
                Limit::Migration,
            ),
            Self::ApiUpdate => info(
                "api_update",
                "PMM 2's own update",
                "PMM offers the release",
                "PMM answers with the new release",
                "restore the volume, re-create the container from its image",
                Limit::ApiUpdate,
            ),
            Self::StopAgain => info(
                "stop_again",
                "each service to be STOPPED, then the container",
                "the update is done",
                "the container does not run",
                "none",
                Limit::Stop,
            ),
            Self::Ownership => info(
                "ownership",
                "the change of owners",
                "the restore point is whole",
                "everything belongs to PMM 3's user, the old owners are recorded",
                "restore the volume",
                Limit::Volume,
            ),
            Self::Retire => info(
                "retire",
                "Docker",
                "the container does not run",
                "it has another name",
                "rename it back",
                Limit::Quick,
            ),
            Self::Create => info(
                "create",
                "Docker",
                "the name is free",
                "the new container exists on the dark network only",
                "remove it",
                Limit::Quick,
            ),
            Self::DarkStart => info(
                "dark_start",
                "the new container to run",
                "it has the data mounted",
                "it runs, and no client reaches it",
                "stop and remove it",
                Limit::Quick,
            ),
            Self::Migration => info(
                "migration",
                "PMM's migration of its data",
                "the new container runs",
                "PMM is ready with the new release",
                "stop and remove the container, restore the volume",
                Limit::Migration,
            ),
            Self::Compare => info(
                "compare",
                "the comparison with the baseline",
                "PMM is ready",
                "no unexplained difference",
                "as for migration",
                Limit::Settle,
            ),
            Self::Publish => info(
                "publish",
                "PMM to answer at its address",
                "the comparison holds",
                "original name, networks, ports and restart policy",
                "as for migration",
                Limit::Quick,
            ),
            Self::ServiceAccounts => info(
                "service_accounts",
                "API keys to become service accounts",
                "PMM 3 is published",
                "no API key is left, or the rest is named",
                "none",
                Limit::Quick,
            ),
            Self::Settle => info(
                "settle",
                "the clients' fresh samples",
                "PMM is published",
                "services of the baseline report again, or the rest is named",
                "none",
                Limit::Settle,
            ),
        }
    }
}

/// A step in its phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepId {
    /// The phase.
    pub phase: Phase,
    /// The step.
    pub step: Step,
}

impl StepId {
    /// Name in events and in the journal.
    pub fn name(self) -> String {
        format!("{}{}", self.phase.prefix(), self.step.info().name)
    }
}

/// All steps of a hop in order. With `rehome` the container is first re-created on an image of the release that runs.
pub fn steps(order: &ServerOrder, rehome: bool) -> Vec<StepId> {
    let main = |step| StepId {
        phase: Phase::Main,
        step,
    };
    let mut out = vec![main(Step::Inspect), main(Step::Baseline), main(Step::Preflight)];
    if rehome {
        out.extend(move_steps(false, false).into_iter().map(|step| StepId {
            phase: Phase::Rehome,
            step,
        }));
        out.push(StepId {
            phase: Phase::Rehome,
            step: Step::Settle,
        });
    }
    let api = order.pmm2_update == Pmm2Update::Api && order.to.major == 2;
    let crosses = order.from.major == 2 && order.to.major >= 3;
    out.extend(move_steps(api, crosses).into_iter().map(main));
    if order.last_of_leg && order.to.major >= 3 {
        out.push(main(Step::ServiceAccounts));
    }
    out.push(main(Step::Settle));
    out
}

fn move_steps(api: bool, crosses: bool) -> Vec<Step> {
    let mut out = vec![
        Step::RestorePoint,
        Step::Pull,
        Step::Disarm,
        Step::StopServices,
        Step::RestorePointFinal,
    ];
    if api {
        out.extend([Step::StartServices, Step::ApiUpdate, Step::StopAgain]);
    }
    if crosses {
        out.push(Step::Ownership);
    }
    out.extend([
        Step::Retire,
        Step::Create,
        Step::DarkStart,
        Step::Migration,
        Step::Compare,
        Step::Publish,
    ]);
    out
}

/// A step of the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Undo {
    /// Keep the new container's last words, stop and remove it.
    New,
    /// Bring the data back from the restore point.
    Volume,
    /// Bring the old container back with its name, networks and restart policy, and start it.
    Container,
    /// PMM answers with the old release and the baseline's data.
    Verify,
}

impl Undo {
    /// Name in events and in the journal.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "undo_new",
            Self::Volume => "undo_volume",
            Self::Container => "undo_container",
            Self::Verify => "undo_verify",
        }
    }

    /// What it waits for, for people.
    pub fn waits_for(self) -> &'static str {
        match self {
            Self::New => "the new container to be stopped and removed",
            Self::Volume => "the data to be brought back from the restore point",
            Self::Container => "the old container to run again",
            Self::Verify => "the old release to answer with its data",
        }
    }

    /// How long it may take.
    pub fn limit(self) -> Limit {
        match self {
            Self::New => Limit::Stop,
            Self::Volume => Limit::Volume,
            Self::Container => Limit::Stop,
            Self::Verify => Limit::Migration,
        }
    }
}

/// The way back from a failure, given which steps of the failing phase were begun.
pub fn undo_steps(begun: impl Fn(Step) -> bool) -> Vec<Undo> {
    let mut out = Vec::new();
    if begun(Step::Create) {
        out.push(Undo::New);
    }
    if begun(Step::Ownership) || begun(Step::DarkStart) || begun(Step::ApiUpdate) {
        out.push(Undo::Volume);
    }
    if begun(Step::Disarm) {
        out.extend([Undo::Container, Undo::Verify]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_common::ids::{LegId, OrderId};
    use fleet_common::version::PmmVersion;

    fn order(from: PmmVersion, to: PmmVersion, api: bool, last: bool) -> ServerOrder {
        ServerOrder {
            order: OrderId::new("o"),
            leg: LegId::new("server-1"),
            attempt: 1,
            hop: 1,
            from,
            to,
            pmm2_update: if api { Pmm2Update::Api } else { Pmm2Update::Image },
            last_of_leg: last,
            accept_unsettled: false,
        }
    }

    const V41: PmmVersion = PmmVersion::new(2, 41, 2);
    const V44: PmmVersion = PmmVersion::new(2, 44, 1);
    const V37: PmmVersion = PmmVersion::new(3, 7, 1);
    const V39: PmmVersion = PmmVersion::new(3, 9, 1);

    #[test]
    fn owners_change_on_the_way_from_2_to_3_only() {
        let has = |order: &ServerOrder, step| steps(order, false).iter().any(|id| id.step == step);
        assert!(!has(&order(V41, V44, false, false), Step::Ownership));
        assert!(has(&order(V44, V37, false, false), Step::Ownership));
        assert!(!has(&order(V37, V39, false, true), Step::Ownership));
        assert!(has(&order(V37, V39, false, true), Step::ServiceAccounts));
        assert!(has(&order(V41, V44, true, false), Step::ApiUpdate));
        assert!(!has(&order(V44, V37, true, false), Step::ApiUpdate));
    }

    #[test]
    fn names_are_unique_even_with_a_rehome() {
        let mut names: Vec<String> = steps(&order(V44, V37, false, true), true)
            .iter()
            .map(|id| id.name())
            .collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn nothing_that_was_not_begun_is_undone() {
        let until = |last: Step| move |step: Step| step <= last;
        assert_eq!(undo_steps(until(Step::Pull)), []);
        assert_eq!(undo_steps(until(Step::Disarm)), [Undo::Container, Undo::Verify]);
        assert_eq!(
            undo_steps(|step| step <= Step::StopServices),
            [Undo::Container, Undo::Verify]
        );
        assert_eq!(
            undo_steps(until(Step::Migration)),
            [Undo::New, Undo::Volume, Undo::Container, Undo::Verify]
        );
    }
}
