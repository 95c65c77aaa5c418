//! The vendor's easy-install script, retold in `tests/lab/naive/easy-install.sh`, as a naive operator runs it.

use super::scene::{REPOSITORY, Scene};
use crate::build::workspace;
use crate::cmd::{self, Done};
use anyhow::Result;

/// A run of the script.
pub struct Script(Vec<(String, String)>);

impl Script {
    /// With what an operator would give: the tag, the container's name, a port.
    pub fn new(scene: &Scene, tag: &str) -> Self {
        let mut script = Self(Vec::new());
        script.set("PMM_REPO", REPOSITORY);
        script.set("PMM_TAG", tag);
        script.set("PMM_PORT", "0");
        script.set("CONTAINER_NAME", &scene.name("pmm"));
        script.set("NETWORK_NAME", &scene.name("net"));
        script.set("VOLUME_NAME", &scene.name("default-data"));
        script.set("PAUSE", "2");
        script
    }

    /// Gives a variable another value.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// The same, for building in one expression.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    /// Runs it to its end, whatever that is.
    pub fn run(&self) -> Result<Done> {
        let file = workspace().join("tests/lab/naive/easy-install.sh");
        let mut argv: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        argv.extend(["bash".to_owned(), file.display().to_string()]);
        cmd::run("env", &argv, None)
    }
}
