//! From the file as typed to a valid [`Fleet`], naming every fault at once.

mod clients;
mod groups;
mod numbers;
mod policy;
mod server;
mod times;

use super::error::Findings;
use super::raw::{self, Spanned};
use super::{Fleet, FleetError, Lines, Timing};
use clients::clients;
use fleet_common::version::PmmVersion;
pub(super) use groups::RESERVED;
use numbers::duration;
use server::server;

/// What is shorter is nearly always a mistake in the unit; reminders and retries would follow each other without a pause.
const SHORTEST_MS: u64 = 1_000;
const NO_RELEASE: PmmVersion = PmmVersion::new(0, 0, 0);

pub(super) fn fleet(text: &str, file: &str) -> Result<Fleet, Vec<FleetError>> {
    let mut found = Findings::new(file, text);
    let raw: raw::File = match toml::from_str(text) {
        Ok(raw) => raw,
        Err(error) => {
            let (reason, hint) = shape_fault(error.message());
            found.add(error.span().map(|span| span.start), reason, hint);
            return Err(found.into_errors());
        }
    };
    let mut lines = Lines::default();
    let server = server(raw.server, &mut lines, &mut found);
    let clients = clients(raw.clients, server.target, &mut lines, &mut found);
    let timing = timing(&raw.timing.unwrap_or_default(), &mut found);
    let compatibility_file = raw
        .compatibility
        .and_then(|table| text_of(table.file, &mut lines.compatibility_file, &found));
    let rollout = groups::rollout(&raw.rollout.unwrap_or_default(), &mut found);
    let defaults = raw.defaults.unwrap_or_default();
    let groups = groups::groups(raw.group, &defaults, &rollout, timing.verify_ms, &mut found);
    if !found.is_empty() {
        return Err(found.into_errors());
    }
    Ok(Fleet {
        file: file.to_owned(),
        server,
        clients,
        compatibility_file,
        timing,
        rollout,
        groups,
        lines,
    })
}

/// The parser's word on a file of the wrong shape, with what to do about it.
fn shape_fault(message: &str) -> (String, String) {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (key, known) = rest.split_once(", ").unwrap_or((rest, ""));
        let known = known
            .strip_prefix("expected ")
            .unwrap_or(known)
            .trim_start_matches("one of ");
        let hint = if known.is_empty() {
            "remove the key".to_owned()
        } else {
            format!("known keys here: {known}")
        };
        return (format!("unknown key {key}"), hint);
    }
    (
        message.trim().to_owned(),
        "correct the line; nothing was read after it".to_owned(),
    )
}

fn text_of(value: raw::Text, line: &mut Option<usize>, found: &Findings<'_>) -> Option<String> {
    value.map(|value| {
        *line = Some(found.line(value.at()));
        value.into_inner()
    })
}

fn release(value: &Spanned<String>, key: &str, found: &mut Findings<'_>) -> PmmVersion {
    value.get_ref().parse().unwrap_or_else(|_| {
        found.add(
            Some(value.at()),
            format!("{key} = \"{}\" is not a PMM release", value.get_ref()),
            "write all three numbers, such as \"3.9.1\"",
        );
        NO_RELEASE
    })
}

fn timing(raw: &raw::Timing, found: &mut Findings<'_>) -> Timing {
    let default = Timing::default();
    let mut read = |value: &raw::Text, key: &str, default: u64| {
        let Some(text) = value else { return default };
        let key = format!("timing.{key}");
        let ms = duration(text, &key, false, found);
        if ms.is_some_and(|ms| ms < SHORTEST_MS) {
            found.add(
                Some(text.at()),
                format!(
                    "{key} = \"{}\" is over before anybody could answer",
                    text.get_ref()
                ),
                "write a second at least",
            );
        }
        ms.unwrap_or(default)
    };
    Timing {
        permit_ms: read(&raw.permit, "permit", default.permit_ms),
        preflight_ms: read(&raw.preflight, "preflight", default.preflight_ms),
        stage_ms: read(&raw.stage, "stage", default.stage_ms),
        switch_ms: read(&raw.switch, "switch", default.switch_ms),
        verify_ms: read(&raw.verify, "verify", default.verify_ms),
        rollback_ms: read(&raw.rollback, "rollback", default.rollback_ms),
        lost_after_ms: read(&raw.lost_after, "lost_after", default.lost_after_ms),
        offline_for_ms: read(&raw.offline_for, "offline_for", default.offline_for_ms),
        survey_max_age_ms: read(&raw.survey_max_age, "survey_max_age", default.survey_max_age_ms),
        reminder_ms: read(&raw.reminder, "reminder", default.reminder_ms),
        backup_for_ms: read(&raw.backup_for, "backup_for", default.backup_for_ms),
    }
}
