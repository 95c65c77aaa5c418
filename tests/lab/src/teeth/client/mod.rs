//! The client half: what `apt`, `dnf`, `install_tarball`, `docker run` and `pmm-admin` do to a PMM 2 client when nobody is careful.
//!
//! A case does the naive thing with the real package manager on a host of its own and passes only if the trap was sprung in the known way.

mod backup;
mod deb;
mod direct;
mod docker;
mod ground;
mod host;
mod prepare;
mod repository;
mod rpm;
mod server;
mod services;
mod setup;
mod tarball;

use crate::suite::Case;

pub use ground::clear;

/// One case per trap. `about` names what the public sources say, and where.
pub const CASES: &[Case] = &[
    // Debian packages (percona/pmm build/packages/deb).
    Case::new(
        "deb-empty-config",
        "deb: nobody makes the .bak, PMM 3 starts with an empty configuration (deb/postinst)",
        deb::empty_config,
    ),
    Case::new(
        "deb-bak-drops-paths",
        "deb: with a .bak the identity is carried and the paths block is dropped (PMM-13379)",
        deb::bak_by_hand,
    ),
    Case::new(
        "deb-rc-state",
        "deb: pmm2-client stays in state rc with its purge script (deb/postrm)",
        deb::rc_state,
    ),
    Case::new(
        "deb-purge-account",
        "deb: purging the left-over deletes the account of PMM 3 (deb/postrm)",
        deb::purge_deletes_account,
    ),
    Case::new(
        "deb-purge-links",
        "deb: purging all packages in state rc deletes the links of PMM 3 (deb/postrm)",
        deb::purge_deletes_links,
    ),
    Case::new(
        "deb-edited-collectors",
        "deb: edited query files are lost, added ones stay in the old tree (PMM-3182)",
        deb::edited_collectors,
    ),
    Case::new(
        "deb-upgrade-stays",
        "deb: apt upgrade never moves to PMM 3 (upgrade_client.md)",
        deb::upgrade_never_moves,
    ),
    Case::new(
        "deb-held",
        "deb: a held pmm2-client makes apt-get install -y fail",
        deb::held_package,
    ),
    Case::new(
        "deb-version-needs-build",
        "deb: a version alone is not found, and build numbers differ",
        deb::version_needs_build,
    ),
    // RPM packages (percona/pmm build/packages/rpm/client).
    Case::new(
        "rpm-started-empty",
        "rpm: started empty, stopped, disabled, account deleted before %posttrans repairs it (pmm-client.spec)",
        rpm::started_empty,
    ),
    Case::new(
        "rpm-account-recreated",
        "rpm: the account comes back with another uid and without its groups (pmm-client.spec)",
        rpm::account_recreated,
    ),
    Case::new(
        "rpm-stray-process",
        "rpm: with a process of the account %postun deletes the links of PMM 3 (pmm2-client.spec)",
        rpm::stray_process,
    ),
    Case::new(
        "rpm-paths-dropped",
        "rpm: the paths block is dropped (pmm-client.spec %posttrans)",
        rpm::paths_dropped,
    ),
    Case::new(
        "rpm-early-release",
        "rpm: early 3.x leaves no account and a disabled service (pmm-client.spec)",
        rpm::early_release,
    ),
    Case::new(
        "rpm-edited-unit",
        "rpm: an edited unit becomes .rpmsave",
        rpm::edited_unit,
    ),
    Case::new(
        "rpm-edited-collectors",
        "rpm: edited query files are lost, added ones stay in the old tree",
        rpm::edited_collectors,
    ),
    Case::new(
        "rpm-disabled-enabled",
        "rpm: a disabled service becomes enabled (pmm-client.spec %posttrans)",
        rpm::disabled_becomes_enabled,
    ),
    Case::new(
        "rpm-self-conflict",
        "rpm: 3.0 to 3.7 conflict with themselves under rpm -i (PMM-15015)",
        rpm::self_conflict,
    ),
    Case::new(
        "rpm-i-refuses",
        "rpm: rpm -i refuses beside pmm2-client",
        rpm::rpm_i_refuses,
    ),
    Case::new(
        "rpm-dnf-upgrade",
        "rpm: dnf upgrade replaces pmm2-client as soon as the repository is enabled (Obsoletes)",
        rpm::dnf_upgrade_replaces,
    ),
    // Tarball (percona/pmm build/scripts/install_tarball).
    Case::new(
        "tar-without-u",
        "tarball: without -u the configuration is emptied (PMM-8867)",
        tarball::without_u,
    ),
    Case::new(
        "tar-without-dir",
        "tarball: -u without PMM_DIR fills the new directory; old configuration starts old exporters",
        tarball::without_directory,
    ),
    Case::new(
        "tar-old-process",
        "tarball: the old process runs on after the programs were replaced",
        tarball::old_process_runs_on,
    ),
    Case::new(
        "tar-collectors",
        "tarball: query files are overwritten even with -u",
        tarball::collectors_overwritten,
    ),
    Case::new(
        "tar-links-and-unit",
        "tarball: links and unit are not touched, a restart runs PMM 2 again",
        tarball::links_and_unit_stay,
    ),
    Case::new(
        "tar-unknown-option",
        "tarball: only -u and -help are known",
        tarball::unknown_option,
    ),
    // The client's container image (percona/pmm build/docker/client, agent/cmd/pmm-agent-entrypoint).
    Case::new(
        "container-setup",
        "container: setup runs at every start and conflicts",
        docker::setup_at_every_start,
    ),
    Case::new(
        "container-recreate",
        "container: the identity is lost with the container",
        docker::recreated_loses_identity,
    ),
    Case::new(
        "container-force",
        "container: with the forced setup of the manual a restart deletes the services (PMM-14989)",
        docker::force_deletes_services,
    ),
    Case::new(
        "container-old-path",
        "container: the configuration path of 2.x does not exist in 3.x",
        docker::old_path_in_new_image,
    ),
    Case::new(
        "container-old-port",
        "container: inside the network PMM 3 listens on 8443, not 443",
        docker::old_port_in_network,
    ),
    Case::new(
        "container-arguments",
        "container: the entrypoint takes no arguments",
        docker::takes_no_arguments,
    ),
    // Registration, identity, credentials (percona/pmm agent/commands/setup.go).
    Case::new(
        "setup-again",
        "setup: every run registers anew and answers 409",
        setup::again_is_a_conflict,
    ),
    Case::new(
        "setup-force",
        "setup: --force deletes the node with its services (PMM-14989)",
        setup::force_deletes_services,
    ),
    Case::new(
        "v2-registers-on-v3",
        "setup: a PMM 2 client cannot register on PMM 3, 404",
        setup::v2_cannot_register_on_v3,
    ),
    Case::new(
        "v3-client-on-v2",
        "order: a PMM 3 client does not work with a PMM 2 server (troubleshoot.md)",
        setup::v3_cannot_use_v2,
    ),
    Case::new(
        "unmigrated-server",
        "identity: a PMM 3 that was not migrated does not know the client (migrating_from_pmm_2.md)",
        setup::unmigrated_server,
    ),
    Case::new(
        "stale-credentials",
        "credentials: a wrong password connects to PMM 2 and not to PMM 3",
        setup::stale_credentials,
    ),
    Case::new(
        "two-agents",
        "identity: two clients with one id throw each other out (PMM-9413)",
        setup::two_agents_one_id,
    ),
    Case::new(
        "direct-address-goes-blind",
        "port: a client that addresses the container itself is blind from the cut on (client 3, server 5.1)",
        direct::goes_blind,
    ),
    Case::new(
        "backup-lost-by-upgrade",
        "backup: the upgrade page's commands end a database backup (mysql_backup_job.go)",
        backup::lost_by_upgrade,
    ),
    Case::new(
        "backup-lost-by-restart",
        "backup: so does a restart of the client",
        backup::lost_by_restart,
    ),
    Case::new(
        "exit-code-lies",
        "status: pmm-admin status ends with 0 without a connection",
        setup::exit_code_lies,
    ),
    // The running service.
    Case::new(
        "stray-agent",
        "service: a stray client holds 7777, the new unit crash-loops, pmm-admin talks to the old one",
        services::stray_agent,
    ),
    Case::new(
        "unit-override-breaks",
        "service: a unit of one's own with a path of 2.x breaks",
        services::override_breaks,
    ),
    Case::new(
        "unit-override-old-config",
        "service: a unit of one's own keeps PMM 3 on the configuration of 2.x",
        services::override_keeps_old_config,
    ),
    // percona-release (percona/percona-repositories).
    Case::new(
        "enable-only",
        "percona-release: enable-only puts other repositories aside, apt",
        repository::enable_only,
    ),
    Case::new(
        "enable-only-rpm",
        "percona-release: enable-only puts other repositories aside, dnf",
        repository::enable_only_rpm,
    ),
    Case::new(
        "percona-release-offline",
        "percona-release: offline looks like a repository that does not exist",
        repository::needs_the_network,
    ),
    Case::new(
        "percona-release-mirror",
        "percona-release: a preset mirror is ignored",
        repository::no_mirror,
    ),
    Case::new(
        "percona-release-neighbour",
        "percona-release: an unrelated broken repository makes it fail",
        repository::broken_neighbour,
    ),
    Case::new(
        "unsupported-system",
        "packages: no PMM 3 for systems that PMM 2 still served (PMM-14057)",
        repository::unsupported_system,
    ),
];
