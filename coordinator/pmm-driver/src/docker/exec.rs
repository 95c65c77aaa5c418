//! Commands inside of a running container: argument vectors, never a shell.

use super::{Docker, failed};
use crate::error::DriverError;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use futures_util::StreamExt;
use std::time::Duration;

/// What a command printed. How it ended says little: `supervisorctl status` fails as soon as one program is stopped.
#[derive(Clone, Debug)]
pub struct ExecOutput {
    /// Standard output and error together.
    pub text: String,
}

impl Docker {
    /// Runs a command in a running container.
    pub async fn exec(
        &self,
        container: &str,
        command: &[&str],
        limit: Duration,
    ) -> Result<ExecOutput, DriverError> {
        let what = format!(
            "can't run {} in {container}",
            command.first().copied().unwrap_or_default()
        );
        let work = async {
            let config = ExecConfig {
                attach_stdout: Some(true),
                attach_stderr: Some(true),
                cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
                user: Some("root".to_owned()),
                ..Default::default()
            };
            let made = self.api.create_exec(container, config).await?;
            let mut text = String::new();
            if let StartExecResults::Attached { mut output, .. } = self.api.start_exec(&made.id, None).await?
            {
                while let Some(part) = output.next().await {
                    text.push_str(&String::from_utf8_lossy(&part?.into_bytes()));
                }
            }
            Ok(ExecOutput { text })
        };
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done.map_err(|error| failed(what, error)),
            Err(_) => Err(DriverError::Deadline {
                what,
                after_s: limit.as_secs(),
            }),
        }
    }
}
