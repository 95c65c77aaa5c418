//! Two reports of the same fleet, member by member. What may differ is named here and nowhere else.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The members that may differ between two runs: times, durations, and what a run went through. They must be there in both, of the same type.
const MAY_DIFFER: [&str; 8] = [
    "/taken_at_ms",
    "/started_at_ms",
    "/ended_at_ms",
    "/server/downtime_s",
    "/hosts/*/took_s",
    "/hosts/*/legs/*/took_s",
    "/hosts/*/legs/*/client_gap_ms",
    "/disturbances",
];

/// Shorter texts are words; to replace them everywhere would hide differences.
const SHORTEST_ID: usize = 8;

/// Every difference as `path: value of the first / value of the second`. Ids that each run draws for itself (of the rollout, of the plan, of
/// hosts, the digest in the name of a restore point) are replaced by what they stand for before, wherever they appear; they are not ignored.
pub fn differences(first: &Value, second: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(
        &Place::default(),
        Some(&renamed(first)),
        Some(&renamed(second)),
        &mut found,
    );
    found
}

/// Where a value is: as people read it, and as [`MAY_DIFFER`] names it.
#[derive(Default)]
struct Place {
    shown: String,
    pattern: String,
}

impl Place {
    fn member(&self, key: &str) -> Self {
        Self {
            shown: format!("{}/{key}", self.shown),
            pattern: format!("{}/{key}", self.pattern),
        }
    }

    fn item(&self, index: usize, item: Option<&Value>) -> Self {
        let name = item.and_then(|item| item["name"].as_str().or(item["leg"].as_str()));
        let name = name.map_or_else(String::new, |name| format!(" ({name})"));
        Self {
            shown: format!("{}/{index}{name}", self.shown),
            pattern: format!("{}/*", self.pattern),
        }
    }
}

fn walk(place: &Place, first: Option<&Value>, second: Option<&Value>, found: &mut Vec<String>) {
    match (first, second) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                walk(&place.member(key), a.get(key), b.get(key), found);
            }
        }
        (Some(a), Some(b)) if may_differ(place) && kind(a) == kind(b) => {}
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                let (a, b) = (a.get(index), b.get(index));
                walk(&place.item(index, a.or(b)), a, b, found);
            }
        }
        (a, b) if a == b => {}
        (a, b) => found.push(format!("{}: {} / {}", place.shown, shown(a), shown(b))),
    }
}

fn may_differ(place: &Place) -> bool {
    MAY_DIFFER.contains(&place.pattern.as_str())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "truth",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "(absent)".to_owned(), Value::to_string)
}

/// The report with the run's own ids replaced by what they stand for.
fn renamed(report: &Value) -> Value {
    let names = own_ids(report);
    let mut report = report.clone();
    replace(&mut report, &names);
    report
}

/// Ids that a run drew for itself, and what each stands for.
fn own_ids(report: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut ids = BTreeMap::new();
    ids.insert(text(&report["rollout"]), "<rollout>".to_owned());
    ids.insert(text(&report["plan"]), "<plan>".to_owned());
    for host in rows(&report["hosts"]) {
        ids.insert(text(&host["host"]), format!("<id of {}>", text(&host["name"])));
    }
    for (index, point) in rows(&report["server"]["restore_points"]).iter().enumerate() {
        let name = text(point);
        // The name ends with a digest over the order, and so over the rollout's id.
        let digest = name.rsplit('-').next().unwrap_or_default();
        if digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            ids.insert(digest.to_owned(), format!("<digest {index}>"));
        }
    }
    ids.retain(|id, _| id.len() >= SHORTEST_ID);
    ids
}

fn replace(value: &mut Value, ids: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => {
            for (id, name) in ids {
                if text.contains(id.as_str()) {
                    *text = text.replace(id.as_str(), name);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, ids)),
        Value::Object(members) => members.values_mut().for_each(|member| replace(member, ids)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(id: &str, at: u64) -> Value {
        json!({
            "outcome": "succeeded", "reason": "", "taken_at_ms": at, "started_at_ms": at, "ended_at_ms": at + 1,
            "rollout": format!("rollout-{id}"), "plan": format!("plan-{id}"),
            "server": {"to": "3.9.1", "downtime_s": at, "restore_points": [format!("pmm-restore-hop1-{id}")]},
            "hosts": [
                {"host": format!("host-a-{id}"), "name": "a", "outcome": "upgraded", "took_s": at,
                 "legs": [{"leg": "clients", "attempts": 1, "took_s": at, "client_gap_ms": at}]},
                {"host": format!("host-b-{id}"), "name": "b", "outcome": "upgraded", "took_s": at, "legs": []},
            ],
            "disturbances": [],
        })
    }

    fn changed(pointer: &str, value: Value) -> Vec<String> {
        let (first, mut second) = (report("00aa00aa00", 1), report("11bb11bb11", 2));
        let place = second.pointer_mut(pointer);
        *place.unwrap_or_else(|| panic!("no {pointer}")) = value;
        differences(&first, &second)
    }

    #[test]
    fn times_disturbances_and_own_ids_may_differ() {
        assert_eq!(
            differences(&report("00aa00aa00", 1), &report("11bb11bb11", 2)),
            Vec::<String>::new()
        );
        assert_eq!(
            changed("/disturbances", json!([{"target": "coordinator"}])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn every_named_member_is_ignored_and_only_its_value() {
        for path in MAY_DIFFER {
            let pointer = path.replace('*', "0");
            let found = changed(&pointer, json!("a text"));
            assert_eq!(found.len(), 1, "another type at {pointer}: {found:?}");
        }
    }

    #[test]
    fn differences_are_told_with_path_and_both_values() {
        assert_eq!(
            changed("/hosts/0/legs/0/attempts", json!(2)),
            ["/hosts/0 (a)/legs/0 (clients)/attempts: 1 / 2"]
        );
        assert_eq!(changed("/reason", json!("late")), ["/reason: \"\" / \"late\""]);
    }

    #[test]
    fn unknown_and_missing_members_and_rows_are_differences() {
        let first = report("00aa00aa00", 1);
        let mut second = first.clone();
        second["hosts"][1]["waited_s"] = json!(3);
        assert_eq!(
            differences(&first, &second),
            ["/hosts/1 (b)/waited_s: (absent) / 3"]
        );
        let mut second = first.clone();
        second
            .as_object_mut()
            .map(|members| members.remove("taken_at_ms"));
        assert_eq!(differences(&first, &second), ["/taken_at_ms: 1 / (absent)"]);
        let mut second = first.clone();
        second["hosts"].as_array_mut().map(Vec::pop);
        assert_eq!(differences(&first, &second).len(), 1);
    }

    #[test]
    fn an_id_in_the_wrong_place_is_a_difference() {
        assert_eq!(changed("/hosts/1/host", json!("host-a-11bb11bb11")).len(), 1);
        assert_eq!(
            changed("/server/restore_points/0", json!("pmm-restore-hop2-11bb11bb11")),
            ["/server/restore_points/0: \"pmm-restore-hop1-<digest 0>\" / \"pmm-restore-hop2-<digest 0>\""]
        );
    }
}
