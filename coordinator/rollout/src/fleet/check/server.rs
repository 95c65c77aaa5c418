//! `[server]`.

use super::super::error::Findings;
use super::super::raw::{self, Spanned};
use super::super::{Lines, Pmm2Clients, Server, Trust};
use super::{NO_RELEASE, release, text_of};
use fleet_common::server::Pmm2Update;
use fleet_common::version::PmmVersion;

pub(super) fn server(
    raw: Option<Spanned<raw::OneOrMany<raw::Server>>>,
    lines: &mut Lines,
    found: &mut Findings<'_>,
) -> Server {
    let (at, mut servers) = match raw {
        Some(raw) => (Some(raw.at()), raw.into_inner().0),
        None => (None, Vec::new()),
    };
    lines.server = at.map(|at| found.line(at));
    if servers.len() > 1 {
        found.add(
            at,
            "more than one [[server]]: one PMM Server at a time is supported",
            "keep one, and give each of the others a fleet file and a coordinator of its own",
        );
    }
    if servers.is_empty() {
        found.add(
            at,
            "there is no [server]",
            "add a [server] table with url, credential_file, docker and target",
        );
        servers.push(raw::Server::default());
        return read_server(servers.remove(0), None, lines, &mut Findings::new("", ""));
    }
    read_server(servers.remove(0), at, lines, found)
}

fn read_server(raw: raw::Server, at: Option<usize>, lines: &mut Lines, found: &mut Findings<'_>) -> Server {
    let required = |value: raw::Text, key: &str, example: &str, found: &mut Findings<'_>| match value {
        Some(value) if !value.get_ref().trim().is_empty() => Some(value),
        Some(value) => {
            found.add(
                Some(value.at()),
                format!("server.{key} is empty"),
                format!("for example {key} = {example}"),
            );
            None
        }
        None => {
            found.add(
                at,
                format!("server.{key} is missing"),
                format!("for example {key} = {example}"),
            );
            None
        }
    };
    let url =
        required(raw.url, "url", "\"https://pmm.example.com\"", found).map_or_else(String::new, |url| {
            if !url.get_ref().starts_with("https://") && !url.get_ref().starts_with("http://") {
                found.add(
                    Some(url.at()),
                    format!("server.url = \"{}\" is not an http address", url.get_ref()),
                    "begin it with https://",
                );
            }
            url.into_inner().trim_end_matches('/').to_owned()
        });
    let credential_file = text_of(
        required(
            raw.credential_file,
            "credential_file",
            "\"/etc/pmm-coordinator/pmm-admin\"",
            found,
        ),
        &mut lines.credential_file,
        found,
    );
    let target = required(raw.target, "target", "\"3.9.1\"", found).map_or(NO_RELEASE, |target| {
        lines.server_target = Some(found.line(target.at()));
        let version = release(&target, "server.target", found);
        if version != NO_RELEASE && !(2..=3).contains(&version.major) {
            found.add(
                Some(target.at()),
                format!("no path to server.target = \"{version}\": only PMM 2 and 3 are known"),
                "set a PMM 3 release",
            );
        }
        version
    });
    let fingerprint_at = raw.fingerprint.as_ref().map(|text| text.at());
    let ca_file = text_of(raw.ca_file, &mut lines.ca_file, found);
    let trust = match (ca_file, raw.fingerprint) {
        (Some(_), Some(_)) => {
            found.add(
                fingerprint_at,
                "both server.ca_file and server.fingerprint are given",
                "keep one of them",
            );
            Trust::System
        }
        (Some(file), None) => Trust::CaFile(file),
        (None, Some(text)) => {
            let hex: String = text
                .get_ref()
                .trim_start_matches("sha256:")
                .replace(':', "")
                .to_ascii_lowercase();
            if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                found.add(
                    fingerprint_at,
                    "server.fingerprint is not a SHA-256",
                    "write sha256: and 64 hex digits",
                );
            }
            Trust::Fingerprint(hex)
        }
        (None, None) => Trust::System,
    };
    let docker = raw.docker.unwrap_or_default();
    lines.docker = docker
        .endpoint
        .as_ref()
        .or(docker.container.as_ref())
        .map(|text| found.line(text.at()))
        .or(lines.server);
    let docker_endpoint = docker.endpoint.map_or_else(
        || "unix:///var/run/docker.sock".to_owned(),
        |endpoint| {
            if !endpoint.get_ref().starts_with("unix://") {
                found.add(
                    Some(endpoint.at()),
                    format!("Docker endpoint \"{}\" is not supported", endpoint.get_ref()),
                    "use unix:///path/to/docker.sock",
                );
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
                found.add(
                    Some(text.at()),
                    format!("server.pmm2_update = \"{other}\" is not known"),
                    "write \"image\" or \"api\"",
                );
                Pmm2Update::Image
            }
        },
    };
    let pmm2_clients = raw.pmm2_clients.map_or(Pmm2Clients::Undecided, |raw| {
        read_pmm2_clients(raw, target, lines, found)
    });
    let host = url
        .split("://")
        .nth(1)
        .unwrap_or("")
        .split(['/', ':'])
        .next()
        .unwrap_or("")
        .to_owned();
    Server {
        name: raw.name.map_or(host, Spanned::into_inner),
        url,
        credential_file: credential_file.unwrap_or_default(),
        trust,
        docker_endpoint,
        container: docker
            .container
            .map_or_else(|| "pmm-server".to_owned(), Spanned::into_inner),
        image_repository: raw
            .image_repository
            .map_or_else(|| "percona/pmm-server".to_owned(), Spanned::into_inner),
        target,
        pmm2_update,
        pmm2_clients,
    }
}

fn read_pmm2_clients(
    raw: raw::Pmm2Clients,
    target: PmmVersion,
    lines: &mut Lines,
    found: &mut Findings<'_>,
) -> Pmm2Clients {
    match (raw.bridge, raw.accept_gap) {
        (Some(bridge), None) => {
            let at = bridge.at();
            lines.pmm2_clients = Some(found.line(at));
            let version = release(&bridge, "server.pmm2_clients.bridge", found);
            if version != NO_RELEASE && target != NO_RELEASE && (version.major != 3 || version >= target) {
                found.add(
                    Some(at),
                    format!("bridge {version} is not a PMM 3 release before the target {target}"),
                    "name a release such as \"3.2.0\" that still guarantees PMM 2 clients",
                );
            }
            Pmm2Clients::Bridge(version)
        }
        (None, Some(gap)) => {
            lines.pmm2_clients = Some(found.line(gap.at()));
            Pmm2Clients::AcceptGap(release(&gap, "server.pmm2_clients.accept_gap", found))
        }
        (Some(bridge), Some(_)) => {
            found.add(
                Some(bridge.at()),
                "both bridge and accept_gap are given",
                "decide for one of them",
            );
            Pmm2Clients::Undecided
        }
        (None, None) => Pmm2Clients::Undecided,
    }
}
