//! The command line: `command --name value ...` and two flags; only `--leave` may be given several times.

use crate::error::HelperError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A parsed command line.
pub struct Args {
    /// First word.
    pub command: String,
    /// Files may vanish while they are copied.
    pub live: bool,
    /// Count files and bytes.
    pub count: bool,
    /// Absolute paths that are left alone.
    pub leave: Vec<PathBuf>,
    values: BTreeMap<String, String>,
}

impl Args {
    /// Reads the words after the program's name.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, HelperError> {
        let command = words
            .next()
            .ok_or_else(|| HelperError::Usage("no command".to_owned()))?;
        let mut args = Self {
            command,
            live: false,
            count: false,
            leave: Vec::new(),
            values: BTreeMap::new(),
        };
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                Some("live") => args.live = true,
                Some("count") => args.count = true,
                Some(name) => {
                    let value = words
                        .next()
                        .ok_or_else(|| HelperError::Usage(format!("--{name} needs a value")))?;
                    if name == "leave" {
                        args.leave.push(PathBuf::from(value));
                    } else {
                        args.values.insert(name.to_owned(), value);
                    }
                }
                None => return Err(HelperError::Usage(format!("unexpected `{word}`"))),
            }
        }
        Ok(args)
    }

    /// A path that must be given.
    pub fn path(&self, name: &str) -> Result<&Path, HelperError> {
        self.values
            .get(name)
            .map(Path::new)
            .ok_or_else(|| HelperError::Usage(format!("--{name} is missing")))
    }

    /// A number that must be given.
    pub fn number(&self, name: &str) -> Result<u32, HelperError> {
        let text = self
            .values
            .get(name)
            .ok_or_else(|| HelperError::Usage(format!("--{name} is missing")))?;
        text.parse()
            .map_err(|_| HelperError::Usage(format!("--{name} `{text}` is not a number")))
    }
}
