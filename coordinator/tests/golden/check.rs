//! What must hold for every explanation at every moment of every scenario, and tests of the harness itself.

use crate::{Test, script, steps};
use pmm_coordinator::cli;
use rollout::explain::{ExplainDocument, explain};
use rollout::kernel::{Input, Kernel};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// States in which nothing is waited for.
const FINAL: [&str; 18] = [
    "succeeded",
    "finished_with_exceptions",
    "finished_with_lost",
    "aborted",
    "settled",
    "cancelled",
    "done",
    "upgraded",
    "already_current",
    "rolled_back",
    "failed",
    "inconsistent",
    "refused",
    "skipped",
    "lost",
    "surveyed",
    "repointed",
    "not_in_a_leg",
];

/// Everything that is not final says what, why, since when, until when, and what to do; and `status` counts the same reasons.
pub fn explained(kernel: &Kernel, now_ms: u64) -> Result<(), String> {
    let plan = kernel.plan();
    let groups = plan.groups.iter().map(|group| format!("group:{}", group.name));
    let hosts = plan.hosts.iter().map(|host| format!("host:{}", host.host));
    let subjects = ["rollout".to_owned(), "server".to_owned()]
        .into_iter()
        .chain(groups)
        .chain(hosts);
    let mut waits = BTreeSet::new();
    let mut documents = Vec::new();
    for subject in subjects {
        let Some(document) = explain(kernel, &subject, now_ms) else {
            continue;
        };
        lacks(&document, kernel).map_err(|what| format!("explain {subject}: {what}\n{document:#?}"))?;
        waits.extend(
            document
                .waits_for
                .iter()
                .map(|text| (document.code.clone(), text.clone())),
        );
        documents.push(document);
    }
    for document in &documents {
        same_source(document, &documents)
            .map_err(|what| format!("explain {}: {what}\n{document:#?}", document.subject))?;
    }
    let view = rollout::progress::view(kernel, now_ms);
    for wait in view.waits {
        let busy = |name: &&String| view.in_flight.iter().any(|host| host.name == **name);
        if let Some(name) = wait.hosts.iter().find(busy) {
            return Err(format!("`status` lists {name} both in flight and waiting"));
        }
        let named = (wait.code.clone(), wait.text.clone());
        if !waits.contains(&named) {
            return Err(format!(
                "`status` counts {named:?}, which `explain` says of nobody"
            ));
        }
    }
    Ok(())
}

/// A screen on which nothing is wider than it.
pub fn fits(screen: String, width: usize) -> Result<String, String> {
    match screen.lines().find(|line| line.chars().count() > width) {
        Some(line) => Err(format!("a line is wider than {width} columns: {line}")),
        None => Ok(screen),
    }
}

/// Where a subject waits for the end of another's state, its time is the one that the other one names itself.
fn same_source(document: &ExplainDocument, documents: &[ExplainDocument]) -> Result<(), String> {
    let Some(at) = document.deadline_ms else {
        return Ok(());
    };
    let find = |subject: &str| documents.iter().find(|other| other.subject == subject);
    let is = |other: &ExplainDocument, named: &str| {
        let wait = other.deadline_ms.filter(|deadline| *deadline > document.now_ms);
        match wait.filter(|deadline| *deadline != at) {
            Some(own) => Err(format!(
                "it waits until {at} for {named}, which lasts until {own}"
            )),
            None => Ok(()),
        }
    };
    let then = document.then.strip_prefix("then ").unwrap_or_default();
    for host in documents
        .iter()
        .filter(|other| other.subject.starts_with("host:"))
    {
        let state = host.state.replace('_', " ");
        // In another leg it may be in the same state with another end; screens show only the one under way.
        if then.starts_with(&format!("{} ({state} in ", host.name)) {
            is(host, &host.name)?;
        }
    }
    let group = |before: &str, after: &str| {
        let (name, _) = then.strip_prefix(before)?.split_once(after)?;
        find(&format!("group:{name}"))
    };
    for (before, after) in [
        ("the soak of group ", " ends"),
        ("the wait after the canaries of group ", " ends"),
        ("the hosts of group ", " may begin"),
    ] {
        // While it is paused the group says first what the person does.
        if let Some(group) = group(before, after).filter(|group| group.owner == "coordinator") {
            is(group, &group.subject)?;
        }
    }
    if then.starts_with("the server's hop ") {
        find("server").map_or(Ok(()), |server| is(server, "the server"))?;
    }
    Ok(())
}

fn lacks(document: &ExplainDocument, kernel: &Kernel) -> Result<(), String> {
    let say = |what: &str| Err(what.to_owned());
    if document.state.is_empty() || document.reason.trim().is_empty() {
        return say("it lacks the state or why");
    }
    if document.since_ms == 0 || document.since_ms > document.now_ms {
        return say("it lacks since when");
    }
    for choice in &document.you_can {
        if choice.does.is_empty() {
            return say("it does not say what a choice does");
        }
        if !choice.command.is_empty() {
            typed(&choice.command)?;
            taken(&choice.command, kernel, document.now_ms)?;
        }
    }
    let ended = FINAL.contains(&document.state.as_str());
    // What was not begun when the rollout ended waits for nothing.
    if ended || (kernel.is_final() && document.code.is_empty()) {
        return Ok(());
    }
    if document.waits_for.iter().all(|text| text.is_empty()) || document.code.is_empty() {
        return say("it lacks what it waits for");
    }
    let ahead = document.deadline_ms.or(document.reminder_ms);
    if ahead.is_none_or(|at| at < document.now_ms) {
        return say("it lacks a deadline or reminder that is to come");
    }
    if document.then.is_empty() {
        return say("it lacks what happens then");
    }
    if document.you_can.is_empty() {
        return say("it lacks what the operator can do");
    }
    Ok(())
}

/// Whether the last screen says what, why, since when, until when and what to do.
pub fn says_everything(played: &str) -> Result<(), String> {
    let (step, screen) = played
        .rsplit_once("\n$ ")
        .and_then(|(_, last)| last.split_once('\n'))
        .ok_or("it has no step")?;
    if !step.starts_with("explain") {
        return Err("its last step is no `explain`".to_owned());
    }
    let has = |name: &str| screen.lines().any(|line| line.trim_start().starts_with(name));
    let ended = [": lost", ": inconsistent"]
        .iter()
        .any(|state| screen.contains(state));
    let ahead = has("until ") || has("reminder ") || ended;
    for (there, what) in [
        (
            screen.lines().next().is_some_and(|line| line.contains(": ")),
            "what",
        ),
        (has("why "), "why"),
        (has("since "), "since when"),
        (ahead, "until when"),
        (has("you can "), "what to do"),
    ] {
        if !there {
            return Err(format!("it lacks {what}"));
        }
    }
    Ok(())
}

/// Whether the command line takes this; each command is looked at once.
fn typed(command: &str) -> Result<(), String> {
    thread_local! {
        static KNOWN: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    }
    if KNOWN.with_borrow(|known| known.contains(command)) {
        return Ok(());
    }
    cli::takes(&steps::shell_words(command))?;
    KNOWN.with_borrow_mut(|known| known.insert(command.to_owned()));
    Ok(())
}

/// Whether the rollout takes what is offered, as it stands now.
fn taken(command: &str, kernel: &Kernel, now_ms: u64) -> Result<(), String> {
    let words = steps::shell_words(command);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // What is no command to a rollout, the command line alone has looked at.
    let Ok(order) = steps::command(&words) else {
        return Ok(());
    };
    let by = "ann".to_owned();
    match kernel
        .clone()
        .handle(Input::Operator { by, command: order }, now_ms)
        .answer
    {
        Some(Err(refusal)) => Err(format!("`{command}` is offered and refused: {}", refusal.reason)),
        _ => Ok(()),
    }
}

/// Tests of the harness.
pub fn tests() -> Vec<Test> {
    let test = |name: &str, run: fn() -> Result<(), String>| Test {
        name: name.to_owned(),
        run: Box::new(run),
    };
    vec![
        test("harness_refuses_scenarios_that_show_nothing", shows_nothing),
        test("harness_sees_a_changed_screen", sees_a_change),
        test("harness_splits_words_like_a_shell", splits_words),
    ]
}

fn shows_nothing() -> Result<(), String> {
    for (text, why) in [
        ("# a comment\n\ngroup db 1\n", "no step"),
        ("# a comment\n\ngroup db 1\n\n$ start\nstarted\n", "no screen"),
        ("group db 1\n\n$ status\n", "comment"),
        ("# a comment\n\ngruop db 1\n\n$ status\n", "no such line"),
        ("# a comment\n\ngroup db 1\n\n$ dance\n", "dance"),
    ] {
        match script::played(text) {
            Ok(_) => return Err(format!("taken: {text}")),
            Err(said) if said.contains(why) => {}
            Err(said) => return Err(format!("`{said}` does not say `{why}`")),
        }
    }
    Ok(())
}

fn sees_a_change() -> Result<(), String> {
    let setup = "# a comment\n\ngroup db 1\n\n";
    let played = script::played(&format!("{setup}$ start\n\n$ status\n"))?;
    let again = script::played(&played)?;
    if played != again {
        return Err(format!("not stable:\n{}", crate::diff::lines(&played, &again)));
    }
    let changed = played.replace("survey", "sruvey");
    let shown = crate::diff::lines(&changed, &played);
    if script::played(&changed)? == played && shown.contains("\n- ") && shown.contains("\n+ ") {
        return Ok(());
    }
    Err(format!("the difference is not shown:\n{shown}"))
}

fn splits_words() -> Result<(), String> {
    let words = steps::shell_words("host hold 'my host' --reason \"why not\" ''");
    if words == ["host", "hold", "my host", "--reason", "why not", ""] {
        return Ok(());
    }
    Err(format!("{words:?}"))
}
