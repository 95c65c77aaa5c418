//! What the survey left open: hosts that failed it, and hosts that could not be asked.

use super::Kernel;
use super::hosts::PATIENCE;
use super::rows::Key;
use super::state::{HostPhase, LegPhase};
use fleet_common::codes;
use fleet_common::ids::{HostId, LegId};

impl Kernel {
    /// Hosts that did not answer the survey, while a server leg is still to come: nobody knows whether their clients can follow the server,
    /// so a person says whether it goes on. Held hosts are none: somebody decided that.
    pub(super) fn unsurveyed(&self) -> Vec<HostId> {
        let Some(survey) = self.legs.first() else {
            return Vec::new();
        };
        let mut server = self.legs.iter().filter(|leg| !leg.hops.is_empty());
        if !server.any(|leg| leg.phase == LegPhase::Waiting) {
            return Vec::new();
        }
        let rows = self.hosts[&survey.leg].iter();
        rows.filter(|(_, row)| row.phase == HostPhase::Skipped && row.code == codes::DEADLINE)
            .filter(|(host, _)| !self.rollout.accepted_unsurveyed.contains(*host))
            .map(|(host, _)| host.clone())
            .collect()
    }

    pub(super) fn pause_after_survey(
        &mut self,
        leg: &LegId,
        failed: &[HostId],
        unsurveyed: &[HostId],
        now_ms: u64,
    ) {
        let many = |hosts: &[HostId]| match hosts.len() {
            1 => "1 host".to_owned(),
            number => format!("{number} hosts"),
        };
        let (mut texts, mut hints) = (Vec::new(), Vec::new());
        if let Some(first) = failed.first() {
            let reason = self.host(leg, first).map_or("", |row| row.reason.as_str());
            let name = self.name(first);
            texts.push(format!(
                "{} failed the survey, first {name}: {reason}",
                many(failed)
            ));
            hints.push("repair and `retry`, or `resume` to go on without them");
        }
        if !unsurveyed.is_empty() {
            let were = if unsurveyed.len() == 1 { "was" } else { "were" };
            let who = format!(
                "{} {were} not surveyed: {}",
                many(unsurveyed),
                self.some_of(unsurveyed)
            );
            texts.push(format!(
                "{who}; the server would be upgraded without knowing whether they can follow"
            ));
            hints.push(
                "bring back those that were not surveyed, then `resume`: it asks those that are there, and takes the others as they are; \
                 these are asked at their turn",
            );
        }
        self.pause(
            "survey",
            &texts.join("; "),
            &hints.join("; "),
            "coordinator",
            now_ms,
        );
    }

    /// `resume` after that: whoever is there by now, or may only not be back yet after a start of the coordinator, is asked after all, once.
    pub(super) fn accept_unsurveyed(&mut self, now_ms: u64) {
        let Some(leg) = self.legs.first().map(|leg| leg.leg.clone()) else {
            return;
        };
        for host in self.unsurveyed() {
            let asked = self
                .host(&leg, &host)
                .is_none_or(|row| row.attempt > 1 || row.expired >= PATIENCE);
            if (self.can_be_asked(&host) && !asked) || !self.absence_is_known(now_ms) {
                self.ask_anew(&leg, &host, "it was away and is asked after all", now_ms);
                self.edit(&leg, &host, |row| row.expired = 0);
            } else {
                self.rollout.accepted_unsurveyed.insert(host);
                self.dirty.insert(Key::Rollout);
            }
        }
    }
}
