//! The join of three lists.
use super::{HostRecord, PlanDraft, ServerInput};
use crate::fleet::{Fleet, FleetError};
use fleet_common::compat::CompatibilityTable;
use fleet_common::verification::FleetSnapshot;

/// Joins the hosts with our agent, the PMM Server's inventory and the groups into a plan.
pub fn join(
    fleet: &Fleet,
    hosts: &[HostRecord],
    pmm: &FleetSnapshot,
    server: &ServerInput,
    table: &CompatibilityTable,
    now_ms: u64,
) -> Result<PlanDraft, Vec<FleetError>> {
    let _ = (hosts, pmm, server, table, now_ms);
    Err(vec![fleet.error(None, "not there yet", "")])
}
