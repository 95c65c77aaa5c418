//! The main job from end to end, plain or with something going wrong on the road. Every scenario checks that what should go wrong did.

mod adopt;
mod backup;
mod bad_volume;
mod bridge;
mod broken_repo;
mod direct_address;
pub mod expect;
mod full_disk;
mod kill_agent;
pub mod kill_coordinator;
mod reboot;
pub mod run;

use crate::fleet::Wishes;
use crate::report::Report;
use crate::verify::Snapshot;
use crate::{hosts, output, verify};
use anyhow::{Result, bail};
use clap::ValueEnum;
use run::Way;
use std::path::PathBuf;

/// What happens on the road.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Nothing goes wrong.
    Plain,
    /// The new package's scripts fail on one deb and one rpm host of the second group.
    BrokenRepo,
    /// kill -9 of the coordinator in the ownership change, in the migration wait and in the middle of a group.
    KillCoordinator,
    /// kill -9 of an agent while a package script runs.
    KillAgent,
    /// The new PMM 3 container gets an empty volume.
    BadVolume,
    /// Server to a release that still takes PMM 2 clients, clients, server to the target, clients.
    Bridge,
    /// Two clients address the PMM Server's container itself, whose inner port moves with PMM 3.
    DirectAddress,
    /// A host's disks become full while its package manager unpacks the new client.
    FullDisk,
    /// Three hosts lose their power in the middle of a package transaction.
    Reboot,
    /// PMM backs up a database on a host when the host's turn comes.
    Backup,
    /// A host joins while the rollout runs, which adopts a plan with it.
    Adopt,
}

impl Scenario {
    /// What the fleet of this scenario has that the demo's has not.
    pub fn wishes(self) -> Wishes {
        match self {
            Self::DirectAddress => Wishes {
                direct: &direct_address::HOSTS,
                ..Wishes::NONE
            },
            Self::FullDisk => Wishes {
                small_disk: Some(full_disk::TARGET),
                ..Wishes::NONE
            },
            Self::Backup => Wishes {
                backup: Some(backup::TARGET),
                ..Wishes::NONE
            },
            Self::Adopt => Wishes {
                late: Some(adopt::TARGET),
                ..Wishes::NONE
            },
            Self::BadVolume => Wishes {
                plain_data: true,
                ..Wishes::NONE
            },
            _ => Wishes::NONE,
        }
    }
}

/// What is broken on purpose, to see that the checks notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// A host's client is stopped behind the product's back before the checks.
    StopClient,
    /// A service is removed from PMM's inventory before the checks.
    LoseService,
    /// One digit of the report's release is changed before the checks.
    LieInReport,
    /// The kill of a kill scenario is left out.
    NoKill,
    /// A client that was moved to PMM 3's port is put back to the old one before the checks.
    OldAddress,
    /// The disks are not filled.
    RoomLeft,
    /// The client is killed in the middle of the backup, as a careless upgrade does.
    KillClient,
    /// The plan that waits is not adopted.
    NoAdopt,
}

/// The demo's options.
pub struct Options {
    /// Leave everything up.
    pub keep: bool,
    /// Where the report goes.
    pub report: Option<PathBuf>,
    /// What happens.
    pub scenario: Scenario,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
    /// `image` or `api`.
    pub pmm2_update: String,
}

/// Brings the fleet up, runs the scenario, checks it, takes the fleet down.
pub fn run(options: &Options) -> Result<()> {
    let result = go(options);
    if options.keep {
        output::step("the fleet is left up; `cargo lab verify` looks at it, `cargo lab down` removes it");
    } else if result.is_ok() {
        hosts::down()?;
    } else {
        hosts::down_after_failure()?;
    }
    result
}

fn go(options: &Options) -> Result<()> {
    let way = Way {
        bridge: (options.scenario == Scenario::Bridge).then_some("3.2.0"),
        by_api: options.pmm2_update == "api",
    };
    let mut road = run::Road::prepare(&options.scenario.wishes(), way)?;
    let exit = match options.scenario {
        Scenario::Plain | Scenario::Bridge => road.start_and_watch()?,
        Scenario::BrokenRepo => broken_repo::drive(&mut road)?,
        Scenario::KillCoordinator => kill_coordinator::drive(&mut road, options.sabotage)?,
        Scenario::KillAgent => kill_agent::drive(&mut road, options.sabotage)?,
        Scenario::BadVolume => bad_volume::drive(&mut road)?,
        Scenario::DirectAddress => direct_address::drive(&mut road)?,
        Scenario::FullDisk => full_disk::drive(&mut road, options.sabotage)?,
        Scenario::Reboot => reboot::drive(&mut road, options.sabotage)?,
        Scenario::Backup => backup::drive(&mut road, options.sabotage)?,
        Scenario::Adopt => adopt::drive(&mut road, options.sabotage)?,
    };
    let report = road.report(options.report.as_deref())?;
    sabotage(options.sabotage, &report)?;
    let report = Report::read(&verify::report_path()?)?;
    let before = Snapshot::load()?;
    match options.scenario {
        Scenario::Plain => expect::migrated(&report, exit, &["2.44.1", "3.7.1", "3.9.1"], &before)?,
        Scenario::Bridge => bridge::check(&report, exit, &before)?,
        Scenario::BrokenRepo => broken_repo::check(&report, exit, &before)?,
        Scenario::KillCoordinator => kill_coordinator::check(&report, exit, &before)?,
        Scenario::KillAgent => kill_agent::check(&report, exit, &before)?,
        Scenario::BadVolume => bad_volume::check(&report, exit, &before)?,
        Scenario::DirectAddress => direct_address::check(&report, exit, &before)?,
        Scenario::FullDisk => full_disk::check(&report, &before)?,
        Scenario::Reboot => reboot::check(&report, &before)?,
        Scenario::Backup => backup::check(&report, exit, &before)?,
        Scenario::Adopt => adopt::check(&report, exit, &before)?,
    }
    if !matches!(options.scenario, Scenario::BrokenRepo | Scenario::BadVolume) {
        verify::run()?;
    }
    output::line(&format!(
        "scenario {}: everything that must hold holds",
        options
            .scenario
            .to_possible_value()
            .map_or_else(String::new, |v| v.get_name().to_owned())
    ));
    Ok(())
}

fn sabotage(what: Option<Sabotage>, report: &Report) -> Result<()> {
    match what {
        None | Some(Sabotage::NoKill | Sabotage::RoomLeft | Sabotage::KillClient | Sabotage::NoAdopt) => {
            Ok(())
        }
        Some(Sabotage::OldAddress) => direct_address::put_back(),
        Some(Sabotage::StopClient) => hosts::stop_client(&crate::fleet::HOSTS[0]),
        Some(Sabotage::LoseService) => hosts::lose_service("mysql-deb-a"),
        Some(Sabotage::LieInReport) => {
            let mut lie = report.0.clone();
            let Some(hops) = lie.pointer_mut("/server/hops") else {
                bail!("the report has no hops")
            };
            *hops = serde_json::json!(["2.44.1", "3.9.1"]);
            Ok(fs_err::write(
                verify::report_path()?,
                serde_json::to_vec_pretty(&lie)?,
            )?)
        }
    }
}
