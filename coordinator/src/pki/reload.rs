//! TLS of the listeners without a restart: the server certificate is read again on SIGHUP and when its files change, and renewed when it
//! is due. New handshakes use it; sessions that are up stay. Files that can't be used leave what is served as it is.

use super::files::{read_configs, renew_server_if_due};
use super::{Authority, PkiError};
use crate::config::{self, DataDir};
use fleet_common::hint::chain;
use rustls::ServerConfig;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a listener's handshakes use now.
pub type CurrentTls = watch::Receiver<Arc<ServerConfig>>;

/// Starts with these configurations and keeps them current until the token is set. Returns those of the agents and of enrolment.
pub fn keep_current(
    data: DataDir,
    authority: Arc<Authority>,
    (agents, enrolment): (ServerConfig, ServerConfig),
    hangup: Signal,
    stop: CancellationToken,
) -> (CurrentTls, CurrentTls) {
    let (agents, agents_now) = watch::channel(Arc::new(agents));
    let (enrolment, enrolment_now) = watch::channel(Arc::new(enrolment));
    let files = files(&data);
    let keeper = Keeper {
        data,
        authority,
        agents,
        enrolment,
        used: files,
        seen: files,
    };
    tokio::spawn(keeper.run(hangup, stop));
    (agents_now, enrolment_now)
}

/// Inode, time of change and length tell one version of a file from the next.
type Version = Option<(u64, i64, i64, u64)>;

fn files(data: &DataDir) -> [Version; 3] {
    let version = |path: &Path| {
        let file = fs_err::metadata(path).ok()?;
        Some((file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
    };
    [data.ca_certificate(), data.server_chain(), data.server_key()].map(|path| version(&path))
}

struct Keeper {
    data: DataDir,
    authority: Arc<Authority>,
    agents: watch::Sender<Arc<ServerConfig>>,
    enrolment: watch::Sender<Arc<ServerConfig>>,
    /// The files that were read last, usable or not: a broken one is reported once.
    used: [Version; 3],
    /// The files at the last look.
    seen: [Version; 3],
}

impl Keeper {
    async fn run(mut self, mut hangup: Signal, stop: CancellationToken) {
        let mut look = tokio::time::interval(config::TLS_LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut renewal = tokio::time::interval(config::TLS_RENEWAL_LOOK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = hangup.recv() => {
                    tracing::info!("SIGHUP: reading the server certificate again");
                    self.renew();
                    self.read();
                }
                _ = renewal.tick() => self.renew(),
                _ = look.tick() => {
                    let now = files(&self.data);
                    // Key and chain are two files: only when they have come to rest do they belong together.
                    if now != self.used && now == self.seen {
                        self.read();
                    }
                    self.seen = now;
                }
            }
        }
    }

    fn renew(&self) {
        match renew_server_if_due(&self.data, &self.authority) {
            Ok(false) => {}
            Ok(true) => tracing::info!("the server certificate was renewed"),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "it can't be told whether the server certificate is due, or it can't be renewed");
            }
        }
    }

    fn read(&mut self) {
        self.used = files(&self.data);
        match self.usable() {
            Ok((agents, enrolment)) => {
                self.agents.send_replace(Arc::new(agents));
                self.enrolment.send_replace(Arc::new(enrolment));
                tracing::info!("new handshakes use the server certificate as it is on disk now");
            }
            Err(error) => tracing::error!(
                error = %chain(&error),
                chain = %self.data.server_chain().display(),
                key = %self.data.server_key().display(),
                hint = "repair the files, or remove both and restart: the coordinator then makes new ones",
                "the server certificate on disk can't be used; the old one stays in use"
            ),
        }
    }

    fn usable(&self) -> Result<(ServerConfig, ServerConfig), PkiError> {
        let left = super::not_after_ms(&fs_err::read(self.data.server_chain())?)?;
        if left <= crate::clock::now_ms() {
            return Err(PkiError::Expired);
        }
        read_configs(&self.data)
    }
}
