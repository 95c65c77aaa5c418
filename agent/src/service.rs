//! `run`: the daemon. One thread for the session, one for carrying out orders.

use crate::config::{AgentConfig, Paths};
use crate::execute::orders::{Shared, Work};
use crate::execute::worker::Worker;
use crate::link::{renew, session};
use sd_notify::NotifyState;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often the host is looked at without being asked.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// Tells systemd what we are at.
pub fn status(text: &str) {
    let _ = sd_notify::notify(&[NotifyState::Status(text)]);
}

/// Runs until SIGTERM or SIGINT.
pub fn run(paths: &Paths) -> anyhow::Result<()> {
    let config = AgentConfig::load(paths)?;
    paths.prepare()?;
    let (queue, work) = mpsc::channel();
    let shared = Arc::new(Shared::open(paths, queue)?);
    let worker = Worker::new(shared.clone(), config.clone())?;
    // The first Hello carries the digest of what is here now.
    worker.refresh();
    std::thread::Builder::new()
        .name("executor".to_owned())
        .spawn(move || worker.run(&work))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (stopper, stop) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        let looker = shared.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                looker.hand_over(Work::Refresh);
            }
        });
        tokio::spawn(renew::keep_fresh(shared.clone()));
        let session = session::keep(paths, &config, &shared, stop);
        tokio::pin!(session);
        tokio::select! {
            ended = &mut session => ended,
            _ = terminate.recv() => { stopper.send_replace(true); session.await }
            _ = interrupt.recv() => { stopper.send_replace(true); session.await }
        }
    })?;
    // A running order stays in the journal; the next start goes on with it.
    shared.hand_over(Work::Stop);
    Ok(())
}
