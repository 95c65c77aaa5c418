//! `doctor`: checks the coordinator itself, whether it runs or not.

use super::Ended;
use super::output::Output;
use super::survey::findings_text;
use crate::clock;
use crate::config::DataDir;
use crate::config::permissions::mode_and_owner;
use crate::pki;
use crate::store::{ADOPT_HINT, Store};
use fleet_common::codes::exit;
use fleet_common::hint::chain;
use fleet_common::survey::{Finding, Verdict};
use serde::Serialize;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Arguments {
    /// The Docker socket that the server upgrade will use
    #[arg(long, default_value = "/var/run/docker.sock")]
    docker_socket: PathBuf,
    /// The static volume helper, if it lies somewhere else
    #[arg(long, env = "PMM_COORDINATOR_VOLUME_HELPER")]
    volume_helper: Option<PathBuf>,
    /// Go on with a store that is older than what its agents saw, such as one from a backup
    #[arg(long)]
    adopt_epoch: bool,
    /// Do not ask before --adopt-epoch
    #[arg(long, requires = "adopt_epoch")]
    yes: bool,
}

#[derive(Serialize)]
struct DoctorDocument {
    data: String,
    healthy: bool,
    findings: Vec<Finding>,
}

const DAY_MS: u64 = 24 * 3_600_000;
/// The day this program was written: a clock before it is wrong.
const NOT_BEFORE_MS: u64 = 1_763_000_000_000;

pub fn run(arguments: &Arguments, data: &DataDir, output: &Output) -> Ended {
    if arguments.adopt_epoch {
        return super::adopt::run(data, arguments.yes, output);
    }
    let mut doctor = Doctor { findings: Vec::new() };
    doctor.directory(data);
    if data.store().is_file() {
        doctor.keys(data);
        doctor.certificates(data);
        doctor.store(data);
        doctor.daemon(data);
    }
    doctor.docker(&arguments.docker_socket);
    doctor.helper(data, arguments.volume_helper.clone());
    doctor.clock();
    let healthy = doctor
        .findings
        .iter()
        .all(|finding| finding.verdict != Verdict::Fail);
    let document = DoctorDocument {
        data: data.path().display().to_string(),
        healthy,
        findings: doctor.findings,
    };
    output.document(&document, |document| {
        let mut text = format!("{}\n", document.data);
        findings_text(&mut text, &document.findings, output.width());
        text
    });
    Ok(if healthy { exit::OK } else { exit::FAILED })
}

struct Doctor {
    findings: Vec<Finding>,
}

impl Doctor {
    fn note(&mut self, check: &str, verdict: Verdict, message: impl Into<String>, hint: &str) {
        let finding = Finding {
            check: check.to_owned(),
            verdict,
            message: message.into(),
            hint: hint.to_owned(),
        };
        self.findings.push(finding);
    }

    fn mode(&mut self, check: &str, path: &Path, allowed: u32) {
        let shown = path.display();
        match mode_and_owner(path) {
            Err(error) => self.note(
                check,
                Verdict::Fail,
                error.to_string(),
                "run `pmm-coordinator init`, or as another account",
            ),
            Ok((mode, _)) if mode & !allowed & 0o777 != 0 => {
                let hint = format!("chmod {allowed:04o} {shown}");
                self.note(
                    check,
                    Verdict::Fail,
                    format!("{shown} has mode {mode:04o}; others can get at it"),
                    &hint,
                );
            }
            Ok((mode, _)) => self.note(check, Verdict::Pass, format!("{shown} has mode {mode:04o}"), ""),
        }
    }

    fn directory(&mut self, data: &DataDir) {
        self.mode("data directory", data.path(), 0o700);
        if !data.store().is_file() {
            self.note(
                "store",
                Verdict::Fail,
                "the data directory is not initialised",
                "run `pmm-coordinator init --name <name of this machine>`",
            );
        }
    }

    fn keys(&mut self, data: &DataDir) {
        for (check, path) in [
            ("CA key", data.ca_key()),
            ("server key", data.server_key()),
            ("store file", data.store()),
        ] {
            self.mode(check, &path, 0o600);
        }
    }

    fn certificates(&mut self, data: &DataDir) {
        if let Err(error) = pki::load(data) {
            self.note(
                "CA",
                Verdict::Fail,
                chain(&error),
                "restore the data directory from a backup; a new CA means enrolling every host again",
            );
        }
        for (check, path) in [
            ("CA certificate", data.ca_certificate()),
            ("server certificate", data.server_chain()),
        ] {
            let end = fs_err::read(&path)
                .map_err(pki::PkiError::from)
                .and_then(|pem| pki::not_after_ms(&pem));
            match end {
                Err(error) => self.note(
                    check,
                    Verdict::Fail,
                    chain(&error),
                    "remove server.pem and server.key and restart the coordinator: it makes new ones",
                ),
                Ok(end) => {
                    let left = end.saturating_sub(clock::now_ms()) / DAY_MS;
                    let verdict = if left == 0 {
                        Verdict::Fail
                    } else if left < 30 {
                        Verdict::Warn
                    } else {
                        Verdict::Pass
                    };
                    let text = format!("valid until {} ({left} days)", clock::rfc3339(end));
                    self.note(
                        check,
                        verdict,
                        text,
                        "the coordinator renews its server certificate while it runs; its log says why it could not",
                    );
                }
            }
        }
    }

    fn store(&mut self, data: &DataDir) {
        match Store::integrity(&data.store()) {
            Ok(bad) if bad.is_empty() => self.note("store", Verdict::Pass, "SQLite finds nothing wrong", ""),
            Ok(bad) => self.note(
                "store",
                Verdict::Fail,
                bad.join("; "),
                "stop the coordinator and restore the store from a backup",
            ),
            Err(error) => self.note(
                "store",
                Verdict::Fail,
                chain(&error),
                "is it the right directory, and the right account?",
            ),
        }
        match Store::restored_in(&data.store()) {
            Ok(Some(restored)) => self.note("epoch", Verdict::Fail, restored.text(), ADOPT_HINT),
            Ok(None) => self.note(
                "epoch",
                Verdict::Pass,
                "no agent has seen more than this store gave",
                "",
            ),
            // A store of an older release has no place for it; the next `serve` makes one.
            Err(error) => self.note(
                "epoch",
                Verdict::Warn,
                chain(&error),
                "start `pmm-coordinator serve` once",
            ),
        }
        if let Ok(stat) = rustix::fs::statvfs(data.path()) {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize) / (1024 * 1024);
            let verdict = if free < 100 {
                Verdict::Fail
            } else if free < 1024 {
                Verdict::Warn
            } else {
                Verdict::Pass
            };
            self.note(
                "disk",
                verdict,
                format!("{free} MiB free for the store"),
                "with a full disk nothing new is started and nothing acknowledged",
            );
        }
    }

    fn daemon(&mut self, data: &DataDir) {
        match UnixStream::connect(data.socket()) {
            Ok(_) => {
                self.note(
                    "daemon",
                    Verdict::Pass,
                    "the coordinator answers on its socket",
                    "",
                );
                self.mode("socket", &data.socket(), 0o600);
            }
            Err(error) => self.note(
                "daemon",
                Verdict::Warn,
                format!("the coordinator does not run: {error}"),
                "start `pmm-coordinator serve`",
            ),
        }
    }

    fn docker(&mut self, socket: &Path) {
        match UnixStream::connect(socket) {
            Ok(_) => self.note(
                "docker",
                Verdict::Pass,
                format!("{} can be reached", socket.display()),
                "",
            ),
            Err(error) => self.note(
                "docker",
                Verdict::Warn,
                format!("{}: {error}", socket.display()),
                "needed where the PMM Server is upgraded; give the coordinator's account access to it",
            ),
        }
    }

    fn helper(&mut self, data: &DataDir, explicit: Option<PathBuf>) {
        let helper = crate::pmm::DriverFiles::new(data, explicit).helper;
        if helper.is_file() {
            self.note("volume helper", Verdict::Pass, helper.display().to_string(), "");
        } else {
            let text = format!("{} is missing", helper.display());
            self.note(
                "volume helper",
                Verdict::Warn,
                text,
                "needed for the server upgrade; install it or give --volume-helper to `serve`",
            );
        }
    }

    fn clock(&mut self) {
        let now = clock::now_ms();
        let verdict = if now < NOT_BEFORE_MS {
            Verdict::Fail
        } else {
            Verdict::Pass
        };
        self.note(
            "clock",
            verdict,
            clock::rfc3339(now),
            "set the clock; certificates depend on it",
        );
    }
}
