//! The volume helper in a container of its own: made from a PMM image that is already there, as root, without network, with our static
//! program copied in.

use super::{Docker, containers, failed};
use crate::error::DriverError;
use bollard::query_parameters::WaitContainerOptionsBuilder;
use fleet_common::codes;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Where the program is inside of the helper container.
const PROGRAM: &str = "pmm-fleet-volume-helper";
/// What removing a container takes at most.
const MARGIN: Duration = Duration::from_secs(20);

/// One piece of volume work.
pub struct Work<'a> {
    /// Name of the helper container.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Id of the PMM image.
    pub image: &'a str,
    /// The program.
    pub program: &'a [u8],
    /// Its arguments.
    pub args: Vec<String>,
    /// `Binds` and `Mounts` of the container.
    pub binds: Vec<String>,
    /// How long it may take.
    pub limit: Duration,
    /// A finished helper of this name is from another life and its answer may be used.
    pub reuse: bool,
}

impl Docker {
    /// Does the work and reads the answer. A helper of this name that still runs was started by an earlier life of this step: it is
    /// waited for, so that the work is not done twice at once.
    pub async fn help<T: DeserializeOwned>(&self, work: &Work<'_>) -> Result<T, DriverError> {
        let there = self.container(&work.name).await?;
        let keep = there.as_ref().is_some_and(|one| {
            let ended_well = containers::ever_started(one) && one["State"]["ExitCode"] == 0;
            containers::running(one) || (work.reuse && ended_well)
        });
        if !keep {
            self.remove_container(&work.name).await?;
            self.create_container(&work.name, &body(work)).await?;
            self.put_program(&work.name, PROGRAM, work.program).await?;
            self.start_container(&work.name).await?;
        }
        let status = match tokio::time::timeout(own_limit(work.limit), self.wait_for_exit(&work.name)).await {
            Ok(status) => status?,
            Err(_) => {
                self.remove_container(&work.name).await?;
                return Err(DriverError::Deadline {
                    what: format!("volume work {}", work.args.join(" ")),
                    after_s: work.limit.as_secs(),
                });
            }
        };
        let output = self.output(&work.name, 0).await?;
        self.remove_container(&work.name).await?;
        answer(work, status, &output)
    }

    async fn wait_for_exit(&self, name: &str) -> Result<i64, DriverError> {
        let options = WaitContainerOptionsBuilder::default()
            .condition("not-running")
            .build();
        let mut stream = Box::pin(self.api.wait_container(name, Some(options)));
        match stream.next().await {
            Some(Ok(answer)) => Ok(answer.status_code),
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(failed(format!("can't wait for {name}"), error)),
            None => Err(DriverError::Answer {
                what: format!("waiting for {name}"),
                message: "no answer".to_owned(),
            }),
        }
    }
}

/// A helper is given up before the step around it is: whoever ends the wait must have the time to end the work as well.
fn own_limit(limit: Duration) -> Duration {
    limit.saturating_sub((limit / 10).min(MARGIN))
}

fn body(work: &Work<'_>) -> Value {
    json!({
        "Image": work.image,
        "User": "0:0",
        "Entrypoint": [format!("/{PROGRAM}")],
        "Cmd": work.args,
        "WorkingDir": "/",
        "Env": [],
        "Labels": work.labels,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {"Binds": work.binds, "NetworkMode": "none", "RestartPolicy": {"Name": "no"}, "LogConfig": {"Type": "json-file"}},
    })
}

fn answer<T: DeserializeOwned>(work: &Work<'_>, status: i64, output: &str) -> Result<T, DriverError> {
    let what = work.args.first().cloned().unwrap_or_default();
    let line = output
        .lines()
        .rev()
        .find(|line| line.starts_with('{'))
        .unwrap_or_default();
    let value: Value = serde_json::from_str(line).unwrap_or_default();
    if status != 0 || value.get("error").is_some() {
        let told = value["error"]
            .as_str()
            .map_or_else(|| super::short(output, 400), str::to_owned);
        return Err(DriverError::state(
            codes::DOCKER,
            format!("volume work `{what}` ended with status {status}: {told}"),
        ));
    }
    serde_json::from_value(value).map_err(|error| DriverError::Answer {
        what: format!("volume work `{what}`"),
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_ends_before_its_step() {
        for seconds in [1, 30, 600, 86_400] {
            let limit = Duration::from_secs(seconds);
            assert!(own_limit(limit) < limit);
            assert!(own_limit(limit) >= limit * 9 / 10);
        }
    }
}
