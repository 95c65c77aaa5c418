//! Command line flags in the manner of the real programs: `--name=value`, `--name value`, switches, and everything else in order.

use std::collections::BTreeMap;

/// A parsed command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    values: BTreeMap<String, String>,
    /// Arguments that are not flags.
    pub words: Vec<String>,
}

impl Flags {
    /// Parses; `switches` are the flags that take no value, `known` the others. An unknown flag is an error.
    pub fn parse(args: &[String], switches: &[&str], known: &[&str]) -> Result<Self, String> {
        let mut flags = Self::default();
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let Some(flag) = arg.strip_prefix("--") else {
                flags.words.push(arg.clone());
                continue;
            };
            let (name, inline) = flag
                .split_once('=')
                .map_or((flag, None), |(n, v)| (n, Some(v.to_string())));
            let positive = name.strip_prefix("no-").unwrap_or(name);
            if switches.contains(&name) {
                flags
                    .values
                    .insert(name.into(), inline.unwrap_or_else(|| "true".into()));
            } else if switches.contains(&positive) {
                flags.values.insert(positive.into(), "false".into());
            } else if known.contains(&name) {
                let value = inline
                    .or_else(|| rest.next().cloned())
                    .ok_or_else(|| format!("expected argument for flag '--{name}'"))?;
                flags.values.insert(name.into(), value);
            } else {
                return Err(format!("unknown flag --{name}"));
            }
        }
        Ok(flags)
    }

    /// The value of a flag.
    pub fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }

    /// The value of a flag, or empty.
    pub fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default()
    }

    /// True if a switch is on.
    pub fn on(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|v| v == "true" || v == "1")
    }
}

/// Reads `a=b,c=d`.
pub fn labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .map(|pair| {
            let (k, v) = pair
                .split_once('=')
                .ok_or_else(|| format!("wrong custom label format: {pair:?}"))?;
            Ok((k.trim().to_string(), v.trim().to_string()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn flags_words_and_switches() {
        let args: Vec<String> = [
            "add",
            "--json",
            "--server-url=https://x",
            "mysql",
            "--username",
            "root",
        ]
        .map(Into::into)
        .to_vec();
        let flags = Flags::parse(&args, &["json"], &["server-url", "username"]).unwrap();
        assert_eq!(flags.words, ["add", "mysql"]);
        assert!(flags.on("json"));
        assert_eq!(
            (flags.text("server-url"), flags.text("username")),
            ("https://x".into(), "root".into())
        );
        assert!(Flags::parse(&["--what".into()], &[], &[]).is_err());
    }

    #[test]
    fn label_lists() {
        assert_eq!(labels("a=1, b=2").unwrap().len(), 2);
        assert!(labels("a").is_err());
        assert!(labels("").unwrap().is_empty());
    }
}
