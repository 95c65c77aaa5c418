//! Volumes.

use super::{Docker, failed};
use crate::error::DriverError;
use bollard::models::VolumeCreateRequest;
use std::collections::BTreeMap;

impl Docker {
    /// Makes a volume; one of this name that is there already is kept (Docker does nothing then).
    pub async fn create_volume(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<(), DriverError> {
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels.into_iter().collect()),
            ..Default::default()
        };
        self.api
            .create_volume(request)
            .await
            .map(|_| ())
            .map_err(|error| failed(format!("can't create the volume {name}"), error))
    }
}
