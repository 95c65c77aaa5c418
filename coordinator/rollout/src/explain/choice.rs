//! What the operator can do, as commands that can be typed as they stand.

use crate::kernel::{Kernel, Pause, RolloutPhase};
use fleet_common::ids::HostId;
use serde::{Deserialize, Serialize};

/// Something that the operator can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Arguments of `pmm-coordinator`, complete; empty for what is done elsewhere.
    pub command: String,
    /// What follows from it, or what is to be done.
    pub does: String,
}

/// A command.
pub(super) fn run(command: impl Into<String>, does: impl Into<String>) -> Choice {
    Choice {
        command: command.into(),
        does: does.into(),
    }
}

/// Work that no command does.
pub(super) fn work(does: impl Into<String>) -> Choice {
    run("", does)
}

/// A name as one word of a shell.
pub(super) fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if !name.is_empty() && !name.starts_with('-') && name.chars().all(plain) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', "'\\''"))
}

pub(super) fn pause(kernel: &Kernel) -> Choice {
    let does = if kernel.rollout().going_back.is_some() {
        "no further host is told to go back; what is under way goes on"
    } else {
        "no further host and no hop begins; what is under way goes on"
    };
    run("pause", does)
}

pub(super) fn abort() -> Choice {
    run(
        "abort",
        "ends it: nothing begins any more, what is under way finishes",
    )
}

pub(super) fn force() -> Choice {
    run(
        "abort --force",
        "ends it, and hosts that are not verified go back to their old client",
    )
}

pub(super) fn watch() -> Choice {
    run("watch", "follow it; nothing has to be done")
}

pub(super) fn new_plan(why: &str) -> Choice {
    run("plan -f fleet.toml", why)
}

/// The ways out of a pause, by its reason.
pub(super) fn out_of(kernel: &Kernel, pause: &Pause) -> Vec<Choice> {
    let resume = |does: &str| run("resume", does);
    if pause.over_since_ms.is_some() {
        return vec![
            resume("the cause of the pause is gone: hosts begin again"),
            abort(),
        ];
    }
    let mut choices = match pause.code.as_str() {
        "operator" if kernel.rollout().going_back.is_some() => vec![resume("the other hosts go back")],
        "operator" => vec![resume("hosts and hops begin again")],
        "threshold" => {
            let mut choices = vec![run(
                "retry",
                "after the repair: the failed hosts are tried again and the rollout goes on",
            )];
            choices.extend(lost(kernel).take(3).map(bring_back));
            choices.push(resume(
                "the failures so far are accepted, the rest of the group goes on",
            ));
            choices
        }
        "inconclusive" => vec![work(pause.hint.clone()), resume("looks again, as long as before")],
        "offline" => vec![
            work("bring the hosts back that are away"),
            resume("goes on, without those that are still away"),
        ],
        "group_deadline" => vec![
            run("status", "what its hosts are doing"),
            resume("the group has the same time again"),
        ],
        "rollback" => vec![
            run(
                "retry",
                "after the repair: the hosts that went back are tried again",
            ),
            resume("goes on without the hosts that went back"),
        ],
        // Until it is adopted, that is told of everything; see `in_doubt`.
        fleet_common::codes::STORE_RESTORED => vec![resume("when the hosts are back: they begin again")],
        "slots_exhausted" | "set_exhausted" | "site_exhausted" => {
            let mut choices = vec![run(
                "retry",
                "after the repair: the hosts that hold the slots are tried again",
            )];
            let holders = kernel.idle_holders();
            let away = holders.iter().filter(|host| is_waited_for(kernel, host));
            choices.extend(away.map(|host| bring_back(kernel.name(host))));
            let held = holders.iter().filter(|host| begins(kernel, host));
            choices.extend(held.filter_map(|host| unhold(kernel, host)));
            choices.extend(holders.iter().map(|host| free_slot(kernel.name(host))));
            choices.push(resume("once a slot is free"));
            choices
        }
        "survey" => vec![
            run("retry", "after the repair: the hosts are asked again"),
            resume("goes on: who failed the survey is left out, who did not answer is asked at its turn"),
        ],
        "bridge_incomplete" => vec![
            run(
                "retry",
                "after the repair: the hosts that stayed behind are tried again",
            ),
            resume("goes on; the hosts that stayed behind lose the next server"),
        ],
        "stranded" => vec![
            new_plan("after the repair: a plan that the rollout can `adopt`"),
            resume("goes on without these clients"),
        ],
        "repoint" => vec![
            run("retry", "after the repair: the clients are moved again"),
            resume("goes on without the hosts whose client did not follow"),
        ],
        "server_view_missing" => vec![
            work("make the PMM Server reachable for the coordinator"),
            resume("it is asked again"),
        ],
        code if code.starts_with("server_") => server(kernel),
        _ => vec![work(pause.hint.clone()), resume("goes on")],
    };
    if let Some(before) = &pause.before {
        for choice in choices.iter_mut().filter(|choice| choice.command == "resume") {
            choice.does = format!(
                "ends the pause of {} ({}); then it still waits for a person, as told here",
                before.by, before.text
            );
        }
    }
    choices.push(abort());
    choices
}

/// The ways out of a server leg that did not settle.
pub(super) fn server(kernel: &Kernel) -> Vec<Choice> {
    let mut choices = Vec::new();
    if kernel.waits_for_clients().is_some() {
        choices.push(run(
            "retry --server",
            "nothing is done again: it only waits and looks again, as long as a fleet of this size may take",
        ));
        choices.push(run(
            "resume --accept-server",
            "goes on although no client came back",
        ));
    } else {
        choices.push(run(
            "retry --server",
            "after the repair: the hop is tried again from where it started",
        ));
    }
    choices
}

pub(super) fn free_slot(name: &str) -> Choice {
    run(
        format!("host free-slot {} --reason '...'", quoted(name)),
        "its slot is free for another host, without its client being repaired",
    )
}

/// Whether the next attempt of a host that holds a slot is still to come.
fn begins(kernel: &Kernel, host: &HostId) -> bool {
    let mut rows = kernel.hosts.values().filter_map(|rows| rows.get(host));
    rows.any(|row| row.slot && row.phase.before_permit())
}

/// Whether a host that holds a slot goes on by itself when it returns.
fn is_waited_for(kernel: &Kernel, host: &HostId) -> bool {
    let mut rows = kernel.hosts.values().filter_map(|rows| rows.get(host));
    rows.any(|row| row.slot && row.is_awaited()) || begins(kernel, host) && !kernel.is_connected(host)
}

/// Lifts an operator's hold; one on the host itself is lifted there.
fn unhold(kernel: &Kernel, host: &HostId) -> Option<Choice> {
    let hold = kernel.holds.get(host)?;
    let name = kernel.name(host);
    if hold.operator.is_some() {
        return Some(run(
            format!("host unhold {}", quoted(name)),
            "it may begin at its turn",
        ));
    }
    hold.host.is_some().then(|| {
        work(format!(
            "on {name}: `pmm-upgrade-agent unhold`, because it is held there"
        ))
    })
}

fn lost(kernel: &Kernel) -> impl Iterator<Item = &str> {
    let rows = kernel.hosts.values().flat_map(|rows| rows.iter());
    let lost = rows.filter(|(_, row)| row.is_awaited() && row.counts);
    lost.map(|(host, _)| kernel.name(host))
}

pub(super) fn accept(name: &str) -> Choice {
    run(format!("accept {}", quoted(name)), "it passes without a verdict")
}

pub(super) fn see_again() -> Vec<Choice> {
    vec![work("make the PMM Server reachable for the coordinator")]
}

pub(super) fn bring_back(name: &str) -> Choice {
    work(format!("bring {name} or its agent back; it goes on by itself"))
}

/// What a person does about a store that is older than what hosts saw.
pub(super) fn in_doubt() -> Vec<Choice> {
    vec![
        work("if a newer store exists, stop this coordinator and start that one"),
        run(
            "doctor --adopt-epoch",
            "else: takes the store as it is for the truth, after it was looked at",
        ),
    ]
}

/// Leaves out what the rollout would refuse now.
pub(super) fn retain_taken(kernel: &Kernel, host: Option<&HostId>, choices: &mut Vec<Choice>) {
    let row = kernel.rollout();
    let ended = kernel.is_final();
    let aborts = |force: bool| match &row.abort {
        Some(earlier) => force && !earlier.force,
        None => true,
    };
    let doubted = kernel.is_doubted() && !ended;
    choices.retain(|choice| {
        let words: Vec<&str> = choice.command.split(' ').collect();
        match words[..] {
            ["abort", ref rest @ ..] => !ended && aborts(rest.contains(&"--force")),
            ["pause", ..] => matches!(
                row.phase,
                RolloutPhase::Running | RolloutPhase::Checking | RolloutPhase::RollingBack
            ),
            ["host", "hold", ..] | ["skip", ..] => !ended,
            [
                "resume" | "retry" | "approve" | "accept" | "rollback" | "start",
                ..,
            ]
            | ["host", "unhold" | "free-slot", ..]
                if doubted =>
            {
                false
            }
            ["resume"] => row.phase == RolloutPhase::Paused && !kernel.is_server_stuck(),
            ["retry"] => kernel.retries_unnamed(),
            ["retry", "--server"] => kernel.is_server_stuck() && row.abort.is_none(),
            ["retry", ..] => host.is_none_or(|host| kernel.retries(host)),
            ["rollback", "host", ..] => host.is_none_or(|host| kernel.goes_back(host)),
            _ => true,
        }
    });
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn names_are_one_word_for_a_shell() {
        assert_eq!(quoted("db-03.example.com"), "db-03.example.com");
        assert_eq!(quoted("my host"), "'my host'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted("--force"), "'--force'");
        assert_eq!(quoted(""), "''");
    }
}
