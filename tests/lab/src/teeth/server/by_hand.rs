//! What a migration by hand changes, each read from the one recording.

use super::by_hand_run::{bare, recording};
use super::scene::bites;
use super::seed::{ALERTMANAGER, KEY};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// All values of a field in the lists of an answer.
fn field(answer: &Value, name: &str) -> BTreeSet<String> {
    let lists = answer
        .as_object()
        .into_iter()
        .flat_map(|lists| lists.values())
        .filter_map(Value::as_array)
        .flatten();
    lists
        .filter_map(|item| item[name].as_str().map(str::to_owned))
        .collect()
}

/// Ids lose their prefixes: compared as they are, everything is gone.
pub fn ids_change_form() -> Result<()> {
    let seen = recording()?;
    let (before, after) = (
        field(&seen.services.0, "service_id"),
        field(&seen.services.1, "service_id"),
    );
    ensure!(
        before.len() == 4 && before.iter().all(|id| id.starts_with("/service_id/")),
        "ids of PMM 2: {before:?}"
    );
    bites(
        before.intersection(&after).next().is_none(),
        "an id kept its form",
    )?;
    let bare: BTreeSet<String> = before.iter().map(|id| bare(id).to_owned()).collect();
    ensure!(
        bare == after,
        "without prefixes the ids are not the same: {bare:?} {after:?}"
    );
    Ok(())
}

/// Enum values are spelled otherwise, so that nothing is `RUNNING` by its old name.
pub fn statuses_change_spelling() -> Result<()> {
    let seen = recording()?;
    let (before, after) = (field(&seen.agents.0, "status"), field(&seen.agents.1, "status"));
    ensure!(
        before.iter().any(|word| word == "RUNNING"),
        "statuses of PMM 2: {before:?}"
    );
    bites(
        !after.contains("RUNNING") && after.contains("AGENT_STATUS_RUNNING"),
        format!("statuses of PMM 3: {after:?}"),
    )
}

/// The query agent of the server's own database is switched off: an inventory compared exactly shows a loss.
pub fn own_query_agent_is_disabled() -> Result<()> {
    let seen = recording()?;
    let of_server = |answer: &Value| {
        let list = answer["qan_postgresql_pgstatements_agent"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        list.into_iter()
            .find(|agent| agent["pmm_agent_id"] == "pmm-server")
            .unwrap_or_default()
    };
    ensure!(
        of_server(&seen.agents.0)["disabled"] != true,
        "it was disabled before"
    );
    bites(
        of_server(&seen.agents.1)["disabled"] == true,
        "it is still enabled",
    )
}

/// PMM 2 leaves out what is empty.
pub fn empty_list_is_left_out() -> Result<()> {
    let seen = recording()?;
    bites(
        seen.empty_list == json!({}),
        format!("PMM 2 answered {}", seen.empty_list),
    )?;
    bites(
        seen.services.1["haproxy"] == json!([]),
        "PMM 3 leaves out empty lists",
    )
}

/// PMM 2 takes any client; PMM 3 demands a valid administrator's credential of the same client.
pub fn connect_needs_an_administrator() -> Result<()> {
    let (two, three) = (&recording()?.connects.0, &recording()?.connects.1);
    ensure!(
        (two.nobody, two.wrong, two.viewer, two.key) == (101, 101, 101, 101),
        "PMM 2 refuses clients: {}",
        two.nobody
    );
    bites(
        three.nobody == 401 && three.wrong == 401,
        format!("PMM 3 answered {} and {}", three.nobody, three.wrong),
    )?;
    bites(
        matches!(three.viewer, 401 | 403),
        format!("PMM 3 answered {} to a viewer", three.viewer),
    )?;
    ensure!(
        three.key == 101,
        "PMM 3 answered {} to an administrator's key",
        three.key
    );
    Ok(())
}

/// Settings that came by variables of PMM 2 are lost without an error.
pub fn old_variables_are_lost() -> Result<()> {
    let seen = recording()?;
    ensure!(
        seen.settings.0["data_retention"] == "5184000s",
        "retention of PMM 2: {}",
        seen.settings.0["data_retention"]
    );
    ensure!(
        seen.settings.0["updates_disabled"] == true,
        "updates of PMM 2: {}",
        seen.settings.0["updates_disabled"]
    );
    bites(
        seen.settings.1["data_retention"] == "2592000s",
        format!("retention of PMM 3: {}", seen.settings.1["data_retention"]),
    )?;
    bites(
        seen.settings.1["updates_enabled"] == true,
        "updates are still disabled",
    )?;
    bites(
        seen.managed_log.contains("unknown environment variable")
            && seen.managed_log.contains("DATA_RETENTION"),
        "no warning either",
    )?;
    bites(seen.managed_log.contains("NOT SUPPORTED"), "PERCONA_* was taken")
}

/// Rules and channels of Integrated Alerting are dropped.
pub fn alert_rules_are_dropped() -> Result<()> {
    let seen = recording()?;
    bites(
        seen.channels == json!({"rules": [], "channels": []}),
        format!("PMM 3 holds {}", seen.channels),
    )?;
    bites(seen.rules == 404, "the API of Integrated Alerting is there")
}

/// A Kubernetes cluster that was left registered with DBaaS is forgotten.
pub fn dbaas_is_removed() -> Result<()> {
    let seen = recording()?;
    ensure!(
        seen.clusters.0["kubernetes_clusters"][0]["kubernetes_cluster_name"] == "left-behind",
        "PMM 2 had no cluster: {}",
        seen.clusters.0
    );
    bites(seen.clusters.1 == 404, "PMM 3 has DBaaS")
}

/// The external Alertmanager's address is deleted.
pub fn alertmanager_is_dropped() -> Result<()> {
    let seen = recording()?;
    ensure!(
        seen.settings.0["alert_manager_url"] == ALERTMANAGER,
        "PMM 2 had no Alertmanager"
    );
    bites(
        seen.settings.1.get("alert_manager_url").is_none(),
        "the address survived",
    )
}

/// Keys are not converted by themselves, new ones cannot be made, and a second conversion finds nothing.
pub fn keys_stay_keys() -> Result<()> {
    let seen = recording()?;
    let names = seen
        .keys
        .as_array()
        .into_iter()
        .flatten()
        .map(|key| key["name"].clone())
        .collect::<Vec<_>>();
    bites(
        names == [json!(KEY)],
        format!("keys after the migration: {names:?}"),
    )?;
    bites(
        seen.new_key == 410,
        format!("a new key was answered {}", seen.new_key),
    )?;
    ensure!(
        seen.conversion[0]["migrated"] == 1 && seen.key_after == 200,
        "the conversion: {} {}",
        seen.conversion[0],
        seen.key_after
    );
    bites(
        seen.conversion[1]["total"] == 0,
        format!("a second conversion: {}", seen.conversion[1]),
    )
}

/// A tool for PMM 2 finds nothing where it asks.
pub fn old_paths_are_gone() -> Result<()> {
    let seen = recording()?;
    bites(
        seen.old_paths.iter().all(|status| *status == 404),
        format!("answers: {:?}", seen.old_paths),
    )
}

/// 503, then 500, then 200: not everything that is no 503 is ready, and 500 is no end.
pub fn readiness_goes_through_500() -> Result<()> {
    let seen = recording()?;
    bites(
        seen.readiness.contains(&503),
        format!("no maintenance page: {:?}", seen.readiness),
    )?;
    let after = seen
        .readiness
        .iter()
        .skip_while(|status| **status != 503)
        .copied()
        .collect::<Vec<_>>();
    bites(
        after == [503, 500, 200],
        format!("readiness: {:?}", seen.readiness),
    )
}

/// PMM 3 says that an update is done which it refused to start.
pub fn update_is_done_by_nobody() -> Result<()> {
    let (started, status) = &recording()?.update;
    ensure!(*started == 400, "the update was answered {started}");
    bites(status["done"] == true, format!("its status: {status}"))
}

/// A role that is too low is answered 401 by one release and 403 by a later one.
pub fn refusal_changes_status() -> Result<()> {
    let seen = recording()?.refusal;
    bites(seen == (401, 403), format!("answers: {seen:?}"))
}

/// The list of clients' versions skips what never reported one.
pub fn versions_skip_unknown_clients() -> Result<()> {
    let seen = recording()?;
    let clients = field(&json!({"agents": seen.agents.1["pmm_agent"]}), "agent_id");
    ensure!(clients.len() == 2, "clients: {clients:?}");
    let listed = field(&seen.versions, "agent_id");
    bites(
        listed == BTreeSet::from(["pmm-server".to_owned()]),
        format!("listed: {listed:?}"),
    )
}

/// A report about nothing has a row all the same.
pub fn report_has_a_total_row() -> Result<()> {
    let report = &recording()?.report_of_nothing;
    ensure!(report["total_rows"] == 0, "the service has queries");
    bites(
        report["rows"].as_array().is_some_and(|rows| rows.len() == 1),
        format!("rows: {}", report["rows"]),
    )
}

/// Clients on the container's network that use port 443 find nobody there.
pub fn inner_port_moves() -> Result<()> {
    let (old, new) = recording()?.ports;
    ensure!(new, "nobody answers on 8443");
    bites(!old, "PMM 3 answers on 443")
}

/// Percona's plugins on the volume are replaced, and Angular panels of one's own dashboards break.
pub fn panels_and_plugins_change() -> Result<()> {
    let seen = recording()?;
    bites(
        seen.plugins["info"]["version"] == "3.7.1",
        format!("plugin: {}", seen.plugins),
    )?;
    bites(
        seen.grafana_log.contains("Angular"),
        "the Angular panel goes on working",
    )
}
