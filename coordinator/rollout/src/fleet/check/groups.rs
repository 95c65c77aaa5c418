//! `[defaults]` and `[[group]]`.

use super::super::error::Findings;
use super::super::raw;
use super::super::units::{Limit, duration_ms};
use super::super::{Group, Matcher};
use toml::Spanned;

/// Which of the three limits is read: they allow different numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Canaries,
    Width,
    Threshold,
}

fn limit(value: &Spanned<raw::Number>, key: &str, which: Which, found: &mut Findings<'_>) -> Limit {
    let at = Some(value.span().start);
    let example = "write a whole number, or a percentage such as \"10%\"";
    let limit = match value.get_ref() {
        raw::Number::Int(count) => match u32::try_from(*count) {
            Ok(count) => Limit::Count(count),
            Err(_) => {
                found.add(at, format!("{key} = {count} is out of range"), example);
                return Limit::Count(1);
            }
        },
        raw::Number::Text(text) => match Limit::read(text) {
            Ok(limit) => limit,
            Err(reason) => {
                found.add(at, format!("bad percentage: {key} = {reason}"), example);
                return Limit::Count(1);
            }
        },
    };
    match (which, limit) {
        (Which::Width, Limit::Count(0) | Limit::Percent(0)) => {
            found.add(
                at,
                format!("{key} = {limit} would never let a host begin"),
                "allow at least one host",
            );
        }
        (Which::Threshold, Limit::Percent(100)) => {
            found.add(at, format!("{key} = 100% can never be reached: a threshold of N tolerates N failures and is breached by the next"), "tolerate fewer than all hosts");
        }
        _ => {}
    }
    limit
}

pub(super) fn groups(
    raw: Vec<Spanned<raw::Group>>,
    defaults: &raw::Policy,
    found: &mut Findings<'_>,
) -> Vec<Group> {
    if raw.is_empty() {
        found.add(
            None,
            "there is no [[group]], so no host would ever be touched",
            "add a group with a name and a match",
        );
    }
    let read = |value: &Option<Spanned<raw::Number>>, key: &str, which, found: &mut Findings<'_>| {
        value.as_ref().map(|value| limit(value, key, which, found))
    };
    let canaries =
        read(&defaults.canaries, "defaults.canaries", Which::Canaries, found).unwrap_or(Limit::Count(1));
    let width = read(
        &defaults.max_unavailable,
        "defaults.max_unavailable",
        Which::Width,
        found,
    )
    .unwrap_or(Limit::Percent(10));
    let threshold = read(
        &defaults.failure_threshold,
        "defaults.failure_threshold",
        Which::Threshold,
        found,
    )
    .unwrap_or(Limit::Count(0));
    let soak = soak_of(&defaults.soak, found).unwrap_or(0);
    on_breach(&defaults.on_breach, found);
    no_window(defaults.window.as_ref(), found);

    let mut groups: Vec<Group> = Vec::new();
    for spanned in raw {
        let at = spanned.span().start;
        let line = found.line(at);
        let group = spanned.into_inner();
        let name = match group.name {
            Some(name) if !name.get_ref().trim().is_empty() => {
                if groups.iter().any(|earlier| earlier.name == *name.get_ref()) {
                    found.add(
                        Some(name.span().start),
                        format!("there are two groups named `{}`", name.get_ref()),
                        "give each group its own name",
                    );
                }
                name.into_inner()
            }
            _ => {
                found.add(Some(at), "a group has no name", "add name = \"...\"");
                String::new()
            }
        };
        for after in &group.after {
            if !groups.iter().any(|earlier| earlier.name == *after.get_ref()) {
                let known: Vec<&str> = groups.iter().map(|earlier| earlier.name.as_str()).collect();
                let hint = if known.is_empty() {
                    "no group stands before this one; groups take their turns in the order of the file"
                        .to_owned()
                } else {
                    format!("groups before this one: {}", known.join(", "))
                };
                found.add(
                    Some(after.span().start),
                    format!(
                        "group `{name}` comes after an unknown group `{}`",
                        after.get_ref()
                    ),
                    hint,
                );
            }
        }
        let matches = matcher(group.matches, &name, at, found);
        for earlier in &groups {
            if let Some(why) = earlier
                .matches
                .surely_overlaps(&matches)
                .filter(|_| !matches.is_empty())
            {
                found.add(
                    Some(at),
                    format!("groups `{}` and `{name}` overlap: {why}", earlier.name),
                    "a host may belong to one group only; make the match of one of them narrower",
                );
            }
        }
        let own_threshold = read(
            &group.failure_threshold,
            "failure_threshold",
            Which::Threshold,
            found,
        );
        if let (Some(Limit::Count(count)), true) = (own_threshold, only_names(&matches)) {
            let hosts = u32::try_from(matches.names.len()).unwrap_or(u32::MAX);
            if count >= hosts {
                let reason = format!(
                    "failure_threshold = {count} can't be reached in group `{name}`: it lists {hosts} host{}",
                    if hosts == 1 { "" } else { "s" }
                );
                let offset = group.failure_threshold.as_ref().map(|value| value.span().start);
                found.add(
                    offset,
                    reason,
                    format!(
                        "a threshold of N tolerates N failures; set at most {}",
                        hosts.saturating_sub(1)
                    ),
                );
            }
        }
        on_breach(&group.on_breach, found);
        no_window(group.window.as_ref(), found);
        groups.push(Group {
            matches,
            canaries: read(&group.canaries, "canaries", Which::Canaries, found).unwrap_or(canaries),
            max_unavailable: read(&group.max_unavailable, "max_unavailable", Which::Width, found)
                .unwrap_or(width),
            failure_threshold: own_threshold.unwrap_or(threshold),
            threshold_own: own_threshold.is_some(),
            soak_ms: soak_of(&group.soak, found).unwrap_or(soak),
            approval: group.approval.or(defaults.approval).unwrap_or(false),
            line,
            threshold_line: group
                .failure_threshold
                .as_ref()
                .map(|value| found.line(value.span().start)),
            name,
        });
    }
    groups
}

fn only_names(matches: &Matcher) -> bool {
    !matches.names.is_empty()
        && Matcher {
            names: matches.names.clone(),
            ..Matcher::default()
        } == *matches
}

fn matcher(raw: Option<Spanned<raw::Match>>, name: &str, at: usize, found: &mut Findings<'_>) -> Matcher {
    let hint = "name what its hosts have in common, such as match = { labels = { tier = \"canary\" } }";
    let Some(raw) = raw else {
        found.add(Some(at), format!("group `{name}` has no match"), hint);
        return Matcher::default();
    };
    let offset = raw.span().start;
    let raw = raw.into_inner();
    let matches = Matcher {
        labels: raw.labels,
        names: raw.names.into_iter().collect(),
        environment: raw.environment,
        cluster: raw.cluster,
        replication_set: raw.replication_set,
    };
    if matches.is_empty() {
        found.add(
            Some(offset),
            format!("group `{name}` asks for nothing and would take every host"),
            hint,
        );
    }
    matches
}

fn soak_of(value: &raw::Text, found: &mut Findings<'_>) -> Option<u64> {
    let text = value.as_ref()?;
    let ms = duration_ms(text.get_ref());
    if ms.is_none() {
        found.add(
            Some(text.span().start),
            format!("soak = \"{}\" is not a duration", text.get_ref()),
            "write it like \"90s\", \"15m\" or \"2h\"",
        );
    }
    ms
}

fn on_breach(value: &raw::Text, found: &mut Findings<'_>) {
    if let Some(text) = value.as_ref().filter(|text| text.get_ref() != "pause") {
        found.add(
            Some(text.span().start),
            format!("on_breach = \"{}\" is not known", text.get_ref()),
            "write \"pause\"",
        );
    }
}

fn no_window(value: Option<&Spanned<toml::Value>>, found: &mut Findings<'_>) {
    if let Some(window) = value {
        found.add(
            Some(window.span().start),
            "maintenance windows are not supported yet",
            "remove window, and pause and resume by hand",
        );
    }
}
