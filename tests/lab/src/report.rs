//! Reading the product's JSON report and holding it against what the scenario demands.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// A report, as printed by `pmm-coordinator report --json`.
pub struct Report(pub Value);

impl Report {
    /// Reads a stored report.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs_err::read_to_string(path)?;
        Ok(Self(
            serde_json::from_str(&text).context("the report is not JSON")?,
        ))
    }

    /// Text at a pointer such as `/server/outcome`; empty when absent.
    pub fn text(&self, pointer: &str) -> String {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }

    /// Text list at a pointer.
    pub fn list(&self, pointer: &str) -> Vec<String> {
        let rows = self
            .0
            .pointer(pointer)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        rows.iter()
            .map(|row| row.as_str().map_or_else(|| row.to_string(), str::to_owned))
            .collect()
    }

    /// How long the rollout took.
    pub fn lasted(&self) -> Result<Duration> {
        let at = |key: &str| self.0[key].as_u64();
        match (at("started_at_ms"), at("ended_at_ms")) {
            (Some(start), Some(end)) if end > start => Ok(Duration::from_millis(end - start)),
            times => bail!("the report has no start and end: {times:?}"),
        }
    }

    /// Number at a pointer.
    pub fn number(&self, pointer: &str) -> u64 {
        self.0.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
    }

    /// All host rows.
    pub fn hosts(&self) -> Vec<Value> {
        self.0["hosts"].as_array().cloned().unwrap_or_default()
    }

    /// One host's row; exactly one must be there.
    pub fn host(&self, name: &str) -> Result<Value> {
        let rows: Vec<Value> = self
            .hosts()
            .into_iter()
            .filter(|row| row["name"] == name)
            .collect();
        match &rows[..] {
            [row] => Ok(row.clone()),
            rows => bail!("host {name} is in the report {} times, not once", rows.len()),
        }
    }

    /// Disturbances as (target, step).
    pub fn disturbances(&self) -> Vec<(String, String)> {
        let rows = self.0["disturbances"].as_array().cloned().unwrap_or_default();
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        rows.iter()
            .map(|row| (text(row, "target"), text(row, "step")))
            .collect()
    }
}

/// Collects what does not hold, so that a run names everything at once.
#[derive(Default)]
pub struct Findings(Vec<String>);

impl Findings {
    /// Notes a violation unless the condition holds.
    pub fn expect(&mut self, holds: bool, text: impl Into<String>) {
        if !holds {
            self.0.push(text.into());
        }
    }

    /// Notes a difference unless both are equal.
    pub fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, seen: &T, wanted: &T) {
        self.expect(seen == wanted, format!("{what}: {seen:?}, expected {wanted:?}"));
    }

    /// Takes over the error of a step, if any.
    pub fn take<T>(&mut self, what: &str, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.0.push(format!("{what}: {error:#}"));
                None
            }
        }
    }

    /// Ends with an error that lists everything, or quietly.
    pub fn finish(self, what: &str) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        bail!(
            "{what}: {} expectation(s) did not hold:\n  - {}",
            self.0.len(),
            self.0.join("\n  - ")
        )
    }
}
