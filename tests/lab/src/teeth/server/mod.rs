//! The traps around the PMM Server: what the easy-install script does, what a migration by hand changes, what PMM 3 refuses.
//!
//! Cases come in two kinds. Some read a recording of one run that many traps can be seen in (`recorded`: the script; `by_hand`: the
//! migration guide). The others set up what they need, do the naive thing, and look whether it ended as it is known to end.

mod by_hand;
mod by_hand_run;
mod pmm;
mod recorded;
mod recorded_run;
mod refusals;
mod running;
mod scene;
mod script;
mod script_runs;
mod seed;

use crate::suite::Case;

/// All traps of the server.
pub const CASES: &[Case] = &[
    // The two recordings come first: the cases that read them come last and need not wait.
    Case::new(
        "drop-list-drops-nothing",
        "server 1.3 a: variables of the drop list are pushed into PMM 3",
        recorded::drop_list_drops_nothing,
    ),
    Case::new(
        "ids-change-form",
        "server 0, 9: ids lose their prefixes",
        by_hand::ids_change_form,
    ),
    // The script, runs that end badly.
    Case::new(
        "disable-word-aborts",
        "server 1.3 b: DISABLE_UPDATES=true aborts with PMM stopped",
        script_runs::disable_word_aborts,
    ),
    Case::new(
        "quote-breaks-the-command",
        "server 1.3 c: a quote in a value ends with PMM renamed and stopped",
        script_runs::quote_breaks_the_command,
    ),
    Case::new(
        "registry-port-hides-the-tag",
        "server 1.3 e: a registry's port counts as the tag",
        script_runs::registry_port_hides_the_tag,
    ),
    Case::new(
        "untagged-image-is-skipped",
        "server 1.3 e: an image without a tag is not migrated",
        script_runs::untagged_image_is_skipped,
    ),
    Case::new(
        "digest-is-skipped",
        "server 1.3 e: an image by digest is not migrated",
        script_runs::digest_is_skipped,
    ),
    Case::new(
        "bind-mount-at-srv",
        "server 1.3 f: a bind mount at /srv ends with PMM renamed and stopped",
        script_runs::bind_mount_at_srv,
    ),
    Case::new(
        "wrong-name-starts-a-second",
        "server 1.3 g: a wrong name starts an empty PMM 3 beside PMM 2",
        script_runs::wrong_name_starts_a_second,
    ),
    Case::new(
        "anything-by-that-name",
        "server 1.2, 6: a volume of the same name counts as the container",
        script_runs::anything_by_that_name,
    ),
    Case::new(
        "ten-seconds-are-not-enough",
        "server 1.3 m: the backup is of databases that were killed",
        script_runs::ten_seconds_are_not_enough,
    ),
    Case::new(
        "backup-of-the-wrong-volume",
        "server 1.2, 8: the older revision backs up an empty volume",
        script_runs::backup_of_the_wrong_volume,
    ),
    Case::new(
        "blind-pause",
        "server 1.3 n: PMM 2 is stopped in its own update after a pause",
        script_runs::blind_pause,
    ),
    Case::new(
        "helper-is-pulled-too-late",
        "server 1.3 o: without a registry it aborts with PMM stopped",
        script_runs::helper_is_pulled_too_late,
    ),
    Case::new(
        "rollback-in-prose",
        "server 1.3 r: the way back starts an older release on the only backup",
        script_runs::rollback_in_prose,
    ),
    Case::new(
        "success-means-nothing",
        "server 0, 6: it reports success while PMM 3 refuses the data",
        script_runs::success_means_nothing,
    ),
    // What PMM 3 refuses, or takes silently.
    Case::new(
        "older-2-direct",
        "server 0, 1: 2.41.2 straight into PMM 3 never gets ready",
        refusals::older_2_direct,
    ),
    Case::new(
        "stepping-stone-skipped",
        "server 0, 1: 2.44.1 straight to 3.9.1 never gets ready",
        refusals::stepping_stone_skipped,
    ),
    Case::new(
        "stone-3-7-0-fails",
        "server 0, 2: 3.7.0 cannot migrate the database",
        refusals::stone_3_7_0_fails,
    ),
    Case::new(
        "no-way-down",
        "server 2.2: PMM 2 does not start on migrated data",
        refusals::no_way_down,
    ),
    Case::new(
        "unwritable-srv-loops",
        "server 5.6: /srv is not writable, a restart loop",
        refusals::unwritable_srv_loops,
    ),
    Case::new(
        "owners-in-part",
        "server 5.3: only the top directory is checked",
        refusals::owners_in_part,
    ),
    Case::new(
        "empty-volume-is-healthy",
        "server 0, 7: an empty volume becomes a healthy new installation",
        refusals::empty_volume_is_healthy,
    ),
    Case::new(
        "forgotten-volume-is-healthy",
        "server 5.1: without -v an anonymous volume does",
        refusals::forgotten_volume_is_healthy,
    ),
    Case::new(
        "days-crash-loop",
        "server 3.2: a retention of 30d is a crash loop",
        refusals::days_crash_loop,
    ),
    Case::new(
        "bad-word-crash-loop",
        "server 3.2: a bad boolean is a crash loop",
        refusals::bad_word_crash_loop,
    ),
    Case::new(
        "unreadable-key-stops-nginx",
        "server 5.6: nginx cannot read the key",
        refusals::unreadable_key_stops_nginx,
    ),
    Case::new(
        "bad-base-file",
        "server 5.6: a broken prometheus.base.yml makes it unhealthy",
        refusals::bad_base_file,
    ),
    Case::new(
        "orphans-stop-it",
        "server 4.4, 105: rows that point nowhere stop the migration",
        refusals::orphans_stop_it,
    ),
    Case::new(
        "encryption-key-left-behind",
        "server 7, 18: data of PMM 3 without their key",
        refusals::encryption_key_left_behind,
    ),
    Case::new(
        "ready-without-data",
        "server 4.2: healthy and ready without services, queries and samples",
        refusals::ready_without_data,
    ),
    Case::new(
        "admin-is-not-the-first",
        "server 5.6, PMM-12576: resetting the password of user 1 does not reset the administrator's",
        refusals::admin_is_not_the_first,
    ),
    // What runs, or seems to.
    Case::new(
        "red-while-it-migrates",
        "server 0, 8: unhealthy in the migration, and killed for it",
        running::red_while_it_migrates,
    ),
    Case::new(
        "dirty-query-analytics",
        "server 5.6: Query Analytics is dirty while PMM is ready",
        running::dirty_query_analytics,
    ),
    Case::new(
        "grafana-database-fails",
        "server 5.6: Grafana cannot migrate its database",
        running::grafana_database_fails,
    ),
    Case::new(
        "database-url-alone",
        "server 2.2: GF_DATABASE_URL alone does not do any more",
        running::database_url_alone,
    ),
    Case::new(
        "page-over-a-failed-start",
        "server 4.3, 3: the start fails and the maintenance page stays",
        running::page_over_a_failed_start,
    ),
    Case::new(
        "reconnect-storm",
        "server 9: 401 and 500 for valid credentials",
        running::reconnect_storm,
    ),
    Case::new(
        "connected-lies",
        "server 9: shown as disconnected while samples arrive",
        running::connected_lies,
    ),
    Case::new(
        "silent-drop",
        "server 9: a connection that only the client believes in",
        running::silent_drop,
    ),
    Case::new(
        "update-leaves-the-tag",
        "server 9: the update API leaves the tag, re-creating goes back",
        running::update_leaves_the_tag,
    ),
    Case::new(
        "update-check-needs-force",
        "server 4.1: a check without force knows nothing",
        running::update_check_needs_force,
    ),
    Case::new(
        "disabled-updates-refuse",
        "server 9: DISABLE_UPDATES refuses the update API",
        running::disabled_updates_refuse,
    ),
    Case::new(
        "failed-update-undoes-nothing",
        "server 9: a failed update leaves the container half-way",
        running::failed_update_undoes_nothing,
    ),
    // The script, one good run, with the first case.
    Case::new(
        "shell-changes-values",
        "server 1.3 c: a value with $ and \\ is another one afterwards",
        recorded::shell_changes_values,
    ),
    Case::new(
        "archive-name-is-wrong",
        "server 1.3 d: the old container's name has an extra n",
        recorded::archive_name_is_wrong,
    ),
    Case::new(
        "settings-are-lost",
        "server 1.3 h: ports, networks, labels, mounts, limits are lost",
        recorded::settings_are_lost,
    ),
    Case::new(
        "image-env-is-pushed",
        "server 1.3 i: variables of the PMM 2 image are pushed into PMM 3",
        recorded::image_env_is_pushed,
    ),
    Case::new(
        "vm-cache-is-ignored",
        "server 1.3 j: ENABLE_VM_CACHE keeps its old name and is ignored",
        recorded::vm_cache_is_ignored,
    ),
    Case::new(
        "oauth-is-not-dropped",
        "server 1.3 k: the OAuth client is renamed instead of dropped",
        recorded::oauth_is_not_dropped,
    ),
    Case::new(
        "map-contradicts-docs",
        "server 1.3 l: the version service's address becomes the platform's",
        recorded::map_contradicts_docs,
    ),
    Case::new(
        "old-container-comes-back",
        "server 1.3 p: the renamed container still restarts by itself",
        recorded::old_container_comes_back,
    ),
    Case::new(
        "second-run-recreates",
        "server 1.3 q: a second run renames and makes another container",
        recorded::second_run_recreates,
    ),
    Case::new(
        "old-container-is-no-backup",
        "server 1.3 s: the renamed container shares the migrated volume",
        recorded::old_container_is_no_backup,
    ),
    Case::new(
        "token-can-be-guessed",
        "server 1.2, 4: the token is the time",
        recorded::token_can_be_guessed,
    ),
    Case::new(
        "group-is-wrong",
        "server 0, 3: owners become 1000:1000 instead of 1000:0",
        recorded::group_is_wrong,
    ),
    Case::new(
        "printed-password-is-wrong",
        "server 5.6: the script prints admin/admin, the password is the old one",
        recorded::printed_password_is_wrong,
    ),
    Case::new(
        "edited-files-are-lost",
        "server 5.2: what was edited outside of /srv is gone",
        recorded::edited_files_are_lost,
    ),
    // A migration by hand, with the second case.
    Case::new(
        "statuses-change-spelling",
        "server 4.7: RUNNING becomes AGENT_STATUS_RUNNING",
        by_hand::statuses_change_spelling,
    ),
    Case::new(
        "own-query-agent-is-disabled",
        "server 4.4, 112: an exact comparison shows a loss",
        by_hand::own_query_agent_is_disabled,
    ),
    Case::new(
        "empty-list-is-left-out",
        "server 4: PMM 2 answers {} for an empty list",
        by_hand::empty_list_is_left_out,
    ),
    Case::new(
        "connect-needs-an-administrator",
        "server 0, 10: PMM 3 refuses clients that PMM 2 took",
        by_hand::connect_needs_an_administrator,
    ),
    Case::new(
        "old-variables-are-lost",
        "server 3.2: settings by variables of PMM 2 are lost silently",
        by_hand::old_variables_are_lost,
    ),
    Case::new(
        "alert-rules-are-dropped",
        "server 5.6: rules and channels of Integrated Alerting are gone",
        by_hand::alert_rules_are_dropped,
    ),
    Case::new(
        "dbaas-is-removed",
        "server 5.6: clusters registered with DBaaS are forgotten",
        by_hand::dbaas_is_removed,
    ),
    Case::new(
        "alertmanager-is-dropped",
        "server 4.4, 102: the external Alertmanager is gone",
        by_hand::alertmanager_is_dropped,
    ),
    Case::new(
        "keys-stay-keys",
        "server 4.6: API keys are not converted by themselves",
        by_hand::keys_stay_keys,
    ),
    Case::new(
        "old-paths-are-gone",
        "server 4.7: paths of PMM 2 answer 404",
        by_hand::old_paths_are_gone,
    ),
    Case::new(
        "readiness-goes-through-500",
        "server 4.3, 3: 503, then 500, then 200",
        by_hand::readiness_goes_through_500,
    ),
    Case::new(
        "versions-skip-unknown-clients",
        "server 4.7: a client that never reported is not in the list",
        by_hand::versions_skip_unknown_clients,
    ),
    Case::new(
        "report-has-a-total-row",
        "server 4.8: a report about nothing has a row",
        by_hand::report_has_a_total_row,
    ),
    Case::new(
        "inner-port-moves",
        "server 5.1: port 443 of the container is gone",
        by_hand::inner_port_moves,
    ),
    Case::new(
        "panels-and-plugins-change",
        "server 5.6: plugins are replaced, Angular panels break",
        by_hand::panels_and_plugins_change,
    ),
    Case::new(
        "update-is-done-by-nobody",
        "server 4.1: an update that was refused is done",
        by_hand::update_is_done_by_nobody,
    ),
    Case::new(
        "refusal-changes-status",
        "server 4.5: a low role is answered 401, later 403",
        by_hand::refusal_changes_status,
    ),
];

/// A stand-in that takes what PMM 3 refuses must be noticed.
pub fn toothless() -> anyhow::Result<()> {
    scene::muzzled(refusals::stepping_stone_skipped, "Failed to migrate database")
}
