//! The environment of the new container: what the operator set, translated.

use crate::env_table::{self, Rule};
use crate::env_value;
use fleet_common::version::PmmVersion;
use std::collections::BTreeMap;

/// The result of a translation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// Variables of the new container, in the order of the old ones.
    pub env: Vec<(String, String)>,
    /// What was changed, without values: they may be secrets.
    pub changes: Vec<String>,
    /// What PMM 3 would lose or die from; each one stops the preflight.
    pub problems: Vec<String>,
    /// What is worth reading.
    pub warnings: Vec<String>,
}

/// What the operator set: the container's environment without the lines that the image brings. `Config.Env` of a container merges both.
pub fn operator_env(container: &[String], image: &[String]) -> Vec<(String, String)> {
    container
        .iter()
        .filter(|line| !image.contains(line))
        .map(|line| {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

/// Translates the operator's variables for a hop. Between releases of one major they stay as they are, except that
/// `GF_DATABASE_URL` alone no longer works from 3.2.0 on (PMM docs: external_postgres_pmm_upgrade.md).
pub fn translate(operator: &[(String, String)], from: PmmVersion, to: PmmVersion) -> Translation {
    let mut out = Builder::default();
    for (name, value) in operator {
        let row = if from.major == 2 && to.major >= 3 {
            env_table::find(name)
        } else {
            None
        };
        match row.map(|row| row.rule) {
            Some(rule) => out.apply(name, value, rule),
            None if name.eq_ignore_ascii_case("GF_DATABASE_URL") && to >= PmmVersion::new(3, 2, 0) => {
                out.database_url(name, value)
            }
            None => {
                if from.major == 2 && to.major >= 3 {
                    out.unknown(name);
                }
                out.set(name, name, value, false);
            }
        }
    }
    out.done
}

#[derive(Default)]
struct Builder {
    done: Translation,
    /// New name to (old name, whether another old name for it may be ignored).
    origin: BTreeMap<String, (String, bool)>,
}

impl Builder {
    fn apply(&mut self, name: &str, value: &str, rule: Rule) {
        match rule {
            Rule::Rename(new) => self.renamed(name, new, value),
            Rule::First(new) => {
                self.done.changes.push(format!("{name} becomes {new}"));
                self.set(name, new, value, true);
            }
            Rule::Bool(new) => match env_value::parse_bool(value) {
                Some(_) => self.renamed(name, new, value),
                None => self.bad(name, "is no truth value (1, t, true, 0, f, false)"),
            },
            Rule::Invert(new) => match env_value::parse_bool(value) {
                Some(on) => {
                    self.done
                        .changes
                        .push(format!("{name} becomes {new} with the opposite value"));
                    self.set(name, new, if on { "false" } else { "true" }, false);
                }
                None => self.bad(name, "is no truth value (1, t, true, 0, f, false)"),
            },
            Rule::Duration(new) => match env_value::go_duration(value) {
                Some(text) => self.renamed(name, new, &text),
                None => self.bad(name, "is no duration such as 720h"),
            },
            Rule::Days(new) => match env_value::go_duration(value) {
                Some(text) if env_value::whole_days(value) => self.renamed(name, new, &text),
                _ => self.bad(name, "is no duration in whole days such as 720h"),
            },
            Rule::Drop(why) => self.done.changes.push(format!("{name} is dropped: {why}")),
        }
    }

    fn renamed(&mut self, name: &str, new: &str, value: &str) {
        self.done.changes.push(format!("{name} becomes {new}"));
        self.set(name, new, value, false);
    }

    fn bad(&mut self, name: &str, why: &str) {
        self.done.problems.push(format!(
            "the value of {name} {why}; PMM 3 would not start with it"
        ));
    }

    fn unknown(&mut self, name: &str) {
        let upper = name.to_ascii_uppercase();
        if env_table::OWN_PREFIXES
            .iter()
            .any(|prefix| upper.starts_with(prefix))
        {
            self.done.problems.push(format!(
                "{name} has no known counterpart in PMM 3, which would silently ignore it"
            ));
        } else if upper.starts_with("PMM_WATCHTOWER_") {
            self.done.warnings.push(format!(
                "{name}: upgrades through Watchtower end with 3.9.0; remove Watchtower, it would interfere"
            ));
        }
    }

    fn database_url(&mut self, name: &str, value: &str) {
        let Some(url) = env_value::parse_database_url(value) else {
            self.done.problems.push(format!(
                "{name} can't be split into GF_DATABASE_HOST, _NAME, _USER, _PASSWORD; alone it no longer works from 3.2.0 on"
            ));
            return;
        };
        self.done.changes.push(format!(
            "{name} is split into GF_DATABASE_TYPE, _HOST, _NAME, _USER, _PASSWORD"
        ));
        let mut parts = vec![
            ("GF_DATABASE_TYPE", url.kind),
            ("GF_DATABASE_HOST", url.host),
            ("GF_DATABASE_NAME", url.name),
            ("GF_DATABASE_USER", url.user),
            ("GF_DATABASE_PASSWORD", url.password),
        ];
        parts.extend(url.ssl_mode.map(|mode| ("GF_DATABASE_SSL_MODE", mode)));
        for (new, value) in parts {
            self.set(name, new, &value, true);
        }
    }

    fn set(&mut self, old: &str, new: &str, value: &str, optional: bool) {
        let there = self.done.env.iter().position(|(name, _)| name == new);
        match (
            there.and_then(|index| self.done.env.get(index).map(|(_, text)| (index, text.clone()))),
            self.origin.get(new).cloned(),
        ) {
            (Some((_, text)), _) if text == value => {}
            (Some(_), Some((_, _))) if optional => {}
            // What was there was optional itself: the explicit one wins.
            (Some((index, _)), Some((_, true))) => {
                if let Some(entry) = self.done.env.get_mut(index) {
                    value.clone_into(&mut entry.1);
                }
                self.origin.insert(new.to_owned(), (old.to_owned(), optional));
            }
            (Some(_), Some((first, false))) => {
                self.done.problems.push(format!(
                    "{first} and {old} both become {new}, with different values"
                ));
            }
            (Some(_) | None, _) => {
                self.done.env.push((new.to_owned(), value.to_owned()));
                self.origin.insert(new.to_owned(), (old.to_owned(), optional));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const V2: PmmVersion = PmmVersion::new(2, 44, 1);
    const V3: PmmVersion = PmmVersion::new(3, 7, 1);

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    }

    #[test]
    fn what_the_image_brings_is_not_the_operators() {
        let container = [
            "PATH=/bin".to_owned(),
            "DISABLE_UPDATES=true".to_owned(),
            "PS1=x".to_owned(),
        ];
        let image = ["PATH=/bin".to_owned(), "PS1=x".to_owned()];
        assert_eq!(
            operator_env(&container, &image),
            env(&[("DISABLE_UPDATES", "true")])
        );
    }

    #[test]
    fn the_form_that_kills_the_official_script() {
        let done = translate(
            &env(&[("DISABLE_UPDATES", "true"), ("disable_telemetry", "0")]),
            V2,
            V3,
        );
        assert_eq!(
            done.env,
            env(&[("PMM_ENABLE_UPDATES", "false"), ("PMM_ENABLE_TELEMETRY", "true")])
        );
        assert!(done.problems.is_empty());
    }

    #[test]
    fn secrets_pass_unharmed() {
        let hard = "a$b`c\"d\\e'f g";
        let done = translate(
            &env(&[
                ("GF_SECURITY_ADMIN_PASSWORD", hard),
                ("PERCONA_TEST_POSTGRES_DBPASSWORD", hard),
            ]),
            V2,
            V3,
        );
        assert_eq!(
            done.env,
            env(&[
                ("GF_SECURITY_ADMIN_PASSWORD", hard),
                ("PMM_POSTGRES_DBPASSWORD", hard)
            ])
        );
        assert!(!done.changes.join(" ").contains(hard));
    }

    #[test]
    fn bad_values_and_lost_names_are_problems() {
        let bad = env(&[
            ("DATA_RETENTION", "36h"),
            ("ENABLE_RBAC", "yes"),
            ("PERCONA_TEST_SOMETHING", "1"),
            ("METRICS_RESOLUTION", "5"),
        ]);
        assert_eq!(translate(&bad, V2, V3).problems.len(), 4);
        let both = env(&[("DISABLE_ALERTING", "1"), ("ENABLE_ALERTING", "1")]);
        assert_eq!(translate(&both, V2, V3).problems.len(), 1);
        let agree = env(&[("DISABLE_ALERTING", "0"), ("ENABLE_ALERTING", "true")]);
        assert!(translate(&agree, V2, V3).problems.is_empty());
    }

    #[test]
    fn days_drops_and_the_database_url() {
        let done = translate(
            &env(&[
                ("DATA_RETENTION", "30d"),
                ("LESS_LOG_NOISE", "1"),
                ("GF_DATABASE_URL", "postgres://u:p@h:1/d"),
                ("TZ", "UTC"),
            ]),
            V2,
            V3,
        );
        assert_eq!(
            done.env.first().unwrap(),
            &("PMM_DATA_RETENTION".to_owned(), "720h".to_owned())
        );
        assert!(
            done.env
                .contains(&("GF_DATABASE_HOST".to_owned(), "h:1".to_owned()))
        );
        assert!(done.env.contains(&("TZ".to_owned(), "UTC".to_owned())));
        assert!(
            !done
                .env
                .iter()
                .any(|(name, _)| name == "LESS_LOG_NOISE" || name == "GF_DATABASE_URL")
        );
    }

    #[test]
    fn several_names_for_the_platform_need_only_one() {
        let done = translate(
            &env(&[("PERCONA_TEST_SAAS_HOST", "a"), ("PERCONA_TEST_AUTH_HOST", "b")]),
            V2,
            V3,
        );
        assert_eq!(done.env, env(&[("PMM_PERCONA_PLATFORM_ADDRESS", "a")]));
    }

    proptest! {
        #[test]
        fn within_a_major_nothing_changes(names in proptest::collection::vec("[A-Z_]{1,12}", 0..8), value in ".{0,12}") {
            let mut names = names;
            names.sort();
            names.dedup();
            names.retain(|name| name != "GF_DATABASE_URL");
            let pairs: Vec<(String, String)> = names.into_iter().map(|name| (name, value.clone())).collect();
            prop_assert_eq!(translate(&pairs, PmmVersion::new(2, 41, 2), V2).env, pairs.clone());
            prop_assert_eq!(translate(&pairs, V3, PmmVersion::new(3, 9, 1)).env, pairs);
        }

        #[test]
        fn no_pmm2_name_survives_the_cut(index in 0usize..60, value in "[a-z0-9]{0,6}") {
            if let Some(row) = env_table::ROWS.get(index) {
                let done = translate(&[(row.name.to_owned(), value)], V2, V3);
                prop_assert!(!done.env.iter().any(|(name, _)| env_table::find(name).is_some()));
                prop_assert!(!done.problems.is_empty() || !done.changes.is_empty());
            }
        }
    }
}
