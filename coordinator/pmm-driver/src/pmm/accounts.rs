//! Grafana's API keys, which PMM 3 turns into service accounts (PMM docs: migrating_from_pmm_2.md).

use super::http::{Pmm, number, text};
use crate::error::DriverError;
use serde_json::json;

/// What the conversion did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversion {
    /// Keys that became service accounts.
    pub migrated: u64,
    /// Names or reasons of those that did not; they stay valid as keys.
    pub failed: Vec<String>,
}

impl Pmm {
    /// Names of API keys that are still keys; `None` where Grafana no longer lists them.
    pub async fn api_keys(&self) -> Result<Option<Vec<String>>, DriverError> {
        match self.get("/graph/api/auth/keys").await {
            Ok(answer) => Ok(Some(
                answer
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|key| text(key, "name"))
                    .collect(),
            )),
            Err(DriverError::Status {
                status: 404 | 410, ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Converts all keys.
    pub async fn convert_api_keys(&self) -> Result<Conversion, DriverError> {
        let answer = self
            .post("/graph/api/serviceaccounts/migrate", &json!({}))
            .await?;
        let details = answer["failedDetails"].as_array().into_iter().flatten();
        Ok(Conversion {
            migrated: number(&answer["migrated"]).map_or(0, |number| number as u64),
            failed: details
                .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
                .collect(),
        })
    }
}
