//! PMM 2's own update (`/v1/Updates/*`).

use super::http::{Pmm, text};
use crate::error::DriverError;
use fleet_common::version::PmmVersion;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What PMM 2 offers.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The release it would update to.
    pub latest: Option<PmmVersion>,
    /// Whether it thinks that there is something to do.
    pub available: bool,
}

/// The handle of a running update.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Running {
    /// Opens the status call, which needs no other credential. Worthless after the update.
    pub auth_token: String,
    /// Where to read on.
    pub log_offset: u64,
}

impl Pmm {
    /// Asks with force, so that a cached answer of last night does not count.
    pub async fn check_updates(&self) -> Result<Offer, DriverError> {
        let answer = self.post("/v1/Updates/Check", &json!({"force": true})).await?;
        let latest = text(&answer["latest"], "version");
        Ok(Offer {
            latest: PmmVersion::from_package_version(&latest).ok(),
            available: answer["update_available"] == true,
        })
    }

    /// Starts the update.
    pub async fn start_update(&self) -> Result<Running, DriverError> {
        let answer = self.post("/v1/Updates/Start", &json!({})).await?;
        Ok(Running {
            auth_token: text(&answer, "auth_token"),
            log_offset: offset(&answer["log_offset"]),
        })
    }

    /// New log lines, and whether it ended.
    pub async fn update_status(&self, running: &mut Running) -> Result<(Vec<String>, bool), DriverError> {
        let answer = self
            .post(
                "/v1/Updates/Status",
                &json!({"auth_token": running.auth_token, "log_offset": running.log_offset}),
            )
            .await?;
        if let Some(next) = answer.get("log_offset") {
            running.log_offset = offset(next);
        }
        let lines = answer["log_lines"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|line| line.as_str().map(str::to_owned))
            .collect();
        Ok((lines, answer["done"] == true))
    }
}

fn offset(value: &serde_json::Value) -> u64 {
    super::http::number(value).map_or(0, |number| if number > 0.0 { number as u64 } else { 0 })
}
