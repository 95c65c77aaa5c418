//! The legs: survey, then the server and the clients in turns.

use super::{Hop, LegKind, Plan};
use crate::fleet::{Fleet, FleetError, Pmm2Clients};
use fleet_common::compat::{ClientSupport, CompatibilityTable, PathError};
use fleet_common::ids::LegId;
use fleet_common::version::PmmVersion;

/// The order of things, before hosts are looked at.
#[derive(Debug)]
pub(super) struct Route {
    /// Each server leg (possibly without hops) and the client leg that follows it.
    pub stages: Vec<Stage>,
    /// Whether PMM 2 clients are left without a promise for a while, as accepted.
    pub gap: bool,
}

/// One server leg and one client leg.
#[derive(Debug)]
pub(super) struct Stage {
    pub server_leg: LegId,
    pub hops: Vec<Hop>,
    pub clients_leg: LegId,
    pub clients_to: PmmVersion,
    /// Whether the server of this stage promises nothing to PMM 2 clients.
    pub no_way_back_to_pmm2: bool,
}

impl Route {
    /// Gives each stage the number that the parent's stage to the same release has. What is behind is not in this route, so counting
    /// from one would give the later legs the ids of earlier ones.
    pub(super) fn number_like(&mut self, parent: &Plan) {
        for stage in &mut self.stages {
            let same = parent.legs.iter().find_map(|leg| match &leg.kind {
                LegKind::Clients { to, .. } if *to == stage.clients_to => {
                    leg.id.as_str().strip_prefix("clients-").map(str::to_owned)
                }
                _ => None,
            });
            if let Some(number) = same {
                stage.server_leg = LegId::new(format!("server-{number}"));
                stage.clients_leg = LegId::new(format!("clients-{number}"));
            }
        }
    }
}

/// Finds the way. `pmm2_clients` is the number of clients that run PMM 2 now.
pub(super) fn route(
    fleet: &Fleet,
    running: PmmVersion,
    pmm2_clients: usize,
    table: &CompatibilityTable,
) -> Result<Route, Vec<FleetError>> {
    let target = fleet.server.target;
    let path = |from, to| {
        table
            .hop_path(from, to)
            .map_err(|error| vec![path_error(fleet, &error)])
    };
    path(running, target)?;

    let unsupported = pmm2_clients > 0 && table.pmm2_clients_on(target) == ClientSupport::NotGuaranteed;
    let mut milestones = vec![target];
    let line = fleet.lines.pmm2_clients.or(fleet.lines.server_target);
    match fleet.server.pmm2_clients {
        Pmm2Clients::Bridge(bridge) => {
            if table.pmm2_clients_on(bridge) == ClientSupport::NotGuaranteed {
                return Err(vec![fleet.error(
                    line,
                    format!("bridge {bridge} does not guarantee PMM 2 clients anything either"),
                    "name an earlier PMM 3 release, such as \"3.2.0\"",
                )]);
            }
            if pmm2_clients > 0 && running <= bridge {
                milestones.insert(0, bridge);
            } else if unsupported && running > bridge {
                return Err(vec![fleet.error(
                    line,
                    format!("the server runs {running} already, past the bridge {bridge}"),
                    format!("write accept_gap = \"{target}\" instead of the bridge"),
                )]);
            }
        }
        Pmm2Clients::AcceptGap(accepted) if unsupported && accepted != target => {
            return Err(vec![fleet.error(
                line,
                format!("accept_gap names {accepted}, but the target is {target}"),
                format!("write accept_gap = \"{target}\" if you accept that, or a bridge"),
            )]);
        }
        Pmm2Clients::Undecided if unsupported => {
            return Err(vec![fleet.error(
                line,
                format!(
                    "PMM Server {target} guarantees nothing to PMM 2 clients, and {pmm2_clients} of them would report to it until they are upgraded"
                ),
                format!(
                    "decide under [server.pmm2_clients]: either bridge = \"3.2.0\" (server to 3.2.0, clients, server to {target}, clients), or accept_gap = \"{target}\""
                ),
            )]);
        }
        Pmm2Clients::AcceptGap(_) | Pmm2Clients::Undecided => {}
    }

    let mut stages = Vec::new();
    let mut at = running;
    let mut number = 0;
    for (index, milestone) in milestones.iter().enumerate() {
        let releases = path(at, *milestone)?;
        let last = releases.len();
        let mut hops = Vec::new();
        for (position, to) in releases.into_iter().enumerate() {
            number += 1;
            let pmm2_update = fleet.server.pmm2_update;
            hops.push(Hop {
                number,
                from: at,
                to,
                pmm2_update,
                last_of_leg: position + 1 == last,
            });
            at = to;
        }
        stages.push(Stage {
            server_leg: LegId::new(format!("server-{}", index + 1)),
            hops,
            clients_leg: LegId::new(format!("clients-{}", index + 1)),
            clients_to: if *milestone == target {
                fleet.clients.target
            } else {
                *milestone
            },
            no_way_back_to_pmm2: table.pmm2_clients_on(*milestone) == ClientSupport::NotGuaranteed,
        });
    }
    let gap = unsupported && stages.len() == 1;
    Ok(Route { stages, gap })
}

fn path_error(fleet: &Fleet, error: &PathError) -> FleetError {
    let (reason, hint) = match error {
        PathError::Downgrade { from, target } => (
            format!("server.target {target} is older than the installed release {from}"),
            format!("PMM can't be downgraded; set a target from {from} on"),
        ),
        PathError::Closed {
            from,
            target,
            last,
            source_row,
        } => (
            format!(
                "no path from {from} to server.target {target}: {last} is the last release that takes this installation"
            ),
            format!("set a target up to {last} ({source_row})"),
        ),
        PathError::UnknownMajor { from, target } => (
            format!("no path from {from} to server.target {target}: only PMM 2 and 3 are known"),
            "set a PMM 3 release".to_owned(),
        ),
    };
    fleet.error(fleet.lines.server_target, reason, hint)
}
