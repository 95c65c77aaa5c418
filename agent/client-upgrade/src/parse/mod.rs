//! Readers of what the host's own tools print. All of them are told to speak the C locale. What can't be read is absent, never guessed.

pub mod config;
pub mod dpkg;
pub mod os_release;
pub mod proc;
pub mod rpm;
pub mod status;
pub mod systemd;
pub mod transaction;
pub mod version;
