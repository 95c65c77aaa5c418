//! Reading the host's policy. A policy that can't be read allows nothing.

use crate::config::Paths;
use client_upgrade::policy::Policy;
use fs_err as fs;

/// The policy file, or the built-in default where there is none.
pub fn load(paths: &Paths) -> anyhow::Result<Policy> {
    match fs::read_to_string(paths.policy_toml()) {
        Ok(text) => toml::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {error}", paths.policy_toml().display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Policy::default()),
        Err(error) => Err(error.into()),
    }
}
