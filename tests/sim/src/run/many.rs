//! Many lives at once, and what they went through.

use super::config::Config;
use super::shrink::shrink;
use super::world::{Break, Life, live};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// What a row of lives came to.
#[derive(Debug, Default)]
pub struct Lives {
    pub lives: u64,
    /// Whether the groups had policies.
    pub policies: bool,
    pub counts: BTreeMap<String, u64>,
    /// Seeds that broke a rule, with the rules.
    pub broken: BTreeMap<u64, BTreeMap<&'static str, Vec<String>>>,
    /// How long they lasted together, milliseconds of virtual time.
    pub lasted: u64,
}

/// Lives from a range of seeds on every core. Stops early once some broke a rule.
pub fn many(template: &Config, seeds: std::ops::Range<u64>, breaks: Option<Break>) -> Lives {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let all = Mutex::new(Lives::default());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Lives::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let life = live(&Config { seed, ..*template }, breaks, false);
                    own.take(seed, life);
                    if own.broken.len() > 4 {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
                let mut all = all.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                all.merge(own);
            });
        }
    });
    Lives {
        policies: template.policies,
        ..all
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Lives {
    fn take(&mut self, seed: u64, life: Life) {
        self.lives += 1;
        self.lasted += life.lasted;
        for (name, count) in life.counts {
            *self.counts.entry(name).or_default() += count;
        }
        if !life.violations.is_empty() {
            self.broken.insert(seed, life.violations);
        }
    }

    fn merge(&mut self, other: Self) {
        self.lives += other.lives;
        self.lasted += other.lasted;
        for (name, count) in other.counts {
            *self.counts.entry(name).or_default() += count;
        }
        self.broken.extend(other.broken);
    }

    /// What was expected and never happened.
    pub fn missing(&self) -> Vec<String> {
        super::expected::demanded(self.policies, self.lives)
            .into_iter()
            .filter(|name| !self.counts.contains_key(name))
            .collect()
    }

    /// What happened and is in no list.
    pub fn unlisted(&self) -> Vec<String> {
        let all: BTreeSet<String> = super::expected::all().into_iter().collect();
        let names = self
            .counts
            .keys()
            .filter(|name| super::expected::must_be_listed(name));
        names.filter(|name| !all.contains(*name)).cloned().collect()
    }

    /// All that is listed and all that happened, with counts, as a table of three columns.
    pub fn table(&self) -> String {
        let (all, missing) = (super::expected::all(), self.missing());
        // What is not asked of these lives and did not happen has a dash, a zero is a failure.
        let mut rows: BTreeMap<&str, String> =
            all.iter().map(|name| (name.as_str(), "-".to_owned())).collect();
        rows.extend(missing.iter().map(|name| (name.as_str(), "0".to_owned())));
        let counts = self.counts.iter();
        rows.extend(counts.map(|(name, count)| (name.as_str(), count.to_string())));
        let cells: Vec<String> = rows
            .iter()
            .map(|(name, count)| format!("{name:<44}{count:>11}"))
            .collect();
        let height = cells.len().div_ceil(3);
        let mut text = String::new();
        for line in 0..height {
            let row: Vec<&str> = (0..3)
                .filter_map(|column| cells.get(line + column * height))
                .map(String::as_str)
                .collect();
            let _ = writeln!(text, "{}", row.join("   "));
        }
        text
    }
}

/// The work of `cargo lab sim --seeds`. Prints to `say`; true when everything held and everything was exercised.
pub fn report(template: &Config, seeds: std::ops::Range<u64>, say: &mut dyn FnMut(&str)) -> bool {
    let begun = Instant::now();
    let lives = many(template, seeds, None);
    say(&lives.table());
    say(&format!(
        "{} lives of {} hosts, {} virtual hours, in {:.1} s",
        lives.lives,
        template.hosts,
        lives.lasted / 3_600_000,
        begun.elapsed().as_secs_f64()
    ));
    let mut well = true;
    for (seed, rules) in lives.broken.iter().take(1) {
        well = false;
        let config = Config {
            seed: *seed,
            ..*template
        };
        for (rule, found) in rules {
            say(&format!(
                "seed {seed} breaks the rule `{rule}`: {}",
                found.join("; ")
            ));
        }
        if let Some((rule, _)) = rules.first_key_value() {
            say("making it smaller ...");
            let (small, life) = shrink(&config, rule, None);
            say(&story(&small, &life));
        }
    }
    for (seed, rules) in lives.broken.iter().skip(1) {
        for (rule, found) in rules {
            say(&format!(
                "also seed {seed}: `{rule}`: {}",
                found.first().map_or("", String::as_str)
            ));
        }
    }
    let missing = lives.missing();
    if well && !missing.is_empty() {
        well = false;
        say(&format!("never exercised: {}", missing.join(", ")));
    }
    let unlisted = lives.unlisted();
    if well && !unlisted.is_empty() {
        well = false;
        say(&format!("not listed: {}", unlisted.join(", ")));
    }
    well
}

/// The work of `cargo lab sim --seed`.
pub fn replay(config: &Config, small: bool, say: &mut dyn FnMut(&str)) -> bool {
    let life = live(config, None, true);
    if life.violations.is_empty() {
        say(&format!(
            "seed {} with {} hosts: every rule held for {} virtual minutes",
            config.seed,
            config.hosts,
            life.lasted / 60_000
        ));
        return true;
    }
    say(&story(config, &life));
    if small && let Some((rule, _)) = life.violations.first_key_value() {
        say("making it smaller ...");
        let (small, life) = shrink(config, rule, None);
        say(&story(&small, &life));
    }
    false
}

/// How a life went, and the command that lives it again.
pub fn story(config: &Config, life: &Life) -> String {
    let mut text = String::new();
    let from = life.trace.len().saturating_sub(60);
    for line in &life.trace[from..] {
        let _ = writeln!(text, "{line}");
    }
    for (rule, found) in &life.violations {
        let _ = writeln!(text, "broken: {rule}\n  {}", found.join("\n  "));
    }
    let _ = write!(text, "again: {}", config.command());
    text
}
