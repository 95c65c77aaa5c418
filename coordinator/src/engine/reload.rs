//! Reads memory back from the store.

use super::active::Active;
use super::dispatcher::Engine;
use crate::store::intake::Intake;
use fleet_common::hint::chain;
use fleet_common::ids::{HostId, OrderId};
use rollout::kernel::Input;

impl Engine {
    /// Reads memory back from the store: at the start, and after a commit that failed.
    pub(super) async fn reload(&mut self) {
        match self.deps.store.cursors().await {
            Ok(cursors) => self.intake = Intake::new(cursors),
            Err(error) => {
                self.trouble = chain(&error);
                tracing::error!(error = %self.trouble, "the store can't be read back; trying again");
                return;
            }
        }
        match self.deps.store.restored().await {
            Ok(restored) => self.restored = restored,
            Err(error) => {
                self.trouble = chain(&error);
                tracing::error!(error = %self.trouble, "the store can't be read back; trying again");
                return;
            }
        }
        if let Err(error) = self.read_holds().await {
            self.trouble = chain(&error);
            tracing::error!(error = %self.trouble, "the store can't be read back; trying again");
            return;
        }
        let loaded = match Active::load(&self.deps.store, self.deps.drivers.as_ref()).await {
            Ok(loaded) => loaded,
            Err(error) => {
                self.trouble = chain(&error);
                tracing::error!(error = %self.trouble, "the rollout can't be taken up; trying again");
                return;
            }
        };
        self.stale = false;
        let old = std::mem::replace(&mut self.active, loaded);
        if let (Some(old), Some(new)) = (old, &mut self.active) {
            // A hop that is under way goes on; its task reports to us all the same.
            new.server.inherit(old.server);
        }
        let Some(active) = &self.active else {
            return;
        };
        tracing::info!(rollout = %active.kernel.rollout_id(), term = self.deps.term, "taking up the rollout");
        let term = self.deps.term.max(active.kernel.epoch().term + 1);
        self.feed(Input::CoordinatorStarted { term });
        self.feed_restored();
        self.feed_holds();
        self.feed_connected();
    }

    /// Tells the kernel who is connected.
    pub(super) fn feed_connected(&mut self) {
        let connected: Vec<(HostId, Option<OrderId>)> = self
            .connected
            .iter()
            .map(|(host, link)| (host.clone(), link.running.clone()))
            .collect();
        for (host, running_order) in connected {
            self.feed(Input::Connected { host, running_order });
        }
    }
}
