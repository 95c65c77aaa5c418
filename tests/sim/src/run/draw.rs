//! The fleet of a life: groups, policies and natures, all from the seed.

use super::agent::{Agent, Nature};
use super::faults::{Fault, FaultSet};
use super::led::Led;
use super::pmm::Listed;
use super::world::Rng;
use crate::fixture::{self, GroupSpec};
use fleet_common::ids::HostId;
use fleet_common::version::PmmVersion;
use rollout::plan::Plan;

/// What every host of a fleet runs in the beginning.
const PMM2: PmmVersion = PmmVersion::new(2, 41, 2);

const BRIDGE: &str = "[server.pmm2_clients]\nbridge = \"3.2.0\"";
const NAMES: [&str; 6] = ["g0", "g1", "g2", "g3", "g4", "g5"];

/// What fleet files of a life say: of its first plan and of the plans that follow it.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Name and policy, in order.
    pub groups: Vec<(String, String)>,
    pub decision: &'static str,
}

impl Recipe {
    /// As the plan's makers take them, with so many hosts each.
    pub fn specs(&self, sizes: &[usize]) -> Vec<GroupSpec<'_>> {
        let sizes = sizes.iter().copied().chain(std::iter::repeat(0));
        let groups = self.groups.iter().zip(sizes);
        groups
            .map(|((name, text), size)| (name.as_str(), size, text.as_str()))
            .collect()
    }
}

/// A plan's bytes and what it was made of. Both follow from seed and size alone, so that a fault more or less leaves the fleet as it is.
pub fn plan(rng: &mut Rng, hosts: usize, policies: bool, led: Led) -> (Vec<u8>, Recipe) {
    let count = 1 + rng.below(5.min(hosts as u64)) as usize;
    let mut left = hosts;
    let (mut groups, mut sizes) = (Vec::new(), Vec::new());
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
            text = led.policy(text);
        }
        groups.push(((*name).to_owned(), text));
        sizes.push(size);
    }
    // Only a bridge leaves a way back to PMM 2.
    let bridge = rng.one_in(if policies { 2 } else { 4 });
    let decision = if bridge { BRIDGE } else { fixture::ACCEPT };
    let direct: Vec<usize> = if rng.one_in(2) {
        (0..hosts).filter(|_| rng.one_in(8)).collect()
    } else {
        Vec::new()
    };
    let recipe = Recipe { groups, decision };
    let mut draft = fixture::draft_with(&recipe.specs(&sizes), decision, &direct);
    if policies {
        spread(rng, &mut draft.plan);
        let short = rng.one_in(2);
        if short || led == Led::Backups {
            draft.plan.timing.backup_for_ms = 180_000;
        }
    }
    let bytes = draft.into_bytes().map(|(_, bytes)| bytes).unwrap_or_default();
    (bytes, recipe)
}

/// Every machine of the fleet in the order of the plan's hosts, then those that come late; and the faults that are in their nature.
pub fn machines(rng: &mut Rng, plan: &Plan, faults: FaultSet) -> (Vec<Agent>, Vec<Listed>, Vec<Fault>) {
    let bad = [0, 5, 15, 40][rng.below(4) as usize];
    let (mut agents, mut listed, mut natures) = (Vec::new(), Vec::new(), Vec::new());
    for planned in &plan.hosts {
        let from = planned.from.unwrap_or(PMM2);
        let (fault, nature) = nature(rng, faults, bad);
        natures.extend(fault);
        listed.push(Listed {
            number: planned.host.as_str()[1..].parse().unwrap_or_default(),
            agent_id: planned.agent_id.clone(),
            node_id: planned.node_id.clone(),
            node_name: planned.agent_id.replace("agent", "node"),
            service_id: planned.agent_id.replace("agent", "service"),
            service_name: format!("mysql-{}", planned.node_id),
            direct: planned.repoint.is_some(),
            joined: true,
            group: planned.group.to_string(),
        });
        agents.push(Agent::new(planned.host.clone(), nature, from));
    }
    let late = if rng.one_in(3) {
        0
    } else {
        1 + rng.below(6) as usize
    };
    for number in (plan.hosts.len()..)
        .take(late)
        .filter(|_| faults.has(Fault::LateHost))
    {
        let (_, nature) = nature(rng, faults, bad);
        listed.push(Listed {
            number,
            agent_id: format!("agent-{number}"),
            node_id: format!("node-{number}"),
            node_name: format!("node-{number}"),
            service_id: format!("service-{number}"),
            service_name: format!("mysql-node-{number}"),
            direct: false,
            joined: false,
            group: String::new(),
        });
        agents.push(Agent::new(HostId::new(format!("h{number}")), nature, PMM2));
    }
    (agents, listed, natures)
}

/// Sets, sites and the rollout's own threshold: what the fleet's inventory and labels would say.
fn spread(rng: &mut Rng, plan: &mut Plan) {
    if rng.one_in(4) {
        plan.failure_threshold = Some(rng.below(4) as u32);
    }
    let (sets, sites) = (rng.one_in(3), rng.one_in(4));
    let members = 2 + rng.below(3) as usize;
    let places = 2 + rng.below(4);
    for group in plan.groups.iter_mut().filter(|_| sites) {
        group.per_site = Some(1 + rng.below(5) as u32);
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
        text.push_str("health = { good_views = 3, patience = \"3m\" }\n");
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
    if rng.one_in(4) {
        text.push_str("retry = { transient = { times = 1, backoff = [\"10s\"] }, install = { times = 1, backoff = [\"20s\"] }, verify = { times = 1, backoff = [\"20s\"] } }\n");
    }
    if rng.one_in(6) {
        text.push_str("deadline = \"20m\"\n");
    }
    // About the time at which groups have their turns: lives begin at 22:13:20.
    if rng.one_in(10) {
        let short: Vec<String> = (14..32)
            .step_by(2)
            .map(|minute| format!("{{ from = \"22:{minute}\", for = \"1m\", zone = \"UTC\" }}"))
            .collect();
        let last = "{ from = \"22:32\", for = \"23h\", zone = \"UTC\" }";
        text.push_str(&format!("windows = [{}, {last}]\n", short.join(", ")));
    } else if rng.one_in(8) {
        text.push_str("windows = [{ from = \"22:10\", for = \"8m\", zone = \"UTC\" }, { from = \"22:30\", for = \"23h\", zone = \"UTC\" }]\n");
    }
    // Drawn beside the row of draws: whoever has none is as it would be without this.
    if Rng(rng.0 ^ 0xB1AC).one_in(6) {
        let times = [("22:16", "22:18"), ("22:21", "22:24"), ("22:40", "22:50")];
        let cuts = times.map(|(from, until)| {
            format!("{{ from = \"2023-11-14T{from}\", until = \"2023-11-14T{until}\", zone = \"UTC\" }}")
        });
        text.push_str(&format!("blackouts = [{}]\n", cuts.join(", ")));
    }
    text
}

/// How a host takes what it is told.
pub fn nature(rng: &mut Rng, faults: FaultSet, bad_percent: u64) -> (Option<Fault>, Nature) {
    let bad = rng.below(100) < bad_percent;
    let (fault, nature) = match rng.below(18) {
        0..=3 => (Fault::SlowHost, Nature::Slow),
        4 => (Fault::FailingHost, Nature::FailsBefore),
        5 | 6 => (Fault::FailingHost, Nature::RollsBack),
        7 => (Fault::FailingHost, Nature::Inconsistent),
        8 => (Fault::FailingHost, Nature::Unready),
        9 => (Fault::FailingHost, Nature::NoSamples),
        10 | 15 => (Fault::FailingHost, Nature::StaysBehind),
        11 => (Fault::FailingHost, Nature::NoWayBack),
        12 => (Fault::SilentHost, Nature::Silent),
        13 | 14 => (Fault::FlakyHost, Nature::Flaky),
        _ if rng.one_in(3) => (Fault::LyingHost, Nature::Lies),
        _ => (Fault::LyingHost, Nature::MakesUp),
    };
    if bad && faults.has(fault) {
        (Some(fault), nature)
    } else {
        (None, Nature::Good)
    }
}
