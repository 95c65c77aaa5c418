//! A survey outside of a rollout: preflight and stage on every connected host. Results are stored with the events that carried them, so
//! those that arrive late count as well.

use super::errand::Errand;
use super::handle::{Answer, SurveyOrders};
use crate::store::IncomingEvent;
use fleet_common::codes;
use fleet_common::ids::HostId;
use fleet_common::order::{Action, HostEvent, OrderResult, Outcome};
use fleet_common::survey::{Finding, HostSurvey, Verdict};
use std::collections::BTreeMap;

const PREFIX: &str = "survey-";

/// A survey under way.
pub struct SurveyRun {
    id: String,
    orders: SurveyOrders,
    hosts: BTreeMap<HostId, HostRun>,
    answer: Answer<()>,
}

struct HostRun {
    entry: Vec<u8>,
    /// The order that is out; `None` when the host is done.
    out: Option<Action>,
    survey: HostSurvey,
}

/// What follows from a result.
#[derive(Default)]
pub struct Followed {
    /// A survey to store.
    pub survey: Option<HostSurvey>,
    /// Whether the host gets its next order.
    pub next: bool,
}

impl SurveyRun {
    pub fn new(id: u64, mut orders: SurveyOrders, answer: Answer<()>) -> Self {
        let empty = || HostSurvey {
            findings: Vec::new(),
            candidate: None,
            kept: None,
        };
        let hosts = std::mem::take(&mut orders.targets)
            .into_iter()
            .map(|target| {
                (
                    target.host,
                    HostRun {
                        entry: target.entry,
                        out: Some(Action::Preflight),
                        survey: empty(),
                    },
                )
            })
            .collect();
        Self {
            id: format!("{PREFIX}{id}"),
            orders,
            hosts,
            answer,
        }
    }

    /// All hosts of the survey.
    pub fn hosts(&self) -> Vec<HostId> {
        self.hosts.keys().cloned().collect()
    }

    /// Its name, which its errands carry.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What a host should be working on.
    pub fn errand(&self, host: &HostId) -> Option<Errand> {
        let run = self.hosts.get(host)?;
        let action = run.out?;
        let deadline_for_ms = if action == Action::Stage {
            self.orders.stage_for_ms
        } else {
            self.orders.preflight_for_ms
        };
        Some(Errand {
            host: host.clone(),
            order_id: format!("{}/{host}/{}", self.id, action.as_str()),
            plan_id: self.id.clone(),
            action,
            entry: run.entry.clone(),
            release: Vec::new(),
            deadline_for_ms,
            start_within_ms: 0,
            // The download goes on although the operator no longer waits; the survey itself drops what is left.
            until_ms: u64::MAX,
        })
    }

    /// Takes the result of one of its errands.
    pub fn take(&mut self, errand: &Errand, result: &OrderResult) -> Followed {
        let Some(run) = self.hosts.get_mut(&errand.host) else {
            return Followed::default();
        };
        if errand.plan_id != self.id || run.out != Some(errand.action) {
            return Followed::default();
        }
        if run.out == Some(Action::Stage) {
            run.survey.findings.push(stage_finding(result));
            run.out = None;
            return Followed {
                survey: Some(run.survey.clone()),
                next: false,
            };
        }
        run.survey = preflight_survey(result);
        run.out = run.survey.ready().then_some(Action::Stage);
        Followed {
            survey: Some(run.survey.clone()),
            next: run.out.is_some(),
        }
    }

    /// Whether nobody is waited for any more.
    pub fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.orders.until_ms
            || self.hosts.values().all(|run| run.out.is_none())
            || self.answer.is_closed()
    }

    /// Ends the survey.
    pub fn end(self) {
        // The operator may have left.
        let _ = self.answer.send(Ok(()));
    }
}

/// Whether an errand is of a survey.
pub fn owns(errand: &Errand) -> bool {
    errand.plan_id.starts_with(PREFIX)
}

/// The survey of a preflight that belongs to no survey under way (the coordinator was restarted meanwhile).
pub fn late_survey(event: &IncomingEvent) -> Option<HostSurvey> {
    let order = event.order.as_ref()?.as_str();
    match &event.event {
        Ok(HostEvent::Finished(result)) if order.starts_with(PREFIX) && order.ends_with("/preflight") => {
            Some(preflight_survey(result))
        }
        _ => None,
    }
}

fn preflight_survey(result: &OrderResult) -> HostSurvey {
    if let Ok(survey) = serde_json::from_value::<HostSurvey>(result.detail.clone()) {
        // A preflight that failed without a failed finding is still a failure.
        if result.outcome == Outcome::Done || !survey.ready() {
            return survey;
        }
    }
    let finding = Finding {
        check: "preflight".to_owned(),
        verdict: failure(result),
        message: if result.message.is_empty() {
            format!("the preflight ended {:?}", result.outcome)
        } else {
            result.message.clone()
        },
        hint: "see the agent's log on the host".to_owned(),
    };
    HostSurvey {
        findings: vec![finding],
        candidate: None,
        kept: None,
    }
}

/// A backup that runs now says nothing about the host's turn: there it is waited for.
fn failure(result: &OrderResult) -> Verdict {
    if result.code.as_str() == codes::BACKUP_RUNNING {
        Verdict::Warn
    } else {
        Verdict::Fail
    }
}

fn stage_finding(result: &OrderResult) -> Finding {
    let done = result.outcome == Outcome::Done;
    Finding {
        check: "stage".to_owned(),
        verdict: if done { Verdict::Pass } else { failure(result) },
        message: match (done, result.message.is_empty()) {
            (true, true) => "the new package is downloaded and verified, the old one is kept".to_owned(),
            (false, true) => format!("staging ended {:?} ({})", result.outcome, codes::STAGE_FAILED),
            _ => result.message.clone(),
        },
        hint: if done {
            String::new()
        } else {
            "check the package source in the fleet file and the host's way to it".to_owned()
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::handle::SurveyTarget;
    use super::*;
    use fleet_common::codes::Code;

    fn run() -> SurveyRun {
        let orders = SurveyOrders {
            targets: vec![SurveyTarget {
                host: HostId::new("h"),
                entry: b"{}".to_vec(),
            }],
            preflight_for_ms: 1,
            stage_for_ms: 2,
            until_ms: 1000,
        };
        SurveyRun::new(7, orders, tokio::sync::oneshot::channel().0)
    }

    fn result(outcome: Outcome, detail: serde_json::Value) -> OrderResult {
        OrderResult {
            outcome,
            step: String::new(),
            code: Code::new(""),
            message: String::new(),
            took_ms: 1,
            detail,
        }
    }

    #[test]
    fn stage_follows_a_preflight_that_passed() {
        let mut run = run();
        let host = HostId::new("h");
        let preflight = run.errand(&host).unwrap();
        assert_eq!(preflight.order_id, "survey-7/h/preflight");
        assert!(owns(&preflight));
        let survey = serde_json::json!({"findings": [], "candidate": "3.9.1", "kept": null});
        let followed = run.take(&preflight, &result(Outcome::Done, survey));
        assert!(followed.next && followed.survey.unwrap().ready());
        let stage = run.errand(&host).unwrap();
        assert_eq!(stage.order_id, "survey-7/h/stage");
        let failed = result(Outcome::FailedNothingChanged, serde_json::Value::Null);
        let followed = run.take(&stage, &failed);
        assert!(!followed.survey.unwrap().ready());
        assert!(run.errand(&host).is_none());
    }

    #[test]
    fn a_running_backup_is_a_warning_and_no_refusal() {
        let mut run = run();
        let preflight = run.errand(&HostId::new("h")).unwrap();
        let mut refused = result(Outcome::Refused, serde_json::Value::Null);
        refused.code = Code::new(codes::BACKUP_RUNNING);
        let followed = run.take(&preflight, &refused);
        assert!(followed.next && followed.survey.unwrap().ready());
    }

    #[test]
    fn a_repeated_or_foreign_result_does_nothing() {
        let mut run = run();
        let errand = run.errand(&HostId::new("h")).unwrap();
        let done = result(Outcome::Done, serde_json::Value::Null);
        let foreign = Errand {
            plan_id: "survey-6".into(),
            ..errand.clone()
        };
        let followed = run.take(&foreign, &done);
        assert!(followed.survey.is_none() && !followed.next);
        assert!(run.take(&errand, &done).survey.is_some());
        assert!(run.take(&errand, &done).survey.is_none());
    }
}
