//! Release, readiness, settings (PMM API: server service of both majors).

use super::http::{Pmm, text};
use crate::error::DriverError;
use fleet_common::version::PmmVersion;
use serde_json::{Value, json};

/// What the version call says.
#[derive(Clone, Debug)]
pub struct Version {
    /// Release.
    pub version: PmmVersion,
    /// `DISTRIBUTION_METHOD_DOCKER` and the like.
    pub distribution: String,
}

impl Pmm {
    /// The release. The old path works on both majors: PMM 3's nginx rewrites it.
    pub async fn version(&self) -> Result<Version, DriverError> {
        let answer = match self.get("/v1/version").await {
            Err(DriverError::Status { status: 404, .. }) => self.get("/v1/server/version").await?,
            other => other?,
        };
        let told = text(&answer, "version");
        let version = PmmVersion::from_package_version(&told).map_err(|error| DriverError::Answer {
            what: "version".to_owned(),
            message: error.to_string(),
        })?;
        Ok(Version {
            version,
            distribution: text(&answer, "distribution_method"),
        })
    }

    /// HTTP status of the readiness call: 200 ready, 503 maintenance page, 500 something behind it is not ready.
    pub async fn readiness(&self) -> Result<u16, DriverError> {
        self.probe("/v1/readyz").await
    }

    /// Settings as they come; only administrators get them.
    pub async fn settings(&self, major: u32) -> Result<Value, DriverError> {
        let answer = if major >= 3 {
            self.get("/v1/server/settings").await?
        } else {
            self.post("/v1/Settings/Get", &json!({})).await?
        };
        Ok(answer.get("settings").cloned().unwrap_or(answer))
    }
}
