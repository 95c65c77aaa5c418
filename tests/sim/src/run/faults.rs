//! What can go wrong, by name, so that a failing life can be tried again without each of it.

use std::fmt;
use std::str::FromStr;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $word:literal),* $(,)?) => {
        /// One kind of trouble.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($(#[$doc])* $name),* }

        impl Fault {
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }
    };
}

faults! {
    /// The coordinator dies after it decided and before that was stored.
    CrashBeforeCommit = "crash-before-commit",
    /// It dies when the decision is stored and nothing has left.
    CrashAfterCommit = "crash-after-commit",
    /// It dies when some of the messages have left.
    CrashWhileActing = "crash-while-acting",
    /// The wall clock of the coordinator jumps ahead.
    ClockForward = "clock-forward",
    ClockBack = "clock-back",
    /// One connection breaks.
    Disconnect = "disconnect",
    /// Many hosts can't reach the coordinator for a while.
    Partition = "partition",
    /// Both ends believe in a connection on which everything vanishes.
    HalfOpen = "half-open",
    Duplicate = "duplicate",
    Reorder = "reorder",
    Delay = "delay",
    LostAck = "lost-ack",
    /// An event that nobody can read.
    Garbage = "garbage",
    SlowHost = "slow-host",
    SilentHost = "silent-host",
    LyingHost = "lying-host",
    FailingHost = "failing-host",
    /// After its switch it comes and goes in PMM's view.
    FlakyHost = "flaky-host",
    /// A host that is enrolled after the rollout began; a child plan brings it in.
    LateHost = "late-host",
    AgentCrash = "agent-crash",
    Reboot = "reboot",
    /// A host that is away from the start, some of them for ever.
    AwayHost = "away-host",
    HoldOnHost = "hold-on-host",
    BackupRuns = "backup-runs",
    /// Two live copies of one machine.
    Clone = "clone",
    /// An older copy takes the place of the coordinator's store.
    StoreRestored = "store-restored",
    ViewLost = "view-lost",
    ViewLate = "view-late",
    /// The PMM Server can't be asked for minutes.
    PmmUnseen = "pmm-unseen",
    HopRestored = "hop-restored",
    HopRefused = "hop-refused",
    HopStuck = "hop-stuck",
    HopSilent = "hop-silent",
    NobodyBack = "nobody-back",
    /// A person ends it while hosts that it concerns can't hear that.
    EndUnheard = "end-unheard",
    /// An operator presses every button.
    Operator = "operator",
}

/// A set of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSet(u64);

impl FaultSet {
    pub const NONE: Self = Self(0);

    pub fn all() -> Self {
        Fault::ALL.iter().fold(Self::NONE, |set, fault| set.with(*fault))
    }
    pub fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u64) != 0
    }
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault as u64)
    }
    #[must_use]
    pub fn without(self, fault: Fault) -> Self {
        Self(self.0 & !(1 << fault as u64))
    }
    /// What is in both.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().copied().filter(move |fault| self.has(*fault))
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::all() {
            return f.write_str("all");
        }
        if *self == Self::NONE {
            return f.write_str("none");
        }
        let words: Vec<&str> = self.iter().map(Fault::word).collect();
        f.write_str(&words.join(","))
    }
}

impl FromStr for FaultSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => return Ok(Self::all()),
            "none" => return Ok(Self::NONE),
            _ => {}
        }
        text.split(',').try_fold(Self::NONE, |set, word| {
            let found = Fault::ALL.iter().find(|fault| fault.word() == word);
            found.map(|fault| set.with(*fault)).ok_or_else(|| {
                let known: Vec<&str> = Fault::ALL.iter().map(|fault| fault.word()).collect();
                format!("no fault is called `{word}`; there are: {}", known.join(", "))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sets_are_read_as_they_are_written() {
        let some = FaultSet::NONE.with(Fault::Clone).with(Fault::Reorder);
        for set in [FaultSet::all(), FaultSet::NONE, some] {
            assert_eq!(set.to_string().parse::<FaultSet>().unwrap(), set);
        }
        assert!("clone,nothing".parse::<FaultSet>().is_err());
    }
}
