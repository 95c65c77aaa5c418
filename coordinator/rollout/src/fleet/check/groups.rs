//! `[rollout]`, `[defaults]` and `[[group]]`.

use super::super::error::Findings;
use super::super::raw::{self, Spanned};
use super::super::units::Limit;
use super::super::{FACTS, Group, Matcher, Profile, RolloutPolicy};
use super::numbers::{Which, limit, word};
use super::policy::{Given, given};
use fleet_common::inventory::Method;
use std::collections::BTreeMap;

const PROFILES: [(&str, Profile); 3] = [
    ("cautious", Profile::Cautious),
    ("standard", Profile::Standard),
    ("fast", Profile::Fast),
];

/// What `explain` knows beside groups and hosts.
pub(in crate::fleet) const RESERVED: [&str; 2] = ["rollout", "server"];

/// `[rollout]`.
pub(super) fn rollout(raw: &raw::Rollout, found: &mut Findings<'_>) -> RolloutPolicy {
    let site_label = raw.site_label.as_ref().map(|label| {
        if label.get_ref().trim().is_empty() {
            found.add(
                Some(label.at()),
                "rollout.site_label is empty",
                "name a label that our agents carry, such as \"site\"",
            );
        }
        label.get_ref().trim().to_owned()
    });
    RolloutPolicy {
        profile: word(&raw.profile, "rollout.profile", &PROFILES, found).unwrap_or_default(),
        failure_threshold: raw
            .failure_threshold
            .as_ref()
            .map(|value| limit(value, "rollout.failure_threshold", Which::Threshold, found)),
        site_label,
    }
}

/// `[[group]]`, over `[defaults]` and the profiles. `verify_ms` is the patience where nothing names one.
pub(super) fn groups(
    raw: Vec<Spanned<raw::Group>>,
    defaults: &raw::Policy,
    rollout: &RolloutPolicy,
    verify_ms: u64,
    found: &mut Findings<'_>,
) -> Vec<Group> {
    if raw.is_empty() {
        found.add(
            None,
            "there is no [[group]], so no host would ever be touched",
            "add a group with a name and a match",
        );
    }
    let sites = rollout.site_label.is_some();
    let defaults = given(defaults, "defaults.", sites, found);

    let mut groups: Vec<Group> = Vec::new();
    for spanned in raw {
        let at = spanned.at();
        let line = found.line(at);
        let (group, policy) = spanned.into_inner().split();
        let name = match group.name {
            Some(name) if !name.get_ref().trim().is_empty() => {
                if groups.iter().any(|earlier| earlier.name == *name.get_ref()) {
                    found.add(
                        Some(name.at()),
                        format!("there are two groups named `{}`", name.get_ref()),
                        "give each group its own name",
                    );
                }
                check_name(&name, found);
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
                    Some(after.at()),
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
        let own = given(&policy, "", sites, found);
        let threshold_at = policy.failure_threshold.as_ref().map(Spanned::at);
        check_threshold(&own, &name, &matches, threshold_at, found);
        let own_profile = word(&group.profile, "profile", &PROFILES, found);
        let (profile, base) = match own_profile {
            Some(profile) => (
                profile,
                defaults.beside_profiles().over(profile.policy(verify_ms)),
            ),
            None => (rollout.profile, defaults.over(rollout.profile.policy(verify_ms))),
        };
        let replaced = own_profile.map_or_else(Vec::new, |_| defaults.replaced(&own, &base));
        groups.push(Group {
            matches,
            profile,
            replaced,
            policy: own.over(base),
            threshold_own: own.failure_threshold.is_some(),
            line,
            threshold_line: threshold_at.map(|at| found.line(at)),
            name,
        });
    }
    groups
}

/// A group is named in commands and on screens.
fn check_name(name: &Spanned<String>, found: &mut Findings<'_>) {
    let text = name.get_ref();
    let reason = if RESERVED.contains(&text.as_str()) {
        format!("a group can't be named `{text}`: `explain {text}` means something else")
    } else if text.trim() != text || text.chars().any(char::is_control) {
        format!("the name {text:?} of a group has spaces around it or characters that can't be shown")
    } else {
        return;
    };
    found.add(Some(name.at()), reason, "give it a name that can be typed");
}

/// A group that lists its hosts by name has no more of them.
fn check_threshold(own: &Given, name: &str, matches: &Matcher, at: Option<usize>, found: &mut Findings<'_>) {
    let (Some(Limit::Count(count)), true) = (own.failure_threshold, only_names(matches)) else {
        return;
    };
    let hosts = u32::try_from(matches.names.len()).unwrap_or(u32::MAX);
    if count >= hosts {
        let reason = format!(
            "failure_threshold = {count} can't be reached in group `{name}`: it lists {hosts} host{}",
            if hosts == 1 { "" } else { "s" }
        );
        let most = hosts.saturating_sub(1);
        found.add(
            at,
            reason,
            format!("a threshold of N tolerates N failures; set at most {most}"),
        );
    }
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
    let offset = raw.at();
    let raw = raw.into_inner();
    let unset = |text: &Option<String>| text.as_deref() == Some("");
    let asked = [
        ("environment", unset(&raw.environment)),
        ("cluster", unset(&raw.cluster)),
        ("replication_set", unset(&raw.replication_set)),
        ("names", raw.names.iter().any(String::is_empty)),
    ];
    for (key, _) in asked.into_iter().filter(|(_, empty)| *empty) {
        // PMM's labels are empty where nobody set them: this would take every host of which nothing is known.
        found.add(
            Some(offset),
            format!("group `{name}`: match.{key} has an empty text"),
            "leave it out, or name what its hosts have in common; hosts without the label can be listed by name",
        );
    }
    let matches = Matcher {
        labels: raw.labels,
        names: raw.names.into_iter().collect(),
        facts: facts(raw.facts, found),
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

/// Facts under a name that no host has would silently match nothing.
fn facts(raw: BTreeMap<String, Spanned<String>>, found: &mut Findings<'_>) -> BTreeMap<String, String> {
    let methods = [Method::Deb, Method::Rpm, Method::Tarball].map(Method::as_str);
    let mut facts = BTreeMap::new();
    for (name, value) in raw {
        if !FACTS.contains(&name.as_str()) {
            found.add(
                Some(value.at()),
                format!("match.facts: `{name}` is not a fact of a host"),
                format!("known facts: {}", FACTS.join(", ")),
            );
        } else if name == "method" && !methods.contains(&value.get_ref().as_str()) {
            found.add(
                Some(value.at()),
                format!("match.facts: method = \"{}\" is not known", value.get_ref()),
                format!("write {}", methods.join(" or ")),
            );
        }
        facts.insert(name, value.into_inner());
    }
    facts
}
