//! Containers. Every call that changes something is a no-op when it is so already.

use super::{Docker, already, failed, not_found, raw};
use crate::error::DriverError;
use bollard::models::{ContainerUpdateBody, RestartPolicy};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    RenameContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures_util::StreamExt;
use serde_json::Value;
use std::collections::HashMap;

impl Docker {
    /// `docker inspect`, as the engine gives it.
    pub async fn container(&self, name: &str) -> Result<Option<Value>, DriverError> {
        self.get_raw(&format!("/containers/{name}/json")).await
    }

    /// A container that must be there.
    pub async fn existing(&self, name: &str) -> Result<Value, DriverError> {
        self.container(name).await?.ok_or_else(|| {
            let endpoint = self.endpoint();
            DriverError::State {
                code: fleet_common::codes::UNEXPECTED_STATE,
                message: format!("there is no container `{name}` at {endpoint}"),
                hints: vec![format!(
                    "`docker --host {endpoint} ps --all` lists those that are there"
                )],
            }
        })
    }

    /// Creates a container and gives its id. One that has this name already is returned as it is: names are functions of the order, so
    /// it was made by an earlier life of this step.
    pub async fn create_container(&self, name: &str, body: &Value) -> Result<String, DriverError> {
        if let Some(there) = self.container(name).await? {
            return Ok(there["Id"].as_str().unwrap_or_default().to_owned());
        }
        let path = format!("/containers/create?name={name}");
        match self.post_raw(&path, body).await? {
            (201, answer) => Ok(answer["Id"].as_str().unwrap_or_default().to_owned()),
            (status, answer) => Err(raw::refused(
                &format!("can't create the container {name}"),
                status,
                &answer,
            )),
        }
    }

    /// Starts a container.
    pub async fn start_container(&self, name: &str) -> Result<(), DriverError> {
        match self.api.start_container(name, None).await {
            Err(error) if !already(&error) => Err(failed(format!("can't start {name}"), error)),
            _ => Ok(()),
        }
    }

    /// Stops a container with this grace.
    pub async fn stop_container(&self, name: &str, grace_s: i32) -> Result<(), DriverError> {
        let options = StopContainerOptionsBuilder::default().t(grace_s).build();
        match self.api.stop_container(name, Some(options)).await {
            Err(error) if !already(&error) && !not_found(&error) => {
                Err(failed(format!("can't stop {name}"), error))
            }
            _ => Ok(()),
        }
    }

    /// Removes a container, running or not; its volumes stay.
    pub async fn remove_container(&self, name: &str) -> Result<(), DriverError> {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(false)
            .build();
        match self.api.remove_container(name, Some(options)).await {
            Err(error) if !not_found(&error) => Err(failed(format!("can't remove {name}"), error)),
            _ => Ok(()),
        }
    }

    /// Renames a container.
    pub async fn rename_container(&self, id: &str, name: &str) -> Result<(), DriverError> {
        let there = self.existing(id).await?;
        if there["Name"].as_str().map(|old| old.trim_start_matches('/')) == Some(name) {
            return Ok(());
        }
        let options = RenameContainerOptionsBuilder::default().name(name).build();
        self.api
            .rename_container(id, options)
            .await
            .map_err(|error| failed(format!("can't rename a container to {name}"), error))
    }

    /// Sets the restart policy.
    pub async fn set_restart_policy(&self, id: &str, policy: &Value) -> Result<(), DriverError> {
        let policy: RestartPolicy =
            serde_json::from_value(policy.clone()).map_err(|error| DriverError::Answer {
                what: "restart policy".to_owned(),
                message: error.to_string(),
            })?;
        let body = ContainerUpdateBody {
            restart_policy: Some(policy),
            ..Default::default()
        };
        self.api
            .update_container(id, body)
            .await
            .map_err(|error| failed(format!("can't set the restart policy of {id}"), error))
    }

    /// The output since `since_s` (Unix seconds), at most the last 2,000 lines.
    pub async fn output(&self, id: &str, since_s: i32) -> Result<String, DriverError> {
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .since(since_s)
            .tail("2000")
            .build();
        let mut stream = Box::pin(self.api.logs(id, Some(options)));
        let mut text = String::new();
        while let Some(part) = stream.next().await {
            match part {
                Ok(part) => text.push_str(&String::from_utf8_lossy(&part.into_bytes())),
                Err(error) => return Err(failed(format!("can't read the output of {id}"), error)),
            }
        }
        Ok(text)
    }

    /// Names of all containers, running or not, with these labels.
    pub async fn containers_with(&self, labels: &[String]) -> Result<Vec<String>, DriverError> {
        let filters: HashMap<String, Vec<String>> =
            [("label".to_owned(), labels.to_vec())].into_iter().collect();
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let found = self
            .api
            .list_containers(Some(options))
            .await
            .map_err(|error| failed("can't list containers", error))?;
        Ok(found
            .into_iter()
            .filter_map(|one| {
                one.names?
                    .first()
                    .map(|name| name.trim_start_matches('/').to_owned())
            })
            .collect())
    }
}

/// Whether an inspected container runs.
pub fn running(container: &Value) -> bool {
    container["State"]["Running"] == Value::Bool(true)
}

/// Whether an inspected container was ever started.
pub fn ever_started(container: &Value) -> bool {
    container["State"]["StartedAt"]
        .as_str()
        .is_some_and(|at| !at.starts_with("0001-"))
}
