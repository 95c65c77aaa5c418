//! Deliberate faults, one for each rule, to show that the rule is really looked at. Only with the feature `mutants`, which nothing but the
//! fleet simulator's tests turns on; without it the questions are constants and compile to nothing.

use super::Kernel;
use super::rows::Key;
use super::state::HostPhase;

/// A fault that breaks one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Hosts that are ready name no reason.
    NoReason,
    /// A switch that stays silent is waited for without an end.
    DeafToDeadlines,
    /// A permit takes no slot.
    GrantWithoutSlot,
    /// A lost host gives its slot back.
    LostFreesSlot,
    /// The width is not looked at.
    TooWide,
    /// A host takes its slot before its permit.
    SlotBeforePermit,
    /// Slots that are all held by failures stop nobody.
    ExhaustedGoesOn,
    /// A failure whose slot is freed does not count.
    FailuresForgotten,
    /// One failure more than tolerated is tolerated.
    ThresholdOffByOne,
    /// The last failure that is tolerated is one too many.
    ThresholdTooStrict,
    /// A client that PMM lists is verified without a sample.
    VerifiedUnseen,
    /// Who is away before its permit is lost.
    LostBeforePermit,
    /// A group does not wait for those before it.
    OutOfTurn,
    /// A pause stops no permits.
    PauseGrants,
    /// A pause takes the deadlines of what is under way.
    PauseTouchesWork,
    /// Events of older epochs are dropped.
    OldEventsDropped,
    /// An abort leaves permits as they are: each repetition gives the whole time again, under the newest epoch.
    AbortKeepsPermits,
    /// An order carries no plan entry.
    NoPlanEntry,
    /// Who addresses the container is moved to the new port before that serves.
    FollowsTooEarly,
    /// The point of no return is not marked.
    NoPointOfNoReturn,
    /// The report leaves a host out.
    ReportForgets,
    /// Rows of hosts are not stored when they become ready.
    RowNotStored,
    /// Windows are always open.
    WindowIgnored,
    /// Members of one set go together.
    SetsTogether,
    /// Sites are not counted.
    SitesIgnored,
    /// The ramp is not looked at.
    RampIgnored,
    /// Failures over all groups are not counted.
    RolloutThresholdIgnored,
    /// Trying again by itself never ends.
    RetriesWithoutEnd,
    /// When the fleet was asked for is not stored.
    FleetLookForgotten,
    /// Hosts are asked for whether they verify or not.
    LooksAtEverybody,
    /// A person may raise what a person reduced.
    LimitRaises,
    /// A child plan gives more time to what is under way.
    AdoptTouchesWork,
    /// Who is taken back takes no slot.
    BackWithoutSlot,
    /// A resume lets those begin again that were taken back.
    TakenBackBegins,
    /// Who is lost is wanted back no more.
    BackForgotten,
    /// Any host may be accepted, whatever it does.
    AcceptsAnybody,
    /// What an honest host says is counted as nonsense.
    HonestyIllegal,
    /// An approval is not written down.
    ApprovalForgotten,
    /// The others of a group do not wait for its canaries.
    CanariesForgotten,
    /// Nor for the end of the wait after them.
    CanarySoakForgotten,
    /// Whoever has not connected yet counts as away right after a start of the coordinator.
    AbsenceAtOnce,
    /// A group that was done stays so when a host of it is tried again.
    RetriesBehind,
    /// Hosts begin although the baseline does not have them.
    PermitWithoutBaseline,
    /// A lost host whose slot was freed goes on without one when it returns.
    ReturnsWithoutSlot,
    /// The same sample counts at each look.
    OldSamplesCount,
    /// Whoever an earlier leg left without a client is not down in the next.
    EarlierSlotsForgotten,
    /// A hop begins while hosts that came back late are under way.
    HopPastLateHosts,
    /// Blackouts shut no window.
    BlackoutsIgnored,
    /// A sample from before the switch is as good as a fresh one.
    StaleSamplesProve,
    /// What came after the last look from before is fresh, although the switch had not ended.
    SamplesOfTheSwitchProve,
    /// A permit that is sent again gives its whole time again.
    ResentPermitsWhole,
    /// Deadlines go on as if there had been a coordinator all the time.
    StartGivesNoTime,
    /// `host free-slot` takes the slot of a host under way.
    FreesSlotUnderWay,
    /// Whoever is held is asked and let through all the same.
    HoldIgnored,
    /// An abort does not raise the epoch.
    AbortKeepsEpoch,
    /// Who refuses at its turn does not count as failed.
    RefusalsForgotten,
    /// Silence before a permit counts as a failure.
    SilenceCounts,
    /// `resume` after too many failures accepts the whole group, also who did not fail.
    ForgivesAll,
    /// `resume` accepts failures that the pause does not tell of.
    ForgivesAtAnyPause,
}

impl Kernel {
    /// From now on this kernel breaks a rule.
    #[cfg(feature = "mutants")]
    pub fn break_rule(&mut self, mutant: Mutant) {
        self.mutant = Some(mutant);
    }

    /// Does nothing but in [`Mutant::TakenBackBegins`].
    pub(super) fn let_the_taken_back_begin(&mut self) {
        if !self.breaks(Mutant::TakenBackBegins) {
            return;
        }
        for (leg, rows) in self.hosts.iter_mut() {
            let back = rows
                .iter_mut()
                .filter(|(_, row)| row.phase == HostPhase::RolledBack && row.taken_back);
            for (host, row) in back {
                row.phase = HostPhase::Waiting;
                self.dirty.insert(Key::Host(leg.clone(), host.clone()));
            }
        }
    }

    /// Whether it breaks this one.
    #[cfg(feature = "mutants")]
    pub(crate) fn breaks(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// It never does.
    #[cfg(not(feature = "mutants"))]
    #[inline(always)]
    pub(crate) fn breaks(&self, _: Mutant) -> bool {
        false
    }
}
