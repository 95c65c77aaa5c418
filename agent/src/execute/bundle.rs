//! `collect_bundle`: what a person needs to find a fault, in one file on the host. It does not travel. What may stand in it is decided in
//! `client_upgrade::bundle`; each member passes its last gate before it is cut to size, so that no half of a secret is left at the cut.

use super::engine::Run;
use super::error::StepResult;
use super::worker;
use crate::config::AgentConfig;
use crate::detect::UNIT;
use crate::host::command::Tool;
use crate::host::{clock, files, local_api, processes, systemd};
use client_upgrade::bundle::{UNIT_PROPERTIES, configuration, scrub, secrets, status};
use flate2::Compression;
use flate2::write::GzEncoder;
use fleet_common::digest::sha256_hex;
use fleet_common::inventory::RunKind;
use fs_err as fs;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

/// Most bytes of one member; of a longer one the end is kept, which is the newest of every log. A dozen members are at most 6 MiB.
const MOST_MEMBER: usize = 512 * 1024;
/// Bundles kept on the host.
const MOST_BUNDLES: usize = 5;
/// Lines of our own log: some days of an idle agent, a whole switch of a busy one.
const LOG_LINES: &str = "2000";
/// Our own unit.
const OWN_UNIT: &str = "pmm-upgrade-agent.service";

type Member = (&'static str, String);

/// Writes the bundle; the detail of the result.
pub fn collect(run: &Run<'_>) -> StepResult<Value> {
    let (members, secrets) = members(run);
    let archive = archive(&members, &secrets)?;
    let dir = run.shared.paths.bundles();
    fs::create_dir_all(&dir)?;
    // Named after the order: a repeat after a crash replaces its own file.
    let name = format!(
        "bundle-{}.tar.gz",
        &sha256_hex(run.order.order_id.as_bytes())[..16]
    );
    let path = dir.join(name);
    files::replace(&path, &archive, files::PRIVATE)?;
    keep_newest(&dir, MOST_BUNDLES)?;
    Ok(json!({ "path": path.display().to_string(), "sha256": sha256_hex(&archive), "size": archive.len() }))
}

/// Where it is, for people.
pub fn told(detail: &Value) -> String {
    format!(
        "the bundle stays on the host: {} ({} bytes, SHA-256 {})",
        detail["path"].as_str().unwrap_or_default(),
        detail["size"],
        detail["sha256"].as_str().unwrap_or_default()
    )
}

fn members(run: &Run<'_>) -> (Vec<Member>, Vec<String>) {
    let paths = &run.shared.paths;
    let looked = run.look();
    let config = AgentConfig::load(paths).unwrap_or_default();
    let inventory = worker::inventory(paths, &config, run.policy);
    let installation = looked.installation();
    let parsed = installation
        .and_then(|found| looked.facts.configs.get(&found.config_file))
        .and_then(Option::as_ref);
    let environment: Vec<String> = looked
        .clients
        .iter()
        .flat_map(|client| processes::environment(client.pid))
        .collect();
    let mut known = secrets(parsed, &environment);
    for other in looked.facts.configs.values().flatten() {
        known.extend(secrets(Some(other), &[]));
    }
    let (address, port) = parsed.map_or(("127.0.0.1".to_owned(), 7777), |config| config.local_api());
    let client_config = installation
        .and_then(|found| fs::read(&found.config_file).ok())
        .map_or_else(|| "none\n".to_owned(), |bytes| configuration(&bytes));
    let local =
        local_api::status_text(&address, port).map_or_else(|| "no answer\n".to_owned(), |text| status(&text));
    let results: Vec<Value> = files::read_json(&paths.results()).unwrap_or_default();
    let last = results.len().saturating_sub(20);
    let members = vec![
        (
            "about.txt",
            format!(
                "pmm-upgrade-agent {}\nat_ms {}\nboot {}\nheld {:?}\n",
                env!("CARGO_PKG_VERSION"),
                clock::now_ms(),
                clock::boot_id(),
                worker::held(paths)
            ),
        ),
        ("inventory.json", pretty(&inventory)),
        ("evidence.txt", evidence(&inventory.client)),
        ("journal.jsonl", read(&paths.journal())),
        ("results.json", pretty(&results[last..])),
        ("link.json", read(&paths.link())),
        ("agent.log", own_log()),
        ("client-status.json", local),
        ("client-config.txt", client_config),
        ("units.txt", units(installation.map(|found| &found.run))),
        ("packages.txt", packages()),
        ("disk.txt", said(Tool::new("df").args(["-P", "-k"]))),
    ];
    (members, known)
}

fn pretty<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn evidence(client: &fleet_common::inventory::Detection) -> String {
    use fleet_common::inventory::Detection;
    let lines = match client {
        Detection::Installed(found) => found.evidence.clone(),
        Detection::NotInstalled => vec!["no PMM client on this host".to_owned()],
        Detection::Refused {
            code,
            message,
            evidence,
        } => {
            let mut lines = vec![format!("{code}: {message}")];
            lines.extend(evidence.iter().cloned());
            lines
        }
    };
    lines.join("\n") + "\n"
}

fn read(path: &Path) -> String {
    fs::read(path).map_or_else(
        |_| "none\n".to_owned(),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}

fn said(tool: Tool) -> String {
    match tool.run() {
        Ok(output) => output.stdout + &output.stderr,
        Err(error) => format!("{error}\n"),
    }
}

fn own_log() -> String {
    said(Tool::new("journalctl").args([
        "--no-pager",
        "--quiet",
        "--output=short-iso",
        "--lines",
        LOG_LINES,
        "--unit",
        OWN_UNIT,
    ]))
}

fn units(run: Option<&RunKind>) -> String {
    if !systemd::present() {
        return "no systemd\n".to_owned();
    }
    let mut names: BTreeSet<&str> = BTreeSet::from([UNIT, OWN_UNIT]);
    if let Some(RunKind::Systemd { unit, .. }) = run {
        names.insert(unit);
    }
    names
        .into_iter()
        .map(|name| {
            let call = Tool::new("systemctl").args(["show", "--no-pager", "-p", UNIT_PROPERTIES, "--", name]);
            said(call) + "\n"
        })
        .collect()
}

fn packages() -> String {
    const NAMES: [&str; 4] = [
        "pmm2-client",
        "pmm-client",
        "pmm-upgrade-agent",
        "percona-release",
    ];
    let dpkg = Tool::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Abbrev} ${Package} ${Version}\\n", "--"])
        .args(NAMES);
    said(dpkg) + &said(Tool::new("rpm").args(["-q", "--"]).args(NAMES))
}

fn archive(members: &[Member], secrets: &[String]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |past| past.as_secs());
    for (name, text) in members {
        let text = scrub(text, secrets);
        let bytes = end_of(&text, MOST_MEMBER).as_bytes();
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        builder.append_data(&mut header, format!("bundle/{name}"), bytes)?;
    }
    let mut encoder = builder.into_inner()?;
    encoder.flush()?;
    encoder.finish()
}

/// The last bytes of a text, from the beginning of a line where there is one.
fn end_of(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let mut from = text.len() - most;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let tail = &text[from..];
    tail.find('\n').map_or(tail, |line| &tail[line + 1..])
}

fn keep_newest(dir: &Path, most: usize) -> std::io::Result<()> {
    let mut found: Vec<(SystemTime, std::path::PathBuf)> = fs::read_dir(dir)?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("bundle-"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    let surplus = found.len().saturating_sub(most);
    for (_, path) in found.drain(..surplus) {
        files::remove(&path)?;
    }
    files::sync_dir(dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Read;

    #[test]
    fn every_member_passes_the_gate_and_is_cut() {
        let secret = "Zq9-hunter22".to_owned();
        let long = format!("{}\nlast line {secret}\n", "x".repeat(2 * MOST_MEMBER));
        let members = [
            ("a.txt", format!("password: other\nuse {secret} now\n")),
            ("b.txt", long),
        ];
        let bytes = archive(&members, std::slice::from_ref(&secret)).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert!(!text.contains(&secret) && !text.contains("other") && text.len() <= MOST_MEMBER);
            assert!(text.contains("now") || text.contains("last line"));
            names.push(entry.path().unwrap().display().to_string());
        }
        assert_eq!(names, ["bundle/a.txt", "bundle/b.txt"]);
    }

    #[test]
    fn the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..7u64 {
            let path = dir.path().join(format!("bundle-{number}.tar.gz"));
            let file = std::fs::File::create(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 - number))
                .unwrap();
        }
        keep_newest(dir.path(), 5).unwrap();
        let left = files::walk(dir.path());
        assert_eq!(left.len(), 5);
        assert!(!left.iter().any(|path| path.ends_with("bundle-6.tar.gz")));
    }
}
