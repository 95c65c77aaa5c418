//! Database backups that PMM runs itself: which are scheduled, which run now.
//!
//! Sources: facts server, section 9 (the lists of schedules), percona/pmm `api/backup/v1` for the rest. None of the paths was checked against a
//! running PMM; they stand in [`LISTS`] alone. An answer that is not understood is a warning, never "no backups".

use super::http::{Pmm, text};
use crate::error::DriverError;
use fleet_common::hint::chain;
use fleet_common::ids::without_pmm_prefix;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// One list of the API.
struct List {
    what: &'static str,
    /// PMM 2: called with POST and an empty body.
    v2: &'static str,
    /// PMM 3: called with GET.
    v3: &'static str,
    /// Member that holds the items.
    items: &'static str,
    /// Whether its items are schedules; the others are work with a status.
    schedules: bool,
}

const LISTS: &[List] = &[
    List {
        what: "scheduled backups",
        v2: "/v1/management/backup/Backups/ListScheduled",
        v3: "/v1/backups/scheduled",
        items: "scheduled_backups",
        schedules: true,
    },
    List {
        what: "backups",
        v2: "/v1/management/backup/Artifacts/List",
        v3: "/v1/backups/artifacts",
        items: "artifacts",
        schedules: false,
    },
    List {
        what: "restores",
        v2: "/v1/management/backup/RestoreHistory/List",
        v3: "/v1/backups/restores",
        items: "items",
        schedules: false,
    },
];

/// Statuses of work that is not over, without the prefixes `BACKUP_STATUS_` and `RESTORE_STATUS_` of PMM 3.
const OPEN: &[&str] = &["pending", "in_progress", "paused"];

/// What PMM says of its backups, services by id without prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backups {
    /// Services with a backup on a schedule that is not switched off.
    pub scheduled: BTreeSet<String>,
    /// Services with a backup or restore that runs or is about to.
    pub running: BTreeSet<String>,
    /// Lists that could not be read, with why.
    pub unknown: Vec<String>,
}

impl Pmm {
    /// Looks at all lists. A release that answers that it has no such call has none of these.
    pub async fn backups(&self, major: u32) -> Backups {
        let mut found = Backups::default();
        for list in LISTS {
            let answer = if major >= 3 {
                self.get(list.v3).await
            } else {
                self.post(list.v2, &json!({})).await
            };
            match answer {
                Ok(answer) => {
                    if let Err(reason) = found.take(list, &answer) {
                        found.unknown.push(format!("{}: {reason}", list.what));
                    }
                }
                // Backup management is switched off, or the release does not know the call.
                Err(DriverError::Status {
                    status: 404 | 501, ..
                }) => {}
                Err(error) => found.unknown.push(format!("{}: {}", list.what, chain(&error))),
            }
        }
        found
    }
}

impl Backups {
    fn take(&mut self, list: &List, answer: &Value) -> Result<(), &'static str> {
        // PMM 2 leaves out what is empty.
        let items = match &answer[list.items] {
            Value::Null if answer.is_object() => return Ok(()),
            Value::Array(items) => items,
            _ => return Err("the answer is not understood"),
        };
        for item in items {
            let service = text(item, "service_id");
            if service.is_empty() {
                return Err("an entry names no service");
            }
            let service = without_pmm_prefix(&service).to_owned();
            if list.schedules {
                if item["enabled"] != Value::Bool(false) {
                    self.scheduled.insert(service);
                }
            } else if is_open(&text(item, "status")) {
                self.running.insert(service);
            }
        }
        Ok(())
    }
}

fn is_open(status: &str) -> bool {
    let word = status.to_ascii_lowercase();
    let word = word
        .trim_start_matches("backup_status_")
        .trim_start_matches("restore_status_");
    OPEN.contains(&word)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_majors_words_are_understood_and_nonsense_is_not_nothing() {
        let mut found = Backups::default();
        found.take(&LISTS[0], &json!({"scheduled_backups": [{"service_id": "/service_id/a", "enabled": true}, {"service_id": "b", "enabled": false}]})).unwrap();
        found.take(&LISTS[1], &json!({"artifacts": [{"service_id": "a", "status": "IN_PROGRESS"}, {"service_id": "b", "status": "BACKUP_STATUS_SUCCESS"}]})).unwrap();
        found
            .take(
                &LISTS[2],
                &json!({"items": [{"service_id": "c", "status": "RESTORE_STATUS_IN_PROGRESS"}]}),
            )
            .unwrap();
        assert_eq!(found.scheduled.iter().collect::<Vec<_>>(), ["a"]);
        assert_eq!(found.running.iter().collect::<Vec<_>>(), ["a", "c"]);
        assert!(found.take(&LISTS[1], &json!({})).is_ok());
        assert!(found.take(&LISTS[1], &json!({"artifacts": "no"})).is_err());
        assert!(
            found
                .take(&LISTS[1], &json!({"artifacts": [{"status": "IN_PROGRESS"}]}))
                .is_err()
        );
        assert!(found.take(&LISTS[1], &json!("maintenance")).is_err());
    }
}
