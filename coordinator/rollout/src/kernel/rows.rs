//! Making the first rows, and reading and writing stored ones.

use super::adopt::{Adopted, Kept, lay_over};
use super::host_map::HostMap;
use super::leg_map::LegMap;
use super::looks::Sights;
use super::spread::Spread;
use super::state::{
    GroupPhase, GroupRow, Hold, HopRow, HostPhase, HostRow, LegPhase, LegRow, Limits, RolloutPhase,
    RolloutRow,
};
use super::{Kernel, KernelError, Output, Row};
use crate::plan::{HostAction, LegKind, Plan, PlanHost, plan_id};
use fleet_common::ids::{Epoch, GroupName, HostId, LegId, RolloutId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What changed since the last output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Rollout,
    Leg(LegId),
    Group(LegId, GroupName),
    Host(LegId, HostId),
    Hold(HostId),
    Baseline,
    Verification,
    Adopted,
    Kept(HostId),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rollout => f.write_str("rollout"),
            Self::Leg(leg) => write!(f, "leg/{leg}"),
            Self::Group(leg, group) => write!(f, "group/{leg}/{group}"),
            Self::Host(leg, host) => write!(f, "host/{leg}/{host}"),
            Self::Hold(host) => write!(f, "hold/{host}"),
            Self::Baseline => f.write_str("baseline"),
            Self::Verification => f.write_str("verification"),
            Self::Adopted => f.write_str("adopted"),
            Self::Kept(host) => write!(f, "kept/{host}"),
        }
    }
}

fn json<T: Serialize>(value: &T) -> String {
    // Rows have no map keys or numbers that JSON can't hold.
    serde_json::to_string(value).unwrap_or_default()
}

fn read<T: DeserializeOwned>(row: &Row) -> Result<T, KernelError> {
    serde_json::from_str(&row.json).map_err(|source| KernelError::Row {
        key: row.key.clone(),
        source,
    })
}

impl Kernel {
    pub(super) fn first(
        id: RolloutId,
        plan_bytes: &[u8],
        epoch: Epoch,
        now_ms: u64,
    ) -> Result<Self, KernelError> {
        let plan = Arc::new(Plan::parse(plan_bytes)?);
        let rollout = RolloutRow {
            id,
            phase: RolloutPhase::Planned,
            since_ms: now_ms,
            before_pause: None,
            pause: None,
            epoch,
            created_at_ms: now_ms,
            started_at_ms: None,
            ended_at_ms: None,
            abort: None,
            going_back: None,
            accepted_unmatched: BTreeSet::new(),
            disturbances: Vec::new(),
            accepted: BTreeSet::new(),
            accepted_unsurveyed: BTreeSet::new(),
            left_at_old_address: BTreeSet::new(),
            behind_told: BTreeSet::new(),
            behind_accepted: BTreeSet::new(),
            check_until_ms: None,
            check_since_ms: None,
            fleet_asked_ms: None,
            keeping_since_ms: None,
            restored: None,
            remind_at_ms: None,
            illegal: 0,
        };
        let mut kernel = Self::empty(plan, plan_bytes, rollout);
        kernel.fill(now_ms);
        for planned in &kernel.plan.hosts {
            let operator = planned
                .held
                .clone()
                .filter(|held| Some(held) != planned.held_on_host.as_ref());
            let hold = Hold {
                operator,
                host: planned.held_on_host.clone(),
            };
            if hold != Hold::default() {
                kernel.holds.insert(planned.host.clone(), hold);
            }
        }
        let mut keys = vec![Key::Rollout];
        keys.extend(kernel.legs.iter().map(|row| Key::Leg(row.leg.clone())));
        for (leg, rows) in kernel.groups.iter() {
            keys.extend(rows.keys().map(|group| Key::Group(leg.clone(), group.clone())));
        }
        for (leg, rows) in kernel.hosts.iter() {
            keys.extend(rows.keys().map(|host| Key::Host(leg.clone(), host.clone())));
        }
        keys.extend(kernel.holds.keys().map(|host| Key::Hold(host.clone())));
        kernel.dirty.extend(keys);
        Ok(kernel)
    }

    fn empty(plan: Arc<Plan>, plan_bytes: &[u8], rollout: RolloutRow) -> Self {
        let spread = Arc::new(Spread::of(&plan));
        Self {
            index: Arc::new(index(&plan)),
            unlisted: BTreeSet::new(),
            plan,
            spread,
            plan_id: plan_id(plan_bytes),
            adopted: None,
            kept: BTreeMap::new(),
            rollout,
            legs: Vec::new(),
            groups: LegMap::default(),
            hosts: LegMap::default(),
            holds: BTreeMap::new(),
            baseline: None,
            verification: None,
            last_view: None,
            sights: Sights::default(),
            links: HostMap::default(),
            absence_from_ms: 0,
            #[cfg(feature = "mutants")]
            mutant: None,
            dirty: BTreeSet::new(),
            out: Output::default(),
        }
    }

    /// The rows that follow from the plan alone.
    fn fill(&mut self, now_ms: u64) {
        let plan = Arc::clone(&self.plan);
        for leg in &plan.legs {
            let mut hops = Vec::new();
            let mut groups = BTreeMap::new();
            let mut hosts = HostMap::default();
            match &leg.kind {
                LegKind::Server {
                    hops: planned,
                    repoint,
                    ..
                } => {
                    hosts.extend(
                        repoint
                            .keys()
                            .map(|host| (host.clone(), fresh(HostPhase::Waiting, now_ms))),
                    );
                    hops.extend(planned.iter().map(|hop| HopRow {
                        number: hop.number,
                        from: hop.from,
                        to: hop.to,
                        attempt: 0,
                        order: None,
                        started_at_ms: None,
                        deadline_ms: None,
                        steps: Vec::new(),
                        result: None,
                        earlier: Vec::new(),
                        ended_at_ms: None,
                        published: None,
                        accept_unsettled: false,
                    }));
                }
                LegKind::Survey => {
                    let to_do = plan
                        .hosts
                        .iter()
                        .filter(|host| self.entry_leg(&host.host).is_some());
                    hosts.extend(to_do.map(|host| (host.host.clone(), fresh(HostPhase::Waiting, now_ms))));
                }
                LegKind::Clients { entries, .. } => {
                    hosts.extend(
                        plan.hosts
                            .iter()
                            .map(|host| (host.host.clone(), client_row(host, entries, now_ms))),
                    );
                    groups.extend(
                        plan.groups
                            .iter()
                            .map(|group| (group.name.clone(), fresh_group(now_ms))),
                    );
                }
            }
            self.legs.push(LegRow {
                leg: leg.id.clone(),
                phase: LegPhase::Waiting,
                since_ms: now_ms,
                hops,
                offline_until_ms: None,
                no_return_since_ms: None,
            });
            self.groups.insert(leg.id.clone(), groups);
            self.hosts.insert(leg.id.clone(), hosts);
        }
    }

    pub(super) fn from_rows(plan_bytes: &[u8], rows: &[Row]) -> Result<Self, KernelError> {
        let mut plan = Plan::parse(plan_bytes)?;
        let adopted: Option<Adopted> = rows
            .iter()
            .find(|row| row.key == "adopted")
            .map(read)
            .transpose()?;
        let mut kept = BTreeMap::new();
        for row in rows {
            if let Some(host) = row.key.strip_prefix("kept/")
                && let Some(part) = read::<Option<Kept>>(row)?
            {
                kept.insert(HostId::from(host), part);
            }
        }
        if let Some(adopted) = &adopted {
            let id = plan_id(plan_bytes);
            if adopted.plan != id {
                return Err(KernelError::OtherPlan {
                    rows: adopted.plan.clone(),
                    plan: id,
                });
            }
            plan = lay_over(plan, adopted, &kept);
        }
        let plan = Arc::new(plan);
        let rollout: RolloutRow = read(
            rows.iter()
                .find(|row| row.key == "rollout")
                .ok_or(KernelError::NoRollout)?,
        )?;
        let created = rollout.created_at_ms;
        let mut kernel = Self::empty(plan, plan_bytes, rollout);
        kernel.fill(created);
        if adopted.is_some() {
            // Every row was stored when it was made; the plan alone does not tell which hosts came after the survey.
            kernel.hosts.values_mut().for_each(HostMap::clear);
            kernel.groups.values_mut().for_each(BTreeMap::clear);
        }
        (kernel.adopted, kernel.kept) = (adopted, kept);
        for row in rows {
            let parts: Vec<&str> = row.key.splitn(3, '/').collect();
            match parts[..] {
                ["leg", leg] => {
                    let value: LegRow = read(row)?;
                    if let Some(place) = kernel.legs.iter_mut().find(|known| known.leg.as_str() == leg) {
                        *place = value;
                    }
                }
                ["group", leg, group] => {
                    if let Some(groups) = kernel.groups.get_mut(&LegId::from(leg)) {
                        groups.insert(GroupName::from(group), read(row)?);
                    }
                }
                ["host", leg, host] => {
                    if let Some(hosts) = kernel.hosts.get_mut(&LegId::from(leg)) {
                        hosts.insert(HostId::from(host), read(row)?);
                    }
                }
                ["baseline"] => kernel.baseline = read(row)?,
                ["verification"] => kernel.verification = read(row)?,
                _ => {}
            }
            if let Some(host) = row.key.strip_prefix("hold/") {
                kernel.holds.insert(HostId::from(host), read(row)?);
            }
        }
        kernel.find_unlisted();
        Ok(kernel)
    }

    fn forgets(&self, key: &Key) -> bool {
        let Key::Host(leg, host) = key else { return false };
        let ready = |row: &HostRow| row.phase == HostPhase::Ready;
        self.breaks(super::Mutant::RowNotStored) && self.host(leg, host).is_some_and(ready)
    }

    /// The changed rows.
    pub(super) fn changed_rows(&mut self) -> Vec<Row> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty
            .iter()
            .filter(|key| !self.forgets(key))
            .filter_map(|key| {
                let json = match key {
                    Key::Rollout => json(&self.rollout),
                    Key::Leg(leg) => json(self.legs.iter().find(|row| row.leg == *leg)?),
                    Key::Group(leg, group) => json(self.groups.get(leg)?.get(group)?),
                    Key::Host(leg, host) => json(self.hosts.get(leg)?.get(host)?),
                    Key::Hold(host) => json(self.holds.get(host)?),
                    Key::Baseline => json(&self.baseline),
                    Key::Verification => json(&self.verification),
                    Key::Adopted => json(self.adopted.as_ref()?),
                    // `null` where a later plan speaks for it again.
                    Key::Kept(host) => json(&self.kept.get(host)),
                };
                Some(Row {
                    key: key.to_string(),
                    json,
                })
            })
            .collect()
    }

    /// The first client leg with something to do for a host; its entry goes with the survey's orders.
    pub(crate) fn entry_leg(&self, host: &HostId) -> Option<&LegId> {
        self.plan.legs.iter().find_map(|leg| match &leg.kind {
            LegKind::Clients { entries, .. } if entries.contains_key(host) => Some(&leg.id),
            LegKind::Clients { .. } | LegKind::Survey | LegKind::Server { .. } => None,
        })
    }
}

pub(super) fn index(plan: &Plan) -> HostMap<usize> {
    let hosts = plan.hosts.iter().enumerate();
    hosts.map(|(at, host)| (host.host.clone(), at)).collect()
}

pub(super) fn fresh_group(now_ms: u64) -> GroupRow {
    GroupRow {
        phase: GroupPhase::Pending,
        since_ms: now_ms,
        soak_until_ms: None,
        approved_by: None,
        forgiven: BTreeSet::new(),
        remind_at_ms: None,
        first_permit_ms: None,
        canary_soak_until_ms: None,
        deadline_ms: None,
        offline_until_ms: None,
        limits: Limits::default(),
    }
}

pub(super) fn client_row(host: &PlanHost, entries: &BTreeMap<HostId, String>, now_ms: u64) -> HostRow {
    match &host.action {
        HostAction::Upgrade if entries.contains_key(&host.host) => fresh(HostPhase::Waiting, now_ms),
        HostAction::Upgrade => HostRow {
            reason: "it is past this leg's release already".to_owned(),
            ..fresh(HostPhase::AlreadyCurrent, now_ms)
        },
        HostAction::AlreadyCurrent => fresh(HostPhase::AlreadyCurrent, now_ms),
        HostAction::Refuse { code, reason, .. } => HostRow {
            code: code.clone(),
            reason: reason.clone(),
            ..fresh(HostPhase::Refused, now_ms)
        },
    }
}

pub(super) fn fresh(phase: HostPhase, now_ms: u64) -> HostRow {
    HostRow {
        phase,
        since_ms: now_ms,
        deadline_ms: None,
        attempt: 1,
        order: None,
        step: None,
        counts: false,
        slot: false,
        broken: false,
        preflighted: false,
        staged: false,
        code: String::new(),
        reason: String::new(),
        failed_step: String::new(),
        permitted_at_ms: None,
        switched_at_ms: None,
        ended_at_ms: None,
        running: None,
        client_gap_ms: 0,
        expired: 0,
        unused: 0,
        marks: BTreeMap::new(),
        views: 0,
        last_view_ms: 0,
        failed_before: None,
        lost_before_ms: None,
        lost_in: None,
        left_lost: false,
        ask_at_ms: None,
        backup_since_ms: None,
        backup_answers: 0,
        retried: BTreeMap::new(),
        side: None,
        left_behind: false,
        verified_at_ms: None,
        good_views: 0,
        last_good_ms: 0,
        inconclusive: false,
        back_wanted: None,
        taken_back: false,
        back_from: None,
    }
}
