//! What runs once at the start of a container (`pmm-init`, in PMM 2 `pmm-update-perform-init`) and PMM 2's own update (`pmm-update-perform`).

use std::{fs, io, path::Path, process::Command};

use super::{
    http, log, managed, nginx, role,
    switches::Switches,
    version::{self, Version},
};

/// The release whose dashboards are on the volume: the marker on the data.
pub const MARKER: &str = "/srv/grafana/PERCONA_DASHBOARDS_VERSION";
/// The release whose dashboards are in the image.
pub const DASHBOARDS: &str = "/usr/share/percona-dashboards/VERSION";
const VERSION: &str = "/usr/share/pmm-server/VERSION";

fn task(name: &str) {
    log::say(format!(
        "TASK [{name}] *****************************************************"
    ));
}

fn recap(failed: u32) {
    log::say("PLAY RECAP *********************************************************************");
    log::say(format!(
        "localhost                  : ok=42   changed=7    unreachable=0    failed={failed}    skipped=9"
    ));
}

fn maintenance(on: bool) -> io::Result<()> {
    task(if on {
        "initialization : Enable maintenance mode"
    } else {
        "initialization : Disable maintenance mode"
    });
    let page = Path::new(nginx::MAINTENANCE);
    if on {
        fs::create_dir_all(page.parent().unwrap_or(page))?;
        return fs::write(
            page,
            "<!DOCTYPE html><title>Upgrade</title><h1>PMM is being upgraded</h1>\n",
        )
        .map_err(|e| role::named(page, e));
    }
    match fs::remove_file(page) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(role::named(page, e)),
        _ => Ok(()),
    }
}

/// Waits for the API itself, past nginx, 20 times 5 seconds; then goes on as if nothing were wrong.
async fn wait_ready(v3: bool) {
    task("initialization : Wait for PMM to be ready");
    let path = if v3 { "/v1/server/readyz" } else { "/v1/readyz" };
    for _ in 0..100 {
        if http::call_json(managed::PORT, "GET", path, None)
            .await
            .is_ok_and(|a| a.ok())
        {
            log::say("ok: [localhost]");
            return;
        }
        role::sleep(1.0).await;
    }
    log::say("fatal: [localhost]: FAILED! => {\"attempts\": 20, \"status\": -1}");
    log::say("...ignoring");
}

/// Puts the image's dashboards in place of those on the volume and marks the volume.
fn dashboards(version: &str) -> io::Result<()> {
    task("dashboards : Copy dashboards and plugins");
    for plugin in ["pmm-app", "pmm-update", "pmm-check"] {
        let dir = Path::new("/srv/grafana/plugins").join(plugin);
        fs::create_dir_all(&dir).map_err(|e| role::named(&dir, e))?;
        let file = dir.join("plugin.json");
        fs::write(
            &file,
            format!("{{\"id\": \"{plugin}\", \"info\": {{\"version\": \"{version}\"}}}}\n"),
        )
        .map_err(|e| role::named(&file, e))?;
    }
    task("dashboards : Create a file with the dashboards version");
    fs::write(MARKER, format!("{version}\n")).map_err(|e| role::named(Path::new(MARKER), e))?;
    own(Path::new("/srv/grafana"))
}

/// Gives what root wrote to whom the directory belongs.
fn own(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    let owner = fs::metadata(dir)?;
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        let have = fs::symlink_metadata(&path)?;
        if have.uid() != owner.uid() {
            chown(&path, Some(owner.uid()), Some(owner.gid())).map_err(|e| role::named(&path, e))?;
        }
        if have.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        }
    }
    Ok(())
}

fn supervisorctl(args: &[&str]) {
    let out = Command::new("supervisorctl").args(args).output();
    if let Ok(out) = out {
        String::from_utf8_lossy(&out.stdout).lines().for_each(log::say);
    }
}

/// The playbook of a container's start.
pub async fn start() -> io::Result<()> {
    let image = Version::of_image();
    let (have, want) = (version::read(MARKER), version::read(DASHBOARDS).unwrap_or(image));
    log::say("PLAY [localhost] ***************************************************************");
    task("initialization : Get current version");
    log::say(format!(
        "ok: [localhost] => {{\"msg\": \"Current version: {} Image version: {want}\"}}",
        have.map_or_else(|| "0".to_owned(), |v| v.to_string())
    ));
    match have {
        Some(have) if have >= want => maintenance(false)?,
        None => {
            // A new installation starts without the maintenance page.
            dashboards(&want.to_string())?;
            wait_ready(image.is_v3()).await;
        }
        Some(_) => {
            maintenance(true)?;
            if Switches::fails("init_crash") {
                log::say(
                    "fatal: [localhost]: FAILED! => {\"changed\": false, \"msg\": \"Could not find the requested service\"}",
                );
                recap(1);
                return Err(io::Error::other("the playbook failed"));
            }
            role::sleep(1.0).await;
            if Switches::fails("dashboards") {
                log::say("fatal: [localhost]: FAILED! => {\"msg\": \"No space left on device\"}");
                recap(1);
                return Err(io::Error::other("the playbook failed"));
            }
            dashboards(&want.to_string())?;
            wait_ready(image.is_v3()).await;
            // Grafana is still coming up when the page goes away: readiness passes through 500.
            task("grafana : Restart grafana");
            supervisorctl(&["stop", "grafana"]);
            maintenance(false)?;
            supervisorctl(&["start", "grafana"]);
        }
    }
    recap(0);
    Ok(())
}

/// PMM 2's update: rewrites programs in the container's own layer, restarts them on the data, and undoes nothing when it fails.
pub async fn update() -> io::Result<()> {
    let switches = Switches::now();
    let from = Version::of_image();
    let to: Version = switches.latest_v2.parse().map_err(io::Error::other)?;
    log::say(format!(
        "time=\"{}\" level=info msg=\"pmm-update: updating {from} to {to}\"",
        jiff::Timestamp::now()
    ));
    log::say("PLAY [localhost] ***************************************************************");
    if Switches::fails("update") {
        log::say(
            "fatal: [localhost]: FAILED! => {\"msg\": \"Failed to download metadata for repo 'percona-release'\"}",
        );
        recap(1);
        return Err(io::Error::other("the update failed"));
    }
    if to > from {
        maintenance(true)?;
        task("upgrade packages");
        for _ in 0..4 {
            role::sleep(switches.update_seconds / 4.0).await;
            log::say("changed: [localhost]");
        }
        fs::write(DASHBOARDS, format!("{to}\n"))?;
        if Switches::fails("update_halfway") {
            log::say("fatal: [localhost]: FAILED! => {\"msg\": \"Unable to restart service grafana\"}");
            recap(1);
            return Err(io::Error::other("the update failed"));
        }
        fs::write(VERSION, format!("{to}\n"))?;
        task("restart services");
        supervisorctl(&["restart", "pmm-managed", "qan-api2", "grafana", "pmm-agent"]);
        dashboards(&to.to_string())?;
        wait_ready(false).await;
        maintenance(false)?;
    }
    recap(0);
    log::say(format!(
        "time=\"{}\" level=info msg=\"pmm-update: done\"",
        jiff::Timestamp::now()
    ));
    Ok(())
}
