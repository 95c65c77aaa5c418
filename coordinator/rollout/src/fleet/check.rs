//! From the file as typed to a valid [`Fleet`], naming every fault at once.

use super::error::Findings;
use super::raw;
use super::units::{Limit, duration_ms};
use super::{Clients, Fleet, FleetError, Group, Lines, Matcher, Pmm2Clients, Server, Timing, Trust};
use fleet_common::plan_entry::ClientSource;
use fleet_common::server::Pmm2Update;
use fleet_common::version::PmmVersion;
use std::collections::BTreeMap;
use toml::Spanned;

const REPOSITORY: &str = "https://repo.percona.com";
const TARBALLS: &str = "https://downloads.percona.com/downloads";
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
    let compatibility_file = raw.compatibility.and_then(|table| text_of(table.file, &mut lines.compatibility_file, &found));
    let groups = groups(raw.group, &raw.defaults.unwrap_or_default(), &mut found);
    if !found.is_empty() {
        return Err(found.into_errors());
    }
    Ok(Fleet { file: file.to_owned(), server, clients, compatibility_file, timing, groups, lines })
}

/// The parser's word on a file of the wrong shape, with what to do about it.
fn shape_fault(message: &str) -> (String, String) {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (key, known) = rest.split_once(", ").unwrap_or((rest, ""));
        let known = known.strip_prefix("expected ").unwrap_or(known).trim_start_matches("one of ");
        let hint = if known.is_empty() {
            "remove the key".to_owned()
        } else {
            format!("known keys here: {known}")
        };
        return (format!("unknown key {key}"), hint);
    }
    (message.trim().to_owned(), "correct the line; nothing was read after it".to_owned())
}

fn text_of(value: raw::Text, line: &mut Option<usize>, found: &Findings<'_>) -> Option<String> {
    value.map(|value| {
        *line = Some(found.line(value.span().start));
        value.into_inner()
    })
}

fn release(value: &Spanned<String>, key: &str, found: &mut Findings<'_>) -> PmmVersion {
    value.get_ref().parse().unwrap_or_else(|_| {
        found.add(
            Some(value.span().start),
            format!("{key} = \"{}\" is not a PMM release", value.get_ref()),
            "write all three numbers, such as \"3.9.1\"",
        );
        NO_RELEASE
    })
}

fn server(raw: Option<Spanned<raw::OneOrMany>>, lines: &mut Lines, found: &mut Findings<'_>) -> Server {
    let (at, mut servers) = match raw {
        Some(raw) => (Some(raw.span().start), raw.into_inner().0),
        None => (None, Vec::new()),
    };
    lines.server = at.map(|at| found.line(at));
    if servers.len() > 1 {
        found.add(at, "more than one [[server]]: one PMM Server at a time is supported", "keep one, and give each of the others a fleet file and a coordinator of its own");
    }
    if servers.is_empty() {
        found.add(at, "there is no [server]", "add a [server] table with url, credential_file, docker and target");
        servers.push(raw::Server {
            name: None, url: None, credential_file: None, ca_file: None, fingerprint: None, docker: None,
            image_repository: None, target: None, pmm2_update: None, pmm2_clients: None,
        });
        return read_server(servers.remove(0), None, lines, &mut Findings::new("", ""));
    }
    read_server(servers.remove(0), at, lines, found)
}

fn read_server(raw: raw::Server, at: Option<usize>, lines: &mut Lines, found: &mut Findings<'_>) -> Server {
    let required = |value: raw::Text, key: &str, example: &str, found: &mut Findings<'_>| match value {
        Some(value) if !value.get_ref().trim().is_empty() => Some(value),
        Some(value) => {
            found.add(Some(value.span().start), format!("server.{key} is empty"), format!("for example {key} = {example}"));
            None
        }
        None => {
            found.add(at, format!("server.{key} is missing"), format!("for example {key} = {example}"));
            None
        }
    };
    let url = required(raw.url, "url", "\"https://pmm.example.com\"", found).map_or_else(String::new, |url| {
        if !url.get_ref().starts_with("https://") && !url.get_ref().starts_with("http://") {
            found.add(Some(url.span().start), format!("server.url = \"{}\" is not an http address", url.get_ref()), "begin it with https://");
        }
        url.into_inner().trim_end_matches('/').to_owned()
    });
    let credential_file = text_of(
        required(raw.credential_file, "credential_file", "\"/etc/pmm-coordinator/pmm-admin\"", found),
        &mut lines.credential_file,
        found,
    );
    let target = required(raw.target, "target", "\"3.9.1\"", found).map_or(NO_RELEASE, |target| {
        lines.server_target = Some(found.line(target.span().start));
        let version = release(&target, "server.target", found);
        if version != NO_RELEASE && !(2..=3).contains(&version.major) {
            found.add(
                Some(target.span().start),
                format!("no path to server.target = \"{version}\": only PMM 2 and 3 are known"),
                "set a PMM 3 release",
            );
        }
        version
    });
    let fingerprint_at = raw.fingerprint.as_ref().map(|text| text.span().start);
    let ca_file = text_of(raw.ca_file, &mut lines.ca_file, found);
    let trust = match (ca_file, raw.fingerprint) {
        (Some(_), Some(_)) => {
            found.add(fingerprint_at, "both server.ca_file and server.fingerprint are given", "keep one of them");
            Trust::System
        }
        (Some(file), None) => Trust::CaFile(file),
        (None, Some(text)) => {
            let hex: String = text.get_ref().trim_start_matches("sha256:").replace(':', "").to_ascii_lowercase();
            if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                found.add(fingerprint_at, "server.fingerprint is not a SHA-256", "write sha256: and 64 hex digits");
            }
            Trust::Fingerprint(hex)
        }
        (None, None) => Trust::System,
    };
    let docker = raw.docker.unwrap_or(raw::Docker { endpoint: None, container: None });
    lines.docker = docker.endpoint.as_ref().or(docker.container.as_ref()).map(|text| found.line(text.span().start)).or(lines.server);
    let docker_endpoint = docker.endpoint.map_or_else(
        || "unix:///var/run/docker.sock".to_owned(),
        |endpoint| {
            if !endpoint.get_ref().starts_with("unix://") {
                found.add(Some(endpoint.span().start), format!("Docker endpoint \"{}\" is not supported", endpoint.get_ref()), "use unix:///path/to/docker.sock");
            }
            endpoint.into_inner()
        },
    );
    let pmm2_update = match raw.pmm2_update {
        None => Pmm2Update::Image,
        Some(text) => match text.get_ref().as_str() {
            "image" => Pmm2Update::Image,
            "api" => Pmm2Update::Api,
            other => {
                found.add(Some(text.span().start), format!("server.pmm2_update = \"{other}\" is not known"), "write \"image\" or \"api\"");
                Pmm2Update::Image
            }
        },
    };
    let pmm2_clients = raw.pmm2_clients.map_or(Pmm2Clients::Undecided, |raw| read_pmm2_clients(raw, target, lines, found));
    let host = url.split("://").nth(1).unwrap_or("").split(['/', ':']).next().unwrap_or("").to_owned();
    Server {
        name: raw.name.map_or(host, Spanned::into_inner),
        url,
        credential_file: credential_file.unwrap_or_default(),
        trust,
        docker_endpoint,
        container: docker.container.map_or_else(|| "pmm-server".to_owned(), Spanned::into_inner),
        image_repository: raw.image_repository.map_or_else(|| "percona/pmm-server".to_owned(), Spanned::into_inner),
        target,
        pmm2_update,
        pmm2_clients,
    }
}

fn read_pmm2_clients(raw: raw::Pmm2Clients, target: PmmVersion, lines: &mut Lines, found: &mut Findings<'_>) -> Pmm2Clients {
    match (raw.bridge, raw.accept_gap) {
        (Some(bridge), None) => {
            let at = bridge.span().start;
            lines.pmm2_clients = Some(found.line(at));
            let version = release(&bridge, "server.pmm2_clients.bridge", found);
            if version != NO_RELEASE && target != NO_RELEASE && (version.major != 3 || version >= target) {
                found.add(Some(at), format!("bridge {version} is not a PMM 3 release before the target {target}"), "name a release such as \"3.2.0\" that still guarantees PMM 2 clients");
            }
            Pmm2Clients::Bridge(version)
        }
        (None, Some(gap)) => {
            lines.pmm2_clients = Some(found.line(gap.span().start));
            Pmm2Clients::AcceptGap(release(&gap, "server.pmm2_clients.accept_gap", found))
        }
        (Some(bridge), Some(_)) => {
            found.add(Some(bridge.span().start), "both bridge and accept_gap are given", "decide for one of them");
            Pmm2Clients::Undecided
        }
        (None, None) => Pmm2Clients::Undecided,
    }
}

fn clients(raw: Option<Spanned<raw::Clients>>, server: PmmVersion, lines: &mut Lines, found: &mut Findings<'_>) -> Clients {
    let raw = raw.map_or(
        raw::Clients { target: None, source: None, repository_url: None, tarball: None },
        Spanned::into_inner,
    );
    lines.clients_target = lines.server_target;
    let target = raw.target.map_or(server, |target| {
        let at = target.span().start;
        lines.clients_target = Some(found.line(at));
        let version = release(&target, "clients.target", found);
        if version > server && server != NO_RELEASE {
            found.add(Some(at), format!("clients.target {version} is newer than server.target {server}"), "clients must not be newer than their PMM Server");
        } else if version.major != server.major && version != NO_RELEASE && server != NO_RELEASE {
            found.add(Some(at), format!("clients.target {version} and server.target {server} are of different majors"), "give both the same major release");
        }
        version
    });
    let component = raw.source.and_then(|source| source.percona_repository).map_or_else(
        || "release".to_owned(),
        |text| {
            if !["release", "testing", "experimental"].contains(&text.get_ref().as_str()) {
                found.add(Some(text.span().start), format!("percona_repository = \"{}\" is not known", text.get_ref()), "write release, testing or experimental");
            }
            text.into_inner()
        },
    );
    let address = |text: raw::Text, key: &str, default: &str, schemes: &[&str], found: &mut Findings<'_>| match text {
        None => default.to_owned(),
        Some(text) => {
            if !schemes.iter().any(|scheme| text.get_ref().starts_with(scheme)) {
                found.add(Some(text.span().start), format!("{key} = \"{}\" is not an address", text.get_ref()), format!("begin it with {}", schemes.join(" or ")));
            }
            text.into_inner().trim_end_matches('/').to_owned()
        }
    };
    let repository_url = address(raw.repository_url, "clients.repository_url", REPOSITORY, &["https://", "http://"], found);
    let tarball = raw.tarball.unwrap_or(raw::Tarball { url: None, sha256: BTreeMap::new() });
    let tarball_url = address(tarball.url, "clients.tarball.url", TARBALLS, &["https://", "http://", "file:///"], found);
    let mut tarball_sha256 = BTreeMap::new();
    for (name, digest) in tarball.sha256 {
        let hex = digest.get_ref().to_ascii_lowercase();
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            found.add(Some(digest.span().start), format!("the digest of {name} is not a SHA-256"), "write 64 hex digits");
        }
        tarball_sha256.insert(name, hex);
    }
    Clients { target, source: ClientSource { repository_url, component, tarball_url, tarball_sha256 } }
}

fn timing(raw: &raw::Timing, found: &mut Findings<'_>) -> Timing {
    let default = Timing::default();
    let mut read = |value: &raw::Text, key: &str, default: u64| match value {
        None => default,
        Some(text) => match duration_ms(text.get_ref()) {
            Some(0) | None => {
                found.add(Some(text.span().start), format!("timing.{key} = \"{}\" is not a duration", text.get_ref()), "write it like \"90s\", \"15m\" or \"2h\"");
                default
            }
            Some(ms) => ms,
        },
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
    }
}

/// Which of the three limits is read: they allow different numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Canaries,
    Width,
    Threshold,
}

fn limit(value: &Spanned<raw::Number>, key: &str, which: Which, found: &mut Findings<'_>) -> Limit {
    let at = Some(value.span().start);
    let example = "write a whole number, or a percentage such as \"10%\"";
    let limit = match value.get_ref() {
        raw::Number::Int(count) => match u32::try_from(*count) {
            Ok(count) => Limit::Count(count),
            Err(_) => {
                found.add(at, format!("{key} = {count} is out of range"), example);
                return Limit::Count(1);
            }
        },
        raw::Number::Text(text) => match Limit::read(text) {
            Ok(limit) => limit,
            Err(reason) => {
                found.add(at, format!("bad percentage: {key} = {reason}"), example);
                return Limit::Count(1);
            }
        },
    };
    match (which, limit) {
        (Which::Width, Limit::Count(0) | Limit::Percent(0)) => {
            found.add(at, format!("{key} = {limit} would never let a host begin"), "allow at least one host");
        }
        (Which::Threshold, Limit::Percent(100)) => {
            found.add(at, format!("{key} = 100% can never be reached: a threshold of N tolerates N failures and is breached by the next"), "tolerate fewer than all hosts");
        }
        _ => {}
    }
    limit
}

fn groups(raw: Vec<Spanned<raw::Group>>, defaults: &raw::Policy, found: &mut Findings<'_>) -> Vec<Group> {
    if raw.is_empty() {
        found.add(None, "there is no [[group]], so no host would ever be touched", "add a group with a name and a match");
    }
    let read = |value: &Option<Spanned<raw::Number>>, key: &str, which, found: &mut Findings<'_>| {
        value.as_ref().map(|value| limit(value, key, which, found))
    };
    let canaries = read(&defaults.canaries, "defaults.canaries", Which::Canaries, found).unwrap_or(Limit::Count(1));
    let width = read(&defaults.max_unavailable, "defaults.max_unavailable", Which::Width, found).unwrap_or(Limit::Percent(10));
    let threshold = read(&defaults.failure_threshold, "defaults.failure_threshold", Which::Threshold, found).unwrap_or(Limit::Count(0));
    let soak = soak_of(&defaults.soak, found).unwrap_or(0);
    on_breach(&defaults.on_breach, found);
    no_window(defaults.window.as_ref(), found);

    let mut groups: Vec<Group> = Vec::new();
    for spanned in raw {
        let at = spanned.span().start;
        let line = found.line(at);
        let group = spanned.into_inner();
        let name = match group.name {
            Some(name) if !name.get_ref().trim().is_empty() => {
                if groups.iter().any(|earlier| earlier.name == *name.get_ref()) {
                    found.add(Some(name.span().start), format!("there are two groups named `{}`", name.get_ref()), "give each group its own name");
                }
                name.into_inner()
            }
            _ => {
                found.add(Some(at), "a group has no name", "add name = \"...\"");
                String::new()
            }
        };
        for after in &group.after {
            if !groups.iter().any(|earlier| earlier.name == *after.get_ref()) {
                let known: Vec<&str> = groups.iter().map(|earlier| earlier.name.as_str()).collect();
                let hint = if known.is_empty() { "no group stands before this one; groups take their turns in the order of the file".to_owned() } else { format!("groups before this one: {}", known.join(", ")) };
                found.add(Some(after.span().start), format!("group `{name}` comes after an unknown group `{}`", after.get_ref()), hint);
            }
        }
        let matches = matcher(group.matches, &name, at, found);
        for earlier in &groups {
            if let Some(why) = earlier.matches.surely_overlaps(&matches).filter(|_| !matches.is_empty()) {
                found.add(Some(at), format!("groups `{}` and `{name}` overlap: {why}", earlier.name), "a host may belong to one group only; make the match of one of them narrower");
            }
        }
        let own_threshold = read(&group.failure_threshold, "failure_threshold", Which::Threshold, found);
        if let (Some(Limit::Count(count)), true) = (own_threshold, only_names(&matches)) {
            let hosts = u32::try_from(matches.names.len()).unwrap_or(u32::MAX);
            if count >= hosts {
                let reason = format!("failure_threshold = {count} can't be reached in group `{name}`: it lists {hosts} host{}", if hosts == 1 { "" } else { "s" });
                let offset = group.failure_threshold.as_ref().map(|value| value.span().start);
                found.add(offset, reason, format!("a threshold of N tolerates N failures; set at most {}", hosts.saturating_sub(1)));
            }
        }
        on_breach(&group.on_breach, found);
        no_window(group.window.as_ref(), found);
        groups.push(Group {
            matches,
            canaries: read(&group.canaries, "canaries", Which::Canaries, found).unwrap_or(canaries),
            max_unavailable: read(&group.max_unavailable, "max_unavailable", Which::Width, found).unwrap_or(width),
            failure_threshold: own_threshold.unwrap_or(threshold),
            threshold_own: own_threshold.is_some(),
            soak_ms: soak_of(&group.soak, found).unwrap_or(soak),
            approval: group.approval.or(defaults.approval).unwrap_or(false),
            line,
            threshold_line: group.failure_threshold.as_ref().map(|value| found.line(value.span().start)),
            name,
        });
    }
    groups
}

fn only_names(matches: &Matcher) -> bool {
    !matches.names.is_empty() && Matcher { names: matches.names.clone(), ..Matcher::default() } == *matches
}

fn matcher(raw: Option<Spanned<raw::Match>>, name: &str, at: usize, found: &mut Findings<'_>) -> Matcher {
    let hint = "name what its hosts have in common, such as match = { labels = { tier = \"canary\" } }";
    let Some(raw) = raw else {
        found.add(Some(at), format!("group `{name}` has no match"), hint);
        return Matcher::default();
    };
    let offset = raw.span().start;
    let raw = raw.into_inner();
    let matches = Matcher {
        labels: raw.labels,
        names: raw.names.into_iter().collect(),
        environment: raw.environment,
        cluster: raw.cluster,
        replication_set: raw.replication_set,
    };
    if matches.is_empty() {
        found.add(Some(offset), format!("group `{name}` asks for nothing and would take every host"), hint);
    }
    matches
}

fn soak_of(value: &raw::Text, found: &mut Findings<'_>) -> Option<u64> {
    let text = value.as_ref()?;
    let ms = duration_ms(text.get_ref());
    if ms.is_none() {
        found.add(Some(text.span().start), format!("soak = \"{}\" is not a duration", text.get_ref()), "write it like \"90s\", \"15m\" or \"2h\"");
    }
    ms
}

fn on_breach(value: &raw::Text, found: &mut Findings<'_>) {
    if let Some(text) = value.as_ref().filter(|text| text.get_ref() != "pause") {
        found.add(Some(text.span().start), format!("on_breach = \"{}\" is not known", text.get_ref()), "write \"pause\"");
    }
}

fn no_window(value: Option<&Spanned<toml::Value>>, found: &mut Findings<'_>) {
    if let Some(window) = value {
        found.add(Some(window.span().start), "maintenance windows are not supported yet", "remove window, and pause and resume by hand");
    }
}
