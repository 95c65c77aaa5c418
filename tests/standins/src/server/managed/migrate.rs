//! What happens to the stored inventory when a newer pmm-managed starts on it (percona/pmm: managed/models/database.go).

use serde_json::{Value, json};

use super::model::{items, items_mut, text};
use crate::server::{ids, version::Version};

/// The releases whose pmm-managed ran on the data.
pub fn passed(doc: &Value) -> Vec<Version> {
    doc["schema"]["passed"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str()?.parse().ok())
        .collect()
}

/// Whether there is anything to do.
pub fn pending(doc: &Value, version: Version) -> bool {
    passed(doc).last() != Some(&version)
}

/// Brings the document to a version, or says why it cannot be done; then nothing was changed.
pub fn migrate(doc: &mut Value, version: Version) -> Result<(), String> {
    let history = passed(doc);
    if let Some(why) = version.refuses(&history) {
        return Err(why);
    }
    let have = u32::try_from(doc["schema"]["version"].as_u64().unwrap_or(0)).unwrap_or(0);
    for number in have + 1..=version.schema() {
        step(doc, number)?;
    }
    if version.is_v3() {
        items_mut(doc, "agents").for_each(|a| {
            let stored = super::register::encrypted(text(a, "password"));
            if !stored.is_empty() {
                a["password"] = json!(stored);
            }
        });
    }
    doc["schema"]["version"] = json!(version.schema().max(have));
    if history.last() != Some(&version)
        && let Some(list) = doc["schema"]["passed"].as_array_mut()
    {
        list.push(json!(version.to_string()));
    }
    Ok(())
}

fn step(doc: &mut Value, number: u32) -> Result<(), String> {
    match number {
        101 => {
            doc["ia_rules"] = json!([]);
            doc["ia_channels"] = json!([]);
            drop_fields(&mut doc["settings"], &["email_alerting", "slack_alerting"]);
        }
        102 => drop_fields(
            &mut doc["settings"],
            &["alert_manager_url", "alert_manager_rules"],
        ),
        103 => {
            for name in ["updates", "telemetry", "alerting", "backup_management"] {
                let old = doc["settings"][format!("{name}_disabled")]
                    .as_bool()
                    .unwrap_or(false);
                drop_fields(&mut doc["settings"], &[&format!("{name}_disabled")]);
                doc["settings"][format!("{name}_enabled")] = json!(!old);
            }
        }
        104 => {
            for (old, new) in [
                ("stt_enabled", "advisor_enabled"),
                ("stt_check_intervals", "advisor_run_intervals"),
            ] {
                doc["settings"][new] = doc["settings"][old].take();
                drop_fields(&mut doc["settings"], &[old]);
            }
            drop_fields(&mut doc["settings"], &["dbaas_enabled", "platform_email"]);
            drop_fields(doc, &["kubernetes_clusters"]);
        }
        105 => {
            check_keys(doc)?;
            let settings = doc["settings"].take();
            ids::strip(doc);
            doc["settings"] = settings;
        }
        110 => items_mut(doc, "nodes").for_each(|n| n["instance_id"] = json!("")),
        112 => {
            let own: Vec<String> = items(doc, "services")
                .filter(|s| text(s, "service_name") == "pmm-server-postgresql")
                .map(|s| text(s, "service_id").to_owned())
                .collect();
            items_mut(doc, "agents")
                .filter(|a| {
                    text(a, "agent_type") == "qan_postgresql_pgstatements_agent"
                        && own.iter().any(|id| id == text(a, "service_id"))
                })
                .for_each(|a| a["disabled"] = json!(true));
        }
        115 => items_mut(doc, "nodes").for_each(|n| {
            let own = text(n, "node_id") == "pmm-server";
            n["is_pmm_server_node"] = json!(own);
        }),
        116 => items_mut(doc, "agents").for_each(|a| a["rta_options"] = json!({})),
        _ => {}
    }
    Ok(())
}

/// Step 105 adds the foreign keys again; a row that points nowhere makes it fail.
fn check_keys(doc: &Value) -> Result<(), String> {
    let known =
        |list: &str, field: &str, id: &str| id.is_empty() || items(doc, list).any(|i| text(i, field) == id);
    for service in items(doc, "services") {
        if !known("nodes", "node_id", text(service, "node_id")) {
            return Err("pq: insert or update on table \"services\" violates foreign key constraint \"services_node_id_fkey\"".to_owned());
        }
    }
    for agent in items(doc, "agents") {
        let whole = known("services", "service_id", text(agent, "service_id"))
            && known("nodes", "node_id", text(agent, "node_id"))
            && known("agents", "agent_id", text(agent, "pmm_agent_id"));
        if !whole {
            return Err("pq: insert or update on table \"agents\" violates foreign key constraint \"agents_pmm_agent_id_fkey\"".to_owned());
        }
    }
    Ok(())
}

fn drop_fields(value: &mut Value, names: &[&str]) {
    if let Some(fields) = value.as_object_mut() {
        names.iter().for_each(|n| {
            fields.remove(*n);
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::server::managed::model;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn old() -> Value {
        let mut doc = model::fresh(v("2.44.1"));
        doc["settings"]["updates_disabled"] = json!(true);
        doc["settings"]["alert_manager_url"] = json!("http://am");
        doc["nodes"]
            .as_array_mut()
            .unwrap()
            .push(json!({"node_id": "/node_id/n1", "node_name": "db1"}));
        doc["agents"].as_array_mut().unwrap().push(
            json!({"agent_id": "/agent_id/a1", "agent_type": "pmm_agent", "runs_on_node_id": "/node_id/n1"}),
        );
        doc["ia_rules"] = json!([{"name": "mine"}]);
        doc
    }

    #[test]
    fn prefixes_go_flags_turn_and_integrated_alerting_is_dropped() {
        let mut doc = old();
        migrate(&mut doc, v("3.7.1")).unwrap();
        assert!(!doc.to_string().contains("_id/"), "{doc}");
        assert_eq!(doc["settings"]["updates_enabled"], false);
        assert_eq!(doc["settings"]["telemetry_enabled"], true);
        assert!(doc["settings"].get("alert_manager_url").is_none());
        assert_eq!(doc["ia_rules"], json!([]));
        let disabled = items(&doc, "agents")
            .find(|a| a["agent_type"] == "qan_postgresql_pgstatements_agent")
            .unwrap();
        assert_eq!(disabled["disabled"], true);
        migrate(&mut doc, v("3.9.1")).unwrap();
        assert_eq!(passed(&doc), [v("2.44.1"), v("3.7.1"), v("3.9.1")]);
    }

    #[test]
    fn a_refused_migration_changes_nothing() {
        let mut doc = old();
        let before = doc.clone();
        assert!(migrate(&mut doc, v("3.9.1")).is_err());
        assert_eq!(doc, before);
    }

    #[test]
    fn an_orphan_row_makes_it_fail() {
        let mut doc = old();
        doc["services"]
            .as_array_mut()
            .unwrap()
            .push(json!({"service_id": "/service_id/s", "node_id": "/node_id/gone"}));
        assert!(migrate(&mut doc, v("3.7.1")).unwrap_err().contains("foreign key"));
    }
}
