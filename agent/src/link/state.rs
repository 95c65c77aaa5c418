//! What outlives a session: session number, highest epoch, quarantine, reconnect limits.

use crate::config::Paths;
use crate::host::files;
use fleet_common::ids::Epoch;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Persisted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persisted {
    /// Given by the coordinator at the last connect.
    pub session_number: u64,
    /// Highest epoch seen.
    pub highest_epoch: Epoch,
    /// The coordinator said that two machines use this identity.
    pub quarantined: bool,
    /// Longest wait between reconnects.
    pub reconnect_cap_ms: u64,
    /// Spread of the first attempt after a clean close.
    pub reconnect_spread_ms: u64,
}

/// Live state of the link, shared with the executor.
#[derive(Debug)]
pub struct LinkState {
    path: PathBuf,
    inner: Mutex<(Persisted, Option<u64>)>,
}

impl LinkState {
    /// Reads what is there.
    pub fn open(paths: &Paths) -> Self {
        let persisted = files::read_json(&paths.link()).unwrap_or_default();
        Self {
            path: paths.link(),
            inner: Mutex::new((persisted, None)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Persisted, Option<u64>)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy.
    pub fn get(&self) -> Persisted {
        self.lock().0.clone()
    }

    /// Changes and stores it.
    pub fn update(&self, change: impl FnOnce(&mut Persisted)) -> std::io::Result<()> {
        let mut inner = self.lock();
        let mut next = inner.0.clone();
        change(&mut next);
        if next == inner.0 {
            return Ok(());
        }
        // What could not be stored does not count as known.
        files::write_json(&self.path, &next)?;
        inner.0 = next;
        Ok(())
    }

    /// Takes a higher epoch. Returns whether the given one is still valid.
    pub fn see_epoch(&self, epoch: Epoch) -> std::io::Result<bool> {
        self.update(|persisted| persisted.highest_epoch = persisted.highest_epoch.max(epoch))?;
        Ok(self.get().highest_epoch == epoch)
    }

    /// The session is up, or down.
    pub fn set_live(&self, session: Option<u64>) {
        self.lock().1 = session;
    }

    /// The session that is up.
    pub fn live(&self) -> Option<u64> {
        self.lock().1
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn older_epochs_are_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let epoch = |counter| Epoch { term: 1, counter };
        let state = LinkState::open(&paths);
        assert!(state.see_epoch(epoch(2)).unwrap());
        assert!(state.see_epoch(epoch(2)).unwrap());
        assert!(!LinkState::open(&paths).see_epoch(epoch(1)).unwrap());
    }
}
