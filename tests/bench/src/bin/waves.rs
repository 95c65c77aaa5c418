//! A client wave of many agents over real TLS and sockets: the delay of orders, the overhead of the whole wave, and an abort in the middle.
//!
//! The end of the program is 1 when after an abort a switch began later than its permit's time or more of them than there were slots, or
//! when a rollout did not end as it should; the figures themselves only print.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use anyhow::{Context as _, ensure};
use bench::agent::{Agent, Notes, Pace, lock};
use bench::coordinator::{Coordinator, raise_descriptor_limit};
use bench::figures::{mean, percentile, schedule};
use bench::fleet::{self, Member, Pmm};
use clap::Parser;
use fake_agent::Identity;
use fleet_common::ids::{HostId, LegId};
use fleet_proto::InventoryWanted;
use fleet_proto::coordinator_message::Body;
use futures_util::{StreamExt as _, stream};
use pmm_coordinator::engine::Begin;
use pmm_coordinator::store::PlanRow;
use rollout::kernel::{Command, HostPhase, RolloutPhase};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

#[derive(Parser)]
struct Arguments {
    /// Simulated agents
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// Hosts that may switch at once
    #[arg(long, default_value_t = 100)]
    width: usize,
    /// Mean time of a switch on a host, milliseconds
    #[arg(long, default_value_t = 30_000)]
    step_ms: u64,
    /// Decides how long each host takes
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Longest wait for anything but a wave.
const PATIENCE: Duration = Duration::from_secs(120);
/// In the aborted wave hosts look around for so long before they change anything, at most: there are always permits that are not begun.
const CHECKS_MS: u64 = 4_000;
/// And a permit lasts so long: less than the rounds that would still follow, so that grants which went on would be seen.
const SHORT_PERMIT: &str = "5s";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    raise_descriptor_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The turn of a host: grant, receipt on the host, its report in the coordinator, end of the slot, end of everything, Unix milliseconds;
/// and how long it worked.
struct Turn {
    granted: u64,
    received: u64,
    worked: u64,
    switched: u64,
    verified: u64,
    ended: u64,
}

struct Bench {
    coordinator: Coordinator,
    pmm: Pmm,
    notes: Arc<Notes>,
    members: Vec<Member>,
    width: usize,
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let bench = Bench::connect(arguments).await?;
    let baseline = bench.ping().await?;
    println!("\nidle session, {} messages at once, baseline", bench.width);
    println!(
        "  delivery  p50 {:.2} ms  p99 {:.2} ms",
        percentile(&baseline, 50.0),
        percentile(&baseline, 99.0)
    );
    bench.whole_wave(arguments.step_ms, &baseline).await?;
    bench.abort_in_the_middle(arguments.step_ms / 6).await
}

impl Bench {
    async fn connect(arguments: &Arguments) -> anyhow::Result<Self> {
        let pmm = Pmm::default();
        let coordinator = Coordinator::start(&pmm).await?;
        let token = coordinator.token(arguments.agents as u64).await?;
        let begun = Instant::now();
        let enrol = |number: usize| {
            let (token, address) = (token.clone(), coordinator.enrolment);
            async move {
                let name = format!("db-{number:05}");
                let identity = Identity::enrol(address, &token, &name).await;
                (number, name, identity)
            }
        };
        let enrolled: Vec<_> = stream::iter(0..arguments.agents)
            .map(enrol)
            .buffer_unordered(8)
            .collect()
            .await;
        println!(
            "enrolled {} agents in {:.1} s",
            enrolled.len(),
            begun.elapsed().as_secs_f64()
        );
        let pace = Pace {
            step_ms: arguments.step_ms,
            checks_ms: 0,
        };
        let notes = Arc::new(Notes::new(pmm.clone(), arguments.seed, pace));
        let (up, mut welcomed) = mpsc::channel(64);
        let begun = Instant::now();
        let mut members = Vec::new();
        for (number, name, identity) in enrolled {
            let member = Member {
                name,
                host: HostId::new(identity.host.clone()),
            };
            members.push(member.clone());
            let agent = Agent::new(number as u64, member, notes.clone());
            let (address, up) = (coordinator.agents, up.clone());
            tokio::spawn(async move {
                if let Err(error) = agent.run(identity, address, up).await {
                    eprintln!("agent: {error:#}");
                }
            });
        }
        for at in 0..arguments.agents {
            tokio::time::timeout(PATIENCE, welcomed.recv())
                .await
                .with_context(|| format!("only {at} agents came up"))?;
        }
        println!(
            "connected {} agents in {:.1} s",
            arguments.agents,
            begun.elapsed().as_secs_f64()
        );
        members.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self {
            coordinator,
            pmm,
            notes,
            members,
            width: arguments.width,
        })
    }

    /// Messages of the coordinator to idle agents, as many at once as a wave has.
    async fn ping(&self) -> anyhow::Result<Vec<f64>> {
        for members in self.members.chunks(self.width) {
            for member in members {
                lock(&self.notes.pinged).insert(member.host.clone(), Instant::now());
                self.coordinator
                    .sessions
                    .send(&member.host, Body::InventoryWanted(InventoryWanted {}));
            }
            let begun = Instant::now();
            while !lock(&self.notes.pinged).is_empty() {
                ensure!(begun.elapsed() < PATIENCE, "an idle agent does not answer");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(lock(&self.notes.pongs_ms).clone())
    }

    async fn begin(&self, pace: Pace, permit: Option<&str>) -> anyhow::Result<PlanRow> {
        self.notes.clear(pace);
        let (store, members) = (&self.coordinator.store, &self.members);
        let plan = fleet::plan(store, &self.pmm, members, self.width, permit).await?;
        let begin = Begin {
            by: "bench".to_owned(),
            plan: plan.clone(),
            driver: Arc::new(self.pmm.clone()),
            accept_unmatched: Vec::new(),
        };
        let begun = self.coordinator.engine.begin(begin).await;
        begun.map_err(|problems| anyhow::anyhow!("not started: {problems:?}"))?;
        Ok(plan)
    }

    async fn phase(&self) -> anyhow::Result<RolloutPhase> {
        let phase = self
            .coordinator
            .engine
            .ask(|kernel, _| kernel.map(rollout::kernel::Kernel::phase))
            .await;
        phase.ok().flatten().context("no rollout")
    }

    async fn ended(&self, limit: Duration) -> anyhow::Result<RolloutPhase> {
        let begun = Instant::now();
        loop {
            let phase = self.phase().await?;
            if phase.is_final() {
                return Ok(phase);
            }
            ensure!(phase != RolloutPhase::Paused, "the rollout paused");
            ensure!(begun.elapsed() < limit, "the rollout does not end");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The turns of the hosts that were upgraded.
    async fn turns(&self) -> anyhow::Result<Vec<Turn>> {
        let members = self.members.clone();
        let received = lock(&self.notes.received_ms).clone();
        let worked = lock(&self.notes.worked_ms).clone();
        let turns = self.coordinator.engine.ask(move |kernel, _| {
            let kernel = kernel?;
            let leg: LegId = "clients-1".into();
            let turns = members.iter().filter_map(|member| {
                let row = kernel.host(&leg, &member.host)?;
                let upgraded = row.phase == HostPhase::Upgraded;
                Some(Turn {
                    granted: row.permitted_at_ms?,
                    received: *received.get(&member.host)?,
                    worked: *worked.get(&member.host)?,
                    switched: row.switched_at_ms?,
                    verified: row.verified_at_ms?,
                    ended: row.ended_at_ms.filter(|_| upgraded)?,
                })
            });
            let mut turns: Vec<Turn> = turns.collect();
            turns.sort_by_key(|turn| turn.granted);
            Some(turns)
        });
        turns.await.ok().flatten().context("no rollout")
    }

    async fn whole_wave(&self, step_ms: u64, baseline: &[f64]) -> anyhow::Result<()> {
        let pace = Pace {
            step_ms,
            checks_ms: 0,
        };
        self.begin(pace, None).await?;
        let rounds = self.members.len().div_ceil(self.width) as u64;
        let phase = self
            .ended(Duration::from_millis(rounds * step_ms * 3) + PATIENCE)
            .await?;
        ensure!(phase == RolloutPhase::Succeeded, "the rollout ended as {phase:?}");
        let turns = self.turns().await?;
        ensure!(
            turns.len() == self.members.len(),
            "only {} hosts were upgraded",
            turns.len()
        );
        println!(
            "\nwave of {} agents, width {}, {step_ms} ms a switch",
            turns.len(),
            self.width
        );
        tell_delivery(&turns, baseline);
        tell_overhead(&turns, self.width);
        Ok(())
    }

    async fn abort_in_the_middle(&self, step_ms: u64) -> anyhow::Result<()> {
        let pace = Pace {
            step_ms,
            checks_ms: CHECKS_MS,
        };
        let plan = self.begin(pace, Some(SHORT_PERMIT)).await?;
        let permit_ms = rollout::plan::Plan::parse(&plan.document)?.timing.permit_ms;
        let half = self.members.len() as u64 / 2;
        let begun = Instant::now();
        while (lock(&self.notes.begun).len() as u64) < half {
            ensure!(
                begun.elapsed() < Duration::from_secs(600),
                "the wave does not get to its middle"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let asked = Instant::now();
        let command = Command::Abort {
            reason: "in the middle".to_owned(),
            force: false,
        };
        let done = self.coordinator.engine.command("bench".to_owned(), command).await;
        done.map_err(|problems| anyhow::anyhow!("not aborted: {problems:?}"))?;
        let answered = asked.elapsed();
        let phase = self
            .ended(Duration::from_millis(permit_ms + step_ms * 3) + PATIENCE)
            .await?;
        ensure!(phase == RolloutPhase::Aborted, "the rollout ended as {phase:?}");
        let begun: Vec<Duration> = lock(&self.notes.begun)
            .iter()
            .filter_map(|begun| begun.at.checked_duration_since(asked))
            .collect();
        let last = begun.iter().max().copied().unwrap_or_default();
        let late = begun
            .iter()
            .filter(|after| **after > Duration::from_millis(permit_ms))
            .count();
        let called_back: Vec<f64> = lock(&self.notes.called_back)
            .iter()
            .filter_map(|at| at.checked_duration_since(asked))
            .map(|after| after.as_secs_f64() * 1000.0)
            .collect();
        println!(
            "\nabort in the middle, {} switches begun",
            lock(&self.notes.begun).len()
        );
        println!(
            "  committed and answered after {:.0} ms",
            answered.as_secs_f64() * 1000.0
        );
        println!(
            "  {} switches began after the command was given, the last {:.0} ms after it; a permit lasts {permit_ms} ms: {late} later (must be 0)",
            begun.len(),
            last.as_secs_f64() * 1000.0
        );
        println!(
            "  permits were called back on {} hosts: p50 {:.0} ms, p99 {:.0} ms after the command",
            called_back.len(),
            percentile(&called_back, 50.0),
            percentile(&called_back, 99.0)
        );
        println!(
            "  permits that arrived and were not used: {:?}",
            lock(&self.notes.unused)
        );
        ensure!(late == 0, "{late} switches began later than their permit");
        ensure!(
            begun.len() <= self.width,
            "{} switches began after the abort, with {} slots",
            begun.len(),
            self.width
        );
        Ok(())
    }
}

fn tell_delivery(turns: &[Turn], baseline: &[f64]) {
    let delays: Vec<f64> = turns
        .iter()
        .map(|turn| turn.received.saturating_sub(turn.granted) as f64)
        .collect();
    let (p50, p99) = (percentile(&delays, 50.0), percentile(&delays, 99.0));
    println!(
        "  delivery of permits, from the decision over the commit to the receipt  p50 {p50:.0} ms  p99 {p99:.0} ms  = {:.1} x the baseline's p99 (target: p99 < 250 ms)",
        p99 / percentile(baseline, 99.0).max(0.001)
    );
}

/// A wave lasts from its first permit until its last slot is free: what follows, the three checks and the keep orders, holds nobody up and is
/// told apart.
fn tell_overhead(turns: &[Turn], width: usize) {
    let first = turns.iter().map(|turn| turn.granted).min().unwrap_or(0);
    let last = turns.iter().map(|turn| turn.verified).max().unwrap_or(0);
    let ended = turns.iter().map(|turn| turn.ended).max().unwrap_or(0);
    let worked: u64 = turns.iter().map(|turn| turn.worked).sum();
    let ideal = worked as f64 / width as f64;
    let scheduled = schedule(turns.iter().map(|turn| turn.worked), width) as f64;
    let took = (last - first) as f64;
    println!(
        "  took {:.1} s, ideal {:.1} s (sum of step times / width): overhead {:.3} x (target: 1.05 x)",
        took / 1000.0,
        ideal / 1000.0,
        took / ideal
    );
    println!(
        "  against the same steps one after the other on {width} slots, nothing between them ({:.1} s): {:.3} x",
        scheduled / 1000.0,
        took / scheduled
    );
    let of = |part: fn(&Turn) -> u64| mean(&turns.iter().map(|turn| part(turn) as f64).collect::<Vec<_>>());
    let slots = took * width as f64 / turns.len().max(1) as f64;
    let busy = of(|turn| turn.verified - turn.granted);
    println!(
        "  a slot per host: {:.0} ms to the receipt, {:.0} ms of work, {:.0} ms until the coordinator knows, {:.0} ms until PMM shows it, {:.0} ms free",
        of(|turn| turn.received.saturating_sub(turn.granted)),
        of(|turn| turn.worked),
        of(|turn| turn.switched.saturating_sub(turn.received + turn.worked)),
        of(|turn| turn.verified - turn.switched),
        slots - busy
    );
    if let Some(turn) = turns.iter().max_by_key(|turn| turn.verified) {
        let at = |ms: u64| (ms - first) as f64 / 1000.0;
        let late = turns.last().map_or(first, |turn| turn.granted);
        println!(
            "  last permit at {:.1} s; last to end: permit at {:.1} s, switched at {:.1} s, shown by PMM at {:.1} s",
            at(late),
            at(turn.granted),
            at(turn.switched),
            at(turn.verified)
        );
    }
    println!(
        "  afterwards {:.1} s for the three checks and the keep orders",
        (ended - last) as f64 / 1000.0
    );
}
