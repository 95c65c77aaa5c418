//! Hosts one by one: failed, in flight, being prepared, waiting.

use super::paint::Paint;
use crate::cli::output::Lists;
use crate::cli::text::{cut, duration, folded, words};
use crate::operator_api::documents::LiveStatus;
use rollout::progress::{InFlight, StatusDocument};
use std::collections::BTreeMap;

/// Longest lists on a screen, and most names in a line.
const LIST: usize = 12;
const NAMES: usize = 5;
/// State of a host that is asked or downloads: its client runs on, so it needs no look.
const PREPARING: &str = "preparing";

/// Where the lists are shown.
#[derive(Clone, Copy)]
pub struct Screen<'a> {
    pub width: usize,
    pub lists: Lists,
    pub paint: &'a Paint,
}

impl Screen<'_> {
    pub fn failures(self, status: &StatusDocument, all: &mut Vec<String>) {
        self.title("failed", status.failures.len(), all);
        let shown = self.lists.shown(status.failures.len(), LIST);
        for failure in &status.failures[..shown] {
            let slot = if failure.slot_held { ", holds a slot" } else { "" };
            let mut line = format!(
                "  {} ({}{slot}) {}",
                failure.name,
                failure.group,
                words(&failure.outcome)
            );
            if !failure.step.is_empty() {
                line.push_str(&format!(" in step {}", failure.step));
            }
            for part in [&failure.code, &failure.reason] {
                if !part.is_empty() {
                    line.push_str(&format!(": {part}"));
                }
            }
            for (number, line) in folded(&line, self.width.saturating_sub(4)).iter().enumerate() {
                let indent = if number == 0 { "  " } else { "    " };
                all.push(self.paint.red(&format!("{indent}{line}")));
            }
            all.extend(super::hint(&failure.hint, "    ", self.width));
        }
        more(status.failures.len() - shown, all);
    }

    /// Hosts with a permit; first those that somebody may have to look at.
    pub fn in_flight(self, live: &LiveStatus, all: &mut Vec<String>) {
        let mut hosts: Vec<&InFlight> = live.status.in_flight.iter().collect();
        hosts.retain(|host| host.state != PREPARING);
        // Stable: the longest first among equals.
        hosts.sort_by_key(|host| host.connected && !host.asked);
        self.title("in flight", hosts.len(), all);
        let shown = self.lists.shown(hosts.len(), LIST);
        for host in &hosts[..shown] {
            all.push(self.host(live, host));
        }
        more(hosts.len() - shown, all);
    }

    /// Hosts that are asked or download: how many in which step, where they are many.
    pub fn preparing(self, live: &LiveStatus, all: &mut Vec<String>) {
        let mut hosts: Vec<&InFlight> = live.status.in_flight.iter().collect();
        hosts.retain(|host| host.state == PREPARING);
        self.title("being prepared, old client runs", hosts.len(), all);
        if self.lists.shown(hosts.len(), NAMES) == hosts.len() {
            all.extend(hosts.iter().map(|host| self.host(live, host)));
            return;
        }
        let mut steps: BTreeMap<(bool, &str), Vec<&str>> = BTreeMap::new();
        for host in &hosts {
            let step = (host.connected, host.step.as_str());
            steps.entry(step).or_default().push(&host.name);
        }
        for ((connected, step), names) in steps {
            let away = if connected { "" } else { ", NOT CONNECTED" };
            let dots = if names.len() > NAMES { ", ..." } else { "" };
            let names_shown = names[..names.len().min(NAMES)].join(", ");
            let line = format!("  {} in step {step}{away}: {names_shown}{dots}", names.len());
            all.push(cut(&line, self.width));
        }
    }

    fn host(self, live: &LiveStatus, host: &InFlight) -> String {
        let step = if host.step.is_empty() {
            String::new()
        } else if host.of > 0 {
            format!("  step {}/{} {}", host.index, host.of, host.step)
        } else {
            format!("  step {}", host.step)
        };
        let mut line = format!(
            "  {} ({})  {}{step}  {}",
            host.name,
            host.group,
            words(&host.state),
            duration(live.status.now_ms.saturating_sub(host.since_ms))
        );
        if !host.connected {
            line.push_str("  NOT CONNECTED");
        }
        if host.attempt > 1 {
            line.push_str(&format!("  attempt {}", host.attempt));
        }
        if let Some(progress) = live
            .progress
            .get(&host.host)
            .filter(|progress| progress.step == host.step)
        {
            let percent = if progress.percent > 0 {
                format!("{} % ", progress.percent)
            } else {
                String::new()
            };
            line.push_str(&format!("  {percent}{}", progress.note));
        }
        // A step that stands there needs not be said twice.
        if !host.waits_for.is_empty() && (host.step.is_empty() || !host.waits_for.contains(&host.step)) {
            line.push_str(&format!("  waits: {}", host.waits_for));
        }
        cut(line.trim_end(), self.width)
    }

    pub fn waits(self, status: &StatusDocument, all: &mut Vec<String>) {
        if status.waits.is_empty() {
            return;
        }
        all.push(String::new());
        all.push(self.paint.bold("waiting"));
        let shown = self.lists.shown(status.waits.len(), LIST);
        for wait in &status.waits[..shown] {
            let more = if usize::try_from(wait.count).unwrap_or(usize::MAX) > wait.hosts.len() {
                ", ..."
            } else {
                ""
            };
            let hosts = if wait.count == 1 { "host" } else { "hosts" };
            let line = format!(
                "  {} {hosts}: {}; turn of {}: {}{more}",
                wait.count,
                super::said_once(status, &wait.text),
                words(&wait.owner),
                wait.hosts.join(", ")
            );
            for (number, line) in folded(&line, self.width.saturating_sub(4)).iter().enumerate() {
                let indent = if number == 0 { "  " } else { "    " };
                all.push(format!("{indent}{line}"));
            }
        }
        more(status.waits.len() - shown, all);
    }

    fn title(self, what: &str, count: usize, all: &mut Vec<String>) {
        if count > 0 {
            all.push(String::new());
            all.push(self.paint.bold(&format!("{what} ({count})")));
        }
    }
}

fn more(count: usize, all: &mut Vec<String>) {
    if count > 0 {
        all.push(format!("  and {count} more; `status --all` lists them"));
    }
}
