//! The store as a disk: what a start would read from it, copies of it, and an older one in its place.

use super::coordinator::{stored_rows, tear};
use super::world::{Break, World};
use fleet_common::ids::Epoch;
use fleet_store::Core;
use rollout::kernel::Kernel;

impl World {
    /// A backup is taken, or the newest one takes the place of the store.
    pub fn backup_or_restore(&mut self) -> Result<bool, String> {
        match self.backup.take() {
            None => self.backup = Some(self.copy()?),
            Some(backup) => {
                self.kill_idle();
                // The next one reads something older.
                if let Some(dead) = self.dead.take() {
                    let read = self.read_back(&dead)?;
                    self.watcher.compare(&dead, &read);
                }
                self.core = backup;
                self.highest = Epoch::default();
                self.closed.clear();
                for agent in &mut self.agents {
                    agent.tainted = true;
                }
                self.hops.clear();
                self.doubted = true;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A copy of the store, from which a coordinator could start as well.
    fn copy(&self) -> Result<Core, String> {
        let text = |error: fleet_store::StoreError| error.to_string();
        let copy = self.core.copy().map_err(text)?;
        if let Some(coordinator) = &self.coordinator {
            let id = coordinator.kernel.rollout_id();
            if matches!(self.breaks, Some(Break::TornCopy)) {
                tear(&copy, id).map_err(text)?;
            }
            let rows = |core| stored_rows(core, id).map_err(text);
            if rows(&copy)? != rows(&self.core)? {
                return Err("the copy differs".to_owned());
            }
        }
        Ok(copy)
    }

    /// What a start would read from the store.
    pub(super) fn read_back(&self, kernel: &Kernel) -> Result<Kernel, String> {
        let rows = stored_rows(&self.core, kernel.rollout_id()).map_err(|error| error.to_string())?;
        let plan = self
            .core
            .plan(kernel.plan_id())
            .map_err(|error| error.to_string())?;
        let bytes = plan.ok_or("the plan is gone")?.document;
        Kernel::restore(&bytes, &rows).map_err(|error| error.to_string())
    }
}
