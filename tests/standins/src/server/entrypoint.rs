//! The container's first program: makes `/srv` on a new installation, checks what it can check, and becomes supervisord.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use super::{env, log, pg, switches::Switches, tls, version::Version};

const SRV: &str = "/srv";

/// The directories of `/srv` with their owners in PMM 2; in PMM 3 there is one user only.
const DIRS: &[(&str, &str)] = &[
    ("backup", "root"),
    ("clickhouse", "clickhouse"),
    ("dump", "pmm"),
    ("grafana", "grafana"),
    ("grafana/plugins", "grafana"),
    ("logs", "root"),
    ("nginx", "root"),
    ("postgres14", "postgres"),
    ("prometheus", "pmm"),
    ("prometheus/rules", "pmm"),
    ("victoriametrics", "pmm"),
    ("victoriametrics/data", "pmm"),
];

/// Runs it; returns only if something is wrong.
pub fn run() -> i32 {
    let version = Version::of_image();
    match prepare(version) {
        Ok(()) => {}
        Err(e) => {
            log::say(e.to_string());
            return 1;
        }
    }
    log::say("Checking the environment...");
    let code = env::init(version.is_v3());
    if code != 0 {
        return code;
    }
    if Switches::fails("crash_loop") && !fresh(version) {
        log::say("panic: runtime error: invalid memory address or nil pointer dereference");
        return 2;
    }
    let e = Command::new("supervisord")
        .args(["-n", "-c", "/etc/supervisord.conf"])
        .exec();
    log::say(format!("cannot start supervisord: {e}"));
    127
}

/// Whether only this release has run on the data; then a test's broken start is not meant.
fn fresh(version: Version) -> bool {
    super::version::read("/srv/grafana/PERCONA_DASHBOARDS_VERSION").is_none_or(|v| v == version)
}

fn prepare(version: Version) -> io::Result<()> {
    let srv = Path::new(SRV);
    if version.is_v3() {
        writable(srv)?;
    }
    if !srv.join("pmm-distribution").exists() {
        log::say("Initializing /srv...");
        init(version)?;
    }
    if version.is_v3() {
        let dir = srv.join("postgres14");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("chmod: changing permissions of '{}': {e}", dir.display()),
            )
        })?;
    }
    Ok(())
}

/// PMM 3 checks only the top directory: a tree that was given to it in part passes here and fails later.
fn writable(srv: &Path) -> io::Result<()> {
    let probe = srv.join(".pmm-write-test");
    if fs::write(&probe, b"").is_ok() {
        return fs::remove_file(&probe);
    }
    let owner =
        fs::metadata(srv).map_or_else(|_| "unknown".to_owned(), |m| format!("{}:{}", m.uid(), m.gid()));
    let me = fs::metadata("/proc/self")
        .map_or_else(|_| "unknown".to_owned(), |m| format!("{}:{}", m.uid(), m.gid()));
    Err(io::Error::other(format!(
        "FATAL: /srv is not writable for the current user ({me}).\nIt is owned by {owner}; expected owner is 1000:0.\nPlease run chown -R 1000:0 on the volume or directory that is mounted to /srv."
    )))
}

fn init(version: Version) -> io::Result<()> {
    let srv = Path::new(SRV);
    let users = fs::read_to_string("/etc/passwd")?;
    let give = |path: &Path, user: &str| -> io::Result<()> {
        if version.is_v3() {
            return Ok(());
        }
        let (uid, gid) = ids_of(&users, user).ok_or_else(|| io::Error::other(format!("no user {user}")))?;
        chown(path, Some(uid), Some(gid))
    };
    for (dir, user) in DIRS {
        fs::create_dir_all(srv.join(dir))?;
        give(&srv.join(dir), user)?;
    }
    if version.is_v3() {
        fs::create_dir_all(srv.join("pmm-agent/tmp"))?;
    } else {
        fs::create_dir_all(srv.join("alertmanager"))?;
        give(&srv.join("alertmanager"), "pmm")?;
    }
    log::say("Initializing Postgres...");
    pg::initdb(&srv.join("postgres14"))?;
    give_tree(&srv.join("postgres14"), &|p| give(p, "postgres"))?;
    log::say("Enabling pg_stat_statements extension for PostgreSQL...");
    let base = srv.join("prometheus/prometheus.base.yml");
    // One that the operator mounted stands; it may be read-only.
    if !base.exists() {
        fs::write(
            &base,
            "# What stands here is added to the scrape configuration.\nscrape_configs: []\n",
        )?;
        give(&base, "pmm")?;
    }
    log::say("Generating self-signed certificates for nginx...");
    tls::make(&srv.join("nginx"))?;
    fs::set_permissions(
        srv.join("nginx/certificate.key"),
        fs::Permissions::from_mode(0o600),
    )?;
    for plugin in ["pmm-app", "pmm-update", "pmm-check"] {
        let dir = srv.join("grafana/plugins").join(plugin);
        fs::create_dir_all(&dir)?;
        fs::write(
            dir.join("plugin.json"),
            format!("{{\"id\": \"{plugin}\", \"info\": {{\"version\": \"{version}\"}}}}\n"),
        )?;
    }
    give_tree(&srv.join("grafana"), &|p| give(p, "grafana"))?;
    fs::write(srv.join("pmm-distribution"), "docker\n")
}

fn give_tree(path: &Path, give: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    give(path)?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give_tree(&entry?.path(), give)?;
        }
    }
    Ok(())
}

fn ids_of(passwd: &str, user: &str) -> Option<(u32, u32)> {
    let line = passwd.lines().find(|l| l.split(':').next() == Some(user))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nclickhouse:x:997:997::/:/bin/false\n";
        assert_eq!(ids_of(passwd, "clickhouse"), Some((997, 997)));
        assert_eq!(ids_of(passwd, "click"), None);
    }
}
