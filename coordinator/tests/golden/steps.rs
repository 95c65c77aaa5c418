//! The steps of a script.

use crate::check;
use crate::fleet::Setup;
use crate::host::Behaviour;
use crate::world::World;
use fleet_common::ids::{GroupName, HostId, LegId, PlanId};
use fleet_common::server::HopOutcome;
use pmm_coordinator::cli::screens;
use pmm_coordinator::operator_api::documents::{
    EventsDocument, ExplainedDocument, LiveStatus, PlanDiffDocument, PlanDocument,
};
use pmm_coordinator::plan_choice;
use pmm_coordinator::problem::{Problem, Problems};
use pmm_coordinator::store::{PlanRow, StoreError, WaitingPlan};
use rollout::kernel::{Command, Input, Kernel, Refusal, RollbackTarget, RolloutPhase};
use rollout::plan::Plan;
use std::collections::BTreeMap;

/// Width of a screen where a step names none.
const WIDTH: usize = 100;
/// Width of a list of events where a step names none.
const WIDE: usize = 1_000;
/// Longest wait of `run until`, milliseconds of virtual time.
const PATIENCE: u64 = 15 * 86_400_000;
/// Events of one subject that `explain` adds, as in the program but shorter.
const EVENTS: usize = 4;

/// How often every explanation is looked at while nothing is under way.
const EXPLAINED_EVERY_MS: u64 = 60_000;

pub struct Player {
    pub(crate) world: World,
    /// Plans in the order in which they were kept; in scripts and on screens they are `plan-1`, `plan-2`, ...
    pub(crate) plans: Vec<PlanId>,
    watch: screens::Lines,
    /// Events and time at the last look at every explanation.
    explained: (usize, u64),
}

/// What a fleet file that is refused prints instead of a plan.
pub fn refused_plan(setup: &Setup) -> Option<String> {
    let errors = setup.draft(&setup.hosts(), setup.server, setup.now, None).err()?;
    let problems = pmm_coordinator::pmm::problems(errors);
    let texts: Vec<String> = problems.errors.iter().map(Problem::render).collect();
    Some(texts.join("\n"))
}

impl Player {
    pub fn new(setup: Setup) -> Result<Self, String> {
        let world = World::new(setup)?;
        let plans = vec![world.kernel.plan_id().clone()];
        Ok(Self {
            world,
            plans,
            watch: screens::Lines::default(),
            explained: (0, 0),
        })
    }

    /// Whether a step shows what the program prints.
    pub fn is_screen(step: &str) -> bool {
        let step = step.split_once(": ").map_or(step, |(_, step)| step);
        let first = step.split_whitespace().next().unwrap_or_default();
        matches!(
            first,
            "status" | "explain" | "plan" | "report" | "watch" | "events"
        )
    }

    /// Does a step; what it prints. `bob: ` in front names the operator, who is ann else; ` & ` between two lets them look at once.
    pub fn step(&mut self, line: &str) -> Result<String, String> {
        let parts: Vec<(&str, Vec<String>)> = line.split(" & ").map(|part| self.typed(part)).collect();
        let printed = match &parts[..] {
            [(by, words)] => self.one(by, words)?,
            _ => self.at_once(&parts)?,
        };
        check::explained(&self.world.kernel, self.world.now)?;
        Ok(self.named(printed))
    }

    /// Who types what; plans by their ids.
    fn typed<'a>(&self, line: &'a str) -> (&'a str, Vec<String>) {
        let (by, line) = line
            .split_once(": ")
            .filter(|(by, _)| by.chars().all(|c| c.is_ascii_lowercase()))
            .unwrap_or(("ann", line));
        let mut words = shell_words(line);
        for word in &mut words {
            let number = word
                .strip_prefix("plan-")
                .and_then(|number| number.parse::<usize>().ok());
            if let Some(id) = number.and_then(|number| self.plans.get(number.checked_sub(1)?)) {
                *word = id.to_string();
            }
        }
        (by, words)
    }

    /// Ids that follow from all bytes of a plan would change with each of them.
    fn named(&self, mut printed: String) -> String {
        for (at, id) in self.plans.iter().enumerate() {
            printed = printed.replace(id.as_str(), &format!("plan-{}", at + 1));
        }
        printed
    }

    fn one(&mut self, by: &str, words: &[String]) -> Result<String, String> {
        if let Some(wish) = self.wish(words)? {
            pmm_coordinator::cli::takes(words)?;
            return self.carry_out(by, wish);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if let Some(problem) = self.before_any_start(&words)? {
            return Ok(failed(problem));
        }
        Ok(match words[..] {
            ["status"] => check::fits(self.status(WIDTH), WIDTH)?,
            ["status", width] => {
                let width = width.parse().map_err(|_| "no width")?;
                check::fits(self.status(width), width)?
            }
            ["explain"] => self.explain("rollout")?,
            ["explain", subject] => self.explain(subject)?,
            ["plan"] => self.plan()?,
            ["plan", "diff", plan] => {
                let typed: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
                pmm_coordinator::cli::takes(&typed)?;
                self.diff(plan)?
            }
            ["adopt", ref plan @ ..] => self.adopt(by, plan.first().copied())?,
            ["join", name, group] => {
                self.world.join(name, group);
                String::new()
            }
            ["edit", group, ref line @ ..] => {
                self.world.setup.edit(group, &line.join(" "))?;
                String::new()
            }
            ["slow-line", name] => self.each(&[name], World::slow)?,
            ["late", name] => self.each(&[name], World::late)?,
            ["store-restored", text] => {
                let text = text.to_owned();
                self.world.give(Input::StoreRestored { text });
                String::new()
            }
            ["doctor", "--adopt-epoch"] => {
                self.world.adopt();
                String::new()
            }
            ["report"] => {
                let report = rollout::report::report(&self.world.kernel, self.world.now);
                check::fits(screens::report(&report, WIDTH), WIDTH)?
            }
            ["watch"] => self.watch(),
            ["events", number] => self.events(number.parse().map_err(|_| "no number")?, WIDE),
            ["events", number, width] => {
                let width = width.parse().map_err(|_| "no width")?;
                let shown = self.events(number.parse().map_err(|_| "no number")?, width);
                check::fits(shown, width)?
            }
            ["run", time] => {
                let until = self.world.now + milliseconds(time)?;
                while self.world.now < until {
                    self.advance()?;
                }
                String::new()
            }
            ["run", "until", ref goal @ ..] => self.run_until(goal)?,
            ["offline", ref names @ ..] => self.each(names, World::offline)?,
            ["online", ref names @ ..] => self.each(names, World::online)?,
            ["held-there", name, reason] => {
                let id = self.host(name)?;
                self.world.hold_there(&id, reason);
                String::new()
            }
            ["crash"] => {
                self.world.crash();
                String::new()
            }
            ["blind"] => self.sight(false),
            ["sight"] => self.sight(true),
            ["host", name, word] if Behaviour::parse(word).is_some() => {
                let id = self.host(name)?;
                self.world.hosts.get_mut(&id).unwrap().behaviour = Behaviour::parse(word).unwrap();
                String::new()
            }
            ["server", "fails", hop, how] => {
                let outcome = match how {
                    "restored" => HopOutcome::Restored,
                    "refused" => HopOutcome::Refused,
                    "needs-operator" => HopOutcome::NeedsOperator,
                    _ => return Err("no such end of a hop".to_owned()),
                };
                self.world.server.fails = Some((hop.parse().map_err(|_| "no number")?, outcome));
                String::new()
            }
            ["nobody-returns"] => {
                self.world.server.nobody = true;
                String::new()
            }
            _ => self.operator(by, &words)?,
        })
    }

    /// The coordinator makes a rollout when it is started: before the first one there is nothing to look at, and nothing to command.
    fn before_any_start(&self, words: &[&str]) -> Result<Option<Problem>, String> {
        if self.world.is_started() {
            return Ok(None);
        }
        Ok(match words[0] {
            "status" | "explain" | "report" | "watch" | "events" => {
                let newest = self.world.core.newest_plan().map_err(text)?;
                Some(plan_choice::not_started(newest.map(|row| row.plan).as_ref()))
            }
            "pause" | "resume" | "abort" | "retry" | "skip" | "accept" | "approve" | "limit" | "rollback" => {
                Some(plan_choice::none_under_way())
            }
            _ => None,
        })
    }

    /// What must hold at the end of every scenario.
    pub fn judge(&self) -> Result<(), String> {
        match self.world.kernel.rollout().illegal {
            0 => Ok(()),
            number => Err(format!("{number} illegal transitions were asked for")),
        }
    }

    fn advance(&mut self) -> Result<(), String> {
        self.world.step();
        let (events, at) = self.explained;
        // While nothing is under way explanations change with the time alone, and some scenarios wait for days.
        let idle = !self.world.busy() && self.world.events.len() == events;
        if idle && self.world.now < at + EXPLAINED_EVERY_MS {
            return Ok(());
        }
        self.explained = (self.world.events.len(), self.world.now);
        check::explained(&self.world.kernel, self.world.now)
    }

    fn host(&self, name: &str) -> Result<HostId, String> {
        self.world
            .hosts
            .values()
            .find(|host| host.name == name)
            .map(|host| host.id.clone())
            .ok_or_else(|| format!("there is no host {name}"))
    }

    fn each(&mut self, names: &[&str], act: fn(&mut World, &HostId)) -> Result<String, String> {
        for name in names {
            let id = self.host(name)?;
            act(&mut self.world, &id);
        }
        Ok(String::new())
    }

    fn sight(&mut self, sight: bool) -> String {
        self.world.sight = sight;
        String::new()
    }

    fn run_until(&mut self, goal: &[&str]) -> Result<String, String> {
        let end = self.world.now + PATIENCE;
        while !reached(&self.world.kernel, goal, self.world.now)? {
            if self.world.now > end {
                return Err(format!(
                    "not reached in {} days; the status is\n{}",
                    PATIENCE / 86_400_000,
                    self.status(WIDTH)
                ));
            }
            self.advance()?;
        }
        Ok(String::new())
    }

    fn live(&self) -> LiveStatus {
        LiveStatus {
            status: rollout::progress::view(&self.world.kernel, self.world.now),
            progress: BTreeMap::new(),
            store_restored: None,
            waiting_plan: self.waiting().map(Into::into),
        }
    }

    /// A plan that the rollout could adopt.
    fn waiting(&self) -> Option<WaitingPlan> {
        let waiting = self.world.core.waiting_plan().expect("the store answers")?;
        Some(waiting).filter(|_| self.world.kernel.takes_another_plan())
    }

    /// The newest plan, as `plan` and `plan show` print it.
    pub(crate) fn plan(&self) -> Result<String, String> {
        let core = &self.world.core;
        let row = core.newest_plan().map_err(text)?.ok_or("there is no plan")?;
        let plan = read(&row)?;
        let started = core.plan_was_started(&row.plan).map_err(text)?;
        let runs = self.world.is_started() && !self.world.kernel.is_final();
        let waits = self.waiting().is_some_and(|waiting| waiting.plan == row.plan);
        let document = PlanDocument {
            plan_id: row.plan.to_string(),
            started,
            next: plan_choice::next(&row.plan, &plan, waits, !started && !runs),
            against_parent: waits.then(|| rollout::plan::diff(self.world.kernel.plan(), &plan)),
            plan,
        };
        check::fits(screens::plan(&document, self.world.now, WIDTH), WIDTH)
    }

    fn adopt(&mut self, by: &str, plan: Option<&str>) -> Result<String, String> {
        let core = &self.world.core;
        let row = match plan {
            Some(id) => core.plan(&PlanId::new(id)),
            None => core.newest_plan(),
        };
        let row = row.map_err(text)?.ok_or("there is no such plan")?;
        let answer = self.world.adopt_plan(by, row);
        Ok(answer.unwrap_or_else(|refusal| refused(&refusal)))
    }

    /// A plan against one that is made now of the same fleet file, as it was when the plan was made.
    fn diff(&self, plan: &str) -> Result<String, String> {
        let world = &self.world;
        let row = world.core.plan(&PlanId::new(plan)).map_err(text)?;
        let row = row.ok_or("there is no such plan")?;
        let file = String::from_utf8_lossy(&row.fleet_text);
        let now = world.draft_of(&file, world.is_started())?.plan;
        let document = PlanDiffDocument {
            from: row.plan.to_string(),
            to: "now".to_owned(),
            diff: rollout::plan::diff(&read(&row)?, &now),
        };
        check::fits(screens::plan_diff(&document, WIDTH), WIDTH)
    }

    fn status(&self, width: usize) -> String {
        screens::status(&self.live(), width)
    }

    fn explain(&self, subject: &str) -> Result<String, String> {
        let kernel = &self.world.kernel;
        let Some(mut explained) = rollout::explain::explain(kernel, subject, self.world.now) else {
            return Ok(failed(plan_choice::not_explained(kernel, subject)));
        };
        if let Some(waiting) = self.waiting().filter(|_| explained.subject == "rollout") {
            explained.with_waiting_plan(&waiting.plan, &waiting.follows);
        }
        let about = self
            .world
            .events
            .iter()
            .filter(|event| event.event.subject == explained.subject);
        let mut events: Vec<_> = about.rev().take(EVENTS).cloned().collect();
        events.reverse();
        Ok(screens::explain(&ExplainedDocument { explained, events }, WIDTH))
    }

    fn after(&self, sequence: u64) -> EventsDocument {
        let events = self.world.events.iter().filter(|event| event.sequence > sequence);
        EventsDocument {
            rollout: self.world.kernel.rollout_id().to_string(),
            events: events.cloned().collect(),
        }
    }

    fn events(&self, number: u64, width: usize) -> String {
        let all = self.world.events.len() as u64;
        screens::events(&self.after(all.saturating_sub(number)), width)
    }

    fn watch(&mut self) -> String {
        let mut lines = self.watch.events(&self.after(self.watch.seen()));
        lines.extend(self.watch.changes(&self.live()));
        lines.join("\n")
    }

    fn operator(&mut self, by: &str, words: &[&str]) -> Result<String, String> {
        let typed: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        pmm_coordinator::cli::takes(&typed)?;
        let answer = self.world.command(by, command(words)?);
        Ok(answer.unwrap_or_else(|refusal| refused(&refusal)))
    }
}

pub(crate) fn refused(refusal: &Refusal) -> String {
    let mut problem = Problem::new(refusal.reason.clone());
    if !refusal.hint.is_empty() {
        problem = problem.hint(refusal.hint.clone());
    }
    failed(problem)
}

/// What a command that was refused prints, and its exit status.
pub(crate) fn failed(problem: Problem) -> String {
    let problems = Problems::from(problem);
    let texts: Vec<String> = problems.errors.iter().map(Problem::render).collect();
    format!("{}\n(exit status {})", texts.join("\n"), problems.exit)
}

pub(crate) fn text(error: StoreError) -> String {
    error.to_string()
}

fn read(row: &PlanRow) -> Result<Plan, String> {
    Plan::parse(&row.document).map_err(|error| error.to_string())
}

/// A command line of the operator; the command line's own definition has taken it already.
pub(crate) fn command(words: &[&str]) -> Result<Command, String> {
    let mut names = Vec::new();
    let mut options: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut rest = words[1..].iter();
    while let Some(word) = rest.next() {
        match *word {
            "--reason" | "--accept-unmatched" | "--max-unavailable" | "--failure-threshold" => {
                let value = rest.next().copied().unwrap_or_default();
                options.entry(word).or_default().push(value.to_owned());
            }
            option if option.starts_with("--") => drop(options.entry(option).or_default()),
            name => names.push(name.to_owned()),
        }
    }
    let reason = options
        .get("--reason")
        .and_then(|all| all.first())
        .cloned()
        .unwrap_or_default();
    let number = |option: &str| options.get(option).and_then(|all| all.first()?.parse().ok());
    let has = |option: &str| options.contains_key(option);
    let first = names.first().cloned().unwrap_or_default();
    let second = names.get(1).cloned().unwrap_or_default();
    Ok(match (words[0], first.as_str()) {
        ("start", _) => Command::Start {
            accept_unmatched: options.get("--accept-unmatched").cloned().unwrap_or_default(),
        },
        ("pause", _) => Command::Pause { reason },
        ("resume", _) => Command::Resume {
            reason,
            accept_server: has("--accept-server"),
        },
        ("abort", _) => Command::Abort {
            reason,
            force: has("--force"),
        },
        ("retry", _) => Command::Retry {
            hosts: names,
            server: has("--server"),
        },
        ("approve", _) => Command::Approve { group: first },
        ("skip", _) => Command::Skip { host: first, reason },
        ("limit", _) => Command::Limit {
            group: first,
            max_unavailable: number("--max-unavailable"),
            failure_threshold: number("--failure-threshold"),
            reason,
        },
        ("accept", _) => Command::Accept { host: first, reason },
        ("rollback", "host") => Command::Rollback {
            target: RollbackTarget::Host(second),
            reason,
        },
        ("rollback", "group") => Command::Rollback {
            target: RollbackTarget::Group(second),
            reason,
        },
        ("rollback", "clients") => Command::Rollback {
            target: RollbackTarget::Clients,
            reason,
        },
        ("host", "hold") => Command::Hold { host: second, reason },
        ("host", "unhold") => Command::Unhold { host: second },
        ("host", "free-slot") => Command::FreeSlot { host: second, reason },
        _ => return Err("no such step".to_owned()),
    })
}

/// `run until host db01 verifying`, `group db done`, `leg clients-1 running`, `paused`, `ended`.
fn reached(kernel: &Kernel, goal: &[&str], now_ms: u64) -> Result<bool, String> {
    Ok(match goal {
        ["paused"] => kernel.phase() == RolloutPhase::Paused,
        ["ended"] => kernel.is_final(),
        ["checking"] => kernel.phase() == RolloutPhase::Checking,
        ["leg", leg, state] => {
            let leg = LegId::from(*leg);
            let row = kernel
                .legs()
                .iter()
                .find(|row| row.leg == leg)
                .ok_or("no such leg")?;
            word(row.phase) == *state
        }
        ["group", name, state] => {
            let name = GroupName::new(*name);
            kernel
                .legs()
                .iter()
                .filter_map(|leg| kernel.group(&leg.leg, &name))
                .any(|row| word(row.phase) == *state)
        }
        ["host", name, state] => {
            let document = rollout::explain::explain(kernel, name, now_ms).ok_or("no such host")?;
            document.state == *state
        }
        ["step", step] => {
            let hops = kernel.legs().iter().flat_map(|leg| &leg.hops);
            hops.filter(|hop| hop.order.is_some())
                .any(|hop| hop.steps.last().is_some_and(|row| row.step == *step))
        }
        _ => return Err("no such goal".to_owned()),
    })
}

fn word<T: serde::Serialize>(state: T) -> String {
    serde_json::to_value(state).unwrap().as_str().unwrap().to_owned()
}

fn milliseconds(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no time"))?;
    Ok(number
        * match unit {
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(format!("`{text}` is no time")),
        })
}

/// Words as a shell splits them; quotes are plain.
pub fn shell_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
