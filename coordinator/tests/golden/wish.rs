//! What operators want that depends on which plan is the newest and on what runs: decided by the coordinator's own code on its store.

use crate::steps::{Player, command, failed, refused, text};
use crate::world::audit;
use fleet_common::ids::PlanId;
use pmm_coordinator::plan_choice;
use pmm_coordinator::store::{PlanRow, Startable};
use rollout::kernel::Command;

/// What an operator wants that depends on what is stored: looked at first, carried out after that. Of two that look at once the second one
/// finds another state than the one it looked at.
pub(crate) enum Wish {
    Plan {
        row: Box<PlanRow>,
        newest: Option<PlanId>,
    },
    Start {
        wanted: String,
        found: Startable,
        accept_unmatched: Vec<String>,
    },
}

impl Player {
    pub(crate) fn at_once(&mut self, parts: &[(&str, Vec<String>)]) -> Result<String, String> {
        let wishes: Vec<Wish> = parts
            .iter()
            .map(|(_, words)| {
                self.wish(words)?
                    .ok_or_else(|| format!("`{}` looks at nothing first", words.join(" ")))
            })
            .collect::<Result<_, _>>()?;
        let mut all = String::new();
        for ((by, _), wish) in parts.iter().zip(wishes) {
            let printed = self.carry_out(by, wish)?;
            all.push_str(&format!("{by}:\n{}\n", printed.trim_end()));
        }
        Ok(all)
    }

    /// What must be looked up before it is carried out.
    pub(crate) fn wish(&self, words: &[String]) -> Result<Option<Wish>, String> {
        let core = &self.world.core;
        Ok(match words.first().map(String::as_str) {
            Some("plan") if words.get(1).is_some_and(|word| word == "-f") => Some(Wish::Plan {
                row: Box::new(self.world.plan_now()?),
                newest: core.newest_plan().map_err(text)?.map(|row| row.plan),
            }),
            Some("start") => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let Command::Start { accept_unmatched } = command(&words)? else {
                    return Err("it does not start anything".to_owned());
                };
                let wanted = words.get(1).filter(|word| !word.starts_with('-'));
                let wanted = wanted.copied().unwrap_or_default().to_owned();
                let plan = Some(PlanId::new(wanted.clone())).filter(|_| !wanted.is_empty());
                Some(Wish::Start {
                    found: core.startable(plan.as_ref()).map_err(text)?,
                    wanted,
                    accept_unmatched,
                })
            }
            _ => None,
        })
    }

    pub(crate) fn carry_out(&mut self, by: &str, wish: Wish) -> Result<String, String> {
        match wish {
            Wish::Plan { row, newest } => {
                let id = row.plan.clone();
                let line = audit(by, "plan", &id, self.world.now);
                if !self
                    .world
                    .core
                    .save_plan_after(*row, newest, line)
                    .map_err(text)?
                {
                    return Ok(failed(plan_choice::not_kept()));
                }
                self.plans.push(id);
                self.plan()
            }
            Wish::Start {
                wanted,
                found,
                accept_unmatched,
            } => {
                let row = match plan_choice::to_start(&wanted, found) {
                    Ok(row) => row,
                    Err(problem) => return Ok(failed(problem)),
                };
                let running = &self.world.kernel;
                if self.world.is_started() && !running.is_final() {
                    return Ok(failed(plan_choice::under_way(running.plan_id(), &row)));
                }
                let answer = self.world.start(by, &row, accept_unmatched);
                Ok(answer.unwrap_or_else(|refusal| refused(&refusal)))
            }
        }
    }
}
