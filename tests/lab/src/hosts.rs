//! The fleet up and down: network, registry, repository, PMM Server, hosts with their PMM 2 clients and our agents.

use crate::build::{self, Programs};
use crate::fleet::{HOSTS, Host, Kind, Wishes};
use crate::wait::{self, Probe};
use crate::{agent_package, backups, cmd, disks, docker, images, names, output, pmm, site};
use anyhow::{Context, Result, bail};
use serde_json::json;

/// A fleet that is up.
pub struct Fleet {
    /// Number of hosts.
    pub hosts: usize,
    /// Tarballs on the download tree: file name and SHA-256.
    pub tarballs: Vec<(String, String)>,
}

/// Brings everything up; returns when every service reports samples and queries.
pub fn up(programs: &Programs, release: &str, wishes: &Wishes) -> Result<Fleet> {
    let tools = images::tools(programs)?;
    let site = site::build(&tools, programs)?;
    let host_images = images::hosts()?;
    output::step("starting network, registry and repository");
    docker::docker([
        "network",
        "create",
        "--subnet",
        &format!("{}.0/24", names::SUBNET),
        names::NETWORK,
    ])?;
    docker::docker(["network", "create", names::BACKUP_NETWORK])?;
    images::start_registry(&tools, programs)?;
    docker::docker([
        "run",
        "--detach",
        "--name",
        names::REPO,
        "--network",
        names::NETWORK,
        "--ip",
        names::REPO_IP,
        "--volume",
        &format!("{}:/srv/www:ro", site.www.display()),
        &tools.repo,
    ])?;
    let packages = agent_package::build(&tools, programs)?;
    for host in &HOSTS {
        start_host(host, &host_images, wishes)?;
    }
    pmm::start(release, wishes.plain_data)?;
    pmm::set_resolutions(1)?;
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let running: Vec<_> = HOSTS
            .iter()
            .map(|host| scope.spawn(|| provision(host, release, &packages, wishes)))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("provisioning panicked")))
            .collect()
    });
    for (host, result) in HOSTS.iter().zip(results) {
        result.with_context(|| format!("provisioning {}", host.name))?;
    }
    wait_for_data()?;
    if let Some(host) = wishes.backup {
        backups::install_tools(host, programs)?;
    }
    Ok(Fleet {
        hosts: HOSTS.len(),
        tarballs: site.tarballs,
    })
}

/// Removes the fleet and what the product made beside it; other suites' containers, which clean up after themselves, stay.
pub fn down() -> Result<()> {
    remove(|name| !name.starts_with(names::TEETH))?;
    build::forget_run(false)
}

/// As [`down`], but the logs of the run stay.
pub fn down_after_failure() -> Result<()> {
    remove(|name| !name.starts_with(names::TEETH))?;
    build::forget_run(true)
}

/// Removes every container, volume and network with the lab's prefix.
pub fn down_all() -> Result<()> {
    remove(|_| true)?;
    build::forget_run(false)
}

fn remove(wanted: impl Fn(&str) -> bool) -> Result<()> {
    crate::product::stop_leftover()?;
    let mut containers = docker::containers(names::PREFIX)?;
    containers.retain(|name| wanted(name));
    containers.sort();
    containers.dedup();
    if !containers.is_empty() {
        output::step(&format!("removing {} containers", containers.len()));
        let mut args = vec!["rm".to_owned(), "--force".to_owned(), "--volumes".to_owned()];
        args.extend(containers);
        docker::docker_list(&args)?;
    }
    let filter = format!("name={}", names::PREFIX);
    for kind in ["volume", "network"] {
        let listed = docker::docker([kind, "ls", "--filter", &filter, "--format", "{{.Name}}"])?;
        for name in listed.lines().filter(|name| wanted(name)) {
            docker::docker([kind, "rm", name])?;
        }
    }
    // A killed hop can leave the network of its dark start; Docker refuses to remove one that is in use.
    let dark = "label=io.pmm-fleet.role=dark-network";
    for name in docker::docker(["network", "ls", "--filter", dark, "--format", "{{.Name}}"])?.lines() {
        docker::attempt(&["network", "rm", name])?;
    }
    Ok(())
}

fn start_host(host: &Host, images: &images::HostImages, wishes: &Wishes) -> Result<()> {
    let container = names::host(host.name);
    let mut args: Vec<String> = [
        "run",
        "--detach",
        "--name",
        &container,
        "--hostname",
        host.name,
        "--network",
        names::NETWORK,
    ]
    .iter()
    .map(|text| (*text).to_owned())
    .collect();
    for (name, address) in [
        ("pmm.lab", names::GATEWAY),
        ("coordinator.lab", names::GATEWAY),
        ("repo.lab", names::REPO_IP),
    ] {
        args.extend(["--add-host".to_owned(), format!("{name}:{address}")]);
    }
    args.extend(systemd_arguments()?);
    if wishes.small_disk == Some(host.name) {
        args.extend(disks::small(host.name)?);
    }
    args.push(images.of(host.kind).to_owned());
    docker::docker_list(&args).map(drop)
}

/// What systemd needs to be PID 1 of a container, for both cgroup versions.
pub fn systemd_arguments() -> Result<Vec<String>> {
    // SYS_PTRACE: root of a real host may read /proc/PID/exe and /proc/PID/root of every process; userdel looks there, too.
    let mut args = vec![
        "--cap-add",
        "SYS_ADMIN",
        "--cap-add",
        "NET_ADMIN",
        "--cap-add",
        "SYS_PTRACE",
        "--security-opt",
        "seccomp=unconfined",
    ];
    args.extend(["--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec"]);
    let unified = cmd::must("stat", ["-fc", "%T", "/sys/fs/cgroup"])? == "cgroup2fs";
    if unified {
        args.push("--cgroupns=private");
    } else {
        args.extend(["--cgroupns=host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"]);
    }
    Ok(args.into_iter().map(str::to_owned).collect())
}

/// Waits until a host has booted.
pub fn wait_booted(container: &str) -> Result<()> {
    wait::until("systemd to be up", 60, || {
        let done = docker::exec(container, &["systemctl", "is-system-running"])?;
        let state = done.stdout.trim().to_owned();
        Ok(if matches!(state.as_str(), "running" | "degraded") {
            Probe::Ready(())
        } else {
            Probe::NotYet(done.all())
        })
    })
}

fn provision(host: &Host, release: &str, packages: &agent_package::Packages, wishes: &Wishes) -> Result<()> {
    let container = names::host(host.name);
    wait_booted(&container)?;
    let mut install = vec!["/opt/lab/install-client", release];
    if host.kind == Kind::TarCustom {
        install.extend([host.kind.base_v2(), "dba"]);
    }
    docker::exec_must(&container, &install)?;
    let (user, secret) = if host.api_key {
        ("api_key".to_owned(), pmm::api_key(host.name)?)
    } else {
        (pmm::ADMIN.to_owned(), pmm::PASSWORD.to_owned())
    };
    let url = format!("https://{user}:{secret}@{}", wishes.server_address(host.name, 2));
    docker::exec_must(&container, &["/opt/lab/connect-client", &url, host.name])?;
    add_groups(host, &container)?;
    add_services(host, &container)?;
    agent_package::install(host, packages)
}

/// Supplementary groups, as they are added so that exporters can read logs and sockets.
fn add_groups(host: &Host, container: &str) -> Result<()> {
    if matches!(host.kind, Kind::Deb | Kind::Rpm) {
        docker::exec_must(container, &["groupadd", "--force", "mysql"])?;
        docker::exec_must(
            container,
            &["usermod", "--append", "--groups", "mysql,adm", "pmm-agent"],
        )?;
        docker::exec_must(container, &["systemctl", "restart", "pmm-agent"])?;
    }
    Ok(())
}

fn add_services(host: &Host, container: &str) -> Result<()> {
    let (agent, node) = identity(container)?;
    for (kind, name, idle) in host.services {
        let labels = if *idle {
            json!({"standin_idle": "1"})
        } else {
            json!({"team": "dba"})
        };
        let path = match *kind {
            "mysql" => "/v1/management/MySQL/Add",
            "mongodb" => "/v1/management/MongoDB/Add",
            _ => "/v1/management/PostgreSQL/Add",
        };
        let mut body = json!({
            "node_id": node, "pmm_agent_id": agent, "service_name": name, "address": "127.0.0.1", "port": 3306,
            "environment": host.group, "cluster": format!("cluster-{}", host.name), "replication_set": "rs0",
            "username": "pmm", "password": "pmm", "custom_labels": labels, "skip_connection_check": true,
        });
        let queries = match *kind {
            "mysql" => "qan_mysql_slowlog",
            "mongodb" => "qan_mongodb_profiler",
            _ => "qan_postgresql_pgstatements_agent",
        };
        body[queries] = json!(true);
        pmm::call(path, Some(&body)).with_context(|| format!("adding {name}"))?;
    }
    Ok(())
}

fn identity(container: &str) -> Result<(String, String)> {
    wait::until("the client to be connected", 60, || {
        let done = docker::exec(
            container,
            &[
                "curl",
                "-s",
                "--max-time",
                "3",
                "http://127.0.0.1:7777/local/Status",
            ],
        )?;
        let status: serde_json::Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        let connected = status["server_info"]["connected"] == true && !text("runs_on_node_id").is_empty();
        Ok(if connected {
            Probe::Ready((text("agent_id"), text("runs_on_node_id")))
        } else {
            Probe::NotYet(done.all())
        })
    })
}

fn wait_for_data() -> Result<()> {
    output::step("waiting until every service reports samples and queries");
    let wanted: Vec<(&str, bool)> = HOSTS
        .iter()
        .flat_map(|host| host.services.iter().map(|(_, name, idle)| (*name, *idle)))
        .collect();
    wait::until("samples and queries of every service", 90, || {
        let sampled = crate::verify::server::sampled(None)?;
        let now = pmm::now();
        for (name, idle) in &wanted {
            if !sampled.contains(*name) {
                return Ok(Probe::NotYet(format!("no samples of {name}")));
            }
            if !idle && pmm::qan_queries(name, now - 300, now)? <= 0.0 {
                return Ok(Probe::NotYet(format!("no queries of {name}")));
            }
        }
        Ok(Probe::Ready(()))
    })
}

/// Lets our agent join, with the token on its standard input.
pub fn enrol(host: &Host, token: &str) -> Result<()> {
    let container = names::host(host.name);
    let coordinator = format!("https://coordinator.lab:{}", names::ENROL_PORT);
    let session = format!("coordinator.lab:{}", names::SESSION_PORT);
    let label = format!("tier={}", host.group);
    let argv = [
        "pmm-upgrade-agent",
        "enrol",
        "--coordinator",
        &coordinator,
        "--session",
        &session,
        "--token-file",
        "-",
        "--label",
        &label,
    ];
    let done = docker::exec_as(&container, "0", &[], &argv, Some(token.as_bytes()))?;
    if !done.ok() {
        bail!(
            "{}: enrolment ended with {}: {}",
            host.name,
            done.code,
            done.all()
        );
    }
    docker::exec_must(&container, &["systemctl", "start", "pmm-upgrade-agent"]).map(drop)
}

/// What the new package's maintainer scripts do on this host: `fail`, `hold`, `hold-unpack` or `hold-between`.
pub fn script_mode(host: &Host, mode: &str) -> Result<()> {
    let container = names::host(host.name);
    if mode.starts_with("hold") {
        docker::write_file(&container, "/run/standin-hold", "644", b"")?;
    }
    docker::write_file(
        &container,
        "/etc/standin/postinst-mode",
        "644",
        format!("{mode}\n").as_bytes(),
    )
}

/// Whether a script of the new package is held open: it sleeps, which no other script does.
pub fn script_is_held(host: &Host) -> Result<bool> {
    let script = "for pid in $(pgrep -f 'pmm-client.postinst|rpm-tmp'); do pgrep -x sleep -P \"$pid\" && exit 0; done; exit 1";
    Ok(docker::exec(&names::host(host.name), &["sh", "-c", script])?.ok())
}

/// Whether a deb waits before its files are unpacked: dpkg runs the script of a package that it is about to unpack from here.
pub fn unpack_is_held(host: &Host) -> Result<bool> {
    Ok(docker::exec(&names::host(host.name), &["pgrep", "-f", "tmp.ci/preinst"])?.ok())
}

/// Power off and on again: everything that runs on the host ends at once, its disks stay.
pub fn reboot(host: &Host) -> Result<()> {
    let container = names::host(host.name);
    docker::docker(["kill", &container])?;
    docker::docker(["start", &container])?;
    output::step(&format!("{} lost its power and starts again", host.name));
    wait_booted(&container)
}

/// Process numbers of a program on a host.
pub fn pids(host: &Host, program: &str) -> Result<Vec<String>> {
    let listed = docker::exec(&names::host(host.name), &["pgrep", "-x", program])?.stdout;
    Ok(listed.split_whitespace().map(str::to_owned).collect())
}

/// Lets a held script go on.
pub fn release_script(host: &Host) -> Result<()> {
    docker::exec_must(&names::host(host.name), &["rm", "-f", "/run/standin-hold"]).map(drop)
}

/// Stops a client behind the product's back.
pub fn stop_client(host: &Host) -> Result<()> {
    docker::exec_must(&names::host(host.name), &["systemctl", "stop", "pmm-agent"]).map(drop)
}

/// Removes a service from PMM's inventory.
pub fn lose_service(name: &str) -> Result<()> {
    let services = pmm::services()?;
    let service = services.get(name).context("the service to lose")?;
    match pmm::major()? {
        pmm::Major::Two => pmm::call(
            "/v1/inventory/Services/Remove",
            Some(&json!({"service_id": format!("/service_id/{}", service.id), "force": true})),
        ),
        pmm::Major::Three => pmm::request(
            "DELETE",
            &format!("/v1/inventory/services/{}?force=true", service.id),
            None,
        ),
    }
    .map(drop)
}
