//! Networks: the dark one, and connecting and disconnecting.

use super::{Docker, failed, not_found, status};
use crate::error::DriverError;
use bollard::models::{
    EndpointSettings, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
};
use serde_json::Value;
use std::collections::BTreeMap;

impl Docker {
    /// Makes an internal network: no port of its containers is published, and nothing but the host reaches them.
    pub async fn create_internal_network(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<(), DriverError> {
        match self.api.inspect_network(name, None).await {
            Ok(_) => return Ok(()),
            Err(error) if not_found(&error) => {}
            Err(error) => return Err(failed(format!("can't look at the network {name}"), error)),
        }
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            internal: Some(true),
            labels: Some(labels.into_iter().collect()),
            ..Default::default()
        };
        match self.api.create_network(request).await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(409) => Ok(()),
            Err(error) => Err(failed(format!("can't create the network {name}"), error)),
        }
    }

    /// Removes a network; nothing there is fine.
    pub async fn remove_network(&self, name: &str) -> Result<(), DriverError> {
        match self.api.remove_network(name).await {
            Err(error) if !not_found(&error) => {
                Err(failed(format!("can't remove the network {name}"), error))
            }
            _ => Ok(()),
        }
    }

    /// Connects a container with these endpoint settings, unless it is connected.
    pub async fn join_network(
        &self,
        network: &str,
        container: &str,
        endpoint: &Value,
    ) -> Result<(), DriverError> {
        if self.connected(network, container).await? {
            return Ok(());
        }
        let settings: EndpointSettings =
            serde_json::from_value(endpoint.clone()).map_err(|error| DriverError::Answer {
                what: format!("endpoint in {network}"),
                message: error.to_string(),
            })?;
        let request = NetworkConnectRequest {
            container: container.to_owned(),
            endpoint_config: Some(settings),
        };
        self.api
            .connect_network(network, request)
            .await
            .map_err(|error| failed(format!("can't connect {container} to {network}"), error))
    }

    /// Disconnects a container, if it is connected.
    pub async fn leave_network(&self, network: &str, container: &str) -> Result<(), DriverError> {
        if !self.connected(network, container).await? {
            return Ok(());
        }
        let request = NetworkDisconnectRequest {
            container: container.to_owned(),
            force: Some(false),
        };
        self.api
            .disconnect_network(network, request)
            .await
            .map_err(|error| failed(format!("can't disconnect {container} from {network}"), error))
    }

    async fn connected(&self, network: &str, container: &str) -> Result<bool, DriverError> {
        let there = self.existing(container).await?;
        let networks = &there["NetworkSettings"]["Networks"];
        // An engine's own name for the default network is `bridge`; the mode of the container calls it `default`.
        Ok(networks.get(network).is_some_and(|one| !one.is_null()))
    }
}

/// Address of a container in a network.
pub fn address(container: &Value, network: &str) -> Option<String> {
    let address = container["NetworkSettings"]["Networks"][network]["IPAddress"].as_str()?;
    (!address.is_empty()).then(|| address.to_owned())
}

/// Names of the networks of a container.
pub fn names(container: &Value) -> Vec<String> {
    container["NetworkSettings"]["Networks"]
        .as_object()
        .into_iter()
        .flat_map(|map| map.keys().cloned())
        .collect()
}
