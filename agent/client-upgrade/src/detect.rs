//! Facts to detection. Evidence, not a guess: package database, owner of the running binary, unit, command line, local API. What contradicts
//! itself is refused with a reason unless the policy says which installation wins.

use crate::carry::package_base;
use crate::environment::{CONFIG_FILE, Variables};
use crate::facts::{Facts, Home, Mixed, PackageFacts, PackageState, ProcessFacts, TreeFacts, UnitFacts};
use crate::parse::config::ClientConfig;
use fleet_common::codes;
use fleet_common::inventory::{Detection, Installation, Method, RunKind};
use fleet_common::version::PmmVersion;

/// What the facts amount to.
pub fn detect(facts: &Facts) -> Detection {
    let evidence = evidence(facts);
    match choose(facts) {
        Ok(Some(choice)) => Detection::Installed(Box::new(installation(facts, &choice, evidence))),
        Ok(None) => Detection::NotInstalled,
        Err(refusal) => Detection::Refused {
            code: refusal.code.to_owned(),
            message: refusal.message,
            evidence,
        },
    }
}

struct Refusal {
    code: &'static str,
    message: String,
}

struct Choice<'a> {
    method: Method,
    package: Option<&'a PackageFacts>,
    base: String,
    version: PmmVersion,
}

/// The program of the PMM Server that manages all others; it runs as long as the server does (percona/pmm managed, under supervisord).
pub const PMM_SERVER_PROGRAM: &str = "pmm-managed";

/// What shows that a PMM Server runs here, from where its program lives. Without ids: those change with each container.
pub fn pmm_server<'a>(homes: impl IntoIterator<Item = &'a Home>) -> Option<String> {
    let place = |home: &Home| match home {
        Home::Container(_) => "in a container".to_owned(),
        Home::Pod(_) => "in a pod".to_owned(),
        Home::Service(unit) => format!("in {unit}"),
        Home::ByHand => "on the host itself".to_owned(),
    };
    homes
        .into_iter()
        .map(place)
        .min()
        .map(|place| format!("{PMM_SERVER_PROGRAM} runs {place}"))
}

/// Processes of the host itself, not of its containers.
pub fn host_processes(facts: &Facts) -> impl Iterator<Item = &ProcessFacts> {
    facts
        .processes
        .iter()
        .filter(|process| !matches!(process.home, Home::Container(_) | Home::Pod(_)))
}

fn refuse<T>(code: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        code,
        message: message.into(),
    })
}

fn choose(facts: &Facts) -> Result<Option<Choice<'_>>, Refusal> {
    let package = package(facts)?;
    let tarballs: Vec<&TreeFacts> = facts.trees.iter().filter(|tree| tree.owner.is_none()).collect();
    let foreign_process = host_processes(facts).find(|process| package.is_some() && !process.packaged());
    let mixed = package.is_some() && (!tarballs.is_empty() || foreign_process.is_some());
    let use_package = match (&package, mixed, facts.mixed) {
        (None, ..) => false,
        (Some(_), false, _) => true,
        (Some(_), true, Mixed::Package) => true,
        (Some(_), true, Mixed::Tarball) => false,
        (Some((_, found, _)), true, Mixed::Refuse) => {
            let other = tarballs
                .first()
                .map(|tree| tree.dir.clone())
                .or_else(|| foreign_process.map(|process| process.exe.clone()));
            return refuse(
                codes::MIXED_INSTALLATION,
                format!(
                    "package {} and a client from elsewhere ({}) are both here",
                    found.name,
                    other.unwrap_or_default()
                ),
            );
        }
    };
    if let (true, Some((method, found, version))) = (use_package, package) {
        return Ok(Some(Choice {
            method,
            package: Some(found),
            base: package_base(version.major).to_owned(),
            version,
        }));
    }
    match tarballs[..] {
        [] => nothing(facts),
        [tree] => match tree.version {
            Some(version) => Ok(Some(Choice {
                method: Method::Tarball,
                package: None,
                base: tree.dir.clone(),
                version,
            })),
            None => refuse(
                codes::UNEXPECTED_STATE,
                format!("the programs in {} don't tell their release", tree.dir),
            ),
        },
        _ => {
            let dirs: Vec<_> = tarballs.iter().map(|tree| tree.dir.as_str()).collect();
            refuse(
                codes::MIXED_INSTALLATION,
                format!("several clients from tarballs: {}", dirs.join(", ")),
            )
        }
    }
}

/// The one installed package, or why it can't be told.
fn package(facts: &Facts) -> Result<Option<(Method, &PackageFacts, PmmVersion)>, Refusal> {
    let with = |method: Method, list: &'_ [PackageFacts]| -> Vec<(Method, PackageFacts)> {
        list.iter()
            .filter(|found| matches!(found.state, PackageState::Installed | PackageState::Broken))
            .map(|found| (method, found.clone()))
            .collect()
    };
    let all = [with(Method::Deb, &facts.deb), with(Method::Rpm, &facts.rpm)].concat();
    let [(method, found)] = &all[..] else {
        if all.is_empty() {
            return Ok(None);
        }
        let names: Vec<_> = all
            .iter()
            .map(|(method, found)| format!("{method} {} {}", found.name, found.version))
            .collect();
        return refuse(
            codes::MIXED_INSTALLATION,
            format!("several client packages: {}", names.join(", ")),
        );
    };
    if found.state == PackageState::Broken {
        return refuse(
            codes::UNEXPECTED_STATE,
            format!(
                "package {} {} is only half installed; let the package manager finish first",
                found.name, found.version
            ),
        );
    }
    let Ok(version) = PmmVersion::from_package_version(&found.version) else {
        return refuse(
            codes::UNEXPECTED_STATE,
            format!(
                "package {} has the unreadable version {}",
                found.name, found.version
            ),
        );
    };
    // PMM 1 used the name `pmm-client` too.
    if version.major < 2 {
        return refuse(
            codes::NOT_APPLICABLE,
            format!("{} {} is a PMM 1 client", found.name, found.version),
        );
    }
    let list = if *method == Method::Deb {
        &facts.deb
    } else {
        &facts.rpm
    };
    Ok(list
        .iter()
        .find(|candidate| *candidate == found)
        .map(|kept| (*method, kept, version)))
}

fn nothing(facts: &Facts) -> Result<Option<Choice<'_>>, Refusal> {
    if let Some(process) = host_processes(facts).next() {
        return refuse(
            codes::UNEXPECTED_STATE,
            format!(
                "{} runs, but no installation around it was recognised",
                process.exe
            ),
        );
    }
    match facts.processes.first().map(|process| &process.home) {
        Some(Home::Pod(path)) => refuse(
            codes::NOT_APPLICABLE,
            format!("the client runs in a pod ({path}); its operator owns it"),
        ),
        Some(Home::Container(path)) => refuse(
            codes::NOT_APPLICABLE,
            format!("the client runs in a container ({path})"),
        ),
        _ => Ok(None),
    }
}

/// The process that is the client: the one in a service if several run from the same tree.
pub fn main_process<'a>(facts: &'a Facts, base: &str, packaged: bool) -> Option<&'a ProcessFacts> {
    let mine =
        |process: &&ProcessFacts| packaged == process.packaged() && (packaged || below(&process.exe, base));
    let candidates: Vec<_> = host_processes(facts).filter(mine).collect();
    candidates
        .iter()
        .find(|process| matches!(process.home, Home::Service(_)))
        .or_else(|| candidates.first())
        .copied()
}

fn below(path: &str, base: &str) -> bool {
    path.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'))
}

/// The unit that runs the client in a directory, or would: units of tarballs have any name.
fn unit_of<'a>(facts: &'a Facts, process: Option<&ProcessFacts>, base: &str) -> Option<&'a UnitFacts> {
    let named = |name: &str| facts.units.iter().find(|unit| unit.name == name);
    if let Some(Home::Service(name)) = process.map(|process| &process.home) {
        return named(name);
    }
    let starts = |unit: &&UnitFacts| {
        unit.exec_start
            .first()
            .is_some_and(|program| below(program, base))
    };
    facts
        .units
        .iter()
        .find(starts)
        .or_else(|| named("pmm-agent.service"))
}

/// The variables that the client has, or would be started with.
pub fn variables(facts: &Facts, found: &Installation) -> Variables {
    let process = main_process(facts, &found.base_dir, found.package.is_some());
    variables_of(process, unit_of(facts, process, &found.base_dir))
}

fn variables_of(process: Option<&ProcessFacts>, unit: Option<&UnitFacts>) -> Variables {
    process
        .map(|process| &process.environment)
        .or(unit.map(|unit| &unit.environment))
        .cloned()
        .unwrap_or_default()
}

/// The variables that decide after a restart: a service gets its unit's, whatever somebody gave the running process.
pub fn variables_at_start(facts: &Facts, found: &Installation) -> Variables {
    let process = main_process(facts, &found.base_dir, found.package.is_some());
    let unit =
        unit_of(facts, process, &found.base_dir).filter(|_| !matches!(found.run, RunKind::ByHand { .. }));
    let of_unit = unit.map(|unit| unit.environment.clone()).unwrap_or_default();
    variables(facts, found).with(of_unit)
}

/// The configuration as the client sees it; `None` where it is opaque.
pub fn client_config(facts: &Facts, found: &Installation) -> Option<ClientConfig> {
    facts.effective(&found.config_file, &variables(facts, found))
}

fn installation(facts: &Facts, choice: &Choice<'_>, evidence: Vec<String>) -> Installation {
    let process = main_process(facts, &choice.base, choice.package.is_some());
    let unit = unit_of(facts, process, &choice.base);
    let variables = variables_of(process, unit);
    let status = process.and(facts.status.as_ref());
    // A process whose package was exchanged may name a file that the new package's scripts moved.
    let named = process
        .filter(|process| !process.gone || config_is_there(facts, process))
        .and_then(|process| process.config_file.clone());
    let config_file = named
        .or_else(|| {
            status
                .map(|status| status.config_file.clone())
                .filter(|path| !path.is_empty())
                .filter(|_| process.is_some_and(|process| !process.gone))
        })
        .or_else(|| unit.and_then(unit_config))
        .unwrap_or_else(|| format!("{}/config/pmm-agent.yaml", choice.base));
    let config = facts.effective(&config_file, &variables);
    let tree = facts.trees.iter().find(|tree| tree.dir == choice.base);
    let run = match process {
        Some(ProcessFacts {
            home: Home::Service(name),
            ..
        }) => RunKind::Systemd {
            unit: name.clone(),
            enabled: unit.is_some_and(crate::facts::UnitFacts::enabled),
        },
        Some(process) => RunKind::ByHand {
            user: process.user.clone(),
        },
        None => RunKind::Stopped,
    };
    let status_id = status.map(|status| status.agent_id.clone()).unwrap_or_default();
    let agent_id = config
        .as_ref()
        .map(|config| config.id.clone())
        .filter(|id| !id.is_empty())
        .unwrap_or(status_id);
    Installation {
        method: choice.method,
        package: choice.package.map(|package| package.name.clone()),
        package_version: choice.package.map(|package| package.version.clone()),
        version: choice.version,
        running_version: status.and_then(|status| status.version),
        base_dir: choice.base.clone(),
        configured: config.as_ref().map_or(
            !agent_id.is_empty(),
            crate::parse::config::ClientConfig::configured,
        ),
        config_file,
        user: process
            .map(|process| process.user.clone())
            .or_else(|| unit.map(|unit| unit.user.clone()).filter(|user| !user.is_empty()))
            .or_else(|| tree.map(|tree| tree.user.clone()))
            .unwrap_or_else(|| "root".to_owned()),
        run,
        agent_id,
        node_id: status.map(|status| status.node_id.clone()).unwrap_or_default(),
        server_address: config
            .as_ref()
            .map(|config| config.server_address.clone())
            .unwrap_or_default(),
        server_ips: Vec::new(),
        connected: status.map(|status| status.connected),
        credential: config
            .as_ref()
            .map_or("none", crate::parse::config::ClientConfig::credential)
            .to_owned(),
        exporters: status.map(|status| status.exporters.clone()).unwrap_or_default(),
        evidence,
    }
}

fn config_is_there(facts: &Facts, process: &ProcessFacts) -> bool {
    let path = process.config_file.as_ref();
    path.is_some_and(|path| facts.configs.contains_key(path))
}

/// The configuration file that a unit names. A relative one has no known directory.
pub fn unit_config(unit: &UnitFacts) -> Option<String> {
    let named = unit.environment.get(CONFIG_FILE).map(str::to_owned);
    crate::parse::proc::flag(&unit.exec_start, "config-file").or(named.filter(|path| path.starts_with('/')))
}

/// The observations in words; nothing in it changes from minute to minute, so that the inventory's digest stays the same.
fn evidence(facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    for (tool, list) in [("dpkg", &facts.deb), ("rpm", &facts.rpm)] {
        for package in list
            .iter()
            .filter(|package| package.state != PackageState::Absent)
        {
            lines.push(format!(
                "{tool}: {} {} {:?}",
                package.name, package.version, package.state
            ));
        }
    }
    for tree in &facts.trees {
        let owner = tree.owner.as_deref().unwrap_or("no package");
        let version = tree
            .version
            .map_or_else(|| "unknown".to_owned(), |version| version.to_string());
        lines.push(format!("{}: release {version}, owned by {owner}", tree.dir));
    }
    for process in &facts.processes {
        let home = match &process.home {
            Home::Service(unit) => unit.clone(),
            Home::Container(_) => "a container".to_owned(),
            Home::Pod(_) => "a pod".to_owned(),
            Home::ByHand => "started by hand".to_owned(),
        };
        lines.push(format!("process {} of {} in {home}", process.exe, process.user));
        lines.extend(set_by("the process", &process.environment));
    }
    for unit in &facts.units {
        lines.push(format!("{}: {}, {}", unit.name, unit.active, unit.file_state));
        lines.extend(set_by(&unit.name, &unit.environment));
    }
    lines
}

/// Names only: values may be secrets.
fn set_by(who: &str, variables: &Variables) -> Option<String> {
    let names: Vec<_> = variables.names().collect();
    (!names.is_empty()).then(|| format!("{who} sets {}", names.join(", ")))
}

#[cfg(test)]
#[path = "detect_tests.rs"]
mod tests;
