//! Logs on stderr (journald adds the time) and the service manager's notifications.

use tracing_subscriber::EnvFilter;

/// Starts logging. `FLEET_LOG` takes the usual filter syntax; the default is `info` for the daemon.
pub fn init(default: &str, json: bool) {
    let filter = EnvFilter::try_from_env("FLEET_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let color =
        std::env::var_os("NO_COLOR").is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color);
    // A second start of logging in one process changes nothing.
    let _ = if json {
        builder.json().try_init()
    } else {
        builder.with_target(false).try_init()
    };
}

/// Tells the service manager that the daemon serves.
pub fn ready() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "no service manager to notify");
    }
}

/// Tells the service manager that the daemon ends.
pub fn stopping() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Stopping]) {
        tracing::debug!(%error, "no service manager to notify");
    }
}
