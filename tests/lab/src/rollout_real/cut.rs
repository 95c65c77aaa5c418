//! One host loses its network in the middle of its switch, for so long that the coordinator calls it lost, and gets it back.

use crate::fleet::{self, Host};
use crate::report::Findings;
use crate::{docker, hosts, names, output};
use anyhow::{Result, bail};
use serde_json::Value;
use std::time::{Duration, Instant};

/// The host: rpm, the second of its group.
pub const TARGET: &str = "rpm-a";

/// The coordinator notices a dead connection within 50 s and suspends absence for 50 s after each start of its own; then `lost_after`.
const NOTICED_WITHIN: Duration = Duration::from_secs(300);
/// An agent tries to connect at least every 20 s.
const BACK_WITHIN: Duration = Duration::from_secs(180);

/// How far it is.
enum Stage {
    Ahead,
    Cut(Instant),
    Back(Instant),
    Over,
}

/// The cut of a run.
pub struct Cut {
    host: &'static Host,
    stage: Stage,
    /// Step that the coordinator knew when the network went.
    step: String,
    /// Whether the coordinator was seen to know that the host is away, before it was lost.
    absent: bool,
    /// What the status said of the lost host.
    lost: String,
    away: Duration,
}

impl Cut {
    /// Prepares the host: the new package's script waits, so that the cut is in the middle of the package transaction.
    pub fn prepare() -> Result<Self> {
        let host = fleet::host(TARGET)?;
        hosts::script_mode(host, "hold")?;
        Ok(Self {
            host,
            stage: Stage::Ahead,
            step: String::new(),
            absent: false,
            lost: String::new(),
            away: Duration::ZERO,
        })
    }

    /// Whether the coordinator has to call the host lost now. A start of the coordinator would put that off each time.
    pub fn is_watched(&self) -> bool {
        matches!(self.stage, Stage::Cut(_))
    }

    /// Whether the host has its network back and was seen to go on.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Takes the next step of the cut if its time has come.
    pub fn look(&mut self, status: &Value) -> Result<()> {
        let row = self.row(status, "in_flight");
        match self.stage {
            Stage::Ahead => {
                let installs = row
                    .as_ref()
                    .is_some_and(|row| row["state"] == "switching" && row["step"] == "install");
                if installs && hosts::script_is_held(self.host)? {
                    self.cut()?;
                }
            }
            Stage::Cut(since) => {
                if let Some(row) = row
                    && row["connected"] == false
                    && !self.absent
                {
                    self.absent = true;
                    output::step(&format!(
                        "the coordinator knows that {TARGET} is away, after {:.0} s",
                        since.elapsed().as_secs_f64()
                    ));
                }
                if let Some(failure) = self
                    .row(status, "failures")
                    .filter(|row| row["outcome"] == "lost")
                {
                    self.lost = failure["reason"].as_str().unwrap_or_default().to_owned();
                    self.join(since)?;
                } else if since.elapsed() > NOTICED_WITHIN {
                    bail!(
                        "{TARGET} is without network for {} s and not lost; status: {status}",
                        NOTICED_WITHIN.as_secs()
                    );
                }
            }
            Stage::Back(since) => {
                let lost = self
                    .row(status, "failures")
                    .is_some_and(|row| row["outcome"] == "lost");
                if !lost {
                    output::step(&format!(
                        "{TARGET} goes on, {:.0} s after it got its network back",
                        since.elapsed().as_secs_f64()
                    ));
                    self.stage = Stage::Over;
                } else if since.elapsed() > BACK_WITHIN {
                    bail!(
                        "{TARGET} has its network back for {} s and is still lost; status: {status}",
                        BACK_WITHIN.as_secs()
                    );
                }
            }
            Stage::Over => {}
        }
        Ok(())
    }

    /// The cut happened in the middle of the transaction, and the coordinator saw it and said where.
    pub fn check(&self, findings: &mut Findings) {
        findings.expect(self.is_over(), format!("{TARGET} was not cut off and back"));
        findings.equal(
            "step in which the host was cut off",
            &self.step.as_str(),
            &"install",
        );
        findings.expect(
            self.absent,
            format!("the status never said that {TARGET} is away"),
        );
        findings.expect(
            self.lost.contains("silent since its permit"),
            format!("the reason of the lost host: `{}`", self.lost),
        );
        output::line(&format!(
            "cut: {TARGET} in step {}, {:.0} s without network; the status said: {}",
            self.step,
            self.away.as_secs_f64(),
            self.lost
        ));
    }

    fn cut(&mut self) -> Result<()> {
        let container = names::host(TARGET);
        docker::docker(["network", "disconnect", names::NETWORK, &container])?;
        self.stage = Stage::Cut(Instant::now());
        "install".clone_into(&mut self.step);
        output::step(&format!("{TARGET} has no network, in its package transaction"));
        if reaches_coordinator(&container)? {
            bail!("{TARGET} still reaches the coordinator without its network");
        }
        // From here on the host is alone: its agent carries on by its journal and waits for the PMM Server.
        hosts::release_script(self.host)
    }

    fn join(&mut self, since: Instant) -> Result<()> {
        let container = names::host(TARGET);
        docker::docker(["network", "connect", names::NETWORK, &container])?;
        self.away = since.elapsed();
        self.stage = Stage::Back(Instant::now());
        output::step(&format!(
            "{TARGET} is lost after {:.0} s and has its network again",
            self.away.as_secs_f64()
        ));
        if !reaches_coordinator(&container)? {
            bail!("{TARGET} has its network again and does not reach the coordinator");
        }
        Ok(())
    }

    fn row(&self, status: &Value, list: &str) -> Option<Value> {
        let rows = status[list].as_array()?;
        rows.iter().find(|row| row["name"] == self.host.name).cloned()
    }
}

/// Whether a host can open a connection to the enrolment port, whatever the answer.
fn reaches_coordinator(container: &str) -> Result<bool> {
    let url = format!("https://coordinator.lab:{}", names::ENROL_PORT);
    let argv = ["curl", "-sk", "--max-time", "10", "-o", "/dev/null", &url];
    // 6 no such name, 7 no connection, 28 no answer in time.
    Ok(!matches!(docker::exec(container, &argv)?.code, 6 | 7 | 28))
}
