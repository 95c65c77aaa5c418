//! What comes before a rollout: the server's inspection and preflight, the survey, the plan.

use super::documents::{PlanDiffDocument, PlanDocument};
use super::service::OperatorService;
use crate::clock;
use crate::engine::{SurveyOrders, SurveyTarget};
use crate::plan_choice;
use crate::pmm::{self, CheckedFleet};
use crate::problem::{Problem, Problems};
use crate::store::{AuditEntry, HostRow, PlanRow, Startable, WaitingPlan};
use fleet_common::hint::chain;
use fleet_common::ids::PlanId;
use fleet_common::inventory::Inventory;
use fleet_common::plan_entry::{Expect, PlanEntry};
use fleet_common::survey::{Finding, HostSurvey, Verdict};
use fleet_common::verification::FleetSnapshot;
use fleet_proto::{FleetRequest, SurveyRequest};
use pmm_driver::Driver;
use rollout::fleet::Fleet;
use rollout::kernel::Kernel;
use rollout::plan::{HostRecord, Plan, PlanDraft, ServerInput};
use rollout::survey::SurveyDocument;
use server_upgrade::facts::{PreflightReport, ServerFacts};
use std::sync::Arc;

/// Query Analytics of the hour before say which services are idle.
const QAN_WINDOW_MS: u64 = 3_600_000;
/// Longest wait for a survey when the operator names none.
const SURVEY_WAIT_MS: u64 = 10 * 60_000;

impl OperatorService {
    fn checked(&self, path: &str, text: &[u8]) -> Result<(CheckedFleet, Arc<Driver>), Problems> {
        let checked = pmm::check(path, text)?;
        let driver = pmm::driver(&checked.fleet, &self.files)?;
        Ok((checked, driver))
    }

    pub(super) async fn inspect_document(&self, request: FleetRequest) -> Result<ServerFacts, Problems> {
        let (_, driver) = self.checked(&request.path, &request.text)?;
        driver
            .inspect()
            .await
            .map_err(|error| Problems::from(pmm::driver_problem(&error)))
    }

    pub(super) async fn preflight_document(
        &self,
        request: FleetRequest,
    ) -> Result<PreflightReport, Problems> {
        let (checked, driver) = self.checked(&request.path, &request.text)?;
        preflight(&checked, &driver).await
    }

    pub(super) async fn survey_document(&self, request: SurveyRequest) -> Result<SurveyDocument, Problems> {
        let (checked, driver) = self.checked(&request.path, &request.text)?;
        let since_ms = clock::now_ms();
        let wait_ms = if request.wait_for_ms == 0 {
            SURVEY_WAIT_MS
        } else {
            request.wait_for_ms
        };
        let targets = self
            .host_records()
            .await?
            .into_iter()
            .filter(|record| self.sessions.is_connected(&record.host_id))
            .filter_map(|record| survey_target(&checked.fleet, &record))
            .collect();
        let orders = SurveyOrders {
            targets,
            preflight_for_ms: checked.fleet.timing.preflight_ms,
            stage_for_ms: checked.fleet.timing.stage_ms,
            until_ms: since_ms.saturating_add(wait_ms),
        };
        let (surveyed, server) = tokio::join!(self.engine.survey(orders), preflight(&checked, &driver));
        surveyed?;
        let server = server_input(server);
        let records = self.host_records().await?;
        Ok(rollout::survey::document(
            &records,
            Some(&server.0),
            since_ms,
            clock::now_ms(),
        ))
        .map(|mut document| {
            if !server.1 {
                document.server_version = None;
            }
            document
        })
    }

    pub(super) async fn create_plan_document(
        &self,
        who: String,
        request: FleetRequest,
    ) -> Result<PlanDocument, Problems> {
        let now_ms = clock::now_ms();
        let newest = self.store.newest_plan().await?.map(|row| row.plan);
        let running = self.running_plan().await?;
        let parent = running
            .as_ref()
            .map(|(id, _)| id.clone())
            .or_else(|| newest.clone());
        let running = running.map(|(_, plan)| plan);
        let draft = self.planned(&request.path, &request.text).await?;
        let (plan_id, document) = draft
            .with_parent(parent.clone())
            .into_bytes()
            .map_err(|error| Problem::because("the plan can't be written", &error))?;
        let plan = Plan::parse(&document)
            .map_err(|error| Problem::because("the plan can't be read back", &error))?;
        let row = PlanRow {
            plan: plan_id.clone(),
            parent,
            created_at_ms: now_ms,
            document,
            fleet_path: request.path,
            fleet_text: request.text,
        };
        let audit = AuditEntry {
            at_ms: now_ms,
            who,
            what: "plan".to_owned(),
            detail: plan_id.to_string(),
        };
        if !self.store.save_plan_after(row, newest, audit).await? {
            return Err(plan_choice::not_kept().into());
        }
        Ok(PlanDocument {
            plan_id: plan_id.to_string(),
            started: false,
            next: self.next_step(&plan_id, &plan).await?,
            against_parent: running.map(|running| rollout::plan::diff(&running, &plan)),
            plan,
        })
    }

    /// A plan of the fleet as it is now; while a rollout is under way, one that may take it over.
    async fn planned(&self, path: &str, text: &[u8]) -> Result<PlanDraft, Problems> {
        let (checked, driver) = self.checked(path, text)?;
        let busy = self
            .engine
            .ask(|kernel, _| kernel.is_some_and(Kernel::works_on_server))
            .await?;
        let report = preflight(&checked, &driver).await.map_err(|mut problems| {
            for problem in problems.errors.iter_mut().filter(|_| busy) {
                problem.hints.insert(
                    0,
                    "the rollout works on the server at this moment: try again when its hop is over, see `status`".to_owned(),
                );
            }
            problems
        })?;
        let now_ms = clock::now_ms();
        let snapshot = driver
            .snapshot(now_ms.saturating_sub(QAN_WINDOW_MS))
            .await
            .map_err(|error| Problems::from(pmm::driver_problem(&error)))?;
        let server = ServerInput {
            running: report.facts.version,
            findings: report.findings,
            reach: report.facts.reach,
        };
        let records = self.host_records().await?;
        let running = self
            .engine
            .ask(|kernel, _| kernel.filter(|kernel| !kernel.is_final()).map(Kernel::running))
            .await?;
        rollout::plan::join_child(
            &checked.fleet,
            &records,
            &snapshot,
            &server,
            &checked.table,
            now_ms,
            running.as_ref(),
        )
        .map_err(pmm::problems)
    }

    /// The plan of the rollout that did not end yet.
    async fn running_plan(&self) -> Result<Option<(PlanId, Plan)>, Problems> {
        let Some(row) = self.store.newest_rollout().await? else {
            return Ok(None);
        };
        if row.finished_at_ms.is_some() {
            return Ok(None);
        }
        let stored = self.stored_plan(row.plan.as_str()).await?;
        Ok(Some((stored.plan.clone(), read_plan(&stored)?)))
    }

    pub(super) async fn plan_diff_document(
        &self,
        plan: &str,
        other: &str,
    ) -> Result<PlanDiffDocument, Problems> {
        let row = self.stored_plan(plan).await?;
        let from = read_plan(&row)?;
        let (to, compared) = if matches!(other, "" | "now") {
            let draft = self.planned(&row.fleet_path, &row.fleet_text).await?;
            ("now".to_owned(), draft.plan)
        } else {
            let other = self.stored_plan(other).await?;
            (other.plan.to_string(), read_plan(&other)?)
        };
        Ok(PlanDiffDocument {
            from: row.plan.to_string(),
            to,
            diff: rollout::plan::diff(&from, &compared),
        })
    }

    pub(super) async fn show_plan_document(&self, wanted: &str) -> Result<PlanDocument, Problems> {
        let row = self.stored_plan(wanted).await?;
        let started = self.store.plan_was_started(&row.plan).await?;
        let plan = read_plan(&row)?;
        let against_parent = match &row.parent {
            Some(parent) if self.store.plan_was_started(parent).await? => {
                let parent = self.stored_plan(parent.as_str()).await?;
                Some(rollout::plan::diff(&read_plan(&parent)?, &plan))
            }
            _ => None,
        };
        Ok(PlanDocument {
            plan_id: row.plan.to_string(),
            started,
            next: self.next_step(&row.plan, &plan).await?,
            against_parent,
            plan,
        })
    }

    /// The command that carries this plan out, if one does now.
    async fn next_step(&self, id: &PlanId, plan: &Plan) -> Result<Option<String>, Problems> {
        let waiting = self.waiting_plan().await?;
        let waits = waiting.is_some_and(|waiting| waiting.plan == *id);
        let idle = self.running_plan().await?.is_none();
        let startable = self.store.startable(Some(id.clone())).await?;
        let may_begin = idle && matches!(startable, Startable::Yes(_));
        Ok(plan_choice::next(id, plan, waits, may_begin))
    }

    /// The newest plan, if the rollout under way could adopt it.
    pub(super) async fn waiting_plan(&self) -> Result<Option<WaitingPlan>, Problems> {
        let Some(waiting) = self.store.waiting_plan().await? else {
            return Ok(None);
        };
        let takes = self
            .engine
            .ask(|kernel, _| kernel.is_some_and(Kernel::takes_another_plan))
            .await?;
        Ok(Some(waiting).filter(|_| takes))
    }

    /// A plan by id, or the newest one.
    pub(super) async fn stored_plan(&self, wanted: &str) -> Result<PlanRow, Problems> {
        let row = if wanted.is_empty() {
            self.store.newest_plan().await?
        } else {
            self.store.plan(&PlanId::new(wanted)).await?
        };
        row.ok_or_else(|| plan_choice::no_plan(wanted).into())
    }

    /// Hosts that take part in plans: known, not revoked, with an inventory.
    pub(super) async fn host_records(&self) -> Result<Vec<HostRecord>, Problems> {
        Ok(self.store.hosts().await?.into_iter().filter_map(record).collect())
    }
}

fn read_plan(row: &PlanRow) -> Result<Plan, Problems> {
    Plan::parse(&row.document).map_err(|error| Problem::because("the plan can't be read", &error).into())
}

fn record(row: HostRow) -> Option<HostRecord> {
    if row.revoked {
        return None;
    }
    let inventory: Inventory = serde_json::from_slice(row.inventory.as_deref()?).ok()?;
    let survey: Option<HostSurvey> = row
        .survey
        .as_deref()
        .and_then(|bytes| serde_json::from_slice(bytes).ok());
    let quarantined = row.quarantined.map(|reason| format!("quarantined: {reason}"));
    let held = quarantined.or(row.held);
    Some(HostRecord {
        host_id: row.host,
        inventory,
        survey: survey.map(|survey| (row.survey_at_ms, survey)),
        held,
    })
}

fn survey_target(fleet: &Fleet, record: &HostRecord) -> Option<SurveyTarget> {
    let found = record.inventory.installation()?;
    let entry = PlanEntry {
        host: record.host_id.to_string(),
        name: record.inventory.hostname.clone(),
        group: String::new(),
        leg: "survey".to_owned(),
        expect: Expect {
            method: found.method,
            from_min: found.version,
            from_max: found.version,
            base_dir: found.base_dir.clone(),
            agent_id: found.agent_id.clone(),
        },
        to: fleet.clients.target,
        source: fleet.clients.source.clone(),
        verify_for_ms: fleet.timing.verify_ms,
        repoint: None,
    };
    Some(SurveyTarget {
        host: record.host_id.clone(),
        entry: serde_json::to_vec(&entry).ok()?,
    })
}

async fn preflight(checked: &CheckedFleet, driver: &Driver) -> Result<PreflightReport, Problems> {
    let problem = |error: pmm_driver::DriverError| Problems::from(pmm::driver_problem(&error));
    let facts = driver.inspect().await.map_err(problem)?;
    // Where no path leads to the target, that is said with its line before anything long is asked.
    let server = ServerInput {
        running: facts.version,
        findings: Vec::new(),
        reach: facts.reach,
    };
    let nobody = FleetSnapshot::default();
    rollout::plan::join(&checked.fleet, &[], &nobody, &server, &checked.table, 0).map_err(pmm::problems)?;
    let path = pmm::hop_path(checked, facts.version);
    driver
        .preflight(&path, checked.fleet.server.pmm2_update)
        .await
        .map_err(problem)
}

/// The server for a survey; one that can't be reached is a finding. Says whether its release is known.
fn server_input(report: Result<PreflightReport, Problems>) -> (ServerInput, bool) {
    match report {
        Ok(report) => (
            ServerInput {
                running: report.facts.version,
                findings: report.findings,
                reach: report.facts.reach,
            },
            true,
        ),
        Err(problems) => {
            let hint = problems
                .errors
                .first()
                .map(|problem| problem.hints.join("; "))
                .unwrap_or_default();
            let finding = Finding {
                check: "reachable".to_owned(),
                verdict: Verdict::Fail,
                message: chain(&problems),
                hint,
            };
            let unknown = fleet_common::version::PmmVersion::new(0, 0, 0);
            (
                ServerInput {
                    running: unknown,
                    findings: vec![finding],
                    reach: fleet_common::reach::ContainerReach::default(),
                },
                false,
            )
        }
    }
}
