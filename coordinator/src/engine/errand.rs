//! Orders to single hosts outside of a rollout, for surveys and for what an operator asks of one host. An errand is out until its result comes;
//! it is sent again when its host connects anew (the agent carries an order id out once), and is given up when its time is over.

use crate::store::IncomingEvent;
use fleet_common::ids::{Epoch, HostId};
use fleet_common::order::{Action, HostEvent, OrderResult};
use fleet_proto as wire;
use std::collections::BTreeMap;

/// One order that is out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// The host.
    pub host: HostId,
    /// Unique over restarts, so that an old answer is never taken for a new one.
    pub order_id: String,
    /// What it belongs to; a survey's id, or the order's own.
    pub plan_id: String,
    /// What to do.
    pub action: Action,
    /// Plan entry, JSON; empty where the action needs none.
    pub entry: Vec<u8>,
    /// For `self_update` the release, JSON.
    pub release: Vec<u8>,
    /// Time for the order.
    pub deadline_for_ms: u64,
    /// Time for the first change.
    pub start_within_ms: u64,
    /// Given up at this time, Unix milliseconds.
    pub until_ms: u64,
}

impl Errand {
    fn on_the_wire(&self, epoch: Epoch, now_ms: u64) -> wire::Order {
        // What is sent again must not end later than what was sent first.
        let left_ms = self.until_ms.saturating_sub(now_ms);
        wire::Order {
            order_id: self.order_id.clone(),
            epoch: Some(epoch.into()),
            plan_id: self.plan_id.clone(),
            plan_entry: self.entry.clone(),
            signature: Vec::new(),
            action: wire::Action::from(self.action).into(),
            deadline_for_ms: self.deadline_for_ms.min(left_ms),
            start_within_ms: self.start_within_ms.min(left_ms),
            release: self.release.clone(),
        }
    }
}

/// Everything that is out.
#[derive(Default)]
pub struct Errands {
    out: BTreeMap<String, Errand>,
}

impl Errands {
    /// Notes an errand; it may leave now.
    pub fn give(&mut self, errand: Errand) {
        self.out.insert(errand.order_id.clone(), errand);
    }

    /// The orders that a host should be working on.
    pub fn orders(&self, host: &HostId, epoch: Epoch, now_ms: u64) -> Vec<wire::Order> {
        self.out
            .values()
            .filter(|errand| errand.host == *host)
            .map(|errand| errand.on_the_wire(epoch, now_ms))
            .collect()
    }

    /// Takes the result of an errand. One that was taken before, given up, or is of another host is nobody's.
    pub fn take(&mut self, event: &IncomingEvent) -> Option<(Errand, OrderResult)> {
        let (Some(order), Ok(HostEvent::Finished(result))) = (&event.order, &event.event) else {
            return None;
        };
        let own = self
            .out
            .get(order.as_str())
            .is_some_and(|errand| errand.host == event.host);
        let errand = own.then(|| self.out.remove(order.as_str())).flatten()?;
        Some((errand, result.clone()))
    }

    /// Gives up what is past its time.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Errand> {
        let over: Vec<String> = self
            .out
            .values()
            .filter(|errand| now_ms >= errand.until_ms)
            .map(|errand| errand.order_id.clone())
            .collect();
        over.iter().filter_map(|id| self.out.remove(id)).collect()
    }

    /// Whose errand it is.
    pub fn host_of(&self, order_id: &str) -> Option<HostId> {
        self.out.get(order_id).map(|errand| errand.host.clone())
    }

    /// Gives up everything of a survey, or one order.
    pub fn drop_plan(&mut self, plan_id: &str) {
        self.out.retain(|_, errand| errand.plan_id != plan_id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use fleet_common::codes::Code;
    use fleet_common::ids::{OrderId, OutboxId};
    use fleet_common::order::Outcome;

    fn errand(id: &str, until_ms: u64) -> Errand {
        Errand {
            host: HostId::new("h"),
            order_id: id.into(),
            plan_id: id.into(),
            action: Action::RestartClient,
            entry: b"{}".to_vec(),
            release: Vec::new(),
            deadline_for_ms: 500,
            start_within_ms: 30,
            until_ms,
        }
    }

    fn finished(host: &str, order: &str) -> IncomingEvent {
        let result = OrderResult {
            outcome: Outcome::Done,
            step: String::new(),
            code: Code::new(""),
            message: String::new(),
            took_ms: 1,
            detail: serde_json::Value::Null,
        };
        IncomingEvent {
            host: HostId::new(host),
            outbox: OutboxId::new("o"),
            sequence: 1,
            first: true,
            order: Some(OrderId::new(order)),
            epoch: Epoch::default(),
            at_ms: 0,
            body: Vec::new(),
            event: Ok(HostEvent::Finished(result)),
        }
    }

    #[test]
    fn an_errand_is_out_until_its_own_host_answered_once() {
        let mut errands = Errands::default();
        errands.give(errand("a", 1_000));
        assert!(errands.take(&finished("other", "a")).is_none());
        assert!(errands.take(&finished("h", "b")).is_none());
        assert!(errands.take(&finished("h", "a")).is_some());
        assert!(errands.take(&finished("h", "a")).is_none());
        assert!(errands.orders(&HostId::new("h"), Epoch::default(), 0).is_empty());
    }

    #[test]
    fn what_is_sent_again_has_only_the_time_that_is_left() {
        let mut errands = Errands::default();
        errands.give(errand("a", 1_000));
        let orders = |errands: &Errands, now| errands.orders(&HostId::new("h"), Epoch::default(), now);
        assert_eq!(orders(&errands, 0)[0].deadline_for_ms, 500);
        let late = &orders(&errands, 980)[0];
        assert_eq!((late.deadline_for_ms, late.start_within_ms), (20, 20));
        assert!(errands.expire(999).is_empty());
        assert_eq!(errands.expire(1_000).len(), 1);
        assert!(orders(&errands, 1_000).is_empty());
    }
}
