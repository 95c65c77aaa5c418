//! The fleet of a life: groups, policies and natures, all from the seed.

use super::agent::Nature;
use super::faults::{Fault, FaultSet};
use super::world::Rng;
use crate::fixture::{self, GroupSpec};

const BRIDGE: &str = "[server.pmm2_clients]\nbridge = \"3.2.0\"";
const NAMES: [&str; 6] = ["g0", "g1", "g2", "g3", "g4", "g5"];

/// A plan's bytes. It follows from seed and size alone, so that a fault more or less leaves the fleet as it is.
pub fn plan(rng: &mut Rng, hosts: usize) -> Vec<u8> {
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
        groups.push((name, size, policy(rng, size)));
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
    let draft = fixture::draft_with(&specs, decision, &direct);
    draft.into_bytes().map(|(_, bytes)| bytes).unwrap_or_default()
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
