//! The plan and the difference of two plans as text.

use super::output::Lists;
use super::survey;
use super::text::{duration, fold, table_within};
use crate::operator_api::documents::{PlanDiffDocument, PlanDocument};
use ::rollout::explain;
use ::rollout::fleet::{blackout_text, duration_text, moment_text, window_text};
use ::rollout::plan::{Change, ChangeKind, HostAction, LeftOut, LegKind, Plan, PlanGroup, PlanHost, Warning};
use ::rollout::policy::{FailureClass, HealthGate, Offline, OnBreach, RetryPolicy, Window};
use ::rollout::windows::{Opening, opening};
use std::fmt::Write as _;

/// Most rows of hosts, and most lines of a list, on a screen.
const ROWS: usize = 40;
const LINES: usize = 20;

pub(super) fn text(document: &PlanDocument, now_ms: u64, width: usize, lists: Lists) -> String {
    let screen = Screen { width, lists };
    let plan = &document.plan;
    let mut text = String::new();
    let started = if document.started { " (started)" } else { "" };
    let _ = writeln!(text, "{}{started} from {}", document.plan_id, plan.fleet_file);
    let _ = writeln!(
        text,
        "server {} at {}: {} -> {}",
        plan.server.name, plan.server.url, plan.server.from, plan.server.to
    );
    if let Some(parent) = &plan.parent {
        let _ = writeln!(text, "follows {parent}");
    }
    legs(plan, &mut text);
    groups(plan, now_ms, width, &mut text);
    forecast(plan, width, &mut text);
    if let (Some(diff), Some(parent)) = (&document.against_parent, &plan.parent) {
        let lines: Vec<String> = diff.changes.iter().map(change_line).collect();
        if lines.is_empty() {
            let _ = writeln!(text, "\nit does the same as {parent}, which was started");
        }
        let title = format!("what it does other than {parent}, which was started");
        screen.list(&mut text, &title, &lines);
    }
    hosts(plan, screen, &mut text);
    let unmatched: Vec<String> = plan
        .unmatched
        .iter()
        .map(|client| {
            let beside = if client.beside_server {
                ", beside the server's container"
            } else {
                ""
            };
            format!(
                "{} ({}{beside})",
                client.name,
                client.version.as_deref().unwrap_or("release unknown")
            )
        })
        .collect();
    // A plan that is adopted has no start to block.
    let adopted = document
        .next
        .as_ref()
        .is_some_and(|next| next.starts_with("adopt"));
    let asks = if adopted {
        "before PMM 3, the rollout waits for a person unless they were accepted"
    } else {
        "block the start unless accepted with --accept-unmatched"
    };
    screen.list(
        &mut text,
        &format!("clients in PMM without our agent ({asks})"),
        &unmatched,
    );
    let stranded: Vec<String> = plan
        .stranded
        .iter()
        .map(|client| format!("{} at {}: {}", client.name, client.address, client.reason))
        .collect();
    screen.list(
        &mut text,
        &format!("clients that would lose the server ({asks})"),
        &stranded,
    );
    left_out(
        &mut text,
        "agents whose client PMM does not know",
        (&plan.without_node, explain::WITHOUT_NODE),
        screen,
    );
    left_out(
        &mut text,
        "hosts that report to another PMM Server",
        (&plan.other_server, explain::OTHER_SERVER),
        screen,
    );
    left_out(
        &mut text,
        "hosts that no group matches (never touched)",
        (&plan.ungrouped, explain::UNGROUPED),
        screen,
    );
    left_out(
        &mut text,
        "hosts without a PMM client",
        (&plan.without_client, explain::WITHOUT_CLIENT),
        screen,
    );
    if !plan.blockers.is_empty() {
        let _ = writeln!(text, "\nthese block the start:");
        survey::findings_text(&mut text, &plan.blockers, width);
    }
    let warnings: Vec<String> = plan
        .warnings
        .iter()
        .map(|warning| warning_line(plan, warning))
        .collect();
    screen.list(&mut text, "worth reading", &warnings);
    if let Some(next) = &document.next {
        let what = if next.starts_with("adopt") {
            "lets it take over from the plan that runs"
        } else {
            "begins it"
        };
        let _ = writeln!(text, "\nnext: `pmm-coordinator {next}` {what}");
    }
    text
}

/// Place, subject, reason and hint, as a refusal of the fleet file has them.
fn warning_line(plan: &Plan, warning: &Warning) -> String {
    let at = warning
        .line
        .map(|line| format!("{}:{line}: ", plan.fleet_file))
        .unwrap_or_default();
    let hint = if warning.hint.is_empty() {
        String::new()
    } else {
        format!("; hint: {}", warning.hint)
    };
    format!("{at}{}: {}{hint}", warning.subject, warning.message)
}

fn legs(plan: &Plan, text: &mut String) {
    let _ = writeln!(text, "\nlegs, in this order:");
    for leg in &plan.legs {
        let what = match &leg.kind {
            LegKind::Survey => "check and stage on server and hosts; changes nothing that runs".to_owned(),
            LegKind::Server { hops, repoint, .. } => {
                let path: Vec<String> = hops.iter().map(|hop| hop.to.to_string()).collect();
                let first = hops.first().map(|hop| hop.from.to_string()).unwrap_or_default();
                let then = match repoint.len() {
                    0 => String::new(),
                    count => format!("; then {count} clients that address the container follow its port"),
                };
                format!("{first} -> {}{then}", path.join(" -> "))
            }
            LegKind::Clients { to, entries, .. } => format!("{} hosts to {to}", entries.len()),
        };
        let _ = writeln!(text, "  {:<10} {what}", leg.id.to_string());
    }
}

fn groups(plan: &Plan, now_ms: u64, width: usize, text: &mut String) {
    let _ = writeln!(text, "\ngroups, in this order:");
    let rows: Vec<Vec<String>> = plan
        .groups
        .iter()
        .map(|group| {
            vec![
                format!("  {}", group.name),
                group.hosts.len().to_string(),
                group.canaries.to_string(),
                ramp(&group.ramp),
                group.max_unavailable.to_string(),
                group.failure_threshold.to_string(),
                duration(group.soak_ms),
                if group.approval { "needed" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    text.push_str(&table_within(
        &[
            "  GROUP", "HOSTS", "CANARIES", "RAMP", "WIDTH", "FAILURES", "SOAK", "APPROVAL",
        ],
        &rows,
        width,
    ));
    if let Some(threshold) = plan.failure_threshold {
        let _ = writeln!(text, "  whole rollout: more than {threshold} failures pause it");
    }
    for group in &plan.groups {
        let lines = policy_lines(group, now_ms);
        section(text, &format!("group {}", group.name), &lines, width);
    }
    if let Some(zone_data) = &plan.zone_data {
        let _ = writeln!(text, "  (time zones: data {zone_data})");
    }
}

/// What the table does not show; nothing where the policy is the plain one.
fn policy_lines(group: &PlanGroup, now_ms: u64) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(rule) = group.rule.as_ref().filter(|rule| rule.begun > 0) {
        lines.push(format!(
            "its numbers are for {} hosts: {} of them began in the rollout before this plan",
            rule.hosts, rule.begun
        ));
    }
    if group.canary_soak_ms > 0 {
        lines.push(format!(
            "after the canaries: {} of watching",
            duration_text(group.canary_soak_ms)
        ));
    }
    let plain = group.health.as_ref().is_none_or(|health| health.good_views == 1);
    if let (Some(health), false) = (&group.health, plain) {
        lines.push(health_line(health));
    }
    lines.extend(breach_line(group.on_breach).map(str::to_owned));
    lines.extend(window_lines(group, now_ms));
    if let Some(per_site) = group.per_site {
        lines.push(format!("at most {per_site} at once in one site"));
    }
    if group.together > 1 {
        lines.push(format!(
            "up to {} members of one cluster or replication set at once",
            group.together
        ));
    }
    lines.extend(offline_line(group.offline).map(str::to_owned));
    if let Some(deadline) = group.deadline_ms {
        lines.push(format!("must be done within {}", duration_text(deadline)));
    }
    lines.push(retry_line(&group.retry));
    lines
}

pub(super) fn health_line(health: &HealthGate) -> String {
    format!(
        "a host passes after {} good view{} of PMM in a row, within {}",
        health.good_views,
        if health.good_views == 1 { "" } else { "s" },
        duration_text(health.patience_ms)
    )
}

/// Nothing for the plain way, which is a pause.
pub(super) fn breach_line(on_breach: OnBreach) -> Option<&'static str> {
    match on_breach {
        OnBreach::Pause => None,
        OnBreach::Rollback => {
            Some("one failure too many: its upgraded hosts go back, then a person is asked")
        }
        OnBreach::Abort => Some("one failure too many: the rollout is aborted"),
    }
}

/// Nothing for the plain way, which is to catch them up.
pub(super) fn offline_line(offline: Offline) -> Option<&'static str> {
    match offline {
        Offline::CatchUp => None,
        Offline::Skip => Some("hosts that are away are left out"),
        Offline::Wait => Some("hosts that are away are waited for"),
    }
}

pub(super) fn retry_line(retry: &RetryPolicy) -> String {
    let lines: Vec<String> = retry
        .iter()
        .map(|(class, retries)| {
            let class = match class {
                FailureClass::Transient => "what passes by itself",
                FailureClass::Install => "a failed installation",
                FailureClass::Verify => "a failed verification",
            };
            let pauses: Vec<String> = retries.backoff_ms.iter().map(|ms| duration_text(*ms)).collect();
            format!(
                "{class} up to {} times, after {}",
                retries.times,
                pauses.join(", ")
            )
        })
        .collect();
    if lines.is_empty() {
        "nothing is tried again by itself".to_owned()
    } else {
        format!("tried again by itself: {}", lines.join("; "))
    }
}

fn window_lines(group: &PlanGroup, now_ms: u64) -> Vec<String> {
    times_lines(&group.windows, &group.blackouts, now_ms)
}

/// Windows, blackouts and what they mean at this moment.
pub(super) fn times_lines(
    windows: &[Window],
    blackouts: &[::rollout::policy::Blackout],
    now_ms: u64,
) -> Vec<String> {
    let zone = windows.first().map_or("UTC", |window| window.zone.as_str());
    let mut lines: Vec<String> = windows
        .iter()
        .map(|window| format!("window {}", window_text(window)))
        .collect();
    lines.extend(
        blackouts
            .iter()
            .map(|blackout| format!("blackout {}", blackout_text(blackout, zone))),
    );
    if lines.is_empty() {
        return lines;
    }
    lines.push(match opening(windows, blackouts, now_ms) {
        Opening::Open { until_ms: None } => "open now".to_owned(),
        Opening::Open {
            until_ms: Some(until),
        } => format!("open now, until {}", moment_text(until, zone)),
        Opening::Closed {
            opens_ms: Some(opens),
            why,
        } => format!("closed now ({why}); opens {}", moment_text(opens, zone)),
        Opening::Closed { opens_ms: None, why } => format!("never opens: {why}"),
    });
    lines
}

fn ramp(widths: &[u32]) -> String {
    if widths.is_empty() {
        return "-".to_owned();
    }
    let widths: Vec<String> = widths.iter().map(ToString::to_string).collect();
    widths.join(",")
}

fn forecast(plan: &Plan, width: usize, text: &mut String) {
    let Some(forecast) = &plan.forecast else { return };
    let title = format!(
        "likely to take {} to {}",
        duration_text(forecast.low_ms),
        duration_text(forecast.high_ms)
    );
    section(text, &title, &forecast.basis, width);
}

/// Hosts one by one. On a screen only those that are treated other than most, and how many more there are of each sort.
fn hosts(plan: &Plan, screen: Screen, text: &mut String) {
    let whole = screen.lists.shown(plan.hosts.len(), ROWS) == plan.hosts.len();
    let plain = |host: &&PlanHost| {
        !whole
            && !matches!(host.action, HostAction::Refuse { .. })
            && host.held.is_none()
            && host.repoint.is_none()
    };
    let (many, told): (Vec<&PlanHost>, Vec<&PlanHost>) = plan.hosts.iter().partition(plain);
    let shown = screen.lists.shown(told.len(), ROWS);
    let rows: Vec<Vec<String>> = told[..shown].iter().map(|host| host_row(host)).collect();
    let _ = writeln!(text, "\nhosts ({}):", plan.hosts.len());
    if !rows.is_empty() || many.is_empty() {
        text.push_str(&table_within(
            &["  HOST", "GROUP", "WAVE", "METHOD", "FROM", "TO", "ACTION"],
            &rows,
            screen.width,
        ));
    }
    screen.more(text, told.len() - shown);
    let mut sorts: Vec<(String, usize)> = Vec::new();
    for host in &many {
        let sort = host_row(host);
        let sort = format!("{}: {}, {} {} -> {}", sort[1], sort[6], sort[3], sort[4], sort[5]);
        match sorts.iter_mut().find(|(known, _)| *known == sort) {
            Some((_, count)) => *count += 1,
            None => sorts.push((sort, 1)),
        }
    }
    for (sort, count) in sorts {
        let _ = writeln!(text, "  {count} of group {sort}");
    }
    if !many.is_empty() {
        text.push_str("  --all lists every host\n");
    }
}

fn host_row(host: &PlanHost) -> Vec<String> {
    let action = match &host.action {
        HostAction::Upgrade => match &host.repoint {
            Some(repoint) => format!("repoint {} -> {}, upgrade", repoint.from, repoint.to),
            None => "upgrade".to_owned(),
        },
        HostAction::AlreadyCurrent => "nothing to do".to_owned(),
        HostAction::Refuse { code, reason, .. } => format!("REFUSED {code}: {reason}"),
    };
    let held = host
        .held
        .as_ref()
        .map(|reason| format!(" (held: {reason})"))
        .unwrap_or_default();
    vec![
        format!("  {}", host.name),
        host.group.to_string(),
        host.wave.to_string(),
        host.method.map(|method| method.to_string()).unwrap_or_default(),
        host.from.map(|from| from.to_string()).unwrap_or_default(),
        host.to.to_string(),
        format!("{action}{held}"),
    ]
}

fn left_out(text: &mut String, title: &str, (hosts, hint): (&[LeftOut], &str), screen: Screen) {
    let lines: Vec<String> = hosts
        .iter()
        .map(|host| format!("{}: {}", host.name, host.reason))
        .collect();
    screen.list(text, title, &lines);
    if !lines.is_empty() {
        let _ = writeln!(text, "{}", fold(&format!("  hint: {hint}"), screen.width, 8));
    }
}

/// How wide a screen is, and how long lists are on it.
#[derive(Clone, Copy)]
struct Screen {
    width: usize,
    lists: Lists,
}

impl Screen {
    /// A section that may have a line for each host.
    fn list(self, text: &mut String, title: &str, lines: &[String]) {
        let shown = self.lists.shown(lines.len(), LINES);
        section(text, title, &lines[..shown], self.width);
        self.more(text, lines.len() - shown);
    }

    fn more(self, text: &mut String, count: usize) {
        if count > 0 {
            let _ = writeln!(text, "  and {count} more; --all lists them");
        }
    }
}

fn section(text: &mut String, title: &str, lines: &[String], width: usize) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{}", fold(&format!("{title}:"), width, 0));
    for line in lines {
        let _ = writeln!(text, "{}", fold(&format!("  {line}"), width, 4));
    }
}

/// The difference of two plans.
pub(super) fn diff_text(document: &PlanDiffDocument, width: usize, lists: Lists) -> String {
    if document.diff.changes.is_empty() {
        return format!("{} and {} do the same", document.from, document.to);
    }
    let mut text = String::new();
    let lines: Vec<String> = document.diff.changes.iter().map(change_line).collect();
    let _ = writeln!(text, "{} -> {}", document.from, document.to);
    let shown = lists.shown(lines.len(), ROWS);
    for line in &lines[..shown] {
        let _ = writeln!(text, "{}", fold(&format!("  {line}"), width, 4));
    }
    Screen { width, lists }.more(&mut text, lines.len() - shown);
    text
}

/// `+` for what comes, `-` for what goes, `~` for what is other.
fn change_line(change: &Change) -> String {
    let subject = change.subject.replacen(':', " ", 1);
    let what = if change.what.is_empty() {
        String::new()
    } else {
        format!(" {}", change.what)
    };
    match (change.kind, &change.from, &change.to) {
        (_, None, Some(to)) => format!("+ {subject}{what}: {to}"),
        (_, Some(from), None) => format!("- {subject}{what}: {from}"),
        (ChangeKind::HostMoved, Some(from), Some(to)) => {
            format!("~ {subject}: from group {from} to group {to}")
        }
        (_, from, to) => format!(
            "~ {subject}{what}: {} -> {}",
            from.as_deref().unwrap_or("none"),
            to.as_deref().unwrap_or("none")
        ),
    }
}
