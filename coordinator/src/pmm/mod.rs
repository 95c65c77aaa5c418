//! Glue between the fleet file and the server driver: the checks that need I/O, and the driver's settings.

use crate::config::DataDir;
use crate::engine::{Drivers, ServerDriver};
use crate::problem::{Problem, Problems};
use fleet_common::compat::CompatibilityTable;
use fleet_common::hint::{Hint as _, chain};
use fleet_common::version::PmmVersion;
use pmm_driver::{Driver, ServerConfig};
use rollout::fleet::{Fleet, FleetError, Pmm2Clients, Trust};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A fleet file whose files could be read, too.
pub struct CheckedFleet {
    /// The fleet.
    pub fleet: Fleet,
    /// The shipped table or the one that the fleet file names.
    pub table: CompatibilityTable,
}

/// Where the driver finds its things.
#[derive(Clone, Debug)]
pub struct DriverFiles {
    /// Journal of the hops.
    pub journal: PathBuf,
    /// The static volume helper.
    pub helper: PathBuf,
}

impl DriverFiles {
    /// Of a data directory. Without an explicit helper, the one beside our own program, or the packaged one.
    pub fn new(data: &DataDir, helper: Option<PathBuf>) -> Self {
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(|dir| dir.join("volume-helper")));
        let found = helper.or_else(|| beside.filter(|path| path.is_file()));
        let helper = found.unwrap_or_else(|| PathBuf::from("/usr/lib/pmm-coordinator/volume-helper"));
        Self {
            journal: data.server_journal(),
            helper,
        }
    }
}

impl Drivers for DriverFiles {
    fn of_fleet(&self, path: &str, text: &[u8]) -> Result<Arc<dyn ServerDriver>, Problems> {
        let checked = check(path, text)?;
        let driver: Arc<dyn ServerDriver> = driver(&checked.fleet, self)?;
        Ok(driver)
    }
}

/// Findings of the rollout crate as problems.
pub fn problems(errors: Vec<FleetError>) -> Problems {
    Problems::new(
        errors
            .into_iter()
            .map(|error| {
                let hints = error.hints();
                let at = match error.line {
                    Some(line) => format!("{}:{line}", error.file),
                    None => error.file,
                };
                Problem {
                    hints,
                    ..Problem::new(error.reason).at(at)
                }
            })
            .collect(),
    )
}

/// Reads and checks a fleet file with everything it names.
pub fn check(path: &str, text: &[u8]) -> Result<CheckedFleet, Problems> {
    let text = std::str::from_utf8(text)
        .map_err(|error| Problem::because("the fleet file is not UTF-8", &error).at(path.to_owned()))?;
    let fleet = rollout::fleet::parse(text, path).map_err(problems)?;
    let mut errors = Vec::new();
    let credential = Path::new(&fleet.server.credential_file);
    let lines = &fleet.lines;
    if let Some(error) = relative(&fleet, lines.credential_file, credential) {
        errors.push(error);
    } else if let Err(error) = pmm_driver::credential::read(credential) {
        let hint = error.hints().join("; ");
        errors.push(fleet.error(lines.credential_file, chain(&error), hint));
    }
    if let Trust::CaFile(file) = &fleet.server.trust {
        let file = Path::new(file);
        if let Some(error) = relative(&fleet, lines.ca_file, file) {
            errors.push(error);
        } else if let Err(reason) = readable_ca(file) {
            errors.push(fleet.error(
                lines.ca_file,
                reason,
                "give the PEM file of the CA that signed the PMM Server's certificate",
            ));
        }
    }
    let table = table(&fleet).unwrap_or_else(|error| {
        errors.push(error);
        CompatibilityTable::default()
    });
    if errors.is_empty() {
        Ok(CheckedFleet { fleet, table })
    } else {
        Err(problems(errors))
    }
}

fn relative(fleet: &Fleet, line: Option<usize>, file: &Path) -> Option<FleetError> {
    let hint =
        "write the whole path: the file is read by the coordinator, which has another working directory";
    file.is_relative()
        .then(|| fleet.error(line, format!("the path {} is relative", file.display()), hint))
}

fn readable_ca(file: &Path) -> Result<(), String> {
    let pem = fs_err::read(file).map_err(|error| error.to_string())?;
    fleet_tls::certificates(&pem, "CA file")
        .map_err(|error| format!("{}: {}", file.display(), chain(&error)))?;
    Ok(())
}

fn table(fleet: &Fleet) -> Result<CompatibilityTable, FleetError> {
    let line = fleet.lines.compatibility_file;
    let Some(file) = &fleet.compatibility_file else {
        return CompatibilityTable::shipped()
            .map_err(|error| fleet.error(None, error.to_string(), "this release is broken"));
    };
    if let Some(error) = relative(fleet, line, Path::new(file)) {
        return Err(error);
    }
    let text = fs_err::read_to_string(file).map_err(|error| {
        fleet.error(
            line,
            error.to_string(),
            "remove [compatibility] to use the shipped table",
        )
    })?;
    CompatibilityTable::parse(&text).map_err(|error| {
        fleet.error(
            line,
            format!("{file}: {}", error.message()),
            "its form is that of the shipped compatibility table",
        )
    })
}

/// The driver of the fleet's server.
pub fn driver(fleet: &Fleet, files: &DriverFiles) -> Result<Arc<Driver>, Problems> {
    let config = ServerConfig {
        name: fleet.server.name.clone(),
        url: fleet.server.url.clone(),
        credential_file: PathBuf::from(&fleet.server.credential_file),
        trust: match &fleet.server.trust {
            Trust::System => pmm_driver::Trust::System,
            Trust::CaFile(file) => pmm_driver::Trust::CaFile(PathBuf::from(file)),
            Trust::Fingerprint(hex) => pmm_driver::Trust::Fingerprint(hex.clone()),
        },
        docker_endpoint: fleet.server.docker_endpoint.clone(),
        container: fleet.server.container.clone(),
        image_repository: fleet.server.image_repository.clone(),
        helper: files.helper.clone(),
        deadlines: pmm_driver::Deadlines::default(),
    };
    let driver =
        Driver::new(config, files.journal.clone()).map_err(|error| Problems::from(driver_problem(&error)))?;
    Ok(Arc::new(driver))
}

/// An error of the driver with its advice.
pub fn driver_problem(error: &pmm_driver::DriverError) -> Problem {
    Problem::hinted(error)
}

/// All releases from the running one to the target, over the bridge if there is one. Empty when there is no way; the plan says why.
pub fn hop_path(checked: &CheckedFleet, running: PmmVersion) -> Vec<PmmVersion> {
    let target = checked.fleet.server.target;
    let path = |from, to| checked.table.hop_path(from, to).unwrap_or_default();
    match checked.fleet.server.pmm2_clients {
        Pmm2Clients::Bridge(bridge) if running <= bridge => {
            let mut whole = path(running, bridge);
            whole.extend(path(bridge, target));
            whole
        }
        _ => path(running, target),
    }
}
