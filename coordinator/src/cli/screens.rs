//! What the program prints: documents in, text out. No terminal, no clock, no connection; golden screens call these.

use super::output::Lists;
use super::status::Paint;
use super::{explain, plan_text, report, status};
use crate::operator_api::documents::{
    EventsDocument, ExplainedDocument, LiveStatus, PlanDiffDocument, PlanDocument,
};
use rollout::report::ReportDocument;

pub use super::watch::Lines;

/// `status`, and each frame of `watch`, in columns of this width and without colors.
pub fn status(document: &LiveStatus, width: usize) -> String {
    status::lines(document, width, Lists::Folded, &Paint { colors: false }).join("\n")
}

/// `explain`.
pub fn explain(document: &ExplainedDocument, width: usize) -> String {
    explain::explain_text(document, width)
}

/// `events`.
pub fn events(document: &EventsDocument, width: usize) -> String {
    explain::events_text(document, width)
}

/// `plan` and `plan show`.
pub fn plan(document: &PlanDocument, now_ms: u64, width: usize) -> String {
    plan_text::text(document, now_ms, width, Lists::Folded)
}

/// `plan diff`.
pub fn plan_diff(document: &PlanDiffDocument, width: usize) -> String {
    plan_text::diff_text(document, width, Lists::Folded)
}

/// `report`.
pub fn report(document: &ReportDocument, width: usize) -> String {
    report::text(document, width, Lists::Folded)
}
