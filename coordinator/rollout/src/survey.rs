//! Readiness of the server and of the fleet, by finding.

use crate::plan::{HostRecord, ServerInput};
use fleet_common::inventory::Detection;
use fleet_common::survey::{Finding, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `survey` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurveyDocument {
    /// When it was put together.
    pub at_ms: u64,
    /// Hosts that could be upgraded now.
    pub hosts_ready: u32,
    /// Hosts with at least one failed check, without a client, or refused by detection.
    pub hosts_not_ready: u32,
    /// Hosts that did not answer in time.
    pub hosts_unanswered: u32,
    /// Release of the server, if it answered.
    pub server_version: Option<String>,
    /// Findings of the server.
    pub server: Vec<Finding>,
    /// The fleet by finding, failed ones first.
    pub findings: Vec<FindingGroup>,
    /// Every host once.
    pub hosts: Vec<SurveyedHost>,
}

/// One check and verdict, and the hosts with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingGroup {
    /// Name of the check.
    pub check: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Message of the first host.
    pub example: String,
    /// What to do.
    pub hint: String,
    /// Names of the hosts.
    pub hosts: Vec<String>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurveyedHost {
    /// Host id.
    pub host: String,
    /// Host name.
    pub name: String,
    /// `ready`, `not_ready`, `unanswered`.
    pub state: String,
    /// Install method, empty if there is none.
    pub method: String,
    /// Installed release, empty if there is none.
    pub version: String,
    /// When the survey was taken.
    pub taken_at_ms: Option<u64>,
    /// All findings.
    pub findings: Vec<Finding>,
}

/// Puts the surveys together. Surveys taken before `since_ms` count as unanswered.
pub fn document(
    hosts: &[HostRecord],
    server: Option<&ServerInput>,
    since_ms: u64,
    now_ms: u64,
) -> SurveyDocument {
    let mut groups: BTreeMap<(std::cmp::Reverse<Verdict>, String), FindingGroup> = BTreeMap::new();
    let mut listed = Vec::new();
    for host in hosts {
        let fresh = host.survey.as_ref().filter(|(taken, _)| *taken >= since_ms);
        let mut findings = detection_findings(&host.inventory.client);
        findings.extend(
            fresh
                .iter()
                .flat_map(|(_, survey)| survey.findings.iter().cloned()),
        );
        let failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
        let state = if failed {
            "not_ready"
        } else if fresh.is_none() {
            "unanswered"
        } else {
            "ready"
        };
        for finding in &findings {
            groups
                .entry((std::cmp::Reverse(finding.verdict), finding.check.clone()))
                .or_insert_with(|| FindingGroup {
                    check: finding.check.clone(),
                    verdict: finding.verdict,
                    example: finding.message.clone(),
                    hint: finding.hint.clone(),
                    hosts: Vec::new(),
                })
                .hosts
                .push(host.inventory.hostname.clone());
        }
        let installation = host.inventory.installation();
        listed.push(SurveyedHost {
            host: host.host_id.to_string(),
            name: host.inventory.hostname.clone(),
            state: state.to_owned(),
            method: installation.map_or_else(String::new, |found| found.method.to_string()),
            version: installation.map_or_else(String::new, |found| found.version.to_string()),
            taken_at_ms: fresh.map(|(taken, _)| *taken),
            findings,
        });
    }
    let count = |state: &str| {
        u32::try_from(listed.iter().filter(|host| host.state == state).count()).unwrap_or(u32::MAX)
    };
    SurveyDocument {
        at_ms: now_ms,
        hosts_ready: count("ready"),
        hosts_not_ready: count("not_ready"),
        hosts_unanswered: count("unanswered"),
        server_version: server.map(|server| server.running.to_string()),
        server: server.map(|server| server.findings.clone()).unwrap_or_default(),
        findings: groups.into_values().collect(),
        hosts: listed,
    }
}

fn detection_findings(detection: &Detection) -> Vec<Finding> {
    let fail = |message: &str, hint: &str| {
        vec![Finding {
            check: "installation".to_owned(),
            verdict: Verdict::Fail,
            message: message.to_owned(),
            hint: hint.to_owned(),
        }]
    };
    match detection {
        Detection::Installed(_) => Vec::new(),
        Detection::NotInstalled => fail(
            "there is no PMM client on this host",
            "nothing to do, or install a client",
        ),
        Detection::Refused { message, .. } => fail(message, "see `pmm-upgrade-agent detect` on the host"),
    }
}
