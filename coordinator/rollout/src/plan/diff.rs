//! What is different between two plans.

use super::{HostAction, Plan, PlanGroup, PlanHost, compared};
use crate::fleet::{Limit, blackout_text, duration_text, window_text};
use crate::policy::{Blackout, Window};
use fleet_common::ids::HostId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that differs, in the order server, rollout, legs, groups, hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanDiff {
    /// None where both plans do the same.
    pub changes: Vec<Change>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What kind of thing changed.
    pub kind: ChangeKind,
    /// `server`, `rollout`, `leg:<id>`, `group:<name>` or `host:<name>`.
    pub subject: String,
    /// Which of its values, such as `max_unavailable`; empty for a whole thing.
    pub what: String,
    /// Before; `None` where it is new.
    pub from: Option<String>,
    /// After; `None` where it is gone.
    pub to: Option<String>,
}

/// What kind of thing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The server's releases or address.
    Server,
    /// Something that holds for the whole rollout.
    Rollout,
    /// A leg.
    Leg,
    /// A group came.
    GroupAdded,
    /// A group went.
    GroupRemoved,
    /// A number, window or rule of a group.
    Group,
    /// A host came.
    HostAdded,
    /// A host went.
    HostRemoved,
    /// A host is in another group.
    HostMoved,
    /// Something else is done with a host.
    HostAction,
}

/// What `new` does other than `old`. Times of making, warnings, waves and findings are no part of it: they follow from the rest or from the day.
pub fn diff(old: &Plan, new: &Plan) -> PlanDiff {
    let mut changes = Vec::new();
    fields(
        ChangeKind::Server,
        "server",
        &compared::of_server(&old.server),
        &compared::of_server(&new.server),
        &mut changes,
    );
    fields(
        ChangeKind::Rollout,
        "rollout",
        &compared::of_rollout(old),
        &compared::of_rollout(new),
        &mut changes,
    );
    legs(old, new, &mut changes);
    groups(old, new, &mut changes);
    hosts(old, new, &mut changes);
    PlanDiff { changes }
}

fn change(kind: ChangeKind, subject: String, what: &str, from: Option<String>, to: Option<String>) -> Change {
    Change {
        kind,
        subject,
        what: what.to_owned(),
        from,
        to,
    }
}

/// Values by key of a whole document.
pub(super) fn values<T: Serialize>(document: &T) -> BTreeMap<String, Value> {
    match serde_json::to_value(document) {
        Ok(Value::Object(map)) => map.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

fn fields(
    kind: ChangeKind,
    subject: &str,
    old: &BTreeMap<String, Value>,
    new: &BTreeMap<String, Value>,
    changes: &mut Vec<Change>,
) {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let (from, to) = (
            old.get(key).unwrap_or(&Value::Null),
            new.get(key).unwrap_or(&Value::Null),
        );
        if from != to {
            changes.push(change(
                kind,
                subject.to_owned(),
                key.trim_end_matches("_ms"),
                Some(shown(key, from)),
                Some(shown(key, to)),
            ));
        }
    }
}

/// A value as people write it.
fn shown(key: &str, value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if key.ends_with("_ms") => {
            number.as_u64().map_or_else(|| number.to_string(), duration_text)
        }
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(|item| shown_item(key, item)).collect();
            items.join("; ")
        }
        Value::Object(map) if map.is_empty() => "none".to_owned(),
        Value::Object(map) => {
            let items: Vec<String> = map
                .iter()
                .map(|(key, item)| format!("{} {}", key.trim_end_matches("_ms"), shown(key, item)))
                .collect();
            items.join(" ")
        }
        other => other.to_string(),
    }
}

/// One of a list. The moments of a blackout are points in time, though their keys end like those of durations.
fn shown_item(key: &str, item: &Value) -> String {
    if let Ok(window) = serde_json::from_value::<Window>(item.clone()) {
        return window_text(&window);
    }
    match serde_json::from_value::<Blackout>(item.clone()) {
        Ok(blackout) => blackout_text(&blackout, "UTC"),
        Err(_) => shown(key, item),
    }
}

fn legs(old: &Plan, new: &Plan, changes: &mut Vec<Change>) {
    let texts = |plan: &Plan| -> BTreeMap<String, String> {
        plan.legs
            .iter()
            .map(|leg| (leg.id.to_string(), compared::leg_text(leg)))
            .collect()
    };
    keyed(
        &texts(old),
        &texts(new),
        (ChangeKind::Leg, ChangeKind::Leg, ChangeKind::Leg),
        |id| format!("leg:{id}"),
        changes,
    );
    for leg in &old.legs {
        let other = new.legs.iter().find(|other| other.id == leg.id);
        let (from, to) = (
            compared::of_leg(leg),
            other.map(compared::of_leg).unwrap_or_default(),
        );
        // A leg that has no hosts says nothing about them.
        if !from.is_empty() && !to.is_empty() {
            fields(ChangeKind::Leg, &format!("leg:{}", leg.id), &from, &to, changes);
        }
    }
}

/// Things by name with one text each: come, gone, other.
fn keyed(
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    (added, removed, changed): (ChangeKind, ChangeKind, ChangeKind),
    subject: impl Fn(&str) -> String,
    changes: &mut Vec<Change>,
) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (from, to) = (old.get(name), new.get(name));
        let kind = match (from, to) {
            (from, to) if from == to => continue,
            (None, _) => added,
            (_, None) => removed,
            _ => changed,
        };
        changes.push(change(kind, subject(name), "", from.cloned(), to.cloned()));
    }
}

fn groups(old: &Plan, new: &Plan, changes: &mut Vec<Change>) {
    let by_name = |plan: &Plan| -> BTreeMap<String, PlanGroup> {
        plan.groups
            .iter()
            .map(|group| (group.name.to_string(), group.clone()))
            .collect()
    };
    let (before, after) = (by_name(old), by_name(new));
    let hosts = |group: &PlanGroup| format!("{} hosts", group.hosts.len());
    let texts = |groups: &BTreeMap<String, PlanGroup>, others: &BTreeMap<String, PlanGroup>| {
        groups
            .iter()
            .filter(|(name, _)| !others.contains_key(*name))
            .map(|(name, group)| (name.clone(), hosts(group)))
            .collect::<BTreeMap<_, _>>()
    };
    keyed(
        &texts(&before, &after),
        &texts(&after, &before),
        (
            ChangeKind::GroupAdded,
            ChangeKind::GroupRemoved,
            ChangeKind::Group,
        ),
        |name| format!("group:{name}"),
        changes,
    );
    for (name, group) in &before {
        let Some(other) = after.get(name) else { continue };
        let policy = |group: &PlanGroup| {
            let mut values = values(group);
            values.remove("name");
            values.remove("hosts");
            values.remove("rule");
            values
        };
        let (mut from, mut to) = (policy(group), policy(other));
        for number in ["max_unavailable", "failure_threshold"] {
            if from.get(number) != to.get(number) {
                for (values, group) in [(&mut from, group), (&mut to, other)] {
                    values.extend(share(group, number).map(|text| (number.to_owned(), text.into())));
                }
            }
        }
        fields(ChangeKind::Group, &format!("group:{name}"), &from, &to, changes);
        order_of_hosts((old, group), (new, other), changes);
    }
    let order = |plan: &Plan, others: &BTreeMap<String, PlanGroup>| -> Vec<String> {
        plan.groups
            .iter()
            .map(|group| group.name.to_string())
            .filter(|name| others.contains_key(name))
            .collect()
    };
    let (from, to) = (order(old, &after), order(new, &before));
    if from != to {
        changes.push(change(
            ChangeKind::Rollout,
            "rollout".to_owned(),
            "order of groups",
            Some(from.join(", ")),
            Some(to.join(", ")),
        ));
    }
}

/// A number that is a share of the group, with what it is a share of: it may change although nobody wrote another one.
fn share(group: &PlanGroup, number: &str) -> Option<String> {
    let rule = group.rule.as_ref()?;
    let (limit, value) = match number {
        "max_unavailable" => (rule.max_unavailable, group.max_unavailable),
        _ => (rule.failure_threshold, group.failure_threshold),
    };
    matches!(limit, Limit::Percent(_)).then(|| format!("{value} ({limit} of {})", rule.hosts))
}

/// The first hosts of a group are its canaries.
fn order_of_hosts(
    (before, old): (&Plan, &PlanGroup),
    (after, new): (&Plan, &PlanGroup),
    changes: &mut Vec<Change>,
) {
    let known: BTreeSet<&HostId> = old.hosts.iter().collect();
    let kept: BTreeSet<&HostId> = new.hosts.iter().filter(|host| known.contains(host)).collect();
    let earlier = |plan: &Plan, host: &HostId| {
        let name = plan.find_host(host.as_str()).map(|host| host.name.as_str());
        Some(format!("{} earlier", name.unwrap_or(host.as_str())))
    };
    let order = |group: &PlanGroup| -> Vec<HostId> {
        let both = group.hosts.iter().filter(|host| kept.contains(host));
        both.cloned().collect()
    };
    let (from, to) = (order(old), order(new));
    if let Some((first, instead)) = from.iter().zip(&to).find(|(first, instead)| first != instead) {
        changes.push(change(
            ChangeKind::Group,
            format!("group:{}", old.name),
            "order of hosts",
            earlier(before, first),
            earlier(after, instead),
        ));
    }
}

fn hosts(old: &Plan, new: &Plan, changes: &mut Vec<Change>) {
    let by_id = |plan: &Plan| -> BTreeMap<HostId, PlanHost> {
        plan.hosts
            .iter()
            .map(|host| (host.host.clone(), host.clone()))
            .collect()
    };
    let (before, after) = (by_id(old), by_id(new));
    let ids: BTreeSet<&HostId> = before.keys().chain(after.keys()).collect();
    for id in ids {
        match (before.get(id), after.get(id)) {
            (None, Some(host)) => changes.push(change(
                ChangeKind::HostAdded,
                format!("host:{}", host.name),
                "",
                None,
                Some(format!("{} in group {}", action(host), host.group)),
            )),
            (Some(host), None) => changes.push(change(
                ChangeKind::HostRemoved,
                format!("host:{}", host.name),
                "",
                Some(format!("{} in group {}", action(host), host.group)),
                None,
            )),
            (Some(from), Some(to)) => {
                let subject = || format!("host:{}", to.name);
                if from.group != to.group {
                    changes.push(change(
                        ChangeKind::HostMoved,
                        subject(),
                        "group",
                        Some(from.group.to_string()),
                        Some(to.group.to_string()),
                    ));
                }
                let (was, is) = (action(from), action(to));
                if was != is {
                    changes.push(change(
                        ChangeKind::HostAction,
                        subject(),
                        "action",
                        Some(was),
                        Some(is),
                    ));
                }
                let (was, is) = (compared::of_host(from), compared::of_host(to));
                fields(ChangeKind::HostAction, &subject(), &was, &is, changes);
                entries(old, new, to, changes);
            }
            (None, None) => {}
        }
    }
}

/// What the orders of both plans expect there; a leg that only one of them has is told as a leg.
fn entries(old: &Plan, new: &Plan, host: &PlanHost, changes: &mut Vec<Change>) {
    for leg in &old.legs {
        let text = |plan: &'_ Plan| plan.entry_text(&leg.id, &host.host).map(compared::of_entry);
        if let (Some(from), Some(to)) = (text(old), text(new)) {
            let subject = format!("host:{}", host.name);
            fields(ChangeKind::HostAction, &subject, &from, &to, changes);
        }
    }
}

fn action(host: &PlanHost) -> String {
    let release = |version: &Option<_>| -> String {
        version.as_ref().map_or_else(
            || "nothing".to_owned(),
            |version: &fleet_common::version::PmmVersion| version.to_string(),
        )
    };
    let what = match &host.action {
        HostAction::Upgrade => format!("upgrade {} to {}", release(&host.from), host.to),
        HostAction::AlreadyCurrent => format!("at {} already", host.to),
        HostAction::Refuse { code, .. } => format!("refused ({code})"),
    };
    match &host.held {
        Some(reason) => format!("{what}, held ({reason})"),
        None => what,
    }
}
