//! The fleet of a life: groups, policies and natures, all from the seed.

use super::agent::Nature;
use super::faults::{Fault, FaultSet};
use super::world::Rng;
use crate::fixture::{self, GroupSpec};
use rollout::plan::Plan;

const BRIDGE: &str = "[server.pmm2_clients]\nbridge = \"3.2.0\"";
const NAMES: [&str; 6] = ["g0", "g1", "g2", "g3", "g4", "g5"];

/// A plan's bytes. It follows from seed and size alone, so that a fault more or less leaves the fleet as it is.
pub fn plan(rng: &mut Rng, hosts: usize, policies: bool) -> Vec<u8> {
    let count = 1 + rng.below(5.min(hosts as u64)) as usize;
    let mut left = hosts;
    let mut groups: Vec<(&str, usize, String)> = Vec::new();
    for (at, name) in NAMES.iter().enumerate().take(count) {
        let size = if at + 1 == count {
            left
        } else {
            1 + rng.below((left - (count - at - 1)).max(1) as u64) as usize
        };
        left -= size;
        let mut text = policy(rng, size);
        if policies {
            text.push_str(&gates(rng));
        }
        groups.push((name, size, text));
    }
    let specs: Vec<GroupSpec<'_>> = groups
        .iter()
        .map(|(name, size, text)| (*name, *size, text.as_str()))
        .collect();
    let decision = if rng.one_in(4) { BRIDGE } else { fixture::ACCEPT };
    let direct: Vec<usize> = if rng.one_in(2) {
        (0..hosts).filter(|_| rng.one_in(12)).collect()
    } else {
        Vec::new()
    };
    let mut draft = fixture::draft_with(&specs, decision, &direct);
    if policies {
        spread(rng, &mut draft.plan);
    }
    draft.into_bytes().map(|(_, bytes)| bytes).unwrap_or_default()
}

/// Sets, sites and the rollout's own threshold: what the fleet's inventory and labels would say.
fn spread(rng: &mut Rng, plan: &mut Plan) {
    if rng.one_in(4) {
        plan.failure_threshold = Some(2 + rng.below(8) as u32);
    }
    let (sets, sites) = (rng.one_in(3), rng.one_in(4));
    let members = 2 + rng.below(3) as usize;
    let places = 2 + rng.below(4);
    for group in plan.groups.iter_mut().filter(|_| sites) {
        group.per_site = Some(3 + rng.below(6) as u32);
    }
    for (number, host) in plan.hosts.iter_mut().enumerate() {
        if sets && rng.one_in(2) {
            host.sets = [format!("set/{}", number / members)].into();
        }
        if sites {
            host.site = Some(format!("site-{}", rng.below(places)));
        }
    }
}

fn policy(rng: &mut Rng, size: usize) -> String {
    let mut text = format!("canaries = {}\n", rng.below(4));
    let width = match rng.below(4) {
        0 => format!("{}", 1 + size / 10),
        1 => format!("{}", 2 + size / 20 + rng.below(8) as usize),
        _ => format!("\"{}%\"", 10 + rng.below(50)),
    };
    text.push_str(&format!("max_unavailable = {width}\n"));
    let threshold = match rng.below(3) {
        0 => format!("{}", rng.below(size.min(4) as u64)),
        _ => format!("\"{}%\"", rng.below(30)),
    };
    text.push_str(&format!("failure_threshold = {threshold}\n"));
    if rng.one_in(3) {
        text.push_str(&format!("soak = \"{}s\"\n", 10 + rng.below(600)));
    }
    if rng.one_in(4) {
        text.push_str("approval = true\n");
    }
    text
}

/// What keeps hosts from beginning, and what follows from failures.
fn gates(rng: &mut Rng) -> String {
    let mut text = String::new();
    if rng.one_in(4) {
        text.push_str("ramp = [1, 3]\n");
    }
    if rng.one_in(5) {
        text.push_str("canary_soak = \"40s\"\n");
    }
    if rng.one_in(5) {
        text.push_str("together = 2\n");
    }
    if rng.one_in(4) {
        text.push_str("health = { good_views = 2, patience = \"3m\" }\n");
    }
    match rng.below(6) {
        0 => text.push_str("offline = \"skip\"\n"),
        1 => text.push_str("offline = \"wait\"\n"),
        _ => {}
    }
    match rng.below(8) {
        0 => text.push_str("on_breach = \"rollback\"\n"),
        1 => text.push_str("on_breach = \"abort\"\n"),
        _ => {}
    }
    if rng.one_in(6) {
        text.push_str("deadline = \"20m\"\n");
    }
    // About the time at which groups have their turns: lives begin at 22:13:20.
    if rng.one_in(8) {
        text.push_str("windows = [{ from = \"22:10\", for = \"8m\", zone = \"UTC\" }, { from = \"22:30\", for = \"23h\", zone = \"UTC\" }]\n");
    }
    text
}

/// How a host takes what it is told.
pub fn nature(rng: &mut Rng, faults: FaultSet, bad_percent: u64) -> (Option<Fault>, Nature) {
    let bad = rng.below(100) < bad_percent;
    let (fault, nature) = match rng.below(14) {
        0..=3 => (Fault::SlowHost, Nature::Slow),
        4 => (Fault::FailingHost, Nature::FailsBefore),
        5 | 6 => (Fault::FailingHost, Nature::RollsBack),
        7 => (Fault::FailingHost, Nature::Inconsistent),
        8 => (Fault::FailingHost, Nature::Unready),
        9 => (Fault::FailingHost, Nature::NoSamples),
        10 => (Fault::FailingHost, Nature::StaysBehind),
        11 => (Fault::FailingHost, Nature::NoWayBack),
        12 => (Fault::SilentHost, Nature::Silent),
        _ if rng.one_in(2) => (Fault::LyingHost, Nature::Lies),
        _ => (Fault::LyingHost, Nature::MakesUp),
    };
    if bad && faults.has(fault) {
        (Some(fault), nature)
    } else {
        (None, Nature::Good)
    }
}
